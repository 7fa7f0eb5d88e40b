"""Exact elimination of crossbar nodes by merging blocks of cells.

A block of cells is described by the conductances between its ports, the places where its lines
leave it.  Two neighbouring blocks are joined by adding their conductances and eliminating the
ports they share.  Eliminating node k turns its star into a mesh (A. Rosen, 1924),

    c[i, j] += c[k, i] * c[k, j] / sum_j c[k, j],

in which every term is positive: no subtraction, so each result keeps a small *relative* error
whatever the ratio of wire to cell conductance (the idea of Grassmann, Taksar and Heyman, 1985,
for M-matrices).  Only couplings are stored, in the upper triangle; diagonals are row sums and
are never formed, what lies on and below the diagonal is scratch.

Rows are eliminated V at a time, V being the number of values in 64 bytes.  Eliminated rows, scaled
by the root of their row sum, are packed in slivers of V columns: value [k, j] of `p` lies at
``(j // V * s + k) * V + j % V`` for `s` eliminated rows.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from rramsim.kernels.nodal_simd import (
    MR,
    NS,
    WIDE_BATCH,
    eliminate_lanes,
    lane_weights,
    mix_narrow,
    mix_wide,
    row_narrow,
    row_sums,
    row_wide,
    solve_sliver,
    tile_narrow,
    tile_update,
    tile_wide,
    turn,
    turn_stream,
)
from rramsim.kernels.tables import LEAVES, MERGE_STEP

KC = 128  # eliminated rows per pass over the kept ports: their slivers stay in the first-level cache
SUPER = 64  # rows brought up to date together
AREA = 192  # columns of kept ports whose packed rows stay in the second-level cache


class Plan(NamedTuple):
    """Order of work for one wiring, made by `rramsim.circuit.plan`: records of `rramsim.kernels.tables`."""

    steps: np.ndarray  # STEP
    leaves: np.ndarray  # LEAF_ROW
    programs: np.ndarray  # PROGRAM
    edges: np.ndarray  # EDGE
    code: np.ndarray  # int32, slots of the elimination steps
    pivots: np.ndarray  # PIVOT
    tables: np.ndarray  # int32, slot of each pair of ports, -1 for none
    merges: np.ndarray  # MERGE
    segments: np.ndarray  # SEGMENT


class Descent(NamedTuple):
    """Where voltages lie on the way down a plan, in rows of V or 4 V input vectors."""

    merges: np.ndarray  # MERGE_DOWN
    leaves: np.ndarray  # LEAF_DOWN
    programs: np.ndarray  # PROGRAM_DOWN
    port_nodes: np.ndarray  # int32, node of each port of a leaf
    neighbours: np.ndarray  # int32, nodes in the order of each step's couplings
    targets: np.ndarray  # TARGET
    # int64 (4,): steps of a leaf's word nodes along word lines' number and along the line, then of its
    # bit nodes; 0 where a line is one node
    steps: np.ndarray


class Wires(NamedTuple):
    """Conductances [S] of wire segments; the end ones include driver or sense resistance."""

    word: float  # between neighbouring cells of a word line
    bit: float
    left: np.ndarray  # (n_wl,) source to first cell
    right: np.ndarray  # (n_wl,) last cell to the second source
    bottom: np.ndarray  # (n_bl,) last cell to ground
    top: np.ndarray  # (n_bl,) first cell to the second ground


@njit(cache=True, error_model="numpy", nogil=True)
def _load_edges(plan, first, count, g, wires, lanes, slots):
    """Put the conductances of up to `lanes` leaves of one program into their slots."""
    program = plan.programs[plan.leaves[first]["program"]]
    slots[: program["n_slots"] * lanes] = 0.0
    n_wl = g.shape[0]
    for e in range(program["edge"], program["edge"] + program["n_edges"]):
        edge = plan.edges[e]
        kind, base = edge["kind"], edge["slot"] * lanes
        for lane in range(count):
            leaf = plan.leaves[first + lane]
            i, j = leaf["i0"] + edge["row"], leaf["j0"] + edge["column"]
            if kind == 0:
                value = g[i, j]
            elif kind == 1:  # segment left of the cell
                value = wires.left[i] if j == 0 else wires.word
            elif kind == 2:  # segment below the cell
                value = wires.bottom[j] if i == n_wl - 1 else wires.bit
            elif kind == 3:
                value = wires.right[i]
            else:
                value = wires.top[j]
            slots[base + lane] = value


@njit(cache=True, error_model="numpy", nogil=True)
def _leaf_group(plan, first, count, g, wires, lanes, slots, arena):
    """Eliminate the inner nodes of up to `lanes` leaves of one program, one leaf per lane."""
    _load_edges(plan, first, count, g, wires, lanes, slots)
    program = plan.programs[plan.leaves[first]["program"]]
    for k in range(program["pivot"], program["pivot"] + program["n_pivots"]):
        eliminate_lanes(slots, plan.code, plan.pivots[k]["code"], plan.pivots[k]["degree"])
    for lane in range(count):
        leaf = plan.leaves[first + lane]
        offset, stride, at, n_ports = leaf["offset"], leaf["stride"], leaf["table"], leaf["n_ports"]
        for a in range(n_ports):
            row = offset + a * stride
            for b in range(a + 1, n_ports):
                slot = plan.tables[at]
                at += 1
                arena[row + b] = slots[slot * lanes + lane] if slot >= 0 else 0.0


@njit(cache=True, error_model="numpy", nogil=True)
def _overlap(segments, first, middle, last, s_pad):
    """Whether a kept port belongs to both children: only where a line is one node."""
    for a in range(first, middle):
        for b in range(middle, last):
            low, high = segments[a]["target"], segments[b]["target"]
            if low >= s_pad and low < high + segments[b]["length"] and high < low + segments[a]["length"]:
                return True
    return False


@njit(cache=True, error_model="numpy", nogil=True)
def _scatter(child, stride, segments, first, count, s_pad, z, ldz, arena, out, ldo, cross, inner, kept):
    """Copy a child's conductances to the rows to eliminate (z) and to the kept ports (arena at out).

    They are added where `inner` (among eliminated rows) or `kept` (among kept ports) is true.
    """
    for a in range(first, first + count):
        src_a, dst_a, n_a = segments[a]["source"], segments[a]["target"], segments[a]["length"]
        for b in range(a, first + count):
            src_b, dst_b, n_b = segments[b]["source"], segments[b]["target"], segments[b]["length"]
            if dst_a >= s_pad and cross > 0 and (dst_a - s_pad >= cross or dst_b - s_pad < cross):
                continue  # not wanted of the whole array
            for r in range(n_a):
                source = child + (src_a + r) * stride + src_b
                start = r + 1 if a == b else 0
                if dst_a < s_pad:
                    target = (dst_a + r) * ldz + dst_b
                    if inner and dst_b < s_pad:
                        for c in range(start, n_b):
                            z[target + c] += arena[source + c]
                    else:
                        for c in range(start, n_b):
                            z[target + c] = arena[source + c]
                else:
                    target = out + (dst_a - s_pad + r) * ldo + dst_b - s_pad
                    if kept:
                        for c in range(start, n_b):
                            arena[target + c] += arena[source + c]
                    else:
                        for c in range(start, n_b):
                            arena[target + c] = arena[source + c]


@njit(cache=True, error_model="numpy", nogil=True)
def _clear_between(segments, first, middle, last, s_pad, arena, out, ldo, cross):
    """Zero the couplings between kept ports of different children."""
    for a in range(first, middle):
        for b in range(middle, last):
            low, high = segments[a], segments[b]
            if low["target"] > high["target"]:
                low, high = high, low
            row, column = low["target"] - s_pad, high["target"] - s_pad
            if row < 0 or (cross > 0 and (row >= cross or column < cross)):
                continue
            for r in range(row, row + low["length"]):
                target = out + r * ldo + column
                for c in range(high["length"]):
                    arena[target + c] = 0.0


@njit(cache=True, error_model="numpy", nogil=True)
def _assemble(plan, merge, arena, z):
    """Put both children's conductances together: rows to eliminate in z, kept ports in the arena."""
    segments, s = plan.segments, merge["n_shared"]
    out, ldo, n_kept, cross = merge["out"], merge["stride"], merge["n_kept"], merge["cross"]
    first, middle = merge["segment"], merge["segment"] + merge["n_first"]
    last = middle + merge["n_second"]
    ldz, n_rows = s + ldo, (n_kept + MR - 1) // MR * MR
    both = s == 0 or _overlap(segments, first, middle, last, s)
    if both:
        z[: s * ldz] = 0.0
        arena[out : out + n_rows * ldo] = 0.0
    else:  # each coupling has one source, but for those among eliminated ports
        shared = segments[first]["length"]
        for r in range(s):
            if r >= shared:
                z[r * ldz : (r + 1) * ldz] = 0.0
            else:
                z[r * ldz + shared : r * ldz + s] = 0.0
                z[r * ldz + s + n_kept : (r + 1) * ldz] = 0.0
        _clear_between(segments, first, middle, last, s, arena, out, ldo, cross)
    _scatter(
        merge["first"], merge["first_stride"], segments, first, merge["n_first"], s, z, ldz, arena, out, ldo,
        cross, both, both,
    )  # fmt: skip
    _scatter(
        merge["second"], merge["second_stride"], segments, middle, merge["n_second"], s, z, ldz, arena, out,
        ldo, cross, True, both,
    )  # fmt: skip


