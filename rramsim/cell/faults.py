"""Which cells are stuck."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rramsim import streams
from rramsim.cell.config import FaultsConfig
from rramsim.kernels import cell as kernels
from rramsim.streams import Cause

__all__ = ["draw_faults"]


def draw_faults(
    shape: tuple[int, int], config: FaultsConfig, seed: int, keys: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Map of stuck cells: 0 = sound, 1 = stuck at low, 2 = stuck at high conductance.

    Independent faults are nested: a higher rate keeps those of a lower one. Clusters are
    square patches that may overlap or be cut by the border; their number is such that the
    expected share of stuck cells is the rate.
    """
    stuck = np.zeros(shape, np.uint8)
    if config.cluster_cells == 1:
        key = streams.key(seed, Cause.FAULT, *keys)
        kernels.independent_faults(key, config.stuck_low_rate, config.stuck_high_rate, stuck)
        return stuck
    side = max(1, round(np.sqrt(config.cluster_cells)))
    rng = streams.stream(seed, Cause.FAULT, *keys)
    for value, rate in ((1, config.stuck_low_rate), (2, config.stuck_high_rate)):
        # corners reach beyond the border, so that every cell is equally likely to be covered
        n_corners = (shape[0] + side - 1) * (shape[1] + side - 1)
        share = 1.0 - (1.0 - min(rate, 1.0 - 1e-12)) ** (1.0 / side**2)
        corners = rng.choice(n_corners, rng.binomial(n_corners, share), replace=False)
        rows, columns = np.divmod(corners, shape[1] + side - 1)
        for row, column in zip(rows - side + 1, columns - side + 1, strict=True):
            stuck[max(row, 0) : row + side, max(column, 0) : column + side] = value
    return stuck
