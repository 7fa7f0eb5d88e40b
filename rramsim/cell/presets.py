"""Published devices as TOML files; every number bears its unit, source and evidence mark.

A number in a preset is a table `{value, unit, mark, source}`; `mark` is `measured`,
`fitted`, `derived` (arithmetic from marked numbers) or `assumed` (a choice of this
package, where the source is silent). `[variants.N.cells]` holds what differs at N levels.

Which tables and keys a preset may hold, and in which unit, the settings classes say
themselves: each registers by `preset_table` and declares its fields by `rramsim.config.setting`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from rramsim.checks import InputError, nearest_name
from rramsim.config import kind_of, read_toml, unit_of

__all__ = ["MARKS", "Evidence", "Preset", "list_presets", "load_preset", "preset_table"]

MARKS = ("measured", "fitted", "derived", "assumed", "own")

_TABLES: dict[str, Any] = {}
T = TypeVar("T")


def preset_table(name: str) -> Callable[[type[T]], type[T]]:
    """Class decorator: presets may hold the table [name], whose keys are the fields of the class."""

    def register(cls: type[T]) -> type[T]:
        _TABLES[name] = cls
        return cls

    return register


@dataclass(frozen=True)
class Evidence:
    """Where one number of a preset comes from."""

    key: str  # such as "cells.g_max"
    value: Any
    unit: str
    mark: str
    source: str


@dataclass(frozen=True)
class Preset:
    """A parsed preset: plain tables for `parse` and the evidence of every number.

    >>> preset = load_preset("yao_2020")
    >>> preset.cells(n_levels=4).scale.n_levels
    4
    >>> preset.evidence[0].unit
    '1'
    """

    name: str
    title: str
    note: str
    sources: dict[str, str]
    tables: dict[str, Any]  # cells, faults, disturb
    variants: dict[int, dict[str, Any]]
    evidence: tuple[Evidence, ...]

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of [cells] that its source leaves open and the user must set."""
        cells = self.tables["cells"]
        open_keys = [] if "g_max" in cells or "levels" in cells else ["g_max"]
        if not {"g_min", "on_off_ratio", "levels"} & set(cells):
            open_keys.append("on_off_ratio")
        return tuple(open_keys)

    def cells(self, **overrides: Any) -> Any:
        """`CellsConfig` of this preset with some fields replaced."""
        return _TABLES["cells"](preset=self.name, **overrides)

    def faults(self, **overrides: Any) -> Any:
        """`FaultsConfig` of this preset."""
        return _TABLES["faults"](preset=self.name, **overrides)

    def disturb(self, **overrides: Any) -> Any:
        """`DisturbConfig` of this preset."""
        return _TABLES["disturb"](preset=self.name, **overrides)


def list_presets() -> tuple[str, ...]:
    """Names of the shipped presets."""
    folder = resources.files("rramsim") / "presets"
    return tuple(sorted(e.name.removesuffix(".toml") for e in folder.iterdir() if e.name.endswith(".toml")))


def load_preset(name: str) -> Preset:
    """A shipped preset by name, or a TOML file of your own by path (ends in .toml).

    Raises
    ------
    InputError
        For an unknown name or key (naming the nearest), a unit with a prefix or a missing mark.
    """
    if str(name).endswith(".toml"):
        path = Path(name)
        return _Reader(str(path), shipped=False).read(read_toml(path), path.stem, str(name))
    return _load_shipped(str(name))


@functools.lru_cache(maxsize=64)
def _load_shipped(name: str) -> Preset:
    if name not in list_presets():
        raise InputError(f"unknown preset {name!r}; {nearest_name(name, list_presets())}")
    with resources.as_file(resources.files("rramsim") / "presets" / f"{name}.toml") as path:
        return _Reader(f"preset {name}", shipped=True).read(read_toml(path), name, name)


class _Reader:
    """Checks the tables of one preset file, strips the annotations off them and collects these."""

    def __init__(self, where: str, *, shipped: bool) -> None:
        self.where, self.shipped = where, shipped
        self.sources: dict[str, str] = {}
        self.evidence: list[Evidence] = []

    def read(self, text: dict[str, Any], stem: str, name: str) -> Preset:
        known = ("preset", "sources", "variants", *_TABLES)
        for key in text:
            if key not in known:
                raise InputError(f"{self.where}: unknown table [{key}]; {nearest_name(key, known)}")
        header = text.get("preset", {})
        for key in header:
            if key not in ("title", "note"):
                hint = nearest_name(key, ("title", "note"))
                raise InputError(f"{self.where}: unknown key preset.{key}; {hint}")
        if "cells" not in text:
            raise InputError(f"{self.where}: a preset needs a table [cells]")
        self.sources = dict(text.get("sources", {}))
        tables = {key: self._plain(text[key], kind, key) for key, kind in _TABLES.items() if key in text}
        variants = {
            int(number): self._plain(table["cells"], _TABLES["cells"], f"variants.{number}.cells")
            for number, table in text.get("variants", {}).items()
        }
        title, note = header.get("title", stem), header.get("note", "")
        return Preset(name, title, note, self.sources, tables, variants, tuple(self.evidence))

    def _plain(self, table: dict[str, Any], kind: Any, path: str) -> dict[str, Any]:
        """Values of one table; `kind` is its settings class, None for constants of a law."""
        names = [f.name for f in dataclasses.fields(kind) if f.name != "preset"] if kind else list(table)
        plain: dict[str, Any] = {}
        for key, entry in table.items():
            here = f"{path}.{key}"
            if key not in names:
                raise InputError(f"{self.where}: unknown key {here}; {nearest_name(key, names)}")
            if isinstance(entry, dict) and "value" not in entry:
                plain[key] = self._plain(entry, kind_of(kind, key) if kind else None, here)
            elif isinstance(entry, dict):
                plain[key] = entry["value"]
                self.evidence.append(self._evidence(here, entry, unit_of(kind, key) if kind else ""))
            elif isinstance(entry, str) or not self.shipped:
                plain[key] = entry
            else:
                raise InputError(f"{self.where}: {here} must be a table with value, unit, mark and source")
        return plain

    def _evidence(self, here: str, entry: dict[str, Any], wanted: str) -> Evidence:
        parts = ("value", "unit", "mark", "source")
        for part in entry:
            if part not in parts:
                raise InputError(f"{self.where}: unknown key {here}.{part}; {nearest_name(part, parts)}")
        unit, mark, source = entry.get("unit", ""), entry.get("mark", ""), entry.get("source", "")
        if wanted and unit not in wanted.split(" or "):
            raise InputError(
                f"{self.where}: {here} must be in unit {wanted!r} (SI, no prefix), got unit {unit!r}"
            )
        if mark not in MARKS:
            raise InputError(f"{self.where}: {here}: mark must be one of {', '.join(MARKS)}, got {mark!r}")
        if source not in self.sources:
            hint = nearest_name(source, self.sources) if self.sources else "the table [sources] is missing"
            raise InputError(f"{self.where}: {here}: source {source!r} is not in [sources]; {hint}")
        return Evidence(here, entry["value"], unit, mark, source)
