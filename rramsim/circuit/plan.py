"""Order in which the nodes of a crossbar are eliminated.

`plan` cuts an array into leaves of a few cells, orders the elimination inside a leaf, and lays
out the tree of merges that `rramsim.kernels.nodal` carries out; `rramsim.circuit.descent` lays out the
way back from the ports to all node voltages.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.kernels.nodal import Plan
from rramsim.kernels.tables import (
    EDGE,
    LEAF_ROW,
    LEAVES,
    MERGE,
    MERGE_STEP,
    PIVOT,
    PROGRAM,
    SEGMENT,
    STEP,
    records,
)

LEAF_ROWS, LEAF_COLUMNS = 8, 16  # cells along the sides of a leaf, at most

# how the end of a line leaves a leaf
INNER, OPEN, SOURCE = 0, 1, 2
LeafKey = tuple[int, int, int, int, bool, bool]  # arguments of `leaf_program`


@dataclass(frozen=True)
class LeafProgram:
    """Elimination inside one leaf: where couplings live and what each step combines."""

    n_slots: int
    edges: NDArray[np.int64]  # (n, 4): slot, kind, row, column
    code: NDArray[np.int32]
    pivots: NDArray[np.int64]  # (n, 2): start, degree
    pair_slots: dict[tuple[int, int], int]  # slot of two ports, by node
    ports: dict[str, list[int]]  # nodes of each side, in order of lines
    n_nodes: int
    nodes: list[int]  # eliminated nodes, in order
    neighbours: list[list[int]]  # of each eliminated node, in the order of the code


def _leaf_graph(
    p: int, q: int, right: int, top: int, word_node: bool, bit_node: bool
) -> tuple[list[tuple[int, int, int, int, int]], dict[str, list[int]], int]:
    """Edges (node, node, kind, row, column), ports by side, number of nodes.

    Nodes are numbered: word nodes (p, q), bit nodes (p, q), then outer ports.
    """
    word = [list(range(i * q, (i + 1) * q)) for i in range(p)]
    bit = [[p * q + i * q + j for j in range(q)] for i in range(p)]
    n_nodes = 2 * p * q
    if word_node:
        word = [[i * q] * q for i in range(p)]
    if bit_node:
        bit = [[p * q + j for j in range(q)] for _ in range(p)]
    edges: list[tuple[int, int, int, int, int]] = []
    ports: dict[str, list[int]] = {}
    for i in range(p):
        edges += [(word[i][j], bit[i][j], 0, i, j) for j in range(q)]
    if word_node:
        ports["W"] = [word[i][0] for i in range(p)]
    else:
        ports["L"] = list(range(n_nodes, n_nodes + p))
        n_nodes += p
        for i in range(p):
            edges.append((ports["L"][i], word[i][0], 1, i, 0))
            edges += [(word[i][j - 1], word[i][j], 1, i, j) for j in range(1, q)]
        if right == INNER:
            ports["R"] = [word[i][q - 1] for i in range(p)]
        elif right == SOURCE:
            ports["R"] = list(range(n_nodes, n_nodes + p))
            n_nodes += p
            edges += [(word[i][q - 1], ports["R"][i], 3, i, q - 1) for i in range(p)]
    if bit_node:
        ports["N"] = [bit[0][j] for j in range(q)]
    else:
        ports["B"] = list(range(n_nodes, n_nodes + q))
        n_nodes += q
        for j in range(q):
            edges.append((ports["B"][j], bit[p - 1][j], 2, p - 1, j))
            edges += [(bit[i][j], bit[i + 1][j], 2, i, j) for i in range(p - 1)]
        if top == INNER:
            ports["T"] = [bit[0][j] for j in range(q)]
        elif top == SOURCE:
            ports["T"] = list(range(n_nodes, n_nodes + q))
            n_nodes += q
            edges += [(bit[0][j], ports["T"][j], 4, 0, j) for j in range(q)]
    return edges, ports, n_nodes


@functools.lru_cache(maxsize=256)
def leaf_program(p: int, q: int, right: int, top: int, word_node: bool, bit_node: bool) -> LeafProgram:
    """Order the elimination of a leaf's inner nodes by least degree and number its couplings."""
    graph, ports, n_nodes = _leaf_graph(p, q, right, top, word_node, bit_node)
    neighbours: list[set[int]] = [set() for _ in range(n_nodes)]
    slots: dict[tuple[int, int], int] = {}
    free: list[int] = []
    unused = itertools.count()

    def slot(a: int, b: int) -> int:
        pair = (a, b) if a < b else (b, a)
        if pair not in slots:
            slots[pair] = free.pop() if free else next(unused)
            neighbours[a].add(b)
            neighbours[b].add(a)
        return slots[pair]

    edges = [(slot(a, b), kind, r, c) for a, b, kind, r, c in graph]
    kept = {node for side in ports.values() for node in side}
    inner = {node for node in range(n_nodes) if node not in kept and neighbours[node]}
    code: list[int] = []
    pivots, order, lists = [], [], []
    while inner:
        node = min(inner, key=lambda k: (len(neighbours[k]), k))
        inner.remove(node)
        near = sorted(neighbours[node])
        pivots.append((len(code), len(near)))
        order.append(node)
        lists.append(near)
        own = [slot(node, k) for k in near]
        code += own
        for a, first in enumerate(near):
            code += [slot(first, second) for second in near[:a]]
        for k in near:
            free.append(slots.pop((node, k) if node < k else (k, node)))
            neighbours[k].remove(node)
    return LeafProgram(
        n_slots=next(unused),
        edges=np.array(edges, dtype=np.int64).reshape(-1, 4),
        code=np.array(code, dtype=np.int32),
        pivots=np.array(pivots, dtype=np.int64).reshape(-1, 2),
        pair_slots=slots,
        ports=ports,
        n_nodes=n_nodes,
        nodes=order,
        neighbours=lists,
    )


