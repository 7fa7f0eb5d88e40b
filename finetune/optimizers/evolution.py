"""Evolution strategy by the `cmaes` package (extra `evolution`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.optimizers.base import Optimizer
from rramsim.checks import InputError
from rramsim.streams import Cause, key

__all__ = ["Evolution"]


class Evolution(Optimizer):
    """CMA-ES with full or diagonal covariance (`cmaes.CMA`, `cmaes.SepCMA`).

    Resuming replays the losses told so far, so that `state_dict` holds plain numbers only.
    The package (Nomura and Shibata, arXiv 2402.01373) is an optional dependency.

    Parameters
    ----------
    spread : float
        First standard deviation, in units of `scale`.
    population : int, optional
        Points per round; 4 + 3 ln n by default.
    diagonal : bool, optional
        Diagonal covariance; by default for more than 40 parameters.
    """

    def __init__(
        self,
        x: ArrayLike,
        *,
        spread: float = 0.05,
        population: int | None = None,
        diagonal: bool | None = None,
        seed: int = 0,
        keys: tuple[int, ...] = (),
        **settings: Any,
    ) -> None:
        super().__init__(x, **settings)
        if self.n_blocks > 1:
            raise InputError("the evolution strategy ranks whole points: blocks must be omitted")
        if self.n < 2:
            raise InputError(f"the evolution strategy needs at least 2 parameters, got {self.n}")
        self.spread, self.population, self.diagonal = float(spread), population, diagonal
        self._cmaes_seed = int(key(seed, Cause.TUNER, *keys)) % 2**31
        self._start = self.x.copy()
        self._told: list[NDArray[np.float64]] = []
        self._begin()

    def _begin(self) -> None:
        try:
            import cmaes
        except ImportError:
            raise InputError(
                "the evolution strategy needs the package cmaes: pip install rramsim[evolution]"
            ) from None
        diagonal = self.n > 40 if self.diagonal is None else self.diagonal
        kind: Any = cmaes.SepCMA if diagonal else cmaes.CMA
        self._engine = kind(
            mean=np.zeros(self.n), sigma=self.spread, seed=self._cmaes_seed, population_size=self.population
        )
        self._draw()

    def _draw(self) -> None:
        self._points = np.stack([self._engine.ask() for _ in range(self._engine.population_size)])

    @property
    def n_points(self) -> int:
        """The population."""
        return len(self._points)

    def ask(self) -> NDArray[np.float64]:
        return np.clip(self._start + self.scale * self._points, self.lower, self.upper)

    def _move(
        self, losses: NDArray[np.float64], floor: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], bool]:
        values = losses[:, 0]
        self._told.append(values.copy())
        self._learn(values)
        # the public interface has no mean: the weighted mean of the better half stands for it
        order = np.argsort(values, kind="stable")[: max(1, len(values) // 2)]
        weights = np.log(len(order) + 0.5) - np.log(np.arange(1, len(order) + 1))
        centre = (weights / weights.sum()) @ self._previous[order]
        with np.errstate(divide="ignore", invalid="ignore"):
            here = np.where(self.scale > 0, (self.x - self._start) / self.scale, 0.0)
        return centre - here, bool(np.ptp(values) > floor[0])

    def _learn(self, values: NDArray[np.float64]) -> None:
        self._previous = self._points
        self._engine.tell([(point, float(v)) for point, v in zip(self._points, values, strict=True)])
        self._draw()

    def state_dict(self) -> dict[str, Any]:
        told = np.stack(self._told) if self._told else np.zeros((0, self.n_points))
        return super().state_dict() | {"told": told}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._told = []
        self._begin()
        for values in np.asarray(state["told"]):
            self._told.append(values.copy())
            self._learn(values)
