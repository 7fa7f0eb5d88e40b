"""Inner loops of `rramsim.kernels.read` and `host` on 16 lanes (`rramsim.kernels.simd`)."""

from __future__ import annotations

from numba import njit, types
from numba.extending import intrinsic

from rramsim.kernels import plain
from rramsim.kernels.simd import I32, INDEX, Vectors, ir, twin

LANES = 16
_I8, _FLOAT = ir.IntType(8), ir.FloatType()


@intrinsic
def _convert_lanes(typingctx, current, at, noise, noise_at, gain, sigma, limit, weight, out, out_at, marks):
    """out[out_at + i] += weight round(gain current[at + i] + sigma noise[noise_at + i]) for 16 i.

    current, noise : float32, flat; out : int32 or int64, flat; marks : bool, flat, set where the code is
    cut at +-limit. Currents in units of 1 / gain, noise in standard deviations, the rest in ADC codes.
    """
    signature = types.void(
        current, types.intp, noise, types.intp, types.float32, types.float32, types.float32, out.dtype, out,
        types.intp, marks,
    )  # fmt: skip

    def build(context, builder, sig, args):
        lanes = Vectors(context, builder, types.float32, LANES)
        c_data, n_data, o_data, m_data = (lanes.data(sig.args[i], args[i]) for i in (0, 2, 8, 10))
        at, noise_at, out_at = args[1], args[3], args[9]
        gain, sigma, limit = (lanes.spread(args[i]) for i in (4, 5, 6))
        # product and sum are rounded one by one, as in the scalar loop that does the last few vectors
        code = builder.fadd(
            builder.fmul(gain, lanes.load(c_data, at, _FLOAT)),
            builder.fmul(sigma, lanes.load(n_data, noise_at, _FLOAT)),
        )
        code = lanes.call("rint", code)
        beyond = builder.fcmp_ordered(">=", lanes.call("fabs", code), limit)
        lowest = builder.fneg(limit)
        code = builder.select(builder.fcmp_ordered(">", code, lowest), code, lowest)
        code = builder.select(builder.fcmp_ordered("<", code, limit), code, limit)
        step, total = builder.fptosi(code, lanes.ints), context.get_value_type(sig.args[8].dtype)
        if total != I32:
            step = builder.sext(step, lanes.of(total))
        step = builder.mul(step, lanes.spread(args[7]))
        lanes.store(builder.add(lanes.load(o_data, out_at, total), step), o_data, out_at)
        mark = builder.zext(beyond, lanes.of(_I8))
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
        lanes = Vectors(context, builder, types.float32, LANES)
        source, target = lanes.data(sig.args[0], args[0]), lanes.data(sig.args[3], args[3])
        lane = context.get_value_type(sig.args[0].dtype)
        rows = []
        for n in range(LANES):
            here = builder.add(args[1], builder.mul(args[2], ir.Constant(INDEX, n)))
            row = lanes.load(source, here, lane)
            rows.append(row if lane == I32 else builder.sext(row, lanes.ints))
        for i, row in enumerate(lanes.transposed(rows)):
            if sig.args[3].dtype == types.float32:
                row = builder.sitofp(row, lanes.vector)
            here = builder.add(args[4], builder.mul(args[5], ir.Constant(INDEX, i)))
            lanes.store(row, target, here)
        return context.get_dummy_value()

    return signature, build


convert_lanes = twin(_convert_lanes, plain.make_convert_lanes(LANES))
turn_lanes = twin(_turn_lanes, plain.make_turn_lanes(LANES))


@njit(cache=True, error_model="numpy")
def turn(codes, turned, pitch):
    """turned[i pitch + n] = codes[n, i]; int16 or int32 to int32 or float32."""
    n_vectors, n_rows = codes.shape
    flat = codes.reshape(-1)
    whole_v, whole_r = n_vectors // LANES * LANES, n_rows // LANES * LANES
    for i in range(0, whole_r, LANES):
        for n in range(0, whole_v, LANES):
            turn_lanes(flat, n * n_rows + i, n_rows, turned, i * pitch + n, pitch)
    for n in range(n_vectors):
        for i in range(whole_r if n < whole_v else 0, n_rows):
            turned[i * pitch + n] = codes[n, i]