@dataclass
class Block:
    """A rectangle of cells in the tree of merges; its ports lie in `order` of its sides."""

    lines: tuple[int, int, int, int]  # word lines [i0, i1), bit lines [j0, j1)
    order: str  # sides: L R T B, or W (N) where a word (bit) line is one node
    children: tuple[Block, Block] | None
    shared: int  # nodes eliminated here
    index: int = -1  # among leaves or merges
    step: int = -1
    offset: int = 0  # of its conductances in the arena
    stride: int = 0

    def size(self, side: str) -> int:
        i0, i1, j0, j1 = self.lines
        return i1 - i0 if side in "LRW" else j1 - j0

    @functools.cached_property
    def n_ports(self) -> int:
        return sum(self.size(side) for side in self.order)

    def start(self, side: str) -> int:
        """Position of a side's first port."""
        return sum(self.size(other) for other in self.order[: self.order.index(side)])

    def walk(self) -> Iterator[Block]:
        """Children before parents."""
        for child in self.children or ():
            yield from child.walk()
        yield self


@dataclass(frozen=True, eq=False)
class Layout:
    """A `Plan` with its tree and the sizes of the work arrays it needs."""

    plan: Plan
    root: Block
    blocks: tuple[Block, ...]  # children before parents
    leaf_keys: tuple[LeafKey, ...]  # by leaf
    arena: int
    z: int
    p: int
    scale: int
    slots: int
    vector: int


