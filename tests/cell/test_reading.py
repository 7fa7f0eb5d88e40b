"""Measurement files of the shapes that laboratories write: small ones made here, with known content."""

import gzip

import numpy as np
import pytest

from rramsim.cell import CellArray, CellsConfig, load_preset
from rramsim.cell.fit import ReadingConfig, fit, load_recipe, read_measurements, simulated_ks
from rramsim.cell.fit.meaning import split_unit, unit_factor
from rramsim.checks import InputError

RNG = np.random.default_rng(7)
LEVEL = np.tile(np.arange(4), 50)
G = (LEVEL + 1) * 20e-6 + RNG.normal(0.0, 1e-6, LEVEL.size)  # [S]


def write(path, text):
    path.write_text(text)
    return path


def rows(*columns, mark=",", form="{:.9g}"):
    return "\n".join(mark.join(form.format(x) for x in row) for row in zip(*columns, strict=True))


def german(text):
    return text.replace(".", ",")


FILES = {
    "comma": ("level,G_meas (uS)\n" + rows(LEVEL, G * 1e6), {}),
    "semicolon": ("Level;Conductance [uS]\n" + german(rows(LEVEL, G * 1e6, mark=";")), {}),
    "blanks": ("level   g\n" + rows(LEVEL, G, mark="   "), {}),
    "savetxt": ("# measured in May\n# level g_uS\n" + rows(LEVEL, G * 1e6, mark=" "), {}),
    "two_headers": ("state,conductance\n-,uS\n" + rows(LEVEL, G * 1e6), {}),
    "no_header": (rows(np.arange(200) + 1400, G, LEVEL, mark="\t"), {}),
    "kohm": ("LEVEL\tResistance [kohm]\textra\n" + rows(LEVEL, 1e-3 / G, LEVEL * 0.5, mark="\t"), {}),
    "current": ("level,I at 0.2 V (uA)\n" + rows(LEVEL, G * 0.2e6), {}),
    "descending": ("level,r_ohm\n" + rows(3 - LEVEL, 1 / G), {}),
    "by_position": (rows(1 / G), {"compute": {"level": "i % 4"}}),
    "named": ("a,b\n" + rows(G * 1e6, LEVEL), {"columns": {"g": "a", "level": 2}, "units": {"g": "uS"}}),
}


