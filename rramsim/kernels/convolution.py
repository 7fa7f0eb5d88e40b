"""Convolution without im2col: multiply-accumulate straight from padded activation maps.

A padded map is stored as stride x stride planes (one per phase of the row and column), so that
every kernel tap reads consecutive numbers. Sums run over all positions of a plane's pitch; the
few positions between two output rows are computed and ignored, which costs less than moving data.
"""

from __future__ import annotations

import numpy as np
from numba import config, njit, prange, types
from numba.extending import intrinsic

from rramsim.kernels.nodal_simd import WIDE, _Block

CHANNELS = 8 if WIDE else 4  # outputs of a register tile
VECTORS = 2 if WIDE else 1  # 64-byte vectors of positions of a register tile
POSITIONS = 16 * VECTORS


@intrinsic
def _tile(typingctx, out, out_at, pitch, weights, weights_at, source, source_at, offsets, first, last):
    """Row r of `out`: sum over taps k of weights[k CHANNELS + r] source[offsets[k] + i]."""
    if not all(isinstance(a, types.Array) and a.dtype == types.float32 for a in (out, weights, source)):
        return None
    integers = [types.intp] * 2
    signature = types.void(out, *integers, weights, types.intp, source, types.intp, offsets, *integers)

    def build(context, builder, sig, args):
        block = _Block(context, builder, out.dtype)
        out_data, w_data, s_data = (block.data(sig.args[i], args[i]) for i in (0, 3, 5))
        offset_data = context.make_array(sig.args[7])(context, builder, args[7]).data
        out_at, pitch, w_at, s_at, first, last = (args[i] for i in (1, 2, 4, 6, 8, 9))
        count = builder.sub(last, first)
        with block.loop(count, [block.zero] * (CHANNELS * VECTORS)) as loop:
            k = builder.add(first, loop.index)
            offset = builder.load(builder.gep(offset_data, [k]))
            here = builder.add(s_at, offset)
            columns = [block.load(s_data, block.at(here, n, block.width)) for n in range(VECTORS)]
            row = block.at(w_at, k, CHANNELS)
            for r in range(CHANNELS):
                w = block.spread(block.load_scalar(w_data, block.at(row, r, 1)))
                for n in range(VECTORS):
                    i = r * VECTORS + n
                    loop.next[i] = block.fma(w, columns[n], loop.results[i])
        for r in range(CHANNELS):
            for n in range(VECTORS):
                at = block.at(block.at(out_at, r, pitch), n, block.width)
                block.store(loop.results[r * VECTORS + n], out_data, at)
        return context.get_dummy_value()

    return signature, build


if config.DISABLE_JIT:

    def _tile(out, out_at, pitch, weights, weights_at, source, source_at, offsets, first, last):
        """NumPy's turn without JIT."""
        for r in range(CHANNELS):
            total = np.zeros(POSITIONS, dtype=np.float32)
            for k in range(first, last):
                at = source_at + offsets[k]
                total += weights[weights_at + k * CHANNELS + r] * source[at : at + POSITIONS]
            out[out_at + r * pitch : out_at + r * pitch + POSITIONS] = total


@njit(cache=True, inline="always")
def wide_pitch(n_positions):
    """Positions rounded up to whole register tiles."""
    return (n_positions + POSITIONS - 1) // POSITIONS * POSITIONS


@njit(cache=True, error_model="numpy")
def multiply(out, n_positions, weights, source, offsets, first, last):
    """Sum taps first..last of one image into `out`.

    Parameters
    ----------
    out : float32, flat
        (n_blocks * CHANNELS, pitch) with pitch = n_positions rounded up to POSITIONS.
    weights : float32, flat
        (n_blocks, n_taps, CHANNELS), see `pack_weights`.
    source : float32, flat
        Padded planes of one image, with POSITIONS numbers of slack behind.
    offsets : int64 (n_taps,)
        Where each tap's plane begins for output position 0.
    """
    n_taps = offsets.size
    n_blocks = weights.size // (n_taps * CHANNELS)
    pitch = wide_pitch(n_positions)
    for start in range(0, pitch, POSITIONS):
        for block in range(n_blocks):
            _tile(
                out,
                block * CHANNELS * pitch + start,
                pitch,
                weights,
                block * n_taps * CHANNELS,
                source,
                start,
                offsets,
                first,
                last,
            )


@njit(cache=True, error_model="numpy")
def plane_shape(height, width, geometry):
    """Rows and pitch of one phase plane of a padded map."""
    rows = (height + geometry.pad_top + geometry.pad_bottom + geometry.stride_h - 1) // geometry.stride_h
    pitch = (width + geometry.pad_left + geometry.pad_right + geometry.stride_w - 1) // geometry.stride_w
    return rows, pitch


