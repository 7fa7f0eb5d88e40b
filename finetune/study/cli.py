"""The command `rramsim`."""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from finetune.study.commands import (
    archive_group,
    chip_ids,
    default_out,
    plain_rows,
    run_options,
    shard_of,
    show_study,
    sweep,
    watch,
)
from finetune.study.devices import check_preset, fit_device, reading_options
from finetune.study.report import (
    console,
    print_comparison,
    print_notes,
    print_notices,
    print_plan,
    print_table,
)
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
            # leaving joins the threads of executors that are not ours; the archive is whole after every
            # trial, so leave anyway
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


main.add_command(sweep)
main.add_command(watch)
main.add_command(archive_group)


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@run_options
def run(
    config: Path | None, seed: int | None, chips: str | None, out: Path | None, workers: int | None,
    **options: Any,
) -> None:  # fmt: skip
    """Run an experiment from a TOML file (without one: the reference conditions), or continue it."""
    from finetune.study.config import default_experiment, load_experiment
    from finetune.study.progress import progress, stoppable
    from finetune.study.runner import run_experiment
    from finetune.study.sweep import Case

    settings = default_experiment() if config is None else load_experiment(config)
    settings = settings.replaced(seed=seed, chips=chip_ids(chips))
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
    _note_overlap(settings.cells)
    click.echo(f"archive: {out}", err=as_json)


@main.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the figures [default: beside the archive]."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of a table.")
def report(archive: Path, out: Path | None, as_json: bool) -> None:
    """Table and figures of an archive, of a study, or of a folder of archives."""
    from finetune.study.archive import open_study

    study = open_study(archive)
    default = archive / "figures" if archive.is_dir() else archive.with_suffix("")
    if len(study) == 1 and not study.axes:
        _show(next(iter(study.values())), default if out is None else out, as_json=as_json)
    else:
        show_study(study, archive.stem, default if out is None else out, as_json=as_json)


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
@click.option(
    "--check", type=click.Path(path_type=Path), help="Compare with measurements; options as of fit-device."
)
@reading_options
def presets(name: str | None, plot: Path | None, check: Path | None, **options: Any) -> None:
    """List the published devices, or show one with the source of every number."""
    from rich.table import Table

    from rramsim.cell import list_presets, load_preset

    terminal = console()
    if name is None:
        if plot is not None or check is not None:
            raise InputError(f"{'--plot' if check is None else '--check'} needs the name of a preset")
        table = Table("preset", "device", "needs")
        for entry in list_presets():
            preset = load_preset(entry)
            table.add_row(entry, preset.title, ", ".join(preset.needs))
        terminal.print(table)
        return
    if check is not None:
        check_preset(name, check, options)
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


main.add_command(fit_device)


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the arrays of CONFIG into this file.")
@click.option("--shape", help="Shape of one input where an ONNX file leaves it open, such as 3,224,224.")
@click.option("--tile", default="128,128", show_default=True, help="Word lines and bit lines of a tile.")
def info(config: Path | None, plot: Path | None, shape: str | None, tile: str) -> None:
    """Versions, threads, data sets, networks; of an experiment's CONFIG or a network file its layers.

    A network is an HDF5 or ONNX file, or the name of a shipped one.
    """
    if config is not None and config.suffix != ".toml":
        _describe_network(str(config), shape, tile)
        return
    import json

    import numba
    from rich.table import Table

    from finetune.study.machine import versions
    from rramsim.datasets.embedded import LOADERS, load_dataset
    from rramsim.datasets.teachers import load_teacher, teacher_names
    from rramsim.host.summary import summarise

    if config is not None:
        _chip_map(config, plot)
        return
    if plot is not None:
        raise InputError("--plot needs the TOML file of an experiment, whose chip it draws")
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
    table = Table("network", "data set", "weights", "on the chip", "MACs on the chip", "test accuracy")
    for name in teacher_names():
        network = load_teacher(name)
        accuracy = network.metadata.get("test_accuracy")
        shown = "" if accuracy is None else f"{100 * accuracy:.2f} %"
        summary = summarise(network)
        shares = f"{summary.weight_share:.1%}", f"{summary.mac_share:.1%}"
        data = str(network.metadata.get("dataset", ""))
        table.add_row(name, data, f"{summary.chip_weights:,}", *shares, shown)
    terminal.print(table)


