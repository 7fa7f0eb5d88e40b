"""The one entry point: tune a chip with a strategy inside a budget, and report what happened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.bench import Bench, Checkpoint, Evaluate
from finetune.calibration import check_classes
from finetune.evidence.contact import check_reset
from finetune.health import Health
from finetune.meter import Budget, BudgetSpent
from finetune.strategies.composition import Composition, parse_strategy
from rramsim.blackbox.protocol import ChipProtocol, Ledger, Tier
from rramsim.checks import InputError
from rramsim.host.deployment import Deployment
from rramsim.network import Network, windows

__all__ = ["TuneReport", "Tuner", "operations_per_vector", "tune"]

# rough speeds of one thread, for plans
READ_RATE = 4e9  # multiply-accumulates per second of a simulated chip
HOST_RATE = 1e10  # of dense algebra at the host
PER_VECTOR = 1e-6  # [s] to lay a vector out and to convert its outputs


@dataclass(kw_only=True)
class TuneReport:
    """What a tuning run did and cost.

    `history` has a row per layer and step; `checkpoints` hold what the evaluation callback said.
    `ledger` counts from the chip's arrival; `vectors`, `cell_writes` and `seconds` are the run's own.
    """

    strategy: str
    tier: Tier  # what the strategy saw; PROBE is write-verify by another name, to be reported apart
    deployment: Deployment
    finished: bool  # False: the budget ended the run
    stopped_by: str  # the limit that did, or ""
    vectors: int
    cell_writes: int
    writes_per_cell: float
    seconds: float
    ledger: Ledger
    digital_overhead: dict[str, float]
    planned: dict[str, float] = field(default_factory=dict)  # what `Tuner.plan` predicted, if it was asked
    history: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)

    def recovery(self) -> list[tuple[str, int, int, Any]]:
        """(label, vectors, cell writes, value) of every checkpoint: the data of a recovery figure."""
        return [(c.label, c.vectors, c.cell_writes, c.value) for c in self.checkpoints]

    @property
    def health(self) -> Health:
        """What was learnt of the chip, in words (`Health.text`); `finetune.plot_health` draws it."""
        return Health.of(self.history)


def operations_per_vector(bench: Bench) -> float:
    """Multiply-accumulates of a vector, averaged over the vectors that one image sends to the chip."""
    total, n_vectors, network = 0.0, 0.0, bench.network
    for node in network.mapped:
        shape = bench.teacher_shape(node)
        for layer in bench.deployment.layers_of(node):
            info = bench.deployment.chip.layers[layer]
            n_positions = float(windows.vectors_per_example(network.node(node), shape))
            n_vectors += n_positions
            total += n_positions * info.n_rows * info.n_cols
    return total / n_vectors


class Tuner:
    """A tuning run that can be stopped between two units of work and taken up again.

    Parameters are those of `tune`. Call `step` until it returns True; `state_dict` in between.
    """

    def __init__(
        self,
        chip: ChipProtocol,
        network: Network,
        teacher: Network,
        calibration: Any,
        *,
        strategy: str = "default",
        budget: Budget | None = None,
        seed: int = 0,
        labels: NDArray[np.integer] | None = None,
        evaluate: Evaluate | None = None,
        start_from: Deployment | None = None,
        shuffle_teacher: bool = False,
        erase: bool = False,
    ) -> None:
        if erase and start_from is not None:
            raise InputError("erase=True would delete what start_from goes on with: give one of them")
        self.strategy: Composition = parse_strategy(strategy)
        self.strategy.check_chip(chip)
        self.erase = erase
        self.bench = Bench(
            chip,
            network,
            teacher,
            calibration,
            labels=labels,
            budget=budget,
            tier=self.strategy.needed_tier,
            seed=seed,
            evaluate=evaluate,
            start_from=start_from,
            shuffle_teacher=shuffle_teacher,
        )
        self.planned: dict[str, float] = {}
        self._started = False
        self.finished = False
        self.stopped_by = ""

    def plan(self) -> dict[str, float]:
        """Predicted costs, the first programming of a reset chip included; the chip is not touched.

        Returns
        -------
        dict
            `vectors`, `cell_writes`, `writes_per_cell`, `seconds`, a rough time of the host and a
            simulated chip on one thread (within a factor of about three), and `bytes`, the memory that the
            tuner will hold at most beside the chip (within a factor of about two).
        """
        bench = self.bench
        prediction = self.strategy.plan(bench)
        prediction["vectors"] *= bench.meter.reads_per_vector
        if not bench.was_mapped and not self.strategy.writes_itself:
            levels = [bench.deployment.nearest_levels(layer) for layer in bench.deployment.layers]
            prediction["cell_writes"] += float(sum(int((q != 0).sum()) for q in levels))
        if self.erase:
            prediction["cell_writes"] += float(bench.meter.n_cells)
        prediction["writes_per_cell"] = prediction["cell_writes"] / bench.meter.n_cells
        operations = prediction["vectors"] * operations_per_vector(bench)
        flops = prediction.pop("flops", 0.0)
        prediction["seconds"] = (
            operations / READ_RATE + flops / HOST_RATE + prediction["vectors"] * PER_VECTOR
        )
        network = sum(4.0 * value.size for n in bench.network.nodes for value in n.parameters.values())
        # the gate keeps two fingerprints of each vector, the run the answers of finished layers
        kept = prediction["vectors"] * 4.0 + bench.teacher_bytes + bench.meter.n_cells * 16.0
        prediction["bytes"] = prediction.get("bytes", 0.0) + network + kept
        self.planned = dict(prediction)
        return prediction

    def _start(self) -> None:
        bench = self.bench
        check_classes(bench.teacher_values(bench.teacher.output))
        if not bench.was_mapped:
            bench.deployment.map(bench.images, program=False)
            if self.erase:
                bench.erase()
            else:
                check_reset(bench)
            if not self.strategy.writes_itself:
                bench.deployment.program()
        self._started = True
        self.strategy.start(bench)
        bench.checkpoint("start")

    def step(self) -> bool:
        """One unit of work; True when finished or the budget is spent."""
        if self.finished or self.stopped_by:
            return True
        try:
            if not self._started:
                self._start()
            self.bench.meter.check_time()
            self.finished = self.strategy.advance(self.bench)
        except BudgetSpent as limit:
            self.stopped_by = str(limit)
        if self.finished or self.stopped_by:
            self.bench.checkpoint("end")
            return True
        return False

    def report(self) -> TuneReport:
        """The state so far."""
        bench = self.bench
        return TuneReport(
            strategy=self.strategy.text,
            tier=self.strategy.needed_tier,
            deployment=bench.result(),
            finished=self.finished,
            stopped_by=self.stopped_by,
            vectors=bench.meter.vectors,
            cell_writes=bench.meter.cell_writes,
            writes_per_cell=bench.meter.cell_writes / bench.meter.n_cells,
            seconds=bench.meter.seconds,
            ledger=bench.meter.ledger,
            digital_overhead=bench.deployment.digital_overhead(),
            planned=self.planned,
            history=bench.history,
            checkpoints=bench.checkpoints,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything a fresh `Tuner` with the same arguments needs to go on bit for bit."""
        if not self._started:
            return {"started": False}
        return {
            "started": True,
            "strategy": self.strategy.text,
            "finished": self.finished,
            "stopped_by": self.stopped_by,
            "bench": self.bench.state_dict(),
            "progress": {} if self.finished else self.strategy.state_dict(),
        }

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        """Take over where another strategy ended that this one begins with (`Composition.begins_with`).

        `state` is the `state_dict` of its finished run, same arguments else. The outcome is the same, bit
        for bit, as that of a run of its own. What stopped that run early stops this one at the same place.
        """
        if not (state["started"] and (state["finished"] or state["stopped_by"])):
            raise InputError("the run to go on from is not at its end; finish it first")
        shorter = parse_strategy(state["strategy"])
        if not self.strategy.begins_with(shorter):
            raise InputError(f"strategy {self.strategy.text!r} does not begin with {shorter.text!r}")
        self.bench.load_state_dict(state["bench"])
        self._started, self.stopped_by = True, str(state["stopped_by"])
        if not self.stopped_by:
            self.bench.drop_checkpoint("end")
            self.strategy.enter(self.bench, len(shorter.stages))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        if not state["started"]:
            return
        if state["strategy"] != self.strategy.text:
            raise InputError(
                f"the state is of strategy {state['strategy']!r}, this tuner runs {self.strategy.text!r}"
            )
        self.bench.load_state_dict(state["bench"])
        self._started, self.finished = True, bool(state["finished"])
        self.stopped_by = str(state["stopped_by"])
        if not self.finished:
            self.strategy.restart(self.bench, state["progress"])
            self.bench.meter.load_state_dict(state["bench"]["budget"])


