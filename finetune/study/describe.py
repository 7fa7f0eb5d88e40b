"""An experiment's settings for people and editors: annotated TOML, rows for tables, a JSON schema."""

from __future__ import annotations

import re
import tomllib
from typing import Any, NamedTuple

from finetune.study.config import ExperimentConfig
from rramsim.config import Setting, describe, kind_of, tables_of, to_table

__all__ = ["SettingRow", "annotated_toml", "changed_keys", "json_schema", "setting_rows", "unlike_text"]

BARE = re.compile(r"[A-Za-z0-9_-]+")
COMMENT_AT = 40  # column of the comments


class SettingRow(NamedTuple):
    """One setting of an experiment: its value and what is declared of it."""

    key: str  # dotted, such as "cells.programming.window"
    value: Any  # None where nothing is set
    is_default: bool  # the value of an experiment whose file is empty
    about: Setting


def setting_rows(config: ExperimentConfig) -> list[SettingRow]:
    """Every setting of an experiment, in the order of the reference; tables themselves are left out.

    Parameters
    ----------
    config : ExperimentConfig
        The experiment.

    Returns
    -------
    list of SettingRow
        Values are in SI units.

    Examples
    --------
    >>> from finetune import ExperimentConfig
    >>> from rramsim import WiresConfig
    >>> rows = setting_rows(ExperimentConfig(wires=WiresConfig(r_word=2.5)))
    >>> [(row.key, row.value, row.about.unit) for row in rows if not row.is_default]
    [('wires.r_word', 2.5, 'ohm')]
    """
    mine, empty = to_table(config), _defaults(ExperimentConfig)
    rows = []
    for about in describe(ExperimentConfig):
        if about.type == "table":
            continue
        value, default = _at(mine, about.key), _at(empty, about.key)
        absent = value is None and _at(mine, about.key.rpartition(".")[0] or about.key) is None
        same = absent or value == default or about.key == "experiment.name"
        rows.append(SettingRow(about.key, value, same, about))
    return rows


def _defaults(kind: Any) -> dict[str, Any]:
    """Values of an empty file, those of tables included that are absent unless asked for."""
    found = to_table(kind())
    for name, nested in tables_of(kind):
        found[name] = _defaults(nested) | found.get(name, {})
    return found


def _at(table: dict[str, Any], key: str) -> Any:
    found: Any = table
    for part in key.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(part)
    return found


def annotated_toml(config: ExperimentConfig) -> str:
    """TOML text of all settings, each with its unit, range, meaning and default; `parse` reads it back.

    A setting without a value stands there as a comment. What differs from an empty file is marked.

    Parameters
    ----------
    config : ExperimentConfig
        The experiment.

    Returns
    -------
    str
        TOML text, SI units.

    Examples
    --------
    >>> from finetune import ExperimentConfig
    >>> text = annotated_toml(ExperimentConfig())
    >>> next(line for line in text.splitlines() if line.startswith("v_read"))
    'v_read = 0.2                            # [V] voltage of the largest DAC code; (0, 100]'
    """
    rows = {row.key: row for row in setting_rows(config)}
    tables: dict[str, list[SettingRow]] = {"": []}
    for about in describe(ExperimentConfig):
        if about.type == "table":
            tables[about.key] = []
        else:
            tables.setdefault(about.key.rpartition(".")[0], []).append(rows[about.key])
    said = {about.key: about.description for about in describe(ExperimentConfig)}
    mine = to_table(config)
    lines = ["# Units are SI without prefix. Keys that begin with # have no value of their own."]
    for name, members in tables.items():
        if name:
            absent = "" if isinstance(_at(mine, name), dict) else "# "  # a table that is there means more
            lines += ["", *([f"# {said[name]}"] if said.get(name) else []), f"{absent}[{name}]"]
        nested = []
        for row in members:
            if isinstance(row.value, dict):  # constants of a law: a table of its own, after the keys
                nested.append(row)
                continue
            lines += _lines(row)
        for row in nested:
            lines += ["", f"# {row.about.description}", f"[{row.key}]", *_body(row.value)]
    return "\n".join(lines) + "\n"


def _body(table: dict[str, Any]) -> list[str]:
    import tomli_w

    return tomli_w.dumps(table).splitlines()