class TestShapes:
    @pytest.mark.parametrize("name", FILES)
    def test_every_shape_gives_the_same_conductances(self, tmp_path, name):
        text, options = FILES[name]
        data = read_measurements(write(tmp_path / "lab.txt", text), ReadingConfig(**options))
        np.testing.assert_allclose(data.columns["g"], G, rtol=1e-7)
        result = fit(tmp_path / "lab.txt", ReadingConfig(**options))
        for k in range(4):
            assert result.means[k] == pytest.approx(G[k == LEVEL].mean(), rel=1e-6)
            assert result.sigmas[k] == pytest.approx(G[k == LEVEL].std(ddof=1), rel=1e-6)
        if name == "descending":
            assert "numbered from the highest conductance" in result.summary()

    def test_gzip_and_xlsx(self, tmp_path):
        text = FILES["comma"][0]
        (tmp_path / "lab.csv.gz").write_bytes(gzip.compress(text.encode()))
        np.testing.assert_allclose(read_measurements(tmp_path / "lab.csv.gz").columns["g"], G, rtol=1e-7)
        pd = pytest.importorskip("pandas")
        pytest.importorskip("openpyxl")
        pd.DataFrame({"Level": LEVEL, "G (uS)": G * 1e6}).to_excel(tmp_path / "lab.xlsx", index=False)
        np.testing.assert_allclose(read_measurements(tmp_path / "lab.xlsx").columns["g"], G, rtol=1e-7)

    def test_a_wide_table_of_two_states_in_turn(self, tmp_path):
        """The shape of a cycling record: address, then RESET and SET resistance of every cycle."""
        cell = RNG.normal(0.0, 0.4, (30, 1))
        high = np.exp(12.0 + cell + RNG.normal(0.0, 0.4, (30, 20)))
        low = np.exp(8.5 - 0.1 * cell + RNG.normal(0.0, 0.05, (30, 20)))
        table = np.stack([high, low], axis=2).reshape(30, 40)
        path = write(tmp_path / "c.tsv", rows(np.arange(30) + 7, *table.T, mark="\t"))
        result = fit(path)
        assert result.counts.tolist() == [600, 600]
        assert result.means[1] == pytest.approx((1 / low).mean(), rel=1e-6)
        assert not result.shares.pooled_describes
        hrs = result.shares.levels[0]
        assert hrs.low < 0.5 < hrs.high
        assert result.shares.correlation[0, 1] < -0.5

    def test_one_device_per_column(self, tmp_path):
        """Rows are cycles, columns devices: k is the cell."""
        values = 50e-6 * np.exp(RNG.normal(0.0, 0.1, (40, 10)))
        values[1::2] /= 10.0
        options = ReadingConfig(
            wide="1-", compute={"cell": "k", "cycle": "i // 2", "level": "i % 2"}, quantity="conductance"
        )
        data = read_measurements(write(tmp_path / "w.csv", rows(*values.T)), options)
        assert data.columns["cell"][:10].tolist() == list(range(10))
        np.testing.assert_allclose(data.columns["g"], values.ravel(), rtol=1e-7)

    def test_continuous_targets_are_binned(self, tmp_path):
        target = np.linspace(1e-6, 41e-6, 400)
        g = target + RNG.normal(0.0, 0.2e-6, 400)
        path = write(tmp_path / "t.csv", "g_target,g_measured\n" + rows(target, np.abs(g)))
        result = fit(path, ReadingConfig(n_bins=5))
        np.testing.assert_allclose(result.targets * 1e6, [1, 11, 21, 31, 41], rtol=1e-9)
        assert result.sigmas.max() < 0.35e-6
        assert "nearest of 1, 11, 21, 31, 41 uS" in result.summary()

    def test_files_before_and_after_a_bake(self, tmp_path):
        before = write(tmp_path / "a.csv", rows(1 / G))
        write(tmp_path / "b.csv", rows(1 / (G - 0.5e-6)))
        result = fit(
            [before, tmp_path / "b.csv"], ReadingConfig(compute={"level": "i % 4"}, file_times=(1.0, 3600.0))
        )
        assert result.counts.tolist() == [50] * 4
        np.testing.assert_allclose(result.drift.table.mean[:, 0], -0.5e-6, rtol=1e-6)

    def test_a_recipe_beside_the_data(self, tmp_path):
        recipe = write(
            tmp_path / "r.toml", '[reading]\nquantity = "resistance"\n[reading.compute]\nlevel = "i % 4"\n'
        )
        assert load_recipe(recipe).compute == {"level": "i % 4"}
        with pytest.raises(InputError, match="unknown meaning 'levle'; did you mean 'level'"):
            ReadingConfig(compute={"levle": "i"})


class TestUnits:
    @pytest.mark.parametrize(
        ("header", "name", "unit"),
        [("G_meas (uS)", "G_meas", "uS"), ("Resistance [kohm]", "Resistance", "kohm"), ("r_ohm", "r", "ohm"),
         ("time_us", "time", "us"), ("G", "G", ""), ("t / h", "t", "h")],
    )  # fmt: skip
    def test_headers(self, header, name, unit):
        assert split_unit(header) == (name, unit)

    @pytest.mark.parametrize(
        ("unit", "dimension", "factor"),
        [("uS", "S", 1e-6), ("\u00b5S", "S", 1e-6), ("mS", "S", 1e-3), ("k\u03a9", "ohm", 1e3),
         ("MOhm", "ohm", 1e6), ("h", "s", 3600.0), ("ns", "s", 1e-9), ("mV", "V", 1e-3)],
    )  # fmt: skip
    def test_factors(self, unit, dimension, factor):
        assert unit_factor(unit, dimension)[0] == pytest.approx(factor)

    def test_celsius_and_nonsense(self):
        assert unit_factor("degC", "K") == (1.0, 273.15)
        with pytest.raises(InputError, match="unit 'furlong' is not S with a prefix, such as uS"):
            unit_factor("furlong", "S")

    def test_a_forgotten_unit_is_named(self, tmp_path):
        path = write(tmp_path / "m.csv", "level,g\n" + rows(LEVEL, G * 1e6))
        with pytest.raises(InputError, match=r"median of .* S .*were resistances given"):
            read_measurements(path)


