"""Statistics over chips and test images: intervals, exact paired tests, R, and how many chips one needs.

What is computed, why, and how often the intervals cover is told in `docs/statistics.md`; its tables are
printed by `python -m benchmarks.statistics`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.checks import InputError, check_array

__all__ = [
    "ChipSummary",
    "Comparison",
    "Ratio",
    "chips_needed",
    "compare",
    "compare_images",
    "holm",
    "interval_text",
    "recovered_fraction",
    "signed_rank_p",
    "spread",
]

LEVEL = 0.95  # nominal coverage of every interval
LEAST_FOR_INTERVAL = 3  # chips
LEAST_FOR_SKEWNESS = 5  # chips; below, an estimated third moment does more harm than good
MOST_FOR_ENUMERATION = 200  # pairs up to which the signed-rank distribution is exact


@dataclass(frozen=True)
class ChipSummary:
    """One number per chip, described; `low` and `high` are NaN below three chips."""

    mean: float
    std: float  # sample standard deviation; NaN for a single chip
    worst: float
    best: float
    n: int
    low: float  # 95 % interval of the mean
    high: float


@dataclass(frozen=True)
class Comparison:
    """Paired difference a - b over the same chips; `low` and `high` are NaN below three chips."""

    mean: float
    low: float  # 95 % interval of the mean
    high: float
    p_value: float  # exact Wilcoxon signed-rank test over chips, two-sided; NaN below two chips
    n: int
    std: float  # of the differences, over chips; NaN for a single chip
    effect: float  # Hedges' g of paired differences: mean / std, corrected for few chips; NaN where unknown
    std_images: float = 0.0  # standard error that the choice of test images adds, common to all chips


@dataclass(frozen=True)
class Ratio:
    """Ratio of two means over the same chips; NaN where it is undefined."""

    value: float
    low: float  # 95 % interval by Fieller's theorem; infinite where the denominator may be 0
    high: float
    n: int


def spread(values: ArrayLike) -> ChipSummary:
    """Describe one number per chip; higher is better.

    Examples
    --------
    >>> over = spread([0.91, 0.92, 0.93])
    >>> f"{over.mean:.2f} [{over.low:.3f}, {over.high:.3f}]"
    '0.92 [0.895, 0.945]'
    """
    x = _one_per_chip(values, "values")
    low, high = _interval_over_chips(x)
    std = float(x.std(ddof=1)) if x.size > 1 else math.nan
    return ChipSummary(float(x.mean()), std, float(x.min()), float(x.max()), x.size, low, high)


def compare(a: ArrayLike, b: ArrayLike) -> Comparison:
    """Compare two methods on the same chips.

    Parameters
    ----------
    a, b : array_like, shape (n_chips,)
        One number per chip, in the same order of chips; higher is better.

    Notes
    -----
    The interval and the test speak of other chips and *these* test images. `compare_images` adds the
    sampling error of the images. With five chips the smallest two-sided p of a signed-rank test is 1/16.

    Examples
    --------
    >>> result = compare([0.91, 0.92, 0.95, 0.94, 0.93], [0.90, 0.90, 0.91, 0.91, 0.90])
    >>> f"{100 * result.mean:.1f} points, p = {result.p_value:g}"
    '2.6 points, p = 0.0625'
    """
    x = _one_per_chip(a, "a")
    y = check_array(b, "b", shape=x.shape, hint="both methods need the same chips in the same order")
    difference = x - y
    low, high = _interval_over_chips(difference)
    return _comparison(difference, low, high, _zero_within(x, y), 0.0)


def compare_images(a: ArrayLike, b: ArrayLike) -> Comparison:
    """Compare two methods on the same chips and images, the sampling error of both in the interval.

    Parameters
    ----------
    a, b : array_like of bool, shape (n_chips, n_images) or (n_images,)
        Whether each test image was classified as labelled. A method that is the same for every chip, such
        as the digital network, has one row.

    Returns
    -------
    Comparison
        Of the accuracies, as fractions.

    Notes
    -----
    Chips and images are crossed random factors. The variance of the mean is that over chips plus that over
    images less that of their interaction, which both contain (A. C. Cameron, J. B. Gelbach, D. L. Miller,
    Journal of Business & Economic Statistics 29, 238, 2011, eq. 2.11); degrees of freedom by Satterthwaite.
    The test in `p_value` is over chips alone.

    Examples
    --------
    >>> right = np.array([[1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]], dtype=bool)
    >>> result = compare_images([1, 1, 1, 1], right)
    >>> f"{result.mean:.2f}"
    '0.25'
    """
    x, y = np.atleast_2d(np.asarray(a, dtype=bool)), np.atleast_2d(np.asarray(b, dtype=bool))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise InputError(
            f"a and b must have shape (n_chips, n_images) with the same chips and images, got {x.shape} and "
            f"{y.shape}"
        )
    if len(x) != len(y) and 1 not in (len(x), len(y)):
        raise InputError(f"a and b must hold the same chips, got {len(x)} and {len(y)}")
    if not x.size or not y.size:
        raise InputError("statistics need at least one complete trial and one image, got none")
    difference = x.astype(np.int8) - y.astype(np.int8)
    over_chips = difference.mean(axis=1)
    if len(over_chips) < LEAST_FOR_INTERVAL:
        return _comparison(over_chips, math.nan, math.nan, 0.0, math.nan)
    of_chips, of_images, total = (float(c[0, 0]) for c in _crossed(difference[None]))
    freedom = _satterthwaite((of_chips, of_images), tuple(n - 1 for n in difference.shape), total)
    share = (of_chips / total) ** 1.5 if total > 0 else 0.0
    mean = float(over_chips.mean())
    low, high = _skew_corrected(mean, math.sqrt(total), freedom, _skewness(over_chips) * share)
    return _comparison(over_chips, low, high, 0.0, math.sqrt(max(total - of_chips, 0.0)))


def recovered_fraction(accuracy: ArrayLike, mapped: ArrayLike, teacher: ArrayLike) -> Ratio:
    """R = mean(accuracy - mapped) / mean(teacher - mapped): the share of the lost accuracy that came back.

    Parameters
    ----------
    accuracy, mapped : array_like, shape (n_chips,)
        Of the same chips on the same test images.
    teacher : array_like, shape () or (n_chips,)
        Of the digital network on those images.

    Returns
    -------
    Ratio
        Value and interval are NaN where mapping lost nothing on average; the interval is NaN below three
        chips, and infinite where the chips cannot exclude that nothing was lost.

    Notes
    -----
    The interval holds every R for which the mean of gain - R lost may be 0 by the interval of that mean
    (E. C. Fieller, Journal of the Royal Statistical Society B 16, 175, 1954, there with Student's t alone).

    Examples
    --------
    >>> r = recovered_fraction([0.90, 0.91, 0.90], [0.80, 0.84, 0.82], 0.92)
    >>> f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]"
    '0.833 [0.761, 0.960]'
    >>> recovered_fraction([0.9, 0.9, 0.9], [0.93, 0.92, 0.94], 0.92).value
    nan
    """
    x = _one_per_chip(accuracy, "accuracy")
    y = check_array(mapped, "mapped", shape=x.shape, hint="both need the same chips in the same order")
    z = np.broadcast_to(np.asarray(teacher, dtype=np.float64), x.shape)
    gain, lost = x - y, z - y
    if not lost.mean() > 0:
        return Ratio(math.nan, math.nan, math.nan, x.size)
    value = float(gain.mean() / lost.mean())
    if x.size < LEAST_FOR_INTERVAL:
        return Ratio(value, math.nan, math.nan, x.size)
    if not _interval_over_chips(lost)[0] > 0:
        return Ratio(value, -math.inf, math.inf, x.size)
    low = _ratio_limit(gain, lost, value, 0)
    high = _ratio_limit(gain, lost, value, 1)
    return Ratio(value, low, high, x.size)


def signed_rank_p(difference: ArrayLike) -> float:
    """Two-sided p of the Wilcoxon signed-rank test, exact with ties and zeros.

    Parameters
    ----------
    difference : array_like, shape (n_pairs,)
        Equal magnitudes share their mean rank; zeros take part in the ranking and then drop out (J. W. Pratt,
        Journal of the American Statistical Association 54, 655, 1959).

    Returns
    -------
    float
        NaN below two pairs, 1 where every difference is 0. The distribution over all signs is enumerated up
        to 200 pairs; beyond, SciPy's normal approximation is used.

    Examples
    --------
    >>> signed_rank_p([1, 1, 2, 2, 3])  # all five signs agree: 2 of 32 assignments are as extreme
    0.0625
    """
    d = check_array(difference, "difference", shape=(None,))
    if d.size < 2:
        return math.nan
    if not d.any():
        return 1.0
    if d.size > MOST_FOR_ENUMERATION:
        from scipy.stats import wilcoxon

        return float(wilcoxon(d, zero_method="pratt", method="approx").pvalue)
    _, which, counts = np.unique(np.abs(d), return_inverse=True, return_counts=True)
    mean_ranks = 2 * np.cumsum(counts) - counts + 1  # doubled, hence whole numbers, ties included
    doubled = mean_ranks[which][d != 0]
    positive = int(doubled[d[d != 0] > 0].sum())
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1.0
    for rank in doubled.tolist():  # share of sign assignments by the sum of their positive ranks
        ways[rank:] += ways[: ways.size - rank].copy()
        ways /= 2.0
    smaller = min(positive, int(doubled.sum()) - positive)
    return float(min(1.0, 2.0 * ways[: smaller + 1].sum()))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted for several tests (S. Holm, Scandinavian Journal of Statistics 6, 65, 1979).

    NaN entries were no tests: they stay NaN and do not count.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    steps = p[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def chips_needed(std: float, difference: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Chips that a paired comparison needs to find a difference.

    Parameters
    ----------
    std : float
        Standard deviation over chips of the paired differences, in the unit of `difference`.
    difference : float
        True mean difference that should be found.
    power : float
        Probability of finding it, with a two-sided paired t test at level `alpha`. The signed-rank test needs
        about 5 % more for normal differences.

    Returns
    -------
    int
        At least 6: with fewer no exact signed-rank test can reach 0.05.

    Examples
    --------
    >>> chips_needed(0.3, 0.5), chips_needed(0.3, 0.1)
    (6, 73)
    """
    if not (std >= 0 and np.isfinite(std)):
        raise InputError(f"std must be finite and >= 0, got {std}")
    if not difference > 0:
        raise InputError(f"difference must be > 0, got {difference}")
    if not (0 < power < 1 and 0 < alpha < 1):
        raise InputError(f"power and alpha must lie in (0, 1), got {power} and {alpha}")
    from scipy.special import nctdtr, ndtri, stdtrit  # scipy.stats takes five times as long to import

    def reached(n: int) -> bool:
        quantile, shift = stdtrit(n - 1, 1 - alpha / 2), difference / std * math.sqrt(n)
        return not nctdtr(n - 1, shift, quantile) > 1 - power  # the other tail is below 1e-4 here

    least = 2 + math.ceil(math.log2(1 / alpha) - 1)
    if std == 0.0:
        return least
    rough = (ndtri(1 - alpha / 2) + ndtri(power)) ** 2 * (std / difference) ** 2
    if rough > 1e4:  # the t and the normal distribution agree
        return math.ceil(rough)
    n = least
    while not reached(n):
        n += 1
    return n


