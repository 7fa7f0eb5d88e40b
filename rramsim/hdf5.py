"""HDF5 files of other people: opened read-only, refused where they point outside or claim too much.

A file may be signed: its first 512 bytes, HDF5's user block, then hold the SHA-256 of the rest, which is
verified before the HDF5 library sees a byte. A file without signature is first read in a child process
with limits of time and memory, since the HDF5 library may crash, loop or take all memory on a damaged one.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rramsim.checks import InputError

__all__ = ["DAMAGE", "USER_BLOCK", "check_plain", "check_size", "open_plain", "sign"]

USER_BLOCK = 512  # bytes before the HDF5 part of a signed file
SIGNATURE = b"\x89HDF\r\n\x1a\n"
MARK = b"rramsim sha256 "
UNSUSPICIOUS = 64 << 20  # [B] no ratio of sizes is asked below this
LARGEST_RATIO = 200  # of unpacked to stored bytes; images pack 2 to 20 times
CHILD_MEMORY = 2 << 30  # [B] beyond the size of the file that a child process may take to read it,
CHILD_SECONDS = 60.0  # and time [s], beyond that for 5 MB/s
CHILD = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except ImportError:
    pass
import h5py

def read(name, item):
    try:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            claimed, stored = item.size * item.dtype.itemsize, item.id.get_storage_size()
            if item.external or item.is_virtual or claimed > max(1 << 26, 200 * stored):
                return  # refused later
            if item.ndim == 0:
                item[()]
            elif item.size:
                rows = max(1, (1 << 26) * len(item) // claimed)
                for first in range(0, len(item), rows):
                    item[first : first + rows]
        list(item.attrs.items())
    except MemoryError:
        raise
    except Exception:
        pass  # what Python catches, the reader will say

with h5py.File(sys.argv[1], "r") as file:
    list(file.attrs.items())
    file.visititems(read)
"""
# what h5py and NumPy raise on damaged files
DAMAGE: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def sign(path: Path) -> None:
    """Write the checksum of a closed file that was created with ``userblock_size=USER_BLOCK``."""
    with path.open("r+b") as stream:
        stream.seek(USER_BLOCK)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        stream.write((MARK + digest.encode() + b"\n").ljust(USER_BLOCK, b"\0"))


def _verify(path: Path, what: str) -> None:
    """Check the signature; a file without one must be readable by a process of its own."""
    with path.open("rb") as stream:
        head = stream.read(USER_BLOCK)
        if not head.startswith(MARK):
            if what == "network" and not head.startswith(SIGNATURE):
                raise InputError(f"{path}: not a readable HDF5 network; its first bytes are wrong")
            state = path.stat()
            reason = _read_apart(str(path), state.st_size, state.st_mtime_ns)
            if reason:
                raise InputError(f"{path}: not a readable HDF5 {what}, it is damaged: {reason}")
            return
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if head[len(MARK) : len(MARK) + 64] != digest.encode():
        raise InputError(f"{path}: the checksum is wrong, the file is damaged; take another copy")


@functools.lru_cache(maxsize=64)
def _read_apart(path: str, size: int, changed_at: int) -> str:
    """Why a child process could not read the file, "" if it could or raised an error that Python catches."""
    memory, seconds = CHILD_MEMORY + size, CHILD_SECONDS + size / 5e6
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-c", CHILD, path, str(memory)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=seconds,
            env={**os.environ, **threads},
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"reading it does not end within {seconds:.0f} s"
    if done.returncode < 0:
        return f"reading it crashes the HDF5 library (signal {-done.returncode})"
    if b"MemoryError" in done.stderr or b"Cannot allocate" in done.stderr:
        return f"reading it takes more than {memory / 2**30:.1f} GiB of memory"
    return ""


@contextmanager
def open_plain(path: str | Path, what: str) -> Iterator[Any]:
    """An h5py file for reading; every error that damage can cause becomes an `InputError` with the path.

    Parameters
    ----------
    what : str
        For messages, such as "network".
    """
    import h5py

    path = Path(path)
    try:
        _verify(path, what)
        with h5py.File(path, "r") as file:
            check_plain(file, str(path))
            yield file
    except InputError:
        raise
    except DAMAGE as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise InputError(
            f"{path}: not a readable HDF5 {what}, perhaps truncated or damaged "
            f"({type(error).__name__}: {reason})"
        ) from None


def check_plain(group: Any, where: str) -> None:
    """Refuse links out of the file, storage outside it, and arrays that unpack to far more than is stored."""
    import h5py

    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise InputError(
                f"{where}: {group.name.rstrip('/')}/{name} is a link ({type(link).__name__}); "
                "a file must hold its data itself"
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            check_plain(item, where)
        elif isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise InputError(f"{where}: {item.name} takes its data from another file, which is refused")
            if item.dtype.kind == "O" and h5py.check_string_dtype(item.dtype) is None:
                raise InputError(f"{where}: {item.name} holds objects, not numbers or text")
            if item.dtype.kind != "O":
                claimed = int(item.size or 0) * item.dtype.itemsize
                check_size(claimed, item.id.get_storage_size(), f"{where}: {item.name}")


def check_size(claimed: int, stored: int, where: str) -> None:
    """Refuse arrays that claim far more bytes than are stored for them."""
    if claimed > UNSUSPICIOUS and claimed > LARGEST_RATIO * max(stored, 1):
        raise InputError(
            f"{where} claims {claimed:,} bytes and stores {stored:,}: refused as damaged or hostile"
        )
