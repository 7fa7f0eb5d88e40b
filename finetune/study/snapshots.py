"""States of tuned chips on disk: chip, digital side and tuner, to be aged or tuned further another day.

A file holds one chip after one method. Nested dicts, lists and numbers stand as JSON text, arrays beside it
as HDF5 datasets, each once however often it occurs; no pickles. The file is signed as networks are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rramsim
from rramsim.checks import InputError
from rramsim.hdf5 import USER_BLOCK, open_plain, sign

__all__ = ["load_snapshot", "save_snapshot", "snapshot_path"]

FORMAT = "rramsim snapshot"
VERSION = 1


def snapshot_path(folder: str | Path, chip: int, method: str) -> Path:
    """Where the state of a chip after a method is stored.

    Examples
    --------
    >>> snapshot_path("chips", 100, "lsq.affine + adapter").name
    'chip100_lsq.affine_adapter_ddfa.h5'
    """
    plain = re.sub(r"[^A-Za-z0-9.]+", "_", method).strip("_")[:60]
    mark = "" if plain == method else f"_{hashlib.sha256(method.encode()).hexdigest()[:4]}"
    return Path(folder) / f"chip{chip}_{plain}{mark}.h5"


def save_snapshot(path: str | Path, state: Mapping[str, Any]) -> Path:
    """Write a state of nested dicts, lists, numbers, text and arrays; the file is whole or absent.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    import h5py

    path = Path(path)
    arrays: dict[str, NDArray[Any]] = {}
    text = json.dumps(_pack(state, arrays))
    part = Path(f"{path}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(part, "w", libver=("v108", "v110"), userblock_size=USER_BLOCK) as file:
            file.attrs["format"] = FORMAT
            file.attrs["format_version"] = VERSION
            file.attrs["rramsim_version"] = rramsim.__version__
            file["state"] = np.frombuffer(text.encode(), dtype=np.uint8)
            for name, array in arrays.items():
                packed = {"compression": "gzip", "compression_opts": 1} if array.size > 1000 else {}
                file.create_dataset(f"arrays/{name}", data=array, **packed)
        sign(part)
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def load_snapshot(path: str | Path) -> dict[str, Any]:
    """Read what `save_snapshot` wrote; dtypes, shapes and kinds of containers are the same.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another kind or of a newer version.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "state.h5"
    >>> load_snapshot(save_snapshot(file, {"levels": np.arange(3), "range": (0.1, None)}))
    {'levels': array([0, 1, 2]), 'range': (0.1, None)}
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; `rramsim run --save-chips` writes states of chips")
    with open_plain(path, "snapshot") as file:
        if file.attrs.get("format") != FORMAT:
            raise InputError(f"{path}: an HDF5 file, but not the state of a chip")
        if int(file.attrs["format_version"]) > VERSION:
            raise InputError(f"{path}: written by a newer rramsim ({file.attrs['rramsim_version']}); update")
        if file.attrs["rramsim_version"] != rramsim.__version__:
            raise InputError(
                f"{path}: written by rramsim {file.attrs['rramsim_version']}, this is {rramsim.__version__}; "
                "states go on bit for bit under the same version only"
            )
        arrays = {name: item[()] for name, item in file["arrays"].items()} if "arrays" in file else {}
        found = _unpack(json.loads(file["state"][()].tobytes()), arrays)
    assert isinstance(found, dict)
    return found


def _pack(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """JSON for a value; arrays go into `arrays` under the digest of their content."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.kind in "OV":
            raise TypeError(f"a state holds an array of {array.dtype}")
        text = array.dtype.kind == "U"
        stored = np.char.encode(array, "utf-8") if text else array
        head = f"{array.dtype.str}{array.shape}".encode()
        name = hashlib.sha256(head + np.ascontiguousarray(stored).tobytes()).hexdigest()[:24]
        arrays[name] = stored
        kind = "scalar" if isinstance(value, np.generic) else "text" if text else "array"
        return {"$": kind, "v": name, **({"d": array.dtype.str} if text else {})}
    if isinstance(value, Mapping):
        return {"$": "dict", "v": [[_pack(k, arrays), _pack(v, arrays)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"$": "tuple", "v": [_pack(entry, arrays) for entry in value]}
    if isinstance(value, list):
        return [_pack(entry, arrays) for entry in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"a state holds a {type(value).__name__}, which has no place in a file")


def _unpack(value: Any, arrays: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_unpack(entry, arrays) for entry in value]
    if not isinstance(value, dict):
        return value
    kind, content = value["$"], value["v"]
    if kind == "dict":
        return {_unpack(k, arrays): _unpack(v, arrays) for k, v in content}
    if kind == "tuple":
        return tuple(_unpack(entry, arrays) for entry in content)
    array = np.asarray(arrays[content])
    if kind == "text":
        return np.char.decode(array, "utf-8").astype(value["d"])
    return array[()] if kind == "scalar" else array
