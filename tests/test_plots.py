"""Plots: the numbers they show, one colour per strategy, units, sizes and fonts of a journal's column."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

import rramsim.plot as plot
from finetune.study.archive import Archive, Study
from finetune.study.plot_archive import _quantiles
from finetune.study.plot_style import KNOWN
from rramsim import ChipConfig, SimulatedChip, solve_crossbar
from rramsim.checks import InputError

OF_ARCHIVES = ("accuracy", "against", "pareto", "levels", "layers", "history", "confusion")


def texts(figure: Any) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def assert_legible(figure: Any) -> None:
    """No text below 6 points, none outside the figure, at most a column (or two) wide."""
    FigureCanvasAgg(figure).draw()
    box = figure.bbox
    for text in texts(figure):
        assert text.get_fontsize() >= 6.0, text
        extent = text.get_window_extent()
        if extent.width and text.axes is not None and text not in text.axes.texts:
            assert extent.x0 > box.x0 - 2, text
            assert extent.x1 < box.x1 + 2, text
    assert figure.get_size_inches()[0] <= 7.2


@pytest.mark.parametrize("name", OF_ARCHIVES)
def test_functions_draw_on_given_axes_or_their_own(quick_archive: Archive, name: str) -> None:
    draw = getattr(plot, name)
    own = draw(quick_archive)
    assert own.figure.get_size_inches()[0] == pytest.approx(3.5)
    assert_legible(own.figure)
    given = Figure(figsize=(3.5, 3.0)).add_subplot()
    assert draw(quick_archive, ax=given) is given
    for axis in (own.xaxis, own.yaxis):
        assert axis.get_label_text() or [t for t in axis.get_ticklabels() if t.get_text()]


def test_accuracy_shows_every_chip_and_the_gap(quick_archive: Archive) -> None:
    ax = plot.accuracy(quick_archive)
    points = [
        line.get_xdata() for line in ax.lines if line.get_marker() in "os^" and line.get_linestyle() == "None"
    ]
    for stage, x in zip(quick_archive.stages, points, strict=True):
        assert np.allclose(x, 100 * quick_archive.accuracy(stage))
    above = ax.child_axes[0]
    teacher = 100 * quick_archive.teacher_accuracy
    FigureCanvasAgg(ax.figure).draw()
    assert np.allclose(sorted(above.get_xlim()), sorted(teacher - x for x in ax.get_xlim()))


def test_costs_are_those_of_the_ledger(quick_archive: Archive) -> None:
    ax = plot.against(quick_archive, "seconds")
    drawn = {line.get_label(): line.get_xdata() for line in ax.lines if not line.get_label().startswith("_")}
    for stage in quick_archive.stages:
        assert np.allclose(drawn[stage], 1e3 * quick_archive.cost("seconds", stage))
    assert "(ms)" in ax.get_xlabel()
    low, _ = ax.get_ylim()
    assert low < 100 * quick_archive["trial/accuracy"].min()  # shifted points are within the limits too
    with pytest.raises(InputError, match="did you mean 'array_reads'"):
        plot.against(quick_archive, "array_read")


def test_one_colour_per_strategy_everywhere(quick_archive: Archive) -> None:
    for draw in (plot.against, plot.layers, plot.pareto):
        for line in draw(quick_archive).lines:
            label = re.sub(r"^\d+ ", "", line.get_label())
            if label in KNOWN:
                assert line.get_color() == KNOWN[label]
    names = ["mapped", "default", *(f"own.{n}" for n in range(25))]
    assert len(set(plot.colors(names).values())) == len(names)


def test_quantiles_of_a_histogram() -> None:
    edges = np.arange(0.0, 11.0)
    counts = np.zeros(10, dtype=np.int64)
    counts[2:6] = 25  # uniform from 2 to 6
    for share, wanted in ((0.01, 2.04), (0.25, 3.0), (0.5, 4.0), (0.9, 5.6)):
        assert _quantiles(counts, edges, share) == (pytest.approx(wanted), False)
    counts[9] = 900  # nine tenths of the cells lie above the recorded range
    assert _quantiles(counts, edges, 0.99)[1]


def test_pareto_joins_what_nothing_beats(quick_archive: Archive) -> None:
    ax = plot.pareto(quick_archive, "array_reads")
    front = next(line for line in ax.lines if line.get_drawstyle() == "steps-post")
    means = {stage: 100 * quick_archive.accuracy(stage).mean() for stage in quick_archive.stages}
    assert np.allclose(front.get_ydata(), [means["mapped"], means["lsq.affine"]])  # batch_norm costs the same


def test_studies_over_their_axes(quick_archive: Archive) -> None:
    points = {f"{r}, {kind}": {"r_word": r, "kind": kind} for r in (5.0, 1.0) for kind in ("a", "b")}
    study = Study(Path("x.h5"), dict.fromkeys(points, quick_archive), points)
    ax = plot.over_axis(study, "r_word")
    assert ax.get_xlabel() == "r_word (ohm)"
    assert ax.lines[0].get_xdata().tolist() == [1.0, 5.0]
    assert_legible(ax.figure)
    assert_legible(plot.over_axis(study, "kind").figure)
    heat = plot.study_map(study, "r_word", "kind", "mapped")
    assert np.allclose(heat.images[0].get_array(), 100 * quick_archive.accuracy("mapped").mean())
    with pytest.raises(InputError, match="no stage"):
        plot.study_map(study, "r_word", "kind", "none")


def test_arrays_and_chips() -> None:
    rng = np.random.default_rng(0)
    g, v = rng.uniform(2e-6, 4e-5, (6, 5)), np.array([[0.2, 0, 0, 0, 0, 0]])
    floating = np.array([False, True, True, True, True, True])
    solution = solve_crossbar(g, v, r_word=2.5, r_bit=2.5, float_word=floating)
    ax = plot.sneak_paths(solution, 0, 3)
    share = 100 * solution.i_cell[0, 0, 3] / solution.i_out[0, 3]
    assert f"{share:.1f} %" in ax.get_title()
    assert_legible(ax.figure)
    error = plot.heat_map(solution.i_cell[0] - v[0][:, None] * g, "error")
    image = error.images[0]
    assert image.norm.vmin == -image.norm.vmax  # white is zero
    with pytest.raises(InputError, match=r"no cell \(6, 0\)"):
        plot.sneak_paths(solution, 6, 0)
    chip = SimulatedChip(ChipConfig(), {"fc": (300, 40)}, seed=0, chip=0)
    assert_legible(plot.map_figure(chip.map))


def test_files_have_fonts_that_journals_take(quick_archive: Archive, tmp_path: Path) -> None:
    for path in (plot.save(plot.layers(quick_archive), tmp_path / "a.pdf"), tmp_path / "b.pdf"):
        if path.stem == "b":
            plot.layers(quick_archive).figure.savefig(path)
        data = path.read_bytes()
        assert b"/FontType 42" in data or b"/CIDFontType2" in data
        assert b"/Type3" not in data
