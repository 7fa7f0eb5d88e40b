"""Checksums of a whole file, block by block, behind its content.

HDF5 reads damaged metadata into tracebacks, endless loops and segmentation faults, and a flipped bit of a
number into another number.  So every byte is verified before the library sees the first one.  The seal is a
table of CRC-32 sums behind the end of the HDF5 file, where HDF5 does not look:

    sums (uint32 each) | b"RRAMSEAL" | bytes of content (uint64) | bytes of a block (uint64)
                       | CRC-32 of the sums and the numbers before it (uint32) | b"RRAMSEAL"
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from rramsim.checks import InputError

__all__ = ["add_seal", "check_seal", "content_size"]

BLOCK = 1 << 20
MAGIC = b"RRAMSEAL"
FOOT = struct.Struct("<8sQQI8s")


def add_seal(path: Path) -> None:
    """Seal a closed file that has no seal."""
    size, sums = path.stat().st_size, bytearray()
    with path.open("r+b") as file:
        while block := file.read(BLOCK):
            sums += struct.pack("<I", zlib.crc32(block))
        total = zlib.crc32(struct.pack("<QQ", size, BLOCK), zlib.crc32(bytes(sums)))
        file.write(bytes(sums) + FOOT.pack(MAGIC, size, BLOCK, total, MAGIC))
        file.flush()
        os.fsync(file.fileno())


def content_size(path: Path) -> int | None:
    """Bytes before the seal; None without one.  A seal that is itself damaged is an `InputError`."""
    size = path.stat().st_size
    if size < FOOT.size:
        return None
    with path.open("rb") as file:
        file.seek(size - FOOT.size)
        head, content, block, total, tail = FOOT.unpack(file.read(FOOT.size))
        if MAGIC not in (head, tail):
            return None
        n_blocks = -(-content // block) if block else -1
        if head != tail or content + 4 * n_blocks + FOOT.size != size:
            raise InputError(f"{path}: damaged: its table of checksums was changed")
        file.seek(content)
        sums = file.read(4 * n_blocks)
    if zlib.crc32(struct.pack("<QQ", content, block), zlib.crc32(sums)) != total:
        raise InputError(f"{path}: damaged: its table of checksums was changed")
    return int(content)


def check_seal(path: Path) -> bool:
    """Verify every block of a sealed file; False where there is no seal.

    Raises
    ------
    InputError
        Where a byte has changed since the file was written, naming the place.
    """
    content = content_size(path)
    if content is None:
        return False
    with path.open("rb") as file:
        file.seek(content)
        sums = file.read()[: -FOOT.size]
        file.seek(0)
        for number, (wanted,) in enumerate(struct.iter_unpack("<I", sums)):
            start = number * BLOCK
            if zlib.crc32(file.read(min(BLOCK, content - start))) != wanted:
                raise InputError(
                    f"{path}: damaged: bytes {start} to {min(start + BLOCK, content) - 1} are not those that "
                    "were written; restore the file from a copy"
                )
    return True
