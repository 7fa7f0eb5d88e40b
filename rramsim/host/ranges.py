"""Ranges of converters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_range"]

RANGE_VECTORS = 20_000  # input vectors that decide an ADC range


def best_range(samples: NDArray[Any], code_max: int, noise: float = 0.0) -> float:
    """Converter range with the least mean squared error of rounding, noise and clipping.

    Parameters
    ----------
    samples : ndarray
        Values to be converted.
    code_max : int
        Largest code (symmetric converter).
    noise : float
        Noise before the converter, in units of range / code_max.

    Returns
    -------
    float
        The range, at most the largest magnitude; the smallest positive number for all-zero samples.
    """
    magnitude = np.abs(np.asarray(samples, dtype=np.float64)).ravel()
    largest = magnitude.max(initial=0.0)
    if largest == 0.0:
        return float(np.finfo(np.float32).tiny)
    candidates = largest * np.linspace(0.2, 1.0, 33)
    step = candidates / code_max
    magnitude = np.sort(magnitude)
    clipped = [np.square(magnitude[np.searchsorted(magnitude, top) :] - top).sum() for top in candidates]
    error = np.asarray(clipped) / magnitude.size + step**2 * (1.0 / 12.0 + noise**2)
    return float(candidates[np.argmin(error)])
