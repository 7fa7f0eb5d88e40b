"""Networks read layer by layer, each piece on a chip of its own."""

from dataclasses import replace

import numpy as np
import pytest

from rramsim.checks import InputError
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.circuit.wiring import WiresConfig
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from rramsim.host.streaming import run_streamed
from rramsim.network import zoo

MAPPING = MappingConfig(tile_rows=16, tile_cols=16, layer_keys="name")
CONFIG = ChipConfig(wires=WiresConfig(r_word=1.0, r_bit=1.0), mapping=MAPPING)


def test_equals_the_whole_chip():
    """Uncut layers answer bit for bit as on one chip, errors of cells, wires and ADC noise included."""
    network = zoo.resnet8((1, 8, 8), widths=(4, 8, 8))
    rng = np.random.default_rng(0)
    guides, images = (rng.random((n, 1, 8, 8), dtype=np.float32) for n in (6, 3))
    whole = Deployment(network, SimulatedChip(CONFIG, layer_shapes(network), seed=3))
    whole.map(guides)
    found = run_streamed(network, images, lambda s: SimulatedChip(CONFIG, s, seed=3), calibration=guides)
    np.testing.assert_array_equal(found.outputs, whole.run(images))
    assert found.n_pieces == found.n_layers == len(network.mapped)


@pytest.mark.parametrize("tokens", [False, True])
def test_cut_layers_sum_their_pieces(tokens):
    """Fine converters and perfect cells: the pieces together give the digital product of mapped weights."""
    fine = replace(CONFIG, wires=None, converters=replace(CONFIG.converters, adc_bits=14, adc_noise=0.0))
    fine = replace(fine, cells=replace(CONFIG.cells, sigma=0.0))
    network = zoo.token_mlp((70, 40), tokens=3) if tokens else zoo.mlp((70, 40))
    x = np.random.default_rng(1).random((4, *network.input_shape), dtype=np.float32)
    whole = Deployment(network, SimulatedChip(fine, layer_shapes(network)))
    whole.map(x)
    found = run_streamed(network, x, lambda s: SimulatedChip(fine, s), piece=600)
    assert found.n_pieces > 4
    want = whole.run(x)
    # each piece has scales of its own columns' rows: levels of weights differ by less than a step of each
    digital = network.run(x)
    spread = np.abs(want - digital).max()
    assert np.abs(found.outputs - digital).max() < 1.5 * spread
    assert np.abs(found.outputs - digital).max() > 0.0


def test_pieces_have_errors_of_their_own():
    network = zoo.mlp((64, 16))
    network = network.replace(network.mapped[0], {
        "weight": np.tile(network.node(network.mapped[0]).parameters["weight"][:32], (2, 1)),
        "bias": np.zeros(16, np.float32),
    })  # fmt: skip
    chips = []

    def make(shapes):
        chips.append(SimulatedChip(CONFIG, shapes))
        return chips[-1]

    run_streamed(network, np.ones((2, 64), np.float32), make, piece=512)
    first, second = (chip for chip in chips if next(iter(chip.layers.values())).n_rows == 32)
    a, b = (chip.conductances(next(iter(chip.layers))) for chip in (first, second))
    assert np.abs(a - b).max() > 1e-7


def test_refused():
    with pytest.raises(InputError, match="tile, 16 x 16, got 100"):
        run_streamed(zoo.mlp((64, 16)), np.ones((1, 64)), lambda s: SimulatedChip(CONFIG, s), piece=100)
