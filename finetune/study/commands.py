"""Commands for studies and archives: `sweep`, `watch`, `archive`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from finetune.study.output import echo_rows, plain_rows, row_options, with_ending, write_csv
from finetune.study.report import print_notes, print_notices, print_study
from rramsim.checks import InputError
from rramsim.parallel import cores

__all__ = [
    "archive_group",
    "chip_ids",
    "continue_command",
    "default_out",
    "run_options",
    "shard_of",
    "show_study",
    "sweep",
    "watch",
]


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that `run` and `sweep` share."""
    options = [
        click.option("--seed", type=int, help="Seed instead of the configuration's."),
        click.option("--chips", help="How many chips, or their ids separated by commas."),
        click.option("--out", type=click.Path(path_type=Path), help="Archive [default: results/NAME.h5]."),
        click.option("--workers", type=int, help="Processes of one thread each [default: all cores]."),
        click.option("--scheduler", help="Dask scheduler, such as tcp://host:8786, or `local`."),
        click.option("--shard", help="3/20: the third twentieth of the trials, for arrays of jobs."),
        click.option("--fresh", is_flag=True, help="Replace the archive instead of continuing it."),
        click.option(
            "--allow-mixed", is_flag=True, help="Continue though BLAS, processor or libraries differ."
        ),
        click.option("--no-figures", is_flag=True, help="Draw nothing."),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of a table."),
        click.option("--csv", type=click.Path(path_type=Path), help="Write the long table into this file."),
        click.option("-q", "--quiet", is_flag=True, help="No progress."),
        click.option("-v", "--verbose", is_flag=True, help="A line for every stage of every chip."),
        click.option("--dry-run", is_flag=True, help="Predict the costs; run and write nothing."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def chip_ids(text: str | None) -> int | tuple[int, ...] | None:
    """Chips as `--chips` gives them: a count, or ids."""
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--chips must be a count such as 5 or ids such as 100,101, got {text!r}") from None
    return numbers[0] if len(numbers) == 1 and "," not in text else numbers


def shard_of(text: str | None) -> tuple[int, int] | None:
    """A shard as `--shard` gives it."""
    if text is None:
        return None
    try:
        number, count = (int(part) for part in text.split("/"))
    except ValueError:
        raise InputError(f"--shard must be NUMBER/COUNT such as 3/20, got {text!r}") from None
    return number, count


def default_out(name: str, shard: tuple[int, int] | None) -> Path:
    """Where an archive goes if nothing is said."""
    return Path("results") / (f"{name}.h5" if shard is None else f"{name}.{shard[0]}-of-{shard[1]}.h5")


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@run_options
def sweep(
    config: Path, seed: int | None, chips: str | None, out: Path | None, workers: int | None,
    **options: Any,
) -> None:  # fmt: skip
    """Run every combination of a TOML file's table [sweep] into one archive, or continue and extend it."""
    from dataclasses import replace

    from finetune.study.progress import progress, stoppable
    from finetune.study.runner import run_study
    from finetune.study.sweep import load_sweep

    name, cases = load_sweep(config)
    ids = chip_ids(chips)
    cases = [replace(case, config=case.config.replaced(seed=seed, chips=ids)) for case in cases]
    shard = shard_of(options["shard"])
    out = default_out(name, shard) if out is None else out
    n_workers = cores() if workers is None else workers
    print_notes(cases)
    if options["dry_run"]:
        _print_grid(name, cases, out, n_workers)
        return
    with (
        stoppable(),
        progress(cases, quiet=options["quiet"], verbose=options["verbose"]) as (notify, on_trial),
    ):
        study = run_study(
            cases,
            out,
            name=name,
            workers=n_workers,
            fresh=options["fresh"],
            notify=notify,
            on_trial=on_trial,
            scheduler=options["scheduler"],
            shard=shard,
            allow_mixed=options["allow_mixed"],
        )
    show_study(
        study, name, None if options["no_figures"] else out.with_suffix(""), as_json=options["as_json"]
    )
    if (csv := options["csv"]) is not None:
        click.echo(f"written: {study.export(with_ending(csv, '.csv'))}", err=options["as_json"])
    click.echo(f"archive: {out}", err=options["as_json"])


def show_study(study: Any, name: str, folder: Path | None, *, as_json: bool) -> None:
    """Table, or JSON, and figures by axis."""
    if as_json:
        click.echo(json.dumps(plain_rows(study.columns())))
    else:
        print_study(study, name)
    print_notices(study)
    if folder is not None and study.n_trials:
        from finetune.study.plot_sweep import draw_study

        paths = draw_study(study, folder)
        if paths:
            click.echo(f"figures: {folder}/ ({', '.join(path.name for path in paths)})", err=as_json)


def _print_grid(name: str, cases: list[Any], out: Path, workers: int) -> None:
    """The combinations, what is done, and a rough time and energy of what is left; nothing is run."""
    from rich.table import Table

    from finetune.study.archive import open_study
    from finetune.study.methods import plan_methods
    from finetune.study.report import console

    study = open_study(out) if out.exists() else {}
    by_digest = {archive.attributes.get("digest"): archive for archive in study.values()}
    table = Table(title=f"{name}: {len(cases)} combinations, nothing was run")
    for column in ("combination", "chips", "done"):
        table.add_column(column, justify="left" if column == "combination" else "right", overflow="fold")
    for column in ("s/chip", "h to go", "J to go"):
        table.add_column(column, justify="right")
    total = n_left = 0.0
    for case in cases:
        chips = case.config.experiment.chip_ids
        held = by_digest.get(case.config.digest)
        done = set() if held is None else set(held["trial/chip"].tolist())
        left = sum(chip not in done for chip in chips)
        rows = plan_methods(case.config)
        tuning = {row["strategy"]: row["tuning_seconds"] for row in rows}
        seconds = max((row["evaluation_seconds"] for row in rows), default=0.0)
        for row in rows:
            shared = tuning.get(row["starts_with"], 0.0)
            seconds += row["tuning_seconds"] - shared + row["evaluation_seconds"]
        joules = (
            float("nan") if held is None or not held.n_trials else held["ledger/joules"].sum() / held.n_trials
        )
        total, n_left = total + seconds * left, n_left + left
        table.add_row(
            case.label.replace("[", r"\["), str(len(chips)), str(len(chips) - left), f"{seconds:.1f}",
            f"{seconds * left / 3600:.2f}", "" if joules != joules else f"{joules * left:.2g}",
        )  # fmt: skip
    console().print(table)
    click.echo(f"{n_left:.0f} trials on {workers} workers: about {total / workers / 60:.1f} min of computing")


@click.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.option("--interval", type=click.FloatRange(0.05), default=2.0, help="Seconds between two looks.")
@click.option("--once", is_flag=True, help="Look once.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each trial, one a line.")
def watch(archive: Path, interval: float, once: bool, as_json: bool) -> None:
    """Follow a run from another terminal: trials as they end, until all are there."""
    from finetune.study.archive import open_study

    seen: set[tuple[str, int]] = set()
    while True:
        try:
            study = open_study(archive)
            for label, entry in study.items():
                for row, chip in enumerate(entry["trial/chip"].tolist()):
                    if (label, chip) not in seen:
                        seen.add((label, chip))
                        accuracy = entry["trial/accuracy"][row].tolist()
                        if as_json:
                            stages = dict(zip(entry.stages, accuracy, strict=True))
                            click.echo(json.dumps({"condition": label, "chip": chip, "accuracy": stages}))
                            continue
                        numbers = zip(entry.stages, accuracy, strict=True)
                        parts = ", ".join(f"{stage} {100 * value:.2f} %" for stage, value in numbers)
                        click.echo(f"{f'{label}; ' if label else ''}chip {chip}: {parts}")
            if once or study.n_trials >= study.n_planned:
                click.echo(f"{study.n_trials} of {study.n_planned} trials", err=as_json)
                return
        except InputError as error:
            if once or "open it again" not in str(error):  # replaced while it was read
                raise
        time.sleep(interval)


@click.group("archive")
def archive_group() -> None:
    """Check, merge, export and migrate archives."""


@archive_group.command()
@click.argument("archives", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; the exit code tells.")
def check(archives: tuple[Path, ...], quiet: bool) -> None:
    """Verify every byte and read everything."""
    from finetune.study.curate import check as check_archive

    for path in archives:
        found = check_archive(path)
        if not quiet:
            click.echo(f"{path}: {found}")


@archive_group.command()
@click.argument("archives", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New archive.")
@click.option("--allow-mixed", is_flag=True, help="Merge though BLAS, processor or libraries differ.")
def merge(archives: tuple[Path, ...], out: Path, allow_mixed: bool) -> None:
    """Join the archives of shards into one."""
    from finetune.study.curate import merge as merge_archives

    study = merge_archives(archives, out, allow_mixed=allow_mixed)
    click.echo(f"{study.n_trials} of {study.n_planned} trials in {len(study)} condition(s): {out}")


@archive_group.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
def export(archive: Path, file: Path) -> None:
    """Write the table into FILE (.csv, .parquet, .json), or all arrays (.nc)."""
    from finetune.study.archive import open_study

    study = open_study(archive)
    single = len(study) == 1 and not study.axes
    click.echo(f"written: {(next(iter(study.values())) if single else study).export(file)}")


@archive_group.command()
@click.argument("archives", nargs=-1, required=True, type=click.Path(path_type=Path))
def migrate(archives: tuple[Path, ...]) -> None:
    """Bring archives of version 1 to the current layout; values do not change."""
    from finetune.study.curate import check as check_archive
    from finetune.study.locking import locked
    from finetune.study.storage import migrate as migrate_archive

    for path in archives:
        check_archive(path)
        with locked(path):
            done = migrate_archive(path)
        click.echo(f"{path}: {'now version 2' if done else 'is version 2 already'}")


@archive_group.command()
@click.argument("archive", type=click.Path(path_type=Path))
def seal(archive: Path) -> None:
    """Accept an archive that another program has changed, with new checksums."""
    from finetune.study.curate import seal as seal_archive

    seal_archive(archive)
    click.echo(f"{archive}: sealed as it is")


@click.command("continue")
@click.argument("states", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--strategy", help="Tune further with a strategy that begins with that of the state.")
@click.option("--wait", "seconds", type=click.FloatRange(0.0), default=0.0, help="Seconds that pass.")
@click.option("--reads", type=click.FloatRange(0.0), default=0.0, help="Reads of every layer that act.")
@click.option("--maintain", help="Strategy that mends the chip at the end.")
@click.option("--save", type=click.Path(path_type=Path), help="Folder for the new states.")
@row_options
def continue_command(
    states: Sequence[Path], as_json: bool, csv: Path | None, save: Path | None, **given: Any
) -> None:
    """Take up chips that `run --save-chips` stored: tune further, wait, read, maintain, evaluate.

    STATES are files or folders of them. The steps are taken in the order of the options above.
    """
    from rich.table import Table

    from finetune.study.continuing import continue_chip
    from finetune.study.materials import Store
    from finetune.study.report import console

    files = [file for state in states for file in (sorted(state.glob("*.h5")) if state.is_dir() else [state])]
    if not files:
        raise InputError(f"{states[0]}: a folder without states of chips (*.h5)")
    store, rows = Store(), []
    for file in files:
        found = continue_chip(file, save=save, store=store, **given)
        total = found.life.chip.ledger.total
        rows.append(
            {
                "chip": found.chip_id,
                "method": found.method,
                "since then": found.what,
                "accuracy": found.accuracy,
                "cell writes": total.cell_writes,
                "array reads": total.array_reads,
            }
        )
    if csv is not None:
        write_csv(csv, rows, quiet=as_json)
    if as_json:
        echo_rows(rows)
        return
    n_images = len(found.predictions)
    table = Table(title=f"accuracy (%) on {n_images:,} test images; costs of the chip's whole life")
    for name in ("chip", "method", "since then", "accuracy", "cell writes", "array reads"):
        table.add_column(
            name, justify="left" if name in ("method", "since then") else "right", overflow="fold"
        )
    for row in rows:
        texts = (row["chip"], row["method"], row["since then"], f"{100 * float(str(row['accuracy'])):.2f}")
        counts = (f"{row['cell writes']:,}", f"{row['array reads']:.3g}")
        table.add_row(*(str(text).replace("[", r"\[") for text in texts), *counts)
    console().print(table)
