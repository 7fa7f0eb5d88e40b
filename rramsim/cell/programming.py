"""Pulses and write-verify, and what writing a cell costs.

The pulse model: each pulse closes the fraction `gain` of the remaining error, times
1 + `scatter` n with n standard normal for every pulse; the gain varies from cell to cell
with ln-std `sigma_gain`. Pulsing ends inside the acceptance window or with the budget.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim import streams
from rramsim.cell import CellArray, CellsConfig, ProgrammingConfig
from rramsim.cell.pulses import kernel_pulses
from rramsim.checks import check_array
from rramsim.kernels import write as kernels
from rramsim.streams import Cause

__all__ = ["VerifyReport", "WriteCost", "write_cost", "write_verify"]


@dataclass(frozen=True)
class VerifyReport:
    """Result of write-verify.

    Examples
    --------
    >>> import numpy as np
    >>> report = write_verify(np.zeros((2, 3)), np.full((2, 3), 20e-6), config=ProgrammingConfig())
    >>> report.converged.all()
    np.True_
    """

    conductance: NDArray[np.float64]  # [S] (n_wl, n_bl)
    n_pulses: NDArray[np.int64]  # pulses per word line, (n_wl,)
    converged: NDArray[np.bool_]  # inside the window, (n_wl, n_bl)
    seconds: float  # [s] serial time


@dataclass(frozen=True)
class WriteCost:
    """Mean cost of writing one cell.

    Examples
    --------
    >>> from rramsim.cell import CellsConfig, ProgrammingConfig
    >>> cost = write_cost(CellsConfig(programming=ProgrammingConfig(method="write_verify")), n_cells=1024)
    >>> cost.success, 5 < cost.n_pulses < 12
    (1.0, True)
    """

    n_pulses: float
    success: float  # share of cells that end inside the window
    seconds: float  # [s]
    joules: float | None  # [J]


def write_verify(
    g: ArrayLike,
    g_target: ArrayLike,
    *,
    config: ProgrammingConfig,
    seed: int = 0,
    keys: tuple[int, ...] = (),
) -> VerifyReport:
    """Bring cells to arbitrary target conductances by pulses.

    Parameters
    ----------
    g, g_target : ndarray, shape (n_wl, n_bl)
        Present and wanted conductance [S].
    config : ProgrammingConfig
        Window [S], gain, scatter and pulse budget; its `method` is not asked.
    seed, keys : int, tuple of int
        Name the random stream; the same ones give the same bits.

    Notes
    -----
    The acceptance scheme follows Wan et al., Nature 608 (2022), and Yao et al., Nature 577
    (2020); the proportional step is a model of this package, fitted to published pulse counts.
    """
    g_target = check_array(g_target, "g_target", shape=(None, None), minimum=0.0, unit="S")
    g = check_array(g, "g", shape=g_target.shape, minimum=0.0, unit="S").copy()
    n_wl, n_bl = g.shape
    everything, free = np.ones(g.shape, bool), np.zeros(g.shape, np.uint8)
    top = 2.0 * max(float(g.max(initial=0.0)), float(g_target.max(initial=0.0)))
    zero, zero_key = np.zeros(1), np.uint64(0)
    n_pulses, n_failed = np.zeros(n_wl, np.int64), np.zeros(n_wl, np.int64)
    kernels.write_verify(
        np.arange(n_wl * n_bl, dtype=np.int32).reshape(g.shape), everything, free, g_target.ravel(), g,
        kernel_pulses(config),
        streams.key(seed, Cause.PULSE_SCATTER, *keys, 0), streams.key(seed, Cause.PULSE_SCATTER, *keys, 1),
        kernels.Wear(np.inf, 1.0, 0.0, 0.0, 0, 0.0, top), kernels.Relaxation(False, 1.0, 0.0, top),
        zero, zero, kernels.Split(0.0, 0.0, zero_key, zero_key),
        np.zeros(g.shape, np.uint32), g, n_pulses, n_failed,
    )  # fmt: skip
    total = int(n_pulses.sum())
    seconds = total * (config.t_pulse + config.t_verify) + g.size * config.t_verify
    return VerifyReport(g, n_pulses, np.abs(g_target - g) <= config.window, seconds)


def write_cost(config: CellsConfig, *, n_cells: int = 65536, seed: int = 0) -> WriteCost:
    """Mean cost of writing a random level into a reset cell, over `n_cells` simulated cells."""
    n_bl = 256
    array = CellArray((max(1, n_cells // n_bl), n_bl), config, seed=seed)
    levels = streams.stream(seed, Cause.DATA).integers(0, config.n_levels, array.shape, dtype=np.int16)
    report = array.write(levels)
    n = report.n_cells
    joules = None if report.joules is None else report.joules / n
    return WriteCost(report.n_pulses / n, 1.0 - report.n_failed / n, report.seconds / n, joules)