def _lines(row: SettingRow) -> list[str]:
    """`key = value  # [unit] meaning; range; default`."""
    key, about = row.key.rpartition(".")[2], row.about
    unit = f"[{about.unit}] " if about.unit not in ("", "1") else ""
    note = unit + about.description + (f"; {about.span}" if about.span else "")
    if row.value is None:
        default = about.default or "none"
        return [f"# {key} =".ljust(COMMENT_AT) + f"# {note}; default: {default}"]
    if not row.is_default:
        note += f"; CHANGED, default: {about.default or 'none'}"
    text = _body({key: row.value})
    if len(text) > 1 or len(text[0]) > 2 * COMMENT_AT:
        return [f"# {note}", *text]
    return [text[0].ljust(COMMENT_AT - 1) + f" # {note}"]


def changed_keys(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Which settings of two experiments differ, as `key: there X, here Y`; the name does not count.

    Examples
    --------
    >>> changed_keys({"cells": {"sigma": 0.3}}, {"cells": {"sigma": 0.5}, "experiment": {"name": "a"}})
    ['cells.sigma: there 0.3, here 0.5']
    """
    mine, theirs = _flat(here), _flat(there)
    ignored = {f"experiment.{key}" for key in ("name", "chips", "folder", "save_chips")}
    keys = [key for key in dict.fromkeys((*theirs, *mine)) if key not in ignored]
    return [
        f"{key}: there {_brief(theirs.get(key))}, here {_brief(mine.get(key))}"
        for key in keys
        if theirs.get(key) != mine.get(key)
    ]


def unlike_text(there: str, here: ExperimentConfig, most: int = 5) -> str:
    """The end of a message: which settings of an archive, given as TOML text, are not those of `here`."""
    found = changed_keys(tomllib.loads(there), to_table(here))
    if not found:
        return ""
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"; other settings: {', '.join(found[:most])}{more}"


def _brief(value: Any) -> str:
    text = "not set" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def json_schema() -> dict[str, Any]:
    """JSON schema of the TOML file of an experiment or a sweep, for editors that complete and check.

    Returns
    -------
    dict
        Draft 2020-12; each key has its description, unit, range and default.

    Examples
    --------
    >>> schema = json_schema()
    >>> schema["$defs"]["WiresConfig"]["properties"]["r_word"]["minimum"]
    0.0
    """
    import pydantic

    adapter: Any = pydantic.TypeAdapter(ExperimentConfig)
    schema: dict[str, Any] = adapter.json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "rramsim experiment"
    schema["properties"]["sweep"] = {
        "type": "object",
        "description": "grid of a study: dotted keys with lists, ranges or rows; `rramsim sweep` runs it",
    }
    schema["additionalProperties"] = False
    kinds: dict[str, Any] = {"ExperimentConfig": ExperimentConfig}
    waiting = [ExperimentConfig]
    while waiting:
        owner: Any = waiting.pop()
        for about in describe(owner):
            nested = kind_of(owner, about.key) if "." not in about.key else None
            if nested is not None and nested.__name__ not in kinds:
                kinds[nested.__name__] = nested
                waiting.append(nested)
    for name, kind in kinds.items():
        part = schema if name == "ExperimentConfig" else schema["$defs"].get(name)
        if part is None:
            continue
        part["additionalProperties"] = False
        for about in describe(kind):
            if "." not in about.key and about.type != "table" and about.key in part["properties"]:
                _declare(part["properties"][about.key], about)
    return schema


def _declare(part: dict[str, Any], about: Setting) -> None:
    """Unit, range and words of one key."""
    if about.unit not in ("", "1"):
        part["description"] = f"[{about.unit}] {about.description}"
    if part.get("default", 0) is None:
        del part["default"]  # filled in later: from a preset, or left open
    part.pop("title", None)
    if about.span[:1] in ("[", "(") and about.span[-1:] in ("]", ")"):
        low, high = (float(bound) for bound in about.span[1:-1].split(","))
        for kind in [part, *part.get("anyOf", [])]:
            if kind.get("type") not in ("number", "integer"):
                continue
            if low > float("-inf"):
                kind["minimum" if about.span[0] == "[" else "exclusiveMinimum"] = low
            if high < float("inf"):
                kind["maximum" if about.span[-1] == "]" else "exclusiveMaximum"] = high
    elif about.span:
        words = about.span.split(", ")
        if part.get("type") == "string":
            part["enum"] = words
