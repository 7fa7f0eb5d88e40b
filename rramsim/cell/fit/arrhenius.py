"""Activation energy of drift, from retention at two or more temperatures.

A change that depends on t exp(E/k (1/T0 - 1/T)) instead of t is the same curve at every temperature, moved
along ln t. The energy is the one at which all temperatures lie on one curve: polynomials in conductance times
ln t, fitted to the means over levels, temperatures and times.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rramsim.cell.config import BOLTZMANN
from rramsim.cell.fit.drift import DriftFit, time_points

__all__ = ["ArrheniusFit", "fit_arrhenius"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ELECTRONVOLT = 1.602176634e-19  # [J]
LARGEST = 3.0 * ELECTRONVOLT  # [J] energies are sought up to here
STEPS = 61  # of the first search
N_GROUPS = 20  # groups of writes of the jackknife
LEAST = 5  # values behind a mean
ORDER = 3  # of polynomials in conductance, at most
SAME = 1.0  # [K] temperatures that differ by less are one


@dataclass(frozen=True)
class ArrheniusFit:
    """Activation energy [J] with its 95 % interval, at the temperature `kelvin` [K] of the slowest reads."""

    energy: float
    low: float
    high: float
    kelvin: float
    temperatures: tuple[float, ...]

    @property
    def text(self) -> str:
        """One sentence for the report."""
        e, low, high = (x / ELECTRONVOLT for x in (self.energy, self.low, self.high))
        shown = ", ".join(f"{t:.4g}" for t in self.temperatures)
        edge = "; it lies at the end of the range searched" if self.energy > 0.99 * LARGEST else ""
        return (
            f"Activation energy {e:.3f} eV [{low:.3f}, {high:.3f}] from {shown} K; times are referred to "
            f"{self.kelvin:.4g} K{edge}."
        )

    def equivalent(self, time: Floats, first: Floats, kelvin: Floats) -> Floats:
        """Times [s] at `self.kelvin` that stand for times at `kelvin` after the first read."""
        return _equivalent(self.energy, time, first, (1.0 / self.kelvin - 1.0 / kelvin) / BOLTZMANN)

    def added_to(self, drift: DriftFit) -> DriftFit:
        """The drift law with energy and temperature as settings of [cells.drift], and the interval."""
        settings = {"activation_energy": self.energy, "kelvin": self.kelvin}
        interval = {"activation energy": (self.energy, self.low, self.high)}
        return dataclasses.replace(
            drift, parameters=drift.parameters | settings, intervals=drift.intervals | interval
        )


def _equivalent(energy: float, time: Floats, first: Floats, u: Floats) -> Floats:
    return first + (time - first) * np.exp(energy * u)


@dataclass(frozen=True)
class _Means:
    """Means of the change over levels, temperatures and times."""

    state: Floats  # mean first conductance over the highest
    change: Floats
    weight: Floats  # 1 / squared standard error
    time: Floats
    first: Floats
    u: Floats  # 1 / (k T0) - 1 / (k T)


def fit_arrhenius(
    g: Floats, g0: Floats, time: Floats, first: Floats, level: Ints, write: Ints, kelvin: Floats
) -> ArrheniusFit | None:
    """Activation energy of the change since the first read; None where too little was read.

    Parameters
    ----------
    g, g0 : ndarray, shape (n,)
        Conductance of later reads, and of the first read of the same write [S].
    time, first : ndarray, shape (n,)
        Their times since the write [s]. In between a cell lies at `kelvin`.
    level, write : ndarray of int, shape (n,)
    kelvin : ndarray, shape (n,)
        Temperature [K] that a row's cell was kept at; within 1 K counts as one.

    Notes
    -----
    The interval is that of a jackknife over groups of writes, whose reads go together.
    """
    from scipy.stats import t as t_law

    good = np.isfinite(g0) & (time > first) & (g0 > 0.0) & (kelvin > 0.0)
    g, g0, time, first, kelvin = (x[good] for x in (g, g0, time, first, kelvin))
    level, write = level[good], write[good]
    if not g.size:
        return None
    order = np.argsort(kelvin)
    step = np.concatenate([[0], np.cumsum(np.diff(kelvin[order]) > SAME)])
    which = np.empty(len(kelvin), np.int64)
    which[order] = step
    temperatures = np.bincount(which, kelvin) / np.bincount(which)
    if len(temperatures) < 2:
        return None
    base = float(temperatures[0])
    u = ((1.0 / base - 1.0 / temperatures) / BOLTZMANN)[which]
    columns = g, g0, time, first, level, which, u
    whole = _means(*columns)
    if whole is None:
        return None
    energy = _best(whole)
    group = np.unique(write, return_inverse=True)[1] % N_GROUPS
    replicas = []
    for k in range(N_GROUPS):
        part = _means(*(column[group != k] for column in columns))
        if part is None:
            return None
        replicas.append(_best(part, near=energy))
    spread = np.array(replicas)
    error = float(np.sqrt((N_GROUPS - 1) / N_GROUPS * ((spread - spread.mean()) ** 2).sum()))
    half = float(t_law.ppf(0.975, N_GROUPS - 1)) * error
    shown = tuple(float(t) for t in temperatures)
    return ArrheniusFit(energy, max(energy - half, 0.0), energy + half, base, shown)


def _means(
    g: Floats, g0: Floats, time: Floats, first: Floats, level: Ints, which: Ints, u: Floats
) -> _Means | None:
    """Means over levels, temperatures and times; None where they are of one temperature."""
    if not g.size:
        return None
    point, _ = time_points(time)
    index = np.unique(
        (level * (int(which.max()) + 1) + which) * (int(point.max()) + 1) + point, return_inverse=True
    )[1]
    n = np.bincount(index).astype(float)

    def mean(x: Floats) -> Floats:
        return np.bincount(index, x) / n

    change = mean(g - g0)
    variance = np.bincount(index, (g - g0 - change[index]) ** 2) / np.maximum(n - 1.0, 1.0)
    used = (n >= LEAST) & (variance > 0.0)
    if used.sum() < 4 or len(np.unique(mean(u)[used])) < 2:
        return None
    state = mean(g0)
    return _Means(
        (state / state.max())[used], change[used] / 1e-6, n[used] / (variance[used] / 1e-12),
        np.exp(mean(np.log(time)))[used], mean(first)[used], mean(u)[used],
    )  # fmt: skip


def _misfit(energy: float, means: _Means, reference: float) -> float:
    """Weighted squares left by polynomials in conductance times ln of the equivalent time."""
    seconds = _equivalent(energy, means.time, means.first, means.u)
    # without a time of the first read drift begins at a constant part of the shortest time
    start = np.where(means.first > 0.0, means.first, reference)
    x = np.log(np.maximum(seconds, start) / start)
    order = min(ORDER, len(np.unique(np.round(means.state, 3))) - 1)
    a = np.stack([x * means.state**k for k in range(order + 1)], axis=1) * np.sqrt(means.weight)[:, None]
    y = means.change * np.sqrt(means.weight)
    c = np.linalg.lstsq(a, y, rcond=None)[0]
    return float(np.square(y - a @ c).sum())


def _best(means: _Means, near: float | None = None) -> float:
    """Energy [J] of the least misfit, over starts of drift where the file gives none."""
    from scipy.optimize import minimize_scalar

    shortest = float(means.time.min())
    references = [shortest] if (means.first > 0.0).all() else [shortest / 10.0**k for k in (1, 2, 3)]
    found: list[tuple[float, float]] = []
    for reference in references:
        grid = np.linspace(0.0, LARGEST, STEPS)
        if near is not None:
            grid = grid[np.abs(grid - near) < 0.3 * ELECTRONVOLT]
        values = [_misfit(float(e), means, reference) for e in grid]
        k = int(np.argmin(values))
        low, high = float(grid[max(k - 1, 0)]), float(grid[min(k + 1, len(grid) - 1)])
        result = minimize_scalar(
            lambda e, t: _misfit(float(e), means, t), bounds=(low, high), args=(reference,), method="bounded",
            options={"xatol": 1e-5 * ELECTRONVOLT},
        )  # fmt: skip
        found.append((float(result.fun), float(result.x)))
    return min(found)[1]
