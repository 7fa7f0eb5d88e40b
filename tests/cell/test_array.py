"""State of cells: writes, faults, causes that must not touch each other, resume, threads."""

import dataclasses

import numba
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from rramsim import streams
from rramsim.cell import (
    CellArray,
    CellsConfig,
    DisturbConfig,
    DriftConfig,
    EnduranceConfig,
    FaultsConfig,
    ProgrammingConfig,
    ReadNoiseConfig,
    RelaxationConfig,
    TelegraphConfig,
)
from rramsim.cell.programming import write_cost, write_verify
from rramsim.checks import InputError
from tests.cell import naive

FALSE_ALARM = 1e-6
SHAPE = (60, 40)
EXACT = CellsConfig(law="additive", sigma=0.0)
EVERYTHING = CellsConfig(
    n_levels=8,
    law="lognormal",
    sigma=0.2,
    relaxation=RelaxationConfig(sigma_polynomial=(1e-6,)),
    drift=DriftConfig(law="logarithmic", mean_polynomial=(-0.1e-6,), sigma_polynomial=(0.05e-6,)),
    read_noise=ReadNoiseConfig(sigma_relative=0.01),
    telegraph=TelegraphConfig(fraction=0.2, lifetime=10.0),
    endurance=EnduranceConfig(n_endurance=100.0, window_loss=0.3, sigma_growth=0.5),
)
FAULTS = FaultsConfig(stuck_low_rate=0.02, stuck_high_rate=0.01)
DISTURB = DisturbConfig(law="power", v_read=0.4, parameters={"sigma_susceptibility": 0.5})


def levels(seed=0, n_levels=8, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, n_levels, shape)


def lived(array):
    """A short life with every cause."""
    mask = levels(3) > 3
    array.write(levels())
    array.add_reads(np.full((SHAPE[0], 2), 1e5), [0.4, -0.2])
    array.wait(100.0)
    array.write(levels(1), mask)
    array.add_reads(np.full((SHAPE[0], 1), 1e6), [0.3], np.linspace(0.7, 1.0, 2400).reshape(SHAPE))
    array.wait(1e4)
    return array


class TestWriting:
    def test_arrives_reset_and_uncounted(self):
        array = CellArray(SHAPE, CellsConfig(law="lognormal", sigma=0.3), seed=1)
        assert (array.write_count == 0).all()
        z = (np.log(array.conductance.astype(float) * 30.0 / 40e-6) + 0.045) / 0.3
        assert stats.kstest(z.ravel(), "norm").pvalue > FALSE_ALARM

    def test_report_counts_masked_cells(self):
        array = CellArray(SHAPE, EXACT, FaultsConfig(stuck_low_rate=0.5), seed=1)
        mask = levels() > 5
        report = array.write(np.full(SHAPE, 3), mask)
        assert report.n_cells == report.n_pulses == mask.sum()
        np.testing.assert_array_equal(array.write_count, mask)
        assert report.seconds == pytest.approx(mask.sum() * 1e-6)
        assert report.joules is None

    def test_energy_where_a_source_gives_it(self):
        array = CellArray(SHAPE, CellsConfig(preset="yao_2020"))
        report = array.write(levels())
        assert report.joules == pytest.approx(report.n_pulses * 6e-12)

    def test_unmasked_cells_keep_their_bits(self):
        array = CellArray(SHAPE, EVERYTHING, FAULTS, seed=1)
        array.write(levels())
        before = array.conductance.copy()
        mask = levels(9) == 0
        array.write(levels(1), mask)
        np.testing.assert_array_equal(array.conductance[~mask], before[~mask])

    def test_order_and_masks_change_nothing(self):
        config = CellsConfig(n_levels=8, law="lognormal", sigma=0.3)
        whole, parts = (CellArray(SHAPE, config, seed=2, keys=(4,)) for _ in range(2))
        whole.write(levels())
        mask = levels(5) > 3
        parts.write(levels(), ~mask)
        parts.write(levels(), mask)
        np.testing.assert_array_equal(whole.conductance, parts.conductance)

    def test_any_integer_kind_of_levels(self):
        results = []
        for kind in (np.uint8, np.int16, np.int64):
            array = CellArray(SHAPE, CellsConfig(), seed=2)
            array.write(levels().astype(kind))
            results.append(array.conductance)
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_array_equal(results[0], results[2])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((np.zeros(SHAPE),), "levels must be integers, got dtype float64"),
            ((np.zeros((3, 3), int),), r"levels must have shape \(60, 40\), got \(3, 3\)"),
            ((np.full(SHAPE, 16),), r"levels must lie in 0 ... 15, got 16 ... 16"),
            ((np.full(SHAPE, -1),), r"levels must lie in 0 ... 15, got -1"),
            ((np.zeros(SHAPE, int), np.ones(3, bool)), r"mask must have shape"),
        ],
    )
    def test_errors(self, arguments, message):
        with pytest.raises(InputError, match=message):
            CellArray(SHAPE, EXACT).write(*arguments)

    def test_negative_time(self):
        with pytest.raises(InputError, match="seconds must be finite and >= 0, got -1"):
            CellArray(SHAPE, EXACT).wait(-1.0)

    def test_endurance_narrows_the_window_and_widens_errors(self):
        wear = EnduranceConfig(n_endurance=10.0, window_loss=0.4, sigma_growth=1.0)
        array = CellArray((100, 50), CellsConfig(law="additive", sigma=0.01, endurance=wear), seed=1)
        top = np.full((100, 50), 15)
        for _ in range(10):
            array.write(top)
        window = 40e-6 - 40e-6 / 30.0
        spread = 0.02 * 40e-6  # 0.01 grown by a factor of 2
        z = (array.conductance - (40e-6 - 0.4 * window)) / spread
        assert stats.kstest(z.ravel(), "norm").pvalue > FALSE_ALARM


