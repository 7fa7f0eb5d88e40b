"""One writer for each archive: a lock on a file beside it, which the system releases when its holder ends."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from rramsim.checks import InputError

__all__ = ["locked"]


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the right to write `out`.

    Raises
    ------
    InputError
        If another program holds it, naming process and host, or nothing can be written there.
    """
    from filelock import FileLock, Timeout

    owner = out.with_name(f".{out.name}.owner")
    lock = FileLock(out.with_name(f".{out.name}.lock"), timeout=0)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{out}: another run is writing this archive{_holder(owner)}; wait for it or choose another --out"
        ) from None
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error})") from None
    try:
        with contextlib.suppress(OSError):  # a full disk keeps nobody from resuming
            owner.write_text(json.dumps({"process": os.getpid(), "host": socket.gethostname()}), "utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
        if os.name == "posix":
            _remove(Path(lock.lock_file))


def _holder(owner: Path) -> str:
    try:
        held = json.loads(owner.read_text("utf-8"))
        return f" (process {held['process']} on {held['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _remove(path: Path) -> None:
    """Remove the lock file, unless somebody else holds it by now."""
    import fcntl

    with contextlib.suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
