"""What archives cost: the time that storing adds to every trial, opening and tabulating.

10,000 synthetic trials are stored as a run stores them (journal, then folded in); then 100,000 rows of a
table are read back by a process of its own.  Usage: python -m benchmarks.archive [--trials N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from finetune.study import storage
from finetune.study.archive import open_archive
from finetune.study.journal import Journal, Record, journal_path
from finetune.study.quantities import QUANTITIES

SIZES = {"stage": 10, "image": 200, "layer": 10, "node": 10, "level": 16, "bin": 200, "class": 10}


def make(path: Path, n_trials: int) -> None:
    """An archive of ten stages and ten layers without trials."""
    stages = ["mapped", *(f"strategy {n}" for n in range(1, SIZES["stage"]))]
    labels = np.arange(SIZES["image"]) % 10
    outputs = np.eye(10, dtype=np.float32)[labels]
    names = [f"layer{n}" for n in range(SIZES["layer"])]
    constants = {
        "stages": (stages, ("stage",), "", "stages"),
        "labels": (labels.astype(np.uint8), ("image",), "1", "labels"),
        "classes": ([str(n) for n in range(10)], ("class",), "", "classes"),
        "teacher/accuracy": (1.0, (), "1", "accuracy"),
        "teacher/outputs": (outputs, ("image", "class"), "1", "outputs"),
        "layers/name": (names, ("layer",), "", "layers"),
        "layers/n_cells": (np.full(SIZES["layer"], 1000), ("layer",), "1", "cells"),
        "nodes/name": (names, ("node",), "", "nodes"),
        "cells/level_conductance": (np.linspace(1e-6, 4e-5, 16), ("level",), "S", "levels"),
    }
    attributes = {"digest": "0" * 16, "config": "", "network": "synthetic", "dataset": "synthetic", "seed": 0}
    condition = storage.Condition("", attributes, SIZES, constants, range(n_trials))
    storage.write(
        path,
        attributes={"name": "synthetic", "versions": "{}", "platforms": "[{}]"},
        conditions=[condition],
        fresh=True,
    )


def trial(rng: np.random.Generator, chip: int) -> Record:
    """Values of the shapes and types that a trial has."""
    values = {}
    for name, quantity in QUANTITIES.items():
        if name in ("trial/chip", "trial/complete"):
            continue
        shape = tuple(SIZES.get(dim, 60 if dim == "row" else 11) for dim in quantity.dims[1:])
        if quantity.dtype == "str":
            values[name] = np.full(shape, "layer1")
        elif quantity.dtype == "float64":
            values[name] = rng.random(shape)
        else:
            values[name] = rng.integers(0, 10, shape).astype(quantity.dtype)
    return Record("", chip, values)


def store(path: Path, n_trials: int) -> list[dict[str, object]]:
    """Seconds that storing adds to each trial, by thousands."""
    make(path, n_trials)
    rng, journal, seconds = np.random.default_rng(0), Journal(path), np.zeros((n_trials, 2))
    for chip in range(n_trials):
        entry = trial(rng, chip)
        began = time.perf_counter(), time.process_time()
        journal.append(entry)
        seconds[chip] = time.perf_counter() - began[0], time.process_time() - began[1]
    began = time.perf_counter(), time.process_time()
    storage.fold(path)
    journal.clear()
    journal.close()
    folding = time.perf_counter() - began[0], time.process_time() - began[1]
    part = max(1, n_trials // 10)
    rows: list[dict[str, object]] = []
    for name, which in (("first tenth", seconds[:part]), ("last tenth", seconds[-part:]), ("all", seconds)):
        elapsed, busy = 1e3 * which.mean(axis=0)
        rows.append({"what": f"append, {name}", "ms per trial": elapsed, "CPU ms per trial": busy})
    elapsed, busy = (1e3 * total / n_trials for total in folding)
    rows.append({"what": "folding in, once", "ms per trial": elapsed, "CPU ms per trial": busy})
    elapsed, busy = (rows[2]["ms per trial"] + elapsed, rows[2]["CPU ms per trial"] + busy)  # type: ignore[operator]
    rows.append({"what": "append and folding in", "ms per trial": elapsed, "CPU ms per trial": busy})
    return rows


def read(path: Path) -> None:
    """Open and tabulate in this process alone, and print what that took."""
    began = time.perf_counter(), time.process_time()
    archive = open_archive(path)
    table = archive.table()
    n_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "rows": len(table),
                "s": time.perf_counter() - began[0],
                "CPU s": time.process_time() - began[1],
                "peak GB": n_bytes / 1e9,
                "file MB": path.stat().st_size / 1e6,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read is not None:
        read(arguments.read)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "synthetic.h5"
        rows = store(path, arguments.trials)
        assert not journal_path(path).exists()
        for row in rows:
            print(f"{row['what']:24} {row['ms per trial']:7.2f} ms  {row['CPU ms per trial']:7.2f} ms of CPU")
        command = [sys.executable, "-m", "benchmarks.archive", "--read", str(path)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(", ".join(f"{name} {value:,.2f}" for name, value in found.items()))
        rows.append({"what": "open and tabulate", **found})
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
