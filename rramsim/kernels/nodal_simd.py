"""Inner loops of `rramsim.kernels.nodal` on 64-byte vectors, written in LLVM's terms.

LLVM does not vectorise these loops well by itself: it cannot know that rows of one array do not
overlap, and it keeps to half vectors.  Each function here is one small block of arithmetic on flat
arrays with offsets; on processors without 512-bit registers LLVM splits the vectors.  Without
JIT (``NUMBA_DISABLE_JIT=1``) plain NumPy takes their place.

Numba's cache of `rramsim.kernels.nodal` does not notice edits here: touch that file after one.
"""

from typing import Any

from numba import config, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from rramsim.kernels import plain

ir = cgutils.ir
WIDE = "+avx512f" in (config.CPU_FEATURES or get_host_cpu_features())
MR = 8 if WIDE else 4  # rows of a register tile
NS = 2 if WIDE else 1  # 64-byte vectors across a register tile

INDEX = ir.IntType(64)


class _Block:
    """Loads and stores of 64-byte vectors in the function being built."""

    def __init__(self, context, builder, dtype):
        self.context, self.builder = context, builder
        self.scalar = context.get_value_type(dtype)
        self.width = 64 // (dtype.bitwidth // 8)
        self.align = dtype.bitwidth // 8
        self.vector = ir.VectorType(self.scalar, self.width)
        self.zero = ir.Constant(self.vector, None)

    def data(self, arrty, array):
        return self.context.make_array(arrty)(self.context, self.builder, array).data

    def _pointer(self, data, index):
        pointer = self.builder.gep(data, [index])
        return self.builder.bitcast(pointer, self.vector.as_pointer())

    def load(self, data, index):
        value = self.builder.load(self._pointer(data, index))
        value.align = self.align
        return value

    def store(self, value, data, index):
        self.builder.store(value, self._pointer(data, index)).align = self.align

    def load_scalar(self, data, index):
        return self.builder.load(self.builder.gep(data, [index]))

    def spread(self, value):
        lane = self.builder.insert_element(
            ir.Constant(self.vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
        )
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.width), None)
        return self.builder.shuffle_vector(lane, ir.Constant(self.vector, ir.Undefined), mask)

    def fma(self, a, b, c):
        name = f"llvm.fma.v{self.width}f{self.align * 8}"
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, [a, b, c])

    def at(self, base, steps, stride):
        """base + steps * stride."""
        if isinstance(steps, int):
            steps = ir.Constant(INDEX, steps)
        if isinstance(stride, int):
            stride = ir.Constant(INDEX, stride)
        return self.builder.add(base, self.builder.mul(steps, stride))

    def loop(self, count, carried):
        """Begin a counted loop with values carried round; use as `with loop as (index, values, next)`."""
        return _Loop(self.builder, count, carried)


class _Loop:
    """for index in range(count), with loop-carried values; `results` afterwards."""

    def __init__(self, builder, count, carried):
        self.builder, self.count, self.start = builder, count, carried

    def __enter__(self):
        b = self.builder
        before = b.block
        self.head = b.append_basic_block("head")
        body = b.append_basic_block("body")
        self.end = b.append_basic_block("end")
        b.branch(self.head)
        b.position_at_end(self.head)
        self.index = b.phi(INDEX)
        self.index.add_incoming(ir.Constant(INDEX, 0), before)
        self.results = []
        for value in self.start:
            phi = b.phi(value.type)
            phi.add_incoming(value, before)
            self.results.append(phi)
        b.cbranch(b.icmp_signed("<", self.index, self.count), body, self.end)
        b.position_at_end(body)
        self.next = list(self.results)
        return self

    def __exit__(self, *error):
        b = self.builder
        tail = b.block
        self.index.add_incoming(b.add(self.index, ir.Constant(INDEX, 1)), tail)
        for phi, value in zip(self.results, self.next, strict=True):
            phi.add_incoming(value, tail)
        b.branch(self.head)
        b.position_at_end(self.end)


def _floats(*arrays):
    return all(isinstance(a, types.Array) and isinstance(a.dtype, types.Float) for a in arrays)


@intrinsic
def _tile_update(typingctx, c, c0, ldc, p, a0, b0, sliver, n_k):
    if not _floats(c, p):
        return None
    signature = types.void(c, types.intp, types.intp, p, types.intp, types.intp, types.intp, types.intp)

    def build(context, builder, sig, args):
        block = _Block(context, builder, c.dtype)
        c_data, p_data = block.data(c, args[0]), block.data(p, args[3])
        _, c_at, ldc, _, a_at, b_at, sliver, n_k = args
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
    if not _floats(z, sums):
        return None
    signature = types.void(z, types.intp, types.intp, types.intp, sums)

    def build(context, builder, sig, args):
        block = _Block(context, builder, z.dtype)
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
                total = builder.fadd(
                    total, builder.extract_element(loop.results[r], ir.Constant(ir.IntType(32), lane))
                )
            builder.store(total, builder.gep(out, [ir.Constant(INDEX, r)]))
        return context.get_dummy_value()

    return signature, build


