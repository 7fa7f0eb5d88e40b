"""The arrays of one layer: a state (cells) that answers an input voltage with currents.

Linear arrays answer through their *effective matrix*, computed once per programmed state:
the cells' conductance without wires, the exact solution of Kirchhoff's laws with them.
Arrays of non-linear cells solve the circuit for every vector (slow).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.cell import CellArray
from rramsim.kernels.convolution import pack_weights
from rramsim.mapping import TileLayout
from rramsim.wiring import WiresConfig

__all__ = ["LayerArray", "refresh_all"]

Packed = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


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
        Change of a cell, relative to its tile's largest conductance, below which the tile's
        solution is kept (for drifting cells on wires; 0 solves after every change).
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
        self._plus = (layout.line_of if per_line else plus).ravel()
        self._minus = None if per_line else minus.ravel()
        self._effective = np.empty((layout.n_rows, layout.n_lines), dtype=np.float32)
        self._matrix = np.empty((layout.n_rows, self._plus.size), dtype=np.float32)
        self._solved: NDArray[np.float32] | None = None  # conductances of each tile's last solution
        self.tolerance = tolerance
        self.worst_change = 0.0  # largest relative change of a cell left unsolved so far
        self.n_solved = 0  # tiles solved so far
        self._variance: NDArray[np.float32] | None = None
        self._reference_variance: NDArray[np.float32] | None = None
        self._packed: dict[bool, Packed] = {}
        self._seen_version = -1

    @property
    def linear(self) -> bool:
        """Whether a matrix describes the arrays."""
        return self.alpha == 0.0

    @property
    def stale(self) -> bool:
        """Whether a cell has changed since the matrices were made."""
        return self._seen_version != self.cells.version

    @property
    def solved_conductance(self) -> NDArray[np.float32] | None:
        """Conductances [S] that the present wire solutions belong to; None without wires."""
        return None if self._solved is None else self._solved.copy()

    def restore(self, solved: NDArray[np.float32] | None) -> None:
        """Take up cached matrices as they were when `solved_conductance` was saved."""
        self._seen_version = -1
        self._packed.clear()
        self._solved = None
        if solved is not None:
            self._solve_wires(solved)

    def tiles(self) -> list[tuple[slice, slice]]:
        """Word-line and bit-line range of each tile, row tile by row tile."""
        return [
            (slice(*rows), slice(*lines))
            for rows in self.layout.row_tiles
            for lines in self.layout.line_tiles
        ]

    def refresh(self) -> None:
        """Bring cached matrices up to the cells' present state.

        With wires, a tile is solved again when a cell in it has changed by more than
        `tolerance` of the tile's largest conductance since the tile's last solution.
        """
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

    def _stale_tiles(self, g: NDArray[np.floating]) -> list[tuple[slice, slice]]:
        """Tiles whose cells have changed by more than the tolerance since their last solution."""
        if self._solved is None:
            self._solved = np.full(g.shape, np.nan, dtype=np.float32)
        stale = []
        for tile in self.tiles():
            change = np.abs(g[tile] - self._solved[tile]).max()  # NaN before the first solution
            if not change <= self.tolerance * g[tile].max():
                stale.append(tile)
            else:
                self.worst_change = max(self.worst_change, float(change / g[tile].max()))
        return stale

    def _solve_wires(self, g: NDArray[np.floating]) -> None:
        from rramsim.solver import effective_conductances

        assert self.wires is not None
        stale = self._stale_tiles(g)
        solved = effective_conductances([np.asarray(g[tile], dtype=np.float64) for tile in stale], self.wires)
        self._take(g, stale, solved)

    def _take(
        self, g: NDArray[np.floating], tiles: list[tuple[slice, slice]], solved: list[NDArray[Any]]
    ) -> None:
        """Keep solutions together with the conductances they belong to."""
        assert self._solved is not None
        for tile, matrix in zip(tiles, solved, strict=True):
            self._effective[tile] = matrix
            self._solved[tile] = g[tile]
        self.n_solved += len(tiles)

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

    @property
    def n_channels(self) -> int:
        """Conversions per row tile."""
        return self._plus.size

    def packed(self, *, taps: bool) -> Packed:
        """What `rramsim.kernels.read` needs of a linear array, brought up to date.

        Returns
        -------
        weights, variances, references : float32, flat
            Effective channel conductance [S], read-noise variance of the channel's own cells
            [S^2], and that of the reference lines; the last two empty without read noise.
            Packed for `read_maps` if `taps`, else for `read_rows`.
        reference_of : int64 (n_channels,)
            Position of each channel's reference line.
        n_outputs : int64 (3,)
            Columns of the three matrices.
        """
        if self._seen_version != self.cells.version:
            self.refresh()
            self._packed.clear()
        if taps not in self._packed:
            empty = np.empty((self.layout.n_rows, 0), dtype=np.float32)
            variance = empty if self._variance is None else self._variance
            reference = empty if self._reference_variance is None else self._reference_variance
            parts = (self._matrix, variance, reference)
            pack = pack_weights if taps else self._by_tile
            outputs = np.array([part.shape[1] for part in parts], dtype=np.int64)
            weights, variances, references = map(pack, parts)
            lines = self._reference_of_channel()
            self._packed[taps] = (weights, variances, references, lines, outputs)
        return self._packed[taps]

    def _by_tile(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        parts = [matrix[a:b].T.ravel() for a, b in self.layout.row_tiles]
        return np.concatenate(parts).astype(np.float32, copy=False)

    def _reference_of_channel(self) -> NDArray[np.int64]:
        """Position of each channel's reference line among the reference lines."""
        return np.searchsorted(self.layout.reference_lines, self.layout.reference_of)

    def cell_drive(
        self, v_mean: NDArray[np.float64], v_rms: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
        """Slope and offset [V] of cell voltages over the own word line's; None without wires.

        `v_mean` and `v_rms` (n_rows,) describe each word line's drive [V], silent reads counted.
        """
        if self.wires is None:
            return None, None
        from rramsim.celldrive import cell_drive

        g = self.cells.conductance
        slope, offset = np.empty(g.shape), np.empty(g.shape)
        for tile in self.tiles():
            rows = tile[0]
            slope[tile], offset[tile] = cell_drive(g[tile], v_mean[rows], v_rms[rows], self.wires)
        return slope, offset

    def cell_voltages(self, v_in: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voltage [V] across every cell, shape (n_vectors, n_rows, n_lines), for inputs [V]."""
        g = self.cells.conductance
        if self.wires is None:
            return np.repeat(v_in[:, :, None], g.shape[1], axis=2)
        from rramsim.solver import cell_voltages

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
            from rramsim.solver import output_currents

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
    from rramsim.solver import effective_conductances

    wired = [a for a in arrays if a.wires is not None and a.linear and a.stale]
    jobs = [(a, tile) for a in wired for tile in a._stale_tiles(a.cells.conductance)]
    for first in range(0, len(jobs), SOLVE_TILES):
        part = jobs[first : first + SOLVE_TILES]
        assert part[0][0].wires is not None
        tiles = [np.asarray(a.cells.conductance[tile], dtype=np.float64) for a, tile in part]
        for (a, tile), matrix in zip(part, effective_conductances(tiles, part[0][0].wires), strict=True):
            a._take(a.cells.conductance, [tile], [matrix])
    for a in arrays:
        a.refresh()
