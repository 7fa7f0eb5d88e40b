"""Published devices: golden values, evidence, own files, errors by message."""

import re

import numpy as np
import pytest

from rramsim.cell import CellArray, CellsConfig, DisturbConfig, FaultsConfig, list_presets, load_preset
from rramsim.checks import InputError

REQUIRED = {
    "bhattacharjee_2023", "cmo_hfox_2025", "generic", "hp_umass_2018", "milo_ihp_2021", "neurram_hfox_2022",
    "nist_daffodil_2025", "suny_65nm", "wan_2022_1s", "wan_2022_1d", "wan_2022_2d", "yao_2020",
}  # fmt: skip

# sigma [uS] at equally spaced levels 1 ... 40 uS, as printed (evaluated published polynomials)
GOLDEN = {
    ("wan_2022_1s", 4): [0.72, 2.28, 1.66, 1.10],
    ("wan_2022_1s", 8): [0.72, 1.99, 2.30, 2.14, 1.84, 1.58, 1.37, 1.10],
    ("wan_2022_1d", 4): [1.22, 3.98, 3.54, 2.65],
    ("wan_2022_1d", 8): [1.22, 3.16, 3.90, 3.98, 3.75, 3.43, 3.09, 2.65],
    ("wan_2022_1s_crosssim", 4): [1.28, 2.51, 1.98, 1.71],
    ("wan_2022_1s_crosssim", 8): [1.28, 2.15, 2.49, 2.45, 2.19, 1.88, 1.66, 1.71],
}
# first, largest, last at 16 levels, and where the largest sits [uS]
GOLDEN_16 = {
    "wan_2022_1s": (0.72, 2.29, 1.10, 11.4),
    "wan_2022_1d": (1.22, 4.00, 2.65, 16.6),
    "wan_2022_1s_crosssim": (1.28, 2.51, 1.71, None),
}


def sigma_us(name, **changes):
    return load_preset(name).cells(**changes).error_law().sigma * 1e6


class TestGolden:
    @pytest.mark.parametrize(("name", "n_levels"), GOLDEN)
    def test_sigma_of_wan_at_4_and_8_levels(self, name, n_levels):
        assert sigma_us(name, n_levels=n_levels).round(2).tolist() == GOLDEN[name, n_levels]

    @pytest.mark.parametrize("name", GOLDEN_16)
    def test_sigma_of_wan_at_16_levels(self, name):
        sigma = sigma_us(name, n_levels=16)
        first, largest, last, place = GOLDEN_16[name]
        assert (round(sigma[0], 2), round(sigma.max(), 2), round(sigma[-1], 2)) == (first, largest, last)
        if place is not None:
            levels = load_preset(name).cells(n_levels=16).scale.levels
            assert levels[sigma.argmax()] * 1e6 == pytest.approx(place, abs=0.05)

    def test_milo(self):
        config = load_preset("milo_ihp_2021").cells()
        sigma = config.error_law().sigma * 1e6
        assert (round(sigma[0], 2), round(sigma[-1], 2)) == (4.33, 2.73)
        np.testing.assert_allclose(config.scale.levels * 1e6, np.arange(50, 226, 25))
        assert config.scale.on_off_ratio == pytest.approx(4.5)

    def test_cmo(self):
        assert round(sigma_us("cmo_hfox_2025")[-1], 3) == 0.097
        assert round(sigma_us("cmo_hfox_2025_wide")[-1], 2) == 1.03

    def test_yao_and_nist_and_bhattacharjee(self):
        assert set(sigma_us("yao_2020")) == {0.54}
        assert load_preset("yao_2020").cells().scale.on_off_ratio == pytest.approx(8.0)
        assert load_preset("yao_2020").cells(n_levels=32).scale.levels[1] * 1e6 == pytest.approx(
            2.58, abs=0.005
        )
        nist = load_preset("nist_daffodil_2025").cells()
        assert nist.scale.on_off_ratio == pytest.approx(1.75, abs=0.005)
        assert nist.read_noise.sigma_polynomial[0] * np.sqrt(3.0) == pytest.approx(10e-6)
        law = load_preset("bhattacharjee_2023").cells().error_law()
        np.testing.assert_allclose(law.sigma / law.scale.levels, 0.1)

    def test_suny_needs_the_users_conductances(self):
        with pytest.raises(InputError, match=r"preset .suny_65nm. gives no g_max: set cells.g_max"):
            CellsConfig(preset="suny_65nm")
        with pytest.raises(InputError, match="neither g_min nor on_off_ratio"):
            CellsConfig(preset="suny_65nm", g_max=100e-6)
        assert load_preset("suny_65nm").needs == ("g_max", "on_off_ratio")
        wanted = {2: [0.1035] * 2, 4: [0.276, 0.276, 0.1035, 0.1035]}
        wanted[8] = [0.3549, 0.3549, 0.2259, 0.2259, 0.276, 0.276, 0.1035, 0.1035]
        for n_levels, sigma in wanted.items():
            config = CellsConfig(preset="suny_65nm", n_levels=n_levels, g_max=100e-6, on_off_ratio=20.0)
            assert config.error_law().sigma.tolist() == sigma
        with pytest.raises(InputError, match=r"needs sigma or sigma_levels .* for n_levels = 16"):
            CellsConfig(preset="suny_65nm", n_levels=16, g_max=100e-6, on_off_ratio=20.0)


