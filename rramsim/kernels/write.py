"""Writing cells: one-shot programming and pulse-by-pulse write-verify.

Every draw is a function of (key, cell, write count of that cell), so masks, order and
threads change no bit. Kernels return counts; callers judge.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from rramsim.kernels.counter import normal_at


class Wear(NamedTuple):
    """Endurance: `x = min(1, (n / n_endurance)^exponent)` closes the window and widens errors."""

    n_endurance: float  # cycles at which the window has lost `window_loss`; inf switches wear off
    exponent: float
    window_loss: float  # fraction of g_max - g_min lost at n_endurance
    sigma_growth: float  # relative growth of sigma at n_endurance
    n_before: int  # cycles before the array was delivered
    g_min: float  # [S]
    g_max: float  # [S]


class Split(NamedTuple):
    """Weights and keys of e = fixed e_cell + fresh e_write."""

    fixed: float
    fresh: float
    key_fixed: np.uint64
    key_fresh: np.uint64


class Pulses(NamedTuple):
    """Pulse model of write-verify, see `rramsim.cell.programming`."""

    below: np.ndarray  # [S] accepted distance below the target; one value, or one per level
    above: np.ndarray  # [S] accepted distance above the target; of the same shape
    gain: np.ndarray  # fraction of the remaining error that a pulse closes; of the same shape
    scatter: float  # std of a pulse's step, relative to the step
    scatter_floor: float  # [S] std of a pulse's step, absolute
    sigma_gain: np.ndarray  # std of ln(gain) from cell to cell; of the same shape
    n_max: int  # pulse budget


class Relaxation(NamedTuple):
    """Sudden change after the last pulse: shift(g) + sigma(g) e, polynomials in g / g_reference."""

    on: bool
    g_reference: float  # [S]
    g_low: float  # [S] physical floor
    g_high: float  # [S]


@njit(cache=True, error_model="numpy")
def polynomial(coefficients, x):
    """Horner's rule, lowest power first."""
    value = 0.0
    for k in range(coefficients.shape[0] - 1, -1, -1):
        value = value * x + coefficients[k]
    return value


@njit(cache=True, error_model="numpy")
def deviate(split, cell, count):
    """e = sqrt(f) e_cell + sqrt(1 - f) e_write of one write."""
    e = 0.0
    if split.fixed > 0.0:
        e += split.fixed * normal_at(split.key_fixed, cell, 0)
    if split.fresh > 0.0:
        e += split.fresh * normal_at(split.key_fresh, cell, count)
    return e


@njit(cache=True, error_model="numpy")
def _worn(target, count, wear):
    """Target reachable in the worn window, and the factor on sigma."""
    if not wear.n_endurance < math.inf:
        return target, 1.0
    x = min(1.0, ((count + wear.n_before) / wear.n_endurance) ** wear.exponent)
    top = wear.g_max - wear.window_loss * x * (wear.g_max - wear.g_min)
    return min(target, top), 1.0 + wear.sigma_growth * x


@njit(cache=True, error_model="numpy")
def _relax(g, cell, count, relaxation, shift, sigma, split):
    if not relaxation.on:
        return g
    x = g / relaxation.g_reference
    g += polynomial(shift, x) + max(0.0, polynomial(sigma, x)) * deviate(split, cell, count)
    return min(max(g, relaxation.g_low), relaxation.g_high)


