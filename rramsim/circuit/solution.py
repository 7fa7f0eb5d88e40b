"""The solved circuit: voltages, currents and power of every element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.circuit.wiring import WiresConfig


@dataclass(frozen=True, eq=False)
class Solution:
    """Voltages and currents of a crossbar for a batch of inputs; SI units.

    Examples
    --------
    >>> import numpy as np
    >>> from rramsim import solve_crossbar
    >>> solution = solve_crossbar(np.full((2, 3), 50e-6), np.full((1, 2), 0.2), r_word=2.5, r_bit=2.5)
    >>> solution.i_out.shape, bool((solution.i_out < 2 * 50e-6 * 0.2).all())
    ((1, 3), True)
    """

    v_in: NDArray[Any]  # (n_batch, n_wl) source voltages
    i_out: NDArray[Any]  # (n_batch, n_bl) current into the ground of each bit line
    i_in: NDArray[Any]  # (n_batch, n_wl) current out of each source
    v_word: NDArray[Any]  # (n_batch, n_wl, n_bl) voltage of the cells' word nodes
    v_bit: NDArray[Any]  # (n_batch, n_wl, n_bl) voltage of the cells' bit nodes
    i_cell: NDArray[Any]  # (n_batch, n_wl, n_bl) current from word to bit line
    wires: WiresConfig
    iterations: int = 0  # of Newton's method; 0 for linear cells
    residual: float = 0.0  # largest violation of Kirchhoff's current law over the largest current

    @classmethod
    def from_cells(
        cls,
        v_in: NDArray[Any],
        v_word: NDArray[Any],
        v_bit: NDArray[Any],
        i_cell: NDArray[Any],
        wires: WiresConfig,
        float_word: NDArray[np.bool_],
        float_bit: NDArray[np.bool_],
        i_out: NDArray[Any] | None = None,
        *,
        iterations: int = 0,
        residual: float = 0.0,
    ) -> Solution:
        """Line currents are sums of cell currents, which loses nothing on low-resistance wires."""
        i_in = np.where(float_word, 0.0, i_cell.sum(axis=2))
        if i_out is None:
            i_out = i_cell.sum(axis=1)
        i_out = np.where(float_bit, 0.0, i_out)
        return cls(v_in, i_out, i_in, v_word, v_bit, i_cell, wires, iterations, residual)

    def __repr__(self) -> str:
        n, rows, columns = self.v_word.shape
        newton = f", {self.iterations} Newton iterations" if self.iterations else ""
        return (
            f"<Solution of {n} input vectors on {rows} x {columns} cells{newton}: i_out "
            f"{self.i_out.min():.3g} to {self.i_out.max():.3g} A, power {self.power.mean():.3g} W per vector>"
        )

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` with named axes and units.

        Returns
        -------
        xarray.Dataset
            `v_in`, `i_in` (vector, word_line), `i_out` (vector, bit_line); `v_word`, `v_bit`, `v_cell`,
            `i_cell` and `power_cell` (vector, word_line, bit_line).

        Examples
        --------
        >>> import numpy as np
        >>> from rramsim import solve_crossbar
        >>> data = solve_crossbar(np.full((2, 3), 4e-5), [[0.2, 0.1]], r_word=1.0, r_bit=1.0).to_xarray()
        >>> data.i_out.dims, data.i_out.units
        (('vector', 'bit_line'), 'A')
        """
        import xarray

        lines = {"v_in": "word_line", "i_in": "word_line", "i_out": "bit_line"}
        units = {"v": "V", "i": "A", "power": "W"}
        names = [*lines, "v_word", "v_bit", "v_cell", "i_cell", "power_cell"]
        variables = {
            name: (
                ("vector", lines[name]) if name in lines else ("vector", "word_line", "bit_line"),
                getattr(self, name),
                {"units": units[name.split("_")[0]]},
            )
            for name in names
        }
        return xarray.Dataset(variables, attrs={"iterations": self.iterations, "residual": self.residual})

    @property
    def v_cell(self) -> NDArray[Any]:
        """Voltage across each cell and its access transistor [V], shape (n_batch, n_wl, n_bl)."""
        return self.v_word - self.v_bit

    @property
    def power_cell(self) -> NDArray[Any]:
        """Power in each cell and its access transistor [W], shape (n_batch, n_wl, n_bl)."""
        return self.v_cell * self.i_cell

    @property
    def power_word(self) -> NDArray[Any]:
        """Power in each word line and its drivers [W], shape (n_batch, n_wl)."""
        w = self.wires
        return _line_power(self.i_cell, self.i_in, w.r_word, w.r_driver, w.word_both)

    @property
    def power_bit(self) -> NDArray[Any]:
        """Power in each bit line and its sense resistors [W], shape (n_batch, n_bl)."""
        w = self.wires
        flipped = self.i_cell[:, ::-1, :].transpose(0, 2, 1)  # first cell next to the ground
        return _line_power(flipped, self.i_out, w.r_bit, w.r_sense, w.bit_both)

    @property
    def power_driver(self) -> NDArray[Any]:
        """Part of `power_word` in the drivers' own resistance [W], shape (n_batch, n_wl)."""
        w = self.wires
        return _end_power(self.i_cell, self.i_in, w.r_word, w.r_driver, w.word_both)

    @property
    def power_sense(self) -> NDArray[Any]:
        """Part of `power_bit` in the sense resistors [W], shape (n_batch, n_bl)."""
        w = self.wires
        flipped = self.i_cell[:, ::-1, :].transpose(0, 2, 1)
        return _end_power(flipped, self.i_out, w.r_bit, w.r_sense, w.bit_both)

    @property
    def power(self) -> NDArray[Any]:
        """Power drawn from the sources [W], shape (n_batch,)."""
        return (self.v_in * self.i_in).sum(axis=1)

    @property
    def i_word(self) -> NDArray[Any]:
        """Current in the word-line segment left of each cell, away from the driver [A]."""
        return _segment_currents(
            self.i_cell, self.i_in, self.wires.r_word, self.wires.r_driver, self.wires.word_both
        )

    @property
    def i_bit(self) -> NDArray[Any]:
        """Current in the bit-line segment below each cell, towards the ground [A]."""
        w = self.wires
        flipped = self.i_cell[:, ::-1, :].transpose(0, 2, 1)
        return _segment_currents(flipped, self.i_out, w.r_bit, w.r_sense, w.bit_both).transpose(0, 2, 1)[
            :, ::-1, :
        ]