@intrinsic
def _solve_sliver(typingctx, z, z0, ldz, u, scale, scale0, p, p0):
    if not _floats(z, u, scale, p):
        return None
    signature = types.void(z, types.intp, types.intp, u, scale, types.intp, p, types.intp)

    def build(context, builder, sig, args):
        block = _Block(context, builder, z.dtype)
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
    if not _floats(c) or not isinstance(code, types.Array):
        return None
    signature = types.void(c, code, types.intp, types.intp)

    def build(context, builder, sig, args):
        block = _Block(context, builder, c.dtype)
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
        one = ir.Constant(block.vector, [1.0] * block.width)
        inverse = builder.select(
            builder.fcmp_ordered(">", total, block.zero), builder.fdiv(one, total), block.zero
        )
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
    if not _floats(c, weights) or not isinstance(code, types.Array):
        return None
    signature = types.void(c, code, types.intp, types.intp, weights, types.intp)

    def build(context, builder, sig, args):
        block = _Block(context, builder, c.dtype)
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
        one = ir.Constant(block.vector, [1.0] * block.width)
        inverse = builder.select(
            builder.fcmp_ordered(">", total, block.zero), builder.fdiv(one, total), block.zero
        )
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
        if not _floats(y, weights) or not isinstance(nodes, types.Array):
            return None
        signature = types.void(y, types.intp, weights, types.intp, nodes, types.intp, types.intp)

        def build(context, builder, sig, args):
            block = _Block(context, builder, y.dtype)
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
        if not _floats(x, p):
            return None
        signature = types.void(x, types.intp, types.intp, p, types.intp, types.intp, types.intp)

        def build(context, builder, sig, args):
            block = _Block(context, builder, x.dtype)
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
        if not _floats(x, p):
            return None
        signature = types.void(x, types.intp, p, types.intp, types.intp, x.dtype)

        def build(context, builder, sig, args):
            block = _Block(context, builder, x.dtype)
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
        if not _floats(y, v):
            return None
        signature = types.void(y, types.intp, types.intp, v, types.intp, types.intp)

        def build(context, builder, sig, args):
            block = _Block(context, builder, y.dtype)
            y_data, v_data = block.data(y, args[0]), block.data(v, args[3])
            width = block.width
            rows = [block.load(y_data, block.at(args[1], r, args[2])) for r in range(width)]
            half = width // 2
            while half:  # exchange blocks of half x half, ever smaller
                for r in range(width):
                    if r & half:
                        continue
                    low, high = rows[r], rows[r + half]
                    first = [c if not c & half else width + c - half for c in range(width)]
                    second = [c + half if not c & half else width + c for c in range(width)]
                    for place, mask in ((r, first), (r + half, second)):
                        indices = ir.Constant(ir.VectorType(ir.IntType(32), width), mask)
                        rows[place] = builder.shuffle_vector(low, high, indices)
                half //= 2
            for r in range(width):
                store = builder.store(rows[r], block._pointer(v_data, block.at(args[4], r, args[5])))
                store.align = 64 if stream else block.align
                if stream:  # past the caches, whole lines at a time
                    one = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
                    store.set_metadata("nontemporal", one)
            return context.get_dummy_value()

        return signature, build

    return turn


PLAIN = bool(config.DISABLE_JIT)  # type: ignore[attr-defined]  # set by numba at import
eliminate_lanes: Any = plain.eliminate_lanes if PLAIN else _eliminate_lanes
lane_weights: Any = plain.lane_weights if PLAIN else _lane_weights
row_sums: Any = plain.row_sums if PLAIN else _row_sums
solve_sliver: Any = plain.solve_sliver if PLAIN else _solve_sliver
tile_update: Any = plain.make_tile_update(MR, NS) if PLAIN else _tile_update
turn: Any = plain.turn if PLAIN else _make_turn(False)
turn_stream: Any = plain.turn if PLAIN else _make_turn(True)
make_mix_lanes: Any = plain.make_mix_lanes if PLAIN else _make_mix_lanes
make_tile_mix: Any = plain.make_tile_mix if PLAIN else _make_tile_mix
make_row_mix: Any = plain.make_row_mix if PLAIN else _make_row_mix

WIDE_BATCH = 4  # vectors of input vectors carried down the tree together
mix_wide, mix_narrow = make_mix_lanes(WIDE_BATCH), make_mix_lanes(1)
tile_wide, tile_narrow = make_tile_mix(WIDE_BATCH, 4), make_tile_mix(1, MR)
row_wide, row_narrow = make_row_mix(WIDE_BATCH), make_row_mix(1)
