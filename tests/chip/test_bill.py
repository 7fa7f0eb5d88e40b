"""The bill: energy of reads from the circuit and the actual inputs, other parts from figures with sources."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rramsim.cell import CellsConfig, CostConfig, list_presets, load_preset
from rramsim.cell.cost import SOURCES, adc_area, adc_energy
from rramsim.cell.presets import MARKS
from rramsim.checks import InputError
from rramsim.chip.bill import AREAS, PARTS
from rramsim.chip.config import ChipConfig
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import SimulatedChip
from rramsim.circuit.wiring import WiresConfig
from rramsim.config import describe, parse

RTOL = 1e-9
CODES = np.random.default_rng(5).integers(-127, 128, (40, 20))


def chip_of(**tables: Any) -> SimulatedChip:
    config = parse(ChipConfig, {"mapping": {"tile_rows": 16, "tile_cols": 8}, **tables})
    chip = SimulatedChip(config, {"a": (20, 6)}, seed=1, chip=2)
    chip.configure("a", input_range=(-0.2, 0.2), output_range=1e-5)
    chip.write("a", np.random.default_rng(0).integers(0, len(chip.datasheet.levels), (20, 6, 2)))
    return chip


def by_hand(chip: SimulatedChip, codes: np.ndarray) -> float:
    """Energy [J] per vector without wires: sum of g v^2 over every cell and vector."""
    g = chip.conductances("a").astype(np.float64).sum(axis=(1, 2))
    v = codes * (0.2 / 127)
    return 1e-7 * float((v**2 @ g).mean())


def test_cells_without_wires_take_g_v_squared() -> None:
    chip = chip_of()
    energy = chip.read_energy("a", CODES)
    assert energy.cells == pytest.approx(by_hand(chip, CODES), rel=1e-6)  # conductances are float32
    assert (energy.wires, energy.drivers) == (0.0, 0.0)
    assert energy.terminals == energy.cells
    assert energy.n_vectors == energy.n_solved == 40


def test_two_by_two_by_hand() -> None:
    """g_min 10 uS, g_max 30 uS; weights (+1, -1; 0, +1) as levels; v = 0.1 and 0.2 V for 100 ns."""
    config = ChipConfig(cells=CellsConfig(levels=(1e-5, 3e-5), sigma=0.0))
    chip = SimulatedChip(config, {"a": (2, 2)})
    chip.configure("a", input_range=(0.0, 0.2))
    chip.write("a", np.array([[[1, 0], [0, 1]], [[0, 0], [1, 0]]]))
    # word line 0 sees 30 + 10 + 10 + 30 = 80 uS, word line 1 10 + 10 + 30 + 10 = 60 uS; codes to 255
    codes = np.array([[51, 0], [0, 255]])  # 0.04 V, 0.2 V
    mean = 0.5 * (0.04**2 * 80e-6 + 0.2**2 * 60e-6) * 1e-7
    assert chip.read_energy("a", codes).cells == pytest.approx(mean, rel=1e-7)
    bill = chip.bill({"a": codes})["a"]
    assert (bill.array_reads, bill.drives, bill.conversions) == (1, 2, 2)
    cost = CostConfig()
    assert bill.parts["dac"] == pytest.approx(2 * 8 * 50e-15 * 0.81, rel=1e-12)
    assert bill.parts["adc"] == 2 * cost.conversion_energy(8, 1e-7)
    assert bill.parts["digital"] == pytest.approx(2 * 0.1e-12 + 2 * 4.6e-12, rel=1e-12)
    more = chip.bill({"a": codes}, {"a": 10.0})["a"]
    assert more.parts["digital"] - bill.parts["digital"] == pytest.approx(46e-12, rel=1e-12)
    # 0.2 fF/um along the pitch sqrt(48) 32 nm of 128 cells of a whole array's word line: 4 of the layer here
    pitch = math.sqrt(48) * 32e-9
    charge = 0.5 * (0.04**2 + 0.2**2) * 4 * 2e-10 * pitch
    assert bill.parts["drivers"] == pytest.approx(charge, rel=1e-12)


@pytest.mark.parametrize(
    "tables",
    [
        {"wires": {"r_word": 2.5, "r_bit": 2.5, "r_driver": 200.0, "r_sense": 100.0}},
        {
            "wires": {"r_word": 2.5, "r_bit": 2.5},
            "mapping": {"tile_rows": 16, "tile_cols": 8, "unused": "floating"},
        },
        {"wires": {"r_word": 2.5, "r_bit": 2.5}, "cells": {"iv_alpha": 3.0}},
        {"wires": {"r_word": 2.5, "r_bit": 2.5}, "converters": {"drive": "two_phase"}},
        {
            "wires": {"r_word": 2.5, "r_bit": 2.5},
            "converters": {"errors": {"driver_gain": 0.05, "dac_inl": 0.5}},
        },
        {"wires": {"r_word": 2.5, "r_bit": 2.5}, "variation": {"dead_word_rate": 0.1, "dead_bit_rate": 0.1}},
        {"converters": {"input_mode": "bit_serial"}},
    ],
    ids=["ends", "floating", "curved", "two_phase", "errors", "dead", "bit_serial"],
)
def test_parts_add_up_at_the_terminals(tables: dict[str, Any]) -> None:
    chip = chip_of(**tables)
    energy = chip.read_energy("a", CODES)
    assert energy.cells > 0
    assert energy.cells + energy.wires + energy.drivers == pytest.approx(energy.terminals, rel=RTOL)
    bill = chip.bill({"a": CODES})["a"]
    assert tuple(bill.parts) == PARTS
    assert bill.joules == pytest.approx(sum(bill.parts.values()), rel=RTOL)


def test_wires_of_no_resistance_change_nothing() -> None:
    bare = chip_of(mapping={"tile_rows": 20, "tile_cols": 12, "placement": "cropped"})
    wired = chip_of(
        mapping={"tile_rows": 20, "tile_cols": 12, "placement": "cropped"},
        wires={"r_word": 1e-6, "r_bit": 1e-6},
    )
    a, b = bare.read_energy("a", CODES), wired.read_energy("a", CODES)
    assert b.cells == pytest.approx(a.cells, rel=1e-6)
    assert b.wires < 1e-6 * b.cells


def test_energy_follows_the_actual_inputs() -> None:
    chip = chip_of(wires={"r_word": 2.5, "r_bit": 2.5})
    full, half = np.full((3, 20), 100), np.full((3, 20), 50)
    ratio = chip.read_energy("a", full).terminals / chip.read_energy("a", half).terminals
    assert ratio == pytest.approx(4.0, rel=1e-9)
    assert chip.read_energy("a", np.zeros((3, 20), int)).terminals == 0.0


def test_bits_and_phases_count_as_reads_of_their_own() -> None:
    """Bit-serial: every set bit of a code drives the full voltage once."""
    chip = chip_of(converters={"input_mode": "bit_serial"})
    codes = np.zeros((1, 20), int)
    codes[0, 4] = 0b1011
    g = chip.conductances("a")[4].astype(np.float64).sum()
    assert chip.read_energy("a", codes).cells == pytest.approx(3 * 0.04 * g * 1e-7, rel=1e-6)
    assert chip.bill({"a": codes})["a"].array_reads == 7 * len(chip.map.shapes)


def test_non_linear_cells_without_wires() -> None:
    chip = chip_of(cells={"iv_alpha": 3.0})
    g = chip.conductances("a").astype(np.float64).sum(axis=(1, 2))
    v = CODES * (0.2 / 127)
    wanted = 1e-7 * float((v * np.sinh(3.0 * v) / 3.0 @ g).mean())
    assert chip.read_energy("a", CODES).cells == pytest.approx(wanted, rel=1e-6)


def test_asking_for_the_bill_changes_no_bit() -> None:
    tables = {"wires": {"r_word": 2.5, "r_bit": 2.5}, "disturb": {"law": "power"}}
    asked, other = chip_of(**tables), chip_of(**tables)
    asked.bill({"a": CODES})
    np.testing.assert_array_equal(asked.mvm("a", CODES).codes, other.mvm("a", CODES).codes)
    assert asked.ledger == other.ledger


def test_energy_per_vector_agrees_with_counts_of_the_ledger() -> None:
    chip = chip_of()
    before = chip.ledger.total
    chip.mvm("a", CODES)
    after, bill = chip.ledger.total, chip.bill({"a": CODES})["a"]
    assert after.array_reads - before.array_reads == 40 * bill.array_reads
    assert after.conversions - before.conversions == 40 * bill.conversions
    assert after.seconds - before.seconds == pytest.approx(40 * bill.seconds, rel=1e-12)


# -- figures --------------------------------------------------------------------------------------------


def test_no_figure_without_source() -> None:
    for row in describe(CostConfig):
        if row.key == "preset":
            continue
        if row.default == "unknown":
            assert getattr(CostConfig(), row.key) is None
            continue
        mark, _, text = row.source.partition(": ")
        assert mark in MARKS, row.key
        assert (mark == "assumed" and not text) or any(name in text for name in SOURCES), row.key
    for name in list_presets():  # `Evidence` checks mark and source when a preset is read
        table = load_preset(name).tables.get("cost", {})
        named = {entry.key for entry in load_preset(name).evidence}
        assert {f"cost.{key}" for key in table} <= named


def test_survey_fit_is_the_published_one() -> None:
    """Values of the plug-in's own code (accelergy-adc-plug-in, model.py) for its model.yaml."""
    for bits, rate, picojoules, square_micrometres in (
        (8, 1e8, 1.7137119697683605, 3938.925228370421),
        (8, 8e7, 1.7137119697683605, 3783.24621757368),
        (6, 1e8, 1.065092995279211, 3416.5952302277674),
        (8, 3e9, 3.3884013967485247, 8930.465767892034),
    ):
        assert adc_energy(bits, rate) == pytest.approx(picojoules * 1e-12, rel=1e-9)
        assert adc_area(bits, rate) == pytest.approx(square_micrometres * 1e-12, rel=1e-9)
    assert adc_energy(6, 1e8) < adc_energy(8, 1e8) < adc_energy(10, 1e8)
    assert adc_energy(8, 1e8) < adc_energy(8, 3e9)  # beyond the corner the rate bounds the figure of merit
    with pytest.raises(InputError, match="bits"):
        adc_energy(0, 1e8)


