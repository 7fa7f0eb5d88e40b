"""Array reads: drive word lines, multiply, add noise, convert, sum over tiles, slices and input bits.

Two entries share everything but the layout of their inputs: `read_rows` takes a matrix of codes
(vectors by word lines), `read_maps` the activation map of a convolution, which it multiplies
without laying out its windows (`rramsim.kernels.convolution`). Register tiles of a few channels are
noised and converted while they are in the first-level cache. A draw of noise is keyed by (group of
channels, tile, pass) and the vector's number: neither entry, batch nor thread count changes it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from rramsim.kernels.convolution import (
    CHANNELS,
    POSITIONS_AT_ONCE,
    fill_planes,
    multiply_block,
    source_size,
    tap_offsets,
    wide_pitch,
)
from rramsim.kernels.counter import mix64
from rramsim.kernels.curved import add_terms, bend
from rramsim.kernels.read_simd import LANES, convert_lanes, turn

ROWS_AT_ONCE = 128  # vectors laid out at a time by `read_rows`: a tile's drive stays in the cache
GROUP = 4  # channels whose noise comes from the same hash
SHARED = 3  # products of a tile's two sums of drive: upper^2, upper x lower, lower^2

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK = np.uint64(4095)
_12, _24, _36 = np.uint64(12), np.uint64(24), np.uint64(36)


class Matrices(NamedTuple):
    """What the arrays of a layer hold.

    weights, variances, references : float32, flat, of `pack_weights`
        Effective channel conductance, read-noise variance of the channel's own cells, and that of
        the reference lines; the last two empty without read noise.
    reference_of : int64 (n_channels,)
        Position of each channel's reference line.
    coupling, reference_coupling : float32 (n_row_tiles, SHARED, n_channels or n_references)
        Variance that the drops on wires add, per square and product of the sums of drive over the
        upper and the lower half of a tile's word lines; empty without wires.
    n_channels, n_references : int
    """

    weights: np.ndarray
    variances: np.ndarray
    references: np.ndarray
    reference_of: np.ndarray
    coupling: np.ndarray
    reference_coupling: np.ndarray
    n_channels: int
    n_references: int


class Conversion(NamedTuple):
    """What every conversion of a layer needs."""

    gain: float  # ADC codes per (channel conductance x DAC step)
    sigma: float  # noise at the ADC input, in ADC codes; 0 draws nothing
    code_max: float  # largest ADC code
    adc_key: np.uint64
    read_key: np.uint64
    first_vector: int  # number of the call's first vector in the life of the layer
    passes: np.ndarray  # int64 (n_passes, 2): bit (-1: amplitude) and sign (0: both) of each array read
    scales: np.ndarray  # int64 (n_passes, n_slices): digital weight of each channel of a column
    tiles: np.ndarray  # int64 (n_row_tiles, 2): word lines of each row tile
    table: np.ndarray  # float32 (4096,): `rramsim.streams.normal_table`
    adc_gain: np.ndarray  # float32 (n_row_tiles, n_channels): factor of each ADC; empty for ideal ones
    adc_offset: np.ndarray  # float32, same shape [ADC codes]
    adc_edges: np.ndarray  # float32 (n_row_tiles, n_channels, 2 code_max): input [ADC codes] at which
    # the code -code_max + 1, ... begins; empty where all steps are equal


@njit(cache=True, inline="always")
def _group_key(key, group, counter):
    """Key of the draws of neighbouring channels in one tile and pass."""
    return mix64(mix64(key + _GOLDEN * np.uint64(group + 1)) + _GOLDEN * np.uint64(counter + 1))


@njit(cache=True, inline="always")
def _four_normals(key, vector, table):
    """Four standard normal numbers from one 64-bit hash.

    Sum and difference of two independent normal table entries of equal variance are independent.
    """
    bits = mix64(key + _GOLDEN * vector)
    a, b = table[bits & _MASK], table[(bits >> _12) & _MASK]
    c, d = table[(bits >> _24) & _MASK], table[(bits >> _36) & _MASK]
    return a + b, a - b, c + d, c - d


@njit(cache=True, error_model="numpy")
def _normals(key, first, counter, group, table, out, pitch, count):
    """Standard normal numbers of one group of channels: out[i pitch + n], i < GROUP."""
    own = _group_key(key, group, counter)
    one, two = out[:count], out[pitch : pitch + count]
    three, four = out[2 * pitch : 2 * pitch + count], out[3 * pitch : 3 * pitch + count]
    for n in range(np.uint64(count)):
        one[n], two[n], three[n], four[n] = _four_normals(own, np.uint64(first) + n, table)


@njit(cache=True, error_model="numpy")
def _add_scaled(current, variance, normal):
    """current += sqrt(variance) * normal, all flat."""
    for n in range(current.size):
        current[n] += np.sqrt(variance[n]) * normal[n]


@njit(cache=True, error_model="numpy")
def _add_coupled(current, variance, normal, shared, width, per_square, per_product, per_lower):
    """current += sqrt(variance + what the drops on wires add) * normal for one channel."""
    upper, both, lower = shared[:width], shared[width : 2 * width], shared[2 * width : 3 * width]
    for n in range(current.size):
        total = variance[n] + per_square * upper[n] + per_product * both[n] + per_lower * lower[n]
        current[n] += np.sqrt(max(total, np.float32(0.0))) * normal[n]


@njit(cache=True, error_model="numpy")
def _share_drive(planes, offsets, source, count, top, bottom, width, shared):
    """Squares and product of the sums of drive over the upper and lower half of word lines top..bottom."""
    upper, lower = shared[:width], shared[2 * width : 3 * width]
    both = shared[width : 2 * width]
    upper[:] = 0.0
    lower[:] = 0.0
    middle = (top + bottom) // 2
    _accumulate(upper[:count], planes, offsets, source, top, middle)
    _accumulate(lower[:count], planes, offsets, source, middle, bottom)
    for n in range(count):
        a, b = upper[n], lower[n]
        upper[n], both[n], lower[n] = a * a, a * b, b * b


@njit(cache=True, error_model="numpy")
def _accumulate(total, planes, offsets, source, first, last):
    """Add the drive of word lines first..last, four at a time: the sums are loaded and stored less often."""
    whole = first + (last - first) // 4 * 4
    for i in range(first, whole, 4):
        a, b = planes[offsets[i] + source :], planes[offsets[i + 1] + source :]
        c, d = planes[offsets[i + 2] + source :], planes[offsets[i + 3] + source :]
        for n in range(total.size):
            total[n] += (a[n] + b[n]) + (c[n] + d[n])
    for i in range(whole, last):
        a = planes[offsets[i] + source :]
        for n in range(total.size):
            total[n] += a[n]


@njit(cache=True, error_model="numpy")
def _convert_imperfect(
    current, at, noise, noise_at, count, gain, offset, sigma, limit, edges, weight, out, out_at, marks
):
    """`_convert` of an ADC with its own gain, offset [codes] and, if any, edges of its steps."""
    for n in range(count):
        x = current[at + n] * gain + offset + sigma * noise[noise_at + n]
        code = min(max(np.rint(x), -limit), limit)
        if edges.size > 0:
            step = int(code + limit)
            while step > 0 and x < edges[step - 1]:
                step -= 1
            while step < edges.size and x >= edges[step]:
                step += 1
            code = np.float32(step) - limit
        marks[out_at + n] |= abs(code) >= limit
        out[out_at + n] += np.int32(code) * weight


@njit(cache=True, error_model="numpy")
def _convert(current, at, noise, noise_at, count, gain, sigma, limit, weight, out, out_at, marks):
    """Convert one channel's currents and add the scaled codes; `noise` counts if sigma > 0."""
    done = count // LANES * LANES
    for n in range(0, done, LANES):
        convert_lanes(
            current, at + n, noise, noise_at + n, gain, sigma, limit, weight, out, out_at + n, marks
        )
    for n in range(done, count):
        code = np.rint(current[at + n] * gain + sigma * noise[noise_at + n])
        marks[out_at + n] |= abs(code) >= limit
        out[out_at + n] += np.int32(min(max(code, -limit), limit)) * weight


