"""Elimination of a linear crossbar's nodes: its matrix, its node voltages, cheap updates."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.circuit.descent import descent
from rramsim.circuit.plan import Block, Layout, plan
from rramsim.circuit.solution import Solution
from rramsim.circuit.wiring import Lines, WiresConfig, check_conductance, check_inputs
from rramsim.kernels import nodal

_local = threading.local()


def _aligned(size: int, dtype: Any) -> NDArray[Any]:
    """Zeros that begin at a multiple of 64 bytes."""
    array = np.zeros(size + 64 // np.dtype(dtype).itemsize, dtype=dtype)
    first = -array.ctypes.data % 64 // array.itemsize
    return array[first : first + size]


def _aligned_empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Uninitialised array that begins at a multiple of 64 bytes: whole cache lines are written at once."""
    size = int(np.prod(shape))
    array = np.empty(size + 64 // np.dtype(dtype).itemsize, dtype=dtype)
    first = -array.ctypes.data % 64 // array.itemsize
    return array[first : first + size].reshape(shape)


def _workspace(dtype: Any, **sizes: int) -> list[NDArray[Any]]:
    """Work arrays of this thread, by name, of the given sizes."""
    store = _local.__dict__
    arrays = []
    for name, size in sizes.items():
        key = f"{name} {np.dtype(dtype).name}"
        if key not in store or store[key].size < size:
            store[key] = _aligned(size, dtype)
        arrays.append(store[key][:size])
    return arrays


def with_access(g: NDArray[np.float64], wires: WiresConfig) -> NDArray[np.float64]:
    """Conductance of cells in series with their access transistors."""
    return g / (1.0 + g * wires.r_access) if wires.r_access else g


class _Terminals:
    """Lines that are one node each: joins them to drivers and grounds after the merges."""

    def __init__(self, layout: Layout, wires: WiresConfig, lines: Lines, dtype: type) -> None:
        self.root, self.vector, self.dtype = layout.root, layout.vector, dtype
        n_wl, n_bl = lines.word.size, lines.bit.size
        inner: list[tuple[int, float]] = []  # terminal and conductance towards it, of each node to eliminate

        def line_nodes(
            first: int, floating: NDArray[np.bool_], r_end: float, both: bool
        ) -> NDArray[np.int64]:
            """Node of each line: terminals count from 0, nodes to eliminate from -1 down."""
            nodes = first + np.arange(floating.size)
            for line, loose in enumerate(floating):
                if r_end > 0.0 or loose:
                    inner.append((first + line, 0.0 if loose else (2.0 if both else 1.0) / r_end))
                    nodes[line] = -len(inner)
            return nodes

        self.ids: dict[str, NDArray[np.int64]] = {}
        for side in self.root.order:
            if side in "LR":
                self.ids[side] = np.arange(n_wl)
            elif side in "BT":
                self.ids[side] = n_wl + np.arange(n_bl)
            elif side == "W":
                self.ids[side] = line_nodes(0, lines.word, wires.r_driver, wires.word_both)
            else:
                self.ids[side] = line_nodes(n_wl, lines.bit, wires.r_sense, wires.bit_both)
        self.n_wl, self.n_terminals, self.n_inner = n_wl, n_wl + n_bl, len(inner)
        self.inner = inner
        self.s = -(-self.n_inner // self.vector) * self.vector
        self.stride = -(-self.n_terminals // (2 * self.vector)) * 2 * self.vector
        self.width = self.s + self.stride

    def place(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of nodes: those to eliminate first, then the terminals."""
        return np.where(ids < 0, -1 - ids, self.s + ids)

    def join(self, matrix: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """g_eff, and the eliminated nodes' packed rows and scales."""
        upper = np.triu(matrix, 1)
        couplings = upper + upper.T
        full: NDArray[Any] = np.zeros((self.width, self.width), dtype=self.dtype)
        sides = self.root.order
        for a in sides:
            rows = slice(self.root.start(a), self.root.start(a) + self.root.size(a))
            for b in sides:
                columns = slice(self.root.start(b), self.root.start(b) + self.root.size(b))
                full[np.ix_(self.place(self.ids[a]), self.place(self.ids[b]))] += couplings[rows, columns]
        for k, (terminal, conductance) in enumerate(self.inner):
            full[k, self.s + terminal] += conductance
        z, p = _aligned(self.s * self.width, self.dtype), _aligned(self.s * self.width, self.dtype)
        scale: NDArray[Any] = np.zeros(self.s, dtype=self.dtype)
        n_rows = -(-self.n_terminals // 8) * 8
        out = _aligned(n_rows * self.stride, self.dtype)
        z[:] = full[: self.s].ravel()
        kept = out.reshape(n_rows, self.stride)
        kept[: self.n_terminals] = full[self.s : self.s + self.n_terminals, self.s :]
        if self.s:
            nodal.condense(z, self.s, self.width, p, scale, out, self.stride, self.vector)
        return kept[: self.n_wl, self.n_wl : self.n_terminals].copy(), p, scale


def _matrix(block: Block, arena: NDArray[Any]) -> NDArray[Any]:
    """Couplings of a block's ports, upper triangle."""
    n = block.n_ports
    return arena[block.offset : block.offset + n * block.stride].reshape(n, block.stride)[:, :n]


def _transfer(root: Block, arena: NDArray[Any]) -> NDArray[Any]:
    """g_eff from the root's couplings, where both kinds of line are wires."""
    matrix = _matrix(root, arena)
    n_words = sum(root.size(side) for side in root.order if side in "LR")
    cross = matrix[:n_words, n_words:]
    if "R" in root.order:
        cross = cross[: n_words // 2] + cross[n_words // 2 :]
    if "T" in root.order:
        n_bl = root.size("B")
        cross = cross[:, :n_bl] + cross[:, n_bl:]
    return np.ascontiguousarray(cross)


def _layout(shape: tuple[int, int], wires: WiresConfig, dtype: type, keep: str) -> Layout:
    vector = 64 // np.dtype(dtype).itemsize
    return plan(
        *shape, wires.r_word == 0.0, wires.r_bit == 0.0, wires.word_both, wires.bit_both, vector, keep
    )


@functools.lru_cache(maxsize=32)
def _leaf_map(layout: Layout) -> tuple[list[Block], NDArray[np.int64]]:
    """Leaves of a layout, and the number of each cell's among them, shape (n_wl, n_bl)."""
    leaves = [block for block in layout.blocks if block.children is None]
    leaf_of = np.empty(layout.root.lines[1::2], dtype=np.int64)
    for number, leaf in enumerate(leaves):
        i0, i1, j0, j1 = leaf.lines
        leaf_of[i0:i1, j0:j1] = number
    return leaves, leaf_of


def effective(g: NDArray[np.float64], wires: WiresConfig, lines: Lines, dtype: type) -> NDArray[Any]:
    """Effective conductance [S] of checked arguments, shape (n_wl, n_bl)."""
    if wires.ideal and not lines.any:
        return with_access(g, wires).astype(dtype)
    layout = _layout(g.shape, wires, dtype, keep="nothing")
    arena, z, p, scale, slots = _workspace(
        dtype, arena=layout.arena, z=layout.z, p=layout.p, scale=layout.scale, slots=layout.slots
    )
    segments = wires.conductances(lines.word, lines.bit, dtype)
    wanted = np.ones(len(layout.plan.steps), dtype=bool)
    cells: NDArray[Any] = with_access(g, wires).astype(dtype)
    nodal.run_plan(layout.plan, cells, segments, layout.vector, arena, z, p, scale, slots, wanted)
    if wires.r_word and wires.r_bit:
        return _transfer(layout.root, arena)
    return _Terminals(layout, wires, lines, dtype).join(_matrix(layout.root, arena))[0]


class Factorisation:
    """A linear crossbar solved once: `g_eff`, node voltages for any inputs, cheap updates.

    Made by `prepare`. Memory is about 1.5 kB per cell.

    Examples
    --------
    >>> import numpy as np
    >>> from rramsim import WiresConfig, prepare
    >>> solved = prepare(np.full((4, 3), 50e-6), WiresConfig(r_word=2.5, r_bit=2.5))
    >>> bool((solved.g_eff < 50e-6).all())
    True
    """

    def __init__(
        self, g: NDArray[np.float64], wires: WiresConfig, lines: Lines, dtype: type, *, once: bool = False
    ) -> None:
        """With `once` the work arrays are this thread's, valid until its next solution; no updates."""
        self.wires, self._lines, self._dtype = wires, lines, dtype
        layout = self._layout = _layout(g.shape, wires, dtype, keep="factors" if once else "all")
        sizes = {"arena": layout.arena, "p": layout.p, "scale": layout.scale}
        if once:
            self._arena, self._p, self._scale = _workspace(dtype, **sizes)
        else:
            self._arena, self._p, self._scale = (_aligned(size, dtype) for size in sizes.values())
        self._segments = wires.conductances(lines.word, lines.bit, dtype)
        self._parent = {id(child): block for block in layout.blocks for child in block.children or ()}
        self._g = g.copy()
        self._run(np.ones(len(layout.plan.steps), dtype=bool))

    @property
    def g(self) -> NDArray[np.float64]:
        """Present cell conductance [S], shape (n_wl, n_bl)."""
        return self._g.copy()

    @property
    def g_eff(self) -> NDArray[Any]:
        """Effective conductance [S], shape (n_wl, n_bl): ``i_out = v_in @ g_eff``."""
        return self._g_eff.copy()

    def _run(self, wanted: NDArray[np.bool_]) -> None:
        layout = self._layout
        self._cells: NDArray[Any] = with_access(self._g, self.wires).astype(self._dtype)
        z, slots = _workspace(self._dtype, z=layout.z, slots=layout.slots)
        nodal.run_plan(
            layout.plan,
            self._cells,
            self._segments,
            layout.vector,
            self._arena,
            z,
            self._p,
            self._scale,
            slots,
            wanted,
        )
        self._weights: NDArray[Any] | None = None
        self._terminals = None
        if self.wires.r_word and self.wires.r_bit:
            self._g_eff = _transfer(layout.root, self._arena)
        else:
            self._terminals = _Terminals(layout, self.wires, self._lines, self._dtype)
            self._g_eff, *self._outer = self._terminals.join(_matrix(layout.root, self._arena))

    def update(self, g: ArrayLike) -> int:
        """Take over changed cells; only blocks that contain one are computed again.

        Parameters
        ----------
        g : array_like, shape (n_wl, n_bl)
            New conductances of all cells [S].

        Returns
        -------
        int
            Number of blocks computed again.
        """
        new = check_conductance(g, shape=self._g.shape)
        if self._lines.any:
            self._lines.check_anchored(new)
        layout = self._layout
        wanted = np.zeros(len(layout.plan.steps), dtype=bool)
        leaves, leaf_of = _leaf_map(layout)
        for number in np.unique(leaf_of[new != self._g]):
            block: Block | None = leaves[number]
            while block is not None and not (wanted[block.step] and block.children):
                wanted[block.step] = True
                block = self._parent.get(id(block))
        if wanted.any():
            self._g = new.copy()
            self._run(wanted)
        return int(wanted.sum())

    def voltages(self, v_in: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        """Node voltages [V] at both ends of each cell, two arrays of shape (n_batch, n_wl, n_bl)."""
        v_in = check_inputs(v_in, self._g.shape[0], self._lines)
        layout, dtype, vector = self._layout, self._dtype, self._layout.vector
        wide = nodal.WIDE_BATCH * vector
        lanes = vector if len(v_in) <= 2 * vector else wide
        tables, n_rows, n_weights, n_nodes = descent(layout)
        slots, x, y = _workspace(dtype, slots=layout.slots, x=n_rows * lanes, y=n_nodes * lanes)
        if self._weights is None:
            self._weights = np.empty(n_weights, dtype=dtype)
            nodal.leaf_weights(layout.plan, tables, self._cells, self._segments, vector, slots, self._weights)
        shape = (len(v_in), *self._g.shape)
        v_word, v_bit = _aligned_empty(shape, dtype), _aligned_empty(shape, dtype)
        start = 0
        while start < len(v_in):
            left = len(v_in) - start
            lanes = wide if left > 2 * vector else vector
            batch = v_in[start : start + lanes]
            part = x[: n_rows * lanes]
            if start == 0 or lanes == vector:
                part[:] = 0.0  # rows that pad a block stay zero on the way down
            self._set_root(part.reshape(n_rows, lanes), batch)
            nodal.back_substitute(
                layout.plan, tables, vector, lanes, self._p, self._scale, self._weights, part, y, start,
                len(batch), v_word, v_bit,
            )  # fmt: skip
            start += len(batch)
        return v_word, v_bit

    def _set_root(self, rows: NDArray[Any], batch: NDArray[np.float64]) -> None:
        """Put the voltages of the root's ports in their rows."""
        root, table = self._layout.root, self._layout.plan
        tables, *_ = descent(self._layout)
        if root.children is None:
            first = int(tables.leaves["row"][0])
        else:
            first = int(tables.merges["row"][root.index] + table.merges["n_shared"][root.index])
        ports = rows[first : first + root.n_ports]
        ports[:] = 0.0
        if self._terminals is not None:
            ports[:, : len(batch)] = self._outer_voltages(batch, rows.shape[1])
            return
        for side in "LR":
            if side in root.order:
                ports[root.start(side) : root.start(side) + root.size(side), : len(batch)] = batch.T

    def _outer_voltages(self, batch: NDArray[np.float64], lanes: int) -> NDArray[Any]:
        """Voltages of the root's ports, where lines are single nodes."""
        terminals = self._terminals
        assert terminals is not None
        x = _aligned(terminals.width * lanes, self._dtype)
        rows = x.reshape(terminals.width, lanes)
        rows[terminals.s : terminals.s + terminals.n_wl, : len(batch)] = batch.T
        if terminals.s:
            p, scale = self._outer
            nodal.back_rows(x, 0, terminals.s, terminals.width, p, scale, terminals.vector, lanes)
        order = [terminals.place(terminals.ids[side]) for side in terminals.root.order]
        return rows[np.concatenate(order), : len(batch)]

    def solve(self, v_in: ArrayLike) -> Solution:
        """All voltages and currents for a batch of inputs [V], shape (n_batch, n_wl)."""
        v_in = check_inputs(v_in, self._g.shape[0], self._lines)
        v_word, v_bit = self.voltages(v_in)
        i_cell = (v_word - v_bit) * self._cells
        i_out = nodal.product(v_in.astype(self._dtype), self._g_eff)
        return Solution.from_cells(
            v_in, v_word, v_bit, i_cell, self.wires, self._lines.word, self._lines.bit, i_out
        )
