"""The pulse model of write-verify as the kernel takes it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rramsim.cell.config import ProgrammingConfig
from rramsim.kernels import write as kernels

__all__ = ["kernel_pulses"]


def kernel_pulses(config: ProgrammingConfig, targets: NDArray[np.float64] | None = None) -> kernels.Pulses:
    """The pulse model as the kernel takes it; values per level where `targets` [S] of levels are given."""
    if targets is None or not config.per_level:
        one = np.array([config.window])
        return kernels.Pulses(
            one, one, np.array([config.gain]), config.scatter, config.scatter_floor,
            np.array([config.sigma_gain]), int(config.n_pulses_max),
        )  # fmt: skip
    low = np.array(config.window_low) if config.window_low else targets - config.window
    high = np.array(config.window_high) if config.window_high else targets + config.window
    shape = targets.shape
    return kernels.Pulses(
        targets - low, high - targets,
        np.broadcast_to(np.array(config.gain_levels or (config.gain,)), shape).copy(),
        config.scatter, config.scatter_floor,
        np.broadcast_to(np.array(config.sigma_gain_levels or (config.sigma_gain,)), shape).copy(),
        int(config.n_pulses_max),
    )  # fmt: skip