def tune(
    chip: ChipProtocol,
    network: Network,
    teacher: Network,
    calibration: Any,
    *,
    strategy: str = "default",
    budget: Budget | None = None,
    seed: int = 0,
    labels: NDArray[np.integer] | None = None,
    evaluate: Evaluate | None = None,
    start_from: Deployment | None = None,
    shuffle_teacher: bool = False,
    erase: bool = False,
    on_step: Callable[[Tuner], None] | None = None,
    dry_run: bool = False,
) -> TuneReport:
    """Recover a network's accuracy on a non-ideal chip.

    Parameters
    ----------
    chip : ChipProtocol
        Simulated or real; reset, unless `start_from` is given. A chip whose ledger counts writes is read
        before anything is written, and refused if it is not reset (`finetune.evidence.contact`).
    network, teacher : Network
        What runs on the chip, and whose layer outputs are the targets (often the same).
    calibration : ndarray, shape (n_images, *input_shape), or named arrays
        Unlabelled images normalised as the network wants them, tokens, series; of a network with several
        inputs a mapping of name to array.
    strategy : str
        Text or named scheme, see `finetune.strategies.composition.parse_strategy`.
    budget : Budget, optional
        Limits; a run stops within them and returns the state reached.
    seed : int
        Of the tuner's own draws.
    labels : ndarray, shape (n_images,), optional
        Only for strategies that say so.
    evaluate : callable, optional
        `evaluate(deployment)` is called at checkpoints with a deployment on a fork of the chip.
    start_from : Deployment, optional
        A deployment that has mapped the chip already; its digital state is copied.
    shuffle_teacher : bool
        Control: targets of other images.
    erase : bool
        Write level 0 to every cell first, for a chip that was used before: one write each, charged.
    on_step : callable, optional
        Called with the `Tuner` after each unit of work, for saving its state.
    dry_run : bool
        Only predict: the report's `planned` is filled and the chip is not touched.

    Returns
    -------
    TuneReport
    """
    tuner = Tuner(
        chip,
        network,
        teacher,
        calibration,
        strategy=strategy,
        budget=budget,
        seed=seed,
        labels=labels,
        evaluate=evaluate,
        start_from=start_from,
        shuffle_teacher=shuffle_teacher,
        erase=erase,
    )
    if dry_run:
        tuner.plan()
        return tuner.report()
    finished = False
    while not finished:
        finished = tuner.step()
        if on_step is not None:
            on_step(tuner)
    return tuner.report()
