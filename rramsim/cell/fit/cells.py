"""Device-to-device and cycle-to-cycle parts: a one-way random-effects model of rewritten cells.

A standardised error is z = sqrt(f) e_cell + sqrt(1 - f) e_write. One pooled share f with a cell's
error equal at all levels is the short description; where the levels contradict it, each level gets a
share of its own and the cell's errors a correlation between levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Share", "ShareFit", "fit_shares"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
REJECT = 0.01  # level of the tests of the pooled description
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Share:
    """Share of the variance that belongs to the cell, with its interval."""

    value: float
    low: float  # 95 % interval
    high: float
    error: float  # standard error, large-sample
    n_cells: int
    n_values: int


@dataclass(frozen=True)
class ShareFit:
    """Pooled and per-level shares, and the correlation of a cell's errors between levels."""

    pooled: Share
    levels: tuple[Share | None, ...]  # None where no cell was rewritten at that level
    correlation: Floats  # (n_levels, n_levels), positive semi-definite; nan replaced by 0
    correlation_error: Floats  # jackknife over cells
    p_value: float  # of the pooled description
    pooled_describes: bool


def anova(z: Floats, group: Ints, n_fitted: int = 1) -> Share | None:
    """One-way random effects by analysis of variance, with the F interval (Searle, 1971).

    For unequal group sizes the effective size n0 takes the place of the common one. `n_fitted`
    means were subtracted from `z` beforehand.
    """
    from scipy.stats import f as f_law

    _, group = np.unique(group, return_inverse=True)
    counts = np.bincount(group)
    n, n_groups = len(z), len(counts)
    inner = n - n_groups - (n_fitted - 1)
    if n_groups < 3 or inner < 3:
        return None
    centre = np.bincount(group, z) / counts
    within = ((z - centre[group]) ** 2).sum() / inner
    between = (counts * (centre - z.mean()) ** 2).sum() / (n_groups - 1)
    size = (n - (counts**2).sum() / n) / (n_groups - 1)
    if within <= 0.0:
        return Share(1.0, 1.0, 1.0, 0.0, n_groups, n)
    ratio = between / within

    def share(quotient: float) -> float:
        return float(np.clip((quotient - 1.0) / (quotient + size - 1.0), 0.0, 1.0))

    tail = 0.5 * (1.0 - CONFIDENCE)
    low = share(ratio / f_law.ppf(1.0 - tail, n_groups - 1, inner))
    high = share(ratio / f_law.ppf(tail, n_groups - 1, inner))
    value = share(ratio)
    # Fisher's large-sample error of an intraclass correlation
    error = np.sqrt(2.0) * (1.0 - value) * (1.0 + (size - 1.0) * value)
    error /= np.sqrt(size * max(size - 1.0, 1e-9) * (n_groups - 1))
    return Share(value, low, high, float(error), n_groups, n)


def fit_shares(z: Floats, cell: Ints, level: Ints) -> ShareFit | None:
    """Shares of rewritten cells; None where too few cells were rewritten.

    Parameters
    ----------
    z : ndarray, shape (n,)
        Errors over their level's spread, or normal scores; one per write.
    cell, level : ndarray of int, shape (n,)
    """
    from scipy.stats import chi2

    n_levels = int(level.max()) + 1
    pooled = anova(z, cell, n_levels)
    if pooled is None:
        return None
    shares = tuple(anova(z[level == k], cell[level == k]) for k in range(n_levels))
    matrix, error = _correlations(z, cell, level, shares)
    known = [s for s in shares if s is not None and s.error > 0.0]
    statistic, freedom = 0.0, 0
    if len(known) > 1:
        values, errors = np.array([s.value for s in known]), np.array([s.error for s in known])
        weight = 1.0 / errors**2
        statistic += float((weight * (values - (weight * values).sum() / weight.sum()) ** 2).sum())
        freedom += len(known) - 1
    off = np.triu_indices(n_levels, 1)
    told = np.isfinite(error[off]) & (error[off] > 0.0)
    if told.any():  # one sign and size of a cell's error at all levels means a correlation of 1
        deficit = (1.0 - matrix[off][told]) / error[off][told]
        statistic += float((np.maximum(deficit, 0.0) ** 2).sum())
        freedom += int(told.sum())
    p_value = float(chi2.sf(statistic, freedom)) if freedom else 1.0
    enough = all(s is not None for s in shares) and bool(told.all())
    return ShareFit(pooled, shares, _nearest(matrix), error, p_value, not (enough and p_value < REJECT))


def _correlations(
    z: Floats, cell: Ints, level: Ints, shares: tuple[Share | None, ...]
) -> tuple[Floats, Floats]:
    """Correlation of the cells' parts between levels, and its jackknife error.

    The mean product of a cell's errors at two levels (of different writes) over the spreads of
    its parts at these levels.
    """
    _, cell = np.unique(cell, return_inverse=True)
    n_cells, n_levels = int(cell.max()) + 1, len(shares)
    sums, counts = np.zeros((n_cells, n_levels)), np.zeros((n_cells, n_levels))
    np.add.at(sums, (cell, level), z)
    np.add.at(counts, (cell, level), 1.0)
    matrix, error = np.eye(n_levels), np.full((n_levels, n_levels), np.nan)
    squares = np.zeros((n_cells, n_levels))
    np.add.at(squares, (cell, level), z**2)
    # unbiased variance of a cell's part: products of different writes at one level
    own, own_pairs = sums**2 - squares, counts * (counts - 1.0)
    for a in range(n_levels):
        for b in range(a + 1, n_levels):
            cross, pairs = sums[:, a] * sums[:, b], counts[:, a] * counts[:, b]
            if pairs.sum() == 0 or own_pairs[:, a].sum() == 0 or own_pairs[:, b].sum() == 0:
                continue
            columns = (cross, own[:, a], own[:, b]), (pairs, own_pairs[:, a], own_pairs[:, b])
            value = float(_ratio(*columns, lambda x: np.atleast_1d(x.sum()))[0])
            spread = _ratio(*columns, lambda x: x.sum() - x)  # without each cell in turn
            if not np.isfinite(value) or not np.isfinite(spread).all():
                continue
            matrix[a, b] = matrix[b, a] = np.clip(value, -1.0, 1.0)
            jackknife = np.sqrt((n_cells - 1) / n_cells * ((spread - spread.mean()) ** 2).sum())
            error[a, b] = error[b, a] = max(float(jackknife), 1e-6)
    return matrix, error


def _ratio(products: Any, pairs: Any, total: Callable[[Floats], Floats]) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        c, va, vb = (total(x) / total(n) for x, n in zip(products, pairs, strict=True))
        return c / np.sqrt(np.maximum(va, 1e-12) * np.maximum(vb, 1e-12))


def _nearest(matrix: Floats) -> Floats:
    """Nearest correlation matrix by clipping eigenvalues (Higham's first step) and rescaling."""
    values, vectors = np.linalg.eigh(matrix)
    if values.min() < 0.0:
        matrix = (vectors * np.maximum(values, 0.0)) @ vectors.T
        scale = np.sqrt(np.maximum(np.diag(matrix), 1e-12))
        matrix = matrix / scale[:, None] / scale[None, :]
        np.fill_diagonal(matrix, 1.0)
    return matrix
