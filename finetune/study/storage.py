"""Archives written: made, extended, trials folded in, always by replacing the file as a whole.

The file is HDF5 with the dimension scales of netCDF4, sealed by checksums behind its end (`seal`).  A study
has a group `conditions/DIGEST` for each experiment, with the layout of an experiment's file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.study.journal import Record, journal_path, read_journal
from finetune.study.quantities import FORMAT, FORMAT_VERSION, GROWING, QUANTITIES, Quantity
from finetune.study.seal import add_seal, check_seal, content_size
from rramsim.checks import InputError

__all__ = ["QUANTITIES", "Condition", "check_format", "fold", "migrate", "planned_chips", "stack", "write"]

BATCH = 1 << 27  # bytes of trials that are folded in at once
CHUNK = 1 << 18  # bytes of a chunk, about
DIMENSION_ONLY = "This is a netCDF dimension but not a netCDF variable. %9d"  # netCDF4's mark
COORDINATES = {  # axis: the dataset whose values are its coordinates
    "trial": "trial/chip",
    "stage": "stages",
    "layer": "layers/name",
    "node": "nodes/name",
    "class": "classes",
    "level": "cells/level_conductance",
}
SCALES = {"trial": "chip", "checkpoint": "checkpoint/checkpoint"}  # names of scales that are not the axis's


@dataclass(frozen=True)
class Condition:
    """An experiment to be added to an archive, without trials.

    `group` is "" for the file itself; `sizes` has the length of every axis but trial, row and checkpoint;
    `constants` maps names to (array or list of str, dims, unit, text), datasets without a trial axis.
    """

    group: str
    attributes: Mapping[str, Any]
    sizes: Mapping[str, int]
    constants: Mapping[str, Any]
    chips: Sequence[int]


def write(
    path: Path,
    *,
    attributes: Mapping[str, Any] | None = None,
    conditions: Iterable[Condition] = (),
    chips: Mapping[str, Sequence[int]] | None = None,
    group_attributes: Mapping[str, Mapping[str, Any]] | None = None,
    records: Iterable[Record] = (),
    space: int = 1 << 22,
    fresh: bool = False,
) -> None:
    """Change an archive in one step: it is as before, or all of this is in it.

    Parameters
    ----------
    attributes : mapping, optional
        Of the whole file.
    conditions : iterable of Condition
        Experiments to add.
    chips : mapping of group to ids, optional
        Chips to plan for; those that are known keep their places.
    group_attributes : mapping of group to mapping, optional
        Attributes of single experiments.
    records : iterable of Record
        Trials to fold in; those that are there already are passed over.
    space : int
        Bytes that it may take at most, tried for before HDF5 begins: it does not survive a full disk.
    fresh : bool
        Begin with an empty file.
    """
    with replaced(path, fresh=fresh, space=space) as file:
        if fresh:
            file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs.update(dict(attributes or {}))
        for condition in conditions:
            _add_condition(file.require_group(condition.group or "/"), condition)
        for group, ids in (chips or {}).items():
            _extend(file[group or "/"], ids)
        for group, values in (group_attributes or {}).items():
            file[group or "/"].attrs.update(dict(values))
        for batch in _batches(records):
            for group in dict.fromkeys(record.group for record in batch):
                _fold(file[group or "/"], [record for record in batch if record.group == group])


def fold(path: Path) -> int:
    """Take the trials of the journal into the archive; returns how many records it held.

    The journal itself is left to its holder, who clears it afterwards: a trial that is in both counts once.
    """
    journal = journal_path(path)
    if not journal.is_file() or not journal.stat().st_size:
        return 0
    count, space = 0, 1 << 22
    for record in read_journal(path):
        count += 1
        space += sum(array.nbytes for array in record.values.values())
    if count:
        write(path, records=read_journal(path), space=space)
    return count


def planned_chips(path: Path, group: str = "") -> list[int]:
    """Chip ids of all trials of an experiment, complete or not, in archive order."""
    import h5py

    with h5py.File(path, "r") as file:
        return [int(chip) for chip in file[group or "/"]["trial/chip"][()]]


def migrate(path: Path) -> bool:
    """Bring an archive of version 1 to the current layout, values unchanged; False where it is current."""
    import h5py

    if content_size(path) is not None:
        return False
    with h5py.File(path, "r") as old:
        if old.attrs.get("format") != FORMAT or old.attrs.get("format_version") != 1:
            raise InputError(f"{path}: not an archive of rramsim of version 1")
        attributes = {name: value for name, value in old.attrs.items() if name != "format_version"}
        attributes.setdefault("platforms", f"[{attributes.get('versions', '{}')}]")
        constants: dict[str, Any] = {}
        sizes: dict[str, int] = {}

        def visit(name: str, item: Any) -> None:
            if not isinstance(item, h5py.Dataset):
                return
            dims = tuple(filter(None, str(item.attrs["dims"]).split(",")))
            sizes.update(zip(dims, item.shape, strict=True))
            if name not in QUANTITIES:
                value = item.asstr()[()] if item.dtype.kind == "O" else item[()]
                constants[name] = (value, dims, item.attrs["unit"], item.attrs["description"])

        old.visititems(visit)
        chips = old["trial/chip"][()].tolist()
        with replaced(path, fresh=True, space=2 * path.stat().st_size + (1 << 22)) as file:
            file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, **attributes})
            _add_condition(file, Condition("", {}, sizes, constants, chips))
            for name, quantity in QUANTITIES.items():
                if name in old and old[name].size:
                    _fit(file, name, quantity, old[name].shape[1:], old[name].dtype.itemsize)
                    file[name][...] = old[name][()]
    return True


def check_format(path: Path) -> None:
    """Refuse what is no archive of rramsim, checksums or not."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise InputError(f"{path}: an HDF5 file, but not an archive of rramsim")
    except OSError as error:
        raise InputError(f"{path}: not a readable HDF5 file ({error})") from None


