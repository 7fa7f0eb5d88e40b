"""State of cells over time: drift, read disturbance, telegraph noise, faults.

Arrays in, arrays out, axes (n_wl, n_bl). Optional arrays have shape (0, 0) where the
cause is off. A thread owns whole word lines, so bits do not depend on the thread count.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from rramsim.kernels.counter import normal_at, uniform_at

DRIFT_OFF, DRIFT_EXPONENTIAL, DRIFT_LOGARITHMIC, DRIFT_POWER = 0, 1, 2, 3
DISTURB_OFF, DISTURB_POWER, DISTURB_EXPONENTIAL, DISTURB_TABLE = 0, 1, 2, 3


class Drift(NamedTuple):
    kind: int
    t_reference: float  # [s] time constant or time at which drift begins
    g_reference: float  # [S] unit of the polynomials' argument
    fixed: float  # weight of the part of the deviate that is fixed per cell
    fresh: float
    key_fixed: np.uint64
    key_fresh: np.uint64


class Disturb(NamedTuple):
    kind: int
    p: float  # exponent of the power law at the configured read voltage
    t_reference: float  # [s] t0 of the power law, tau of the exponential law
    n_before: int  # cycles before delivery, index shift of `base`
    g_min: float  # [S]
    g_max: float  # [S]


@njit(cache=True, error_model="numpy")
def _polynomial(coefficients, x):
    value = 0.0
    for k in range(coefficients.shape[0] - 1, -1, -1):
        value = value * x + coefficients[k]
    return value


@njit(cache=True, error_model="numpy")
def _drifted(g, seconds, cell, count, drift, mean, sigma, sigma_offset):
    """Conductance `seconds` after the write, before disturbance."""
    t = drift.t_reference
    if drift.kind != DRIFT_EXPONENTIAL and seconds <= t:
        return g
    e = 0.0
    if drift.fixed > 0.0:
        e += drift.fixed * normal_at(drift.key_fixed, cell, 0)
    if drift.fresh > 0.0:
        e += drift.fresh * normal_at(drift.key_fresh, cell, count)
    x = g / drift.g_reference
    if drift.kind == DRIFT_POWER:
        nu = _polynomial(mean, x) + max(0.0, _polynomial(sigma, x)) * e
        return g * (seconds / t) ** (-nu)
    if drift.kind == DRIFT_EXPONENTIAL:
        grown = 1.0 - math.exp(-seconds / t)
        change = grown * (_polynomial(mean, x) + max(0.0, _polynomial(sigma, x)) * e)
    else:
        grown = math.log(seconds / t)
        spread = max(0.0, _polynomial(sigma_offset, x) + _polynomial(sigma, x) * grown)
        change = grown * _polynomial(mean, x) + spread * e
    return max(g + change, 0.0)


@njit(cache=True, error_model="numpy")
def _disturbed(g, stress, n, susceptibility, disturb, base):
    """Conductance after signed stress [s]: below 0 the cell falls, above it rises."""
    t = abs(stress) * susceptibility
    if t == 0.0:
        return g
    if disturb.kind == DISTURB_POWER:
        index = min(max(n, 0), base.shape[0] - 1)
        remaining = base[index] - np.float32(disturb.p) * math.log(np.float32(t / disturb.t_reference))
        if remaining >= 0.0:
            return g
        remaining = math.exp(remaining)
    else:
        remaining = math.exp(np.float32(-t / disturb.t_reference))
    if stress > 0.0:
        return disturb.g_max - (disturb.g_max - g) * remaining if g < disturb.g_max else g
    if disturb.kind == DISTURB_POWER:
        return max(g * remaining, min(g, disturb.g_min))
    return disturb.g_min + (g - disturb.g_min) * remaining if g > disturb.g_min else g


@njit(cache=True, parallel=True, error_model="numpy")
def refresh(
    g_written, clock, t_write, count, stuck, stress, susceptibility,
    drift, mean, sigma, sigma_offset, disturb, base, g,
):  # fmt: skip
    """Present conductance `g` [S] from what was written, the time since and the stress since.

    `base[n]` is ln of the power law's bracket for n cycles since delivery. Returns how many cells changed.
    """
    n_bl = g.shape[1]
    n_changed = 0
    lasting = drift.kind != DRIFT_OFF
    disturbed = disturb.kind == DISTURB_POWER or disturb.kind == DISTURB_EXPONENTIAL
    personal = susceptibility.size > 0
    for i in prange(g.shape[0]):
        for j in range(n_bl):
            value = np.float64(g_written[i, j])
            if not stuck[i, j]:
                n = np.int64(count[i, j])
                if lasting:
                    seconds = clock - t_write[i, j]
                    value = _drifted(value, seconds, i * n_bl + j, n, drift, mean, sigma, sigma_offset)
                if disturbed:
                    s = np.float64(susceptibility[i, j]) if personal else 1.0
                    value = _disturbed(value, stress[i, j], n, s, disturb, base)
            new = np.float32(value)
            if new != g[i, j]:
                n_changed += 1
                g[i, j] = new
    return n_changed


@njit(cache=True, error_model="numpy", inline="always")
def _four_nodes(value, first, step, n_nodes):
    """First of the four nodes about a value, and its distance from the second in steps."""
    x = (value - first) / step
    node = min(max(np.int64(x) - 1, 0), n_nodes - 4)
    return node, x - node - 1.0


@njit(cache=True, error_model="numpy", inline="always")
def _cubic(near, t):
    """Cubic (Lagrange) interpolation between near[1] and near[2]."""
    before, after, beyond = t + 1.0, t - 1.0, t - 2.0
    sixth, half = t * before * after * (1.0 / 6.0), after * beyond * 0.5
    return (
        -t * half * (1.0 / 3.0) * near[0]
        + before * half * near[1]
        - before * t * beyond * 0.5 * near[2]
        + sixth * near[3]
    )


@njit(cache=True, error_model="numpy")
def _looked_up(table, base, n_s, n_o, slope, s_first, s_step, offset, o_first, o_step):
    """Value of a flat table (n_slopes, n_offsets) from `base` on; an axis of one node has no values."""
    if n_s == 1 and n_o == 1:
        return table[base]
    if n_o == 1:
        s, a = _four_nodes(slope, s_first, s_step, n_s)
        return _cubic(table[base + s : base + s + 4], a)
    o, b = _four_nodes(offset, o_first, o_step, n_o)
    if n_s == 1:
        return _cubic(table[base + o : base + o + 4], b)
    s, a = _four_nodes(slope, s_first, s_step, n_s)
    at = base + s * n_o + o
    one, two = _cubic(table[at : at + 4], b), _cubic(table[at + n_o : at + n_o + 4], b)
    at += 2 * n_o
    three, four = _cubic(table[at : at + 4], b), _cubic(table[at + n_o : at + n_o + 4], b)
    return _cubic((one, two, three, four), a)


@njit(cache=True, parallel=True, error_model="numpy")
def add_stress(
    stress, count, slope, offset, table, s_first, s_step, o_first, o_step, n_first, node, fraction
):
    """Add equivalent stress [s] from a table (n_wl, n_counts, n_slopes, n_offsets).

    Cubic in slope and offset; cells without one of their own (empty arrays) take the only node. Linear
    in the write count, which `node`, `fraction` place (less `n_first`) on the table's second axis.
    """
    n_bl, n_counts, n_s, n_o = stress.shape[1], table.shape[1], table.shape[2], table.shape[3]
    flat, size = table.reshape(-1), n_s * n_o
    for i in prange(stress.shape[0]):
        for j in range(n_bl):
            index = np.int64(count[i, j]) - n_first
            base = (i * n_counts + node[index]) * size
            u = fraction[index]
            own = slope[i, j] if n_s > 1 else 1.0
            shift = offset[i, j] if n_o > 1 else 0.0
            value = _looked_up(flat, base, n_s, n_o, own, s_first, s_step, shift, o_first, o_step)
            if u > 0.0 and node[index] + 1 < n_counts:
                base += size
                other = _looked_up(flat, base, n_s, n_o, own, s_first, s_step, shift, o_first, o_step)
                value += u * (other - value)
            stress[i, j] += value


@njit(cache=True, parallel=True, error_model="numpy")
def add_stress_power(stress, count, v_cell, base, inverse_p_read, c1, slope, t_read, sign, signed):
    """Stress [s] of solved cell voltages (n_vectors, n_wl, n_bl) under the power law.

    Weight exp(L (1/p(v_read) - 1/p(v))) with p(v) = c1 exp(slope |v|) and L = max(base, 0);
    its sign is that of the voltage where `signed`, and `sign` multiplies it.
    """
    n_bl = stress.shape[1]
    for i in prange(stress.shape[0]):
        for j in range(n_bl):
            log_bracket = max(np.float64(base[min(np.int64(count[i, j]), base.shape[0] - 1)]), 0.0)
            total = stress[i, j]
            for k in range(v_cell.shape[0]):  # in the order of reads: chunks change no bit
                v = v_cell[k, i, j]
                if v != 0.0:
                    weight = math.exp(log_bracket * (inverse_p_read - math.exp(-slope * abs(v)) / c1))
                    total += (-sign if signed and v < 0.0 else sign) * weight * t_read
            stress[i, j] = total


@njit(cache=True, parallel=True, error_model="numpy")
def lognormal_factors(key, sigma, out):
    """Per-cell factor exp(sigma e - sigma^2/2): lognormal with mean 1."""
    n_bl = out.shape[1]
    for i in prange(out.shape[0]):
        for j in range(n_bl):
            out[i, j] = math.exp(sigma * normal_at(key, i * n_bl + j, 0) - 0.5 * sigma * sigma)


@njit(cache=True, parallel=True, error_model="numpy")
def independent_faults(key, low_rate, high_rate, stuck):
    """1 = stuck at low, 2 = stuck at high conductance; raising a rate only adds faults."""
    n_bl = stuck.shape[1]
    for i in prange(stuck.shape[0]):
        for j in range(n_bl):
            u = uniform_at(key, i * n_bl + j, 0)
            if u < low_rate:
                stuck[i, j] = 1
            elif u > 1.0 - high_rate:
                stuck[i, j] = 2


@njit(cache=True, parallel=True, error_model="numpy")
def switch_traps(key, step, occupancy, stay, captured):
    """Markov step of slow telegraph noise: a trap keeps its state with probability `stay`."""
    n_bl = captured.shape[1]
    for i in prange(captured.shape[0]):
        for j in range(n_bl):
            cell = i * n_bl + j
            if uniform_at(key, cell, 2 * step) >= stay:
                captured[i, j] = 1 if uniform_at(key, cell, 2 * step + 1) < occupancy else 0
