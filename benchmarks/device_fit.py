"""Known devices, measured and fitted: how often the 95 % intervals hold the true value.

    python -m benchmarks.device_fit [--devices 200] [--json FILE]

Each synthetic device has 2 to 8 levels, a normal or lognormal error of random spread and a random share of
the cell; 200 cells are written six times to random levels.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from rramsim.cell import CellArray, CellsConfig
from rramsim.cell.fit import fit

N_CELLS, N_WRITES = 200, 6


def one(seed: int, folder: Path) -> dict[str, list[bool]]:
    """Whether each interval of one device holds the true value."""
    rng = np.random.default_rng(seed)
    n_levels = int(rng.integers(2, 9))
    share, law = float(rng.uniform(0.0, 0.9)), ("lognormal", "normal")[seed % 2]
    top = float(10 ** rng.uniform(-5, -3.7))
    levels = tuple(float(g) for g in np.linspace(top / rng.uniform(3, 30), top, n_levels))
    sigma = float(rng.uniform(0.02, 0.25))
    spread = {"sigma": sigma} if law == "lognormal" else {"sigma_conductance": (0.1 * sigma * levels[0],)}
    config = CellsConfig(levels=levels, law=law, fixed_fraction=share, **spread)
    array = CellArray((N_CELLS, 1), config, seed=seed)
    lines = ["cell,cycle,level,g"]
    for cycle in range(N_WRITES):
        level = rng.integers(0, n_levels, (N_CELLS, 1))
        array.write(level)
        lines += [
            f"{c},{cycle},{k},{g:.9g}"
            for c, (k, g) in enumerate(zip(level[:, 0], array.conductance[:, 0], strict=True))
        ]
    path = folder / f"{seed}.csv"
    path.write_text("\n".join(lines))
    held: dict[str, list[bool]] = defaultdict(list)
    for name, (_, low, high) in fit(path).intervals().items():
        kind, _, number = name.partition(" ")
        if kind == "fixed_fraction":
            held[kind].append(low <= share <= high)
        elif kind == "mean":
            held[kind].append(low <= levels[int(number)] <= high)
        elif kind == "sigma_ln" and law == "lognormal":
            held["sigma"].append(low <= sigma <= high)
        elif kind == "sigma" and law == "normal":
            held["sigma"].append(low <= spread["sigma_conductance"][0] <= high)
    return held


def coverage(n_devices: int, first_seed: int = 0) -> dict[str, tuple[float, int]]:
    """Share of intervals that hold the true value, and their number, per kind of parameter."""
    held: dict[str, list[bool]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first_seed, first_seed + n_devices):
            for name, values in one(seed, Path(folder)).items():
                held[name] += values
    return {name: (float(np.mean(values)), len(values)) for name, values in held.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [
        {"parameter": name, "coverage": value, "intervals": n}
        for name, (value, n) in coverage(options.devices).items()
    ]
    for row in rows:
        print(f"{row['parameter']:>16}  {100 * row['coverage']:5.1f} %  of {row['intervals']} intervals")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
