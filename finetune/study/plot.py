"""Figures of an archive (matplotlib is loaded when a figure is drawn)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.study.analysis import stage_summaries
from finetune.study.archive import Archive, split_stage
from finetune.study.statistics import LEAST_FOR_INTERVAL
from rramsim.checks import InputError, nearest_name

__all__ = ["FIGURES", "accuracy_figure", "confusion_figure", "draw_figures", "layers_figure", "levels_figure",
           "lifetime_figure", "methods_figure", "recovery_figure"]  # fmt: skip

# Okabe and Ito's colours, which colour-blind readers can distinguish
COLORS = ("#777777", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MICRO = 1e6
PERCENT = 100.0


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _finish(figure: Any, path: str | Path | None) -> Any:
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _need_trials(archive: Archive) -> None:
    if archive.n_trials == 0:
        raise InputError(f"{archive.path}: has no complete trial yet; `rramsim run` continues it")


def _wrapped(text: str, width: int = 18) -> str:
    """Strategy texts broken at their plus signs, so that labels stay apart."""
    lines: list[str] = []
    for part in text.split(" + "):
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += f" + {part}"
        else:
            lines.append(part if not lines else f"+ {part}")
    return "\n".join(lines)


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def _note(axis: Any, text: str, at: tuple[float, float], *, lift: float, ha: str) -> None:
    axis.annotate(text, at, xytext=(0, lift), textcoords="offset points", ha=ha, va="bottom", fontsize=8)


def accuracy_figure(archive: Archive, path: str | Path | None = None) -> Any:
    """Accuracy after each stage: every chip as a point, mean as a bar, the teacher as a line."""
    _need_trials(archive)
    stages = archive.stages
    figure, axes = _figure(max(4.5, 1.5 * len(stages) + 1.5), 3.8)
    axis = axes[0, 0]
    spread_x = np.linspace(-0.18, 0.18, archive.n_trials) if archive.n_trials > 1 else np.zeros(1)
    for index, stage in enumerate(stages):
        values = archive.accuracy(stage) * PERCENT
        axis.plot(index + spread_x, values, MARKERS[index % 8], color=_color(index), markersize=5, alpha=0.85)
        axis.hlines(values.mean(), index - 0.32, index + 0.32, color=_color(index), linewidth=2.5)
        _note(axis, f"{values.mean():.2f} %", (index, values.max()), lift=6, ha="center")
    teacher = archive.teacher_accuracy * PERCENT
    axis.axhline(teacher, color="black", linestyle="--", linewidth=1)
    _note(axis, f"digital network {teacher:.2f} %", (-0.45, teacher), lift=3, ha="left")
    low = min(teacher, float(archive["trial/accuracy"].min()) * PERCENT)
    top = teacher + 0.16 * (teacher - low) + 0.5
    axis.set_ylim(low - 0.08 * (teacher - low) - 0.3, top)
    axis.set_yticks([tick for tick in axis.get_yticks() if axis.get_ylim()[0] <= tick <= min(top, 100.0)])
    axis.set_xlim(-0.5, len(stages) - 0.5)
    axis.set_xticks(range(len(stages)), [_wrapped(stage) for stage in stages], fontsize=8)
    axis.set_ylabel("accuracy (%)")
    n_images = archive["trial/predictions"].shape[2]
    axis.set_title(
        f"{archive.n_trials} chips (points), mean (bar), {n_images:,} test images", fontsize=10, pad=14
    )
    return _finish(figure, path)


def recovery_figure(archive: Archive, path: str | Path | None = None) -> Any:
    """What recovery costs: accuracy against reads and against writes, every chip a point."""
    _need_trials(archive)
    figure, axes = _figure(8.6, 3.8, 1, 2)
    for index, stage in enumerate(archive.stages):
        accuracy = archive.accuracy(stage) * PERCENT
        reads, writes = archive.cost("array_reads", stage), archive.writes_per_cell(stage)
        for axis, cost in zip(axes[0], (reads, writes), strict=True):
            axis.plot(cost, accuracy, MARKERS[index % 8], color=_color(index), alpha=0.85, linestyle="",
                      label=_wrapped(stage, 34))  # fmt: skip
    _draw_checkpoints(archive, axes[0])
    for axis in axes[0]:
        axis.axhline(archive.teacher_accuracy * PERCENT, color="black", linestyle="--", linewidth=1)
        axis.set_ylabel("accuracy (%)")
    most = max(float(archive["ledger/array_reads"].sum(axis=2).max()), 1e3)
    axes[0, 0].set_xscale("symlog", linthresh=most / 1e3, linscale=0.3)
    axes[0, 0].set_xlim(-most / 4e3, 2.5 * most)
    axes[0, 0].set_xlabel("array reads of the tuning (tile x phase x bit)")
    axes[0, 1].set_xlabel("writes per cell, mapping included")
    axes[0, 1].margins(x=0.15)
    axes[0, 1].set_xlim(left=0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, fontsize=8, frameon=False, loc="outside lower center", ncols=min(4, len(labels))
    )
    axes[0, 0].set_title("dashed: digital network", fontsize=10)
    axes[0, 1].set_title("every point a chip", fontsize=10)
    return _finish(figure, path)


def _draw_checkpoints(archive: Archive, axes: Any) -> None:
    """Thin lines through the checkpoints of each tuning, where the run recorded any."""
    per_vector = archive["ledger/array_reads"].sum(axis=2) / np.maximum(
        archive["ledger/vectors"].sum(axis=2), 1
    )
    n_cells = archive["layers/n_cells"].sum()
    for trial in range(archive.n_trials):
        stage_of = archive["checkpoint/stage"][trial]
        for index in np.unique(stage_of[stage_of >= 0]):
            mine = stage_of == index
            accuracy = archive["checkpoint/accuracy"][trial, mine] * PERCENT
            reads = archive["checkpoint/vectors"][trial, mine] * per_vector[trial, index]
            writes = archive["checkpoint/cell_writes"][trial, mine] / n_cells
            for axis, cost in zip(axes, (reads, writes), strict=True):
                axis.plot(cost, accuracy, "-", color=_color(int(index)), linewidth=0.7, alpha=0.5)


def levels_figure(archive: Archive, path: str | Path | None = None, *, layer: str | None = None) -> Any:
    """Realised conductance of the cells of one programmed layer, by level target, over all chips."""
    _need_trials(archive)
    names = archive["layers/name"].tolist()
    layer = names[int(np.argmax(archive["layers/n_cells"]))] if layer is None else layer
    if layer not in names:
        raise InputError(f"{archive.path}: no layer {layer!r}; {nearest_name(layer, names)}")
    counts = archive["cells/histogram"][:, names.index(layer)].sum(axis=0)
    counts = counts.reshape(len(counts), -1, 2).sum(axis=2)  # pairs of bins: smoother tails
    edges = archive["cells/bin_edges"][::2] * MICRO
    figure, axes = _figure(7.4, 3.8)
    axis = axes[0, 0]
    targets = archive["cells/level_conductance"] * MICRO
    for level in np.flatnonzero(counts.sum(axis=1)):
        color = COLORS[1:6][level % 5]
        # the last bin also holds what lies above the axis
        axis.stairs(counts[level][:-1], edges[:-1], fill=True, color=color, alpha=0.35)
        axis.stairs(counts[level][:-1], edges[:-1], color=color, linewidth=1)
    axis.plot(targets, np.full(targets.size, 1.0), "|", color="black", markersize=14, markeredgewidth=1.5,
              transform=axis.get_xaxis_transform(), clip_on=False)  # fmt: skip
    axis.set_yscale("log")
    axis.set_ylim(bottom=0.7)
    axis.set_xlim(0, edges[-2])
    axis.set_xlabel("realised conductance (µS); one histogram for each level, ticks on top: targets")
    axis.set_ylabel(f"cells per {edges[1]:.2g} µS")
    total = f"{int(counts.sum()):,} cells of {archive.n_trials} chips"
    axis.set_title(f"layer {layer} after mapping: {total}", fontsize=10, pad=14)
    return _finish(figure, path)


def confusion_figure(archive: Archive, path: str | Path | None = None, *, stage: str | None = None) -> Any:
    """Confusion after mapping and after a strategy (the best one by default), over all chips."""
    _need_trials(archive)
    means = archive["trial/accuracy"].mean(axis=0)
    stage = archive.stages[int(np.argmax(means))] if stage is None else stage
    if stage == "mapped" and len(archive.stages) > 1:
        stage = archive.stages[1 + int(np.argmax(means[1:]))]
    classes = archive["classes"].tolist()
    figure, axes = _figure(10.4, 5.2, 1, 2)
    image = None
    for axis, name in zip(axes[0], ("mapped", stage), strict=True):
        share = _confusion(archive, name) * PERCENT
        image = axis.imshow(share, cmap="cividis", vmin=0, vmax=100)
        for i, j in np.ndindex(share.shape):
            if share[i, j] >= 0.5:
                color = "black" if share[i, j] > 55 else "white"
                axis.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center", fontsize=7, color=color)
        axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right", fontsize=8)
        axis.set_yticks(range(len(classes)), classes, fontsize=8)
        axis.set_xlabel("predicted class")
        axis.set_ylabel("class")
        axis.set_title(f"{name}: {archive.accuracy(name).mean() * PERCENT:.2f} % right", fontsize=10)
    figure.colorbar(image, ax=axes[0].tolist(), label="share of the class's images (%)", shrink=0.75)
    return _finish(figure, path)


def _confusion(archive: Archive, stage: str) -> NDArray[np.float64]:
    """Share of class i predicted as j, all chips together."""
    n_classes = len(archive["classes"])
    predictions = archive["trial/predictions"][:, archive.stages.index(stage)]
    labels = np.broadcast_to(archive["labels"], predictions.shape)
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (labels.ravel(), predictions.ravel()), 1.0)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)


def layers_figure(archive: Archive, path: str | Path | None = None) -> Any:
    """Error of each mapped node's outputs after each stage: where the damage is, and where it goes."""
    _need_trials(archive)
    errors = archive["trial/layer_error"]
    if np.isnan(errors).all():
        raise InputError(f"{archive.path}: holds no errors of layers (experiment.n_layer_images was 0)")
    names = archive["nodes/name"].tolist()
    figure, axes = _figure(max(5.0, 0.75 * len(names) + 2.5), 3.8)
    axis = axes[0, 0]
    place = np.arange(len(names))
    for index, stage in enumerate(archive.stages):
        for trial in range(archive.n_trials):
            axis.plot(place, errors[trial, index], "-", color=_color(index), linewidth=0.6, alpha=0.35)
        mean, style = errors[:, index].mean(axis=0), "-" + MARKERS[index % 8]
        axis.plot(place, mean, style, color=_color(index), markersize=5, label=_wrapped(stage, 34))
    axis.set_yscale("log")
    axis.set_xticks(place, names, rotation=35, ha="right", fontsize=8)
    axis.set_xlabel("layer, in network order")
    axis.set_ylabel("error power / signal power (1)")
    axis.legend(fontsize=8, frameon=False)
    axis.set_title("layer outputs against the teacher; thin: single chips", fontsize=10)
    return _finish(figure, path)