def test_unknown_stays_unknown() -> None:
    area = chip_of().area
    assert tuple(area.parts) == AREAS
    unknown = {name for name, value in area.parts.items() if math.isnan(value)}
    assert unknown == {"drivers", "dac", "digital"}
    assert area.known == pytest.approx(area.parts["cells"] + area.parts["adc"], rel=1e-12)
    given = chip_of(cost={"a_dac": 1e-12, "a_driver": 1e-12, "a_digital": 1e-9}).area
    assert given.known == pytest.approx(sum(given.parts.values()), rel=1e-12)


def test_area_counts_whole_arrays() -> None:
    area = chip_of().area  # 20 x 6 weights on arrays of 16 x 8 lines: 2 x 2 arrays, 4 pairs each
    assert (area.n_arrays, area.n_cells, area.n_dacs, area.n_adcs) == (4, 512, 64, 4)
    assert area.parts["cells"] == pytest.approx(512 * 48 * 32e-9**2, rel=1e-12)
    per_line = chip_of(converters={"adc_per_line": True}, cost={"columns_per_adc": 2}).area
    assert per_line.n_adcs == 4 * 4


def test_presets_override_figures() -> None:
    yao = ChipConfig(cells=CellsConfig(preset="yao_2020"))
    assert yao.figures.e_adc == pytest.approx(2.55e-12)
    chosen = replace(yao, cost=CostConfig(e_adc=1e-12))
    assert chosen.figures.e_adc == 1e-12
    assert CostConfig(preset="yao_2020", columns_per_adc=4).columns_per_adc == 4
    with pytest.raises(InputError, match="no table"):
        CostConfig(preset="generic")
    with pytest.raises(InputError, match=r"cost\.c_dac"):
        CostConfig(c_dac=-1.0)


def test_slower_sharing_moves_the_rate() -> None:
    fast = ConverterConfig(t_read=1e-9)
    config = ChipConfig(converters=fast, mapping=MappingConfig(), wires=WiresConfig())
    assert config.figures.conversion_energy(8, 1e-9) > config.figures.conversion_energy(8, 1e-7)
