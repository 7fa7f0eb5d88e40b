"""Fits to synthetic measurements recover what made them; seeds fixed, limits 5 standard errors."""

import dataclasses
import re
import warnings

import numpy as np
import pytest
from click.testing import CliRunner

from finetune.study.cli import main
from rramsim.cell import CellArray, CellsConfig, DisturbConfig, load_preset
from rramsim.cell.fit import ReadingConfig, fit
from rramsim.cell.fit.reading import read_measurements
from rramsim.checks import InputError, UnitWarning

N_CELLS = 400


def save(path, header, rows):
    text = [",".join(header)]
    text += [",".join(f"{value:.9g}" for value in row) for row in rows]
    path.write_text("\n".join(text) + "\n")
    return path


def programmed(path, config, *, n_cycles=4, times=(), seed=3):
    """Cells written `n_cycles` times to random levels, read 1 s after each write and at `times`."""
    rng = np.random.default_rng(seed)
    array = CellArray((N_CELLS, 1), config, seed=seed)
    rows = []

    def read(cycle, time, levels):
        for cell, (level, g) in enumerate(zip(levels[:, 0], array.conductance[:, 0], strict=True)):
            rows.append((level, g, cell, cycle, time))

    for cycle in range(n_cycles):
        levels = rng.integers(0, config.n_levels, (N_CELLS, 1))
        array.write(levels)
        now = 1.0
        array.wait(now)
        read(cycle, now, levels)
        for time in times:
            array.wait(time - now)
            now = time
            read(cycle, now, levels)
    return save(path, ("level", "g_measured", "cell", "cycle", "time"), rows)


class TestProgramming:
    def test_lognormal_is_recognised(self, tmp_path):
        config = CellsConfig(law="lognormal", sigma=0.15, n_levels=4, fixed_fraction=0.7)
        result = fit(programmed(tmp_path / "m.csv", config))
        assert result.law == "lognormal"
        n = result.counts.sum()
        assert result.sigma["sigma"] == pytest.approx(0.15, rel=5 / np.sqrt(2 * n / 2))  # repeats correlate
        assert abs(result.fixed_fraction - 0.7) < 5 * result.fixed_fraction_error
        assert result.fixed_fraction_error < 0.05
        assert result.laws[0].ks_p_value > 1e-3
        np.testing.assert_allclose(result.means, config.scale.levels, rtol=0.1)

    def test_normal_with_a_polynomial(self, tmp_path):
        config = CellsConfig(
            law="normal",
            n_levels=8,
            sigma_polynomial=(0.3e-6, 3e-6, -2e-6),
            g_polynomial=40e-6,
            fixed_fraction=0.2,
        )
        result = fit(programmed(tmp_path / "m.csv", config))
        assert result.law == "normal"
        wanted = config.error_law().sigma
        fitted = np.polynomial.polynomial.polyval(
            result.means / result.sigma["g_polynomial"], result.sigma["sigma_polynomial"]
        )
        np.testing.assert_allclose(fitted, wanted, rtol=0.15)
        assert abs(result.fixed_fraction - 0.2) < 5 * result.fixed_fraction_error

    @pytest.mark.parametrize("fraction", [0.0, 1.0])
    def test_pure_parts(self, tmp_path, fraction):
        config = CellsConfig(law="lognormal", sigma=0.1, n_levels=4, fixed_fraction=fraction)
        result = fit(programmed(tmp_path / "m.csv", config))
        assert result.fixed_fraction == pytest.approx(fraction, abs=0.1)

    def test_one_write_leaves_the_split_open(self, tmp_path):
        config = CellsConfig(law="lognormal", sigma=0.1, n_levels=4)
        result = fit(programmed(tmp_path / "m.csv", config, n_cycles=1))
        assert result.fixed_fraction is None
        assert "no cell was rewritten" in result.summary()

    def test_published_numbers_of_yao(self, tmp_path):
        """Eight levels of 2.5 uS, error N(0, 108 nA at 0.2 V) as printed: sigma 0.54 uS comes back."""
        rng = np.random.default_rng(1)
        levels = np.repeat(np.arange(1, 9) * 2.5e-6, 300)
        g = (levels * 0.2 + 108e-9 * rng.standard_normal(levels.size)) / 0.2
        result = fit(save(tmp_path / "yao.csv", ("g_target", "g_measured"), zip(levels, g, strict=True)))
        assert result.law == "normal"
        (sigma,) = result.sigma["sigma_conductance"]
        assert sigma == pytest.approx(0.54e-6, rel=5 / np.sqrt(2 * levels.size))

    def test_wrong_law_fits_badly(self, tmp_path):
        rng = np.random.default_rng(1)
        level = np.repeat(np.arange(3), 400)
        g = (level + 1.0) * 10e-6 + rng.uniform(-2e-6, 2e-6, level.size)
        result = fit(save(tmp_path / "m.csv", ("level", "g_measured"), zip(level, g, strict=True)))
        assert result.laws[0].ks_p_value < 0.01


