"""Archives: one HDF5 file per experiment, one dataset per quantity, trials along the first axis.

The layout is documented in `docs/archive.md`; h5py alone suffices to read it. A file is replaced as a
whole after each trial, so a reader or a killed writer never leaves a damaged one behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.study.statistics import Ratio, recovered_fraction
from rramsim.blackbox.protocol import LEDGER_QUANTITIES, LedgerQuantity
from rramsim.checks import InputError

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "QUANTITIES",
    "Archive",
    "Quantity",
    "create",
    "extend",
    "open_archive",
    "plain_stage",
    "planned_chips",
    "split_stage",
    "versions",
    "write_trial",
]

FORMAT = "rramsim archive"
FORMAT_VERSION = 1
AGE = re.compile(
    r" \+ (\S+ (?:reads|s)(?: maintained)?)$"
)  # how `ExperimentConfig.stages` names a method at an age


@dataclass(frozen=True)
class Quantity:
    """One dataset with a trial axis: element type, names of axes, unit, meaning."""

    dtype: str
    dims: tuple[str, ...]
    unit: str
    text: str
    fill: Any = 0


def _ledger(entry: LedgerQuantity) -> Quantity:
    fill: Any = np.nan if entry.kind == "float64" else 0
    return Quantity(entry.kind, ("trial", "stage", "layer"), entry.unit, entry.text, fill)


def _real(text: str, unit: str, *dims: str) -> Quantity:
    return Quantity("float64", ("trial", *dims), unit, text, np.nan)


def _row(dtype: str, text: str, axis: str = "row") -> Quantity:
    fill: Any = {"int64": -1, "float64": np.nan, "str": b""}[dtype]
    return Quantity(dtype, ("trial", axis), "" if dtype == "str" else "1", text, fill)


QUANTITIES: dict[str, Quantity] = {
    "trial/chip": Quantity("int64", ("trial",), "1", "chip id; with the seed it names the individual"),
    "trial/complete": Quantity("uint8", ("trial",), "1", "1 when the trial is whole; written last"),
    "trial/accuracy": _real("share of test images classified as labelled", "1", "stage"),
    "trial/kl": _real("mean over test images of T^2 KL(teacher || chip) of the outputs, T = 2", "1", "stage"),
    "trial/predictions": Quantity("uint8", ("trial", "stage", "image"), "1", "predicted class", 255),
    "trial/layer_error": _real(
        "error power over signal power of a mapped node's outputs against the teacher, mean over channels, "
        "on calibration images, errors of earlier layers included",
        "1",
        "stage",
        "node",
    ),
    "trial/overhead": _real("extra digital numbers over the number of weights", "1", "stage"),
    "trial/finished": Quantity("uint8", ("trial", "stage"), "1", "0 where the budget ended the tuning"),
    **{f"ledger/{entry.name}": _ledger(entry) for entry in LEDGER_QUANTITIES.values() if entry.cost},
    "cells/histogram": Quantity(
        "int64",
        ("trial", "layer", "level", "bin"),
        "1",
        "weight-holding cells by level target and realised conductance, after plain mapping",
    ),
    "checkpoint/stage": _row("int64", "index into /stages; -1 pads", "checkpoint"),
    "checkpoint/label": _row("str", "where in the tuning", "checkpoint"),
    "checkpoint/vectors": _row("int64", "input vectors used by the tuning so far", "checkpoint"),
    "checkpoint/cell_writes": _row("int64", "cells written so far, mapping included", "checkpoint"),
    "checkpoint/accuracy": _row("float64", "on the first n_checkpoint test images", "checkpoint"),
    "history/stage": _row("int64", "index into /stages; -1 pads"),
    "history/layer": _row("str", "chip layer"),
    "history/step": _row("str", "component of the strategy"),
    "history/quantity": _row("str", "what `value` is"),
    "history/value": _row("float64", "a number that the step recorded"),
    "history/vectors": _row("int64", "input vectors used by the tuning so far"),
    "history/cell_writes": _row("int64", "cells written so far, mapping included"),
    "timing/seconds": _real("wall clock of tuning and evaluation", "s", "stage"),
}
GROWING = ("row", "checkpoint")  # axes that grow with the longest trial; `fill` pads


# -- writing --------------------------------------------------------------------------------------


def create(
    path: Path, *, attributes: Mapping[str, Any], sizes: Mapping[str, int], constants: Mapping[str, Any]
) -> None:
    """Make an archive without trials.

    Parameters
    ----------
    attributes : mapping
        Root attributes: seed, digest, config, versions, ...
    sizes : mapping
        Length of every axis but trial, row and checkpoint.
    constants : mapping of name to (array or list of str, dims, unit, text)
        Datasets without a trial axis.
    """
    with replaced(path, fresh=True) as file:
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        for name, value in attributes.items():
            file.attrs[name] = value
        for name, (value, dims, unit, text) in constants.items():
            _describe(_dataset(file, name, value), dims, unit, text)
        for name, quantity in QUANTITIES.items():
            shape = tuple(0 if dim in ("trial", *GROWING) else sizes[dim] for dim in quantity.dims)
            limits = tuple(
                None if dim in ("trial", *GROWING) else size
                for dim, size in zip(quantity.dims, shape, strict=True)
            )
            chunks = tuple(
                1 if dim == "trial" else (64 if dim in GROWING else max(size, 1))
                for dim, size in zip(quantity.dims, shape, strict=True)
            )
            packed = {"compression": "gzip", "shuffle": True} if len(shape) > 2 else {}
            text_kind = quantity.dtype == "str"
            dataset = file.create_dataset(
                name,
                shape=shape,
                maxshape=limits,
                chunks=chunks,
                dtype="S64" if text_kind else quantity.dtype,
                fillvalue=quantity.fill,
                track_times=False,
                **packed,
            )
            _describe(dataset, quantity.dims, quantity.unit, quantity.text)


def _dataset(file: Any, name: str, value: Any) -> Any:
    array = np.asarray(value)
    if array.dtype.kind in "US":
        import h5py

        return file.create_dataset(
            name, data=array.astype(object), dtype=h5py.string_dtype(), track_times=False
        )
    packed = {"compression": "gzip", "shuffle": True} if array.size > 1024 else {}
    return file.create_dataset(name, data=array, track_times=False, **packed)


def _describe(dataset: Any, dims: Sequence[str], unit: str, text: str) -> None:
    dataset.attrs["dims"] = ",".join(dims)
    dataset.attrs["unit"] = unit
    dataset.attrs["description"] = text


def planned_chips(path: Path) -> list[int]:
    """Chip ids of all trials, complete or not, in archive order."""
    import h5py

    with h5py.File(path, "r") as file:
        return [int(chip) for chip in file["trial/chip"][()]]


def extend(path: Path, chips: Sequence[int], *, config: str) -> None:
    """Add empty trials for chips the archive lacks; `config` is the text that names them all."""
    with replaced(path) as file:
        known = file["trial/chip"][()].tolist()
        new = [chip for chip in chips if chip not in known]
        for name, quantity in QUANTITIES.items():
            if quantity.dims[0] == "trial":
                file[name].resize(len(known) + len(new), axis=0)
        file["trial/chip"][len(known) :] = new
        file.attrs["config"] = config


def write_trial(path: Path, index: int, values: Mapping[str, Any]) -> None:
    """Write one trial's arrays (QUANTITIES without their trial axis), the completion flag last."""
    with replaced(path) as file:
        for name, value in values.items():
            quantity, dataset = QUANTITIES[name], file[name]
            array = np.asarray(value)
            if quantity.dtype == "str":
                array = np.char.encode(array.astype(str), "utf-8") if array.size else array.astype("S1")
            for axis, dim in enumerate(quantity.dims[1:], start=1):
                if dim in GROWING and array.shape[axis - 1] > dataset.shape[axis]:
                    dataset.resize(array.shape[axis - 1], axis=axis)
            where = (index, *(slice(0, length) for length in array.shape))
            if array.size:
                dataset[where] = array
        file.flush()
        file["trial/complete"][index] = 1


