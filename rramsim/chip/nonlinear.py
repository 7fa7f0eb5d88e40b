"""Products and tables that read the non-linear cells of a layer, as the kernels take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.circuit.expansion import bent
from rramsim.kernels.convolution import pack_weights
from rramsim.kernels.curved import Curves, Terms

__all__ = ["law_curves", "pack_terms"]


def pack_terms(matrices: Sequence[NDArray[np.float32]], plus: Any, minus: Any) -> Terms:
    """Terms of channels from `cubic`, `gain` and `drop` of all cells (n_rows, n_lines), or from none.

    A channel is the bit line that `plus` picks, less the one that `minus` picks unless it is None.
    """
    none = np.empty(0, dtype=np.float32)
    if not matrices:
        return Terms(none, none, none, none, none)
    cubic, gain, drop = matrices

    def packed(lines: NDArray[np.float32], columns: Any) -> NDArray[np.float32]:
        return pack_weights(np.ascontiguousarray(lines[:, columns]))

    own = packed(gain, plus), packed(drop, plus)
    if minus is None:
        return Terms(packed(cubic, plus), *own, none, none)
    return Terms(
        pack_weights(cubic[:, plus] - cubic[:, minus]), *own, packed(gain, minus), packed(drop, minus)
    )


def law_curves(alpha: float, largest: int, v_step: float, wired: bool) -> Curves:
    """The law sinh(alpha V) / alpha at every drive of -`largest` to `largest` steps of `v_step` [V]."""
    none = np.empty(0, dtype=np.float32)
    if alpha == 0.0:
        return Curves(none, none, none, 0)
    v = np.arange(-largest, largest + 1, dtype=np.float64) * v_step
    cubic, steep = bent(v, alpha)
    if not wired:
        return Curves(((v + cubic) / v_step).astype(np.float32), none, none, largest)
    return Curves(none, (cubic / v_step).astype(np.float32), steep.astype(np.float32), largest)
