"""Settings of an experiment: the TOML file that `rramsim run` takes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.meter import Budget
from finetune.study.paths import is_file_name, locate, locate_presets
from rramsim.checks import InputError, nearest_name
from rramsim.chip.config import ChipConfig
from rramsim.chip.unread import unread_settings
from rramsim.config import (
    check_settings,
    digest,
    parse,
    read_toml,
    setting,
    tables_of,
    to_table,
    to_toml,
)

__all__ = [
    "FIRST_CHIP",
    "ExperimentConfig",
    "ExperimentTable",
    "LifetimeTable",
    "TuningTable",
    "default_experiment",
    "load_experiment",
    "unread_of_experiment",
]

MOST_CHIPS = 1_000_000
FIRST_CHIP = 100  # chips 0-9 choose hyper-parameters, these report


@dataclass(frozen=True, kw_only=True)
class ExperimentTable:
    """The table [experiment]: what runs, on which images and chips."""

    name: str = setting("experiment", "", "name of the experiment and of its archive")
    seed: int = setting(0, "1", "seed of all random streams", "[0, inf)")
    chips: int | tuple[int, ...] = setting(
        5, "1", "a count (ids from 100 on) or the ids themselves", "[0, inf)"
    )
    dataset: str = setting("fashion_mnist", "", "name or path of a data set")
    network: str = setting("resnet8_fashion", "", "shipped teacher, or the path of a network file")
    folder: str | None = setting(
        None, "", "where paths of data set and network begin, and the working directory thereafter",
        default_text="the folder of the TOML file",
    )  # fmt: skip
    digital: tuple[str, ...] | None = setting(
        None, "", "mapped nodes that are computed at the host instead, exactly", default_text="none"
    )
    reads: int = setting(
        1, "1", "array reads of every vector, of which the mean counts, in tuning and in use: a power of two",
        "[1, 64]",
    )  # fmt: skip
    n_calibration: int = setting(256, "1", "unlabelled images that the tuner may use", "[2, inf)")
    n_test: int | None = setting(
        None, "1", "number of test images, the first ones", "[1, inf)", default_text="all"
    )
    n_layer_images: int = setting(
        64, "1", "calibration images for the error of each layer; 0 leaves it out", "[0, inf)"
    )
    n_checkpoint: int = setting(
        0, "1", "test images at checkpoints within a tuning; 0: no checkpoints", "[0, inf)"
    )

    save_chips: str | None = setting(
        None, "", "folder for the states of tuned chips, which `rramsim continue` takes", default_text="none"
    )

    mean: float | tuple[float, ...] | None = setting(
        None, "1", "subtracted from scaled pixels, one number or one per channel", "(-inf, inf)",
        default_text="the data set's own",
    )  # fmt: skip
    std: float | tuple[float, ...] | None = setting(
        None, "1", "pixels are divided by it thereafter, one number or one per channel", "(0, inf)",
        default_text="the data set's own",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_settings(self)
        if (
            not self.name
            or len(self.name) > 100
            or any(letter in self.name for letter in '/\\:*?"<>|')
            or not self.name.isprintable()
            or self.name.startswith(".")
        ):
            raise InputError(f"name must be usable as a file name, got {self.name!r}")
        if self.reads & (self.reads - 1):
            raise InputError(f"reads must be a power of two (rramsim.AveragedReads), got {self.reads}")
        if isinstance(self.chips, int) and self.chips > MOST_CHIPS:
            raise InputError(f"chips must be at most {MOST_CHIPS:,}, got {self.chips}")
        ids = self.chip_ids
        if not ids:
            raise InputError("chips must be at least 1 or a list of chip ids, got none")
        if len(set(ids)) < len(ids) or min(ids) < 0:
            raise InputError(f"chips must be different ids >= 0, got {list(ids)}")
        if max(ids) >= 2**32 or self.seed >= 2**63:
            raise InputError(
                f"chip ids must be below 2^32 and the seed below 2^63, got {max(ids)} and {self.seed}"
            )

    @property
    def chip_ids(self) -> tuple[int, ...]:
        """Ids of all chips."""
        if isinstance(self.chips, int):
            return tuple(range(FIRST_CHIP, FIRST_CHIP + self.chips))
        return tuple(self.chips)


@dataclass(frozen=True, kw_only=True)
class TuningTable:
    """The table [tuning]: strategies, each on the same chips from the same start, and their budget."""

    strategies: tuple[str, ...] = setting(
        ("batch_norm", "lsq.affine"), "", "strategies, each tuned from the same mapped chip"
    )
    budget: Budget = setting(Budget, "", "limits of one tuning run; what is absent is free")

    def __post_init__(self) -> None:
        from finetune.strategies.composition import parse_strategy

        if "mapped" in self.strategies or len(set(self.strategies)) < len(self.strategies):
            raise InputError(
                f"strategies must differ, and 'mapped' is always there; got {list(self.strategies)}"
            )
        for text in self.strategies:
            parse_strategy(text)


@dataclass(frozen=True, kw_only=True)
class LifetimeTable:
    """The table [lifetime]: evaluate again when the chip has been read, or has lain, for so long.

    Reads and seconds count from the end of the tuning, each on a copy of the tuned chip of its own. Reads
    repeat the vectors of the calibration images and act at once (`SimulatedChip.age`). With `maintenance` the
    same ages are met once more by a copy that is maintained at each of them.
    """

    reads: tuple[float, ...] = setting(
        (), "1", "reads of every layer after which accuracy is evaluated again", "[0, inf)"
    )
    seconds: tuple[float, ...] = setting(
        (), "s", "retention times after which accuracy is evaluated again", "[0, inf)"
    )
    maintenance: str | None = setting(
        None, "", "strategy applied at every age, such as lsq.affine", default_text="none"
    )

    def __post_init__(self) -> None:
        from finetune.strategies.composition import parse_strategy

        check_settings(self)
        for name in ("reads", "seconds"):
            ages = getattr(self, name)
            if any(not n > 0 for n in ages) or list(ages) != sorted(set(ages)):
                raise InputError(f"{name} must be positive and ascend, got {list(ages)}")
            if len({f"{n:g}" for n in ages}) < len(ages):
                raise InputError(f"{name} must differ in their first six digits, got {list(ages)}")
        if self.maintenance is not None:
            parse_strategy(self.maintenance)
            if not (self.reads or self.seconds):
                raise InputError("lifetime.maintenance needs ages: set lifetime.reads or lifetime.seconds")

    @property
    def series(self) -> tuple[tuple[str, tuple[float, ...], bool], ...]:
        """(unit, ages, whether maintained) of every copy of the tuned chip that grows old."""
        kinds = (("reads", self.reads), ("s", self.seconds))
        visits = (False, True) if self.maintenance is not None else (False,)
        return tuple((unit, ages, visit) for visit in visits for unit, ages in kinds if ages)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What follows a method's name in the name of each of its stages."""
        return (
            "",
            *(
                f" + {age:g} {unit}" + " maintained" * visit
                for unit, ages, visit in self.series
                for age in ages
            ),
        )


