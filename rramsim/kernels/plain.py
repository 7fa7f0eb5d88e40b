"""NumPy twins of every function built by `rramsim.kernels.simd`, for ``NUMBA_DISABLE_JIT=1``.

They are read to see what a built function computes, and run where compilation is switched off;
arguments as there. The order of additions may differ.
"""

import numpy as np


def lane_weights(c, code, start, degree, weights, w0):
    v = 64 // c.itemsize
    near = c.reshape(-1, v)[code[start : start + degree]]
    total = near.sum(axis=0)
    inverse = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0.0)
    weights[w0 : w0 + degree * v] = (near * inverse).ravel()


def make_mix_lanes(n_vectors):
    def mix_lanes(y, target, weights, w0, nodes, start, degree):
        v = 64 // y.itemsize
        lanes = y.reshape(-1, n_vectors * v)
        lanes[target] = weights[w0 + np.arange(degree) * v] @ lanes[nodes[start : start + degree]]

    return mix_lanes


def make_tile_mix(n_vectors, n_rows):
    def tile_mix(x, out, first, p, p0, sliver, n_slivers):
        v = 64 // x.itemsize
        lanes = n_vectors * v
        k = np.arange(n_slivers)[:, None] * sliver + np.arange(v)
        rows = p[p0 + np.arange(n_rows)[:, None] * v + k.ravel()]
        values = x[first : first + n_slivers * v * lanes].reshape(-1, lanes)
        x[out : out + n_rows * lanes] = (rows @ values).ravel()

    return tile_mix


def make_row_mix(n_vectors):
    def row_mix(x, own, p, p0, n_after, root):
        lanes = n_vectors * (64 // x.itemsize)
        rows = x[own : own + (n_after + 1) * lanes].reshape(-1, lanes)
        rows[0] = (rows[0] + p[p0 : p0 + n_after] @ rows[1:]) * root

    return row_mix


def sums_to_end(x, x0, ldx, n_blocks, s, s0):
    v = 64 // x.itemsize
    n = n_blocks * v
    rows = x[x0 + np.arange(v)[:, None] * ldx + np.arange(n)]
    s[s0 : s0 + n * v] = np.cumsum(rows[:, ::-1], axis=1)[:, ::-1].T.ravel()


def drops_along(s, s0, n_blocks, far, r_end, r, access, x, y, x0, ldx):
    v = 64 // x.itemsize
    n = n_blocks * v
    currents = s[s0 : s0 + n * v].reshape(n, v) - far[:v]
    drop = r_end * currents[0] + np.cumsum(r * currents, axis=0)
    at = x0 + np.arange(v)[:, None] * ldx + np.arange(n)
    y[at] = drop.T + access * x[at]


def turn(y, y0, y_step, v, v0, v_step):
    k = np.arange(64 // y.itemsize)
    v[v0 + k[:, None] * v_step + k] = y[y0 + k[:, None] * y_step + k].T


def make_tile_update(mr, ns):
    def tile_update(c, c0, ldc, p, a0, b0, sliver, n_k):
        v = 64 // p.itemsize
        k = np.arange(n_k)[:, None] * v
        a = p[a0 + k + np.arange(mr)]
        columns = (np.arange(ns)[:, None] * sliver + np.arange(v)).ravel()
        b = p[b0 + k + columns]
        target = c0 + np.arange(mr)[:, None] * ldc + np.arange(ns * v)
        c[target] += a.T @ b

    return tile_update


def row_sums(z, z0, ldz, n_vectors, sums):
    v = 64 // z.itemsize
    rows = z[z0 + np.arange(v)[:, None] * ldz + np.arange(n_vectors * v)]
    sums[:] = rows.reshape(v, n_vectors, v).sum(axis=1).sum(axis=1)


def solve_sliver(z, z0, ldz, u, scale, scale0, p, p0):
    v = 64 // z.itemsize
    for r in range(v):
        row = z[z0 + r * ldz : z0 + r * ldz + v].copy()
        for k in range(r):
            row += u[k * v + r] * p[p0 + k * v : p0 + (k + 1) * v]
        p[p0 + r * v : p0 + (r + 1) * v] = row * scale[scale0 + r]


def eliminate_lanes(c, code, start, degree):
    v = 64 // c.itemsize
    lanes = c.reshape(-1, v)
    own = code[start : start + degree]
    total = lanes[own].sum(axis=0)
    inverse = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0.0)
    at = start + degree
    for a in range(degree):
        lanes[code[at : at + a]] += lanes[own[a]] * inverse * lanes[own[:a]]
        at += a
    lanes[own] = 0.0


def make_convert_lanes(n_lanes):
    def convert_lanes(current, at, noise, noise_at, gain, sigma, limit, weight, out, out_at, marks):
        here = slice(out_at, out_at + n_lanes)
        code = np.rint(gain * current[at : at + n_lanes] + sigma * noise[noise_at : noise_at + n_lanes])
        marks[here] |= np.abs(code) >= limit
        out[here] += np.clip(code, -limit, limit).astype(out.dtype) * weight

    return convert_lanes


def make_turn_lanes(n_lanes):
    def turn_lanes(codes, at, stride, out, out_at, pitch):
        place = np.arange(n_lanes)
        out[out_at + place[:, None] * pitch + place] = codes[at + place * stride + place[:, None]]

    return turn_lanes


def make_tile(n_channels, n_positions):
    def tile(out, out_at, pitch, weights, weights_at, source, source_at, offsets, first, last):
        for r in range(n_channels):
            total = np.zeros(n_positions, dtype=np.float32)
            for k in range(first, last):
                at = source_at + offsets[k]
                total += weights[weights_at + k * n_channels + r] * source[at : at + n_positions]
            out[out_at + r * pitch : out_at + r * pitch + n_positions] = total

    return tile
