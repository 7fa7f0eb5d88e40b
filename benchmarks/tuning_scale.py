"""CPU time and peak memory of `tune` as networks grow: `python -m benchmarks.tuning_scale [--json FILE]`.

Random weights, batch norm set to the statistics of the images, 256 smooth random images, lognormal errors of
0.3 on pairs, strategy `default`. Every case runs in a process of its own, so that the peak is its own; CPU
time is that of `tune` alone, all threads. `rows_K` is one matrix of K rows and 256 columns read by tokens.
Agreement is the share of test images for which chip and teacher name the same class (the largest output, each
less its mean over images), the error that of the outputs relative to the teacher's variance: random networks
say nothing about accuracy, but much about gaps.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine, machine_line
from finetune.tuner import tune
from rramsim.cell import CellsConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from rramsim.network import Network, zoo

CALIBRATION, TEST = 256, 256
CELLS = CellsConfig(
    n_levels=16, g_max=40e-6, on_off_ratio=30.0, fixed_fraction=0.5, law="lognormal", sigma=0.3
)
BARS = {"resnet20": (14.0, 1.0), "resnet32": (None, 1.0), "resnet18": (600.0, 4.0)}  # CPU s, GB
CASES = ("lenet5", "resnet8", "resnet20", "resnet32", "rows_512", "rows_1024", "rows_1536", "rows_2048",
         "rows_4096", "resnet18")  # fmt: skip


def smooth_images(n: int, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Noise whose spectrum falls like that of photographs, standardised, shape (n, *shape)."""
    noise = np.random.default_rng(seed).standard_normal((n, *shape))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(shape[-2]), np.fft.fftfreq(shape[-1]), indexing="ij"))
    images = np.fft.ifft2(np.fft.fft2(noise) / (frequency + 1.0 / shape[-1])).real
    return ((images - images.mean()) / images.std()).astype(np.float32)


def tokens(n: int, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Tokens as a rectifier leaves them, most of whose variance lies in an eighth of all directions."""
    rng = np.random.default_rng(seed)
    width = shape[-1]
    basis = np.random.default_rng(99).standard_normal((max(width // 8, 1), width))
    x = rng.standard_normal((n, shape[0], len(basis))) @ basis / np.sqrt(len(basis))
    return np.maximum(x + 0.3 * rng.standard_normal(x.shape), 0.0).astype(np.float32)


def normalised(network: Network, images: NDArray[np.float32]) -> Network:
    """The network with each batch norm's statistics those of its inputs on `images`."""
    values: dict[str, Any] = network.feed(images)
    for node in network.nodes:
        if node.op == "BatchNormalization":
            x = network.evaluate(values, node.inputs[0], keep={node.inputs[0]})
            axes = (0, *range(2, x.ndim))
            statistics = {"mean": x.mean(axis=axes), "variance": x.var(axis=axes)}
            network = network.replace(node.name, {**node.parameters, **statistics})
            network.evaluate(values, node.name, keep={node.name})
    return network


def case(name: str) -> tuple[Network, NDArray[np.float32]]:
    """A network and its inputs, calibration first."""
    if name.startswith("rows_"):
        network = zoo.token_mlp((int(name.removeprefix("rows_")), 256), tokens=32)
        return network, tokens(CALIBRATION + TEST, network.input_shape, 7)
    made = {
        "lenet5": lambda: zoo.lenet5(),
        "resnet8": lambda: zoo.resnet8((1, 28, 28), (16, 32, 64)),
        "resnet20": lambda: zoo.cifar_resnet(20),
        "resnet32": lambda: zoo.cifar_resnet(32),
        "resnet18": lambda: zoo.resnet18(),
    }
    network = made[name]()
    images = smooth_images(CALIBRATION + TEST, network.input_shape, 7)
    return normalised(network, images[:64]), images


def measure(name: str, strategy: str, chip_id: int) -> dict[str, Any]:
    """One row: tune a chip with the case's network."""
    network, images = case(name)
    calibration, test = images[:CALIBRATION], images[CALIBRATION:]
    wanted = network.run(test)
    wanted = wanted.reshape(-1, wanted.shape[-1])
    centre = wanted.mean(axis=0)  # random networks prefer one class: classes are told by deviations
    config, shapes = ChipConfig(cells=CELLS), layer_shapes(network)

    def compare(deployment: Deployment) -> tuple[float, float]:
        got = deployment.run(test).reshape(wanted.shape)
        error = np.square(got - wanted).mean() / wanted.var(axis=0).mean()
        return 100.0 * float(((got - centre).argmax(1) == (wanted - centre).argmax(1)).mean()), float(error)

    plain = Deployment(network, SimulatedChip(config, shapes, chip=chip_id))
    plain.map(calibration)
    mapped = compare(plain)
    del plain
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    planned = tune(
        SimulatedChip(config, shapes, chip=chip_id), network, network, calibration, strategy=strategy,
        dry_run=True,
    ).planned  # fmt: skip
    chip = SimulatedChip(config, shapes, chip=chip_id)
    cpu, wall = time.process_time(), time.perf_counter()
    report = tune(chip, network, network, calibration, strategy=strategy)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    agreement, error = compare(report.deployment)
    return {
        "case": name,
        "strategy": strategy,
        "chip": chip_id,
        "weights": network.n_weights,
        "rows": max(rows for rows, _ in shapes.values()),
        "vectors": report.vectors,
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "planned_seconds": planned["seconds"],
        "peak_gb": peak * 1024 / 1e9,
        "peak_before_gb": before * 1024 / 1e9,
        "planned_gb": planned.get("bytes", float("nan")) / 1e9,
        "mapped_agreement": mapped[0],
        "agreement": agreement,
        "mapped_error": mapped[1],
        "error": error,
        "writes_per_cell": report.writes_per_cell,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """One line a row; bars in brackets."""
    lines = [
        f"{'case':<10} {'weights':>10} {'rows':>5}  {'CPU s':>7} [bar]  {'planned':>7}  {'us/weight':>9}  "
        f"{'peak GB':>7} [bar]  {'planned':>7}  {'agreement %':>13}  {'error':>14}"
    ]
    for row in rows:
        cpu, peak = BARS.get(row["case"], (None, None))
        weights = row["weights"]
        brackets = [f"[{'-' if bar is None else f'{bar:g}':>3}]" for bar in (cpu, peak)]
        lines.append(
            f"{row['case']:<10} {weights:>10,} {row['rows']:>5}  {row['cpu_seconds']:7.1f} {brackets[0]}"
            f"  {row['planned_seconds']:7.1f}  {1e6 * row['cpu_seconds'] / weights:9.1f}  "
            f"{row['peak_gb']:7.2f} {brackets[1]}  {row['planned_gb']:7.2f}  "
            f"{row['mapped_agreement']:5.1f} -> {row['agreement']:5.1f}  "
            f"{row['mapped_error']:.3f} -> {row['error']:.4f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure the cases, smallest first, each in its own process; write after each; print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=CASES, help="all without one")
    parser.add_argument("--strategy", default="default")
    parser.add_argument("--chip", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the rows to this file, one case after another")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in arguments.case or CASES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(measure, (name, arguments.strategy, arguments.chip)))
        if arguments.json:
            arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))
        print(table(rows).splitlines()[0] + "\n" + table(rows).splitlines()[-1], flush=True)
    print(f"\n{machine_line()}\n{table(rows)}")


if __name__ == "__main__":
    main()
