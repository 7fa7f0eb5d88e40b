"""Kernels of the tuner against their definitions."""

import numpy as np
from hypothesis import given, settings, strategies as st

from finetune.evidence import kernels


def naive_moves(
    slope,
    gram,
    mean,
    added,
    covariance,
    deviate,
    factor,
    allowed,
    level_mean,
    level_sd,
    carry,
    cost,
    price,
    limit,
):
    """One column at a time, all candidates tried in Python."""
    slope, mean, added = slope.copy(), mean.copy(), added.copy()
    moves = {}
    for j in range(mean.shape[1]):
        for _ in range(limit[j]):
            best, found = price[j], None
            for i, k, q in np.ndindex(mean.shape[0], mean.shape[2], level_mean.size):
                if not allowed[i, j, k] or (i, j, k) in moves:
                    continue
                m = level_mean[q] + carry * deviate[i, j, k] * level_sd[q]
                d = factor[k] * (m - mean[i, j, k])
                variance = added[i, j, k] + factor[k] ** 2 * (1 - carry**2) * level_sd[q] ** 2
                gain = 2 * slope[i, j] * d - gram[i, i] * (d**2 + cost * variance)
                if gain > best:
                    best, found = gain, (i, k, q, d, m)
            if found is None:
                break
            i, k, q, d, m = found
            moves[i, j, k] = q
            mean[i, j, k] = m
            added[i, j] += 2 * covariance[i, j, k]
            slope[:, j] -= gram[:, i] * d
    return moves


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), n_rows=st.integers(1, 7), n_cells=st.sampled_from([1, 2]))
def test_choice_of_moves_is_the_greedy_one(seed, n_rows, n_cells):
    rng = np.random.default_rng(seed)
    n_cols, shape = 3, (n_rows, 3, n_cells)
    x = rng.normal(size=(20, n_rows))
    gram, slope = x.T @ x / 20, 0.3 * rng.normal(size=(n_rows, n_cols))
    level_mean = np.linspace(0.03, 1.03, 5)
    arguments = (
        gram,
        rng.uniform(0, 1, shape),
        0.01 * rng.uniform(-0.5, 1.0, size=shape),
        0.002 * rng.uniform(-1.0, 1.0, size=(*shape, n_cells)),
        rng.normal(size=shape),
        np.array([1.0, -1.0])[:n_cells],
        rng.uniform(size=shape) < 0.9,
        level_mean,
        0.2 * level_mean,
        0.5,
        0.7,
        np.zeros(n_cols),
        np.full(n_cols, 4, dtype=np.int64),
    )
    expected = naive_moves(slope, *arguments)
    levels, chosen = np.full(shape, -1, dtype=np.int64), np.zeros(shape)
    inputs = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    assert kernels.choose_moves(slope.copy(), *inputs, levels, chosen) == len(expected)
    assert {
        tuple(map(int, index)): int(levels[tuple(index)]) for index in np.argwhere(levels >= 0)
    } == expected
    assert ((chosen > 0) == (levels >= 0)).all()


def test_rounding_spreads_the_error_over_later_rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6))
    gram = x.T @ x / 200
    wanted = rng.uniform(-1, 1, (6, 40))
    values = np.linspace(-1, 1, 9)
    upper = np.linalg.cholesky(np.linalg.inv(gram)).T
    rounded = np.empty(wanted.shape)
    kernels.round_in_order(wanted.copy(), np.ascontiguousarray(upper), values, rounded)
    assert np.isin(rounded, values).all()
    nearest = values[np.abs(wanted[:, :, None] - values).argmin(axis=2)]

    def loss(w):
        return np.square(x @ (w - wanted)).mean()

    assert loss(rounded) < 0.8 * loss(nearest)
    # rows that do not interact are rounded to the nearest value
    kernels.round_in_order(wanted.copy(), np.eye(6), values, rounded)
    np.testing.assert_array_equal(rounded, nearest)
