"""Slow-down of chip inference against float32: `python -m benchmarks.network [--json FILE] [--scale]`.

One thread, CPU time, random weights, all contenders in turn, minimum over repeats (mean over whole
cycles of refreshes for a disturbed chip). The reference is the
fastest float32 execution of the same network: this package's digital path, onnxruntime or torch,
where installed. Other simulators follow where they are installed (`benchmarks.peers`).
`--scale` maps ResNet-18 and VGG-16 onto wired tiles and reports time and memory.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.machine import machine, machine_line
from rramsim.cell import CellsConfig, DisturbConfig, ReadNoiseConfig
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.circuit.wiring import WiresConfig
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from rramsim.network import Network, zoo

WIRES = WiresConfig(r_word=1.0, r_bit=1.0)
PLAIN = ConverterConfig(adc_noise=0.0)
NOISY_CELLS = CellsConfig(read_noise=ReadNoiseConfig(sigma_relative=0.02))
SWITCHES: dict[str, ChipConfig] = {
    "programming error + 8-bit DAC/ADC per tile": ChipConfig(converters=PLAIN),
    "the same + ADC noise 0.5 LSB": ChipConfig(),
    "the same without ADC noise + exact IR drop": ChipConfig(converters=PLAIN, wires=WIRES),
    "+ read noise per cell and read": ChipConfig(converters=PLAIN, wires=WIRES, cells=NOISY_CELLS),
    "bit-serial 8 b, ADC per bit": ChipConfig(
        converters=ConverterConfig(adc_noise=0.0, input_mode="bit_serial")
    ),
    "IR drop + read noise + DAC/ADC + read disturbance": ChipConfig(
        converters=PLAIN, wires=WIRES, cells=NOISY_CELLS, disturb=DisturbConfig(law="power")
    ),
}


def networks() -> dict[str, tuple[Network, int]]:
    """Networks and images per batch."""
    return {
        "MLP": (zoo.mlp(), 256),
        "512x512": (zoo.mlp((512, 512)), 1000),
        "LeNet-5": (zoo.lenet5(), 64),
        "ResNet-8": (zoo.resnet8(), 16),
    }


def to_onnx(network: Network, path: Path) -> None:
    """Write the operators used here as an ONNX file for onnxruntime."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], []
    for node in network.nodes:
        names = []
        for key, value in node.parameters.items():
            names.append(f"{node.name}.{key}")
            constants.append(numpy_helper.from_array(value, names[-1]))
        nodes.append(helper.make_node(node.op, [*node.inputs, *names], [node.name], **node.attributes))
    graph = helper.make_graph(
        nodes,
        network.name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", *network.input_shape])],
        [helper.make_tensor_value_info(network.output, TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def onnxruntime_path(network: Network, x: np.ndarray) -> Callable[[], Any] | None:
    """A call of onnxruntime with one thread, or None where it is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        to_onnx(network, path)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    got = session.run(None, {"input": x})[0]
    assert np.allclose(got, network.run(x), rtol=1e-3, atol=1e-3 * np.abs(got).max())
    return lambda: session.run(None, {"input": x})


def interleaved(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """CPU times [s] of each call, in turn, so that all meet the same machine."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.process_time()
            call()
            times[name].append(time.process_time() - started)
    return times


def measure(name: str, network: Network, batch: int, repeats: int) -> list[dict[str, Any]]:
    """Rows of one network."""
    x = np.random.default_rng(1).random((batch, *network.input_shape), dtype=np.float32)
    calls: dict[str, Callable[[], Any]] = {"float32: rramsim": lambda: network.run(x)}
    for label, other in (
        ("onnxruntime", onnxruntime_path(network, x)),
        ("torch", peers.torch_path(network, x)),
    ):
        if other is not None:
            calls[f"float32: {label}"] = other
    solve = {}
    for label, config in SWITCHES.items():
        chip = SimulatedChip(config, layer_shapes(network))
        deployment = Deployment(network, chip)
        deployment.map(x)
        started = time.perf_counter()
        deployment.run(x[:1])
        solve[label] = time.perf_counter() - started
        calls[label] = lambda deployment=deployment: deployment.run(x)
    # a disturbed chip refreshes its state every `state_step` vectors: enough calls for two refreshes of
    # the layer with the fewest vectors, after one, and their mean instead of the fastest
    refreshing = [label for label, config in SWITCHES.items() if config.disturb.enabled]
    cycle = -(-DisturbConfig().state_step // batch)
    for label in refreshing:
        for _ in range(cycle):
            calls[label]()
    apart = {label: calls.pop(label) for label in refreshing}
    best = {label: min(times) for label, times in interleaved(calls, repeats).items()}
    best |= {label: float(np.mean(t)) for label, t in interleaved(apart, 2 * cycle).items()}
    reference = min(value for label, value in best.items() if label.startswith("float32"))
    return [
        {
            "network": name,
            "what": label,
            "us_per_image": 1e6 * value / batch,
            "slow_down": value / reference,
            "first_read_s": solve.get(label),
        }
        for label, value in best.items()
    ]


def summary(rows: list[dict[str, Any]]) -> str:
    """Slow-downs as a Markdown table, networks side by side."""
    rows = [row for row in rows if "slow_down" in row]  # not of peers that are absent
    names = list(dict.fromkeys(row["network"] for row in rows))
    lines = ["| slow-down against the fastest float32 path | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for what in dict.fromkeys(row["what"] for row in rows):
        found = {row["network"]: f"{row['slow_down']:.2f}" for row in rows if row["what"] == what}
        lines.append(f"| {what} | " + " | ".join(found.get(name, "-") for name in names) + " |")
    return "\n".join(lines)


def scale() -> list[dict[str, Any]]:
    """Large networks on wired tiles: time to program and solve, one image, and peak memory."""
    rows = []
    cases = {
        "ResNet-8 32x32": zoo.resnet8(),
        "ResNet-18 32x32": zoo.resnet18(),
        "ResNet-18 224x224": zoo.resnet18((3, 224, 224), 1000),
        "VGG-16 32x32": zoo.vgg16(),
    }
    for name, network in cases.items():
        x = np.random.default_rng(1).random((1, *network.input_shape), dtype=np.float32)
        started = time.perf_counter()
        chip = SimulatedChip(ChipConfig(wires=WIRES), layer_shapes(network))
        deployment = Deployment(network, chip)
        deployment.map(x)
        mapped = time.perf_counter()
        chip.refresh()
        solved = time.perf_counter()
        deployment.run(x)
        rows.append(
            {
                "network": name,
                "weights": network.n_weights,
                "map_s": mapped - started,
                "solve_s": solved - mapped,
                "image_s": time.perf_counter() - solved,
                "peak_GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            }
        )
        print(
            f"{name:20} {network.n_weights:11,} weights  map {rows[-1]['map_s']:6.1f} s  solve all tiles "
            f"{rows[-1]['solve_s']:6.1f} s  image {rows[-1]['image_s']:6.2f} s  "
            f"peak so far {rows[-1]['peak_GiB']:.2f} GiB",
            flush=True,
        )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--scale", action="store_true", help="large networks instead of the speed table")
    arguments = parser.parse_args()
    if arguments.scale:
        rows = scale()
    else:
        rows = []
        print(f"{machine_line()}; one thread")
        print(f"{'network':9} {'what':52} {'us/image':>10} {'slow-down':>9}")
        for name, (network, batch) in networks().items():
            for row in measure(name, network, batch, arguments.repeats):
                rows.append(row)
                print(peers.line(row), flush=True)
        reference = {
            name: min(
                row["us_per_image"]
                for row in rows
                if row["network"] == name and row["what"].startswith("float32")
            )
            for name in networks()
        }
        for row in peers.measure_peers(networks(), reference):
            rows.append(row)
            print(peers.line(row), flush=True)
        print(summary(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
