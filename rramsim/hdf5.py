"""HDF5 files of other people: opened read-only, refused where they point outside or claim too much.

A file may be signed: its first 512 bytes, HDF5's user block, then hold the SHA-256 of the rest, which is
verified before the HDF5 library sees a byte.
"""

from __future__ import annotations

import hashlib
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
    with path.open("rb") as stream:
        head = stream.read(USER_BLOCK)
        if not head.startswith(MARK):
            if what == "network" and not head.startswith(SIGNATURE):
                raise InputError(f"{path}: not a readable HDF5 network; its first bytes are wrong")
            return
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if head[len(MARK) : len(MARK) + 64] != digest.encode():
        raise InputError(f"{path}: the checksum is wrong, the file is damaged; take another copy")


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
