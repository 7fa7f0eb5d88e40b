"""The arrays of one layer: a state (cells) that answers an input voltage with currents.

Linear arrays answer through their *effective matrix*, computed once per programmed state:
the cells' conductance without wires, the exact solution of Kirchhoff's laws with them.
Non-linear cells without wires draw what their law makes of each drive, times a matrix; with wires their
circuit is expanded into a few matrix products (`rramsim.circuit.expansion`). Where that would be off by more
than `nonlinear_tolerance`, the circuit is solved for every vector (slow).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.cell import CellArray, WriteReport
from rramsim.chip.layout import TileLayout, line_index
from rramsim.chip.nonlinear import pack_terms
from rramsim.chip.placement import Place
from rramsim.chip.tiles import Block, Tile, bring_up
from rramsim.circuit.expansion import Expansion
from rramsim.kernels.convolution import pack_weights
from rramsim.kernels.curved import Terms
from rramsim.kernels.read import SHARED, Matrices

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
        State of all cells, shape (layout.n_word_lines, layout.n_lines).
    per_line : bool
        Channels are single bit lines.
    driver_gain : ndarray, shape (n_word_lines, n_lines), optional
        Factor of each cell's word-line driver, 0 on a dead line; 1 where left out.
    dead_bit : bool ndarray, shape (n_word_lines, n_lines), optional
        Cells on bit lines without sense amplifier.
    v_half : float
        Voltage [V] at half-selected cells during a write pulse.

    Notes
    -----
    Wires are ideal until `put_on` places the layer on physical arrays.
    """

    def __init__(
        self,
        layout: TileLayout,
        cells: CellArray,
        *,
        per_line: bool = False,
        driver_gain: NDArray[np.float32] | None = None,
        dead_bit: NDArray[np.bool_] | None = None,
        v_half: float = 0.0,
    ) -> None:
        self.layout = layout
        self.dead_bit, self.v_half = dead_bit, v_half
        self.cells = cells
        self.alpha = cells.config.iv_alpha
        self.driver_gain = driver_gain
        plus, minus = layout.line_of[:, 0::2], layout.line_of[:, 1::2]
        if layout.reference_lines.size:
            plus, minus = layout.line_of, layout.reference_of[:, None]
        self.n_channels = (layout.line_of if per_line else plus).size  # conversions per row tile
        self._plus = line_index((layout.line_of if per_line else plus).ravel())
        self._minus = None if per_line else line_index(minus.ravel())
        self.blocks: list[Block] = []  # with wires: one for each of `tiles()`
        self.on_tiles: list[Tile] = []
        self._effective: NDArray[np.float32] = np.empty(cells.shape, dtype=np.float32)
        self._matrix = np.empty((layout.n_rows, self.n_channels), dtype=np.float32)
        self._ratio = np.empty((0, 0), dtype=np.float32)  # effective over own conductance when last solved
        self._transfer = np.empty((0, 0), dtype=np.float32)
        self._shadow = np.empty((2, 0, 0), dtype=np.float32)
        self._variance: NDArray[np.float32] | None = None
        self._reference_variance: NDArray[np.float32] | None = None
        self._coupling = np.empty((0, 0, 0), dtype=np.float32)
        self._reference_coupling = self._coupling
        # non-linear cells with wires: cubic, gain and drop of every cell, and which blocks have them
        self._terms = np.empty((3, 0, 0), dtype=np.float32)
        self._expanded: dict[tuple[int, int], bool] = {}  # by first word and bit line
        self._packed: tuple[Matrices, Terms] | None = None
        self._seen: tuple[int, ...] = ()

    def put_on(self, tiles: list[Tile], places: tuple[Place, ...]) -> None:
        """Give every block its place on an array with wires."""
        self._ratio = np.ones_like(self._effective)
        n_line_tiles = len(self.layout.line_tiles)
        for index, ((rows, lines), place) in enumerate(zip(self.tiles(), places, strict=True)):
            top, bottom = self.layout.row_tiles[index // n_line_tiles]
            n_rows = bottom - top
            starts = place.row + n_rows * np.arange(self.layout.n_copies)
            on_tile = starts[:, None] + np.arange(n_rows)
            middle = (top + bottom) // 2 - top
            block = Block(
                host=self,
                rows=rows,
                lines=lines,
                on_rows=slice(place.row, place.row + place.n_rows),
                on_lines=slice(place.line, place.line + place.n_lines),
                halves=(on_tile[:, :middle].ravel(), on_tile[:, middle:].ravel()),
            )
            tiles[place.tile].blocks.append(block)
            self.blocks.append(block)
            self.on_tiles.append(tiles[place.tile])
        noisy = any(tiles[place.tile].noisy for place in places)
        if not self.linear:
            self._terms = np.zeros((3, *self.cells.shape), dtype=np.float32)
        if noisy and self.solved_once:
            self._transfer = np.zeros(self.cells.shape, dtype=np.float32)
            self._shadow = np.zeros((2, *self.cells.shape), dtype=np.float32)

    @property
    def wired(self) -> bool:
        """Whether the lines have resistance."""
        return bool(self.blocks)

    @property
    def linear(self) -> bool:
        """Whether a matrix describes the arrays."""
        return self.alpha == 0.0

    @property
    def solved_once(self) -> bool:
        """Whether wires are solved once per state: for a matrix, or for the products of an expansion."""
        if self.linear or not self.wired:
            return self.linear
        if self.driver_gain is not None or self.dead_bit is not None:
            return False
        return all(tile.nonlinear_tolerance > 0.0 and not tile.open_lines() for tile in self.on_tiles)

    @property
    def by_products(self) -> bool:
        """Whether matrix products answer a read in the present state; brings the matrices up to date."""
        if self.linear:
            return True
        if not self.wired:
            return self.driver_gain is None
        if not self.solved_once:
            return False
        self.refresh()
        return all(self._expanded[block.rows.start, block.lines.start] for block in self.blocks)

    @property
    def nonlinear_error(self) -> float:
        """Largest estimated output error of expansions, over full scale."""
        return max((tile.nonlinear_error for tile in self.on_tiles), default=0.0)

    @property
    def n_solved(self) -> int:
        """Solutions so far of the tiles that hold this layer."""
        return sum(tile.n_solved for tile in self.on_tiles)

    @property
    def worst_error(self) -> float:
        """Largest estimated output error of a solution that was kept."""
        return max((tile.worst_error for tile in self.on_tiles), default=0.0)

    def _version(self) -> tuple[int, ...]:
        return (self.cells.version, *(tile.version for tile in self.on_tiles))

    @property
    def stale(self) -> bool:
        """Whether a cell has changed since the matrices were made."""
        return self._seen != self._version()

    def tiles(self) -> list[tuple[slice, slice]]:
        """Word-line and bit-line range of each block, row tile by row tile."""
        return self.layout.blocks

    # -- cells --------------------------------------------------------------------------------

    def write(self, levels: NDArray[np.integer], mask: NDArray[np.bool_]) -> WriteReport:
        """`CellArray.write`; tiles with written cells will be solved again, whatever the tolerance."""
        for block, tile in zip(self.blocks, self.on_tiles, strict=True):
            tile.rewritten |= bool(mask[block.rows, block.lines].any())
        report = self.cells.write(levels, mask)
        if self.v_half and report.n_cells:
            self._half_select(mask, report.n_pulses / report.n_cells)
        return report

    def _half_select(self, mask: NDArray[np.bool_], pulses: float) -> None:
        """Stress of cells that share a line with cells just written, `pulses` for each of those.

        A cell of the mask itself meets half of the pulses of its lines after its own, on average.
        """
        programming, total = self.cells.config.programming, np.zeros(self.cells.shape)
        for index, part in enumerate(self.tiles()):
            written = mask[part].astype(np.float64)
            rows, lines = written.sum(axis=1), written.sum(axis=0)
            total[part] = (rows[:, None] + lines - 2.0 * written) * np.where(mask[part], 0.5, 1.0)
            around = self.on_tiles[index].around if self.wired else None
            if around is not None:
                block = self.blocks[index]
                others = np.zeros(around.shape)
                others[block.on_rows] += rows[:, None]
                others[:, block.on_lines] += lines
                around.add_pulses(pulses * others, self.v_half, programming.t_pulse)
        self.cells.add_pulses(pulses * total, self.v_half, programming.t_pulse)

    def wait(self, seconds: float, kelvin: float | None = None) -> None:
        """Let time pass [s], for the cells around as well."""
        self.cells.wait(seconds, kelvin)
        for tile in self._owned():
            if tile.around is not None:
                tile.around.wait(seconds, kelvin)

    def _owned(self) -> list[Tile]:
        """Tiles whose state this layer keeps."""
        return [tile for tile in {id(t): t for t in self.on_tiles}.values() if tile.owned_by(self)]

    def state_dict(self) -> dict[str, Any]:
        """What present wire solutions belong to, besides the cells' own state."""
        return {"tiles": [tile.state_dict() for tile in self._owned()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up cached matrices as they were at `state_dict`; the cells have their state already."""
        self._seen, self._packed = (), None
        for tile, entry in zip(self._owned(), state["tiles"], strict=True):
            tile.load_state_dict(entry)

    # -- solutions ----------------------------------------------------------------------------

    def take(self, block: Block, matrix: NDArray[np.float64], ratio: NDArray[np.float64]) -> None:
        """Keep a new solution of a block."""
        self._effective[block.rows, block.lines] = matrix
        self._ratio[block.rows, block.lines] = ratio

    def take_terms(self, block: Block, expansion: Expansion | None) -> None:
        """Keep what non-linear cells of a block draw beyond the matrix; None where products will not do."""
        self._expanded[block.rows.start, block.lines.start] = expansion is not None
        if expansion is not None:
            part = expansion.cubic, expansion.gain, expansion.drop
            self._terms[:, block.rows, block.lines] = np.stack(part)

    def take_noise(
        self, block: Block, slope: NDArray[Any], voltage: NDArray[Any], leaves: NDArray[Any]
    ) -> None:
        """Keep what a fluctuating cell of a block sends to its bit line.

        The cell's voltage is slope v_i - sum over both halves h of the row tile of
        (mean of v over h) shadow_h; `_transfer` and `_shadow` hold both times `leaves`.
        """
        part = block.rows, block.lines
        self._transfer[part] = slope * leaves
        for half, rows in enumerate(block.halves):
            driven = np.zeros(slope.shape[0], dtype=bool)
            driven[rows - block.on_rows.start] = True
            self._shadow[half][part] = (slope * driven[:, None] - voltage[half]) * leaves

    def follow(self, block: Block) -> None:
        """Let the old solution of a block follow its cells."""
        part = block.rows, block.lines
        before, now = self._effective[part].copy(), self.cells.read_mean()[part]
        self._effective[part] = self._ratio[part] * now
        if self._terms.size:
            change = np.divide(self._effective[part], before, out=np.ones_like(before), where=before > 0.0)
            self._terms[:2, block.rows, block.lines] *= change  # cubic and gain are proportional to a cell

    def refresh(self) -> None:
        """Bring cached matrices up to the cells' present state.

        With wires, only tiles that were written or have drifted beyond the tolerance are solved again.
        """
        if not self.stale:
            return
        if self.wired and self.solved_once:
            bring_up(self.on_tiles)
        else:
            self._effective = self.cells.read_mean()
        effective = self._effective
        if self.driver_gain is not None:
            effective = effective * self.driver_gain
        if self.dead_bit is not None:
            effective = np.where(self.dead_bit, np.float32(0.0), effective)
        effective = self.layout.over_copies(effective)
        if self._minus is None:
            self._matrix = np.ascontiguousarray(effective[:, self._plus])
        else:
            self._matrix = effective[:, self._plus] - effective[:, self._minus]
        self._refresh_variance()
        self._packed = None
        self._seen = self._version()

    def _refresh_variance(self) -> None:
        sigma = self.cells.read_sigma()
        if sigma is None:
            self._variance = self._reference_variance = None
            return
        variance = np.asarray(sigma, dtype=np.float32) ** 2
        coupling = np.empty((len(self.layout.row_tiles), 0, 0), dtype=np.float32)
        if self.wired and self.solved_once:
            coupling = self._couple(variance)
            variance = variance * np.square(self._transfer)
        if self.driver_gain is not None:
            variance = variance * np.square(self.driver_gain)
        if self.dead_bit is not None:
            variance = np.where(self.dead_bit, np.float32(0.0), variance)
        variance = self.layout.over_copies(variance)
        self._variance = self._of_channels(variance)
        self._coupling = self._of_channels(coupling)
        # a reference line's noise is common to every column it is subtracted from
        references = self.layout.reference_lines
        self._reference_variance = variance[:, references] if references.size else None
        self._reference_coupling = np.empty((0, 0, 0), dtype=np.float32)
        if references.size and coupling.size:
            self._reference_coupling = np.ascontiguousarray(coupling[..., references])

    def _of_channels(self, lines: NDArray[np.float32]) -> NDArray[np.float32]:
        """Variance of each channel from those of its own bit lines (last axis)."""
        if lines.size == 0:
            return np.empty((0, 0, 0), dtype=np.float32)
        result = lines[..., self._plus]
        if self._minus is not None and self.layout.reference_lines.size == 0:
            result = result + lines[..., self._minus]
        return np.ascontiguousarray(result)

    def _couple(self, variance: NDArray[np.float32]) -> NDArray[np.float32]:
        """Variance [S^2] of each line per square and product of its two sums of drive, per row tile.

        A line's variance is sum_i s_i^2 (t_i v_i - sum_h shadow_hi m_h)^2 with the means m_h of v over
        each half. Its first square is a product of squares. In the mixed term v_i counts as its half's
        mean, which is what it is on average; all that remains is quadratic in both sums.
        """
        layout, gain = self.layout, self.driver_gain
        result = np.empty((len(layout.row_tiles), SHARED, layout.n_lines), dtype=np.float32)
        for tile, ((top, bottom), (first, last)) in enumerate(
            zip(layout.row_tiles, layout.word_line_tiles, strict=True)
        ):
            upper = (top + bottom) // 2 - top
            counts = np.array([max(upper, 1), max(bottom - top - upper, 1)], dtype=np.float64)
            is_upper = np.tile(np.arange(bottom - top) < upper, layout.n_copies)[:, None]
            s2 = variance[first:last].astype(np.float64)
            own = self._transfer[first:last].astype(np.float64)
            shadow = self._shadow[:, first:last].astype(np.float64) / counts[:, None, None]
            if gain is not None:  # drivers differ: each word line counts with its own factor
                own = own * gain[first:last]
            half = own * is_upper, own * ~is_upper
            mixed = [[(s2 * half[h] * shadow[k]).sum(axis=0) / counts[h] for k in (0, 1)] for h in (0, 1)]
            square = [[(s2 * shadow[h] * shadow[k]).sum(axis=0) for k in (0, 1)] for h in (0, 1)]
            result[tile, 0] = square[0][0] - 2.0 * mixed[0][0]
            result[tile, 1] = 2.0 * (square[0][1] - mixed[0][1] - mixed[1][0])
            result[tile, 2] = square[1][1] - 2.0 * mixed[1][1]
        return result

    def packed(self) -> tuple[Matrices, Terms]:
        """What `rramsim.kernels.read` needs of arrays read by products, brought up to date."""
        if self._packed is None or self.stale:
            self.refresh()
            none = np.empty(0, dtype=np.float32)
            variance, references = self._variance, self._reference_variance
            matrices = Matrices(
                weights=pack_weights(self._matrix),
                variances=none if variance is None else pack_weights(variance),
                references=none if references is None else pack_weights(references),
                reference_of=np.searchsorted(self.layout.reference_lines, self.layout.reference_of),
                coupling=self._coupling,
                reference_coupling=self._reference_coupling,
                n_channels=self.n_channels,
                n_references=0 if references is None else references.shape[1],
            )
            terms = () if self.linear or not self.wired else self._terms
            over_copies = [self.layout.over_copies(matrix) for matrix in terms]
            self._packed = (matrices, pack_terms(over_copies, self._plus, self._minus))
        return self._packed

    # -- currents of non-linear cells -----------------------------------------------------------

    def currents(self, row_tile: int, v_in: NDArray[np.float32], normals: Any = None) -> NDArray[np.float32]:
        """Channel currents [A] of one row tile for inputs [V], shape (n_vectors, n_channels).

        Parameters
        ----------
        row_tile : int
        v_in : ndarray, shape (n_vectors, n_rows of the row tile)
        normals : callable, optional
            ``normals(n, shape, part)`` gives standard normal numbers of a shape for each of n vectors.
        """
        first, last = self.layout.word_line_tiles[row_tile]
        lines = np.empty((v_in.shape[0], self.layout.n_lines))
        v = np.tile(np.asarray(v_in, dtype=np.float64), (1, self.layout.n_copies))
        sigma = None if normals is None else self.cells.read_sigma()
        if not self.wired and self.driver_gain is None and sigma is None:
            response = np.sinh(self.alpha * v) / self.alpha if self.alpha else v
            lines[:] = response @ np.asarray(self.cells.read_mean()[first:last], dtype=np.float64)
            return self._to_channels(self._without_dead(lines, first))
        draws = None
        if sigma is not None and not self.wired:
            draws = np.stack(list(normals(len(v), (self.layout.n_lines,))))
        n_line_tiles = len(self.layout.line_tiles)
        for column_tile, (left, right) in enumerate(self.layout.line_tiles):
            driven = v
            if self.driver_gain is not None:  # one driver for all cells of a word line on a tile
                driven = v * self.driver_gain[first:last, left]
            if not self.wired:
                g = np.asarray(self.cells.read_mean()[first:last, left:right], dtype=np.float64)
                response = np.sinh(self.alpha * driven) / self.alpha if self.alpha else driven
                lines[:, left:right] = response @ g
                if draws is not None and sigma is not None:
                    spread = np.sqrt(response**2 @ np.square(sigma[first:last, left:right], dtype=np.float64))
                    lines[:, left:right] += spread * draws[:, left:right]
                continue
            index = row_tile * n_line_tiles + column_tile
            block, tile = self.blocks[index], self.on_tiles[index]
            if sigma is None:
                lines[:, left:right] = tile.currents(block, driven, self.alpha)
                continue
            g, spread = np.asarray(tile.conductance(), np.float64), tile.read_sigma()
            for n, draw in enumerate(normals(len(v), tile.shape, column_tile)):
                noisy = np.maximum(g + spread * draw, 0.0)
                lines[n, left:right] = tile.currents_with(block, noisy, driven[n : n + 1], self.alpha)[0]
        return self._to_channels(self._without_dead(lines, first))

    def _without_dead(self, lines: NDArray[np.float64], word_line: int) -> NDArray[np.float64]:
        """Currents of bit lines, 0 where a line of this row tile has no sense amplifier."""
        return lines if self.dead_bit is None else np.where(self.dead_bit[word_line], 0.0, lines)

    def _to_channels(self, lines: NDArray[np.float64]) -> NDArray[np.float32]:
        if self._minus is None:
            return lines[:, self._plus].astype(np.float32)
        return (lines[:, self._plus] - lines[:, self._minus]).astype(np.float32)

    # -- stress of reads ------------------------------------------------------------------------

    def cell_drive(
        self, v_mean: NDArray[np.float64], v_rms: NDArray[np.float64]
    ) -> dict[str, NDArray[np.float64]]:
        """Slope and offset [V] of cell voltages over the own word line's.

        `v_mean` and `v_rms` (n_word_lines,) describe each word line's drive [V], silent reads counted.
        Those of the cells around block k are `around_slope_k` and `around_offset_k`.
        """
        slope, offset = np.empty(self.cells.shape), np.empty(self.cells.shape)
        result = {"slope": slope, "offset": offset}
        for index, (block, tile) in enumerate(zip(self.blocks, self.on_tiles, strict=True)):
            gain = self._gain_of(block)
            pair = tile.cell_drive(block, v_mean[block.rows] * gain, v_rms[block.rows] * gain)
            part, inner = (block.rows, block.lines), (block.on_rows, block.on_lines)
            slope[part], offset[part] = pair[0][inner], pair[1][inner]
            if tile.around is not None:
                result[f"around_slope_{index}"], result[f"around_offset_{index}"] = pair
        return result

    def _gain_of(self, block: Block) -> Any:
        """Factor of the drivers of a block's word lines."""
        return 1.0 if self.driver_gain is None else self.driver_gain[block.rows, block.lines.start]

    def add_reads(
        self,
        counts: NDArray[np.floating],
        voltages: NDArray[np.float64],
        drive: Mapping[str, NDArray[np.float64]],
    ) -> None:
        """Stress the cells, and those around, by a histogram (n_word_lines, n_codes) of reads."""
        slope = drive.get("slope")
        if self.driver_gain is not None:
            slope = np.asarray(self.driver_gain, np.float64) * (1.0 if slope is None else slope)
        self.cells.add_reads(counts, voltages, slope, drive.get("offset"))
        for index, (block, tile) in enumerate(zip(self.blocks, self.on_tiles, strict=True)):
            if tile.around is not None:
                pair = (drive[f"{name}_{index}"] for name in ("around_slope", "around_offset"))
                tile.around.add_reads(tile.on_tile(block, counts[block.rows]), voltages, *pair)

    def add_exactly(self, v_in: NDArray[np.float64], *, refresh: bool) -> None:
        """Stress every cell by its own voltage, solved for inputs [V] (n_vectors, n_word_lines)."""
        result = np.empty((len(v_in), *self.cells.shape))
        if not self.wired:
            result[:] = v_in[:, :, None] * (1.0 if self.driver_gain is None else self.driver_gain)
        for block, tile in zip(self.blocks, self.on_tiles, strict=True):
            gain = self._gain_of(block)
            v_cell = tile.cell_voltages(block, v_in[:, block.rows] * gain)
            result[:, block.rows, block.lines] = v_cell[:, block.on_rows, block.on_lines]
            if tile.around is not None:
                tile.around.add_cell_voltages(v_cell, refresh=refresh)
        self.cells.add_cell_voltages(result, refresh=refresh)


def refresh_all(arrays: list[LayerArray]) -> None:
    """`LayerArray.refresh` of many layers, their stale tiles solved together.

    Small layers have fewer tiles than there are threads; together they keep all of them busy.
    """
    bring_up(tile for a in arrays if a.solved_once and a.stale for tile in a.on_tiles)
    for a in arrays:
        a.refresh()
