"""Noise of single reads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rramsim.cell.config import CellsConfig
from rramsim.cell.laws import polynomial

__all__ = ["fast_trap_mean", "read_sigma", "telegraph_amplitude"]

BLOCK_CELLS = 1 << 16  # cells at a time, in double precision: bounds the memory


def telegraph_amplitude(g: NDArray[np.floating], config: CellsConfig) -> NDArray[np.float64]:
    """Relative change of resistance of a captured trap, interpolated in ln G over the window."""
    telegraph, scale = config.telegraph, config.scale
    position = np.log(np.maximum(np.asarray(g, float), 1e-12) / scale.g_min) / np.log(scale.on_off_ratio)
    position = np.clip(position, 0.0, 1.0)
    return telegraph.amplitude_low + position * (telegraph.amplitude_high - telegraph.amplitude_low)


def fast_trap_mean(
    g: NDArray[np.float32], config: CellsConfig, trap: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Mean conductance [S] of cells whose marked traps switch faster than reads."""
    amplitude = telegraph_amplitude(g, config)
    captured = config.telegraph.occupancy * amplitude / (1.0 + amplitude)
    return np.where(trap > 0, g * (1.0 - captured), g).astype(np.float32)


def read_sigma(
    g: NDArray[np.float32],
    seconds: NDArray[np.float64] | None,
    config: CellsConfig,
    trap: NDArray[np.uint8] | None,
) -> NDArray[np.float32] | None:
    """Standard deviation [S] of each cell in one read, or None when no cause is on.

    `seconds` is the time since each cell's write [s], `trap` marks cells whose telegraph
    noise switches faster than reads: two-valued, represented by its variance.
    """
    noise = config.read_noise
    if trap is not None and trap.size == 0:
        trap = None
    if not noise.enabled and trap is None:
        return None
    sigma = np.empty(g.shape, np.float32)
    n_rows = max(1, BLOCK_CELLS // g.shape[1])
    for first in range(0, g.shape[0], n_rows):
        i = slice(first, first + n_rows)
        g_row = np.asarray(g[i], float)
        x = g_row / noise.g_reference
        variance = (noise.sigma_relative * g_row) ** 2
        if noise.sigma_polynomial:
            variance += polynomial(noise.sigma_polynomial, x) ** 2
        if noise.log_coefficient > 0.0 and seconds is not None:
            amplitude = noise.log_coefficient * np.log10(np.maximum(x, 1e-12)) * noise.g_reference
            grown = np.log((np.maximum(seconds[i], noise.t_read) + noise.t_read) / (2.0 * noise.t_read))
            variance += amplitude**2 * grown
        if trap is not None:
            p = config.telegraph.occupancy
            change = g_row - g_row / (1.0 + telegraph_amplitude(g_row, config))
            variance += trap[i] * p * (1.0 - p) * change**2
        sigma[i] = np.sqrt(variance)
    return sigma
