"""The command `rramsim`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from rramsim.checks import InputError

__all__ = ["main"]

WIDE = 156  # columns where no terminal tells its width


class _Commands(click.Group):
    """Bad input becomes one line on stderr and exit code 2; Ctrl-C exit code 130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"error: {' '.join(str(error).split())}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command continues with the next trial", err=True)
            # leaving joins the executor's threads, which now and then wait for ever for a worker that was
            # ended in the middle of a message; the archive is whole after every trial, so leave anyway
            watchdog = threading.Timer(5.0, os._exit, (130,))
            watchdog.daemon = True
            watchdog.start()
            ctx.exit(130)


def _version() -> str:
    import rramsim

    return rramsim.__version__


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="rramsim")
def main() -> None:
    """Neural networks on simulated multi-level RRAM chips, fine-tuned as black boxes."""


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--seed", type=int, help="Seed instead of the configuration's.")
@click.option("--chips", help="How many chips, or their ids separated by commas.")
@click.option("--out", type=click.Path(path_type=Path), help="Archive [default: results/NAME.h5].")
@click.option("--workers", type=int, default=None, help="Processes of one thread each [default: all cores].")
@click.option("--fresh", is_flag=True, help="Replace the archive instead of continuing it.")
@click.option("--no-figures", is_flag=True, help="Draw nothing.")
@click.option("--dry-run", is_flag=True, help="Predict costs of every strategy; run and write nothing.")
def run(
    config: Path | None,
    seed: int | None,
    chips: str | None,
    out: Path | None,
    workers: int | None,
    fresh: bool,
    no_figures: bool,
    dry_run: bool,
) -> None:
    """Run an experiment from a TOML file (without one: the reference conditions), or continue it."""
    from finetune.study.config import default_experiment, load_experiment
    from finetune.study.runner import run_experiment

    settings = default_experiment() if config is None else load_experiment(config)
    settings = settings.replaced(seed=seed, chips=_chips(chips))
    if dry_run:
        _print_plan(settings, _cores() if workers is None else workers)
        return
    out = Path("results") / f"{settings.experiment.name}.h5" if out is None else out
    with _progress(settings) as (notify, on_trial):
        archive = run_experiment(
            settings,
            out,
            workers=_cores() if workers is None else workers,
            fresh=fresh,
            notify=notify,
            on_trial=on_trial,
        )
    _print_table(archive)
    _note_overlap(settings.cells)
    click.echo(f"archive: {out}")
    if not no_figures:
        _draw(archive, out.with_suffix(""))


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--seed", type=int, help="Seed instead of the configuration's.")
@click.option("--chips", help="How many chips, or their ids separated by commas.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of archives [default: results/NAME].")
@click.option("--workers", type=int, default=None, help="Processes of one thread each [default: all cores].")
@click.option("--fresh", is_flag=True, help="Replace the archives instead of continuing them.")
def sweep(
    config: Path, seed: int | None, chips: str | None, out: Path | None, workers: int | None, fresh: bool
) -> None:
    """Run every combination of a TOML file's table [sweep], an archive each, or continue."""
    from finetune.study.runner import run_experiment
    from finetune.study.sweep import load_sweep

    name, cases = load_sweep(config)
    folder = Path("results") / name if out is None else out
    archives = {}
    for number, case in enumerate(cases, start=1):
        settings = case.config.replaced(seed=seed, chips=_chips(chips))
        click.echo(f"{number} of {len(cases)}: {case.label}")
        with _progress(settings) as (notify, on_trial):
            archives[case.label] = run_experiment(
                settings,
                folder / case.file_name,
                workers=_cores() if workers is None else workers,
                fresh=fresh,
                notify=notify,
                on_trial=on_trial,
            )
    _print_sweep(name, archives)
    click.echo(f"archives: {folder}")


def _print_sweep(name: str, archives: dict[str, Any]) -> None:
    """Mean accuracy and worst chip of every stage and case."""
    from rich.table import Table

    from finetune.study.statistics import spread

    caption = (
        "a chip id names the same random deviates in every column, so columns are not independent samples: "
        "compare them chip by chip"
    )
    table = Table(title=f"{name}: accuracy in %, mean over chips (worst chip)", caption=caption)
    table.add_column("stage")
    for label in archives:
        table.add_column(label, justify="right")
    stages = dict.fromkeys(stage for archive in archives.values() for stage in archive.stages)
    for stage in stages:
        overs = [
            spread(100 * archive.accuracy(stage)) if stage in archive.stages else None
            for archive in archives.values()
        ]
        table.add_row(
            stage.replace("[", r"\["),
            *("" if over is None else f"{over.mean:.2f} ({over.worst:.2f})" for over in overs),
        )
    _console().print(table)


