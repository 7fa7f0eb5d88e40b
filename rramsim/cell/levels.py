"""The conductance levels of a multi-level cell."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError, check_array

__all__ = ["LevelScale"]


class LevelScale:
    """Ascending target conductances of a cell.

    Parameters
    ----------
    n_levels : int
        Number of levels, at least 2.
    g_min, g_max : float
        Programmable window [S].
    spacing : {"conductance", "resistance"} or sequence of float
        Uniform steps of conductance or of resistance, or an explicit ascending list [S].

    Attributes
    ----------
    levels : ndarray, shape (n_levels,)
        Target conductance [S] of each level, ascending.

    Examples
    --------
    >>> [round(1e6 * g) for g in LevelScale(4, 10e-6, 40e-6).levels]
    [10, 20, 30, 40]
    """

    def __init__(self, n_levels: int, g_min: float, g_max: float, spacing: Any = "conductance") -> None:
        if int(n_levels) != n_levels or n_levels < 2:
            raise InputError(f"n_levels must be an integer >= 2, got {n_levels!r}")
        if not 0.0 < g_min < g_max or not np.isfinite(g_max):
            raise InputError(
                f"g_min must lie in (0, g_max) siemens, got g_min={g_min:g} with g_max={g_max:g}; "
                f"were resistances given?"
            )
        if isinstance(spacing, str):
            if spacing == "conductance":
                levels = np.linspace(g_min, g_max, int(n_levels))
            elif spacing == "resistance":
                levels = 1.0 / np.linspace(1.0 / g_min, 1.0 / g_max, int(n_levels))
            else:
                raise InputError(
                    f"spacing must be 'conductance', 'resistance' or a list of levels, got {spacing!r}"
                )
        else:
            levels = check_array(spacing, "levels", shape=(int(n_levels),))
            if not (np.diff(levels) > 0.0).all():
                raise InputError(f"levels must ascend, got {levels.tolist()}; were resistances given?")
            if not np.allclose((levels[0], levels[-1]), (g_min, g_max), rtol=1e-6):
                raise InputError(
                    f"levels must run from g_min={g_min:g} to g_max={g_max:g} siemens, "
                    f"got {levels[0]:g} to {levels[-1]:g}"
                )
        levels.setflags(write=False)
        self.levels: NDArray[np.float64] = levels

    @property
    def n_levels(self) -> int:
        return len(self.levels)

    @property
    def g_min(self) -> float:
        return float(self.levels[0])

    @property
    def g_max(self) -> float:
        return float(self.levels[-1])

    @property
    def on_off_ratio(self) -> float:
        """g_max / g_min."""
        return self.g_max / self.g_min

    def __repr__(self) -> str:
        return f"LevelScale({self.n_levels}, g_min={self.g_min:g}, g_max={self.g_max:g})"
