"""Beliefs about cells, and the choice of what to write, against simulated cells."""

from types import SimpleNamespace

import numpy as np
import pytest

from finetune.evidence.belief import CellBelief, fit_fresh
from finetune.evidence.choice import choose
from finetune.evidence.identify import identify
from rramsim.checks import InputError

LEVELS = np.linspace(0.0, 1.0, 16) + 1.0 / 29.0
SPREADS = np.square(0.2 * LEVELS)
PAIR = np.array([1.0, -1.0])
NOISE = 1e-4


def layer(n_rows=30, n_cols=12, n_cells=2, seed=0):
    """Levels and true conductances of a layer."""
    rng = np.random.default_rng(seed)
    levels = np.zeros((n_rows, n_cols, n_cells), dtype=np.int64)
    side = rng.integers(0, n_cells, (n_rows, n_cols, 1))
    np.put_along_axis(levels, side, rng.integers(0, 16, (n_rows, n_cols, 1)), axis=2)
    return rng, levels, program(rng, levels)


def program(rng, levels):
    return LEVELS[levels] + np.sqrt(SPREADS[levels]) * rng.standard_normal(levels.shape)


def look(rng, x, weights):
    """Centred inputs and their noisy outputs in one tile, as `Samples` and `TileOutputs` hold them."""
    x = (x - x.mean(axis=0)).astype(np.float32)
    y = x @ weights + np.sqrt(NOISE) * rng.standard_normal((len(x), weights.shape[1]))
    y = (y - y.mean(axis=0)).astype(np.float32)
    samples = SimpleNamespace(
        x=x,
        n=len(x),
        gram=(x.T @ x).astype(np.float64) / len(x),
        single=False,
        work=SimpleNamespace(row_tiles=((0, x.shape[1]),)),
    )
    reading = SimpleNamespace(tiles=y[None], saturated=np.zeros((1, *y.shape), dtype=bool), total=y)
    return samples, reading


def compare(belief, samples, reading):
    noise = np.full(belief.mean.shape[1], NOISE)
    belief.update(identify(samples, reading, belief.weights, belief.weight_variance, noise))


@pytest.mark.parametrize("n_vectors", [15, 200])  # fewer and more vectors than rows
def test_posterior_is_calibrated(n_vectors):
    """Mean square error over the variance that is claimed; ten layers of 360 weights, seeds 0-9."""
    ratios = []
    for seed in range(10):
        rng, levels, true = layer(seed=seed)
        belief = CellBelief.written(LEVELS[levels], SPREADS[levels], PAIR)
        before = np.square(belief.mean - true).mean()
        compare(belief, *look(rng, rng.random((n_vectors, 30)), true @ PAIR))
        assert np.square(belief.mean - true).mean() < before
        error = np.square(belief.weights - true @ PAIR).mean()
        if n_vectors == 200:
            assert error < 0.1 * before
        ratios.append(error / belief.weight_variance.mean())
    assert 0.5 < np.mean(ratios) < 1.5


def test_wrong_spread_is_rescaled():
    rng, levels, true = layer()
    belief = CellBelief.written(LEVELS[levels], 4.0 * SPREADS[levels], PAIR)
    samples, reading = look(rng, rng.random((200, 30)), true @ PAIR)
    assert 0.15 < fit_fresh(belief, samples, reading, np.full(12, NOISE)) < 0.4
    np.testing.assert_allclose(belief.fresh, belief.variance)
    compare(belief, samples, reading)
    assert fit_fresh(belief, samples, reading, np.full(12, NOISE)) == 1.0  # nothing is new any more


def test_drift_forecast_follows_the_law():
    """Mean and variance against 20000 cells with lognormal susceptibility of ln-std 1."""
    rng = np.random.default_rng(1)
    s = rng.lognormal(-0.5, 1.0, 20_000)
    start = 0.2
    after = 1.0 - (1.0 - start) * np.exp(-0.05 * s)
    belief = CellBelief.written(np.full((1, 1, 2), start), np.zeros((1, 1, 2)), PAIR)
    belief.drift(0.05, np.ones(1), 1.31, 1.0)
    assert belief.mean[0, 0, 0] == pytest.approx(after.mean(), rel=0.02)
    spread = np.sqrt(belief.variance[0, 0, 0])
    assert spread == pytest.approx(after.std(), rel=0.2)  # first order in the rate