@main.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the figures [default: beside the archive]."
)
def report(archive: Path, out: Path | None) -> None:
    """Table and figures of an archive."""
    from finetune.study.archive import open_archive

    content = open_archive(archive)
    _print_table(content)
    _draw(content, archive.with_suffix("") if out is None else out)


@main.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.option("--by", default="strategy", help="Compare `strategy` or `age` [default: strategy].")
@click.option("--baseline", help="What the others are compared with [default: the best, or the fresh chip].")
@click.option("--csv", type=click.Path(path_type=Path), help="Write all columns into this file too.")
def compare(archive: Path, by: str, baseline: str | None, csv: Path | None) -> None:
    """Paired differences within an archive: intervals, exact tests, effect size, chips needed."""
    from rich.table import Table

    from finetune.study.analysis import compare_stages
    from finetune.study.archive import open_archive

    content = open_archive(archive)
    frame = compare_stages(content, by=by, baseline=baseline)
    caption = (
        "difference in points with its 95 % interval for other chips and other test images; p: exact "
        "signed-rank test over chips, p (Holm): adjusted over this table; effect: Hedges' g of the paired "
        "differences; chips: how many find a difference of 0.1, 0.5 and 1 point with 80 % power"
    )
    names = ", ".join(dict.fromkeys(frame["baseline"]))
    title = f"{archive.name}: {content.n_trials} chips, {len(content['labels']):,} images, against {names}"
    table = Table(title=title.replace("[", r"\["), caption=caption)
    table.add_column("strategy", min_width=17, overflow="fold")
    for name in ("age", "accuracy", "difference", "p", "p (Holm)", "effect", "chips"):
        table.add_column(name, justify="right")
    for row in frame.to_dict("records"):
        needed = [row[f"chips_for_{points}"] for points in ("0.1", "0.5", "1")]
        cells = [
            row["strategy"],
            row["age"],
            f"{row['accuracy']:.2f}",
            f"{row['difference']:+.2f}"
            + ("" if row["low"] != row["low"] else f" [{row['low']:+.2f}, {row['high']:+.2f}]"),
            *("" if row[name] != row[name] else f"{row[name]:.2g}" for name in ("p", "p_holm", "effect")),
            "" if needed[0] != needed[0] else " ".join(f"{n:.0f}" for n in needed),
        ]
        table.add_row(*(cell.replace("[", r"\[") for cell in cells))
    _console().print(table)
    if csv is not None:
        with _written(csv):
            frame.to_csv(csv, index=False)


@main.command()
@click.argument("name", required=False)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the preset into this file.")
def presets(name: str | None, plot: Path | None) -> None:
    """List the published devices, or show one with the source of every number."""
    from rich.table import Table

    from rramsim.cell import list_presets, load_preset

    console = _console()
    if name is None:
        if plot is not None:
            raise InputError("--plot needs the name of a preset")
        table = Table("preset", "device", "needs")
        for entry in list_presets():
            preset = load_preset(entry)
            table.add_row(entry, preset.title, ", ".join(preset.needs))
        console.print(table)
        return
    preset = load_preset(name)
    table = Table("quantity", "value", "unit", "mark", "source", title=f"{preset.name}: {preset.title}")
    for item in preset.evidence:
        table.add_row(item.key, _brief(item.value), item.unit, item.mark, item.source)
    console.print(table)
    if preset.note:
        console.print(preset.note)
    for key, source in preset.sources.items():
        console.print(f"{key}: {source}", highlight=False, markup=False)
    if preset.needs:
        console.print(f"set yourself: {', '.join(f'cells.{key}' for key in preset.needs)}")
    if plot is not None:
        from rramsim.cell.plot import preset_figure

        if preset.needs:
            raise InputError(f"preset {name!r} leaves {', '.join(preset.needs)} open, so it cannot be drawn")
        with _written(plot):
            preset_figure(name, plot)


