"""Change of conductance with time and state: polynomials in conductance, or a table.

All laws are fitted to a table over levels and times of the mean change, its variance and the
number of values, which is sufficient where conductances within a level are alike.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DriftFit", "DriftTable", "drift_table", "fit_drift"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MICRO = 1e-6
MAX_TIMES = 16
GAP = 0.35  # times that differ by more than a factor e^0.35 are different points
ORDERS = range(4)
N_GROUPS = 40  # groups of writes of the jackknife
REJECT = 1e-3  # level of the chi-square test of a law's means and spreads


@dataclass(frozen=True)
class DriftTable:
    """Mean and variance of the change since the first read, over levels and times."""

    times: Floats  # (n_times,) [s], geometric means of the time points
    first: float  # [s] time of the first read; 0: right after the write
    g: Floats  # (n_levels,) mean first conductance [S]
    mean: Floats  # (n_levels, n_times) [S]; nan where nothing was read
    variance: Floats  # (n_levels, n_times) [S^2]
    counts: Ints  # (n_levels, n_times)
    levels: Ints  # (n_levels,) numbers of the levels
    spread: Floats  # (n_levels,) std of the first conductance [S]

    @property
    def error(self) -> Floats:
        """Standard error of the means [S]."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sqrt(self.variance / self.counts)


@dataclass(frozen=True)
class DriftFit:
    """A fitted change after programming: a drift law or a disturb law."""

    law: str
    parameters: dict[str, Any]  # names as in [cells.drift], or [disturb] with its parameters
    rms: float  # [S] residual
    n_points: int
    others: dict[str, float] = field(default_factory=dict)  # competing law -> BIC minus this law's
    notes: tuple[str, ...] = ()
    table: DriftTable | None = None
    intervals: dict[str, tuple[float, float, float]] = field(default_factory=dict)  # 95 %, of functions of G


def time_points(time: Floats) -> tuple[Ints, Floats]:
    """Group times [s] into points; returns the point of each and the points' geometric means."""
    logs = np.log(time)
    order = np.argsort(logs)
    jumps = np.diff(logs[order]) > GAP
    if jumps.sum() + 1 > MAX_TIMES:
        jumps = np.diff(logs[order]) > 2.0 * GAP
    point = np.empty(len(time), np.int64)
    point[order] = np.concatenate([[0], np.cumsum(jumps)])
    n = int(point.max()) + 1
    widths = [np.ptp(logs[point == k]) for k in range(n)]
    if n > MAX_TIMES or max(widths) > 1.5:  # a continuous record: equal steps of ln t
        n = MAX_TIMES
        edges = np.linspace(logs.min(), logs.max() + 1e-9, n + 1)
        point = np.unique(np.searchsorted(edges, logs, side="right"), return_inverse=True)[1]
    counts = np.bincount(point)
    return point, np.exp(np.bincount(point, logs) / counts)


def drift_table(g: Floats, g0: Floats, time: Floats, first: Floats, level: Ints) -> DriftTable | None:
    """Table of the change g - g0 since the first read; None where too little was read."""
    good = np.isfinite(g0) & (time > first) & (g0 > 0.0)
    if good.sum() < 5:
        return None
    g, g0, time, level = g[good], g0[good], time[good], level[good]
    point, times = time_points(time)
    n_times, (labels, row) = len(times), np.unique(level, return_inverse=True)
    index, shape = row * n_times + point, (len(labels), n_times)
    counts = np.bincount(index, minlength=shape[0] * n_times)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.bincount(index, g - g0, minlength=counts.size) / counts
        square = np.bincount(index, (g - g0 - mean[index]) ** 2, minlength=counts.size)
        variance = np.where(counts > 1, square / np.maximum(counts - 1, 1), np.nan)
    centre = np.bincount(row, g0) / np.bincount(row)
    spread = np.sqrt(np.bincount(row, (g0 - centre[row]) ** 2) / np.bincount(row))
    return DriftTable(
        times, float(np.median(first[good])), centre, mean.reshape(shape), variance.reshape(shape),
        counts.reshape(shape), labels, spread,
    )  # fmt: skip


@dataclass(frozen=True)
class _Model:
    """Polynomials of one law, in units of microsiemens and of the highest level."""

    law: str
    t_reference: float
    mean: Floats
    offset: Floats
    growth: Floats
    bic: float
    n_free: int


def _design(x: Floats, g: Floats, order: int) -> Floats:
    """Columns x g^k for k = 0 ... order; x and g of one shape."""
    return np.stack([x * g**k for k in range(order + 1)], axis=1)