@dataclass(frozen=True, kw_only=True)
class _Head:
    """What stands first in a file."""

    experiment: ExperimentTable = setting(ExperimentTable, "", "what runs, on which images and chips")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig(ChipConfig, _Head):
    """One experiment: the settings of a chip (`rramsim.ChipConfig`) and what is done with such chips.

    Every field is a table or a key of the TOML file, and every one may be left out.
    """

    tuning: TuningTable = setting(TuningTable, "", "strategies and their budget")
    lifetime: LifetimeTable = setting(LifetimeTable, "", "evaluations after reads or time")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lifetime.reads and not self.disturb.enabled:
            raise InputError("lifetime.reads needs a read-disturb law: set disturb.law, such as 'power'")
        if self.lifetime.seconds and not self.cells.changes_with_time:
            raise InputError(
                "lifetime.seconds needs cells that change with time: set cells.drift.law, cells.relaxation, "
                "cells.read_noise.log_coefficient, or cells.telegraph.fraction and lifetime"
            )

    def chip_config(self) -> ChipConfig:
        """The kind of chip."""
        return ChipConfig(
            **{entry.name: getattr(self, entry.name) for entry in dataclasses.fields(ChipConfig)}
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """`mapped`, then the strategies."""
        return ("mapped", *self.tuning.strategies)

    @property
    def all_strategies(self) -> tuple[str, ...]:
        """Strategies of the tuning, and the one that maintains aged chips."""
        maintenance = self.lifetime.maintenance
        return (*self.tuning.strategies, *(() if maintenance is None else (maintenance,)))

    @property
    def stages(self) -> tuple[str, ...]:
        """What is evaluated: every method, each followed by its ages."""
        return tuple(method + suffix for method in self.methods for suffix in self.lifetime.suffixes)

    @property
    def digest(self) -> str:
        """Identifies the experiment whatever its name and however many chips it runs on.

        Files count by the text that names them, wherever the command is called: their content is in the
        numbers (presets) or in the archive's `fingerprint` (network and data set).
        """
        bare = dataclasses.replace(self.experiment, name="any", chips=1, folder=None, save_chips=None)
        table = to_table(dataclasses.replace(self, experiment=bare))
        for part in table.values():
            if isinstance(part, dict) and is_file_name(str(part.get("preset", ""))):
                part["preset"] = Path(part["preset"]).name
        return digest(table)

    def to_toml(self) -> str:
        """Complete TOML text, every number included."""
        return to_toml(self)

    def replaced(
        self,
        *,
        seed: int | None = None,
        chips: int | tuple[int, ...] | None = None,
        save_chips: str | None = None,
    ) -> ExperimentConfig:
        """The same experiment with another seed, other chips, or a folder for their states."""
        given: dict[str, Any] = {} if seed is None else {"seed": seed}
        if save_chips is not None:
            given["save_chips"] = save_chips
        if chips is not None:
            given["chips"] = chips
        return dataclasses.replace(self, experiment=dataclasses.replace(self.experiment, **given))


def unread_of_experiment(config: ExperimentConfig) -> list[str]:
    """A message for each setting that changes nothing in this experiment; see `unread_settings`."""
    messages = unread_settings(config)
    if config.cells.changes_with_time and not config.lifetime.seconds:
        passes = (
            "no time passes at all (converters.clock = 'frozen')"
            if config.converters.clock == "frozen"
            else "chips are evaluated right after tuning, and only the seconds of their writes and reads pass"
        )
        messages.append(
            f"cells change with time, but {passes}: set lifetime.seconds to see what retention costs"
        )
    return messages


def load_experiment(path: str | Path) -> ExperimentConfig:
    """Read a TOML file; the file's stem is the name where [experiment] gives none."""
    path = Path(path)
    table = read_toml(path)
    if "sweep" in table:
        raise InputError(f"{path}: has a table [sweep]; run it with `rramsim sweep`")
    return experiment_from(table, path)


def experiment_from(table: dict[str, Any], path: Path) -> ExperimentConfig:
    """Check a parsed TOML file; messages begin with its path."""
    known = [entry.name for entry in dataclasses.fields(ExperimentConfig)]
    tables = dict(tables_of(ExperimentConfig))
    for key, value in table.items():
        if key in tables and not isinstance(value, dict):
            raise InputError(f"{path}: {key} must be a table [{key}], got {value!r}")
        if key not in known:
            raise InputError(f"{path}: unknown table or key {key!r}; {nearest_name(key, known)}")
    head = {"name": path.stem, **table.get("experiment", {})}
    if "folder" not in head and _names_files(head, path.parent):
        head["folder"] = str(path.parent)
    try:
        return parse(ExperimentConfig, {**locate_presets(table, path.parent), "experiment": head})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, TypeError, ArithmeticError, MemoryError, RecursionError) as error:
        # values that no check foresees, such as counts beyond 64 bits: one line all the same
        raise InputError(f"{path}: settings cannot be used ({type(error).__name__}: {error})") from None


def _names_files(head: dict[str, Any], folder: Path) -> bool:
    """Whether network or data set is a file beside a TOML file that lies elsewhere than here."""
    names = [head[key] for key in ("network", "dataset") if isinstance(head.get(key), str)]
    found = [locate(name, folder) for name in names]  # each may warn
    return found != names


def default_experiment() -> ExperimentConfig:
    """The reference conditions, with a lognormal programming error of sigma 0.3."""
    from importlib import resources

    with resources.as_file(resources.files("finetune.study") / "default.toml") as path:
        return load_experiment(path)
