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


@dataclass
class CellBelief:
    """Means and variances of the cells of one layer.

    Attributes
    ----------
    mean, variance : ndarray, shape (n_rows, n_cols, 2)
        Of u for the + and - cells.
    covariance : ndarray, shape (n_rows, n_cols)
        Between the two cells: outputs tell of their difference only.
    level_means, level_variances : ndarray, shape (n_levels,)
        What a new write leaves.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    covariance: NDArray[np.float64]
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
        self.variance = self.variance * left**2 + np.square(distance * left * exponent * spread)


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
    """Narrow the belief by outputs; returns the factor that the prior variances needed.

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
    rows, whichever is smaller. The scale of all prior variances is first fitted by matching the
    residuals' total energy (empirical Bayes), so that a mis-stated programming spread or drift
    rate does little harm.
    """
    x64, residual = x.astype(np.float64), (y - x @ belief.weights.astype(np.float32)).astype(np.float64)
    n_vectors, n_rows = x64.shape
    prior = belief.weight_variance
    energy = np.square(x64).sum(axis=0) @ prior
    surplus = np.square(residual).sum() - noise * residual.size
    factor = float(np.clip(surplus / max(energy.sum(), 1e-300), 1e-3, 1e3))
    belief.variance *= factor
    belief.covariance *= factor
    prior = np.maximum(prior * factor, 1e-12)
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
    n_rows, n_cols, _ = belief.mean.shape
    weight = np.ones(n_cols) if column_weight is None else np.asarray(column_weight, dtype=np.float64)
    mean, slope = belief.mean.copy(), slope.copy()
    # what rewriting one cell removes: its variance, less what both cells share
    removed = belief.variance - 2.0 * belief.covariance[:, :, None]
    levels, mask = np.array(present, dtype=np.int64), np.zeros(present.shape, dtype=bool)
    diagonal = np.diag(hessian).copy()
    sign = np.array([1.0, -1.0])
    columns = np.arange(n_cols)
    best_gain = np.full((n_rows, n_cols, 2), -np.inf)
    best_level = np.zeros((n_rows, n_cols, 2), dtype=np.int64)

    def rate(cols: NDArray[np.int64]) -> None:
        gain = np.full((n_rows, cols.size, 2), -np.inf)
        level = np.zeros((n_rows, cols.size, 2), dtype=np.int64)
        for q, (u, v) in enumerate(zip(belief.level_means, belief.level_variances, strict=True)):
            d = (u - mean[:, cols]) * sign
            g = 2.0 * d * slope[:, cols, None]
            g -= diagonal[:, None, None] * (d**2 + v - removed[:, cols])
            better = g > gain
            gain[better], level[better] = g[better], q
        gain[mask[:, cols]] = -np.inf
        best_gain[:, cols], best_level[:, cols] = gain * weight[cols, None], level

    rate(columns)
    total, count = 0.0, 0
    chosen_in = np.zeros(n_cols, dtype=np.int64)
    while count < limit:
        flat = best_gain.transpose(1, 0, 2).reshape(n_cols, -1)
        where = flat.argmax(axis=1)
        gains = flat[columns, where]
        open_columns = np.flatnonzero((gains > price) & (chosen_in < per_column))
        if not open_columns.size:
            break
        open_columns = open_columns[np.argsort(-gains[open_columns], kind="stable")][: limit - count]
        rows, cells = np.divmod(where[open_columns], 2)
        q = best_level[rows, open_columns, cells]
        d = (belief.level_means[q] - mean[rows, open_columns, cells]) * sign[cells]
        slope[:, open_columns] -= hessian[:, rows] * d
        mean[rows, open_columns, cells] = belief.level_means[q]
        removed[rows, open_columns] += (
            2.0
            * belief.covariance[rows, open_columns, None]
            * ~mask[rows, open_columns].any(axis=1, keepdims=True)
        )
        removed[rows, open_columns, cells] = belief.level_variances[q]
        levels[rows, open_columns, cells] = q
        mask[rows, open_columns, cells] = True
        chosen_in[open_columns] += 1
        total += float(gains[open_columns].sum())
        count += open_columns.size
        rate(open_columns)
    return Proposal(levels, mask, total)
