"""One trial from settings to archive rows, and the run that spreads the work over worker processes.

A trial is one chip. Every method starts from the same individual: the chip (seed, id) is made anew, reset,
for each strategy, so all of them meet the same cells. Workers are spawned with one thread each, also when
there is only one, so the bits do not depend on how many there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.config import ExperimentConfig
from finetune.objective import distillation
from finetune.tune import tune
from rramsim import archive as storage
from rramsim.checks import InputError
from rramsim.chip import SimulatedChip
from rramsim.datasets import Dataset, Split, load_dataset, load_teacher, teacher_names
from rramsim.deployment import Deployment, layer_shapes
from rramsim.network import Network
from rramsim.random import Cause, key, stream

__all__ = ["Materials", "join_methods", "run_experiment", "run_method"]

HISTOGRAM_BINS = 200
AGEING_IMAGES = 32  # calibration images whose vectors stand for the reads of a lifetime
EVALUATION_STREAM = 1_000_000  # noise stream of final evaluations, apart from those of checkpoints
COSTS = ("vectors", "array_reads", "conversions", "cell_writes", "pulses", "max_cycles", "seconds", "joules")

Notify = Callable[[int, str, float], None]  # chip, stage, share of the stage that is done


@dataclass(frozen=True)
class Materials:
    """What every trial of an experiment shares."""

    config: ExperimentConfig
    network: Network
    dataset: Dataset
    calibration: NDArray[np.float32]
    calibration_index: NDArray[np.int64]
    test: Split

    @classmethod
    def load(cls, config: ExperimentConfig) -> Materials:
        """Read data set and network, and check that they and the chip fit each other."""
        table = config.experiment
        dataset = load_dataset(table.dataset)
        named = table.network in teacher_names() or not table.network.endswith((".h5", ".hdf5"))
        network = load_teacher(table.network) if named else Network.load(table.network)
        if dataset.image_shape != tuple(network.input_shape):
            raise InputError(
                f"network {table.network!r} takes images {tuple(network.input_shape)}, data set "
                f"{table.dataset!r} has {dataset.image_shape}"
            )
        source = dataset["calibration"]
        if table.n_calibration > len(source):
            raise InputError(
                f"experiment.n_calibration must be <= {len(source)} (images of the split), "
                f"got {table.n_calibration}"
            )
        order = stream(table.seed, Cause.DATA).permutation(len(source))
        index = np.sort(order[: table.n_calibration]).astype(np.int64)
        test = dataset["test"]
        if table.n_test is not None:
            if table.n_test > len(test):
                raise InputError(f"experiment.n_test must be <= {len(test)}, got {table.n_test}")
            test = test.take(table.n_test)
        return cls(config, network, dataset, source.take(index).images, index, test)

    def chip(self, chip_id: int) -> SimulatedChip:
        """The individual, as it arrives: reset."""
        table = self.config.experiment
        return SimulatedChip(
            self.config.chip_config(), layer_shapes(self.network), seed=table.seed, chip=chip_id
        )

    @property
    def layers(self) -> list[str]:
        """Chip layers in network order."""
        return list(layer_shapes(self.network))

    @property
    def fingerprint(self) -> str:
        """16 hex digits of weights and images: files behind the same names may change."""
        total = hashlib.sha256()
        for node in self.network.nodes:
            total.update(repr((node.name, node.op, node.inputs, sorted(node.attributes.items()))).encode())
            for name in sorted(node.parameters):
                total.update(np.ascontiguousarray(node.parameters[name]).tobytes())
        for array in (self.calibration, self.test.pixels, self.test.labels):
            total.update(np.ascontiguousarray(array).tobytes())
        return total.hexdigest()[:16]

    @property
    def bin_edges(self) -> NDArray[np.float64]:
        """Conductance bins [S] of the level histogram; the last one also counts what lies above."""
        levels = self.config.cells.scale.levels
        return np.linspace(0.0, 1.8 * float(np.max(levels)), HISTOGRAM_BINS + 1)


# -- one trial ------------------------------------------------------------------------------------


def run_method(
    materials: Materials, teacher_outputs: NDArray[np.float32], chip_id: int, method: str, notify: Notify
) -> dict[str, Any]:
    """Tune one chip with one method, evaluate, age, evaluate again.

    Returns
    -------
    dict
        Arrays of `QUANTITIES` whose first axis is the stages of this method, or rows; see `join_methods`.
    """
    config = materials.config
    reads = config.lifetime.reads
    first = config.methods.index(method) * (1 + len(reads))
    stages = config.stages[first : first + 1 + len(reads)]
    rows: dict[str, list[Any]] = {
        f"trial/{name}": []
        for name in ("accuracy", "kl", "predictions", "layer_error", "overhead", "finished")
    }
    rows |= {f"ledger/{name}": [] for name in COSTS} | {"timing/seconds": []}
    started, finished = time.perf_counter(), True

    def store(stage: str) -> None:
        nonlocal started
        outputs = _evaluate(deployment, materials.test, lambda done: notify(chip_id, stage, 0.4 + 0.6 * done))
        predicted = outputs.argmax(axis=1)
        rows["trial/predictions"].append(predicted.astype(np.uint8))
        rows["trial/accuracy"].append(float((predicted == materials.test.labels).mean()))
        rows["trial/kl"].append(float(distillation(teacher_outputs, outputs).mean()))
        rows["trial/layer_error"].append(_layer_errors(materials, deployment))
        rows["trial/overhead"].append(deployment.digital_overhead()["fraction_of_weights"])
        rows["trial/finished"].append(finished)
        ledger = chip.ledger
        for name in COSTS:
            rows[f"ledger/{name}"].append([getattr(ledger.layers[layer], name) for layer in materials.layers])
        rows["timing/seconds"].append(time.perf_counter() - started)
        started = time.perf_counter()

    notify(chip_id, stages[0], 0.0)
    chip = materials.chip(chip_id)
    extra: dict[str, Any] = {}
    if method == "mapped":
        deployment = Deployment(materials.network, chip)
        deployment.map(materials.calibration)
        extra["cells/histogram"] = _histogram(materials, chip, deployment)
        history, checkpoints = [], []
    else:
        report = tune(
            chip,
            materials.network,
            materials.network,
            materials.calibration,
            strategy=method,
            budget=config.tuning.budget,
            seed=int(key(config.experiment.seed, Cause.TUNER, chip_id) >> np.uint64(1)),
            evaluate=_checkpoint_accuracy(materials),
        )
        deployment, finished = report.deployment.on(chip), report.finished
        history = [{"stage": first, **row} for row in report.history]
        checkpoints = [
            {
                "stage": first,
                "label": entry.label,
                "vectors": entry.vectors,
                "cell_writes": entry.cell_writes,
                "accuracy": entry.value,
            }
            for entry in report.checkpoints
        ]
    store(stages[0])
    if reads:
        trace = deployment.fork().trace(materials.calibration[:AGEING_IMAGES])
        activity = {layer: trace.codes(layer) for layer in materials.layers}
    for stage, before, count in zip(stages[1:], (0.0, *reads)[:-1], reads, strict=True):
        chip.age(count - before, activity)
        store(stage)
    extra |= _ragged("checkpoint", checkpoints, ("stage", "label", "vectors", "cell_writes", "accuracy"))
    return {name: np.array(entry) for name, entry in rows.items()} | extra | _history(history)


def join_methods(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One trial's arrays from those of its methods, in order."""
    values: dict[str, Any] = {}
    for name in {name for part in parts for name in part}:
        arrays = [part[name] for part in parts if name in part]
        filled = [array for array in arrays if array.size] or arrays[:1]
        values[name] = filled[0] if name.startswith("cells/") else np.concatenate(filled)
    return values