@contextlib.contextmanager
def replaced(path: Path, *, fresh: bool = False) -> Iterator[Any]:
    """An open HDF5 file that takes the place of `path` only when the block ends without an error."""
    import h5py

    part = path.with_name(f".{path.name}.part")
    try:
        if fresh:
            path.parent.mkdir(parents=True, exist_ok=True)
        else:
            shutil.copyfile(path, part)
        with h5py.File(part, "w" if fresh else "r+") as file:
            yield file
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        part.unlink(missing_ok=True)


# -- reading --------------------------------------------------------------------------------------


class Archive(Mapping[str, NDArray[Any]]):
    """A read archive: named arrays, with incomplete trials left out.

    `archive["trial/accuracy"]` is an array, `archive.dims(...)` and `archive.unit(...)` tell its axes and
    unit; `archive.table()` is one row per trial and stage. Strings come as `str`.
    """

    def __init__(
        self, path: Path, attributes: dict[str, Any], arrays: dict[str, NDArray[Any]], about: dict[str, Any]
    ) -> None:
        self.path = path
        self.attributes = attributes
        self._arrays = arrays
        self._about = about
        self.n_planned = len(arrays["trial/complete"])
        whole = arrays["trial/complete"].astype(bool)
        for name in arrays:
            if about[name]["dims"][:1] == ("trial",):
                arrays[name] = arrays[name][whole]

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            from rramsim.checks import nearest_name

            raise InputError(f"{self.path}: no quantity {name!r}; {nearest_name(name, self._arrays)}")
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def dims(self, name: str) -> tuple[str, ...]:
        """Names of the axes of a quantity."""
        self[name]
        return self._about[name]["dims"]

    def unit(self, name: str) -> str:
        """SI unit of a quantity, ``"1"`` for pure numbers."""
        self[name]
        return self._about[name]["unit"]

    @property
    def stages(self) -> list[str]:
        """Stages in order: `mapped`, then the strategies."""
        return [str(name) for name in self["stages"]]

    @property
    def n_trials(self) -> int:
        """Complete trials."""
        return len(self["trial/chip"])

    @property
    def teacher_accuracy(self) -> float:
        """Accuracy of the digital network on the same test images."""
        return float(self["teacher/accuracy"])

    @property
    def config(self) -> str:
        """The experiment's settings as TOML text."""
        return str(self.attributes["config"])

    def accuracy(self, stage: str) -> NDArray[np.float64]:
        """Accuracy of each trial after a stage, shape (n_trials,)."""
        if stage not in self.stages:
            raise InputError(f"{self.path}: no stage {stage!r}; stages are {', '.join(self.stages)}")
        return self["trial/accuracy"][:, self.stages.index(stage)]

    def recovered(self, stage: str) -> Ratio:
        """R = mean(accuracy - mapped) / mean(teacher - mapped) over chips, with its interval.

        `mapped` is that of the stage's own age, never maintained; see
        `finetune.study.statistics.recovered_fraction`.
        """
        plain = plain_stage(stage)
        return recovered_fraction(self.accuracy(stage), self.accuracy(plain), self.teacher_accuracy)

    def cost(self, quantity: str, stage: str) -> NDArray[np.float64]:
        """A ledger quantity summed over layers (or the largest, of `max_cycles`), shape (n_trials,)."""
        values = self[f"ledger/{quantity}"][:, self.stages.index(stage)]
        return values.max(axis=1) if LEDGER_QUANTITIES[quantity].largest else values.sum(axis=1)

    def writes_per_cell(self, stage: str) -> NDArray[np.float64]:
        """Cell writes over weight-holding cells, shape (n_trials,)."""
        return self.cost("cell_writes", stage) / self["layers/n_cells"].sum()

    def table(self) -> Any:
        """One row per complete trial and stage: a pandas DataFrame where pandas is, else a list of dicts."""
        rows = []
        for trial, chip in enumerate(self["trial/chip"].tolist()):
            for index, stage in enumerate(self.stages):
                row = {
                    "chip": chip,
                    "stage": stage,
                    "accuracy": float(self["trial/accuracy"][trial, index]),
                    "gap": self.teacher_accuracy - float(self["trial/accuracy"][trial, index]),
                    "kl": float(self["trial/kl"][trial, index]),
                }
                costs = [name for name in LEDGER_QUANTITIES if f"ledger/{name}" in self]
                row |= {name: self.cost(name, stage)[trial].item() for name in costs}
                row["writes_per_cell"] = float(self.writes_per_cell(stage)[trial])
                rows.append(row)
        try:
            import pandas
        except ImportError:
            return rows
        return pandas.DataFrame(rows)

    def without_timing(self) -> dict[str, NDArray[Any]]:
        """Every array outside `/timing`: what must be equal bit for bit between two runs."""
        return {name: values for name, values in self._arrays.items() if not name.startswith("timing/")}


