"""Where the power of many reads goes: cells, wires, drivers; exact for linear cells at the price of few.

The currents of a linear array are linear in its inputs, so every power is a quadratic form of them and its
sum over any number of input vectors depends on ``sum of v v^T`` alone. That matrix is a sum of as many
outer products as there are word lines; the circuit is solved for those instead of for every vector.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.checks import check_array
from rramsim.circuit.elimination import Factorisation
from rramsim.circuit.newton import solve_nonlinear
from rramsim.circuit.solution import Solution
from rramsim.circuit.wiring import Lines, WiresConfig, check_conductance, check_inputs

__all__ = ["Power", "power_of_moment", "power_of_solution", "power_of_vectors"]

BATCH = 32  # vectors solved at a time: bounds the memory of node voltages
ROUNDING = 1e-15  # of the largest eigenvalue of a moment


class Power(NamedTuple):
    """Power [W], summed over input vectors."""

    cells: float  # with their access transistors
    wires: float  # segments of word and bit lines
    drivers: float  # output resistance of drivers and input resistance of sense amplifiers
    terminals: float  # drawn from the sources: sum of v i; the three others add up to it

    def __add__(self, other: object) -> Power:
        assert isinstance(other, Power)
        return Power(*(a + b for a, b in zip(self, other, strict=True)))


NONE = Power(0.0, 0.0, 0.0, 0.0)


def power_of_solution(solution: Solution) -> Power:
    """Power of all input vectors of a solved circuit together."""
    drivers = float(solution.power_driver.sum() + solution.power_sense.sum())
    lines = float(solution.power_word.sum() + solution.power_bit.sum())
    return Power(float(solution.power_cell.sum()), lines - drivers, drivers, float(solution.power.sum()))


def power_of_moment(
    g: ArrayLike,
    moment: ArrayLike,
    wires: WiresConfig,
    *,
    float_word: ArrayLike | None = None,
    float_bit: ArrayLike | None = None,
) -> Power:
    """Power of any number of input vectors to linear cells, from the sum of their outer products.

    Parameters
    ----------
    g : array_like, shape (n_wl, n_bl)
        Cell conductance [S].
    moment : array_like, shape (n_wl, n_wl)
        Sum over the vectors of ``outer(v, v)`` [V^2]; 0 in rows of floating word lines.
    wires : WiresConfig
        Line resistances; its `alpha` must be 0.
    float_word, float_bit : array_like of bool, optional
        Lines without driver (ground).

    Returns
    -------
    Power
        Exact within rounding for the sum over all vectors.

    Raises
    ------
    InputError
        For wrong shapes, negative conductances or a moment that is not finite.

    Examples
    --------
    Two cells of 10 uS on one word line at 0.2 V, ideal wires: 2 x 10 uS x 0.04 V^2.

    >>> power = power_of_moment([[1e-5, 1e-5]], [[0.04]], WiresConfig())
    >>> print(f"{power.cells:.3g} {power.terminals:.3g}")
    8e-07 8e-07
    """
    g = check_conductance(g)
    moment = check_array(moment, "moment", shape=(g.shape[0], g.shape[0]), unit="V^2")
    values, vectors = np.linalg.eigh((moment + moment.T) / 2.0)
    kept = values > ROUNDING * max(values[-1], 0.0)  # the rest is rounding: lines that are never driven
    drives = (vectors[:, kept] * np.sqrt(values[kept])).T
    if float_word is not None:  # rounding would drive lines that have no driver
        drives = np.where(np.asarray(float_word), 0.0, drives)
    factors = Factorisation(g, wires, Lines(g, float_word, float_bit), np.float64, once=True)
    total = NONE
    for first in range(0, len(drives), BATCH):
        total += power_of_solution(factors.solve(drives[first : first + BATCH]))
    return total


def power_of_vectors(g: ArrayLike, v_in: ArrayLike, wires: WiresConfig) -> Power:
    """Power of input vectors [V] (n_batch, n_wl), each solved by itself: for non-linear cells."""
    g = check_conductance(g)
    lines = Lines(g, None, None)
    v: NDArray[np.float64] = check_inputs(v_in, g.shape[0], lines)
    total = NONE
    for first in range(0, len(v), BATCH):
        total += power_of_solution(solve_nonlinear(g, v[first : first + BATCH], wires, lines, None))
    return total