class TestEvidence:
    def test_the_published_devices_are_there(self):
        assert set(list_presets()) >= REQUIRED

    @pytest.mark.parametrize("name", list_presets())
    def test_every_number_has_unit_mark_and_source(self, name):
        preset = load_preset(name)
        assert preset.title
        assert preset.note
        assert preset.evidence
        for entry in preset.evidence:
            assert entry.unit
            assert entry.source in preset.sources
        if name != "generic":
            assert {e.mark for e in preset.evidence} & {"measured", "fitted"}

    @pytest.mark.parametrize("name", list_presets())
    def test_every_preset_makes_cells(self, name):
        needs = dict(zip(load_preset(name).needs, (100e-6, 10.0), strict=False))
        config = load_preset(name).cells(**needs)
        array = CellArray((8, 8), config, seed=1)
        array.write(np.full((8, 8), config.n_levels - 1))
        array.wait(60.0)
        assert (array.conductance >= 0.0).all()


class TestOwnFiles:
    TEXT = """
[sources]
lab = "our bench"
[cells]
law = "additive"
n_levels = 4
g_max = { value = 50e-6, unit = "S", mark = "own", source = "lab" }
on_off_ratio = 10.0
sigma = 0.02
[faults]
stuck_low_rate = 0.01
[disturb]
law = "exponential"
v_read = 0.3
[disturb.parameters]
tau = 5.0
"""

    def write(self, tmp_path, text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return str(path)

    def test_accepted_by_path(self, tmp_path):
        path = self.write(tmp_path, self.TEXT)
        config = CellsConfig(preset=path, sigma=0.03)
        assert (config.n_levels, config.g_max, config.sigma) == (4, 50e-6, 0.03)
        assert FaultsConfig(preset=path, stuck_high_rate=0.5).stuck_low_rate == 0.01
        disturb = DisturbConfig(preset=path)
        assert (disturb.law, disturb.v_read, disturb.parameters) == ("exponential", 0.3, {"tau": 5.0})

    def test_an_edited_file_is_read_again(self, tmp_path):
        path = self.write(tmp_path, self.TEXT)
        assert CellsConfig(preset=path).sigma == 0.02
        self.write(tmp_path, self.TEXT.replace("0.02", "0.04"))
        assert CellsConfig(preset=path).sigma == 0.04

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("sigma =", "sigmma =", "unknown key cells.sigmma; did you mean 'sigma'"),
            ("[faults]", "[fault]", r"unknown table \[fault\]; did you mean 'faults'"),
            ("stuck_low_rate", "sa0_rate", "unknown key faults.sa0_rate"),
            (
                'unit = "S"',
                'unit = "uS"',
                r"cells.g_max must be in unit 'S' \(SI, no prefix\), got unit 'uS'",
            ),
            ('mark = "own"', 'mark = "guess"', "mark must be one of measured, fitted, derived, assumed, own"),
            ('source = "lab"', 'source = "lob"', r"source 'lob' is not in \[sources\]; did you mean 'lab'"),
            ("mark =", "marc =", "unknown key cells.g_max.marc; did you mean 'mark'"),
            ("[cells]", "[cells", "not valid TOML"),
        ],
    )
    def test_errors(self, tmp_path, old, new, message):
        path = self.write(tmp_path, self.TEXT.replace(old, new))
        with pytest.raises(InputError, match=message):
            CellsConfig(preset=path)

    def test_unknown_name_and_missing_table(self):
        with pytest.raises(InputError, match="unknown preset 'neuram'; did you mean 'neurram_hfox_2022'"):
            CellsConfig(preset="neuram")
        with pytest.raises(InputError, match=re.escape("preset 'yao_2020' has no table [disturb]")):
            DisturbConfig(preset="yao_2020")
        with pytest.raises(InputError, match="cannot be read"):
            CellsConfig(preset="absent.toml")

    def test_stored_settings_need_no_file(self, tmp_path):
        from rramsim.config import parse, to_table

        path = self.write(tmp_path, self.TEXT)
        config = CellsConfig(preset=path)
        (tmp_path / "mine.toml").unlink()
        assert parse(CellsConfig, to_table(config), "cells") == config
