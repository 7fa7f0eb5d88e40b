"""Arrays with wires: where a layer lies, and the variance of read noise.

`python -m benchmarks.arrays [--json FILE] [--images N] [--chips N] [--noise]`

Without options: for LeNet-5 and ResNet-8 at 2.5 ohm a segment and every placement the arrays taken,
their utilisation, the mean loss of effective conductance of weight-holding cells, the accuracy of plain
mapping and after `lsq.affine`, and the time of the first solution. With `--noise`: variance of read noise on
a full 128 x 128 array over the variance of every cell's own first-order contribution (Kirchhoff's laws
solved by SciPy), for four kinds of input at 1, 2.5 and 5 ohm, and CPU time per read with and without.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine, machine_line
from finetune import tune
from rramsim.cell import CellsConfig
from rramsim.chip.config import ChipConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import SimulatedChip
from rramsim.circuit.wiring import WiresConfig
from rramsim.datasets.embedded import load_dataset
from rramsim.datasets.teachers import load_teacher
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes

PLACEMENTS: dict[str, MappingConfig] = {
    "cropped": MappingConfig(placement="cropped"),
    "full": MappingConfig(placement="full"),
    "full, unused lines floating": MappingConfig(placement="full", unused="floating"),
    "packed": MappingConfig(placement="packed"),
}


def mean_loss(chip: SimulatedChip) -> float:
    """Mean share of its conductance that a weight-holding cell loses to wires."""
    chip.refresh()
    lost, total = 0.0, 0.0
    for layer in chip._layers.values():
        array = layer.array
        lines = array.layout.line_of.ravel()
        g = array.cells.conductance[:, lines].astype(float)
        lost += float((g - array._effective[:, lines]).sum())
        total += float(g.sum())
    return lost / total


def placements(n_images: int, n_chips: int) -> list[dict[str, Any]]:
    """Rows of every network and placement."""
    rows = []
    for teacher in ("lenet5_fashion", "resnet8_fashion"):
        network = load_teacher(teacher)
        dataset = load_dataset("fashion_mnist")
        calibration, test = dataset["calibration"].take(256).images, dataset["test"].take(n_images)
        digital = float((network.run(test.images).argmax(1) == test.labels).mean())
        for label, mapping in {"no wires": MappingConfig(), **PLACEMENTS}.items():
            wires = None if label == "no wires" else WiresConfig(r_word=2.5, r_bit=2.5)
            config = ChipConfig(mapping=mapping, wires=wires, cells=CellsConfig(sigma=0.1))
            found: dict[str, list[float]] = {"mapped": [], "tuned": [], "loss": [], "solve_s": []}
            for number in range(n_chips):
                chip = SimulatedChip(config, layer_shapes(network), chip=number)
                deployment = Deployment(network, chip)
                deployment.map(calibration)
                started = time.process_time()
                chip.refresh()
                found["solve_s"].append(time.process_time() - started)
                found["loss"].append(0.0 if wires is None else mean_loss(chip))
                logits = deployment.fork().run(test.images)
                found["mapped"].append(float((logits.argmax(1) == test.labels).mean()))
                report = tune(
                    chip, network, network, calibration, strategy="lsq.affine", start_from=deployment
                )
                tuned = report.deployment
                logits = tuned.fork().run(test.images)
                found["tuned"].append(float((logits.argmax(1) == test.labels).mean()))
            rows.append(
                {
                    "network": teacher,
                    "placement": label,
                    "arrays": len(chip.map.shapes),
                    "utilisation": chip.map.utilisation,
                    "digital": digital,
                    **{name: float(np.mean(values)) for name, values in found.items()},
                }
            )
            row = rows[-1]
            print(
                f"{teacher:16} {label:28} {row['arrays']:3} arrays {100 * row['utilisation']:5.1f} % used  "
                f"loss {100 * row['loss']:5.2f} %  teacher {100 * digital:.2f}  mapped "
                f"{100 * row['mapped']:.2f}  affine {100 * row['tuned']:.2f}  solve {row['solve_s']:.2f} s",
                flush=True,
            )
    return rows


def noise() -> list[dict[str, Any]]:
    """Rows of variance over that of every cell, and of the time of a read."""
    from tests.chip.nodal import Array
    from tests.chip.test_arrays import kinds_of_input, noisy_array

    rows = []
    for ohm in (1.0, 2.5, 5.0):
        for high in (False, True):
            chip = noisy_array(ohm, high)
            array = chip._layers["layer"].array
            g, sigma = array.cells.conductance.astype(float), array.cells.read_sigma()
            assert sigma is not None
            solved = Array(g, ohm, ohm)
            transfer = solved.to_outputs(range(128))
            before = (sigma * solved.effective() / g) ** 2
            for name, codes in kinds_of_input(128).items():
                v = solved.cell_voltages(codes[None] / 127 * 0.2)[0]
                want = np.array(
                    [np.sum((sigma * v * (transfer[k] - transfer[k + 1])) ** 2) for k in range(0, 128, 2)]
                )
                ampere = chip._layers["layer"].output_range / 8388607
                got = chip.mvm("layer", np.tile(codes, (6000, 1))).codes.var(axis=0) * ampere**2
                old = ((codes / 127 * 0.2) ** 2 @ before).reshape(-1, 2).sum(axis=1)
                ratio = got / want
                rows.append(
                    {
                        "ohm": ohm,
                        "cells": "high" if high else "weights",
                        "input": name,
                        "ratio": float(ratio.mean()),
                        "lowest": float(ratio.min()),
                        "highest": float(ratio.max()),
                        "share_of_solution": float((old / want).mean()),
                    }
                )
                row = rows[-1]
                print(
                    f"{ohm:4} ohm  {row['cells']:8} {name:11} variance {row['ratio']:.3f} "
                    f"({row['lowest']:.3f} ... {row['highest']:.3f}) of every cell's; with the effective "
                    f"conductance's share alone {row['share_of_solution']:.3f}",
                    flush=True,
                )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--chips", type=int, default=2)
    parser.add_argument("--noise", action="store_true", help="variance of read noise instead of placements")
    arguments = parser.parse_args()
    print(machine_line())
    rows = noise() if arguments.noise else placements(arguments.images, arguments.chips)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
