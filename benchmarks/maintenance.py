"""Accuracy of a network (LeNet-5) under read disturbance with and without maintenance.

    python -m benchmarks.maintenance --json maintenance.json

Three tables. `drift`: five periods of drift towards g_max (mean exponent 0.05 a period, lognormal spread of
cells), lognormal writes of 0.3, after each period nothing, a recalibration without writes, or a visit of
`maintain` with 256 new unlabelled images each time (`maintain_same`: with the 256 of the first tuning;
`traffic`: with what the teacher shadowed of the inputs served, one in a thousand). `power`: the published law
at 0.3 V after 1e4 cycles, the same visits at 1e6 ... 1e9 reads of real activity. `schedule`: `operate`
decides by itself when to do what over the same reads.
Rows already in the file are kept; a stopped run goes on at the first missing one.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from finetune.caretaker import Caretaker, Policy, operate
from finetune.shadow import Shadow
from finetune.strategies.maintain import Maintain
from finetune.tuner import tune
from rramsim.cell import CellsConfig, DisturbConfig
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.datasets.embedded import load_dataset
from rramsim.datasets.teachers import load_teacher
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes

PRICE = 0.1
BAND = 0.02  # rise of the disagreement with the teacher that `operate` leaves alone
SERVED = 300_000  # inputs between two visits, of which a thousandth is shadowed by the teacher
POWER_STEPS = (1e6, 1e7, 1e8, 1e9)  # reads since delivery at each visit


def accuracy(deployment: Deployment, split, stream: int, n_images: int = 0) -> float:
    """Percent correct on a fork, which leaves the chip as it is; on the first images, or all for 0."""
    last = n_images or len(split.labels)
    logits = deployment.fork(stream).run(split.images[:last])
    return 100.0 * float((logits.argmax(axis=1) == split.labels[:last]).mean())


def make_chip(network, law: str, chip: int) -> SimulatedChip:
    if law == "power":
        config = ChipConfig(
            cells=CellsConfig(law="lognormal", sigma=0.3),
            converters=ConverterConfig(v_read=0.3),
            disturb=DisturbConfig(law="power", v_read=0.3, cycles_before=10_000),
        )
    else:
        config = ChipConfig(cells=CellsConfig(law="lognormal", sigma=0.3), disturb=DisturbConfig(law="drift"))
    return SimulatedChip(config, layer_shapes(network), seed=0, chip=chip)


def activity(deployment: Deployment, images) -> dict[str, np.ndarray]:
    """Codes of typical inputs, taken on a fork."""
    fork = deployment.fork(77)
    trace = fork.trace(images[:64])
    return {layer: trace.codes(layer) for layer in fork.layers}


def row(network, data, args, law: str, mode: str, chip: int) -> dict:
    """One chip, one way of looking after it."""
    begin = time.perf_counter()
    images, split = data["calibration"].images[:256], data[args.split]
    simulated = make_chip(network, law, chip)
    report = tune(simulated, network, network, images, strategy=args.strategy)
    deployment = report.deployment.on(simulated)
    result = {"law": law, "mode": mode, "chip": chip, "tuned": accuracy(deployment, split, 1, args.images)}
    result["tuning_writes"] = report.writes_per_cell
    falling = law == "power"
    maintain = Maintain(
        rate=args.rate if not falling else 0.1,
        price=args.price,
        rising=not falling,
        spread=1.31 if not falling else 0.3,
        uniform=not falling,
    )
    held_out = data["validation"].images[:1000]  # for looking alone; labels are not used
    caretaker = Caretaker(
        simulated, network, network, images, deployment, maintain=maintain, held_out=held_out
    )
    if mode not in ("none", "recalibrate"):
        caretaker.learn()
    typical = activity(deployment, images) if falling else None
    if mode == "schedule":
        draw = np.random.default_rng(chip)  # any image of the calibration split may come by in service
        operation = operate(
            caretaker,
            lambda n: simulated.age(n, typical),
            1e9 if falling else 5e6,
            Policy(band=BAND, first_reads=1e6 if falling else 2.5e5),
            fresh=lambda: data["calibration"].images[draw.choice(2000, 256, replace=False)],
        )
        result |= {"before": [], "after": [accuracy(caretaker.deployment, split, 2, args.images)]}
        result["actions"] = [[v.reads, v.action, v.disagreement, v.cell_writes] for v in operation.visits]
        result["writes"] = [operation.writes_per_cell]
        result["vectors"] = [operation.vectors]
        result["seconds"] = time.perf_counter() - begin
        return result
    shadow, arrivals = Shadow(seed=chip), np.random.default_rng(chip)
    steps = np.diff((0.0, *POWER_STEPS)) if falling else [1e6] * 5
    before, after, writes, vectors = [], [], [], []
    for index, reads in enumerate(steps):
        simulated.age(float(reads), typical)
        before.append(accuracy(caretaker.deployment, split, 10 + index, min(args.images, 2000) or 2000))
        if mode != "none":
            first = 256 * (index + 1) if mode == "maintain" else 0  # unlabelled images abound in service
            fresh = data["calibration"].images[first : first + 256]
            if mode == "traffic":
                for _ in range(SERVED // 2000):  # any image of the calibration split may come by
                    shadow.see(data["calibration"].images[arrivals.integers(0, 2000, 2000)])
                fresh = shadow.images
            bench = caretaker.visit(write=mode != "recalibrate", images=fresh)
            writes.append(bench.meter.cell_writes / bench.meter.n_cells)
            vectors.append(bench.meter.vectors)
        after.append(
            accuracy(caretaker.deployment, split, 20 + index, args.images) if mode != "none" else before[-1]
        )
    result |= {"before": before, "after": after, "writes": writes, "vectors": vectors}
    result["seconds"] = time.perf_counter() - begin
    return result


def summary(rows: list[dict]) -> str:
    """A line per law and mode: means over chips."""
    lines = [
        "law      mode         chips  tuned  after each period / visit            worst loss  writes/cell"
    ]
    for law, mode in dict.fromkeys((r["law"], r["mode"]) for r in rows):
        group = [r for r in rows if (r["law"], r["mode"]) == (law, mode)]
        tuned = np.array([r["tuned"] for r in group])
        after = np.array([r["after"] for r in group])
        writes = np.mean([np.mean(r["writes"]) if r["writes"] else 0.0 for r in group])
        loss = (tuned[:, None] - after).mean(axis=0).max()
        cells = " ".join(f"{value:6.2f}" for value in after.mean(axis=0))
        lines.append(
            f"{law:8} {mode:12} {len(group):5} {tuned.mean():6.2f}  {cells:36} {loss:+10.2f} {writes:11.3f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--network", default="lenet5_fashion")
    parser.add_argument("--chips", default="100-109")
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int, default=0, help="of the split; 0 takes all")
    parser.add_argument("--laws", default="drift,power")
    parser.add_argument("--modes", default="maintain,recalibrate,none,schedule")
    parser.add_argument("--strategy", default="default")
    parser.add_argument("--price", type=float, default=PRICE)
    parser.add_argument("--rate", type=float, default=0.05)
    args = parser.parse_args()
    first, _, last = args.chips.partition("-")
    network, data = load_teacher(args.network), load_dataset("fashion_mnist")
    rows = json.loads(args.json.read_text()) if args.json.exists() else []
    done = {(r["law"], r["mode"], r["chip"]) for r in rows}
    for law in args.laws.split(","):
        for mode in args.modes.split(","):
            for chip in range(int(first), int(last or first) + 1):
                if (law, mode, chip) not in done:
                    rows.append(row(network, data, args, law, mode, chip))
                    partial = args.json.with_suffix(".part")
                    partial.write_text(json.dumps(rows, indent=1))
                    partial.replace(args.json)
    print(summary(rows))


if __name__ == "__main__":
    main()
