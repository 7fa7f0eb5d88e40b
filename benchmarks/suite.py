"""The suite: `python -m benchmarks all [--json FILE]`, or some cases by name.

Each case is timed over sizes, in one thread and in processor time, the least of a few repetitions; `growth`
is the slope of the logarithm of time against that of size. Times are compared with the last run of the
same machine in `benchmarks/history.json`, after division by how a yardstick (a product and a copy by NumPy,
run between the cases) compares, since busy neighbours slow all of it. `--keep` adds this run to that
file; ``--check`` ends with an error if a case became slower than the tolerance.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine, machine_line
from benchmarks.suite_cases import CASES, Case, yardstick
from rramsim.checks import InputError, nearest_name

HISTORY = Path(__file__).with_name("history.json")
SAME = ("processor", "vectors", "cpus")  # what makes two machines the same
BUDGET = 8.0  # [s] of processor time for the repetitions of one size


def least(call: Callable[[], Any], repeats: int) -> float:
    """Least processor time [s] of up to `repeats` calls, after one that compiles and warms up."""
    call()
    best, spent = np.inf, 0.0
    for _ in range(repeats):
        started = time.process_time()
        call()
        took = time.process_time() - started
        best, spent = min(best, took), spent + took
        if spent > BUDGET:
            break
    return float(best)


def growth(sizes: list[int], seconds: list[float]) -> float | None:
    """Slope of log time against log size, None for a single size."""
    if len(sizes) < 2:
        return None
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def measure(case: Case, measuring_rod: Callable[[], Any], largest: int | None) -> dict[str, Any]:
    """One case over its sizes, with the yardstick's time beside it."""
    sizes = [size for size in case.sizes if largest is None or size <= largest] or [min(case.sizes)]
    seconds, rod = [], np.inf
    for size in sizes:
        seconds.append(least(case.make(size), case.repeats))
        rod = min(rod, least(measuring_rod, 5))
    return {
        "case": case.name, "what": case.what, "sizes": sizes, "seconds": seconds,
        "growth": growth(sizes, seconds), "yardstick": float(rod),
    }  # fmt: skip


def ratios(row: dict[str, Any], before: dict[str, Any] | None) -> dict[int, float]:
    """Time over an earlier one by size, freed of how the yardstick compares."""
    if before is None:
        return {}
    machine_factor = row["yardstick"] / before["yardstick"]
    old = dict(zip(before["sizes"], before["seconds"], strict=True))
    return {
        size: took / old[size] / machine_factor
        for size, took in zip(row["sizes"], row["seconds"], strict=True)
        if size in old
    }


def last_run(path: Path) -> dict[str, Any] | None:
    """The newest run of this machine in a history."""
    if not path.exists():
        return None
    here = machine()
    runs = json.loads(path.read_text())
    own = [run for run in runs if all(run["machine"].get(key) == here[key] for key in SAME)]
    return own[-1] if own else None


def line(row: dict[str, Any], against: dict[int, float]) -> str:
    """A row of the table."""
    times = "  ".join(
        f"{size}: {1e3 * took:.3g} ms" + (f" ({against[size]:.2f})" if size in against else "")
        for size, took in zip(row["sizes"], row["seconds"], strict=True)
    )
    slope = "" if row["growth"] is None else f"{row['growth']:.2f}"
    return f"{row['case']:14} {slope:>6}  {times}"


def chosen(names: list[str]) -> list[Case]:
    """Cases by name; all for "all"."""
    by_name = {case.name: case for case in CASES}
    if names == ["all"]:
        return list(CASES)
    for name in names:
        if name not in by_name:
            raise InputError(f"no benchmark {name!r}; {nearest_name(name, by_name)}; or all")
    return [by_name[name] for name in names]


def run_entry(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A run as histories hold it."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True,
            cwd=HISTORY.parent,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"machine": machine(), "commit": commit, "date": date, "load": os.getloadavg()[0], "rows": rows}


def main(argv: list[str] | None = None) -> None:
    """Run cases and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="all, or: " + ", ".join(c.name for c in CASES)
    )
    parser.add_argument("--json", type=Path, help="write this run here")
    parser.add_argument("--baseline", type=Path, default=HISTORY, help="history to compare with")
    parser.add_argument("--keep", action="store_true", help="add this run to that history")
    parser.add_argument("--largest", type=int, help="leave out larger sizes")
    parser.add_argument("--check", action="store_true", help="fail if a case became slower")
    parser.add_argument("--tolerance", type=float, default=0.25, help="slow-down that --check accepts")
    arguments = parser.parse_args(argv)
    try:
        cases = chosen(arguments.names)
    except InputError as error:
        parser.error(str(error))
    before = last_run(arguments.baseline)
    old = {} if before is None else {row["case"]: row for row in before["rows"]}
    print(f"{machine_line()}; one thread, processor time, load {os.getloadavg()[0]:.1f}")
    print(
        "no earlier run of this machine to compare with"
        if before is None
        else f"(in brackets: over the run of {before['date']}, {before['commit']}, as the yardstick allows)"
    )
    print(f"{'case':14} {'growth':>6}  size: time")
    rod, rows, slower = yardstick(), [], []
    for case in cases:
        row = measure(case, rod, arguments.largest)
        against = ratios(row, old.get(case.name))
        slower += [f"{case.name} {n}: {r:.2f}" for n, r in against.items() if r > 1.0 + arguments.tolerance]
        rows.append(row)
        print(line(row, against), flush=True)
    entry = run_entry(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(entry, indent=1))
    if arguments.keep:
        runs = json.loads(arguments.baseline.read_text()) if arguments.baseline.exists() else []
        arguments.baseline.write_text(json.dumps([*runs, entry], indent=1) + "\n")
    if slower:
        print("slower: " + ", ".join(slower))
        if arguments.check:
            sys.exit(1)
