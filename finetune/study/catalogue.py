"""Commands that show what there is: `presets`, `info`, `config`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from finetune.study.devices import check_preset, reading_options
from finetune.study.output import echo_rows, row_options, write_csv, written
from finetune.study.report import console
from rramsim.checks import InputError
from rramsim.parallel import cores

__all__ = ["config", "info", "numbers_of", "presets"]

LONG = ("cpu_features",)  # hundreds of characters, in `rramsim info --json`


@click.command()
@click.argument("name", required=False)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the preset into this file.")
@click.option(
    "--check", type=click.Path(path_type=Path), help="Compare with measurements; options as of fit-device."
)
@reading_options
@row_options
def presets(
    name: str | None, plot: Path | None, check: Path | None, as_json: bool, csv: Path | None, **options: Any
) -> None:
    """List the published devices, or show one with the source of every number."""
    from rich.table import Table

    from rramsim.cell import list_presets, load_preset

    if name is None:
        if plot is not None or check is not None:
            raise InputError(f"{'--plot' if check is None else '--check'} needs the name of a preset")
        known = [load_preset(entry) for entry in list_presets()]
        rows = [{"preset": entry.name, "device": entry.title, "needs": list(entry.needs)} for entry in known]
        _show_rows(rows, Table("preset", "device", "needs"), as_json, csv)
        return
    if check is not None:
        check_preset(name, check, options)
        return
    preset = load_preset(name)
    table = Table("quantity", "value", "unit", "mark", "source", title=f"{preset.name}: {preset.title}")
    rows = [
        {
            "quantity": item.key,
            "value": item.value,
            "unit": item.unit,
            "mark": item.mark,
            "source": item.source,
        }
        for item in preset.evidence
    ]
    _show_rows(rows, table, as_json, csv)
    if not as_json:
        terminal = console()
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
        with written(plot, err=as_json):
            preset_figure(name, plot)


def _show_rows(rows: list[dict[str, Any]], table: Any, as_json: bool, csv: Path | None) -> None:
    """Rows as a table or as JSON, and as CSV."""
    if as_json:
        echo_rows(rows)
    else:
        for row in rows:
            table.add_row(*(_brief(value).replace("[", r"\[") for value in row.values()))
        console().print(table)
    if csv is not None:
        write_csv(csv, rows, quiet=as_json)


@click.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the arrays of CONFIG into this file.")
@click.option("--shape", help="Shape of one input where an ONNX file leaves it open, such as 3,224,224.")
@click.option("--tile", help="Word lines and bit lines of a network's tiles [default: 128,128].")
@row_options
def info(
    config: Path | None, plot: Path | None, shape: str | None, tile: str | None, as_json: bool,
    csv: Path | None,
) -> None:  # fmt: skip
    """Versions, threads, data sets, networks; of an experiment's CONFIG or a network file its layers.

    A network is an HDF5 or ONNX file, or the name of a shipped one.
    """
    experiment = config is not None and config.suffix == ".toml"
    if plot is not None and not experiment:
        raise InputError("--plot needs the TOML file of an experiment, whose chip it draws")
    if (shape or tile) and (experiment or config is None):
        raise InputError(
            "--shape and --tile are for a network; an experiment has its arrays in mapping.tile_rows and "
            "mapping.tile_cols"
        )
    if config is not None and not experiment:
        _describe_network(str(config), shape, tile or "128,128", as_json, csv)
    elif config is not None:
        _chip_map(config, plot, as_json, csv)
    else:
        _overview(as_json, csv)


def _overview(as_json: bool, csv: Path | None) -> None:
    """What is installed and shipped."""
    import numba
    from rich.table import Table

    import rramsim
    from finetune.study.machine import versions
    from rramsim.datasets.embedded import LOADERS, load_dataset
    from rramsim.datasets.teachers import load_teacher, teacher_names
    from rramsim.host.summary import summarise

    known = {"rramsim": rramsim.__version__, **json.loads(versions())}
    data = []
    for name in LOADERS:
        try:
            late = name == "fashion_mnist_full"
            data.append(
                {
                    "data set": name,
                    "found": "fetched when first used" if late else load_dataset(name).describe(),
                }
            )
        except InputError as error:
            data.append({"data set": name, "found": f"no: {error}"})
    networks: list[dict[str, Any]] = []
    for name in teacher_names():
        network = load_teacher(name)
        summary = summarise(network)
        networks.append(
            {
                "network": name,
                "data set": str(network.metadata.get("dataset", "")),
                "weights": summary.chip_weights,
                "weight_share": summary.weight_share,
                "mac_share": summary.mac_share,
                "test accuracy": network.metadata.get("test_accuracy"),
            }
        )
    if csv is not None:
        write_csv(csv, networks, quiet=as_json)
    if as_json:
        threads = {"cores": cores(), "threads": numba.get_num_threads()}
        click.echo(json.dumps({"versions": known, **threads, "data sets": data, "networks": networks}))
        return
    terminal = console()
    known["blas"] = " and ".join(known["blas"])
    terminal.print(
        ", ".join(f"{name} {version}" for name, version in known.items() if name not in LONG), highlight=False
    )
    terminal.print(f"{cores()} cores, {numba.get_num_threads()} threads of Numba", highlight=False)
    table = Table("data set", "found")
    for row in data:
        table.add_row(*row.values())
    terminal.print(table)
    table = Table("network", "data set", "weights", "on the chip", "MACs on the chip", "test accuracy")
    for entry in networks:
        accuracy = entry["test accuracy"]
        shown = "" if accuracy is None else f"{100 * accuracy:.2f} %"
        shares = f"{100 * entry['weight_share']:.1f} %", f"{100 * entry['mac_share']:.1f} %"
        table.add_row(entry["network"], entry["data set"], f"{entry['weights']:,}", *shares, shown)
    terminal.print(table)


def _chip_map(config: Path, plot: Path | None, as_json: bool, csv: Path | None) -> None:
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
    rows = [
        {"layer": row["layer"], "rows": shapes[row["layer"]][0], "columns": shapes[row["layer"]][1],
         "arrays": list(row["tiles"]), "cells": row["cells"], "share of them": row["share"]}
        for row in placed.table()
    ]  # fmt: skip
    if csv is not None:
        write_csv(csv, rows, quiet=as_json)
    if as_json:
        echo_rows(rows)
    else:
        table = Table("layer", "rows x columns", "arrays", "cells", "share of them")
        for row in rows:
            arrays = ", ".join(str(number) for number in row["arrays"])
            size = f"{row['rows']} x {row['columns']}"
            table.add_row(
                row["layer"], size, arrays, f"{row['cells']:,}", f"{100 * row['share of them']:.1f} %"
            )
        terminal = console()
        terminal.print(table)
        terminal.print(
            f"{len(placed.shapes)} arrays ({experiment.mapping.placement}), "
            f"{100 * placed.utilisation:.1f} % of their cells hold layers; on the chip: "
            f"{100 * summary.weight_share:.1f} % of the weights, "
            f"{100 * summary.mac_share:.1f} % of the multiply-accumulates",
            highlight=False,
        )
    if plot is not None:
        from rramsim.chip.plot import map_figure

        with written(plot, err=as_json):
            map_figure(placed, plot)


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Check FILE, and network, data set and strategies with it.")
@click.option("--schema", is_flag=True, help="Print a JSON schema of the file, for editors.")
@click.option("--changed", is_flag=True, help="Only settings that differ from those of an empty file.")
@click.option("--json", "as_json", is_flag=True, help="Print the settings as JSON instead of TOML.")
def config(file: Path | None, check: bool, schema: bool, changed: bool, as_json: bool) -> None:
    """Print all settings of FILE with units, ranges and meanings (without one: the reference conditions).

    The text is a TOML file that `rramsim run` takes. FILE may have a table [sweep]; its first combination is
    shown, and all are checked.
    """
    from finetune.study.config import default_experiment, load_experiment
    from finetune.study.describe import annotated_toml, json_schema, setting_rows
    from finetune.study.sweep import load_sweep
    from rramsim.config import read_toml, to_table

    if schema:
        click.echo(json.dumps(json_schema(), indent=1))
        return
    if check and file is None:
        raise InputError("--check needs the TOML file to check")
    if file is None:
        cases = [default_experiment()]
    elif "sweep" in read_toml(file):
        cases = [case.config for case in load_sweep(file)[1]]
    else:
        cases = [load_experiment(file)]
    if check:
        _check_all(file, cases)
    elif changed:
        for row in setting_rows(cases[0]):
            if not row.is_default:
                unit = f" {row.about.unit}" if row.about.unit not in ("", "1") else ""
                click.echo(f"{row.key} = {_brief(row.value)}{unit}  (default: {row.about.default or 'none'})")
    elif as_json:
        click.echo(json.dumps(to_table(cases[0])))
    else:
        click.echo(annotated_toml(cases[0]), nl=False)


def _check_all(file: Path | None, cases: list[Any]) -> None:
    """What `run` and `sweep` check before the first trial, and settings that change nothing."""
    from finetune.strategies.composition import parse_strategy
    from finetune.study.config import unread_of_experiment
    from finetune.study.materials import Store

    store = Store()
    notes: dict[str, None] = {}
    for case in cases:
        materials = store.get(case)
        chip = materials.chip(case.experiment.chip_ids[0])
        for strategy in case.all_strategies:
            parse_strategy(strategy).check_chip(chip)
        notes |= dict.fromkeys(unread_of_experiment(case))
    for text in notes:
        click.echo(f"note: {text}", err=True)
    n_trials = sum(len(case.experiment.chip_ids) for case in cases)
    count = "1 experiment" if len(cases) == 1 else f"{len(cases):,} combinations"
    click.echo(f"{file}: good; {count}, {n_trials:,} trials")


def _describe_network(name: str, shape: str | None, tile: str, as_json: bool, csv: Path | None) -> None:
    """Table of what a chip holds of a network, and the shares of weights and multiply-accumulates."""
    from rich.table import Table

    from finetune.study.materials import load_network
    from rramsim.chip.layout import MappingConfig, TileLayout
    from rramsim.host.summary import summarise

    network = load_network(name, None if shape is None else numbers_of(shape, "--shape", "3,224,224"))
    lines = numbers_of(tile, "--tile", "128,128")
    if len(lines) != 2:
        raise InputError(f"--tile must be two numbers such as 128,128, got {tile!r}")
    mapping = MappingConfig(tile_rows=lines[0], tile_cols=lines[1])
    summary = summarise(network)
    rows: list[dict[str, Any]] = []
    for layer in summary.layers:
        layout = TileLayout.build(layer.rows, layer.columns, mapping)
        tiles = layer.layers * len(layout.row_tiles) * len(layout.col_tiles)
        where = "" if layer.on_chip else "at the host: "
        rows.append(
            {"node": layer.node, "operator": layer.op, "arrays": layer.layers, "rows": layer.rows,
             "columns": layer.columns, "tiles": tiles, "vectors": layer.vectors, "MACs": layer.macs,
             "note": where + layer.note}
        )  # fmt: skip
    n_tiles = sum(row["tiles"] for row in rows)
    if csv is not None:
        write_csv(csv, rows, quiet=as_json)
    if as_json:
        echo_rows(rows)
        return
    table = Table("node", "operator", "arrays", "rows x columns", "tiles", "vectors", "MACs", "note")
    for row in rows:
        size, count = f"{row['rows']:,} x {row['columns']:,}", f"{row['tiles']:,}" if row["tiles"] else ""
        numbers = (size, count, f"{row['vectors']:,}", f"{row['MACs']:,}")
        table.add_row(row["node"], row["operator"], str(row["arrays"] or ""), *numbers, row["note"])
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


def numbers_of(text: str, option: str, example: str) -> tuple[int, ...]:
    """Positive whole numbers with commas between, as an option gives them."""
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
