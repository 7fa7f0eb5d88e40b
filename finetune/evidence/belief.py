"""What a host may believe of cells it cannot read: mean and variance of each, from nominal data and outputs.

Conductances are in units of the window, ``u = (g - g_min) / (g_max - g_min)``, so that a differential weight
is ``w = u_plus - u_minus``. A write to level q leaves mean u_q and a programming variance; time
under reads moves cells towards the end of the window by unknown, different amounts and widens the
variance; outputs for known inputs narrow it (Bayesian ridge regression). Levels are then chosen for
the least expected squared error of the layer's outputs.

Only differential mapping is covered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError

__all__ = ["CellBelief", "Proposal", "choose_writes", "observe", "programming_variance"]


BATCH = 8  # cells of a column chosen between two evaluations of all cells
SIGN = np.array([1.0, -1.0])  # of the + and - cell in the weight


@dataclass
class CellBelief:
    """Means and variances of the cells of one layer.

    Attributes
    ----------
    mean, variance : ndarray, shape (n_rows, n_cols, 2)
        Of u for the + and - cells.
    covariance : ndarray, shape (n_rows, n_cols)
        Between the two cells of a pair; outputs determine only their difference.
    fresh : ndarray, shape (n_rows, n_cols, 2)
        The part of `variance` that no output has been compared with yet.
    exponent : ndarray, shape (n_rows, n_cols, 2)
        Mean exponent of the drift since the cell was written last.
    level_means, level_variances : ndarray, shape (n_levels,)
        What a new write leaves.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    covariance: NDArray[np.float64]
    fresh: NDArray[np.float64]
    exponent: NDArray[np.float64]
    level_means: NDArray[np.float64]
    level_variances: NDArray[np.float64]

    @classmethod
    def written(
        cls,
        levels: NDArray[np.integer],
        level_means: NDArray[np.float64],
        level_variances: NDArray[np.float64],
    ) -> CellBelief:
        """Right after writes of `levels`, shape (n_rows, n_cols, 2)."""
        if levels.ndim != 3 or levels.shape[2] != 2:
            raise InputError(f"levels must have shape (n_rows, n_cols, 2), got {levels.shape}")
        return cls(
            level_means[levels].astype(np.float64),
            level_variances[levels].astype(np.float64),
            np.zeros(levels.shape[:2]),
            level_variances[levels].astype(np.float64),
            np.zeros(levels.shape),
            level_means,
            level_variances,
        )

    @property
    def weights(self) -> NDArray[np.float64]:
        """Expected weights u_plus - u_minus, shape (n_rows, n_cols)."""
        return self.mean[:, :, 0] - self.mean[:, :, 1]

    @property
    def weight_variance(self) -> NDArray[np.float64]:
        """Their variance."""
        return np.maximum(self.variance.sum(axis=2) - 2.0 * self.covariance, 0.0)

    def write(self, levels: NDArray[np.integer], mask: NDArray[np.bool_]) -> None:
        """Cells under the mask were written."""
        self.mean[mask] = self.level_means[levels[mask]]
        self.variance[mask] = self.level_variances[levels[mask]]
        self.covariance[mask.any(axis=2)] = 0.0
        self.fresh[mask] = self.variance[mask]
        self.exponent[mask] = 0.0

    def drift(self, rate: float, activity: NDArray[np.float64], spread: float, rising: bool = True) -> None:
        """Reads moved every cell towards the end of its window.

        Parameters
        ----------
        rate : float
            Mean exponent of the approach at full activity.
        activity : ndarray, shape (n_rows,)
            Stress of each word line relative to full.
        spread : float
            Standard deviation of a cell's exponent over its mean.
        rising : bool
            Towards g_max (else g_min).
        """
        exponent = (rate * activity)[:, None, None]
        distance = (1.0 - self.mean) if rising else -self.mean
        left = np.exp(-exponent)
        self.mean = self.mean + distance * (1.0 - left)
        self.covariance = self.covariance * left[:, :, 0] ** 2
        # a cell that drifts fast goes on drifting fast: deviations add up, not their squares
        total = self.exponent + exponent
        widened = np.square(distance * left * spread) * (total**2 - self.exponent**2)
        self.exponent = total
        self.variance = self.variance * left**2 + widened
        self.fresh = self.fresh * left**2 + widened


def programming_variance(
    level_means: NDArray[np.float64], on_off_ratio: float, multiplicative: float, additive: float
) -> NDArray[np.float64]:
    """Variance of u after a write: relative error of the conductance plus an absolute one.

    Parameters
    ----------
    multiplicative : float
        Standard deviation of g / g_target.
    additive : float
        Standard deviation of u.
    """
    conductance = level_means + 1.0 / (on_off_ratio - 1.0)  # g in units of the window
    return np.square(multiplicative * conductance) + additive**2


