"""Sliding windows of image maps: im2col and pooling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit


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
def pool(x, geometry, average, count_padding, out):
    """Maximum or mean over windows of float32 maps; padding is ignored unless counted."""
    n_images, n_channels, height, width = x.shape
    for image in range(n_images):
        for c in range(n_channels):
            for oy in range(geometry.out_h):
                for ox in range(geometry.out_w):
                    best = np.float32(-np.inf)
                    total = np.float32(0.0)
                    count = 0
                    for ky in range(geometry.kernel_h):
                        y = oy * geometry.stride_h + ky * geometry.dilation_h - geometry.pad_top
                        for kx in range(geometry.kernel_w):
                            xx = ox * geometry.stride_w + kx * geometry.dilation_w - geometry.pad_left
                            if 0 <= y < height and 0 <= xx < width:
                                value = x[image, c, y, xx]
                                best = max(best, value)
                                total += value
                                count += 1
                            elif -geometry.pad_top <= y < height + geometry.pad_bottom and (
                                -geometry.pad_left <= xx < width + geometry.pad_right
                            ):
                                count += count_padding
                    out[image, c, oy, ox] = total / count if average else best
