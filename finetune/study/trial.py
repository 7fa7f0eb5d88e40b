"""One trial: one chip, every method, from settings to arrays for the archive.

Every method starts from the same individual: the chip (seed, id) is made anew, reset, for each strategy, so
all of them meet the same cells. A strategy that begins with another one of the experiment goes on from
where that one ended, which gives the same bits.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.objective import distillation
from finetune.strategies.composition import parse_strategy
from finetune.strategies.zeroth_order import positions
from finetune.study.config import ExperimentConfig
from finetune.tuner import Tuner, operations_per_vector
from rramsim.checks import InputError
from rramsim.chip.simulated import SimulatedChip
from rramsim.datasets.embedded import Dataset, Split, load_dataset
from rramsim.datasets.teachers import load_teacher, teacher_names
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from rramsim.network import Network
from rramsim.streams import Cause, key, stream

__all__ = [
    "HISTOGRAM_BINS",
    "Materials",
    "Notify",
    "join_methods",
    "method_groups",
    "plan_methods",
    "run_methods",
    "shared_starts",
]

HISTOGRAM_BINS = 200
AGEING_IMAGES = 32  # calibration images whose vectors stand for the reads of a lifetime
EVALUATION_STREAM = 1_000_000  # noise stream of final evaluations, apart from those of checkpoints
EVALUATION_RATE = 1.5e10  # rough multiply-accumulates per second of one thread, for plans
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


def shared_starts(methods: Sequence[str]) -> dict[str, str | None]:
    """For every method the longest other one that it begins with (`Composition.begins_with`), or None.

    A trial tunes with `default` once and goes on from there with `lsq+kd+zo`, which is `default` and more:
    the bits are the same as those of two runs.
    """
    parsed = {method: parse_strategy(method) for method in methods if method != "mapped"}
    starts: dict[str, str | None] = dict.fromkeys(methods)
    for method, whole in parsed.items():
        shorter = [other for other in parsed if whole.begins_with(parsed[other])]
        starts[method] = max(shorter, key=lambda other: len(parsed[other].stages), default=None)
    return starts


def plan_methods(config: ExperimentConfig) -> list[dict[str, Any]]:
    """What tuning a chip with each strategy would cost, and a rough time per chip; nothing is run.

    Returns
    -------
    list of dict
        Per strategy `strategy`, `tier`, `vectors`, `cell_writes`, `writes_per_cell`, `tuning_seconds` and
        `evaluation_seconds`, of one thread; the part shared with `starts_with` is in the numbers.
    """
    materials = Materials.load(config)
    starts = shared_starts(config.methods)
    rows = []
    for strategy in config.tuning.strategies:
        tuner = Tuner(
            materials.chip(config.experiment.chip_ids[0]),
            materials.network,
            materials.network,
            materials.calibration,
            strategy=strategy,
            budget=config.tuning.budget,
        )
        plan = tuner.plan()
        n_images = len(materials.test) * (1 + len(config.lifetime.reads))
        vectors = sum(positions(tuner.bench, node) for node in materials.network.mapped) * n_images
        rows.append(
            {
                "strategy": strategy,
                "starts_with": starts[strategy] or "",
                "tier": tuner.strategy.needed_tier.name,
                "vectors": plan["vectors"],
                "cell_writes": plan["cell_writes"],
                "writes_per_cell": plan["writes_per_cell"],
                "tuning_seconds": plan["seconds"],
                "evaluation_seconds": vectors * operations_per_vector(tuner.bench) / EVALUATION_RATE,
            }
        )
    return rows


def method_groups(methods: Sequence[str]) -> list[list[str]]:
    """Methods that share a start, in an order in which each follows its start; large groups first."""
    starts = shared_starts(methods)
    roots = {}
    for method in methods:
        root, depth = method, 0
        while (start := starts[root]) is not None:
            root, depth = start, depth + 1
        roots[method] = (root, depth)
    groups = [
        sorted((method for method in methods if roots[method][0] == root), key=lambda m: roots[m][1])
        for root in methods
        if starts[root] is None
    ]
    return sorted(groups, key=len, reverse=True)  # the longest work first, so that workers end together


def run_methods(
    materials: Materials,
    teacher_outputs: NDArray[np.float32],
    chip_id: int,
    methods: Sequence[str],
    notify: Notify,
) -> dict[str, dict[str, Any]]:
    """`run_method` for methods that begin with one another, each after the one it begins with."""
    states: dict[str, dict[str, Any]] = {}
    starts = shared_starts(methods)
    parts = {}
    for method in methods:
        start = starts[method]
        parts[method], states[method] = run_method(
            materials,
            teacher_outputs,
            chip_id,
            method,
            notify,
            start=None if start is None else states[start],
            keep=method in starts.values(),
        )
    return parts


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
    reads = config.lifetime.reads
    first = config.methods.index(method) * (1 + len(reads))
    stages = config.stages[first : first + 1 + len(reads)]
    rows: dict[str, list[Any]] = {
        f"trial/{name}": []
        for name in ("accuracy", "kl", "predictions", "layer_error", "overhead", "finished")
    }
    rows |= {f"ledger/{name}": [] for name in COSTS} | {"timing/seconds": []}
    started, finished = time.perf_counter() - (0.0 if start is None else start["seconds"]), True

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
    state: dict[str, Any] = {}
    if method == "mapped":
        deployment = Deployment(materials.network, chip)
        deployment.map(materials.calibration)
        extra["cells/histogram"] = _histogram(materials, chip, deployment)
        history, checkpoints = [], []
    else:
        tuner = Tuner(
            chip,
            materials.network,
            materials.network,
            materials.calibration,
            strategy=method,
            budget=config.tuning.budget,
            seed=int(key(config.experiment.seed, Cause.TUNER, chip_id) >> np.uint64(1)),
            evaluate=_checkpoint_accuracy(materials),
        )
        if start is not None:
            tuner.go_on_from(start["tuner"])
        while not tuner.step():
            pass
        if keep:
            state = {"tuner": tuner.state_dict(), "seconds": time.perf_counter() - started}
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
    store(stages[0])
    if reads:
        trace = deployment.fork().trace(materials.calibration[:AGEING_IMAGES])
        activity = {layer: trace.codes(layer) for layer in materials.layers}
    for stage, before, count in zip(stages[1:], (0.0, *reads)[:-1], reads, strict=True):
        chip.age(count - before, activity)
        store(stage)
    extra |= _ragged("checkpoint", checkpoints, ("stage", "label", "vectors", "cell_writes", "accuracy"))
    return {name: np.array(entry) for name, entry in rows.items()} | extra | _history(history), state


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