def observe(
    belief: CellBelief,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    noise: float,
) -> float:
    """Narrow the belief by outputs; returns the factor that the fresh variances needed.

    Parameters
    ----------
    x : ndarray, shape (n_vectors, n_rows)
        Inputs.
    y : ndarray, shape (n_vectors, n_cols)
        ``x @ w`` as read.
    noise : float
        Variance of an entry of y about that.

    Notes
    -----
    Per column ``w ~ N(m, diag(p))``, ``y = x w + e``: the Gaussian posterior, in the space of vectors or of
    rows, whichever is smaller. The scale of the variances that are new since the last observation is
    first fitted by matching the residuals' total energy (empirical Bayes), so that a mis-stated
    programming spread or drift rate does little harm.
    """
    x64, residual = x.astype(np.float64), (y - x @ belief.weights.astype(np.float32)).astype(np.float64)
    n_vectors, n_rows = x64.shape
    power = np.square(x64).sum(axis=0)
    fresh = belief.fresh.sum(axis=2)
    # what was compared before leaves next to nothing along the inputs seen, whatever single weights may
    # still vary by along others: only the fresh part explains residuals
    surplus = np.square(residual).sum() - noise * residual.size
    factor = 1.0
    if fresh.any():
        factor = float(np.clip(surplus / max(float((power @ fresh).sum()), 1e-300), 1e-2, 1e2))
    belief.variance += (factor - 1.0) * belief.fresh
    belief.fresh = np.zeros_like(belief.fresh)
    prior = np.maximum(belief.weight_variance, 1e-12)
    noise = max(noise, 1e-12)
    gram = x64.T @ x64 if n_rows <= n_vectors else None
    shift, posterior = np.empty_like(prior), np.empty_like(prior)
    for j in range(prior.shape[1]):
        p = prior[:, j]
        if gram is not None:
            inverse = np.linalg.inv(gram / noise + np.diag(1.0 / p))
            shift[:, j] = inverse @ (x64.T @ residual[:, j]) / noise
            posterior[:, j] = np.diag(inverse)
        else:
            scaled = x64 * p
            kernel = scaled @ x64.T
            kernel[np.diag_indices(n_vectors)] += noise
            solved = np.linalg.solve(kernel, np.column_stack([residual[:, j], scaled]))
            shift[:, j] = scaled.T @ solved[:, 0]
            posterior[:, j] = p - np.einsum("ni,ni->i", scaled, solved[:, 1:])
    posterior = np.clip(posterior, 0.0, prior)
    # share of a change of the weight that falls to each cell: covariance with the weight over its variance
    share = np.stack(
        [belief.variance[:, :, 0] - belief.covariance, belief.covariance - belief.variance[:, :, 1]], axis=2
    )
    share = share / prior[:, :, None]
    known = prior - posterior
    belief.mean = belief.mean + share * shift[:, :, None]
    belief.variance = np.maximum(belief.variance - share**2 * known[:, :, None], 0.0)
    belief.covariance = belief.covariance - share[:, :, 0] * share[:, :, 1] * known
    return factor


@dataclass
class Proposal:
    """Cells to write, their levels, and the expected fall of the mean squared output error."""

    levels: NDArray[np.int64]
    mask: NDArray[np.bool_]
    gain: float


