"""Keep a chip accurate while reads disturb it, at few writes.

Reads move cells towards the end of their window by different amounts. What of it is common to a column is a
gain and an offset, free of writes; the rest has to be rewritten. `maintain` remembers what it
believes of every cell (`finetune.evidence.belief`), forecasts the drift since, compares with what the chip
answers, and rewrites the cells whose rewriting pays most per write: those known to be wrong, and
those whose state cannot be determined but which a reset writes almost exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.bench import Bench
from finetune.evidence.belief import CellBelief, fit_fresh
from finetune.evidence.choice import choose
from finetune.evidence.direction import rising_evidence
from finetune.evidence.identify import (
    NOISE_VECTORS,
    cell_factors,
    cell_unit,
    cell_zero,
    conductances,
    identify,
    learn,
    noise_variance,
)
from finetune.evidence.layer import Work
from finetune.evidence.samples import Samples, TileOutputs, sample_count, take_samples
from finetune.strategies.base import LayerStep, register
from rramsim.blackbox.codes import dac_codes
from rramsim.blackbox.protocol import ChipProtocol
from rramsim.checks import InputError

__all__ = ["Maintain"]

CLEAR_DIRECTION = 5.0  # log likelihood ratio from which outputs decide which way cells drift
GAINS = (0.5, 3.0)  # of a column, between which the host is trusted to restore it


@register("maintain")
class Maintain(LayerStep):
    """Forecast, identify, refresh: one visit to every layer.

    For differential mapping. Drift moves ``u`` (conductance in units of the window) by
    ``(1 - u)(1 - exp(-m a rate))`` on word lines of activity a (``-u ...`` where it falls); the
    factor m on the forecast is fitted to the outputs, then each cell by Bayesian ridge regression, and
    `finetune.evidence.choice.choose` spends writes where the expected fall of the distillation loss per write
    exceeds `price`. Follow it with lsq.affine (and an adapter), which take up what is common to a column.

    Parameters
    ----------
    rate : float
        Forecast of the mean exponent since the last visit at full activity; its size is corrected
        from the outputs, 0 means none (the first visit after tuning).
    rising : bool
        First guess of the direction: towards g_max, else towards g_min. Outputs decide as soon as they
        can (`finetune.evidence.direction`); `direction` of the history is their log likelihood ratio so far.
    spread : float
        Standard deviation of a cell's exponent over its mean (1.31 for ln-std 1).
    price : float
        Least fall of the loss that a write must promise, relative to the present loss and per share of
        all cells: 1 asks that writing x of all cells removes x of the loss.
    limit : float
        Most writes per cell of a layer and visit.
    passes : int
        Reads and rewrites of a layer.
    uniform : bool
        All word lines are stressed alike; else in proportion to their mean code.
    """

    name = "maintain"

    def __init__(
        self,
        *,
        rate: float = 0.05,
        rising: bool = True,
        spread: float = 1.31,
        price: float = 0.1,
        limit: float = 1.0,
        passes: int = 4,
        uniform: bool = False,
    ) -> None:
        if not (rate >= 0 and price >= 0 and limit >= 0):
            raise InputError(f"maintain: need rate, price and limit >= 0, got {rate:g}, {price:g}, {limit:g}")
        if passes < 1:
            raise InputError(f"maintain: passes must be >= 1, got {passes}")
        self.rate, self.rising, self.spread = rate, rising, spread
        self.price, self.limit, self.passes = price, limit, passes
        self.uniform = uniform
        self.beliefs: dict[str, CellBelief] = {}
        self.level_variances: dict[str, NDArray[np.float64]] = {}  # of a write to each level
        self.weights: dict[str, NDArray[np.float64]] = {}  # columns' sensitivity, found once
        self.n_written = 0
        self.direction = 0.0  # log likelihood ratio of rising conductance, over layers and visits

    def check_chip(self, chip: ChipProtocol) -> None:
        """Beliefs are about pairs."""
        if chip.datasheet.mapping != "differential":
            raise InputError(
                f"maintain: needs differential mapping, got {chip.datasheet.mapping!r}; "
                "lsq.rewrite + lsq.affine refreshes cells of any mapping"
            )

    def plan_layer(self, bench: Bench, layer: str, n_vectors: int) -> dict[str, float]:
        """Predicted costs, writes at their limit."""
        info = bench.deployment.chip.layers[layer]
        n_samples = sample_count(info.n_rows, n_vectors)
        return {
            "vectors": float(self.passes * n_samples + 2 * NOISE_VECTORS),
            "cell_writes": self.limit * info.n_cells,
        }

    # -- one layer ------------------------------------------------------------------------------

    def tune_layer(self, work: Work) -> None:
        """Visit the layer that `work` is about."""
        host = work.host
        if host.levels is None:
            raise InputError(f"maintain: layer {work.layer!r} was never written; begin with a tuned chip")
        samples = take_samples(work)
        reading = samples.read()
        belief, noise, reading = self._belief(work, samples, reading)
        fit_fresh(belief, samples, reading, noise)
        if work.layer not in self.weights:
            self.weights[work.layer] = work.sensitivity
        level_mean = np.asarray(work.sheet.levels) / cell_unit(work)
        level_variance = self.level_variances[work.layer]
        n_cells = work.info.n_cells
        left, written = int(self.limit * n_cells), 0
        start = error = least = 0.0
        for index in range(self.passes):
            if index:
                reading = samples.read()
            belief.update(identify(samples, reading, belief.weights, belief.weight_variance, noise))
            residual, gain = self._residual(work, samples, reading)
            value = self.weights[work.layer] * gain**2  # loss per squared error in normalised units
            error = float((np.square(residual).mean(axis=0) * value).sum())
            if index == 0:
                start, least = error, self.price * error / work.chip_cells
            levels, mask = choose(
                belief,
                host.levels,
                samples.gram,
                samples.slope(residual),
                level_mean,
                np.sqrt(level_variance),
                min(-(-left // 2), work.cells_left),
                importance=value,
                price=least,
                allowed=work.writable,
            )
            n = int(mask.sum())
            if not n:
                break
            work.write(levels, mask)
            belief.write(mask, level_mean[levels], level_variance[levels])
            left, written = left - n, written + n
        self.beliefs[work.layer] = belief
        self.n_written += written
        work.record(self.name, before=start, after=error, written=written, cells=n_cells,
            direction=self.direction)  # fmt: skip

    def _activity(self, work: Work, samples: Samples) -> NDArray[np.float64]:
        if self.uniform:
            return np.ones(work.info.n_rows)
        high = dac_codes(work.sheet.dac_bits, work.host.signed)[1]
        return np.abs(work.codes[samples.picks]).mean(axis=0, dtype=np.float64) / high

    def _belief(
        self, work: Work, samples: Samples, reading: TileOutputs
    ) -> tuple[CellBelief, NDArray[np.float64], TileOutputs]:
        """The remembered belief carried forward, or one from the written levels; see `learn` for the rest."""
        belief, levels = self.beliefs.get(work.layer), work.host.levels
        assert levels is not None
        if belief is None:
            spread, noise, reading = learn(work, samples, reading, 1.0)
            written = conductances(work)
            belief = CellBelief.written(
                written, spread.of(written), cell_factors(work.sheet, written.shape[2]), cell_zero(work)
            )
            self.level_variances[work.layer] = spread.of(np.asarray(work.sheet.levels) / cell_unit(work))
        else:
            noise = noise_variance(work, samples)
        if self.rate == 0.0:
            return belief, noise, reading
        activity = self._activity(work, samples)
        ends = work.sheet.levels[0] / cell_unit(work), work.sheet.levels[-1] / cell_unit(work)
        ahead = replace(belief)  # both directions shrink the weights of pairs alike
        ahead.drift(self.rate, activity, self.spread, ends[1])
        effect = samples.x @ (ahead.weights - belief.weights).astype(np.float32)
        seen = reading.total - samples.x @ belief.weights.astype(np.float32)
        # the drift's mean effect is found in the outputs with known shape and unknown size
        size = float(
            (effect * seen).sum(dtype=np.float64) / max(np.square(effect).sum(dtype=np.float64), 1e-300)
        )
        rate = self.rate * float(np.clip(size, 0.0, 10.0))
        if rate > 0.0:
            self.direction += rising_evidence(
                samples, reading, belief, noise, rate=rate, activity=activity, spread=self.spread, ends=ends
            )
        rising = self.direction > 0.0 if abs(self.direction) > CLEAR_DIRECTION else self.rising
        belief.drift(rate, activity, self.spread, ends[1 if rising else 0])
        return belief, noise, reading

    def _residual(
        self, work: Work, samples: Samples, reading: TileOutputs
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """What the outputs lack, given the best gain of each column, and that gain.

        Normalised outputs times `gain` are pre-activations.
        """
        nominal = (work.host.scale * work.host.x_step).astype(np.float32)
        wanted, outputs = samples.target, reading.total
        correction = work.host.correction(work.codes[samples.picks])
        if correction is not None:
            wanted = wanted - (correction - correction.mean(axis=0)) / nominal
        power = np.square(outputs).sum(axis=0, dtype=np.float64)
        gain = (outputs * wanted).sum(axis=0, dtype=np.float64) / np.maximum(power, 1e-300)
        gain = np.clip(gain, *GAINS)
        return wanted / gain.astype(np.float32) - outputs, gain * nominal

    # -- state ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Beliefs of all layers visited so far."""
        return {
            "n_written": self.n_written,
            "direction": self.direction,
            "beliefs": {layer: belief.state_dict() for layer, belief in self.beliefs.items()},
            "level_variances": {layer: value.copy() for layer, value in self.level_variances.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.n_written, self.direction = int(state["n_written"]), float(state["direction"])
        self.beliefs = {layer: CellBelief.from_state(entries) for layer, entries in state["beliefs"].items()}
        self.level_variances = {layer: np.array(value) for layer, value in state["level_variances"].items()}