def interval_text(low: float, high: float, form: str = ".2f") -> str:
    """Limits in brackets after a blank; nothing where there is no interval.

    Examples
    --------
    >>> interval_text(0.123, 0.456)
    ' [0.12, 0.46]'
    >>> interval_text(math.nan, math.nan)
    ''
    """
    return "" if math.isnan(low) else f" [{low:{form}}, {high:{form}}]"


# -- parts ----------------------------------------------------------------------------------------


def _one_per_chip(values: ArrayLike, name: str) -> NDArray[np.float64]:
    x = check_array(values, name, shape=(None,))
    if not x.size:
        raise InputError("statistics need at least one complete trial, got none")
    return x


def _comparison(
    difference: NDArray[np.float64], low: float, high: float, zero: float, std_images: float
) -> Comparison:
    """Fill a `Comparison`; differences within `zero` of one another count as tied."""
    if zero > 0:  # accuracies are fractions: rounding must not break ties
        difference = np.round(difference / zero) * zero
    n, mean = difference.size, float(difference.mean())
    std = float(difference.std(ddof=1)) if n > 1 else math.nan
    tiny = max(zero, 1e-12 * abs(mean))
    known = n >= LEAST_FOR_INTERVAL and std > tiny
    effect = mean / std * (1 - 3 / (4 * (n - 1) - 1)) if known else math.nan
    return Comparison(mean, low, high, signed_rank_p(difference), n, std, effect, std_images)


