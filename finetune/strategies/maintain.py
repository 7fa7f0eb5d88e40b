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
from finetune.evidence.belief import CellBelief, choose_writes, observe, programming_variance
from finetune.evidence.layer import Work
from finetune.strategies.base import LayerStep, register
from rramsim.blackbox.codes import adc_code_max, dac_codes
from rramsim.blackbox.protocol import ChipProtocol
from rramsim.checks import InputError

__all__ = ["Maintain"]

PER_ROW = 12  # vectors per row of a layer that identification uses, at least LEAST
LEAST = 4096


@register("maintain")
class Maintain(LayerStep):
    """Forecast, identify, refresh: one visit to every layer.

    For differential mapping. Drift moves ``u`` (conductance in units of the window) by
    ``(1 - u)(1 - exp(-m a rate))`` on word lines of activity a (``-u ...`` where it falls); the
    factor m on the forecast is fitted to the outputs, then each cell by Bayesian ridge regression, and
    `choose_writes` spends writes where the expected fall of the distillation loss per write
    exceeds `price`. Follow it with lsq.affine (and an adapter), which take up what is common to a column.

    Parameters
    ----------
    rate : float
        Forecast of the mean exponent since the last visit at full activity; its size is corrected
        from the outputs, 0 means none (the first visit after tuning).
    rising : bool
        Drift towards g_max, else towards g_min.
    spread : float
        Standard deviation of a cell's exponent over its mean (1.31 for ln-std 1).
    price : float
        Least fall of the loss that a write must promise, relative to the present loss and per share of
        all cells: 1 asks that writing x of all cells removes x of the loss.
    limit : float
        Most writes per cell of a layer and visit.
    passes : int
        Reads and rewrites of a layer.
    sigma : float
        First guess of the relative programming error; corrected from the outputs.
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
        sigma: float = 0.3,
        uniform: bool = False,
    ) -> None:
        if not (rate >= 0 and price >= 0 and limit >= 0 and sigma > 0):
            raise InputError(
                "maintain: need rate, price, limit >= 0 and sigma > 0, "
                f"got {rate:g}, {price:g}, {limit:g}, {sigma:g}"
            )
        if passes < 1:
            raise InputError(f"maintain: passes must be >= 1, got {passes}")
        self.rate, self.rising, self.spread = rate, rising, spread
        self.price, self.limit, self.passes, self.sigma = price, limit, passes, sigma
        self.uniform = uniform
        self.beliefs: dict[str, CellBelief] = {}
        self.weights: dict[str, NDArray[np.float64]] = {}  # columns' sensitivity, found once
        self.n_written = 0

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
        n_picks = min(n_vectors, max(LEAST, PER_ROW * info.n_rows))
        return {"vectors": float(self.passes * n_picks), "cell_writes": self.limit * info.n_cells}

    # -- one layer ------------------------------------------------------------------------------

    def tune_layer(self, work: Work) -> None:
        """Visit the layer that `work` is about."""
        host = work.host
        if host.levels is None:
            raise InputError(f"maintain: layer {work.layer!r} was never written; begin with a tuned chip")
        picks = work.sample(max(LEAST, PER_ROW * work.info.n_rows))
        x = work.codes[picks].astype(np.float32)
        x_mean = x.mean(axis=0)
        hessian = (x - x_mean).T @ (x - x_mean) / np.float32(len(x))
        noise = self._noise(work)

        y = self._read(work, picks)
        belief = self._forecast(work, x, y, noise)
        observe(belief, x, y, noise)
        if work.layer not in self.weights:
            self.weights[work.layer] = work.sensitivity
        weight = self.weights[work.layer]
        n_cells = work.info.n_cells
        total = work.chip_cells
        left = int(self.limit * n_cells)
        written = 0
        start = error = 0.0
        for index in range(self.passes):
            if index:  # what was just written shows in the slope; identifying it anew would cost more
                y = self._read(work, picks)
            target, gain = self._target(work, picks, y)
            residual = target - (y - y.mean(axis=0))
            value = weight * gain**2  # loss per squared error in normalised units
            error = float((np.square(residual).mean(axis=0) * value).sum())
            if index == 0:
                start = error
                least = self.price * start * n_cells / total / max(n_cells, 1)
            slope = (x - x_mean).T @ residual / np.float32(len(x))
            limit = int(min(-(-left // 2), work.cells_left))
            proposal = choose_writes(
                belief,
                host.levels,
                hessian.astype(np.float64),
                slope.astype(np.float64),
                limit=limit,
                per_column=max(1, -(-limit * 3 // work.info.n_cols)),
                column_weight=value,
                price=least,
            )
            n = int(proposal.mask.sum())
            if not n:
                break
            work.write(proposal.levels, proposal.mask)
            belief.write(proposal.levels, proposal.mask)
            left -= n
            written += n
        self.beliefs[work.layer] = belief
        self.n_written += written
        work.record(self.name, before=start, after=error, written=written, cells=n_cells)

    def _noise(self, work: Work) -> float:
        """Variance of a normalised output: rounding and noise of each row tile's conversion."""
        sheet = work.sheet
        lsb = sheet.adc_noise * adc_code_max(sheet.adc_bits) / adc_code_max(8)
        return float((1.0 / 12.0 + lsb**2) * len(work.info.row_tiles) * np.square(work.unit).mean())

    def _read(self, work: Work, picks: NDArray[np.int64]) -> NDArray[np.float32]:
        """Normalised outputs of the picked vectors."""
        return (work.read(picks).codes * work.unit).astype(np.float32)

    def _activity(self, work: Work, x: NDArray[np.float32]) -> NDArray[np.float64]:
        if self.uniform:
            return np.ones(x.shape[1])
        high = dac_codes(work.sheet.dac_bits, work.host.signed)[1]
        return np.abs(x).mean(axis=0).astype(np.float64) / high

    def _forecast(
        self, work: Work, x: NDArray[np.float32], y: NDArray[np.float32], noise: float
    ) -> CellBelief:
        """The remembered belief carried forward, or one from the written levels."""
        belief = self.beliefs.get(work.layer)
        if belief is None:
            belief = self._first_belief(work, x, y, noise)
        if self.rate == 0.0:
            return belief
        activity = self._activity(work, x)
        ahead = replace(belief)
        ahead.drift(self.rate, activity, self.spread, self.rising)
        effect = x @ (ahead.weights - belief.weights).astype(np.float32)
        seen = y - x @ belief.weights.astype(np.float32)
        # the drift's mean effect is found in the outputs with known shape and unknown size
        size = float(
            (effect * seen).sum(dtype=np.float64) / max(np.square(effect).sum(dtype=np.float64), 1e-300)
        )
        belief.drift(self.rate * float(np.clip(size, 0.0, 10.0)), activity, self.spread, self.rising)
        return belief

    def _first_belief(
        self, work: Work, x: NDArray[np.float32], y: NDArray[np.float32], noise: float
    ) -> CellBelief:
        """From the written levels; relative and absolute programming errors from the columns' residuals."""
        sheet, levels = work.sheet, work.host.levels
        assert levels is not None
        window = np.asarray(sheet.levels)
        means = (window - window[0]) / (window[-1] - window[0])
        relative = programming_variance(means, sheet.on_off_ratio, 1.0, 0.0)
        power = np.square(x.astype(np.float64)).mean(axis=0)
        nominal = means[levels]
        residual = y - x @ (nominal[:, :, 0] - nominal[:, :, 1]).astype(np.float32)
        energy = np.maximum(np.square(residual).mean(axis=0, dtype=np.float64) - noise, 0.0)
        shapes = np.stack(
            [power @ relative[levels].sum(axis=2), np.full(energy.size, 2.0 * power.sum())], axis=1
        )
        # columns weigh alike once divided by their expected size
        if sheet.error_law == "lognormal":
            shapes[:, 1] = 0.0
        amounts = _non_negative(shapes / shapes[:, :1], energy / np.maximum(shapes[:, 0], 1e-300))
        if not amounts.any():
            amounts = np.array([self.sigma**2, 0.0])
        return CellBelief.written(levels, means, amounts[0] * relative + amounts[1])

    def _target(
        self, work: Work, picks: NDArray[np.int64], y: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Centred outputs wanted of the cells, given the best gain of each column, and that gain.

        Normalised outputs times `gain` are pre-activations.
        """
        z = work.target[picks].astype(np.float64)
        correction = work.host.correction(work.codes[picks])
        if correction is not None:
            z = z - correction
        z -= z.mean(axis=0)
        centred = y - y.mean(axis=0)
        power = np.square(centred).sum(axis=0, dtype=np.float64)
        nominal = work.host.scale * work.host.x_step
        gain = (centred * z).sum(axis=0) / np.maximum(power, 1e-300)
        gain = np.clip(gain, 0.5 * nominal, 3.0 * nominal)
        return (z / gain).astype(np.float32), gain

    # -- state ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Beliefs of all layers visited so far."""
        return {
            "n_written": self.n_written,
            "beliefs": {
                layer: {key: value.copy() for key, value in vars(belief).items()}
                for layer, belief in self.beliefs.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.n_written = int(state["n_written"])
        self.beliefs = {
            layer: CellBelief(**{key: np.array(value) for key, value in entries.items()})
            for layer, entries in state["beliefs"].items()
        }


def _non_negative(columns: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Least squares in two unknowns that must not be negative."""
    both, *_ = np.linalg.lstsq(columns, values, rcond=None)
    if (both >= 0.0).all():
        return both
    singles = []
    for k in range(2):
        amount = max(columns[:, k] @ values / max(columns[:, k] @ columns[:, k], 1e-300), 0.0)
        single = np.zeros(2)
        single[k] = amount
        singles.append((np.square(values - columns @ single).sum(), k, single))
    return min(singles)[2]