class TestReadsAndWrites:
    def test_repeated_reads_are_noise_and_no_share(self, tmp_path):
        """One write and five reads: the share is unknown, the noise is 0.3 uS."""
        cell = np.repeat(np.arange(100), 5)
        level = cell % 2
        g = np.repeat(np.where(np.arange(100) % 2, 60e-6, 20e-6) + RNG.normal(0, 2e-6, 100), 5)
        g = g + RNG.normal(0.0, 0.3e-6, 500)
        time = np.tile(np.arange(1.0, 6.0), 100)
        path = write(tmp_path / "r.csv", "cell,level,g,time\n" + rows(cell, level, g, time))
        result = fit(path)
        assert result.shares is None
        assert result.counts.tolist() == [50, 50]
        assert result.noise.n_pairs == 400
        for sigma, error in zip(result.noise.sigmas, result.noise.errors, strict=True):
            assert abs(sigma - 0.3e-6) < 4 * error
        assert "taken as reads of the same write" in result.summary()

    def test_telegraph_noise_shows_two_states(self, tmp_path):
        n, reads = 40, 60
        step = np.where(np.arange(n)[:, None] < 12, 3e-6, 0.0)  # 12 of 40 cells have a trap
        g = 40e-6 + RNG.normal(0, 0.1e-6, (n, reads)) - (RNG.random((n, reads)) < 0.4) * step
        cell = np.repeat(np.arange(n), reads)
        text = rows(cell, cell % 2, g.ravel() * (1 + cell % 2))
        path = write(tmp_path / "t.csv", "cell,level,g\n" + text)
        assert fit(path).noise.telegraph == pytest.approx(12 / 40)

    def test_pulse_records(self, tmp_path):
        """Without header: address, pulses, SET, RESET, resistance, bounds, success."""
        n = 2000
        level = RNG.integers(0, 3, n)
        low, high = np.array([9e3, 4.9e3, 0.0])[level], np.array([1.1e4, 5.1e3, 2.1e3])[level]
        r = np.maximum(low, 1.9e3) + RNG.random(n) * (high - np.maximum(low, 1.9e3))
        sets = RNG.integers(0, 9, n)
        pulses = sets + np.where(RNG.random(n) < 0.5, 1, RNG.geometric(0.02, n))
        ok = np.ones(n)
        ok[3] = 0
        text = rows(RNG.integers(100, 400, n), pulses, sets, pulses - sets, r, low, high, ok, mark="\t")
        result = fit(write(tmp_path / "p.tsv", text))
        assert len(result.means) == 3
        assert result.pulses.success == pytest.approx(1 - 1 / n)
        array = CellArray((3, 20000), result.cells())
        drawn = array.pulses_of_next_write(np.repeat(np.arange(3)[:, None], 20000, axis=1))
        assert result.pulses.high[2] == np.inf
        for k in range(3):
            measured = pulses[level == k]
            assert drawn[k].mean() == pytest.approx(measured.mean(), rel=0.15)
            assert np.quantile(drawn[k], 0.9) == pytest.approx(np.quantile(measured, 0.9), rel=0.15)

    def test_stuck_cells_do_not_widen_the_levels(self, tmp_path):
        config = CellsConfig(law="normal", sigma_conductance=(1e-6,), n_levels=4, g_max=80e-6, g_min=20e-6)
        n, cycles = 300, 4
        array = CellArray((n, 1), config, seed=2)
        lines = []
        for cycle in range(cycles):
            level = RNG.integers(0, 4, (n, 1))
            array.write(level)
            g = array.conductance[:, 0].astype(float)
            g[:12] = 2e-6  # 12 cells stuck at low, 6 at high
            g[12:18] = 140e-6
            lines += [f"{c},{cycle},{level[c, 0]},{g[c]:.8g}" for c in range(n)]
        result = fit(write(tmp_path / "s.csv", "cell,cycle,level,g\n" + "\n".join(lines)))
        assert (result.faults.n_low, result.faults.n_high, result.faults.n_other) == (12, 6, 0)
        assert result.sigmas.max() < 1.3e-6
        preset = result.save(tmp_path / "s.toml")
        faults = load_preset(str(preset)).faults()
        assert faults.stuck_low_rate == pytest.approx(12 / n)
        assert faults.g_stuck_high == pytest.approx(140e-6)


