"""Sampled inputs of a layer and their second moments: the common ground of all least squares here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.strategies.work import Work
from rramsim.mapping import weights_from_levels

__all__ = ["Reading", "Samples", "sample_count", "take_samples"]

LEAST = 4096  # vectors at least (or all there are)
PER_ROW = 12  # vectors per row of the layer


def sample_count(n_rows: int, n_vectors: int) -> int:
    """Vectors that least squares reads per step."""
    return min(n_vectors, max(LEAST, PER_ROW * n_rows))


class Reading:
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
        Inputs [DAC codes], centred: offsets are the host's business.
    gram : float64 ndarray, shape (n_rows, n_rows)
        Covariance ``X'X / n``.
    target : float32 ndarray, shape (n_samples, n_cols)
        Wanted outputs, normalised and centred.
    ideal : float64 ndarray, shape (n_rows, n_cols)
        The network's own weights, normalised.
    weights : ndarray, shape (n_cols,)
        `Work.column_weights`.
    importance : ndarray, shape (n_cols,)
        Weight of a column's squared error: `weights` over the variance of its target.
    """

    def __init__(self, work: Work, n_samples: int, follow: float = 1.0, weights: str = "variance") -> None:
        host = work.host
        self.work = work
        self.picks = work.sample(n_samples)
        raw = work.codes[self.picks].astype(np.float32)
        self.x = raw - raw.mean(axis=0)
        n = len(self.picks)
        self.gram = (self.x.T @ self.x).astype(np.float64) / n
        self.ideal = work.bench.deployment.weights(work.layer) / host.scale
        target = work.target[self.picks] / (host.scale * host.x_step).astype(np.float32)
        target -= target.mean(axis=0)
        if follow < 1.0:
            local = self.x @ self.ideal.astype(np.float32)
            target = np.float32(follow) * target + np.float32(1.0 - follow) * local
        self.target = target
        variance = target.var(axis=0, dtype=np.float64)
        self.weights = work.column_weights(weights)
        self.importance = self.weights / np.maximum(variance, 1e-3 * max(variance.mean(), 1e-30))

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.picks)

    def read(self) -> Reading:
        """Outputs of the present state."""
        reading = self.work.read(self.picks, per_tile=True)
        unit = self.work.unit.astype(np.float32)
        codes = np.ascontiguousarray(reading.codes.transpose(1, 0, 2)) * unit
        return Reading(codes, np.ascontiguousarray(reading.saturated.transpose(1, 0, 2)))

    def error(self, total: NDArray[np.float32]) -> float:
        """Mean over columns of the squared error relative to the target's variance."""
        return float(np.mean(np.square(self.target - total).mean(axis=0) * self.importance))

    def slope(self, residual: NDArray[Any]) -> NDArray[np.float64]:
        """``X' residual / n``."""
        return (self.x.T @ residual).astype(np.float64) / self.n

    def stored(self) -> NDArray[np.float64]:
        """Weights that the written levels stand for (an unwritten layer is reset)."""
        host, sheet, info = self.work.host, self.work.bench.deployment.chip.datasheet, self.work.info
        if host.levels is None:
            levels = np.zeros((info.n_rows, info.n_cols, info.cells_per_weight), dtype=np.int64)
            return weights_from_levels(levels, sheet.mapping, sheet.levels)
        return weights_from_levels(host.levels, sheet.mapping, sheet.levels)


def take_samples(work: Work, follow: float = 1.0, weights: str = "variance") -> Samples:
    """Samples of the usual number, made once per layer and pass."""
    cached: Any = getattr(work, "samples", None)
    if cached is None or cached[0] != (follow, weights):
        n = sample_count(work.info.n_rows, len(work.codes))
        cached = ((follow, weights), Samples(work, n, follow, weights))
        work.samples = cached
    return cached[1]
