"""The way back from the ports of the whole array to all node voltages, after `rramsim.circuit.plan`."""

from __future__ import annotations

import functools

import numpy as np

from rramsim.circuit.plan import Layout, LeafProgram, leaf_program
from rramsim.kernels.nodal import Descent
from rramsim.kernels.tables import LEAF_DOWN, MERGE_DOWN, PROGRAM_DOWN, TARGET


@functools.lru_cache(maxsize=32)
def descent(layout: Layout) -> tuple[Descent, int, int, int]:
    """Where the voltages of a kept plan go: tables, rows of x, numbers of weights, nodes of a leaf."""
    table, vector = layout.plan, layout.vector
    rows = 0
    kept_row: dict[int, int] = {}
    own_row: dict[int, int] = {}
    for block in layout.blocks:
        own_row[id(block)] = rows
        if block.children is None:
            kept_row[id(block)] = rows
            rows += block.n_ports
        else:
            s_pad = int(table.merges["n_shared"][block.index])
            kept_row[id(block)] = rows + s_pad
            rows += s_pad + block.stride
    merges = np.zeros(len(table.merges), dtype=MERGE_DOWN)
    leaves = np.zeros(len(table.leaves), dtype=LEAF_DOWN)
    programs = np.zeros(len(table.programs), dtype=PROGRAM_DOWN)
    neighbours: list[int] = []
    targets: list[tuple[int, int]] = []
    seen: dict[int, LeafProgram] = {}
    for leaf, key in enumerate(layout.leaf_keys):
        index = int(table.leaves["program"][leaf])
        if index in seen:
            continue
        program = seen[index] = leaf_program(*key)
        programs[index] = program.n_nodes, len(neighbours), len(targets)
        start = 0
        for node, near in zip(program.nodes, program.neighbours, strict=True):
            targets.append((node, start))
            neighbours += near
            start += len(near)
    port_nodes: list[int] = []
    n_weights = 0
    starts: dict[int, int] = {}
    by_index = sorted((b for b in layout.blocks if b.children is None), key=lambda b: b.index)
    for block in by_index:
        program = seen[int(table.leaves["program"][block.index])]
        first, count = int(table.steps["first"][block.step]), int(table.steps["count"][block.step])
        if block.step not in starts:
            starts[block.step] = n_weights
            n_weights += sum(len(near) for near in program.neighbours) * vector
        assert first <= block.index < first + count
        i0, i1, j0, j1 = block.lines
        weights = starts[block.step] + block.index - first
        leaves[block.index] = own_row[id(block)], len(port_nodes), weights, i1 - i0, j1 - j0
        port_nodes += [node for side in block.order for node in program.ports[side]]
    for block in layout.blocks:
        if block.children is not None:
            first_child, second_child = block.children
            merges[block.index] = own_row[id(block)], kept_row[id(first_child)], kept_row[id(second_child)]
    order = layout.root.order
    tables = Descent(
        merges=merges,
        leaves=leaves,
        programs=programs,
        port_nodes=np.array(port_nodes, dtype=np.int32),
        neighbours=np.array(neighbours, dtype=np.int32),
        targets=np.array(targets, dtype=TARGET),
        steps=np.array([1, "W" not in order, "N" not in order, 1], dtype=np.int64),
    )
    return tables, rows, n_weights, max(program.n_nodes for program in seen.values())