class TestWriteVerify:
    CONFIG = CellsConfig(
        law="additive",
        sigma=0.0,
        programming=ProgrammingConfig(method="write_verify", scatter=0.4, sigma_gain=0.3, n_pulses_max=12),
    )

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**32), st.integers(1, 3))
    def test_equals_its_twin(self, seed, n_writes):
        array = CellArray((3, 2), self.CONFIG, seed=seed, keys=(1,))
        wanted = np.array([[0, 15], [7, 3], [12, 9]])
        keys = [int(streams.key(seed, streams.Cause.PULSE_SCATTER, 1, part)) for part in (0, 1)]
        g = array.conductance.astype(float).ravel()
        for write in range(1, n_writes + 1):
            targets = wanted if write % 2 else 15 - wanted
            report = array.write(targets)
            pulses = failed = 0
            for cell, level in enumerate(targets.ravel()):
                target = self.CONFIG.scale.levels[level]
                g[cell], spent, accepted = naive.write_verify(
                    np.float64(np.float32(g[cell])), target, self.CONFIG.programming, *keys, cell, write
                )
                pulses, failed = pulses + spent, failed + (not accepted)
            assert (report.n_pulses, report.n_failed) == (pulses, failed)
            np.testing.assert_allclose(array.conductance.ravel(), g, rtol=1e-6)  # float32 state

    def test_accepted_cells_lie_in_the_window(self):
        array = CellArray(SHAPE, self.CONFIG, seed=3)
        wanted = levels(0, 16)
        report = array.write(wanted)
        outside = np.abs(array.conductance - self.CONFIG.scale.levels[wanted]) > 1e-6 * (1 + 1e-5)
        assert outside.sum() == report.n_failed
        assert report.seconds == pytest.approx(report.n_pulses * 2e-6 + report.n_cells * 1e-6)

    def test_rewriting_the_same_level_takes_no_pulse(self):
        array = CellArray(SHAPE, self.CONFIG, seed=3)
        first = array.write(np.full(SHAPE, 15))
        again = array.write(np.full(SHAPE, 15))
        assert again.n_pulses <= 12 * first.n_failed
        assert (array.write_count == 2).all()

    def test_stuck_cells_spend_the_budget(self):
        array = CellArray(SHAPE, self.CONFIG, FaultsConfig(stuck_low_rate=1.0))
        report = array.write(np.full(SHAPE, 15))
        assert report.n_failed == report.n_cells
        assert report.n_pulses == 12 * report.n_cells
        assert array.write(np.zeros(SHAPE, int)).n_pulses == 0

    @pytest.mark.parametrize("n_levels", [4, 8, 16, 256])
    def test_neurram_pulses_and_success(self, n_levels):
        """8.52 pulses a cell (8.5 +- 1 asked), 99 % success and 56 us a cell: Wan et al. 2022."""
        cost = write_cost(CellsConfig(preset="neurram_hfox_2022", n_levels=n_levels), seed=1)
        assert 7.5 <= cost.n_pulses <= 9.5
        assert 0.985 <= cost.success <= 0.995
        assert 50e-6 < cost.seconds < 62e-6

    def test_free_targets(self):
        start = np.full((5, 4), 2e-6)
        target = np.linspace(1e-6, 40e-6, 20).reshape(5, 4)
        report = write_verify(start, target, config=ProgrammingConfig(), seed=1)
        assert report.converged.all()
        assert report.n_pulses.shape == (5,)
        assert (start == 2e-6).all()
        with pytest.raises(InputError, match="g must have shape"):
            write_verify(start[:2], target, config=ProgrammingConfig())