def history_figure(archive: Archive, path: str | Path | None = None) -> Any:
    """What the strategies recorded as `error` while they worked, against the vectors read so far."""
    _need_trials(archive)
    figure, axes = _figure(6.4, 3.8)
    axis = axes[0, 0]
    drawn = set()
    for trial in range(archive.n_trials):
        stage_of = archive["history/stage"][trial]
        chosen = (
            (stage_of >= 0)
            & (archive["history/quantity"][trial] == "error")
            & (archive["history/value"][trial] > 0)
        )
        for index in np.unique(stage_of[chosen]).tolist():
            mine = chosen & (stage_of == index)
            label = None if index in drawn else _wrapped(archive.stages[index], 34)
            drawn.add(index)
            axis.plot(archive["history/vectors"][trial, mine], archive["history/value"][trial, mine],
                      "-" + MARKERS[index % 8], color=_color(index), markersize=3, linewidth=0.7, alpha=0.7,
                      label=label)  # fmt: skip
    if not drawn:
        raise InputError(f"{archive.path}: no strategy recorded an error")
    axis.set_yscale("log")
    axis.set_xlabel("input vectors read by the tuning so far")
    axis.set_ylabel("residual error power / signal power (1)")
    axis.legend(fontsize=8, frameon=False)
    axis.set_title("history of the tuning: one point per layer and step, one line per chip", fontsize=10)
    return _finish(figure, path)


