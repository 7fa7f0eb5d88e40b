"""Mean voltage across the cells of an array on resistive wires, for stress accounting.

The voltage across cell (i, j) depends on all inputs. For a given voltage v of its own word
line and the others at their means it is close to slope_ij v + offset_ij. The slope is what the
cell's word line passes on: it is found by driving every second word line, which leaves bit
lines nearly unchanged; the offset makes the mean input give the mean cell voltage. Two solves
of one factorised array, whatever the number of vectors.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.checks import check_array
from rramsim.solver import prepare
from rramsim.wiring import WiresConfig

__all__ = ["cell_drive"]


def cell_drive(
    g: ArrayLike, v_mean: ArrayLike, v_rms: ArrayLike, wires: WiresConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope and offset [V] of each cell's voltage over its own driver's voltage.

    Parameters
    ----------
    g : ndarray, shape (n_wl, n_bl)
        Conductances [S].
    v_mean, v_rms : ndarray, shape (n_wl,)
        Mean and root mean square of each word line's drive [V], zeros counted.
    wires : WiresConfig
        Line resistances.

    Returns
    -------
    slope, offset : ndarray, shape (n_wl, n_bl)
        For `CellArray.add_reads(counts, voltages, slope, offset)`.
    """
    g = check_array(g, "g", shape=(None, None), minimum=0.0, unit="S")
    v_mean = check_array(v_mean, "v_mean", shape=(g.shape[0],), unit="V")
    drive = check_array(v_rms, "v_rms", shape=(g.shape[0],), minimum=0.0, unit="V").copy()
    drive[drive == 0.0] = drive.max() if drive.max() > 0.0 else 1.0  # silent lines: any drive will do
    even = np.arange(g.shape[0]) % 2 == 0
    linear = replace(wires, alpha=0.0)  # cells count as linear
    solution = prepare(g, linear).solve(np.stack([drive * even, drive * ~even, v_mean]))
    word = solution.v_word
    slope = np.where(even[:, None], word[0] - word[1], word[1] - word[0]) / drive[:, None]
    offset = word[2] - solution.v_bit[2] - slope * v_mean[:, None]
    return slope, offset
