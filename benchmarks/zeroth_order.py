"""What zeroth order recovers alone, and what it adds to least squares.

    python -m benchmarks.zeroth_order --json zeroth_order.json

Table `alone` (LeNet-5, lognormal 0.3): arms that never solve anything in closed form and read every
loss from the chip. Table `after` (paired, same chips): the default strategy with and without
zeroth-order components, in regimes named by ADC bits, read noise, wires or drift after tuning.
Rows already in the file are kept; a stopped run goes on at the first missing one.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from finetune.strategies.composition import SCHEMES
from finetune.study.statistics import compare, interval_text, recovered_fraction
from finetune.tuner import tune
from rramsim.cell import CellsConfig, DisturbConfig, ReadNoiseConfig
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.circuit.wiring import WiresConfig
from rramsim.datasets.embedded import load_dataset
from rramsim.datasets.teachers import load_teacher
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes

ALONE = {
    "mapped": "",
    "zo.local gain+offset": "zo.local(rounds=40)",
    "zo.local rank 8": "zo.local(rounds=80, rank=8)",
    "zo.local spsa": "zo.local(rounds=80, method='spsa', rate=0.2)",
    "zo end to end": (
        "zo(method='spsa', reach=-1, cached=False, steps=150, images=64, rule='adam', rate=0.01)"
    ),
}
AFTER = {
    "default": "",
    "+zo(kd)": " + zo(reach=1, parameters='gain+offset', steps=1)",
    "+zo.range": " + zo.range + lsq.affine",
    "+zo.range+zo(kd)": " + zo.range + lsq.affine + zo(reach=1, parameters='gain+offset', steps=1)",
}


def regime(name: str) -> ChipConfig:
    """Chip settings of a named regime; lognormal 0.3 throughout."""
    cells = CellsConfig(law="lognormal", sigma=0.3)
    if name.startswith("adc"):
        return ChipConfig(cells=cells, converters=ConverterConfig(adc_bits=int(name[3:])))
    if name == "read_noise":
        noise = ReadNoiseConfig(sigma_relative=0.1)
        return ChipConfig(cells=CellsConfig(law="lognormal", sigma=0.3, read_noise=noise))
    if name == "wires":
        return ChipConfig(cells=cells, wires=WiresConfig(r_word=2.5, r_bit=2.5))
    if name == "drift":
        return ChipConfig(cells=cells, disturb=DisturbConfig(law="drift"))
    return ChipConfig(cells=cells)


def accuracy(deployment: Deployment, split, n_images: int) -> float:
    last = n_images or len(split.labels)
    logits = deployment.fork(1).run(split.images[:last])
    return 100.0 * float((logits.argmax(axis=1) == split.labels[:last]).mean())


def row(network, data, args, table: str, where: str, arm: str, number: int) -> dict:
    """One chip and one arm."""
    begin = time.perf_counter()
    images, split = data["calibration"].images[:256], data[args.split]
    chip = SimulatedChip(regime(where), layer_shapes(network), seed=0, chip=number)
    start, vectors, writes = None, 0, 0.0
    text = ALONE[arm] if table == "alone" else SCHEMES["default"] + AFTER[arm]
    if not text:
        start = Deployment(network, chip)
        start.map(images)
    elif where == "drift" and table == "after":
        # tuned, then one period of drift, then zeroth order alone (no least squares again)
        report = tune(chip, network, network, images, strategy="default")
        start, text = report.deployment.on(chip), AFTER[arm].removeprefix(" + ").replace(" + lsq.affine", "")
        chip.age(1e6)
    if text:
        report = tune(chip, network, network, images, strategy=text, start_from=start)
        start, vectors, writes = report.deployment.on(chip), report.vectors, report.writes_per_cell
    return {
        "table": table,
        "regime": where,
        "arm": arm,
        "chip": number,
        "accuracy": accuracy(start, split, args.images),
        "vectors": vectors,
        "writes_per_cell": writes,
        "seconds": time.perf_counter() - begin,
    }


def summary(rows: list[dict], teacher: float) -> str:
    """A line per table, regime and arm."""
    lines = [
        f"teacher {teacher:.2f}",
        "table  regime      arm                    mean   worst  Mvectors  paired gain",
    ]
    for table, where in dict.fromkeys((r["table"], r["regime"]) for r in rows):
        group = [r for r in rows if (r["table"], r["regime"]) == (table, where)]
        names = list(dict.fromkeys(r["arm"] for r in group))
        base = {r["chip"]: r["accuracy"] for r in group if r["arm"] == names[0]}
        for arm in names:
            mine = [r for r in group if r["arm"] == arm and r["chip"] in base]
            values = np.array([r["accuracy"] for r in mine])
            gain = compare(values, np.array([base[r["chip"]] for r in mine]))
            share = recovered_fraction(values, np.array([base[r["chip"]] for r in mine]), teacher)
            lines.append(
                f"{table:6} {where:11} {arm:20} {values.mean():6.2f} {values.min():7.2f} "
                f"{np.mean([r['vectors'] for r in mine]) / 1e6:9.2f}  {gain.mean:+6.2f}"
                f"{interval_text(gain.low, gain.high, '+.2f')}  {100 * share.value:4.0f}"
                f"{interval_text(100 * share.low, 100 * share.high, '.0f')} % of the loss, {len(mine)} chips"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--network", default="lenet5_fashion")
    parser.add_argument("--chips", default="100-109")
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int, default=0, help="of the split; 0 takes all")
    parser.add_argument("--alone", default=",".join(ALONE), help="arms of the first table, or none")
    parser.add_argument("--regimes", default="adc8,adc5,adc4,read_noise,drift")
    parser.add_argument("--arms", default=",".join(AFTER))
    args = parser.parse_args()
    first, _, last = args.chips.partition("-")
    network, data = load_teacher(args.network), load_dataset("fashion_mnist")
    rows = json.loads(args.json.read_text()) if args.json.exists() else []
    done = {(r["table"], r["regime"], r["arm"], r["chip"]) for r in rows}
    wanted = [("alone", "adc8", arm) for arm in args.alone.split(",") if arm in ALONE]
    wanted += [
        ("after", where, arm) for where in args.regimes.split(",") for arm in args.arms.split(",") if where
    ]
    for number in range(int(first), int(last or first) + 1):
        for table, where, arm in wanted:
            if (table, where, arm, number) not in done:
                rows.append(row(network, data, args, table, where, arm, number))
                partial = args.json.with_suffix(".part")
                partial.write_text(json.dumps(rows, indent=1))
                partial.replace(args.json)
    split = data[args.split]
    last = args.images or len(split.labels)
    teacher = 100.0 * float((network.run(split.images[:last]).argmax(axis=1) == split.labels[:last]).mean())
    print(summary(rows, teacher))


if __name__ == "__main__":
    main()
