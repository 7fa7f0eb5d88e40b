"""Inner loops of `rramsim.kernels.read` and `host` on 16 lanes, written in LLVM's terms.

LLVM by itself neither vectorises a conversion with its marks nor turns a block of codes. Without JIT
(``NUMBA_DISABLE_JIT=1``) plain NumPy takes their place. Numba's cache of those modules
does not notice edits here: `make clean` after one.
"""

from __future__ import annotations

import numpy as np
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
_ir = cgutils.ir
_I8, _I16, _I32, _I64 = (_ir.IntType(n) for n in (8, 16, 32, 64))
_BYTES = {_I8: 1, _I16: 2, _I32: 4, _I64: 8, _ir.FloatType(): 4}
_FLOATS = _ir.VectorType(_ir.FloatType(), LANES)
_INTS = _ir.VectorType(_I32, LANES)


class _Lanes:
    """Vectors of 16 lanes in the function being built."""

    def __init__(self, context, builder):
        self.context, self.builder = context, builder

    def data(self, arrty, array):
        return self.context.make_array(arrty)(self.context, self.builder, array).data

    def pointer(self, data, index, lane):
        place = self.builder.gep(data, [index])
        return self.builder.bitcast(place, _ir.VectorType(lane, LANES).as_pointer())

    def load(self, data, index, lane):
        value = self.builder.load(self.pointer(data, index, lane))
        value.align = _BYTES[lane]
        return value

    def store(self, value, data, index):
        lane = value.type.element
        self.builder.store(value, self.pointer(data, index, lane)).align = _BYTES[lane]

    def spread(self, value):
        undefined = _ir.Constant(_ir.VectorType(value.type, LANES), _ir.Undefined)
        one = self.builder.insert_element(undefined, value, _ir.Constant(_I32, 0))
        return self.builder.shuffle_vector(one, undefined, _ir.Constant(_INTS, [0] * LANES))

    def call(self, name, *args):
        kind = _ir.FunctionType(_FLOATS, [_FLOATS] * len(args))
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.v{LANES}f32"), args
        )


@intrinsic
def convert_lanes(typingctx, current, at, noise, noise_at, gain, sigma, limit, weight, out, out_at, marks):
    """out[out_at + i] += weight round(gain current[at + i] + sigma noise[noise_at + i]) for 16 i."""
    signature = types.void(
        current, types.intp, noise, types.intp, types.float32, types.float32, types.float32, out.dtype, out,
        types.intp, marks,
    )  # fmt: skip

    def build(context, builder, sig, args):
        lanes = _Lanes(context, builder)
        c_data, n_data, o_data, m_data = (lanes.data(sig.args[i], args[i]) for i in (0, 2, 8, 10))
        at, noise_at, out_at = args[1], args[3], args[9]
        gain, sigma, limit = (lanes.spread(args[i]) for i in (4, 5, 6))
        # product and sum are rounded one by one, as in the scalar loop that does the last few vectors
        code = builder.fadd(
            builder.fmul(gain, lanes.load(c_data, at, _ir.FloatType())),
            builder.fmul(sigma, lanes.load(n_data, noise_at, _ir.FloatType())),
        )
        code = lanes.call("rint", code)
        beyond = builder.fcmp_ordered(">=", lanes.call("fabs", code), limit)
        lowest = builder.fneg(limit)
        code = builder.select(builder.fcmp_ordered(">", code, lowest), code, lowest)
        code = builder.select(builder.fcmp_ordered("<", code, limit), code, limit)
        step, total = builder.fptosi(code, _INTS), context.get_value_type(sig.args[8].dtype)
        if total != _I32:
            step = builder.sext(step, _ir.VectorType(total, LANES))
        step = builder.mul(step, lanes.spread(args[7]))
        lanes.store(builder.add(lanes.load(o_data, out_at, total), step), o_data, out_at)
        mark = builder.zext(beyond, _ir.VectorType(_I8, LANES))
        lanes.store(builder.or_(lanes.load(m_data, out_at, _I8), mark), m_data, out_at)
        return context.get_dummy_value()

    return signature, build


@intrinsic
def _turn_lanes(typingctx, codes, at, stride, out, out_at, pitch):
    """out[out_at + i pitch + n] = codes[at + n stride + i] for 16 x 16 codes."""
    if codes.dtype not in (types.int16, types.int32) or out.dtype not in (types.int32, types.float32):
        return None
    signature = types.void(codes, types.intp, types.intp, out, types.intp, types.intp)

    def build(context, builder, sig, args):
        lanes = _Lanes(context, builder)
        source, target = lanes.data(sig.args[0], args[0]), lanes.data(sig.args[3], args[3])
        lane = context.get_value_type(sig.args[0].dtype)
        rows = []
        for n in range(LANES):
            here = builder.add(args[1], builder.mul(args[2], _ir.Constant(_I64, n)))
            row = lanes.load(source, here, lane)
            rows.append(row if lane == _I32 else builder.sext(row, _INTS))
        for half in (8, 4, 2, 1):  # exchange off-diagonal blocks of ever smaller size
            low = [i if not i & half else LANES + i - half for i in range(LANES)]
            high = [i + half if not i & half else LANES + i for i in range(LANES)]
            for n in range(LANES):
                if not n & half:
                    a, b = rows[n], rows[n + half]
                    rows[n] = builder.shuffle_vector(a, b, _ir.Constant(_INTS, low))
                    rows[n + half] = builder.shuffle_vector(a, b, _ir.Constant(_INTS, high))
        for i, row in enumerate(rows):
            if sig.args[3].dtype == types.float32:
                row = builder.sitofp(row, _FLOATS)
            here = builder.add(args[4], builder.mul(args[5], _ir.Constant(_I64, i)))
            lanes.store(row, target, here)
        return context.get_dummy_value()

    return signature, build


if config.DISABLE_JIT:

    def convert_lanes(current, at, noise, noise_at, gain, sigma, limit, weight, out, out_at, marks):
        """NumPy's turn without JIT."""
        here = slice(out_at, out_at + LANES)
        code = np.rint(gain * current[at : at + LANES] + sigma * noise[noise_at : noise_at + LANES])
        marks[here] |= np.abs(code) >= limit
        out[here] += np.clip(code, -limit, limit).astype(out.dtype) * weight

    def _turn_lanes(codes, at, stride, out, out_at, pitch):
        """NumPy's turn without JIT."""
        place = np.arange(LANES)
        out[out_at + place[:, None] * pitch + place] = codes[at + place * stride + place[:, None]]


@njit(cache=True, error_model="numpy")
def turn(codes, turned, pitch):
    """turned[i pitch + n] = codes[n, i]; int16 or int32 to int32 or float32."""
    n_vectors, n_rows = codes.shape
    flat = codes.reshape(-1)
    whole_v, whole_r = n_vectors // LANES * LANES, n_rows // LANES * LANES
    for i in range(0, whole_r, LANES):
        for n in range(0, whole_v, LANES):
            _turn_lanes(flat, n * n_rows + i, n_rows, turned, i * pitch + n, pitch)
    for n in range(n_vectors):
        for i in range(whole_r if n < whole_v else 0, n_rows):
            turned[i * pitch + n] = codes[n, i]
