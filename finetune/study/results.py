"""What archives hold, as named arrays, tables and files of other kinds."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.study.statistics import Ratio, recovered_fraction
from rramsim.blackbox.protocol import LEDGER_QUANTITIES
from rramsim.checks import InputError, nearest_name

__all__ = ["About", "Archive", "Study", "plain_stage", "split_stage"]

# how `ExperimentConfig.stages` names a method at an age
AGE = re.compile(r" \+ (\S+ (?:reads|s)(?: maintained)?)$")


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


@dataclass(frozen=True)
class About:
    dims: tuple[str, ...]
    unit: str
    text: str


class Archive(Mapping[str, NDArray[Any]]):
    """A read archive: named arrays, with incomplete trials left out.

    `archive["trial/accuracy"]` is an array, `archive.dims(...)` and `archive.unit(...)` tell its axes and
    unit; `archive.table()` is one row per trial and stage. Strings come as `str`.
    """

    def __init__(
        self,
        path: Path,
        attributes: dict[str, Any],
        readers: dict[str, Callable[[], NDArray[Any]]],
        about: dict[str, About],
        planned: NDArray[np.int64],
    ) -> None:
        self.path = path
        self.attributes = attributes
        self.planned = planned  # chip ids, complete or not
        self._readers = readers
        self._about = about
        self._arrays: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._readers:
            raise InputError(f"{self.path}: no quantity {name!r}; {nearest_name(name, self._readers)}")
        if name not in self._arrays:
            self._arrays[name] = self._readers[name]()
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def __repr__(self) -> str:
        if not self.n_trials:
            return f"<Archive {self.path.name}: no complete trial of {self.n_planned}>"
        means = ", ".join(f"{stage} {100 * self.accuracy(stage).mean():.2f} %" for stage in self.stages[:4])
        more = f" and {len(self.stages) - 4} more stages" if len(self.stages) > 4 else ""
        return (
            f"<Archive {self.path.name}: {self.attributes.get('network')} on "
            f"{self.attributes.get('dataset')}, {self.n_trials} of {self.n_planned} chips; digital "
            f"{100 * self.teacher_accuracy:.2f} %, "
            f"{means}{more}>"
        )

    def _repr_html_(self) -> str:
        """A small table for notebooks."""
        if not self.n_trials:
            return f"<p>{html.escape(repr(self))}</p>"
        rows = [("digital network", f"{100 * self.teacher_accuracy:.2f}", "", "")]
        for stage in self.stages:
            values = 100 * self.accuracy(stage)
            rows.append(
                (
                    stage,
                    f"{values.mean():.2f}",
                    f"{values.min():.2f}",
                    f"{self.writes_per_cell(stage).mean():.2f}",
                )
            )
        head = "".join(
            f"<th>{name}</th>" for name in ("stage", "accuracy (%)", "worst chip", "writes per cell")
        )
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        title = html.escape(f"{self.path.name}: {self.n_trials} of {self.n_planned} chips")
        return f"<table><caption>{title}</caption><tr>{head}</tr>{body}</table>"

    def __contains__(self, name: object) -> bool:
        return name in self._readers

    def _of(self, name: str) -> About:
        if name not in self._about:
            raise InputError(f"{self.path}: no quantity {name!r}; {nearest_name(name, self._about)}")
        return self._about[name]

    def dims(self, name: str) -> tuple[str, ...]:
        """Names of the axes of a quantity."""
        return self._of(name).dims

    def unit(self, name: str) -> str:
        """SI unit of a quantity, ``"1"`` for pure numbers."""
        return self._of(name).unit

    def text(self, name: str) -> str:
        """What a quantity means."""
        return self._of(name).text

    @property
    def stages(self) -> list[str]:
        """Stages in order: `mapped`, then the strategies."""
        return [str(name) for name in self["stages"]]

    @property
    def n_planned(self) -> int:
        """Trials when the experiment is done."""
        return len(self.planned)

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

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns of `table`, each of length trials x stages."""
        n_trials, stages = self.n_trials, self.stages
        shape = (n_trials, len(stages))
        accuracy = self["trial/accuracy"]
        found = {
            "chip": np.broadcast_to(self["trial/chip"][:, None], shape),
            "stage": np.broadcast_to(np.array(stages, dtype=object), shape),
            "accuracy": accuracy,
            "gap": self.teacher_accuracy - accuracy,
            "kl": self["trial/kl"],
        }
        for name, entry in LEDGER_QUANTITIES.items():
            if f"ledger/{name}" in self:
                values = self[f"ledger/{name}"]
                found[name] = values.max(axis=2) if entry.largest else values.sum(axis=2)
        found["writes_per_cell"] = found["cell_writes"] / self["layers/n_cells"].sum()
        if np.isfinite(self["bill/vectors"]).any():  # since version 0.2; NaN where unknown
            parts = [name for name in self if name.startswith("bill/") and self.unit(name) == "J"]
            joules = np.sum([self[name] for name in parts], axis=0)
            found["read_joules"] = (joules * self["ledger/vectors"]).sum(axis=2)
            found["image_joules"] = (joules * self["bill/vectors"]).sum(axis=2)
            found["image_seconds"] = (self["bill/seconds"] * self["bill/vectors"]).sum(axis=2)
        for name in ("weight_share", "mac_share"):  # of the network, on the chip; since version 0.2
            if name in self.attributes:
                found[name] = np.broadcast_to(np.float64(self.attributes[name]), shape)
        return {name: np.ascontiguousarray(values).reshape(-1) for name, values in found.items()}

    def table(self) -> Any:
        """One row per complete trial and stage: a pandas DataFrame where pandas is, else a list of dicts."""
        return _frame(self.columns())

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` with named axes, coordinates and units.

        `trial/accuracy` becomes `accuracy`, `ledger/vectors` becomes `ledger_vectors`; the trial axis has the
        chip ids as its coordinate `chip`.
        """
        import xarray

        coordinates = {"trial": "trial/chip", "stage": "stages", "layer": "layers/name", "node": "nodes/name"}
        coordinates |= {"class": "classes", "level": "cells/level_conductance"}
        axis = {"trial": "chip"}
        variables = {}
        for name in self:
            if name not in coordinates.values() and name != "trial/complete":
                dims = [axis.get(dim, dim) for dim in self.dims(name)]
                about = {"units": self.unit(name), "long_name": self._of(name).text}
                variables[name.removeprefix("trial/").replace("/", "_")] = (dims, self[name], about)
        coords = {
            axis.get(dim, dim): (axis.get(dim, dim), self[name], {"units": self.unit(name)})
            for dim, name in coordinates.items()
        }
        return xarray.Dataset(variables, coords, self.attributes)

    def export(self, path: str | Path) -> Path:
        """Write the table as CSV or Parquet, or every array as netCDF, by the name's ending.

        Raises
        ------
        InputError
            For another ending, or where the file cannot be written.
        """
        return _export(Path(path), self.table, self.to_xarray)

    def without_timing(self) -> dict[str, NDArray[Any]]:
        """Every array outside `/timing`: what must be equal bit for bit between two runs."""
        return {name: self[name] for name in self if not name.startswith("timing/")}


class Study(Mapping[str, Archive]):
    """Experiments that belong together: the conditions of a sweep, by label.

    The archive of an experiment is a study of one condition.  `axes` names what was swept,
    `coordinates[label]` holds its values at a condition, `table()` is one row per trial and stage with a
    column for each axis.
    """

    def __init__(
        self, path: Path, archives: dict[str, Archive], coordinates: dict[str, dict[str, Any]]
    ) -> None:
        self.path = path
        self.coordinates = coordinates
        self._archives = archives

    def __getitem__(self, label: str) -> Archive:
        if label not in self._archives:
            raise InputError(f"{self.path}: no condition {label!r}; {nearest_name(label, self._archives)}")
        return self._archives[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._archives)

    def __len__(self) -> int:
        return len(self._archives)

    def __repr__(self) -> str:
        over = f" over {', '.join(self.axes)}" if self.axes else ""
        trials = f"{self.n_trials} of {self.n_planned} trials"
        return f"<Study {self.path.name}: {len(self)} conditions{over}, {trials}>"

    @property
    def axes(self) -> list[str]:
        """Names of what was swept."""
        return list(dict.fromkeys(name for values in self.coordinates.values() for name in values))

    @property
    def n_trials(self) -> int:
        """Complete trials of all conditions."""
        return sum(archive.n_trials for archive in self.values())

    @property
    def n_planned(self) -> int:
        """Trials of all conditions when the study is done."""
        return sum(archive.n_planned for archive in self.values())

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns of `table`: the axes, the identity of the trial, then those of `Archive.columns`."""
        parts: list[dict[str, NDArray[Any]]] = []
        for label, archive in self.items():
            own = archive.columns()
            n_rows = len(own["chip"])
            ahead = {
                name: np.full(n_rows, _cell(self.coordinates[label].get(name)), dtype=object)
                for name in self.axes
            }
            digest = str(archive.attributes.get("digest", ""))
            trials = np.array([f"{digest}-{chip}" for chip in archive["trial/chip"].tolist()], dtype=object)
            ahead["trial"] = np.repeat(trials, len(archive.stages))
            ahead["network"] = np.full(n_rows, archive.attributes.get("network"), dtype=object)
            ahead["dataset"] = np.full(n_rows, archive.attributes.get("dataset"), dtype=object)
            ahead["seed"] = np.full(n_rows, archive.attributes.get("seed"))
            ahead["teacher"] = np.full(n_rows, archive.teacher_accuracy)
            parts.append({**ahead, **{name: own[name] for name in own if name not in ahead}})
        names = list(dict.fromkeys(name for part in parts for name in part))
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def table(self) -> Any:
        """One row per complete trial and stage: a pandas DataFrame where pandas is, else a list of dicts."""
        return _frame(self.columns())

    def to_xarray(self) -> Any:
        """An `xarray.DataTree` with a dataset for each condition."""
        import xarray

        trees = {}
        for label, archive in self.items():
            data = archive.to_xarray()
            data.attrs |= {f"axis {name}": str(value) for name, value in self.coordinates[label].items()}
            trees[label.replace("/", "-")] = data
        return xarray.DataTree.from_dict(trees)

    def export(self, path: str | Path) -> Path:
        """Write the table as CSV or Parquet, or every array as netCDF, by the name's ending."""
        return _export(Path(path), self.table, self.to_xarray)


def _cell(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _frame(columns: dict[str, NDArray[Any]]) -> Any:
    try:
        import pandas
    except ImportError:
        lists = [values.tolist() for values in columns.values()]
        return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]
    return pandas.DataFrame(columns)


def _export(path: Path, table: Callable[[], Any], arrays: Callable[[], Any]) -> Path:
    kinds = {".csv": "CSV", ".parquet": "Parquet", ".nc": "netCDF", ".json": "JSON"}
    if path.suffix not in kinds:
        raise InputError(f"{path}: exports end in {', '.join(kinds)}, got {path.suffix or 'no ending'!r}")
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".nc":
            arrays().to_netcdf(part, engine="h5netcdf")
        else:
            frame = table()
            if isinstance(frame, list):
                raise ImportError("pandas")
            if path.suffix == ".csv":
                frame.to_csv(part, index=False)
            elif path.suffix == ".json":
                frame.to_json(part, orient="records", indent=1)
            else:
                frame.to_parquet(part, index=False)
        part.replace(path)
    except ImportError as error:
        raise InputError(f'{path}: needs `pip install "rramsim[tables]"` ({error})') from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        part.unlink(missing_ok=True)
    return path
