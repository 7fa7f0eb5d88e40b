"""Estimates of the effective matrix that do not solve the circuit; their errors are in the docs.

For the exact matrix use `rramsim.solver.effective_conductance`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.checks import InputError
from rramsim.wiring import WiresConfig, check_conductance

__all__ = ["estimate_conductance", "ideal_conductance"]


def ideal_conductance(g: ArrayLike, wires: WiresConfig) -> NDArray[np.float64]:
    """The matrix without wires [S]: cells and their access transistors alone."""
    g = check_conductance(g)
    return g / (1.0 + g * wires.r_access)


def estimate_conductance(g: ArrayLike, wires: WiresConfig) -> NDArray[np.float64]:
    """First-order estimate of the effective matrix [S], shape (n_wl, n_bl), in O(cells).

    Each line is solved by itself, its cells leading to ground: the word line gives the fraction
    of the source voltage that arrives at a cell, the bit line the fraction of the cell's current
    that arrives at the ground. Exact where either kind of line has no resistance; what one kind's
    drop does to the other's is left out.
    """
    if wires.alpha:
        raise InputError(f"the estimate holds for linear cells, got alpha={wires.alpha:g} 1/V")
    cells = ideal_conductance(g, wires)
    arrives = _ladder(cells, wires.r_word, wires.r_driver, wires.word_both)
    leaves = _ladder(cells[::-1].T, wires.r_bit, wires.r_sense, wires.bit_both).T[::-1]
    return cells * arrives * leaves


def _ladder(shunt: NDArray[np.float64], r: float, r_end: float, both: bool) -> NDArray[np.float64]:
    """Voltage along lines (n_lines, n) fed with 1 V before index 0, or at both ends, through r_end + r."""
    if r == 0.0 and r_end == 0.0:
        return np.ones(shunt.shape)
    if r == 0.0:
        r_source = r_end / 2.0 if both else r_end
        return np.broadcast_to(1.0 / (1.0 + r_source * shunt.sum(axis=1, keepdims=True)), shunt.shape)
    front = _fed_in_front(shunt, r, r_end, both)
    return front + _fed_in_front(shunt[:, ::-1], r, r_end, both)[:, ::-1] if both else front


def _fed_in_front(shunt: NDArray[np.float64], r: float, r_end: float, grounded: bool) -> NDArray[np.float64]:
    """The same with the far end open, or at 0 V behind r_end + r."""
    n_lines, n = shunt.shape
    admittance = np.empty((n_lines, n))  # of the line from a cell onwards
    behind = np.full(n_lines, 1.0 / (r + r_end) if grounded else 0.0)
    for k in range(n - 1, -1, -1):
        admittance[:, k] = shunt[:, k] + behind
        behind = admittance[:, k] / (1.0 + r * admittance[:, k])
    voltage = np.empty((n_lines, n))
    before = 1.0 / (1.0 + (r + r_end) * admittance[:, 0])
    voltage[:, 0] = before
    for k in range(1, n):
        before = before / (1.0 + r * admittance[:, k])
        voltage[:, k] = before
    return voltage
