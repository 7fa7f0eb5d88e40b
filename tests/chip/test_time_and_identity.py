"""The clock goes with the ledger; a chip's cells belong to the layer's place; failed writes are counted."""

import warnings

import numpy as np
import pytest

from rramsim.cell import CellsConfig, DriftConfig, ProgrammingConfig
from rramsim.checks import VerifyWarning
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip

SHAPES = {"first": (12, 6), "second": (8, 5)}
OLD_FIRST_CELL = 1.798998891899828e-05  # [S]
DRIFT = DriftConfig(law="power", t_reference=1e-6, mean_polynomial=(0.05,))


def drifting(clock="ledger", t_read=1e-3):
    cells = CellsConfig(sigma=0.0, drift=DRIFT)
    return SimulatedChip(
        ChipConfig(cells=cells, converters=ConverterConfig(clock=clock, t_read=t_read)), SHAPES
    )


def ready(chip):
    for name, info in chip.layers.items():
        chip.write(name, np.full((info.n_rows, info.n_cols, 2), 12))
        chip.configure(name, input_range=(0.0, 0.2), output_range=1e-5)
    return chip


def read(chip, n, parts=1):
    for part in np.array_split(np.full((n, 12), 200, dtype=np.int16), parts):
        chip.mvm("first", part)


def test_cells_age_by_the_seconds_that_reads_take():
    chip, twin = ready(drifting()), ready(drifting())
    written = chip.conductances("second")
    read(chip, 5_000)  # five seconds of the ledger
    twin.wait(chip.ledger.total.seconds - twin.ledger.total.seconds)
    chip.wait(0.0)
    # G (t / 1 us)^-0.05 of every layer, for the seconds of the whole chip
    np.testing.assert_allclose(chip.conductances("second"), written * 5e6**-0.05, rtol=2e-2)
    np.testing.assert_allclose(chip.conductances("second"), twin.conductances("second"), rtol=1e-6)


def test_time_acts_on_reads_once_a_second_has_come_together_and_parts_change_nothing_before():
    whole, parts = ready(drifting()), ready(drifting())
    before = whole.conductances("first")
    read(whole, 900)
    read(parts, 900, parts=7)
    for chip in (whole, parts):
        np.testing.assert_array_equal(chip.conductances("first"), before)
    read(whole, 200)
    read(whole, 1)
    assert (whole.conductances("first") < before).all()


def test_ageing_takes_time_and_a_frozen_clock_does_not():
    for clock, changes in (("ledger", True), ("frozen", False)):
        chip = ready(drifting(clock, t_read=1e-7))
        before = chip.conductances("first")
        chip.age(1e9)
        assert (chip.conductances("first") != before).all() == changes
        read(chip, 5_000)
        chip.wait(0.0)
        chip.wait(1.0)
        assert (chip.conductances("first") != before).all()


def test_time_that_has_not_passed_yet_survives_an_interruption():
    chip = ready(drifting())
    read(chip, 700)
    twin = drifting()
    twin.load_state_dict(chip.state_dict())
    for device in (chip, twin):
        device.wait(0.0)
    np.testing.assert_array_equal(chip.conductances("first"), twin.conductances("first"))


def test_cells_belong_to_the_place_of_a_layer_not_to_its_name():
    renamed = {"/model/first/Conv": (12, 6), "/model/second/Gemm": (8, 5)}
    cells = CellsConfig(sigma=0.3)
    one, other = (ready(SimulatedChip(ChipConfig(cells=cells), shapes)) for shapes in (SHAPES, renamed))
    codes = np.random.default_rng(1).integers(0, 255, (9, 12)).astype(np.int16)
    for mine, theirs in zip(SHAPES, renamed, strict=True):
        np.testing.assert_array_equal(one.conductances(mine), other.conductances(theirs))
    np.testing.assert_array_equal(one.mvm("first", codes).codes, other.mvm("/model/first/Conv", codes).codes)
    assert not np.array_equal(one.conductances("first")[:8, :5], one.conductances("second"))


def test_chips_of_version_0_1_are_had_by_name():
    config = ChipConfig(cells=CellsConfig(sigma=0.3), mapping=MappingConfig(layer_keys="name"))
    swapped = dict(reversed(SHAPES.items()))
    one, other = (ready(SimulatedChip(config, shapes, seed=3, chip=5)) for shapes in (SHAPES, swapped))
    for name in SHAPES:
        np.testing.assert_array_equal(one.conductances(name), other.conductances(name))
    # written down from version 0.1: lognormal error of the first cell of layer "first", seed 3, chip 5
    assert one.conductances("first")[0, 0, 0] == pytest.approx(OLD_FIRST_CELL, rel=1e-5)


def test_failed_writes_are_counted_for_each_layer():
    programming = ProgrammingConfig(method="write_verify", gain=1e-4, window=1e-6)
    chip = SimulatedChip(ChipConfig(cells=CellsConfig(programming=programming)), SHAPES)
    with pytest.warns(VerifyWarning, match="cells written missed the verify window") as caught:
        ready(chip)
    assert [f"layer {name!r}: " in str(w.message) for name, w in zip(SHAPES, caught, strict=True)] == [
        True
    ] * 2
    assert "gain" in str(caught[0].message)
    assert caught[0].filename == __file__  # where the write was asked for
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chip.write("first", np.full((12, 6, 2), 12))  # once in the life of a layer
    chip = SimulatedChip(ChipConfig(cells=CellsConfig(programming=programming)), SHAPES)
    with pytest.warns(VerifyWarning):
        ready(chip)
    for name, info in chip.layers.items():
        costs = chip.ledger.layers[name]
        far = np.abs(chip.conductances(name) - chip.datasheet.levels[12]) > 1e-6
        assert costs.failed_writes == far.sum() > 0.9 * info.n_cells
    good = ready(SimulatedChip(ChipConfig(cells=CellsConfig(programming=ProgrammingConfig())), SHAPES))
    assert good.ledger.total.failed_writes == 0
