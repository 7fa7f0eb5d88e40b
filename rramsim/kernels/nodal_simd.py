"""Inner loops of `rramsim.kernels.nodal` on 64-byte vectors (`rramsim.kernels.simd`).

Each function is one small block of arithmetic on flat arrays of float64 or float32. Arguments whose
names end in 0 are positions of the first number, `ld...` the distance of rows, in numbers.
"""

from typing import Any

from numba import types
from numba.extending import intrinsic

from rramsim.kernels import plain
from rramsim.kernels.simd import I32, INDEX, WIDE, Vectors, are_floats, ir, twin

MR = 8 if WIDE else 4  # rows of a register tile
NS = 2 if WIDE else 1  # 64-byte vectors across a register tile


@intrinsic
def _tile_update(typingctx, c, c0, ldc, p, a0, b0, sliver, n_k):
    """Rank-n_k update of MR rows and NS vectors: c += a^T b, both read from packed slivers of `p`.

    c : flat, rows `ldc` apart; p : flat slivers (n_k, V), `sliver` apart; siemens (or their roots in p).
    """
    if not are_floats(c, p):
        return None
    signature = types.void(c, types.intp, types.intp, p, types.intp, types.intp, types.intp, types.intp)

    def build(context, builder, sig, args):
        block = Vectors(context, builder, c.dtype)
        c_data, p_data = block.data(c, args[0]), block.data(p, args[3])
        _, c_at, ldc, _, a_at, b_at, sliver, n_k = args
        for r in range(MR):  # on their way while the sums are formed
            for n in range(NS):
                block.prefetch(c_data, block.at(block.at(c_at, r, ldc), n, block.width))
        with block.loop(n_k, [block.zero] * (MR * NS)) as loop:
            here = block.at(b_at, loop.index, block.width)
            columns = [block.load(p_data, block.at(here, n, sliver)) for n in range(NS)]
            row = block.at(a_at, loop.index, block.width)
            for r in range(MR):
                a = block.spread(block.load_scalar(p_data, block.at(row, r, 1)))
                for n in range(NS):
                    loop.next[r * NS + n] = block.fma(a, columns[n], loop.results[r * NS + n])
        for r in range(MR):
            for n in range(NS):
                at = block.at(block.at(c_at, r, ldc), n, block.width)
                block.store(builder.fadd(block.load(c_data, at), loop.results[r * NS + n]), c_data, at)
        return context.get_dummy_value()

    return signature, build


@intrinsic
def _row_sums(typingctx, z, z0, ldz, n_vectors, sums):
    """sums[r] of V rows of z, `ldz` apart, over n_vectors vectors: row sums of couplings [S]."""
    if not are_floats(z, sums):
        return None
    signature = types.void(z, types.intp, types.intp, types.intp, sums)

    def build(context, builder, sig, args):
        block = Vectors(context, builder, z.dtype)
        z_data, out = block.data(z, args[0]), block.data(sums, args[4])
        _, z_at, ldz, n_vectors, _ = args
        with block.loop(n_vectors, [block.zero] * block.width) as loop:
            here = block.at(z_at, loop.index, block.width)
            for r in range(block.width):
                value = block.load(z_data, block.at(here, r, ldz))
                loop.next[r] = builder.fadd(loop.results[r], value)
        for r in range(block.width):
            total = ir.Constant(block.scalar, 0.0)
            for lane in range(block.width):
                total = builder.fadd(total, builder.extract_element(loop.results[r], ir.Constant(I32, lane)))
            builder.store(total, builder.gep(out, [ir.Constant(INDEX, r)]))
        return context.get_dummy_value()

    return signature, build


@intrinsic
def _solve_sliver(typingctx, z, z0, ldz, u, scale, scale0, p, p0):
    """Last steps of the elimination for one sliver: V rows of z [S] into V rows of p.

    u : flat (V, V), scaled rows of the block on the diagonal; scale : inverse roots of the row sums.
    """
    if not are_floats(z, u, scale, p):
        return None
    signature = types.void(z, types.intp, types.intp, u, scale, types.intp, p, types.intp)

    def build(context, builder, sig, args):
        block = Vectors(context, builder, z.dtype)
        z_data, u_data = block.data(z, args[0]), block.data(u, args[3])
        scale_data, p_data = block.data(scale, args[4]), block.data(p, args[6])
        z_at, ldz, scale_at, p_at = args[1], args[2], args[5], args[7]
        done: list[Any] = []
        for r in range(block.width):
            row = block.load(z_data, block.at(z_at, r, ldz))
            for k, solved in enumerate(done):
                factor = block.load_scalar(u_data, ir.Constant(INDEX, k * block.width + r))
                row = block.fma(block.spread(factor), solved, row)
            root = block.load_scalar(scale_data, block.at(scale_at, r, 1))
            row = builder.fmul(row, block.spread(root))
            done.append(row)
        for r, row in enumerate(done):
            block.store(row, p_data, block.at(p_at, r, block.width))
        return context.get_dummy_value()

    return signature, build


