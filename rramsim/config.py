"""Frozen settings and their TOML text.

Settings are plain frozen dataclasses that live beside their domain (`WiresConfig` in
`rramsim.circuit.wiring`, ...) and check themselves in `__post_init__`. This module turns a
TOML table into such an object (pydantic does the type work) and back (tomli-w).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from rramsim.checks import InputError, nearest_name

__all__ = ["digest", "parse", "read_toml", "to_table", "to_toml"]

T = TypeVar("T")


def parse(cls: type[T], table: dict[str, Any], where: str = "") -> T:
    """Build the frozen dataclass `cls` (fields may be dataclasses too) from a TOML table.

    Raises
    ------
    InputError
        One line that names the key, what was got and, for an unknown key, the nearest known one.
    """
    import pydantic

    _reject_unknown(cls, table, where)
    try:
        return pydantic.TypeAdapter(cls).validate_python(table)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join([where, *(str(part) for part in first["loc"])]).strip(".")
        message = first["msg"].removeprefix("Value error, ")
        got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
        raise InputError(f"{key or cls.__name__}: {message}{got}") from None


def _reject_unknown(cls: Any, table: dict[str, Any], where: str) -> None:
    """Walk the nested tables; pydantic alone would not name the nearest known key."""
    import typing

    hints = typing.get_type_hints(cls)
    known = {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}
    for key, value in table.items():
        path = f"{where}.{key}".strip(".")
        if key not in known:
            raise InputError(f"{path}: unknown key; {nearest_name(key, known)}")
        kinds = [known[key], *typing.get_args(known[key])]
        nested = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
        if nested is not None and isinstance(value, dict):
            _reject_unknown(nested, value, path)
        elif nested is not None and isinstance(value, list):
            for index, entry in enumerate(value):
                if isinstance(entry, dict):
                    _reject_unknown(nested, entry, f"{path}[{index}]")


def read_toml(path: str | Path) -> dict[str, Any]:
    """Parsed TOML file; `InputError` names the file and the line of a mistake."""
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML ({error})") from None


def to_table(settings: Any) -> dict[str, Any]:
    """Nested dict of the fields that are not None (TOML has no null)."""

    def clean(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init)
            return {name: clean(entry) for name, entry in fields if entry is not None}
        if isinstance(value, dict):
            return {str(name): clean(entry) for name, entry in value.items() if entry is not None}
        if isinstance(value, list | tuple):
            return [clean(entry) for entry in value]
        return value

    return clean(settings)


def to_toml(settings: Any) -> str:
    """TOML text from which `parse` rebuilds equal settings."""
    import tomli_w

    return tomli_w.dumps(to_table(settings))


def digest(settings: Any) -> str:
    """16 hex digits that identify the settings: SHA-256 of their canonical text (sorted keys)."""
    text = json.dumps(to_table(settings), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
