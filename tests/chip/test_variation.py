"""Errors that cells share, dead lines, temperature and half-selected cells, each from its definition."""

import numpy as np
import pytest

from rramsim.cell import DisturbConfig, DriftConfig, ProgrammingConfig
from rramsim.checks import InputError
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import SimulatedChip
from rramsim.chip.variation import TemperatureConfig, VariationConfig
from rramsim.circuit.wiring import WiresConfig
from tests.chip.conftest import exact_cells, exact_chip, exact_converters
from tests.chip.nodal import Array

LEVELS = np.linspace(40e-6 / 30, 40e-6, 16)


def chip_with(shape=(20, 6), *, tile=(24, 16), chip=0, cells=None, converters=None, **changes):
    config = exact_chip(
        MappingConfig(tile_rows=tile[0], tile_cols=tile[1]),
        cells=exact_cells(**({"n_levels": 16} | (cells or {}))),
        converters=converters or exact_converters(dac_bits=8),
        **changes,
    )
    made = SimulatedChip(config, {"layer": shape}, seed=3, chip=chip)
    made.configure("layer", input_range=(-0.2, 0.2), output_range=1e-4)
    return made


def random_levels(shape=(20, 6)):
    return np.random.default_rng(0).integers(0, 16, (*shape, 2))


def amperes(chip, codes):
    return chip.mvm("layer", codes).codes / 8388607 * 1e-4


def test_bias_and_offsets_of_levels_are_those_of_the_whole_chip():
    chip = chip_with(variation=VariationConfig(write_bias=-0.2, level_offset=0.05))
    levels = random_levels()
    chip.write("layer", levels)
    g = chip.conductances("layer").astype(float)
    offsets = np.array([g[levels == q].mean() - 0.8 * LEVELS[q] for q in range(16)])
    np.testing.assert_allclose(g, np.maximum(0.8 * LEVELS + offsets, 0)[levels], rtol=1e-6)
    drawn = []
    for number in range(60):
        other = chip_with((2, 16), tile=(8, 64), chip=number, variation=VariationConfig(level_offset=0.02))
        q = np.broadcast_to(np.arange(16)[None, :, None], (2, 16, 2))
        other.write("layer", q)
        drawn.append(other.conductances("layer")[0, 1:, 0] - LEVELS[1:])
    # 900 draws of 0.02 g_max: standard error 2.4 %, bound of five
    assert abs(np.std(drawn) / (0.02 * 40e-6) - 1) < 0.12


def test_lines_and_arrays_err_alike():
    """ln G - ln of the level is a sum of three draws: word line, bit line, array."""
    sigmas = {"sigma_word": 0.1, "sigma_bit": 0.2, "sigma_tile": 0.3}
    word, bit, tile = [], [], []
    for number in range(40):
        chip = chip_with((30, 14), tile=(16, 16), chip=number, variation=VariationConfig(**sigmas))
        levels = np.random.default_rng(1).integers(0, 16, (30, 14, 2))
        chip.write("layer", levels)
        error = np.log(chip.conductances("layer") / LEVELS[levels]).reshape(30, 28) + 0.14 / 2
        for rows in (slice(0, 16), slice(16, 30)):
            for lines in (slice(0, 16), slice(16, 28)):
                part = error[rows, lines]
                w, b = part.mean(axis=1) - part.mean(), part.mean(axis=0) - part.mean()
                np.testing.assert_allclose(part, part.mean() + w[:, None] + b, atol=3e-6)
                word.append(w * np.sqrt(w.size / (w.size - 1)))
                bit.append(b * np.sqrt(b.size / (b.size - 1)))
                tile.append(part.mean())
    # 2400 word lines, 2240 bit lines, 160 arrays: five standard errors
    assert abs(np.concatenate(word).std() / 0.1 - 1) < 0.08
    assert abs(np.concatenate(bit).std() / 0.2 - 1) < 0.08
    assert abs(np.std(tile) / np.hypot(0.3, np.hypot(0.1, 0.2) / 4) - 1) < 0.3
    chip.write("layer", levels)  # a rewrite meets the same lines
    again = np.log(chip.conductances("layer") / LEVELS[levels]).reshape(30, 28) + 0.14 / 2
    np.testing.assert_allclose(again, error, atol=1e-6)


def test_no_cell_conducts_less_than_the_floor():
    drift = DriftConfig(law="power", mean_polynomial=(0.5,))
    floor = 5e-6
    chip = chip_with(cells={"drift": drift}, variation=VariationConfig(g_floor=floor))
    free = chip_with(cells={"drift": drift})
    for each in (chip, free):
        each.write("layer", random_levels())
        each.wait(10.0)
    want = np.maximum(free.conductances("layer"), np.float32(floor))
    # drift starts from the floor where a level lies below it
    assert chip.conductances("layer").min() == np.float32(floor)
    high = free.conductances("layer") > floor
    np.testing.assert_array_equal(chip.conductances("layer")[high], want[high])
    assert high.any()


