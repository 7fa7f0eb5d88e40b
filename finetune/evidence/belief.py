"""What a host may believe of cells it cannot read: mean and covariance of each weight's cells.

Cells may be two of a pair, one against a reference line, or several slices; conductances are in units of
`finetune.evidence.identify.cell_unit`. A write leaves the level's conductance and a programming
variance; time under reads moves cells towards the end of the window by unknown, different amounts and
widens the variance; outputs for known inputs narrow it
(`finetune.evidence.identify.identify`, then `CellBelief.update`). Tuning and maintenance share both, and
choose what to write by `finetune.evidence.choice.choose`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evidence.identify import Estimate
from finetune.evidence.samples import Samples, TileOutputs
from rramsim.checks import InputError

__all__ = ["LEAST_VARIANCE", "CellBelief", "fit_fresh"]

LEAST_VARIANCE = 1e-12


@dataclass
class CellBelief:
    """Means and covariances of the cells of one layer.

    Attributes
    ----------
    factor : ndarray, shape (n_cells,)
        Weight of a unit of conductance in each cell, ``weight = cells @ factor - zero``.
    mean : ndarray, shape (n_rows, n_cols, n_cells)
    covariance : ndarray, shape (n_rows, n_cols, n_cells, n_cells)
        Between the cells of one weight; outputs determine only their weighted sum.
    fresh : ndarray, shape (n_rows, n_cols, n_cells)
        The part of each cell's variance that no output has been compared with yet.
    exponent : ndarray, shape (n_rows, n_cols, n_cells)
        Mean exponent of the drift since the cell was written last.
    zero : float
        ``cells @ factor`` of a weight of 0 (`finetune.evidence.identify.cell_zero`).

    Examples
    --------
    A pair of which either cell may err alike; the weight turns out 0.1 higher and is then known exactly:

    >>> import numpy as np
    >>> from finetune.evidence.identify import Estimate
    >>> belief = CellBelief.written(np.array([[[0.6, 0.2]]]), np.full((1, 1, 2), 0.01), np.array([1.0, -1.0]))
    >>> belief.update(Estimate(np.array([[0.5]]), np.array([[0.0]]), np.array([[0.02]])))
    >>> belief.mean.round(3).tolist(), float(belief.weight_variance[0, 0].round(6))
    ([[[0.65, 0.15]]], 0.0)
    """

    factor: NDArray[np.float64]
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    fresh: NDArray[np.float64]
    exponent: NDArray[np.float64]
    zero: float = 0.0

    @classmethod
    def written(
        cls,
        mean: NDArray[np.float64],
        variance: NDArray[np.float64],
        factor: NDArray[np.float64],
        zero: float = 0.0,
    ) -> CellBelief:
        """Right after writes that leave independent cells of this mean and variance."""
        if mean.ndim != 3 or mean.shape != variance.shape or mean.shape[2:] != factor.shape:
            raise InputError(
                "mean and variance must have shape (n_rows, n_cols, n_cells) and factor (n_cells,), "
                f"got {mean.shape}, {variance.shape}, {factor.shape}"
            )
        covariance = variance[:, :, :, None] * np.eye(factor.size)
        return cls(
            np.array(factor, dtype=np.float64),
            np.array(mean, dtype=np.float64),
            covariance,
            np.array(variance, dtype=np.float64),
            np.zeros(mean.shape),
            zero,
        )

    def state_dict(self) -> dict[str, Any]:
        """Copies of all of it."""
        return {entry.name: np.array(getattr(self, entry.name)) for entry in fields(self)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> CellBelief:
        """Rebuild from `state_dict`."""
        arrays: dict[str, Any] = {key: np.array(value) for key, value in state.items()}
        return cls(**(arrays | {"zero": float(state["zero"])}))

    @property
    def weights(self) -> NDArray[np.float64]:
        """Expected weights, shape (n_rows, n_cols)."""
        return self.mean @ self.factor - self.zero

    @property
    def variance(self) -> NDArray[np.float64]:
        """Of each cell, shape (n_rows, n_cols, n_cells)."""
        return np.einsum("ijkk->ijk", self.covariance)

    @property
    def weight_variance(self) -> NDArray[np.float64]:
        """Of each weight, shape (n_rows, n_cols)."""
        return np.maximum((self.covariance @ self.factor) @ self.factor, 0.0)

    def write(
        self, mask: NDArray[np.bool_], mean: NDArray[np.float64], variance: NDArray[np.float64]
    ) -> None:
        """Cells under the mask were written; `mean` and `variance` have the mask's shape."""
        self.mean = np.where(mask, mean, self.mean)
        kept = ~mask
        self.covariance = self.covariance * (kept[:, :, :, None] & kept[:, :, None, :])
        self.covariance += np.where(mask, variance, 0.0)[:, :, :, None] * np.eye(self.factor.size)
        self.fresh = np.where(mask, variance, self.fresh)
        self.exponent = np.where(mask, 0.0, self.exponent)

    def drift(self, rate: float, activity: NDArray[np.float64], spread: float, end: float) -> None:
        """Reads moved every cell towards the end of its window.

        Parameters
        ----------
        rate : float
            Mean exponent of the approach at full activity.
        activity : ndarray, shape (n_rows,)
            Stress of each word line relative to full.
        spread : float
            Standard deviation of a cell's exponent over its mean.
        end : float
            Conductance that cells approach.
        """
        exponent = (rate * activity)[:, None, None]
        distance = end - self.mean
        left = np.exp(-exponent)
        self.mean = self.mean + distance * (1.0 - left)
        # a cell that drifts fast goes on drifting fast: deviations add up, not their squares
        total = self.exponent + exponent
        widened = np.square(distance * left * spread) * (total**2 - self.exponent**2)
        self.exponent = total
        self.covariance = self.covariance * np.square(left)[..., None]
        self.covariance += widened[:, :, :, None] * np.eye(self.factor.size)
        self.fresh = self.fresh * left**2 + widened

    def update(self, estimate: Estimate) -> None:
        """Take up what outputs said of the weights, identified from this belief's weights and variances.

        A change of a weight belongs to its cells in proportion to their covariance with it.
        """
        prior = np.maximum(self.weight_variance, LEAST_VARIANCE)
        share = (self.covariance @ self.factor) / prior[:, :, None]
        known = prior * np.clip(estimate.determined, 0.0, 1.0)
        self.mean = self.mean + share * (estimate.weights - self.weights)[:, :, None]
        self.covariance = (
            self.covariance - (share[:, :, :, None] * share[:, :, None, :]) * known[:, :, None, None]
        )
        self.fresh = np.zeros_like(self.fresh)