@main.command("fit-device")
@click.argument("csv", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Write a preset that cells.preset accepts.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the fit into this file.")
def fit_device(csv: Path, out: Path | None, plot: Path | None) -> None:
    """Fit error law, drift and disturbance to measured conductances."""
    from rramsim.cell.fit import fit

    result = fit(csv)
    click.echo(result.summary())
    if out is not None:
        with _written(out):
            result.save(out)
    if plot is not None:
        from rramsim.cell.plot import fit_figure

        with _written(plot):
            fit_figure(result, plot)


@main.command()
def info() -> None:
    """Versions, threads, data sets found, shipped networks."""
    import json

    import numba
    from rich.table import Table

    from finetune.study.archive import versions
    from rramsim.datasets.embedded import LOADERS, load_dataset
    from rramsim.datasets.teachers import load_teacher, teacher_names

    console = _console()
    known = {"rramsim": _version(), **json.loads(versions())}
    console.print(", ".join(f"{name} {version}" for name, version in known.items()), highlight=False)
    console.print(f"{_cores()} cores, {numba.get_num_threads()} threads of Numba", highlight=False)
    table = Table("data set", "found")
    for name in LOADERS:
        if name == "fashion_mnist_full":
            table.add_row(name, "fetched when first used")
            continue
        try:
            table.add_row(name, load_dataset(name).describe())
        except InputError as error:
            table.add_row(name, f"no: {error}")
    console.print(table)
    table = Table("network", "data set", "weights", "test accuracy")
    for name in teacher_names():
        network = load_teacher(name)
        accuracy = network.metadata.get("test_accuracy")
        shown = "" if accuracy is None else f"{100 * accuracy:.2f} %"
        table.add_row(name, str(network.metadata.get("dataset", "")), f"{_n_weights(network):,}", shown)
    console.print(table)


# -- parts ----------------------------------------------------------------------------------------


def _console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDE)


def _note_overlap(cells: Any) -> None:
    """Say on stderr when levels overlap beyond use, with the raw level error rate."""
    import warnings

    from rramsim.cell import OverlapWarning, check_overlap

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OverlapWarning)
        check_overlap(cells)
    for entry in caught:
        click.echo(f"note: {entry.message}", err=True)


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _n_weights(network: Any) -> int:
    from rramsim.host.layer import layer_shapes

    return sum(rows * cols for rows, cols in layer_shapes(network).values())


def _chips(text: str | None) -> int | tuple[int, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--chips must be a count such as 5 or ids such as 100,101, got {text!r}") from None
    return numbers[0] if len(numbers) == 1 and "," not in text else numbers


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_brief(entry) for entry in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path}: cannot be written ({reason})") from None
    click.echo(f"written: {path}")


