"""Kirchhoff's laws for a crossbar of linear or non-linear cells, solved exactly.

A linear array is a linear network: its output currents are ``v_in @ g_eff`` with a matrix
(n_wl, n_bl) that belongs to the programmed state.  `effective_conductance` computes that matrix by
merging blocks of cells (see `rramsim.kernels.nodal`), `prepare` keeps what is needed for node
voltages and for solving again after a few cells have changed, `solve_crossbar` returns all
voltages and currents.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.checks import InputError, check_array
from rramsim.kernels import nodal
from rramsim.solution import Solution
from rramsim.wiring import Block, Layout, WiresConfig, descent, plan

__all__ = [
    "Factorisation",
    "Solution",
    "attenuation",
    "cell_voltages",
    "effective_conductance",
    "effective_conductances",
    "output_currents",
    "prepare",
    "solve_crossbar",
]

_local = threading.local()


def _aligned(size: int, dtype: Any) -> NDArray[Any]:
    """Zeros that begin at a multiple of 64 bytes."""
    array = np.zeros(size + 64 // np.dtype(dtype).itemsize, dtype=dtype)
    first = -array.ctypes.data % 64 // array.itemsize
    return array[first : first + size]


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


def _check_dtype(dtype: Any) -> type:
    kind = np.dtype(dtype)
    if kind not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise InputError(f"dtype must be float64 or float32, got {kind}")
    return np.float64 if kind == np.float64 else np.float32


def _check_conductance(
    g: ArrayLike, name: str = "g", shape: tuple[int, int] | None = None
) -> NDArray[np.float64]:
    array = check_array(
        g,
        name,
        shape=shape or (None, None),
        minimum=0.0,
        unit="S",
        hint="a cell's conductance, 0 for an open cell",
    )
    if array.size == 0:
        raise InputError(f"{name} must hold at least one cell, got shape {array.shape}")
    return array


class _Lines:
    """Which lines float; checked against the array."""

    def __init__(
        self, g: NDArray[np.float64], float_word: ArrayLike | None, float_bit: ArrayLike | None
    ) -> None:
        n_wl, n_bl = g.shape
        self.word = self._mask(float_word, "float_word", n_wl)
        self.bit = self._mask(float_bit, "float_bit", n_bl)
        self.any = bool(self.word.any() or self.bit.any())
        if self.any:
            self.check_anchored(g)

    @staticmethod
    def _mask(mask: ArrayLike | None, name: str, n: int) -> NDArray[np.bool_]:
        if mask is None:
            return np.zeros(n, dtype=bool)
        array = np.asarray(mask)
        if array.dtype != bool or array.shape != (n,):
            raise InputError(
                f"{name} must be a boolean mask of shape ({n},), got {array.dtype} {array.shape}"
            )
        return array.copy()

    def check_anchored(self, g: NDArray[np.float64]) -> None:
        """Every floating line must reach a driver or a ground through cells."""
        if self.word.all() and self.bit.all():
            raise InputError("all lines float: at least one line must be driven or grounded")
        closed = g > 0.0
        word, bit = ~self.word, ~self.bit
        while True:
            more_bit = bit | closed[word].any(axis=0)
            more_word = word | closed[:, more_bit].any(axis=1)
            if (more_word == word).all() and (more_bit == bit).all():
                break
            word, bit = more_word, more_bit
        for reached, name in ((word, "word"), (bit, "bit")):
            if not reached.all():
                line = int(np.flatnonzero(~reached)[0])
                raise InputError(
                    f"floating {name} line {line} has no path to a driver or a ground: its voltage is undefined; "
                    f"every floating line needs a cell with g > 0 S towards one"
                )


def _with_access(g: NDArray[np.float64], wires: WiresConfig) -> NDArray[np.float64]:
    """Conductance of cells in series with their access transistors."""
    return g / (1.0 + g * wires.r_access) if wires.r_access else g


class _Terminals:
    """Lines that are one node each: joins them to drivers and grounds after the merges."""

    def __init__(self, layout: Layout, wires: WiresConfig, lines: _Lines, dtype: type) -> None:
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
        full = np.zeros((self.width, self.width), dtype=self.dtype)
        sides = self.root.order
        for a in sides:
            rows = slice(self.root.start(a), self.root.start(a) + self.root.size(a))
            for b in sides:
                columns = slice(self.root.start(b), self.root.start(b) + self.root.size(b))
                full[np.ix_(self.place(self.ids[a]), self.place(self.ids[b]))] += couplings[rows, columns]
        for k, (terminal, conductance) in enumerate(self.inner):
            full[k, self.s + terminal] += conductance
        z, p = _aligned(self.s * self.width, self.dtype), _aligned(self.s * self.width, self.dtype)
        scale = np.zeros(self.s, dtype=self.dtype)
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


def _layout(shape: tuple[int, int], wires: WiresConfig, dtype: type, keep: bool) -> Layout:
    vector = 64 // np.dtype(dtype).itemsize
    return plan(
        *shape, wires.r_word == 0.0, wires.r_bit == 0.0, wires.word_both, wires.bit_both, vector, keep
    )


def _effective(g: NDArray[np.float64], wires: WiresConfig, lines: _Lines, dtype: type) -> NDArray[Any]:
    if wires.ideal and not lines.any:
        return _with_access(g, wires).astype(dtype)
    layout = _layout(g.shape, wires, dtype, keep=False)
    arena, z, p, scale, slots = _workspace(
        dtype, arena=layout.arena, z=layout.z, p=layout.p, scale=layout.scale, slots=layout.slots
    )
    segments = wires.conductances(*g.shape, lines.word, lines.bit, dtype)
    wanted = np.ones(len(layout.plan.steps), dtype=bool)
    cells = _with_access(g, wires).astype(dtype)
    nodal.run_plan(layout.plan, cells, segments, layout.vector, arena, z, p, scale, slots, wanted)
    if wires.r_word and wires.r_bit:
        return _transfer(layout.root, arena)
    return _Terminals(layout, wires, lines, dtype).join(_matrix(layout.root, arena))[0]


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
    g = _check_conductance(g)
    return _effective(g, wires, _Lines(g, float_word, float_bit), _check_dtype(dtype))


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
        Default: one per available processor.
    """
    _require_linear(wires)
    kind = _check_dtype(dtype)
    arrays = [_check_conductance(tile, f"tiles[{k}]") for k, tile in enumerate(tiles)]
    n_threads = _count_threads(threads, len(arrays))

    def solve(g: NDArray[np.float64]) -> NDArray[Any]:
        return _effective(g, wires, _Lines(g, None, None), kind)

    if n_threads == 1:
        return [solve(g) for g in arrays]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(solve, arrays))


