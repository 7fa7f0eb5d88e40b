"""Work tables of the elimination: every column by its name.

`rramsim.circuit.plan` fills the tables, `rramsim.kernels.nodal` carries them out. A table is an array of
records of int64; positions and lengths count numbers of the array named, V is the number of values
in 64 bytes.
"""

import numpy as np


def _record(*columns):
    return np.dtype([(name, np.int64) for name in columns])


LEAVES, MERGE_STEP = 0, 1  # kinds of step

# what to do next: a group of up to V leaves of one program, or one merge
STEP = _record(
    "kind",  # LEAVES or MERGE_STEP
    "first",  # number of the first leaf, or of the merge
    "count",  # leaves
)
# one leaf: a few cells, of which only the conductances between ports are kept
LEAF_ROW = _record(
    "program",  # its elimination
    "i0",  # first word line
    "j0",  # first bit line
    "offset",  # of its conductances in the arena
    "stride",  # distance of their rows
    "table",  # first slot of its pairs of ports
    "n_ports",
)
# elimination inside leaves of one kind; couplings live in numbered slots, V leaves side by side
PROGRAM = _record(
    "n_slots",
    "n_pivots",  # nodes to eliminate
    "edge",  # first of its edges
    "n_edges",
    "pivot",  # first of its pivots
)
# one resistor of a leaf
EDGE = _record(
    "slot",
    "kind",  # 0 cell, 1 segment left of it, 2 below it, 3 to the second source, 4 to the second ground
    "row",  # of the cell in the leaf
    "column",
)
# one node to eliminate
PIVOT = _record(
    "code",  # first of its slots: `degree` own ones, then those of all pairs of neighbours
    "degree",
)
# two blocks joined: their shared ports, padded to a multiple of V, are eliminated
MERGE = _record(
    "out",  # of the joint conductances in the arena
    "stride",  # distance of their rows
    "n_kept",  # ports of the joint block
    "n_shared",  # eliminated ports, padded
    "segment",  # first of the children's segments
    "n_first",  # segments of the first child
    "n_second",
    "first",  # of the first child's conductances in the arena
    "first_stride",
    "second",
    "second_stride",
    "cross",  # at the root: ports of word lines, of which only couplings to bit lines are wanted; else 0
    "factors",  # of the eliminated rows in p
    "roots",  # of the inverse roots of their sums in scale
)
# a child's ports among the parent's: eliminated ones first, then the kept ones
SEGMENT = _record("source", "target", "length")

# the way down, in rows of the input vectors that are carried together
MERGE_DOWN = _record(
    "row",  # of the eliminated ports, the kept ones follow
    "first",  # first kept port of the first child
    "second",
)
LEAF_DOWN = _record(
    "row",  # of the first port
    "ports",  # first of its entries in port_nodes
    "weights",  # of its first weight
    "n_rows",  # cells along a bit line
    "n_columns",  # cells along a word line
)
PROGRAM_DOWN = _record(
    "n_nodes",
    "neighbours",  # first of its entries in neighbours
    "targets",  # first of its targets
)
TARGET = _record(
    "node",
    "start",  # of its neighbours within the program
)


def records(rows, columns):
    """Table (n,) of records from integers (n, n_columns)."""
    flat = np.ascontiguousarray(rows, dtype=np.int64).reshape(-1)
    return flat.view(columns)
