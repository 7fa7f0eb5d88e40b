"""The run of an experiment: trials spread over worker processes, stored as they end.

Workers are spawned with one thread each, also when there is only one, so the bits do not depend on how
many there are.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.strategies.composition import parse_strategy
from finetune.study import archive as storage
from finetune.study.config import ExperimentConfig
from finetune.study.materials import HISTOGRAM_BINS, Materials
from finetune.study.methods import join_methods, method_groups, run_methods
from finetune.study.trial import Notify
from rramsim.checks import InputError
from rramsim.host.layer import layer_shapes
from rramsim.parallel import Workers, tell

__all__ = ["check_experiment", "run_experiment"]


# -- in the worker processes ----------------------------------------------------------------------

_worker: dict[str, Any] = {}  # what this worker process holds between trials


def _start_worker(config: ExperimentConfig) -> None:
    _worker["materials"] = Materials.load(config)


def _work_teacher() -> NDArray[np.float32]:
    materials = _worker["materials"]
    return materials.network.run(materials.test.images)


def _work_methods(
    teacher_outputs: NDArray[np.float32], chip_id: int, methods: Sequence[str]
) -> dict[str, dict[str, Any]]:
    last = [0.0]

    def notify(*message: Any) -> None:
        if time.monotonic() - last[0] > 0.2:
            last[0] = time.monotonic()
            tell(message)

    return run_methods(_worker["materials"], teacher_outputs, chip_id, methods, notify)


# -- the run --------------------------------------------------------------------------------------


def check_experiment(config: ExperimentConfig) -> Materials:
    """Load what an experiment needs and check that its parts fit each other; no chip is programmed.

    Raises
    ------
    InputError
        If data set or network are missing or unreadable, do not fit each other, or a strategy does not fit
        the kind of chip.
    """
    materials = Materials.load(config)
    chip = materials.chip(config.experiment.chip_ids[0])
    maintenance = config.lifetime.maintenance
    for strategy in (*config.tuning.strategies, *(() if maintenance is None else (maintenance,))):
        parse_strategy(strategy).check_chip(chip)
    return materials


def run_experiment(
    config: ExperimentConfig,
    out: str | Path,
    *,
    workers: int = 1,
    fresh: bool = False,
    notify: Notify | None = None,
    on_trial: Callable[[int, NDArray[np.float64]], None] | None = None,
) -> storage.Archive:
    """Run all trials that the archive `out` does not hold yet.

    Parameters
    ----------
    out : path
        Archive; made if absent, continued if it is of the same experiment, refused otherwise.
    workers : int
        Processes, one thread each.
    fresh : bool
        Replace an existing archive of rramsim.
    notify : callable, optional
        `notify(chip, stage, share)` while trials run.
    on_trial : callable, optional
        `on_trial(chip, accuracy of each stage)` after a trial is stored.

    Raises
    ------
    InputError
        If `out` is another experiment's or not an archive.
    """
    out = Path(out)
    if workers < 1:
        raise InputError(f"workers must be >= 1, got {workers}")
    previous = _previous(config, out, fresh)
    materials = check_experiment(config)  # bad input shows here, before any process starts
    if previous is not None and previous.attributes.get("fingerprint") != materials.fingerprint:
        raise InputError(
            f"{out}: was made with other weights or images under the same names; "
            "choose another --out, or --fresh to replace it"
        )
    done = set() if previous is None else set(previous["trial/chip"].tolist())
    todo = [chip for chip in config.experiment.chip_ids if chip not in done]
    if previous is not None and not todo:
        return previous
    groups = method_groups(config.methods)
    n_workers = min(workers, len(todo) * len(groups))
    hear = None if notify is None else lambda message: notify(*message)
    with _lock(out), Workers(n_workers, _start_worker, (config,), hear) as pool:
        if previous is None:
            outputs = pool.submit(_work_teacher).result()
            _create(out, config, materials, outputs)
        else:
            outputs = previous["teacher/outputs"]
        materials.warn_of_teacher(outputs)
        _extend(out, config)
        rows = {int(chip): row for row, chip in enumerate(storage.planned_chips(out))}
        # methods of a chip may run side by side; a trial is stored when its last one is done
        futures = {
            pool.submit(_work_methods, outputs, chip, group): chip for chip in todo for group in groups
        }
        parts: dict[int, dict[str, Any]] = {chip: {} for chip in todo}
        for future in as_completed(futures):
            chip = futures[future]
            parts[chip] |= future.result()
            if len(parts[chip]) == len(config.methods):
                done_parts = parts.pop(chip)
                values = join_methods([done_parts[method] for method in config.methods])
                storage.write_trial(out, rows[chip], values)
                if on_trial is not None:
                    on_trial(chip, values["trial/accuracy"])
    return storage.open_archive(out)


def _previous(config: ExperimentConfig, out: Path, fresh: bool) -> storage.Archive | None:
    import rramsim

    if not out.exists():
        return None
    previous = storage.open_archive(out)  # refuses files that are no archives, also with `fresh`
    if fresh:
        return None
    mine = {"digest": config.digest, "rramsim_version": rramsim.__version__}
    theirs = {name: previous.attributes.get(name) for name in mine}
    if theirs != mine:
        what = "another experiment" if theirs["digest"] != mine["digest"] else "another version of rramsim"
        raise InputError(
            f"{out}: holds {what} ({theirs['digest']}, rramsim {theirs['rramsim_version']}; this is "
            f"{mine['digest']}, rramsim {mine['rramsim_version']}); choose another --out, "
            "or --fresh to replace it"
        )
    return previous


def _extend(out: Path, config: ExperimentConfig) -> None:
    if set(config.experiment.chip_ids) - set(storage.planned_chips(out)):
        storage.extend(out, config.experiment.chip_ids, config=config.to_toml())


def _create(out: Path, config: ExperimentConfig, materials: Materials, outputs: NDArray[np.float32]) -> None:
    import rramsim

    network, shapes = materials.network, layer_shapes(materials.network)
    chip = materials.chip(config.experiment.chip_ids[0])
    predicted = outputs.argmax(axis=1)
    layers = list(shapes)
    attributes = {
        "name": config.experiment.name,
        "rramsim_version": rramsim.__version__,
        "seed": config.experiment.seed,
        "digest": config.digest,
        "config": config.to_toml(),
        "fingerprint": materials.fingerprint,
        "versions": storage.versions(),
        "dataset": materials.dataset.name,
        "images": materials.dataset.normalisation(),
        "network": network.name,
        "n_checkpoint_images": config.experiment.n_checkpoint,
    }
    constants = {
        "stages": (list(config.stages), ("stage",), "", "what was done to the chip before the evaluation"),
        "labels": (materials.test.labels.astype(np.uint8), ("image",), "1", "class of each test image"),
        "classes": (
            list(materials.dataset.class_names) or [str(n) for n in range(materials.dataset.n_classes)],
            ("class",),
            "",
            "names of the classes",
        ),
        "calibration/index": (materials.calibration_index, ("calibration_image",), "1",
                              "place of each calibration image in its split"),
        "teacher/accuracy": (float((predicted == materials.test.labels).mean()), (), "1",
                             "digital network on the test images"),
        "teacher/outputs": (outputs, ("image", "class"), "1", "outputs of the digital network"),
        "layers/name": (layers, ("layer",), "", "layers on the chip, in network order"),
        "layers/n_rows": (np.array([shapes[name][0] for name in layers]), ("layer",), "1", "inputs"),
        "layers/n_cols": (np.array([shapes[name][1] for name in layers]), ("layer",), "1", "outputs"),
        "layers/n_cells": (np.array([chip.layers[name].n_cells for name in layers]), ("layer",), "1",
                           "cells that hold weights"),
        "nodes/name": (list(network.mapped), ("node",), "", "mapped nodes; a grouped one is several layers"),
        "cells/level_conductance": (np.array(chip.datasheet.levels), ("level",), "S", "nominal conductance"),
        "cells/bin_edges": (materials.bin_edges, ("bin_edge",), "S",
                            "bins of cells/histogram; the last one also counts what lies above"),
    }  # fmt: skip
    sizes = {
        "stage": len(config.stages),
        "image": len(materials.test),
        "layer": len(layers),
        "node": len(network.mapped),
        "level": len(chip.datasheet.levels),
        "bin": HISTOGRAM_BINS,
    }
    storage.create(out, attributes=attributes, sizes=sizes, constants=constants)


@contextlib.contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Keep two runs from writing the same archive (where the system has flock)."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = out.with_name(f".{out.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"{out}: another run is writing this archive; wait for it or choose another --out"
            ) from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
