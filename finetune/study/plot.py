"""Figures that every run draws, composed of the functions of `rramsim.plot` (matplotlib is loaded late)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.study import plot_archive
from finetune.study.analysis import stage_summaries
from finetune.study.archive import Archive, split_stage
from finetune.study.plot_archive import ages_of
from finetune.study.plot_style import COLUMN, colors, figure, styled
from finetune.study.statistics import LEAST_FOR_INTERVAL
from rramsim.checks import InputError

__all__ = [
    "FIGURES",
    "accuracy_figure",
    "confusion_figure",
    "draw_figures",
    "drawable",
    "history_figure",
    "layers_figure",
    "levels_figure",
    "lifetime_figure",
    "methods_figure",
    "recovery_figure",
]

PERCENT = 100.0


def _finish(drawn: Any, path: str | Path | None) -> Any:
    if path is not None:
        drawn.savefig(path)
    return drawn


def _need_trials(archive: Archive) -> None:
    if archive.n_trials == 0:
        raise InputError(f"{archive.path}: has no complete trial yet; `rramsim run` continues it")


def accuracy_figure(archive: Archive, path: str | Path | None = None) -> Any:
    """`rramsim.plot.accuracy` as a figure.

    Parameters
    ----------
    archive : Archive
        Of one experiment.
    path : path, optional
        File to save to.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> from finetune import open_archive
    >>> accuracy_figure(open_archive("results/quick.h5"), "accuracy.pdf")  # doctest: +SKIP
    """
    return _finish(plot_archive.accuracy(archive).figure, path)


@styled
def recovery_figure(archive: Archive, path: str | Path | None = None) -> Any:
    """What recovery costs: accuracy against reads, writes, energy and time, every chip a point.

    Parameters
    ----------
    archive, path
        As for `accuracy_figure`.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> from finetune import open_archive
    >>> recovery_figure(open_archive("results/quick.h5"), "recovery.pdf")  # doctest: +SKIP
    """
    _need_trials(archive)
    spent = {cost: np.asarray(archive.get(f"ledger/{cost}", 0.0)) for cost in ("joules", "seconds")}
    billed = [cost for cost, found in spent.items() if np.isfinite(found).all() and found.any()]
    costs = ["array_reads", "writes_per_cell", *billed]
    drawn = figure(2 * COLUMN, 2.4 * ((len(costs) + 1) // 2) + 0.5)
    axes = drawn.subplots((len(costs) + 1) // 2, 2, squeeze=False).ravel()
    for axis, cost in zip(axes, costs, strict=False):
        plot_archive.against(archive, cost, axis, legend=False)
    for axis in axes[len(costs) :]:
        axis.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))
    return _finish(drawn, path)


def levels_figure(archive: Archive, path: str | Path | None = None, *, layer: str | None = None) -> Any:
    """`rramsim.plot.levels` as a figure.

    Parameters
    ----------
    archive, path
        As for `accuracy_figure`.
    layer : str, optional
        Layer of the chip; the largest by default.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> from finetune import open_archive
    >>> levels_figure(open_archive("results/quick.h5"), layer="conv1")  # doctest: +SKIP
    """
    return _finish(plot_archive.levels(archive, layer).figure, path)


@styled
def confusion_figure(archive: Archive, path: str | Path | None = None, *, stage: str | None = None) -> Any:
    """Confusion after mapping and after a strategy, side by side.

    Parameters
    ----------
    archive, path
        As for `accuracy_figure`.
    stage : str, optional
        Default: the best one apart from `mapped`.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> from finetune import open_archive
    >>> confusion_figure(open_archive("results/quick.h5"), stage="lsq.affine")  # doctest: +SKIP
    """
    _need_trials(archive)
    means = archive["trial/accuracy"].mean(axis=0)
    if stage is None and len(archive.stages) > 1:
        stage = archive.stages[1 + int(np.argmax(means[1:]))]
    stages = list(dict.fromkeys(("mapped", stage or "mapped")))
    drawn = figure(COLUMN * len(stages) + 0.4, 3.6)
    for axis, name in zip(drawn.subplots(1, len(stages), squeeze=False)[0], stages, strict=True):
        plot_archive.confusion(archive, name, axis)
    return _finish(drawn, path)


def layers_figure(archive: Archive, path: str | Path | None = None) -> Any:
    """`rramsim.plot.layers` as a figure.

    Parameters
    ----------
    archive, path
        As for `accuracy_figure`.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> from finetune import open_archive
    >>> layers_figure(open_archive("results/quick.h5"))  # doctest: +SKIP
    """
    return _finish(plot_archive.layers(archive).figure, path)


def history_figure(archive: Archive, path: str | Path | None = None) -> Any:
    """`rramsim.plot.history` as a figure.

    Parameters
    ----------
    archive, path
        As for `accuracy_figure`.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> from finetune import open_archive
    >>> history_figure(open_archive("results/quick.h5"))  # doctest: +SKIP
    """
    return _finish(plot_archive.history(archive).figure, path)


@styled
def lifetime_figure(archive: Archive, path: str | Path | None = None) -> Any:
    """`rramsim.plot.retention` for reads and for time, side by side where the archive has both.

    Parameters
    ----------
    archive, path
        As for `accuracy_figure`.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> from finetune import open_archive
    >>> lifetime_figure(open_archive("results/lifetime.h5"))  # doctest: +SKIP
    """
    _need_trials(archive)
    units = [unit for unit in ("reads", "s") if unit in {row[1] for row in ages_of(archive)}]
    if len(units) < 2:
        return _finish(plot_archive.retention(archive).figure, path)
    drawn = figure(2 * COLUMN, 3.2)
    axes = drawn.subplots(1, 2)
    for axis, unit in zip(axes, units, strict=True):
        plot_archive.retention(archive, unit, axis, legend=False)
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))
    return _finish(drawn, path)


@styled
def methods_figure(archive: Archive, path: str | Path | None = None) -> Any:
    """All methods in one: gap to the digital network with its 95 % interval, and the recovery over steps.

    Methods are numbered by their gap; a line on the right ends at its method's number.

    Parameters
    ----------
    archive, path
        As for `accuracy_figure`.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> from finetune import open_archive
    >>> methods_figure(open_archive("results/methods.h5"))  # doctest: +SKIP
    """
    _need_trials(archive)

    gaps = {row.stage: row.gap for row in stage_summaries(archive) if not split_stage(row.stage)[1]}
    stages = list(gaps)
    stages.sort(key=lambda stage: gaps[stage].mean)
    palette = colors(list(dict.fromkeys(split_stage(stage)[0] for stage in archive.stages)))
    shades = [palette[stage] for stage in stages]
    n_images = int(archive.attributes["n_checkpoint_images"])
    drawn = figure(2.6 * COLUMN if n_images else 1.4 * COLUMN, 1.2 + 0.2 * len(stages))
    axes = drawn.subplots(1, 2 if n_images else 1, squeeze=False)
    left = axes[0, 0]
    for rank, stage in enumerate(stages):
        gap = gaps[stage]
        if archive.n_trials >= LEAST_FOR_INTERVAL:
            left.plot([gap.low, gap.high], [rank, rank], color=shades[rank], linewidth=2)
        left.plot(gap.mean, rank, "o", color=shades[rank], markersize=5)
    left.set_yticks(range(len(stages)), [f"{stage}  {rank + 1}" for rank, stage in enumerate(stages)],
                    fontsize=7.5)  # fmt: skip
    left.invert_yaxis()
    positive = float(np.nanmin([[gap.low, gap.mean] for gap in gaps.values()])) > 0.0
    left.set_xscale("log" if positive else "symlog", **({} if positive else {"linthresh": 0.1}))
    left.grid(axis="x", linewidth=0.4)
    left.set_xlabel("gap to the digital network (points)")
    interval = " and 95 % interval" if archive.n_trials >= LEAST_FOR_INTERVAL else ""
    left.set_title(f"mean of {archive.n_trials} chips{interval}", fontsize=8.5)
    if n_images:
        _draw_paths(archive, axes[0, 1], stages, shades)
        axes[0, 1].set_title(f"recovery over steps, first {n_images:,} test images", fontsize=8.5)
    return _finish(drawn, path)


def _draw_paths(archive: Archive, axis: Any, stages: list[str], shades: list[str]) -> None:
    """Median accuracy over chips at each checkpoint of every stage, numbered in the order given."""
    ends: list[tuple[float, int]] = []
    longest: list[str] = []
    start = 100.0
    for rank, stage in enumerate(stages):
        labels, accuracy = _median_path(archive, archive.stages.index(stage))
        if not labels:
            continue
        axis.plot(range(len(labels)), accuracy, "-", color=shades[rank], linewidth=1.1, marker=".")
        ends.append((float(accuracy[-1]), rank))
        longest = max(longest, labels, key=len)
        if accuracy[0] > 100.0 / archive["teacher/outputs"].shape[1] + 10.0:  # a mapped chip, not a reset one
            start = min(start, float(accuracy[0]))
    top = archive.teacher_accuracy * PERCENT
    low = min(start, top - 5.0) - 1.0
    place = np.inf
    for end, rank in sorted(ends, reverse=True):  # numbers beside the ends of lines, but not on each other
        place = min(end, place - 0.023 * (top - low))
        axis.annotate(str(rank + 1), (len(longest) - 1, end), xytext=(len(longest) - 0.7, place), fontsize=7,
                      va="center", color=shades[rank],
                      arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": shades[rank]})  # fmt: skip
    axis.axhline(top, color="black", linestyle="--", linewidth=1)
    axis.set_ylim(low, top + 0.04 * (top - low))
    axis.set_xlim(-0.2, len(longest) - 0.4)
    axis.set_xticks(range(len(longest)), longest, fontsize=8)
    axis.set_xlabel("after the layer")
    axis.set_ylabel("accuracy at checkpoints, median over chips (%)")


def _median_path(archive: Archive, stage: int) -> tuple[list[str], NDArray[np.float64]]:
    """Labels of a stage's checkpoints and the median accuracy (%) over chips at each; empty without any."""
    mine = [archive["checkpoint/stage"][trial] == stage for trial in range(archive.n_trials)]
    n = min(int(rows.sum()) for rows in mine)
    accuracy = [archive["checkpoint/accuracy"][trial, rows][:n] for trial, rows in enumerate(mine)]
    labels = [str(label) for label in archive["checkpoint/label"][0, mine[0]][:n]]
    return labels, np.median(accuracy, axis=0) * PERCENT


