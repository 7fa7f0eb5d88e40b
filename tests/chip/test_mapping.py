"""Weights to levels and back, and the layout of cells on tiles."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, strategies as st

from finetune import tune
from rramsim import Deployment, check_chip, layer_shapes, load_dataset, load_teacher
from rramsim.blackbox.mapping import (
    column_scale,
    levels_from_weights,
    register_pair_mapping,
    weights_from_levels,
)
from rramsim.blackbox.protocol import MAPPINGS
from rramsim.cell import CellsConfig
from rramsim.checks import InputError
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig, TileLayout
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.config import parse

KINDS = ("differential", "reference", "sliced")


def scale(n_levels, ratio=30.0):
    return tuple(np.linspace(40e-6 / ratio, 40e-6, n_levels))


@given(kind=st.sampled_from(KINDS), n_levels=st.integers(2, 32), seed=st.integers(0, 2**16))
def test_nearest_level_is_within_half_a_step(kind, n_levels, seed):
    if kind == "reference" and n_levels < 3:
        n_levels = 3
    w = np.random.default_rng(seed).uniform(-1, 1, (7, 5))
    w[0, 0], w[1, 0] = 1.0, -1.0
    levels = levels_from_weights(w, kind, scale(n_levels), 2)
    assert levels.min() >= 0
    assert levels.max() < n_levels
    steps = {
        "differential": n_levels - 1,
        "reference": n_levels - 1 - n_levels // 2,
        "sliced": n_levels**2 - 1,
    }[kind]
    error = np.abs(weights_from_levels(levels, kind, scale(n_levels)) - w)
    assert error.max() <= 0.5 / steps + 1e-9


@given(kind=st.sampled_from(KINDS), n_levels=st.integers(3, 17), seed=st.integers(0, 2**16))
def test_weights_on_the_grid_survive_the_round_trip(kind, n_levels, seed):
    rng = np.random.default_rng(seed)
    w = rng.uniform(-1, 1, (6, 4))
    once = weights_from_levels(levels_from_weights(w, kind, scale(n_levels), 2), kind, scale(n_levels))
    twice = weights_from_levels(levels_from_weights(once, kind, scale(n_levels), 2), kind, scale(n_levels))
    np.testing.assert_allclose(twice, once, atol=1e-12)


def test_uneven_levels_pick_the_nearest_conductance():
    levels = (1e-6, 2e-6, 8e-6, 40e-6)
    got = levels_from_weights(np.array([[0.1, -0.1, 0.9, 0.0]]), "differential", levels)
    np.testing.assert_array_equal(got[0], [[1, 0], [0, 1], [3, 0], [0, 0]])


def test_only_one_cell_of_a_pair_is_raised():
    w = np.random.default_rng(0).uniform(-1, 1, (9, 9))
    levels = levels_from_weights(w, "differential", scale(16))
    assert (levels.min(axis=2) == 0).all()


@given(
    kind=st.sampled_from(KINDS),
    n_rows=st.integers(1, 40),
    n_cols=st.integers(1, 30),
    tile_rows=st.integers(1, 16),
    tile_cols=st.integers(4, 16),
)
def test_layout_gives_every_cell_its_own_line_within_its_tile(kind, n_rows, n_cols, tile_rows, tile_cols):
    config = MappingConfig(kind=kind, tile_rows=tile_rows, tile_cols=tile_cols)
    layout = TileLayout.build(n_rows, n_cols, config)
    lines = layout.line_of.ravel().tolist() + layout.reference_lines.tolist()
    assert sorted(lines) == list(range(layout.n_lines))
    assert all(b - a <= tile_cols for a, b in layout.line_tiles)
    assert all(b - a <= tile_rows for a, b in layout.row_tiles)
    for (first, last), (a, b) in zip(layout.col_tiles, layout.line_tiles, strict=True):
        own = layout.line_of[first:last]
        assert own.min() >= a
        assert own.max() < b
        if kind == "reference":
            assert (layout.reference_of[first:last] == b - 1).all()


def test_weights_beyond_one_are_refused_not_clipped():
    with pytest.raises(InputError, match="column_scale"):
        levels_from_weights(np.array([[1.5]]), "differential", scale(4))


@pytest.mark.parametrize("n_levels, most", [(2, 53), (4, 26), (16, 13), (17, 12), (256, 6)])
def test_slices_are_exact_up_to_53_bits_and_refused_beyond(n_levels, most):
    """16 slices of 16 levels erred by 0.49 and 17 gave an OverflowError; n_levels**most <= 2**53."""
    rng = np.random.default_rng(5)
    w = np.concatenate([rng.uniform(-1, 1, (40, 3)), [[1.0, -1.0, 1.0 - 2.0**-50]]])
    levels = levels_from_weights(w, "sliced", scale(n_levels), most)
    digits = levels[..., 0::2].astype(object) - levels[..., 1::2]
    whole = sum(digits[..., k] * n_levels ** (most - 1 - k) for k in range(most))  # Python's integers
    top = n_levels**most - 1
    error = max(
        abs(Fraction(int(n), top) - Fraction(float(x))) for n, x in zip(whole.flat, w.flat, strict=True)
    )
    assert error <= Fraction(1, 2 * top) + Fraction(1, 2**53)
    np.testing.assert_allclose(
        weights_from_levels(levels, "sliced", scale(n_levels)), w, rtol=0, atol=4e-16 * n_levels
    )
    mapping = MappingConfig(kind="sliced", n_slices=most)
    cells = CellsConfig(n_levels=n_levels)
    assert ChipConfig(mapping=mapping, cells=cells).mapping.n_slices == most
    for beyond in (most + 1, most + 3, 64):
        with pytest.raises(InputError, match=f"n_slices must be at most {most} with {n_levels} levels, got"):
            levels_from_weights(w, "sliced", scale(n_levels), beyond)
        with pytest.raises(InputError, match=f"n_slices must be at most {most} with"):
            ChipConfig(mapping=MappingConfig(kind="sliced", n_slices=beyond), cells=cells)


def test_a_chip_of_thirteen_slices_multiplies_rightly_and_sums_beyond_64_bits_are_refused():
    config = ChipConfig(
        mapping=MappingConfig(kind="sliced", n_slices=13, tile_rows=8),
        cells=CellsConfig(sigma=0.0),
        converters=ConverterConfig(adc_noise=0.0, adc_bits=12),
    )
    chip = SimulatedChip(config, {"fc": (20, 3)})
    rng = np.random.default_rng(6)
    w = rng.uniform(-1, 1, (20, 3))
    w[0] = 1.0, -1.0, 1.0
    levels = levels_from_weights(w, "sliced", chip.datasheet.levels, 13)
    chip.write("fc", levels)
    full = 8 * chip.datasheet.v_read * (chip.datasheet.levels[-1] - chip.datasheet.levels[0])
    chip.configure("fc", input_range=(0.0, chip.datasheet.v_read), output_range=full)
    codes = rng.integers(0, 256, (30, 20))
    wanted = codes / 255 @ w
    # a conversion is off by half a code of 2047 that stand for 8 in units of the top digit, in 3 row tiles
    got = chip.mvm("fc", codes).codes * (8 / 2047) * 15 / (16.0**13 - 1)
    assert np.abs(got - wanted).max() <= 3 * 0.5 * (8 / 2047) * (1 + 1 / 15)
    wide = dataclasses.replace(config, converters=ConverterConfig(adc_bits=16))
    with pytest.raises(InputError, match=r"layer 'fc': sums of its conversions must fit in 64 bits"):
        SimulatedChip(wide, {"fc": (8 * 1000, 3)})


@pytest.mark.parametrize("n_slices", [1, 2, 6, 8])
def test_a_weight_that_rounding_left_above_one_is_one(n_slices):
    """With 6 slices of 16 levels, 1 + 5e-7 came out as 0."""
    levels = levels_from_weights(np.array([[1 + 5e-7, -1 - 5e-7]]), "sliced", scale(16), n_slices)
    np.testing.assert_array_equal(weights_from_levels(levels, "sliced", scale(16)), [[1.0, -1.0]])


def test_all_zero_column_has_scale_one():
    np.testing.assert_array_equal(column_scale(np.array([[0.0, -2.0], [0.0, 1.0]])), [1.0, 2.0])


@pytest.mark.parametrize(
    "kwargs, message",
    [({"tile_cols": 1}, "tile_cols"), ({"tile_rows": 0}, "tile_rows"), ({"n_slices": 0}, "n_slices")],
)
def test_impossible_tiles_are_refused(kwargs, message):
    with pytest.raises(InputError, match=message):
        MappingConfig(**kwargs)


def balanced(weights, g):
    """Both cells about the middle of the window."""
    middle, half = (g[0] + g[-1]) / 2, weights * (g[-1] - g[0]) / 2
    edges = (g[1:] + g[:-1]) / 2
    return np.searchsorted(edges, middle + half), np.searchsorted(edges, middle - half)


def test_a_registered_mapping_is_one_function():
    """Weights to levels, a chip, its protocol and the tuner: nothing else is touched."""
    if "test_balanced" not in MAPPINGS:
        register_pair_mapping("test_balanced", balanced)
    with pytest.raises(InputError, match="a mapping named 'sliced' exists already"):
        register_pair_mapping("sliced", balanced)
    with pytest.raises(InputError, match=r"kind must be one of .*test_balanced, got 'test_balancd'; did you"):
        parse(MappingConfig, {"kind": "test_balancd"})
    network, images = load_teacher("cnn_digits"), load_dataset("digits")["calibration"].images[:64]
    errors = {}
    for sigma, strategy in ((0.0, ""), (0.3, ""), (0.3, "lsq.affine"), (0.3, "default")):
        config = ChipConfig(
            mapping=parse(MappingConfig, {"kind": "test_balanced"}), cells=CellsConfig(sigma=sigma)
        )
        chip = SimulatedChip(config, layer_shapes(network))
        check_chip(chip, exercise=True)
        if strategy:
            deployment = tune(chip, network, network, images, strategy=strategy).deployment
        else:
            deployment = Deployment(network, chip)
            deployment.map(images)
        levels = deployment.layers[next(iter(deployment.layers))].levels
        if sigma == 0.0:  # 16 levels on each side: steps of a fifteenth, half of them by rounding both
            assert (levels.sum(axis=2) > 0).all()
        wanted = network.run(images)
        errors[sigma, strategy] = float(np.square(deployment.run(images) - wanted).mean() / wanted.var())
    assert errors[0.0, ""] < 0.05
    assert errors[0.3, "lsq.affine"] < 0.5 * errors[0.3, ""]
    assert errors[0.3, "default"] < 0.15 * errors[0.3, ""]
