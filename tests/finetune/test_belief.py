"""Beliefs about cells against simulated cells."""

import numpy as np
import pytest

from finetune.evidence.belief import CellBelief, choose_writes, observe, programming_variance
from rramsim.checks import InputError

LEVELS = np.linspace(0.0, 1.0, 16)
SPREADS = programming_variance(LEVELS, 30.0, 0.2, 0.0)
NOISE = 1e-4


def layer(n_rows=30, n_cols=12, seed=0):
    """Levels, true cell values and inputs of a layer."""
    rng = np.random.default_rng(seed)
    levels = np.zeros((n_rows, n_cols, 2), dtype=np.int64)
    side = rng.integers(0, 2, (n_rows, n_cols))
    np.put_along_axis(levels, side[:, :, None], rng.integers(0, 16, (n_rows, n_cols, 1)), axis=2)
    true = LEVELS[levels] + np.sqrt(SPREADS[levels]) * rng.standard_normal(levels.shape)
    return rng, levels, true


def read(rng, x, true):
    y = x @ (true[:, :, 0] - true[:, :, 1])
    return (y + np.sqrt(NOISE) * rng.standard_normal(y.shape)).astype(np.float32)


@pytest.mark.parametrize(
    "n_vectors", [15, 200]
)  # fewer and more vectors than rows: both forms of the posterior
def test_posterior_is_calibrated(n_vectors):
    errors = []
    for seed in range(10):
        rng, levels, true = layer(seed=seed)
        belief = CellBelief.written(levels, LEVELS, SPREADS)
        before = np.square(belief.mean - true).mean()
        x = rng.random((n_vectors, 30)).astype(np.float32)
        observe(belief, x, read(rng, x, true), NOISE)
        assert np.square(belief.mean - true).mean() < before
        w = true[:, :, 0] - true[:, :, 1]
        posterior = belief.weight_variance
        if n_vectors == 200:
            assert np.square(belief.weights - w).mean() < 0.1 * before
        errors.append(np.square(belief.weights - w).mean() / posterior.mean())
    # posterior.mean() leaves out the correlation of the two cells, which only enlarges it
    assert 0.02 < np.mean(errors) < 1.3


def test_wrong_spread_is_rescaled():
    rng, levels, true = layer()
    belief = CellBelief.written(levels, LEVELS, SPREADS * 4.0)
    x = rng.random((200, 30)).astype(np.float32)
    factor = observe(belief, x, read(rng, x, true), NOISE)
    assert 0.15 < factor < 0.4


def test_drift_forecast_follows_the_law():
    """Mean and variance against 20000 cells with lognormal susceptibility of ln-std 1."""
    rng = np.random.default_rng(1)
    s = rng.lognormal(-0.5, 1.0, 20_000)
    start = 0.2
    after = 1.0 - (1.0 - start) * np.exp(-0.05 * s)
    belief = CellBelief.written(np.zeros((1, 1, 2), dtype=int), LEVELS, np.zeros(16))
    belief.mean[:] = start
    belief.drift(0.05, np.ones(1), 1.31)
    assert belief.mean[0, 0, 0] == pytest.approx(after.mean(), rel=0.02)
    spread = np.sqrt(belief.variance[0, 0, 0])
    assert spread == pytest.approx(after.std(), rel=0.2)  # first order in the rate


def test_writes_lower_the_true_error():
    rng, levels, true = layer()
    x = rng.random((200, 30)).astype(np.float32)
    target = x @ (LEVELS[levels][:, :, 0] - LEVELS[levels][:, :, 1])
    belief = CellBelief.written(levels, LEVELS, SPREADS)
    y = read(rng, x, true)
    observe(belief, x, y, NOISE)
    hessian, slope = x.T @ x / 200, x.T @ (target - y) / 200
    proposal = choose_writes(belief, levels, hessian, slope, limit=40, per_column=5)
    assert 0 < proposal.mask.sum() <= 40
    assert proposal.mask.sum(axis=(0, 2)).max() <= 5
    fresh = LEVELS[proposal.levels] + np.sqrt(SPREADS[proposal.levels]) * rng.standard_normal(true.shape)
    written = np.where(proposal.mask, fresh, true)
    after = np.square(target - x @ (written[:, :, 0] - written[:, :, 1])).mean()
    assert after < 0.5 * np.square(target - y).mean()


def test_uncertain_reset_cells_are_refreshed_first():
    """With nothing to correct on average, the cells that may have drifted most are written to level 0."""
    levels = np.zeros((10, 1, 2), dtype=np.int64)
    belief = CellBelief.written(levels, LEVELS, SPREADS)
    belief.variance[3:5] = 0.01
    proposal = choose_writes(
        belief, levels, np.eye(10), np.zeros((10, 1)), limit=100, per_column=100, price=1e-4
    )
    np.testing.assert_array_equal(np.unique(np.nonzero(proposal.mask)[0]), [3, 4])
    assert proposal.mask.sum() == 4
    assert not proposal.levels.any()


def test_only_pairs():
    with pytest.raises(InputError, match="n_rows, n_cols, 2"):
        CellBelief.written(np.zeros((3, 3, 1), dtype=int), LEVELS, SPREADS)
