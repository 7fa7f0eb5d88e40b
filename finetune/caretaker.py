"""When to look after a chip that reads disturb, and what to do then.

A `Caretaker` owns a tuned deployment. It can look (how often does the chip disagree with the teacher on
images kept for this), recalibrate digitally (no writes), or visit with writes (`maintain`). `operate` lets
the chip serve in intervals that it lengthens while looks find nothing and shortens when they find
much, and takes the cheapest action that brings the disagreement back into the band. No label is
needed: accuracy cannot fall by more than the share of images on which chip and teacher have come to
disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.bench import Bench
from finetune.meter import Budget
from finetune.strategies.composition import Composition, parse_strategy
from finetune.strategies.maintain import Maintain
from rramsim.blackbox.protocol import ChipProtocol, ForwardingChip, Read, Reading
from rramsim.checks import InputError
from rramsim.host.deployment import Deployment
from rramsim.network import Network

__all__ = ["AlternatingReads", "Caretaker", "Operation", "Policy", "Visit", "operate"]

SHORTEST = 4.0  # the first interval over the shortest one


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How `operate` decides.

    band : largest rise of the disagreement with the teacher that is left without writing; half of it
        is reason enough for a recalibration.
    first_reads : length of the first interval, in reads of each layer.
    growth : factor on the interval after a look that found less than half a band; its inverse after one
        that found more than a band.
    longest : no interval is longer.
    """

    band: float = 0.01
    first_reads: float = 1e6
    growth: float = 2.0
    longest: float = np.inf

    def __post_init__(self) -> None:
        if not (self.band > 0 and self.first_reads > 0 and self.growth > 1):
            raise InputError(
                "policy: band and first_reads must be > 0 and growth > 1, got "
                f"{self.band:g}, {self.first_reads:g}, {self.growth:g}"
            )


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One action of the caretaker."""

    reads: float  # served by each layer since the beginning
    action: str  # "look", "recalibrate" or "rewrite"
    disagreement: float  # share of held-out images, after the action
    vectors: int
    cell_writes: int


@dataclass
class Operation:
    """What a time of service took."""

    n_cells: int
    visits: list[Visit] = field(default_factory=list)

    @property
    def vectors(self) -> int:
        """Vectors read by the caretaker."""
        return sum(visit.vectors for visit in self.visits)

    @property
    def writes_per_cell(self) -> float:
        """Cells written over all cells."""
        return sum(visit.cell_writes for visit in self.visits) / self.n_cells


class Caretaker:
    """Looks after one tuned chip.

    Parameters
    ----------
    chip : ChipProtocol
    network, teacher : Network
    images : ndarray, shape (n_images, c, h, w)
        Calibration images, unlabelled.
    deployment : Deployment
        Tuned digital state.
    maintain : Maintain, optional
        Remembers what it believes of the cells from visit to visit.
    after : str
        Layer steps that follow it, and alone make a recalibration without writes.
    held_out : ndarray, optional
        Unlabelled images for looking alone; without them `images` serve, and a recalibration that fits these
        very images looks better than it is.
    """

    def __init__(
        self,
        chip: ChipProtocol,
        network: Network,
        teacher: Network,
        images: NDArray[np.float32],
        deployment: Deployment,
        *,
        maintain: Maintain | None = None,
        after: str = "lsq.affine + adapter(rank=2)",
        budget: Budget | None = None,
        seed: int = 0,
        held_out: NDArray[np.float32] | None = None,
    ) -> None:
        self.chip, self.network, self.teacher, self.images = chip, network, teacher, images
        self.deployment = deployment
        self.maintain = maintain if maintain is not None else Maintain()
        self.after, self.budget, self.seed = after, budget, seed
        self.held_out = images if held_out is None else held_out
        self._answers = teacher.run(self.held_out).argmax(axis=1)

    def disagreement(self) -> float:
        """Share of held-out images that chip and teacher class differently; reads the chip."""
        logits = self.deployment.on(self.chip).run(self.held_out)
        return float((logits.argmax(axis=1) != self._answers).mean())

    def learn(self) -> Bench:
        """Compare beliefs with a freshly tuned chip, writing nothing: later visits know better what moved."""
        rate, limit = self.maintain.rate, self.maintain.limit
        self.maintain.rate = self.maintain.limit = 0.0
        try:
            return self._run([self.maintain], "maintain")
        finally:
            self.maintain.rate, self.maintain.limit = rate, limit

    def visit(self, *, write: bool = True, images: NDArray[np.float32] | None = None) -> Bench:
        """Recalibrate every layer, with rewriting of cells or without; the bench counts the costs.

        Parameters
        ----------
        images : ndarray, optional
            Unlabelled images for this visit instead of the caretaker's own. New ones at every visit show
            drift in directions that earlier ones left in the dark.
        """
        steps = list(parse_strategy(self.after).stages)
        if len(steps) != 1 or not hasattr(steps[0], "steps"):
            raise InputError(f"caretaker: after must hold layer steps only, got {self.after!r}")
        parts: list[Any] = list(steps[0].steps)
        if write:
            parts = [self.maintain, *parts]
        return self._run(parts, self.after, images)

    def _run(self, parts: list[Any], text: str, images: NDArray[np.float32] | None = None) -> Bench:
        strategy = Composition(text, parts)
        strategy.check_chip(self.chip)
        bench = Bench(
            self.chip,
            self.network,
            self.teacher,
            self.images if images is None else images,
            budget=self.budget,
            tier=strategy.needed_tier,
            seed=self.seed,
            start_from=self.deployment,
        )
        strategy.start(bench)
        while not strategy.advance(bench):
            pass
        self.deployment = bench.deployment.on(self.chip)
        return bench


def operate(
    caretaker: Caretaker,
    serve: Callable[[float], None],
    total_reads: float,
    policy: Policy | None = None,
    on_visit: Callable[[Visit], None] | None = None,
    fresh: Callable[[], NDArray[np.float32]] | None = None,
) -> Operation:
    """Let a chip serve `total_reads` reads of each layer and keep it within the policy's band.

    Parameters
    ----------
    serve : callable
        ``serve(n_reads)`` makes the chip do its work; for a simulated one `SimulatedChip.age`.
    on_visit : callable, optional
        Called after every visit, with its record.
    fresh : callable, optional
        Brings new unlabelled images for every recalibration, as service does; without it the caretaker's
        own are used again.
    """
    policy = policy if policy is not None else Policy()
    operation = Operation(sum(info.n_cells for info in caretaker.chip.layers.values()))
    served, interval = 0.0, policy.first_reads
    before = caretaker.chip.ledger.total

    def close(action: str, disagreement: float) -> None:
        nonlocal before
        now = caretaker.chip.ledger.total
        visit = Visit(
            reads=served,
            action=action,
            disagreement=disagreement,
            vectors=now.vectors - before.vectors,
            cell_writes=now.cell_writes - before.cell_writes,
        )
        operation.visits.append(visit)
        before = now
        if on_visit is not None:
            on_visit(visit)

    reference, allowed = caretaker.disagreement(), policy.band
    close("look", reference)
    while served < total_reads:
        step = min(interval, total_reads - served)
        serve(step)
        served += step
        found = caretaker.disagreement()
        rise = found - reference
        action = "look"
        if rise > 0.5 * policy.band:
            images = None if fresh is None else fresh()
            caretaker.visit(write=False, images=images)
            action, found = "recalibrate", caretaker.disagreement()
            if found - reference > allowed:
                caretaker.visit(write=True, images=images)
                action, found = "rewrite", caretaker.disagreement()
                # what writing could not mend now it will not mend soon: wait until more is lost
                allowed = max(policy.band, found - reference + 0.5 * policy.band)
        close(action, found)
        if rise > policy.band:
            # where a visit could not bring the band back, looking ever more often cannot either
            interval = max(interval / policy.growth, policy.first_reads / SHORTEST)
        elif rise < 0.5 * policy.band:
            interval = min(interval * policy.growth, policy.longest)
    return operation


class AlternatingReads(ForwardingChip):
    """A chip whose vectors are driven with alternating polarity, so that disturbance cancels.

    Every second vector goes out negated and its answer is negated back. Unsigned codes lose one bit,
    because the signed range has to hold both polarities. Useful where the sign of the read voltage decides
    the direction of disturbance.
    """

    def __init__(self, chip: ChipProtocol) -> None:
        super().__init__(chip)
        self._unsigned: dict[str, bool] = {}
        self._parity: dict[str, int] = {}

    def configure(
        self,
        layer: str,
        *,
        input_range: tuple[float, float] | None = None,
        output_range: float | None = None,
    ) -> None:
        """Set converter ranges; the input range is made symmetric."""
        if input_range is not None:
            self._unsigned[layer] = input_range[0] == 0.0
            input_range = (-input_range[1], input_range[1])
        self._chip.configure(layer, input_range=input_range, output_range=output_range)

    def read_through(self, read: Read, layer: str, codes: ArrayLike, per_tile: bool) -> Reading:
        """Read with alternating polarity."""
        sent = np.asarray(codes, dtype=np.int32)
        bits = self._chip.datasheet.dac_bits
        if self._unsigned.get(layer, False):
            sent = np.rint(sent * ((2 ** (bits - 1) - 1) / (2**bits - 1))).astype(np.int32)
        first = self._parity.get(layer, 0)
        sign = 1 - 2 * ((first + np.arange(len(sent))) % 2).astype(np.int32)
        self._parity[layer] = (first + len(sent)) % 2
        reading = read(layer, sent * sign[:, None], per_tile)
        back = sign.reshape(-1, *([1] * (reading.codes.ndim - 1)))
        return Reading(reading.codes * back, reading.saturated)