class _Tree:
    """Cuts the array in halves such that the merges take the fewest operations."""

    def __init__(
        self, n_wl: int, n_bl: int, word_node: bool, bit_node: bool, both: tuple[bool, bool]
    ) -> None:
        self.rows = _cuts(n_wl, LEAF_ROWS)
        self.columns = _cuts(n_bl, LEAF_COLUMNS)
        self.word_node, self.bit_node = word_node, bit_node
        self.word_both, self.bit_both = both
        self.cost = functools.lru_cache(None)(self._cost)

    def sides(self, right: bool, top: bool) -> str:
        word = "W" if self.word_node else "LR" if right else "L"
        return word + ("N" if self.bit_node else "BT" if top else "B")

    def _cost(self, n_r: int, n_c: int, right: bool, top: bool) -> tuple[float, str]:
        """Operations to build a block of n_r x n_c leaves, and the direction of its last cut."""
        if n_r == n_c == 1:
            return 0.0, ""
        sides = self.sides(right, top)
        best = (np.inf, "")
        for cut in "hv":
            n = n_c if cut == "h" else n_r
            if n == 1:
                continue
            rows, columns = LEAF_ROWS * n_r, LEAF_COLUMNS * n_c
            along, node = (rows, self.word_node) if cut == "h" else (columns, self.bit_node)
            s = 0 if node else along
            kept = sum(rows if side in "LRW" else columns for side in sides)
            own = s**3 / 3 + s * s * kept + s * kept * kept + 8.0 * kept * kept
            half = n // 2
            if cut == "h":
                parts = self.cost(n_r, half, True, top)[0] + self.cost(n_r, n - half, right, top)[0]
            else:
                parts = self.cost(half, n_c, right, top)[0] + self.cost(n - half, n_c, right, True)[0]
            best = min(best, (own + parts, cut))
        return best

    def grow(self, r0: int, r1: int, c0: int, c1: int, order: str) -> Block:
        lines = (self.rows[r0], self.rows[r1], self.columns[c0], self.columns[c1])
        right = c1 < len(self.columns) - 1 or self.word_both
        top = r0 > 0 or self.bit_both
        cut = self.cost(r1 - r0, c1 - c0, right, top)[1]
        if not cut:
            return Block(lines, order, None, 0)
        if cut == "h":
            middle = (c0 + c1) // 2
            own, other = ("", "") if self.word_node else ("R", "L")
            first = self.grow(r0, r1, c0, middle, own + order.replace("R", ""))
            second = self.grow(r0, r1, middle, c1, other + order.replace("L", ""))
            shared = 0 if self.word_node else lines[1] - lines[0]
        else:
            middle = (r0 + r1) // 2
            own, other = ("", "") if self.bit_node else ("B", "T")
            first = self.grow(r0, middle, c0, c1, own + order.replace("B", ""))
            second = self.grow(middle, r1, c0, c1, other + order.replace("T", ""))
            shared = 0 if self.bit_node else lines[3] - lines[2]
        return Block(lines, order, (first, second), shared)


