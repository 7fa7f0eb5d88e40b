"""Archives read: named arrays with axes and units, tables, exports.

The layout is documented in `docs/archive.md`; h5py alone suffices to read it.  The checksums of a file are
verified before its content is looked at, and trials that are still in the journal are read with the rest.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.study.journal import Record, read_journal
from finetune.study.quantities import FIRST, FORMAT, FORMAT_VERSION, QUANTITIES
from finetune.study.results import About, Archive, Study, split_stage
from finetune.study.seal import check_seal
from rramsim.checks import InputError

__all__ = ["QUANTITIES", "Archive", "Study", "open_archive", "open_study", "split_stage"]

MAX_EXPANSION = 1100  # deflate gives no more bytes than this for one
UNREADABLE = (
    OSError,
    RuntimeError,
    KeyError,
    AttributeError,
    ValueError,
    TypeError,
    OverflowError,
    MemoryError,
)


# -- opening ----------------------------------------------------------------------------------------


def open_archive(path: str | Path) -> Archive:
    """Open the archive of one experiment.

    Raises
    ------
    InputError
        If the file is missing, damaged, not an archive, of a newer format, or of several conditions.

    Examples
    --------
    >>> from finetune import open_archive
    >>> archive = open_archive("results/quick.h5")  # doctest: +SKIP
    >>> archive["trial/accuracy"].shape, archive.dims("trial/accuracy")  # doctest: +SKIP
    ((2, 3), ('trial', 'stage'))
    """
    study = open_study(path)
    if len(study) != 1 or study.axes:
        raise InputError(
            f"{path}: holds a study of {len(study)} conditions; open it with finetune.open_study"
        )
    return next(iter(study.values()))


def open_study(path: str | Path) -> Study:
    """Open a study: the archive of a sweep or of one experiment, or a folder of archives.

    Raises
    ------
    InputError
        If a file is missing, damaged, not an archive, or of a newer format.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.h5"))
        if not files:
            raise InputError(f"{path}: a folder without archives (*.h5)")
        archives: dict[str, Archive] = {}
        coordinates: dict[str, dict[str, Any]] = {}
        for file in files:
            study = open_study(file)
            for label, archive in study.items():
                name = label if study.axes and label not in archives else f"{file.stem} {label}".strip()
                archives[name] = archive
                coordinates[name] = {"file": file.stem, **study.coordinates[label]}
        return Study(path, archives, coordinates)
    if not path.is_file():
        raise InputError(f"{path}: no such archive; `rramsim run` makes one")
    return _open(path)


def _open(path: Path) -> Study:
    import h5py

    sealed = check_seal(path)
    waiting: dict[str, dict[int, Record]] = {}
    for record in read_journal(path):
        waiting.setdefault(record.group, {}).setdefault(record.chip, record)
    try:
        with h5py.File(path, "r") as file:
            root = {name: _plain(value) for name, value in file.attrs.items()}
            if root.get("format") != FORMAT:
                raise InputError(f"{path}: an HDF5 file, but not an archive of rramsim")
            version = int(root["format_version"])
            if version > FORMAT_VERSION:
                raise InputError(
                    f"{path}: archive format {version} is newer than {FORMAT_VERSION}; update rramsim"
                )
            if version > 1 and not sealed:
                raise InputError(
                    f"{path}: damaged: its checksums are missing; the file was cut short, or changed by "
                    "another program (`rramsim archive seal` accepts it as it is)"
                )
            groups = [f"conditions/{name}" for name in file["conditions"]] if "conditions" in file else [""]
            archives: dict[str, Archive] = {}
            coordinates: dict[str, dict[str, Any]] = {}
            entries = []
            for group in groups:
                own = {name: _plain(value) for name, value in file[group or "/"].attrs.items()}
                entries.append((int(own.get("order", 0)), str(own.get("label", "")), group, own))
            for _, label, group, own in sorted(entries):
                reader = _Reader(path, group, waiting.get(group, {}))
                archives[label] = reader.archive(file[group or "/"], {**root, **own})
                coordinates[label] = json.loads(own.get("coordinates", "{}"))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: not a readable HDF5 file, perhaps truncated ({_short(error)})") from None
    except UNREADABLE as error:
        raise InputError(f"{path}: the archive is damaged ({type(error).__name__}: {error})") from None
    return Study(path, archives, coordinates)


