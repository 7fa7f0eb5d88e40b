"""Measurement files as laboratories have them, read into columns in SI units.

Text (comma, semicolon, tab or blanks between columns; decimal point or comma), gzip and xlsx,
with one header row, two, one behind #, or none. What a column means is guessed and said
(`Measurements.notes`); `ReadingConfig` corrects the guess. Numbers of lines are those of the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.cell.fit.meaning import DIMENSIONS, guess_by_name, guess_by_values, unit_factor
from rramsim.cell.fit.plausible import check_files, check_units
from rramsim.cell.fit.recipe import MEANINGS, ReadingConfig
from rramsim.cell.fit.sheets import Sheet, read_sheet
from rramsim.checks import InputError, nearest_name

__all__ = ["Measurements", "read_measurements"]

N_SAMPLE = 20000  # rows that a guess looks at
G_HIGHEST = 1.0  # [S] no cell conducts more
OPEN_OHMS = 1e15  # instruments report an overflow (9.9e37) for an open cell
BINS = 16

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Measurements:
    """Rows of one or several files; every column has one entry per row.

    `columns` holds `g` [S] and, where known, the other meanings of `recipe.MEANINGS` in SI units,
    cells numbered 0, 1, ...; `lower` and `upper` are conductances [S]. `lines` are line numbers.
    """

    source: str
    columns: Columns
    lines: NDArray[np.int64]
    all_lines: NDArray[np.int64]  # with those left out
    notes: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()  # what was left out, with line numbers

    def __len__(self) -> int:
        return len(self.columns["g"])


def read_measurements(
    paths: str | Path | Sequence[str | Path], reading: ReadingConfig | None = None
) -> Measurements:
    """Read measurement files into columns.

    Parameters
    ----------
    paths : path or sequence of paths
        Files of the same kind, one after another.
    reading : ReadingConfig, optional
        Corrections to what is guessed.

    Raises
    ------
    InputError
        Naming the file and line of what cannot be read, or what is missing.

    Warns
    -----
    UnitWarning
        Where medians are beyond what cells have, or two units seem to be mixed.
    """
    reading = reading or ReadingConfig()
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    if reading.file_times and len(reading.file_times) != len(files):
        raise InputError(
            f"file_times must have one time per file ({len(files)}), got {len(reading.file_times)}"
        )
    parts = []
    for number, path in enumerate(files):
        part = _guarded(Path(path), reading)
        if reading.file_times:
            part.columns["time"] = np.full(len(part), reading.file_times[number])
        parts.append(part)
    return parts[0] if len(parts) == 1 else _joined(parts)


def _guarded(path: Path, reading: ReadingConfig) -> Measurements:
    """`_read_one`; what no check foresees of a damaged file is one error that names it all the same."""
    try:
        return _read_one(path, reading)
    except InputError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as e:
        reason = str(e).strip().partition("\n")[0][:200]
        raise InputError(f"{path}: cannot be read as measurements ({type(e).__name__}: {reason})") from None


def _joined(parts: list[Measurements]) -> Measurements:
    check_files([part.source for part in parts], [float(np.median(part.columns["g"])) for part in parts])
    shared = set.intersection(*(set(part.columns) for part in parts))
    lost = set.union(*(set(part.columns) for part in parts)) - shared
    if lost:
        raise InputError(
            f"all files must have the same columns; {', '.join(sorted(lost))} is not in every one of "
            f"{', '.join(part.source for part in parts)}"
        )
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    if "time" in shared and "cell" not in shared and len({len(part.all_lines) for part in parts}) == 1:
        columns["cell"] = np.concatenate([np.searchsorted(part.all_lines, part.lines) for part in parts])
        notes.append("row i of every file is taken as cell i: the files are reads of the same cells")
    return Measurements(
        ", ".join(part.source for part in parts),
        columns,
        np.concatenate([part.lines for part in parts]),
        np.concatenate([part.all_lines for part in parts]),
        tuple(notes),
        tuple(f"{part.source}: {text}" for part in parts for text in part.bad),
    )


# -- meaning ------------------------------------------------------------------------------------


def _numbers(frame: Any, column: Any) -> NDArray[np.float64]:
    import pandas as pd

    return pd.to_numeric(frame[column], errors="coerce").to_numpy(float)


def _place(sheet: Sheet, meaning: str, column: int | str) -> int:
    if isinstance(column, str) and column.isdigit():
        column = int(column)
    width = sheet.frame.shape[1]
    if isinstance(column, int):
        if not 1 <= column <= width:
            raise InputError(f"{sheet.path}: column {column} of {meaning} is not among the {width} columns")
        return column - 1
    for number, header in enumerate(sheet.headers):
        if header == column or re.split(r"[(\[]", header)[0].strip().lower() == column.strip().lower():
            return number
    known = nearest_name(column, sheet.headers) if sheet.headers else "the file has no header: give numbers"
    raise InputError(f"{sheet.path}: no column {column!r} for {meaning}; {known}")


def _wide_columns(sheet: Sheet, reading: ReadingConfig, given: dict[str, int]) -> list[int]:
    """Columns that repeat the quantity; none in a table of one value per row."""
    width = sheet.frame.shape[1]
    if reading.wide:
        found = re.fullmatch(r"(\d+)-(\d*)", reading.wide.strip())
        if not found:
            raise InputError(f"wide must be a range of columns such as '2-' or '3-10', got {reading.wide!r}")
        first, last = int(found.group(1)), int(found.group(2) or width)
        if not 1 <= first < last <= width:
            raise InputError(f"{sheet.path}: wide {reading.wide!r} is not within the {width} columns")
        return list(range(first - 1, last))
    if sheet.headers or width < 9 or {"g", "resistance", "current"} & set(given):
        return []
    x = np.abs(np.stack([_numbers(sheet.frame.iloc[:N_SAMPLE], j) for j in range(width)], axis=1))
    first = 1 if (x[:, 0] == np.floor(x[:, 0])).all() and len(np.unique(x[:, 0])) == len(x) else 0
    medians = np.nanmedian(x[:, first:], axis=0)
    whole = np.mean(x[:, first:] == np.floor(x[:, first:]))
    one_kind = medians.min() > 0 and medians.max() / medians.min() < 1e6 and whole < 0.5
    return list(range(first, width)) if one_kind and width - first >= 8 else []


def _find_meanings(
    sheet: Sheet, reading: ReadingConfig
) -> tuple[dict[str, int], dict[str, str], list[int], float | None]:
    notes, voltage = sheet.notes, reading.voltage
    given = {meaning: _place(sheet, meaning, column) for meaning, column in reading.columns.items()}
    columns: dict[str, int] = {}
    units: dict[str, str] = {}
    wide = _wide_columns(sheet, reading, given)
    if sheet.headers and not wide:
        columns, units, named_voltage = guess_by_name(sheet.headers)
        voltage = voltage or named_voltage
        for meaning, column in columns.items():
            if meaning not in given:
                unit = f", unit {units[meaning]}" if meaning in units else ""
                notes.append(f"column {sheet.headers[column]!r} is taken as {MEANINGS[meaning]}{unit}")
    elif sheet.headers:
        columns, units, _ = guess_by_name([h if j not in wide else "" for j, h in enumerate(sheet.headers)])
    elif wide:
        if wide[0] == 1 and "cell" not in given:
            columns["cell"] = 0
            notes.append("column 1 is taken as cell: whole numbers, all different")
        notes.append(f"columns {wide[0] + 1} to {wide[-1] + 1} are taken as repeats of one quantity")
    elif not {"g", "resistance", "current"} & set(given) or len(given) + len(reading.compute) < 2:
        width = sheet.frame.shape[1]
        sample = np.stack([_numbers(sheet.frame.iloc[:N_SAMPLE], j) for j in range(width)], axis=1)
        columns, reasons = guess_by_values(sample)
        notes += [text for text in reasons if text.split(" is taken as ")[1].split(":")[0] not in given]
    for meaning in [m for m, column in columns.items() if m in given or column in given.values()]:
        columns.pop(meaning)
    if given and {"g", "resistance", "current"} & set(given):
        for meaning in {"g", "resistance", "current"} - set(given):
            columns.pop(meaning, None)
    columns |= given
    return columns, {**units, **reading.units}, wide, voltage


def _read_one(path: Path, reading: ReadingConfig) -> Measurements:
    sheet = read_sheet(path, reading)
    columns, units, wide, voltage = _find_meanings(sheet, reading)
    frame, n_wide = sheet.frame, max(len(wide), 1)
    n_rows = len(frame)
    row, k = np.repeat(np.arange(n_rows), n_wide), np.tile(np.arange(n_wide), n_rows)
    values: Columns = {}
    for meaning, column in columns.items():
        entries: NDArray[Any]
        if meaning == "cell":
            # text throughout: an empty entry would be a float among them
            entries = np.unique(frame[column].map(str).to_numpy(dtype=str), return_inverse=True)[1]
        else:
            entries = _numbers(frame, column)
        values[meaning] = np.repeat(entries, n_wide)
    if wide:
        block = np.stack([_numbers(frame, j) for j in wide], axis=1).ravel()
        values[_kind_of_block(block, reading, sheet)] = block
    quantity = _quantity(values, reading, sheet)
    units = {name: unit for name, unit in units.items() if name in values}
    for name in ("lower", "upper", "target"):
        if name in values and name not in units and quantity in units:
            units[name] = units[quantity]
    for name, unit in units.items():
        dimension = DIMENSIONS[quantity if name in ("lower", "upper", "target") else name] if (
            name in DIMENSIONS or name in ("lower", "upper", "target")
        ) else None  # fmt: skip
        if dimension is not None:
            factor, offset = unit_factor(unit, dimension)
            values[name] = values[name] * factor + offset
    _compute(values, reading, sheet, row, k)
    if wide and "level" not in values and not {"level", "target"} & set(reading.compute):
        _guess_alternation(values, quantity, k, n_wide, sheet)
    values = _to_conductance(values, quantity, voltage, sheet)
    lines = sheet.lines[row]
    values, lines, bad = _without_bad(values, lines, frame, columns, row, reading, path)
    _check_magnitude(values["g"], quantity, sheet)
    check_units(values, path.name)
    if "cell" in values:
        values["cell"] = np.unique(values["cell"], return_inverse=True)[1]
    return Measurements(path.name, values, lines, sheet.lines[row], tuple(sheet.notes), tuple(bad))


def _kind_of_block(block: NDArray[np.float64], reading: ReadingConfig, sheet: Sheet) -> str:
    if reading.quantity != "auto":
        return "g" if reading.quantity == "conductance" else reading.quantity
    median = float(np.nanmedian(np.abs(block)))
    kind = "resistance" if median > 50.0 else "g"
    sheet.notes.append(
        f"taken as {MEANINGS[kind]}: median {median:.4g} {'ohm' if kind == 'resistance' else 'S'}"
    )
    return kind


def _quantity(values: Columns, reading: ReadingConfig, sheet: Sheet) -> str:
    wanted = {"conductance": "g", "auto": ""}.get(reading.quantity, reading.quantity)
    present = [name for name in ("g", "resistance", "current") if name in values]
    if wanted and wanted not in present:
        if len(present) == 1:  # --resistance on a column guessed as conductance
            values[wanted] = values.pop(present[0])
            return wanted
        raise InputError(f"{sheet.path}: no column holds the {MEANINGS[wanted]}; give its number or header")
    if not present:
        shown = ", ".join(sheet.headers) if sheet.headers else f"{sheet.frame.shape[1]} columns without names"
        raise InputError(
            f"{sheet.path}: no column of conductance, resistance or current was recognised in {shown}; "
            "name one, such as --column g=3 --unit g=uS"
        )
    quantity = wanted or present[0]
    for name in present:
        if name != quantity:
            values.pop(name)
    return quantity


def _compute(
    values: Columns, reading: ReadingConfig, sheet: Sheet, row: NDArray[np.int64], k: NDArray[np.int64]
) -> None:
    import pandas as pd

    if not reading.compute:
        return
    known = pd.DataFrame({**values, "i": row, "k": k})
    for meaning, expression in reading.compute.items():
        try:
            result = known.eval(expression, engine="python")
        except Exception as error:
            raise InputError(
                f"{meaning} = {expression!r} cannot be computed ({error}); known are {', '.join(known)}"
            ) from None
        values[meaning] = np.broadcast_to(np.asarray(result, float), (len(known),)).copy()
        known[meaning] = values[meaning]
        sheet.notes.append(f"{meaning} = {expression}")


def _guess_alternation(
    values: Columns, quantity: str, k: NDArray[np.int64], n_wide: int, sheet: Sheet
) -> None:
    """Two states in turn along the columns of a wide table."""
    q = values[quantity]
    halves = [np.log(np.abs(q[(k % 2 == half) & (q > 0)])) for half in (0, 1)]
    if n_wide < 4 or min(map(len, halves)) < 10:
        return
    gap = abs(np.median(halves[0]) - np.median(halves[1]))
    inner = max(np.subtract(*np.percentile(half, [75, 25])) for half in halves)
    if gap > max(inner, 0.2):
        values["level"] = (k % 2).astype(float)
        values["cycle"] = (k // 2).astype(float)
        sheet.notes.append(
            f"two states in turn along the columns (medians differ by a factor of {np.exp(gap):.3g}): "
            "level = k % 2, cycle = k // 2"
        )


def _to_conductance(values: Columns, quantity: str, voltage: float | None, sheet: Sheet) -> Columns:
    """Replace resistances or currents by conductances."""
    if quantity == "g":
        return values
    values["g"] = values.pop(quantity)
    if quantity == "current":
        volts = values.get("v_read")
        if volts is None and voltage is None:
            raise InputError(
                f"{sheet.path}: currents need a read voltage: give --voltage, or a column v_read"
            )
        for name in ("g", "target", "lower", "upper"):
            if name in values:
                values[name] = values[name] / (voltage if volts is None else volts)
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        values["g"] = np.where(np.abs(values["g"]) < OPEN_OHMS, 1.0 / values["g"], np.nan)
        if "target" in values:
            values["target"] = 1.0 / values["target"]
        if {"lower", "upper"} <= set(values):
            values["lower"], values["upper"] = 1.0 / values["upper"], 1.0 / values["lower"]
    return values


def _without_bad(
    values: Columns, lines: NDArray[np.int64], frame: Any, columns: dict[str, int], row: NDArray[np.int64],
    reading: ReadingConfig, path: Path,
) -> tuple[Columns, NDArray[np.int64], list[str]]:  # fmt: skip
    """Leave unusable rows out, say which, and refuse the file when they are too many."""
    g = values["g"]
    reasons = {"not a number or open": ~np.isfinite(g), "negative or zero": np.isfinite(g) & ~(g > 0.0)}
    for name in ("level", "target", "time", "n_reads"):
        if name in values:
            broken = ~np.isfinite(values[name])
            if broken.all():
                raise InputError(f"{path}: {name} is not a number in any row")
            if name in ("level", "target"):
                reasons[f"without {name}"] = broken
            else:
                values[name] = np.where(broken, 0.0, values[name])
                reasons[f"with {name} < 0"] = values[name] < 0
    bad = np.logical_or.reduce(list(reasons.values()))
    texts = []
    for reason, mask in reasons.items():
        if mask.any():
            first = ", ".join(str(n) for n in lines[mask][:5])
            more = f" and {mask.sum() - 5} more" if mask.sum() > 5 else ""
            texts.append(f"{mask.sum()} values {reason}: line {first}{more}")
    if bad.mean() > reading.max_bad or bad.all():
        raise InputError(
            f"{path}: {100 * bad.mean():.1f} % of the values cannot be used, more than max_bad = "
            f"{100 * reading.max_bad:g} %: {'; '.join(texts)}"
        )
    good = ~bad
    return {name: column[good] for name, column in values.items()}, lines[good], texts


def _check_magnitude(g: NDArray[np.float64], quantity: str, sheet: Sheet) -> None:
    median, top = float(np.median(g)), float(g.max())
    if top > G_HIGHEST or median > 0.01 or median < 1e-13:
        slip = (
            "were resistances given (--resistance)?" if top > 50.0 else "was a unit left out (--unit g=uS)?"
        )
        if quantity == "resistance":
            slip = "were conductances given, or is a unit missing (--unit resistance=kohm)?"
        raise InputError(
            f"{sheet.path}: conductances have a median of {median:.3g} S ({median * 1e6:.4g} uS) and reach "
            f"{top:.3g} S, beyond what cells have (1e-13 to 0.01 S); {slip}"
        )