# -- parts of a file -------------------------------------------------------------------------------


def _add_condition(group: Any, condition: Condition) -> None:
    group.attrs.update(dict(condition.attributes))
    sizes = {**condition.sizes, "trial": len(condition.chips), **dict.fromkeys(GROWING, 0)}
    for name, (value, dims, unit, text) in condition.constants.items():
        dataset = _constant(group, name, value)
        sizes.update(zip(dims, dataset.shape, strict=True))
        _describe(dataset, dims, unit, text)
    for name, quantity in QUANTITIES.items():
        _add_quantity(group, name, quantity, [sizes[dim] for dim in quantity.dims])
    group["trial/chip"][:] = condition.chips
    scales = {dim: _add_scale(group, dim, size) for dim, size in sizes.items()}
    datasets = [group[name] for name in (*condition.constants, *QUANTITIES)]
    for dataset in datasets:
        for axis, dim in enumerate(_dims(dataset)):
            dataset.dims[axis].attach_scale(scales[dim])


def _constant(group: Any, name: str, value: Any) -> Any:
    array = np.asarray(value)
    if array.dtype.kind in "USO":
        import h5py

        return group.create_dataset(
            name, data=array.astype(object), dtype=h5py.string_dtype(), track_times=False
        )
    packed = {"compression": "gzip", "shuffle": True} if array.size > 1024 else {}
    return group.create_dataset(name, data=array, track_times=False, **packed)


