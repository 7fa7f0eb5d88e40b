"""Zeroth order inside one layer: losses measured at its own outputs, column by column.

The teacher gives the target of each column, so each column has a loss of its own, and one
perturbation of all columns at once, read once, tests every column. With K parameters per column a
direction costs three reads whatever the number of columns. Nothing is solved in closed form and
no output code is used twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.bench import Bench
from finetune.evidence.layer import Work
from finetune.optimizers import Optimizer, make_optimizer
from finetune.strategies.base import LayerStep, register
from rramsim.blackbox.protocol import Reading
from rramsim.checks import InputError, nearest_name
from rramsim.streams import text_key

__all__ = ["LocalLevels", "LocalRange", "LocalZerothOrder", "leading_directions"]


MIN_SHARE = 0.2  # columns with fewer unsaturated samples use all of them, as lsq.affine does


def leading_directions(codes: NDArray[np.float32], rank: int) -> NDArray[np.float64]:
    """Leading principal directions of inputs, shape (n_rows, rank); projections have variance 1."""
    centred = codes.astype(np.float64) - codes.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    rank = min(rank, int((values > 1e-9 * max(values.max(), 1e-300)).sum()))
    order = np.argsort(values)[::-1][:rank]
    return vectors[:, order] / np.sqrt(values[order])


def _subset(n_vectors: int, limit: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if n_vectors <= limit:
        return np.arange(n_vectors)
    return np.sort(rng.choice(n_vectors, limit, replace=False))


@register("zo.local")
class LocalZerothOrder(LayerStep):
    """Column-wise zeroth order on gain, offset and, with rank > 0, a digital adapter.

    Column j of a layer minimises ``mean (z_j - t_j)**2 / var t_j`` over ``z_j = a_j y_j + b_j + c_j' P' x``,
    y the chip's output, P the leading principal directions of the inputs (found digitally from the
    codes the host itself sends). Every loss is read from the chip.

    Parameters
    ----------
    rounds : int
        Directions per layer (three reads each with "line", two with "spsa").
    rank : int
        Columns of P; 0 acts on gain and offset alone.
    vectors : int
        Inputs per read, the same for all points of a round, other ones in each round.
    method : {"line", "spsa", "coordinate"}
    rule, rate : of "spsa" and "coordinate".
    perturbation : float
        Size of a test, in standard deviations of the column's output.
    """

    name = "zo.local"

    def __init__(
        self,
        *,
        rounds: int = 40,
        rank: int = 0,
        vectors: int = 4096,
        method: str = "line",
        rule: str = "sgd",
        rate: float = 0.1,
        perturbation: float = 0.2,
    ) -> None:
        known = ("line", "spsa", "coordinate")
        if method not in known:
            raise InputError(f"zo.local: method: unknown name {method!r}; {nearest_name(method, known)}")
        if rounds < 1 or rank < 0 or vectors < 2:
            raise InputError(
                f"zo.local: need rounds >= 1, rank >= 0, vectors >= 2, got {rounds}, {rank}, {vectors}"
            )
        self.rounds, self.rank, self.vectors = rounds, rank, vectors
        self.method, self.rule, self.rate, self.perturbation = method, rule, rate, perturbation

    def plan_layer(self, bench: Bench, layer: str, n_vectors: int) -> dict[str, float]:
        """Predicted costs."""
        n_cols = bench.deployment.chip.layers[layer].n_cols
        points = self._optimizer(n_cols, 2 + self.rank, bench.seed, layer).points_in(self.rounds)
        return {"vectors": float(min(1000, n_vectors) + points * min(self.vectors, n_vectors))}

    def _optimizer(self, n_cols: int, n_entries: int, seed: int, layer: str) -> Optimizer:
        """At 0, with `n_entries` numbers for each column, which is a block of its own."""
        settings: dict[str, Any] = {"perturbation": self.perturbation}
        if self.method != "line":
            settings |= {"rule": self.rule, "rate": self.rate}
        blocks = np.repeat(np.arange(n_cols), n_entries)
        return make_optimizer(
            self.method, np.zeros(blocks.size), blocks=blocks, seed=seed, keys=(text_key(layer),), **settings
        )

    def tune_layer(self, work: Work) -> None:
        """Tune the layer that `work` is about."""
        layer, codes, target = work.layer, work.codes, work.target
        host, rng = work.host, work.rng("zo.local")
        spread, n_cols = work.column_spread, host.gain.size
        gain, offset = host.gain.copy(), host.offset.copy()
        size = target.std(axis=0).astype(np.float64) + 1e-30
        n_inner = 0
        if self.rank and host.down is None:
            sample = codes[_subset(len(codes), 20_000, rng)].astype(np.float32)
            directions = leading_directions(sample, self.rank)
            middle = codes.mean(axis=0, dtype=np.float64) @ directions
            n_inner = directions.shape[1]
            # x = codes * x_step, so down is divided by the step once
            host.down = directions / host.x_step
        some = _subset(len(codes), 1000, rng)
        first = gain * work.nominal(codes[some], work.read(some).codes).mean(axis=0)

        def apply(theta: NDArray[np.float64]) -> None:
            """Entries (n_cols, 2 + n_inner): gain, offset, adapter, each in standard deviations of output."""
            entries = theta.reshape(n_cols, 2 + n_inner) * spread[:, None]
            share = entries[:, 0] / size  # relative change of the gain
            host.gain = gain * (1.0 + share)
            # a change of gain or adapter turns about the mean, so that entries act independently
            host.offset = offset + entries[:, 1] - share * first
            if n_inner:
                host.up = entries[:, 2:].T.copy()
                host.offset = host.offset - entries[:, 2:] @ middle

        optimizer = self._optimizer(n_cols, 2 + n_inner, work.seed, layer)
        variance = np.square(spread)
        loss = np.zeros(n_cols)
        try:
            for index in range(self.rounds):
                chosen = _subset(len(codes), self.vectors, rng)
                wanted, losses = target[chosen], []
                for point in optimizer.ask():
                    apply(point)
                    got = work.finish(codes[chosen], work.read(chosen).codes)
                    losses.append(np.square(got - wanted).mean(axis=0, dtype=np.float64) / variance)
                loss = losses[0]
                if index == 0:
                    work.record("zo.local", loss=float(loss.mean()))
                optimizer.tell(np.stack(losses))
        finally:
            apply(optimizer.x)  # never leave a test point behind, not even when the budget ends
        work.record("zo.local", loss=float(loss.mean()))


@register("zo.range")
class LocalRange(LayerStep):
    """ADC range of each layer by parabolas through measured errors of its outputs.

    Clipping against rounding has no closed form on a chip whose currents are unknown. Three ranges are
    tried on the same inputs; the loss is the error, over the target's variance, that lsq.affine would
    leave in each column (fitted to unsaturated samples, counted on all), so that it does not matter
    whether that step comes before or after. The gain per ampere stays what it was.

    Parameters
    ----------
    rounds : int
        Three reads each.
    vectors : int
        Inputs per read.
    perturbation : float
        Size of a test, as the logarithm of the range.
    """

    name = "zo.range"

    def __init__(self, *, rounds: int = 4, vectors: int = 4096, perturbation: float = 0.12) -> None:
        if rounds < 1 or not perturbation > 0.0:
            raise InputError(
                f"zo.range: need rounds >= 1 and perturbation > 0, got {rounds} and {perturbation:g}"
            )
        self.rounds, self.vectors, self.perturbation = rounds, vectors, perturbation

    def plan_layer(self, bench: Bench, layer: str, n_vectors: int) -> dict[str, float]:
        """Predicted costs."""
        return {"vectors": float(3 * self.rounds * min(self.vectors, n_vectors))}

    def tune_layer(self, work: Work) -> None:
        """Tune the layer that `work` is about."""
        codes, host, rng = work.codes, work.host, work.rng("zo.range")
        weight = np.square(work.column_spread)
        weight = weight > 1e-6 * weight.max()
        optimizer = make_optimizer(
            "line", np.zeros(1), perturbation=self.perturbation, reach=2.0, kind="rademacher", seed=work.seed
        )
        unit, full_scale = host.unit.copy(), host.output_range

        def apply(log_factor: float) -> None:
            work.set_output_range(full_scale * float(np.exp(log_factor)), unit * np.exp(log_factor))

        tried: dict[float, list[float]] = {}
        best = 0.0
        try:
            for _ in range(self.rounds):
                chosen = _subset(len(codes), self.vectors, rng)
                target = work.target[chosen].astype(np.float64)
                correction = host.correction(codes[chosen])
                if correction is not None:
                    target -= correction
                losses = []
                points = optimizer.ask()[:, 0]
                for point in points:
                    apply(float(point))
                    left = _left_by_affine(work.read(chosen), target)
                    losses.append(float(left[weight].mean()))
                    tried.setdefault(round(float(point), 6), []).append(losses[-1])
                optimizer.tell(np.array(losses))
                best = min(tried, key=lambda point: float(np.mean(tried[point])))
        finally:
            apply(best)
        work.record("zo.range", loss=float(np.mean(tried[best])), log_factor=best)


def _left_by_affine(reading: Reading, target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean squared error of each column over its target's variance, after the best gain and offset."""
    keep = ~reading.saturated
    keep[:, keep.mean(axis=0) < MIN_SHARE] = True
    n = keep.sum(axis=0)
    y = reading.codes - (reading.codes * keep).sum(axis=0) / n
    t = target - (target * keep).sum(axis=0) / n
    gain = (y * t * keep).sum(axis=0) / np.maximum((np.square(y) * keep).sum(axis=0), 1e-300)
    variance = np.maximum(target.var(axis=0), 1e-300)
    return np.square(t - gain * y).mean(axis=0) / variance


