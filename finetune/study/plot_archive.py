"""Figures of an archive, each on Axes of its own or on given ones (matplotlib is loaded when one is drawn).

Every function returns the Axes; `rramsim.plot.save(ax, "figure.pdf")` writes the file.  Long because every
function says what it draws, in which unit.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.study.archive import Archive, split_stage
from finetune.study.plot_style import COLUMN, MARKERS, axes, colors, styled, wrapped
from finetune.study.statistics import LEAST_FOR_INTERVAL, spread
from rramsim.blackbox.protocol import LEDGER_QUANTITIES
from rramsim.checks import InputError, nearest_name

__all__ = [
    "accuracy",
    "against",
    "ages_of",
    "confusion",
    "history",
    "layers",
    "levels",
    "pareto",
    "retention",
]

PERCENT = 100.0
MICRO = 1e6
BANDS = ((0.01, 0.99, 0.25), (0.1, 0.9, 0.5), (0.25, 0.75, 1.0))  # quantiles from, to, opacity
COSTS = {  # quantity: label, factor from SI
    "array_reads": ("array reads of the tuning", 1.0),
    "vectors": ("input vectors read by the tuning", 1.0),
    "cell_writes": ("cell writes, mapping included", 1.0),
    "writes_per_cell": ("writes per cell, mapping included", 1.0),
    "joules": ("energy of programming (mJ)", 1e3),
    "seconds": ("time of the chip (ms)", 1e3),
}


def _need_trials(archive: Archive) -> None:
    if archive.n_trials == 0:
        raise InputError(f"{archive.path}: has no complete trial yet; `rramsim run` continues it")


def _methods(archive: Archive) -> list[str]:
    return list(dict.fromkeys(split_stage(stage)[0] for stage in archive.stages))


def _marker(archive: Archive, method: str) -> str:
    return MARKERS[_methods(archive).index(method) % len(MARKERS)]


@styled
def accuracy(archive: Archive, ax: Any = None) -> Any:
    """Accuracy after each stage, every chip a point, and above it the gap to the digital network.

    Parameters
    ----------
    archive : Archive
        Of one experiment.
    ax : matplotlib Axes, optional
        Where to draw; a new figure without it.

    Returns
    -------
    matplotlib Axes
        Accuracy in percent; the second axis above shows points below the digital network.

    Raises
    ------
    InputError
        If no trial is complete.

    Examples
    --------
    >>> from finetune import open_archive
    >>> from rramsim import plot
    >>> plot.save(plot.accuracy(open_archive("results/quick.h5")), "accuracy.pdf")  # doctest: +SKIP
    """
    _need_trials(archive)
    stages = archive.stages
    names = [wrapped(stage, 22) for stage in stages]
    n_lines = sum(1 + 0.5 * name.count("\n") for name in names)
    ax = axes(ax, height=1.2 + 0.34 * n_lines)
    palette, teacher = colors(_methods(archive)), PERCENT * archive.teacher_accuracy
    offsets = np.linspace(-0.16, 0.16, archive.n_trials) if archive.n_trials > 1 else np.zeros(1)
    for row, stage in enumerate(stages):
        method, age = split_stage(stage)
        values = PERCENT * archive.accuracy(stage)
        face = "none" if age else palette[method]
        ax.plot(values, row + offsets, _marker(archive, method), color=palette[method], mfc=face, alpha=0.8)
        ax.plot([values.mean()] * 2, [row - 0.34, row + 0.34], color=palette[method], linewidth=2.2)
        ax.annotate(f"{values.mean():.2f}", (1.01, row), xycoords=("axes fraction", "data"), va="center",
                    fontsize=7, color=palette[method])  # fmt: skip
    ax.axvline(teacher, color="black", linestyle="--", linewidth=1)
    low = min(teacher, PERCENT * float(archive["trial/accuracy"].min()))
    high = max(teacher, PERCENT * float(archive["trial/accuracy"].max()))
    margin = 0.05 * (high - low) + 0.1
    ax.set_xlim(low - margin, high + margin)
    ax.set_ylim(len(stages) - 0.4, -0.6)
    ax.set_yticks(range(len(stages)), names)
    n_images = archive["trial/predictions"].shape[2]
    chips = "1 chip" if archive.n_trials == 1 else f"{archive.n_trials} chips"
    ax.set_xlabel(f"accuracy (%) of {chips} on {n_images:,} images; right: mean")
    above = ax.secondary_xaxis("top", functions=(lambda x: teacher - x, lambda x: teacher - x))
    above.set_xlabel(f"below the digital network, {teacher:.2f} % (points)")
    above.spines["top"].set_visible(True)
    return ax


@styled
def against(archive: Archive, cost: str = "array_reads", ax: Any = None, *, legend: bool = True) -> Any:
    """Accuracy right after tuning against what the tuning cost, every chip a point.

    Parameters
    ----------
    archive : Archive
        Of one experiment.
    cost : str
        `array_reads`, `vectors`, `cell_writes`, `writes_per_cell`, `joules`, `seconds`, or another
        quantity of the ledger.
    ax : matplotlib Axes, optional
        Where to draw; a new figure without it.
    legend : bool
        Whether strategies are named.

    Returns
    -------
    matplotlib Axes
        Energy in mJ, time in ms; checkpoints of a tuning, where recorded, are joined by thin lines.
        Strategies of the same cost are drawn side by side.

    Raises
    ------
    InputError
        If no trial is complete, or the quantity is unknown or 0 throughout.

    Examples
    --------
    >>> from finetune import open_archive
    >>> from rramsim import plot
    >>> plot.against(open_archive("results/quick.h5"), "joules")  # doctest: +SKIP
    """
    from matplotlib.transforms import offset_copy

    _need_trials(archive)
    ax = axes(ax, height=2.9 if legend else 2.4)
    palette = colors(_methods(archive))
    label, factor = _cost_label(archive, cost)
    seen: list[float] = []
    for method in _methods(archive):
        x = factor * _cost(archive, cost, method)
        # methods of equal cost stand side by side, not on each other
        same = sum(abs(middle - float(x.mean())) <= 0.02 * abs(middle) for middle in seen)
        seen.append(float(x.mean()))
        beside = offset_copy(ax.transData, ax.figure, 5.0 * same, units="points")
        y = PERCENT * archive.accuracy(method)
        ax.plot(x, y, linestyle="")  # limits heed points in data coordinates alone
        ax.plot(x, y, _marker(archive, method), color=palette[method], alpha=0.85, transform=beside,
                label=wrapped(method, 30))  # fmt: skip
    if cost in ("array_reads", "vectors", "cell_writes", "writes_per_cell"):
        _draw_checkpoints(archive, ax, cost, palette)
    _cost_axis(ax, [factor * _cost(archive, cost, method) for method in _methods(archive)])
    ax.axhline(PERCENT * archive.teacher_accuracy, color="black", linestyle="--", linewidth=1)
    ax.set_xlabel(label)
    ax.set_ylabel("accuracy (%); dashed: digital")
    if legend:
        _legend_below(ax)
    return ax


def _cost(archive: Archive, cost: str, stage: str) -> NDArray[np.float64]:
    found = archive.writes_per_cell(stage) if cost == "writes_per_cell" else archive.cost(cost, stage)
    if not np.isfinite(found).all():
        raise InputError(f"{archive.path}: {cost} of stage {stage!r} is unknown: no source gives it")
    return np.asarray(found, dtype=float)


def _cost_label(archive: Archive, cost: str) -> tuple[str, float]:
    known = ("writes_per_cell", *(name for name in LEDGER_QUANTITIES if f"ledger/{name}" in archive))
    if cost not in known:
        raise InputError(f"{archive.path}: no cost {cost!r}; {nearest_name(cost, known)}")
    if cost != "writes_per_cell" and not np.any(archive[f"ledger/{cost}"]):
        raise InputError(f"{archive.path}: {cost} is 0 throughout; this archive does not bill it")
    unit = archive.unit(f"ledger/{cost}") if cost not in COSTS else ""
    return COSTS.get(cost, (cost.replace("_", " ") + (f" ({unit})" if unit not in ("", "1") else ""), 1.0))


def _cost_axis(ax: Any, values: list[NDArray[np.float64]]) -> None:
    """Logarithmic where costs differ by more than thirty, with a linear piece for zero."""
    flat = np.concatenate(values)
    positive = flat[flat > 0]
    if not positive.size or (positive.min() == flat.min() and positive.max() < 30 * positive.min()):
        ax.set_xlim(0.0, 1.15 * max(float(flat.max()), 1e-30))
    elif positive.min() == flat.min():
        ax.set_xscale("log")
    else:
        step = 10.0 ** np.floor(np.log10(positive.min()))
        ax.set_xscale("symlog", linthresh=step, linscale=0.4)
        ax.set_xlim(-0.3 * step, 3.0 * positive.max())


def _legend_below(ax: Any) -> None:
    handles, labels = ax.get_legend_handles_labels()
    columns = 1 if max(map(len, labels), default=0) > 20 else 2
    ax.figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _draw_checkpoints(archive: Archive, ax: Any, cost: str, palette: dict[str, str]) -> None:
    """Thin lines through the checkpoints of each tuning, where the run recorded any."""
    reads = archive["ledger/array_reads"].sum(axis=2)
    per_vector = reads / np.maximum(archive["ledger/vectors"].sum(axis=2), 1)
    n_cells = archive["layers/n_cells"].sum()
    for trial in range(archive.n_trials):
        stage_of = archive["checkpoint/stage"][trial]
        for index in np.unique(stage_of[stage_of >= 0]):
            mine = stage_of == index
            vectors = archive["checkpoint/vectors"][trial, mine]
            writes = archive["checkpoint/cell_writes"][trial, mine]
            x = {"array_reads": vectors * per_vector[trial, index], "vectors": vectors, "cell_writes": writes,
                 "writes_per_cell": writes / n_cells}[cost]  # fmt: skip
            color = palette[split_stage(archive.stages[int(index)])[0]]
            y = PERCENT * archive["checkpoint/accuracy"][trial, mine]
            ax.plot(x, y, "-", color=color, linewidth=0.7, alpha=0.5)


@styled
def pareto(archive: Archive, cost: str = "array_reads", ax: Any = None) -> Any:
    """Mean accuracy against mean cost of every method; the line joins those that no other one beats.

    Parameters
    ----------
    archive, cost, ax
        As for `against`.

    Returns
    -------
    matplotlib Axes
        Numbers stand beside the points and before the names in the legend; bars are 95 % intervals of the
        mean over chips (from three chips on).

    Examples
    --------
    >>> from finetune import open_archive
    >>> from rramsim import plot
    >>> plot.pareto(open_archive("results/quick.h5"), "writes_per_cell")  # doctest: +SKIP
    """
    _need_trials(archive)
    ax = axes(ax, height=3.1)
    label, factor = _cost_label(archive, cost)
    methods = _methods(archive)
    palette = colors(methods)
    over = [spread(PERCENT * archive.accuracy(method)) for method in methods]
    x = np.array([factor * float(_cost(archive, cost, method).mean()) for method in methods])
    y = np.array([entry.mean for entry in over])
    for index, method in enumerate(methods):
        if archive.n_trials >= LEAST_FOR_INTERVAL:
            ax.plot([x[index]] * 2, [over[index].low, over[index].high], color=palette[method], linewidth=0.8)
        ax.plot(x[index], y[index], _marker(archive, method), color=palette[method],
                label=f"{index + 1} {wrapped(method, 30)}")  # fmt: skip
        ax.annotate(str(index + 1), (x[index], y[index]), xytext=(4, -8), textcoords="offset points",
                    fontsize=7)  # fmt: skip
    best = [k for k in range(len(x)) if not any((x < x[k]) & (y >= y[k]) | (x <= x[k]) & (y > y[k]))]
    best.sort(key=lambda k: x[k])
    ax.step(x[best], y[best], where="post", color="black", linewidth=0.8, zorder=0)
    _cost_axis(ax, [x])
    ax.axhline(PERCENT * archive.teacher_accuracy, color="black", linestyle="--", linewidth=1)
    ax.set_xlabel(label)
    ax.set_ylabel("mean accuracy (%); dashed: digital")
    _legend_below(ax)
    return ax


def _quantiles(counts: NDArray[np.int64], edges: NDArray[np.float64], share: float) -> tuple[float, bool]:
    """Quantile of a histogram, linear within a bin, and whether it lies in the last, open bin."""
    total = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    place = int(np.searchsorted(total, share, side="left"))
    if place >= len(counts):
        return float(edges[-2]), True
    return float(np.interp(share, total[place - 1 : place + 1], edges[place - 1 : place + 1])), False


@styled
def levels(archive: Archive, layer: str | None = None, ax: Any = None) -> Any:
    """Realised against target conductance of a layer's cells after mapping, as bands of quantiles.

    Parameters
    ----------
    archive : Archive
        Of one experiment.
    layer : str, optional
        Layer of the chip; the largest by default.
    ax : matplotlib Axes, optional
        Where to draw; a new figure without it.

    Returns
    -------
    matplotlib Axes
        In uS. For each level the median (white line) and the quantiles 25-75, 10-90 and 1-99 % of the cells
        of all chips; a triangle marks bands that go on above the recorded range.

    Examples
    --------
    >>> from finetune import open_archive
    >>> from rramsim import plot
    >>> plot.levels(open_archive("results/quick.h5"), "conv2")  # doctest: +SKIP
    """
    _need_trials(archive)
    names = archive["layers/name"].tolist()
    layer = names[int(np.argmax(archive["layers/n_cells"]))] if layer is None else layer
    if layer not in names:
        raise InputError(f"{archive.path}: no layer {layer!r}; {nearest_name(layer, names)}")
    counts = archive["cells/histogram"][:, names.index(layer)].sum(axis=0)
    edges, targets = MICRO * archive["cells/bin_edges"], MICRO * archive["cells/level_conductance"]
    ax = axes(ax, height=2.8)
    used = np.flatnonzero(counts.sum(axis=1))
    nearest = float(np.diff(np.sort(targets)).min()) if len(targets) > 1 else float(targets[0])
    width = max(0.7 * nearest, 0.012 * float(targets.max()))
    color = "#0072B2"
    for level in used:
        for low, high, opacity in BANDS:
            bottom, _ = _quantiles(counts[level], edges, low)
            top, beyond = _quantiles(counts[level], edges, high)
            ax.bar(targets[level], top - bottom, width, bottom, color=color, alpha=opacity, linewidth=0)
            if beyond:
                ax.plot(targets[level], top, "^", color=color, markersize=3)
        middle, _ = _quantiles(counts[level], edges, 0.5)
        ax.plot(targets[level] + np.array([-0.5, 0.5]) * width, [middle] * 2, color="white", linewidth=1)
    line = [0.0, float(targets.max())]
    ax.plot(line, line, "--", color="black", linewidth=0.8)
    ax.set_xlabel("target conductance (µS); dashed: realised = target")
    ax.set_ylabel("realised conductance (µS)")
    chips = "1 chip" if archive.n_trials == 1 else f"{archive.n_trials} chips"
    ax.set_title(f"{layer} after mapping, {int(counts.sum()):,} cells of {chips}:\nquantiles 1, 10, 25, 50, "
                 "75, 90, 99 %")  # fmt: skip
    return ax


@styled
def layers(archive: Archive, ax: Any = None, *, legend: bool = True) -> Any:
    """Error of each mapped node's outputs after each stage: where the damage is, and what is recovered.

    Parameters
    ----------
    archive : Archive
        Of an experiment with `n_layer_images` above 0.
    ax : matplotlib Axes, optional
        Where to draw; a new figure without it.
    legend : bool
        Whether strategies are named.

    Returns
    -------
    matplotlib Axes
        Error power over signal power; thin lines are chips, thick ones their mean, dashed ones aged.

    Examples
    --------
    >>> from finetune import open_archive
    >>> from rramsim import plot
    >>> plot.layers(open_archive("results/quick.h5"))  # doctest: +SKIP
    """
    _need_trials(archive)
    errors = archive["trial/layer_error"]
    if np.isnan(errors).all():
        raise InputError(f"{archive.path}: holds no errors of layers (experiment.n_layer_images was 0)")
    names, palette = archive["nodes/name"].tolist(), colors(_methods(archive))
    ax = axes(ax, height=3.1, width=max(COLUMN, 0.3 * len(names) + 0.8))
    place, last_age = np.arange(len(names)), {}
    for index, stage in enumerate(archive.stages):
        method, age = split_stage(stage)
        last_age[method] = age
        style = "--" if age else "-"
        color = palette[method]
        for trial in range(archive.n_trials):
            ax.plot(place, errors[trial, index], style, color=color, linewidth=0.5, alpha=0.3)
        ax.plot(place, errors[:, index].mean(axis=0), style + _marker(archive, method), color=color,
                mfc="none" if age else color, label=None if age else wrapped(method, 30))  # fmt: skip
    ax.set_yscale("log")
    ax.set_xticks(place, names, rotation=45, ha="right")
    ax.set_ylabel("error power / signal power")
    tail = "; dashed: aged" if any(last_age.values()) else ""
    ax.set_title(f"outputs of layers against the digital network\nthick: mean, thin: single chips{tail}")
    if legend:
        _legend_below(ax)
    return ax


@styled
def history(archive: Archive, ax: Any = None) -> Any:
    """What the strategies recorded as `error` while they worked, against the vectors read so far.

    Parameters
    ----------
    archive : Archive
        Of one experiment.
    ax : matplotlib Axes, optional
        Where to draw; a new figure without it.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> from finetune import open_archive
    >>> from rramsim import plot
    >>> plot.history(open_archive("results/quick.h5"))  # doctest: +SKIP
    """
    _need_trials(archive)
    palette, drawn = colors(_methods(archive)), set()
    ax = axes(ax, height=2.9)
    for trial in range(archive.n_trials):
        stage_of = archive["history/stage"][trial]
        chosen = (
            (stage_of >= 0)
            & (archive["history/quantity"][trial] == "error")
            & (archive["history/value"][trial] > 0)
        )
        for index in np.unique(stage_of[chosen]).tolist():
            mine, method = chosen & (stage_of == index), split_stage(archive.stages[index])[0]
            label = None if index in drawn else wrapped(method, 30)
            drawn.add(index)
            ax.plot(archive["history/vectors"][trial, mine], archive["history/value"][trial, mine],
                    "-" + _marker(archive, method), color=palette[method], markersize=2.5, linewidth=0.6,
                    alpha=0.7, label=label)  # fmt: skip
    if not drawn:
        raise InputError(f"{archive.path}: no strategy recorded an error")
    ax.set_yscale("log")
    ax.set_xlabel("input vectors read by the tuning so far")
    ax.set_ylabel("residual error power / signal power")
    ax.set_title("one point per layer and step, one line per chip")
    _legend_below(ax)
    return ax


@styled
def confusion(archive: Archive, stage: str | None = None, ax: Any = None) -> Any:
    """Confusion of the classes after a stage, over all chips.

    Parameters
    ----------
    archive : Archive
        Of one experiment.
    stage : str, optional
        Default: the best one on average.
    ax : matplotlib Axes, optional
        Where to draw; a new figure without it.

    Returns
    -------
    matplotlib Axes
        Shares of each class's images in percent.

    Examples
    --------
    >>> from finetune import open_archive
    >>> from rramsim import plot
    >>> plot.confusion(open_archive("results/quick.h5"), "mapped")  # doctest: +SKIP
    """
    _need_trials(archive)
    means = archive["trial/accuracy"].mean(axis=0)
    stage = archive.stages[int(np.argmax(means))] if stage is None else stage
    values = archive.accuracy(stage)
    classes = archive["classes"].tolist()
    ax = axes(ax, height=3.6)
    share = PERCENT * _confusion(archive, stage)
    image = ax.imshow(share, cmap="cividis", vmin=0, vmax=100)
    for i, j in np.ndindex(share.shape):
        if share[i, j] >= 0.5 and len(classes) <= 12:
            color = "black" if share[i, j] > 55 else "white"
            ax.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center", fontsize=6, color=color)
    ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    ax.set_yticks(range(len(classes)), classes)
    ax.set(xlabel="predicted class", ylabel="class")
    ax.set_title(f"{wrapped(stage, 40)}: {PERCENT * values.mean():.2f} % right")
    ax.figure.colorbar(image, ax=ax, label="share of the class's images (%)", shrink=0.8)
    return ax


def _confusion(archive: Archive, stage: str) -> NDArray[np.float64]:
    """Share of class i predicted as j, all chips together."""
    n_classes = len(archive["classes"])
    predictions = archive["trial/predictions"][:, archive.stages.index(stage)]
    labels = np.broadcast_to(archive["labels"], predictions.shape)
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (labels.ravel(), predictions.ravel()), 1.0)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)


def ages_of(archive: Archive) -> list[tuple[float, str, bool, str]]:
    """(age, unit, whether maintained, method) of every stage with an age, in the archive's order."""
    found = []
    for stage in archive.stages:
        method, age = split_stage(stage)
        if age:
            number, unit, *rest = age.split()
            found.append((float(number), unit, bool(rest), method))
    return found