def _evaluate(deployment: Deployment, test: Split, progress: Callable[[float], None]) -> NDArray[np.float32]:
    """Outputs on the test images, on a fork: the chip itself is not touched."""
    done = 0

    def count(n_images: int) -> None:
        nonlocal done
        done += n_images
        progress(done / len(test))

    return deployment.fork(EVALUATION_STREAM).run(test.images, progress=count)


def _checkpoint_accuracy(materials: Materials) -> Callable[[Deployment], float] | None:
    n_images = materials.config.experiment.n_checkpoint
    if n_images == 0:
        return None
    images, labels = materials.test.images[:n_images], materials.test.labels[:n_images]
    return lambda deployment: float((deployment.run(images).argmax(axis=1) == labels).mean())


def _layer_errors(materials: Materials, deployment: Deployment) -> NDArray[np.float64]:
    """Error power over signal power of every mapped node, mean over channels, shape (n_nodes,)."""
    mapped = list(materials.network.mapped)
    images = materials.calibration[: materials.config.experiment.n_layer_images]
    if not len(images):
        return np.full(len(mapped), np.nan)
    wanted: dict[str, Any] = {"input": images}
    got: dict[str, Any] = {"input": images}
    materials.network.evaluate(wanted, materials.network.output, keep=mapped)
    deployment.fork(EVALUATION_STREAM + 1).evaluate(got, materials.network.output, keep=mapped)
    errors = []
    for node in mapped:
        z, y = wanted[node].astype(np.float64), got[node].astype(np.float64)
        axes = tuple(axis for axis in range(z.ndim) if axis != 1)
        errors.append(float(np.mean(np.square(z - y).mean(axes) / np.maximum(z.var(axes), 1e-30))))
    return np.array(errors)