class _Reader:
    """Reads the datasets of one experiment, the complete trials alone, those of the journal among them."""

    def __init__(self, path: Path, group: str, waiting: dict[int, Record]) -> None:
        self._path, self._group, self._waiting = path, group, waiting
        status = path.stat()
        self._stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        self._size = status.st_size

    def archive(self, group: Any, attributes: dict[str, Any]) -> Archive:
        import h5py

        about: dict[str, About] = {}
        items: dict[str, Any] = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and not item.is_scale:
                if item.external:
                    raise InputError(f"{self._path}: {name} lies in another file, which is never read")
                dims = str(item.attrs.get("dims", ""))
                about[name] = About(
                    tuple(dims.split(",")) if dims else (),
                    str(item.attrs.get("unit", "")),
                    str(item.attrs.get("description", "")),
                )
                items[name] = item

        group.visititems(visit)
        missing = sorted({"stages", "labels", "teacher/accuracy", *FIRST} - set(items))
        if missing:
            raise InputError(f"{self._path}: the archive is damaged, it lacks {', '.join(missing[:4])}")
        chips = group["trial/chip"][()]
        complete = group["trial/complete"][()].astype(bool)
        late = [row for row, chip in enumerate(chips.tolist()) if chip in self._waiting and not complete[row]]
        self._late = {row: self._waiting[int(chips[row])] for row in late}
        complete[late] = True
        self._rows = np.flatnonzero(complete)
        readers: dict[str, Callable[[], NDArray[Any]]] = {}
        for name, item in items.items():
            self._check_size(name, item, about[name].dims)
            readers[name] = functools.partial(self._read, name)
        result = Archive(self._path, attributes, readers, about, chips)
        sizes = {"trial": len(self._rows), "row": 0, "checkpoint": 0}
        for name, item in items.items():
            sizes |= {d: n for d, n in zip(about[name].dims, item.shape, strict=False) if d not in sizes}
        for name in set(QUANTITIES) - set(items):
            quantity = QUANTITIES[name]
            about[name] = About(quantity.dims, quantity.unit, quantity.text)
            readers[name] = functools.partial(self._absent, name, [sizes[dim] for dim in quantity.dims])
        return result

    def _check_size(self, name: str, item: Any, dims: tuple[str, ...]) -> None:
        """Refuse sizes that the file cannot hold, before memory is taken."""
        n_rows = len(self._rows) if dims[:1] == ("trial",) else item.shape[0] if item.ndim else 1
        n_bytes = n_rows * int(np.prod(item.shape[1:], dtype=float)) * item.dtype.itemsize
        if n_bytes > MAX_EXPANSION * self._size + (1 << 24) + sum(
            array.nbytes for record in self._late.values() for array in record.values.values()
        ):
            raise InputError(f"{self._path}: damaged: {name} claims {n_bytes:.2g} bytes, more than fit")

    def _read(self, name: str) -> NDArray[Any]:
        import h5py

        status = self._path.stat()
        if (status.st_ino, status.st_size, status.st_mtime_ns) != self._stamp:
            raise InputError(f"{self._path}: was changed since it was opened; open it again")
        try:
            with h5py.File(self._path, "r") as file:
                item = file[self._group or "/"][name]
                about = str(item.attrs.get("dims", ""))
                if about.split(",")[0] != "trial":
                    return _strings(item[()], item.dtype)
                return _strings(self._trials(name, item), item.dtype)
        except UNREADABLE as error:
            raise InputError(
                f"{self._path}: {name} cannot be read ({type(error).__name__}: {error})"
            ) from None

    def _absent(self, name: str, shape: list[int]) -> NDArray[Any]:
        """A quantity that is younger than the archive; trials of the journal may have it."""
        quantity = QUANTITIES[name]
        values = np.full(shape, quantity.fill, "U1" if quantity.dtype == "str" else quantity.dtype)
        for place, row in enumerate(self._rows.tolist()):
            if row in self._late and name in self._late[row].values:
                values[place] = self._late[row].values[name]
        return values

    def _trials(self, name: str, item: Any) -> NDArray[Any]:
        rows = self._rows
        stored = np.array([row for row in rows.tolist() if row not in self._late], dtype=np.int64)
        if stored.size == rows.size:
            return item[()] if rows.size == item.shape[0] else _take(item, rows)
        quantity = QUANTITIES.get(name)
        late = [self._late[row].values.get(name) for row in rows.tolist() if row in self._late]
        if quantity is None or any(value is None for value in late):
            values = _take(item, rows)  # the chips, which stand in the archive from the beginning
            return np.ones_like(values) if name == "trial/complete" else values
        from finetune.study.storage import stack

        new = stack([value for value in late if value is not None], quantity)
        old = _take(item, stored)
        inner = tuple(max(a, b) for a, b in zip(new.shape[1:], old.shape[1:], strict=True))
        values = np.full((rows.size, *inner), quantity.fill, dtype=np.promote_types(new.dtype, item.dtype))
        is_late = np.isin(rows, list(self._late))
        for part, chosen in ((new, is_late), (old, ~is_late)):
            where: tuple[Any, ...] = (chosen, *(slice(0, length) for length in part.shape[1:]))
            values[where] = part
        return values


def _take(item: Any, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Rows of a dataset in runs, which HDF5 reads faster than single ones."""
    if not rows.size:
        return np.empty((0, *item.shape[1:]), item.dtype)
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return np.concatenate([item[run[0] : run[-1] + 1] for run in runs])


def _strings(value: Any, dtype: Any) -> NDArray[Any]:
    if dtype.kind == "S":
        return np.char.decode(value, "utf-8") if value.size else value.astype(str)
    if dtype.kind == "O":
        flat = [v.decode() if isinstance(v, bytes) else str(v) for v in np.ravel(value)]
        return np.array(flat, dtype=str).reshape(np.shape(value))
    return np.asarray(value)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _short(error: OSError) -> str:
    """The last part of HDF5's message, which says what is wrong."""
    text = str(error)
    return text[text.find("(") + 1 : text.rfind(")")] if "(" in text else text