def _fit_polynomials(
    law: str, x: Floats, g: Floats, change: Floats, variance: Floats, n: Floats, t: float, shift: float,
    like: _Model | None = None,
) -> _Model:  # fmt: skip
    """Mean, then spread, by weighted least squares; orders by BIC, or those of `like`.

    `shift` is added to -2 ln L.
    """
    total = n.sum()

    def cost(mean: Floats, sigma: Floats) -> float:
        spread = np.maximum(sigma, 1e-9)
        return float((n * (2.0 * np.log(spread) + (variance + (change - mean) ** 2) / spread**2)).sum())

    best_mean: tuple[Any, Any, Any] | None = None
    n_levels = len(np.unique(g))
    for order in [k for k in ORDERS if k < n_levels and (like is None or k == len(like.mean) - 1)]:
        a, w = _design(x, g, order), np.sqrt(n / variance)
        c = np.linalg.lstsq(a * w[:, None], change * w, rcond=None)[0]
        value = float((n * (change - a @ c) ** 2 / variance).sum()) + (order + 1) * np.log(total)
        if best_mean is None or value < best_mean[0]:
            best_mean = (value, c, a @ c)
    assert best_mean is not None
    _, mean, fitted = best_mean
    s = np.sqrt(variance + (change - fitted) ** 2)
    best: _Model | None = None
    offsets = (False, True) if law == "logarithmic" else (False,)
    for with_offset in offsets if like is None else (len(like.offset) > 0,):
        for order in [k for k in ORDERS if k < n_levels and (like is None or k == len(like.growth) - 1)]:
            a = _design(x, g, order)
            if with_offset:
                a = np.concatenate([_design(np.ones_like(x), g, order), a], axis=1)
            if a.shape[1] >= len(s):
                continue
            w = np.sqrt(2.0 * n) / s
            c = np.linalg.lstsq(a * w[:, None], s * w, rcond=None)[0]
            n_free = len(mean) + a.shape[1]
            value = cost(fitted, a @ c) + n_free * np.log(total) + shift
            if best is None or value < best.bic:
                offset, growth = (c[: order + 1], c[order + 1 :]) if with_offset else (np.zeros(0), c)
                best = _Model(law, t, mean, offset, growth, value, n_free)
    assert best is not None
    return best


def _predicted(model: _Model, x: Floats, g: Floats) -> tuple[Floats, Floats]:
    mean = _design(x, g, len(model.mean) - 1) @ model.mean
    sigma = _design(x, g, len(model.growth) - 1) @ model.growth
    if len(model.offset):
        sigma = sigma + _design(np.ones_like(x), g, len(model.offset) - 1) @ model.offset
    return mean, sigma


def _misfit(model: _Model, x: Floats, g: Floats, change: Floats, variance: Floats, n: Floats) -> float:
    """p-value of the law's means and spreads against the table's."""
    from scipy.stats import chi2

    mean, sigma = _predicted(model, x, g)
    statistic = (n * (change - mean) ** 2 / variance).sum()
    statistic += (2.0 * n * (np.maximum(sigma, 1e-9) / np.sqrt(variance) - 1.0) ** 2).sum()
    # reads of one write at several times deviate together: as many independent ones as there are states
    n_times = len(np.unique(x))
    return float(chi2.sf(statistic / n_times, max((2 * len(n) - model.n_free) / n_times, 1.0)))


def fit_drift(
    g: Floats, g0: Floats, time: Floats, first: Floats, level: Ints, write: Ints | None = None
) -> DriftFit | None:
    """Logarithmic or power law with polynomials in conductance, or a table where neither fits.

    Parameters
    ----------
    g, g0 : ndarray, shape (n,)
        Conductance of later reads, and of the first read of the same write [S].
    time, first : ndarray, shape (n,)
        Their times since the write [s].
    level, write : ndarray of int, shape (n,)
        Level, and number of the write: intervals leave out whole writes, whose reads go together.
    """
    table = drift_table(g, g0, time, first, level)
    if table is None:
        return None
    used = (table.counts >= 5) & (table.variance > 0.0)
    if not used.any():
        return None
    n = table.counts[used].astype(float)
    top = float(table.g.max())
    state = np.broadcast_to((table.g / top)[:, None], used.shape)[used]
    seconds = np.broadcast_to(table.times, used.shape)[used]
    change, variance = table.mean[used] / MICRO, table.variance[used] / MICRO**2
    start = table.first if table.first > 0.0 else float(table.times[0])
    references = [start] if table.first > 0.0 else [start / 10**k for k in (1, 2, 3)]
    models = [
        _fit_polynomials("logarithmic", np.log(seconds / t), state, change, variance, n, t, 0.0)
        for t in references
    ]
    good = np.isfinite(g0) & (time > first) & (g0 > 0.0) & (g > 0.0)
    if table.first > 0.0 and good.sum() > 0.999 * (np.isfinite(g0) & (time > first)).sum():
        models.append(_power(g, g0, time, first, level, top, references[0]))
    best = min(models, key=lambda model: model.bic)
    others = {m.law: m.bic - best.bic for m in models if m.law != best.law}
    notes = []
    x = np.log(seconds / best.t_reference)
    if best.law == "logarithmic":
        flat = _constant_bic(x, state, change, variance, n)
        notes.append(
            f"mean of order {len(best.mean) - 1} and spread of order {len(best.growth) - 1} in G improve "
            f"BIC by {flat - best.bic:.0f} over constants"
        )
        p_value = _misfit(best, x, state, change, variance, n)
    else:
        x, state, change, variance, n = _ratios(g, g0, time, first, level, top, best.t_reference)
        p_value = _misfit(best, -x, state, -change, variance, n)
    if p_value < REJECT and used.sum() > 3:
        notes.append(
            f"the {best.law} law does not describe means and spreads at all times (chi-square p = "
            f"{p_value:.1g}): the preset carries a table over conductance and time"
        )
        return _as_table(table, used, others | {best.law: np.nan}, notes)
    result = _as_law(best, table, top, n, others, notes, g, g0, time, first)
    if write is None:
        return result
    return dataclasses.replace(result, intervals=_intervals(best, top, g, g0, time, first, level, write))


