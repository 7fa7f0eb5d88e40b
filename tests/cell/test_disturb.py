"""Read disturbance: golden values, polarity, stress accounting, fast against exact."""

import numpy as np
import pytest
from scipy import stats

from rramsim.cell import (
    CellArray,
    CellsConfig,
    DisturbConfig,
    DisturbLaw,
    FaultsConfig,
    PowerLaw,
    RangeWarning,
    register_disturb_law,
)
from rramsim.checks import InputError
from rramsim.config import parse
from tests.cell import naive

WIDE = CellsConfig(law="additive", sigma=0.0, on_off_ratio=1000.0)
NARROW = CellsConfig(law="additive", sigma=0.0, on_off_ratio=30.0)

# v_read [V], cycles, p, t_t [s] as printed, conductance left after 1e3, 1e6, 1e9 reads of 100 ns
GOLDEN = [
    (0.1, 0, "0.0104", "1.6e+07", "1", "1", "1"),
    (0.2, 0, "0.0159", "102", "1", "1", "1"),
    (0.2, 1000, "0.0159", "3.83", "1", "1", "0.949"),
    (0.2, 10000, "0.0159", "0.015", "1", "0.970", "0.869"),
    (0.3, 0, "0.0244", "0.04", "1", "0.978", "0.827"),
    (0.3, 1000, "0.0244", "0.0047", "1", "0.928", "0.784"),
    (0.3, 10000, "0.0244", "0.000127", "1", "0.850", "0.718"),
    (0.4, 0, "0.0373", "0.00024", "1", "0.799", "0.617"),
    (0.5, 0, "0.0571", "8.5e-06", "0.869", "0.586", "0.395"),
    (0.5, 10000, "0.0571", "7.3e-07", "0.755", "0.509", "0.343"),
]


def digits(text):
    return len(text.split("e")[0].replace(".", "").lstrip("0"))


class TestPowerLaw:
    @pytest.mark.parametrize(("v", "n", "p", "onset", "k", "m", "g"), GOLDEN)
    def test_published_table_to_its_printed_digits(self, v, n, p, onset, k, m, g):
        law = PowerLaw(v_read=v, t_read=100e-9)
        assert f"{law.exponent(v):.4f}" == p
        assert float(f"{law.onset(v, n):.{digits(onset)}g}") == float(onset)
        for reads, wanted in ((1e3, k), (1e6, m), (1e9, g)):
            disturb = DisturbConfig(law="power", v_read=v, cycles_before=n - 1 if n else 0)
            array = CellArray((1, 1), WIDE, disturb=disturb)
            if n:
                array.write([[15]])  # the write is the n-th cycle
            else:  # undisturbed device: no write may count
                array.load_state_dict(array.state_dict() | {"g_written": np.full((1, 1), 40e-6, np.float32)})
            array.add_reads([[reads]], [v])
            left = array.conductance[0, 0] / 40e-6
            assert f"{left:.3f}" == f"{float(wanted):.3f}"

    @pytest.mark.parametrize("v", [0.15, 0.3, 0.45])
    @pytest.mark.parametrize("n", [0, 3, 5000])
    def test_law_equals_its_twin(self, v, n):
        law = PowerLaw(v_read=v, t_read=100e-9)
        for seconds in (1e-8, 1e-5, 1e-2, 10.0, 1e4):
            left, onset, p = naive.power_law_left(seconds, v, n)
            assert law.remaining(seconds, n) == pytest.approx(left, rel=1e-4)  # kT/q in 10 digits
            assert law.onset(v, n) == pytest.approx(onset, rel=1e-4)
            assert law.exponent(v) == pytest.approx(p, rel=1e-6)

    def test_cells_stop_at_g_min(self):
        array = CellArray(
            (1, 16), NARROW, disturb=DisturbConfig(law="power", v_read=0.5, cycles_before=10000)
        )
        array.write(np.arange(16)[None])
        array.add_reads([[1e12]], [0.5])
        assert array.conductance.min() == pytest.approx(NARROW.scale.g_min, rel=1e-6)
        assert (np.diff(array.conductance[0]) >= 0).all()

    def test_range_warnings_name_the_range(self):
        with pytest.warns(RangeWarning, match=r"holds for \|V\| <= 0.5 V, a read of 0.7 V"):
            DisturbConfig(law="power", v_read=0.7)
        with pytest.warns(RangeWarning, match=r"fewer than 1.42e\+06 SET/RESET cycles, got 2e\+06"):
            DisturbConfig(law="power", cycles_before=2_000_000)
        array = CellArray((1, 1), NARROW, disturb=DisturbConfig(law="power", v_read=0.4))
        with pytest.warns(RangeWarning, match="a read of 0.6 V"):
            array.add_reads([[1.0]], [0.6])

    def test_writes_make_cells_more_sensitive(self):
        array = CellArray((1, 2), NARROW, disturb=DisturbConfig(law="power", v_read=0.4))
        for _ in range(50):
            array.write([[15, 15]], [[True, False]])
        array.write([[15, 15]])
        array.add_reads([[1e6]], [0.4])
        assert array.conductance[0, 0] < array.conductance[0, 1] < 40e-6


