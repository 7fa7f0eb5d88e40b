"""Speed and memory of cells: `python -m benchmarks.cells [--cells N] [--threads T] [--json FILE]`.

`--accuracy` instead compares the two ways of accounting stress on resistive wires.

Prints seconds of writing by write-verify, of one-shot writing, of one step of read
disturbance (stress of every cell and its effect on conductance) and bytes a cell.
Kernels are compiled before the clock starts; each figure is the best of `--repeat` runs.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

from benchmarks.machine import machine
from rramsim.cell import CellArray, CellsConfig, DisturbConfig, RangeWarning, load_preset
from rramsim.circuit.estimates import cell_drive
from rramsim.circuit.solve import cell_voltages
from rramsim.circuit.wiring import WiresConfig

VOLTAGES = 0.3 * np.arange(-127, 128) / 127.0  # [V] signed 8-bit codes


def best(call: Callable[[], Any], repeat: int) -> tuple[float, float]:
    """Shortest wall-clock time and processor time over threads of `repeat` calls [s].

    The second is what the first would be on a machine with nothing else to do.
    """
    wall, processor = [], []
    for _ in range(repeat):
        start, start_processor = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - start)
        processor.append((time.process_time() - start_processor) / numba.get_num_threads())
    return min(wall), min(processor)


def measure(n_cells: int, repeat: int) -> dict[str, Any]:
    """All figures for an array of about `n_cells` cells with 4000 bit lines."""
    n_bl = min(4000, n_cells)
    shape = (max(1, n_cells // n_bl), n_bl)
    rng = np.random.default_rng(1)
    disturb = DisturbConfig(law="power", v_read=0.3, cycles_before=1000)
    verify = load_preset("neurram_hfox_2022").cells()
    shot = load_preset("wan_2022_1d").cells()
    result: dict[str, Any] = {"n_cells": shape[0] * shape[1], "n_threads": numba.get_num_threads()}

    def put(name: str, seconds: tuple[float, float]) -> None:
        result[f"{name}_seconds"], result[f"{name}_processor_seconds"] = seconds

    # compile on a few cells
    for cells in (verify, shot):
        small = CellArray((2, 8), cells, disturb=disturb, seed=1)
        small.write(np.zeros((2, 8), np.int16))
        small.add_reads(np.ones((2, VOLTAGES.size)), VOLTAGES)
        small.add_reads(np.ones((2, VOLTAGES.size)), VOLTAGES, np.linspace(0.8, 1.0, 16).reshape(2, 8))
    for name, cells in (("write_verify", verify), ("one_shot", shot)):
        levels = rng.integers(0, cells.n_levels, shape, dtype=np.int16)
        array = CellArray(shape, cells, disturb=disturb, seed=1)
        pulses: list[int] = []

        def write(array: Any = array, levels: Any = levels, pulses: list[int] = pulses) -> None:
            pulses.append(array.write(levels).n_pulses)

        put(name, best(write, 1))  # once: a second write would start from the targets
        result[f"{name}_pulses_per_cell"] = pulses[0] / result["n_cells"]
    counts = rng.integers(0, 64, (shape[0], VOLTAGES.size)).astype(float) * 1e4
    slope = rng.uniform(0.8, 1.0, shape)
    fresh = float(np.mean(array.conductance))
    put("disturb", best(lambda: array.add_reads(counts, VOLTAGES), repeat))
    put("disturb_with_wires", best(lambda: array.add_reads(counts, VOLTAGES, slope), repeat))
    result["bytes_per_cell"] = array.nbytes / result["n_cells"]
    result["conductance_left"] = float(np.mean(array.conductance) / fresh)
    return result


def inputs(kind: str, n_vectors: int, n_wl: int) -> np.ndarray:
    """Drives relative to full scale, shape (n_vectors, n_wl)."""
    rng = np.random.default_rng(0)
    if kind == "sparse":
        silent = rng.random((n_vectors, n_wl)) < 0.5
        return np.clip(np.round(rng.exponential(40.0, silent.shape)), 0, 255) * ~silent / 255
    if kind == "correlated":
        causes = rng.standard_normal((n_vectors, 8)) @ rng.standard_normal((8, n_wl)) / np.sqrt(8)
        own = rng.standard_normal((n_vectors, n_wl))
        return np.clip(np.round(42.0 * (causes + own)), 0, 255) / 255
    if kind == "signed":
        return rng.integers(-127, 128, (n_vectors, n_wl)) / 127
    return (255 - rng.integers(0, 30, (n_vectors, n_wl))) / 255


def accuracy(r_segment: float, kind: str, v_read: float) -> dict[str, Any]:
    """Fast against exact accounting at 128 x 128, 16 levels, after 1e9 reads of 1000-cycle cells."""
    n, n_vectors = 128, 400
    disturb = DisturbConfig(law="power", v_read=v_read, cycles_before=1000)
    wires = WiresConfig(r_word=r_segment, r_bit=r_segment)
    fast, exact = (CellArray((n, n), CellsConfig(), disturb=disturb, seed=1) for _ in range(2))
    levels = np.random.default_rng(0).integers(0, 16, (n, n))
    for array in (fast, exact):
        array.write(levels)
    v_in = v_read * inputs(kind, n_vectors, n)
    reads = 1e9 / n_vectors  # of each vector
    g = fast.conductance.astype(float)
    voltages = np.unique(v_in)
    counts = np.stack([(v_in == v).sum(axis=0) for v in voltages], axis=1) * reads
    slope, offset = cell_drive(g, v_in.mean(axis=0), np.sqrt((v_in**2).mean(axis=0)), wires)
    fast.add_reads(counts, voltages, slope, offset)
    for part in np.array_split(v_in, 8):
        exact.add_cell_voltages(cell_voltages(g, part, wires), refresh=False)
    exact.load_state_dict(exact.state_dict() | {"stress": exact.stress * reads})
    ratio = fast.stress / exact.stress
    change = (fast.conductance.astype(float) - exact.conductance) / g
    return {
        "r_segment": r_segment,
        "inputs": kind,
        "v_read": v_read,
        "stress_ratio_median": float(np.median(ratio)),
        "stress_ratio_p05": float(np.quantile(ratio, 0.05)),
        "stress_ratio_p95": float(np.quantile(ratio, 0.95)),
        "left_exact": float((exact.conductance / g).mean()),
        "left_fast": float((fast.conductance / g).mean()),
        "rms_difference": float(np.sqrt((change**2).mean())),
        "largest_difference": float(np.abs(change).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=10_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--accuracy", action="store_true", help="fast against exact stress accounting")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    numba.set_num_threads(min(options.threads, numba.config.NUMBA_NUM_THREADS))
    if options.accuracy:
        warnings.simplefilter("ignore", RangeWarning)  # neighbours lift a cell at 0.5 V by a few percent
        kinds = ("sparse", "correlated", "signed", "dense")
        rows = [accuracy(r, kind, v) for r in (0.5, 2.5) for kind in kinds for v in (0.3, 0.5)]
        for row in rows:
            text = (
                f"{name}={value:.4g}" if isinstance(value, float) else value for name, value in row.items()
            )
            print("  ".join(text))
    else:
        rows = [measure(options.cells, options.repeat)]
        for name, value in rows[0].items():
            print(f"{name:28s} {value:.6g}")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
