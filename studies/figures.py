"""Figures of the studies from the committed archives.

python -m studies.figures                      # into docs/figures, as PNG
python -m studies.figures --out FOLDER --pdf   # as PDF with embedded TrueType fonts, for a paper
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from finetune.study.archive import Archive, Study, open_study
from finetune.study.statistics import compare_images, spread
from studies.beside import PERCENT, members, per_cell
from studies.claims import COLUMNS, TUNED, conditions, right

HERE = Path(__file__).resolve().parent
LABELS = {"mapped": "mapped once", "batch_norm": "batch norm", "lsq.affine": "affine", "default": "tuned"}
COLORS = {"mapped": "#777777", "batch_norm": "#E69F00", "lsq.affine": "#0072B2", "default": "#009E73"}
MARKERS = {"mapped": "o", "batch_norm": "s", "lsq.affine": "^", "default": "D"}


def sigma_figure(study: Study) -> Figure:
    """Gap to the digital network against the strength of errors, 95 % interval of the mean as a band."""
    figure = Figure(figsize=(6.8, 3.1), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (law, unit) in zip(
        axes, (("lognormal", "std of ln G"), ("additive", "std of G / g_max (%)")), strict=True
    ):
        found = sorted(
            ((where["sigma"], archive) for archive, where in members(study) if where["law"] == law),
            key=lambda item: float(item[0]),
        )
        x = np.array([sigma for sigma, _ in found]) * (PERCENT if law == "additive" else 1.0)
        for stage in LABELS:
            gaps = [spread(PERCENT * (a.teacher_accuracy - a.accuracy(stage))) for _, a in found]
            axis.fill_between(
                x,
                [max(g.low, 0.01) for g in gaps],
                [max(g.high, 0.01) for g in gaps],
                color=COLORS[stage],
                alpha=0.2,
                linewidth=0,
            )
            axis.plot(
                x,
                [g.mean for g in gaps],
                MARKERS[stage] + "-",
                color=COLORS[stage],
                markersize=4,
                label=LABELS[stage],
            )
        axis.set_yscale("log")
        axis.set_xlabel(f"programming error, {law}: {unit}")
    axes[0].set_ylabel("gap to the digital network (points)")
    axes[0].legend(frameon=False)
    return _plain(figure)


def margins_figure(study: Study) -> Figure:
    """Tuned plain network less the best robustly trained rival, with intervals; the claimed 3 points."""
    found = [condition for condition in conditions(study.path) if condition.rivals]
    figure = Figure(figsize=(6.8, 0.9 + 0.75 * len(found)), layout="constrained")
    axis = figure.subplots()
    labels, y = [], 0.0
    for condition in found:
        ours = right(condition.plain, TUNED)
        for column, stage in COLUMNS.items():
            _, best = max(condition.rivals.items(), key=lambda item: float(item[1].accuracy(stage).mean()))
            gain = compare_images(ours, right(best, stage))
            axis.errorbar(
                PERCENT * gain.mean,
                -y,
                xerr=[[PERCENT * (gain.mean - gain.low)], [PERCENT * (gain.high - gain.mean)]],
                fmt=MARKERS[stage],
                color=COLORS[stage],
                capsize=3,
            )
            labels.append((-y, f"{condition.label}: rival, {column}"))
            y += 1.0
        y += 0.5
    axis.axvline(3.0, color="black", linestyle="--", linewidth=1)
    axis.annotate("claimed", (3.0, 0.6), ha="center", va="bottom", fontsize=8, annotation_clip=False)
    axis.set_yticks([at for at, _ in labels], [text for _, text in labels])
    axis.set_xlim(left=0)
    axis.set_xlabel("tuned less best rival (points)")
    return _plain(figure)


def write_verify_figure(study: Study) -> Figure:
    """Gap against pulses per cell: precise programming and tuning."""
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axis = figure.subplots()
    for stage in ("mapped", "lsq.affine", "default"):
        points = sorted(
            (
                per_cell(archive, "pulses", stage),
                PERCENT * float((archive.teacher_accuracy - archive.accuracy(stage)).mean()),
            )
            for archive, _ in members(study)
        )
        axis.plot(*zip(*points, strict=True), MARKERS[stage] + "-", color=COLORS[stage], markersize=4,
                  label=f"write-verify, {LABELS[stage]}")  # fmt: skip
    claims = HERE / "archives" / "claims.h5"
    for condition in conditions(claims) if claims.exists() else []:
        if condition.label == "LeNet-5, lognormal 0.3":
            archive: Archive = condition.plain
            gap = PERCENT * float((archive.teacher_accuracy - archive.accuracy(TUNED)).mean())
            axis.plot(per_cell(archive, "pulses", TUNED), gap, "*", color="#D55E00", markersize=12,
                      label="one pulse a write, tuned")  # fmt: skip
    axis.set_yscale("log")
    axis.set_xscale("log")
    axis.set_xticks([0.5, 1, 2, 5], ["0.5", "1", "2", "5"])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("pulses per cell, mapping included")
    axis.set_ylabel("gap to the digital network (points)")
    axis.legend(frameon=False, fontsize=8)
    return _plain(figure)


def levels_figure(study: Study) -> Figure:
    """Gap of the tuned network over levels and on/off ratio."""
    found = {
        (int(where["n_levels"]), float(where["on_off_ratio"])): PERCENT
        * float((archive.teacher_accuracy - archive.accuracy(TUNED)).mean())
        for archive, where in members(study)
    }
    levels, ratios = sorted({n for n, _ in found}), sorted({ratio for _, ratio in found})
    gaps = np.array([[found.get((n, ratio), np.nan) for ratio in ratios] for n in levels])
    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(gaps, origin="lower", aspect="auto", cmap="cividis_r", norm="log")
    middle = float(np.sqrt(np.nanmin(gaps) * np.nanmax(gaps)))
    for (row, column), gap in np.ndenumerate(gaps):
        axis.text(
            column, row, f"{gap:.2f}", ha="center", va="center", color="white" if gap > middle else "black"
        )
    axis.set_xticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios])
    axis.set_yticks(range(len(levels)), [str(n) for n in levels])
    axis.set_xlabel("on/off ratio")
    axis.set_ylabel("levels of a cell")
    figure.colorbar(image, ax=axis, label="gap of the tuned network (points)")
    return figure


def retention_figure(study: Study) -> Figure:
    """Gap over time at rest; dashed: left alone, solid: corrected at each visit."""
    ages = np.array([1.0, 3600.0, 86400.0, 2592000.0])
    rows = members(study)
    figure = Figure(figsize=(6.8, 2.9), layout="constrained")
    axes = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
    for axis, (archive, where) in zip(axes, rows, strict=True):
        for method in ("mapped", "lsq.affine", "default"):
            for suffix, style in (("", "--"), (" maintained", "-")):
                stages = [f"{method} + {age:g} s{suffix}" for age in ages]
                if not set(stages) <= set(archive.stages):
                    continue
                gaps = [
                    PERCENT * float((archive.teacher_accuracy - archive.accuracy(s)).mean()) for s in stages
                ]
                label = f"{LABELS[method]}, {'affine at each visit' if suffix else 'left alone'}"
                axis.plot(
                    ages, gaps, style, color=COLORS[method], marker=MARKERS[method], markersize=4, label=label
                )
        axis.set_xscale("log")
        axis.set_yscale("symlog", linthresh=0.3)
        axis.set_title(str(where["preset"]), fontsize=9)
        axis.set_xticks(ages, ["1 s", "1 h", "1 d", "30 d"])
        axis.set_xlabel("time at rest")
    axes[0].set_ylabel("gap (points)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=7, loc="outside lower center", ncols=3)
    return _plain(figure)


FIGURES: dict[str, tuple[str, Callable[[Study], Any]]] = {  # file: archive, drawing
    "sigma": ("sigma", sigma_figure),
    "margins": ("claims", margins_figure),
    "write_verify": ("write_verify", write_verify_figure),
    "levels": ("levels", levels_figure),
    "retention": ("retention", retention_figure),
}


def _plain(figure: Figure) -> Figure:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(linewidth=0.3, alpha=0.6)
    return figure


def draw(folder: Path, suffix: str = "png", archives: Path = HERE / "archives") -> list[Path]:
    """Draw every figure whose archive is there; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, (archive, drawing) in FIGURES.items():
        if (archives / f"{archive}.h5").exists():
            paths.append(folder / f"{name}.{suffix}")
            save(drawing(open_study(archives / f"{archive}.h5")), paths[-1])
    return paths


def save(figure: Figure, path: Path) -> None:
    """Write a figure; PDF keeps its letters as TrueType fonts."""
    with mpl.rc_context({"pdf.fonttype": 42}):
        figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "figures")
    parser.add_argument("--pdf", action="store_true")
    parser.add_argument(
        "--claims", type=Path, help="draw the margins of this archive alone, such as that of make study-quick"
    )
    arguments = parser.parse_args()
    suffix = "pdf" if arguments.pdf else "png"
    if arguments.claims is None:
        paths = draw(arguments.out, suffix)
    else:
        arguments.out.mkdir(parents=True, exist_ok=True)
        paths = [arguments.out / f"margins.{suffix}"]
        save(margins_figure(open_study(arguments.claims)), paths[0])
    for path in paths:
        print(path)


if __name__ == "__main__":
    main()
