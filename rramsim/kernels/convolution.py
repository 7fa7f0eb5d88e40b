"""Convolution without im2col: multiply-accumulate straight from laid-out activation maps.

A map is copied once per column of the kernel, shifted, padded and thinned by the stride, so that
every kernel tap reads consecutive numbers for consecutive outputs; rows are shared by the taps
above one another. Against im2col that saves the factor of the kernel's height, and it leaves no gaps.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange, types
from numba.extending import intrinsic

from rramsim.kernels import plain
from rramsim.kernels.simd import WIDE, Vectors, twin

CHANNELS = 8 if WIDE else 4  # outputs of a register tile
VECTORS = 2 if WIDE else 1  # 64-byte vectors of positions of a register tile
POSITIONS = 16 * VECTORS
POSITIONS_AT_ONCE = 512  # outputs of CHANNELS channels that are finished while in the first-level cache


@intrinsic
def _built_tile(typingctx, out, out_at, pitch, weights, weights_at, source, source_at, offsets, first, last):
    """Row r of `out`: sum over taps k of weights[k CHANNELS + r] source[offsets[k] + i]."""
    if not all(isinstance(a, types.Array) and a.dtype == types.float32 for a in (out, weights, source)):
        return None
    integers = [types.intp] * 2
    signature = types.void(out, *integers, weights, types.intp, source, types.intp, offsets, *integers)

    def build(context, builder, sig, args):
        block = Vectors(context, builder, out.dtype)
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


_tile = twin(_built_tile, plain.make_tile(CHANNELS, POSITIONS))


@njit(cache=True, inline="always")
def wide_pitch(n_positions):
    """Positions rounded up to whole register tiles."""
    return (n_positions + POSITIONS - 1) // POSITIONS * POSITIONS


@njit(cache=True, error_model="numpy")
def multiply_block(out, pitch, n_positions, weights, block, source, begin, offsets, first, last):
    """Sum taps first..last into CHANNELS rows of `out`.

    Parameters
    ----------
    out : float32, flat
        (CHANNELS, pitch); positions are computed in whole register tiles.
    weights : float32, flat
        (n_blocks, n_taps, CHANNELS), see `pack_weights`; `block` chooses the channels.
    source : float32, flat
        Padded planes of one image, with POSITIONS numbers of slack behind.
    begin : int
        First position.
    offsets : int64 (n_taps,)
        Where each tap's plane begins for position 0.
    """
    at = block * offsets.size * CHANNELS
    for start in range(0, n_positions, POSITIONS):
        _tile(out, start, pitch, weights, at, source, begin + start, offsets, first, last)


@njit(cache=True, error_model="numpy")
def _plane_rows(height, geometry):
    """Rows of one plane: padded input rows of one phase of the vertical stride."""
    return (height + geometry.pad_top + geometry.pad_bottom + geometry.stride_h - 1) // geometry.stride_h


@njit(cache=True, error_model="numpy")
def source_size(n_channels, height, geometry):
    """Numbers to allocate for the planes of one image: every register tile may read past its row."""
    planes = n_channels * geometry.kernel_w * geometry.stride_h
    return planes * _plane_rows(height, geometry) * geometry.out_w + geometry.out_w + POSITIONS


@njit(cache=True, error_model="numpy")
def tap_offsets(n_channels, height, geometry):
    """Offset of every tap (channel, kernel_y, kernel_x) into the planes of one image."""
    plane = _plane_rows(height, geometry) * geometry.out_w
    offsets = np.empty(n_channels * geometry.kernel_h * geometry.kernel_w, dtype=np.int64)
    k = 0
    for c in range(n_channels):
        for ky in range(geometry.kernel_h):
            y = ky * geometry.dilation_h
            for kx in range(geometry.kernel_w):
                index = (c * geometry.kernel_w + kx) * geometry.stride_h + y % geometry.stride_h
                offsets[k] = index * plane + y // geometry.stride_h * geometry.out_w
                k += 1
    return offsets


@njit(cache=True, error_model="numpy")
def fill_planes(x, geometry, planes):
    """Lay out a float32 map (c, h, w) as planes (c, kernel_x, phase of row, row, out_x).

    `planes` was zero where padding is.
    """
    n_channels, height, width = x.shape
    g, flat = geometry, x.reshape(-1)
    plane = _plane_rows(height, g) * g.out_w
    whole = g.stride_h == 1 and g.stride_w == 1 and g.out_w == width
    for c in range(n_channels):
        for kx in range(g.kernel_w):
            before = g.pad_left - kx * g.dilation_w  # column -before is the first output's
            first = max(0, -(-before // g.stride_w))
            last = min(g.out_w, (width - 1 + before) // g.stride_w + 1)
            if last <= first:
                continue
            left = first * g.stride_w - before
            at = (c * g.kernel_w + kx) * g.stride_h * plane + first
            if whole:  # all rows in one copy, then the columns that came from the neighbouring rows
                at += g.pad_top * width
                _copy(flat, c * height * width + left, 1, planes, at, height * width - first - left)
                for column in range(last - first, width) if first == 0 else range(width - first, width):
                    for y in range(height - 1 if first else height):
                        planes[at + y * width + column] = 0.0
                continue
            for phase in range(g.stride_h):
                skip = (phase - g.pad_top) % g.stride_h  # first input row of this phase
                here = at + phase * plane + (skip + g.pad_top) // g.stride_h * g.out_w
                for y in range(skip, height, g.stride_h):
                    _copy(flat, (c * height + y) * width + left, g.stride_w, planes, here, last - first)
                    here += g.out_w


@njit(cache=True, error_model="numpy", inline="always")
def _copy(source, source_at, stride, target, target_at, count):
    # slices spare the compiler the case of a negative index, which would keep it from vector copies
    target = target[target_at : target_at + count]
    source = source[source_at : source_at + (count - 1) * stride + 1]
    if stride == 1:
        for i in range(target.size):
            target[i] = source[i]
    elif stride == 2:  # a constant step lets the compiler shuffle
        for i in range(target.size):
            target[i] = source[2 * i]
    else:
        for i in range(target.size):
            target[i] = source[i * stride]


def pack_weights(matrix):
    """Weights (n_taps, n_out) as (n_blocks, n_taps, CHANNELS), zero-filled; flat float32."""
    n_taps, n_out = matrix.shape
    n_blocks = -(-n_out // CHANNELS)
    padded = np.zeros((n_taps, n_blocks * CHANNELS), dtype=np.float32)
    padded[:, :n_out] = matrix
    return np.ascontiguousarray(padded.reshape(n_taps, n_blocks, CHANNELS).transpose(1, 0, 2)).ravel()


@njit(cache=True, parallel=True, error_model="numpy")
def convolve(x, weights, n_groups, bias, geometry, n_parts, out):
    """Grouped 2-D convolution of float32 maps.

    Parameters
    ----------
    x : float32 (n_images, c_in, h, w)
    weights : float32 (n_groups, size)
        `pack_weights` of each group's matrix.
    bias : float32 (c_out,)
    n_parts : int
        Runs of images with buffers of their own: the number of threads, but no more than images.
    out : float32 (n_images, c_out, out_h, out_w)
    """
    n_images, n_channels, height, _ = x.shape
    own, n_out = n_channels // n_groups, bias.size // n_groups
    offsets = tap_offsets(own, height, geometry)
    positions = geometry.out_h * geometry.out_w
    at_once = min(positions, POSITIONS_AT_ONCE)
    width = wide_pitch(at_once)
    flat = out.reshape(-1)
    for part in prange(n_parts):
        planes = np.zeros(source_size(own, height, geometry), dtype=np.float32)
        product = np.empty(CHANNELS * width, dtype=np.float32)
        for image in range(part * n_images // n_parts, (part + 1) * n_images // n_parts):
            for g in range(n_groups):
                fill_planes(x[image, g * own : (g + 1) * own], geometry, planes)
                for start in range(0, positions, at_once):
                    count = min(at_once, positions - start)
                    for block in range((n_out + CHANNELS - 1) // CHANNELS):
                        multiply_block(
                            product, width, count, weights[g], block, planes, start, offsets, 0, offsets.size
                        )
                        for r in range(min(CHANNELS, n_out - block * CHANNELS)):
                            c = g * n_out + block * CHANNELS + r
                            at = (image * bias.size + c) * positions + start
                            _shifted(product[r * width : r * width + count], bias[c], flat[at : at + count])


@njit(cache=True, error_model="numpy")
def _shifted(source, shift, target):
    for i in range(target.size):
        target[i] = source[i] + shift