@styled
def retention(archive: Archive, unit: str = "", ax: Any = None, *, legend: bool = True) -> Any:
    """Accuracy of every method against time or reads since tuning; dashed where the chip was maintained.

    Parameters
    ----------
    archive : Archive
        Of an experiment with `[lifetime]`.
    unit : str
        `s` or `reads`; by default the one that the archive has.
    ax : matplotlib Axes, optional
        Where to draw; a new figure without it.
    legend : bool
        Whether strategies are named.

    Returns
    -------
    matplotlib Axes
        Thin lines are chips, thick ones their mean; the leftmost point is the fresh chip.

    Examples
    --------
    >>> from finetune import open_archive
    >>> from rramsim import plot
    >>> plot.retention(open_archive("results/lifetime.h5"), "reads")  # doctest: +SKIP
    """
    _need_trials(archive)
    ages, methods = ages_of(archive), _methods(archive)
    units = [name for name in ("reads", "s") if name in {row[1] for row in ages}]
    if not units:
        raise InputError(f"{archive.path}: holds no ages; set lifetime.reads or lifetime.seconds")
    unit = unit or units[0]
    if unit not in units:
        raise InputError(f"{archive.path}: holds ages in {', '.join(units)}, none in {unit!r}")
    ax, palette = axes(ax, height=3.1), colors(methods)
    for (method, kind, maintained), rows in itertools.groupby(ages, key=lambda row: (row[3], *row[1:3])):
        if kind != unit:
            continue
        place = np.array([row[0] for row in rows])
        names = [f"{method} + {age:g} {unit}" + " maintained" * maintained for age in place]
        values = PERCENT * np.array([archive.accuracy(name) for name in (method, *names)])
        place = np.concatenate([[place[0] / 10.0], place])  # fresh chips, a decade before the first age
        color, style = palette[method], "--" if maintained else "-"
        ax.plot(place, values, style, color=color, linewidth=0.5, alpha=0.35)
        ax.plot(place, values.mean(axis=1), style + _marker(archive, method), color=color,
                label=wrapped(method + ", maintained" * maintained, 30))  # fmt: skip
    ax.axhline(PERCENT * archive.teacher_accuracy, color="black", linestyle=":", linewidth=1)
    ax.set_xscale("log")
    what = {"reads": "reads of every layer since tuning", "s": "time since tuning (s)"}[unit]
    ax.set_xlabel(f"{what}; leftmost: fresh")
    ax.set_ylabel("accuracy (%); dotted: digital")
    if legend:
        _legend_below(ax)
    return ax
