"""Figures of a study: accuracy against what was swept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from finetune.study.archive import Study, split_stage
from finetune.study.config import ExperimentConfig
from finetune.study.plot_style import MARKERS, axes, colors, styled, wrapped
from finetune.study.statistics import spread
from rramsim.checks import InputError, nearest_name
from rramsim.config import describe

__all__ = ["axis_figure", "draw_study", "heat_map", "over_axis", "study_figures", "study_map"]

DASHES = ("-", "--", "-.", ":")  # of a method's ages

PERCENT = 100.0


def draw_study(study: Study, folder: str | Path) -> list[Path]:
    """A figure for each swept axis, and a heat map for each pair of axes with several values.

    Raises
    ------
    InputError
        If no condition has a complete trial, or the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for axis, second in _pairs(study):
            name = f"map_{axis}_{second}.png" if second else f"accuracy_{axis}.png"
            paths.append(folder / name)
            if second:
                heat_map(study, axis, second, paths[-1])
            else:
                axis_figure(study, axis, paths[-1])
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from None
    return paths


def _pairs(study: Study) -> list[tuple[str, str]]:
    """Axes with several values, then pairs of them."""
    swept = [axis for axis in study.axes if len(_values(study, axis)) > 1]
    pairs = [(a, b) for k, a in enumerate(swept) for b in swept[k + 1 :]]
    return [*((axis, "") for axis in swept), *pairs]


def study_figures(study: Study) -> list[tuple[str, Any]]:
    """Caption and figure of every swept axis, and of every pair of them."""
    found = []
    for axis, second in _pairs(study):
        if second:
            stage = _stages(study)[-1]
            caption = f"Mean accuracy of {stage} over {axis} and {second}."
            found.append((caption, heat_map(study, axis, second)))
        else:
            found.append((f"Accuracy against {axis}.", axis_figure(study, axis)))
    return found


@styled
def over_axis(study: Study, axis: str, ax: Any = None) -> Any:
    """Accuracy of every stage against one swept axis; bands are 95 % intervals of the mean over chips.

    Parameters
    ----------
    study : Study
        Of a sweep.
    axis : str
        What was swept, one of `study.axes`. Conditions that share a value of it are averaged chip by chip.
    ax : matplotlib Axes, optional
        Where to draw; a new figure without it.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        If the axis is unknown.

    Examples
    --------
    >>> from finetune.study.archive import open_study
    >>> from rramsim import plot
    >>> plot.over_axis(open_study("results/ir_drop.h5"), "r_word")  # doctest: +SKIP
    """
    values, stages = _values(study, axis), _stages(study)
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    x = np.array(values, dtype=float) if numeric else np.arange(len(values), dtype=float)
    ax = axes(ax, height=3.1)
    methods = list(dict.fromkeys(split_stage(stage)[0] for stage in stages))
    palette, seen = colors(methods), dict.fromkeys(methods, 0)
    for order, stage in enumerate(stages):
        method = split_stage(stage)[0]
        dashes = DASHES[seen[method] % len(DASHES)]
        seen[method] += 1
        found = [_accuracies(study, stage, {axis: value}) for value in values]
        known = [k for k, numbers in enumerate(found) if numbers]
        over = [spread(PERCENT * np.array(found[k])) for k in known]
        marker = MARKERS[methods.index(method) % len(MARKERS)]
        mean, low, high = (np.array([getattr(s, name) for s in over]) for name in ("mean", "low", "high"))
        look = {"marker": marker, "color": palette[method], "label": wrapped(stage, 30)}
        if numeric:
            ax.plot(x[known], mean, linestyle=dashes, **look)
            ax.fill_between(x[known], low, high, alpha=0.2, color=palette[method], linewidth=0)
        else:  # names have no order that a line could follow
            place = x[known] + 0.5 * ((order + 0.5) / len(stages) - 0.5)
            bars = np.nan_to_num(np.stack([mean - low, high - mean]))
            ax.errorbar(place, mean, bars, linestyle="", elinewidth=0.8, **look)
    if numeric and min(x) > 0 and max(x) / min(x) > 30:
        ax.set_xscale("log")
    elif numeric and len(x) <= 7:
        ax.set_xticks(x, [f"{value:g}" for value in x])
    if not numeric:
        ax.set_xticks(x, [_short(value) for value in values], rotation=25, ha="right")
    ax.set_xlabel(labelled(axis))
    ax.set_ylabel("accuracy (%), mean over chips")
    handles, labels = ax.get_legend_handles_labels()
    columns = 1 if max(map(len, labels)) > 20 else 2
    ax.figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    return ax


