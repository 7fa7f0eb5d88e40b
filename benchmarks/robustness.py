"""The tuner on chips that are not as assumed: what each effect costs, and whether the report says so.

    python -m benchmarks.robustness --network lenet5_fashion --chips 2 --json robustness.json
    python -m benchmarks.robustness --network resnet8_fashion --chips 5 --rows read_noise_15,all_realistic

A row is one effect on top of the reference conditions (lognormal errors of 0.3, wires without resistance).
Columns: accuracy of plain mapping and of the tuned chip, gap to the teacher in points, its difference to the
gap of the matched case (the same chips without the effect), costs, and what the health report said
(`TuneReport.health`). Rows are written as they come and a run goes on where it stopped.
Chips 100 and up report on the test images; `--first 0 --split validation` is for choosing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tuning import accuracy, digest, reference
from finetune.tuner import tune
from rramsim.blackbox.averaging import AveragedReads
from rramsim.cell import DisturbConfig, DriftConfig, FaultsConfig, ReadNoiseConfig, TelegraphConfig
from rramsim.chip.converters import ConverterConfig, ConverterErrors
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.chip.variation import TemperatureConfig, VariationConfig
from rramsim.circuit.wiring import WiresConfig
from rramsim.datasets.embedded import Dataset, load_dataset
from rramsim.datasets.teachers import load_teacher
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from rramsim.network import Network

MATCHED = "matched"


@dataclass(frozen=True)
class Row:
    """One effect."""

    config: ChipConfig
    reads: int = 1  # of every vector, in tuning and in use
    after: Callable[[SimulatedChip], None] | None = None  # what happens between tuning and use


def errors(**sizes: float) -> ChipConfig:
    """Reference conditions with converters that differ."""
    return reference(converters=ConverterConfig(errors=ConverterErrors(**sizes)))


def variation(**sizes: float) -> ChipConfig:
    """Reference conditions with errors that cells share."""
    return reference(variation=VariationConfig(**sizes))


def warmer(chip: SimulatedChip) -> None:
    """Use at 330 K what was tuned at 300 K."""
    chip.set_temperature(330.0)


NOISE_15 = reference({"read_noise": ReadNoiseConfig(sigma_relative=0.15)})
TELEGRAPH = reference({"telegraph": TelegraphConfig(fraction=0.5)})
WIRES = WiresConfig(r_word=5.0, r_bit=5.0, r_driver=200.0)
# power law of drift with the time since the write, 2 % a decade at 1 s with 1 % between cells
DRIFTING = DriftConfig(law="power", mean_polynomial=(0.01,), sigma_polynomial=(0.01,))
REALISTIC = reference(
    {
        "read_noise": ReadNoiseConfig(sigma_relative=0.02),
        "telegraph": TelegraphConfig(fraction=0.1),
    },
    faults=FaultsConfig(stuck_low_rate=0.005, stuck_high_rate=0.005),
    wires=WiresConfig(r_word=1.0, r_bit=1.0, r_driver=50.0),
    converters=ConverterConfig(
        errors=ConverterErrors(
            adc_gain=0.02, adc_offset=1.0, adc_inl=0.5, adc_dnl=0.2, dac_inl=0.5, driver_gain=0.02
        )
    ),
    variation=VariationConfig(write_bias=-0.05, sigma_word=0.05, sigma_bit=0.05, level_offset=0.02),
    temperature=TemperatureConfig(read=320.0),
)
ROWS: dict[str, Row] = {
    MATCHED: Row(reference()),
    "adc_gain_5": Row(errors(adc_gain=0.05)),
    "adc_offset_3": Row(errors(adc_offset=3.0)),
    "adc_inl_2": Row(errors(adc_inl=2.0)),
    "adc_dnl_0.5": Row(errors(adc_dnl=0.5)),
    "dac_inl_2": Row(errors(dac_inl=2.0)),
    "dac_dnl_0.5": Row(errors(dac_dnl=0.5)),
    "driver_gain_5": Row(errors(driver_gain=0.05)),
    "read_at_360_K": Row(reference(temperature=TemperatureConfig(read=360.0))),
    "half_select": Row(
        reference(variation=VariationConfig(v_half=0.5), disturb=DisturbConfig(law="power", v_read=0.2))
    ),
    "shared_word_10": Row(variation(sigma_word=0.1)),
    "shared_bit_10": Row(variation(sigma_bit=0.1)),
    "shared_tile_10": Row(variation(sigma_tile=0.1)),
    "floor_3_uS": Row(variation(g_floor=3e-6)),
    "writes_x0.8": Row(variation(write_bias=-0.2)),
    "level_offset_5": Row(variation(level_offset=0.05)),
    "dead_word_lines_2": Row(variation(dead_word_rate=0.02)),
    "dead_bit_lines_2": Row(variation(dead_bit_rate=0.02)),
    "additive_6": Row(reference({"law": "additive", "sigma": 0.06})),
    "repeated_0": Row(reference({"fixed_fraction": 0.0})),
    "repeated_1": Row(reference({"fixed_fraction": 1.0})),
    "drift_while_tuning": Row(reference({"drift": DRIFTING}, converters=ConverterConfig(t_read=1e-5))),
    "read_noise_5": Row(reference({"read_noise": ReadNoiseConfig(sigma_relative=0.05)})),
    "read_noise_15": Row(NOISE_15),
    "read_noise_15_reads_8": Row(NOISE_15, reads=8),
    "telegraph_50": Row(TELEGRAPH),
    "telegraph_50_reads_8": Row(TELEGRAPH, reads=8),
    "stuck_5": Row(reference(faults=FaultsConfig(stuck_low_rate=0.025, stuck_high_rate=0.025))),
    "30_K_warmer_in_use": Row(reference(temperature=TemperatureConfig()), after=warmer),
    "disturbed_by_reads": Row(reference(disturb=DisturbConfig(law="drift", parameters={"rate": 0.1}))),
    "wires_5_drivers_200": Row(reference(wires=WIRES)),
    "all_realistic": Row(REALISTIC),
    "all_realistic_reads_4": Row(REALISTIC, reads=4),
}


def measure(
    network: Network, dataset: Dataset, row: Row, chip_id: int, args: argparse.Namespace
) -> dict[str, Any]:
    """One chip: plain mapping, then the default strategy, then what happens before use."""
    shapes, images = layer_shapes(network), dataset.splits["calibration"].images[: args.calibration]

    def new() -> tuple[SimulatedChip, Any]:
        chip = SimulatedChip(row.config, shapes, chip=chip_id)
        return chip, chip if row.reads == 1 else AveragedReads(chip, row.reads)

    begin = time.process_time()
    _, box = new()
    plain = Deployment(network, box)
    plain.map(images)
    mapped = accuracy(plain.fork(), dataset, args.split, min(args.images, 2000))
    chip, box = new()
    report = tune(box, network, network, images, strategy=args.strategy)
    if row.after is not None:
        row.after(chip)
    return {
        "chip": chip_id,
        "mapped": mapped,
        "tuned": accuracy(report.deployment.fork(), dataset, args.split, args.images),
        "writes_per_cell": report.writes_per_cell,
        "vectors": report.vectors,
        "said": report.health.deviations,
        "learnt": report.health.text(),
        "cpu_seconds": time.process_time() - begin,
    }


def table(results: dict[str, Any]) -> str:
    """Markdown, one line per row; means over chips."""
    lines = [
        "| Network | Row | Chips | Mapped | Tuned | Gap | Against matched | M vectors | Writes/cell "
        "| The report said |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in results.values():
        rows = entry["chips"]
        gaps = {chip: entry["teacher"] - row["tuned"] for chip, row in rows.items()}
        base = next(
            (
                other
                for other in results.values()
                if other["row"] == MATCHED and other["common"] == entry["common"]
            ),
            None,
        )
        against = "-"
        if base is not None and entry["row"] != MATCHED:
            shared = [chip for chip in gaps if chip in base["chips"]]
            if shared:
                rise = [gaps[chip] - (base["teacher"] - base["chips"][chip]["tuned"]) for chip in shared]
                against = f"{np.mean(rise):+.2f}"
        said = sorted({sentence.split(":")[0] for row in rows.values() for sentence in row["said"]})
        means = [np.mean([row[name] for row in rows.values()]) for name in ("mapped", "tuned")]
        lines.append(
            f"| {entry['network']} | {entry['row']} | {len(rows)} | {means[0]:.2f} | {means[1]:.2f} "
            f"| {np.mean(list(gaps.values())):.2f} | {against} "
            f"| {np.mean([row['vectors'] for row in rows.values()]) / 1e6:.2f} "
            f"| {np.mean([row['writes_per_cell'] for row in rows.values()]):.2f} "
            f"| {'; '.join(said) or 'as its datasheet'} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, save after each chip, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet8_fashion")
    parser.add_argument("--rows", default=",".join(ROWS), help="names, comma between them")
    parser.add_argument("--strategy", default="default")
    parser.add_argument("--chips", type=int, default=5)
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument("--calibration", type=int, default=256)
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--json", type=Path, default=Path("robustness.json"))
    args = parser.parse_args()
    names = args.rows.split(",")
    for name in names:
        if name not in ROWS:
            parser.error(f"no row {name!r}; rows: {', '.join(ROWS)}")
    results: dict[str, Any] = json.loads(args.json.read_text()) if args.json.exists() else {}
    network, dataset = load_teacher(args.network), load_dataset("fashion_mnist")
    common = [digest(network), args.strategy, args.calibration, args.split, args.images]
    teacher = accuracy(network, dataset, args.split, args.images)
    for name in names:
        key = "|".join(map(str, [args.network, name, *common]))
        entry = results.setdefault(
            key,
            {"network": args.network, "row": name, "common": common, "teacher": teacher, "chips": {}},
        )
        for chip_id in range(args.first, args.first + args.chips):
            if str(chip_id) in entry["chips"]:
                continue
            entry["chips"][str(chip_id)] = measure(network, dataset, ROWS[name], chip_id, args)
            partial = args.json.with_suffix(".part")
            partial.write_text(json.dumps(results, indent=1))
            partial.replace(args.json)
            row = entry["chips"][str(chip_id)]
            print(f"{name} chip {chip_id}: gap {teacher - row['tuned']:.2f} {row['said']}", flush=True)
    print(table({key: entry for key, entry in results.items() if entry["chips"]}))


if __name__ == "__main__":
    main()
