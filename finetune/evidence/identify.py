"""System identification: the realised weights of a layer from its inputs and outputs alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evidence.layer import Work
from finetune.evidence.posterior import posterior_columns, posterior_flops
from finetune.evidence.samples import Probes, Samples, TileOutputs, inner_product
from rramsim.blackbox.codes import adc_code_max
from rramsim.blackbox.mapping import reference_level
from rramsim.blackbox.protocol import Datasheet, LayerInfo
from rramsim.checks import InputError

__all__ = [
    "ROUNDING",
    "Estimate",
    "WriteSpread",
    "cell_factors",
    "cell_unit",
    "cell_zero",
    "converter_noise",
    "find_reference_error",
    "identify",
    "identify_flops",
    "needed_reads",
    "noise_variance",
    "observe_spread",
    "weight_variance",
]

NOISE_VECTORS = 512  # vectors read twice for the noise of a reading
MOST_BLUR = 0.05  # share of the energy of write errors that noise may add to them
MOST_READS = 8  # of every vector, in identification
FLUCTUATING = 2.25  # variance of readings over that of their ADCs from which cells are held to fluctuate
LEAST_NOISE = 1e-5  # of the variance of the outputs
ROUNDING = 1.0 / 12.0  # variance of rounding to integer codes, in codes squared


def cell_unit(work: Work) -> float:
    """Conductance [S] in which cells are counted: g_unit, or the window where a weight is sliced."""
    sheet = work.sheet
    return sheet.levels[-1] - sheet.levels[0] if sheet.mapping == "sliced" else work.info.g_unit


def cell_factors(sheet: Datasheet, n_cells: int) -> NDArray[np.float64]:
    """Weight of a `cell_unit` of conductance in each cell of a weight, shape (n_cells,).

    (1, -1) for a pair, (1,) for one cell against a reference, and for slices the digits' shares, most
    significant first, such as (0.94, -0.94, 0.06, -0.06).
    """
    if n_cells == 1:
        return np.ones(1)
    shares = np.ones(1)
    if sheet.mapping == "sliced":
        powers = float(sheet.n_levels) ** np.arange(n_cells // 2)[::-1]
        shares = powers * (sheet.n_levels - 1) / (powers[0] * sheet.n_levels - 1)
    return np.stack([shares, -shares], axis=1).ravel()


def cell_zero(work: Work) -> float:
    """Conductance, in `cell_unit`, from which a single cell's weight counts: that of the middle level."""
    if work.sheet.mapping != "reference":
        return 0.0
    return float(work.sheet.levels[reference_level(work.sheet.n_levels)] / cell_unit(work))


