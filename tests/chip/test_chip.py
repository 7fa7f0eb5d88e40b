"""The chip against the digital network, its twin written from the definition, and its laws."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from rramsim.cell import CellsConfig, FaultsConfig, ReadNoiseConfig
from rramsim.checks import InputError
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from tests.chip.conftest import conv_network, exact_cells, exact_chip, exact_converters

RTOL_LAYER = 1e-5  # 24-bit converters, 16-bit levels on weights that lie on the grid, float32 sums


def on_grid(network, steps):
    """The network with every weight on a grid of `steps` steps up to its column's largest."""
    for name in network.mapped:
        weight = network.node(name).parameters["weight"]
        flat = weight.reshape(weight.shape[0], -1).T if weight.ndim == 4 else weight
        scale = np.abs(flat).max(axis=0)
        flat = np.rint(flat / scale * steps) / steps * scale
        weight = flat.T.reshape(weight.shape) if weight.ndim == 4 else flat
        bias = {k: v for k, v in network.node(name).parameters.items() if k == "bias"}
        network = network.replace(name, {"weight": weight.astype(np.float32), **bias})
    return network


@settings(deadline=None, max_examples=25)
@given(
    kind=st.sampled_from(["differential", "reference", "sliced"]),
    tile=st.sampled_from([(4, 4), (7, 6), (16, 128), (128, 128)]),
    stride=st.integers(1, 2),
    pad=st.integers(0, 2),
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.sampled_from([1, 3]),
    seed=st.integers(0, 1000),
)
def test_noiseless_chip_is_the_digital_network(kind, tile, stride, pad, groups, kernel, seed):
    n_levels = {"differential": 2**15, "reference": 2**15, "sliced": 2**8}[kind]
    network = conv_network(seed, stride=stride, pad=pad, groups=groups, kernel=kernel)
    steps = {"differential": 2**15 - 1, "reference": 2**14 - 1, "sliced": 2**16 - 1}[kind]
    network = on_grid(network, steps)
    mapping = MappingConfig(kind=kind, tile_rows=tile[0], tile_cols=tile[1])
    config = exact_chip(mapping, cells=exact_cells(n_levels=n_levels))
    deployment = Deployment(network, SimulatedChip(config, layer_shapes(network)))
    images = np.random.default_rng(seed).normal(size=(3, 2, 7, 7)).astype(np.float32)
    deployment.map(images, zero_points=False)  # every weight lies on a level
    digital = {"input": images}
    network.evaluate(digital, network.output, keep="all")
    for name in network.mapped:
        x = digital[network.node(name).inputs[0]]
        got = deployment.execute(network.node(name), x)
        want = digital[name]
        assert np.abs(got - want).max() <= RTOL_LAYER * np.abs(want).max(), name


def random_layer(config, n_rows=20, n_cols=6, seed=0, **chip):
    rng = np.random.default_rng(seed)
    device = SimulatedChip(config, {"layer": (n_rows, n_cols)}, **chip)
    info = device.layers["layer"]
    shape = (n_rows, n_cols, info.cells_per_weight)
    device.write("layer", rng.integers(0, device.datasheet.n_levels, shape))
    device.configure("layer", input_range=(-0.2, 0.2), output_range=20 * 40e-6 * 0.2)
    return device, rng


def test_per_tile_codes_add_up_and_saturation_is_marked():
    config = exact_chip(MappingConfig(tile_rows=8), converters=ConverterConfig(adc_noise=0.0))
    device, rng = random_layer(config)
    codes = rng.integers(-127, 128, (50, 20))
    device.configure("layer", output_range=1e-5)
    total, tiles = device.mvm("layer", codes), device.mvm("layer", codes, per_tile=True)
    assert tiles.codes.shape == (50, 3, 6)
    np.testing.assert_array_equal(tiles.codes.sum(axis=1), total.codes)
    np.testing.assert_array_equal(tiles.saturated, np.abs(tiles.codes) == 127)
    np.testing.assert_array_equal(tiles.saturated.any(axis=1), total.saturated)
    assert total.saturated.any()
    assert not total.saturated.all()


