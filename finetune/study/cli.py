"""The command `rramsim`."""

from __future__ import annotations

import json
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import click

from finetune.study.catalogue import config, info, presets
from finetune.study.commands import (
    archive_group,
    chip_ids,
    continue_command,
    default_out,
    run_options,
    shard_of,
    show_study,
    sweep,
    watch,
)
from finetune.study.cost import cost, print_bill
from finetune.study.devices import fit_device
from finetune.study.output import echo_rows, plain_rows, row_options, with_ending, written
from finetune.study.report import print_comparison, print_notes, print_notices, print_plan, print_table
from rramsim.checks import InputError
from rramsim.parallel import cores

__all__ = ["main"]


class _Commands(click.Group):
    """Bad input becomes one line on stderr and exit code 2; Ctrl-C exit code 130."""

    def invoke(self, ctx: click.Context) -> Any:
        said: set[str] = set()  # a grid of many conditions says a thing once

        def show(message: Warning | str, *_: Any) -> None:
            text = " ".join(str(message).split())
            if text not in said:
                said.add(text)
                click.echo(f"warning: {text}", err=True)

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", UserWarning)
                warnings.showwarning = show  # type: ignore[assignment]
                return super().invoke(ctx)
        except InputError as error:
            click.echo(f"error: {' '.join(str(error).split())}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command continues with the next trial", err=True)
            # leaving joins the threads of executors that are not ours; the archive is whole after every
            # trial, so leave anyway
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


main.add_command(cost)
main.add_command(sweep)
main.add_command(watch)
main.add_command(archive_group)


@main.command()
@click.argument("experiment", metavar="[CONFIG]", required=False, type=click.Path(path_type=Path))
@run_options
@click.option(
    "--save-chips", type=click.Path(), help="Folder for the states of tuned chips, for `rramsim continue`."
)
def run(
    experiment: Path | None, seed: int | None, chips: str | None, out: Path | None, workers: int | None,
    **options: Any,
) -> None:  # fmt: skip
    """Run an experiment from a TOML file (without one: the reference conditions), or continue it."""
    from finetune.study.config import default_experiment, load_experiment
    from finetune.study.progress import progress, stoppable
    from finetune.study.runner import run_experiment
    from finetune.study.sweep import Case

    settings = default_experiment() if experiment is None else load_experiment(experiment)
    settings = settings.replaced(seed=seed, chips=chip_ids(chips), save_chips=options["save_chips"])
    shard, as_json = shard_of(options["shard"]), options["as_json"]
    n_workers = cores() if workers is None else workers
    case = Case("", settings, {})
    print_notes([case])
    if options["dry_run"]:
        print_plan(settings, n_workers)
        return
    out = default_out(settings.experiment.name, shard) if out is None else out
    with stoppable(), progress([case], quiet=options["quiet"], verbose=options["verbose"]) as (hear, done):
        archive = run_experiment(
            settings,
            out,
            workers=n_workers,
            fresh=options["fresh"],
            notify=None if hear is None else lambda *message: hear("", *message),
            on_trial=None if done is None else lambda *message: done("", *message),
            scheduler=options["scheduler"],
            shard=shard,
            allow_mixed=options["allow_mixed"],
        )
    _show(archive, None if options["no_figures"] else out.with_suffix(""), as_json=as_json)
    if options["csv"] is not None:
        click.echo(f"written: {archive.export(with_ending(options['csv'], '.csv'))}", err=as_json)
    _note_missing_states(settings)
    _note_overlap(settings.cells)
    click.echo(f"archive: {out}", err=as_json)


@main.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the figures [default: beside the archive]."
)
@click.option("--no-figures", is_flag=True, help="Draw nothing.")
@click.option("--html", type=click.Path(path_type=Path), help="Write one page that holds everything.")
@row_options
def report(
    archive: Path, out: Path | None, no_figures: bool, html: Path | None, as_json: bool, csv: Path | None
) -> None:
    """Table and figures of an archive, of a study, or of a folder of archives."""
    from finetune.study.archive import open_study

    study = open_study(archive)
    default = archive / "figures" if archive.is_dir() else archive.with_suffix("")
    wanted = not no_figures and (html is None or out is not None)  # the page holds the figures
    folder = (default if out is None else out) if wanted else None
    single = len(study) == 1 and not study.axes
    if single:
        _show(next(iter(study.values())), folder, as_json=as_json)
    else:
        show_study(study, archive.stem, folder, as_json=as_json)
    if csv is not None:
        table = next(iter(study.values())) if single else study
        click.echo(f"written: {table.export(with_ending(csv, '.csv'))}", err=as_json)
    if html is not None:
        from finetune.study.html_report import write_page

        click.echo(f"written: {write_page(study, html)}", err=as_json)


@main.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.option(
    "--by", default="strategy", help="`strategy`, `age`, or what a study swept [default: strategy]."
)
@click.option(
    "--baseline",
    help="What the others are compared with [default: the best, the fresh chip, or the first value].",
)
@row_options
def compare(archive: Path, by: str, baseline: str | None, as_json: bool, csv: Path | None) -> None:
    """Paired differences within an archive or a study: intervals, exact tests, effect size, chips needed."""
    from finetune.study.analysis import compare_conditions
    from finetune.study.archive import open_study

    study = open_study(archive)
    frame = compare_conditions(study, by=by, baseline=baseline)
    if as_json:
        echo_rows(frame.to_dict("records"))
    else:
        print_comparison(study, frame)
    if csv is not None:
        with written(csv, err=as_json):
            frame.to_csv(csv, index=False)


main.add_command(fit_device)
main.add_command(presets)
main.add_command(info)
main.add_command(config)
main.add_command(continue_command)


# -- parts ----------------------------------------------------------------------------------------


def _note_missing_states(settings: Any) -> None:
    """Trials that were in the archive already have left no states."""
    from finetune.study.snapshots import snapshot_path

    folder = settings.experiment.save_chips
    if folder is None:
        return
    wanted = [(chip, method) for chip in settings.experiment.chip_ids for method in settings.methods]
    missing = [pair for pair in wanted if not snapshot_path(folder, *pair).is_file()]
    click.echo(f"states of {len(wanted) - len(missing)} chips and methods: {folder}/", err=True)
    if missing:
        click.echo(
            f"note: {len(missing)} states are missing: their trials were in the archive before, or ran "
            "elsewhere; --fresh runs them again",
            err=True,
        )


def _note_overlap(cells: Any) -> None:
    """Say on stderr when levels overlap beyond use, with the raw level error rate."""
    import warnings

    from rramsim.cell import OverlapWarning, check_overlap

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OverlapWarning)
        check_overlap(cells)
    for entry in caught:
        click.echo(f"note: {entry.message}", err=True)


def _show(archive: Any, folder: Path | None, *, as_json: bool) -> None:
    """Table, or JSON, and figures of one experiment."""
    if as_json:
        click.echo(json.dumps(plain_rows(archive.columns())))
    else:
        print_table(archive)
        print_bill(archive)
    print_notices({"": archive})
    if folder is not None:
        from finetune.study.plot import draw_figures

        paths = draw_figures(archive, folder)
        click.echo(f"figures: {folder}/ ({', '.join(path.name for path in paths)})", err=as_json)


if __name__ == "__main__":
    main()
