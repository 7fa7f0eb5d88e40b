"""Cells simulated from fitted settings, beside the measured ones: the proof that a preset is the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.cell.array import CellArray
from rramsim.cell.config import CellsConfig

__all__ = ["simulated_ks", "simulated_levels", "simulated_pulses"]

N_CELLS = 20000  # simulated cells per level


def simulated_levels(config: CellsConfig, n_cells: int = N_CELLS, seed: int = 0) -> NDArray[np.float64]:
    """Conductances [S] right after one write of fresh cells, shape (n_levels, n_cells)."""
    array = CellArray((config.n_levels, n_cells), config, seed=seed)
    array.write(np.repeat(np.arange(config.n_levels)[:, None], n_cells, axis=1))
    return np.asarray(array.conductance, float)


def simulated_ks(
    config: CellsConfig, values: Sequence[NDArray[np.float64]], seed: int = 0
) -> tuple[float, ...]:
    """Two-sample KS distance per level between simulated cells and measured conductances [S]."""
    from scipy.stats import ks_2samp

    simulated = simulated_levels(config, seed=seed)
    # the distance alone: its exact p-value would take minutes for large samples
    return tuple(
        float(ks_2samp(row, cells, method="asymp").statistic)
        for row, cells in zip(values, simulated, strict=True)
    )


def simulated_pulses(config: CellsConfig, n_cells: int = N_CELLS, seed: int = 0) -> tuple[Any, Any]:
    """Mean and 90th percentile of the pulses of a write, per level, from the preset's pulse table."""
    array = CellArray((config.n_levels, n_cells), config, seed=seed)
    levels = np.repeat(np.arange(config.n_levels)[:, None], n_cells, axis=1)
    pulses = array.pulses_of_next_write(levels)
    return pulses.mean(axis=1), np.quantile(pulses, 0.9, axis=1)