@pytest.mark.parametrize("kind", ["differential", "reference", "sliced"])
@pytest.mark.parametrize(
    "change",
    [
        {"drive": "two_phase"},
        {"input_mode": "bit_serial"},
        {"drive": "two_phase", "input_mode": "bit_serial"},
    ],
)
def test_input_modes_agree_when_converters_are_fine(kind, change):
    def result(**changes):
        fine = {"dac_bits": 8, "adc_bits": 24, "adc_noise": 0.0}
        config = exact_chip(
            MappingConfig(kind=kind, tile_rows=8),
            cells=exact_cells(n_levels=16),
            converters=ConverterConfig(**(fine | changes)),
        )
        device, _ = random_layer(config)
        codes = np.random.default_rng(5).integers(-127, 128, (40, 20))
        return device.mvm("layer", codes).codes.astype(float)

    plain, other = result(), result(**change)
    if change.get("input_mode") == "bit_serial":
        other /= 127  # a bit drives the full voltage
    slices = 16 + 1 if kind == "sliced" else 1  # digital weights of the slices
    roundings = 3 * (1 + 2) * slices  # row tiles, one conversion against two
    np.testing.assert_allclose(other, plain, atol=0.5 * roundings)


def test_converting_each_line_apart_gives_the_same_difference():
    def result(per_line):
        config = exact_chip(converters=exact_converters(dac_bits=8, adc_per_line=per_line))
        device, rng = random_layer(config)
        return device.mvm("layer", rng.integers(-127, 128, (40, 20))).codes

    np.testing.assert_allclose(result(True), result(False), atol=2)


def test_read_noise_has_the_mean_variance_and_independence_of_a_draw_per_cell():
    # false-alarm rate of each bound below 1e-6 (six standard errors, fixed seed)
    noise = ReadNoiseConfig(sigma_relative=0.05)
    n = 40_000
    config = exact_chip(
        cells=exact_cells(n_levels=16, read_noise=noise), converters=exact_converters(dac_bits=8)
    )
    device, rng = random_layer(config)
    one = rng.integers(-127, 128, (1, 20))
    got = device.mvm("layer", np.repeat(one, n, axis=0)).codes.astype(float)
    g = device.fork()._layers["layer"].array.cells.conductance.astype(float)
    v = one[0] / 127 * 0.2
    code = 8388607 / (20 * 40e-6 * 0.2)
    mean = (v @ (g[:, 0::2] - g[:, 1::2])) * code
    sigma = np.sqrt((v**2) @ (0.05**2 * (g[:, 0::2] ** 2 + g[:, 1::2] ** 2))) * code
    assert (np.abs(got.mean(axis=0) - mean) < 6 * sigma / np.sqrt(n) + 1).all()
    np.testing.assert_allclose(got.std(axis=0), sigma, rtol=6 / np.sqrt(2 * n))
    correlation = np.corrcoef(got.T) - np.eye(6)
    assert np.abs(correlation).max() < 6 / np.sqrt(n)
    assert stats.kstest((got[:, 0] - mean[0]) / sigma[0], "norm").pvalue > 1e-6


def test_reference_line_noise_is_common_to_its_columns():
    noise = ReadNoiseConfig(sigma_relative=0.05)
    config = exact_chip(
        MappingConfig(kind="reference"),
        cells=exact_cells(n_levels=16, read_noise=noise),
        converters=exact_converters(dac_bits=8),
    )
    device, rng = random_layer(config)
    got = device.mvm("layer", np.repeat(rng.integers(0, 128, (1, 20)), 20_000, axis=0)).codes
    correlation = np.corrcoef(got.T.astype(float))
    assert correlation[np.triu_indices(6, 1)].min() > 0.1


def test_adc_noise_has_the_stated_spread():
    config = exact_chip(converters=ConverterConfig(adc_bits=16, adc_noise=0.5))
    device, rng = random_layer(config)
    got = device.mvm("layer", np.repeat(rng.integers(-127, 128, (1, 20)), 20_000, axis=0)).codes
    expected = 0.5 * 32767 / 127  # half an LSB of 8 bits
    np.testing.assert_allclose(got.std(axis=0), expected, rtol=0.04)  # eight standard errors


def noisy_config(**changes):
    parts = {
        "cells": CellsConfig(law="lognormal", sigma=0.3, read_noise=ReadNoiseConfig(sigma_relative=0.02)),
        "mapping": MappingConfig(tile_rows=8),
    }
    return ChipConfig(**(parts | changes))


def test_same_seed_same_bits_and_batches_change_nothing():
    def codes_of(batches):
        device, _ = random_layer(noisy_config(), seed=3, chip=7)
        x = np.random.default_rng(2).integers(-127, 128, (300, 20))
        return np.concatenate([device.mvm("layer", part).codes for part in np.array_split(x, batches)])

    np.testing.assert_array_equal(codes_of(1), codes_of(1))
    np.testing.assert_array_equal(codes_of(1), codes_of(7))


