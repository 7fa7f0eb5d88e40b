"""Identify and rewrite: only the cells whose expected gain exceeds the expected cost of a new error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune import kernels
from finetune.bench import Bench
from finetune.strategies.base import LayerStep, register
from finetune.strategies.identify import (
    NOISE_VECTORS,
    Spread,
    cell_factors,
    cell_unit,
    conductances,
    identify,
    learn,
)
from finetune.strategies.samples import Reading, Samples, sample_count, take_samples
from finetune.strategies.work import Work
from rramsim.checks import InputError

__all__ = ["Rewrite"]

MOST_CARRY = 0.95
FIRST_CARRY, FIRST_COUNT = 0.3, 20.0  # belief about the repeated share before any rewrite, and its weight


@dataclass
class Cells:
    """What is believed of single cells, in units of `cell_unit`; all of shape (n_rows, n_cols, n_cells).

    Outputs tell of a weight only. Its deviation from the nominal weight belongs to its cells in proportion to
    the variances that their writes give it.
    """

    weights: NDArray[np.float64]  # (n_rows, n_cols) expected normalised weights
    factor: NDArray[np.float64]  # (n_cells,) weight of a unit of conductance
    mean: NDArray[np.float64]  # expected conductance
    split: NDArray[np.float64]  # variance of a cell once the weight is known
    deviate: NDArray[np.float64]  # expected error over the standard deviation of a write
    known: NDArray[np.float64]  # share of the variance of the cell's error that is known

    @classmethod
    def identified(
        cls, work: Work, samples: Samples, reading: Reading, spread: Spread, noise: NDArray[np.float64]
    ) -> Cells:
        """From one reading of the present state."""
        g = conductances(work)
        variance, factor = spread.of(g), cell_factors(work.bench.deployment.chip.datasheet, g.shape[2])
        brought = variance * np.square(factor)
        nominal, whole = samples.stored(), brought.sum(axis=2)
        estimate = identify(samples, reading, nominal, whole, noise)
        part = brought / np.maximum(whole, 1e-30)[:, :, None]
        shift = (estimate.weights - nominal)[:, :, None] * part / factor
        known = np.clip(estimate.determined, 0.0, 1.0)[:, :, None] * part
        deviate = np.clip(shift / np.sqrt(variance), -3.0, 3.0)
        return cls(estimate.weights, factor, g + shift, variance * (1.0 - part), deviate, known)


def expected_carry(knowledge: dict[str, Any]) -> float:
    """Share of a cell's error that its next write is expected to repeat."""
    product, square = knowledge.get("carry", (0.0, 0.0))
    return float(np.clip((product + FIRST_CARRY * FIRST_COUNT) / (square + FIRST_COUNT), 0.0, MOST_CARRY))


def learn_carry(knowledge: dict[str, Any], before: Cells, after: Cells, written: NDArray[np.bool_]) -> None:
    """Regress the errors of rewritten cells on their errors before; pooled over layers.

    The earlier error is a conditional mean and needs no correction; the later one is shrunk towards 0 by
    what is not known of it, which is divided out. Saturated deviates (stuck cells) are left out.
    """
    clear = written & (before.known > 0.5) & (after.known > 0.5)
    clear &= (np.abs(before.deviate) < 3.0) & (np.abs(after.deviate) < 3.0)
    old, new = before.deviate[clear], after.deviate[clear] / after.known[clear]
    product, square = knowledge.get("carry", (0.0, 0.0))
    knowledge["carry"] = np.array([product + float(old @ new), square + float(old @ old)])


