"""One method on one chip: from settings to arrays for the archive.

Every method starts from the same individual: the chip (seed, id) is made anew, reset, for each strategy, so
all of them meet the same cells.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.objective import distillation
from finetune.study.bill import no_arrays, stage_arrays
from finetune.study.materials import HISTOGRAM_BINS, Materials
from finetune.study.snapshots import save_snapshot, snapshot_path
from finetune.tuner import Tuner
from rramsim.blackbox.protocol import LEDGER_QUANTITIES
from rramsim.chip.simulated import SimulatedChip
from rramsim.datasets.embedded import Split
from rramsim.host.deployment import Deployment
from rramsim.network import windows
from rramsim.streams import Cause, key

__all__ = ["Life", "Notify", "evaluate_on_fork", "run_method", "save_chip", "tuner_of"]

AGEING_IMAGES = 32  # calibration images whose vectors stand for the reads of a lifetime
EVALUATION_STREAM = 1_000_000  # noise stream of final evaluations, apart from those of checkpoints
COSTS = tuple(entry.name for entry in LEDGER_QUANTITIES.values() if entry.cost)

Notify = Callable[[int, str, float], None]  # chip, stage, share of the stage that is done


def run_method(
    materials: Materials,
    teacher_outputs: NDArray[np.float32],
    chip_id: int,
    method: str,
    notify: Notify,
    *,
    start: Mapping[str, Any] | None = None,
    keep: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tune one chip with one method, evaluate, age, evaluate again.

    Parameters
    ----------
    start : mapping, optional
        Second result of a method that this one begins with.
    keep : bool
        Whether another method begins with this one.

    Returns
    -------
    dict
        Arrays of `QUANTITIES` whose first axis is the stages of this method, or rows; see `join_methods`.
    dict
        State after tuning, empty unless `keep`.
    """
    config = materials.config
    n_stages = len(config.lifetime.suffixes)
    first = config.methods.index(method) * n_stages
    stages = config.stages[first : first + n_stages]
    record = _Record(materials, teacher_outputs, chip_id, notify, before=start["seconds"] if start else 0.0)
    notify(chip_id, stages[0], 0.0)
    chip = materials.chip(chip_id)
    extra: dict[str, Any] = {}
    state: dict[str, Any] = {}
    finished, history, checkpoints = True, [], []
    if method == "mapped":
        deployment = Deployment(materials.network, chip)
        deployment.map(materials.calibration)
        extra["cells/histogram"] = _histogram(materials, chip, deployment)
    else:
        tuner = tuner_of(materials, chip, chip_id, method)
        if start is not None:
            tuner.go_on_from(start["tuner"])
        while not tuner.step():
            pass
        if keep:
            state = {"tuner": tuner.state_dict(), "seconds": record.seconds}
        report = tuner.report()
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
    record.store(stages[0], chip, deployment, finished)
    if config.experiment.save_chips is not None:
        end = None if method == "mapped" else tuner.state_dict()
        save_chip(materials, Life(materials, chip, chip_id, deployment), chip_id, method, end)
    later = iter(stages[1:])
    for unit, ages, visit in config.lifetime.series:
        for old_chip, state_then in _ages(materials, chip, deployment, unit, ages, visit, chip_id):
            record.store(next(later), old_chip, state_then, finished)
    extra |= _ragged("checkpoint", checkpoints, ("stage", "label", "vectors", "cell_writes", "accuracy"))
    return record.arrays() | extra | _history(history), state


def save_chip(
    materials: Materials, life: Life, chip_id: int, method: str, tuner: Any, folder: str | None = None
) -> Path:
    """Store a chip, its digital side and what its tuner knows (`rramsim continue` goes on from there)."""
    config = materials.config
    state = {
        "config": config.to_toml(),
        "fingerprint": materials.fingerprint,
        "chip_id": chip_id,
        "method": method,
        "chip": life.chip.state_dict(),
        "deployment": life.deployment.state_dict(),
        "tuner": tuner,
        "visits": life.visits,
        "activity": life.activity,
    }
    where = folder if folder is not None else str(config.experiment.save_chips)
    return save_snapshot(snapshot_path(where, chip_id, method), state)


def _ages(
    materials: Materials,
    chip: SimulatedChip,
    deployment: Deployment,
    unit: str,
    ages: tuple[float, ...],
    maintained: bool,
    chip_id: int,
) -> Iterator[tuple[SimulatedChip, Deployment]]:
    """A copy of a chip at each age, with the digital state it has then; the chip itself stays young."""
    life = Life(materials, copy.deepcopy(chip), chip_id, deployment)
    for before, age in zip((0.0, *ages[:-1]), ages, strict=True):
        if unit == "reads":
            life.read(age - before)
        else:
            life.wait(age - before)
        if maintained:
            life.maintain(str(materials.config.lifetime.maintenance))
        yield life.chip, life.deployment