def _segment_currents(
    taps: NDArray[Any], total: NDArray[Any], r_segment: float, r_end: float, both: bool
) -> NDArray[Any]:
    """Current in the segment before each tap of lines fed at the front, or at both ends alike.

    taps (n_batch, n_lines, n) are the currents drawn, total (n_batch, n_lines) what the ends deliver
    together; a floating line delivers 0.
    """
    after = np.cumsum(taps[:, :, ::-1], axis=2)[:, :, ::-1]
    n = taps.shape[2]
    whole = 2.0 * r_end + (n + 1) * r_segment
    if not both or whole == 0.0:
        return after
    share = (r_end + np.arange(1, n + 1) * r_segment) / whole  # of a tap's current that the far end delivers
    far = (taps * share).sum(axis=2) * (total != 0.0)
    return after - far[:, :, None]


def _line_power(
    taps: NDArray[Any], total: NDArray[Any], r_segment: float, r_end: float, both: bool
) -> NDArray[Any]:
    if both and r_segment == 0.0:
        return total**2 * r_end / 2.0  # two equal branches to the one node
    segment = _segment_currents(taps, total, r_segment, r_end, both)
    power = r_segment * (segment**2).sum(axis=2)
    if both:
        far = total - segment[:, :, 0]
        near = segment[:, :, 0] * (total != 0.0)
        return power + r_end * near**2 + (r_segment + r_end) * far**2 * (total != 0.0)
    return power + r_end * total**2


def _end_power(
    taps: NDArray[Any], total: NDArray[Any], r_segment: float, r_end: float, both: bool
) -> NDArray[Any]:
    """Power in the resistors at the ends of lines, shape (n_batch, n_lines)."""
    if r_end == 0.0:
        return np.zeros_like(total)
    if not both:
        return r_end * total**2
    if r_segment == 0.0:
        return total**2 * r_end / 2.0
    near = _segment_currents(taps, total, r_segment, r_end, both)[:, :, 0] * (total != 0.0)
    return r_end * (near**2 + (total - near) ** 2)
