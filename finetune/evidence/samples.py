"""Sampled inputs of a layer and their second moments: the common ground of all least squares here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evidence.layer import Work
from rramsim.blackbox.codes import adc_code_max, dac_codes
from rramsim.blackbox.mapping import unsubtracted, weights_from_levels
from rramsim.blackbox.protocol import Reading

__all__ = ["Probes", "Samples", "TileOutputs", "probe_count", "sample_count", "take_samples"]

LEAST = 4096  # vectors at least (or all there are)
PER_ROW = 12  # vectors per row of the layer
MOST = 8192  # vectors at most: memory and time per weight stop growing with the layer
PROBES_PER_ROW = 16  # designed vectors per row of the layer
BLOCK = 4096  # samples multiplied at a time
FILLED = 0.7  # share of the converter's range that they may fill


def sample_count(n_rows: int, n_vectors: int) -> int:
    """Vectors that least squares reads per step."""
    return min(n_vectors, max(LEAST, min(PER_ROW * n_rows, MOST)))


class TileOutputs:
    """Outputs of the sampled vectors, normalised and per row tile."""

    def __init__(self, tiles: NDArray[np.float32], saturated: NDArray[np.bool_]) -> None:
        self.tiles = tiles  # (n_row_tiles, n_samples, n_cols)
        self.saturated = saturated  # same shape

    @property
    def total(self) -> NDArray[np.float32]:
        """Sum over row tiles, centred, shape (n_samples, n_cols)."""
        y = self.tiles.sum(axis=0)
        return y - y.mean(axis=0)


class Samples:
    """Some of a layer's vectors with their targets, in normalised units, all centred.

    Attributes
    ----------
    picks : ndarray
        Which vectors.
    x : float32 ndarray, shape (n_samples, n_rows)
        Inputs [DAC codes], centred: offsets are the host's business. With one cell per weight, less their
        part along the sum of all inputs, which the host sees to as well (`HostLayer.common`).
    gram : float64 ndarray, shape (n_rows, n_rows)
        Covariance ``X'X / n``.
    target : float32 ndarray, shape (n_samples, n_cols)
        Wanted outputs, normalised and centred.
    ideal : float64 ndarray, shape (n_rows, n_cols)
        The network's own weights, normalised.
    weights : ndarray, shape (n_cols,)
        `Work.column_weights`.
    single : bool
        Whether products over samples may be summed in single precision, see `inner_product`.
    importance : ndarray, shape (n_cols,)
        Weight of a column's squared error: `weights` over the variance of its target.
    reads : int
        Reads of every vector, of which `read` returns the mean.
    """

    def __init__(self, work: Work, n_samples: int, follow: float = 1.0, weights: str = "variance") -> None:
        host = work.host
        self.work = work
        self.picks = work.sample(n_samples)
        raw = work.codes[self.picks].astype(np.float32)
        self._common = _direction(raw) if host.common is not None else None
        self.single = self._common is None
        raw -= raw.mean(axis=0)
        self.x: NDArray[np.float32] = self._without_common(raw)
        n = len(self.picks)
        self.gram = inner_product(self.x, self.x, self.single) / n
        self.ideal = work.weights / host.scale
        target: Any = work.target[self.picks] / (host.scale * host.x_step).astype(np.float32)
        variance = target.var(axis=0, dtype=np.float64)
        if host.zero_point is not None:
            self.ideal = self.ideal + host.zero_point
        target -= target.mean(axis=0)
        target = self._without_common(target)
        if follow < 1.0:
            local = self.x @ self.ideal.astype(np.float32)
            target = np.float32(follow) * target + np.float32(1.0 - follow) * local
        self.target = target
        self.reads = 1  # of every vector, of which the mean counts; see `finetune.evidence.identify.learn`
        self.weights = work.column_weights(weights)
        self.importance = self.weights / np.maximum(variance, 1e-3 * max(variance.mean(), 1e-30))

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.picks)

    def read(self) -> TileOutputs:
        """Outputs of the present state."""
        codes = self.work.codes[self.picks]
        outputs = _mean(
            self.reads, lambda: _normalised(self.work, codes, self.work.read(self.picks, per_tile=True))
        )
        if self._common is not None:
            outputs.tiles = np.stack([self._without_common(tile) for tile in outputs.tiles])
        return self.without_reference(outputs)

    def without_reference(self, outputs: TileOutputs) -> TileOutputs:
        """Outputs less the error that was found of the reference lines (`HostLayer.reference_error`)."""
        host = self.work.host
        if host.reference_error is None or host.reference_of is None:
            return outputs
        error = host.reference_error.astype(np.float32)
        for tile, (top, bottom) in enumerate(self.work.row_tiles):
            outputs.tiles[tile] -= (self.x[:, top:bottom] @ error[top:bottom])[:, host.reference_of]
        return outputs

    def _without_common(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values (n_samples, any) less what a multiple of the inputs' sum gives: the host's business."""
        if self._common is None:
            return values
        return values - np.multiply.outer(self._common, self._common @ values)

    def error(self, total: NDArray[np.float32]) -> float:
        """Mean over columns of the squared error relative to the target's variance."""
        return float(np.mean(np.square(self.target - total).mean(axis=0) * self.importance))

    def slope(self, residual: NDArray[Any]) -> NDArray[np.float64]:
        """``X' residual / n``."""
        return inner_product(self.x, residual, self.single) / self.n

    def stored(self) -> NDArray[np.float64]:
        """Weights that the written levels stand for (an unwritten layer is reset)."""
        host, sheet, info = self.work.host, self.work.sheet, self.work.info
        if host.levels is None:
            levels = np.zeros((info.n_rows, info.n_cols, info.cells_per_weight), dtype=np.int64)
            return weights_from_levels(levels, sheet.mapping, sheet.levels)
        return weights_from_levels(host.levels, sheet.mapping, sheet.levels)


