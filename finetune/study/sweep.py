"""Grids of experiments: the table [sweep] of a TOML file.

A key names one setting, or several that move together, by dotted paths separated by blanks.  Its value is a
list, a range, or rows of values for several settings:

    [sweep]
    "disturb.cycles_before" = [0, 10000]
    "converters.v_read disturb.v_read" = [0.2, 0.3]                 # the same value for both
    "cells.sigma" = { from = 0.1, to = 0.5, count = 5 }             # or step = 0.1; log = true for ratios
    "cells.n_levels cells.g_max" = { zip = [[4, 40e-6], [16, 90e-6]] }
    "cells.preset" = ["milo_ihp_2021", "wan_2022"]
    "experiment.network experiment.dataset" = { zip = [["cnn_digits", "digits"], ["my.h5", "mine.npz"]] }
    "tuning.strategies" = ["default", ["batch_norm", "lsq.affine"]]

Every combination is a condition of the study, known by the digest of its settings: axes, values and chips
can be added later, and what was computed stays.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.study.config import ExperimentConfig, experiment_from
from rramsim.checks import InputError, nearest_name
from rramsim.config import read_toml

__all__ = ["Case", "load_sweep"]

MAX_CASES = 100_000
RANGE = ("from", "to", "count", "step", "log")


@dataclass(frozen=True)
class Case:
    """One combination of a grid."""

    label: str  # such as "v_read=0.2, cycles_before=0"
    config: ExperimentConfig
    coordinates: dict[str, Any]  # value of each axis


@dataclass(frozen=True)
class _Axis:
    """One key of the table: settings that it moves, names of its coordinates, values at each point."""

    keys: list[str]
    names: list[str]
    rows: list[list[Any]]


def load_sweep(path: str | Path) -> tuple[str, list[Case]]:
    """Name of a study and its conditions; all are checked before any runs.

    Raises
    ------
    InputError
        No table [sweep], an empty grid, or settings that do not exist or do not fit.
    """
    path = Path(path)
    table = read_toml(path)
    grid = table.pop("sweep", None)
    if not isinstance(grid, dict) or not grid:
        raise InputError(f"{path}: needs a table [sweep] with at least one list of values")
    axes = _named([_axis(key, value, path) for key, value in _flat(grid)])
    n_cases = math.prod(len(axis.rows) for axis in axes)
    if n_cases > MAX_CASES:
        raise InputError(f"{path}: the grid has {n_cases} combinations; at most {MAX_CASES} make a study")
    cases: list[Case] = []
    labels: dict[str, str] = {}
    for rows in itertools.product(*(axis.rows for axis in axes)):
        changed = copy.deepcopy(table)
        coordinates: dict[str, Any] = {}
        for axis, row in zip(axes, rows, strict=True):
            for key, value in zip(axis.keys, row, strict=True):
                _set(changed, key, value, path)
            coordinates |= dict(zip(axis.names, row, strict=False))
        label = ", ".join(f"{name}={_text(value)}" for name, value in coordinates.items())
        try:
            case = Case(label, experiment_from(changed, path), coordinates)
        except InputError as error:
            raise InputError(f"{error} (at {label})") from None
        if (twin := labels.setdefault(case.config.digest, label)) is not label:
            raise InputError(f"{path}: two combinations are the same experiment: {twin!r} and {label!r}")
        cases.append(case)
    return cases[0].config.experiment.name, cases


def _flat(grid: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys with their values; a key without quotation marks arrives as tables within tables."""
    for key, value in grid.items():
        if isinstance(value, dict) and not set(value) & {*RANGE, "zip"} and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _axis(key: str, value: Any, path: Path) -> _Axis:
    keys = key.split()
    if not keys:
        raise InputError(f"{path}: sweep key {key!r} must be a dotted path such as 'cells.sigma'")
    for part in keys:
        if "." not in part or not all(part.split(".")):
            raise InputError(f"{path}: sweep key {part!r} must be a dotted path such as 'cells.sigma'")
        if part in ("experiment.chips", "experiment.name"):
            raise InputError(f"{path}: sweep.{part!r}: set [{part.replace('.', '] ')}; it is no condition")
    if isinstance(value, dict) and "zip" in value:
        rows = value["zip"]
        if set(value) != {"zip"} or not isinstance(rows, list) or not rows:
            raise InputError(f"{path}: sweep.{key!r}: zip must be a list of rows, got {value!r}")
        for row in rows:
            if not isinstance(row, list) or len(row) != len(keys):
                raise InputError(
                    f"{path}: sweep.{key!r}: every row of zip needs {len(keys)} values, got {row!r}"
                )
        return _Axis(keys, keys, [[_listed(k, v) for k, v in zip(keys, row, strict=True)] for row in rows])
    values = _range(key, value, path) if isinstance(value, dict) else value
    if not isinstance(values, list) or not values:
        raise InputError(f"{path}: sweep.{key!r} must be a list of values or a range, got {value!r}")
    return _Axis(keys, keys[:1], [[_listed(part, entry) for part in keys] for entry in values])


