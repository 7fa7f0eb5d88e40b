"""What a layer's first readings say of the chip, beside single weights: gains, offsets, noise, dead lines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune.evidence.identify import Estimate, WriteSpread, converter_noise, weight_variance
from finetune.evidence.layer import Work
from finetune.evidence.samples import Samples, TileOutputs

__all__ = ["HEALTH_STEP", "record_health"]

HEALTH_STEP = "health"  # name of the rows in the history
FAINT = 1e-3  # energy over the largest, below which a column or a weight says nothing
SILENT = 0.15  # share of a line's weights that answers show, below which it counts as dead
FEWEST = 6  # weights that a line must hold to be judged
CLEAR = 3.0  # standard errors
SURE = 4.0  # the same for a line to be dead
OUTLIER = 5.0  # standard deviations of write errors from which a weight stands out
LARGE = 0.2  # and by how much it must be off, in weights of 1
KNOWN = 0.8  # share of a weight's variance that must be determined before it is counted


def record_health(
    work: Work,
    samples: Samples,
    reading: TileOutputs,
    spread: WriteSpread,
    noise: NDArray[np.float64],
    estimate: Estimate,
) -> None:
    """Add a row of what a reading of the present state shows to the history.

    Nothing is read for it. What errors of single writes explain is taken off: `gain_spread` and
    `offset_codes` are what converters have beyond that.

    Parameters
    ----------
    noise : ndarray, shape (n_cols,)
        Variance of the reading's conversions.
    estimate : Estimate
        What was identified from it.
    """
    stored, variance = samples.stored(), weight_variance(work, spread)
    gains, expected, offsets, explained = [], [], [], []
    driven = work.codes[samples.picks].mean(axis=0, dtype=np.float64)
    total = written = 0.0
    for tile, (top, bottom) in enumerate(work.row_tiles):
        rows = slice(top, bottom)
        x, outputs = samples.x[:, rows], reading.tiles[tile]
        constant = outputs.mean(axis=0, dtype=np.float64)
        outputs = outputs - constant.astype(np.float32)
        predicted = x @ stored[rows].astype(np.float32)
        power = np.square(predicted).sum(axis=0, dtype=np.float64)
        product = (predicted * outputs).sum(axis=0, dtype=np.float64)
        clear = power > FAINT * max(power.max(initial=0.0), 1e-300)
        pull = (x.T @ predicted).astype(np.float64)[:, clear]
        gains.append(product[clear] / power[clear])
        own = (np.square(pull) * variance[rows][:, clear]).sum(axis=0) / np.square(power[clear])
        expected.append(own + noise[clear] / power[clear])
        offsets.append((constant - driven[rows] @ stored[rows]) / work.unit)
        explained.append(
            (np.square(driven[rows]) @ variance[rows] + noise / samples.n) / np.square(work.unit)
        )
        total, written = total + float(product.sum()), written + float(power.sum())
    gain = total / max(written, 1e-300)
    # constant parts that columns share with the common mode are the host's business, and not told apart
    common = work.host.common is not None
    bits, words = _dead_lines(work, stored, variance, estimate)
    known = estimate.determined > KNOWN
    apart = np.abs(estimate.weights - stored)
    apart = known & (apart > LARGE) & (apart > OUTLIER * np.sqrt(variance + estimate.variance))
    relative, absolute = spread.variances
    single = float(np.sqrt(np.mean(noise * samples.reads / np.square(work.unit))))
    work.record(
        HEALTH_STEP,
        gain=gain,
        gain_spread=_beyond(np.concatenate(gains) - gain, np.concatenate(expected)),
        offset_codes=0.0 if common else _beyond(np.concatenate(offsets), np.concatenate(explained)),
        noise_codes=single,
        noise_expected=converter_noise(work),
        saturated=float(reading.saturated.mean()),
        dead_bit_lines=float(bits),
        dead_word_lines=float(words),
        known_weights=float(known.sum()),
        outliers=float(apart.sum()),
        sigma_relative=float(np.sqrt(relative)),
        sigma_absolute=float(np.sqrt(absolute)),
        reads=float(samples.reads),
    )


def _beyond(values: NDArray[np.float64], variance: NDArray[np.float64]) -> float:
    """Standard deviation of values beyond their own variances; 0 within `CLEAR` standard errors of that."""
    if values.size < 3:
        return 0.0
    excess = float(np.mean(np.square(values) - variance))
    error = float(np.sqrt(2.0 * np.square(variance).sum()) / values.size)
    return float(np.sqrt(excess)) if excess > CLEAR * error else 0.0


def _dead_lines(
    work: Work, stored: NDArray[np.float64], variance: NDArray[np.float64], estimate: Estimate
) -> tuple[int, int]:
    """Bit lines and word lines whose written weights do not show in the answers.

    A bit line holds the weights of one sign of a column where pairs are subtracted, else all of them.
    """
    square, determined = np.square(stored), np.clip(estimate.determined, 0.0, 1.0)

    def silent(part: NDArray[np.bool_], axis: int) -> int:
        count = part.sum(axis=axis)
        energy = np.where(part, square, 0.0).sum(axis=axis)
        seen = np.where(part, square * determined, 0.0).sum(axis=axis) > 0.5 * energy
        share = np.where(part, estimate.weights * stored, 0.0).sum(axis=axis) / np.maximum(energy, 1e-300)
        doubt = np.where(part, square * (variance + estimate.variance), 0.0).sum(axis=axis)
        clear = 1.0 - share > SURE * np.sqrt(doubt) / np.maximum(energy, 1e-300)
        return int((seen & clear & (count >= FEWEST) & (share < SILENT)).sum())

    held = square > FAINT * max(float(square.max(initial=0.0)), 1e-300)
    signs = [held] if work.sheet.mapping == "reference" else [held & (stored > 0.0), held & (stored < 0.0)]
    bits = 0
    for top, bottom in work.info.row_tiles:
        inside = np.zeros(held.shape, dtype=bool)
        inside[top:bottom] = True
        bits += sum(silent(part & inside, 0) for part in signs)
    return bits, silent(held, 1)
