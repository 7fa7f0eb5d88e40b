"""Read noise and telegraph noise from repeated reads of one written state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NoiseFit", "fit_noise"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NEAR = 3.0  # successive reads within this ratio of times are repeats of one state
MIN_PAIRS = 30
MIN_READS = 20  # reads of one state that can show two states
DECISIVE = 20.0  # gain in BIC that two states need


@dataclass(frozen=True)
class NoiseFit:
    """Spread of repeated reads, and cells that show two states."""

    parameters: dict[str, Any]  # of [cells.read_noise]
    sigmas: Floats  # [S] per level; nan where nothing was repeated
    errors: Floats  # [S] standard errors
    n_pairs: int
    telegraph: float | None  # share of cells with two states; None where too few reads
    n_long: int  # states with enough reads to tell


def fit_noise(g: Floats, key: Ints, time: Floats | None, level: Ints, means: Floats) -> NoiseFit | None:
    """Noise of reads from differences between successive reads of one write.

    Parameters
    ----------
    g : ndarray, shape (n,)
        Conductances [S], in order of reading within each write.
    key, level : ndarray of int, shape (n,)
        Number of the write, and its level.
    time : ndarray, shape (n,), optional
        [s]; reads farther apart than a factor of 3 are left to drift.
    means : ndarray, shape (n_levels,)
    """
    order = np.lexsort((time, key)) if time is not None else np.argsort(key, kind="stable")
    g, key, level = g[order], key[order], level[order]
    pair = key[1:] == key[:-1]
    if time is not None:
        t = time[order]
        pair &= (t[1:] == t[:-1]) | ((t[:-1] > 0.0) & (t[1:] < NEAR * t[:-1]))
    if pair.sum() < MIN_PAIRS:
        return None
    # half the mean square of successive differences: slow changes drop out (von Neumann, 1941)
    square, at = 0.5 * np.diff(g)[pair] ** 2, level[1:][pair]
    counts = np.bincount(at, minlength=len(means)).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigmas = np.sqrt(np.bincount(at, square, minlength=len(means)) / counts)
        # neighbouring differences share a read: their variance is 3/2 of independent ones'
        errors = sigmas * np.sqrt(1.5 / (2.0 * counts))
    used = (counts >= 3) & (sigmas > 0.0)
    if not used.any():
        return None
    parameters = _describe(sigmas[used], means[used], counts[used])
    share, n_long = _two_states(g, key)
    return NoiseFit(parameters, sigmas, errors, int(pair.sum()), share, n_long)


def _describe(sigmas: Floats, means: Floats, counts: Floats) -> dict[str, Any]:
    """Constant, proportional to G, or linear in G, by BIC."""
    unit = float(means[-1])
    x, weight = means / unit, counts / (1.5 * sigmas**2)

    def bic(sigma: Any, n_free: int) -> float:
        if (sigma <= 0.0).any():
            return np.inf
        cost = (counts / 1.5 * (2.0 * np.log(sigma) + (sigmas / sigma) ** 2)).sum()
        return float(cost + n_free * np.log(counts.sum()))

    options: list[tuple[float, dict[str, Any]]] = []
    constant = float(np.sqrt((counts * sigmas**2).sum() / counts.sum()))
    options.append((bic(np.full(len(x), constant), 1), {"sigma_polynomial": [constant]}))
    if len(x) > 1:
        relative = float(np.sqrt((counts * (sigmas / means) ** 2).sum() / counts.sum()))
        options.append((bic(relative * means, 1), {"sigma_relative": relative}))
        for degree in range(1, min(3, len(x) - 1)):
            c = np.polynomial.polynomial.polyfit(x, sigmas, degree, w=np.sqrt(weight))
            value = bic(np.polynomial.polynomial.polyval(x, c), degree + 1)
            options.append((value, {"sigma_polynomial": c.tolist(), "g_reference": unit}))
    return min(options, key=lambda option: option[0])[1]


def _two_states(g: Floats, key: Ints) -> tuple[float | None, int]:
    """Share of states with many reads whose reads fall into two groups."""
    counts = np.bincount(key)
    long = np.flatnonzero(counts >= MIN_READS)[:2000]
    if len(long) < 10:
        return None, len(long)
    first = np.searchsorted(key, long)
    found = 0
    for start, n in zip(first, counts[long], strict=True):
        x = np.sort(g[start : start + n])
        one = n * np.log(max(x.var(), 1e-300))
        k = np.arange(3, n - 2)
        below, squares = np.cumsum(x), np.cumsum(x * x)
        left = squares[k - 1] - below[k - 1] ** 2 / k
        right = squares[-1] - squares[k - 1] - (below[-1] - below[k - 1]) ** 2 / (n - k)
        # splitting one normal sample in the middle lowers the variance to 1 - 2/pi of itself
        best = np.argmin(left + right)
        inner = max((left[best] + right[best]) / n, 1e-300)
        share = k[best] / n
        two = n * np.log(inner) - 2 * n * (share * np.log(share) + (1 - share) * np.log(1 - share))
        gap = below[-1] / n  # scale only for the guard against rounding
        found += bool(one - two > DECISIVE + 2 * np.log(n)) and inner > 1e-24 * gap**2
    return found / len(long), len(long)
