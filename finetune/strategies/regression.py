"""The literal least-squares forms: weights fitted once before writing, and rewritten in closed loop."""

from __future__ import annotations

import numpy as np

from finetune.bench import Bench
from finetune.evidence.layer import Work
from finetune.evidence.samples import sample_count, take_samples
from finetune.strategies.base import LayerStep, first_writes, register
from finetune.strategies.sequential import check_rounding, nearest_pairs, representable, round_block
from rramsim.blackbox.protocol import ChipProtocol
from rramsim.checks import InputError

__all__ = ["ClosedLoop", "OpenLoop"]


@register("lsq.open_loop")
class OpenLoop(LayerStep):
    """Fit the weights to the inputs the chip really sees, write them once, look at no output.

    ``W = D + (X'X + lambda I)^-1 X'(T - X D)``, rounded to levels row by row with the rounding error
    spread over later rows. Corrects what earlier layers did to the inputs, not this layer's own errors.

    Parameters
    ----------
    ridge : float
        lambda over the mean diagonal of X'X.
    """

    name = "lsq.open_loop"
    from_reset = True

    def __init__(self, *, ridge: float = 0.05) -> None:
        if not ridge > 0:
            raise InputError(f"lsq.open_loop: ridge must be > 0, got {ridge:g}")
        self.ridge = ridge

    def check_chip(self, chip: ChipProtocol) -> None:
        """Weights are rounded to a table of values."""
        check_rounding(chip)

    def plan_layer(self, bench: Bench, layer: str, n_vectors: int) -> dict[str, float]:
        """One programming, no read."""
        return {"vectors": 0.0, "cell_writes": 1.06 * first_writes(bench, layer)}

    def tune_layer(self, work: Work) -> None:
        """Fit, round, write."""
        samples, sheet = take_samples(work), work.sheet
        energy = max(float(np.diag(samples.gram).mean()), 1e-12)
        damped = samples.gram + self.ridge * energy * np.eye(work.info.n_rows)
        slope = samples.slope(samples.target) - samples.gram @ samples.ideal
        n_cells = work.info.cells_per_weight
        bounds = representable(sheet, n_cells)[[0, -1]]
        wanted = np.clip(samples.ideal + np.linalg.solve(damped, slope), *bounds)
        work.write(round_block(wanted, damped, work.info.n_rows, sheet, n_cells))


@register("lsq.closed_loop")
class ClosedLoop(LayerStep):
    """Ridge rewriting of every weight, read and repeated.

    ``W <- W + (X'X + lambda I)^-1 X'(T - Y)``, W the weights asked for so far. Every cell whose level
    changes is written and draws a new error, which is why this loop does not converge: it is
    here as the plain form that the selective one is compared with.

    Parameters
    ----------
    rounds : int
    ridge : float
        lambda over the mean diagonal of X'X.
    threshold : float
        Changes of a weight below this many level steps are not written.
    """

    name = "lsq.closed_loop"

    def __init__(self, *, rounds: int = 3, ridge: float = 0.05, threshold: float = 0.5) -> None:
        if rounds < 1:
            raise InputError(f"lsq.closed_loop: rounds must be >= 1, got {rounds}")
        self.rounds = rounds
        self.ridge = ridge
        self.threshold = threshold

    def check_chip(self, chip: ChipProtocol) -> None:
        """Weights are rounded to a table of values."""
        check_rounding(chip)

    def plan_layer(self, bench: Bench, layer: str, n_vectors: int) -> dict[str, float]:
        """A read a round; most of the programmed cells change level each time."""
        n_samples = sample_count(bench.deployment.chip.layers[layer].n_rows, n_vectors)
        return {
            "vectors": self.rounds * n_samples,
            "cell_writes": 0.8 * self.rounds * first_writes(bench, layer),
        }

    def tune_layer(self, work: Work) -> None:
        """All rounds of one layer."""
        samples, sheet = take_samples(work), work.sheet
        if work.host.levels is None:
            work.write(work.nearest_levels)
        energy = max(float(np.diag(samples.gram).mean()), 1e-12)
        damped = samples.gram + self.ridge * energy * np.eye(work.info.n_rows)
        table = representable(sheet, work.info.cells_per_weight)
        wanted = samples.stored()
        for _ in range(self.rounds):
            total = samples.read().total
            step = np.linalg.solve(damped, samples.slope(samples.target - total))
            step = np.where(np.abs(step) < self.threshold * np.diff(table).mean(), 0.0, step)
            wanted = np.clip(wanted + step, table[0], table[-1])
            nearest = table[np.searchsorted((table[1:] + table[:-1]) / 2, wanted)]
            levels = nearest_pairs(nearest, sheet, work.info.cells_per_weight)
            mask = (levels != work.host.levels) & (step != 0.0)[:, :, None]
            if not mask.any():
                break
            work.write(levels, mask & work.writable)
            work.record(self.name, error=samples.error(total), written=float(mask.mean()))
