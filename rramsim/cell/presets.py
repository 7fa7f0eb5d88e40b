"""Published devices as TOML files; every number bears its unit, source and evidence mark.

A number in a preset is a table `{value, unit, mark, source}`; `mark` is `measured`,
`fitted`, `derived` (arithmetic from marked numbers) or `assumed` (a choice of this
package, where the source is silent). `[variants.N.cells]` holds what differs at N levels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from rramsim.checks import InputError, nearest_name

__all__ = ["MARKS", "Evidence", "Preset", "list_presets", "load_preset", "preset_cells"]

MARKS = ("measured", "fitted", "derived", "assumed", "own")

UNITS = {
    "1": """n_levels on_off_ratio sigma sigma_levels fixed_fraction gain scatter sigma_gain n_pulses_max
        pulses_per_write sigma_relative log_coefficient fraction amplitude_low amplitude_high occupancy
        n_endurance exponent window_loss sigma_growth cycles_before stuck_low_rate stuck_high_rate
        cluster_cells balance state_step""",
    "S": """g_max g_min levels sigma_conductance sigma_polynomial g_polynomial window scatter_floor
        shift_polynomial g_reference mean_polynomial sigma_offset g_stuck_low g_stuck_high""",
    "s": "t_pulse t_verify t_reference t_read lifetime",
    "V": "v_read",
    "J": "e_pulse",
    "1/V": "iv_alpha",
}
_UNIT_OF = {name: unit for unit, names in UNITS.items() for name in names.split()}


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
    """A parsed preset: plain tables for `parse` and the evidence of every number."""

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
        from rramsim.cell.config import CellsConfig

        return CellsConfig(preset=self.name, **overrides)

    def faults(self, **overrides: Any) -> Any:
        """`FaultsConfig` of this preset."""
        from rramsim.cell.config import FaultsConfig

        return FaultsConfig(preset=self.name, **overrides)

    def disturb(self, **overrides: Any) -> Any:
        """`DisturbConfig` of this preset."""
        from rramsim.cell.config import DisturbConfig

        return DisturbConfig(preset=self.name, **overrides)


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
    from rramsim.config import read_toml

    if str(name).endswith(".toml"):
        path = Path(name)
        return _parse(read_toml(path), path.stem, str(path), shipped=False, name=str(name))
    return _load_shipped(str(name))


@functools.lru_cache(maxsize=64)
def _load_shipped(name: str) -> Preset:
    from rramsim.config import read_toml

    if name not in list_presets():
        raise InputError(f"unknown preset {name!r}; {nearest_name(name, list_presets())}")
    with resources.as_file(resources.files("rramsim") / "presets" / f"{name}.toml") as path:
        return _parse(read_toml(path), name, f"preset {name}", shipped=True, name=name)


def preset_cells(name: str, n_levels: int | None) -> dict[str, Any]:
    """Values of [cells] for `n_levels` (None: the preset's own), settings objects inside."""
    from rramsim.cell import config
    from rramsim.config import parse

    preset = load_preset(name)
    table = dict(preset.tables["cells"])
    table.setdefault("n_levels", 16)
    if n_levels is not None:
        table.update(preset.variants.get(n_levels, {}))
        table["n_levels"] = n_levels
    kinds = {
        "programming": config.ProgrammingConfig,
        "relaxation": config.RelaxationConfig,
        "drift": config.DriftConfig,
        "read_noise": config.ReadNoiseConfig,
        "telegraph": config.TelegraphConfig,
        "endurance": config.EnduranceConfig,
    }
    for key, value in table.items():
        if key in kinds:
            table[key] = parse(kinds[key], value, f"{name}.cells.{key}")
        elif isinstance(value, list):
            table[key] = tuple(value)
    if "levels" in table:
        table.setdefault("g_min", table["levels"][0])
        table.setdefault("g_max", table["levels"][-1])
    return table


def _parse(text: dict[str, Any], stem: str, where: str, *, shipped: bool, name: str) -> Preset:
    known = ("preset", "sources", "cells", "faults", "disturb", "variants")
    for key in text:
        if key not in known:
            raise InputError(f"{where}: unknown table [{key}]; {nearest_name(key, known)}")
    header, sources = text.get("preset", {}), text.get("sources", {})
    for key in header:
        if key not in ("title", "note"):
            raise InputError(f"{where}: unknown key preset.{key}; {nearest_name(key, ('title', 'note'))}")
    if "cells" not in text:
        raise InputError(f"{where}: a preset needs a table [cells]")
    evidence: list[Evidence] = []
    tables = {}
    for key in ("cells", "faults", "disturb"):
        if key in text:
            tables[key] = _plain(text[key], key, where, sources, evidence, shipped)
    variants = {}
    for number, table in text.get("variants", {}).items():
        path = f"variants.{number}.cells"
        variants[int(number)] = _plain(table["cells"], path, where, sources, evidence, shipped)
    _check_keys(tables, variants, where)
    title, note = header.get("title", stem), header.get("note", "")
    return Preset(name, title, note, dict(sources), tables, variants, tuple(evidence))


def _check_keys(tables: dict[str, Any], variants: dict[int, Any], where: str) -> None:
    import dataclasses

    from rramsim.cell import config

    kinds = {
        "cells": config.CellsConfig,
        "faults": config.FaultsConfig,
        "disturb": config.DisturbConfig,
    }
    nested = {
        "programming": config.ProgrammingConfig,
        "relaxation": config.RelaxationConfig,
        "drift": config.DriftConfig,
        "read_noise": config.ReadNoiseConfig,
        "telegraph": config.TelegraphConfig,
        "endurance": config.EnduranceConfig,
    }

    def check(table: dict[str, Any], kind: type, path: str) -> None:
        names = [f.name for f in dataclasses.fields(kind) if f.name != "preset"]
        for key, value in table.items():
            if key not in names:
                raise InputError(f"{where}: unknown key {path}.{key}; {nearest_name(key, names)}")
            if key in nested and kind is config.CellsConfig:
                check(value, nested[key], f"{path}.{key}")

    for key, table in tables.items():
        check(table, kinds[key], key)
    for number, table in variants.items():
        check(table, config.CellsConfig, f"variants.{number}.cells")


def _plain(
    table: dict[str, Any],
    path: str,
    where: str,
    sources: dict[str, str],
    evidence: list[Evidence],
    shipped: bool,
) -> dict[str, Any]:
    """Strip the annotations off a table and collect them."""
    plain: dict[str, Any] = {}
    for key, entry in table.items():
        here = f"{path}.{key}"
        if isinstance(entry, dict) and "value" not in entry:
            plain[key] = _plain(entry, here, where, sources, evidence, shipped)
        elif isinstance(entry, dict):
            plain[key] = entry["value"]
            evidence.append(_evidence(here, key, entry, where, sources))
        elif isinstance(entry, str) or not shipped:
            plain[key] = entry
        else:
            raise InputError(f"{where}: {here} must be a table with value, unit, mark and source")
    return plain


def _evidence(here: str, key: str, entry: dict[str, Any], where: str, sources: dict[str, str]) -> Evidence:
    for part in entry:
        if part not in ("value", "unit", "mark", "source"):
            hint = nearest_name(part, ("value", "unit", "mark", "source"))
            raise InputError(f"{where}: unknown key {here}.{part}; {hint}")
    unit, mark, source = entry.get("unit", ""), entry.get("mark", ""), entry.get("source", "")
    wanted = _UNIT_OF.get(key, unit)
    exponent = ".drift." in here and key in ("mean_polynomial", "sigma_polynomial")
    if unit != wanted and not (exponent and unit == "1"):
        raise InputError(f"{where}: {here} must be in unit {wanted!r} (SI, no prefix), got unit {unit!r}")
    if mark not in MARKS:
        raise InputError(f"{where}: {here}: mark must be one of {', '.join(MARKS)}, got {mark!r}")
    if source not in sources:
        hint = nearest_name(source, sources) if sources else "the table [sources] is missing"
        raise InputError(f"{where}: {here}: source {source!r} is not in [sources]; {hint}")
    return Evidence(here, entry["value"], unit, mark, source)
