"""Pairs of settings: every one acts as its definition says, or is refused."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from rramsim.cell import ReadNoiseConfig, TelegraphConfig
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import SimulatedChip
from rramsim.circuit.wiring import WiresConfig
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from tests.chip.conftest import conv_network, exact_cells, exact_chip, exact_converters
from tests.chip.nodal import Array
from tests.circuit import naive

FAST_TRAPS = TelegraphConfig(fraction=0.6, amplitude_low=0.8, amplitude_high=0.3, occupancy=0.4)


def chip_of(*, n_rows=12, n_cols=4, wires=None, converters=None, kind="differential", **cells):
    config = exact_chip(
        MappingConfig(kind=kind, tile_rows=n_rows, tile_cols=2 * n_cols + (kind == "reference")),
        cells=exact_cells(n_levels=16, **cells),
        converters=converters or exact_converters(dac_bits=8),
        wires=wires,
    )
    chip = SimulatedChip(config, {"layer": (n_rows, n_cols)}, seed=2)
    rng = np.random.default_rng(0)
    chip.write("layer", rng.integers(0, 16, (n_rows, n_cols, chip.layers["layer"].cells_per_weight)))
    chip.configure("layer", input_range=(-0.2, 0.2), output_range=1e-4)
    return chip, rng.integers(-127, 128, n_rows)


def amperes(reading):
    return reading.codes / 8388607 * 1e-4


@pytest.mark.parametrize(
    "cells", [{"read_noise": ReadNoiseConfig(sigma_relative=0.1)}, {"telegraph": FAST_TRAPS}]
)
def test_noise_of_nonlinear_cells_has_the_variance_of_every_current(cells):
    """4000 reads: standard error of a variance 2.2 %, bound of six of them."""
    chip, codes = chip_of(iv_alpha=4.0, **cells)
    state = chip._layers["layer"].array.cells
    current = np.sinh(4.0 * codes / 127 * 0.2) / 4.0
    sigma = state.read_sigma().astype(float)
    want = current**2 @ (sigma[:, 0::2] ** 2 + sigma[:, 1::2] ** 2)
    got = amperes(chip.mvm("layer", np.tile(codes, (4000, 1))))
    np.testing.assert_allclose(got.var(axis=0), want, rtol=0.13)
    mean = state.read_mean().astype(float)
    centre = current @ (mean[:, 0::2] - mean[:, 1::2])
    assert (np.abs(got.mean(axis=0) - centre) < 6 * np.sqrt(want / 4000) + 1e-10).all()


def test_noise_of_nonlinear_cells_on_wires_is_a_redrawn_array_for_every_vector():
    """600 reads of the chip and 300 arrays solved by Newton's method in plain NumPy; five standard errors."""
    wires = {"r_word": 40.0, "r_bit": 40.0}
    chip, codes = chip_of(
        n_rows=5,
        n_cols=2,
        iv_alpha=4.0,
        wires=WiresConfig(**wires),
        read_noise=ReadNoiseConfig(sigma_relative=0.1),
    )
    state = chip._layers["layer"].array.cells
    g, sigma = state.conductance.astype(float), state.read_sigma().astype(float)
    rng = np.random.default_rng(1)
    v = codes[None] / 127 * 0.2
    currents = [
        naive.newton(g + sigma * rng.standard_normal(g.shape), v, 4.0, **wires)[2][0] for _ in range(300)
    ]
    pairs = np.array(currents)[:, 0::2] - np.array(currents)[:, 1::2]
    got = amperes(chip.mvm("layer", np.tile(codes, (600, 1))))
    error = np.sqrt(2 / 300 + 2 / 600)
    assert (np.abs(got.var(axis=0) / pairs.var(axis=0) - 1) < 5 * error).all()
    spread = np.sqrt(pairs.var(axis=0) * (1 / 300 + 1 / 600))
    assert (np.abs(got.mean(axis=0) - pairs.mean(axis=0)) < 5 * spread).all()


def test_noise_of_nonlinear_cells_does_not_depend_on_batches():
    results = []
    for parts in (1, 3):
        chip, codes = chip_of(iv_alpha=4.0, read_noise=ReadNoiseConfig(sigma_relative=0.1))
        many = np.tile(codes, (7, 1))
        results.append(np.concatenate([chip.mvm("layer", p).codes for p in np.array_split(many, parts)]))
    np.testing.assert_array_equal(*results)
    assert np.unique(results[0][:, 0]).size == 7  # no draw is used twice