@intrinsic
def _eliminate_lanes(typingctx, c, code, start, degree):
    """Star-mesh elimination of one node of V leaves at once.

    c : flat (n_slots, V) couplings [S]; code : int32, slots of the node's couplings from `start` on, then
    of each pair of its neighbours.
    """
    if not are_floats(c) or not isinstance(code, types.Array):
        return None
    signature = types.void(c, code, types.intp, types.intp)

    def build(context, builder, sig, args):
        block = Vectors(context, builder, c.dtype)
        c_data = block.data(c, args[0])
        code_data = block.data(code, args[1])
        start, degree = args[2], args[3]

        def slot(index):
            return builder.mul(builder.sext(block.load_scalar(code_data, index), INDEX), width)

        width = ir.Constant(INDEX, block.width)
        with block.loop(degree, [block.zero]) as loop:
            value = block.load(c_data, slot(builder.add(start, loop.index)))
            loop.next[0] = builder.fadd(loop.results[0], value)
        total = loop.results[0]
        inverse = block.inverse_or_zero(total)
        with block.loop(degree, [builder.add(start, degree)]) as rows:
            own = builder.add(start, rows.index)
            value = builder.fmul(block.load(c_data, slot(own)), inverse)
            with block.loop(rows.index, []) as columns:
                target = slot(builder.add(rows.results[0], columns.index))
                other = block.load(c_data, slot(builder.add(start, columns.index)))
                block.store(block.fma(value, other, block.load(c_data, target)), c_data, target)
            rows.next[0] = builder.add(rows.results[0], rows.index)
        with block.loop(degree, []) as loop:  # freed slots are zero when they are used again
            block.store(block.zero, c_data, slot(builder.add(start, loop.index)))
        return context.get_dummy_value()

    return signature, build


@intrinsic
def _lane_weights(typingctx, c, code, start, degree, weights, w0):
    """weights[w0 + k V + lane] = coupling of neighbour k over their sum, for V leaves at once.

    c, code, start, degree : as in `_eliminate_lanes`; weights : flat, without unit.
    """
    if not are_floats(c, weights) or not isinstance(code, types.Array):
        return None
    signature = types.void(c, code, types.intp, types.intp, weights, types.intp)

    def build(context, builder, sig, args):
        block = Vectors(context, builder, c.dtype)
        c_data, code_data = block.data(c, args[0]), block.data(code, args[1])
        w_data = block.data(weights, args[4])
        start, degree, w_at = args[2], args[3], args[5]
        width = ir.Constant(INDEX, block.width)

        def slot(index):
            return builder.mul(builder.sext(block.load_scalar(code_data, index), INDEX), width)

        with block.loop(degree, [block.zero]) as loop:
            value = block.load(c_data, slot(builder.add(start, loop.index)))
            loop.next[0] = builder.fadd(loop.results[0], value)
        total = loop.results[0]
        inverse = block.inverse_or_zero(total)
        with block.loop(degree, []) as loop:
            value = builder.fmul(block.load(c_data, slot(builder.add(start, loop.index))), inverse)
            block.store(value, w_data, block.at(w_at, loop.index, block.width))
        return context.get_dummy_value()

    return signature, build


def _make_mix_lanes(n_vectors):
    """y[target] = sum_a weights[a] y[nodes[a]] on rows of n_vectors vectors."""
    chains = 2  # sums side by side hide the latency; the same in all variants, so that batches change no bit

    @intrinsic
    def mix_lanes(typingctx, y, target, weights, w0, nodes, start, degree):
        if not are_floats(y, weights) or not isinstance(nodes, types.Array):
            return None
        signature = types.void(y, types.intp, weights, types.intp, nodes, types.intp, types.intp)

        def build(context, builder, sig, args):
            block = Vectors(context, builder, y.dtype)
            y_data, w_data = block.data(y, args[0]), block.data(weights, args[2])
            node_data = block.data(nodes, args[4])
            target, w_at, start, degree = args[1], args[3], args[5], args[6]
            lanes = ir.Constant(INDEX, n_vectors * block.width)

            def add(index, totals):
                weight = block.spread(block.load_scalar(w_data, block.at(w_at, index, block.width)))
                node = builder.sext(block.load_scalar(node_data, builder.add(start, index)), INDEX)
                row = builder.mul(node, lanes)
                values = [block.load(y_data, block.at(row, n, block.width)) for n in range(n_vectors)]
                return [block.fma(weight, value, total) for value, total in zip(values, totals, strict=True)]

            group = ir.Constant(INDEX, chains)
            with block.loop(builder.sdiv(degree, group), [block.zero] * (chains * n_vectors)) as loop:
                first = builder.mul(loop.index, group)
                for k in range(chains):
                    part = slice(k * n_vectors, (k + 1) * n_vectors)
                    loop.next[part] = add(builder.add(first, ir.Constant(INDEX, k)), loop.results[part])
            totals = loop.results[:n_vectors]
            for k in range(1, chains):
                totals = [builder.fadd(totals[n], loop.results[k * n_vectors + n]) for n in range(n_vectors)]
            done = builder.mul(builder.sdiv(degree, group), group)
            with block.loop(builder.sub(degree, done), totals) as loop:
                loop.next[:] = add(builder.add(done, loop.index), loop.results)
            row = builder.mul(target, lanes)
            for n in range(n_vectors):
                block.store(loop.results[n], y_data, block.at(row, n, block.width))
            return context.get_dummy_value()

        return signature, build

    return mix_lanes


