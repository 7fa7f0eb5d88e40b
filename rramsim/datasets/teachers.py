"""Files shipped with the package: trained networks and where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rramsim.checks import InputError, nearest_name

if TYPE_CHECKING:
    from rramsim.network import Network

__all__ = ["data_path", "load_teacher", "teacher_names"]


def data_path(*parts: str) -> Path:
    """Path of a shipped file: in `data/` of a checkout, or in the installed package."""
    installed = Path(__file__).resolve().parent.parent / "_data"
    root = installed if installed.is_dir() else Path(__file__).resolve().parent.parent.parent / "data"
    path = root.joinpath(*parts)
    if not path.exists():
        raise InputError(f"the shipped file {'/'.join(parts)!r} is missing; reinstall rramsim")
    return path


def teacher_names() -> tuple[str, ...]:
    """Names of the shipped trained networks."""
    return tuple(sorted(path.stem for path in data_path("teachers").glob("*.h5")))


def load_teacher(name: str) -> Network:
    """A shipped trained network; its metadata name data set, normalisation and measured accuracy."""
    from rramsim.network import Network

    if name not in teacher_names():
        raise InputError(f"unknown teacher {name!r}; {nearest_name(name, teacher_names())}")
    return Network.load(data_path("teachers", f"{name}.h5"))