def choose_writes(
    belief: CellBelief,
    present: NDArray[np.integer],
    hessian: NDArray[np.float64],
    slope: NDArray[np.float64],
    *,
    limit: int,
    per_column: int,
    column_weight: NDArray[np.float64] | None = None,
    price: float = 0.0,
) -> Proposal:
    """Greedy choice of cells whose rewriting pays in expectation.

    Writing a cell to level q changes the expected weight by ``d = +-(u_q - mean)`` and the
    expected squared error of its column by ``H_ii (d**2 + v_q - v) - 2 d g_i``, where H is the
    inputs' second moment, g the present slope ``mean(x' (target - y))``, v the variance that goes with
    the old cell and v_q that of a new write. The best of all levels is taken for the best cell of
    each column, g follows, until nothing gains more than `price` or `limit` cells are chosen.
    Refreshing a drifted cell at level 0 is part of it: its v_q is small, so certainty alone may pay.

    Parameters
    ----------
    present : ndarray, shape (n_rows, n_cols, 2)
        Levels last written.
    hessian : ndarray, shape (n_rows, n_rows)
    slope : ndarray, shape (n_rows, n_cols)
    limit, per_column : int
        Most cells in all, and in each column.
    column_weight : ndarray, shape (n_cols,), optional
        What a unit of squared error costs in each column.
    price : float
        Gain below which a write is not worth it, in the same unit.
    """
    n_cols = belief.mean.shape[1]
    weight = np.ones(n_cols) if column_weight is None else np.asarray(column_weight, dtype=np.float64)
    mean, slope = belief.mean.copy(), slope.copy()
    # what rewriting one cell removes: its variance, less what both cells share
    removed = belief.variance - 2.0 * belief.covariance[:, :, None]
    levels, mask = np.array(present, dtype=np.int64), np.zeros(present.shape, dtype=bool)
    diagonal = np.maximum(np.diag(hessian), 1e-30)
    columns = np.arange(n_cols)
    chosen_in = np.zeros(n_cols, dtype=np.int64)
    total, count = 0.0, 0
    while count < limit:
        gain, level = _best_level(belief, mean, removed, diagonal, slope)
        gain[mask.transpose(1, 0, 2)] = -np.inf
        gain *= weight[:, None, None]
        gain[chosen_in >= per_column] = -np.inf
        flat, flat_level = gain.reshape(n_cols, -1), level.reshape(n_cols, -1)
        n_batch = min(BATCH, flat.shape[1])
        best = np.argpartition(-flat, n_batch - 1, axis=1)[:, :n_batch]
        best = np.take_along_axis(
            best, np.argsort(-np.take_along_axis(flat, best, 1), axis=1, kind="stable"), 1
        )
        before = count
        for k in range(n_batch):
            promised = flat[columns, best[:, k]]
            cols = columns[(promised > price) & (chosen_in < per_column)]
            rows, cells = np.divmod(best[cols, k], 2)
            q = flat_level[cols, best[cols, k]]
            now = _gain(belief, mean, removed, diagonal, slope, rows, cols, cells, q) * weight[cols]
            # earlier members of the batch may have done its work already
            keep = (now > price) & (now > 0.5 * promised[cols])
            order = np.flatnonzero(keep)
            order = order[np.argsort(-now[order], kind="stable")][: limit - count]
            rows, cols, cells, q = rows[order], cols[order], cells[order], q[order]
            d = (belief.level_means[q] - mean[rows, cols, cells]) * SIGN[cells]
            slope[:, cols] -= hessian[:, rows] * d
            alone = ~mask[rows, cols].any(axis=1)
            removed[rows, cols] += 2.0 * (belief.covariance[rows, cols] * alone)[:, None]
            mean[rows, cols, cells] = belief.level_means[q]
            removed[rows, cols, cells] = belief.level_variances[q]
            levels[rows, cols, cells] = q
            mask[rows, cols, cells] = True
            chosen_in[cols] += 1
            total += float(now[order].sum())
            count += order.size
        if count == before:
            break
    return Proposal(levels, mask, total)


def _gain(
    belief: CellBelief,
    mean: NDArray[np.float64],
    removed: NDArray[np.float64],
    diagonal: NDArray[np.float64],
    slope: NDArray[np.float64],
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    cells: NDArray[np.int64],
    q: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Expected fall of the squared error for single cells written to level q."""
    d = (belief.level_means[q] - mean[rows, cols, cells]) * SIGN[cells]
    spread = belief.level_variances[q] - removed[rows, cols, cells]
    return 2.0 * d * slope[rows, cols] - diagonal[rows] * (d**2 + spread)


def _best_level(
    belief: CellBelief,
    mean: NDArray[np.float64],
    removed: NDArray[np.float64],
    diagonal: NDArray[np.float64],
    slope: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Best level of every cell and its gain, both (n_cols, n_rows, 2).

    Tried are the level nearest to the minimum of the parabola, the one below it (which is written more
    exactly) and level 0.
    """
    middles = (belief.level_means[1:] + belief.level_means[:-1]) / 2.0
    pull = slope / diagonal[:, None]
    gain = np.empty((mean.shape[1], mean.shape[0], 2))
    level = np.empty(gain.shape, dtype=np.int64)
    for cell, sign in enumerate(SIGN):
        here, old = mean[:, :, cell], removed[:, :, cell]
        best = np.zeros(here.shape, dtype=np.int64)
        d = (belief.level_means[0] - here) * sign
        most = 2.0 * d * pull - d**2 - belief.level_variances[0]
        nearest = np.searchsorted(middles, here + sign * pull)
        for q in (nearest, np.maximum(nearest - 1, 0)):
            d = (belief.level_means[q] - here) * sign
            value = 2.0 * d * pull - d**2 - belief.level_variances[q]
            better = value > most
            most, best = np.where(better, value, most), np.where(better, q, best)
        gain[:, :, cell] = ((most + old) * diagonal[:, None]).T
        level[:, :, cell] = best.T
    return gain, level
