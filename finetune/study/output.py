"""Options that commands share, and rows as JSON or CSV."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from rramsim.checks import InputError

__all__ = ["echo_rows", "plain_rows", "row_options", "with_ending", "write_csv", "written"]


def row_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json` and `--csv FILE` of a command that prints a table."""
    options = [
        click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON instead of a table."),
        click.option("--csv", type=click.Path(path_type=Path), help="Write the rows into this file too."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def plain_rows(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows for JSON, which knows no NaN."""
    lists = [[None if value != value else value for value in values.tolist()] for values in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def echo_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as JSON; NaN and infinity, which JSON lacks, become null and text."""
    click.echo(json.dumps([{key: _plain(value) for key, value in row.items()} for row in rows]))


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and value != value:
        return None
    return str(value) if isinstance(value, float) and value in (float("inf"), float("-inf")) else value


def write_csv(path: Path, rows: Sequence[dict[str, Any]], *, quiet: bool = False) -> None:
    """Write rows as CSV; lists become text with commas."""
    import csv

    path = with_ending(path, ".csv")
    names = list(dict.fromkeys(name for row in rows for name in row))
    with written(path, err=quiet):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows([[_cell(row.get(name, "")) for name in names] for row in rows])


def _cell(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def with_ending(path: Path, ending: str) -> Path:
    """The path, with an ending added where it has another one."""
    return path if path.suffix == ending else path.with_name(path.name + ending)


@contextmanager
def written(path: Path, *, err: bool = False) -> Iterator[None]:
    """A file is being written: what the system refuses becomes one line; its name is printed."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path}: cannot be written ({reason})") from None
    click.echo(f"written: {path}", err=err)