class TestStress:
    def test_additive_however_calls_are_split(self):
        config = DisturbConfig(law="power", v_read=0.3, cycles_before=100)
        once, split = (CellArray((4, 3), NARROW, disturb=config, seed=1) for _ in range(2))
        for array in (once, split):
            array.write(np.full((4, 3), 12))
        counts = np.random.default_rng(0).integers(0, 100, (4, 5)).astype(float) * 1e4
        voltages = [0.1, 0.2, 0.3, -0.25, 0.0]
        once.add_reads(counts, voltages)
        for _ in range(4):
            split.add_reads(counts / 4, voltages)
        np.testing.assert_allclose(split.stress, once.stress, rtol=1e-12)
        np.testing.assert_allclose(split.conductance, once.conductance, rtol=1e-6)

    def test_weight_is_the_quotient_of_onsets(self):
        law = PowerLaw(v_read=0.3, t_read=1e-7)
        for v in (0.1, 0.2, 0.4):
            assert law.weight(v, 500) == pytest.approx(law.onset(0.3, 500) / law.onset(v, 500))
        assert law.weight(0.0, 500) == 0.0

    def test_rows_without_input_gain_none_and_louder_rows_more(self):
        array = CellArray((3, 2), NARROW, disturb=DisturbConfig(law="power", v_read=0.4))
        array.write(np.full((3, 2), 15))
        array.add_reads([[1e7, 0, 0], [0, 1e7, 0], [0, 0, 1e7]], [0.0, 0.2, 0.4])
        assert (array.stress[0] == 0).all()
        assert (array.conductance[0] == np.float32(40e-6)).all()
        assert (np.abs(array.stress[1]) < np.abs(array.stress[2])).all()
        assert (array.conductance[1] > array.conductance[2]).all()

    def test_a_write_clears_the_stress(self):
        array = CellArray((1, 2), NARROW, disturb=DisturbConfig(law="power", v_read=0.4))
        array.write([[15, 15]])
        array.add_reads([[1e6]], [0.4])
        array.write([[15, 15]], [[True, False]])
        assert array.stress[0, 0] == 0.0
        assert array.conductance[0, 0] == np.float32(40e-6)
        assert array.conductance[0, 1] < 40e-6

    @pytest.mark.parametrize("polarity", ["negative", "positive", "bipolar", "alternating"])
    def test_fast_equals_exact_without_wires(self, polarity):
        config = DisturbConfig(law="power", v_read=0.3, polarity=polarity, balance=0.1, cycles_before=1000)
        rng = np.random.default_rng(1)
        fast, exact = (CellArray((6, 5), NARROW, disturb=config, seed=1) for _ in range(2))
        for array in (fast, exact):
            array.write(np.full((6, 5), 9))
            array.write(np.full((6, 5), 9), np.arange(30).reshape(6, 5) % 3 == 0)
        codes = rng.integers(-7, 8, (200, 6))
        counts = np.stack([(codes == code).sum(axis=0) for code in range(-7, 8)], axis=1)
        fast.add_reads(counts, 0.3 * np.arange(-7, 8) / 7)
        for chunk in np.array_split(0.3 * codes / 7, 3):
            exact.add_cell_voltages(np.repeat(chunk[:, :, None], 5, axis=2))
        np.testing.assert_allclose(fast.stress, exact.stress, rtol=1e-9, atol=1e-22)

    def test_slope_table_interpolates_closely(self):
        """One voltage per word line: `fast` then errs by interpolation alone, below 0.2 %."""
        config = DisturbConfig(law="power", v_read=0.4, cycles_before=1000)
        fast, exact = (CellArray((20, 30), NARROW, disturb=config, seed=1) for _ in range(2))
        slope = np.random.default_rng(2).uniform(0.7, 1.0, (20, 30))
        v = np.linspace(0.2, 0.4, 20)
        fast.add_reads(np.eye(20), v, slope)
        exact.add_cell_voltages((v[:, None] * slope)[None])
        np.testing.assert_allclose(fast.stress, exact.stress, rtol=2e-3)

    def test_write_counts_far_apart_interpolate_closely(self):
        """Nodes over write counts, for cells written 1 to 400 times: below 1 % of the stress."""
        config = DisturbConfig(law="power", v_read=0.4)
        fast, exact = (CellArray((20, 20), NARROW, disturb=config, seed=1) for _ in range(2))
        count = np.arange(1, 401, dtype=np.uint32).reshape(20, 20)
        for array in (fast, exact):
            array.load_state_dict(array.state_dict() | {"count": count, "count_max": 400})
        v = np.full(20, 0.3)
        fast.add_reads(np.ones((20, 1)), [0.3])
        exact.add_cell_voltages(np.repeat(v[:, None], 20, axis=1)[None])
        np.testing.assert_allclose(fast.stress, exact.stress, rtol=0.01)

    def test_errors(self):
        array = CellArray((2, 2), NARROW, disturb=DisturbConfig(law="power"))
        with pytest.raises(InputError, match=r"counts must have shape \(2, 1\)"):
            array.add_reads(np.ones((3, 1)), [0.2])
        with pytest.raises(InputError, match="counts must be >= 0"):
            array.add_reads(-np.ones((2, 1)), [0.2])
        with pytest.raises(InputError, match="v_cell must have shape"):
            array.add_cell_voltages(np.ones((2, 2)))

    def test_off_means_off(self):
        for config in (None, DisturbConfig(law="power", mode="off")):
            array = CellArray((2, 2), NARROW, disturb=config)
            version = array.version
            array.add_reads(np.full((2, 1), 1e12), [0.5])
            assert array.stress is None
            assert array.version == version