def _histogram(materials: Materials, chip: SimulatedChip, deployment: Deployment) -> NDArray[np.int64]:
    """Cells by level target and realised conductance, shape (n_layers, n_levels, n_bins)."""
    edges, n_levels = materials.bin_edges, len(chip.datasheet.levels)
    counts = np.zeros((len(materials.layers), n_levels, HISTOGRAM_BINS), dtype=np.int64)
    for index, layer in enumerate(materials.layers):
        levels = deployment.layers[layer].levels
        assert levels is not None  # map() has written every layer
        bins = np.floor(chip.conductances(layer) / (edges[1] - edges[0])).astype(np.int64)
        np.add.at(counts[index], (levels.ravel(), np.clip(bins, 0, HISTOGRAM_BINS - 1).ravel()), 1)
    return counts


def _history(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Long form: a row for each number that a step recorded."""
    fixed = ("stage", "layer", "step", "vectors", "cell_writes")
    tidy = [
        {**{name: row[name] for name in fixed}, "quantity": quantity, "value": value}
        for row in rows
        for quantity, value in row.items()
        if quantity not in fixed
    ]
    return _ragged("history", tidy, (*fixed, "quantity", "value"))


def _ragged(group: str, rows: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    return {f"{group}/{name}": np.array([row[name] for row in rows]) for name in names}


# -- worker processes -----------------------------------------------------------------------------

_worker: dict[str, Any] = {}  # what this worker process holds between trials


def _start_worker(config: ExperimentConfig, queue: Any) -> None:
    """Runs once in each worker: one thread, quiet on Ctrl-C, gone when the parent is."""
    import numba
    import threadpoolctl

    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    parent = multiprocessing.parent_process()
    if parent is not None:

        def leave_with_parent() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=leave_with_parent, daemon=True).start()
    _worker["limits"] = threadpoolctl.threadpool_limits(1)
    numba.set_num_threads(1)
    _worker["materials"] = Materials.load(config)
    _worker["queue"] = queue


def _work_teacher() -> NDArray[np.float32]:
    materials = _worker["materials"]
    return materials.network.run(materials.test.images)


def _work_method(teacher_outputs: NDArray[np.float32], chip_id: int, method: str) -> dict[str, Any]:
    last = [0.0]

    def notify(*message: Any) -> None:
        if time.monotonic() - last[0] > 0.2:
            last[0] = time.monotonic()
            _worker["queue"].put(message)

    return run_method(_worker["materials"], teacher_outputs, chip_id, method, notify)


@contextlib.contextmanager
def _pool(config: ExperimentConfig, n_workers: int) -> Iterator[tuple[ProcessPoolExecutor, Any]]:
    """Spawned single-threaded workers; they are ended when the block is left by an error or Ctrl-C."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    pool = ProcessPoolExecutor(
        n_workers, mp_context=context, initializer=_start_worker, initargs=(config, queue)
    )
    others = {child.pid for child in multiprocessing.active_children()}
    try:
        yield pool, queue
        pool.shutdown()
    except BaseException:
        for child in multiprocessing.active_children():
            if child.pid not in others:
                child.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise


# -- the run --------------------------------------------------------------------------------------


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
    materials = Materials.load(config)  # bad input shows here, before any process starts
    if previous is not None and previous.attributes.get("fingerprint") != materials.fingerprint:
        raise InputError(
            f"{out}: was made with other weights or images under the same names; "
            "choose another --out, or --fresh to replace it"
        )
    done = set() if previous is None else set(previous["trial/chip"].tolist())
    todo = [chip for chip in config.experiment.chip_ids if chip not in done]
    if previous is not None and not todo:
        return previous
    with _lock(out), _pool(config, min(workers, len(todo) * len(config.methods))) as (pool, queue):
        if previous is None:
            outputs = _result(pool.submit(_work_teacher))
            _create(out, config, materials, outputs)
        else:
            outputs = previous["teacher/outputs"]
        _extend(out, config)
        rows = {int(chip): row for row, chip in enumerate(storage.planned_chips(out))}
        # methods of a chip may run side by side; a trial is stored when its last one is done
        futures = {
            pool.submit(_work_method, outputs, chip, method): (chip, method)
            for chip in todo
            for method in config.methods
        }
        parts: dict[int, dict[str, Any]] = {chip: {} for chip in todo}
        for future in _as_completed(set(futures), queue, notify):
            chip, method = futures[future]
            parts[chip][method] = _result(future)
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


def _result(future: Future[Any]) -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        raise InputError(
            "a worker process ended unexpectedly (out of memory, or killed); run again to continue, "
            "with fewer --workers if memory is short"
        ) from None


def _as_completed(left: set[Future[Any]], queue: Any, notify: Notify | None) -> Iterator[Future[Any]]:
    """Finished futures as they come; messages of the workers are passed on in between."""
    while left:
        ready, left = wait(left, timeout=0.2, return_when=FIRST_COMPLETED)
        while not queue.empty():
            message = queue.get()
            if notify is not None:
                notify(*message)
        yield from ready


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
