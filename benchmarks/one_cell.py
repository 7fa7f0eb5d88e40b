"""Where one cell per weight loses: the same chips, with one cause at a time taken away.

    python -m benchmarks.one_cell --json one_cell.json

Each row tunes validation chips under one change of the chip or of the tuner and prints the gap to the teacher
in points, the agreement with its answers, the distillation loss of the logits, which tells small differences,
and the relative squared error that gain and offset leave in each layer (%). The changes that no chip could
make (exact converters, exact writes, cells verified by designed vectors) separate causes; they are no
settings to use. `--writes` varies the rewrites per cell instead, for one cell per weight and for pairs, which
take twice the cells: gaps against writes per cell, and per weight. Rows already in the file are kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tuning import CELLS
from finetune.objective import softmax
from finetune.tuner import tune
from rramsim.cell import CellsConfig
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.datasets.embedded import Dataset, load_dataset
from rramsim.datasets.teachers import load_teacher
from rramsim.host.layer import layer_shapes
from rramsim.network import Network

EXACT = ConverterConfig(dac_bits=12, adc_bits=20, adc_noise=0.0)
TEMPERATURE = 2.0

# what is changed: cells, mapping, converters, strategy, calibration images
CAUSES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "exact converters": {"converters": EXACT},
    "no reference line": {"mapping": {"reference": "digital"}},
    "neither": {"mapping": {"reference": "digital"}, "converters": EXACT},
    "reference at 1/4": {"mapping": {"reference_level": 4}},
    "exact writes": {"cells": {"sigma": 0.0}},
    "errors all new": {"cells": {"fixed_fraction": 0.0}},
    "verified cells": {"strategy": "lsq.rewrite(probe=True) + lsq.affine + adapter(rank=2)"},
    "twice the rewrites": {"strategy": "lsq.rewrite(passes=20, rewrites=2.0) + lsq.affine + adapter(rank=2)"},
    "1,024 images": {"images": 1024},
    "pairs": {"mapping": {"kind": "differential"}},
}

WRITES: dict[str, dict[str, Any]] = {
    f"{name}, rewrites {rewrites:g}": {
        "mapping": {"kind": kind},
        "strategy": f"lsq.rewrite(rewrites={rewrites:g}, passes={passes}) + lsq.affine + adapter(rank=2)",
    }
    for name, kind, amounts in (
        ("one cell", "reference", ((0.0, 1), (0.25, 4), (0.5, 8), (1.0, 12), (2.0, 20), (3.0, 28))),
        ("pair", "differential", ((0.0, 1), (0.1, 4), (0.22, 6), (0.5, 10), (1.0, 16))),
    )
    for rewrites, passes in amounts
}


def chip_of(network: Network, sigma: float, change: dict[str, Any], number: int) -> SimulatedChip:
    """The individual `number` under a change."""
    config = ChipConfig(
        cells=CellsConfig(**{**CELLS, "sigma": sigma, **change.get("cells", {})}),
        mapping=MappingConfig(**{"kind": "reference", **change.get("mapping", {})}),
        converters=change.get("converters", ConverterConfig()),
    )
    return SimulatedChip(config, layer_shapes(network), chip=number)


def measure(
    network: Network, data: Dataset, sigma: float, cause: str, number: int, n_images: int
) -> dict[str, Any]:
    """Tune one chip and compare its logits with the teacher's on validation images."""
    change = (CAUSES | WRITES)[cause]
    calibration = data.splits["calibration"].images[: change.get("images", 256)]
    part = data.splits["validation"]
    images, labels = part.images[:n_images], part.labels[:n_images]
    chip = chip_of(network, sigma, change, number)
    report = tune(chip, network, network, calibration, strategy=change.get("strategy", "default"))
    wanted, got = network.run(images), report.deployment.fork().run(images)
    p, q = softmax(wanted, TEMPERATURE), softmax(got, TEMPERATURE)
    loss = TEMPERATURE**2 * (p * (np.log(p + 1e-12) - np.log(q + 1e-12))).sum(axis=1).mean()
    right = [100.0 * float((z.argmax(axis=1) == labels).mean()) for z in (wanted, got)]
    return {
        "cause": cause,
        "sigma": sigma,
        "chip": number,
        "gap": right[0] - right[1],
        "agreement": 100.0 * float((wanted.argmax(axis=1) == got.argmax(axis=1)).mean()),
        "loss": float(loss),
        "writes": report.writes_per_cell,
        "cells": next(iter(chip.layers.values())).cells_per_weight,
        "layers": {row["layer"]: row["error"] for row in report.history if row["step"] == "lsq.affine"},
    }


def summary(rows: list[dict[str, Any]]) -> str:
    """A line per cause: means over chips."""
    lines = [
        f"{'sigma':<6}{'changed':<20}{'chips':>5}{'gap':>7}{'agree':>8}{'loss':>9}{'writes':>8}  layers, %"
    ]
    for sigma, cause in dict.fromkeys((row["sigma"], row["cause"]) for row in rows):
        group = [row for row in rows if (row["sigma"], row["cause"]) == (sigma, cause)]
        gap, agree, loss, writes, cells = (
            np.mean([row[key] for row in group]) for key in ("gap", "agreement", "loss", "writes", "cells")
        )
        layers = " ".join(
            f"{name} {100 * np.mean([row['layers'][name] for row in group]):.2f}"
            for name in group[0]["layers"]
        )
        lines.append(
            f"{sigma:<6g}{cause:<20}{len(group):>5}{gap:>7.2f}{agree:>8.2f}{loss:>9.4f}"
            f"{writes:>12.2f}{writes * cells:>9.2f}"
            f"  {layers}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, save after each chip, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=Path("one_cell.json"))
    parser.add_argument("--network", default="lenet5_fashion")
    parser.add_argument("--sigma", type=float, default=0.2)
    parser.add_argument("--chips", type=int, default=2)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--cause", action="append", choices=list(CAUSES))
    parser.add_argument("--writes", action="store_true", help="vary the rewrites per cell")
    arguments = parser.parse_args()
    network, data = load_teacher(arguments.network), load_dataset("fashion_mnist")
    rows = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    done = {(row["sigma"], row["cause"], row["chip"]) for row in rows}
    for cause in WRITES if arguments.writes else arguments.cause or CAUSES:
        for number in range(arguments.chips):
            if (arguments.sigma, cause, number) not in done:
                rows.append(measure(network, data, arguments.sigma, cause, number, arguments.images))
                arguments.json.write_text(json.dumps(rows, indent=1))
    print(summary(rows))


if __name__ == "__main__":
    main()
