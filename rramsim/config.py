"""Frozen settings: how they are declared and checked, and their TOML text.

Settings are plain frozen dataclasses that live beside their domain (`WiresConfig` in
`rramsim.circuit.wiring`, ...). Each field is declared once by `setting`, with its unit, its
description and the range it must lie in; `check_settings` checks all of them and is called from
`__post_init__`, `describe` lists them. This module also turns a TOML table into such an object
(pydantic does the type work) and back (tomli-w).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import math
import tomllib
import typing
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rramsim.checks import InputError, UnitWarning, nearest_name

__all__ = [
    "Setting",
    "check_settings",
    "describe",
    "digest",
    "implausible",
    "kind_of",
    "parse",
    "read_toml",
    "setting",
    "tables_of",
    "to_table",
    "to_toml",
    "unit_of",
]

T = TypeVar("T")

UNIT_NAMES = {"S": "siemens", "V": "volts", "s": "seconds", "J": "joules", "K": "kelvin", "A": "amperes"}
PREFIXES = {"p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
# the prefix a laboratory would use, hence the likeliest slip
USUAL_PREFIXES = {"S": "unmp", "s": "nump", "V": "mun", "J": "pnfum", "ohm": "kM", "A": "unmp", "m": "unm"}
FEMTO = {"f": 1e-15}


def setting(
    default: Any,
    unit: str,
    description: str,
    span: str = "",
    *,
    usual: tuple[float, float] | None = None,
    choices: Sequence[str] = (),
    hint: str = "",
    source: str = "",
    default_text: str = "",
) -> Any:
    """Declare one field of a settings class: `dataclasses.field` with everything known about it.

    Parameters
    ----------
    default : Any
        Default value; a class (such as another settings class) is called for each new object.
    unit : str
        SI unit without prefix, "1" for a pure number, "" for text, switches and tables.
    description : str
        One line for the reference of TOML keys.
    span : str
        Allowed values in interval notation: "[0, 1]", "(0, inf)", or "(0, inf]" where infinity is
        a value. Every number of a list must lie in it. Not for text and tables.
    usual : (float, float), optional
        Magnitudes met in practice; a number beyond them draws a `rramsim.checks.UnitWarning`.
    choices : sequence of str
        Allowed words; a list may grow, as laws are registered.
    hint : str
        The likely slip, appended to the message of a violated range.
    source : str
        Where the default comes from.
    default_text : str
        What the reference shows as default where `default` is filled in later.

    Examples
    --------
    >>> import dataclasses
    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class PulseConfig:
    ...     v_set: float = setting(1.2, "V", "amplitude of a SET pulse", "(0, 10]")
    ...
    ...     def __post_init__(self):
    ...         check_settings(self)
    >>> PulseConfig(v_set=1200.0)
    Traceback (most recent call last):
    rramsim.checks.InputError: v_set must lie in (0, 10] volts, got 1200
    >>> for row in describe(PulseConfig):
    ...     print(row.key, row.unit, row.default, row.span, row.description)
    v_set V 1.2 (0, 10] amplitude of a SET pulse
    """
    metadata = {
        "unit": unit,
        "description": description,
        "span": span,
        "usual": usual,
        "choices": choices,
        "hint": hint,
        "source": source,
        "default_text": default_text,
    }
    if span:
        _interval(span)
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Interval(NamedTuple):
    """Bounds of a number and whether each belongs to the interval."""

    low: float
    high: float
    low_in: bool
    high_in: bool

    def __contains__(self, value: object) -> bool:
        x = float(value)  # type: ignore[arg-type]
        return (x > self.low or (self.low_in and x == self.low)) and (
            x < self.high or (self.high_in and x == self.high)
        )


@functools.cache
def _interval(span: str) -> Interval:
    low, high = (float(part) for part in span[1:-1].split(","))
    if span[0] not in "[(" or span[-1] not in "])":
        raise ValueError(f"span must be written as '[0, 1]' or '(0, inf)', got {span!r}")
    return Interval(low, high, span[0] == "[", span[-1] == "]")


def check_settings(settings: Any, where: str = "") -> None:
    """Check every declared field of a settings object against its declaration.

    Raises
    ------
    InputError
        For a value outside its declared range or choices, and for anything but a settings object where
        a table of settings belongs; the message names the field and what to write.

    Warns
    -----
    UnitWarning
        For a value whose magnitude is not met in practice, such as 40 S where 40 uS was meant.
    """
    for entry in dataclasses.fields(settings):
        known, value = entry.metadata, getattr(settings, entry.name)
        if value is None or "unit" not in known:
            continue
        name = f"{where}{entry.name}"
        kind = kind_of(type(settings), entry.name)
        if kind is not None and not isinstance(value, kind):
            raise InputError(_no_table(name, entry.name, kind, value))
        if known["choices"] and value not in known["choices"]:
            words = ", ".join(known["choices"])
            hint = nearest_name(str(value), known["choices"])
            raise InputError(f"{name} must be one of {words}, got {value!r}; {hint}")
        if known["span"]:
            for number in _flat(value):
                _check_number(name, number, known, whole=str(entry.type).startswith("int"))


def _no_table(name: str, field: str, kind: Any, value: Any) -> str:
    """What to write where something else stands for a table of settings."""
    keys = ", ".join(entry.name for entry in dataclasses.fields(kind) if entry.init)
    meant = f"{field}={kind.__name__}(...)"
    if isinstance(value, dict):
        meant = f"{field}={kind.__name__}(**{{...}})"
    return f"{name} must be a {kind.__name__}, got {value!r:.60}; write {meant}, whose fields are {keys}"


def _flat(value: Any) -> Iterator[Any]:
    """Numbers of a value: itself, or those of a list or a matrix."""
    for entry in value if isinstance(value, list | tuple) else ():
        yield from _flat(entry)
    if not isinstance(value, list | tuple):
        yield value


def _check_number(name: str, value: Any, known: Any, *, whole: bool) -> None:
    unit = known["unit"]
    words = "" if unit == "1" else f" {UNIT_NAMES.get(unit, unit)}"
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = None
    if number is None or isinstance(value, bool | str):
        raise InputError(f"{name} must be a number{words and ' in' + words}, got {value!r}")
    span, tail = _interval(known["span"]), f"; {known['hint']}" if known["hint"] else ""
    if whole and number != math.floor(number):
        raise InputError(f"{name} must be a whole number, got {value!r}{tail}")
    if number not in span:
        if math.isfinite(span.low) and math.isfinite(span.high) and not (unit != "1" and number <= 0.0):
            must = f"lie in {known['span']}{words}"
        else:
            must = "be finite" if not math.isfinite(number) else "be"
            if math.isfinite(span.low):
                bound = f"{'>=' if span.low_in else '>'} {span.low:g}{words}"
                must += f" and {bound}" if must != "be" else f" {bound}"
            elif math.isfinite(span.high):
                bound = f"{'<=' if span.high_in else '<'} {span.high:g}{words}"
                must += f" and {bound}" if must != "be" else f" {bound}"
        raise InputError(f"{name} must {must}, got {number:g}{tail}")
    usual = known["usual"]
    if usual is not None and number != 0.0 and math.isfinite(number):
        size = abs(number)
        if not usual[0] <= size <= usual[1]:
            warnings.warn(implausible(name, number, unit, usual), UnitWarning, stacklevel=_level())


def _level() -> int:
    """`stacklevel` of the first caller outside this package: where the value was written."""
    frame, level = inspect.currentframe(), 0
    here = str(Path(__file__).parent)
    while frame is not None and (frame.f_code.co_filename.startswith((here, "<string>"))):
        frame, level = frame.f_back, level + 1
    return level


def implausible(name: str, value: float, unit: str, usual: tuple[float, float], slip: str = "") -> str:
    """A sentence about a magnitude beyond the usual ones; `slip`, or the prefix that was probably meant.

    Examples
    --------
    >>> implausible("g_max", 40.0, "S", (1e-12, 1e-2))
    'g_max = 40 S (4e+07 uS) is outside the usual 1 pS to 10 mS; units are SI without prefix: was 40 uS \
meant, that is 4e-05?'
    """
    factors = {**PREFIXES, **FEMTO}
    order = USUAL_PREFIXES.get(unit, "")
    text = f"{name} = {value:g}" + (f" {unit}" if unit not in ("", "1") else "")
    if order:
        text += f" ({value / factors[order[0]]:g} {order[0]}{unit})"
    text += f" is outside the usual {_prefixed(usual[0], unit)} to {_prefixed(usual[1], unit)}"
    if slip:
        return f"{text}; {slip}"
    for prefix in order:
        meant = abs(value) * factors[prefix]
        if usual[0] <= meant <= usual[1]:
            guess = f"was {value:g} {prefix}{unit} meant, that is {value * factors[prefix]:g}?"
            return f"{text}; units are SI without prefix: {guess}"
    if unit == "1":
        tail = (
            f"; was {value:g} % meant, that is {value / 100:g}?"
            if usual[0] <= abs(value) / 100 <= usual[1]
            else ""
        )
        return text + tail
    return f"{text}; units are SI without prefix"


def _prefixed(value: float, unit: str) -> str:
    """`value` with the SI prefix that leaves 1 to 999 before it."""
    factors = {**FEMTO, **PREFIXES}
    if unit in ("1", "") or value == 0.0:
        return f"{value:g}"
    prefix = max((p for p, f in factors.items() if value >= f), key=lambda p: factors[p], default="f")
    return f"{value / factors[prefix]:g} {prefix}{unit}"


class Setting(NamedTuple):
    """One row of the reference of TOML keys."""

    key: str  # with the tables it lies in, such as "programming.window"
    type: str
    unit: str
    default: str
    span: str  # allowed values: an interval, or words
    description: str
    source: str


def describe(cls: Any, prefix: str = "") -> list[Setting]:
    """All settings of a settings class and of the tables within it, in order of declaration.

    A row of a table within the class has a dotted key; the table itself has a row too.
    """
    rows = []
    for entry in dataclasses.fields(cls):
        if not entry.init:
            continue
        known, key = entry.metadata, f"{prefix}{entry.name}"
        nested = kind_of(cls, entry.name)
        span = known.get("span", "") or ", ".join(known.get("choices", ()))
        default = "" if nested else known.get("default_text", "") or _default_text(entry)
        kind = "table" if nested else _type_text(entry.type)
        rows.append(
            Setting(key, kind, known.get("unit", ""), default, span, known.get("description", ""),
                    known.get("source", ""))
        )  # fmt: skip
        if nested:
            rows += describe(nested, f"{key}.")
    return rows


def _default_text(entry: Any) -> str:
    if entry.default is dataclasses.MISSING:
        return "" if entry.default_factory is dataclasses.MISSING else repr(entry.default_factory())
    if entry.default is None:
        return ""
    value = entry.default
    return json.dumps(value) if isinstance(value, bool | str | tuple) else f"{value:g}"


def _type_text(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return text.replace(" | None", "").replace("tuple[", "list of ").replace(", ...]", "")


@functools.cache
def _nested(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    found = {}
    for entry in dataclasses.fields(cls):
        kinds = [hints[entry.name], *typing.get_args(hints[entry.name])]
        found[entry.name] = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
    return found


def kind_of(cls: Any, name: str) -> Any:
    """Settings class of the field `name` where that is a table of its own, else None."""
    return _nested(cls)[name]


def unit_of(cls: Any, name: str) -> str:
    """Declared SI unit of the field `name`."""
    return next((f.metadata.get("unit", "") for f in dataclasses.fields(cls) if f.name == name), "")


def tables_of(cls: Any) -> Iterator[tuple[str, Any]]:
    """Names and classes of the tables within a settings class."""
    return ((name, kind) for name, kind in _nested(cls).items() if kind is not None)


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
        adapter: Any = _adapter(cls)  # type: ignore[arg-type]
        return adapter.validate_python(table)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        key = ".".join([where, *path]).strip(".")
        message = first["msg"].removeprefix("Value error, ")
        stem = first["loc"][:-1]
        others = [e for e in error.errors() if e["input"] is first["input"] and e["loc"][:-1] == stem]
        if len(others) > 1 and len(path) > 1:  # a field of several types: pydantic ends the path by each type
            key = key.rpartition(".")[0]
            message = " or ".join(e["msg"].removeprefix("Input should be ") for e in others)
            message = f"must be {message}"
        got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
        raise InputError(f"{key or cls.__name__}: {message}{got}") from None


@functools.cache
def _adapter(cls: Any) -> Any:
    """Building one costs far more than a check with it."""
    import pydantic

    return pydantic.TypeAdapter(cls)


def _reject_unknown(cls: Any, table: dict[str, Any], where: str) -> None:
    """Walk the nested tables; pydantic alone would not name the nearest known key."""
    known = {field.name: str(field.type) for field in dataclasses.fields(cls) if field.init}
    for key, value in table.items():
        path = f"{where}.{key}".strip(".")
        if key not in known:
            raise InputError(f"{path}: unknown key; {nearest_name(key, known)}")
        kind = known[key]
        if isinstance(value, bool) and ("float" in kind or "int" in kind) and "bool" not in kind:
            raise InputError(f"{path}: must be a number, got {str(value).lower()}")  # pydantic takes 0 or 1
        nested = kind_of(cls, key)
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
    except RecursionError:
        raise InputError(f"{path}: not usable TOML (tables or lists are nested too deeply)") from None
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError, or numbers beyond Python's limits
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