class TestPolarity:
    def disturbed(self, polarity, voltages, law="power", **parameters):
        config = DisturbConfig(law=law, v_read=0.4, polarity=polarity, parameters=parameters)
        array = CellArray((1, 16), NARROW, disturb=config)
        array.write(np.arange(16)[None])
        before = array.conductance.astype(float)
        array.add_reads(np.full((1, len(voltages)), 1e8), voltages)
        return array.conductance.astype(float) - before

    def test_directions(self):
        assert (self.disturbed("negative", [0.4])[0, 1:] < 0).all()
        assert (self.disturbed("positive", [0.4])[0, :-1] > 0).all()
        assert (self.disturbed("bipolar", [0.4])[0, :-1] > 0).all()
        assert (self.disturbed("bipolar", [-0.4])[0, 1:] < 0).all()

    def test_rising_mirrors_falling_at_the_top(self):
        rise = self.disturbed("positive", [0.4])[0]
        assert rise.argmax() == 0
        assert rise[15] == pytest.approx(0.0, abs=1e-12)

    def test_balanced_reads_cancel(self):
        assert (self.disturbed("bipolar", [0.4, -0.4]) == 0).all()
        assert (self.disturbed("alternating", [0.4]) == 0).all()

    @pytest.mark.parametrize("polarity", ["negative", "positive"])
    def test_exponential_saturation(self, polarity):
        change = self.disturbed(polarity, [0.4], law="exponential", tau=10.0)[0]
        levels = NARROW.scale.levels
        end = levels[0] if polarity == "negative" else levels[-1]
        np.testing.assert_allclose(change, (end - levels) * (1.0 - np.exp(-1.0)), atol=1e-11)

    def test_unknown_words(self):
        with pytest.raises(InputError, match=r"polarity must be one of .* got 'up'"):
            DisturbConfig(polarity="up")
        with pytest.raises(
            InputError, match="disturb: law: unknown disturb law 'powr'; did you mean 'power'"
        ):
            parse(DisturbConfig, {"law": "powr"}, "disturb")
        with pytest.raises(InputError, match=r"parameters.tua: unknown key; did you mean 'tau'"):
            DisturbConfig(law="exponential", parameters={"tua": 1.0})
        with pytest.raises(InputError, match=r"parameters.tau must be finite and > 0, got 0"):
            DisturbConfig(law="exponential", parameters={"tau": 0.0})
        with pytest.raises(InputError, match=r"parameters.k must be finite and >= 0, got -1"):
            DisturbConfig(law="power", parameters={"k": -1.0})
        with pytest.raises(InputError, match="v_read must be > 0 volts"):
            DisturbConfig(v_read=0.0)


