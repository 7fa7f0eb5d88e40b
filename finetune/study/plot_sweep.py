"""Figures of a study: accuracy against what was swept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from finetune.study.archive import Study
from finetune.study.statistics import spread
from rramsim.checks import InputError

__all__ = ["axis_figure", "draw_study", "heat_map"]

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
        axes = [axis for axis in study.axes if len(_values(study, axis)) > 1]
        paths = []
        for axis in axes:
            paths.append(folder / f"accuracy_{axis}.png")
            axis_figure(study, axis, paths[-1])
        for first, second in [(a, b) for k, a in enumerate(axes) for b in axes[k + 1 :]]:
            paths.append(folder / f"map_{first}_{second}.png")
            heat_map(study, first, second, paths[-1])
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from None
    return paths


def axis_figure(study: Study, axis: str, path: str | Path | None = None) -> Any:
    """Accuracy of every stage against one axis, with the 95 % interval of the mean over chips as a band.

    Conditions that share a value of the axis are averaged chip by chip.
    """
    from matplotlib.figure import Figure

    values, stages = _values(study, axis), _stages(study)
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    x = np.array(values, dtype=float) if numeric else np.arange(len(values), dtype=float)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    plot = figure.add_subplot()
    for stage in stages:
        found = [_accuracies(study, stage, {axis: value}) for value in values]
        known = [k for k, numbers in enumerate(found) if numbers]
        over = [spread(PERCENT * np.array(found[k])) for k in known]
        line = plot.plot(x[known], [s.mean for s in over], "o-", markersize=4, linewidth=1.2, label=stage)[0]
        plot.fill_between(
            x[known],
            [s.low for s in over],
            [s.high for s in over],
            alpha=0.2,
            color=line.get_color(),
            linewidth=0,
        )
    if numeric and min(x) > 0 and max(x) / min(x) > 30:
        plot.set_xscale("log")
    if not numeric:
        plot.set_xticks(x, [str(value)[:24] for value in values], rotation=20, ha="right", fontsize=8)
    plot.set_xlabel(axis)
    plot.set_ylabel("accuracy (%)")
    plot.grid(linewidth=0.4)
    plot.legend(fontsize=7.5)
    return _saved(figure, path)


def heat_map(study: Study, first: str, second: str, path: str | Path | None = None) -> Any:
    """Mean accuracy of the last stage over two axes."""
    from matplotlib.figure import Figure

    rows, columns, stage = _values(study, second), _values(study, first), _stages(study)[-1]
    means = np.full((len(rows), len(columns)), np.nan)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            numbers = _accuracies(study, stage, {first: column, second: row})
            if numbers:
                means[i, j] = PERCENT * float(np.mean(numbers))
    figure = Figure(figsize=(6.0, 4.6), layout="constrained")
    plot = figure.add_subplot()
    image = plot.imshow(means, origin="lower", aspect="auto", cmap="viridis")
    for (i, j), value in np.ndenumerate(means):
        if np.isfinite(value) and means.size <= 144:
            light = value < np.nanmean(means)
            plot.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=7, color="w" if light else "k")
    plot.set_xticks(range(len(columns)), [str(value)[:16] for value in columns], fontsize=8)
    plot.set_yticks(range(len(rows)), [str(value)[:16] for value in rows], fontsize=8)
    plot.set_xlabel(first)
    plot.set_ylabel(second)
    plot.set_title(f"{stage}: mean accuracy (%)", fontsize=10)
    figure.colorbar(image, ax=plot)
    return _saved(figure, path)


def _values(study: Study, axis: str) -> list[Any]:
    if axis not in study.axes:
        raise InputError(f"{study.path}: no axis {axis!r}; swept were {', '.join(study.axes) or 'none'}")
    found = {str(values[axis]): values[axis] for values in study.coordinates.values() if axis in values}
    return list(found.values())


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
        figure.savefig(path, dpi=150)
    return figure