class TestFaults:
    def test_rates(self):
        """Binomial counts of 240,000 cells."""
        array = CellArray((600, 400), EXACT, FAULTS, seed=1)
        for value, rate in ((1, 0.02), (2, 0.01)):
            n = int((array.stuck == value).sum())
            assert stats.binomtest(n, 240_000, rate).pvalue > FALSE_ALARM

    def test_stuck_cells_never_move(self):
        array = CellArray(SHAPE, EVERYTHING, FAULTS, DISTURB, seed=1)
        low, high = array.stuck == 1, array.stuck == 2
        lived(array)
        np.testing.assert_allclose(array.conductance[low], EVERYTHING.scale.g_min, rtol=1e-6)
        np.testing.assert_allclose(array.conductance[high], EVERYTHING.scale.g_max, rtol=1e-6)

    def test_given_values(self):
        faults = FaultsConfig(stuck_low_rate=0.1, stuck_high_rate=0.1, g_stuck_low=0.0, g_stuck_high=500e-6)
        array = CellArray(SHAPE, EXACT, faults, seed=1)
        assert array.conductance.max() == pytest.approx(500e-6)
        assert array.conductance.min() == 0.0

    def test_a_higher_rate_keeps_the_faults_of_a_lower_one(self):
        few = CellArray(SHAPE, EXACT, FAULTS, seed=1).stuck
        many = CellArray(SHAPE, EXACT, dataclasses.replace(FAULTS, stuck_low_rate=0.2), seed=1).stuck
        np.testing.assert_array_equal(many[few > 0], few[few > 0])

    def test_clusters_keep_the_rate_and_adjoin(self):
        """Mean over 40 arrays; the spread of the mean is taken from the arrays."""
        faults = FaultsConfig(stuck_low_rate=0.05, cluster_cells=16)
        maps = [CellArray((100, 80), EXACT, faults, seed=s).stuck == 1 for s in range(40)]
        rates = np.array([m.mean() for m in maps])
        assert abs(rates.mean() - 0.05) < 5.0 * rates.std(ddof=1) / np.sqrt(40)
        neighbours = np.mean([(m[:, 1:] & m[:, :-1]).sum() / m[:, :-1].sum() for m in maps])
        assert neighbours > 0.6  # 0.05 for independent faults

    def test_errors(self):
        with pytest.raises(InputError, match=r"stuck_low_rate \+ stuck_high_rate must be <= 1, got 1.2"):
            FaultsConfig(stuck_low_rate=0.6, stuck_high_rate=0.6)


