"""Array reads: drive word lines, multiply, add noise, convert, sum over tiles, slices and input bits.

Two entries share the conversion: `read_rows` takes a matrix of codes (vectors by word lines),
`read_maps` the activation map of a convolution, from which it lays out the vectors of a few
images at a time so that they stay in the second-level cache (on-the-fly im2col). A draw of
noise is keyed by (channel pair, tile, pass) and the vector's number: neither entry, batch nor
thread count changes it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from rramsim.kernels.random import mix64
from rramsim.kernels.windows import lay_out

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
def _convert(current, noise, gain, code_max, scale, total, saturated):
    """Convert currents (n_channels, n_vectors) and add the scaled codes to (n_out, n_vectors)."""
    n_slices = scale.size
    limit, factor = np.float32(code_max), np.float32(gain)
    noisy = noise.size > 0
    for c in range(current.shape[0]):
        out, weight = total[c // n_slices], scale[c % n_slices]
        marks, row = saturated[c // n_slices], current[c]
        if noisy:
            extra = noise[c]
            for n in range(row.size):
                code = np.rint(row[n] * factor + extra[n])
                marks[n] |= abs(code) >= limit
                out[n] += np.int64(min(max(code, -limit), limit)) * weight
        else:
            for n in range(row.size):
                code = np.rint(row[n] * factor)
                marks[n] |= abs(code) >= limit
                out[n] += np.int64(min(max(code, -limit), limit)) * weight


@njit(cache=True, error_model="numpy")
def _read_block(
    drive, n_passes, index, tiles, weights, variances, references, reference_of, conversion, first,
    scale, table, total, saturated,
):  # fmt: skip
    """Read one block of vectors in one pass through every row tile.

    drive : float32 (n_rows, n_vectors); overwritten by its squares when there is read noise
    weights, variances : float32 (n_channels * n_rows,), tile after tile, each (n_channels, rows)
    references : float32 likewise for reference lines; `reference_of` maps channels to lines
    total, saturated : (n_row_tiles or 1, n_out, n_vectors)
    """
    n_rows, n_vectors = drive.shape
    n_channels = weights.size // n_rows
    n_references = references.size // n_rows
    current = np.empty((n_channels, n_vectors), dtype=np.float32)
    noisy_adc, noisy_cells = conversion.sigma > 0.0, variances.size > 0
    noise = np.empty((n_channels if noisy_adc else 0, n_vectors), dtype=np.float32)
    spread = np.empty((n_channels if noisy_cells else 0, n_vectors), dtype=np.float32)
    common = np.empty((n_references, n_vectors), dtype=np.float32)
    for t in range(tiles.shape[0]):
        top, bottom = tiles[t, 0], tiles[t, 1]
        rows = bottom - top
        counter = t * n_passes + index
        matrix = weights[n_channels * top : n_channels * bottom].reshape(n_channels, rows)
        np.dot(matrix, drive[top:bottom], current)
        if noisy_cells:
            squares = np.square(drive[top:bottom])
            matrix = variances[n_channels * top : n_channels * bottom].reshape(n_channels, rows)
            np.dot(matrix, squares, spread)
            _add_noise(current, spread, conversion.read_key, first, 2 * counter, table)
            if n_references > 0:
                matrix = references[n_references * top : n_references * bottom].reshape(n_references, rows)
                draws = np.zeros((n_references, n_vectors), dtype=np.float32)
                np.dot(matrix, squares, common)
                _add_noise(draws, common, conversion.read_key, first, 2 * counter + 1, table)
                for c in range(n_channels):
                    current[c] -= draws[reference_of[c]]
        if noisy_adc:
            _fill_noise(conversion.adc_key, first, counter, table, conversion.sigma, noise)
        out = t if total.shape[0] > 1 else 0
        _convert(current, noise, conversion.gain, conversion.code_max, scale, total[out], saturated[out])


@njit(cache=True, parallel=True, error_model="numpy")
def read_rows(
    codes, passes, tiles, weights, variances, references, reference_of, conversion, scales, table,
    block, total, saturated,
):  # fmt: skip
    """Read a matrix of codes.

    Parameters
    ----------
    codes : integer (n_vectors, n_rows)
    passes : int64 (n_passes, 2)
        Bit (-1: amplitude) and sign (0: both) of each array read.
    tiles : int64 (n_row_tiles, 2)
    scales : int64 (n_passes, n_slices)
        Digital weight of each channel of a column.
    block : int
        Vectors laid out at a time.
    total : int32 or int64 (n_row_tiles or 1, n_out, n_vectors)
    saturated : bool, same shape
    """
    n_vectors, n_rows = codes.shape
    for b in prange((n_vectors + block - 1) // block):
        start = b * block
        stop = min(start + block, n_vectors)
        drive = np.empty((n_rows, stop - start), dtype=np.float32)
        for p in range(passes.shape[0]):
            bit, sign = passes[p, 0], passes[p, 1]
            for n in range(stop - start):
                for i in range(n_rows):
                    drive[i, n] = _driven(codes[start + n, i], bit, sign)
            _read_block(
                drive, passes.shape[0], p, tiles, weights, variances, references, reference_of, conversion,
                conversion.first_vector + start, scales[p], table,
                total[:, :, start:stop], saturated[:, :, start:stop],
            )  # fmt: skip


@njit(cache=True, parallel=True, error_model="numpy")
def read_maps(
    maps, geometry, passes, tiles, weights, variances, references, reference_of, conversion, scales,
    table, block, total, saturated,
):  # fmt: skip
    """Read every window of integer maps (n_images, c, h, w); see `read_rows`, `block` in images."""
    n_images, n_channels, height, width = maps.shape
    per_image = geometry.out_h * geometry.out_w
    top, left = geometry.pad_top, geometry.pad_left
    padded_h = height + top + geometry.pad_bottom
    padded_w = width + left + geometry.pad_right
    n_rows = n_channels * geometry.kernel_h * geometry.kernel_w
    for b in prange((n_images + block - 1) // block):
        start = b * block
        stop = min(start + block, n_images)
        padded = np.zeros((stop - start, n_channels, padded_h, padded_w), dtype=np.float32)
        drive = np.empty((n_rows, (stop - start) * per_image), dtype=np.float32)
        for p in range(passes.shape[0]):
            bit, sign = passes[p, 0], passes[p, 1]
            for image in range(stop - start):
                for c in range(n_channels):
                    for y in range(height):
                        for x in range(width):
                            padded[image, c, y + top, x + left] = _driven(
                                maps[start + image, c, y, x], bit, sign
                            )
            lay_out(padded, geometry, drive)
            _read_block(
                drive, passes.shape[0], p, tiles, weights, variances, references, reference_of, conversion,
                conversion.first_vector + start * per_image, scales[p], table,
                total[:, :, start * per_image : stop * per_image],
                saturated[:, :, start * per_image : stop * per_image],
            )  # fmt: skip


@njit(cache=True, error_model="numpy")
def convert_currents(current, counter, conversion, scale, table, total, saturated):
    """Convert given currents (n_channels, n_vectors) in units of `conversion.gain`."""
    noise = np.empty((current.shape[0] if conversion.sigma > 0.0 else 0, current.shape[1]), dtype=np.float32)
    if conversion.sigma > 0.0:
        _fill_noise(conversion.adc_key, conversion.first_vector, counter, table, conversion.sigma, noise)
    _convert(current, noise, conversion.gain, conversion.code_max, scale, total, saturated)


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