class TestTime:
    def test_logarithmic_drift_of_cmo(self, tmp_path):
        config = load_preset("cmo_hfox_2025").cells(n_levels=4)
        drift = fit(programmed(tmp_path / "m.csv", config, times=(10.0, 100.0, 1e3, 1e4))).drift
        assert drift.law == "logarithmic"
        assert drift.parameters["t_reference"] == 1.0
        assert drift.parameters["mean_polynomial"][0] == pytest.approx(-0.089e-6, abs=0.02e-6)
        assert drift.parameters["sigma_polynomial"][0] == pytest.approx(0.042e-6, rel=0.15)
        assert drift.parameters["sigma_offset"][0] == pytest.approx(0.4118e-6, rel=0.1)

    def test_power_drift(self, tmp_path):
        config = dataclasses.replace(
            load_preset("bhattacharjee_2023").cells(n_levels=4),
            drift=dataclasses.replace(
                load_preset("bhattacharjee_2023").cells().drift, sigma_polynomial=(0.01,)
            ),
        )
        drift = fit(programmed(tmp_path / "m.csv", config, times=(10.0, 1e3, 1e5))).drift
        assert drift.law == "power"
        assert drift.parameters["mean_polynomial"][0] == pytest.approx(0.04, abs=0.003)
        assert drift.parameters["sigma_polynomial"][0] == pytest.approx(0.01, rel=0.1)


class TestDisturb:
    CELLS = CellsConfig(law="normal", sigma_conductance=(0.3e-6,), n_levels=4)

    def measured(self, path, disturb, voltages, noise=0.001):
        rng, rows = np.random.default_rng(5), []
        for part, v in enumerate(voltages):
            own = dataclasses.replace(disturb, v_read=v) if disturb.law == "power" else disturb
            array = CellArray((60, 1), self.CELLS, disturb=own, seed=part)
            levels = rng.integers(0, 4, (60, 1))
            array.write(levels)
            done = 0.0
            for reads in (0.0, 1e3, 1e4, 1e5, 1e6, 1e7):
                array.add_reads(np.full((60, 1), reads - done), [v])
                done = reads
                g = array.conductance[:, 0] * (1.0 + noise * rng.standard_normal(60) * (reads > 0))
                rows += [(levels[c, 0], g[c], c + 100 * part, 1, reads, v) for c in range(60)]
        return save(path, ("level", "g_measured", "cell", "n_cycles", "n_reads", "v_read"), rows)

    def test_power_law(self, tmp_path):
        path = self.measured(tmp_path / "m.csv", DisturbConfig(law="power"), (0.2, 0.3, 0.4, 0.5))
        disturb = fit(path).disturb
        assert disturb.law == "power"
        assert disturb.parameters["c1"] == pytest.approx(0.0068, rel=0.02)
        assert disturb.parameters["a"] == pytest.approx(0.11, rel=0.02)
        assert disturb.parameters["b"] == pytest.approx(1.43339, rel=0.02)
        assert disturb.parameters["polarity"] == "negative"
        assert disturb.others["exponential"] > 10.0  # BIC

    @pytest.mark.parametrize("polarity", ["negative", "positive"])
    def test_exponential_law(self, tmp_path, polarity):
        config = DisturbConfig(
            law="exponential", v_read=0.3, polarity=polarity, parameters={"tau": 0.1, "v_scale": 0.05}
        )
        disturb = fit(self.measured(tmp_path / "m.csv", config, (0.2, 0.3, 0.4))).disturb
        assert disturb.law == "exponential"
        assert disturb.parameters["polarity"] == polarity
        assert disturb.parameters["v_scale"] == pytest.approx(0.05, rel=0.02)
        assert disturb.parameters["tau"] == pytest.approx(0.1, rel=0.05)

    def test_one_voltage_is_noted(self, tmp_path):
        result = fit(self.measured(tmp_path / "m.csv", DisturbConfig(law="power"), (0.4,)))
        assert result.disturb.law == "power"
        assert "One read voltage only" in result.summary()


class TestPresetFile:
    def test_round_trip_through_a_preset(self, tmp_path):
        config = dataclasses.replace(load_preset("cmo_hfox_2025_wide").cells(n_levels=4), fixed_fraction=0.3)
        result = fit(programmed(tmp_path / "m.csv", config, times=(10.0, 1e4)))
        path = result.save(tmp_path / "fitted.toml", "CMO again")
        again = CellsConfig(preset=str(path))
        np.testing.assert_allclose(again.scale.levels, result.means)
        assert again.law == "normal"
        assert again.fixed_fraction == result.fixed_fraction
        assert again.drift.law == "logarithmic"
        assert load_preset(str(path)).title == "CMO again"
        with pytest.raises(InputError, match="exists already"):
            result.save(path)

    def test_disturbance_round_trip(self, tmp_path):
        source = TestDisturb().measured(tmp_path / "m.csv", DisturbConfig(law="power"), (0.3, 0.4))
        path = fit(source).save(tmp_path / "fitted.toml")
        config = DisturbConfig(preset=str(path), v_read=0.4)
        assert config.law == "power"
        assert config.parameters["c1"] == pytest.approx(0.0068, rel=0.05)