def methods_figure(archive: Archive, path: str | Path | None = None) -> Any:
    """All methods in one: gap to the digital network with its 95 % interval, and the recovery over steps.

    Methods are numbered by their gap; a line on the right ends at its method's number.
    """
    _need_trials(archive)
    from matplotlib import colormaps

    gaps = {row.stage: row.gap for row in stage_summaries(archive) if not split_stage(row.stage)[1]}
    stages = list(gaps)
    stages.sort(key=lambda stage: gaps[stage].mean)
    colors = colormaps["viridis"](np.linspace(0.0, 0.9, len(stages)))
    n_images = int(archive.attributes["n_checkpoint_images"])
    figure, axes = _figure(13.0 if n_images else 7.0, 1.8 + 0.27 * len(stages), 1, 2 if n_images else 1)
    left = axes[0, 0]
    for rank, stage in enumerate(stages):
        gap = gaps[stage]
        if archive.n_trials >= LEAST_FOR_INTERVAL:
            left.plot([gap.low, gap.high], [rank, rank], color=colors[rank], linewidth=2)
        left.plot(gap.mean, rank, "o", color=colors[rank], markersize=5)
    left.set_yticks(range(len(stages)), [f"{stage}  {rank + 1}" for rank, stage in enumerate(stages)],
                    fontsize=7.5)  # fmt: skip
    left.invert_yaxis()
    positive = float(np.nanmin([[gap.low, gap.mean] for gap in gaps.values()])) > 0.0
    left.set_xscale("log" if positive else "symlog", **({} if positive else {"linthresh": 0.1}))
    left.grid(axis="x", linewidth=0.4)
    left.set_xlabel("gap to the digital network (points)")
    interval = " and 95 % interval" if archive.n_trials >= LEAST_FOR_INTERVAL else ""
    left.set_title(f"mean of {archive.n_trials} chips{interval}", fontsize=10)
    if n_images:
        _draw_paths(archive, axes[0, 1], stages, colors)
        axes[0, 1].set_title(f"recovery over steps, first {n_images:,} test images", fontsize=10)
    return _finish(figure, path)