def _make_tile_mix(n_vectors, n_rows):
    """Rows of x from `out` on: sums over slivers of packed rows times the rows of x from `first` on."""

    @intrinsic
    def tile_mix(typingctx, x, out, first, p, p0, sliver, n_slivers):
        if not are_floats(x, p):
            return None
        signature = types.void(x, types.intp, types.intp, p, types.intp, types.intp, types.intp)

        def build(context, builder, sig, args):
            block = Vectors(context, builder, x.dtype)
            x_data, p_data = block.data(x, args[0]), block.data(p, args[3])
            _, out, first, _, p_at, sliver, n_slivers = args
            lanes = n_vectors * block.width
            with block.loop(n_slivers, [block.zero] * (n_rows * n_vectors)) as loop:
                here = block.at(p_at, loop.index, sliver)
                row = block.at(first, loop.index, lanes * block.width)
                total = list(loop.results)
                for k in range(block.width):
                    values = [
                        block.load(x_data, block.at(row, n_vectors * k + n, block.width))
                        for n in range(n_vectors)
                    ]
                    for r in range(n_rows):
                        a = block.spread(block.load_scalar(p_data, block.at(here, r * block.width + k, 1)))
                        for n in range(n_vectors):
                            total[n_vectors * r + n] = block.fma(a, values[n], total[n_vectors * r + n])
                loop.next[:] = total
            for r in range(n_rows):
                for n in range(n_vectors):
                    at = block.at(out, n_vectors * r + n, block.width)
                    block.store(loop.results[n_vectors * r + n], x_data, at)
            return context.get_dummy_value()

        return signature, build

    return tile_mix


def _make_row_mix(n_vectors):
    """Row own of x: (itself + sum_k u[k] times the rows after it) times root, for n_after rows."""

    @intrinsic
    def row_mix(typingctx, x, own, p, p0, n_after, root):
        if not are_floats(x, p):
            return None
        signature = types.void(x, types.intp, p, types.intp, types.intp, x.dtype)

        def build(context, builder, sig, args):
            block = Vectors(context, builder, x.dtype)
            x_data, p_data = block.data(x, args[0]), block.data(p, args[2])
            _, own, _, p_at, n_after, root = args
            lanes = n_vectors * block.width
            start = [block.load(x_data, block.at(own, n, block.width)) for n in range(n_vectors)]
            with block.loop(n_after, start) as loop:
                row = block.at(block.at(own, 1, lanes), loop.index, lanes)
                u = block.spread(block.load_scalar(p_data, block.at(p_at, loop.index, 1)))
                for n in range(n_vectors):
                    value = block.load(x_data, block.at(row, n, block.width))
                    loop.next[n] = block.fma(u, value, loop.results[n])
            root = block.spread(root)
            for n in range(n_vectors):
                block.store(builder.fmul(loop.results[n], root), x_data, block.at(own, n, block.width))
            return context.get_dummy_value()

        return signature, build

    return row_mix


def _make_turn(stream):
    """Transpose V rows of y, each y_step apart, V lanes wide, into V rows of v, v_step apart."""

    @intrinsic
    def turn(typingctx, y, y0, y_step, v, v0, v_step):
        if not are_floats(y, v):
            return None
        signature = types.void(y, types.intp, types.intp, v, types.intp, types.intp)

        def build(context, builder, sig, args):
            block = Vectors(context, builder, y.dtype)
            y_data, v_data = block.data(y, args[0]), block.data(v, args[3])
            width = block.width
            rows = [block.load(y_data, block.at(args[1], r, args[2])) for r in range(width)]
            for r, row in enumerate(block.transposed(rows)):
                store = block.store(row, v_data, block.at(args[4], r, args[5]))
                if stream:  # past the caches, whole lines at a time
                    store.align = 64
                    one = builder.module.add_metadata([ir.Constant(I32, 1)])
                    store.set_metadata("nontemporal", one)
            return context.get_dummy_value()

        return signature, build

    return turn


