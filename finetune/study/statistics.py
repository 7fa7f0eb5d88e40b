"""Statistics of trials: spread over chips and paired comparison of two methods on the same chips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.checks import InputError, check_array

__all__ = ["Comparison", "Spread", "compare", "spread"]

N_BOOTSTRAP = 10_000
BOOTSTRAP_SEED = 20260101  # of the resampling alone: the same data give the same interval


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation and extremes over chips."""

    mean: float
    std: float  # 0 for a single chip
    worst: float
    best: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """Paired difference a - b over the same chips."""

    mean: float
    low: float  # 95 % bootstrap interval of the mean, percentile method
    high: float
    p_value: float  # Wilcoxon signed-rank test, two-sided; NaN below two chips
    n: int


def spread(values: ArrayLike) -> Spread:
    """Describe one number per chip; higher is better."""
    x = check_array(values, "values", shape=(None,))
    if not x.size:
        raise InputError("statistics need at least one complete trial, got none")
    std = float(x.std(ddof=1)) if x.size > 1 else 0.0
    return Spread(float(x.mean()), std, float(x.min()), float(x.max()), x.size)


def compare(a: ArrayLike, b: ArrayLike) -> Comparison:
    """Compare two methods on the same chips, shape (n_chips,) each.

    Notes
    -----
    With five chips the smallest two-sided p the signed-rank test can give is 1/16.
    """
    x = check_array(a, "a", shape=(None,))
    y = check_array(b, "b", shape=x.shape)
    if not x.size:
        raise InputError("statistics need at least one complete trial, got none")
    difference = x - y
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    picks = rng.integers(0, x.size, size=(N_BOOTSTRAP, x.size))
    low, high = np.quantile(difference[picks].mean(axis=1), [0.025, 0.975])
    return Comparison(float(difference.mean()), float(low), float(high), _wilcoxon(difference), x.size)


def _wilcoxon(difference: NDArray[np.float64]) -> float:
    if difference.size < 2:
        return float("nan")
    if not difference.any():
        return 1.0
    from scipy.stats import wilcoxon

    result: Any = wilcoxon(
        difference, method="exact" if difference.size <= 25 and _untied(difference) else "approx"
    )
    return float(result.pvalue)


def _untied(difference: NDArray[np.float64]) -> bool:
    magnitude = np.abs(difference)
    return bool(magnitude.all()) and np.unique(magnitude).size == magnitude.size