class Life:
    """A tuned chip that grows old, and its digital side."""

    def __init__(
        self, materials: Materials, chip: SimulatedChip, chip_id: int, deployment: Deployment
    ) -> None:
        self.chip, self.deployment = chip, deployment.on(chip)
        self.visits = 0  # maintenances so far: each has random numbers of its own
        self.activity: dict[str, NDArray[Any]] | None = None  # codes that stand for the reads of its life
        self._materials, self._chip_id = materials, chip_id

    def wait(self, seconds: float) -> None:
        """Let time pass [s]."""
        self.chip.wait(seconds)

    def read(self, n_reads: float) -> None:
        """Let reads of every layer act: those of some calibration images, over and over."""
        if self.activity is None:
            trace = self.deployment.fork().trace(self._materials.calibration[:AGEING_IMAGES])
            self.activity = {layer: trace.codes(layer) for layer in self._materials.layers}
        self.chip.age(n_reads, self.activity)

    def maintain(self, strategy: str) -> None:
        """Tune again from where the chip stands."""
        config, network = self._materials.config, self._materials.network
        self.visits += 1
        tuner = Tuner(
            self.chip,
            network,
            network,
            self._materials.calibration,
            strategy=strategy,
            budget=config.tuning.budget,
            seed=int(key(config.experiment.seed, Cause.TUNER, self._chip_id, self.visits) >> np.uint64(1)),
            start_from=self.deployment,
        )
        while not tuner.step():
            pass
        self.deployment = tuner.report().deployment.on(self.chip)


def tuner_of(materials: Materials, chip: SimulatedChip, chip_id: int, method: str) -> Tuner:
    """The tuner of a trial, not yet started."""
    config = materials.config
    return Tuner(
        chip,
        materials.network,
        materials.network,
        materials.calibration,
        strategy=method,
        budget=config.tuning.budget,
        seed=int(key(config.experiment.seed, Cause.TUNER, chip_id) >> np.uint64(1)),
        evaluate=_checkpoint_accuracy(materials),
    )


class _Record:
    """The rows of one method: a row of each quantity for every stage that was evaluated."""

    def __init__(
        self,
        materials: Materials,
        teacher_outputs: NDArray[np.float32],
        chip_id: int,
        notify: Notify,
        *,
        before: float,
    ) -> None:
        self._materials, self._teacher_outputs = materials, teacher_outputs
        self._chip_id, self._notify = chip_id, notify
        self._started = time.perf_counter() - before
        names = ("accuracy", "kl", "predictions", "layer_error", "overhead", "finished")
        self._rows: dict[str, list[Any]] = {f"trial/{name}": [] for name in names}
        self._rows |= {f"ledger/{name}": [] for name in COSTS} | {"timing/seconds": []}

    @property
    def seconds(self) -> float:
        """Wall clock since the last stage was stored."""
        return time.perf_counter() - self._started

    def store(self, stage: str, chip: SimulatedChip, deployment: Deployment, finished: bool) -> None:
        """Evaluate a stage on the test images and write down what it cost."""
        rows, test = self._rows, self._materials.test
        outputs = evaluate_on_fork(
            deployment, test, lambda done: self._notify(self._chip_id, stage, 0.4 + 0.6 * done)
        )
        predicted = outputs.argmax(axis=1)
        rows["trial/predictions"].append(predicted.astype(np.uint8))
        rows["trial/accuracy"].append(float((predicted == test.labels).mean()))
        rows["trial/kl"].append(float(distillation(self._teacher_outputs, outputs).mean()))
        rows["trial/layer_error"].append(_layer_errors(self._materials, deployment))
        rows["trial/overhead"].append(deployment.digital_overhead()["fraction_of_weights"])
        rows["trial/finished"].append(finished)
        ledgers = [chip.ledger.layers[layer] for layer in self._materials.layers]
        for name in COSTS:
            counts = [getattr(ledger, name) for ledger in ledgers]
            rows[f"ledger/{name}"].append([np.nan if count is None else count for count in counts])
        for name, values in self._bill(chip, deployment).items():
            rows.setdefault(name, []).append(values)
        rows["timing/seconds"].append(self.seconds)
        self._started = time.perf_counter()

    def _bill(self, chip: SimulatedChip, deployment: Deployment) -> dict[str, NDArray[Any]]:
        """Energy of vectors in the present state; on wires, where it takes time, of young chips alone."""
        layers = tuple(self._materials.layers)
        if chip.config.wires is not None and "bill/vectors" in self._rows:
            return no_arrays(len(layers))
        return stage_arrays(deployment, self._materials.calibration, layers)

    def arrays(self) -> dict[str, Any]:
        """Every quantity, stages along the first axis."""
        return {name: np.array(entry) for name, entry in self._rows.items()}


def evaluate_on_fork(
    deployment: Deployment, test: Split, progress: Callable[[float], None]
) -> NDArray[np.float32]:
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
    wanted, got = materials.network.feed(images), materials.network.feed(images)
    materials.network.evaluate(wanted, materials.network.output, keep=mapped)
    deployment.fork(EVALUATION_STREAM + 1).evaluate(got, materials.network.output, keep=mapped)
    errors = []
    for node in mapped:
        z, y = wanted[node].astype(np.float64), got[node].astype(np.float64)
        channels = windows.channel_axis(materials.network.node(node)) % z.ndim
        axes = tuple(axis for axis in range(z.ndim) if axis != channels)
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