@njit(cache=True, error_model="numpy", nogil=True)
def _factor(z, ldz, s, width, p, scale, vector):
    """Eliminate the rows of z (s rows, `width` columns, the first s of them the rows themselves).

    Leaves the scaled rows in slivers in `p` and the inverse roots of the row sums in `scale`.
    """
    block = np.empty(vector * vector, dtype=z.dtype)
    outer = np.empty(vector, dtype=z.dtype)
    sliver = s * vector
    wide = NS * vector
    for i0 in range(0, s, vector):
        start = i0 if (width - i0) % wide == 0 else i0 - vector  # whole tiles up to the row's end
        if i0 % SUPER == 0 and i0 > 0:
            for k0 in range(0, i0, KC):
                n_k = min(KC, i0 - k0)
                for j in range(start, width, wide):
                    for i in range(i0, min(i0 + SUPER, s), MR):
                        a = (i // vector) * sliver + k0 * vector + i % vector
                        tile_update(
                            z, i * ldz + j, ldz, p, a, (j // vector) * sliver + k0 * vector, sliver, n_k
                        )
        k0 = i0 // SUPER * SUPER
        if i0 > k0:
            for i in range(i0, i0 + vector, MR):
                a = (i // vector) * sliver + k0 * vector + i % vector
                for j in range(start, width, wide):
                    tile_update(
                        z, i * ldz + j, ldz, p, a, (j // vector) * sliver + k0 * vector, sliver, i0 - k0
                    )
        after = i0 + vector
        row_sums(z, i0 * ldz + after, ldz, (width - after) // vector, outer)
        for k in range(vector):
            total = outer[k]
            for j in range(k + 1, vector):
                total += z[(i0 + k) * ldz + i0 + j]
            root = 1.0 / np.sqrt(total) if total > 0.0 else 0.0 * total
            scale[i0 + k] = root
            for j in range(vector):
                block[k * vector + j] = z[(i0 + k) * ldz + i0 + j] * root if j > k else 0.0
            rest = outer[k] * root
            for i in range(k + 1, vector):
                u = block[k * vector + i]
                outer[i] += u * rest
                for j in range(i + 1, vector):
                    z[(i0 + i) * ldz + i0 + j] += u * block[k * vector + j]
        home = (i0 // vector) * sliver + i0 * vector
        for k in range(vector * vector):
            p[home + k] = block[k]
        for j in range(after, width, vector):
            solve_sliver(z, i0 * ldz + j, ldz, block, scale, i0, p, (j // vector) * sliver + i0 * vector)


@njit(cache=True, error_model="numpy", nogil=True)
def _update(p, s, rows, col0, cols, arena, out, ldo, vector):
    """Add the mesh of the eliminated rows to the kept ports [0, rows) x [col0, cols), upper triangle."""
    sliver = s * vector
    kept = s // vector * sliver
    wide = NS * vector
    across = AREA // wide * wide
    for j0 in range(col0 // wide * wide, cols, across):
        for k0 in range(0, s, KC):
            n_k = min(KC, s - k0)
            for i in range(0, min(rows, min(j0 + across, cols)), MR):
                a = kept + (i // vector) * sliver + k0 * vector + i % vector
                first = j0 if i < j0 + wide else i // wide * wide
                for j in range(first, min(j0 + across, cols), wide):
                    b = kept + (j // vector) * sliver + k0 * vector
                    tile_update(arena, out + i * ldo + j, ldo, p, a, b, sliver, n_k)


@njit(cache=True, error_model="numpy", nogil=True)
def condense(z, s, width, p, scale, out, ldo, vector):
    """Eliminate the first s nodes of a network; z (s, width) holds their couplings, out the kept ones."""
    _factor(z, width, s, width, p, scale, vector)
    _update(p, s, width - s, 0, width - s, out, 0, ldo, vector)


@njit(cache=True, error_model="numpy", nogil=True)
def run_plan(plan, g, wires, vector, arena, z, p, scale, slots, wanted):
    """Carry out a plan: leaves in lanes, then merges; the root's conductances are left in `arena`.

    z, p and scale hold one merge at a time unless the plan gives each merge its own place.
    A step runs where ``wanted[step]`` is true; the others' results are taken from `arena` as they are.
    """
    for step in range(plan.steps.shape[0]):
        if not wanted[step]:
            continue
        first, count = plan.steps[step]["first"], plan.steps[step]["count"]
        if plan.steps[step]["kind"] == LEAVES:
            _leaf_group(plan, first, count, g, wires, vector, slots, arena)
            continue
        merge = plan.merges[first]
        out, ldo, n_kept, s = merge["out"], merge["stride"], merge["n_kept"], merge["n_shared"]
        ldz = s + ldo
        _assemble(plan, merge, arena, z)
        if s > 0:
            at = merge["factors"]
            factors = p[at : at + s * ldz]
            roots = scale[merge["roots"] : merge["roots"] + s]
            _factor(z, ldz, s, ldz, factors, roots, vector)
            cross = merge["cross"]
            if cross > 0:
                _update(factors, s, cross, cross, n_kept, arena, out, ldo, vector)
            else:
                _update(factors, s, n_kept, 0, n_kept, arena, out, ldo, vector)


@njit(cache=True, error_model="numpy", nogil=True)
def leaf_weights(plan, descent, g, wires, lanes, slots, weights):
    """Weights with which each inner node of a leaf averages the voltages of its later neighbours."""
    for step in range(plan.steps.shape[0]):
        if plan.steps[step]["kind"] != LEAVES:
            continue
        first, count = plan.steps[step]["first"], plan.steps[step]["count"]
        _load_edges(plan, first, count, g, wires, lanes, slots)
        program = plan.programs[plan.leaves[first]["program"]]
        at = descent.leaves[first]["weights"]
        for k in range(program["pivot"], program["pivot"] + program["n_pivots"]):
            start, degree = plan.pivots[k]["code"], plan.pivots[k]["degree"]
            lane_weights(slots, plan.code, start, degree, weights, at)
            at += degree * lanes
            eliminate_lanes(slots, plan.code, start, degree)


@njit(cache=True, error_model="numpy", nogil=True)
def back_rows(x, row, s, width, p, scale, vector, lanes):
    """Voltages of s eliminated nodes from the kept ones', in rows [row, row + width) of x (rows, lanes)."""
    sliver = s * vector
    wide = lanes == WIDE_BATCH * vector
    for i0 in range(s - vector, -1, -vector):
        after = i0 // vector + 1
        first = (row + i0 + vector) * lanes
        n_slivers = width // vector - after
        if wide:
            for i in range(i0, i0 + vector, 4):
                tile_wide(x, (row + i) * lanes, first, p, after * sliver + i * vector, sliver, n_slivers)
        else:
            for i in range(i0, i0 + vector, MR):
                tile_narrow(x, (row + i) * lanes, first, p, after * sliver + i * vector, sliver, n_slivers)
        home = (i0 // vector) * sliver + i0 * vector
        for k in range(vector - 1, -1, -1):
            own = (row + i0 + k) * lanes
            u = home + k * vector + k + 1
            if wide:
                row_wide(x, own, p, u, vector - 1 - k, scale[i0 + k])
            else:
                row_narrow(x, own, p, u, vector - 1 - k, scale[i0 + k])


@njit(cache=True, error_model="numpy", nogil=True)
def _write_out(y, lanes, vector, first, step_r, step_c, n_r, n_c, start, n_batch, line, plane, v):
    """Copy the voltages of a leaf's word or bit nodes to their cells, from `start` of v (flat) on."""
    whole = 0
    stream = v.ctypes.data % 64 == 0 and start % vector == 0 and line % vector == 0
    if n_c % vector == 0 and step_c == 1:
        whole = n_batch // vector * vector
        for r in range(n_r):
            source = first + r * step_r * n_c * lanes
            for b in range(0, whole, vector):
                for c in range(0, n_c, vector):
                    at = start + b * plane + r * line + c
                    if stream:
                        turn_stream(y, source + c * lanes + b, lanes, v, at, plane)
                    else:
                        turn(y, source + c * lanes + b, lanes, v, at, plane)
    for b in range(whole, n_batch):
        for r in range(n_r):
            at = start + b * plane + r * line
            source = first + (r * step_r * n_c) * lanes + b
            for c in range(n_c):
                v[at + c] = y[source + c * step_c * lanes]


@njit(cache=True, error_model="numpy", nogil=True)
def back_substitute(plan, descent, vector, lanes, p, scale, weights, x, y, batch0, n_batch, v_word, v_bit):
    """Node voltages of n_batch <= lanes input vectors, given those at the root's ports in x.

    lanes is V or WIDE_BATCH V. v_word and v_bit: (n_batch, n_wl, n_bl).
    """
    wide = lanes == WIDE_BATCH * vector
    line, plane = v_word.shape[2], v_word.shape[1] * v_word.shape[2]
    flat_word, flat_bit = v_word.reshape(v_word.size), v_bit.reshape(v_bit.size)
    for step in range(plan.steps.shape[0] - 1, -1, -1):
        if plan.steps[step]["kind"] != MERGE_STEP:
            continue
        merge, down = plan.merges[plan.steps[step]["first"]], descent.merges[plan.steps[step]["first"]]
        s, row = merge["n_shared"], down["row"]
        if s > 0:
            width, at = s + merge["stride"], merge["factors"]
            back_rows(x, row, s, width, p[at : at + s * width], scale[merge["roots"] :], vector, lanes)
        first, middle = merge["segment"], merge["segment"] + merge["n_first"]
        for a in range(first, middle + merge["n_second"]):
            segment = plan.segments[a]
            source = ((down["first"] if a < middle else down["second"]) + segment["source"]) * lanes
            target, count = (row + segment["target"]) * lanes, segment["length"] * lanes
            x[source : source + count] = x[target : target + count]
    for number in range(plan.leaves.shape[0]):
        leaf, down_leaf = plan.leaves[number], descent.leaves[number]
        program, down_program = plan.programs[leaf["program"]], descent.programs[leaf["program"]]
        for k in range(leaf["n_ports"]):
            node = descent.port_nodes[down_leaf["ports"] + k] * lanes
            for b in range(lanes):
                y[node + b] = x[(down_leaf["row"] + k) * lanes + b]
        w0, near = down_leaf["weights"], down_program["neighbours"]
        for k in range(program["n_pivots"] - 1, -1, -1):
            goal = descent.targets[down_program["targets"] + k]
            node, begin = goal["node"], goal["start"]
            degree = plan.pivots[program["pivot"] + k]["degree"]
            if wide:
                mix_wide(y, node, weights, w0 + begin * vector, descent.neighbours, near + begin, degree)
            else:
                mix_narrow(y, node, weights, w0 + begin * vector, descent.neighbours, near + begin, degree)
        n_r, n_c = down_leaf["n_rows"], down_leaf["n_columns"]
        start = batch0 * plane + leaf["i0"] * line + leaf["j0"]
        steps = descent.steps
        _write_out(y, lanes, vector, 0, steps[0], steps[1], n_r, n_c, start, n_batch, line, plane, flat_word)
        bit = n_r * n_c * lanes
        _write_out(y, lanes, vector, bit, steps[2], steps[3], n_r, n_c, start, n_batch, line, plane, flat_bit)


@njit(cache=True, error_model="numpy", nogil=True)
def product(v, matrix):
    """v @ matrix in a fixed order of additions, shape (n_batch, n_bl)."""
    out = np.zeros((v.shape[0], matrix.shape[1]), dtype=matrix.dtype)
    for b in range(v.shape[0]):
        for i in range(v.shape[1]):
            if v[b, i] != 0.0:
                for j in range(matrix.shape[1]):
                    out[b, j] += v[b, i] * matrix[i, j]
    return out
