"""Analogue-to-digital conversion of tile currents, fused with noise, summation and saturation marks."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from rramsim.kernels.random import mix64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK = np.uint64(4095)


@njit(cache=True, inline="always")
def _row_noise(key, vector, tile, table, noise):
    """Fill `noise` with standard normal numbers for one vector and row tile.

    Each number is the sum of two entries of `table` (4096 normal quantiles of variance 1/2),
    so that one 64-bit hash yields two numbers; tails reach 5 standard deviations.
    """
    base = mix64(key + _GOLDEN * (np.uint64(vector) + np.uint64(1)))
    base = mix64(base + _GOLDEN * (np.uint64(tile) + np.uint64(1)))
    for pair in range(noise.size // 2):
        bits = mix64(base + _GOLDEN * np.uint64(pair))
        noise[2 * pair] = table[bits & _MASK] + table[(bits >> np.uint64(12)) & _MASK]
        noise[2 * pair + 1] = table[(bits >> np.uint64(24)) & _MASK] + table[(bits >> np.uint64(36)) & _MASK]


@njit(cache=True, parallel=True, error_model="numpy")
def convert(current, gain, sigma, code_max, key, first_vector, tile, table, scale, total, saturated):
    """Convert the currents of one row tile and add the codes to `total`.

    Parameters
    ----------
    current : float32 (n_vectors, n_columns)
        Currents before the ADC, in any unit.
    gain : float
        ADC codes per unit of current.
    sigma : float
        Noise at the ADC input in codes; 0 draws nothing.
    scale : int64 (n_columns // n_out,) is implied by `total`'s width: column c adds
        `scale[c % scale.size]` times its code to output c // scale.size.
    total : int32 (n_vectors, n_out)
        Running sum over tiles, slices and input bits.
    saturated : bool (n_vectors, n_out)
        Set where a conversion reached the end of its range.
    """
    n_columns = current.shape[1]
    n_slices = scale.size
    limit = np.float32(code_max)
    factor = np.float32(gain)
    spread = np.float32(sigma)
    for n in prange(current.shape[0]):
        noise = np.zeros(n_columns + n_columns % 2, dtype=np.float32)
        if sigma > 0.0:
            _row_noise(key, first_vector + n, tile, table, noise)
        for c in range(n_columns):
            code = np.rint(current[n, c] * factor + spread * noise[c])
            out = c // n_slices
            if abs(code) >= limit:
                saturated[n, out] = True
                code = limit if code > 0 else -limit
            total[n, out] += np.int32(code) * scale[c % n_slices]


@njit(cache=True, parallel=True, error_model="numpy")
def add_noise(current, variance, key, first_vector, tile, table):
    """Add zero-mean Gaussian noise of the given variance to `current`, both (n_vectors, n_columns)."""
    n_columns = current.shape[1]
    for n in prange(current.shape[0]):
        noise = np.empty(n_columns + n_columns % 2, dtype=np.float32)
        _row_noise(key, first_vector + n, tile, table, noise)
        for c in range(n_columns):
            current[n, c] += np.sqrt(variance[n, c]) * noise[c]