class TestDriftToMaximum:
    def test_periods_with_individual_susceptibility(self):
        """-ln of what is left is 0.05 s per period, s lognormal(1) of mean 1 (KS, false alarm 1e-6)."""
        config = DisturbConfig(law="drift", v_read=0.2, t_read=1e-7, parameters={"period": 0.1})
        array = CellArray((100, 50), NARROW, disturb=config, seed=4)
        array.write(np.full((100, 50), 3))
        g0 = array.conductance.astype(float)
        for _ in range(3):
            array.add_reads(np.full((100, 1), 1e6), [0.2])
        left = (40e-6 - array.conductance.astype(float)) / (40e-6 - g0)
        s = -np.log(left) / (0.05 * 3)
        assert stats.kstest(np.log(s).ravel() + 0.5, "norm").pvalue > 1e-6
        assert (array.conductance >= g0).all()


class TestUserLaw:
    def test_registered_law_acts_and_follows_its_voltage(self):
        class Linear(DisturbLaw):
            defaults = {"rate": 0.1}  # noqa: RUF012

            def remaining(self, seconds, n_cycles, susceptibility=1.0):
                return np.maximum(1.0 - self.constants["rate"] * np.asarray(seconds), 0.0)

        register_disturb_law("linear_test", Linear)
        config = DisturbConfig(law="linear_test", v_read=0.2, t_read=1e-6, parameters={"rate": 0.5})
        array = CellArray((2, 2), NARROW, FaultsConfig(), config)
        array.write(np.full((2, 2), 15))
        array.add_reads([[1e6, 0], [0, 1e6]], [0.2, 0.1])
        low = NARROW.scale.g_min
        wanted = low + (40e-6 - low) * np.array([0.5, 0.75])
        np.testing.assert_allclose(array.conductance[:, 0], wanted, rtol=1e-6)
        with pytest.raises(InputError, match="exists already"):
            register_disturb_law("power", Linear)

    def test_a_law_must_say_what_remains(self):
        with pytest.raises(TypeError, match="must define remaining"):
            DisturbLaw(v_read=0.2, t_read=1e-7).remaining(1.0, 0)
