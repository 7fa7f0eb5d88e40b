"""Files that a TOML file names: they are looked for beside it, then in the working directory."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

__all__ = ["PathWarning", "is_file_name", "locate", "locate_presets"]

ENDINGS = (".toml", ".h5", ".hdf5", ".onnx", ".pb", ".npz", ".gz", ".csv")


class PathWarning(UserWarning):
    """A file was found in the working directory, not beside the TOML file that names it."""


def is_file_name(name: str) -> bool:
    """Whether a name is that of a file or folder rather than of something shipped."""
    return "/" in name or "\\" in name or name.lower().endswith(ENDINGS)


def locate(name: str, folder: str | Path | None) -> str:
    """Path of a file that a TOML file in `folder` names.

    Parameters
    ----------
    name : str
        As written in the TOML file; an absolute path stays as it is.
    folder : path or None
        Where the TOML file lies; None where the settings came from no file.

    Returns
    -------
    str
        The path beside the TOML file if there is such a file, else `name` unchanged, which then means
        the working directory.

    Warns
    -----
    PathWarning
        If the file is in the working directory only.

    Examples
    --------
    >>> locate("mine.h5", None)
    'mine.h5'
    >>> locate("cnn_digits", "/somewhere")
    'cnn_digits'
    """
    if folder is None or Path(name).is_absolute() or not name.isprintable():
        return name
    beside, here = Path(folder) / name, Path(name)
    try:
        is_beside, is_here, is_folder = beside.exists(), here.exists(), beside.is_dir()
    except OSError:  # such as a name longer than file names may be; whoever opens it will say so
        return name
    if Path(folder) != Path() and is_beside and (is_file_name(name) or is_folder):
        return str(beside)
    if is_file_name(name) and is_here and not is_beside:
        warnings.warn(
            f"{name} was found in the working directory, not beside the TOML file in {folder}; paths are "
            "meant from there",
            PathWarning,
            stacklevel=2,
        )
    return name


def locate_presets(table: dict[str, Any], folder: str | Path) -> dict[str, Any]:
    """The tables of a TOML file with every `preset` that is a file made a path of the working directory."""
    found = dict(table)
    for key, value in table.items():
        if isinstance(value, dict) and str(value.get("preset", "")).endswith(".toml"):
            found[key] = {**value, "preset": locate(str(value["preset"]), folder)}
    return found
