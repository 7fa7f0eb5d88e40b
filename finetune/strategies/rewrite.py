"""Identify and rewrite: only the cells whose expected gain exceeds the expected cost of a new error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.bench import Bench
from finetune.evidence.belief import CellBelief
from finetune.evidence.choice import choose
from finetune.evidence.health import record_health
from finetune.evidence.identify import (
    NOISE_VECTORS,
    Estimate,
    WriteSpread,
    cell_factors,
    cell_unit,
    cell_zero,
    conductances,
    find_reference_error,
    identify,
    identify_flops,
    learn,
)
from finetune.evidence.layer import Knowledge, Work
from finetune.evidence.samples import Probes, Samples, TileOutputs, probe_count, sample_count, take_samples
from finetune.evidence.sensitivity import check_weights
from finetune.strategies.base import LayerStep, register
from rramsim.blackbox.protocol import LayerInfo, Tier
from rramsim.checks import InputError

__all__ = ["Rewrite"]

MOST_CARRY = 0.95
ACCEPT_PASSES, ACCEPT_SHARE = 2, 0.1  # further passes for worse columns, and the rewrites kept for them
CLEAR = 2.0  # standard errors by which a column must be worse
LEAST_WEIGHT = 1e-3  # of a column, below which it does not matter
FIRST_CARRY, FIRST_COUNT = 0.3, 20.0  # belief about the repeated share before any rewrite, and its weight


@dataclass
class Reidentified:
    """A layer's cells as one reading of the present state shows them, and how they err.

    `deviate` is the expected error over the standard deviation of a write, `known` the share of the variance
    of the cell's error that is known; both (n_rows, n_cols, n_cells).
    """

    belief: CellBelief
    estimate: Estimate
    deviate: NDArray[np.float64]
    known: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        work: Work,
        samples: Samples | Probes,
        reading: TileOutputs,
        spread: WriteSpread,
        noise: NDArray[np.float64],
    ) -> Reidentified:
        """From what writes to the present levels leave, and one reading."""
        g = conductances(work)
        variance, factor = spread.of(g), cell_factors(work.sheet, g.shape[2])
        belief = CellBelief.written(g, variance, factor, cell_zero(work))
        whole = belief.weight_variance
        estimate = identify(samples, reading, belief.weights, whole, noise)
        belief.update(estimate)
        part = variance * np.square(factor) / np.maximum(whole, 1e-30)[:, :, None]
        known = np.clip(estimate.determined, 0.0, 1.0)[:, :, None] * part
        deviate = np.clip((belief.mean - g) / np.sqrt(variance), -3.0, 3.0)
        return cls(belief, estimate, deviate, known)


class Best:
    """The least error at which each column was measured, sample by sample."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.squares: NDArray[np.float32] | None = None  # (n_samples, n_cols)

    def worse(self, total: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Columns clearly worse than their best, by paired differences over samples; keeps new bests."""
        squares = np.square(self.samples.target - total)
        if self.squares is None:
            self.squares = squares
            return np.zeros(squares.shape[1], dtype=bool)
        rise = squares - self.squares
        mean = rise.mean(axis=0, dtype=np.float64)
        error = rise.std(axis=0, dtype=np.float64) / np.sqrt(len(rise))
        self.squares = np.where(mean < 0.0, squares, self.squares)
        return mean > CLEAR * error


def expected_carry(knowledge: Knowledge) -> float:
    """Share of a cell's error that its next write is expected to repeat."""
    product, square = knowledge.carry
    return float(np.clip((product + FIRST_CARRY * FIRST_COUNT) / (square + FIRST_COUNT), 0.0, MOST_CARRY))


def learn_carry(
    knowledge: Knowledge, before: Reidentified, after: Reidentified, written: NDArray[np.bool_]
) -> None:
    """Regress the errors of rewritten cells on their errors before; pooled over layers.

    The earlier error is a conditional mean and needs no correction; the later one is shrunk towards 0 by
    what is not known of it, which is divided out. Saturated deviates (stuck cells) are left out.
    """
    clear = written & (before.known > 0.5) & (after.known > 0.5)
    clear &= (np.abs(before.deviate) < 3.0) & (np.abs(after.deviate) < 3.0)
    old, new = before.deviate[clear], after.deviate[clear] / after.known[clear]
    product, square = knowledge.carry
    knowledge.carry = np.array([product + float(old @ new), square + float(old @ old)])


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
    passes : int, optional
        Read-identify-write rounds; by default 6, or 12 where one cell holds a weight.
    rewrites : float, optional
        Stop after so many writes per cell of the layer, the first programming not counted; by default 0.22,
        or 1 where one cell holds a weight: it carries more error, and no second cell can trim it.
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
    weights : {"variance", "distillation"}
        What columns count when they share the rewrites, see `Work.column_weights`. Columns that do not matter
        to the teacher's outputs are left as they are.
    accept : bool
        Judge every column by re-measured outputs after the last pass. Nothing written can be taken back
        exactly, so the columns that ended clearly worse than the best they were measured at are offered
        again, up to twice, to moves whose expected gain bears the full cost of a new error. A tenth of
        the rewrites is kept for that; where no column is worse, it goes to all.
    probe : bool
        Identify cells by vectors of the tuner's own design (`Probes`), at tier PROBE. This is
        write-verify: report it apart.
    """

    name = "lsq.rewrite"

    def __init__(
        self,
        *,
        passes: int | None = None,
        rewrites: float | None = None,
        ridge: float = 0.2,
        follow: float = 1.0,
        cost: float = 0.3,
        margin: float = 0.0,
        sigma_scale: float = 1.0,
        weights: str = "variance",
        accept: bool = False,
        probe: bool = False,
    ) -> None:
        if not cost >= 0.0:
            raise InputError(f"lsq.rewrite: cost must be >= 0, got {cost:g}")
        if passes is not None and passes < 1:
            raise InputError(f"lsq.rewrite: passes must be >= 1, got {passes}")
        self.passes = passes
        self.rewrites = rewrites
        self.ridge = ridge
        self.follow = follow
        self.cost = cost
        self.margin = margin
        self.sigma_scale = sigma_scale
        self.weights = check_weights(self.name, weights)
        self.accept = accept
        self.probe = probe
        self.tier = Tier.PROBE if probe else Tier.LAYERS

    def plan_layer(self, bench: Bench, layer: str, n_vectors: int) -> dict[str, float]:
        """A read of the samples in each pass; writes up to the limit."""
        info = bench.deployment.chip.layers[layer]
        passes, rewrites = self._limits(info)
        n_samples, n_passes = sample_count(info.n_rows, n_vectors), passes + ACCEPT_PASSES * self.accept
        n_each = n_samples + self.probe * probe_count(info.n_rows)
        n_noise = 4 if info.cells_per_weight == 1 else 2  # the reference line is looked for first
        gram = 2.0 * n_samples * info.n_rows**2
        moves = 8.0 * rewrites * info.n_cells * info.n_rows * info.cells_per_weight
        return {
            "vectors": float(n_passes * n_each + n_noise * NOISE_VECTORS),
            "cell_writes": rewrites * info.n_cells,
            "flops": n_passes * identify_flops(info, n_samples) + gram + moves,
        }

    def _limits(self, info: LayerInfo) -> tuple[int, float]:
        """Passes, and rewrites per cell, for the layer's kind of mapping."""
        passes, rewrites = (12, 1.0) if info.cells_per_weight == 1 else (6, 0.22)
        return (
            passes if self.passes is None else self.passes,
            rewrites if self.rewrites is None else self.rewrites,
        )

    def tune_layer(self, work: Work) -> None:
        """All passes of one layer."""
        passes, rewrites = self._limits(work.info)
        if work.host.levels is None:
            work.write(work.nearest_levels)
        samples = take_samples(work, self.follow, self.weights)
        fresh = work.host.reference_error is None
        reading = samples.read()
        find_reference_error(work, samples, reading)
        if fresh:
            reading = samples.without_reference(reading)
        spread, noise, reading = learn(work, samples, reading, self.sigma_scale)
        first = samples.error(reading.total)
        n_before = int(work.cycles.sum())
        n_free = int(rewrites * work.info.n_cells)
        n_kept = int(ACCEPT_SHARE * n_free) if self.accept else 0
        best, everywhere = Best(samples), np.ones(work.info.n_cols, dtype=bool)
        probes = Probes(work, samples) if self.probe else None
        mask = np.zeros(0, dtype=bool)
        cells: Reidentified | None = None
        n_passes = passes + ACCEPT_PASSES * self.accept
        for turn in range(n_passes):
            if turn:
                reading = samples.read()
            columns = everywhere
            if self.accept:
                worse = best.worse(reading.total)
                columns = worse if turn >= passes and worse.any() else everywhere
            probed = reading if probes is None else probes.read()
            before, cells = cells, Reidentified.of(work, probes or samples, probed, spread, noise)
            if before is None:
                record_health(work, samples, reading, spread, noise, cells.estimate)
            else:
                learn_carry(work.knowledge, before, cells, mask)
            left = passes - turn
            share = -(-max(n_free - n_kept, 0) // left) if left > 0 else max(n_free, 0)
            cost = self.cost if left > 1 else 1.0
            levels, mask = self._choose(work, samples, reading.total, cells, spread, share, cost, columns)
            if not mask.any():
                if left <= 0 or not self.accept:
                    break
                continue
            work.write(levels, mask)
            n_free -= int(mask.sum())
        relative, absolute = spread.variances
        work.record(
            self.name,
            before=first,
            last=samples.error(reading.total),
            rewritten=(int(work.cycles.sum()) - n_before) / work.info.n_cells,
            writes=float(work.cycles.sum()) / work.info.n_cells,
            sigma_relative=float(np.sqrt(relative)),
            sigma_absolute=float(np.sqrt(absolute)),
            carry=expected_carry(work.knowledge),
            reads=samples.reads,
        )

    def _choose(
        self,
        work: Work,
        samples: Samples,
        total: NDArray[np.float32],
        cells: Reidentified,
        spread: WriteSpread,
        n_moves: int,
        cost: float,
        columns: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """New levels and the mask of at most `n_moves` cells to write, in these columns."""
        host, sheet = work.host, work.sheet
        assert host.levels is not None
        energy = max(float(np.diag(samples.gram).mean()), 1e-12)
        pull = self.ridge * energy * work.info.n_rows / samples.n
        gram = samples.gram + pull * np.eye(len(samples.gram))
        slope = samples.slope(samples.target - total)
        slope += pull * (samples.ideal - cells.belief.weights)
        level_mean = np.asarray(sheet.levels) / cell_unit(work)
        return choose(
            cells.belief,
            host.levels,
            gram,
            slope,
            level_mean,
            np.sqrt(spread.of(level_mean)),
            min(n_moves, work.cells_left),
            importance=samples.importance,
            price=self.margin / work.info.n_rows,
            cost=cost,
            carry=expected_carry(work.knowledge),
            deviate=cells.deviate,
            allowed=work.writable,
            columns=columns & (samples.weights > LEAST_WEIGHT),
            unseen=pull,
        )
