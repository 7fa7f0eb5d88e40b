"""Levels, error laws and their statistics.

Statistical tests use fixed seeds; the stated false-alarm rate is the chance that a correct
program would fail with another seed.
"""

import dataclasses
import tomllib

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from rramsim import streams
from rramsim.cell import (
    CellArray,
    CellsConfig,
    ErrorLaw,
    LevelScale,
    OverlapWarning,
    RelaxationConfig,
    alpha_from_half_bias,
    cell_current,
    check_overlap,
    half_bias_ratio,
    level_errors,
    register_error_law,
)
from rramsim.checks import InputError
from rramsim.config import parse, to_toml
from tests.cell import naive

FALSE_ALARM = 1e-6  # per test of a distribution
SHAPE = (200, 100)


def written(config, *, level=None, seed=5, n_writes=1):
    array = CellArray(SHAPE, config, seed=seed, keys=(1, 2))
    levels = np.full(SHAPE, config.n_levels - 1 if level is None else level)
    for _ in range(n_writes):
        array.write(levels)
    return array.conductance.astype(float)


class TestLevels:
    def test_conductance_spacing(self):
        scale = LevelScale(4, 1e-6, 40e-6)
        np.testing.assert_allclose(scale.levels, [1e-6, 14e-6, 27e-6, 40e-6], rtol=1e-12)
        assert scale.on_off_ratio == pytest.approx(40.0)

    def test_resistance_spacing(self):
        levels = LevelScale(5, 2e-6, 40e-6, "resistance").levels
        np.testing.assert_allclose(np.diff(1.0 / levels), np.diff(1.0 / levels)[0], rtol=1e-9)
        assert (np.diff(levels) > 0).all()

    def test_explicit_list(self):
        config = CellsConfig(levels=(1e-6, 3e-6, 10e-6), law="additive", sigma=0.0)
        assert config.n_levels == 3
        assert config.scale.on_off_ratio == pytest.approx(10.0)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((1, 1e-6, 2e-6), "n_levels must be an integer >= 2, got 1"),
            ((4, 3e-6, 2e-6), r"g_min must lie in \(0, g_max\) siemens.*were resistances given"),
            ((4, 1e-6, 2e-6, "log"), "spacing must be 'conductance', 'resistance'"),
            ((2, 1e-6, 2e-6, [2e-6, 1e-6]), "levels must ascend"),
            ((2, 1e-6, 2e-6, [1e-6, 3e-6]), "levels must run from g_min"),
        ],
    )
    def test_errors(self, arguments, message):
        with pytest.raises(InputError, match=message):
            LevelScale(*arguments)


class TestSettings:
    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ({"g_min": 50e-6}, "g_min must lie in"),
            ({"on_off_ratio": 0.5}, r"on_off_ratio must lie in \[1.001, 1e12\], got 0.5"),
            ({"g_min": 1e-6, "on_off_ratio": 3.0}, "contradict each other"),
            ({"n_levels": 1}, r"n_levels must lie in \[2, 65536\], got 1"),
            ({"sigma": -0.1}, "sigma must be >= 0"),
            ({"fixed_fraction": 1.5}, r"fixed_fraction must lie in \[0, 1\]"),
            ({"law": "lognormall"}, "unknown error law 'lognormall'; did you mean 'lognormal'"),
            ({"law": "additive"}, r"law 'additive' needs sigma \(fraction of g_max\)"),
            ({"law": "normal"}, "law 'normal' needs sigma_conductance or sigma_polynomial"),
            ({"law": "normal", "sigma": 0.1}, "law 'normal' takes sigma_conductance or sigma_polynomial"),
            (
                {"law": "normal", "sigma_polynomial": [1e-6, -1e-6], "g_polynomial": 1e-6},
                "sigma_polynomial must be >= 0 at every level, got -3.9e-05 S at 4e-05 S",
            ),
            ({"sigma": 0.1, "sigma_levels": [0.1]}, "give one description of sigma only"),
            ({"sigma_levels": [0.1, 0.2]}, "sigma_levels must have 1 value or one per level"),
            ({"sigmma": 0.1}, "cells.sigmma: unknown key; did you mean 'sigma'"),
            ({"programming": {"gain": 3.0}}, r"gain must lie in \(0, 2\)"),
            ({"programming": {"method": "verify"}}, "method must be one of one_shot, write_verify"),
            ({"drift": {"t_reference": -1.0}}, "t_reference must be > 0 seconds, got -1"),
            ({"endurance": {"window_loss": 1.0}}, r"window_loss must lie in \[0, 1\)"),
            ({"telegraph": {"fraction": 2.0}}, r"fraction must lie in \[0, 1\]"),
        ],
    )
    def test_errors(self, table, message):
        with pytest.raises(InputError, match=message):
            parse(CellsConfig, table, "cells")

    def test_text_round_trip(self):
        config = CellsConfig(n_levels=8, law="normal", sigma_polynomial=(1e-6, 2e-6), g_polynomial=1e-6)
        assert parse(CellsConfig, tomllib.loads(to_toml(config)), "cells") == config

    def test_on_off_ratio_replaces_the_presets_window(self):
        config = CellsConfig(preset="neurram_hfox_2022", on_off_ratio=10.0)
        assert config.scale.g_min == pytest.approx(4e-6)


