"""Sliding windows of image maps: convolution, im2col, pooling."""

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
def lay_out(padded, geometry, drive):
    """Windows of padded maps (n_images, c, H, W) as columns of `drive` (n_rows, n_vectors).

    Rows are ordered (channel, kernel_y, kernel_x), columns (image, out_y, out_x). Unsigned
    indices spare the wrap-around test, which lets the compiler copy whole vectors.
    """
    n_images, n_channels, height, width = padded.shape
    source, target = padded.ravel(), drive.ravel()
    n_vectors = drive.shape[1]
    out_w = np.uintp(geometry.out_w)
    step = np.uintp(geometry.stride_w)
    row = 0
    for c in range(n_channels):
        for ky in range(geometry.kernel_h):
            for kx in range(geometry.kernel_w):
                for image in range(n_images):
                    for oy in range(geometry.out_h):
                        y = oy * geometry.stride_h + ky * geometry.dilation_h
                        x = kx * geometry.dilation_w
                        a = np.uintp(row * n_vectors + (image * geometry.out_h + oy) * geometry.out_w)
                        b = np.uintp(((image * n_channels + c) * height + y) * width + x)
                        if geometry.stride_w == 1:
                            for ox in range(out_w):
                                target[a + ox] = source[b + ox]
                        else:
                            for ox in range(out_w):
                                target[a + ox] = source[b + ox * step]
                row += 1


@njit(cache=True, parallel=True, error_model="numpy")
def convolve(x, weights, bias, geometry, block, out):
    """Grouped 2-D convolution.

    Parameters
    ----------
    x : float32 (n_images, c_in, h, w)
    weights : float32 (n_groups, c_out / n_groups, c_in / n_groups * kernel_h * kernel_w)
    bias : float32 (c_out,)
    block : int
        Images laid out at a time.
    out : float32 (n_images, c_out, out_h, out_w)
    """
    n_images, n_channels, height, width = x.shape
    n_groups, n_out, n_rows = weights.shape
    own = n_channels // n_groups
    positions = geometry.out_h * geometry.out_w
    top, left = geometry.pad_top, geometry.pad_left
    padded_h = height + top + geometry.pad_bottom
    padded_w = width + left + geometry.pad_right
    for b in prange((n_images + block - 1) // block):
        start, stop = b * block, min(b * block + block, n_images)
        count = stop - start
        padded = np.zeros((count, own, padded_h, padded_w), dtype=np.float32)
        drive = np.empty((n_rows, count * positions), dtype=np.float32)
        product = np.empty((n_out, count * positions), dtype=np.float32)
        for g in range(n_groups):
            for image in range(count):
                for c in range(own):
                    source = x[start + image, g * own + c]
                    for y in range(height):
                        padded[image, c, y + top, left : left + width] = source[y]
            lay_out(padded, geometry, drive)
            np.dot(weights[g], drive, product)
            for image in range(count):
                for c in range(n_out):
                    target = out[start + image, g * n_out + c].reshape(positions)
                    source_row = product[c, image * positions : (image + 1) * positions]
                    shift = bias[g * n_out + c]
                    for i in range(target.size):
                        target[i] = source_row[i] + shift


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