def _cuts(n: int, leaf: int) -> list[int]:
    pieces = -(-n // leaf)
    return [n * k // pieces for k in range(pieces + 1)]


def _segments(child: Block, parent: Block, s_pad: int) -> list[tuple[int, int, int]]:
    """Where a child's sides lie among the parent's eliminated and kept ports."""
    across = child.lines[:2] == parent.lines[:2]  # the halves lie side by side
    result, source = [], 0
    for place, side in enumerate(child.order):
        size = child.size(side)
        if parent.shared and place == 0:
            target = 0
        else:
            shift = child.lines[2] - parent.lines[2] if side in "TBN" else child.lines[0] - parent.lines[0]
            target = s_pad + parent.start(side) + (shift if across == (side in "TBN") else 0)
        result.append((source, target, size))
        source += size
    return result


class _LeafTables:
    """Programs of leaves and slots of their ports, each kind entered once, as `Plan` holds them."""

    def __init__(self) -> None:
        self._index: dict[LeafKey, int] = {}
        self._table_of: dict[tuple[LeafKey, str], int] = {}
        self.programs: list[tuple[int, ...]] = []
        self._edges: list[NDArray[np.int64]] = []
        self._code: list[NDArray[np.int32]] = []
        self._pivots: list[NDArray[np.int64]] = []
        self._n_edges = self._n_code = self._n_pivots = 0
        self.table: list[int] = []

    def program(self, key: LeafKey) -> int:
        """Number of a leaf's program."""
        if key not in self._index:
            program = leaf_program(*key)
            self._index[key] = len(self.programs)
            n_edges, n_pivots = len(program.edges), len(program.pivots)
            self.programs.append((program.n_slots, n_pivots, self._n_edges, n_edges, self._n_pivots))
            self._edges.append(program.edges)
            self._code.append(program.code)
            self._pivots.append(program.pivots + np.array([self._n_code, 0]))
            self._n_edges, self._n_pivots = self._n_edges + n_edges, self._n_pivots + n_pivots
            self._n_code += len(program.code)
        return self._index[key]

    def port_table(self, key: LeafKey, order: str) -> int:
        """Where the slots of all pairs of ports begin, for a leaf whose sides lie in this order."""
        if (key, order) not in self._table_of:
            program = leaf_program(*key)
            ports = [node for side in order for node in program.ports[side]]
            self._table_of[key, order] = len(self.table)
            pairs = itertools.combinations(ports, 2)
            self.table += [program.pair_slots.get((min(a, b), max(a, b)), -1) for a, b in pairs]
        return self._table_of[key, order]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Fields of `Plan`."""
        return {
            "programs": np.array(self.programs, dtype=PROGRAM),
            "edges": records(np.concatenate(self._edges), EDGE),
            "code": np.concatenate(self._code),
            "pivots": records(np.concatenate(self._pivots), PIVOT),
            "tables": np.array(self.table, dtype=np.int32),
        }


class _Arena:
    """Places of blocks in one array of conductances; places are used again unless all are kept."""

    def __init__(self, vector: int, reuse: bool) -> None:
        self.size = 0
        self._wide, self._reuse = 2 * vector, reuse
        self._free: dict[int, list[int]] = {}

    @staticmethod
    def _size(block: Block) -> int:
        return -(-block.n_ports // 8) * 8 * block.stride

    def allocate(self, block: Block) -> None:
        """Give a block its place and its distance of rows."""
        block.stride = -(-block.n_ports // self._wide) * self._wide
        size = self._size(block)
        if self._free.get(size):
            block.offset = self._free[size].pop()
        else:
            block.offset, self.size = self.size, self.size + size

    def release(self, block: Block) -> None:
        """A block has been merged: its place is free."""
        if self._reuse:
            self._free.setdefault(self._size(block), []).append(block.offset)


class _Planner:
    """Collects steps, leaves and merges in the order in which they are carried out."""

    def __init__(self, tree: _Tree, root: Block, vector: int, keep: str) -> None:
        self.tree, self.root, self.vector, self.keep = tree, root, vector, keep
        self.blocks = tuple(root.walk())
        self.tables, self.arena = _LeafTables(), _Arena(vector, keep != "all")
        self.steps: list[tuple[int, int, int]] = []
        self.leaves: list[tuple[int, ...]] = []
        self.leaf_keys: list[LeafKey] = []
        self.merges: list[tuple[int, ...]] = []
        self.segments: list[tuple[int, int, int]] = []
        self.p_size = self.scale_size = self.z_size = 0
        self._waiting = [block for block in self.blocks if block.children is None]

    def _key(self, leaf: Block) -> LeafKey:
        i0, i1, j0, j1 = leaf.lines
        tree = self.tree
        right = INNER if j1 < tree.columns[-1] else SOURCE if tree.word_both else OPEN
        top = INNER if i0 > 0 else SOURCE if tree.bit_both else OPEN
        return i1 - i0, j1 - j0, right, top, tree.word_node, tree.bit_node

    def add_leaves(self, first: Block) -> None:
        """A step for `first` and the next leaves of its kind, one leaf a lane."""
        key = self._key(first)
        group = [b for b in self._waiting[: 4 * self.vector] if self._key(b) == key][: self.vector]
        program = self.tables.program(key)
        self.steps.append((LEAVES, len(self.leaves), len(group)))
        for leaf in group:
            self._waiting.remove(leaf)
            leaf.step, leaf.index = len(self.steps) - 1, len(self.leaves)
            self.arena.allocate(leaf)
            table = self.tables.port_table(key, leaf.order)
            self.leaves.append(
                (program, leaf.lines[0], leaf.lines[2], leaf.offset, leaf.stride, table, leaf.n_ports)
            )
            self.leaf_keys.append(key)

    def add_merge(self, block: Block) -> None:
        """A step that joins a block's two children."""
        assert block.children is not None
        self.arena.allocate(block)
        first, second = block.children
        s = -(-block.shared // self.vector) * self.vector
        parts = [_segments(child, block, s) for child in (first, second)]
        crossing = block is self.root and not self.tree.word_node and not self.tree.bit_node
        cross = sum(block.size(side) for side in block.order if side in "LR") if crossing else 0
        self.merges.append(
            (block.offset, block.stride, block.n_ports, s, len(self.segments), len(parts[0]), len(parts[1]),
             first.offset, first.stride, second.offset, second.stride, cross, self.p_size, self.scale_size)
        )  # fmt: skip
        self.segments += parts[0] + parts[1]
        block.index, block.step = len(self.merges) - 1, len(self.steps)
        self.steps.append((MERGE_STEP, block.index, 1))
        need = s * (s + block.stride)
        self.z_size = max(self.z_size, need)
        if self.keep != "nothing":
            self.p_size, self.scale_size = self.p_size + need, self.scale_size + s
        self.arena.release(first)
        self.arena.release(second)

    def layout(self) -> Layout:
        """The finished tables and the sizes of the work arrays."""
        tables, merges = self.tables, np.array(self.merges, dtype=MERGE)
        reused = self.keep == "nothing"
        return Layout(
            plan=Plan(
                steps=np.array(self.steps, dtype=STEP),
                leaves=np.array(self.leaves, dtype=LEAF_ROW),
                merges=merges,
                segments=np.array(self.segments, dtype=SEGMENT),
                **tables.arrays(),
            ),
            root=self.root,
            blocks=self.blocks,
            leaf_keys=tuple(self.leaf_keys),
            arena=self.arena.size,
            z=self.z_size,
            p=self.z_size if reused else self.p_size,
            scale=int(merges["n_shared"].max(initial=0)) if reused else self.scale_size,
            slots=max(program[0] for program in tables.programs) * self.vector,
            vector=self.vector,
        )


@functools.lru_cache(maxsize=32)
def plan(
    n_wl: int,
    n_bl: int,
    word_node: bool,
    bit_node: bool,
    word_both: bool,
    bit_both: bool,
    vector: int,
    keep: str,
) -> Layout:
    """Lay out the elimination of an array's nodes.

    Parameters
    ----------
    word_node, bit_node : bool
        Lines without segment resistance, one node each.
    word_both, bit_both : bool
        Second drivers at the right, second grounds at the top (wires only).
    vector : int
        Numbers per 64 bytes: 8 for float64, 16 for float32.
    keep : {"nothing", "factors", "all"}
        Eliminated rows have places of their own for back-substitution ("factors"), and blocks too,
        so that some can be computed again ("all"); else places are used again.
    """
    word_both, bit_both = word_both and not word_node, bit_both and not bit_node
    tree = _Tree(n_wl, n_bl, word_node, bit_node, (word_both, bit_both))
    order = tree.sides(word_both, bit_both)
    root = tree.grow(0, len(tree.rows) - 1, 0, len(tree.columns) - 1, order)
    planner = _Planner(tree, root, vector, keep)
    for block in planner.blocks:
        if block.children is not None:
            planner.add_merge(block)
        elif block.step < 0:
            planner.add_leaves(block)
    return planner.layout()
