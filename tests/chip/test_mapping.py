"""Weights to levels and back, and the layout of cells on tiles."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from rramsim.blackbox.mapping import column_scale, levels_from_weights, weights_from_levels
from rramsim.checks import InputError
from rramsim.chip.layout import MappingConfig, TileLayout

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


def test_all_zero_column_has_scale_one():
    np.testing.assert_array_equal(column_scale(np.array([[0.0, -2.0], [0.0, 1.0]])), [1.0, 2.0])


@pytest.mark.parametrize(
    "kwargs, message",
    [({"tile_cols": 1}, "tile_cols"), ({"tile_rows": 0}, "tile_rows"), ({"n_slices": 0}, "n_slices")],
)
def test_impossible_tiles_are_refused(kwargs, message):
    with pytest.raises(InputError, match=message):
        MappingConfig(**kwargs)
