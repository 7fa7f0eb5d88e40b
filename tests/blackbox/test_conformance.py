"""The conformance check passes every kind of simulated chip, and says what is wrong with others."""

import numpy as np
import pytest

from rramsim.blackbox.conformance import check_chip
from rramsim.blackbox.gate import Gate
from rramsim.blackbox.protocol import Datasheet, LayerInfo, Reading, Tier
from rramsim.cell import CellsConfig
from rramsim.checks import InputError
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from tests.fake_chip import FakeChip
from tests.finetune import small

SHAPES = {"conv": (20, 6), "fc": (9, 4)}


def test_the_chip_in_thirty_lines_follows_the_protocol():
    check_chip(FakeChip(SHAPES), exercise=True)


@pytest.mark.parametrize("kind", ["differential", "reference", "sliced"])
@pytest.mark.parametrize("converters", [{}, {"input_mode": "bit_serial"}, {"drive": "two_phase"}])
def test_simulated_chips_follow_the_protocol(kind, converters):
    config = ChipConfig(
        mapping=MappingConfig(kind=kind, tile_rows=8, tile_cols=16),
        converters=ConverterConfig(**converters),
        cells=CellsConfig(sigma=0.1),
    )
    check_chip(SimulatedChip(config, SHAPES), exercise=True)


class Swapped(FakeChip):
    """The - cell comes first."""

    def mvm(self, layer, codes, per_tile=False):
        codes, saturated = super().mvm(layer, codes, per_tile)
        return Reading(-codes, saturated)


class Upside(FakeChip):
    """Rows in the opposite order."""

    def mvm(self, layer, codes, per_tile=False):
        return super().mvm(layer, np.asarray(codes)[:, ::-1], per_tile)


class Unmarked(FakeChip):
    def mvm(self, layer, codes, per_tile=False):
        codes, saturated = super().mvm(layer, codes, per_tile)
        return Reading(codes, np.zeros_like(saturated))


class Restless(FakeChip):
    def mvm(self, layer, codes, per_tile=False):
        codes, saturated = super().mvm(layer, codes, per_tile)
        return Reading((codes * self.rng.uniform(0.5, 2.0)).astype(np.int32), saturated)


class Uncounted(FakeChip):
    def mvm(self, layer, codes, per_tile=False):
        reading = super().mvm(layer, codes, per_tile)
        self.ledger.layers[layer].vectors = 0
        return reading


class Unsubtracted(FakeChip):
    """Answers with the + line alone."""

    def mvm(self, layer, codes, per_tile=False):
        plain = self.g[layer].copy()
        self.g[layer][:, :, 1] = 0.0
        reading = super().mvm(layer, codes, per_tile)
        self.g[layer] = plain
        return reading


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Swapped, "cell 0 of a weight is the + cell, but driving it gives negative codes: swap them"),
        (Upside, "row i of `levels` must be driven by column i of `codes`"),
        (Unmarked, "conversions at the end of the range must be marked"),
        (Restless, "reads must repeat"),
        (Uncounted, "ledger must count vectors: 8 were used"),
    ],
)
def test_a_fault_of_behaviour_is_named(cls, message):
    with pytest.raises(InputError, match="does not follow the protocol") as caught:
        check_chip(cls(SHAPES), exercise=True)
    assert message in str(caught.value)
    check_chip(cls(SHAPES))  # looks alone find nothing


def test_lines_that_nobody_subtracts_are_named():
    with pytest.raises(InputError, match="subtracts the - cell of a pair"):
        check_chip(chip_with_off_state(), exercise=True)


def chip_with_off_state():
    """Off cells at half of the window, and no subtraction of the - line."""

    class Leaky(Unsubtracted):
        def write(self, layer, levels, mask=None):
            super().write(layer, np.maximum(levels, 8), mask)

    return Leaky(SHAPES)


def test_a_mask_that_is_ignored_is_named():
    class Erasing(FakeChip):
        """A masked write resets the whole layer first."""

        def write(self, layer, levels, mask=None):
            if mask is not None:
                super().write(layer, np.zeros_like(levels))
            super().write(layer, levels, mask)

    with pytest.raises(InputError, match="cells outside a mask must keep"):
        check_chip(Erasing(SHAPES), exercise=True)


class Tuple(FakeChip):
    def mvm(self, layer, codes, per_tile=False):
        return tuple(super().mvm(layer, codes, per_tile))


class Floats(FakeChip):
    def mvm(self, layer, codes, per_tile=False):
        codes, saturated = super().mvm(layer, codes, per_tile)
        return Reading(codes.astype(float), saturated)


class Flat(FakeChip):
    def mvm(self, layer, codes, per_tile=False):
        codes, saturated = super().mvm(layer, codes, per_tile)
        return Reading(codes.T, saturated.T)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Tuple, r"the answer must be a Reading\(codes, saturated\), got tuple"),
        (Floats, "codes must be an array of signed integers, got float64"),
        (Flat, r"codes must have shape \(\d+, \d+\), got"),
    ],
)
def test_answers_of_another_form_are_refused_at_first_contact(cls, message):
    net, images = small.network(), small.images(4)
    for wrap in (lambda chip: chip, lambda chip: Gate(chip, Tier.LAYERS)):
        deployment = Deployment(net, wrap(cls(layer_shapes(net))))
        deployment.map(images)
        with pytest.raises(InputError, match=message):
            deployment.run(images)


def test_what_a_chip_lacks_is_named_before_anything_runs():
    net = small.network()

    class Bare:
        layers = ledger = None

        def mvm(self):
            pass

    with pytest.raises(InputError, match="it lacks datasheet, write, configure, wait"):
        Deployment(net, Bare())
    chip = FakeChip(layer_shapes(net))
    chip.datasheet = vars(chip.datasheet)
    with pytest.raises(InputError, match="datasheet must be a Datasheet, got dict"):
        Deployment(net, chip)
    chip = FakeChip(layer_shapes(net))
    chip.ledger.layers.pop("fc")
    with pytest.raises(InputError, match="ledger must have the layers"):
        check_chip(chip)


SHEET = {
    "mapping": "differential", "n_levels": 2, "levels": (1e-6, 2e-6), "v_read": 0.2, "dac_bits": 8,
    "adc_bits": 8, "adc_noise": 0.5, "tile_rows": 8, "tile_cols": 8, "t_read": 1e-7,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mapping": "Differential"}, "mapping must be one of .* did you mean 'differential'"),
        ({"input_mode": "serial"}, "input_mode must be one of"),
        ({"n_levels": 3}, "n_levels must be the number of levels"),
        ({"levels": (2e-6, 1e-6)}, "ascending order"),
        ({"v_read": 0.0}, "v_read must be > 0"),
    ],
)
def test_a_datasheet_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        Datasheet(**(SHEET | change))


def test_row_tiles_must_cover_the_rows():
    shape = {"name": "a", "n_rows": 5, "n_cols": 2, "cells_per_weight": 2, "n_col_tiles": 1, "g_unit": 1e-6}
    LayerInfo(**shape, row_tiles=((0, 3), (3, 5)))
    for tiles in (((0, 3),), ((0, 3), (4, 5)), ((1, 5),), ()):
        with pytest.raises(InputError, match="row_tiles must follow one another"):
            LayerInfo(**shape, row_tiles=tiles)