def _range(key: str, table: dict[str, Any], path: Path) -> list[Any]:
    """Values of { from, to, count or step, log }."""
    where = f"{path}: sweep.{key!r}"
    for name in table:
        if name not in RANGE:
            raise InputError(f"{where}: unknown {name!r} of a range; {nearest_name(name, RANGE)}")
    numbers = [table.get(name) for name in ("from", "to", "count", "step")]
    if any(isinstance(n, bool) or not isinstance(n, int | float | None) for n in numbers):
        raise InputError(f"{where}: from, to, count and step must be numbers, got {table!r}")
    first, last, count, step = numbers
    if first is None or last is None or (count is None) == (step is None):
        raise InputError(f"{where}: a range needs from, to, and either count or step, got {table!r}")
    if not math.isfinite(first) or not math.isfinite(last):
        raise InputError(f"{where}: from and to must be finite, got {table!r}")
    if count is None:
        assert step is not None
        n_steps = (last - first) / step if step else math.inf
        if not 0 <= n_steps < MAX_CASES or table.get("log"):
            raise InputError(f"{where}: step must lead from `from` to `to` (and not with log), got {table!r}")
        whole = all(isinstance(n, int) for n in (first, step))
        values = [first + k * step for k in range(math.floor(n_steps + 1e-9) + 1)]
        return values if whole else [float(f"{value:.12g}") for value in values]
    if not isinstance(count, int) or not 2 <= count <= MAX_CASES:
        raise InputError(f"{where}: count must be a whole number >= 2, got {count!r}")
    shares = [k / (count - 1) for k in range(count)]
    if table.get("log"):
        if first <= 0 or last <= 0:
            raise InputError(f"{where}: with log, from and to must be > 0, got {table!r}")
        return [float(f"{first * (last / first) ** share:.12g}") for share in shares]
    values = [first + (last - first) * share for share in shares]
    if all(isinstance(n, int) for n in (first, last)) and all(value == round(value) for value in values):
        return [round(value) for value in values]
    return [float(f"{value:.12g}") for value in values]


def _listed(key: str, value: Any) -> Any:
    """One strategy stands for a list of one."""
    return [value] if key == "tuning.strategies" and isinstance(value, str) else value


def _named(axes: list[_Axis]) -> list[_Axis]:
    """Coordinates under the last part of their path, or the whole path where that would be ambiguous."""
    paths = [name for axis in axes for name in axis.names]
    short = [name.rsplit(".", 1)[-1] for name in paths]
    return [
        _Axis(
            axis.keys,
            [last if short.count(last := name.rsplit(".", 1)[-1]) == 1 else name for name in axis.names],
            axis.rows,
        )
        for axis in axes
    ]


def _text(value: Any) -> str:
    """A value in a label; different values have different texts."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return str(value)


def _set(table: dict[str, Any], key: str, value: Any, path: Path) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise InputError(f"{path}: sweep key {key!r}: {parent!r} is not a table")
    table[last] = value