@pytest.mark.parametrize("ohm", [0.0, 10.0])
def test_dead_lines_float_and_their_cells_stay_reset(ohm):
    wires = WiresConfig(r_word=ohm, r_bit=ohm) if ohm else None
    variation = VariationConfig(dead_word_rate=0.2, dead_bit_rate=0.2)
    chip = chip_with((24, 8), variation=variation, wires=wires)
    levels = np.full((24, 8, 2), 15)
    chip.write("layer", levels)
    g = chip.conductances("layer").astype(float).reshape(24, 16)
    reset = np.isclose(g, LEVELS[0])
    word, bit = np.flatnonzero(reset.all(axis=1)), np.flatnonzero(reset.all(axis=0))
    assert 0 < word.size < 24
    assert 0 < bit.size < 16
    unreachable = np.zeros((24, 16), bool)
    unreachable[word] = True
    unreachable[:, bit] = True
    np.testing.assert_array_equal(reset, unreachable)
    assert chip.ledger.total.cell_writes == levels.size  # counted all the same
    codes = np.random.default_rng(1).integers(-127, 128, (30, 24))
    v = codes / 127 * 0.2
    v[:, word] = 0.0
    if ohm:
        lines = Array(g, ohm, ohm, float_word=word, float_bit=bit).outputs(v)
    else:
        lines = v @ g
        lines[:, bit] = 0.0
    want = lines[:, 0::2] - lines[:, 1::2]
    np.testing.assert_allclose(amperes(chip, codes), want, atol=5e-6 * np.abs(want).max())


@pytest.mark.parametrize("ohm", [0.0, 10.0])
def test_temperature_of_cells_and_wires(ohm):
    wires = WiresConfig(r_word=ohm, r_bit=ohm, r_driver=20.0) if ohm else None
    thermal = TemperatureConfig(read=360.0)
    chip = chip_with((24, 8), wires=wires, temperature=thermal)
    chip.write("layer", random_levels((24, 8)))
    g = chip.conductances("layer").astype(float).reshape(24, 16)
    codes = np.random.default_rng(1).integers(-127, 128, (30, 24))

    def expected(kelvin):
        position = np.log(g / LEVELS[0]) / np.log(30.0)
        hot = g * (1 + (kelvin - 300) * (5e-3 + position * (-1e-3 - 5e-3)))
        r = ohm * (1 + 3.93e-3 * (kelvin - 300))
        v = codes / 127 * 0.2
        lines = Array(hot, r, r, r_driver=20.0).outputs(v) if ohm else v @ hot
        return lines[:, 0::2] - lines[:, 1::2]

    hot = amperes(chip, codes)
    np.testing.assert_allclose(hot, expected(360.0), atol=5e-6 * np.abs(hot).max())
    chip.set_temperature(300.0)
    cool = amperes(chip, codes)
    np.testing.assert_allclose(cool, expected(300.0), atol=5e-6 * np.abs(hot).max())
    assert np.abs(hot - cool).max() > 0.01 * np.abs(cool).max()
    chip.set_temperature(360.0)
    np.testing.assert_array_equal(amperes(chip, codes), hot)
    other = chip_with((24, 8), wires=wires, temperature=TemperatureConfig(read=280.0))
    other.load_state_dict(chip.state_dict())
    np.testing.assert_array_equal(amperes(other, codes), hot)


def test_writing_half_selects_the_cells_of_its_lines():
    """Two cells are written with four pulses each; the stress of all others follows from their lines."""
    disturb = DisturbConfig(law="power", v_read=0.4, t_read=1e-7)
    converters = exact_converters(dac_bits=8, v_read=0.4, t_read=1e-7)
    programming = ProgrammingConfig(pulses_per_write=4.0, t_pulse=1e-6)
    chip = chip_with(
        (8, 4), tile=(8, 8), cells={"programming": programming}, converters=converters, disturb=disturb,
        variation=VariationConfig(v_half=0.5),
    )  # fmt: skip
    cells = chip._layers["layer"].array.cells
    mask = np.zeros((8, 4, 2), bool)
    mask[2, 1, 0] = mask[2, 3, 1] = True  # both on word line 2, bit lines 2 and 7
    chip.write("layer", np.full((8, 4, 2), 9), mask)
    once = np.zeros((8, 8))
    once[2, :] += 2
    once[:, 2] += 1
    once[:, 7] += 1
    once[2, 2] = once[2, 7] = (2 + 1 - 2) * 0.5  # the other one's pulse comes after its own, or before
    n_cycles = cells.write_count.astype(float)
    weight = cells.disturb_law.weight(np.full((8, 8), 0.5), n_cycles)
    sign = np.sign(cells.stress[2, 0])
    assert sign != 0
    np.testing.assert_allclose(cells.stress, sign * 4 * once * weight * 1e-6, rtol=1e-12)
    g = cells.conductance
    assert (g[once == 0] == np.float32(LEVELS[0])).all()


def test_half_select_moves_conductances_and_rewriting_heals():
    disturb = DisturbConfig(law="power", v_read=0.4, t_read=1e-7)
    converters = exact_converters(dac_bits=8, v_read=0.4, t_read=1e-7)
    chip = chip_with(converters=converters, disturb=disturb, variation=VariationConfig(v_half=0.5))
    levels = np.full((20, 6, 2), 15)
    chip.write("layer", levels)
    mask = np.zeros(levels.shape, bool)
    mask[0] = True
    before = chip.conductances("layer")[1:].copy()
    for _ in range(2000):
        chip.write("layer", levels, mask)
    after = chip.conductances("layer")[1:]
    assert (after != before).all()


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {
                "cells": {"programming": ProgrammingConfig(method="write_verify", window=1e-6)},
                "variation": VariationConfig(sigma_word=0.1),
            },
            "one-shot",
        ),
        (
            {
                "cells": {"iv_alpha": 2.0},
                "wires": WiresConfig(r_word=1.0),
                "variation": VariationConfig(dead_bit_rate=0.1),
            },
            "linear cells",
        ),
        ({"variation": VariationConfig(v_half=0.5)}, "disturb law"),
    ],
)
def test_effects_that_would_do_nothing_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        chip_with(converters=ConverterConfig(), **changes)


def test_temperatures_are_checked():
    with pytest.raises(InputError, match="Celsius"):
        chip_with(temperature=TemperatureConfig()).set_temperature(-10.0)
    with pytest.raises(InputError, match="no temperature"):
        chip_with().set_temperature(300.0)