def _intervals(
    model: _Model, top: float, g: Floats, g0: Floats, time: Floats, first: Floats, level: Ints, write: Ints
) -> dict[str, tuple[float, float, float]]:
    """Intervals of mean and spread at the top and middle of the window: a jackknife over groups of writes."""
    from scipy.stats import t as t_law

    def at(found: _Model) -> Floats:
        values = []
        for state in (1.0, 0.5):
            values.append(np.polynomial.polynomial.polyval(state, found.mean))
            values.append(np.polynomial.polynomial.polyval(state, found.growth))
        return np.array(values)

    group = np.unique(write, return_inverse=True)[1] % N_GROUPS
    replicas = []
    for k in range(N_GROUPS):
        rows = group != k
        part = _refit(model, top, g[rows], g0[rows], time[rows], first[rows], level[rows])
        if part is None:
            return {}
        replicas.append(at(part))
    value, spread = at(model), np.array(replicas)
    error = np.sqrt((N_GROUPS - 1) / N_GROUPS * ((spread - spread.mean(axis=0)) ** 2).sum(axis=0))
    half, unit = t_law.ppf(0.975, N_GROUPS - 1) * error, MICRO if model.law == "logarithmic" else 1.0
    names = ("mean at the top", "spread at the top", "mean in the middle", "spread in the middle")
    return {
        name: (float(v * unit), float((v - h) * unit), float((v + h) * unit))
        for name, v, h in zip(names, value, half, strict=True)
    }


def _refit(
    model: _Model, top: float, g: Floats, g0: Floats, time: Floats, first: Floats, level: Ints
) -> _Model | None:
    """The same law with the same orders, fitted to other rows."""
    table = drift_table(g, g0, time, first, level)
    if table is None:
        return None
    if model.law == "power":
        return _power(g, g0, time, first, level, top, model.t_reference, model)
    used = (table.counts >= 3) & (table.variance > 0.0)
    state = np.broadcast_to((table.g / top)[:, None], used.shape)[used]
    x = np.log(np.broadcast_to(table.times, used.shape)[used] / model.t_reference)
    return _fit_polynomials(
        model.law, x, state, table.mean[used] / MICRO, table.variance[used] / MICRO**2,
        table.counts[used].astype(float), model.t_reference, 0.0, model,
    )  # fmt: skip


def _constant_bic(x: Floats, g: Floats, change: Floats, variance: Floats, n: Floats) -> float:
    """BIC of one mean and one spread for all states."""
    w = np.sqrt(n / variance)
    slope = float(np.linalg.lstsq((x * w)[:, None], change * w, rcond=None)[0][0])
    s = np.sqrt(variance + (change - slope * x) ** 2)
    a = np.stack([np.ones_like(x), x], axis=1)
    c = np.linalg.lstsq(a * (np.sqrt(n) / s)[:, None], np.sqrt(n), rcond=None)[0]
    sigma = np.maximum(a @ c, 1e-6)
    return float((n * (2 * np.log(sigma) + s**2 / sigma**2)).sum() + 3 * np.log(n.sum()))