def _zero_within(*arrays: NDArray[np.float64]) -> float:
    """Differences of doubles below this are rounding errors."""
    return 1e-13 * max(float(np.abs(x).max()) for x in arrays)


def _interval_over_chips(x: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean of independent values; NaN below three."""
    if x.size < LEAST_FOR_INTERVAL:
        return math.nan, math.nan
    return _skew_corrected(
        float(x.mean()), float(x.std(ddof=1)) / math.sqrt(x.size), x.size - 1, _skewness(x)
    )


def _ratio_limit(gain: NDArray[np.float64], lost: NDArray[np.float64], value: float, side: int) -> float:
    """Lower (`side` 0) or upper limit of a ratio of means: where the interval of gain - R lost meets 0."""
    from scipy.optimize import brentq

    def limit(ratio: float) -> float:
        return _interval_over_chips(gain - ratio * lost)[side]

    sign = -1.0 if side == 0 else 1.0  # a smaller ratio leaves a larger mean
    if limit(value) == 0.0:
        return value
    step = 1e-3 * max(abs(value), 1e-3)
    inner = value
    while step < 1e4 * max(abs(value), 1.0):
        outer = value + sign * step
        if limit(outer) * limit(value) <= 0:
            return float(brentq(limit, inner, outer))
        inner, step = outer, 2 * step
    return sign * math.inf


def _skewness(x: NDArray[np.float64]) -> float:
    """Skewness of the mean of n values, G1 / sqrt(n); 0 where too few values tell it."""
    deviation = x - x.mean()
    n, second = x.size, float(np.mean(np.square(deviation)))
    if n < LEAST_FOR_SKEWNESS or second <= (1e-12 * float(np.abs(x).max())) ** 2:
        return 0.0
    biased = float(np.mean(deviation**3)) / second**1.5
    return biased * math.sqrt(n * (n - 1)) / (n - 2) / math.sqrt(n)


def _skew_corrected(mean: float, error: float, freedom: float, skewness: float) -> tuple[float, float]:
    """Student's t interval after Hall's cubic transformation, which takes out the skewness of the mean.

    P. Hall, Journal of the Royal Statistical Society B 54, 221 (1992), with quantiles of
    Student's t. Where `skewness` is 0 this is Student's interval.
    """
    quantile = _student(freedom)
    slope = skewness / 3

    def back(y: float) -> float:
        y -= skewness / 6
        return y if abs(slope) < 1e-9 else float(np.cbrt(1 + 3 * slope * y) - 1) / slope

    return mean - error * back(quantile), mean - error * back(-quantile)


@functools.lru_cache(maxsize=256)
def _student(freedom: float) -> float:
    """Quantile of Student's t at the upper end of a two-sided interval."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + LEVEL / 2))


def _crossed(values: NDArray[np.integer]) -> tuple[NDArray[np.float64], ...]:
    """Covariances of the means of several quantities over crossed chips and images.

    Parameters
    ----------
    values : ndarray of int8, shape (n_quantities, n_chips, n_images)

    Returns
    -------
    tuple of ndarray, shape (n_quantities, n_quantities)
        Estimated over chips, over images, and the total.
    """
    n, m = values.shape[1:]
    over_images, over_chips = values.mean(axis=2), values.mean(axis=1)
    grand = over_images.mean(axis=1)
    products = np.einsum("anm,bnm->ab", values, values, dtype=np.float64, casting="unsafe")
    centred_chips, centred_images = over_images - grand[:, None], over_chips - grand[:, None]
    squares_chips = m * centred_chips @ centred_chips.T
    squares_images = n * centred_images @ centred_images.T
    rest = products - n * m * np.outer(grand, grand) - squares_chips - squares_images
    scale = 1.0 / (n * m)
    of_chips = squares_chips * scale / (n - 1)
    of_images = squares_images * scale / max(m - 1, 1)
    interaction = rest * scale / ((n - 1) * max(m - 1, 1))
    total = of_chips + of_images - interaction
    for k in range(len(total)):  # an estimate by differences can fall below its parts
        total[k, k] = max(total[k, k], of_chips[k, k], of_images[k, k])
    return of_chips, of_images, total


def _satterthwaite(parts: tuple[float, ...], freedoms: tuple[int, ...], total: float) -> float:
    """Degrees of freedom of a sum of variances."""
    below = sum(part**2 / max(freedom, 1) for part, freedom in zip(parts, freedoms, strict=True))
    return max(total**2 / below, 1.0) if below > 0 else float(min(freedoms))
