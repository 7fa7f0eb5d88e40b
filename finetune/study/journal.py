"""The journal of a running study: trials as they end, appended to a file of their own.

An archive in HDF5 is never written in place: a writer that is killed would leave broken metadata.  A trial
is one record in `.NAME.h5.journal`, handed to the system before it counts; the records are folded into the
archive when the run ends, when the next one begins, or when the journal has grown large.  A record is

    b"RJ02" | bytes of payload (uint64) | CRC-32 of payload (uint32) | payload

and the payload is a JSON line, which names the arrays, then their bytes, deflated.  A torn record at the end
is a trial that was in progress; one anywhere else is damage.
"""

from __future__ import annotations

import json
import math
import os
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError

__all__ = ["Journal", "Record", "journal_path", "read_journal"]

MAGIC = b"RJ02"
HEAD = struct.Struct("<4sQI")
MAX_PAYLOAD = 1 << 32  # bytes; no trial is larger
SYNC_INTERVAL = 0.5  # seconds between two waits for the disk


@dataclass(frozen=True)
class Record:
    """One trial: the group of its condition, its chip, the arrays of `QUANTITIES` without a trial axis."""

    group: str
    chip: int
    values: dict[str, NDArray[Any]]


def journal_path(archive: Path) -> Path:
    """Where the journal of an archive lies."""
    return archive.with_name(f".{archive.name}.journal")


def pack(record: Record) -> bytes:
    """The bytes of a record."""
    arrays = {name: np.asarray(value) for name, value in record.values.items()}
    arrays = {name: a.astype(str) if a.dtype.kind == "O" else a for name, a in arrays.items()}
    head = {
        "group": record.group,
        "chip": record.chip,
        "arrays": [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()],
    }
    parts = [json.dumps(head).encode(), *(np.ascontiguousarray(array).tobytes() for array in arrays.values())]
    payload = zlib.compress(parts[0] + b"\n" + b"".join(parts[1:]), 1)
    return HEAD.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload


def unpack(payload: bytes) -> Record:
    """The record of a verified payload."""
    data = zlib.decompress(payload)
    end = data.index(b"\n")
    head = json.loads(data[:end])
    values, offset = {}, end + 1
    for name, kind, shape in head["arrays"]:
        dtype, count = np.dtype(kind), math.prod(shape)
        if dtype.hasobject:
            raise ValueError("objects are never stored")
        if count and dtype.itemsize:
            values[name] = np.frombuffer(data, dtype, count, offset).reshape(shape)
        else:
            values[name] = np.empty(shape, dtype)
        offset += count * dtype.itemsize
    return Record(str(head["group"]), int(head["chip"]), values)


class Journal:
    """The open journal of an archive; only the holder of the archive's lock makes one."""

    def __init__(self, archive: Path) -> None:
        self.path = journal_path(archive)
        self.size = sum(HEAD.size + len(payload) for payload in _payloads(self.path))
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        os.ftruncate(self._file, self.size)  # what a writer that was killed left torn
        os.lseek(self._file, self.size, os.SEEK_SET)
        self._synced = 0.0

    def append(self, record: Record) -> None:
        """Add a trial.

        When this returns no end of the process can lose it; a failure of the machine can lose those of the
        last half second.

        Raises
        ------
        OSError
            Where it cannot be written, such as on a full disk; what was there before stays as it was.
        """
        data = memoryview(pack(record))
        try:
            while data:
                data = data[os.write(self._file, data) :]
            if time.monotonic() - self._synced > SYNC_INTERVAL:
                os.fsync(self._file)
                self._synced = time.monotonic()
        except OSError:
            os.ftruncate(self._file, self.size)
            os.lseek(self._file, self.size, os.SEEK_SET)
            raise
        self.size = os.lseek(self._file, 0, os.SEEK_CUR)

    def clear(self) -> None:
        """Forget all records: they are in the archive."""
        os.ftruncate(self._file, 0)
        self.size = os.lseek(self._file, 0, os.SEEK_SET)

    def close(self) -> None:
        """Close, and remove the file where nothing is in it."""
        if self.size:
            os.fsync(self._file)
        os.close(self._file)
        if not self.size:
            self.path.unlink(missing_ok=True)


def _payloads(path: Path) -> Iterator[bytes]:
    """Verified payloads in order; stops at a torn end, refuses damage before it."""
    if not path.is_file():
        return
    size, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position + HEAD.size <= size:
            magic, length, checksum = HEAD.unpack(file.read(HEAD.size))
            end = position + HEAD.size + length
            if magic == MAGIC and length <= MAX_PAYLOAD and end > size:
                return  # torn
            payload = file.read(length) if magic == MAGIC and length <= MAX_PAYLOAD else b""
            if magic != MAGIC or zlib.crc32(payload) != checksum:
                file.seek(position + 1)
                if MAGIC in file.read():
                    raise InputError(f"{path}: damaged at byte {position}, with whole trials behind it")
                return
            yield payload
            position = end


def read_journal(archive: Path) -> Iterator[Record]:
    """Trials that are not in the archive yet, in the order in which they ended.

    Raises
    ------
    InputError
        If a record before the last one is damaged.
    """
    for payload in _payloads(journal_path(archive)):
        try:
            yield unpack(payload)
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            raise InputError(f"{journal_path(archive)}: a record cannot be read ({error})") from None