class TestErrors:
    GOOD = "level,g_measured\n" + "\n".join(f"{k % 2},{(k % 2 + 1) * 1e-5 + k * 1e-7}" for k in range(12))

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("g_measured", "q_mesured", "no column of conductance.* was recognised in level, q_mesured"),
            ("level,", "cell,", "neither level nor target is known"),
            ("\n1,2.01e-05", "\n1,2.01e-05,3", r"line 3: 2 entries wanted, got 3"),
            (
                "\n1,2.01e-05",
                "\n1,high",
                r"8.3 % of the values cannot be used.* or open: line 3",
            ),
            ("\n1,2.01e-05", "\n1,", r"not a number or open: line 3"),
            ("\n1,2.01e-05", "\n1,-2e-5", r"1 values negative or zero: line 3"),
            ("\n1,2.01e-05", "\n1,20.1", "reach 20.1 S, beyond what cells have"),
            ("\n1,2.01e-05", "\n,2.01e-05", "1 values without level: line 3"),
        ],
    )
    def test_messages(self, tmp_path, old, new, message):
        path = tmp_path / "m.csv"
        path.write_text(self.GOOD.replace(old, new))
        with pytest.raises(InputError, match=message):
            fit(path)

    def test_a_few_bad_rows_are_left_out_and_listed(self, tmp_path):
        path = tmp_path / "m.csv"
        path.write_text(self.GOOD.replace("\n1,2.01e-05", "\n1,-2e-5"))
        result = fit(path, ReadingConfig(max_bad=0.1))
        assert result.counts.tolist() == [6, 5]
        assert "left out: 1 values negative or zero: line 3" in result.summary()

    def test_a_level_of_few_cells_is_dropped_with_a_note(self, tmp_path):
        path = tmp_path / "m.csv"
        path.write_text(self.GOOD + "\n7,9e-5")
        result = fit(path)
        assert result.counts.tolist() == [6, 6]
        assert "fewer than 5 programmed values are left out: 2 (1)" in result.summary()

    def test_comments_and_blank_lines(self, tmp_path):
        path = tmp_path / "m.csv"
        path.write_text("# bench 3\n\n" + self.GOOD + "\n")
        assert fit(path).counts.tolist() == [6, 6]

    def test_missing_file(self, tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            fit(tmp_path / "none.csv")


class TestUnits:
    """A wrong unit of a file was taken without a word as long as cells stayed below 10 mS."""

    def table(self, path, factor=1.0, header="g", more=()):
        rng = np.random.default_rng(0)
        levels = np.repeat(np.arange(4), 30)
        g = (1.0 + 2.0 * levels) * rng.lognormal(0.0, 0.02, levels.size) * factor
        columns = [levels, g, *(np.full(levels.size, value) if np.isscalar(value) else value(levels)
                                for _, value in more)]  # fmt: skip
        return save(path, ("level", header, *(name for name, _ in more)), np.stack(columns, axis=1))

    @pytest.mark.parametrize(
        "kwargs, message",
        [
            ({"header": "g (mS)"}, r"m.csv: median conductance = 0.00\d+ S \(\d+.* uS\) is outside the usual "
             "1 nS to 1 mS"),
            ({"header": "g (pS)"}, "median conductance = .* is outside the usual"),
            ({"header": "g (uS)", "more": [("v_read", 200.0)]}, r"read voltage = 200 V .* \(--unit v_read="),
            ({"header": "g (uS)", "more": [("time", 3e12)]}, "time is 3e.12 s, that is 9.51e.04 years"),
            ({"header": "g (uS)", "more": [("target (mS)", lambda levels: 1.0 + 2.0 * levels)]},
             "the median of target is .* times that of the conductances"),
        ],
    )  # fmt: skip
    def test_implausible_units_of_a_file_are_warned_about(self, tmp_path, kwargs, message):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read_measurements(self.table(tmp_path / "m.csv", **kwargs))
        said = [str(entry.message) for entry in caught if entry.category is UnitWarning]
        assert len(said) == 1
        assert re.search(message, said[0]), said

    def test_plausible_files_draw_no_warning(self, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_measurements(self.table(tmp_path / "m.csv", header="g (uS)", more=[("v_read", 0.2)]))

    def test_files_in_two_units_are_warned_about(self, tmp_path):
        one, two = (
            self.table(tmp_path / f"{n}.csv", factor, header="g (uS)") for n, factor in (("a", 1), ("b", 200))
        )
        with pytest.warns(UnitWarning, match=r"uS in a.csv and .* uS in b.csv, a factor of \d+: have they"):
            read_measurements([one, two])

    def test_the_command_says_it_too(self, tmp_path):
        path = self.table(tmp_path / "m.csv", header="g (mS)")
        result = CliRunner().invoke(main, ["fit-device", str(path)])
        assert "is outside the usual 1 nS to 1 mS" in result.stderr
