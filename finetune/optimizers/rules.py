"""From a gradient estimate to a move of the parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError, nearest_name

__all__ = ["RULES", "Rule"]

RULES = ("sgd", "momentum", "sign", "adam")


class Rule:
    """Step ``x <- x - rate_k direction(g)`` with ``rate_k = rate / (1 + k / half_life)**power``.

    Parameters
    ----------
    kind : {"sgd", "momentum", "sign", "adam"}
        `direction` is g; the decaying average of g (bias-corrected); sign(g), the Manhattan rule
        that needs no size of the estimate; or Adam (Kingma and Ba, ICLR 2015).
    rate : float
        First step size.
    momentum, second : float
        Decay of the averages of g and of g**2.
    half_life, power : float
        Decay of the step; Spall's gain sequence (IEEE TAES 34, 1998) has power 0.602.
    """

    def __init__(
        self,
        kind: str = "sgd",
        *,
        rate: float = 0.1,
        momentum: float = 0.9,
        second: float = 0.99,
        half_life: float = np.inf,
        power: float = 0.602,
    ) -> None:
        if kind not in RULES:
            raise InputError(f"rule: unknown kind {kind!r}; {nearest_name(kind, RULES)}")
        if not rate > 0.0:
            raise InputError(f"rate must be > 0, got {rate:g}")
        self.kind, self.rate, self.momentum, self.second = kind, rate, momentum, second
        self.half_life, self.power = half_life, power
        self.count = 0
        self.first_moment: NDArray[np.float64] | None = None
        self.second_moment: NDArray[np.float64] | None = None

    def move(self, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
        """Change of the parameters for this estimate; advances the averages."""
        rate = self.rate / (1.0 + self.count / self.half_life) ** self.power
        self.count += 1
        if self.kind == "sgd":
            return -rate * gradient
        if self.kind == "sign":
            return -rate * np.sign(gradient)
        if self.first_moment is None or self.second_moment is None:
            self.first_moment = np.zeros_like(gradient)
            self.second_moment = np.zeros_like(gradient)
        self.first_moment = self.momentum * self.first_moment + (1.0 - self.momentum) * gradient
        mean = self.first_moment / (1.0 - self.momentum**self.count)
        if self.kind == "momentum":
            return -rate * mean
        self.second_moment = self.second * self.second_moment + (1.0 - self.second) * gradient**2
        spread = np.sqrt(self.second_moment / (1.0 - self.second**self.count))
        return -rate * mean / np.maximum(spread, 1e-12)

    def state_dict(self) -> dict[str, Any]:
        """What changes from step to step."""
        state: dict[str, Any] = {"count": self.count}
        if self.first_moment is not None and self.second_moment is not None:
            state |= {"first_moment": self.first_moment.copy(), "second_moment": self.second_moment.copy()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.count = int(state["count"])
        first, second = state.get("first_moment"), state.get("second_moment")
        self.first_moment = None if first is None else np.array(first)
        self.second_moment = None if second is None else np.array(second)
