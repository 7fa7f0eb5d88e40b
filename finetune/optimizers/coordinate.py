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

WORSE = 1.5  # ratio of losses that counts as worse; curvature differs from coordinate to coordinate


class Coordinate(Optimizer):
    """Two-sided finite differences of single coordinates, a few at a time.

    ``g_i = [L(x + c e_i) - L(x - c e_i)] / (2 c)`` (the coordinate-wise estimate of DeepZero, Chen et
    al., ICLR 2024, arXiv 2310.02025). Round k takes the next `n_coordinates` of each block in a random
    order that is drawn anew for every sweep; coordinates not measured do not move. Coordinates
    of different blocks are perturbed in the same measurement.

    A step by `rule` that makes the loss of its block worse is taken back, and the steps of that block are
    halved from then on: the mean of a round's pairs, which is the loss at x but for curvature, must not
    exceed that of the round before the step by more than half and the noise floor.

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
        self._level = np.full(self.n_blocks, np.inf)  # loss of each block before its last step
        self._shrink = np.ones(self.n_blocks)  # of each block's steps, halved when one is taken back
        self._last = np.zeros(self.n)  # that step, in units of `scale`
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
        level, count = np.zeros((2, self.n_blocks))
        moves = np.zeros(self.n)
        for k, chosen in enumerate(self._chosen()):
            block = self.blocks[chosen]
            plus, minus = losses[2 * k, block], losses[2 * k + 1, block]
            level[block] += 0.5 * (plus + minus)
            count[block] += 1.0
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
        if self.curvature:
            return moves, heard
        return self._guarded(self.rule.move(gradient), level, count, floor), heard

    def _guarded(
        self,
        move: NDArray[np.float64],
        level: NDArray[np.float64],
        count: NDArray[np.float64],
        floor: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """The move, or for blocks whose last one made things worse the way back."""
        seen = count > 0.0  # small blocks have no coordinate left in some rounds
        level = np.where(seen, level / np.maximum(count, 1.0), self._level)
        worse = seen & (level > WORSE * self._level + floor)
        self._shrink[worse] *= 0.5
        self._level = np.where(worse, self._level, np.minimum(level, self._level))
        step = np.where(worse[self.blocks], -self._last, self._shrink[self.blocks] * move)
        self._last = np.where(worse[self.blocks], 0.0, step)
        return step

    def state_dict(self) -> dict[str, Any]:
        guard = {"level": self._level.copy(), "shrink": self._shrink.copy(), "last": self._last.copy()}
        return super().state_dict() | {"rule": self.rule.state_dict()} | guard

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.rule.load_state_dict(state["rule"])
        self._level, self._shrink, self._last = (np.array(state[k]) for k in ("level", "shrink", "last"))
