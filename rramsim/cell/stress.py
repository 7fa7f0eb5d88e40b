"""Stress of reads: from histograms of voltages (mode `fast`) or solved cell voltages (`exact`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.cell.config import DisturbConfig
from rramsim.cell.disturb import DisturbLaw, PowerLaw
from rramsim.kernels import cell as kernels

__all__ = ["StressTables", "add_solved", "polarity", "sign"]

N_NODES = 65  # most nodes of a table over slopes or offsets
NODE_STEP = 1.0 / 100.0  # their distance in cell voltage over v_read; see docs/cells.md for the error
N_COUNTS = 9  # nodes over write counts, where they spread further than this
TABLE_SIZE = 1 << 21  # numbers in the table of some word lines

_NONE = np.zeros((0, 0))


class StressTables:
    """Seconds of stress per read over cells' slope, offset and write count.

    Kept for as long as slopes, offsets, voltages and write counts stay the same: then the stress
    of a word line is one product of its counts with these numbers.
    """

    def __init__(
        self,
        law: DisturbLaw,
        config: DisturbConfig,
        voltages: NDArray[np.float64],
        slope: NDArray[np.float64] | None,
        offset: NDArray[np.float64] | None,
        counts: tuple[int, int],
    ) -> None:
        self.voltages, self.slope, self.offset, self.counts = voltages, slope, offset, counts
        top = float(np.abs(voltages).max(initial=0.0))
        self.s_nodes, self.s_step = _nodes(slope, top / config.v_read, 1.0)
        self.o_nodes, self.o_step = _nodes(offset, 1.0 / config.v_read, 0.0)
        cycles, self.n_first, self.node, self.fraction = _count_nodes(law, *counts, config.cycles_before)
        v = voltages[:, None, None, None] * self.s_nodes[:, None] + self.o_nodes
        # a cell sees little more than its driver's voltage
        law.check_voltage(min(float(np.abs(v).max(initial=0.0)), top * float(self.s_nodes.max(initial=1.0))))
        weights = law.weight(np.abs(v), cycles[:, None, None]) * sign(law, config, v) * config.t_read
        self._shape = np.broadcast_shapes(weights.shape, (1, cycles.size, 1, 1))[1:]
        self._weights = np.broadcast_to(weights, (len(voltages), *self._shape)).reshape(len(voltages), -1)

    def fits(self, voltages: Any, slope: Any, offset: Any, counts: tuple[int, int]) -> bool:
        """Whether the table was made for these very arrays."""
        same = self.slope is slope and self.offset is offset and self.counts == counts
        return same and np.array_equal(self.voltages, voltages)

    def add(self, stress: NDArray[np.float64], count: NDArray[np.uint32], reads: NDArray[np.float64]) -> None:
        """Add the stress [s] of `reads` (n_wl, n_codes), looked up by every cell."""
        size = max(1, TABLE_SIZE // self._weights.shape[1])
        slope = _NONE if self.slope is None else self.slope
        offset = _NONE if self.offset is None else self.offset
        for first in range(0, len(reads), size):
            rows = slice(first, first + size)
            table = (reads[rows] @ self._weights).reshape(-1, *self._shape)
            kernels.add_stress(
                stress[rows], count[rows], slope[rows], offset[rows], np.ascontiguousarray(table),
                float(self.s_nodes[0]), self.s_step, float(self.o_nodes[0]), self.o_step,
                self.n_first, self.node, self.fraction,
            )  # fmt: skip


def _nodes(
    values: NDArray[np.float64] | None, scale: float, alone: float
) -> tuple[NDArray[np.float64], float]:
    """Evenly spaced nodes over the values, and their step; one node for None."""
    if values is None:
        return np.array([alone]), 1.0
    first, last = float(values.min()), float(values.max())
    n = int(np.clip(np.ceil((last - first) * scale / NODE_STEP) + 1, 4, N_NODES))
    nodes = np.linspace(first, max(last, first + 1e-9), n)
    return nodes, float(nodes[1] - nodes[0])


def polarity(law: DisturbLaw, config: DisturbConfig) -> str:
    """The polarity in force."""
    return law.polarity if config.polarity == "default" else config.polarity


def sign(law: DisturbLaw, config: DisturbConfig, v: NDArray[np.float64]) -> Any:
    """Sign and share of the stress of reads at voltages `v` [V]."""
    chosen = polarity(law, config)
    if chosen == "bipolar":
        return np.sign(v)
    return {"negative": -1.0, "positive": 1.0, "alternating": config.balance}[chosen]


def _count_nodes(
    law: DisturbLaw, first: int, count_max: int, before: int
) -> tuple[NDArray[np.float64], int, NDArray[np.int64], NDArray[np.float64]]:
    """Nodes over cycles, and where each write count lies among them."""
    if not law.depends_on_cycles:
        size = count_max + 1
        return np.array([float(before)]), 0, np.zeros(size, np.int64), np.zeros(size)
    counts = np.arange(first, count_max + 1)
    if len(counts) <= N_COUNTS:
        return before + counts.astype(float), first, np.arange(len(counts)), np.zeros(len(counts))
    nodes = np.unique(np.round(np.geomspace(before + first + 1, before + count_max + 1, N_COUNTS))) - 1.0
    place = np.interp(counts + before, nodes, np.arange(len(nodes)))
    node = np.minimum(place.astype(np.int64), len(nodes) - 1)
    return nodes, first, node, place - node


def add_solved(
    stress: NDArray[np.float64],
    count: NDArray[np.uint32],
    count_max: int,
    law: DisturbLaw,
    config: DisturbConfig,
    v_cell: NDArray[np.float64],
) -> None:
    """Add the stress [s] of cell voltages (n_vectors, n_wl, n_bl) [V]: O(vectors x cells)."""
    if len(v_cell) == 0:
        return
    law.check_voltage(float(np.abs(v_cell).max()))
    if isinstance(law, PowerLaw) and type(law).weight is PowerLaw.weight:
        signed = polarity(law, config) == "bipolar"
        share = 1.0 if signed else float(sign(law, config, np.ones(())))
        base = law.log_bracket(np.arange(count_max + 1) + config.cycles_before)
        kernels.add_stress_power(
            stress, count, v_cell, base, float(1.0 / law.exponent(law.v_read)),
            law.constants["c1"], law.slope, config.t_read, share, signed,
        )  # fmt: skip
        return
    n_cycles = count.astype(float) + config.cycles_before
    for v in v_cell:
        stress += law.weight(np.abs(v), n_cycles) * sign(law, config, v) * config.t_read
