"""Stress of reads: from histograms of voltages (mode `fast`) or solved cell voltages (`exact`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.cell.disturb import DisturbLaw, PowerLaw
from rramsim.cell.settings import DisturbConfig
from rramsim.kernels import cell as kernels

__all__ = ["add_histogram", "add_solved", "polarity", "sign"]

N_ATTENUATIONS = 65  # nodes of the table over a cell's attenuation; see docs/cells.md for the error
N_VOLTAGES = 2049  # nodes of the weight over |V|
N_COUNTS = 9  # nodes over write counts, where they spread further than this

_NONE = np.zeros((0, 0))


def polarity(law: DisturbLaw, config: DisturbConfig) -> str:
    """The polarity in force."""
    return law.polarity if config.polarity == "default" else config.polarity


def sign(law: DisturbLaw, config: DisturbConfig, v: NDArray[np.float64]) -> Any:
    """Sign and share of the stress of reads at voltages `v` [V]."""
    chosen = polarity(law, config)
    if chosen == "bipolar":
        return np.sign(v)
    return {"negative": -1.0, "positive": 1.0, "alternating": config.balance}[chosen]


def add_histogram(
    stress: NDArray[np.float64],
    count: NDArray[np.uint32],
    count_max: int,
    law: DisturbLaw,
    config: DisturbConfig,
    counts: NDArray[np.float64],
    voltages: NDArray[np.float64],
    attenuation: NDArray[np.float64] | None,
    offset: NDArray[np.float64] | None,
) -> None:
    """Add the stress [s] of `counts` (n_wl, n_codes) reads at `voltages` (n_codes,) [V].

    Without `offset` the stress of a word line is tabulated over attenuation and write count,
    then looked up by every cell. With it every cell sums over the codes in use.
    """
    used = counts.any(axis=0)
    if not used.any():
        return
    counts, voltages = np.ascontiguousarray(counts[:, used]), voltages[used]
    if offset is not None:
        slope = np.ones(offset.shape) if attenuation is None else attenuation
        _add_affine(stress, count, count_max, law, config, counts, voltages, slope, offset)
        return
    nodes, a_step, wires = np.ones(1), 1.0, _NONE
    if attenuation is not None:
        wires = attenuation
        first, last = float(wires.min()), float(wires.max())
        nodes = np.linspace(first, max(last, first + 1e-6), N_ATTENUATIONS)
        a_step = float(nodes[1] - nodes[0])
    v = voltages * nodes[:, None, None]
    law.check_voltage(float(np.abs(v).max()))
    n_nodes, n_first, node, fraction = _count_nodes(law, count, count_max, config.cycles_before)
    weights = law.weight(np.abs(v), n_nodes[:, None]) * sign(law, config, v)
    table = np.moveaxis(np.tensordot(counts, weights, axes=(1, 2)), 1, 2) * config.t_read
    kernels.add_stress(
        stress, count, wires, np.ascontiguousarray(table), float(nodes[0]), a_step, n_first, node, fraction
    )


def _add_affine(
    stress: NDArray[np.float64],
    count: NDArray[np.uint32],
    count_max: int,
    law: DisturbLaw,
    config: DisturbConfig,
    counts: NDArray[np.float64],
    voltages: NDArray[np.float64],
    slope: NDArray[np.float64],
    offset: NDArray[np.float64],
) -> None:
    top = float(np.abs(voltages).max())
    v_max = max(float((np.abs(slope) * top + np.abs(offset)).max()), 1e-6)
    law.check_voltage(min(v_max, top))  # a cell sees little more than its driver's voltage
    n_nodes, n_first, node, fraction = _count_nodes(law, count, count_max, config.cycles_before)
    v = np.linspace(0.0, v_max, N_VOLTAGES)
    weights = np.ascontiguousarray(law.weight(v, n_nodes[:, None]) * config.t_read)
    signed = polarity(law, config) == "bipolar"
    share = 1.0 if signed else float(sign(law, config, np.ones(())))
    kernels.add_stress_affine(
        stress, count, slope, offset, counts, voltages, weights, float(v[1]), share, signed,
        n_first, node, fraction,
    )  # fmt: skip


def _count_nodes(
    law: DisturbLaw, count: NDArray[np.uint32], count_max: int, before: int
) -> tuple[NDArray[np.float64], int, NDArray[np.int64], NDArray[np.float64]]:
    """Nodes over cycles, and where each write count lies among them."""
    if not law.depends_on_cycles:
        size = count_max + 1
        return np.array([float(before)]), 0, np.zeros(size, np.int64), np.zeros(size)
    first = int(count.min())
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
