"""Physical arrays with wires: the blocks of layers on them, the reset cells around, their solutions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rramsim.cell import CellArray
from rramsim.circuit.expansion import Expansion, expand, probe_error, probe_vectors
from rramsim.circuit.wiring import WiresConfig
from rramsim.parallel import over_threads

__all__ = ["Block", "Host", "Tile", "bring_up"]

PROBE_MARGIN = 2.0  # estimated error over the largest one on the probes
SOLVE_TILES = 64  # tiles of one threaded batch: keeps every thread busy and bounds the memory


class Host(Protocol):
    """What a tile asks of a layer's arrays."""

    cells: CellArray

    def take(self, block: Block, matrix: NDArray[np.float64], ratio: NDArray[np.float64]) -> None:
        """Keep a new solution of a block."""

    def take_noise(
        self, block: Block, slope: NDArray[Any], voltage: NDArray[Any], leaves: NDArray[Any]
    ) -> None:
        """Keep `rramsim.circuit.estimates.noise_transfer` of a block."""

    def take_terms(self, block: Block, expansion: Expansion | None) -> None:
        """Keep what non-linear cells of a block draw beyond the matrix; None where products will not do."""

    def follow(self, block: Block) -> None:
        """Let the old solution of a block follow its cells."""


class Block(NamedTuple):
    """Part of a layer on a tile."""

    host: Host
    rows: slice  # of the layer's word lines
    lines: slice  # of the layer's bit lines
    on_rows: slice  # the same lines on the tile
    on_lines: slice
    halves: tuple[NDArray[np.int64], NDArray[np.int64]]  # word lines on the tile of upper and lower rows


Noise = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # slope, voltage and leaves of one block


class Solved(NamedTuple):
    """Solution of a tile, before it is handed on."""

    matrix: NDArray[np.float64]  # effective conductance [S]
    noise: list[Noise]  # by block; empty without read noise
    expansion: Expansion | None = None  # of non-linear cells
    errors: Sequence[float] = ()  # of the expansion, by block, over full scale