def fit_fresh(
    belief: CellBelief, samples: Samples, reading: TileOutputs, noise: NDArray[np.float64]
) -> float:
    """Scale the variances that are new since the last comparison to the residuals; returns the factor.

    What was compared before leaves next to nothing along the inputs seen, whatever single weights may
    still vary by along others: only the fresh part explains residuals. Matching their total energy
    (empirical Bayes) makes a mis-stated programming spread or drift rate do little harm.

    Parameters
    ----------
    noise : ndarray, shape (n_cols,)
        Variance of one conversion.
    """
    fresh = belief.fresh @ np.square(belief.factor)
    expected = float(np.diag(samples.gram) @ fresh.sum(axis=1))
    if expected <= 0.0:
        return 1.0
    surplus, weights = 0.0, belief.weights
    for tile, (top, bottom) in enumerate(samples.work.row_tiles):
        residual = reading.tiles[tile] - samples.x[:, top:bottom] @ weights[top:bottom].astype(np.float32)
        residual = residual - residual.mean(axis=0)
        free = ~reading.saturated[tile]
        count = np.maximum(free.sum(axis=0), 1)
        surplus += float(((np.square(residual) * free).sum(axis=0) / count - noise).sum())
    factor = float(np.clip(surplus / expected, 1e-2, 1e2))
    belief.covariance = belief.covariance + ((factor - 1.0) * belief.fresh)[:, :, :, None] * np.eye(
        belief.factor.size
    )
    belief.fresh = factor * belief.fresh
    return factor