def test_another_chip_has_other_cells():
    one, _ = random_layer(noisy_config(), chip=0)
    two, _ = random_layer(noisy_config(), chip=1)
    x = np.random.default_rng(2).integers(-127, 128, (30, 20))
    assert (one.mvm("layer", x).codes != two.mvm("layer", x).codes).mean() > 0.5


def test_a_fork_leaves_the_chip_as_it_was():
    def run(with_fork):
        device, rng = random_layer(noisy_config())
        x = rng.integers(-127, 128, (30, 20))
        first = device.mvm("layer", x).codes
        if with_fork:
            twin = device.fork()
            assert twin.ledger.total.vectors == 0
            twin.write("layer", np.zeros((20, 6, 2), dtype=int))
            twin.mvm("layer", x)
        return first, device.mvm("layer", x).codes, device.ledger.as_dict()

    plain, forked = run(False), run(True)
    np.testing.assert_array_equal(plain[0], forked[0])
    np.testing.assert_array_equal(plain[1], forked[1])
    assert plain[2] == forked[2]


def test_state_resumes_bit_for_bit():
    device, rng = random_layer(noisy_config())
    x = rng.integers(-127, 128, (30, 20))
    device.mvm("layer", x)
    state = device.state_dict()
    other = SimulatedChip(noisy_config(), {"layer": (20, 6)})
    other.load_state_dict(state)
    mask = rng.random((20, 6, 2)) < 0.3
    for chip in (device, other):
        chip.write("layer", np.full((20, 6, 2), 5), mask)
    np.testing.assert_array_equal(device.mvm("layer", x).codes, other.mvm("layer", x).codes)
    assert device.ledger.as_dict() == other.ledger.as_dict()


def test_ledger_counts_reads_and_writes():
    device, rng = random_layer(noisy_config())
    mask = np.zeros((20, 6, 2), dtype=bool)
    mask[0] = True
    device.write("layer", np.zeros((20, 6, 2), dtype=int), mask)
    device.mvm("layer", rng.integers(-127, 128, (30, 20)))
    total = device.ledger.total
    assert total.cell_writes == 240 + 12
    assert total.max_cycles == 2
    assert total.vectors == 30
    assert total.array_reads == 30 * 3
    assert total.conversions == 30 * 3 * 6
    assert device.ledger.writes_per_cell == pytest.approx(252 / 240)


def test_stuck_cells_do_not_move():
    config = noisy_config(faults=FaultsConfig(stuck_low_rate=1.0))
    device, rng = random_layer(config)
    x = rng.integers(-127, 128, (30, 20))
    codes = device.mvm("layer", x, per_tile=True).codes
    # equal cells of a pair cancel; noise of 0.5 LSB reaches code 3 in 540 conversions with probability 3e-4
    assert np.abs(codes).max() <= 2


@pytest.mark.parametrize(
    "action, message",
    [
        (lambda chip: chip.mvm("layre", np.zeros((1, 20), int)), "did you mean 'layer'"),
        (lambda chip: chip.mvm("layer", np.zeros((1, 20))), "must be integers"),
        (lambda chip: chip.mvm("layer", np.zeros((1, 19), int)), "shape"),
        (lambda chip: chip.mvm("layer", np.full((1, 20), 128)), r"\[-127, 127\]"),
        (lambda chip: chip.write("layer", np.full((20, 6, 2), 16)), r"\[0, 15\]"),
        (lambda chip: chip.write("layer", np.zeros((20, 6, 2), int), np.ones((20, 6, 2))), "mask"),
        (lambda chip: chip.configure("layer", output_range=-1.0), "output_range"),
        (lambda chip: chip.configure("layer", input_range=(-0.1, 0.2)), "input_range"),
        (lambda chip: chip.configure("layer", input_range=(0, 2.0)), "v_read"),
        (lambda chip: chip.wait(-1.0), "seconds"),
        (lambda chip: SimulatedChip(chip.config, {}), "at least one layer"),
    ],
)
def test_bad_calls_say_what_must_hold(action, message):
    device, _ = random_layer(noisy_config())
    with pytest.raises(InputError, match=message):
        action(device)


def test_reading_before_configuring_is_refused():
    device = SimulatedChip(noisy_config(), {"layer": (4, 4)})
    with pytest.raises(InputError, match="configure"):
        device.mvm("layer", np.zeros((1, 4), dtype=int))
