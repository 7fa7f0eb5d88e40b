"""Which way cells drift, from outputs: towards high or towards low conductance.

Of a pair of cells the mean drift says nothing: both directions shrink the weight alike. What tells them
apart is whose weights have come to scatter. Cells far from the end they approach move most, so with
rising conductance small weights scatter more than large ones, and with falling conductance less.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from finetune.evidence.belief import LEAST_VARIANCE, CellBelief
from finetune.evidence.identify import identify
from finetune.evidence.samples import Samples, TileOutputs

__all__ = ["rising_evidence"]

MOST_COLUMNS = 16  # columns that are identified for it; they hold hundreds of weights
LEAST_KNOWN = 0.3  # share of a weight's variance that outputs must determine for it to count
SIZES = np.geomspace(0.05, 20.0, 25)  # of the scatter over its forecast: the best counts for each direction


def rising_evidence(
    samples: Samples,
    reading: TileOutputs,
    belief: CellBelief,
    noise: NDArray[np.float64],
    *,
    rate: float,
    activity: NDArray[np.float64],
    spread: float,
    ends: tuple[float, float],
) -> float:
    """Log likelihood ratio of drift towards the high end over drift towards the low one.

    Weights are identified with a prior between both hypotheses. An estimate s that keeps the share k of a
    deviation, with error variance e, is normal with variance ``k**2 (v + e)``, v what the hypothesis says.

    Parameters
    ----------
    belief : CellBelief
        Before the drift.
    noise : ndarray, shape (n_cols,)
        Variance of one conversion.
    rate, spread : float
        As of `CellBelief.drift`.
    activity : ndarray, shape (n_rows,)
    ends : (low, high)
        Conductances that cells may approach.
    """
    n_cols = belief.mean.shape[1]
    columns = np.unique(np.linspace(0, n_cols - 1, min(n_cols, MOST_COLUMNS)).astype(np.int64))
    part = replace(
        belief,
        mean=belief.mean[:, columns],
        covariance=belief.covariance[:, columns],
        fresh=belief.fresh[:, columns],
        exponent=belief.exponent[:, columns],
    )
    outputs = TileOutputs(reading.tiles[:, :, columns], reading.saturated[:, :, columns])
    kept = np.exp(-2.0 * rate * activity)[:, None] * part.weight_variance
    scatter = []
    for end in ends:
        ahead = replace(part)
        ahead.drift(rate, activity, spread, end)
        scatter.append(np.maximum(ahead.weight_variance - kept, 0.0))
    weights = ahead.weights
    prior = np.maximum(kept + 0.5 * (scatter[0] + scatter[1]), LEAST_VARIANCE)
    estimate = identify(samples, outputs, weights, prior, noise[columns], rounds=1)
    share = np.clip(estimate.determined, 1e-6, 1.0 - 1e-9)
    error = prior * (1.0 - share) / share
    squares = np.square((estimate.weights - weights) / share)
    clear = (share > LEAST_KNOWN) & (scatter[0] + scatter[1] > 0.0)
    if not clear.any():
        return 0.0
    best = []
    for more in scatter:
        total = kept[clear] + error[clear] + SIZES[:, None] * more[clear]
        best.append(float((-0.5 * (np.log(total) + squares[clear] / total)).sum(axis=1).max()))
    return best[1] - best[0]
