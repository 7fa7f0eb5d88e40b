"""What the suite measures: one callable per size, `python -m benchmarks all` runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One thing measured over sizes; `make(size)` prepares the callable that is timed."""

    name: str
    what: str  # what the size counts, and the unit of work
    sizes: tuple[int, ...]
    make: Callable[[int], Call]
    repeats: int = 9


def _cells(n: int) -> Any:
    return np.random.default_rng(n).uniform(1e-6, 1e-4, (n, n))


def _matrix(dtype: Any) -> Callable[[int], Call]:
    def make(n: int) -> Call:
        from rramsim.circuit.solve import effective_conductance

        g = _cells(n)
        return lambda: effective_conductance(g, r_word=2.5, r_bit=2.5, dtype=dtype)

    return make


def _voltages(n: int) -> Call:
    from rramsim.circuit.solve import prepare
    from rramsim.circuit.wiring import WiresConfig

    factors = prepare(_cells(n), WiresConfig(r_word=2.5, r_bit=2.5))
    v = np.random.default_rng(1).uniform(0.0, 0.2, (100, n))
    return lambda: factors.voltages(v)


def _update(column: bool) -> Callable[[int], Call]:
    def make(n: int) -> Call:
        from rramsim.circuit.solve import prepare
        from rramsim.circuit.wiring import WiresConfig

        g, rng = _cells(n), np.random.default_rng(2)
        factors = prepare(g, WiresConfig(r_word=2.5, r_bit=2.5))
        where = np.s_[:, n // 3] if column else np.s_[n // 2, n // 3]

        def change() -> None:
            g[where] = rng.uniform(1e-6, 1e-4, np.shape(g[where]))
            factors.update(g)

        return change

    return make


def _newton(n: int) -> Call:
    from rramsim.circuit.solve import output_currents
    from rramsim.circuit.wiring import WiresConfig

    g, v = _cells(n), np.random.default_rng(3).uniform(0.0, 0.2, (8, n))
    wires = WiresConfig(r_word=2.5, r_bit=2.5, alpha=3.0)
    return lambda: output_currents(g, v, wires)


def _expansion(n: int) -> Call:
    from rramsim.circuit.expansion import expand
    from rramsim.circuit.wiring import WiresConfig

    g = 0.4 * _cells(n)
    return lambda: expand(g, WiresConfig(r_word=2.5, r_bit=2.5, alpha=3.0), v_full=0.2)


def _chip(n: int, *, real: bool) -> tuple[Any, Any]:
    from rramsim.cell import CellsConfig, ReadNoiseConfig
    from rramsim.chip.simulated import ChipConfig, SimulatedChip
    from rramsim.circuit.wiring import WiresConfig
    from rramsim.host.deployment import Deployment
    from rramsim.host.layer import layer_shapes
    from rramsim.network import zoo

    network = zoo.mlp((n, n))
    config = ChipConfig()
    if real:
        noise = ReadNoiseConfig(sigma_relative=0.02)
        config = ChipConfig(wires=WiresConfig(r_word=1.0, r_bit=1.0), cells=CellsConfig(read_noise=noise))
    return Deployment(network, SimulatedChip(config, layer_shapes(network))), network


def _read(real: bool) -> Callable[[int], Call]:
    def make(n: int) -> Call:
        deployment, _ = _chip(n, real=real)
        x = np.random.default_rng(4).random((256, n), dtype=np.float32)
        deployment.map(x)
        return lambda: deployment.run(x)

    return make


def _map(n: int) -> Call:
    def call() -> None:
        deployment, _ = _chip(n, real=True)
        deployment.map(x)
        deployment.chip.refresh()

    x = np.random.default_rng(5).random((64, n), dtype=np.float32)
    return call


def _digital(n: int) -> Call:
    from rramsim.network import zoo

    network, x = zoo.mlp((n, n)), np.random.default_rng(4).random((256, n), dtype=np.float32)
    return lambda: network.run(x)


CASES = (
    Case("g_eff", "lines of a linear array, its matrix", (32, 64, 128, 256, 512), _matrix(np.float64)),
    Case("g_eff float32", "the same in single precision", (32, 64, 128, 256, 512), _matrix(np.float32)),
    Case("voltages", "lines, all node voltages of 100 vectors", (32, 64, 128, 256), _voltages),
    Case("update column", "lines, matrix after one column changed", (64, 128, 256), _update(True)),
    Case("update cell", "lines, matrix after one cell changed", (64, 128, 256), _update(False)),
    Case("newton", "lines, 8 vectors of sinh cells", (32, 64, 128, 256), _newton, 5),
    Case("expansion", "lines, products for sinh cells", (32, 64, 128), _expansion, 3),
    Case("float32", "rows and columns, 256 vectors in float32", (128, 256, 512, 1024), _digital),
    Case("read", "rows and columns, 256 vectors, converters", (128, 256, 512, 1024), _read(False)),
    Case("read noisy", "the same, wires and read noise", (128, 256, 512, 1024), _read(True)),
    Case("map", "rows and columns, programmed and solved", (128, 256, 512), _map, 3),
)


def yardstick() -> Call:
    """A fixed piece of work of NumPy's own, in cache and beyond: how fast the machine is just now."""
    a, b = np.random.default_rng(6).random((2, 384, 384))
    large = np.zeros(1 << 21)

    def call() -> None:
        a @ b
        large[:] = large[::-1] + 1.0

    return call
