"""The pulse model of write-verify as the kernel takes it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rramsim.cell.config import CellsConfig, FaultsConfig, ProgrammingConfig
from rramsim.kernels import write as kernels

__all__ = ["VERIFY_SHARE", "kernel_pulses", "likely_cause"]

VERIFY_SHARE = 0.05  # share of cells outside their window above which a write is warned about


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


def likely_cause(cells: CellsConfig, faults: FaultsConfig | None = None) -> str:
    """Why many cells may miss the window of write-verify under these settings, in words.

    The first that applies of: pulses too small for the budget, scatter wider than the window, stuck cells,
    worn cells, pulses that scatter as widely as they step.

    Examples
    --------
    >>> from rramsim import CellsConfig, ProgrammingConfig
    >>> likely_cause(CellsConfig(programming=ProgrammingConfig(method="write_verify", gain=1e-4)))
    'a pulse closes 0.0001 of the remaining error, so that 50 pulses leave up to 38.5 uS where the window is \
+-1 uS: raise cells.programming.gain or n_pulses_max'
    """
    config = cells.programming
    pulses = kernel_pulses(config, np.asarray(cells.scale.levels, dtype=np.float64))
    window = float(np.minimum(pulses.below, pulses.above).min())
    gain = float(pulses.gain[np.abs(1.0 - pulses.gain).argmax()])  # of the level that converges last
    left = float(np.ptp(cells.scale.levels)) * abs(1.0 - gain) ** config.n_pulses_max
    wide = f"the window is +-{1e6 * window:.3g} uS"
    stuck = 0.0 if faults is None else faults.stuck_low_rate + faults.stuck_high_rate
    if left > window:
        return (
            f"a pulse closes {gain:.3g} of the remaining error, so that {config.n_pulses_max} pulses "
            f"leave up to {1e6 * left:.3g} uS where {wide}: raise cells.programming.gain or n_pulses_max"
        )
    if config.scatter_floor > window:
        return (
            f"every pulse scatters by {1e6 * config.scatter_floor:.3g} uS (cells.programming.scatter_floor) "
            f"where {wide}"
        )
    if stuck > VERIFY_SHARE / 2:
        return f"{stuck:.1%} of the cells are stuck (faults.stuck_low_rate, stuck_high_rate)"
    if np.isfinite(cells.endurance.n_endurance) and cells.endurance.window_loss > 0.0:
        return "cells are worn: their window has shrunk below the upper levels (cells.endurance)"
    return (
        f"the pulse model (gain {gain:.3g}, scatter {config.scatter:.3g}, sigma_gain "
        f"{config.sigma_gain:.3g}) seldom ends where {wide}: widen cells.programming.window, or give more "
        "pulses of a smaller gain"
    )