def split_stage(stage: str) -> tuple[str, str]:
    """Method and age of a stage; the age is "" right after the method's work.

    Examples
    --------
    >>> split_stage("lsq.affine + adapter + 1e+06 reads")
    ('lsq.affine + adapter', '1e+06 reads')
    """
    found = AGE.search(stage)
    return (stage, "") if found is None else (stage[: found.start()], found.group(1))


def plain_stage(stage: str) -> str:
    """The stage of plain mapping with which a stage is compared: of the same age, never maintained."""
    age = split_stage(stage)[1].removesuffix(" maintained")
    return f"mapped + {age}" if age else "mapped"


def open_archive(path: str | Path) -> Archive:
    """Read an archive into memory.

    Raises
    ------
    InputError
        If the file is missing, truncated, not an archive, or of a newer format.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such archive; `rramsim run` makes one")
    try:
        with h5py.File(path, "r") as file:
            attributes = {name: _plain(value) for name, value in file.attrs.items()}
            if attributes.get("format") != FORMAT:
                raise InputError(f"{path}: an HDF5 file, but not an archive of rramsim")
            if attributes["format_version"] > FORMAT_VERSION:
                raise InputError(
                    f"{path}: archive format {attributes['format_version']} is newer than "
                    f"{FORMAT_VERSION}; update rramsim"
                )
            arrays: dict[str, NDArray[Any]] = {}
            about: dict[str, Any] = {}

            def visit(name: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset):
                    arrays[name] = _strings(item[()], item.dtype)
                    dims = str(item.attrs.get("dims", ""))
                    about[name] = {
                        "dims": tuple(dims.split(",")) if dims else (),
                        "unit": str(item.attrs.get("unit", "")),
                    }

            file.visititems(visit)
    except OSError as error:
        raise InputError(f"{path}: not a readable HDF5 file, perhaps truncated ({_short(error)})") from None
    missing = sorted({"stages", "labels", "teacher/accuracy", *QUANTITIES} - set(arrays))
    if missing:
        raise InputError(f"{path}: the archive is damaged, it lacks {', '.join(missing[:4])}")
    return Archive(path, attributes, arrays, about)


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


def versions() -> str:
    """Versions of everything that may change bits, as JSON text for the attribute `versions`."""
    import importlib.metadata as metadata
    import platform

    names = ("rramsim", "numpy", "numba", "llvmlite", "scipy", "h5py")
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return json.dumps(found, sort_keys=True)