@njit(cache=True, parallel=True, error_model="numpy")
def write_one_shot(
    levels, mask, stuck, g_target, sigma, multiplicative, bounds, split, wear,
    relaxation, shift, sigma_relaxed, split_relaxed, count, g,
):  # fmt: skip
    """Program masked cells open loop; updates `count` and `g` [S].

    `g_target` [S] and `sigma` are tables over levels; `sigma` is the std of ln g where
    `multiplicative`, else in siemens. `bounds` = (lowest, highest) conductance [S].
    """
    n_bl = levels.shape[1]
    for i in prange(levels.shape[0]):
        for j in range(n_bl):
            if not mask[i, j]:
                continue
            count[i, j] += 1
            if stuck[i, j]:
                continue
            cell, n = i * n_bl + j, np.int64(count[i, j])
            level = levels[i, j]
            target, widen = _worn(g_target[level], n, wear)
            s = sigma[level] * widen
            e = deviate(split, cell, n) if s > 0.0 else 0.0
            if multiplicative:
                value = target * math.exp(s * e - 0.5 * s * s)
            else:
                value = target + s * e
            value = min(max(value, bounds[0]), bounds[1])
            g[i, j] = _relax(value, cell, n, relaxation, shift, sigma_relaxed, split_relaxed)


@njit(cache=True, parallel=True, error_model="numpy")
def deviates(mask, count, split, e):
    """Standard normal errors of the *next* write of masked cells, for laws written in NumPy."""
    n_bl = mask.shape[1]
    for i in prange(mask.shape[0]):
        for j in range(n_bl):
            e[i, j] = deviate(split, i * n_bl + j, np.int64(count[i, j]) + 1) if mask[i, j] else 0.0


@njit(cache=True, parallel=True, error_model="numpy")
def write_values(values, mask, stuck, relaxation, shift, sigma_relaxed, split_relaxed, count, g):
    """Store realised conductances `values` [S] of masked cells, then relax them."""
    n_bl = mask.shape[1]
    for i in prange(mask.shape[0]):
        for j in range(n_bl):
            if mask[i, j]:
                count[i, j] += 1
                if not stuck[i, j]:
                    cell, n = i * n_bl + j, np.int64(count[i, j])
                    g[i, j] = _relax(values[i, j], cell, n, relaxation, shift, sigma_relaxed, split_relaxed)


@njit(cache=True, parallel=True, error_model="numpy")
def write_verify(
    levels, mask, stuck, g_target, g_present, pulses, key_pulse, key_gain, wear,
    relaxation, shift, sigma_relaxed, split_relaxed, count, g, n_pulses, n_failed,
):  # fmt: skip
    """Pulse masked cells until g lies in their level's window or the budget is spent.

    Starts from `g_present` [S], updates `count` and `g`; `n_pulses` and `n_failed` are sums
    per word line. A stuck cell takes the whole budget.
    """
    n_bl = levels.shape[1]
    for i in prange(levels.shape[0]):
        total, failed = 0, 0
        for j in range(n_bl):
            if not mask[i, j]:
                continue
            count[i, j] += 1
            own = levels[i, j] if pulses.gain.shape[0] > 1 else 0
            below, above = pulses.below[own], pulses.above[own]
            if stuck[i, j]:
                error = g_target[levels[i, j]] - g_present[i, j]
                if error > below or -error > above:
                    total += pulses.n_max
                    failed += 1
                continue
            cell, n = i * n_bl + j, np.int64(count[i, j])
            target, widen = _worn(g_target[levels[i, j]], n, wear)
            gain = pulses.gain[own]
            if pulses.sigma_gain[own] > 0.0:
                gain *= math.exp(pulses.sigma_gain[own] * normal_at(key_gain, cell, 0))
                if pulses.gain.shape[0] > 1:
                    gain = min(gain, 1.0)  # fitted tables of wide spread would make cells diverge
            value = np.float64(g_present[i, j])
            accepted = False
            for k in range(pulses.n_max + 1):
                error = target - value
                if error <= below and -error <= above:
                    accepted = True
                    break
                if k == pulses.n_max:
                    break
                step = gain * error
                spread = widen * (pulses.scatter * abs(step) + pulses.scatter_floor)
                if spread > 0.0:
                    step += spread * normal_at(key_pulse, cell, n * 65536 + k)
                value = min(max(value + step, relaxation.g_low), relaxation.g_high)
                total += 1
            if not accepted:
                failed += 1
            g[i, j] = _relax(value, cell, n, relaxation, shift, sigma_relaxed, split_relaxed)
        n_pulses[i], n_failed[i] = total, failed
