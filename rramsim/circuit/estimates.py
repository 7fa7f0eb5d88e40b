"""Estimates on resistive wires that take few solutions of the circuit, or none.

`estimate_conductance` and `ideal_conductance` stand for the effective matrix; their errors are in the
docs, and the exact matrix is `rramsim.circuit.solve.effective_conductance`.

`cell_drive` gives the mean voltage across each cell for stress accounting. The voltage across cell (i, j)
depends on all inputs. For a given voltage v of its own word line and the others at their means it is close
to slope_ij v + offset_ij. The slope is what the cell's word line passes on: it is found by driving every
second word line, which leaves bit lines nearly unchanged; the offset makes the mean input give the mean
cell voltage. Two solves of one factorised array, whatever the number of vectors.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.checks import InputError, check_array
from rramsim.circuit.elimination import Factorisation
from rramsim.circuit.solve import cell_voltages, prepare
from rramsim.circuit.wiring import Lines, WiresConfig, check_conductance

__all__ = ["attenuation", "cell_drive", "estimate_conductance", "ideal_conductance", "noise_transfer"]


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


def attenuation(g: ArrayLike, wires: WiresConfig) -> NDArray[np.float64]:
    """Voltage across each cell over the source voltage, all word lines driven alike, shape (n_wl, n_bl).

    An estimate for other inputs: the drop on a bit line depends on all word lines' voltages.
    Cells count as linear.
    """
    g = check_conductance(g)
    return cell_voltages(g, np.ones((1, g.shape[0])), replace(wires, alpha=0.0))[0]


def cell_drive(
    g: ArrayLike,
    v_mean: ArrayLike,
    v_rms: ArrayLike,
    wires: WiresConfig,
    float_word: ArrayLike | None = None,
    float_bit: ArrayLike | None = None,
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
    float_word, float_bit : ndarray of bool, optional
        Lines without driver or ground; v_mean and v_rms of such word lines are 0.

    Returns
    -------
    slope, offset : ndarray, shape (n_wl, n_bl)
        For `CellArray.add_reads(counts, voltages, slope, offset)`.
    """
    g = check_array(g, "g", shape=(None, None), minimum=0.0, unit="S")
    v_mean = check_array(v_mean, "v_mean", shape=(g.shape[0],), unit="V")
    drive = check_array(v_rms, "v_rms", shape=(g.shape[0],), minimum=0.0, unit="V").copy()
    drive[drive == 0.0] = drive.max() if drive.max() > 0.0 else 1.0  # silent lines: any drive will do
    if float_word is not None:
        drive[np.asarray(float_word)] = 0.0
    even = np.arange(g.shape[0]) % 2 == 0
    linear = replace(wires, alpha=0.0)  # cells count as linear
    factors = prepare(g, linear, float_word=float_word, float_bit=float_bit)
    solution = factors.solve(np.stack([drive * even, drive * ~even, v_mean]))
    word = solution.v_word
    slope = np.where(even[:, None], word[0] - word[1], word[1] - word[0])
    slope /= np.where(drive > 0.0, drive, 1.0)[:, None]
    offset = word[2] - solution.v_bit[2] - slope * v_mean[:, None]
    return slope, offset


def noise_transfer(
    g: ArrayLike,
    wires: WiresConfig,
    patterns: ArrayLike,
    float_word: ArrayLike | None = None,
    float_bit: ArrayLike | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """What a small change of each cell's conductance does to its own bit line's current.

    Parameters
    ----------
    g : ndarray, shape (n_wl, n_bl)
        Conductances [S].
    patterns : ndarray, shape (n_patterns, n_wl)
        Inputs [V] for which cell voltages are wanted.
    float_word, float_bit : ndarray of bool, optional
        Lines without driver or ground.

    Returns
    -------
    slope : ndarray, shape (n_wl, n_bl)
        Voltage across each cell per volt of its own word line's driver, the others at 0 V.
    voltage : ndarray, shape (n_patterns, n_wl, n_bl)
        Voltage [V] across each cell for each pattern.
    leaves : ndarray, shape (n_wl, n_bl)
        Share of a current injected across a cell that arrives at the ground of its bit line. By
        reciprocity the cell's voltage when that ground alone is at 1 V.

    Notes
    -----
    Slope and `leaves` come from driving every second line, which changes the crossing lines little:
    within 2 % at 128 x 128 cells, 5 ohm and 40 uS against one solution per line.
    """
    g = check_array(g, "g", shape=(None, None), minimum=0.0, unit="S")
    patterns = check_array(patterns, "patterns", shape=(None, g.shape[0]), unit="V")
    linear = replace(wires, alpha=0.0)
    word = np.zeros(g.shape[0], bool) if float_word is None else np.asarray(float_word)
    bit = np.zeros(g.shape[1], bool) if float_bit is None else np.asarray(float_bit)
    slope, voltage = _own_lines(g, linear, word, bit, patterns)
    # the same circuit seen from the bit lines' grounds
    turned = replace(
        linear, r_word=wires.r_bit, r_bit=wires.r_word, r_driver=wires.r_sense, r_sense=wires.r_driver,
        word_both=wires.bit_both, bit_both=wires.word_both,
    )  # fmt: skip
    across = np.ascontiguousarray(g[::-1, ::-1].T)
    leaves, _ = _own_lines(across, turned, bit[::-1], word[::-1], np.zeros((0, g.shape[1])))
    return slope, voltage, leaves.T[::-1, ::-1]


def _own_lines(
    g: NDArray[np.float64],
    wires: WiresConfig,
    float_word: NDArray[np.bool_],
    float_bit: NDArray[np.bool_],
    patterns: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cell voltage per volt of the own word line, and cell voltages for patterns [V]."""
    even = np.arange(g.shape[0]) % 2 == 0
    driven = np.stack([even & ~float_word, ~even & ~float_word]).astype(np.float64)
    factors = Factorisation(g, wires, Lines(g, float_word, float_bit), np.float64, once=True)
    v_word, v_bit = factors.voltages(np.concatenate([driven, patterns]))
    slope = np.where(even[:, None], v_word[0] - v_word[1], v_word[1] - v_word[0])
    return slope, v_word[2:] - v_bit[2:]
