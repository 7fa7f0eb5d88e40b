"""Which cells to write, and to which levels: the greedy choice shared by tuning, maintenance and bounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from finetune.evidence import kernels
from finetune.evidence.belief import CellBelief

__all__ = ["choose"]


def choose(
    belief: CellBelief,
    written: NDArray[np.integer],
    gram: NDArray[np.float64],
    slope: NDArray[np.float64],
    level_mean: NDArray[np.float64],
    level_sd: NDArray[np.float64],
    n_moves: float,
    *,
    importance: NDArray[np.float64] | None = None,
    price: float = 0.0,
    cost: float = 1.0,
    carry: float = 0.0,
    deviate: NDArray[np.float64] | None = None,
    allowed: NDArray[np.bool_] | None = None,
    columns: NDArray[np.bool_] | None = None,
    unseen: float = 0.0,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Cells whose rewriting pays in expectation, the best first, at most `n_moves` of them.

    Writing cell k of row i to level q changes the weight by ``d = f_k (m_q - mean)`` in expectation and the
    expected squared error of its column by ``H_ii (d**2 + f_k**2 (v_q + v)) - 2 d g_i``, where H is the
    inputs' second moment, g the *measured* slope ``mean(x' (target - y))``, v_q what a new write leaves and v
    what is not known of the present cell. That v counts as a cost: the present error is in the measured
    residual, which other cells may have been set to compensate, and it leaves with the cell. (Not so in
    directions that no sample shows, to the part `unseen` of H: there it is an error that goes.)

    Parameters
    ----------
    belief : CellBelief
    written : ndarray, shape (n_rows, n_cols, n_cells)
        Levels last written.
    gram : ndarray, shape (n_rows, n_rows)
    slope : ndarray, shape (n_rows, n_cols)
    level_mean, level_sd : ndarray, shape (n_levels,)
        What a write to each level leaves, in the belief's unit.
    n_moves : float
        Most cells in all.
    importance : ndarray, shape (n_cols,), optional
        What a unit of squared error costs in each column.
    price : float
        Gain, in units of that cost, which a write must exceed.
    cost : float
        Factor on the variances, below 1 where later passes will correct for a part of them.
    carry : float
        Share of a cell's error that its next write repeats, with `deviate`, that error over the standard
        deviation of a write, of the belief's shape.
    allowed : ndarray of bool, optional
        Cells that may be written.
    columns : ndarray of bool, shape (n_cols,), optional
        Columns that may be changed.
    unseen : float
        Part of every diagonal entry of `gram` that stands for inputs which no sample shows.

    Returns
    -------
    levels : ndarray of int64, and mask : ndarray of bool, both (n_rows, n_cols, n_cells)
    """
    n_rows, n_cols, _ = belief.mean.shape
    levels, n_moves = np.array(written, dtype=np.int64), int(max(n_moves, 0))
    if n_moves == 0:
        return levels, np.zeros(levels.shape, dtype=bool)
    value = np.ones(n_cols) if importance is None else np.maximum(importance, 1e-30)
    most = np.full(n_cols, min(max(2, n_rows // 4), 4 + 4 * n_moves // n_cols), dtype=np.int64)
    if columns is not None:
        most *= columns
    known = 1.0 - 2.0 * unseen / np.maximum(np.diag(gram), 1e-30)
    added = belief.variance * np.square(belief.factor) * known[:, None, None]
    covariance = belief.covariance * np.multiply.outer(belief.factor, belief.factor)
    fixed = np.zeros(levels.shape) if deviate is None else deviate
    free = np.ones(levels.shape, dtype=bool) if allowed is None else allowed

    def run(least: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        targets, chosen = levels.copy(), np.zeros(levels.shape)
        kernels.choose_moves(
            slope.copy(), gram, belief.mean.copy(), added.copy(), covariance, fixed, belief.factor, free,
            level_mean, level_sd, carry, cost, least / value, most, targets, chosen,
        )  # fmt: skip
        return targets, chosen

    return _within(run, price, n_moves, value)


def _within(
    run: Callable[[float], tuple[NDArray[np.int64], NDArray[np.float64]]],
    price: float,
    n_moves: int,
    value: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """`run` at a price, or a higher one if more than `n_moves` cells would pay."""
    targets, chosen = run(price)
    gains = (chosen * value[:, None])[chosen > 0]
    if gains.size > n_moves:
        first_left_out = gains.size - n_moves - 1
        targets, chosen = run(float(np.partition(gains, first_left_out)[first_left_out]))
        worst = np.argsort(-(chosen * value[:, None]), axis=None, kind="stable")[n_moves:]
        chosen.ravel()[worst] = 0.0
    return targets, chosen > 0
