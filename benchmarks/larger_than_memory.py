"""Networks larger than memory, layer by layer: `python -m benchmarks.larger_than_memory [NAME ...]`.

All weights of a network are mapped onto 128 x 128 arrays of 1 ohm per segment with the default errors of
cells, every array is solved exactly, and one image (or sequence) is run, with `rramsim.host.streaming`.
Prints the share done after each layer, then weights, time by the clock and of the processors, and the
largest memory of the process. Only float32 conductances of one piece of a layer (4 M weights) exist at a
time, so nothing is rounded for storage.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine, machine_line
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.circuit.wiring import WiresConfig
from rramsim.host.streaming import PIECE, run_streamed
from rramsim.network import Network, zoo

CONFIG = ChipConfig(
    wires=WiresConfig(r_word=1.0, r_bit=1.0), mapping=replace(MappingConfig(), layer_keys="name")
)
# a stack of the size of BERT-base's encoder: four matrices of attention and two of the hidden layer, 12 times
BERT = (768, *(768, 768, 768, 768, 3072, 768) * 12)

NETWORKS: dict[str, Callable[[], Network]] = {
    "vgg16_32": lambda: zoo.vgg16(),  # 14.7 M weights
    "stack_85m": lambda: zoo.token_mlp(BERT, tokens=128),
    "vgg16_224": lambda: zoo.vgg16((3, 224, 224), 1000, hidden=(4096, 4096)),  # 138.3 M
}


def measure(name: str, piece: int) -> dict[str, Any]:
    """One network, mapped, solved and read once."""
    clock, cpu = time.perf_counter(), time.process_time()
    network = NETWORKS[name]()
    built = time.process_time() - cpu
    x = np.random.default_rng(1).random((1, *network.input_shape), dtype=np.float32)
    done = 0

    def progress(layer: str, n_pieces: int) -> None:
        nonlocal done
        done += network.node(layer).parameters["weight"].size
        print(
            f"  {layer:12} {100 * done / network.n_weights:5.1f} %  {n_pieces:3} pieces  "
            f"{time.perf_counter() - clock:6.0f} s  {_peak():.2f} GiB",
            flush=True,
        )

    found = run_streamed(
        network, x, lambda shapes: SimulatedChip(CONFIG, shapes), piece=piece, progress=progress
    )
    want = network.run(x)
    agreement = float(np.corrcoef(found.outputs.ravel(), want.ravel())[0, 1])
    row = {
        "network": name, "weights": network.n_weights, "pieces": found.n_pieces,
        "seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu,
        "build_cpu_seconds": built, "peak_GiB": _peak(), "correlation_with_digital": agreement,
        "load": os.getloadavg()[0],
    }  # fmt: skip
    print(
        f"{name}: {row['weights']:,} weights in {row['pieces']} pieces, {row['seconds']:.0f} s by the clock "
        f"(load {row['load']:.1f}), {row['cpu_seconds']:.0f} s of processor time, at most "
        f"{row['peak_GiB']:.2f} GiB; correlation with the digital outputs {agreement:.3f}",
        flush=True,
    )
    return row


def _peak() -> float:
    """Largest memory of this process so far [GiB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.larger_than_memory", description=__doc__)
    parser.add_argument("names", nargs="*", default=["vgg16_32"], choices=list(NETWORKS), metavar="NAME")
    parser.add_argument("--piece", type=int, default=PIECE, help="weights on a chip at a time")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(machine_line())
    rows = [measure(name, arguments.piece) for name in arguments.names]
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
