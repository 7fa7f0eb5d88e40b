"""The host's passes over activations: quantisation before the DAC, rescaling after the ADC."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from rramsim.kernels.read_simd import turn


@njit(cache=True, parallel=True, error_model="numpy")
def quantise(x, factor, low, high, out):
    """out = round(x * factor) within [low, high]; both arrays flat, float32 to integer."""
    scale, least, most = np.float32(factor), np.float32(low), np.float32(high)
    block = 1 << 14
    for b in prange((x.size + block - 1) // block):
        source = x[b * block : min(b * block + block, x.size)]
        target = out[b * block : min(b * block + block, x.size)]
        for i in range(source.size):
            target[i] = np.int16(min(max(np.rint(source[i] * scale), least), most))


@njit(cache=True, parallel=True, error_model="numpy")
def rescale_maps(codes, gain, offset, out):
    """out[image, c, p] = codes[c, image, p] * gain[c] + offset[c].

    codes : int32 or int64 (n_cols, n_images, positions); out : float32 (n_images, n_cols, positions)
    """
    for image in prange(out.shape[0]):
        for c in range(out.shape[1]):
            target, source = out[image, c], codes[c, image]
            a, b = gain[c], offset[c]
            for p in range(target.size):
                target[p] = np.float32(source[p]) * a + b


@njit(cache=True, error_model="numpy")
def rescale_rows(codes, gain, offset, out):
    """out[n, c] = codes[c, n] * gain[c] + offset[c]; codes (n_cols, n_vectors), out float32."""
    values = np.empty(codes.shape, dtype=np.float32)
    for c in range(codes.shape[0]):
        target, source, a, b = values[c], codes[c], gain[c], offset[c]
        for n in range(target.size):
            target[n] = np.float32(source[n]) * a + b
    turn(values.view(np.int32), out.view(np.int32).reshape(-1), codes.shape[0])
