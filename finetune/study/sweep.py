"""Grids of experiments: the table [sweep] of a TOML file.

A key names one setting, or several that move together, by dotted paths separated by blanks; its
value lists what they take. Every combination is an experiment with an archive of its own, so a
sweep that was interrupted continues where it stopped.

    [sweep]
    "disturb.cycles_before" = [0, 10000]
    "converters.v_read disturb.v_read" = [0.2, 0.3]
"""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.study.config import ExperimentConfig, experiment_from
from rramsim.checks import InputError
from rramsim.config import read_toml

__all__ = ["Case", "load_sweep"]


MOST_CASES = 100_000


@dataclass(frozen=True)
class Case:
    """One combination of a grid."""

    label: str  # such as "v_read=0.2, cycles_before=0"
    config: ExperimentConfig

    @property
    def file_name(self) -> str:
        """Name of its archive within the sweep's folder."""
        return self.label.replace(", ", "_").replace("/", "-") + ".h5"


def load_sweep(path: str | Path) -> tuple[str, list[Case]]:
    """Name of a sweep and its cases; all are checked before any runs.

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
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{path}: sweep.{key!r} must be a list of values, got {values!r}")
        if not key.split():
            raise InputError(f"{path}: sweep keys must be dotted paths such as 'cells.sigma', got {key!r}")
    n_cases = math.prod(len(values) for values in grid.values())
    if n_cases > MOST_CASES:
        raise InputError(
            f"{path}: the grid has {n_cases:,} combinations; at most {MOST_CASES:,} can be swept"
        )
    cases = []
    for values in itertools.product(*grid.values()):
        changed = copy.deepcopy(table)
        labels = []
        for keys, value in zip(grid, values, strict=True):
            for key in keys.split():
                _set(changed, key, value, path)
            labels.append(f"{keys.split()[0].rsplit('.', 1)[-1]}={_text(value)}")
        label = ", ".join(labels)
        try:
            cases.append(Case(label, experiment_from(changed, path)))
        except InputError as error:
            raise InputError(f"{error} (at {label})") from None
    names = {case.config.experiment.name for case in cases}
    return (names.pop() if len(names) == 1 else path.stem), cases


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _set(table: dict[str, Any], key: str, value: Any, path: Path) -> None:
    *parents, last = key.split(".")
    if not parents or not all((*parents, last)):
        raise InputError(f"{path}: sweep key {key!r} must be a dotted path such as 'cells.sigma'")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise InputError(f"{path}: sweep key {key!r}: {parent!r} is not a table")
    table[last] = value