@contextmanager
def _progress(settings: Any) -> Iterator[tuple[Any, Any]]:
    """Bars on stderr for a terminal, else a line for each finished trial."""
    stages = settings.stages

    def line(chip: int, accuracy: Any) -> str:
        parts = (f"{stage} {100 * value:.2f} %" for stage, value in zip(stages, accuracy, strict=True))
        return f"chip {chip}: " + ", ".join(parts)

    if not sys.stderr.isatty():
        yield None, lambda chip, accuracy: click.echo(line(chip, accuracy), err=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        n_chips = len(settings.experiment.chip_ids)
        task = bars.add_task("starting", total=n_chips * len(stages))
        shares: dict[tuple[int, str], float] = {}

        def notify(chip: int, stage: str, share: float) -> None:
            shares[chip, stage] = share
            bars.update(task, completed=sum(shares.values()), description=f"chip {chip}: {stage[:40]}")

        def on_trial(chip: int, accuracy: Any) -> None:
            shares.update({(chip, stage): 1.0 for stage in stages})
            bars.update(task, completed=sum(shares.values()))
            bars.console.print(line(chip, accuracy), highlight=False)

        yield notify, on_trial


def _print_plan(settings: Any, workers: int) -> None:
    """Predicted costs of one chip, strategy by strategy, and a rough time of the whole run."""
    from rich.table import Table

    from finetune.study.trial import plan_methods

    rows, n_chips = plan_methods(settings), len(settings.experiment.chip_ids)
    caption = (
        "predicted for one chip; times of one thread, within a factor of about three; a strategy that begins "
        "with another one of the list goes on from there"
    )
    table = Table(title=f"{settings.experiment.name}: plan, nothing was run", caption=caption)
    table.add_column("strategy")
    for name in ("tier", "vectors", "cell writes", "writes/cell", "tuning (s)", "evaluation (s)"):
        table.add_column(name, justify="right")
    tuning = {row["strategy"]: row["tuning_seconds"] for row in rows}
    seconds = max((row["evaluation_seconds"] for row in rows), default=0.0)  # of plain mapping
    for row in rows:
        seconds += row["tuning_seconds"] - tuning.get(row["starts_with"], 0.0) + row["evaluation_seconds"]
        table.add_row(
            row["strategy"].replace("[", r"\["),
            row["tier"],
            f"{row['vectors']:.3g}",
            f"{row['cell_writes']:.0f}",
            f"{row['writes_per_cell']:.2f}",
            f"{row['tuning_seconds']:.1f}",
            f"{row['evaluation_seconds']:.1f}",
        )
    _console().print(table)
    busy = max(1, min(workers, n_chips * max(len(rows), 1)))
    click.echo(f"{n_chips} chips on {busy} workers: about {seconds * n_chips / busy / 60:.1f} min")


def _print_table(archive: Any) -> None:
    """Teacher, mapped and tuned accuracy over chips, paired differences, costs."""
    import numpy as np
    from rich.table import Table

    from finetune.study.analysis import is_apart, stage_summaries

    rows = stage_summaries(archive)
    n_images = archive["trial/predictions"].shape[2]
    chips = (
        f"{archive.n_trials} of {archive.n_planned}"
        if archive.n_trials < archive.n_planned
        else str(archive.n_trials)
    )
    what = f"{archive.attributes['network']} on {archive.attributes['dataset']}"
    caption = (
        "accuracy in %: mean ± standard deviation over chips; gap to the teacher and gain over mapped in "
        "points: paired, with the 95 % interval for other chips and other test images (from three chips on); "
        "p: exact signed-rank test against the best rival of the same age, Holm-adjusted over this table; "
        "R: mean gain over mean loss, with its 95 % interval; writes: mapping included; digital: numbers "
        "kept beside the chip over weights"
    )
    if any(is_apart(stage) for stage in archive.stages):
        caption += (
            "; * not comparable, more access to the chip than allowed: designed vectors amount to "
            "write-verify, reference points know more"
        )
    table = Table(title=f"{what}: {chips} chips, {n_images:,} test images", caption=caption)
    heads = (
        "accuracy",
        "worst",
        "gap",
        "gain over mapped",
        "p",
        "R",
        "array reads",
        "writes/cell",
        "digital",
    )
    table.add_column("stage", justify="left", min_width=17, overflow="fold")
    for name in heads:
        table.add_column(name, justify="right")
    table.add_row("teacher (digital)", f"{100 * archive.teacher_accuracy:.2f}", *[""] * (len(heads) - 1))
    for index, row in enumerate(rows):
        over, stage = row.accuracy, row.stage
        std = "" if np.isnan(over.std) else f" ± {over.std:.2f}"
        cells = [stage + " *" * is_apart(stage), f"{over.mean:.2f}{std}", f"{over.worst:.2f}"]
        cells.append(f"{row.gap.mean:.2f}{_range(row.gap, '.2f')}")
        if row.gain is None or row.recovered is None:
            cells += ["", "", ""]
        else:
            r = row.recovered
            cells += [
                f"{row.gain.mean:+.2f}{_range(row.gain, '+.2f')}",
                "" if np.isnan(row.p_value) else f"{row.p_value:.2g}",
                "none lost" if np.isnan(r.value) else f"{100 * r.value:.0f} %{_range(r, '.0f', 100)}",
            ]
        cells += [
            f"{archive.cost('array_reads', stage).mean():.3g}",
            f"{archive.writes_per_cell(stage).mean():.2f}",
            f"{100 * archive['trial/overhead'][:, index].mean():.1f} %",
        ]
        table.add_row(*(cell.replace("[", r"\[") for cell in cells))
    _console().print(table)


def _range(over: Any, form: str, scale: float = 1.0) -> str:
    """The interval of an estimate in brackets, nothing where there is none."""
    return "" if over.low != over.low else f" [{scale * over.low:{form}}, {scale * over.high:{form}}]"


def _draw(archive: Any, folder: Path) -> None:
    from finetune.study.plot import draw_figures

    paths = draw_figures(archive, folder)
    click.echo(f"figures: {folder}/ ({', '.join(path.name for path in paths)})")


if __name__ == "__main__":
    main()
