"""One stamp over all kernel sources in the key of Numba's cache.

Numba recompiles a cached function when its own file has changed, and does not notice a change of a function
in another file that was compiled into it. Kernels call each other across files, so the files of this
folder count as one source: an edit of any of them compiles all of them anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from numba.core import caching


def source_stamp(folder: Path) -> str:
    """SHA-256 of the names and contents of all Python files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _stamped(locator: Any, folder: Path, stamp: str) -> type:
    """A locator of Numba's cache that answers for the files of one folder."""

    class Stamped(locator):
        def get_source_stamp(self) -> str:
            return stamp

        @classmethod
        def from_function(cls, py_func: Any, py_file: str) -> Any:
            inside = Path(py_file).parent == folder
            return super().from_function(py_func, py_file) if inside else None

    return Stamped


def share_stamp(folder: Path) -> None:
    """Let all cached functions in the files of `folder` share one stamp; call before they are defined."""
    stamp = source_stamp(folder)
    implementation: Any = caching.CacheImpl
    found = implementation._locator_classes
    implementation._locator_classes = [_stamped(locator, folder, stamp) for locator in found] + found
