"""The number of threads that solve arrays changes no bit of what a chip answers."""

import threading

import numpy as np
import pytest

from rramsim import parallel
from rramsim.cell import CellsConfig, ReadNoiseConfig
from rramsim.chip.config import ChipConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import SimulatedChip
from rramsim.circuit.newton import VECTORS
from rramsim.circuit.solve import output_currents
from rramsim.circuit.wiring import WiresConfig

WIRES = WiresConfig(r_word=2.5, r_bit=2.5)


@pytest.fixture
def with_threads(monkeypatch):
    """Have the next solutions done by so many threads, and learn whether the main one worked."""
    workers = set()
    real = parallel.over_threads

    def use(count):
        workers.clear()
        monkeypatch.setattr(parallel, "count_threads", lambda threads, n, name="threads": min(count, n))

        def noted(function, items, threads=None):
            def work(item):
                workers.add(threading.current_thread() is threading.main_thread())
                return function(item)

            return real(work, items, threads)

        monkeypatch.setattr("rramsim.chip.tiles.over_threads", noted)
        monkeypatch.setattr("rramsim.circuit.newton.over_threads", noted)
        return workers

    return use


@pytest.mark.parametrize(
    "cells, unused",
    [
        (CellsConfig(), "reset"),
        (CellsConfig(), "floating"),
        (CellsConfig(iv_alpha=3.0), "reset"),
        (CellsConfig(read_noise=ReadNoiseConfig(sigma_relative=0.02)), "reset"),
    ],
    ids=["linear", "floating", "curved", "noisy"],
)
def test_arrays_of_a_chip(with_threads, cells, unused):
    shapes = {"a": (40, 12), "b": (12, 8)}
    mapping = MappingConfig(tile_rows=16, tile_cols=16, unused=unused)
    config = ChipConfig(cells=cells, wires=WIRES, mapping=mapping)
    rng = np.random.default_rng(0)
    levels = {n: rng.integers(0, len(config.cells.scale.levels), (*s, 2)) for n, s in shapes.items()}
    codes = {n: rng.integers(0, 128, (5, s[0])) for n, s in shapes.items()}
    answers, seen = [], []
    for count in (1, 3):
        workers = with_threads(count)
        chip = SimulatedChip(config, shapes)
        for name in shapes:
            chip.write(name, levels[name])
            chip.configure(name, input_range=(0.0, 0.2), output_range=1e-4)
        chip.refresh()
        seen.append(set(workers))
        answers.append([chip.mvm(name, codes[name]).codes for name in shapes])
    assert seen == [{True}, {False}]
    for one, several in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, several)


def test_vectors_of_newtons_method(with_threads):
    rng = np.random.default_rng(1)
    g, v = rng.uniform(1e-6, 1e-4, (16, 24)), rng.uniform(-0.3, 0.3, (5 * VECTORS + 1, 16))
    wires = WiresConfig(r_word=5.0, r_bit=5.0, alpha=3.0)
    found = []
    for count in (1, 2, 4):
        workers = with_threads(count)
        found.append(output_currents(g, v, wires))
        assert workers == {count == 1}
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(
        found[0][VECTORS : VECTORS + 1], output_currents(g, v[VECTORS : VECTORS + 1], wires)
    )