@intrinsic
def _sums_to_end(typingctx, x, x0, ldx, n_blocks, s, s0):
    """s[j V + r] = sum of x[r, j:] for V rows of x, `ldx` apart, of n_blocks V numbers; s from s0 on."""
    if not are_floats(x, s):
        return None
    signature = types.void(x, types.intp, types.intp, types.intp, s, types.intp)

    def build(context, builder, sig, args):
        block = Vectors(context, builder, x.dtype)
        x_data, s_data = block.data(x, args[0]), block.data(s, args[4])
        _, x_at, ldx, n_blocks, _, s_at = args
        width = block.width
        last = builder.sub(n_blocks, ir.Constant(INDEX, 1))
        with block.loop(n_blocks, [block.zero]) as loop:
            number = builder.sub(last, loop.index)
            here = block.at(x_at, number, width)
            columns = block.transposed([block.load(x_data, block.at(here, r, ldx)) for r in range(width)])
            total, there = loop.results[0], block.at(s_at, number, width * width)
            for k in range(width - 1, -1, -1):
                total = builder.fadd(total, columns[k])
                block.store(total, s_data, block.at(there, k, width))
            loop.next[0] = total
        return context.get_dummy_value()

    return signature, build


@intrinsic
def _drops_along(typingctx, s, s0, n_blocks, far, r_end, r, access, x, y, x0, ldx):
    """y[r, j] = r_end (s[0] - far) + r sum_(k <= j) (s[k] - far) + access x[r, j] for V rows of x and y.

    s : as `_sums_to_end` leaves it, from s0 on; far : (V,) current [A] from the far end of each row.
    """
    if not are_floats(s, far, x, y):
        return None
    scalar = s.dtype
    signature = types.void(
        s, types.intp, types.intp, far, scalar, scalar, scalar, x, y, types.intp, types.intp
    )

    def build(context, builder, sig, args):
        block = Vectors(context, builder, s.dtype)
        s_data, far_data = block.data(s, args[0]), block.data(far, args[3])
        x_data, y_data = block.data(x, args[7]), block.data(y, args[8])
        s_at, n_blocks, x_at, ldx = args[1], args[2], args[9], args[10]
        r_end, r, access = (block.spread(args[k]) for k in (4, 5, 6))
        width = block.width
        from_far = block.load(far_data, ir.Constant(INDEX, 0))
        start = builder.fmul(r_end, builder.fsub(block.load(s_data, s_at), from_far))
        with block.loop(n_blocks, [start]) as loop:
            drop, there = loop.results[0], block.at(s_at, loop.index, width * width)
            columns = []
            for k in range(width):
                current = builder.fsub(block.load(s_data, block.at(there, k, width)), from_far)
                drop = builder.fadd(drop, builder.fmul(r, current))
                columns.append(drop)
            here = block.at(x_at, loop.index, width)
            for k, row in enumerate(block.transposed(columns)):
                at = block.at(here, k, ldx)
                own = builder.fmul(access, block.load(x_data, at))
                block.store(builder.fadd(row, own), y_data, at)
            loop.next[0] = drop
        return context.get_dummy_value()

    return signature, build


eliminate_lanes = twin(_eliminate_lanes, plain.eliminate_lanes)
lane_weights = twin(_lane_weights, plain.lane_weights)
row_sums = twin(_row_sums, plain.row_sums)
sums_to_end = twin(_sums_to_end, plain.sums_to_end)
drops_along = twin(_drops_along, plain.drops_along)
solve_sliver = twin(_solve_sliver, plain.solve_sliver)
tile_update = twin(_tile_update, plain.make_tile_update(MR, NS))
turn = twin(_make_turn(False), plain.turn)
turn_stream = twin(_make_turn(True), plain.turn)
make_mix_lanes = twin(_make_mix_lanes, plain.make_mix_lanes)
make_tile_mix = twin(_make_tile_mix, plain.make_tile_mix)
make_row_mix = twin(_make_row_mix, plain.make_row_mix)

WIDE_BATCH = 4  # vectors of input vectors carried down the tree together
mix_wide, mix_narrow = make_mix_lanes(WIDE_BATCH), make_mix_lanes(1)
tile_wide, tile_narrow = make_tile_mix(WIDE_BATCH, 4), make_tile_mix(1, MR)
row_wide, row_narrow = make_row_mix(WIDE_BATCH), make_row_mix(1)
