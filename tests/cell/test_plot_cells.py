"""Figures of presets and fits: what they show, not how they look."""

import numpy as np
import pytest

from rramsim.cell import CellsConfig, DisturbConfig
from rramsim.cell.fit import fit
from rramsim.cell.plot import fit_figure, preset_figure
from rramsim.checks import InputError


def test_preset_figure_has_three_labelled_panels(tmp_path):
    figure = preset_figure("wan_2022_1d", tmp_path / "wan.png")
    assert (tmp_path / "wan.png").stat().st_size > 10_000
    left, middle, right = figure.axes
    assert "µS" in left.get_xlabel()
    heights = [bar.get_height() for bar in middle.patches]
    assert max(heights) == pytest.approx(0.103, abs=0.001)  # level 1 of 4
    assert "not this device" in right.get_title()
    assert len(right.lines) == 6  # three voltages, fresh and after 1e4 cycles


def test_a_rising_law_is_drawn_from_g_min():
    figure = preset_figure(CellsConfig(n_levels=4), disturb=DisturbConfig(law="drift"))
    curve = figure.axes[2].lines[0].get_ydata()
    assert curve[0] == pytest.approx(40.0 / 30.0, rel=1e-3)
    assert curve[-1] == pytest.approx(40.0, rel=1e-3)


def test_open_presets_say_what_they_need():
    with pytest.raises(InputError, match="gives no g_max"):
        preset_figure("suny_65nm")


def test_fit_figure(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "m.csv"
    rows = [f"{level},{(level + 1) * 1e-5 + 1e-6 * rng.standard_normal():.6g}" for level in (0, 1, 2) * 50]
    path.write_text("level,g_measured\n" + "\n".join(rows))
    figure = fit_figure(fit(path), tmp_path / "fit.svg")
    assert (tmp_path / "fit.svg").exists()
    assert len(figure.axes) == 3
    assert "KS distance" in figure.axes[2].get_title()
