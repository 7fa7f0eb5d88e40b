"""Newton's method and conjugate gradients on cell currents, for single input vectors.

The wires of a driven line turn the currents J its cells draw into a drop R J that two running sums
along the line give exactly, so the circuit reads, with V the voltages across the cells,

    V = v_source - R J,    J = f(V).

R is symmetric and positive. A Newton step needs (1/f' + R) x = F, solved by conjugate gradients
preconditioned with f' (the cells' own conductance): the fewer the weaker the drop. V stays
consistent with J to rounding through every step, which gives the derivative of the convex content
along a step without further work: that is what safeguards the step.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from rramsim.kernels.nodal_simd import drops_along, sums_to_end

LANES = 8  # rows whose running sums are formed side by side


class Drops(NamedTuple):
    """Resistances [ohm] of uniform lines; `both` ends at the same potential where true."""

    r_word: float
    r_driver: float
    r_bit: float
    r_sense: float
    r_access: float
    word_both: bool
    bit_both: bool


@njit(cache=True, error_model="numpy", nogil=True)
def _word_drop(x, y, drops):
    """y = (R_word + r_access) x for all word lines (m, n), C-contiguous; the same bits in both ways."""
    m, n = x.shape
    whole = m // LANES * LANES if n % LANES == 0 else 0
    if whole > 0:
        _word_drop_lanes(x, y, drops, whole)
    if whole < m:
        _word_drop_rows(x[whole:], y[whole:], drops)


@njit(cache=True, error_model="numpy", nogil=True)
def _word_drop_lanes(x, y, drops, m):
    """`_word_drop` of the first m rows, a multiple of LANES, with as many columns."""
    n = x.shape[1]
    flat_x, flat_y = x.reshape(x.size), y.reshape(y.size)
    sums, far = np.empty(n * LANES), np.zeros(LANES)
    r, r_end = drops.r_word, drops.r_driver
    whole = 2.0 * r_end + (n + 1) * r
    for i in range(0, m, LANES):
        sums_to_end(flat_x, i * n, n, n // LANES, sums, 0)
        if drops.word_both and whole > 0.0:
            far[:] = 0.0
            for j in range(n):  # sum of r_left(j) x_j over the whole resistance, by partial sums
                for k in range(LANES):
                    far[k] += sums[j * LANES + k]
            for k in range(LANES):
                far[k] = (r_end * sums[k] + r * far[k]) / whole
        drops_along(sums, 0, n // LANES, far, r_end, r, drops.r_access, flat_x, flat_y, i * n, n)


@njit(cache=True, error_model="numpy", nogil=True)
def _word_drop_rows(x, y, drops):
    """`_word_drop` of any shape, four rows at a time to hide the latency of the sums."""
    m, n = x.shape
    r, r_end, access = drops.r_word, drops.r_driver, drops.r_access
    whole = 2.0 * r_end + (n + 1) * r
    for i in range(0, m, 4):
        i1, i2, i3 = min(i + 1, m - 1), min(i + 2, m - 1), min(i + 3, m - 1)
        s0 = s1 = s2 = s3 = 0.0
        for j in range(n - 1, -1, -1):
            s0 += x[i, j]
            s1 += x[i1, j]
            s2 += x[i2, j]
            s3 += x[i3, j]
            y[i, j] = s0
            y[i1, j] = s1
            y[i2, j] = s2
            y[i3, j] = s3
        f0 = f1 = f2 = f3 = 0.0  # currents delivered by the far end
        if drops.word_both and whole > 0.0:
            for j in range(n):  # sum of r_left(j) x_j over the whole resistance, by partial sums
                f0 += y[i, j]
                f1 += y[i1, j]
                f2 += y[i2, j]
                f3 += y[i3, j]
            f0 = (r_end * y[i, 0] + r * f0) / whole
            f1 = (r_end * y[i1, 0] + r * f1) / whole
            f2 = (r_end * y[i2, 0] + r * f2) / whole
            f3 = (r_end * y[i3, 0] + r * f3) / whole
        d0, d1, d2, d3 = (
            r_end * (y[i, 0] - f0),
            r_end * (y[i1, 0] - f1),
            r_end * (y[i2, 0] - f2),
            r_end * (y[i3, 0] - f3),
        )
        for j in range(n):
            d0 += r * (y[i, j] - f0)
            d1 += r * (y[i1, j] - f1)
            d2 += r * (y[i2, j] - f2)
            d3 += r * (y[i3, j] - f3)
            y[i, j] = d0 + access * x[i, j]
            y[i1, j] = d1 + access * x[i1, j]
            y[i2, j] = d2 + access * x[i2, j]
            y[i3, j] = d3 + access * x[i3, j]


@njit(cache=True, error_model="numpy", nogil=True)
def _bit_sums(x, sums, far, drop, drops):
    """Currents of all bit lines: sums (m, n) from the top, far (n,) into the second ground, drop (n,) [V]."""
    m, n = x.shape
    r, r_end = drops.r_bit, drops.r_sense
    whole = 2.0 * r_end + (m + 1) * r
    for j in range(n):
        sums[0, j] = x[0, j]
        far[j] = 0.0
    for i in range(1, m):
        for j in range(n):
            sums[i, j] = sums[i - 1, j] + x[i, j]
    if drops.bit_both and whole > 0.0:
        for i in range(m):
            for j in range(n):
                far[j] += sums[i, j]
        for j in range(n):
            far[j] = (r_end * sums[m - 1, j] + r * far[j]) / whole
    for j in range(n):
        drop[j] = r_end * (sums[m - 1, j] - far[j])


@njit(cache=True, error_model="numpy", nogil=True)
def _bit_drop(x, y, sums, far, drop, drops):
    """y += R_bit x for all bit lines; sums (m, n), far and drop (n,) are scratch."""
    m, n = x.shape
    _bit_sums(x, sums, far, drop, drops)
    for i in range(m - 1, -1, -1):
        for j in range(n):
            drop[j] += drops.r_bit * (sums[i, j] - far[j])
            y[i, j] += drop[j]


@njit(cache=True, error_model="numpy", nogil=True)
def _dot(a, b, c, part):
    """Sum of a b c, by columns first so that the order is fixed and the loop in vectors."""
    m, n = a.shape
    part[:] = 0.0
    for i in range(m):
        for j in range(n):
            part[j] += a[i, j] * b[i, j] * c[i, j]
    total = 0.0
    for j in range(n):
        total += part[j]
    return total


@njit(cache=True, error_model="numpy", nogil=True)
def _cg(residual, d, w, x, p, q, sums, rows, drops, target, max_iterations):
    """Solve (d + R) x = residual until the weighted norm of the residual reaches `target`.

    w is the preconditioner, 0 at open cells, where x stays 0. `residual` is updated. Returns iterations.
    """
    m, n = residual.shape
    part, far, drop = rows[0], rows[1], rows[2]
    for i in range(m):
        for j in range(n):
            x[i, j] = 0.0
            p[i, j] = w[i, j] * residual[i, j]
    rho = _dot(residual, residual, w, part)
    for iteration in range(max_iterations):
        if not rho > target * target:
            return iteration
        _word_drop(p, q, drops)
        _bit_sums(p, sums, far, drop, drops)
        part[:] = 0.0
        for i in range(m - 1, -1, -1):
            for j in range(n):
                drop[j] += drops.r_bit * (sums[i, j] - far[j])
                q[i, j] += drop[j] + d[i, j] * p[i, j]
                part[j] += p[i, j] * q[i, j]
        curvature = 0.0
        for j in range(n):
            curvature += part[j]
        step = rho / curvature
        part[:] = 0.0
        for i in range(m):
            for j in range(n):
                x[i, j] += step * p[i, j]
                residual[i, j] -= step * q[i, j]
                part[j] += w[i, j] * residual[i, j] * residual[i, j]
        new = 0.0
        for j in range(n):
            new += part[j]
        ratio = new / rho
        rho = new
        for i in range(m):
            for j in range(n):
                p[i, j] = w[i, j] * residual[i, j] + ratio * p[i, j]
    return max_iterations


# 1 / (2k+1)! and 1 / (2k)!: the series of sinh(u) / u and of cosh(u) in u^2, to rounding for |u| <= 1
S = tuple(1.0 / math.factorial(2 * k + 1) for k in range(9))
C = tuple(1.0 / math.factorial(2 * k) for k in range(10))


@njit(cache=True, error_model="numpy", nogil=True)
def _sinh_law(g, v, alpha, current, slope):
    """Current and slope of I = g sinh(alpha V) / alpha."""
    m, n = g.shape
    for i in range(m):
        if alpha == 0.0:
            for j in range(n):
                current[i, j] = g[i, j] * v[i, j]
                slope[i, j] = g[i, j]
            continue
        beyond = 0
        for j in range(n):
            beyond += not abs(alpha * v[i, j]) <= 1.0
        if beyond == 0:  # in vectors
            for j in range(n):
                u = alpha * v[i, j]
                t = u * u
                s = S[7] + t * S[8]
                s = S[6] + t * s
                s = S[5] + t * s
                s = S[4] + t * s
                s = S[3] + t * s
                s = S[2] + t * s
                s = S[1] + t * s
                c = C[8] + t * C[9]
                c = C[7] + t * c
                c = C[6] + t * c
                c = C[5] + t * c
                c = C[4] + t * c
                c = C[3] + t * c
                c = C[2] + t * c
                c = C[1] + t * c
                current[i, j] = g[i, j] * (v[i, j] + v[i, j] * t * s)
                slope[i, j] = g[i, j] * (1.0 + t * c)
        else:
            for j in range(n):
                s = math.sinh(alpha * v[i, j])
                current[i, j] = g[i, j] * s / alpha
                slope[i, j] = g[i, j] * math.sqrt(1.0 + s * s)


@njit(cache=True, error_model="numpy", nogil=True)
def newton_step(v, drawn, current, slope, drops, forcing, floor, max_iterations, work, rows):
    """One step from cell voltages v = v_source - R drawn towards drawn = f(v).

    current, slope : f(v) and f'(v).  work (8, m, n), rows (3, n): scratch.
    Leaves the change of v in work[0] and of `drawn` in work[1].
    Returns weighted norm of the mismatch before, size to compare it with, iterations of CG.
    """
    m, n = v.shape
    change, x, residual, d, w, p, q = work[0], work[1], work[2], work[3], work[4], work[5], work[6]
    for i in range(m):
        for j in range(n):
            x[i, j] = drawn[i, j] - current[i, j]
            f = slope[i, j]
            closed = f > 0.0
            d[i, j] = 1.0 / f if closed else 0.0
            w[i, j] = f / (1.0 + drops.r_access * f)
    _word_drop(x, residual, drops)
    _bit_drop(x, residual, p, rows[1], rows[2], drops)
    mismatch = math.sqrt(_dot(residual, residual, w, rows[0]))
    size = math.sqrt(_dot(v, v, w, rows[0]))
    for i in range(m):
        for j in range(n):
            change[i, j] = x[i, j]
    target = max(forcing * mismatch, floor * size)
    iterations = _cg(residual, d, w, x, p, q, work[7], rows, drops, target, max_iterations)
    for i in range(m):
        for j in range(n):
            old = change[i, j]
            change[i, j] = d[i, j] * x[i, j] + residual[i, j]
            x[i, j] -= old
    return mismatch, size, iterations


@njit(cache=True, error_model="numpy", nogil=True)
def _content_slope(current, drawn, x, change, t, part):
    """Derivative of the content along a step, at the fraction t of it."""
    m, n = x.shape
    part[:] = 0.0
    for i in range(m):
        for j in range(n):
            part[j] += (current[i, j] - drawn[i, j] - t * x[i, j]) * change[i, j]
    total = 0.0
    for j in range(n):
        total += part[j]
    return total


@njit(cache=True, error_model="numpy", nogil=True)
def _cancellation(i_cell, total, net):
    """Largest sum of magnitudes of cell currents along a bit line over the largest output; scratch (n,)."""
    m, n = i_cell.shape
    total[:] = 0.0
    net[:] = 0.0
    for i in range(m):
        for j in range(n):
            total[j] += abs(i_cell[i, j])
            net[j] += i_cell[i, j]
    most = out = 0.0
    for j in range(n):
        most, out = max(most, total[j]), max(out, abs(net[j]))
    return most / max(out, 1e-300)


@njit(cache=True, error_model="numpy", nogil=True)
def solve_sinh(
    g,
    v_in,
    first,
    last,
    alpha,
    drops,
    tolerance,
    cancelling,
    floor,
    max_newton,
    max_cg,
    v_cell,
    i_cell,
    report,
):
    """Cell voltages and currents of input vectors [first, last).

    A vector whose outputs are small differences of its cells' currents, by more than a factor of
    `cancelling`, is solved on to a tolerance that is smaller in the same ratio, not below `floor`.
    report (n_batch, 3): Newton steps, last weighted mismatch over size, iterations of CG.
    """
    m, n = g.shape
    work = np.empty((8, m, n))
    rows = np.empty((3, n))
    current, slope, trial = np.empty((m, n)), np.empty((m, n)), np.empty((m, n))
    for b in range(first, last):
        v, drawn = v_cell[b], i_cell[b]
        for i in range(m):
            for j in range(n):
                v[i, j] = v_in[b, i]
                drawn[i, j] = 0.0
        report[b, 0] = max_newton
        report[b, 1] = np.inf
        cg = 0
        limit = 0.0  # of this vector, once its outputs are known
        forcing = 0.0 if alpha == 0.0 else 0.03
        _sinh_law(g, v, alpha, current, slope)
        for step in range(max_newton):
            mismatch, size, iterations = newton_step(
                v, drawn, current, slope, drops, forcing, 0.3 * (limit or tolerance), max_cg, work, rows
            )
            cg += iterations
            relative = mismatch / size if size > 0.0 else 0.0
            report[b, 1] = relative
            change, x = work[0], work[1]
            before = _content_slope(current, drawn, x, change, 0.0, rows[0])
            t = 1.0
            for _ in range(60):
                for i in range(m):
                    for j in range(n):
                        trial[i, j] = v[i, j] + t * change[i, j]
                _sinh_law(g, trial, alpha, current, slope)
                after = _content_slope(current, drawn, x, change, t, rows[0])
                if relative < 1e-6 or after <= 0.5 * abs(before):
                    break
                t *= 0.5
            for i in range(m):
                for j in range(n):
                    v[i, j] = trial[i, j]
                    drawn[i, j] += t * x[i, j]
            if alpha == 0.0:
                report[b, 0] = 1
                report[b, 1] = tolerance if iterations < max_cg else 1.0
                break
            expected = relative * max(forcing, relative)  # Newton's method converges quadratically
            if relative <= tolerance or (t == 1.0 and relative < 1e-5 and expected <= tolerance):
                reached = min(relative, expected)
                if limit == 0.0:
                    ratio = _cancellation(drawn, rows[0], rows[1]) / cancelling
                    limit = max(min(floor, tolerance), tolerance / max(ratio, 1.0))
                    if limit < tolerance:
                        reached = relative  # this step went no further than `tolerance`
                if reached <= limit:
                    report[b, 0] = step + 1
                    report[b, 1] = reached
                    break
            forcing = min(0.03, max(1e-6, relative * relative))
        report[b, 2] = cg


@njit(cache=True, error_model="numpy", nogil=True)
def line_voltages(v_in, i_cell, drops, v_word, v_bit):
    """Node voltages on both sides of the cells from the currents they draw (drops without r_access)."""
    n_batch, m, n = i_cell.shape
    sums = np.empty((m, n))
    rows = np.empty((2, n))
    for b in range(n_batch):
        _word_drop(i_cell[b], v_word[b], drops)
        for i in range(m):
            for j in range(n):
                v_word[b, i, j] = v_in[b, i] - v_word[b, i, j]
                v_bit[b, i, j] = 0.0
        _bit_drop(i_cell[b], v_bit[b], sums, rows[0], rows[1], drops)
