"""Coordinate-wise estimates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.optimizers.base import Optimizer
from finetune.optimizers.rules import Rule
from rramsim.checks import InputError
from rramsim.streams import Cause, stream

__all__ = ["Coordinate"]


class Coordinate(Optimizer):
    """Two-sided finite differences of single coordinates, a few at a time.

    ``g_i = [L(x + c e_i) - L(x - c e_i)] / (2 c)`` (the coordinate-wise estimate of DeepZero, Chen et
    al., ICLR 2024, arXiv 2310.02025). Round k takes the next `n_coordinates` of each block in a random
    order that is drawn anew for every sweep; coordinates not measured do not move. Coordinates
    of different blocks are perturbed in the same measurement.

    Parameters
    ----------
    perturbation : float
        c, in units of `scale`.
    n_coordinates : int
        Coordinates of each block measured in a round (2 points each).
    curvature : bool
        Measure x as well and move each coordinate to the minimum of its parabola, at most
        `reach` perturbations; otherwise move by `rule`.
    """

    def __init__(
        self,
        x: ArrayLike,
        *,
        perturbation: float = 0.01,
        n_coordinates: int = 1,
        curvature: bool = False,
        reach: float = 4.0,
        rule: Rule | None = None,
        seed: int = 0,
        keys: tuple[int, ...] = (),
        **settings: Any,
    ) -> None:
        super().__init__(x, **settings)
        if n_coordinates < 1:
            raise InputError(f"n_coordinates must be >= 1, got {n_coordinates}")
        self.perturbation, self.n_coordinates = float(perturbation), int(n_coordinates)
        self.curvature, self.reach = bool(curvature), float(reach)
        self.rule = rule if rule is not None else Rule()
        self.seed, self.keys = int(seed), tuple(keys)
        self._members = [np.flatnonzero(self.blocks == b) for b in range(self.n_blocks)]
        self._sweep = max(len(m) for m in self._members)  # coordinates of the largest block

    @property
    def n_points(self) -> int:
        """A pair for each coordinate, and the present estimate where curvature is measured."""
        return 2 * self.n_coordinates + self.curvature

    def _chosen(self) -> list[NDArray[np.int64]]:
        """For each of the round's measurements the coordinates perturbed: at most one per block."""
        groups = []
        for k in range(self.n_coordinates):
            sweep, position = divmod(self.step * self.n_coordinates + k, self._sweep)
            rng = stream(self.seed, Cause.TUNER, *self.keys, sweep)
            picks = []
            for members in self._members:
                order = rng.permutation(members)
                if position < len(order):
                    picks.append(order[position])
            groups.append(np.array(picks))
        return groups

    def _offsets(self) -> NDArray[np.float64]:
        offsets = np.zeros((self.n_points, self.n))
        for k, chosen in enumerate(self._chosen()):
            offsets[2 * k, chosen], offsets[2 * k + 1, chosen] = self.perturbation, -self.perturbation
        return offsets

    def _move(
        self, losses: NDArray[np.float64], floor: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], bool]:
        gradient, heard, c = np.zeros(self.n), False, self.perturbation
        moves = np.zeros(self.n)
        for k, chosen in enumerate(self._chosen()):
            block = self.blocks[chosen]
            plus, minus = losses[2 * k, block], losses[2 * k + 1, block]
            difference = plus - minus
            audible = np.abs(difference) > floor[block]
            heard |= bool(audible.any())
            difference = np.where(audible, difference, 0.0)
            gradient[chosen] = difference / (2.0 * c)
            if self.curvature:
                bend = plus - 2.0 * losses[-1, block] + minus
                with np.errstate(divide="ignore", invalid="ignore"):
                    length = np.where(bend > 0.0, -0.5 * difference / bend, -np.sign(difference) * self.reach)
                moves[chosen] = c * np.clip(np.nan_to_num(length), -self.reach, self.reach)
        return (moves if self.curvature else self.rule.move(gradient)), heard

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"rule": self.rule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.rule.load_state_dict(state["rule"])
