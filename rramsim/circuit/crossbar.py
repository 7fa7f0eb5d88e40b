"""One crossbar with its wires: solve it, change cells, plot its voltages, hand it to SPICE."""

from __future__ import annotations

from os import PathLike
from typing import Any, TextIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.circuit.elimination import Factorisation
from rramsim.circuit.newton import solve_nonlinear
from rramsim.circuit.solution import Solution
from rramsim.circuit.solve import prepare
from rramsim.circuit.spice import write_netlist
from rramsim.circuit.wiring import Lines, WiresConfig, check_conductance, check_inputs

__all__ = ["Crossbar"]


class Crossbar:
    """An array of cells on resistive lines.

    Linear arrays are factorised once and again only where cells change; non-linear ones are
    solved for every input.

    Parameters
    ----------
    g : array_like, shape (n_wl, n_bl)
        Cell conductance [S]; 0 is an open cell.
    wires : WiresConfig, optional
        Line resistances; ideal wires if left out.
    float_word, float_bit : array_like of bool, optional
        Lines without driver (ground).

    Examples
    --------
    >>> import numpy as np
    >>> from rramsim import WiresConfig
    >>> array = Crossbar(np.full((4, 3), 50e-6), WiresConfig(r_word=2.5, r_bit=2.5))
    >>> array.solve(np.full((1, 4), 0.2)).i_out.shape
    (1, 3)
    """

    def __init__(
        self,
        g: ArrayLike,
        wires: WiresConfig | None = None,
        *,
        float_word: ArrayLike | None = None,
        float_bit: ArrayLike | None = None,
    ) -> None:
        self._g = check_conductance(g).copy()
        self.wires = wires or WiresConfig()
        self._lines = Lines(self._g, float_word, float_bit)
        self._factorisation: Factorisation | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of word and bit lines."""
        return self._g.shape[0], self._g.shape[1]

    @property
    def g(self) -> NDArray[np.float64]:
        """Cell conductance [S], shape (n_wl, n_bl)."""
        return self._g.copy()

    @g.setter
    def g(self, value: ArrayLike) -> None:
        new = check_conductance(value, shape=self.shape).copy()
        if self._lines.any:
            self._lines.check_anchored(new)
        if self._factorisation is not None:
            self._factorisation.update(new)
        self._g = new

    @property
    def factorisation(self) -> Factorisation:
        """The solved linear array, kept up to date with the cells."""
        if self._factorisation is None:
            self._factorisation = prepare(
                self._g, self.wires, float_word=self._lines.word, float_bit=self._lines.bit
            )
        return self._factorisation

    @property
    def g_eff(self) -> NDArray[Any]:
        """Effective conductance [S] of linear cells, shape (n_wl, n_bl): ``i_out = v_in @ g_eff``."""
        return self.factorisation.g_eff

    def solve(self, v_in: ArrayLike) -> Solution:
        """All voltages and currents for inputs [V] of shape (n_batch, n_wl)."""
        if not self.wires.alpha:
            return self.factorisation.solve(v_in)
        v = check_inputs(v_in, self.shape[0], self._lines)
        return solve_nonlinear(self._g, v, self.wires, self._lines, None)

    def to_spice(self, path: str | PathLike[str] | TextIO, v_in: ArrayLike) -> None:
        """Write a SPICE netlist of the present state for one input vector [V], shape (n_wl,)."""
        write_netlist(path, self._g, v_in, self.wires, float_word=self._lines.word, float_bit=self._lines.bit)
