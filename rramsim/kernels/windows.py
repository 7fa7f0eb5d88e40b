"""Image maps: im2col, pooling, and channels scaled and shifted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange


class Geometry(NamedTuple):
    """Window on a padded map; lengths in pixels."""

    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_top: int
    pad_left: int
    pad_bottom: int
    pad_right: int
    out_h: int
    out_w: int


@njit(cache=True, error_model="numpy")
def im2col(x, geometry, out):
    """Windows of maps (n_images, c, h, w) of any number type as rows of `out` (n_vectors, n_rows)."""
    n_images, n_channels, height, width = x.shape
    vector = 0
    for image in range(n_images):
        for oy in range(geometry.out_h):
            for ox in range(geometry.out_w):
                row = 0
                for c in range(n_channels):
                    for ky in range(geometry.kernel_h):
                        y = oy * geometry.stride_h + ky * geometry.dilation_h - geometry.pad_top
                        for kx in range(geometry.kernel_w):
                            xx = ox * geometry.stride_w + kx * geometry.dilation_w - geometry.pad_left
                            inside = 0 <= y < height and 0 <= xx < width
                            out[vector, row] = x[image, c, y, xx] if inside else 0
                            row += 1
                vector += 1


@njit(cache=True, error_model="numpy")
def _window_counts(size, before, after, kernel, stride, dilation, count_padding, counts):
    """Positions of each window along one axis that count in an average."""
    for o in range(counts.size):
        counts[o] = 0
        for k in range(kernel):
            i = o * stride + k * dilation - before
            if 0 <= i < size or (count_padding and -before <= i < size + after):
                counts[o] += 1


@njit(cache=True, error_model="numpy", inline="always")
def _take(source, stride, average, target):
    """Add or maximise with every `stride`-th number."""
    if average:
        for i in range(target.size):
            target[i] += source[i * stride]
    elif stride == 2:  # a constant step lets the compiler shuffle
        for i in range(target.size):
            target[i] = max(target[i], source[2 * i])
    else:
        for i in range(target.size):
            target[i] = max(target[i], source[i * stride])


@njit(cache=True, parallel=True, error_model="numpy")
def pool(x, geometry, average, count_padding, out):
    """Maximum or mean over windows of float32 maps; padding is ignored unless counted."""
    n_images, n_channels, height, width = x.shape
    g = geometry
    rows, columns = np.empty(g.out_h, dtype=np.int64), np.empty(g.out_w, dtype=np.int64)
    _window_counts(height, g.pad_top, g.pad_bottom, g.kernel_h, g.stride_h, g.dilation_h, count_padding, rows)
    _window_counts(
        width, g.pad_left, g.pad_right, g.kernel_w, g.stride_w, g.dilation_w, count_padding, columns
    )
    before = g.pad_left - np.arange(g.kernel_w) * g.dilation_w  # column -before is the first output's
    first = np.maximum(0, -(-before // g.stride_w))
    last = np.maximum(first, np.minimum(g.out_w, (width - 1 + before) // g.stride_w + 1))
    left = first * g.stride_w - before
    for image in prange(n_images):
        for c in range(n_channels):
            for oy in range(g.out_h):
                target = out[image, c, oy]
                target[:] = 0.0 if average else -np.inf
                for ky in range(g.kernel_h):
                    y = oy * g.stride_h + ky * g.dilation_h - g.pad_top
                    if 0 <= y < height:
                        source = x[image, c, y]
                        for kx in range(g.kernel_w):
                            _take(source[left[kx] :], g.stride_w, average, target[first[kx] : last[kx]])
                if average:
                    for ox in range(g.out_w):
                        target[ox] /= np.float32(rows[oy] * columns[ox])


@njit(cache=True, parallel=True, error_model="numpy")
def scale_shift(x, factor, shift, out):
    """out = x * factor + shift per channel, maps (n_images, c, positions); `out` may be `x`."""
    for image in prange(x.shape[0]):
        for c in range(x.shape[1]):
            source, target = x[image, c], out[image, c]
            a, b = factor[c], shift[c]
            for i in range(target.size):
                target[i] = source[i] * a + b
