"""Ranges of converters: what error-free cells would send to each conversion, and the best range for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.blackbox.mapping import conversion_weights, unsubtracted
from rramsim.blackbox.protocol import Datasheet

__all__ = ["best_range", "partial_sums"]

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
    magnitude = np.abs(np.asarray(samples)).ravel()
    largest = float(magnitude.max(initial=0.0))
    if largest == 0.0:
        return float(np.finfo(np.float32).tiny)
    candidates = largest * np.linspace(0.2, 1.0, 33)
    step = candidates / code_max
    # sorted as they come, in half the bytes; numbers beyond a candidate are few and become float64
    magnitude = np.sort(magnitude)
    beyond = magnitude[np.searchsorted(magnitude, candidates[0]) :].astype(np.float64)
    clipped = [np.square(beyond[np.searchsorted(beyond, top) :] - top).sum() for top in candidates]
    error = np.asarray(clipped) / magnitude.size + step**2 * (1.0 / 12.0 + noise**2)
    return float(candidates[np.argmin(error)])


def partial_sums(
    codes: NDArray[Any], levels: NDArray[np.int64], sheet: Datasheet, row_tiles: Sequence[tuple[int, int]]
) -> NDArray[np.float32]:
    """Currents that error-free cells would send to each conversion, in DAC steps (bits if bit-serial).

    Parameters
    ----------
    codes : integer ndarray, shape (n_vectors, n_rows)
        About `RANGE_VECTORS` of them are used, evenly spread.
    levels : integer ndarray, shape (n_rows, n_cols, cells_per_weight)
    row_tiles : sequence of (first, stop)

    Returns
    -------
    ndarray, shape (n_used, n_row_tiles, n_conversions)
    """
    codes = codes[:: max(1, len(codes) // RANGE_VECTORS)]
    if sheet.input_mode == "bit_serial":
        magnitude, sign = np.abs(codes.astype(np.int32)), np.sign(codes)
        planes = [((magnitude >> bit) & 1) * sign for bit in range(int(magnitude.max()).bit_length())]
        codes = np.concatenate(planes) if planes else codes
    if sheet.drive == "two_phase" and codes.min(initial=0) < 0:  # one conversion per sign of the inputs
        codes = np.concatenate([np.maximum(codes, 0), np.minimum(codes, 0)])
    weights = conversion_weights(levels, sheet.mapping, sheet.levels, per_line=sheet.adc_per_line)
    weights = weights + unsubtracted(sheet)
    flat = weights.reshape(weights.shape[0], -1).astype(np.float32)
    drive = codes.astype(np.float32)
    return np.stack([drive[:, a:b] @ flat[a:b] for a, b in row_tiles], axis=1)
