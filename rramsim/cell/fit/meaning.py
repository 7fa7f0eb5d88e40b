"""What the columns of a measurement file mean: by their names, else by their values.

Every guess is a sentence that the report shows; `ReadingConfig.columns` overrides it.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError

__all__ = ["DIMENSIONS", "guess_by_name", "guess_by_values", "split_unit", "unit_factor"]

# meanings with a unit; lower and upper have that of the quantity read
DIMENSIONS = {
    "g": "S", "resistance": "ohm", "current": "A", "time": "s", "v_read": "V", "t_read": "s", "kelvin": "K",
}  # fmt: skip

_BASES: dict[str, dict[str, float]] = {
    "S": {"siemens": 1.0, "mhos": 1.0, "mho": 1.0, "s": 1.0},
    "ohm": {"ohms": 1.0, "ohm": 1.0},
    "A": {"amperes": 1.0, "ampere": 1.0, "amps": 1.0, "amp": 1.0, "a": 1.0},
    "V": {"volts": 1.0, "volt": 1.0, "v": 1.0},
    "s": {
        "seconds": 1.0, "second": 1.0, "sec": 1.0, "minutes": 60.0, "minute": 60.0, "min": 60.0,
        "hours": 3600.0, "hour": 3600.0, "hrs": 3600.0, "hr": 3600.0, "h": 3600.0, "days": 86400.0,
        "day": 86400.0, "d": 86400.0, "s": 1.0,
    },
    "K": {"kelvin": 1.0, "k": 1.0},
}  # fmt: skip
_PREFIXES = {
    "": 1.0, "f": 1e-15, "p": 1e-12, "pico": 1e-12, "n": 1e-9, "nano": 1e-9, "u": 1e-6, "micro": 1e-6,
    "m": 1e-3, "milli": 1e-3, "k": 1e3, "K": 1e3, "kilo": 1e3, "M": 1e6, "mega": 1e6, "meg": 1e6, "G": 1e9,
    "giga": 1e9,
}  # fmt: skip
CELSIUS = ("c", "°c", "degc", "celsius", "deg c")

_NAMES = {
    "target": r"(g|r|cond\w*|resistance)?_?(target\w*|nominal\w*|goal|desired|set_?point)(_?(g|r))?",
    "n_cycles": r"n_?cycles|endurance\w*|cycles_before",
    "n_reads": r"n_?reads?|reads|num_?reads|read_?(no|number|count|index)",
    "t_read": r"t_?read|read_?(width|time|pulse\w*)",
    "v_read": r"v_?read|read_?(voltage|v)|voltage|v|bias|vread",
    "set_pulses": r"n?_?set(s|_?pulses|_?count)?",
    "reset_pulses": r"n?_?reset(s|_?pulses|_?count)?",
    "pulses": r"(n|num|number|total)?_?(of_?)?pulses?(_?(count|number|no))?|npulses?",
    "lower": r"(r|g)?_?(lower\w*|lo|low|min|lower_?(bound|limit))",
    "upper": r"(r|g)?_?(upper\w*|hi|high|max|upper_?(bound|limit))",
    "success": r"success\w*|converged|ok|passed|in_?window",
    "kelvin": r"temp(erature)?(_?(k|c|kelvin))?|kelvin|t_?k",
    "time": r"t|time\w*|elapsed\w*|delay|seconds|t_?s|retention\w*|wait\w*",
    "cell": r"cell(_?(id|no|number|index|address))?|addr(ess)?|device(_?(id|no|number))?|dev|dut|bit",
    "cycle": r"cycle(_?(id|no|number|index))?|write(_?(id|no|number))?|rep(eat|etition)?|"
    r"iter(ation)?|trial|n_?write",
    "level": r"level(_?(id|no|number|index))?|lvl|state(_?(id|no|number))?|range(_?(id|no))?|"
    r"code|target_?level",
    "g": r"g|g_?(meas\w*|read\w*|final|after)|cond|conductances?(_?(meas\w*|read|final))?|"
    r"(meas\w*|final)_?(g|cond\w*)",
    "resistance": r"r|r_?(meas\w*|read\w*|final|after)|res|resistances?(_?(meas\w*|read|final))?|"
    r"(meas\w*|final)_?(r|res\w*)",
    "current": r"i|i_?(meas\w*|read\w*|cell|d)|current(_?\w+)?|(meas\w*|read|cell)_?current|i_?at\w*",
}  # fmt: skip


def _plain(text: str) -> str:
    """ASCII for both code points of micro and of ohm."""
    for sign, word in (("\u00b5", "u"), ("\u03bc", "u"), ("\u03a9", "ohm"), ("\u2126", "ohm")):
        text = text.replace(sign, word)
    return text


def split_unit(header: str) -> tuple[str, str]:
    """Name and unit of a header such as "G_meas (uS)", "Resistance [kohm]" or "time_us"."""
    text = (
        header.strip()
        .strip("\"'")
        .replace("µ", "u")
        .replace("μ", "u")
        .replace("Ω", "ohm")
        .replace("Ω", "ohm")
    )
    found = re.search(r"[(\[{<]\s*([^)\]}>]*?)\s*[)\]}>]", text)
    if found:
        return (text[: found.start()] + text[found.end() :]).strip(" _-/,"), found.group(1)
    found = re.search(
        r"[\s_,/]+((?:[fpnumkMG]?(?:S|A|V|ohms?|Ohms?|s))|us|ms|ns|kOhm|MOhm|h|min|K|°C|degC)$", text
    )
    if found and found.start() > 0:
        return text[: found.start()].strip(), found.group(1)
    return text, ""


def unit_factor(unit: str, dimension: str) -> tuple[float, float]:
    """Factor and offset that turn numbers in `unit` into SI; raises `InputError` for another dimension."""
    text = _plain(unit.strip())
    if dimension == "K" and text.lower() in CELSIUS:
        return 1.0, 273.15
    for base, size in _BASES[dimension].items():
        if text.lower().endswith(base):
            prefix = text[: len(text) - len(base)].strip()
            if prefix in _PREFIXES:
                return _PREFIXES[prefix] * size, 0.0
            if prefix.lower() in _PREFIXES and len(prefix) > 1:
                return _PREFIXES[prefix.lower()] * size, 0.0
    example = {"S": "uS", "ohm": "kohm", "A": "uA", "V": "mV", "s": "us", "K": "K"}[dimension]
    raise InputError(f"unit {unit!r} is not {dimension} with a prefix, such as {example}")


def guess_by_name(headers: list[str]) -> tuple[dict[str, int], dict[str, str], float | None]:
    """Columns by meaning, their units, and a read voltage named in a header ("I at 0.2 V")."""
    columns: dict[str, int] = {}
    units: dict[str, str] = {}
    voltage = None
    for number, header in enumerate(headers):
        found = re.search(r"(?:at|@)\s*([\d.]+)\s*(m?)V", header)
        if found:
            voltage = float(found.group(1)) * (1e-3 if found.group(2) else 1.0)
            header = (header[: found.start()] + header[found.end() :]).strip()
        name, unit = split_unit(header)
        word = re.sub(r"[\s\-.]+", "_", name.strip().lower()).strip("_#")
        for meaning, pattern in _NAMES.items():
            if meaning not in columns and re.fullmatch(pattern, word):
                if meaning == "time" and unit in ("K", "C", "°C", "degC"):
                    continue
                columns[meaning] = number
                if unit:
                    units[meaning] = unit
                break
    return columns, units, voltage


def _adds_up(x: NDArray[np.float64], a: int, b: int, c: int) -> bool:
    """Whether column a counts what b and c count together, and perhaps a few more."""
    if a in (b, c) or not (x[:, b].any() and x[:, c].any()):
        return False
    total = x[:, b] + x[:, c]
    return bool((x[:, a] >= total).all() and np.corrcoef(x[:, a], total)[0, 1] > 0.99)


def _whole(x: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(x).all() and (x == np.floor(x)).all())


def guess_by_values(table: NDArray[np.float64]) -> tuple[dict[str, int], list[str]]:
    """Columns by meaning from a sample of rows of a file without header, and why."""
    columns: dict[str, int] = {}
    reasons: list[str] = []

    def take(meaning: str, column: int, why: str) -> None:
        columns[meaning] = column
        reasons.append(f"column {column + 1} is taken as {meaning}: {why}")

    n, n_columns = table.shape
    finite = np.nan_to_num(table, nan=0.0, posinf=0.0, neginf=0.0)
    median = np.median(np.abs(finite), axis=0)
    whole = [_whole(finite[:, j]) for j in range(n_columns)]
    n_values = [len(np.unique(finite[:, j])) for j in range(n_columns)]
    free = [j for j in range(n_columns) if n_values[j] > 1 or n == 1]
    for j in free:
        if whole[j] and n_values[j] > max(8, 0.02 * n) and not columns:
            take("cell", j, f"whole numbers, {n_values[j]} different ones")
            break
    rest = [j for j in free if j not in columns.values()]
    _guess_quantity(finite, rest, whole, n_values, median, columns, take)
    rest = [j for j in rest if j not in columns.values()]
    counts = [j for j in rest if whole[j] and (finite[:, j] >= 0).all()]
    for a in counts:
        pair = next(((b, c) for b in counts for c in counts if b < c and _adds_up(finite, a, b, c)), None)
        if pair:
            take("pulses", a, f"goes with the sum of columns {pair[0] + 1} and {pair[1] + 1}")
            take("set_pulses", pair[0], "a part of the pulses, the first one")
            take("reset_pulses", pair[1], "a part of the pulses, the second one")
            break
    _guess_rest(finite, columns, whole, n_values, take)
    return columns, reasons


def _guess_quantity(
    x: NDArray[np.float64],
    rest: list[int],
    whole: list[bool],
    n_values: list[int],
    median: NDArray[np.float64],
    columns: dict[str, int],
    take: Any,
) -> None:
    broken = [j for j in rest if not whole[j]]
    for a in broken:
        for b in broken:
            product = x[:, a] * x[:, b]
            if a < b and np.median(np.abs(product - 1.0)) < 1e-3:
                small = b if median[b] < median[a] else a
                other = a + b - small
                take("g", small, f"its product with column {other + 1} is 1, so one is the resistance")
                columns["_inverse"] = other
                return
    busy = [j for j in rest if not whole[j] and n_values[j] > 0.3 * len(x)]
    for j in busy:
        if 1e-9 <= median[j] <= 1e-2:
            take("g", j, f"median {median[j]:.3g}, siemens")
            return
    for j in busy:
        if median[j] > 50.0:
            take("resistance", j, f"median {median[j]:.4g}, ohms")
            return


def _guess_rest(
    x: NDArray[np.float64], columns: dict[str, int], whole: list[bool], n_values: list[int], take: Any
) -> None:
    """Bounds, level, time and success, told by how they go with the quantity."""
    inverse = columns.pop("_inverse", None)
    read = columns.get("g", columns.get("resistance"))
    if read is None:
        return
    q = x[:, read]

    def rest() -> list[int]:
        used = {*columns.values(), inverse}
        return [j for j in range(x.shape[1]) if j not in used]

    few = [j for j in rest() if 1 < n_values[j] <= 128]
    for a in few:
        b = next((b for b in few if b != a and ((x[:, a] <= q) & (q <= x[:, b])).mean() > 0.9
                  and (x[:, a] < x[:, b]).all()), None)  # fmt: skip
        if b is not None:
            inside = 100 * ((x[:, a] <= q) & (q <= x[:, b])).mean()
            take("lower", a, f"with column {b + 1} it encloses {inside:.1f} % of the values")
            take("upper", b, "the other bound")
            break
    best, place = 0.5, None
    logs = np.log(np.maximum(q, 1e-30))
    for j in rest():
        if whole[j] and 1 < n_values[j] <= 128 and n_values[j] < 0.2 * len(x) and "lower" not in columns:
            _, index = np.unique(x[:, j], return_inverse=True)
            means = np.bincount(index, logs) / np.bincount(index)
            explained = 1.0 - float(np.var(logs - means[index])) / max(float(np.var(logs)), 1e-30)
            if explained > best:
                best, place = explained, j
    if place is not None:
        take(
            "level",
            place,
            f"whole numbers that explain {100 * best:.0f} % of the variance of ln({'RG'['g' in columns]})",
        )
    for j in rest():
        t = x[:, j]
        positive = t[t > 0]
        if not whole[j] and (t >= 0).all() and len(positive) and positive.max() > 100 * positive.min():
            take("time", j, f"from {t.min():.3g} to {t.max():.3g}, over decades")
            break
    for j in rest():
        yes = x[:, j].mean()
        if "pulses" in columns and n_values[j] == 2 and set(np.unique(x[:, j])) == {0.0, 1.0} and yes > 0.5:
            take("success", j, f"0 or 1, 1 in {100 * yes:.1f} % of the rows")
            break
