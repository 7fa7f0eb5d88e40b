"""Relaxation, drift, read noise and telegraph noise."""

import numpy as np
import pytest
from scipy import stats

from rramsim.cell import (
    CellArray,
    CellsConfig,
    DriftConfig,
    ReadNoiseConfig,
    RelaxationConfig,
    TelegraphConfig,
)

FALSE_ALARM = 1e-6
SHAPE = (200, 100)
MID = np.full(SHAPE, 7)
BASE = {"law": "additive", "sigma": 0.0}


def aged(seconds, level=7, **causes):
    array = CellArray(SHAPE, CellsConfig(**BASE, **causes), seed=3)
    array.write(np.full(SHAPE, level))
    start = array.conductance.astype(float)
    if seconds:
        array.wait(seconds)
    return start, array.conductance.astype(float)


def is_normal(x, mean, sigma):
    return stats.kstest(((x - mean) / sigma).ravel(), "norm").pvalue > FALSE_ALARM


class TestRelaxation:
    def test_acts_at_the_end_of_a_write(self):
        relaxation = RelaxationConfig(shift_polynomial=(-0.5e-6,), sigma_polynomial=(1e-6, 0.1e-6))
        start, later = aged(100.0, relaxation=relaxation)
        target = CellsConfig().scale.levels[7]
        assert is_normal(start, target - 0.5e-6, 1e-6 + 0.1 * target)
        np.testing.assert_array_equal(later, start)


class TestDrift:
    def test_logarithmic(self):
        """The published CMO/HfOx numbers after a day: mean -1.01 uS, sigma 0.89 uS."""
        array = CellArray(SHAPE, CellsConfig(preset="cmo_hfox_2025"), seed=3)
        array.write(MID)
        start = array.conductance.astype(float)
        array.wait(86400.0)
        change = array.conductance - start
        assert change.mean() == pytest.approx(-1.01e-6, abs=5 * 0.89e-6 / np.sqrt(change.size))
        assert change.std() == pytest.approx(0.89e-6, rel=5 / np.sqrt(2 * change.size) + 0.003)
        assert is_normal(change, -0.089e-6 * np.log(86400), 0.4118e-6 + 0.042e-6 * np.log(86400))

    def test_nothing_before_it_begins(self):
        drift = DriftConfig(law="logarithmic", t_reference=2.0, mean_polynomial=(1e-6,))
        start, later = aged(1.9, drift=drift)
        np.testing.assert_array_equal(start, later)

    def test_power(self):
        drift = DriftConfig(law="power", t_reference=1.0, mean_polynomial=(0.04,), sigma_polynomial=(0.01,))
        start, later = aged(1e4, drift=drift)
        nu = -np.log(later / start) / np.log(1e4)
        assert is_normal(nu, 0.04, 0.01)

    def test_exponential_saturates_and_depends_on_level(self):
        drift = DriftConfig(law="exponential", t_reference=10.0, mean_polynomial=(0.0, -0.1e-6))
        for level in (3, 12):
            start, later = aged(10.0, level, drift=drift)
            np.testing.assert_allclose(later, start * (1.0 - 0.1 * (1.0 - np.exp(-1.0))), rtol=1e-5)
        _, late = aged(1e5, drift=drift)
        np.testing.assert_allclose(late, 0.9 * start[0, 0] * 7.0 / 12.0, rtol=0.1)

    def test_time_is_additive(self):
        config = CellsConfig(preset="cmo_hfox_2025")
        one, many = CellArray(SHAPE, config, seed=3), CellArray(SHAPE, config, seed=3)
        one.wait(1000.0)
        for _ in range(4):
            many.wait(250.0)
        np.testing.assert_array_equal(one.conductance, many.conductance)

    def test_a_write_restarts_the_clock(self):
        drift = DriftConfig(law="power", mean_polynomial=(0.1,))
        array = CellArray((1, 2), CellsConfig(**BASE, drift=drift), seed=3)
        array.write([[9, 9]])
        array.wait(1e3)
        array.write([[9, 9]], [[True, False]])
        g = array.conductance[0]
        assert g[0] == pytest.approx(array.scale.levels[9])
        assert g[1] == pytest.approx(array.scale.levels[9] * 1e3**-0.1, rel=1e-5)


class TestReadNoise:
    def test_none_when_off(self):
        assert CellArray((2, 2), CellsConfig(**BASE)).read_sigma() is None

    def test_relative_and_absolute_add_in_squares(self):
        noise = ReadNoiseConfig(sigma_relative=0.03, sigma_polynomial=(1e-6,))
        array = CellArray((1, 16), CellsConfig(**BASE, read_noise=noise))
        array.write(np.arange(16)[None])
        g = array.conductance.astype(float)
        np.testing.assert_allclose(array.read_sigma(), np.hypot(0.03 * g, 1e-6), rtol=1e-6)

    def test_grows_with_time_as_published(self):
        """0.0277 log10(g) sqrt(ln((t + t_r) / (2 t_r))), g in uS, t_r = 1 us."""
        array = CellArray((1, 16), CellsConfig(preset="cmo_hfox_2025"), seed=1)
        array.write(np.arange(16)[None])
        assert (array.read_sigma() == 0).all()
        array.wait(3600.0)
        g = array.conductance.astype(float) * 1e6
        wanted = 0.0277 * np.log10(g) * np.sqrt(np.log((3600.0 + 1e-6) / 2e-6)) * 1e-6
        np.testing.assert_allclose(array.read_sigma(), wanted, rtol=1e-5)

    def test_fast_telegraph_noise_is_its_variance(self):
        telegraph = TelegraphConfig(fraction=1.0, amplitude_low=0.5, amplitude_high=0.028, occupancy=0.25)
        array = CellArray((1, 2), CellsConfig(**BASE, n_levels=2, telegraph=telegraph))
        array.write([[0, 1]])
        g = array.conductance.astype(float)[0]
        change = g * np.array([0.5 / 1.5, 0.028 / 1.028])
        np.testing.assert_allclose(array.read_sigma()[0], change * np.sqrt(0.25 * 0.75), rtol=1e-5)


class TestSlowTelegraphNoise:
    TELEGRAPH = TelegraphConfig(fraction=0.3, occupancy=0.4, lifetime=10.0)

    def captured(self, array):
        return array.conductance < np.float32(array.scale.levels[7]) * (1 - 1e-6)

    def test_share_and_memory(self):
        """Share f x occupancy; after a time t the share of kept states exceeds chance by exp(-t/tau)."""
        array = CellArray(SHAPE, CellsConfig(**BASE, telegraph=self.TELEGRAPH), seed=3)
        array.write(MID)
        first = self.captured(array)
        n = first.size
        assert stats.binomtest(int(first.sum()), n, 0.12).pvalue > FALSE_ALARM
        array.wait(5.0)
        second = self.captured(array)
        stay = np.exp(-0.5)
        wanted = stay + (1.0 - stay) * 0.4  # a captured trap is captured again
        assert stats.binomtest(int((first & second).sum()), int(first.sum()), wanted).pvalue > FALSE_ALARM
        array.wait(1e4)
        third = self.captured(array)
        assert stats.binomtest(int((first & third).sum()), int(first.sum()), 0.4).pvalue > FALSE_ALARM

    def test_amplitude(self):
        array = CellArray(
            (1, 2),
            CellsConfig(
                **BASE, n_levels=2, telegraph=TelegraphConfig(fraction=1.0, occupancy=1.0, lifetime=1.0)
            ),
        )
        array.write([[0, 1]])
        np.testing.assert_allclose(array.conductance[0], array.scale.levels / [1.5, 1.028], rtol=1e-6)