@pytest.mark.parametrize("n_cells", [1, 2])
def test_writes_lower_the_true_error_and_the_budget_holds(n_cells):
    rng, levels, true = layer(n_cells=n_cells)
    factor = PAIR[:n_cells]
    target = LEVELS[levels] @ factor
    belief = CellBelief.written(LEVELS[levels], SPREADS[levels], factor)
    samples, reading = look(rng, rng.random((200, 30)), true @ factor)
    compare(belief, samples, reading)
    residual = samples.x @ target - reading.total
    slope = samples.x.T @ residual / 200
    chosen, mask = choose(belief, levels, samples.gram, slope, LEVELS, np.sqrt(SPREADS), 40)
    assert 0 < mask.sum() <= 40
    np.testing.assert_array_equal(chosen[~mask], levels[~mask])
    after = np.where(mask, program(rng, chosen), true)
    assert np.square(samples.x @ (target - after @ factor)).mean() < 0.6 * np.square(residual).mean()
    none = choose(
        belief, levels, samples.gram, slope, LEVELS, np.sqrt(SPREADS), 40, columns=np.zeros(12, bool)
    )
    assert not none[1].any()


def test_predicted_gain_is_the_mean_of_true_ones():
    """One write, 40,000 draws of the cells and of their new values given one reading: correlated inputs.

    The variance of the old cell counts as a cost, since the measured residual holds its effect. The rule that
    counts it as a gain errs by twice H_ii v, twenty-five standard errors here.
    """
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(60, 1))
    x = shared + 0.3 * rng.normal(size=(60, 4))
    levels = np.full((4, 1, 1), 8)
    prior, noise = np.array([[LEVELS[8]]] * 4), np.array([0.5])
    true = prior + 0.2 * rng.normal(size=(4, 1))
    samples, reading = look(rng, x, true)
    belief = CellBelief.written(prior[:, :, None], np.full((4, 1, 1), 0.04), np.ones(1))
    estimate = identify(samples, reading, belief.weights, belief.weight_variance, noise, rounds=1)
    belief.update(estimate)
    residual = samples.x @ (0.1 * prior) - reading.total
    gram, slope = samples.gram, samples.x.T @ residual / samples.n
    sd = np.full(16, 0.05)
    chosen, mask = choose(belief, levels, gram, slope.astype(float), LEVELS, sd, 1)
    assert mask.sum() == 1
    i = int(np.argmax(mask[:, 0, 0]))
    posterior = np.linalg.inv(gram * samples.n / 0.5 + np.eye(4) / 0.04)
    draws = rng.multivariate_normal(estimate.weights[:, 0], posterior, 40_000)
    change = LEVELS[chosen[i, 0, 0]] + 0.05 * rng.standard_normal(40_000) - draws[:, i]
    gains = 2.0 * slope[i, 0] * change - gram[i, i] * change**2
    d = LEVELS[chosen[i, 0, 0]] - belief.mean[i, 0, 0]
    v = belief.variance[i, 0, 0]
    predicted = 2.0 * slope[i, 0] * d - gram[i, i] * (d**2 + 0.05**2 + v)
    error = gains.std() / np.sqrt(gains.size)
    assert abs(predicted - gains.mean()) < 4.0 * error  # false alarm 6e-5
    assert 2.0 * gram[i, i] * v > 20.0 * error


def test_both_cells_of_a_pair_leave_with_what_they_share():
    """Of a weight that is known exactly, two new cells add their own variances and nothing else."""
    belief = CellBelief.written(np.full((1, 1, 2), 0.5), np.full((1, 1, 2), 0.01), PAIR)
    prior = belief.weight_variance
    samples, reading = look(np.random.default_rng(0), np.arange(40.0)[:, None], np.zeros((1, 1)))
    belief.update(identify(samples, reading, belief.weights, prior, np.array([1e-9])))
    assert belief.weight_variance[0, 0] < 1e-6
    np.testing.assert_allclose(belief.variance[0, 0], 0.005, rtol=1e-3)
    wanted = 1.2  # more than one cell can do
    slope = samples.gram * wanted
    _, mask = choose(belief, np.full((1, 1, 2), 7), samples.gram, slope, LEVELS, np.zeros(16), 2)
    assert mask.all()
    belief.write(mask, np.zeros((1, 1, 2)), np.full((1, 1, 2), 0.02))
    assert belief.weight_variance[0, 0] == pytest.approx(0.04)


def test_shapes_are_checked():
    with pytest.raises(InputError, match="n_rows, n_cols, n_cells"):
        CellBelief.written(np.zeros((3, 3, 1)), np.zeros((3, 3, 1)), PAIR)