@njit(cache=True, error_model="numpy")
def source_size(n_channels, height, width, geometry):
    """Numbers to allocate for the planes of one image: every register tile may read past its row."""
    rows, pitch = plane_shape(height, width, geometry)
    return n_channels * geometry.stride_h * geometry.stride_w * rows * pitch + pitch + POSITIONS


@njit(cache=True, error_model="numpy")
def tap_offsets(n_channels, height, width, geometry):
    """Offset of every tap (channel, kernel_y, kernel_x) into the planes of one image."""
    rows, pitch = plane_shape(height, width, geometry)
    plane = rows * pitch
    phases = geometry.stride_h * geometry.stride_w
    offsets = np.empty(n_channels * geometry.kernel_h * geometry.kernel_w, dtype=np.int64)
    k = 0
    for c in range(n_channels):
        for ky in range(geometry.kernel_h):
            y = ky * geometry.dilation_h
            for kx in range(geometry.kernel_w):
                x = kx * geometry.dilation_w
                phase = (y % geometry.stride_h) * geometry.stride_w + x % geometry.stride_w
                inside = (y // geometry.stride_h) * pitch + x // geometry.stride_w
                offsets[k] = (c * phases + phase) * plane + inside
                k += 1
    return offsets


@njit(cache=True, error_model="numpy")
def fill_planes(x, geometry, planes):
    """Copy a float32 map (c, h, w) into its padded planes; `planes` was zero where padding is."""
    n_channels, height, width = x.shape
    rows, pitch = plane_shape(height, width, geometry)
    stride_h, stride_w = geometry.stride_h, geometry.stride_w
    plane = rows * pitch
    for c in range(n_channels):
        for y in range(height):
            above = y + geometry.pad_top
            row = ((c * stride_h + above % stride_h) * stride_w) * plane + (above // stride_h) * pitch
            source = x[c, y]
            if stride_w == 1:
                target = planes[row + geometry.pad_left : row + geometry.pad_left + width]
                for i in range(width):
                    target[i] = source[i]
            else:
                for phase in range(stride_w):
                    skip = (phase - geometry.pad_left) % stride_w
                    left = skip + geometry.pad_left
                    at = row + phase * plane + left // stride_w
                    count = (width - skip + stride_w - 1) // stride_w
                    target = planes[at : at + max(count, 0)]
                    for i in range(target.size):
                        target[i] = source[skip + i * stride_w]


def pack_weights(matrix):
    """Weights (n_taps, n_out) as (n_blocks, n_taps, CHANNELS), zero-filled; flat float32."""
    n_taps, n_out = matrix.shape
    n_blocks = -(-n_out // CHANNELS)
    padded = np.zeros((n_taps, n_blocks * CHANNELS), dtype=np.float32)
    padded[:, :n_out] = matrix
    return np.ascontiguousarray(padded.reshape(n_taps, n_blocks, CHANNELS).transpose(1, 0, 2)).ravel()


@njit(cache=True, parallel=True, error_model="numpy")
def convolve(x, weights, n_groups, bias, geometry, out):
    """Grouped 2-D convolution of float32 maps.

    Parameters
    ----------
    x : float32 (n_images, c_in, h, w)
    weights : float32 (n_groups, size)
        `pack_weights` of each group's matrix.
    bias : float32 (c_out,)
    out : float32 (n_images, c_out, out_h, out_w)
    """
    n_images, n_channels, height, width = x.shape
    own, n_out = n_channels // n_groups, bias.size // n_groups
    offsets = tap_offsets(own, height, width, geometry)
    _, pitch = plane_shape(height, width, geometry)
    n_positions = (geometry.out_h - 1) * pitch + geometry.out_w
    wide = wide_pitch(n_positions)
    n_source = source_size(own, height, width, geometry)
    for image in prange(n_images):
        planes = np.zeros(n_source, dtype=np.float32)
        product = np.empty(weights.shape[1] // offsets.size * wide, dtype=np.float32)
        for g in range(n_groups):
            fill_planes(x[image, g * own : (g + 1) * own], geometry, planes)
            multiply(product, n_positions, weights[g], planes, offsets, 0, offsets.size)
            for c in range(n_out):
                shift = bias[g * n_out + c]
                for y in range(geometry.out_h):
                    source = product[c * wide + y * pitch : c * wide + y * pitch + geometry.out_w]
                    target = out[image, g * n_out + c, y]
                    for i in range(target.size):
                        target[i] = source[i] + shift
