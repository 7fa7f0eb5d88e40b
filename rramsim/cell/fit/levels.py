"""Programmed levels: means, spreads, the error law and how well it fits."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError

__all__ = ["LawFit", "describe_sigma", "fit_law", "ks_distance", "quantile_table", "standardise"]

N_NULL, SIZE_NULL = 4000, 400  # simulated samples behind the p-values, and their size
REJECT, VISIBLE = 0.01, 0.02  # family-wise level, and smallest KS distance worth an empirical law

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LawFit:
    """One error law fitted to the programmed conductances."""

    law: str  # "normal", "lognormal" or "empirical"
    log_likelihood: float
    ks_distance: float  # largest over levels, between the values and the law
    ks_p_value: float  # smallest over levels times their number (Bonferroni), parameters fitted
    ks_levels: tuple[float, ...] = ()  # distance per level
    p_levels: tuple[float, ...] = ()  # p-value per level, of Lilliefors' test


def standardise(law: str, g: Floats, level: Ints) -> tuple[Floats, Floats]:
    """Residuals over their level's spread (maximum likelihood), and the spreads.

    The law `empirical` gives normal scores: the normal quantile of each value's rank in its level.
    """
    x = np.log(g) if law == "lognormal" else g
    counts = np.bincount(level)
    centre = np.bincount(level, x) / counts
    spread = np.sqrt(np.bincount(level, (x - centre[level]) ** 2) / counts)
    if (spread == 0.0).any():
        raise InputError("all values of a level are equal: no error law can be fitted")
    if law == "empirical":
        from scipy.special import ndtri

        order = np.lexsort((g, level))
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        rank = np.empty(len(g))
        rank[order] = np.arange(len(g)) - np.repeat(first, counts)
        return ndtri((rank + 0.5) / counts[level]), spread
    return (x - centre[level]) / spread[level], spread


def ks_distance(z: Floats) -> float:
    """Kolmogorov-Smirnov distance to the standard normal distribution."""
    from scipy.special import ndtr

    p, n = ndtr(np.sort(z)), len(z)
    steps = np.arange(n + 1) / n
    return float(max((steps[1:] - p).max(), (p - steps[:-1]).max()))


@functools.cache
def _null() -> Floats:
    """Sorted values of the modified Lilliefors statistic under normality (Stephens, JASA 69, 1974)."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(N_NULL // 100):
        x = np.sort(rng.standard_normal((100, SIZE_NULL)), axis=1)
        z = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, ddof=1, keepdims=True)
        from scipy.special import ndtr

        p, steps = ndtr(z), np.arange(SIZE_NULL + 1) / SIZE_NULL
        values.append(np.maximum((steps[1:] - p).max(axis=1), (p - steps[:-1]).max(axis=1)))
    return np.sort(_modified(np.concatenate(values), SIZE_NULL))


def _modified(distance: Any, n: int) -> Any:
    """Statistic whose distribution depends little on the number of values (mean and spread fitted)."""
    root = np.sqrt(n)
    return distance * (root - 0.01 + 0.85 / root)


def lilliefors(z: Floats) -> tuple[float, float]:
    """KS distance of values to the normal law fitted to them, and its p-value."""
    x = (z - z.mean()) / z.std(ddof=1)
    distance, null = ks_distance(x), _null()
    above = len(null) - np.searchsorted(null, _modified(distance, len(z)))
    return distance, float((above + 1) / (len(null) + 1))


def fit_law(law: str, g: Floats, level: Ints) -> LawFit:
    """Likelihood and goodness of fit of the normal or lognormal law, level by level."""
    n_levels = int(level.max()) + 1
    if law == "lognormal" and (g <= 0.0).any():
        return LawFit(law, -np.inf, 1.0, 0.0, (1.0,) * n_levels, (0.0,) * n_levels)
    z, spread = standardise(law, g, level)
    log_likelihood = -0.5 * z @ z - np.log(spread[level]).sum() - 0.5 * len(g) * np.log(2 * np.pi)
    if law == "lognormal":
        log_likelihood -= np.log(g).sum()
    order = np.argsort(level, kind="stable")
    groups = np.split(z[order], np.cumsum(np.bincount(level))[:-1])
    tests = [lilliefors(group) for group in groups]
    distances, p = (tuple(column) for column in zip(*tests, strict=True))
    return LawFit(
        law, float(log_likelihood), max(distances), min(1.0, min(p) * n_levels), distances, p
    )  # fmt: skip


def described(fit: LawFit, counts: Ints) -> bool:
    """Whether the law describes every level: not rejected, or too close for it to matter."""
    n_levels = len(counts)
    return not any(
        p * n_levels < REJECT and d > VISIBLE for d, p in zip(fit.ks_levels, fit.p_levels, strict=True)
    )


def quantile_table(g: Floats, level: Ints) -> dict[str, Any]:
    """Quantiles of each level at common probabilities: the parameters of the law `empirical`."""
    counts = np.bincount(level)
    least = 0.5 / counts.min()
    tail = [p for p in (1e-4, 3e-4, 1e-3, 3e-3, 7e-3) if p > least]
    body = np.arange(1, 64) / 64
    p = np.unique(np.concatenate([tail, body, 1.0 - np.array(tail), [least, 1.0 - least]]))
    order = np.argsort(level, kind="stable")
    groups = np.split(g[order], np.cumsum(counts)[:-1])
    rows = [np.quantile(group, p, method="hazen") for group in groups]
    return {"probabilities": p.tolist(), "conductances": [row.tolist() for row in rows]}


def describe_sigma(law: str, spread: Floats, means: Floats, counts: Ints) -> dict[str, Any]:
    """The shortest description that BIC prefers: constant, polynomial in g, or one per level."""

    def bic(sigma: Floats, n_free: int) -> float:
        if (sigma <= 0.0).any():
            return np.inf
        cost = 2.0 * (counts * (np.log(sigma) + 0.5 * (spread / sigma) ** 2)).sum()
        return cost + n_free * np.log(counts.sum())

    constant = float(np.sqrt((counts * spread**2).sum() / counts.sum()))
    options: list[tuple[float, dict[str, Any]]] = []
    if law == "lognormal":
        options.append((bic(np.full(len(means), constant), 1), {"sigma": constant}))
        options.append((bic(spread, len(means)), {"sigma_levels": spread.tolist()}))
    else:
        options.append((bic(np.full(len(means), constant), 1), {"sigma_conductance": [constant]}))
        options.append((bic(spread, len(means)), {"sigma_conductance": spread.tolist()}))
        x = means / means[-1]
        for degree in range(1, min(4, len(means) - 2) + 1):
            # relative errors of a standard deviation are 1/sqrt(2 n) at every level
            fitted = np.polynomial.polynomial.polyfit(x, spread, degree, w=np.sqrt(2.0 * counts) / spread)
            value = bic(np.polynomial.polynomial.polyval(x, fitted), degree + 1)
            polynomial = {"sigma_polynomial": fitted.tolist(), "g_polynomial": float(means[-1])}
            options.append((value, polynomial))
    return min(options, key=lambda option: option[0])[1]