class TestLaws:
    def test_lognormal_distribution(self):
        """ln(G/G_t) is normal with mean -s^2/2 and std s (Kolmogorov-Smirnov)."""
        g = written(CellsConfig(law="lognormal", sigma=0.3))
        z = (np.log(g / 40e-6) + 0.045) / 0.3
        assert stats.kstest(z.ravel(), "norm").pvalue > FALSE_ALARM

    def test_lognormal_mean_is_the_target(self):
        g = written(CellsConfig(law="lognormal", sigma=0.3))
        error = g.std() / np.sqrt(g.size)
        assert abs(g.mean() - 40e-6) < stats.norm.isf(FALSE_ALARM / 2) * error

    def test_additive_distribution_and_clamp(self):
        g = written(CellsConfig(law="additive", sigma=0.2))
        assert g.max() <= 1.3 * 40e-6 * (1 + 1e-6)
        inside = g[g < 1.2999 * 40e-6]
        z = (inside - 40e-6) / 8e-6
        assert stats.kstest(z, stats.truncnorm(-5.0, 1.5).cdf).pvalue > FALSE_ALARM
        low = written(CellsConfig(law="additive", sigma=0.2), level=0)
        assert low.min() == 0.0

    def test_normal_law_follows_its_polynomial(self):
        config = CellsConfig(law="normal", n_levels=4, sigma_polynomial=(0.1e-6, 0.02e-6), g_polynomial=1e-6)
        for level in range(4):
            g = written(config, level=level)
            target = config.scale.levels[level]
            sigma = 0.1e-6 + 0.02 * target
            statistic = (g.size - 1) * g.var(ddof=1) / sigma**2
            tail = min(stats.chi2.cdf(statistic, g.size - 1), stats.chi2.sf(statistic, g.size - 1))
            assert tail > FALSE_ALARM / 8

    @pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
    def test_fixed_fraction_is_the_correlation_of_two_writes(self, fraction):
        """Fisher's z of the correlation between writes of the same cells."""
        config = CellsConfig(law="lognormal", sigma=0.2, fixed_fraction=fraction)
        one, two = np.log(written(config)), np.log(written(config, n_writes=2))
        rho = np.corrcoef(one.ravel(), two.ravel())[0, 1]
        if fraction == 1.0:
            assert rho == pytest.approx(1.0, abs=1e-6)
        else:
            z = (np.arctanh(rho) - np.arctanh(fraction)) * np.sqrt(one.size - 3)
            assert abs(z) < stats.norm.isf(FALSE_ALARM / 2)

    def test_fixed_part_is_the_same_for_all_levels(self):
        config = CellsConfig(law="lognormal", sigma=0.2, fixed_fraction=1.0)
        levels = config.scale.levels
        e_high = np.log(written(config) / levels[-1])
        e_low = np.log(written(config, level=3) / levels[3])
        np.testing.assert_allclose(e_high, e_low, atol=1e-6)

    def test_arrays_and_cells_are_independent(self):
        config = CellsConfig(law="lognormal", sigma=0.2)
        g = np.log(written(config))
        other = np.log(written(config, seed=6))
        limit = stats.norm.isf(FALSE_ALARM / 8) / np.sqrt(g.size)
        assert abs(np.corrcoef(g.ravel(), other.ravel())[0, 1]) < limit
        assert abs(np.corrcoef(g[:, 1:].ravel(), g[:, :-1].ravel())[0, 1]) < limit
        assert abs(np.corrcoef(g[1:].ravel(), g[:-1].ravel())[0, 1]) < limit

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**32), st.floats(0.0, 1.0), st.floats(0.0, 0.5), st.integers(1, 3))
    def test_one_shot_equals_its_twin(self, seed, fraction, sigma, n_writes):
        config = CellsConfig(n_levels=4, law="lognormal", sigma=sigma, fixed_fraction=fraction)
        array = CellArray((3, 2), config, seed=seed, keys=(7,))
        levels = np.array([[0, 1], [2, 3], [3, 0]])
        for _ in range(n_writes):
            array.write(levels)
        keys = [
            int(streams.key(seed, cause, 7)) for cause in (streams.Cause.CELL_FIXED, streams.Cause.CELL_WRITE)
        ]
        for cell in range(6):
            e = naive.deviate(fraction, *keys, cell, n_writes)
            target = config.scale.levels[levels.ravel()[cell]]
            wanted = target * np.exp(sigma * e - 0.5 * sigma**2)
            assert array.conductance.ravel()[cell] == pytest.approx(wanted, rel=1e-6)  # float32 state

    def test_user_law(self):
        class Uniform(ErrorLaw):
            def realise(self, level, e):
                return self.scale.levels[level] * (1.0 + self.sigma[level] * np.clip(e, -1.0, 1.0))

        register_error_law("uniform_test", lambda scale, config: Uniform(scale, config.sigma))
        config = CellsConfig(law="uniform_test", sigma=0.1)
        g = written(config)
        assert g.max() == pytest.approx(44e-6)
        assert g.min() == pytest.approx(36e-6)
        assert 0.0 <= level_errors(config).mean < 0.5
        with pytest.raises(InputError, match="exists already"):
            register_error_law("uniform_test", Uniform)