class Tile:
    """One physical array.

    Parameters
    ----------
    shape : (int, int)
        Word lines and bit lines.
    wires : WiresConfig
    around : CellArray or None
        Cells of the whole array in their reset state, which show where no layer lies; None where
        layers fill the array.
    floating : bool
        Leave lines without weights open; otherwise they are driven at 0 V or grounded.
    dead : (bool ndarray, bool ndarray), optional
        Masks of word lines without driver and bit lines without sense amplifier: open as well.
    noisy : bool
        Keep what read noise needs of each solution.
    tolerance : float
        Output error, over the tile's full scale, that an old solution may cause before the tile is
        solved again (0 solves after every change). Until then each cell's share of the solution
        follows its conductance; what the change of line currents does to the shares is the
        error: estimated as the largest voltage drop times the largest relative change of a line's sum.
    alpha : float
        Curve of the cells [1/V], `rramsim.cell.iv`; 0 for linear cells.
    v_full : float
        Largest read voltage [V].
    nonlinear_tolerance : float
        Output error over the tile's full scale up to which matrix products stand for Newton's method.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        wires: WiresConfig,
        *,
        around: CellArray | None = None,
        floating: bool = False,
        dead: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
        noisy: bool = False,
        tolerance: float = 0.0,
        alpha: float = 0.0,
        v_full: float = 0.2,
        nonlinear_tolerance: float = 0.0,
    ) -> None:
        self.shape, self.wires, self.around = shape, wires, around
        self.alpha, self.v_full, self.nonlinear_tolerance = alpha, v_full, nonlinear_tolerance
        self.nonlinear_error = 0.0  # estimate for the last expansion
        self.floating, self.noisy, self.tolerance = floating, noisy, tolerance
        self.dead = dead if dead is not None and (dead[0].any() or dead[1].any()) else None
        self._n_changes = 0  # of the wires themselves
        self.blocks: list[Block] = []
        self.solved: NDArray[np.float32] | None = None  # conductances of the last solution
        self.drop = 0.0  # largest relative loss of a cell
        self.rewritten = False  # written since the last solution
        self.worst_error = 0.0  # largest estimated output error of a solution that was kept
        self.n_solved = 0

    @property
    def version(self) -> int:
        """Grows whenever a conductance may have changed."""
        around = 0 if self.around is None else self.around.version
        return self._n_changes + around + sum(block.host.cells.version for block in self.blocks)

    def owned_by(self, host: Host) -> bool:
        """Whether `host` was placed here first: it keeps the tile's state."""
        return self.blocks[0].host is host

    def conductance(self) -> NDArray[np.float32]:
        """Present mean conductance [S] of every cell, shape `shape`."""
        g = np.empty(self.shape, np.float32) if self.around is None else self.around.read_mean().copy()
        for block in self.blocks:
            g[block.on_rows, block.on_lines] = block.host.cells.read_mean()[block.rows, block.lines]
        return g

    def open_lines(self) -> dict[str, NDArray[np.bool_]]:
        """Masks of floating word and bit lines as the solvers take them."""
        if not self.floating and self.dead is None:
            return {}
        word, bit = np.full(self.shape[0], self.floating), np.full(self.shape[1], self.floating)
        if self.floating:
            for block in self.blocks:
                word[block.on_rows], bit[block.on_lines] = False, False
        if self.dead is not None:
            word, bit = word | self.dead[0], bit | self.dead[1]
        return {"float_word": word, "float_bit": bit}

    def set_wires(self, wires: WiresConfig) -> None:
        """Other line resistances from now on."""
        if wires != self.wires:
            self.wires, self.solved = wires, None
            self._n_changes += 1

    # -- solutions of linear cells --------------------------------------------------------------

    def check(self) -> NDArray[np.float32] | None:
        """Conductances to be solved for, or None where the old solution will do and follows."""
        g = self.conductance()
        if self.solved is None:
            return g
        change = np.abs(g - self.solved)
        lines = [change.sum(axis=k).max() / max(self.solved.sum(axis=k).max(), 1e-30) for k in (0, 1)]
        if max(lines) == 0.0:
            return None
        error = float(self.drop * max(lines))
        if error > self.tolerance or self.tolerance == 0.0 or self.rewritten:
            return g
        self.worst_error = max(self.worst_error, error)
        for block in self.blocks:
            block.host.follow(block)
        return None

    def solution(self, g: NDArray[np.float32]) -> Solved:
        """Kirchhoff's laws for given conductances; changes nothing, so that threads may do it."""
        from rramsim.circuit.solve import effective_conductances, prepare

        cells = np.asarray(g, dtype=np.float64)
        noise = self._noise(cells) if self.noisy else []
        if self.alpha:
            return self._expanded(cells, noise)
        if self.open_lines():
            return Solved(prepare(cells, self.wires, **self.open_lines()).g_eff, noise)
        return Solved(effective_conductances([cells], self.wires, threads=1)[0], noise)

    def _expanded(self, cells: NDArray[np.float64], noise: list[Noise]) -> Solved:
        """The circuit of non-linear cells expanded, and measured on probes what that leaves out.

        A read drives one block at a time, so each is probed by itself.
        """
        wires = replace(self.wires, alpha=self.alpha)
        expansion = expand(cells, wires, v_full=self.v_full)
        errors = []
        for block in self.blocks:
            n_rows = block.on_rows.stop - block.on_rows.start
            probes = self.on_tile(block, probe_vectors(n_rows, self.v_full), axis=1)
            errors.append(PROBE_MARGIN * probe_error(expansion, cells, wires, probes, block.on_lines))
        return Solved(expansion.linear, noise, expansion, errors)

    def _noise(self, cells: NDArray[np.float64]) -> list[Noise]:
        """What read noise needs of each block."""
        from rramsim.circuit.estimates import noise_transfer

        patterns = np.zeros((2 * len(self.blocks), self.shape[0]))
        for index, block in enumerate(self.blocks):
            for half, rows in enumerate(block.halves):
                patterns[2 * index + half, rows] = 1.0
        if self.dead is not None:
            patterns[:, self.dead[0]] = 0.0
        slope, voltage, leaves = noise_transfer(cells, self.wires, patterns, **self.open_lines())
        result = []
        for index, block in enumerate(self.blocks):
            inner = block.on_rows, block.on_lines
            pair = voltage[2 * index : 2 * index + 2][(slice(None), *inner)]
            result.append((slope[inner], pair, leaves[inner]))
        return result

    def take(self, g: NDArray[np.float32], solved: Solved) -> None:
        """Hand a solution on, together with the conductances it belongs to."""
        self.solved = g
        drop = 0.0
        for block in self.blocks:
            inner = block.on_rows, block.on_lines
            own, cells = solved.matrix[inner], g[inner]
            conducts = cells > 0
            ratio = np.divide(own, cells, out=np.ones(own.shape), where=conducts)
            drop = max(drop, 1.0 - float(ratio.min()))
            ratio[~conducts] = ratio[conducts].mean() if conducts.any() else 1.0
            block.host.take(block, own, ratio)
        self.drop, self.rewritten = drop, False
        self.n_solved += 1
        for block, noise in zip(self.blocks, solved.noise, strict=False):
            block.host.take_noise(block, *noise)
        if solved.expansion is not None:
            self.nonlinear_error = max(solved.errors)
            for block, error in zip(self.blocks, solved.errors, strict=True):
                accepted = error <= self.nonlinear_tolerance
                part = solved.expansion.part((block.on_rows, block.on_lines))
                block.host.take_terms(block, part if accepted else None)

    # -- other inputs ---------------------------------------------------------------------------

    def on_tile(self, block: Block, values: NDArray[Any], axis: int = 0) -> NDArray[Any]:
        """Values at a block's word lines (along `axis`) among zeros at all word lines of the tile."""
        shape = list(values.shape)
        shape[axis] = self.shape[0]
        result = np.zeros(shape, dtype=values.dtype)
        result[(slice(None),) * axis + (block.on_rows,)] = values
        if self.dead is not None:
            result[(slice(None),) * axis + (self.dead[0],)] = 0
        return result

    def currents(self, block: Block, v_in: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
        """Currents [A] of a block's bit lines from non-linear cells, (n_vectors, n_lines)."""
        g = np.asarray(self.conductance(), np.float64)
        return self.currents_with(block, g, v_in, alpha)

    def currents_with(
        self, block: Block, g: NDArray[np.float64], v_in: NDArray[np.float64], alpha: float
    ) -> NDArray[np.float64]:
        """`currents` of given conductances [S] of the whole tile."""
        from rramsim.circuit.solve import output_currents

        wires = replace(self.wires, alpha=alpha)
        return output_currents(g, self.on_tile(block, v_in, axis=1), wires)[:, block.on_lines]

    def read_sigma(self) -> NDArray[np.float64]:
        """Standard deviation [S] of every cell in one read."""
        sigma = np.zeros(self.shape)
        if self.around is not None and (own := self.around.read_sigma()) is not None:
            sigma[:] = own
        for block in self.blocks:
            own = block.host.cells.read_sigma()
            if own is not None:
                sigma[block.on_rows, block.on_lines] = own[block.rows, block.lines]
        return sigma

    def cell_drive(
        self, block: Block, v_mean: NDArray[np.float64], v_rms: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Slope and offset [V] of the voltage of every cell of the tile while a block is driven."""
        from rramsim.circuit.estimates import cell_drive

        g = np.asarray(self.conductance(), np.float64)
        mean, rms = self.on_tile(block, v_mean), self.on_tile(block, v_rms)
        return cell_drive(g, mean, rms, self.wires, **self.open_lines())

    def cell_voltages(self, block: Block, v_in: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voltage [V] across every cell of the tile, (n_vectors, *shape), while a block is driven."""
        g = np.asarray(self.conductance(), np.float64)
        v = self.on_tile(block, v_in, axis=1)
        if self.open_lines():
            from rramsim.circuit.solve import prepare

            v_word, v_bit = prepare(g, self.wires, **self.open_lines()).voltages(v)
            return v_word - v_bit
        from rramsim.circuit.solve import cell_voltages

        return cell_voltages(g, v, self.wires)

    # -- state ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What the present solution belongs to, and the cells around."""
        return {
            "solved": None if self.solved is None else self.solved.copy(),
            "rewritten": self.rewritten,
            "around": None if self.around is None else self.around.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the solution as it was; the layers' cells have no part in it."""
        if self.around is not None:
            self.around.load_state_dict(state["around"])
        self.solved = None
        if state["solved"] is not None:
            _solve([(self, np.asarray(state["solved"]))])
        self.rewritten = bool(state["rewritten"])


def bring_up(tiles: Iterable[Tile]) -> None:
    """Solve tiles whose cells have changed too much, all together; let the others follow."""
    jobs = [(tile, tile.check()) for tile in {id(tile): tile for tile in tiles}.values()]
    _solve([(tile, g) for tile, g in jobs if g is not None])


def _solve(jobs: Sequence[tuple[Tile, NDArray[np.float32]]]) -> None:
    """Solve tiles for given conductances in threaded batches.

    A thread owns whole tiles, so that the number of threads changes no bit.
    """

    def solve(job: tuple[Tile, NDArray[np.float32]]) -> Solved:
        return job[0].solution(job[1])

    for first in range(0, len(jobs), SOLVE_TILES):
        part = jobs[first : first + SOLVE_TILES]
        for (tile, g), solved in zip(part, over_threads(solve, part), strict=True):
            tile.take(g, solved)
