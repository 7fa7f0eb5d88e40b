"""The arrays of one layer: a state (cells) that answers an input voltage with currents.

Linear arrays answer through their *effective matrix*, computed once per programmed state:
the cells' conductance without wires, the exact solution of Kirchhoff's laws with them.
Arrays of non-linear cells solve the circuit for every vector (slow).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rramsim.cell import CellArray
from rramsim.mapping import TileLayout
from rramsim.wiring import WiresConfig

__all__ = ["LayerArray"]


class LayerArray:
    """Cells of one layer on its tiles.

    A *channel* is what one ADC conversion sees: the difference of two bit lines
    (`pairs`), or each weight-holding line by itself (`lines`). Channels are ordered
    (column, slice) or (column, cell).

    Parameters
    ----------
    layout : TileLayout
        Where cells sit.
    cells : CellArray
        State of all cells, shape (layout.n_rows, layout.n_lines).
    wires : WiresConfig or None
        Line resistances; None for ideal wires.
    per_line : bool
        Channels are single bit lines.
    """

    def __init__(
        self, layout: TileLayout, cells: CellArray, wires: WiresConfig | None, *, per_line: bool = False
    ) -> None:
        self.layout = layout
        self.cells = cells
        self.wires = wires
        self.alpha = cells.config.alpha
        plus, minus = layout.line_of[:, 0::2], layout.line_of[:, 1::2]
        if layout.reference_lines.size:
            plus, minus = layout.line_of, layout.reference_of[:, None]
        self._plus = (layout.line_of if per_line else plus).ravel()
        self._minus = None if per_line else minus.ravel()
        self._effective = np.empty((layout.n_rows, layout.n_lines), dtype=np.float32)
        self._matrix = np.empty((layout.n_rows, self._plus.size), dtype=np.float32)
        self._attenuation: NDArray[np.float32] | None = None
        self._variance: NDArray[np.float32] | None = None
        self._reference_variance: NDArray[np.float32] | None = None
        self._seen_version = -1

    @property
    def linear(self) -> bool:
        """Whether a matrix describes the arrays."""
        return self.alpha == 0.0

    def invalidate(self) -> None:
        """Forget cached matrices, as after loading another state."""
        self._seen_version = -1

    def tiles(self) -> list[tuple[slice, slice]]:
        """Word-line and bit-line range of each tile, row tile by row tile."""
        return [
            (slice(*rows), slice(*lines))
            for rows in self.layout.row_tiles
            for lines in self.layout.line_tiles
        ]

    def refresh(self) -> None:
        """Bring cached matrices up to the cells' present state."""
        if self._seen_version == self.cells.version:
            return
        g = self.cells.conductance
        if self.wires is None or not self.linear:
            self._effective[:] = g
        else:
            self._solve_wires(g)
        if self._minus is None:
            self._matrix = np.ascontiguousarray(self._effective[:, self._plus])
        else:
            self._matrix = self._effective[:, self._plus] - self._effective[:, self._minus]
        self._refresh_variance(g)
        self._seen_version = self.cells.version

    def _solve_wires(self, g: NDArray[np.floating]) -> None:
        from rramsim.solver import effective_conductances

        tiles = self.tiles()
        solved = effective_conductances([np.asarray(g[tile], dtype=np.float64) for tile in tiles], self.wires)
        for tile, matrix in zip(tiles, solved, strict=True):
            self._effective[tile] = matrix

    def _refresh_variance(self, g: NDArray[np.floating]) -> None:
        sigma = self.cells.read_sigma()
        if sigma is None:
            self._variance = self._reference_variance = None
            return
        variance = np.asarray(sigma, dtype=np.float32) ** 2
        if self.wires is not None and self.linear:
            # first order: a cell's fluctuation reaches the bit line as its current does
            variance *= np.square(self._effective / np.maximum(g, np.finfo(np.float32).tiny))
        self._variance = variance[:, self._plus]
        if self._minus is not None and self.layout.reference_lines.size == 0:
            self._variance = self._variance + variance[:, self._minus]
        # a reference line's noise is common to every column it is subtracted from
        references = self.layout.reference_lines
        self._reference_variance = variance[:, references] if references.size else None

    def matrix(self, rows: slice) -> NDArray[np.float32]:
        """Effective channel conductance [S] of one row tile, shape (rows, n_channels)."""
        self.refresh()
        return self._matrix[rows]

    def variances(self, rows: slice) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """Read-noise variances [S^2] of one row tile: own cells per channel, and reference lines."""
        self.refresh()
        if self._variance is None:
            return None, None
        reference = self._reference_variance
        return self._variance[rows], None if reference is None else reference[rows]

    def reference_of_channel(self) -> NDArray[np.int64]:
        """Position of each channel's reference line among the reference lines."""
        return np.searchsorted(self.layout.reference_lines, self.layout.reference_of)

    def currents(self, rows: slice, v_in: NDArray[np.float32]) -> NDArray[np.float32]:
        """Channel currents [A] of one row tile for inputs [V], shape (n_vectors, n_channels)."""
        if self.linear:
            return v_in @ self.matrix(rows)
        return self._solve_nonlinear(rows, v_in)

    def _solve_nonlinear(self, rows: slice, v_in: NDArray[np.float32]) -> NDArray[np.float32]:
        g = np.asarray(self.cells.conductance[rows], dtype=np.float64)
        lines = np.empty((v_in.shape[0], self.layout.n_lines))
        v = np.asarray(v_in, dtype=np.float64)
        if self.wires is None:
            if self.alpha:
                lines[:] = (np.sinh(self.alpha * v) / self.alpha) @ g
        else:
            from rramsim.solver import output_currents

            wires = replace(self.wires, alpha=self.alpha)
            for first, last in self.layout.line_tiles:
                lines[:, first:last] = output_currents(g[:, first:last], v, wires)
        if self._minus is None:
            return lines[:, self._plus].astype(np.float32)
        return (lines[:, self._plus] - lines[:, self._minus]).astype(np.float32)
