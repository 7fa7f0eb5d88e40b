"""One cell per weight: zero points, what is common to a tile, and how much of the error tuning removes."""

import dataclasses

import numpy as np
import pytest

from finetune.tuner import tune
from rramsim.blackbox.mapping import levels_near, unsubtracted, weights_from_levels, zero_points
from rramsim.checks import InputError
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from tests.finetune import small

FINE = ConverterConfig(dac_bits=12, adc_bits=20, adc_noise=0.0)


def chip(net, number=0, sigma=0.2, reference="line", level=None, **more):
    """A chip with one cell for each weight; `more` are settings of `small.config`."""
    old = small.config("reference", sigma=sigma, **more)
    mapping = MappingConfig(
        kind="reference", tile_rows=16, tile_cols=16, reference=reference, reference_level=level
    )
    config = ChipConfig(cells=old.cells, faults=old.faults, mapping=mapping, converters=old.converters)
    return SimulatedChip(config, layer_shapes(net), seed=5, chip=number)


def sheet(law="lognormal"):
    return chip(small.network(), law=law).datasheet


def energy_of(weights, power, scale, zero, sheet, relative):
    """Expected error energy of a column, from its definition: cut, spread and rounding."""
    g = np.asarray(sheet.levels)
    middle, window = g[sheet.n_levels // 2], g[-1] - g[0]
    unit = (g[-1] - middle) / window
    u = (weights / scale + zero) * unit + middle / window
    held = np.clip(u, g[0] / window, g[-1] / window)
    spread = (relative * held) ** 2 + (np.diff(g / window) ** 2).mean() / 12
    return float(power @ (((u - held) * scale / unit) ** 2 + (scale / unit) ** 2 * spread))


def test_zero_points_minimise_the_expected_error_energy():
    rng, data = np.random.default_rng(0), sheet()
    weights = rng.normal(size=(40, 6)) ** 3 * [1.0, 1.0, 3.0, 0.1, 1.0, 1.0]
    weights[:, 4] = -np.abs(weights[:, 4])
    weights[:, 5] = 0.0
    power = rng.uniform(0.1, 1.0, 40)
    scale, zero = zero_points(weights, power, data)
    for j in range(5):
        best = energy_of(weights[:, j], power, scale[j], zero[j], data, 0.1)
        symmetric = energy_of(weights[:, j], power, np.abs(weights[:, j]).max(), 0.0, data, 0.1)
        assert best < 0.5 * symmetric
        for other in (0.7, 0.9, 1.1, 1.4):  # no better one near by than the grid of the search allows
            assert energy_of(weights[:, j], power, scale[j] * other, zero[j], data, 0.1) > 0.9 * best
    assert scale[4] < 0.0  # a column of negative weights is held upside down
    assert np.isfinite([scale[5], zero[5]]).all()


def test_zero_points_spare_the_converters_range():
    """Rounding and noise at four standard deviations of the widest column, beside the cells' own errors.

    Inputs that are never negative send their sum through every column whose zero is not what is subtracted.
    """
    rng, data = np.random.default_rng(0), dataclasses.replace(sheet(), adc_bits=6)
    weights = rng.normal(size=(100, 24)) + 0.5 * rng.normal(size=24)
    codes = np.maximum(rng.normal(60.0, 60.0, (400, 100)), 0.0).round()
    energy, lines = codes.var(axis=0), ((0, 64), (64, 100))

    def expected(scale, zero):
        cells = sum(energy_of(weights[:, j], energy, scale[j], zero[j], data, 0.1) for j in range(24))
        held = weights / scale + zero + unsubtracted(data)
        reach = max((codes[:, a:b] @ held[a:b]).std(axis=0).max() for a, b in lines)
        reach += max(np.abs((codes[:, a:b] @ held[a:b]).mean(axis=0)).max() for a, b in lines)
        return cells + 2 * np.square(scale).sum() * (4 * reach / 31) ** 2 * (
            1 / 12 + (data.adc_noise / 4) ** 2
        )

    plain = expected(*zero_points(weights, energy, data))
    assert expected(*zero_points(weights, energy, data, codes, lines)) < 0.8 * plain


@pytest.mark.parametrize("reference, level", [("line", None), ("line", 8), ("line", 0), ("digital", None)])
def test_outputs_are_those_of_the_weights_held(reference, level):
    """Whoever subtracts, the host's arithmetic gives what the written levels stand for; maps as vectors."""
    net, images = small.network(), small.images()
    device = chip(net, sigma=0.0, reference=reference, level=level, converters=FINE)
    deployment = Deployment(net, device)
    deployment.map(images)
    host, trace = deployment.layers["conv2/1"], deployment.trace(images[:4])
    codes = trace.codes("conv2/1")
    held = (deployment.stored_weights("conv2/1") - host.zero_point) * host.scale
    want = codes @ held * host.x_step + host.offset
    got = deployment.finish("conv2/1", codes, device.mvm("conv2/1", codes).codes)
    np.testing.assert_allclose(got, want, atol=2e-4 * np.abs(want).max())
    source = net.node("conv2").inputs[0]
    maps = deployment.execute(net.node("conv2"), trace.activations(source))[:, 6:]
    np.testing.assert_allclose(maps.transpose(0, 2, 3, 1).reshape(want.shape), got, atol=1e-5)
    assert np.abs(held - deployment.weights("conv2/1")).max() < 0.4 * np.abs(held).max()


def test_surplus_is_counted_from_the_middle_level():
    net = small.network()
    assert unsubtracted(chip(net, level=8).datasheet) == 0.0
    data = chip(net, reference="digital").datasheet
    zero = weights_from_levels(np.array([[[0]]]), "reference", data.levels) + unsubtracted(data)
    unit = data.levels[-1] - data.levels[8]
    np.testing.assert_allclose(zero, data.levels[0] / unit)
    np.testing.assert_array_equal(
        levels_near(np.array([[-9.0, 0.0, 9.0]]), "reference", data.levels).ravel(), [0, 8, 15]
    )
    with pytest.raises(InputError, match="reference_level must be below n_levels = 16, got 16"):
        chip(net, level=16)


def test_error_of_the_reference_line_is_found_and_taken_off():
    """Against the conductances of the line, which only the simulator knows; chips 0-2."""
    net, images = small.network(), small.images(128)
    left = []
    for number in range(3):
        device = chip(net, number, sigma=0.3)
        report = tune(device, net, net, images, strategy="lsq.rewrite(passes=1)")
        array = device._layers["conv2/0"].array
        line = array.cells.conductance[:, array.layout.reference_lines]
        info, data = device.layers["conv2/0"], device.datasheet
        truth = -(line - data.levels[data.reference_level]) / info.g_unit
        found = report.deployment.layers["conv2/0"].reference_error
        assert found.shape == truth.shape
        left.append(np.square(found - truth).sum() / np.square(truth).sum())
    assert np.mean(left) < 0.5


def test_single_cells_get_more_rewrites_than_pairs_and_the_plan_says_so():
    net, images = small.network(), small.images(128)
    planned = tune(chip(net), net, net, images, dry_run=True).planned
    report = tune(chip(net), net, net, images)
    assert 1.5 < report.writes_per_cell <= 2.0
    assert report.writes_per_cell == pytest.approx(planned["writes_per_cell"], rel=0.15)
    assert report.vectors <= planned["vectors"]


def test_exact_converters_do_no_harm():
    """With the sum of the inputs taken out, one direction of the weights meets nothing but rounding."""
    net, images = small.network(), small.images(128)
    device = chip(net, 1, converters=FINE)
    report = tune(device, net, net, images, strategy="lsq.rewrite + lsq.affine")
    assert small.logit_error(net, report.deployment) < 0.012


def test_tuning_removes_most_of_the_error():
    """Chips 0-3; with symmetric columns and the reference line in the middle, 0.034 was left."""
    net, images = small.network(), small.images(128)
    tuned = [
        small.logit_error(net, tune(chip(net, number), net, net, images).deployment) for number in range(4)
    ]
    assert np.mean(tuned) < 0.012