@styled
def study_map(study: Study, first: str, second: str, stage: str = "", ax: Any = None) -> Any:
    """Mean accuracy of a stage over two swept axes, as a heat map.

    Parameters
    ----------
    study : Study
        Of a sweep.
    first, second : str
        Axes along x and y.
    stage : str
        Default: the last stage.
    ax : matplotlib Axes, optional
        Where to draw; a new figure without it.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        If an axis or the stage is unknown.

    Examples
    --------
    >>> from finetune.study.archive import open_study
    >>> from rramsim import plot
    >>> plot.study_map(open_study("results/lifetime.h5"), "v_read", "cycles_before")  # doctest: +SKIP
    """
    rows, columns, stages = _values(study, second), _values(study, first), _stages(study)
    stage = stage or stages[-1]
    if stage not in stages:
        raise InputError(f"{study.path}: no stage {stage!r}; {nearest_name(stage, stages)}")
    means = np.full((len(rows), len(columns)), np.nan)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            numbers = _accuracies(study, stage, {first: column, second: row})
            if numbers:
                means[i, j] = PERCENT * float(np.mean(numbers))
    ax = axes(ax, height=2.8)
    image = ax.imshow(means, origin="lower", aspect="auto", cmap="viridis")
    middle = 0.5 * (np.nanmin(means) + np.nanmax(means)) if np.isfinite(means).any() else 0.0
    for (i, j), value in np.ndenumerate(means):
        if np.isfinite(value) and means.size <= 100:
            ax.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=6.5,
                    color="white" if value < middle else "black")  # fmt: skip
    ax.set_xticks(range(len(columns)), [_short(value) for value in columns])
    ax.set_yticks(range(len(rows)), [_short(value) for value in rows])
    ax.set(xlabel=labelled(first), ylabel=labelled(second), title=wrapped(stage, 40))
    ax.figure.colorbar(image, ax=ax, label="mean accuracy (%)")
    return ax


def _short(value: Any) -> str:
    """The end of a path or of a list, which tells it from the others."""
    text = str(value).rsplit("/", 1)[-1].removesuffix(".h5").removesuffix(".onnx")
    return text if len(text) <= 24 else f"...{text[-21:]}"


def labelled(axis: str) -> str:
    """The name of a swept setting with its unit, where the settings know one by that name alone."""
    units = {
        row.unit for row in describe(ExperimentConfig) if row.key == axis or row.key.endswith(f".{axis}")
    }
    unit = next(iter(units)) if len(units) == 1 else ""
    return f"{axis} ({unit})" if unit not in ("", "1") else axis


def axis_figure(study: Study, axis: str, path: str | Path | None = None) -> Any:
    """`over_axis` as a figure, saved where `path` is given."""
    return _saved(over_axis(study, axis).figure, path)


def heat_map(study: Study, first: str, second: str, path: str | Path | None = None) -> Any:
    """`study_map` as a figure, saved where `path` is given."""
    return _saved(study_map(study, first, second).figure, path)


def _values(study: Study, axis: str) -> list[Any]:
    if axis not in study.axes:
        raise InputError(f"{study.path}: no axis {axis!r}; swept were {', '.join(study.axes) or 'none'}")
    found = {str(values[axis]): values[axis] for values in study.coordinates.values() if axis in values}
    values = list(found.values())
    numeric = all(isinstance(value, int | float) for value in values)
    return sorted(values) if numeric else values


def _stages(study: Study) -> list[str]:
    return list(dict.fromkeys(stage for archive in study.values() for stage in archive.stages))


def _accuracies(study: Study, stage: str, where: dict[str, Any]) -> list[float]:
    """One accuracy per chip: the mean over the conditions that agree with `where`."""
    by_chip: dict[int, list[float]] = {}
    for label, archive in study.items():
        own = study.coordinates[label]
        if all(own.get(axis) == value for axis, value in where.items()) and stage in archive.stages:
            pairs = zip(archive["trial/chip"].tolist(), archive.accuracy(stage).tolist(), strict=True)
            for chip, accuracy in pairs:
                by_chip.setdefault(chip, []).append(accuracy)
    return [float(np.mean(numbers)) for numbers in by_chip.values()]


def _saved(figure: Any, path: str | Path | None) -> Any:
    if path is not None:
        figure.savefig(path)
    return figure