@register("lsq.rewrite")
class Rewrite(LayerStep):
    """Greedy coordinate descent on the levels of single cells, measured again in each pass.

    Each pass reads the samples, identifies the realised weights, and chooses cells by the expected gain
    ``2 g d - H_ii (d**2 + v(q))`` with ``g = X'(T - Y) / n``: a move d of the weight wins what it corrects
    and pays the variance v(q) of a new write at level q. Either cell of a pair may move, and a small level
    in the opposite cell trims a large weight at the small level's error (where errors grow with
    conductance). The best moves over all columns are written, then measured.

    Parameters
    ----------
    passes : int
        Read-identify-write rounds.
    rewrites : float
        Stop after so many writes per cell of the layer, the first programming not counted.
    ridge : float
        Pull to the network's own weights, over the mean diagonal of H, times rows per sample: the fewer
        samples a layer has, the less they are trusted.
    follow : float
        See `lsq.sequential`.
    cost : float
        Share of a new write's error that counts in all passes but the last: later passes correct the rest.
    margin : float
        Least gain of a move over the target's variance, times the number of rows.
    sigma_scale : float
        Multiplies the learnt spread (for studies of a wrong one).
    """

    name = "lsq.rewrite"

    def __init__(
        self,
        *,
        passes: int = 6,
        rewrites: float = 0.22,
        ridge: float = 0.2,
        follow: float = 1.0,
        cost: float = 0.3,
        margin: float = 0.0,
        sigma_scale: float = 1.0,
    ) -> None:
        if not cost >= 0.0:
            raise InputError(f"lsq.rewrite: cost must be >= 0, got {cost:g}")
        if passes < 1:
            raise InputError(f"lsq.rewrite: passes must be >= 1, got {passes}")
        self.passes = passes
        self.rewrites = rewrites
        self.ridge = ridge
        self.follow = follow
        self.cost = cost
        self.margin = margin
        self.sigma_scale = sigma_scale

    def plan_layer(self, bench: Bench, layer: str, n_vectors: int) -> dict[str, float]:
        """A read of the samples in each pass; writes up to the limit."""
        info = bench.deployment.chip.layers[layer]
        return {
            "vectors": self.passes * sample_count(info.n_rows, n_vectors) + 2 * NOISE_VECTORS,
            "cell_writes": self.rewrites * info.n_cells,
        }

    def tune_layer(self, bench: Bench, work: Work) -> None:
        """All passes of one layer."""
        if work.host.levels is None:
            work.write(bench.deployment.nearest_levels(work.layer))
        samples = take_samples(work, self.follow)
        reading = samples.read()
        spread, noise = learn(work, samples, reading, self.sigma_scale)
        first = samples.error(reading.total)
        n_before = int(bench.budget.cycles(work.layer).sum())
        n_free = int(self.rewrites * work.info.n_cells)
        mask = np.zeros(0, dtype=bool)
        cells: Cells | None = None
        for turn in range(self.passes):
            if turn:
                reading = samples.read()
            before, cells = cells, Cells.identified(work, samples, reading, spread, noise)
            if before is not None:
                learn_carry(work.knowledge, before, cells, mask)
            share = -(-max(n_free, 0) // (self.passes - turn))
            cost = self.cost if turn + 1 < self.passes else 1.0
            levels, mask = self._choose(work, samples, reading.total, cells, spread, share, cost)
            if not mask.any():
                break
            work.write(levels, mask)
            n_free -= int(mask.sum())
        relative, absolute = spread.variances
        bench.record(
            work.layer,
            self.name,
            before=first,
            last=samples.error(reading.total),
            rewritten=(int(bench.budget.cycles(work.layer).sum()) - n_before) / work.info.n_cells,
            writes=float(bench.budget.cycles(work.layer).sum()) / work.info.n_cells,
            sigma_relative=float(np.sqrt(relative)),
            sigma_absolute=float(np.sqrt(absolute)),
            carry=expected_carry(work.knowledge),
        )

    def _choose(
        self,
        work: Work,
        samples: Samples,
        total: NDArray[np.float32],
        cells: Cells,
        spread: Spread,
        n_moves: int,
        cost: float,
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """New levels and the mask of at most `n_moves` cells to write."""
        host, sheet = work.host, work.bench.deployment.chip.datasheet
        assert host.levels is not None
        written = host.levels.astype(np.int64)
        energy = max(float(np.diag(samples.gram).mean()), 1e-12)
        pull = self.ridge * energy * work.info.n_rows / samples.n
        gram = samples.gram + pull * np.eye(len(samples.gram))
        slope = samples.slope(samples.target - total)
        slope += pull * (samples.ideal - cells.weights)
        level_u = np.asarray(sheet.levels) / cell_unit(work)
        level_sd = np.sqrt(spread.of(level_u))
        carry = expected_carry(work.knowledge)
        allowed = work.bench.budget.writable(work.layer)
        n_moves = int(min(n_moves, work.bench.budget.cells_left))
        most = min(max(2, work.info.n_rows // 4), 4 + 4 * n_moves // work.info.n_cols)
        limit = np.full(work.info.n_cols, most, dtype=np.int64)

        def run(price: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
            levels, chosen = written.copy(), np.zeros(cells.mean.shape)
            kernels.choose_moves(
                slope.copy(), gram, cells.mean.copy(), cells.split, cells.deviate, cells.factor, allowed,
                level_u, level_sd, carry, cost, price / samples.importance, limit, levels, chosen,
            )  # fmt: skip
            return levels, chosen

        floor = self.margin / work.info.n_rows
        levels, chosen = run(floor)
        gains = (chosen * samples.importance[:, None])[chosen > 0]
        if gains.size > n_moves:
            if n_moves <= 0:
                return levels, np.zeros(levels.shape, dtype=bool)
            levels, chosen = run(float(np.partition(gains, gains.size - n_moves)[gains.size - n_moves]))
            gain = chosen * samples.importance[:, None]
            worst = np.argsort(-gain, axis=None, kind="stable")[n_moves:]
            chosen.ravel()[worst] = 0.0
        return levels, chosen > 0