@register("zo.levels")
class LocalLevels(LayerStep):
    """Level targets by trial: one cell of every column is rewritten, and kept where the column's error fell.

    Cells are drawn in proportion to how much their input carries. A change that did not help is
    written back, which is another write with another error: both are counted, and what stays is
    what was measured last.

    Parameters
    ----------
    trials : int
        Cells tried in each column.
    span : int
        Largest change of level in a trial.
    floor : float
        A gain must exceed this many standard errors of the paired difference.
    """

    name = "zo.levels"

    def __init__(self, *, trials: int = 20, span: int = 3, vectors: int = 2048, floor: float = 2.0) -> None:
        if trials < 1 or span < 1:
            raise InputError(f"zo.levels: need trials >= 1 and span >= 1, got {trials} and {span}")
        self.trials, self.span, self.vectors, self.floor = trials, span, vectors, floor

    def plan_layer(self, bench: Bench, layer: str, n_vectors: int) -> dict[str, float]:
        """Predicted costs: cells of every second trial are written back, some in every trial."""
        writes = 1.5 * self.trials * bench.deployment.layers[layer].gain.size
        return {"vectors": (1.0 + 2.0 * self.trials) * min(self.vectors, n_vectors), "cell_writes": writes}

    def tune_layer(self, work: Work) -> None:
        """Tune the layer that `work` is about."""
        layer, codes, target, host = work.layer, work.codes, work.target, work.host
        if host.levels is None:
            raise InputError(f"zo.levels: layer {layer!r} was never written; begin with a mapped chip")
        rng = work.rng("zo.levels")
        chosen = _subset(len(codes), self.vectors, rng)
        inputs, wanted = codes[chosen], target[chosen]
        energy = np.square(inputs.astype(np.float64)).mean(axis=0)
        n_rows, n_cols, n_cells = host.levels.shape
        top = work.sheet.n_levels - 1
        columns = np.arange(n_cols)

        def errors() -> NDArray[np.float32]:
            got = work.finish(inputs, work.read(chosen).codes)
            return np.square(got - wanted)

        present = errors()
        start = float(present.mean())
        for _ in range(self.trials):
            rows = rng.choice(n_rows, n_cols, p=energy / energy.sum())
            cells = rng.integers(0, n_cells, n_cols)
            step = rng.integers(1, self.span + 1, n_cols) * rng.choice([-1, 1], n_cols)
            old = host.levels.copy()
            new = old.copy()
            new[rows, columns, cells] = np.clip(old[rows, columns, cells] + step, 0, top)
            mask = new != old
            work.write(new, mask)
            after = errors()
            difference = (after - present).astype(np.float64)
            standard = difference.std(axis=0) / np.sqrt(len(difference))
            worse = difference.mean(axis=0) > -self.floor * standard
            back = mask & worse[None, :, None]
            if back.any():
                work.write(np.where(back, old, new), back)
                present = errors()
            else:
                present = after
        work.record("zo.levels", before=start, after=float(present.mean()))