def _draw_paths(archive: Archive, axis: Any, stages: list[str], colors: Any) -> None:
    """Median accuracy over chips at each checkpoint of every stage, numbered in the order given."""
    ends: list[tuple[float, int]] = []
    longest: list[str] = []
    start = 100.0
    for rank, stage in enumerate(stages):
        labels, accuracy = _median_path(archive, archive.stages.index(stage))
        if not labels:
            continue
        axis.plot(range(len(labels)), accuracy, "-", color=colors[rank], linewidth=1.1, marker=".")
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
                      va="center", color=colors[rank],
                      arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": colors[rank]})  # fmt: skip
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


def lifetime_figure(archive: Archive, path: str | Path | None = None) -> Any:
    """Accuracy of every method against reads and against retention time, with and without maintenance.

    Thin lines are single chips, thick ones their mean; dashed where the chip was maintained at every age.
    """
    _need_trials(archive)
    ages = _ages(archive)
    units = [unit for unit in ("reads", "s") if unit in {unit for _, unit, _, _ in ages}]
    if not units:
        raise InputError(f"{archive.path}: holds no ages; set lifetime.reads or lifetime.seconds")
    figure, axes = _figure(5.4 * len(units), 4.0, 1, len(units))
    methods = list(dict.fromkeys(split_stage(stage)[0] for stage in archive.stages))
    labels = {"reads": "reads of every layer since tuning", "s": "time since tuning (s)"}
    for axis, unit in zip(axes[0], units, strict=True):
        for (method, kind, maintained), rows in itertools.groupby(ages, key=lambda row: (row[3], *row[1:3])):
            if kind != unit:
                continue
            mine = list(rows)
            place = np.array([age for age, *_ in mine])
            names = [_stage_at(method, age, unit, maintained) for age in place]
            values = PERCENT * np.array([archive.accuracy(name) for name in names])
            fresh = PERCENT * archive.accuracy(method)
            place = np.concatenate([[place[0] / 10.0], place])  # fresh chips, a decade before the first age
            values = np.concatenate([fresh[None], values])
            color, style = _color(methods.index(method)), "--" if maintained else "-"
            axis.plot(place, values, style, color=color, linewidth=0.6, alpha=0.35)
            axis.plot(place, values.mean(axis=1), style + MARKERS[methods.index(method) % 8], color=color,
                      markersize=5, label=_wrapped(method + ", maintained" * maintained, 34))  # fmt: skip
        axis.axhline(archive.teacher_accuracy * PERCENT, color="black", linestyle=":", linewidth=1)
        axis.set_xscale("log")
        axis.set_xlabel(f"{labels[unit]}; leftmost: fresh")
        axis.set_ylabel("accuracy (%)")
        axis.legend(fontsize=8, frameon=False)
        axis.set_title("dotted: digital network; thin: single chips", fontsize=10)
    return _finish(figure, path)


def _stage_at(method: str, age: float, unit: str, maintained: bool) -> str:
    return f"{method} + {age:g} {unit}" + " maintained" * maintained


def _ages(archive: Archive) -> list[tuple[float, str, bool, str]]:
    """(age, unit, whether maintained, method) of every stage with an age, in the archive's order."""
    found = []
    for stage in archive.stages:
        method, age = split_stage(stage)
        if age:
            number, unit, *rest = age.split()
            found.append((float(number), unit, bool(rest), method))
    return found


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


def draw_figures(archive: Archive, folder: str | Path) -> list[Path]:
    """Write every figure the archive has data for as PNG into `folder`; returns their paths."""
    _need_trials(archive)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror})") from None
    has_errors = bool(np.any((archive["history/quantity"] == "error") & (archive["history/value"] > 0)))
    has_layers = not np.isnan(archive["trial/layer_error"]).all()
    drawable = {"history": has_errors, "layers": has_layers, "lifetime": bool(_ages(archive))}
    skip = {name for name, there in drawable.items() if not there}
    paths = []
    for name, draw in FIGURES.items():
        if name not in skip:
            draw(archive, folder / f"{name}.png")
            paths.append(folder / f"{name}.png")
    return paths