def _ratios(
    g: Floats, g0: Floats, time: Floats, first: Floats, level: Ints, top: float, t: float
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """-ln(time / t), state, mean and variance of ln(g / g0) and counts, over levels and times."""
    good = np.isfinite(g0) & (time > first) & (g0 > 0.0) & (g > 0.0)
    change = 1.0 + np.log(g[good] / g0[good])  # a table of the change of 1 + ln(g / g0) from 1
    logs = drift_table(change, np.ones(good.sum()), time[good], first[good], level[good])
    assert logs is not None
    mask = (logs.counts >= 5) & (logs.variance > 0.0)
    centre = np.bincount(level[good], g0[good])[logs.levels] / np.bincount(level[good])[logs.levels]
    state = np.broadcast_to((centre / top)[:, None], mask.shape)[mask]
    x = -np.log(np.broadcast_to(logs.times, mask.shape)[mask] / t)
    return x, state, logs.mean[mask], logs.variance[mask], logs.counts[mask].astype(float)


def _power(
    g: Floats, g0: Floats, time: Floats, first: Floats, level: Ints, top: float, t: float,
    like: _Model | None = None,
) -> _Model:  # fmt: skip
    """The power law, fitted to the table of ln(g / g0): the exponent's mean and spread."""
    x, state, mean, variance, n = _ratios(g, g0, time, first, level, top, t)
    good = np.isfinite(g0) & (time > first) & (g0 > 0.0) & (g > 0.0)
    # densities of ln(g/g0) and of g in microsiemens differ by the Jacobian g
    jacobian = 2.0 * float(np.log(g[good] / MICRO).sum())
    model = _fit_polynomials("power", -x, state, -mean, variance, n, t, jacobian, like)
    return _Model("power", t, model.mean, model.offset, model.growth, model.bic, model.n_free)


def _as_law(
    model: _Model, table: DriftTable, top: float, n: Floats, others: dict[str, float], notes: list[str],
    g: Floats, g0: Floats, time: Floats, first: Floats,
) -> DriftFit:  # fmt: skip
    unit = MICRO if model.law == "logarithmic" else 1.0
    parameters: dict[str, Any] = {
        "t_reference": float(model.t_reference),
        "g_reference": top,
        "mean_polynomial": (model.mean * unit).tolist(),
        "sigma_polynomial": (model.growth * unit).tolist(),
    }
    if len(model.offset):
        parameters["sigma_offset"] = (model.offset * unit).tolist()
    good = np.isfinite(g0) & (time > first)
    x, state = np.log(time[good] / model.t_reference), g0[good] / top
    mean = np.polynomial.polynomial.polyval(state, parameters["mean_polynomial"])
    value = g0[good] + mean * x if model.law == "logarithmic" else g0[good] * np.exp(-mean * x)
    rms = float(np.sqrt(np.mean((g[good] - value) ** 2)))
    return DriftFit(model.law, parameters, rms, int(n.sum()), others, tuple(notes), table)


def _before_clamping(mean: Floats, sigma: Floats) -> Floats:
    """Means of normal values that have the means `mean` once they are clamped at 0."""
    from scipy.special import ndtr

    low, high = mean - 20.0 * sigma, mean.copy()
    for _ in range(60):
        middle = 0.5 * (low + high)
        z = middle / np.maximum(sigma, 1e-30)
        clamped = middle * ndtr(z) + sigma * np.exp(-0.5 * np.minimum(z * z, 1400.0)) / np.sqrt(2.0 * np.pi)
        low, high = np.where(clamped < mean, middle, low), np.where(clamped < mean, high, middle)
    return np.where(mean > 6.0 * sigma, mean, 0.5 * (low + high))


def _as_table(table: DriftTable, used: Any, others: dict[str, float], notes: list[str]) -> DriftFit:
    order = np.argsort(table.g)
    g, means, sigmas = table.g[order], np.empty(table.mean.shape), np.empty(table.mean.shape)
    for j in range(len(table.times)):
        known = used[order, j]
        if not known.any():
            known = table.counts[order, j] > 0
        sigmas[:, j] = np.interp(g, g[known], np.sqrt(np.nan_to_num(table.variance[order, j][known])))
        means[:, j] = np.interp(g, g[known], table.mean[order, j][known])
    total = np.sqrt(sigmas**2 + table.spread[order, None] ** 2)
    means = _before_clamping(g[:, None] + means, total) - g[:, None]
    times = table.times
    if table.first > 0.0:  # the change begins at the first read
        times = np.concatenate([[table.first], times])
        means, sigmas = (np.concatenate([np.zeros((len(g), 1)), t], axis=1) for t in (means, sigmas))
    rms = float(np.sqrt(np.nansum(table.variance * table.counts) / table.counts.sum()))
    parameters = {
        "parameters": {
            "times": times.tolist(), "conductances": g.tolist(), "means": means.tolist(),
            "sigmas": sigmas.tolist(),
        }
    }  # fmt: skip
    return DriftFit("table", parameters, rms, int(table.counts.sum()), others, tuple(notes), table)
