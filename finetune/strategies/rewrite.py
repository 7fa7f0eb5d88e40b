"""Identify and rewrite: only the cells whose expected gain exceeds the expected cost of a new error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune import kernels
from finetune.bench import Bench
from finetune.strategies.base import LayerStep, first_writes, register
from finetune.strategies.identify import (
    NOISE_VECTORS,
    Estimate,
    Spread,
    cell_factors,
    conductances,
    identify,
    learn,
)
from finetune.strategies.samples import Samples, sample_count, take_samples
from finetune.strategies.work import Work
from rramsim.checks import InputError

__all__ = ["Rewrite"]


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
    writes : float
        Stop at so many writes per cell of the layer, its first programming included.
    ridge : float
        Pull to the network's own weights, over the mean diagonal of H.
    follow : float
        See `lsq.sequential`.
    carry : float
        Assumed share of a cell's error that its next write repeats.
    margin : float
        Least gain of a move over the target's variance, times the number of rows.
    sigma_scale : float
        Multiplies the learnt spread (for studies of a wrong one).
    """

    name = "lsq.rewrite"

    def __init__(
        self,
        *,
        passes: int = 4,
        writes: float = 0.68,
        ridge: float = 0.01,
        follow: float = 1.0,
        carry: float = 0.5,
        margin: float = 0.0,
        sigma_scale: float = 1.0,
    ) -> None:
        if passes < 1:
            raise InputError(f"lsq.rewrite: passes must be >= 1, got {passes}")
        if not 0.0 <= carry < 1.0:
            raise InputError(f"lsq.rewrite: carry must lie in [0, 1), got {carry:g}")
        self.passes = passes
        self.writes = writes
        self.ridge = ridge
        self.follow = follow
        self.carry = carry
        self.margin = margin
        self.sigma_scale = sigma_scale

    def plan_layer(self, bench: Bench, layer: str, n_vectors: int) -> dict[str, float]:
        """A read of the samples in each pass; writes up to the limit."""
        info = bench.deployment.chip.layers[layer]
        more = max(self.writes * info.n_cells - 1.06 * first_writes(bench, layer), 0.0)
        return {
            "vectors": self.passes * sample_count(info.n_rows, n_vectors) + 2 * NOISE_VECTORS,
            "cell_writes": more,
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
        n_free = int(self.writes * work.info.n_cells) - n_before
        for turn in range(self.passes):
            if turn:
                reading = samples.read()
            g = conductances(work)
            variance = spread.of(g)
            estimate = identify(samples, reading, samples.stored(), variance.sum(axis=2), noise)
            share = -(-max(n_free, 0) // (self.passes - turn))
            levels, mask = self._choose(work, samples, reading.total, estimate, g, spread, share)
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
        )

    def _choose(
        self,
        work: Work,
        samples: Samples,
        total: NDArray[np.float32],
        estimate: Estimate,
        g: NDArray[np.float64],
        spread: Spread,
        n_moves: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """New levels and the mask of at most `n_moves` cells to write."""
        host, sheet = work.host, work.bench.deployment.chip.datasheet
        assert host.levels is not None
        factor = cell_factors(g.shape[2])
        variance = spread.of(g)
        # the deviation of a pair belongs to its cells in proportion to their variances
        pair = np.maximum(variance.sum(axis=2), 1e-30)
        part = variance / pair[:, :, None]
        delta = estimate.weights - g @ factor if g.shape[2] == 2 else estimate.weights - samples.stored()
        shift = delta[:, :, None] * part * factor
        split = variance * (1.0 - part)
        sd = np.sqrt(variance)
        certain = np.clip(estimate.determined, 0.0, 1.0)[:, :, None]
        deviate = np.clip(shift / sd, -3.0, 3.0) * certain
        energy = max(float(np.diag(samples.gram).mean()), 1e-12)
        gram = samples.gram + self.ridge * energy * np.eye(len(samples.gram))
        slope = samples.slope(samples.target - total)
        slope += self.ridge * energy * (samples.ideal - estimate.weights)
        level_u = np.asarray(sheet.levels) / work.info.g_unit
        level_sd = np.sqrt(spread.of(level_u))
        allowed = work.bench.budget.writable(work.layer)
        n_moves = int(min(n_moves, work.bench.budget.cells_left))
        most = min(max(2, work.info.n_rows // 4), 4 + 4 * n_moves // work.info.n_cols)
        limit = np.full(work.info.n_cols, most, dtype=np.int64)

        def run(price: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
            levels, chosen = host.levels.astype(np.int64).copy(), np.zeros(g.shape)
            kernels.choose_moves(
                slope.copy(), gram, g + shift, split, deviate, factor, allowed, level_u, level_sd,
                self.carry, price / samples.importance, limit, levels, chosen,
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
