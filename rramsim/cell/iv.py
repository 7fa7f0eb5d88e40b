"""Current-voltage curve of a cell: I = G sinh(alpha V) / alpha, linear for alpha = 0.

`alpha` is `cells.iv_alpha`; the circuit solver uses the same law. Surveys state the half-bias
ratio k = I(V)/I(V/2) instead (Kim et al., ACM JETC 2018): 2 is linear, devices reach 2.5 to 70.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.checks import InputError, check_bounds

__all__ = ["alpha_from_half_bias", "cell_current", "half_bias_ratio"]


def cell_current(g: ArrayLike, v: ArrayLike, alpha: float = 0.0) -> NDArray[np.float64]:
    """Current [A] of cells of small-signal conductance `g` [S] at `v` [V]; broadcasts."""
    check_bounds(alpha, "alpha", minimum=0.0, unit="1/V")
    volts = np.asarray(v, float)
    return np.asarray(g, float) * (np.sinh(alpha * volts) / alpha if alpha else volts)


def half_bias_ratio(alpha: float, v: float) -> float:
    """I(V)/I(V/2) = 2 cosh(alpha V/2) of a cell read at `v` [V]."""
    return float(2.0 * np.cosh(0.5 * alpha * v))


def alpha_from_half_bias(ratio: float, v: float) -> float:
    """`iv_alpha` [1/V] of a cell whose current ratio I(V)/I(V/2) at `v` [V] is `ratio`."""
    if not (np.isfinite(ratio) and ratio >= 2.0):
        raise InputError(f"ratio I(V)/I(V/2) must be >= 2 (linear), got {ratio:g}")
    if not v > 0.0:
        raise InputError(f"v must be > 0 volts, got {v:g}")
    return float(2.0 * np.arccosh(0.5 * ratio) / v)
