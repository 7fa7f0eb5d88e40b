"""Kirchhoff's laws for a crossbar of linear or non-linear cells, solved exactly.

A linear array is a linear network: its output currents are ``v_in @ g_eff`` with a matrix
(n_wl, n_bl) that belongs to the programmed state.  `effective_conductance` computes that matrix by
merging blocks of cells (see `rramsim.kernels.nodal`), `prepare` keeps what is needed for node
voltages and for solving again after a few cells have changed, `solve_crossbar` returns all
voltages and currents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.checks import InputError
from rramsim.circuit.elimination import Factorisation, effective
from rramsim.circuit.newton import MAX_CG, Law, drop_ratio, line_currents, solve_lines, solve_nonlinear
from rramsim.circuit.solution import Solution
from rramsim.circuit.wiring import Lines, WiresConfig, check_conductance, check_drive, check_inputs
from rramsim.kernels import nodal
from rramsim.parallel import over_threads

__all__ = [
    "Factorisation",
    "Solution",
    "cell_voltages",
    "effective_conductance",
    "effective_conductances",
    "output_currents",
    "prepare",
    "solve_crossbar",
]

FEW_CG = 80  # iterations per vector after which eliminating all nodes is the faster way
DROP_RATIO_CG = 300.0  # wire resistance times cell conductance up to which few vectors go by CG


def _check_dtype(dtype: Any) -> type:
    kind = np.dtype(dtype)
    if kind not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise InputError(f"dtype must be float64 or float32, got {kind}")
    return np.float64 if kind == np.float64 else np.float32


def _require_linear(wires: WiresConfig) -> None:
    if wires.alpha:
        raise InputError(
            f"only an array of linear cells has an effective conductance, got alpha={wires.alpha:g} 1/V; "
            f"use solve_crossbar for non-linear cells"
        )


def effective_conductance(
    g: ArrayLike,
    *,
    r_word: float,
    r_bit: float,
    r_driver: float = 0.0,
    r_sense: float = 0.0,
    r_access: float = 0.0,
    alpha: float = 0.0,
    word_both: bool = False,
    bit_both: bool = False,
    float_word: ArrayLike | None = None,
    float_bit: ArrayLike | None = None,
    dtype: Any = np.float64,
) -> NDArray[Any]:
    """The matrix of a linear crossbar: ``i_out = v_in @ g_eff``, exact within rounding.

    Parameters
    ----------
    g : array_like, shape (n_wl, n_bl)
        Cell conductance [S]; 0 is an open cell.
    r_word, r_bit : float
        Resistance of one wire segment [ohm]; 0 makes each line one node.
    r_driver, r_sense : float
        Resistance of the word lines' drivers and of the bit lines' sense amplifiers [ohm].
    r_access : float
        Access transistor in series with each cell [ohm].
    alpha : float
        Must be 0: non-linear cells have no such matrix.
    word_both, bit_both : bool
        Lines driven (grounded) from both ends.
    float_word, float_bit : array_like of bool, optional
        Lines without driver (ground).
    dtype : float64 or float32
        Precision of the work and of the result.

    Returns
    -------
    ndarray, shape (n_wl, n_bl)
        Current into the ground of each bit line per volt at each word line's source [S].

    Raises
    ------
    InputError
        For a negative or non-finite conductance, resistance < 0, wrong shapes, or lines whose
        voltage would be undefined.
    """
    wires = WiresConfig(
        r_word=r_word, r_bit=r_bit, r_driver=r_driver, r_sense=r_sense, r_access=r_access,
        alpha=alpha, word_both=word_both, bit_both=bit_both,
    )  # fmt: skip
    _require_linear(wires)
    g = check_conductance(g)
    return effective(g, wires, Lines(g, float_word, float_bit), _check_dtype(dtype))


def effective_conductances(
    tiles: Sequence[ArrayLike], wires: WiresConfig, *, dtype: Any = np.float64, threads: int | None = None
) -> list[NDArray[Any]]:
    """`effective_conductance` of many arrays with the same wires, over threads.

    A thread owns whole tiles, so that the number of threads changes no bit.

    Parameters
    ----------
    tiles : sequence of array_like, each (n_wl, n_bl)
        Cell conductances [S]; shapes may differ.
    threads : int, optional
        See `rramsim.parallel.over_threads`.
    """
    _require_linear(wires)
    kind = _check_dtype(dtype)
    arrays = [check_conductance(tile, f"tiles[{k}]") for k, tile in enumerate(tiles)]

    def solve(g: NDArray[np.float64]) -> NDArray[Any]:
        return effective(g, wires, Lines(g, None, None), kind)

    return over_threads(solve, arrays, threads)


def prepare(
    g: ArrayLike,
    wires: WiresConfig,
    *,
    float_word: ArrayLike | None = None,
    float_bit: ArrayLike | None = None,
    dtype: Any = np.float64,
) -> Factorisation:
    """Solve a linear crossbar and keep what node voltages and later changes of cells need."""
    _require_linear(wires)
    g = check_conductance(g)
    return Factorisation(g, wires, Lines(g, float_word, float_bit), _check_dtype(dtype))


def solve_crossbar(
    g: ArrayLike,
    v_in: ArrayLike,
    *,
    r_word: float,
    r_bit: float,
    r_driver: float = 0.0,
    r_sense: float = 0.0,
    r_access: float = 0.0,
    alpha: float = 0.0,
    word_both: bool = False,
    bit_both: bool = False,
    float_word: ArrayLike | None = None,
    float_bit: ArrayLike | None = None,
    law: Law | None = None,
) -> Solution:
    """All voltages and currents of a crossbar for a batch of inputs.

    Parameters
    ----------
    g : array_like, shape (n_wl, n_bl)
        Cell conductance [S]; 0 is an open cell.
    v_in : array_like, shape (n_batch, n_wl)
        Source voltage of each word line [V]; 0 on floating ones.
    alpha : float
        Cell law ``I = g sinh(alpha V) / alpha`` [1/V]; 0 for linear cells.
    r_word, r_bit, r_driver, r_sense, r_access, word_both, bit_both, float_word, float_bit
        See `effective_conductance`.

    law : callable, optional
        Any monotone cell law in place of the sinh: ``law(v, g) -> (current, slope)`` for arrays of
        shape (n_wl, n_bl), with slope dI/dV >= 0.

    Returns
    -------
    Solution
        `i_out` (n_batch, n_bl), `i_in` (n_batch, n_wl), `v_word`, `v_bit` (n_batch, n_wl, n_bl) and more.

    Raises
    ------
    InputError
        As `effective_conductance`; ConvergenceError if Newton's method gives up.
    """
    wires = WiresConfig(
        r_word=r_word, r_bit=r_bit, r_driver=r_driver, r_sense=r_sense, r_access=r_access,
        alpha=alpha, word_both=word_both, bit_both=bit_both,
    )  # fmt: skip
    return _solve(g, v_in, wires, float_word, float_bit, law)


def _solve(
    g: ArrayLike,
    v_in: ArrayLike,
    wires: WiresConfig,
    float_word: ArrayLike | None = None,
    float_bit: ArrayLike | None = None,
    law: Law | None = None,
) -> Solution:
    g = check_conductance(g)
    lines = Lines(g, float_word, float_bit)
    v_in = check_inputs(v_in, g.shape[0], lines)
    if wires.alpha or law is not None:
        return solve_nonlinear(g, v_in, wires, lines, law)
    if _few(g, v_in, wires, lines):
        solution, done = solve_lines(g, v_in, wires, None, max_cg=FEW_CG)
        if done.all():
            return solution
    return Factorisation(g, wires, lines, np.float64, once=True).solve(v_in)


def _few(g: NDArray[np.float64], v_in: NDArray[np.float64], wires: WiresConfig, lines: Lines) -> bool:
    """Whether solving each vector by itself is the faster way: few of them, and a moderate drop."""
    return not lines.any and len(v_in) <= min(g.shape) // 16 and drop_ratio(g, wires) < DROP_RATIO_CG


def output_currents(
    g: ArrayLike, v_in: ArrayLike, wires: WiresConfig, *, law: Law | None = None
) -> NDArray[np.float64]:
    """Bit-line currents [A], shape (n_batch, n_bl), of linear or non-linear cells; no line floats."""
    g = check_conductance(g)
    lines = Lines(g, None, None)
    v_in = check_inputs(v_in, g.shape[0], lines)
    linear = not wires.alpha and law is None
    if law is None:
        check_drive(v_in, wires.alpha)
    if not linear or _few(g, v_in, wires, lines):
        _, i_cell, _, done = line_currents(g, v_in, wires, law, max_cg=FEW_CG if linear else MAX_CG)
        if done.all():
            return i_cell.sum(axis=1)
    if linear:
        return nodal.product(v_in, effective(g, wires, lines, np.float64))
    return solve_nonlinear(g, v_in, wires, lines, law).i_out


def cell_voltages(
    g: ArrayLike, v_in: ArrayLike, wires: WiresConfig, *, law: Law | None = None
) -> NDArray[np.float64]:
    """Voltage across each cell with its access transistor [V], shape (n_batch, n_wl, n_bl).

    A vector's voltages do not depend, in any bit, on the other vectors of the batch.
    """
    g = check_conductance(g)
    lines = Lines(g, None, None)
    v_in = check_inputs(v_in, g.shape[0], lines)
    if wires.alpha or law is not None:
        return solve_nonlinear(g, v_in, wires, lines, law).v_cell
    v_word, v_bit = Factorisation(g, wires, lines, np.float64, once=True).voltages(v_in)
    return v_word - v_bit