@njit(cache=True, error_model="numpy")
def _convert_each(
    current, pitch, count, first_channel, rows, conversion, counter, scale, noise, total, saturated, base,
    out_pitch,
):  # fmt: skip
    """Convert `rows` channels from `first_channel` on, each by an ADC with errors of its own."""
    n_slices, tile = scale.size, counter // conversion.passes.shape[0]
    sigma, limit = np.float32(conversion.sigma), np.float32(conversion.code_max)
    for r in range(rows):
        c = first_channel + r
        gain = np.float32(conversion.gain) * conversion.adc_gain[tile, c]
        edges = conversion.adc_edges[tile, c] if conversion.adc_edges.size > 0 else conversion.table[:0]
        _convert_imperfect(
            current, r * pitch, noise, r * pitch, count, gain, conversion.adc_offset[tile, c], sigma, limit,
            edges, scale[c % n_slices], total, base + c // n_slices * out_pitch, saturated,
        )  # fmt: skip


@njit(cache=True, error_model="numpy")
def _convert_block(
    current, pitch, count, block, n_channels, conversion, first, counter, scale, noise, total, saturated,
    base, out_pitch,
):  # fmt: skip
    """Convert up to CHANNELS channels of `count` vectors each, current[r pitch + n].

    The codes of output o go to total[base + o out_pitch + n]; all arrays are flat, which tells the
    compiler that a row is contiguous.
    """
    n_slices = scale.size
    gain, sigma = np.float32(conversion.gain), np.float32(conversion.sigma)
    limit = np.float32(conversion.code_max)
    rows = min(CHANNELS, n_channels - block * CHANNELS)
    if conversion.sigma > 0.0:
        for r in range(0, rows, GROUP):
            group = (block * CHANNELS + r) // GROUP
            _normals(
                conversion.adc_key, first, counter, group, conversion.table, noise[r * pitch :], pitch, count
            )
    if conversion.adc_gain.size > 0:
        _convert_each(
            current, pitch, count, block * CHANNELS, rows, conversion, counter, scale, noise, total,
            saturated, base, out_pitch,
        )  # fmt: skip
        return
    for r in range(rows):
        c = block * CHANNELS + r
        _convert(
            current, r * pitch, noise, r * pitch, count, gain, sigma, limit, scale[c % n_slices], total,
            base + c // n_slices * out_pitch, saturated,
        )  # fmt: skip