def _count_threads(threads: int | None, n_tasks: int) -> int:
    if threads is None:
        affinity = getattr(os, "sched_getaffinity", None)
        threads = len(affinity(0)) if affinity else os.cpu_count() or 1
    if threads < 1:
        raise InputError(f"threads must be >= 1, got {threads}")
    return max(1, min(threads, n_tasks))


class Factorisation:
    """A linear crossbar solved once: `g_eff`, node voltages for any inputs, cheap updates.

    Made by `prepare`. Memory is about 1.5 kB per cell.
    """

    def __init__(self, g: NDArray[np.float64], wires: WiresConfig, lines: _Lines, dtype: type) -> None:
        self.wires, self._lines, self._dtype = wires, lines, dtype
        layout = self._layout = _layout(g.shape, wires, dtype, keep=True)
        self._arena, self._p = _aligned(layout.arena, dtype), _aligned(layout.p, dtype)
        self._scale = np.zeros(layout.scale, dtype=dtype)
        self._segments = wires.conductances(*g.shape, lines.word, lines.bit, dtype)
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
        self._cells = _with_access(self._g, self.wires).astype(self._dtype)
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
        new = _check_conductance(g, shape=self._g.shape)
        if self._lines.any:
            self._lines.check_anchored(new)
        changed = new != self._g
        layout = self._layout
        wanted = np.zeros(len(layout.plan.steps), dtype=bool)
        for leaf in layout.blocks:
            if leaf.children is not None:
                continue
            i0, i1, j0, j1 = leaf.lines
            if changed[i0:i1, j0:j1].any():
                block: Block | None = leaf
                while block is not None and not (wanted[block.step] and block.children):
                    wanted[block.step] = True
                    block = self._parent.get(id(block))
        if wanted.any():
            self._g = new.copy()
            self._run(wanted)
        return int(wanted.sum())

    def voltages(self, v_in: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        """Node voltages [V] at both ends of each cell, two arrays of shape (n_batch, n_wl, n_bl)."""
        v_in = _check_inputs(v_in, self._g.shape[0], self._lines)
        layout, dtype, vector = self._layout, self._dtype, self._layout.vector
        lanes = 2 * vector
        tables, n_rows, n_weights, n_nodes = descent(layout)
        slots, x, y = _workspace(dtype, slots=layout.slots, x=n_rows * lanes, y=n_nodes * lanes)
        if self._weights is None:
            self._weights = np.empty(n_weights, dtype=dtype)
            nodal.leaf_weights(layout.plan, tables, self._cells, self._segments, vector, slots, self._weights)
        shape = (len(v_in), *self._g.shape)
        v_word, v_bit = np.empty(shape, dtype=dtype), np.empty(shape, dtype=dtype)
        x[:] = 0.0
        root = layout.root
        first = 0 if root.children is None else int(layout.plan.merges[root.index, 3])
        rows = x.reshape(n_rows, lanes)
        for start in range(0, len(v_in), lanes):
            batch = v_in[start : start + lanes]
            ports = rows[first + self._root_row() : first + self._root_row() + root.n_ports]
            ports[:] = 0.0
            if self._terminals is None:
                for side in "LR":
                    if side in root.order:
                        ports[root.start(side) : root.start(side) + root.size(side), : len(batch)] = batch.T
            else:
                ports[:, : len(batch)] = self._outer_voltages(batch)
            nodal.back_substitute(
                layout.plan,
                tables,
                vector,
                self._p,
                self._scale,
                self._weights,
                x,
                y,
                start,
                len(batch),
                v_word,
                v_bit,
            )
        return v_word, v_bit

    def _root_row(self) -> int:
        tables, *_ = descent(self._layout)
        root = self._layout.root
        return int(tables.leaves[0, 0] if root.children is None else tables.merges[root.index, 0])

    def _outer_voltages(self, batch: NDArray[np.float64]) -> NDArray[Any]:
        """Voltages of the root's ports, where lines are single nodes."""
        terminals = self._terminals
        assert terminals is not None
        lanes = 2 * self._layout.vector
        x = _aligned(terminals.width * lanes, self._dtype)
        rows = x.reshape(terminals.width, lanes)
        rows[terminals.s : terminals.s + terminals.n_wl, : len(batch)] = batch.T
        if terminals.s:
            p, scale = self._outer
            nodal.back_rows(x, 0, terminals.s, terminals.width, p, scale, terminals.vector)
        order = [terminals.place(terminals.ids[side]) for side in terminals.root.order]
        return rows[np.concatenate(order), : len(batch)]

    def solve(self, v_in: ArrayLike) -> Solution:
        """All voltages and currents for a batch of inputs [V], shape (n_batch, n_wl)."""
        v_in = _check_inputs(v_in, self._g.shape[0], self._lines)
        v_word, v_bit = self.voltages(v_in)
        i_cell = (v_word - v_bit) * self._cells
        i_out = nodal.product(v_in.astype(self._dtype), self._g_eff)
        return Solution.from_cells(
            v_in, v_word, v_bit, i_cell, self.wires, self._lines.word, self._lines.bit, i_out
        )


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
    g = _check_conductance(g)
    return Factorisation(g, wires, _Lines(g, float_word, float_bit), _check_dtype(dtype))


def _check_inputs(v_in: ArrayLike, n_wl: int, lines: _Lines) -> NDArray[np.float64]:
    v = check_array(v_in, "v_in", shape=(None, n_wl), unit="V", hint="one row per input vector")
    if lines.word.any() and v[:, lines.word].any():
        line = int(np.flatnonzero(lines.word & v.any(axis=0))[0])
        raise InputError(f"v_in of floating word lines must be 0 V, got another voltage on line {line}")
    return v


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
    return _solve(g, v_in, wires, float_word, float_bit)


def _solve(
    g: ArrayLike,
    v_in: ArrayLike,
    wires: WiresConfig,
    float_word: ArrayLike | None = None,
    float_bit: ArrayLike | None = None,
) -> Solution:
    g = _check_conductance(g)
    lines = _Lines(g, float_word, float_bit)
    v_in = _check_inputs(v_in, g.shape[0], lines)
    return Factorisation(g, wires, lines, np.float64).solve(v_in)


def output_currents(g: ArrayLike, v_in: ArrayLike, wires: WiresConfig) -> NDArray[np.float64]:
    """Bit-line currents [A], shape (n_batch, n_bl), of linear or non-linear cells."""
    if not wires.alpha:
        g = _check_conductance(g)
        lines = _Lines(g, None, None)
        v_in = _check_inputs(v_in, g.shape[0], lines)
        return nodal.product(v_in, _effective(g, wires, lines, np.float64))
    return _solve(g, v_in, wires).i_out


def cell_voltages(g: ArrayLike, v_in: ArrayLike, wires: WiresConfig) -> NDArray[np.float64]:
    """Voltage across each cell and its access transistor [V], shape (n_batch, n_wl, n_bl)."""
    solution = _solve(g, v_in, wires)
    return solution.v_word - solution.v_bit


def attenuation(g: ArrayLike, wires: WiresConfig) -> NDArray[np.float64]:
    """Voltage across each cell over the source voltage, all word lines driven alike, shape (n_wl, n_bl).

    An estimate for other inputs: the drop on a bit line depends on all word lines' voltages.
    Cells count as linear.
    """
    from dataclasses import replace

    g = _check_conductance(g)
    return cell_voltages(g, np.ones((1, g.shape[0])), replace(wires, alpha=0.0))[0]