def noise_variance(work: Work, samples: Samples) -> NDArray[np.float64]:
    """Variance of one conversion: half the mean square of two reads' difference, and rounding.

    At least 1e-5 of the outputs' own: no chip is linear to better than that, clipped samples included, and
    without a floor directions that the inputs lack are fitted to rounding.

    Returns
    -------
    ndarray, shape (n_cols,)
        In normalised units squared, per row tile (of the sum of them where the chip tells no more).
    """
    picks = samples.picks[:: max(1, samples.n // NOISE_VECTORS)]
    first, second = work.read(picks, per_tile=True), work.read(picks, per_tile=True)
    difference = (first.codes - second.codes).astype(np.float64)
    # rounding is part of the difference already, unless there is too little noise to dither it
    roundings = 1 if work.sheet.tile_codes else len(work.info.row_tiles)
    variance = max(0.5 * float(np.square(difference).mean()), roundings * ROUNDING)
    least = LEAST_NOISE * samples.target.var(axis=0, dtype=np.float64)
    if variance > FLUCTUATING * converter_noise(work) ** 2:  # cells fluctuate: columns differ in it
        own = 0.5 * np.square(difference).mean(axis=(0, 1))
        return np.maximum(np.maximum(own, roundings * ROUNDING) * np.square(work.unit), least)
    return np.maximum(variance * np.square(work.unit), least)


def converter_noise(work: Work) -> float:
    """Standard deviation [codes] of a reading of `Work.row_tiles` if only the datasheet's ADCs are noisy."""
    sheet = work.sheet
    lsb = sheet.adc_noise * adc_code_max(sheet.adc_bits) / adc_code_max(8)
    return float(np.sqrt((1 if sheet.tile_codes else len(work.info.row_tiles)) * (ROUNDING + lsb**2)))


@dataclass
class WriteSpread:
    """What a write leaves around a level of conductance u: ``var = relative**2 u**2 + absolute**2``.

    Conductances are in units of `cell_unit`. Learnt by empirical Bayes, pooled over the layers tuned so
    far: the mean square of an output's deviation is linear in both variances.

    Attributes
    ----------
    normal : ndarray, shape (2, 2), and rhs : ndarray, shape (2,)
        Normal equations of the fit so far.
    """

    normal: NDArray[np.float64]
    rhs: NDArray[np.float64]
    scale: float = 1.0

    @classmethod
    def unknown(cls, scale: float = 1.0) -> WriteSpread:
        """Before any reading: spreads of 0.25 and 0.015, worth a column or two of evidence."""
        weights = np.array([50.0, 5000.0])
        return cls(np.diag(weights), weights * np.square([0.25, 0.015]), scale)

    @property
    def variances(self) -> tuple[float, float]:
        """Relative and absolute variance, both >= 0 by non-negative least squares."""
        (a, _), (_, b) = self.normal
        y, z = self.rhs
        both = np.linalg.solve(self.normal, self.rhs)
        if both.min() < 0:
            options = [np.array([max(y / a, 0.0), 0.0]), np.array([0.0, max(z / b, 0.0)])]
            both = min(options, key=lambda v: float(v @ self.normal @ v - 2 * v @ self.rhs))
        relative, absolute = both * self.scale**2
        return float(max(relative, 1e-6)), float(max(absolute, 1e-8))

    def of(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Variance of a write to conductance u."""
        relative, absolute = self.variances
        return relative * np.square(u) + absolute


def observe_spread(
    spread: WriteSpread,
    samples: Samples,
    reading: TileOutputs,
    conductance: NDArray[np.float64],
    noise: NDArray[np.float64],
) -> None:
    """Add a layer's evidence: outputs minus what the written levels stand for.

    Parameters
    ----------
    conductance : ndarray, shape (n_rows, n_cols, n_cells)
        Nominal conductances written, in units of `cell_unit`.
    noise : ndarray, shape (n_cols,)
        Variance of one conversion.
    """
    factors = cell_factors(samples.work.sheet, conductance.shape[2])
    nominal = conductance @ factors - cell_zero(samples.work)
    energy = np.diag(samples.gram)
    features, squares = [], []
    for tile, (top, bottom) in enumerate(samples.work.row_tiles):
        predicted = samples.x[:, top:bottom] @ nominal[top:bottom].astype(np.float32)
        residual = reading.tiles[tile] - predicted
        residual -= residual.mean(axis=0)
        free = ~reading.saturated[tile]
        count = np.maximum(free.sum(axis=0), 1)
        squares.append((np.square(residual) * free).sum(axis=0) / count - noise)
        relative = energy[top:bottom] @ np.square(conductance[top:bottom] * factors).sum(axis=2)
        absolute = energy[top:bottom].sum() * float(np.square(factors).sum())
        features.append(np.stack([relative, np.full(relative.size, absolute)], axis=1))
    a, y = np.concatenate(features), np.concatenate(squares)
    # the scatter of a sum of squares grows with its mean: divide by a first guess of it
    size = np.maximum(a @ np.array([0.1, 0.005]), 1e-30)
    a, y = a / size[:, None], y / size
    spread.normal += a.T @ a
    spread.rhs += a.T @ y


@dataclass
class Estimate:
    """Posterior of a layer's weights, normalised."""

    weights: NDArray[np.float64]  # (n_rows, n_cols), mean
    variance: NDArray[np.float64]  # same shape
    prior_variance: NDArray[np.float64]  # same shape, outliers widened

    @property
    def determined(self) -> NDArray[np.float64]:
        """Share of the prior variance that the outputs have removed, 0 to 1, per weight."""
        return 1.0 - self.variance / np.maximum(self.prior_variance, 1e-30)


def identify_flops(info: LayerInfo, n_samples: int) -> float:
    """Arithmetic of one reading and `identify`: products with the samples, and posteriors tile by tile."""
    posteriors = sum(posterior_flops(b - a, info.n_cols, n_samples) + (b - a) ** 3 for a, b in info.row_tiles)
    return posteriors + 4.0 * n_samples * info.n_rows * info.n_cols


def identify(
    samples: Samples | Probes,
    reading: TileOutputs,
    prior: NDArray[np.float64],
    variance: NDArray[np.float64],
    noise: NDArray[np.float64],
    *,
    rounds: int = 2,
    tail: float = 4.0,
) -> Estimate:
    """Bayesian ridge regression of outputs on inputs, per column and row tile.

    ``mean = m + (X'X + s^2 V^-1)^-1 X'(Y - X m)``, posterior covariance ``s^2 (X'X + s^2 V^-1)^-1``.
    Rounds before the last share one factorisation between columns and widen the prior of weights that
    stand out, as a Student-t prior with `tail` degrees of freedom does (expectation-maximisation): stuck
    cells. Saturated samples are filled in with the estimate's own prediction, whose fixed point is to
    leave them out. Samples are met once, in ``X'Y``; all else happens among rows
    (`finetune.evidence.posterior`), also where samples are fewer than rows.

    Parameters
    ----------
    prior, variance : ndarray, shape (n_rows, n_cols)
        Prior mean and variance of the weights.
    noise : ndarray, shape (n_cols,)
        Variance of one conversion.
    """
    mean, posterior, widened = prior.copy(), variance.copy(), variance.copy()
    weight = noise / samples.n
    for tile, (top, bottom) in enumerate(samples.work.row_tiles):
        rows = slice(top, bottom)
        gram = samples.gram[rows, rows]
        products = _Products(samples, reading, tile)
        v = np.maximum(variance[rows], 1e-12).copy()
        for turn in range(rounds):
            if turn:
                products.fill(mean[rows])
            slope = products.values - gram @ prior[rows]
            if turn + 1 < rounds:  # a first look: one factorisation with the rows' mean variances
                shared = np.linalg.inv(gram + np.diag(weight.mean() / v.mean(axis=1)))
                step = shared @ slope
                left = weight * np.diag(shared)[:, None]
                v = np.maximum((tail * v + np.square(step) + left) / (tail + 1.0), 0.25 * v)
            else:
                step, inverse = posterior_columns(gram, weight / v, slope, samples.n)
                left = weight * inverse
            mean[rows] = prior[rows] + step
        posterior[rows], widened[rows] = left, v
    return Estimate(mean, posterior, widened)


class _Products:
    """``X'Y / n`` of one row tile, and its changes where saturated samples are filled in."""

    def __init__(self, samples: Samples | Probes, reading: TileOutputs, tile: int) -> None:
        top, bottom = samples.work.row_tiles[tile]
        self._x, self._n, self._single = samples.x[:, top:bottom], samples.n, samples.single
        self._y, self._bad = reading.tiles[tile], reading.saturated[tile]
        centred = self._y - self._y.mean(axis=0)
        self.values = inner_product(self._x, centred, samples.single) / self._n
        self._columns = np.flatnonzero(self._bad.any(axis=0))

    def fill(self, weights: NDArray[np.float64]) -> None:
        """Put what `weights` (n_rows, n_cols) predict in the place of saturated samples."""
        if not self._columns.size:
            return
        y, bad = self._y[:, self._columns], self._bad[:, self._columns]
        predicted = self._x @ weights[:, self._columns].astype(np.float32)
        y = np.where(bad, _offset(y, predicted, bad), y)
        filled = inner_product(self._x, y - y.mean(axis=0), self._single)
        self.values[:, self._columns] = filled / self._n


def _offset(y: NDArray[Any], predicted: NDArray[Any], bad: NDArray[np.bool_]) -> NDArray[Any]:
    """Predictions shifted to the unsaturated readings' mean, column by column."""
    good = ~bad
    count = np.maximum(good.sum(axis=0), 1)
    return predicted + ((y - predicted) * good).sum(axis=0) / count


def learn(
    work: Work, samples: Samples, reading: TileOutputs, scale: float
) -> tuple[WriteSpread, NDArray[np.float64], TileOutputs]:
    """Spread of writes from all layers so far, noise of this layer's readings, and a reading of that noise.

    Where noise of single reads would blur the identification, `samples.reads` is raised: this and later
    readings are means of several, and the noise returned is theirs.
    """
    noise = noise_variance(work, samples)
    known = work.knowledge
    if known.spread_rhs.size:
        spread = WriteSpread(known.spread_normal.copy(), known.spread_rhs.copy(), scale)
    else:
        spread = WriteSpread.unknown(scale)
    observe_spread(spread, samples, reading, conductances(work), noise)
    known.spread_normal, known.spread_rhs = spread.normal.copy(), spread.rhs.copy()
    samples.reads = needed_reads(work, samples, spread, noise)
    if samples.reads > 1:
        reading = samples.read()
        noise = np.maximum(noise / samples.reads, ROUNDING * np.square(work.unit))
    return spread, noise, reading


def needed_reads(work: Work, samples: Samples, spread: WriteSpread, noise: NDArray[np.float64]) -> int:
    """Reads of every vector until noise adds little to what is identified.

    Fitting n_rows weights to n samples takes the share n_rows / n of a reading's noise for error of
    the cells. That must stay below `MOST_BLUR` of the outputs' energy that errors of writes really cause.
    Rounding is no noise of single reads: averaging leaves it.
    """
    random = float(np.mean(noise - ROUNDING * np.square(work.unit)))
    energy, variance = np.diag(samples.gram), weight_variance(work, spread)
    blurred = caused = 0.0
    for top, bottom in work.row_tiles:
        blurred += max(random, 0.0) * min((bottom - top) / samples.n, 1.0)
        caused += float((energy[top:bottom] @ variance[top:bottom]).mean())
    return int(np.clip(np.ceil(blurred / max(MOST_BLUR * caused, 1e-300)), 1, MOST_READS))


def find_reference_error(work: Work, samples: Samples, outputs: TileOutputs) -> None:
    """Estimate the error of each reference line, common to all columns of a tile, for the host to take off.

    Every column tells of it with its own cells' errors on top: its identified deviation from the written
    levels is ``d_ij = determined_ij (delta_i + own_ij)``. With the variances v_ij of own errors and v of the
    reference cell's, ``delta_i = sum_j d_ij / v_ij / (sum_j determined_ij / v_ij + 1 / v)``. Nothing is done
    where there is no reference line. The estimate goes to `HostLayer.reference_error`.
    """
    sheet, host, info = work.sheet, work.host, work.info
    if sheet.mapping != "reference" or sheet.reference != "line" or host.reference_error is not None:
        return
    noise = noise_variance(work, samples)
    spread, g = WriteSpread.unknown(), conductances(work)
    if work.knowledge.spread_rhs.size:
        spread = WriteSpread(work.knowledge.spread_normal.copy(), work.knowledge.spread_rhs.copy())
    level = reference_level(sheet.n_levels) if sheet.reference_level is None else sheet.reference_level
    shared = float(spread.of(np.asarray(sheet.levels[level] / cell_unit(work))))
    own = spread.of(g)[:, :, 0]
    nominal = samples.stored()
    estimate = identify(samples, outputs, nominal, own + shared, noise)
    per_tile = sheet.tile_cols - 1 if info.n_col_tiles > 1 else info.n_cols
    tiles = np.arange(info.n_cols) // per_tile
    known = np.clip(estimate.determined, 0.0, 1.0) / own
    error = np.empty((info.n_rows, int(tiles[-1]) + 1))
    for tile in range(error.shape[1]):
        part = tiles == tile
        seen = ((estimate.weights - nominal) / own)[:, part].sum(axis=1)
        error[:, tile] = seen / (known[:, part].sum(axis=1) + 1.0 / shared)
    host.reference_error, host.reference_of = error, tiles


def conductances(work: Work) -> NDArray[np.float64]:
    """Nominal conductance of every cell, in units of `cell_unit`, shape (n_rows, n_cols, n_cells)."""
    sheet = work.sheet
    levels = work.host.levels
    if levels is None:
        raise InputError(f"layer {work.layer!r} was never written: identification needs its levels")
    return np.asarray(sheet.levels)[levels] / cell_unit(work)


def weight_variance(work: Work, spread: WriteSpread) -> NDArray[np.float64]:
    """Variance of every weight after its cells were written, shape (n_rows, n_cols)."""
    g = conductances(work)
    factors = cell_factors(work.sheet, g.shape[2])
    return (spread.of(g) * np.square(factors)).sum(axis=2)