class TestLawsOfThePreset:
    def test_skewed_levels_become_an_empirical_law(self, tmp_path):
        g = np.concatenate([20e-6 + RNG.gamma(0.7, 2e-6, 600), 60e-6 - RNG.gamma(0.7, 2e-6, 600)])
        level = np.repeat([0, 1], 600)
        result = fit(write(tmp_path / "g.csv", "level,g\n" + rows(level, g)))
        assert result.law == "empirical"
        config = CellsConfig(preset=str(result.save(tmp_path / "g.toml")))
        assert max(simulated_ks(config, (g[:600], g[600:]), seed=9)) < 0.05
        assert config.error_law().sigma[0] == pytest.approx(g[:600].std(), rel=0.1)

    def test_shares_and_correlation_by_level_come_back(self, tmp_path):
        """What the fit reads off cells simulated with a share per level is what they were made with."""
        config = CellsConfig(
            law="lognormal", sigma=0.2, levels=(20e-6, 200e-6), fixed_fraction_levels=(0.6, 0.25),
            cell_correlation=((1.0, -0.4), (-0.4, 1.0)),
        )  # fmt: skip
        n = 400
        array = CellArray((n, 1), config, seed=11)
        lines = []
        for cycle in range(12):
            for level in (0, 1):
                array.write(np.full((n, 1), level))
                lines += [f"{c},{cycle},{level},{g:.8g}" for c, g in enumerate(array.conductance[:, 0])]
        result = fit(write(tmp_path / "c.csv", "cell,cycle,level,g\n" + "\n".join(lines)))
        for share, wanted in zip(result.shares.levels, (0.6, 0.25), strict=True):
            assert share.low < wanted < share.high
        assert abs(result.shares.correlation[0, 1] + 0.4) < 4 * result.shares.correlation_error[0, 1]
        again = result.cells()
        assert again.fixed_fraction_levels is not None
        assert np.array(again.cell_correlation)[0, 1] < 0

    def test_one_share_describes_ordinary_cells(self, tmp_path):
        config = CellsConfig(law="lognormal", sigma=0.2, levels=(20e-6, 200e-6), fixed_fraction=0.4)
        array = CellArray((300, 1), config, seed=5)
        lines = []
        for cycle in range(6):
            for level in (0, 1):
                array.write(np.full((300, 1), level))
                lines += [f"{c},{cycle},{level},{g:.8g}" for c, g in enumerate(array.conductance[:, 0])]
        result = fit(write(tmp_path / "c.csv", "cell,cycle,level,g\n" + "\n".join(lines)))
        assert result.shares.pooled_describes
        assert result.shares.pooled.low < 0.4 < result.shares.pooled.high

    def test_drift_that_depends_on_the_state_from_time_zero(self, tmp_path):
        """Low levels rise and high ones fall, first stamp 0: the simulated chip does the same."""
        n, times, grown = 400, (0.0, 0.01, 1.0, 1e4), (0.0, 1.0, 1.3, 4.0)
        lines, means = [], {}
        for level, g0 in enumerate((5e-6, 20e-6, 35e-6)):
            start = g0 + RNG.normal(0, 0.2e-6, n)
            e = RNG.standard_normal(n)
            for k, t in enumerate(times):
                change = grown[k] * ((15e-6 - g0) * 0.05 + 0.3e-6 * e)
                means[level, k] = change.mean(), change.std() / np.sqrt(n)
                lines += [f"{level * n + c},{level},{g:.8g},{t}" for c, g in enumerate(start + change)]
        result = fit(write(tmp_path / "d.csv", "cell,level,g,time\n" + "\n".join(lines)))
        assert result.drift.law == "table"  # no law of ln t
        config = CellsConfig(preset=str(result.save(tmp_path / "d.toml")))
        array = CellArray((3, 20000), config, seed=1)
        array.write(np.repeat(np.arange(3)[:, None], 20000, axis=1))
        first = array.conductance.astype(float)
        for k, t in enumerate(times[1:], 1):
            array.wait(t - array.clock)
            change = (array.conductance - first).mean(axis=1)
            for level in range(3):
                mean, error = means[level, k]
                assert abs(change[level] - mean) < error
