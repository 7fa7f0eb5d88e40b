"""The command `rramsim`."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from finetune.study.report import console, print_comparison, print_plan, print_sweep, print_table
from rramsim.checks import InputError
from rramsim.parallel import cores

__all__ = ["main"]


class _Commands(click.Group):
    """Bad input becomes one line on stderr and exit code 2; Ctrl-C exit code 130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", UserWarning)
                warnings.showwarning = _show_warning  # type: ignore[assignment]
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


def _show_warning(message: Warning | str, *_: Any) -> None:
    click.echo(f"warning: {' '.join(str(message).split())}", err=True)


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
    from finetune.study.config import default_experiment, load_experiment, unread_of_experiment
    from finetune.study.runner import run_experiment

    settings = default_experiment() if config is None else load_experiment(config)
    settings = settings.replaced(seed=seed, chips=_chips(chips))
    if dry_run:
        print_plan(settings, cores() if workers is None else workers)
        return
    out = Path("results") / f"{settings.experiment.name}.h5" if out is None else out
    for text in unread_of_experiment(settings):
        click.echo(f"note: {text}", err=True)
    with _progress(settings) as (notify, on_trial):
        archive = run_experiment(
            settings,
            out,
            workers=cores() if workers is None else workers,
            fresh=fresh,
            notify=notify,
            on_trial=on_trial,
        )
    print_table(archive)
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
    from finetune.study.runner import check_experiment, run_experiment
    from finetune.study.sweep import load_sweep

    name, cases = load_sweep(config)
    for case in cases:  # all of them, before the first chip of the first one
        try:
            check_experiment(case.config.replaced(seed=seed, chips=_chips(chips)))
        except InputError as error:
            raise InputError(f"{error} (at {case.label})") from None
    folder = Path("results") / name if out is None else out
    archives = {}
    for number, case in enumerate(cases, start=1):
        settings = case.config.replaced(seed=seed, chips=_chips(chips))
        click.echo(f"{number} of {len(cases)}: {case.label}")
        with _progress(settings) as (notify, on_trial):
            archives[case.label] = run_experiment(
                settings,
                folder / case.file_name,
                workers=cores() if workers is None else workers,
                fresh=fresh,
                notify=notify,
                on_trial=on_trial,
            )
    print_sweep(name, archives)
    click.echo(f"archives: {folder}")


@main.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the figures [default: beside the archive]."
)
def report(archive: Path, out: Path | None) -> None:
    """Table and figures of an archive."""
    from finetune.study.archive import open_archive

    content = open_archive(archive)
    print_table(content)
    _draw(content, archive.with_suffix("") if out is None else out)


@main.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.option("--by", default="strategy", help="Compare `strategy` or `age` [default: strategy].")
@click.option("--baseline", help="What the others are compared with [default: the best, or the fresh chip].")
@click.option("--csv", type=click.Path(path_type=Path), help="Write all columns into this file too.")
def compare(archive: Path, by: str, baseline: str | None, csv: Path | None) -> None:
    """Paired differences within an archive: intervals, exact tests, effect size, chips needed."""
    from finetune.study.analysis import compare_stages
    from finetune.study.archive import open_archive

    content = open_archive(archive)
    frame = compare_stages(content, by=by, baseline=baseline)
    print_comparison(content, frame)
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

    terminal = console()
    if name is None:
        if plot is not None:
            raise InputError("--plot needs the name of a preset")
        table = Table("preset", "device", "needs")
        for entry in list_presets():
            preset = load_preset(entry)
            table.add_row(entry, preset.title, ", ".join(preset.needs))
        terminal.print(table)
        return
    preset = load_preset(name)
    table = Table("quantity", "value", "unit", "mark", "source", title=f"{preset.name}: {preset.title}")
    for item in preset.evidence:
        table.add_row(item.key, _brief(item.value), item.unit, item.mark, item.source)
    terminal.print(table)
    if preset.note:
        terminal.print(preset.note)
    for key, source in preset.sources.items():
        terminal.print(f"{key}: {source}", highlight=False, markup=False)
    if preset.needs:
        terminal.print(f"set yourself: {', '.join(f'cells.{key}' for key in preset.needs)}")
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

    terminal = console()
    known = {"rramsim": _version(), **json.loads(versions())}
    terminal.print(", ".join(f"{name} {version}" for name, version in known.items()), highlight=False)
    terminal.print(f"{cores()} cores, {numba.get_num_threads()} threads of Numba", highlight=False)
    table = Table("data set", "found")
    for name in LOADERS:
        if name == "fashion_mnist_full":
            table.add_row(name, "fetched when first used")
            continue
        try:
            table.add_row(name, load_dataset(name).describe())
        except InputError as error:
            table.add_row(name, f"no: {error}")
    terminal.print(table)
    table = Table("network", "data set", "weights", "test accuracy")
    for name in teacher_names():
        network = load_teacher(name)
        accuracy = network.metadata.get("test_accuracy")
        shown = "" if accuracy is None else f"{100 * accuracy:.2f} %"
        table.add_row(name, str(network.metadata.get("dataset", "")), f"{_n_weights(network):,}", shown)
    terminal.print(table)


# -- parts ----------------------------------------------------------------------------------------


def _note_overlap(cells: Any) -> None:
    """Say on stderr when levels overlap beyond use, with the raw level error rate."""
    import warnings

    from rramsim.cell import OverlapWarning, check_overlap

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OverlapWarning)
        check_overlap(cells)
    for entry in caught:
        click.echo(f"note: {entry.message}", err=True)


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


def _draw(archive: Any, folder: Path) -> None:
    from finetune.study.plot import draw_figures

    paths = draw_figures(archive, folder)
    click.echo(f"figures: {folder}/ ({', '.join(path.name for path in paths)})")


if __name__ == "__main__":
    main()
