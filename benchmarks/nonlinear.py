"""Non-linear cells by matrix products: errors against Newton's method, and what a network costs.

``python -m benchmarks.nonlinear`` prints two tables from one run, one thread, CPU time.

1. Arrays over the curve of the cells, the resistance of a segment and the size: the largest output
   error of `rramsim.circuit.expansion` over the largest output, on inputs like activations (a share of
   10 to 90 % of the lines driven, uniform amplitudes); the estimate that decides whether products
   or Newton's method read such a tile (twice the error on fixed probes, limit 2e-3); times.
   ``--check`` fails if an array passes the estimate and exceeds the limit.
2. The shipped networks at alpha 3 /V and 0.2 V on 128 x 128 arrays of 2.5 ohm per segment, 8-bit
   converters: times over the fastest float32 execution, and the largest error of any conversion
   over the largest one of its layer and row tile, on vectors recorded from images.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import peers
from benchmarks.machine import machine, machine_line
from benchmarks.network import interleaved, onnxruntime_path
from rramsim.cell import CellsConfig
from rramsim.chip.config import ChipConfig
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.simulated import SimulatedChip
from rramsim.chip.tiles import PROBE_MARGIN
from rramsim.circuit.expansion import expand, probe_error, probe_vectors
from rramsim.circuit.solve import effective_conductance, output_currents
from rramsim.circuit.wiring import WiresConfig
from rramsim.datasets import load_dataset, load_teacher
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from rramsim.network import Network, zoo

V_READ = 0.2
LIMIT = 2e-3
WIRES = WiresConfig(r_word=2.5, r_bit=2.5)


def cells(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Differential pairs of normal weights, 1.33 to 40 uS, with a lognormal error of 20 %."""
    weights = np.clip(rng.normal(0.0, 0.35, (n, n // 2)), -1.0, 1.0)
    pairs = np.stack([np.maximum(weights, 0.0), np.maximum(-weights, 0.0)], axis=2).reshape(n, n)
    return (40e-6 / 30 + pairs * (40e-6 - 40e-6 / 30)) * np.exp(rng.normal(0.0, 0.2, (n, n)))


def activations(n: int, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Inputs [V] (count, n) with different shares of silent lines."""
    v = rng.uniform(0.0, V_READ, (count, n))
    return v * (rng.uniform(size=v.shape) < rng.uniform(0.1, 0.9, (count, 1)))


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    result = call()
    return time.process_time() - started, result


def array_row(n: int, r: float, alpha: float, count: int) -> dict[str, Any]:
    """One array: error, estimate, times."""
    rng = np.random.default_rng(n)
    g, v = cells(n, rng), activations(n, count, rng)
    wires = WiresConfig(r_word=r, r_bit=r, alpha=alpha)
    solve_s, _ = timed(lambda: effective_conductance(g, r_word=r, r_bit=r))
    newton_s, want = timed(lambda: output_currents(g, v, wires))
    expand_s, expansion = timed(lambda: expand(g, wires, v_full=V_READ))
    probes = probe_vectors(n, V_READ)
    probe_s, found = timed(lambda: probe_error(expansion, g, wires, probes))
    full = np.abs(want).max()
    linear = np.abs(v @ effective_conductance(g, r_word=r, r_bit=r) - want).max() / full
    return {
        "lines": n, "ohm": r, "alpha": alpha, "linear_error": float(linear),
        "error": float(np.abs(expansion.currents(v) - want).max() / full), "estimate": PROBE_MARGIN * found,
        "newton_ms_per_vector": 1e3 * newton_s / count, "expand_ms": 1e3 * (expand_s + probe_s),
        "over_linear": (expand_s + probe_s) / solve_s,
    }  # fmt: skip


def arrays(count: int) -> list[dict[str, Any]]:
    """Table 1."""
    print(
        f"{'lines':>5} {'ohm':>5} {'1/V':>4} {'linear':>8} {'products':>8} {'estimate':>8} {'read by':>8} "
        f"{'Newton ms':>9} {'expand ms':>9} {'/ g_eff':>7}"
    )
    array_row(64, 2.5, 3.0, 2)  # compiles
    rows = []
    for n in (64, 128, 256):
        for r in (0.5, 2.5, 10.0):
            for alpha in (1.0, 2.0, 3.0, 5.0):
                row = array_row(n, r, alpha, count)
                rows.append(row)
                how = "products" if row["estimate"] <= LIMIT else "Newton"
                print(
                    f"{n:>5} {r:>5g} {alpha:>4g} {row['linear_error']:>8.1e} {row['error']:>8.1e} "
                    f"{row['estimate']:>8.1e} {how:>8} {row['newton_ms_per_vector']:>9.2f} "
                    f"{row['expand_ms']:>9.0f} {row['over_linear']:>7.0f}",
                    flush=True,
                )
    return rows


def chip_of(network: Network, config: ChipConfig, x: NDArray[np.float32]) -> tuple[SimulatedChip, Deployment]:
    chip = SimulatedChip(config, layer_shapes(network))
    deployment = Deployment(network, chip)
    deployment.map(x)
    return chip, deployment


class Recorder(SimulatedChip):
    """A chip that keeps the codes of each layer's first read."""

    def mvm(self, layer: str, codes: Any, per_tile: bool = False) -> Any:
        found = self.__dict__.setdefault("found", {})
        found.setdefault(layer, np.asarray(codes))
        return super().mvm(layer, codes, per_tile)


def network_errors(network: Network, x: NDArray[np.float32], count: int) -> dict[str, float]:
    """Largest error of any conversion over its tile's largest, by layer, on `count` recorded vectors."""
    config = ChipConfig(cells=CellsConfig(iv_alpha=3.0), wires=WIRES)
    recorder = Recorder(config, layer_shapes(network))
    deployment = Deployment(network, recorder)
    deployment.map(x)
    deployment.run(x)
    # the same cells behind finer converters, read in both ways
    fine = replace(config, converters=ConverterConfig(adc_bits=16, adc_noise=0.0))
    pair = [SimulatedChip(c, layer_shapes(network)) for c in (fine, replace(fine, nonlinear_tolerance=0.0))]
    for chip in pair:
        Deployment(network, chip).map(x)
    rng, errors = np.random.default_rng(0), {}
    for name, codes in recorder.__dict__["found"].items():
        data = codes[np.sort(rng.permutation(len(codes))[:count])]
        got, want = (chip.mvm(name, data, per_tile=True).codes.astype(float) for chip in pair)
        full = np.abs(want).max(axis=(0, 2), keepdims=True)
        errors[name] = float((np.abs(got - want) / full).max())
    return errors


def networks(count: int, repeats: int) -> list[dict[str, Any]]:
    """Table 2."""
    images = np.asarray(load_dataset("fashion_mnist")["calibration"].images, dtype=np.float32)
    rows = []
    for name, batch, same in (("lenet5_fashion", 64, zoo.lenet5()), ("resnet8_fashion", 16, zoo.resnet8())):
        network, x = load_teacher(name), images[:batch]
        peer = list(layer_shapes(network).values()) == list(layer_shapes(same).values())  # the same layers
        calls: dict[str, Callable[[], Any]] = {"float32: rramsim": lambda n=network, x=x: n.run(x)}
        for label, path in (("onnxruntime", onnxruntime_path), ("torch", peers.torch_path)):
            other = path(same, x) if peer else None
            if other is not None:
                calls[f"float32: {label}"] = other
        first, estimate = {}, {}
        for label, alpha, wires in (
            ("linear cells", 0.0, None),
            ("sinh cells, ideal lines", 3.0, None),
            ("linear cells, wires", 0.0, WIRES),
            ("sinh cells, wires", 3.0, WIRES),
        ):
            chip, deployment = chip_of(
                network, ChipConfig(cells=CellsConfig(iv_alpha=alpha), wires=wires), images[:256]
            )
            first[label], _ = timed(chip.refresh)
            estimate[label] = chip.nonlinear_error
            calls[label] = lambda d=deployment, x=x: d.run(x)
        best = {label: min(times) for label, times in interleaved(calls, repeats).items()}
        reference = min(value for label, value in best.items() if label.startswith("float32"))
        errors = network_errors(network, images[:256], count)
        for label, value in best.items():
            row = {
                "network": name, "what": label, "us_per_image": 1e6 * value / batch,
                "slow_down": value / reference, "solve_s": first.get(label), "estimate": estimate.get(label),
            }  # fmt: skip
            rows.append(row)
            solved = f"solved in {first[label]:.2f} s" if label in first else ""
            print(f"{name:16} {label:26} {row['us_per_image']:>9.1f} us {row['slow_down']:>6.2f}x  {solved}")
        worst = max(errors, key=lambda layer: errors[layer])
        print(
            f"{name:16} largest error against Newton, {count} vectors per layer: {errors[worst]:.1e} "
            f"({worst}); estimated {estimate['sinh cells, wires']:.1e}",
            flush=True,
        )
        rows.append({"network": name, "errors": errors})
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nonlinear", description=__doc__)
    parser.add_argument("--vectors", type=int, default=40, help="inputs of each array")
    parser.add_argument("--recorded", type=int, default=1000, help="recorded vectors per layer")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only", choices=("arrays", "networks"))
    parser.add_argument("--check", action="store_true", help="fail if an accepted array exceeds the limit")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{machine_line()}; one thread, CPU time")
    rows = [] if arguments.only == "networks" else arrays(arguments.vectors)
    wrong = [row for row in rows if row["estimate"] <= LIMIT < row["error"]]
    if arguments.only != "arrays":
        rows = rows + networks(arguments.recorded, arguments.repeats)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))
    if arguments.check and wrong:
        sys.exit(f"{len(wrong)} arrays pass the estimate and exceed {LIMIT:g}")


if __name__ == "__main__":
    main()
