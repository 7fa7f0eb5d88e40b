"""The arrays of one layer: a state (cells) that answers an input voltage with currents.

Linear arrays answer through their *effective matrix*, computed once per programmed state:
the cells' conductance without wires, the exact solution of Kirchhoff's laws with them.
Arrays of non-linear cells solve the circuit for every vector (slow).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.cell import CellArray, WriteReport
from rramsim.chip.layout import TileLayout
from rramsim.circuit.wiring import WiresConfig
from rramsim.kernels.convolution import pack_weights
from rramsim.kernels.read import Matrices

__all__ = ["LayerArray", "refresh_all"]


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
    tolerance : float
        Output error, over the tile's full scale, that an old solution of a tile may cause before the tile
        is solved again (0 solves after every change). Until then each cell's share of the solution
        follows its conductance; what the change of line currents does to the shares is the
        error: estimated as the largest voltage drop times the largest relative change of a line's sum.
    """

    def __init__(
        self,
        layout: TileLayout,
        cells: CellArray,
        wires: WiresConfig | None,
        *,
        per_line: bool = False,
        tolerance: float = 0.0,
    ) -> None:
        self.layout = layout
        self.cells = cells
        self.wires = wires
        self.alpha = cells.config.iv_alpha
        plus, minus = layout.line_of[:, 0::2], layout.line_of[:, 1::2]
        if layout.reference_lines.size:
            plus, minus = layout.line_of, layout.reference_of[:, None]
        self.n_channels = (layout.line_of if per_line else plus).size  # conversions per row tile
        self._plus = _columns((layout.line_of if per_line else plus).ravel())
        self._minus = None if per_line else _columns(minus.ravel())
        self._effective: NDArray[np.float32] = np.empty((layout.n_rows, layout.n_lines), dtype=np.float32)
        self._matrix = np.empty((layout.n_rows, self.n_channels), dtype=np.float32)
        self._solved: NDArray[np.float32] | None = None  # conductances of each tile's last solution
        self.tolerance = tolerance
        self._ratio = np.ones_like(self._effective)  # effective over own conductance when last solved
        self._drop = np.zeros(len(self.tiles()))  # largest relative loss of a cell in each tile
        self._rewritten = np.zeros(len(self.tiles()), dtype=bool)  # tiles written since their last solution
        self.worst_error = 0.0  # largest estimated output error of a solution that was kept
        self.n_solved = 0  # tiles solved so far
        self._variance: NDArray[np.float32] | None = None
        self._reference_variance: NDArray[np.float32] | None = None
        self._packed: Matrices | None = None
        self._seen_version = -1

    @property
    def linear(self) -> bool:
        """Whether a matrix describes the arrays."""
        return self.alpha == 0.0

    @property
    def stale(self) -> bool:
        """Whether a cell has changed since the matrices were made."""
        return self._seen_version != self.cells.version

    def write(self, levels: NDArray[np.integer], mask: NDArray[np.bool_]) -> WriteReport:
        """`CellArray.write`; tiles with written cells will be solved again, whatever the tolerance."""
        for index, tile in enumerate(self.tiles()):
            self._rewritten[index] |= mask[tile].any()
        return self.cells.write(levels, mask)

    def state_dict(self) -> dict[str, Any]:
        """What present wire solutions belong to, besides the cells' own state."""
        solved = None if self._solved is None else self._solved.copy()
        return {"solved": solved, "rewritten": self._rewritten.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up cached matrices as they were at `state_dict`; the cells have their state already."""
        self._seen_version = -1
        self._packed = None
        self._solved = None
        if state["solved"] is not None:
            g = np.asarray(state["solved"])
            _solve([(self, g, index) for index in self._stale_tiles(g)])
        self._rewritten = np.array(state["rewritten"])

    def tiles(self) -> list[tuple[slice, slice]]:
        """Word-line and bit-line range of each tile, row tile by row tile."""
        return [
            (slice(*rows), slice(*lines))
            for rows in self.layout.row_tiles
            for lines in self.layout.line_tiles
        ]

    def refresh(self) -> None:
        """Bring cached matrices up to the cells' present state.

        With wires, only tiles that were written or have drifted beyond `tolerance` are solved again.
        """
        if not self.stale:
            return
        g = self.cells.conductance
        if self.wires is None or not self.linear:
            self._effective = g
        else:
            _solve([(self, g, index) for index in self._stale_tiles(g)])
        if self._minus is None:
            self._matrix = np.ascontiguousarray(self._effective[:, self._plus])
        else:
            self._matrix = self._effective[:, self._plus] - self._effective[:, self._minus]
        self._refresh_variance()
        self._seen_version = self.cells.version

    def _stale_tiles(self, g: NDArray[np.floating]) -> list[int]:
        """Numbers of the tiles to be solved again; the others follow their cells."""
        tiles = self.tiles()
        if self._solved is None:
            self._solved = np.zeros(g.shape, dtype=np.float32)
            return list(range(len(tiles)))
        stale = []
        for index, tile in enumerate(tiles):
            before = self._solved[tile]
            change = np.abs(g[tile] - before)
            lines = [change.sum(axis=k).max() / max(before.sum(axis=k).max(), 1e-30) for k in (0, 1)]
            if max(lines) == 0.0:
                continue
            error = float(self._drop[index] * max(lines))
            if error > self.tolerance or self.tolerance == 0.0 or self._rewritten[index]:
                stale.append(index)
            else:
                self.worst_error = max(self.worst_error, error)
                self._effective[tile] = self._ratio[tile] * g[tile]
        return stale

    def _take(self, g: NDArray[np.floating], index: int, matrix: NDArray[np.float64]) -> None:
        """Keep a tile's solution together with the conductances it belongs to."""
        assert self._solved is not None
        tile = self.tiles()[index]
        self._effective[tile], self._solved[tile] = matrix, g[tile]
        conducts = g[tile] > 0
        ratio = np.divide(matrix, g[tile], out=np.ones(matrix.shape), where=conducts)
        self._drop[index], self._rewritten[index] = 1.0 - ratio.min(), False
        ratio[~conducts] = ratio[conducts].mean() if conducts.any() else 1.0
        self._ratio[tile] = ratio
        self.n_solved += 1

    def _refresh_variance(self) -> None:
        sigma = self.cells.read_sigma()
        if sigma is None:
            self._variance = self._reference_variance = None
            return
        variance = np.asarray(sigma, dtype=np.float32) ** 2
        if self.wires is not None and self.linear:
            variance *= np.square(
                self._ratio
            )  # first order: a fluctuation reaches the bit line as current does
        self._variance = variance[:, self._plus]
        if self._minus is not None and self.layout.reference_lines.size == 0:
            self._variance = self._variance + variance[:, self._minus]
        # a reference line's noise is common to every column it is subtracted from
        references = self.layout.reference_lines
        self._reference_variance = variance[:, references] if references.size else None

    def packed(self) -> Matrices:
        """What `rramsim.kernels.read` needs of a linear array, brought up to date."""
        if self._packed is None or self.stale:
            self.refresh()
            none = np.empty(0, dtype=np.float32)
            variance, references = self._variance, self._reference_variance
            self._packed = Matrices(
                weights=pack_weights(self._matrix),
                variances=none if variance is None else pack_weights(variance),
                references=none if references is None else pack_weights(references),
                reference_of=self._reference_of_channel(),
                n_channels=self.n_channels,
                n_references=0 if references is None else references.shape[1],
            )
        return self._packed

    def _reference_of_channel(self) -> NDArray[np.int64]:
        """Position of each channel's reference line among the reference lines."""
        return np.searchsorted(self.layout.reference_lines, self.layout.reference_of)

    def cell_drive(
        self, v_mean: NDArray[np.float64], v_rms: NDArray[np.float64], wires: WiresConfig
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Slope and offset [V] of cell voltages over the own word line's.

        `v_mean` and `v_rms` (n_rows,) describe each word line's drive [V], silent reads counted.
        """
        from rramsim.circuit.estimates import cell_drive

        g = self.cells.conductance
        slope, offset = np.empty(g.shape), np.empty(g.shape)
        for tile in self.tiles():
            rows = tile[0]
            slope[tile], offset[tile] = cell_drive(g[tile], v_mean[rows], v_rms[rows], wires)
        return slope, offset

    def cell_voltages(self, v_in: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voltage [V] across every cell, shape (n_vectors, n_rows, n_lines), for inputs [V]."""
        g = self.cells.conductance
        if self.wires is None:
            return np.repeat(v_in[:, :, None], g.shape[1], axis=2)
        from rramsim.circuit.solve import cell_voltages

        result = np.empty((len(v_in), *g.shape))
        for rows, lines in self.tiles():
            tile = np.asarray(g[rows, lines], dtype=np.float64)
            result[:, rows, lines] = cell_voltages(tile, v_in[:, rows], self.wires)
        return result

    def currents(self, rows: slice, v_in: NDArray[np.float32]) -> NDArray[np.float32]:
        """Channel currents [A] of one row tile for inputs [V], shape (n_vectors, n_channels)."""
        if self.linear:
            self.refresh()
            return v_in @ self._matrix[rows]
        g = np.asarray(self.cells.conductance[rows], dtype=np.float64)
        lines = np.empty((v_in.shape[0], self.layout.n_lines))
        v = np.asarray(v_in, dtype=np.float64)
        if self.wires is None:
            if self.alpha:
                lines[:] = (np.sinh(self.alpha * v) / self.alpha) @ g
        else:
            from rramsim.circuit.solve import output_currents

            wires = replace(self.wires, alpha=self.alpha)
            for first, last in self.layout.line_tiles:
                lines[:, first:last] = output_currents(g[:, first:last], v, wires)
        if self._minus is None:
            return lines[:, self._plus].astype(np.float32)
        return (lines[:, self._plus] - lines[:, self._minus]).astype(np.float32)


SOLVE_TILES = 64  # tiles of one threaded batch: keeps every thread busy and bounds the memory


def refresh_all(arrays: list[LayerArray]) -> None:
    """`LayerArray.refresh` of many layers, their stale tiles solved together.

    Small layers have fewer tiles than there are threads; together they keep all of them busy.
    """
    wired = [(a, a.cells.conductance) for a in arrays if a.wires is not None and a.linear and a.stale]
    _solve([(a, g, index) for a, g in wired for index in a._stale_tiles(g)])
    for a in arrays:
        a.refresh()


def _solve(jobs: list[tuple[LayerArray, NDArray[np.floating], int]]) -> None:
    """Solve tiles (array, conductances, number of the tile) in threaded batches."""
    from rramsim.circuit.solve import effective_conductances

    for first in range(0, len(jobs), SOLVE_TILES):
        part = jobs[first : first + SOLVE_TILES]
        wires = part[0][0].wires
        assert wires is not None
        tiles = [np.asarray(g[a.tiles()[index]], dtype=np.float64) for a, g, index in part]
        for (a, g, index), matrix in zip(part, effective_conductances(tiles, wires), strict=True):
            a._take(g, index, matrix)


def _columns(lines: NDArray[np.int64]) -> Any:
    """Index of the given columns; a slice where they are evenly spaced, which reads much faster."""
    steps = np.unique(np.diff(lines))
    if steps.size != 1 or steps[0] <= 0:
        return lines
    return slice(int(lines[0]), int(lines[-1]) + 1, int(steps[0]))
