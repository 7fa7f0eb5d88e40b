"""Variation-aware training against tuning after programming, on the same chips.

    python -m benchmarks.rivals --json rivals.json

Rivals are networks of `data/rivals/`, trained on from a teacher with a new programming of all weights in
every step (`data/train_teachers.py`). They are mapped once as they are, with batch norm estimated again, or
tuned as the teacher is. Reference conditions of `benchmarks.tuning`, full test set. Rows already in the file
are kept; a stopped run goes on at the first missing one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.tuning import CONDITIONS, accuracy
from finetune.study.statistics import compare, interval_text
from finetune.tuner import tune
from rramsim.chip.simulated import SimulatedChip
from rramsim.datasets.embedded import load_dataset
from rramsim.datasets.teachers import data_path, load_teacher
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from rramsim.network import Network

METHODS = {  # label: (whether the rival's weights, strategy)
    "VAT, mapped": (True, ""),
    "VAT + batch_norm": (True, "batch_norm"),
    "VAT + lsq.affine": (True, "lsq.affine"),
    "VAT + default": (True, "default"),
    "teacher, mapped": (False, ""),
    "teacher + batch_norm": (False, "batch_norm"),
    "teacher + lsq.affine": (False, "lsq.affine"),
    "teacher + default": (False, "default"),
}
RIVALS = ("VAT, mapped", "VAT + batch_norm", "VAT + default")  # what the last method is compared with


def measure(network: Network, strategy: str, condition: str, chip_id: int, n_images: int) -> float:
    """Test accuracy [%] of one chip."""
    dataset = load_dataset("fashion_mnist")
    images = dataset.splits["calibration"].images[:256]
    chip = SimulatedChip(CONDITIONS[condition][0], layer_shapes(network), chip=chip_id)
    if strategy:
        deployment = tune(chip, network, network, images, strategy=strategy).deployment
    else:
        deployment = Deployment(network, chip)
        deployment.map(images)
    return accuracy(deployment.fork(), dataset, "test", n_images)


def summary(rows: list[dict[str, Any]]) -> str:
    """Means, worst chips, and paired differences to the last method, per network and condition."""
    lines = []
    for key in dict.fromkeys((row["network"], row["condition"]) for row in rows):
        found = {
            label: {
                r["chip"]: r["accuracy"]
                for r in rows
                if (r["network"], r["condition"], r["method"]) == (*key, label)
            }
            for label in METHODS
        }
        lines.append(f"{key[0]}, {key[1]}:")
        for label, values in found.items():
            if values:
                numbers = np.array(list(values.values()))
                lines.append(
                    f"  {label:24} {numbers.mean():6.2f}  worst {numbers.min():6.2f}  {numbers.size} chips"
                )
        ours = found["teacher + default"]
        for label in RIVALS:
            both = sorted(set(ours) & set(found[label]))
            if len(both) > 1:
                gain = compare([ours[chip] for chip in both], [found[label][chip] for chip in both])
                lines.append(
                    f"  teacher + default over {label}: {gain.mean:+.2f}"
                    f"{interval_text(gain.low, gain.high, '+.2f')}, p = {gain.p_value:.2g}"
                )
    return "\n".join(lines)


def main() -> None:
    """Measure, save after each row, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=Path("rivals.json"))
    parser.add_argument("--network", default="lenet5_fashion")
    parser.add_argument("--condition", default="lognormal_0.3", choices=sorted(CONDITIONS))
    parser.add_argument("--chips", type=int, default=10)
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument("--images", type=int, default=10_000)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = (
        json.loads(arguments.json.read_text())["rows"] if arguments.json.exists() else []
    )
    rival = Network.load(data_path("rivals", f"{arguments.network}_vat.h5"))
    teacher = load_teacher(arguments.network)
    for chip in range(arguments.first, arguments.first + arguments.chips):
        for label, (vat, strategy) in METHODS.items():
            row: dict[str, Any] = {
                "network": arguments.network,
                "condition": arguments.condition,
                "chip": chip,
                "method": label,
                "images": arguments.images,
            }
            if any(row.items() <= old.items() for old in rows):
                continue
            row["accuracy"] = measure(
                rival if vat else teacher, strategy, arguments.condition, chip, arguments.images
            )
            rows.append(row)
            arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))
    print(summary(rows))


if __name__ == "__main__":
    main()