class TestCurrentVoltage:
    def test_linear_and_half_bias(self):
        assert cell_current(20e-6, 0.2) == pytest.approx(4e-6)
        alpha = alpha_from_half_bias(4.0, 0.4)
        assert half_bias_ratio(alpha, 0.4) == pytest.approx(4.0)
        ratio = cell_current(1e-6, 0.4, alpha) / cell_current(1e-6, 0.2, alpha)
        assert ratio == pytest.approx(4.0)
        assert alpha_from_half_bias(2.0, 0.4) == 0.0

    def test_small_signals_see_the_conductance(self):
        assert cell_current(20e-6, 1e-6, 5.0) == pytest.approx(20e-12, rel=1e-9)

    def test_errors(self):
        with pytest.raises(InputError, match="must be >= 2"):
            alpha_from_half_bias(1.5, 0.2)
        with pytest.raises(InputError, match="v must be > 0 volts"):
            alpha_from_half_bias(3.0, 0.0)
        with pytest.raises(InputError, match="alpha must be >= 0"):
            cell_current(1e-6, 0.1, -1.0)


class TestOverlap:
    @pytest.mark.parametrize("law", ["additive", "lognormal"])
    def test_rate_equals_counting(self, law):
        """Binomial test against 20,000 simulated cells per level."""
        config = CellsConfig(law=law, sigma=0.08, n_levels=6)
        errors = level_errors(config)
        for level in (1, 5):
            g = written(config, level=level)
            n_wrong = int((np.searchsorted(errors.thresholds, g) != level).sum())
            assert stats.binomtest(n_wrong, g.size, errors.rates[level]).pvalue > FALSE_ALARM

    def test_with_relaxation(self):
        relaxation = RelaxationConfig(sigma_polynomial=(3e-6,), g_reference=1e-6)
        config = CellsConfig(law="normal", sigma_conductance=(1e-6,), n_levels=6, relaxation=relaxation)
        both = CellsConfig(law="normal", sigma_conductance=(np.sqrt(10.0) * 1e-6,), n_levels=6)
        np.testing.assert_allclose(level_errors(config).rates, level_errors(both).rates, rtol=0.02)

    def test_warning_names_the_rate(self):
        config = CellsConfig(law="lognormal", sigma=0.5, n_levels=16)
        with pytest.warns(OverlapWarning, match="16 levels overlap.*probability 0.79.*use fewer levels"):
            check_overlap(config)

    def test_separate_levels_do_not_warn(self):
        assert check_overlap(CellsConfig(law="additive", sigma=0.005)).mean < 1e-6

    def test_replace_changes_one_field(self):
        config = dataclasses.replace(CellsConfig(), sigma=0.1)
        assert config.sigma == 0.1
        assert config.n_levels == 16
