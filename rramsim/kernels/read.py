"""Array reads: drive word lines, multiply, add noise, convert, sum over tiles, slices and input bits.

Two entries share the conversion: `read_rows` takes a matrix of codes (vectors by word lines),
`read_maps` the activation map of a convolution, which it multiplies without laying out its
windows (`rramsim.kernels.convolution`). A draw of noise is keyed by (channel pair, tile, pass)
and the vector's number: neither entry, batch nor thread count changes it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from rramsim.kernels.convolution import (
    fill_planes,
    multiply,
    plane_shape,
    source_size,
    tap_offsets,
    wide_pitch,
)
from rramsim.kernels.random import mix64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK = np.uint64(4095)
_12, _24, _36 = np.uint64(12), np.uint64(24), np.uint64(36)


class Conversion(NamedTuple):
    """What every conversion of a layer needs."""

    gain: float  # ADC codes per (channel conductance x DAC step)
    sigma: float  # noise at the ADC input, in ADC codes; 0 draws nothing
    code_max: float  # largest ADC code
    adc_key: np.uint64
    read_key: np.uint64
    first_vector: int  # number of the call's first vector in the life of the layer


@njit(cache=True, inline="always")
def _pair_key(key, pair, counter):
    """Key of the draws of two neighbouring channels in one tile and pass."""
    return mix64(mix64(key + _GOLDEN * np.uint64(pair + 1)) + _GOLDEN * np.uint64(counter + 1))


@njit(cache=True, inline="always")
def _two_normals(key, vector, table):
    """Two standard normal numbers from one 64-bit hash: each the sum of two table entries."""
    bits = mix64(key + _GOLDEN * vector)
    return (
        table[bits & _MASK] + table[(bits >> _12) & _MASK],
        table[(bits >> _24) & _MASK] + table[(bits >> _36) & _MASK],
    )


@njit(cache=True, inline="always")
def _driven(code, bit, sign):
    """Drive of a code in one pass: its value, one bit of its magnitude, or one polarity of either."""
    if sign != 0 and code * sign < 0:
        return np.float32(0.0)
    if bit < 0:
        return np.float32(code * sign if sign != 0 else code)
    set_bit = (abs(np.int64(code)) >> bit) & 1
    return np.float32(-set_bit if (code < 0 and sign == 0) else set_bit)


@njit(cache=True, error_model="numpy")
def _add_noise(current, variance, key, first, counter, table):
    """Add noise of the given variance to currents (n_channels, n_vectors)."""
    n_channels, n_vectors = current.shape
    for pair in range((n_channels + 1) // 2):
        pair_key = _pair_key(key, pair, counter)
        one, two = current[2 * pair], current[min(2 * pair + 1, n_channels - 1)]
        var_one, var_two = variance[2 * pair], variance[min(2 * pair + 1, n_channels - 1)]
        last = 2 * pair + 1 == n_channels
        for n in range(np.uint64(n_vectors)):
            z_one, z_two = _two_normals(pair_key, np.uint64(first) + n, table)
            one[n] += np.sqrt(var_one[n]) * z_one
            if not last:
                two[n] += np.sqrt(var_two[n]) * z_two


@njit(cache=True, error_model="numpy")
def _fill_noise(key, first, counter, table, sigma, noise):
    """ADC noise in codes for one tile and pass, (n_channels, n_vectors)."""
    n_channels, n_vectors = noise.shape
    spread = np.float32(sigma)
    for pair in range((n_channels + 1) // 2):
        pair_key = _pair_key(key, pair, counter)
        one, two = noise[2 * pair], noise[min(2 * pair + 1, n_channels - 1)]
        # an odd last channel writes its own row twice: the second number first, then the first
        for n in range(np.uint64(n_vectors)):
            z_one, z_two = _two_normals(pair_key, np.uint64(first) + n, table)
            two[n] = spread * z_two
            one[n] = spread * z_one


@njit(cache=True, error_model="numpy")
def _convert(current, noise, gain, code_max, scale, total, saturated, base, pitch):
    """Convert currents (n_channels, n_vectors) and add the scaled codes.

    The codes of output o go to total[base + o pitch + n]; `total` and `saturated` are flat, which
    tells the compiler that a row is contiguous.
    """
    n_slices, count = scale.size, current.shape[1]
    limit, factor = np.float32(code_max), np.float32(gain)
    noisy = noise.shape[0] > 0
    for c in range(current.shape[0]):
        at = base + c // n_slices * pitch
        out, marks = total[at : at + count], saturated[at : at + count]
        weight, row = scale[c % n_slices], current[c]
        if noisy:
            extra = noise[c]
            for n in range(count):
                code = np.rint(row[n] * factor + extra[n])
                marks[n] |= abs(code) >= limit
                out[n] += np.int32(min(max(code, -limit), limit)) * weight
        else:
            for n in range(count):
                code = np.rint(row[n] * factor)
                marks[n] |= abs(code) >= limit
                out[n] += np.int32(min(max(code, -limit), limit)) * weight


@njit(cache=True, error_model="numpy")
def _finish_tile(
    current, spread, common, reference_of, conversion, first, counter, scale, table, total, saturated,
    base, pitch,
):  # fmt: skip
    """Noise and conversion of one tile's currents (n_channels, n_vectors) in one pass.

    spread : variance of the channels' own cells, (n_channels or 0, n_vectors)
    common : variance of the reference lines, (n_references, n_vectors)
    """
    if spread.shape[0] > 0:
        _add_noise(current, spread, conversion.read_key, first, 2 * counter, table)
    if common.shape[0] > 0:
        draws = np.zeros_like(common)
        _add_noise(draws, common, conversion.read_key, first, 2 * counter + 1, table)
        for c in range(current.shape[0]):
            current[c] -= draws[reference_of[c]]
    noise = np.empty((current.shape[0] if conversion.sigma > 0.0 else 0, current.shape[1]), dtype=np.float32)
    if noise.shape[0] > 0:
        _fill_noise(conversion.adc_key, first, counter, table, conversion.sigma, noise)
    _convert(current, noise, conversion.gain, conversion.code_max, scale, total, saturated, base, pitch)


@njit(cache=True, error_model="numpy")
def _product(flat, top, bottom, drive, out):
    """out = (tile's matrix) @ drive, the matrix stored tile after tile, each (n_out, rows)."""
    n_out = out.shape[0]
    if n_out > 0:
        np.dot(flat[n_out * top : n_out * bottom].reshape(n_out, bottom - top), drive[top:bottom], out)


@njit(cache=True, parallel=True, error_model="numpy")
def read_rows(
    codes, passes, tiles, weights, variances, references, reference_of, n_channels, conversion, scales,
    table, block, total, saturated,
):  # fmt: skip
    """Read a matrix of codes.

    Parameters
    ----------
    codes : integer (n_vectors, n_rows)
    passes : int64 (n_passes, 2)
        Bit (-1: amplitude) and sign (0: both) of each array read.
    tiles : int64 (n_row_tiles, 2)
    weights, variances, references : float32, flat
        Tile after tile (n_channels, rows): effective channel conductance, and variance of its own
        cells; (n_references, rows): variance of the reference lines. The last two may be empty.
    reference_of : int64 (n_channels,)
        Reference line of each channel.
    n_channels : int64 (3,)
        Columns of the three matrices (0 where there are none).
    scales : int64 (n_passes, n_slices)
        Digital weight of each channel of a column.
    block : int
        Vectors laid out at a time.
    total : int32 or int64 (n_row_tiles or 1, n_out, n_vectors)
    saturated : bool, same shape
    """
    n_vectors, n_rows = codes.shape
    n_passes = passes.shape[0]
    codes_flat, marks_flat = total.reshape(-1), saturated.reshape(-1)
    for b in prange((n_vectors + block - 1) // block):
        start = b * block
        stop = min(start + block, n_vectors)
        count = stop - start
        drive = np.empty((n_rows, count), dtype=np.float32)
        current = np.empty((n_channels[0], count), dtype=np.float32)
        spread = np.empty((n_channels[1], count), dtype=np.float32)
        common = np.empty((n_channels[2], count), dtype=np.float32)
        first = conversion.first_vector + start
        for p in range(n_passes):
            bit, sign = passes[p, 0], passes[p, 1]
            for n in range(count):
                for i in range(n_rows):
                    drive[i, n] = _driven(codes[start + n, i], bit, sign)
            squares = np.square(drive) if variances.size > 0 else drive
            for t in range(tiles.shape[0]):
                top, bottom = tiles[t, 0], tiles[t, 1]
                _product(weights, top, bottom, drive, current)
                _product(variances, top, bottom, squares, spread)
                _product(references, top, bottom, squares, common)
                tile = t if total.shape[0] > 1 else 0
                _finish_tile(
                    current, spread, common, reference_of, conversion, first, t * n_passes + p, scales[p],
                    table, codes_flat, marks_flat, tile * total.shape[1] * n_vectors + start, n_vectors,
                )  # fmt: skip


@njit(cache=True, error_model="numpy")
def _drive_map(codes, bit, sign, drive):
    """Drive of every pixel of an integer map (c, h, w) in one pass."""
    if bit < 0 and sign == 0:
        for c in range(codes.shape[0]):
            for y in range(codes.shape[1]):
                source, target = codes[c, y], drive[c, y]
                for x in range(source.size):
                    target[x] = np.float32(source[x])
    else:
        for c in range(codes.shape[0]):
            for y in range(codes.shape[1]):
                for x in range(codes.shape[2]):
                    drive[c, y, x] = _driven(codes[c, y, x], bit, sign)


@njit(cache=True, error_model="numpy")
def _window_product(packed, planes, offsets, first, last, geometry, pitch, wide, out):
    """Taps first..last of every window of one image, without the positions between output rows."""
    if out.shape[0] == 0:
        return
    n_positions = (geometry.out_h - 1) * pitch + geometry.out_w
    multiply(wide, n_positions, packed, planes, offsets, first, last)
    width = wide_pitch(n_positions)
    for c in range(out.shape[0]):
        for y in range(geometry.out_h):
            source = wide[c * width + y * pitch : c * width + y * pitch + geometry.out_w]
            target = out[c, y * geometry.out_w : (y + 1) * geometry.out_w]
            for x in range(target.size):
                target[x] = source[x]


@njit(cache=True, parallel=True, error_model="numpy")
def read_maps(
    maps, geometry, passes, tiles, weights, variances, references, reference_of, n_channels, conversion,
    scales, table, total, saturated,
):  # fmt: skip
    """Read every window of integer maps (n_images, c, h, w).

    weights, variances, references : float32, flat, of `rramsim.kernels.convolution.pack_weights`
    All else as for `read_rows`.
    """
    n_images, n_maps, height, width = maps.shape
    positions = geometry.out_h * geometry.out_w
    n_vectors = n_images * positions
    n_passes = passes.shape[0]
    codes_flat, marks_flat = total.reshape(-1), saturated.reshape(-1)
    offsets = tap_offsets(n_maps, height, width, geometry)
    _, pitch = plane_shape(height, width, geometry)
    n_source = source_size(n_maps, height, width, geometry)
    n_wide = wide_pitch((geometry.out_h - 1) * pitch + geometry.out_w) * max(weights.size, references.size, 1)
    n_wide //= offsets.size
    for image in prange(n_images):
        drive = np.empty((n_maps, height, width), dtype=np.float32)
        planes = np.zeros(n_source, dtype=np.float32)
        squares = np.zeros(n_source if n_channels[1] > 0 else 0, dtype=np.float32)
        wide = np.empty(n_wide, dtype=np.float32)
        current = np.empty((n_channels[0], positions), dtype=np.float32)
        spread = np.empty((n_channels[1], positions), dtype=np.float32)
        common = np.empty((n_channels[2], positions), dtype=np.float32)
        start = image * positions
        first = conversion.first_vector + start
        for p in range(n_passes):
            _drive_map(maps[image], passes[p, 0], passes[p, 1], drive)
            fill_planes(drive, geometry, planes)
            for i in range(squares.size):
                squares[i] = planes[i] * planes[i]
            for t in range(tiles.shape[0]):
                top, bottom = tiles[t, 0], tiles[t, 1]
                _window_product(weights, planes, offsets, top, bottom, geometry, pitch, wide, current)
                _window_product(variances, squares, offsets, top, bottom, geometry, pitch, wide, spread)
                _window_product(references, squares, offsets, top, bottom, geometry, pitch, wide, common)
                tile = t if total.shape[0] > 1 else 0
                _finish_tile(
                    current, spread, common, reference_of, conversion, first, t * n_passes + p, scales[p],
                    table, codes_flat, marks_flat, tile * total.shape[1] * n_vectors + start, n_vectors,
                )  # fmt: skip


@njit(cache=True, error_model="numpy")
def convert_currents(current, counter, conversion, scale, table, total, saturated):
    """Convert given currents (n_channels, n_vectors) in units of `conversion.gain`."""
    none = np.empty((0, current.shape[1]), dtype=np.float32)
    _finish_tile(
        current, none, none, np.empty(0, dtype=np.int64), conversion, conversion.first_vector, counter,
        scale, table, total.reshape(-1), saturated.reshape(-1), 0, current.shape[1],
    )  # fmt: skip


@njit(cache=True, error_model="numpy")
def count_codes(codes, code_max, histogram):
    """Add one to histogram[i, code_max + codes[n, i]] for every vector n and word line i."""
    for n in range(codes.shape[0]):
        for i in range(codes.shape[1]):
            histogram[i, code_max + codes[n, i]] += 1


@njit(cache=True, error_model="numpy")
def count_map_codes(maps, row_class, col_class, code_max, histogram):
    """Add one to histogram[c, class of y, class of x, code] for every pixel of integer maps."""
    for image in range(maps.shape[0]):
        for c in range(maps.shape[1]):
            for y in range(maps.shape[2]):
                for x in range(maps.shape[3]):
                    histogram[c, row_class[y], col_class[x], code_max + maps[image, c, y, x]] += 1
