"""Errors of a whole array that no single cell knows: biased levels, lines that err alike, a floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CellVariation"]


@dataclass(frozen=True)
class CellVariation:
    """What programming really aims at, and what every cell of an array has in common with others.

    Parameters
    ----------
    levels : ndarray, shape (n_levels,)
        Conductance [S] that writes aim at, in place of the nominal levels.
    factor : ndarray, shape (n_wl, n_bl), or None
        Factor on what an open-loop write leaves in each cell, the same at every write.
    floor : float
        No cell conducts less [S].
    unreachable : bool ndarray, shape (n_wl, n_bl), or None
        Cells that no pulse reaches: they keep their reset state.
    """

    levels: NDArray[np.float64]
    factor: NDArray[np.float32] | None = None
    floor: float = 0.0
    unreachable: NDArray[np.bool_] | None = None