def _mean(n_reads: int, read: Callable[[], TileOutputs]) -> TileOutputs:
    """Mean of several readings; an output counts as saturated if any of its conversions was."""
    outputs = read()
    for _ in range(n_reads - 1):
        more = read()
        outputs.tiles += more.tiles
        outputs.saturated |= more.saturated
    if n_reads > 1:
        outputs.tiles /= np.float32(n_reads)
    return outputs


def inner_product(x: NDArray[np.float32], y: NDArray[Any], single: bool) -> NDArray[np.float64]:
    """``x' y``; in double precision, a block of samples at a time, unless `single` will do, in half the time.

    Sums in single precision err by 1e-7 of the strongest direction of the inputs. With the inputs' sum taken
    out, the weights' mean meets nothing else, and less than that is what keeps it at its prior.
    """
    if single:
        return (x.T @ y).astype(np.float64)
    total = np.zeros((x.shape[1], y.shape[1]))
    for first in range(0, len(x), BLOCK):
        block = slice(first, first + BLOCK)
        total += x[block].astype(np.float64).T @ y[block].astype(np.float64)
    return total


def _normalised(work: Work, driven: NDArray[np.integer], reading: Reading) -> TileOutputs:
    """Codes of `mvm` per tile, shape (n, n_row_tiles, n_cols), as a `TileOutputs`."""
    by_tile = np.ascontiguousarray(reading.codes.transpose(1, 0, 2))
    codes: NDArray[np.float32] = (by_tile * work.unit.astype(np.float32)).astype(np.float32)
    constant = unsubtracted(work.sheet)
    if constant:
        for tile, (top, bottom) in enumerate(work.row_tiles):
            codes[tile] -= (np.float32(constant) * driven[:, top:bottom].sum(axis=1, dtype=np.float32))[
                :, None
            ]
    return TileOutputs(codes, np.ascontiguousarray(reading.saturated.transpose(1, 0, 2)))


def _direction(raw: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Centred sums of the inputs over rows, of length 1, shape (n_samples,); None where they do not vary."""
    total = raw.sum(axis=1)
    total = total - total.mean()
    length = float(np.linalg.norm(total))
    return None if length < 1e-3 else (total / np.float32(length)).astype(np.float32)


class Probes:
    """Vectors of the tuner's own design, for identification at tier PROBE: that is write-verify.

    Each drives a random subset of the rows alike, about as many as carry the energy of the layer's natural
    inputs, for which its converters are set (single rows, that is one-hot vectors, where that is one),
    and no harder than the converters bear. Unlike activations they span all directions.

    Attributes
    ----------
    codes : int32 ndarray, shape (n, n_rows)
    x, gram, single : as of `Samples`.
    """

    single = True

    def __init__(self, work: Work, natural: Samples) -> None:
        rng = work.rng("probe")
        n_rows = work.info.n_rows
        high = dac_codes(work.sheet.dac_bits, work.host.signed)[1]
        share = float(np.diag(natural.gram).mean()) / high**2
        share = float(np.clip(share, 1.0 / n_rows, 0.5))
        self.work = work
        self.n = probe_count(n_rows)
        self.reads = natural.reads
        driven = rng.random((self.n, n_rows)) < share
        driven[np.arange(self.n), np.arange(self.n) % n_rows] = True  # every row in turn
        sign = rng.choice([-1, 1], driven.shape) if work.host.signed else 1
        pattern = np.where(driven, sign, 0)
        self.codes = (pattern * self._amplitude(natural, pattern, high)).astype(np.int32)
        raw = self.codes.astype(np.float32)
        self.x = raw - raw.mean(axis=0)
        self.gram = (self.x.T @ self.x).astype(np.float64) / self.n

    def _amplitude(self, natural: Samples, pattern: NDArray[np.int64], high: int) -> int:
        """Largest code at which the written levels would leave room in the converters of every tile."""
        work, stored = self.work, natural.stored()
        limit = FILLED * adc_code_max(work.sheet.adc_bits) * work.unit
        fullest = max(
            float((np.quantile(np.abs(pattern[:, a:b] @ stored[a:b]), 0.99, axis=0) / limit).max())
            for a, b in work.info.row_tiles
        )
        return int(np.clip(high / max(fullest * high, 1.0), 1, high))

    def read(self) -> TileOutputs:
        """Outputs of the present state."""
        return _mean(
            self.reads,
            lambda: _normalised(self.work, self.codes, self.work.answers(self.codes, per_tile=True)),
        )


def probe_count(n_rows: int) -> int:
    """Vectors of `Probes`."""
    return PROBES_PER_ROW * n_rows


def take_samples(work: Work, follow: float = 1.0, weights: str = "variance") -> Samples:
    """Samples of the usual number, made once per layer and pass."""
    cached = work.samples
    if cached is None or cached[0] != (follow, weights):
        n = sample_count(work.info.n_rows, len(work.codes))
        cached = ((follow, weights), Samples(work, n, follow, weights))
        work.samples = cached
    return cached[1]
