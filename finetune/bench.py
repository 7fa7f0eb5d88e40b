"""The tuner's workplace: one chip behind a gate and a meter, the teacher, the calibration images."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.calibration import check_calibration
from finetune.evidence.sensitivity import channel_sensitivity
from finetune.meter import Budget, MeteredChip, as_budget
from rramsim.blackbox.gate import Gate
from rramsim.blackbox.protocol import ChipProtocol, Tier
from rramsim.checks import InputError
from rramsim.host.deployment import Deployment
from rramsim.network import Network
from rramsim.streams import Cause, stream, text_key

__all__ = ["Bench", "Checkpoint"]

WEIGHT_IMAGES = 32  # teacher images for the weights of output channels
TEACHER_BYTES = 1 << 27  # of a teacher's outputs, up to which all are kept
Evaluate = Callable[[Deployment], Any]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What the evaluation callback said at some point of a run, and what had been spent by then."""

    label: str
    value: Any
    vectors: int
    cell_writes: int


class Bench:
    """Everything a strategy works with.

    Parameters
    ----------
    chip : ChipProtocol
        The chip; the strategy sees it only through `deployment.chip`, a gate around a meter.
    network : Network
        What the chip shall compute.
    teacher : Network
        Whose layer outputs are the targets; normally the same network in full precision.
    images : ndarray, shape (n_images, *input_shape), or named arrays
        Calibration inputs: images, tokens, series; of a network with several inputs, one array for each.
    labels : ndarray, shape (n_images,), optional
        Never needed; strategies that can use labels say so.
    budget : Budget or mapping of its limits, optional
    tier : Tier
        What the strategy declared to need.
    seed : int
        Of the tuner's own draws.
    evaluate : callable, optional
        Called with a deployment on a fork of the chip at every checkpoint.
    start_from : Deployment, optional
        Digital state of a chip that is mapped already; else the chip is taken to be reset.
    shuffle_teacher : bool
        Control experiment: targets belong to other images, so nothing can be recovered.

    Attributes
    ----------
    deployment : Deployment
        The digital state being tuned, on the gated chip.
    meter : MeteredChip
        Counts and limits.
    history : list of dict
        Rows written by `record`.
    """

    def __init__(
        self,
        chip: ChipProtocol,
        network: Network,
        teacher: Network,
        images: Any,
        *,
        labels: NDArray[np.integer] | None = None,
        budget: Budget | None = None,
        tier: Tier = Tier.LAYERS,
        seed: int = 0,
        evaluate: Evaluate | None = None,
        start_from: Deployment | None = None,
        shuffle_teacher: bool = False,
    ) -> None:
        limits = as_budget(budget)
        images = network.checked(images, "calibration images")
        if limits.images is not None:
            images = images[: limits.images]
            labels = None if labels is None else labels[: limits.images]
        check_calibration(images)
        missing = set(network.mapped) - {node.name for node in teacher.nodes}
        if missing:
            raise InputError(
                f"the teacher must have the mapped nodes of the network, lacks {sorted(missing)}"
            )
        self._chip = chip
        self.network = network
        self.teacher = teacher
        self.images = images
        self.labels = labels
        self.seed = int(seed)
        self.meter = MeteredChip(chip, limits)
        self._gate = Gate(self.meter, tier)
        self.deployment = Deployment(network, self._gate)
        self.was_mapped = start_from is not None
        if start_from is not None:
            self.deployment.load_state_dict(start_from.state_dict())
        self._evaluate = evaluate
        self._teacher_values: dict[str, NDArray[np.float32]] = {}
        self._teacher_front: dict[str, NDArray[Any]] = {}  # where a teacher too large to keep has got to
        self._teacher_shapes: dict[str, tuple[int, ...]] = {}
        self._channel_sensitivity: dict[str, NDArray[np.float64]] = {}
        self._order = self.rng("shuffled teacher").permutation(len(images)) if shuffle_teacher else None
        self.history: list[dict[str, Any]] = []
        self.checkpoints: list[Checkpoint] = []
        # layers whose first answers were looked at, after and before their first write
        self.contacts: set[str] = set()
        self.unwritten_contacts: set[str] = set()
        self.used_chip = False  # cells were found in use that the host took to be reset

    def erase(self) -> None:
        """Write level 0 to every cell: a chip that was used before arrives reset."""
        for layer, info in self.deployment.chip.layers.items():
            self.deployment.chip.write(
                layer, np.zeros((info.n_rows, info.n_cols, info.cells_per_weight), dtype=np.int64)
            )

    def rng(self, purpose: str) -> np.random.Generator:
        """Generator of the tuner's own draws; depends on the seed and `purpose` alone."""
        return stream(self.seed, Cause.TUNER, text_key(purpose))

    def teacher_values(self, name: str) -> NDArray[np.float32]:
        """A tensor of the teacher for the calibration images; digital, costs the chip nothing.

        All outputs of mapped nodes are computed together and kept, up to `TEACHER_BYTES`. A larger teacher is
        followed layer by layer and keeps the last tensor asked for: in the network's order, each is computed
        once.
        """
        if name not in self._teacher_values:
            keep = {*self.teacher.mapped, self.teacher.output, name}
            values = self._all_of_teacher(keep) if self._keeps_teacher else self._next(name)
            if self._order is not None:
                values = {key: value[self._order] for key, value in values.items()}
            self._teacher_values |= values
        return self._teacher_values[name]

    @property
    def _keeps_teacher(self) -> bool:
        return self._teacher_size <= TEACHER_BYTES

    @functools.cached_property
    def _teacher_size(self) -> int:
        wanted = {*self.teacher.mapped, self.teacher.output}
        return 4 * sum(math.prod(self.teacher_shape(key)) for key in wanted)

    @property
    def teacher_bytes(self) -> float:
        """What is held of the teacher's tensors: all outputs of mapped nodes, or a few of the largest."""
        if self._keeps_teacher:
            return float(self._teacher_size)
        return 3.0 * max(4 * math.prod(self.teacher_shape(key)) for key in self.teacher.mapped)

    def _all_of_teacher(self, keep: set[str]) -> dict[str, NDArray[Any]]:
        values: dict[str, Any] = self.teacher.feed(self.images)
        self.teacher.evaluate(values, self.teacher.output, keep=keep)
        return {key: values[key] for key in keep}

    def _next(self, name: str) -> dict[str, NDArray[Any]]:
        """One tensor of a large teacher, from where the last one left it; the output is kept for good."""
        teacher = self.teacher
        values = {**teacher.feed(self.images), **self._teacher_front}
        names = [node.name for node in teacher.nodes]
        place = names.index(name)
        later = {source for node in teacher.nodes[place + 1 :] for source in node.inputs}
        teacher.evaluate(values, name, keep=later & set(names[:place]))
        result = {name: values[name]}
        self._teacher_front = {key: value for key, value in values.items() if key in later}
        output = self._teacher_values.get(teacher.output)
        self._teacher_values = {} if output is None else {teacher.output: output}
        return result

    def teacher_shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor of the teacher for the calibration images, found on as few as it takes."""
        if not self._teacher_shapes:
            n = int(self.teacher.metadata.get("batch", 1))
            values = self.teacher.zeros(n)
            self.teacher.evaluate(values, self.teacher.output, keep="all")
            share = len(self.images) / n
            self._teacher_shapes = {
                key: (round(value.shape[0] * share), *value.shape[1:]) if value.ndim else ()
                for key, value in values.items()
            }
        return self._teacher_shapes[name]

    def channel_sensitivity(self, name: str) -> NDArray[np.float64]:
        """Sensitivity of the loss to each channel of a teacher's node; digital, found once.

        See `finetune.evidence.sensitivity.channel_sensitivity`.
        """
        if name not in self._channel_sensitivity:
            self._channel_sensitivity[name] = channel_sensitivity(
                self.teacher, self.images[:WEIGHT_IMAGES], name
            )
        return self._channel_sensitivity[name]

    def record(self, layer: str, step: str, **quantities: float) -> None:
        """Append a history row: numbers of a step, with the costs so far."""
        row = {"layer": layer, "step": step, **{key: float(value) for key, value in quantities.items()}}
        self.history.append(row | {"vectors": self.meter.vectors, "cell_writes": self.meter.cell_writes})

    def checkpoint(self, label: str) -> None:
        """Evaluate on a fork: changes no bit of the tuned chip. A chip without forks evaluates in place."""
        if self._evaluate is None:
            return
        fork = getattr(self._chip, "fork", None)
        chip = self._chip if fork is None else fork(len(self.checkpoints))
        value = self._evaluate(self.deployment.on(chip))
        self.checkpoints.append(
            Checkpoint(
                label=label, value=value, vectors=self.meter.vectors, cell_writes=self.meter.cell_writes
            )
        )

    def drop_checkpoint(self, label: str) -> None:
        """Forget the last checkpoint if it has this label."""
        if self.checkpoints and self.checkpoints[-1].label == label:
            del self.checkpoints[-1]

    def result(self) -> Deployment:
        """The tuned digital state on the chip itself, gate and budget taken off."""
        return self.deployment.on(self._chip)

    def state_dict(self) -> dict[str, Any]:
        """The chip's (where it has one), the host's and the meter's state, and the history."""
        state = getattr(self._chip, "state_dict", None)
        return {
            "chip": None if state is None else state(),
            "deployment": self.deployment.state_dict(),
            "budget": self.meter.state_dict(),
            "gate": self._gate.gate_state(),
            "history": [dict(row) for row in self.history],
            "checkpoints": [dict(vars(entry)) for entry in self.checkpoints],
            "contacts": [sorted(self.contacts), sorted(self.unwritten_contacts)],
            "used_chip": self.used_chip,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`, bit for bit where the chip can."""
        load = getattr(self._chip, "load_state_dict", None)
        if state["chip"] is not None and load is not None:
            load(state["chip"])
        self.deployment.load_state_dict(state["deployment"])
        self.meter.load_state_dict(state["budget"])
        self._gate.load_gate_state(state["gate"])
        self.history = [dict(row) for row in state["history"]]
        self.checkpoints = [Checkpoint(**entry) for entry in state["checkpoints"]]
        self.contacts, self.unwritten_contacts = map(set, state["contacts"])
        self.used_chip = bool(state["used_chip"])
