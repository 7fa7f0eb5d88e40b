"""Stuck cells: values that belong to no level's distribution, told before spreads are fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FaultFit", "find_faults"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FAR = 6.0  # robust spreads from the level's median; 2e-9 of normal values


@dataclass(frozen=True)
class FaultFit:
    """Stuck cells of a file."""

    mask: NDArray[np.bool_]  # (n,) values of stuck cells
    n_cells: int  # all cells
    n_low: int
    n_high: int
    n_other: int  # stuck between the levels
    g_low: float | None  # [S] median conductance
    g_high: float | None

    @property
    def n_stuck(self) -> int:
        return self.n_low + self.n_high + self.n_other


def find_faults(g: Floats, level: Ints, cell: Ints | None) -> FaultFit:
    """Cells stuck at low, high or another conductance.

    A value is an outlier if it lies more than 6 robust spreads (median, median absolute deviation,
    on the scale of G and of ln G) from its level *and* beyond the middle to the next level; a cell
    is stuck if most of its writes to other levels than the one it rests at are outliers.
    """
    n_levels = int(level.max()) + 1
    owner = np.arange(len(g)) if cell is None else np.unique(cell, return_inverse=True)[1]
    centres = np.array([np.median(g[level == k]) for k in range(n_levels)])
    far = np.ones(len(g), bool)
    for x in (g, np.log(g)):
        for k in range(n_levels):
            rows = level == k
            centre = np.median(x[rows])
            spread = 1.4826 * np.median(np.abs(x[rows] - centre))
            far[rows] &= np.abs(x[rows] - centre) > FAR * max(spread, 1e-12 * abs(centre))
    middles = 0.5 * (np.sort(centres)[1:] + np.sort(centres)[:-1])
    nearest = np.searchsorted(middles, g)
    rank = np.argsort(np.argsort(centres))
    elsewhere = nearest != rank[level]
    beyond = (g > 1.5 * centres.max()) | (g < centres.min() / 3.0)
    outlier = far & (elsewhere | beyond)
    n_cells = int(owner.max()) + 1
    wrong, writes = np.bincount(owner, outlier, n_cells), np.bincount(owner, minlength=n_cells)
    # a cell that rests at a level looks sound when it is asked for that level
    at_home = np.bincount(owner, far == False, n_cells)  # noqa: E712
    stuck = (wrong > 0) & (wrong >= np.where(writes > 2, 0.5 * writes, writes - np.minimum(at_home, 1)))
    # a stuck cell barely moves, whatever it is asked for
    top, bottom = np.full(n_cells, -np.inf), np.full(n_cells, np.inf)
    np.maximum.at(top, owner, g)
    np.minimum.at(bottom, owner, g)
    window = centres.max() - centres.min()
    stuck &= (top - bottom < 0.1 * window) | (top < 2.0 * bottom)
    mask = stuck[owner]
    rest = np.bincount(owner, g, n_cells)[stuck] / writes[stuck]
    low = rest < centres.min() + 0.1 * window
    high = rest > centres.max() - 0.1 * window
    return FaultFit(
        mask, n_cells, int(low.sum()), int(high.sum()), int((~low & ~high).sum()),
        float(np.median(rest[low])) if low.any() else None,
        float(np.median(rest[high])) if high.any() else None,
    )  # fmt: skip
