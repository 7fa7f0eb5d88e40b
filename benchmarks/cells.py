"""Speed and memory of cells: `python -m benchmarks.cells [--cells N] [--threads T] [--json]`.

Prints seconds of writing by write-verify, of one-shot writing, of one step of read
disturbance (stress of every cell and its effect on conductance) and bytes a cell.
Kernels are compiled before the clock starts; each figure is the best of `--repeat` runs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from rramsim.cell import CellArray, DisturbConfig, load_preset

VOLTAGES = 0.3 * np.arange(-127, 128) / 127.0  # [V] signed 8-bit codes


def best(call: Callable[[], Any], repeat: int) -> float:
    """Shortest wall-clock time of `repeat` calls [s]."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(n_cells: int, repeat: int) -> dict[str, Any]:
    """All figures for an array of about `n_cells` cells with 4000 bit lines."""
    n_bl = min(4000, n_cells)
    shape = (max(1, n_cells // n_bl), n_bl)
    rng = np.random.default_rng(1)
    disturb = DisturbConfig(law="power", v_read=0.3, cycles_before=1000)
    verify = load_preset("neurram_hfox_2022").cells()
    shot = load_preset("wan_2022_1d").cells()
    result: dict[str, Any] = {"n_cells": shape[0] * shape[1], "n_threads": numba.get_num_threads()}
    # compile on a few cells
    for cells in (verify, shot):
        small = CellArray((2, 8), cells, disturb=disturb, seed=1)
        small.write(np.zeros((2, 8), np.int16))
        small.add_reads(np.ones((2, VOLTAGES.size)), VOLTAGES)
        small.add_reads(np.ones((2, VOLTAGES.size)), VOLTAGES, np.linspace(0.8, 1.0, 16).reshape(2, 8))
    for name, cells in (("write_verify", verify), ("one_shot", shot)):
        levels = rng.integers(0, cells.n_levels, shape, dtype=np.int16)
        array = CellArray(shape, cells, disturb=disturb, seed=1)
        start = time.perf_counter()
        report = array.write(levels)  # once: a second write would start from the targets
        result[f"{name}_seconds"] = time.perf_counter() - start
        result[f"{name}_pulses_per_cell"] = report.n_pulses / report.n_cells
    counts = rng.integers(0, 64, (shape[0], VOLTAGES.size)).astype(float) * 1e4
    attenuation = rng.uniform(0.8, 1.0, shape)
    fresh = float(np.mean(array.conductance))
    result["disturb_seconds"] = best(lambda: array.add_reads(counts, VOLTAGES), repeat)
    result["disturb_with_wires_seconds"] = best(
        lambda: array.add_reads(counts, VOLTAGES, attenuation), repeat
    )
    result["bytes_per_cell"] = array.nbytes / result["n_cells"]
    result["conductance_left"] = float(np.mean(array.conductance) / fresh)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=10_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    numba.set_num_threads(min(options.threads, numba.config.NUMBA_NUM_THREADS))
    result = measure(options.cells, options.repeat)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:28s} {value:.6g}")


if __name__ == "__main__":
    main()
