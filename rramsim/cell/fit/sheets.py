"""Text files and spreadsheets cut into header and table, before anything is said about meaning."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.cell.fit.meaning import DIMENSIONS, unit_factor
from rramsim.cell.fit.recipe import ReadingConfig
from rramsim.checks import InputError

__all__ = ["Sheet", "read_sheet"]

UNSUSPICIOUS = 64 << 20  # [B] no ratio of sizes is asked below this
LARGEST_RATIO = 200  # of unpacked to packed bytes; tables of numbers pack 3 to 20 times


@dataclass
class Sheet:
    """One file as text: its table, names and line numbers."""

    path: Path
    frame: Any  # pandas.DataFrame of the raw entries, columns 0, 1, ...
    headers: list[str]
    lines: NDArray[np.int64]
    notes: list[str] = field(default_factory=list)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = _unpacked(raw, path)
        if raw[:4] == b"PK\x03\x04":
            return _sheet_text(raw, path)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        if b"\0" in raw[:4096]:
            raise InputError(f"{path}: cannot be read as text; expected are CSV, TSV, gzip or xlsx") from None
        return raw.decode("latin-1")


def _unpacked(raw: bytes, path: Path) -> bytes:
    """Content of a gzip file, refused where it is far larger than text packs."""
    most = max(UNSUSPICIOUS, LARGEST_RATIO * len(raw))
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
        text = stream.read(most + 1)
    if len(text) > most:
        raise InputError(f"{path}: unpacks to more than {most:,} bytes: refused as damaged or hostile")
    return text


def _sheet_text(raw: bytes, path: Path) -> str:
    import pandas as pd

    try:
        frame = pd.read_excel(io.BytesIO(raw), header=None, dtype=object)
    except ImportError:
        raise InputError(f"{path}: reading xlsx needs openpyxl: pip install rramsim[tables]") from None
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read as xlsx ({error})") from None
    return frame.to_csv(sep="\t", header=False, index=False)


def _separator(lines: list[str], given: str) -> str:
    """The separator that cuts the lines into the most columns of the same number."""
    if given:
        return {"tab": "\t", "space": r"\s+"}.get(given, given)
    best, columns = r"\s+", 1
    for mark in ("\t", ";", ","):
        counts = [line.count(mark) for line in lines]
        if min(counts) >= 1 and max(counts) == min(counts) and min(counts) + 1 > columns:
            if mark == "," and columns > 1:
                continue  # a decimal comma
            best, columns = mark, min(counts) + 1
    if columns == 1:
        for mark in ("\t", ";", ","):  # rows of unequal length: the complaint about them comes later
            if sum(mark in line for line in lines) > len(lines) // 2:
                return mark
    return best


def _is_number(entry: str, decimal: str) -> bool:
    text = entry.strip().strip('"').replace(decimal, ".")
    try:
        float(text)
    except ValueError:
        return text == ""
    return True


def _cut(line: str, separator: str) -> list[str]:
    import csv

    if separator == r"\s+":
        return line.split()
    return next(csv.reader([line], delimiter=separator))


def read_sheet(path: Path, reading: ReadingConfig) -> Sheet:
    """Cut a file into header and table."""
    import pandas as pd

    all_lines = _text(path).splitlines()
    marks = np.array([not line.strip() or line.lstrip()[0] == "#" for line in all_lines], bool)
    kept = np.flatnonzero(~marks)
    if kept.size == 0:
        raise InputError(f"{path}: holds no measurements")
    sample = [all_lines[i] for i in kept[: min(60, kept.size)]]
    separator = _separator(sample[2:] or sample, reading.separator)
    body = " ".join(sample[2:] or sample)
    decimal = (
        "," if separator != "," and re.search(r"\d,\d", body) and not re.search(r"\d\.\d", body) else "."
    )
    headers: list[str] = []
    if reading.header != "no":
        while len(headers) < 2 and kept.size > len(headers):
            entries = _cut(all_lines[kept[len(headers)]], separator)
            numbers = [_is_number(entry, decimal) for entry in entries]
            if all(numbers) or (
                any(n and e.strip() for n, e in zip(numbers, entries, strict=True)) and headers
            ):
                break
            if len(headers) == 1 and not _looks_like_units(entries):
                break
            headers.append(all_lines[kept[len(headers)]])
    names: list[str] = []
    notes: list[str] = []
    if headers:
        names = [entry.strip() for entry in _cut(headers[0], separator)]
        if len(headers) == 2:
            units = _cut(headers[1], separator)
            names = [
                f"{a} ({b.strip(' ()[]')})" if b.strip() else a for a, b in zip(names, units, strict=False)
            ]
        kept = kept[len(headers) :]
    elif reading.header != "no":  # numpy.savetxt writes its header behind #
        before = [
            line for line, mark in zip(all_lines[: kept[0]], marks, strict=False) if mark and line.strip()
        ]
        if before:
            last = before[-1].lstrip().lstrip("#").strip()
            entries = _cut(last, separator)
            if len(entries) == len(_cut(all_lines[kept[0]], separator)):
                names = [entry.strip() for entry in entries]
    if kept.size == 0:
        raise InputError(f"{path}: needs a header and at least one row of numbers")
    text = "\n".join([all_lines[i] for i in kept])
    width = len(_cut(all_lines[kept[0]], separator))
    if names and len(names) != width:
        raise InputError(
            f"{path}, line {kept[0] + 1}: {len(names)} entries wanted as in the header, got {width}"
        )
    try:
        frame = pd.read_csv(
            io.StringIO(text), sep=separator, header=None, decimal=decimal, skipinitialspace=True,
            names=list(range(width)), index_col=False, on_bad_lines="error",
            na_values=["open", "OPEN", "Open", "OL", "inf", "Inf", "-"], low_memory=False,
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        if found is None:
            raise InputError(f"{path}: {error}") from None
        line = kept[int(found.group(2)) - 1] + 1
        raise InputError(
            f"{path}, line {line}: {found.group(1)} entries wanted, got {found.group(3)}"
        ) from None
    shown = {"\t": "tab", r"\s+": "blanks", ",": "comma", ";": "semicolon"}.get(separator, separator)
    layout = f"{len(frame)} rows of {width} columns ({shown}{', decimal comma' if decimal == ',' else ''})"
    notes.append(f"read as {layout}, {'with' if names else 'without'} header")
    return Sheet(path, frame, names, kept + 1, notes)


def _looks_like_units(entries: list[str]) -> bool:
    known = 0
    for entry in entries:
        text = entry.strip(" ()[]")
        for dimension in set(DIMENSIONS.values()):
            try:
                unit_factor(text, dimension)
            except InputError:
                continue
            known += 1
            break
    return known > 0
