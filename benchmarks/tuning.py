r"""Measure a tuning strategy under the reference conditions, chip by chip, and print the table of bars.

    python -m benchmarks.tuning --condition lognormal_0.3 --chips 10 --json results.json
    python -m benchmarks.tuning --chips 5 --network vit_fashion --network mixer_fashion \
        --network depthwise_fashion --network lstm_fashion --json kinds.json

Chips 100 and up report on the test images; `--first 0 --split validation` chooses hyper-parameters.
A run takes up where it was stopped: chips that the JSON file holds already are not measured again,
unless the teacher, the strategy or the settings differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune.strategies.composition import SCHEMES
from finetune.study.statistics import Ratio, compare, interval_text, recovered_fraction
from finetune.tuner import tune
from rramsim.cell import CellsConfig, FaultsConfig, ReadNoiseConfig
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.circuit.wiring import WiresConfig
from rramsim.datasets.embedded import Dataset, load_dataset
from rramsim.datasets.teachers import load_teacher
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from rramsim.network import Network


@dataclass(frozen=True)
class Bars:
    """What must hold: gaps in points, recovered fraction, writes per cell."""

    gap: float | None = None
    worst: float | None = None
    recovered: float | None = None
    writes: float | None = None


CELLS: dict[str, Any] = {
    "n_levels": 16,
    "g_max": 40e-6,
    "on_off_ratio": 30.0,
    "fixed_fraction": 0.5,
    "law": "lognormal",
    "sigma": 0.3,
}


def reference(cells: dict[str, Any] | None = None, **tables: Any) -> ChipConfig:
    """The reference conditions with some changes."""
    return ChipConfig(cells=CellsConfig(**{**CELLS, **(cells or {})}), **tables)


CONDITIONS: dict[str, tuple[ChipConfig, Bars]] = {
    "lognormal_0.3": (reference(), Bars(0.7, 1.1, 0.96, 0.75)),
    "lognormal_0.5": (reference({"sigma": 0.5}), Bars(1.7, 2.1, 0.965, 0.8)),
    "additive_0.06": (reference({"law": "additive", "sigma": 0.06}), Bars(0.5, 0.8, 0.95, 0.7)),
    "levels_4": (reference({"n_levels": 4, "on_off_ratio": 10.0}), Bars(1.1, 1.5, 0.96, 0.6)),
    "stuck_0.01": (
        reference(faults=FaultsConfig(stuck_low_rate=0.005, stuck_high_rate=0.005)),
        Bars(0.9, 1.3, 0.96, 0.8),
    ),
    "adc_6": (reference(converters=ConverterConfig(adc_bits=6)), Bars(1.5, 2.0, 0.92, 0.8)),
    "wires_2.5": (reference(wires=WiresConfig(r_word=2.5, r_bit=2.5)), Bars(recovered=0.95)),
    "reference_0.2": (
        reference({"sigma": 0.2}, mapping=MappingConfig(kind="reference")),
        Bars(0.7, recovered=0.9, writes=2.0),
    ),
    "reference_0.3": (reference(mapping=MappingConfig(kind="reference")), Bars(1.5, writes=3.0)),
    "reference_0.2_digital": (
        reference({"sigma": 0.2}, mapping=MappingConfig(kind="reference", reference="digital")),
        Bars(),
    ),
    "reference_0.2_wires_noise": (
        reference(
            {"sigma": 0.2, "read_noise": ReadNoiseConfig(sigma_relative=0.02)},
            mapping=MappingConfig(kind="reference"),
            wires=WiresConfig(r_word=2.5, r_bit=2.5),
        ),
        Bars(1.2, writes=2.0),
    ),
}


def accuracy(deployment: Deployment | Network, dataset: Dataset, split: str, n_images: int) -> float:
    """Share of right answers, in percent."""
    part = dataset.splits[split]
    images, labels = part.images[:n_images], part.labels[:n_images]
    return 100.0 * float((deployment.run(images).argmax(axis=1) == labels).mean())


def digest(network: Network) -> str:
    """Short name of a network's weights."""
    parts = [value.tobytes() for node in network.nodes for _, value in sorted(node.parameters.items())]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def measure(
    network: Network, dataset: Dataset, config: ChipConfig, chip_id: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Map one chip plainly, tune another copy of it, evaluate both."""
    shapes = layer_shapes(network)
    images = dataset.splits["calibration"].images[: arguments.calibration]
    plain = Deployment(network, SimulatedChip(config, shapes, chip=chip_id))
    plain.map(images)
    mapped = accuracy(plain.fork(), dataset, arguments.split, arguments.images)  # R needs the same images
    chip = SimulatedChip(config, shapes, chip=chip_id)
    begin, cpu = time.perf_counter(), time.process_time()
    report = tune(
        chip, network, network, images, strategy=arguments.strategy, shuffle_teacher=arguments.shuffled
    )
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    part = dataset.splits[arguments.split]
    pictures, labels = part.images[: arguments.images], part.labels[: arguments.images]
    answers = report.deployment.fork().run(pictures).argmax(axis=1)
    tuned = 100.0 * float((answers == labels).mean())
    agreement = 100.0 * float((answers == network.run(pictures).argmax(axis=1)).mean())
    return {
        "chip": chip_id,
        "mapped": mapped,
        "mapped_images": arguments.images,
        "tuned": tuned,
        "agreement": agreement,
        "writes_per_cell": report.writes_per_cell,
        "vectors": report.vectors,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "max_cycles": report.ledger.total.max_cycles,
        "overhead": report.digital_overhead["fraction_of_weights"],
        "overhead_macs": report.digital_overhead["fraction_of_macs"],
        "overhead_indices": report.digital_overhead["indices"],
    }


def table(results: dict[str, Any]) -> str:
    """One line per condition and strategy, bars in brackets; 95 % intervals over chips at the end.

    `agree` is the share of images on which the chip answers as the teacher does, numbers and MACs what the
    host keeps and computes beside gains and offsets, over the network's weights and multiply-accumulates.
    R is told only where mapped and tuned chips saw the same images, as all rows of this version did.
    """
    head = (
        f"{'network, condition, strategy':<44} chips teacher  mapped   tuned     gap [bar]    worst [bar]"
        "       R [bar]   writes [bar]  agree  numbers   MACs  vectors  CPU s"
    )
    lines = [head]
    for entry in results.values():
        rows = list(entry["chips"].values())
        if not rows:
            continue
        bars = Bars(**entry["bars"])
        teacher = entry["teacher"]
        mapped = np.array([row["mapped"] for row in rows])
        tuned = np.array([row["tuned"] for row in rows])
        same = all(row.get("mapped_images") == entry.get("images") for row in rows)
        r = recovered_fraction(tuned, mapped, teacher) if same else Ratio(np.nan, np.nan, np.nan, len(rows))
        gap = compare(np.full(tuned.size, teacher), tuned)
        values = (
            (teacher - tuned.mean(), bars.gap, 2),
            (teacher - tuned.min(), bars.worst, 2),
            (r.value, bars.recovered, 3),
            (np.mean([row["writes_per_cell"] for row in rows]), bars.writes, 3),
        )
        cells = [f"{value:8.{n}f} [{'-' if bar is None else f'{bar:g}':>5}]" for value, bar, n in values]
        shares = " ".join(
            f"{factor * np.mean([row.get(key, np.nan) for row in rows]):6.2f}{unit}"
            for key, factor, unit in (
                ("agreement", 1.0, "%"),
                ("overhead", 100.0, "%"),
                ("overhead_macs", 100.0, "%"),
            )
        )
        vectors = np.mean([row["vectors"] for row in rows]) / 1e6
        cpu = np.mean([row["cpu_seconds"] for row in rows])
        lines.append(
            f"{entry['label']:<44} {len(rows):5d} {teacher:7.2f} {mapped.mean():7.2f} {tuned.mean():7.2f}"
            f"{''.join(cells)} {shares} {vectors:6.2f} M {cpu:6.1f}"
            f"  gap{interval_text(gap.low, gap.high)}, R{interval_text(r.low, r.high, '.3f')}"
        )
    return "\n".join(lines)


def run(network_name: str, arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    """All chips and conditions of one network; what `results` holds already is left."""
    network, dataset = load_teacher(network_name), load_dataset("fashion_mnist")
    text = SCHEMES.get(arguments.strategy, arguments.strategy) + (" (shuffled)" if arguments.shuffled else "")
    teacher = None
    for chip_id in range(arguments.first, arguments.first + arguments.chips):
        for name in arguments.condition or ["lognormal_0.3"]:
            config, bars = CONDITIONS[name]
            parts = (digest(network), name, text, arguments.calibration, arguments.split, arguments.images)
            key = "|".join(str(part) for part in parts)
            if key not in results:
                if teacher is None:
                    teacher = accuracy(network, dataset, arguments.split, arguments.images)
                label = f"{network_name} {name} {arguments.strategy} {arguments.calibration}"
                label += " shuffled" if arguments.shuffled else ""
                results[key] = {"label": label, "teacher": teacher, "bars": vars(bars), "chips": {}}
                results[key]["images"] = arguments.images
            if str(chip_id) in results[key]["chips"]:
                continue
            row = measure(network, dataset, config, chip_id, arguments)
            results[key]["chips"][str(chip_id)] = row
            arguments.json.write_text(json.dumps(results, indent=1))
            print(f"{name} chip {chip_id}: mapped {row['mapped']:.2f} tuned {row['tuned']:.2f}", flush=True)


def main() -> None:
    """Measure, save after each chip, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--condition", action="append", choices=sorted(CONDITIONS), default=None)
    parser.add_argument("--network", action="append", help="a teacher; several may be named")
    parser.add_argument("--strategy", default="default")
    parser.add_argument("--chips", type=int, default=10)
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument("--calibration", type=int, default=256)
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument(
        "--shuffled", action="store_true", help="control: targets of other images, must recover nothing"
    )
    parser.add_argument("--json", type=Path, default=Path("tuning.json"))
    arguments = parser.parse_args()
    results: dict[str, Any] = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for name in arguments.network or ["resnet8_fashion"]:
        run(name, arguments, results)
    print(table(results))


if __name__ == "__main__":
    main()