@njit(cache=True, error_model="numpy")
def _noisy_product(
    weights, terms, noisy, block, rows, planes, curved, squares, offsets, source, count, top, bottom,
    variances, key, first,
    counter, table, coupling, shared, work, out,
):  # fmt: skip
    """Currents of a block of channels at `count` positions with the noise of their own cells."""
    width = wide_pitch(count)
    spread, normal = work
    wired = coupling.size > 0
    if weights.size > 0:
        multiply_block(out, width, count, weights, block, planes, source, offsets, top, bottom)
        if terms.cubic.size > 0:
            add_terms(terms, block, planes, curved, offsets, source, count, top, bottom, work, out)
    if noisy:
        multiply_block(spread, width, count, variances, block, squares, source, offsets, top, bottom)
        for r in range(0, rows, GROUP):
            last = (r + GROUP) * width
            _normals(key, first, counter, (block * CHANNELS + r) // GROUP, table, normal, width, count)
            if not wired:
                _add_scaled(out[r * width : last], spread[r * width : last], normal[: GROUP * width])
                continue
            for k in range(min(GROUP, coupling.shape[1] - block * CHANNELS - r)):
                c, here = block * CHANNELS + r + k, slice((r + k) * width, (r + k) * width + count)
                _add_coupled(
                    out[here], spread[here], normal[k * width :], shared, width,
                    coupling[0, c], coupling[1, c], coupling[2, c],
                )  # fmt: skip


@njit(cache=True, error_model="numpy")
def _read_positions(
    planes, curved, squares, offsets, source, count, matrices, terms, conversion, index, first, total,
    saturated, base, out_pitch, tile_step, work,
):  # fmt: skip
    """One pass over `count` positions of planes: product, noise, conversion of every tile.

    Tiles follow one another for the same channels, so that their sums stay in the cache.
    """
    width = wide_pitch(count)
    current, spread, normal, common, shared = work
    n_channels, table = matrices.n_channels, conversion.table
    n_passes, scale = conversion.passes.shape[0], conversion.scales[index]
    n_tiles = conversion.tiles.shape[0]
    noisy = matrices.variances.size > 0
    n_common = (matrices.n_references + CHANNELS - 1) // CHANNELS
    wired = noisy and matrices.coupling.size > 0
    nothing = np.empty((0, 0), dtype=np.float32)
    for t in range(n_tiles):
        sums = shared[t * SHARED * width : (t + 1) * SHARED * width]
        if wired:
            top, bottom = conversion.tiles[t, 0], conversion.tiles[t, 1]
            _share_drive(planes, offsets, source, count, top, bottom, width, sums)
        for block in range(n_common):
            at = (t * n_common + block) * CHANNELS * width
            here = common[at : at + CHANNELS * width]
            here[:] = 0.0
            _noisy_product(
                matrices.weights[:0], terms, True, block, CHANNELS, planes, curved, squares, offsets,
                source, count,
                conversion.tiles[t, 0], conversion.tiles[t, 1], matrices.references, conversion.read_key,
                first, 2 * (t * n_passes + index) + 1, table,
                matrices.reference_coupling[t] if wired else nothing, sums, (spread, normal), here,
            )  # fmt: skip
    for block in range((n_channels + CHANNELS - 1) // CHANNELS):
        rows = min(CHANNELS, n_channels - block * CHANNELS)
        for t in range(n_tiles):
            counter = t * n_passes + index
            _noisy_product(
                matrices.weights, terms, noisy, block, rows, planes, curved, squares, offsets,
                source, count,
                conversion.tiles[t, 0], conversion.tiles[t, 1], matrices.variances, conversion.read_key,
                first, 2 * counter, table, matrices.coupling[t] if wired else nothing,
                shared[t * SHARED * width : (t + 1) * SHARED * width], (spread, normal), current,
            )  # fmt: skip
            if n_common > 0:
                for r in range(rows):
                    line = matrices.reference_of[block * CHANNELS + r] + t * n_common * CHANNELS
                    _subtract(current[r * width : r * width + count], common[line * width :])
            _convert_block(
                current, width, count, block, n_channels, conversion, first, counter, scale, normal, total,
                saturated, base + t * tile_step, out_pitch,
            )  # fmt: skip


@njit(cache=True, error_model="numpy")
def _subtract(current, common):
    for n in range(current.size):
        current[n] -= common[n]


@njit(cache=True, error_model="numpy")
def _workspace(count, n_references, n_tiles):
    """Buffers of `_read_positions` for up to `count` positions."""
    width = CHANNELS * wide_pitch(count)
    n_common = (n_references + CHANNELS - 1) // CHANNELS * n_tiles
    return (
        np.empty(width, dtype=np.float32),
        np.zeros(width, dtype=np.float32),
        np.zeros(width, dtype=np.float32),
        np.empty(n_common * width, dtype=np.float32),
        np.empty(n_tiles * SHARED * wide_pitch(count), dtype=np.float32),
    )


@njit(cache=True, error_model="numpy")
def _drive(codes, bit, sign, drive):
    """Drive of codes in one pass: their value, one bit of the magnitude, or one polarity of either."""
    if bit < 0:
        for i in range(codes.size):
            drive[i] = codes[i]
    else:
        for i in range(codes.size):
            set_bit = (abs(codes[i]) >> bit) & 1
            drive[i] = -set_bit if codes[i] < 0 else set_bit
    if sign != 0:
        factor = np.float32(sign)
        for i in range(codes.size):
            drive[i] = max(drive[i] * factor, np.float32(0.0))


@njit(cache=True, parallel=True, error_model="numpy")
def read_rows(codes, begin, end, matrices, terms, conversion, curves, n_threads, total, saturated):
    """Read vectors begin..end of a matrix of codes.

    Parameters
    ----------
    codes : integer (n_vectors, n_rows)
    matrices, terms : Matrices, Terms
    conversion, curves : Conversion, Curves
    n_threads : int
        Runs of vectors (of images) with buffers of their own.
    total : int32 or int64 (n_row_tiles or 1, n_out, n_vectors)
        Codes are added to it.
    saturated : bool, same shape
    """
    n_vectors, n_rows = codes.shape
    sums, marks = total.reshape(-1), saturated.reshape(-1)
    pitch = wide_pitch(min(end - begin, ROWS_AT_ONCE))
    offsets = np.arange(n_rows) * pitch
    noisy = matrices.variances.size > 0
    tile_step = total.shape[1] * n_vectors if total.shape[0] > 1 else 0
    n_chunks = (end - begin + ROWS_AT_ONCE - 1) // ROWS_AT_ONCE
    n_parts = min(n_threads, n_chunks)
    # one pass of amplitudes drives the codes themselves
    plain = conversion.passes.shape[0] == 1 and conversion.passes[0, 0] < 0 and conversion.passes[0, 1] == 0
    for part in prange(n_parts):
        turned = np.zeros(0 if plain else n_rows * pitch, dtype=np.int32)
        drive = np.zeros(n_rows * pitch, dtype=np.float32)
        squares = np.empty(drive.size if noisy else 0, dtype=np.float32)
        n_curved = drive.size if terms.cubic.size > 0 else 0
        curved = (np.zeros(n_curved, dtype=np.float32), np.zeros(n_curved, dtype=np.float32))
        work = _workspace(pitch, matrices.n_references, conversion.tiles.shape[0])
        for chunk in range(part * n_chunks // n_parts, (part + 1) * n_chunks // n_parts):
            start = begin + chunk * ROWS_AT_ONCE
            count = min(ROWS_AT_ONCE, end - start)
            if plain:
                turn(codes[start : start + count], drive, pitch)
            else:
                turn(codes[start : start + count], turned, pitch)
            for p in range(conversion.passes.shape[0]):
                if not plain:
                    _drive(turned, conversion.passes[p, 0], conversion.passes[p, 1], drive)
                bend(curves, drive, curved, squares)
                _read_positions(
                    drive, curved, squares, offsets, 0, count, matrices, terms, conversion, p,
                    conversion.first_vector + start, sums, marks, start, n_vectors, tile_step, work,
                )  # fmt: skip


@njit(cache=True, parallel=True, error_model="numpy")
def read_maps(maps, begin, end, geometry, matrices, terms, conversion, curves, n_threads, total, saturated):
    """Read every window of images begin..end of integer maps (n_images, c, h, w); see `read_rows`."""
    n_images, n_maps, height, width = maps.shape
    positions = geometry.out_h * geometry.out_w
    n_vectors = n_images * positions
    sums, marks = total.reshape(-1), saturated.reshape(-1)
    offsets = tap_offsets(n_maps, height, geometry)
    n_source = source_size(n_maps, height, geometry)
    at_once = min(positions, POSITIONS_AT_ONCE)
    noisy = matrices.variances.size > 0
    tile_step = total.shape[1] * n_vectors if total.shape[0] > 1 else 0
    n_parts, n_here = min(n_threads, end - begin), end - begin
    for part in prange(n_parts):
        drive = np.empty((n_maps, height, width), dtype=np.float32)
        planes = np.zeros(n_source, dtype=np.float32)
        squares = np.empty(n_source if noisy else 0, dtype=np.float32)
        n_curved = n_source if terms.cubic.size > 0 else 0
        curved = (np.zeros(n_curved, dtype=np.float32), np.zeros(n_curved, dtype=np.float32))
        work = _workspace(at_once, matrices.n_references, conversion.tiles.shape[0])
        for image in range(begin + part * n_here // n_parts, begin + (part + 1) * n_here // n_parts):
            for p in range(conversion.passes.shape[0]):
                bit, sign = conversion.passes[p, 0], conversion.passes[p, 1]
                _drive(maps[image].reshape(-1), bit, sign, drive.reshape(-1))
                fill_planes(drive, geometry, planes)
                bend(curves, planes, curved, squares)
                for source in range(0, positions, at_once):
                    start = image * positions + source
                    _read_positions(
                        planes, curved, squares, offsets, source, min(at_once, positions - source), matrices,
                        terms, conversion, p, conversion.first_vector + start, sums, marks, start, n_vectors,
                        tile_step, work,
                    )  # fmt: skip


@njit(cache=True, error_model="numpy")
def convert_currents(current, counter, index, conversion, total, saturated):
    """Convert given currents (n_channels, n_vectors) in units of `conversion.gain` in one pass."""
    n_channels, count = current.shape
    width = wide_pitch(count)
    padded, noise = np.zeros(CHANNELS * width, dtype=np.float32), np.zeros(CHANNELS * width, dtype=np.float32)
    for block in range((n_channels + CHANNELS - 1) // CHANNELS):
        for r in range(min(CHANNELS, n_channels - block * CHANNELS)):
            padded[r * width : r * width + count] = current[block * CHANNELS + r]
        _convert_block(
            padded, width, count, block, n_channels, conversion, conversion.first_vector, counter,
            conversion.scales[index], noise, total.reshape(-1), saturated.reshape(-1), 0, count,
        )  # fmt: skip


@njit(cache=True, error_model="numpy")
def count_codes(codes, code_max, histogram):
    """Add one to histogram[i, code_max + codes[n, i]] for every vector n and word line i."""
    side = 16  # word lines at a time, whose counts stay in the cache
    for i0 in range(0, codes.shape[1], side):
        last = min(i0 + side, codes.shape[1])
        for n in range(codes.shape[0]):
            for i in range(i0, last):
                histogram[i, code_max + codes[n, i]] += 1


@njit(cache=True, error_model="numpy")
def count_map_codes(maps, row_class, col_class, code_max, histogram):
    """Add one to histogram[c, class of y, class of x, code] for every pixel of integer maps."""
    n_codes = histogram.shape[3]
    for image in range(maps.shape[0]):
        for c in range(maps.shape[1]):
            counts = histogram[c].reshape(-1)
            for y in range(maps.shape[2]):
                row, base = maps[image, c, y], row_class[y] * histogram.shape[2]
                for x in range(row.size):
                    counts[np.uint64((base + col_class[x]) * n_codes + code_max + row[x])] += 1
