"""Numba code of the tuner: greedy choice of cells to rewrite. Stands alone on math, numpy, numba."""

from __future__ import annotations

import numpy as np
from numba import njit

ROUNDING = 1e-12  # of a gain's terms, by which a bound on it is widened


@njit(cache=True, error_model="numpy")
def _best_of_row(s, h, mean, added, deviate, factor, allowed, chosen, level_mean, level_sd, carry, cost):
    """The best move of one weight's cells, see `choose_moves`.

    Its gain (-inf where none may move), cell, level, d and new mean; then the largest |d| of any move and the
    least variance that one adds.
    """
    rest = cost * (1.0 - carry * carry)
    best, best_k, best_q, best_d, best_m, far, low = -np.inf, 0, 0, 0.0, 0.0, 0.0, np.inf
    for k in range(mean.shape[0]):
        if not allowed[k] or chosen[k] > 0.0:
            continue
        f = factor[k]
        base = cost * added[k]
        low = min(low, base)
        lift = carry * deviate[k]
        for q in range(level_mean.shape[0]):
            m = level_mean[q] + lift * level_sd[q]
            d = f * (m - mean[k])
            gain = 2.0 * s * d - h * (d * d + base + f * f * rest * level_sd[q] * level_sd[q])
            far = max(far, abs(d))
            if gain > best:
                best, best_k, best_q, best_d, best_m = gain, k, q, d, m
    return best, best_k, best_q, best_d, best_m, far, low


@njit(cache=True, error_model="numpy")
def choose_moves(
    slope,
    gram,
    mean,
    added,
    covariance,
    deviate,
    factor,
    allowed,
    level_mean,
    level_sd,
    carry,
    cost,
    price,
    limit,
    levels,
    chosen,
):
    """Greedy coordinate descent over single cells, each column for itself.

    The column's loss is ``w'Hw - 2 w'(X'T)`` with w the expected weights; a move of cell k of row i to
    level q changes the weight by ``d = f_k (m_q - mean)`` and adds the variance of a new write and `added`,
    that of what is not known of the old cell. Its expected gain is ``2 s_i d - H_ii (d**2 + var)``.

    Parameters
    ----------
    slope : (n_rows, n_cols), X'(T - Y) of the present state; updated with each move
    gram : (n_rows, n_rows), X'X, symmetric
    mean, added, deviate : (n_rows, n_cols, n_cells), expected conductance of each cell, variance of
        the weight that its removal adds, standardised fixed error of the cell; the first two are updated
    covariance : (n_rows, n_cols, n_cells, n_cells), of the cells' parts in the weight: where a second
        cell of a weight is moved too, what both share is counted once
    factor : (n_cells,), weight of a unit of conductance
    allowed : bool (n_rows, n_cols, n_cells)
    level_mean, level_sd : (n_levels,)
    carry : share of the fixed error in the next write's error
    cost : factor on all variances of a move
    price : (n_cols,), gain a move must exceed
    limit : (n_cols,), most moves of a column
    levels, chosen : int64 (n_rows, n_cols, n_cells) and float64 of that shape; new level, and gain of the
        move (0 for cells that stay)
    """
    n_rows, n_cols, n_cells = mean.shape
    diagonal = np.empty(n_rows)
    for i in range(n_rows):
        diagonal[i] = gram[i, i]
    # of each row: a bound on the gain of its moves, the largest |d| of one, the least variance added; a move
    # elsewhere changes s by c and any gain by 2 |c d| at most, so that most rows need no new look
    bound, reach, least = np.empty(n_rows), np.empty(n_rows), np.empty(n_rows)
    for j in range(n_cols):
        own = slope[:, j].copy()
        bound[:], reach[:], least[:] = np.inf, 0.0, -np.inf
        for _ in range(limit[j]):
            best, best_i, best_k, best_q, best_d, best_m = price[j], -1, 0, 0, 0.0, 0.0
            for i in range(n_rows):
                h, s = diagonal[i], own[i]
                # s**2 / h - h base is the most that a cell gains
                if bound[i] <= best or s * s <= (best + h * least[i]) * h:
                    continue
                gain, k, q, d, m, far, low = _best_of_row(
                    s, h, mean[i, j], added[i, j], deviate[i, j], factor, allowed[i, j], chosen[i, j],
                    level_mean, level_sd, carry, cost,
                )  # fmt: skip
                if gain > best:
                    best, best_i, best_k, best_q, best_d, best_m = gain, i, k, q, d, m
                bound[i] = gain + ROUNDING * far * (2.0 * abs(s) + h * far)
                reach[i], least[i] = 2.0 * far, low
            if best_i < 0:
                break
            levels[best_i, j, best_k] = best_q
            chosen[best_i, j, best_k] = best
            mean[best_i, j, best_k] = best_m
            for k in range(n_cells):
                added[best_i, j, k] += 2.0 * covariance[best_i, j, best_k, k]
            for i in range(n_rows):
                change = gram[best_i, i] * best_d
                own[i] -= change
                bound[i] += reach[i] * abs(change)
            bound[best_i], least[best_i] = np.inf, -np.inf
        slope[:, j] = own
    return np.count_nonzero(chosen)


@njit(cache=True, error_model="numpy")
def round_in_order(wanted, factor, values, rounded):
    """Round rows one after another, each row's error spread over the rows behind it (GPTQ).

    `wanted` (n_rows, n_cols) is updated; `factor` is the upper Cholesky factor of the inverse Gram
    matrix, rows in the order of rounding; `values` ascending representable numbers; `rounded`
    (n_rows, n_cols) gets the nearest of them (Frantar et al., arXiv 2210.17323).
    """
    n_rows, n_cols = wanted.shape
    n_values = values.shape[0]
    for i in range(n_rows):
        for j in range(n_cols):
            x = wanted[i, j]
            k = np.searchsorted(values, x)
            if k == n_values or (k > 0 and x - values[k - 1] < values[k] - x):
                k -= 1
            rounded[i, j] = values[k]
            step = (x - values[k]) / factor[i, i]
            for r in range(i + 1, n_rows):
                wanted[r, j] -= factor[i, r] * step