class TestCausesAreIndependent:
    """Switching a cause off leaves every other draw as it was."""

    def test_faults_leave_sound_cells_alone(self):
        sound = lived(CellArray(SHAPE, EVERYTHING, None, DISTURB, seed=1))
        faulty = lived(CellArray(SHAPE, EVERYTHING, FAULTS, DISTURB, seed=1))
        free = faulty.stuck == 0
        np.testing.assert_array_equal(faulty.conductance[free], sound.conductance[free])

    @pytest.mark.parametrize(
        ("off", "value"),
        [
            ("drift", DriftConfig()),
            ("read_noise", ReadNoiseConfig()),
            ("telegraph", TelegraphConfig()),
            ("relaxation", RelaxationConfig()),
            ("endurance", EnduranceConfig()),
        ],
    )
    def test_the_written_deviate_survives(self, off, value):
        """ln G right after one write differs by a constant or not at all when a cause is off."""
        base = dataclasses.replace(EVERYTHING, relaxation=RelaxationConfig(), endurance=EnduranceConfig())
        quiet = dataclasses.replace(base, drift=DriftConfig(), telegraph=TelegraphConfig())
        without = dataclasses.replace(base, **{off: value})
        pair = [CellArray(SHAPE, config, seed=1) for config in (quiet, without)]
        for array in pair:
            array.write(levels())
        np.testing.assert_array_equal(pair[0]._g_written, pair[1]._g_written)

    def test_disturbance_does_not_touch_programming(self):
        one, two = (CellArray(SHAPE, EVERYTHING, FAULTS, d, seed=1) for d in (None, DISTURB))
        one.write(levels())
        two.write(levels())
        np.testing.assert_array_equal(one.conductance, two.conductance)

    def test_read_noise_does_not_touch_conductance(self):
        noisy = lived(CellArray(SHAPE, EVERYTHING, FAULTS, DISTURB, seed=1))
        silent = dataclasses.replace(EVERYTHING, read_noise=ReadNoiseConfig())
        np.testing.assert_array_equal(
            noisy.conductance, lived(CellArray(SHAPE, silent, FAULTS, DISTURB, seed=1)).conductance
        )

    def test_arrays_of_other_keys_differ(self):
        a, b = (CellArray(SHAPE, EVERYTHING, FAULTS, seed=1, keys=(k,)) for k in (0, 1))
        assert (a.conductance != b.conductance).mean() > 0.9


class TestState:
    def test_resume_is_bit_identical(self):
        whole = lived(CellArray(SHAPE, EVERYTHING, FAULTS, DISTURB, seed=1))
        state = whole.state_dict()
        assert all(isinstance(v, np.ndarray | int | float) for v in state.values())
        resumed = CellArray(SHAPE, EVERYTHING, FAULTS, DISTURB, seed=1)
        resumed.load_state_dict(state)
        np.testing.assert_array_equal(resumed.conductance, whole.conductance)
        assert resumed.version == whole.version
        for array in (whole, resumed):
            array.write(levels(8), levels(9) > 4)
            array.wait(50.0)
            array.add_reads(np.ones((SHAPE[0], 1)) * 1e4, [0.4])
        np.testing.assert_array_equal(resumed.conductance, whole.conductance)

    def test_state_is_a_copy(self):
        array = CellArray(SHAPE, EXACT, seed=1)
        state = array.state_dict()
        array.write(np.full(SHAPE, 15))
        assert state["g_written"].max() < 2e-6

    def test_wrong_state(self):
        state = CellArray((2, 2), EXACT).state_dict()
        with pytest.raises(InputError, match=r"must have shape .* was it made with other settings"):
            CellArray((3, 3), EXACT).load_state_dict(state)

    @pytest.mark.parametrize("n_threads", [1, 2])
    def test_threads_change_no_bit(self, n_threads):
        n_before = numba.get_num_threads()
        reference = lived(CellArray(SHAPE, EVERYTHING, FAULTS, DISTURB, seed=1)).conductance.copy()
        numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))
        try:
            again = lived(CellArray(SHAPE, EVERYTHING, FAULTS, DISTURB, seed=1)).conductance
            np.testing.assert_array_equal(again, reference)
        finally:
            numba.set_num_threads(n_before)

    def test_version_grows_with_a_write(self):
        array = CellArray((8, 8), EXACT, seed=1)
        version = array.version
        mask = np.zeros((8, 8), bool)
        mask[5, 2] = True
        array.write(np.full((8, 8), 15), mask)
        assert array.version > version

    def test_conductance_is_read_only(self):
        with pytest.raises(ValueError, match="read-only"):
            CellArray((2, 2), EXACT).conductance[0, 0] = 1.0

    def test_memory_per_cell(self):
        """All causes together; the bar is 40 bytes a cell."""
        array = CellArray(SHAPE, EVERYTHING, FAULTS, DISTURB)
        assert array.nbytes / 2400 < 40
        assert CellArray(SHAPE, EXACT).nbytes / 2400 <= 13
