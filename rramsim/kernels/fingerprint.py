"""64-bit fingerprints of integer vectors."""

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy")
def fingerprints(codes, odd, result):
    """``result[n] = sum_i codes[n, i] odd[i]`` in wrapping 64-bit arithmetic."""
    for n in range(codes.shape[0]):
        total = np.int64(0)
        for i in range(codes.shape[1]):
            total += np.int64(codes[n, i]) * odd[i]
        result[n] = total