@pytest.mark.parametrize("ohm", [0.0, 20.0])
def test_traps_faster_than_reads_shift_the_mean(ohm):
    """Mean over 4000 reads against the mean of a two-valued cell, by five standard errors."""
    wires = WiresConfig(r_word=ohm, r_bit=ohm) if ohm else None
    chip, codes = chip_of(wires=wires, telegraph=FAST_TRAPS)
    without, _ = chip_of(wires=wires)
    state = chip._layers["layer"].array.cells
    g, trapped = state.conductance.astype(float), state._trap > 0
    scale = state.scale
    position = np.clip(np.log(g / scale.g_min) / np.log(scale.on_off_ratio), 0, 1)
    amplitude = 0.8 + position * (0.3 - 0.8)
    captured = g / (1 + amplitude)
    mean = np.where(trapped, 0.6 * g + 0.4 * captured, g)
    np.testing.assert_allclose(state.read_mean(), mean, rtol=1e-6)
    if ohm == 0.0:
        want = codes / 127 * 0.2 @ (mean[:, 0::2] - mean[:, 1::2])
    else:
        lines = Array(mean, ohm, ohm).outputs(codes[None] / 127 * 0.2)[0]
        want = lines[0::2] - lines[1::2]
    got = amperes(chip.mvm("layer", np.tile(codes, (4000, 1))))
    assert (np.abs(got.mean(axis=0) - want) < 5 * got.std(axis=0) / np.sqrt(4000)).all()
    plain = amperes(without.mvm("layer", codes[None]))[0]
    assert (np.abs(plain - want) > 20 * got.std(axis=0) / np.sqrt(4000)).any()  # the shift is felt


def test_ranges_under_two_phases_fit_each_phase(images):
    """The conversion of one sign of the inputs is far larger than the difference of both."""
    errors = {}
    for drive in ("bipolar", "two_phase"):
        network = conv_network()
        weights = network.node("conv1").parameters
        # weights of one sign: both phases are large, their difference is not
        network = network.replace("conv1", {**weights, "weight": np.abs(weights["weight"])})
        converters = ConverterConfig(drive=drive, dac_bits=10, adc_bits=8, adc_noise=0.0)
        chip = SimulatedChip(exact_chip(converters=converters), layer_shapes(network))
        deployment = Deployment(network, chip)
        deployment.map(images)
        x = images
        got = deployment.execute(network.node("conv1"), x)
        values = {"input": x}
        network.evaluate(values, "conv1", keep="all")
        errors[drive] = np.abs(got - values["conv1"]).mean() / np.abs(values["conv1"]).mean()
        codes = deployment.codes("conv1", x)
        saturated = chip.mvm("conv1", codes).saturated.mean()
        assert saturated < 0.02
    assert errors["two_phase"] < 2.0 * errors["bipolar"]  # 2.6 times with the range of the difference


def test_reference_lines_are_charged_apart():
    chip, _ = chip_of(kind="reference")
    costs = chip.ledger.total
    assert costs.cell_writes == 12 * 4
    assert costs.reference_writes == 12
    assert chip.ledger.writes_per_cell == 1.0
    chip.write("layer", np.zeros((12, 4, 1), dtype=int))
    assert chip.ledger.total.reference_writes == 12
    assert chip.ledger.writes_per_cell == 2.0


CHOICES = {
    "kind": ["differential", "reference", "sliced"],
    "placement": ["cropped", "full", "packed"],
    "drive": ["bipolar", "two_phase"],
    "input_mode": ["amplitude", "bit_serial"],
    "ohm": [0.0, 3.0],
    "noise": [0.0, 0.05],
    "traps": [False, True],
    "alpha": [0.0, 2.0],
    "copies": [1, 2],
}


@settings(deadline=None, max_examples=40)
@given(choice=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in CHOICES.items()}))
def test_any_combination_reads_close_to_its_noiseless_ideal(choice):
    """Every pair of these settings works, and its error is of the size that its noise explains."""
    mapping = MappingConfig(
        kind=choice["kind"],
        tile_rows=12,
        tile_cols=12,
        placement=choice["placement"],
        copies=choice["copies"],
    )
    wires = WiresConfig(r_word=choice["ohm"], r_bit=choice["ohm"]) if choice["ohm"] else None
    cells = exact_cells(
        n_levels=16,
        iv_alpha=choice["alpha"],
        read_noise=ReadNoiseConfig(sigma_relative=choice["noise"]),
        telegraph=TelegraphConfig(fraction=0.2 if choice["traps"] else 0.0, occupancy=0.1),
    )
    converters = ConverterConfig(
        dac_bits=6, adc_bits=20, adc_noise=0.0, drive=choice["drive"], input_mode=choice["input_mode"]
    )
    chip = SimulatedChip(
        exact_chip(mapping, cells=cells, converters=converters, wires=wires), {"layer": (8, 3)}
    )
    info = chip.layers["layer"]
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 16, (8, 3, info.cells_per_weight))
    chip.write("layer", levels)
    chip.configure("layer", input_range=(-0.2, 0.2), output_range=2e-4)
    codes = rng.integers(-31, 32, (6, 8))
    got = chip.mvm("layer", codes).codes * (2e-4 / (2**19 - 1))
    if choice["input_mode"] == "amplitude":
        got = got * 31
    g = np.linspace(40e-6 / 30, 40e-6, 16)[levels] * choice["copies"]
    if choice["kind"] == "reference":
        weight = g[:, :, 0] - chip.datasheet.levels[chip.datasheet.reference_level] * choice["copies"]
    elif choice["kind"] == "sliced":
        weight = 16 * (g[:, :, 0] - g[:, :, 1]) + g[:, :, 2] - g[:, :, 3]
    else:
        weight = g[:, :, 0] - g[:, :, 1]
    want = codes * 0.2 @ weight
    assert np.abs(got - want).max() < 0.25 * np.abs(want).max()
    noisy = choice["noise"] > 0 or choice["traps"]
    again = chip.mvm("layer", codes).codes
    assert (again != chip.mvm("layer", codes).codes).any() == noisy