def _add_quantity(group: Any, name: str, quantity: Quantity, shape: Sequence[int], width: int = 64) -> Any:
    dtype = np.dtype(f"S{width}" if quantity.dtype == "str" else quantity.dtype)
    inner = [64 if dim in GROWING else max(size, 1) for dim, size in zip(quantity.dims, shape, strict=True)][
        1:
    ]
    rows = max(1, min(1024, CHUNK // (dtype.itemsize * int(np.prod(inner, dtype=np.int64)))))
    dataset = group.create_dataset(
        name,
        shape=tuple(shape),
        maxshape=tuple(
            None if dim in ("trial", *GROWING) else size
            for dim, size in zip(quantity.dims, shape, strict=True)
        ),
        chunks=(rows, *inner),
        dtype=dtype,
        fillvalue=quantity.fill,
        track_times=False,
        **({"compression": "gzip", "compression_opts": 1, "shuffle": True} if len(shape) > 1 else {}),
    )
    _describe(dataset, quantity.dims, quantity.unit, quantity.text)
    return dataset


def _describe(dataset: Any, dims: Sequence[str], unit: str, text: str) -> None:
    dataset.attrs["dims"] = ",".join(dims)
    dataset.attrs["unit"] = unit
    dataset.attrs["description"] = text
    dataset.attrs["units"] = unit  # as netCDF's conventions name them
    dataset.attrs["long_name"] = text


def _dims(dataset: Any) -> list[str]:
    return [dim for dim in str(dataset.attrs["dims"]).split(",") if dim]


def _add_scale(group: Any, dim: str, size: int) -> Any:
    """The scale of an axis: its coordinates where it has any, else its length alone."""
    name, limits = SCALES.get(dim, dim), (None,) if dim in ("trial", *GROWING) else (size,)
    source = group.get(COORDINATES.get(dim, "no/coordinates"))
    if source is None:
        scale = group.create_dataset(
            name,
            (size,),
            ">f4",
            maxshape=limits,
            chunks=(1024,) if None in limits else True,
            track_times=False,
        )
        scale.make_scale(DIMENSION_ONLY % size)
        text = "length of the axis"
    else:
        scale = group.create_dataset(
            name, data=source[()], dtype=source.dtype, maxshape=limits, chunks=(max(1, min(size, 1024)),),
            track_times=False,
        )  # fmt: skip
        scale.make_scale(name)
        text = str(source.attrs["description"])
    _describe(scale, (dim,), "" if source is None else str(source.attrs["unit"]), text)
    return scale


def _grow_scale(group: Any, dim: str, size: int) -> None:
    scale = group[SCALES.get(dim, dim)]
    if scale.shape[0] < size:
        scale.resize((size,))
        if dim != "trial":
            scale.attrs["NAME"] = np.bytes_(DIMENSION_ONLY % size)


def _extend(group: Any, chips: Sequence[int]) -> None:
    known = group["trial/chip"][()].tolist()
    new = [chip for chip in chips if chip not in set(known)]
    _add_younger(group)
    for name, quantity in QUANTITIES.items():
        if quantity.dims[0] == "trial":
            group[name].resize(len(known) + len(new), axis=0)
    group["trial/chip"][len(known) :] = new
    _grow_scale(group, "trial", len(known) + len(new))
    group["chip"][len(known) :] = new


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += sum(array.nbytes for array in record.values.values())
        if size > BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _fold(group: Any, records: list[Record]) -> None:
    """Write trials of one experiment at the places of their chips, the marks of completion last."""
    _add_younger(group)
    places = {int(chip): row for row, chip in enumerate(group["trial/chip"][()])}
    complete = group["trial/complete"][()]
    todo = {places[r.chip]: r for r in records if not complete[places[r.chip]]}
    rows = np.array(sorted(todo), dtype=np.int64)
    if not rows.size:
        return
    runs = np.split(np.arange(rows.size), np.flatnonzero(np.diff(rows) > 1) + 1)
    for name, quantity in QUANTITIES.items():
        values = [todo[row].values[name] for row in rows.tolist() if name in todo[row].values]
        if len(values) < rows.size:  # `trial/chip`, `trial/complete`
            continue
        stacked = stack(values, quantity)
        if not stacked.size:
            continue
        _fit(group, name, quantity, stacked.shape[1:], stacked.dtype.itemsize)
        inner = tuple(slice(0, length) for length in stacked.shape[1:])
        for run in runs:
            group[name][(slice(rows[run[0]], rows[run[-1]] + 1), *inner)] = stacked[run[0] : run[-1] + 1]
    complete[rows] = 1
    group["trial/complete"][:] = complete


def _add_younger(group: Any) -> None:
    """Datasets of quantities that are younger than the archive."""
    for name in [name for name in QUANTITIES if name not in group]:
        quantity = QUANTITIES[name]
        scales = [group[SCALES.get(dim, dim)] for dim in quantity.dims]
        dataset = _add_quantity(group, name, quantity, [len(scale) for scale in scales])
        for axis, scale in enumerate(scales):
            dataset.dims[axis].attach_scale(scale)


def stack(values: list[NDArray[Any]], quantity: Quantity) -> NDArray[Any]:
    """Arrays of several trials, padded to the longest."""
    arrays: list[NDArray[Any]] = [np.asarray(value) for value in values]
    if quantity.dtype == "str":
        arrays = [
            np.char.encode(a.astype(str), "utf-8") if a.size else np.empty(a.shape, "S1") for a in arrays
        ]
        kind = np.dtype(f"S{max(a.dtype.itemsize for a in arrays)}")
    else:
        kind = np.dtype(quantity.dtype)
    shape = tuple(max(lengths) for lengths in zip(*(a.shape for a in arrays), strict=True))
    stacked = np.full((len(arrays), *shape), quantity.fill, dtype=kind)
    for place, array in enumerate(arrays):
        where: tuple[Any, ...] = (place, *(slice(0, length) for length in array.shape))
        stacked[where] = array
    return stacked


def _fit(group: Any, name: str, quantity: Quantity, shape: Sequence[int], width: int) -> None:
    """Make a dataset long enough for its growing axes, and wide enough for its texts."""
    dataset = group[name]
    if quantity.dtype == "str" and width > dataset.dtype.itemsize:
        old, held = dataset[()], dataset.shape
        scales = [dim[0] for dim in dataset.dims]
        for axis, scale in enumerate(scales):
            dataset.dims[axis].detach_scale(scale)
        del group[name]
        dataset = _add_quantity(group, name, quantity, held, width)
        dataset[...] = old
        for axis, scale in enumerate(scales):
            dataset.dims[axis].attach_scale(scale)
    for axis, dim in enumerate(quantity.dims[1:], start=1):
        if dim in GROWING and shape[axis - 1] > dataset.shape[axis]:
            dataset.resize(shape[axis - 1], axis=axis)
            _grow_scale(group, dim, shape[axis - 1])


# -- the file as a whole ---------------------------------------------------------------------------


@contextlib.contextmanager
def replaced(path: Path, *, fresh: bool = False, space: int = 1 << 22) -> Iterator[Any]:
    """An open HDF5 file that takes the place of `path` only when the block ends without an error."""
    import h5py

    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            with h5py.File("empty", "w", driver="core", backing_store=False) as blank:
                blank.flush()
                part.write_bytes(blank.id.get_file_image())
        else:
            check_seal(path)
            shutil.copyfile(path, part)
            content = content_size(path)
            if content is not None:
                os.truncate(part, content)
        _reserve(part, space)
        with h5py.File(part, "r+") as file:
            yield file
        add_seal(part)
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or error
        kept = "; what it held is kept" if path.exists() else ""
        raise InputError(f"{path}: cannot be written ({reason}){kept}") from None
    finally:
        part.unlink(missing_ok=True)


def _reserve(path: Path, space: int) -> None:
    """Take the bytes that may be needed: a full disk shows here, where it does no harm."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size + space)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