FIGURES: dict[str, Callable[..., Any]] = {
    "accuracy": accuracy_figure,
    "recovery": recovery_figure,
    "levels": levels_figure,
    "confusion": confusion_figure,
    "layers": layers_figure,
    "history": history_figure,
    "methods": methods_figure,
    "lifetime": lifetime_figure,
}


def drawable(archive: Archive, name: str) -> bool:
    """Whether an archive holds what the figure `name` of `FIGURES` shows."""
    if name == "history":
        return bool(np.any((archive["history/quantity"] == "error") & (archive["history/value"] > 0)))
    if name == "layers":
        return not np.isnan(archive["trial/layer_error"]).all()
    return name != "lifetime" or bool(ages_of(archive))


def draw_figures(archive: Archive, folder: str | Path) -> list[Path]:
    """Write every figure the archive has data for as PNG into `folder`.

    Parameters
    ----------
    archive : Archive
        Of one experiment.
    folder : path
        Made where it is absent.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        If no trial is complete or the folder cannot be made.

    Examples
    --------
    >>> from finetune import open_archive
    >>> draw_figures(open_archive("results/quick.h5"), "figures")  # doctest: +SKIP
    """
    _need_trials(archive)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror})") from None
    paths = []
    for name, draw in FIGURES.items():
        if drawable(archive, name):
            draw(archive, folder / f"{name}.png")
            paths.append(folder / f"{name}.png")
    return paths
