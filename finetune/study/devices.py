"""The command `fit-device`, and the comparison of a preset with measurements."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from finetune.study.output import echo_rows, row_options, write_csv, written
from rramsim.checks import InputError

__all__ = ["check_preset", "fit_device", "reading_options"]


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    found = {}
    for text in texts:
        for part in text.split(",") if option != "--set" else (text,):
            name, mark, value = part.partition("=")
            if not mark or not value.strip():
                raise InputError(f"{option} must be NAME=VALUE, got {part!r}")
            found[name.strip()] = value.strip()
    return found


def _floats(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} must be numbers with commas between, got {text!r}") from None


def _reading(**given: Any) -> Any:
    """`ReadingConfig` from the recipe and the options beside it."""
    from rramsim.cell.fit import ReadingConfig, load_recipe

    recipe = given["recipe"]
    base = load_recipe(recipe) if recipe is not None else ReadingConfig()
    compute = _pairs(given["compute"], "--set")
    if given["level"] is not None:
        compute["level"] = given["level"]
    columns = {
        name: int(value) if value.isdigit() else value
        for name, value in _pairs(given["column"], "--column").items()
    }
    changes: dict[str, Any] = {
        "columns": {**base.columns, **columns},
        "units": {**base.units, **_pairs(given["unit"], "--unit")},
        "compute": {**base.compute, **compute},
        "quantity": given["quantity"],
        "voltage": given["voltage"],
        "wide": given["wide"],
        "separator": given["separator"],
        "header": None if given["header"] is None else ("yes" if given["header"] else "no"),
        "nominal": _floats(given["levels"], "--levels"),
        "n_bins": given["bins"],
        "file_times": _floats(given["file_times"], "--file-times"),
        "max_bad": given["max_bad"],
        "min_cells": given["min_cells"],
    }
    return dataclasses.replace(base, **{key: value for key, value in changes.items() if value is not None})


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that correct how measurement files are read."""
    options = [
        click.option("--column", multiple=True, metavar="NAME=N", help="Meaning of a column: level=3."),
        click.option("--unit", multiple=True, metavar="NAME=UNIT", help="Unit of a column: g=uS, time=h."),
        click.option("--set", "compute", multiple=True, metavar="NAME=EXPR",
                     help="Compute a column from i (row), k (column of a wide table) and others."),
        click.option("--level", metavar="EXPR", help='Level of row i, such as "(i + i // 32) % 8".'),
        click.option("--resistance", "quantity", flag_value="resistance", help="Values are resistances."),
        click.option("--conductance", "quantity", flag_value="conductance", help="Values are conductances."),
        click.option("--current", "quantity", flag_value="current", help="Values are currents at --voltage."),
        click.option("--voltage", type=float, help="Read voltage of currents (V)."),
        click.option("--wide", metavar="2-", help="Columns of a wide table that repeat the quantity."),
        click.option("--separator", help="Between columns: a character, tab or space."),
        click.option("--header/--no-header", default=None, help="Whether names stand above the columns."),
        click.option("--levels", metavar="S,S,...", help="Nominal levels (S) for continuous targets."),
        click.option("--bins", type=int, help="Number of levels for continuous targets."),
        click.option("--file-times", metavar="s,s,...", help="Time since the write of each file (s)."),
        click.option("--max-bad", type=float, help="Share of unusable values that is left out, not refused."),
        click.option("--min-cells", type=int, help="Values that a level needs."),
        click.option("--recipe", type=click.Path(path_type=Path), help="TOML file with a table [reading]."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command("fit-device")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@reading_options
@click.option("--out", type=click.Path(path_type=Path), help="Write a preset that cells.preset accepts.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the fit into this file.")
@row_options
def fit_device(
    files: tuple[Path, ...],
    out: Path | None,
    plot: Path | None,
    as_json: bool,
    csv: Path | None,
    **options: Any,
) -> None:
    """Fit a device to measurement files: levels, errors, drift, noise, pulses, faults.

    CSV, TSV, gzip or xlsx as the laboratory wrote them. What the reader guesses is printed first and
    can be corrected by the options. The rows of --json and --csv are parameters with their 95 % intervals (SI
    units).
    """
    from rramsim.cell.fit import fit

    result = fit(list(files), _reading(**options))
    names = ("value", "low", "high")
    rows = [
        {"parameter": name} | dict(zip(names, values, strict=True))
        for name, values in result.intervals().items()
    ]
    if as_json:
        echo_rows(rows)
    else:
        click.echo(result.summary())
    if csv is not None:
        write_csv(csv, rows, quiet=as_json)
    if out is not None:
        with written(out, err=as_json):
            result.save(out)
    if plot is not None:
        from rramsim.cell.plot import fit_figure

        with written(plot, err=as_json):
            fit_figure(result, plot)


def check_preset(name: str, file: Path, options: dict[str, Any]) -> None:
    """Print how far a preset's simulated cells are from measured ones, level by level."""
    from rich.table import Table

    from finetune.study.report import console
    from rramsim.cell import load_preset
    from rramsim.cell.fit import programmed_values, simulated_ks, simulated_levels

    config = load_preset(name).cells()
    values = programmed_values(file, _reading(**options))
    if len(values) != config.n_levels:
        raise InputError(
            f"{file}: has {len(values)} levels and preset {name!r} {config.n_levels}; they cannot be compared"
        )
    table = Table("level", "values", "mean (uS)", "preset", "sigma (uS)", "preset", "KS distance")
    simulated = simulated_levels(config)
    for level, (row, cells, ks) in enumerate(
        zip(values, simulated, simulated_ks(config, values), strict=True)
    ):
        numbers = (row.mean(), cells.mean(), row.std(ddof=1), cells.std())
        table.add_row(str(level), str(len(row)), *(f"{1e6 * x:.4g}" for x in numbers), f"{ks:.3f}")
    console().print(table)
