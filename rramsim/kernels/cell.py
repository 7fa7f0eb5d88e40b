"""State of cells over time: drift, read disturbance, telegraph noise, faults.

Arrays in, arrays out, axes (n_wl, n_bl). Optional arrays have shape (0, 0) where the
cause is off. A thread owns whole word lines, so bits do not depend on the thread count.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from rramsim.kernels.random import normal_at, uniform_at

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

    `base[n]` is ln of the power law's bracket for n cycles since delivery.
    """
    n_bl = g.shape[1]
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
            g[i, j] = value


@njit(cache=True, parallel=True, error_model="numpy")
def add_stress(stress, count, attenuation, table, a_first, a_step, n_first, node, fraction):
    """Add equivalent stress [s] from a table (n_wl, n_counts, n_attenuations), bilinear.

    `node`, `fraction` place a write count (less `n_first`) on the table's second axis.
    """
    n_bl, n_counts, n_a = stress.shape[1], table.shape[1], table.shape[2]
    wires = attenuation.size > 0
    for i in prange(stress.shape[0]):
        for j in range(n_bl):
            index = np.int64(count[i, j]) - n_first
            row = node[index]
            u = fraction[index]
            column, v = 0, 0.0
            if wires:
                x = (attenuation[i, j] - a_first) / a_step
                column = min(max(np.int64(math.floor(x)), 0), n_a - 2)
                v = x - column
            value = table[i, row, column]
            if v > 0.0:
                value += v * (table[i, row, column + 1] - value)
            if u > 0.0 and row + 1 < n_counts:
                other = table[i, row + 1, column]
                if v > 0.0:
                    other += v * (table[i, row + 1, column + 1] - other)
                value += u * (other - value)
            stress[i, j] += value


@njit(cache=True, parallel=True, error_model="numpy")
def add_stress_affine(
    stress, count, slope, offset, counts, voltages, weights, v_step, share, signed, n_first, node, fraction
):
    """Add equivalent stress [s] of reads at cell voltages slope v + offset [V].

    `counts` (n_wl, n_codes) reads at `voltages` (n_codes,); `weights` (n_counts, n_voltages)
    tabulates seconds per read at |v| = 0, v_step, ...; the rest as in `add_stress`.
    """
    n_bl, n_codes, n_counts, n_v = stress.shape[1], counts.shape[1], weights.shape[0], weights.shape[1]
    for i in prange(stress.shape[0]):
        for j in range(n_bl):
            index = np.int64(count[i, j]) - n_first
            row = node[index]
            above = min(row + 1, n_counts - 1)
            u = fraction[index]
            total = 0.0
            for code in range(n_codes):
                if counts[i, code] == 0.0:
                    continue
                v = slope[i, j] * voltages[code] + offset[i, j]
                x = abs(v) / v_step
                k = min(np.int64(x), n_v - 2)
                w = x - k
                value = weights[row, k] + w * (weights[row, k + 1] - weights[row, k])
                if u > 0.0:
                    other = weights[above, k] + w * (weights[above, k + 1] - weights[above, k])
                    value += u * (other - value)
                total += counts[i, code] * (-value if signed and v < 0.0 else value)
            stress[i, j] += share * total


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


@njit(cache=True, parallel=True, error_model="numpy")
def largest_change(g, reference, n_row, n_column, change):
    """Largest |g - reference| / max(|reference|) per tile of n_row x n_column cells."""
    for ti in prange(change.shape[0]):
        for tj in range(change.shape[1]):
            worst, scale = 0.0, 0.0
            for i in range(ti * n_row, min((ti + 1) * n_row, g.shape[0])):
                for j in range(tj * n_column, min((tj + 1) * n_column, g.shape[1])):
                    worst = max(worst, abs(np.float64(g[i, j]) - np.float64(reference[i, j])))
                    scale = max(scale, abs(np.float64(reference[i, j])))
            change[ti, tj] = worst / scale if scale > 0.0 else worst