def _chip_map(config: Path, plot: Path | None) -> None:
    """Print, and draw, where the layers of an experiment's network lie on the arrays of its chips."""
    from rich.table import Table

    from finetune.study.config import load_experiment
    from finetune.study.materials import Materials
    from rramsim.chip.layout import TileLayout
    from rramsim.chip.placement import place_layers
    from rramsim.host.layer import layer_shapes
    from rramsim.host.summary import summarise

    experiment = load_experiment(config)
    network = Materials.load(experiment).network
    shapes, summary = layer_shapes(network), summarise(network)
    layouts = {name: TileLayout.build(*shape, experiment.mapping) for name, shape in shapes.items()}
    placed = place_layers(layouts, experiment.mapping)
    table = Table("layer", "rows x columns", "arrays", "cells", "share of them")
    for row in placed.table():
        rows, columns = shapes[row["layer"]]
        arrays = ", ".join(str(number) for number in row["tiles"])
        table.add_row(row["layer"], f"{rows} x {columns}", arrays, f"{row['cells']:,}", f"{row['share']:.1%}")
    terminal = console()
    terminal.print(table)
    terminal.print(
        f"{len(placed.shapes)} arrays ({experiment.mapping.placement}), {placed.utilisation:.1%} of their "
        f"cells hold layers; on the chip: {summary.weight_share:.1%} of the weights, {summary.mac_share:.1%} "
        "of the multiply-accumulates",
        highlight=False,
    )
    if plot is not None:
        from rramsim.chip.plot import map_figure

        map_figure(placed, plot)
        terminal.print(f"drawn: {plot}", highlight=False)


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


def _describe_network(name: str, shape: str | None, tile: str) -> None:
    """Table of what a chip holds of a network, and the shares of weights and multiply-accumulates."""
    from rich.table import Table

    from finetune.study.materials import load_network
    from rramsim.chip.layout import MappingConfig, TileLayout
    from rramsim.host.summary import summarise

    network = load_network(name, None if shape is None else _numbers(shape, "--shape", "3,224,224"))
    lines = _numbers(tile, "--tile", "128,128")
    if len(lines) != 2:
        raise InputError(f"--tile must be two numbers such as 128,128, got {tile!r}")
    mapping = MappingConfig(tile_rows=lines[0], tile_cols=lines[1])
    summary = summarise(network)
    table = Table("node", "operator", "arrays", "rows x columns", "tiles", "vectors", "MACs", "note")
    n_tiles = 0
    for row in summary.layers:
        layout = TileLayout.build(row.rows, row.columns, mapping)
        tiles = row.layers * len(layout.row_tiles) * len(layout.col_tiles)
        n_tiles += tiles
        numbers = (f"{tiles:,}" if tiles else "", f"{row.vectors:,}", f"{row.macs:,}")
        size = f"{row.rows:,} x {row.columns:,}"
        note = row.note if row.on_chip else f"at the host: {row.note}"
        table.add_row(row.node, row.op, str(row.layers or ""), size, *numbers, note)
    terminal = console()
    inputs = ", ".join(f"{key} {shape} {dtype}" for key, (shape, dtype) in network.inputs.items())
    terminal.print(f"{network.name}: inputs {inputs}", highlight=False)
    terminal.print(table)
    terminal.print(
        f"on the chip: {summary.chip_weights:,} weights ({100 * summary.weight_share:.1f} % of all) on "
        f"{n_tiles:,} tiles of {lines[0]} x {lines[1]} lines (differential pairs), "
        f"{100 * summary.mac_share:.1f} % of the multiply-accumulates of matrix products",
        highlight=False,
    )


def _numbers(text: str, option: str, example: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise InputError(f"{option} must be positive whole numbers such as {example}, got {text!r}")
    return numbers


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


def _show(archive: Any, folder: Path | None, *, as_json: bool) -> None:
    """Table, or JSON, and figures of one experiment."""
    if as_json:
        click.echo(json.dumps(plain_rows(archive.columns())))
    else:
        print_table(archive)
    print_notices({"": archive})
    if folder is not None:
        from finetune.study.plot import draw_figures

        paths = draw_figures(archive, folder)
        click.echo(f"figures: {folder}/ ({', '.join(path.name for path in paths)})", err=as_json)


if __name__ == "__main__":
    main()
