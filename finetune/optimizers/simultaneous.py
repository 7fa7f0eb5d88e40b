"""Methods that perturb all parameters at once: SPSA/RGE, with variance reduction, and line search."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.optimizers.base import Optimizer
from finetune.optimizers.directions import Directions
from finetune.optimizers.rules import Rule
from rramsim.checks import InputError

__all__ = ["RandomLine", "Spsa", "VarianceReduced"]


class Spsa(Optimizer):
    """Two-sided simultaneous perturbation, averaged over directions.

    ``g = mean_k [L(x + c u_k) - L(x - c u_k)] / (2 c) u_k``: SPSA with signs +-1 (Spall, IEEE TAC 37,
    1992), the random gradient estimate RGE with normal directions (Nesterov and Spokoiny 2017), MeZO
    by seed replay. With `blocks` the difference is taken per block, so one pair of measurements
    gives every column its own estimate. A difference below the noise floor counts as zero.

    Parameters
    ----------
    perturbation : float
        c, in units of `scale`.
    n_directions : int
        Directions averaged in a round (2 points each).
    kind : str
        See `Directions`.
    rule : Rule
        How to move by the estimate.
    """

    def __init__(
        self,
        x: ArrayLike,
        *,
        perturbation: float = 0.01,
        n_directions: int = 1,
        kind: str = "rademacher",
        rule: Rule | None = None,
        seed: int = 0,
        keys: tuple[int, ...] = (),
        **settings: Any,
    ) -> None:
        super().__init__(x, **settings)
        if not perturbation > 0.0:
            raise InputError(f"perturbation must be > 0, got {perturbation:g}")
        if n_directions < 1:
            raise InputError(f"n_directions must be >= 1, got {n_directions}")
        self.perturbation, self.n_directions = float(perturbation), int(n_directions)
        self.directions = Directions(self.n, kind, seed=seed, keys=keys)
        self.rule = rule if rule is not None else Rule()

    @property
    def n_points(self) -> int:
        """A pair for each direction."""
        return 2 * self.n_directions

    def _signs(self) -> NDArray[np.float64]:
        return np.stack([self.directions.draw(self.step, k) for k in range(self.n_directions)])

    def _offsets(self) -> NDArray[np.float64]:
        u = self.perturbation * self._signs()
        return np.stack([u, -u], axis=1).reshape(self.n_points, self.n)

    def estimate(
        self, losses: NDArray[np.float64], floor: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], bool]:
        """Gradient with respect to x / scale, shape (n,), and whether anything was heard."""
        difference = losses[0::2] - losses[1::2]
        audible = np.abs(difference) > floor
        slopes = np.where(audible, difference, 0.0) / (2.0 * self.perturbation)
        return (slopes[:, self.blocks] * self._signs()).mean(axis=0), bool(audible.any())

    def _move(
        self, losses: NDArray[np.float64], floor: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], bool]:
        gradient, heard = self.estimate(losses, floor)
        return self.rule.move(gradient), heard

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"rule": self.rule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.rule.load_state_dict(state["rule"])


class VarianceReduced(Optimizer):
    """Zeroth-order SVRG: a careful estimate at an anchor, cheap corrections in between.

    ``g = s_k(x) - s_k(anchor) + g_anchor``, where s_k is the two-sided estimate along one direction
    measured at both places with the same images, and g_anchor the mean over `n_anchor` directions,
    renewed every `period` rounds (Liu et al., NeurIPS 2018, arXiv 1805.10367; MeZO-SVRG, ICML 2024).
    """

    def __init__(
        self,
        x: ArrayLike,
        *,
        perturbation: float = 0.01,
        n_anchor: int = 16,
        period: int = 10,
        kind: str = "rademacher",
        rule: Rule | None = None,
        seed: int = 0,
        keys: tuple[int, ...] = (),
        **settings: Any,
    ) -> None:
        super().__init__(x, **settings)
        self.perturbation, self.n_anchor, self.period = float(perturbation), int(n_anchor), int(period)
        self.directions = Directions(self.n, kind, seed=seed, keys=keys)
        self.rule = rule if rule is not None else Rule()
        self.anchor = self.x.copy()
        self.anchor_gradient = np.zeros(self.n)

    @property
    def _anchoring(self) -> bool:
        return self.step % (self.period + 1) == 0

    @property
    def n_points(self) -> int:
        """Pairs along `n_anchor` directions, or one pair here and one at the anchor."""
        return 2 * self.n_anchor if self._anchoring else 4

    def points_in(self, n_rounds: int) -> int:
        """Every `period` + 1 rounds the anchor is measured anew."""
        n_anchors = sum((self.step + k) % (self.period + 1) == 0 for k in range(n_rounds))
        return n_anchors * 2 * self.n_anchor + (n_rounds - n_anchors) * 4

    def _offsets(self) -> NDArray[np.float64]:
        c = self.perturbation
        if self._anchoring:
            u = c * np.stack([self.directions.draw(self.step, k) for k in range(self.n_anchor)])
            return np.stack([u, -u], axis=1).reshape(-1, self.n)
        u = c * self.directions.draw(self.step)
        with np.errstate(divide="ignore", invalid="ignore"):
            back = np.where(self.scale > 0, (self.anchor - self.x) / self.scale, 0.0)
        return np.stack([u, -u, back + u, back - u])

    def _move(
        self, losses: NDArray[np.float64], floor: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], bool]:
        difference = losses[0::2] - losses[1::2]
        heard = bool((np.abs(difference) > floor).any())
        slopes = (difference / (2.0 * self.perturbation))[:, self.blocks]
        if self._anchoring:
            u = np.stack([self.directions.draw(self.step, k) for k in range(self.n_anchor)])
            self.anchor = self.x.copy()
            self.anchor_gradient = (slopes * u).mean(axis=0)
            return self.rule.move(self.anchor_gradient), heard
        u = self.directions.draw(self.step)
        # u u' (g(x) - g(anchor)) has a large spread in many dimensions: 1/n keeps it no larger than g
        correction = (slopes[0] - slopes[1]) * u / self._block_sizes()
        return self.rule.move(self.anchor_gradient + correction), heard

    def _block_sizes(self) -> NDArray[np.float64]:
        return np.bincount(self.blocks, minlength=self.n_blocks)[self.blocks].astype(np.float64)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "rule": self.rule.state_dict(),
            "anchor": self.anchor.copy(),
            "anchor_gradient": self.anchor_gradient.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.rule.load_state_dict(state["rule"])
        self.anchor = np.array(state["anchor"])
        self.anchor_gradient = np.array(state["anchor_gradient"])


class RandomLine(Optimizer):
    """Random pursuit: the parabola through three measured losses along a random direction.

    Points x, x + c u and x - c u give slope and curvature along u, block by block; each block moves to
    the minimum of its own parabola, at most `reach` perturbations away, and against the slope where
    the curvature is not positive. On a quadratic with equal curvatures one round removes on
    average 1/n of the squared distance, whatever its size: no step size has to be chosen
    (Stich, Mueller and Gaertner, SIAM J. Optim. 23, 2013).
    """

    def __init__(
        self,
        x: ArrayLike,
        *,
        perturbation: float = 0.05,
        reach: float = 4.0,
        kind: str = "normal",
        seed: int = 0,
        keys: tuple[int, ...] = (),
        **settings: Any,
    ) -> None:
        super().__init__(x, **settings)
        if not perturbation > 0.0:
            raise InputError(f"perturbation must be > 0, got {perturbation:g}")
        self.perturbation, self.reach = float(perturbation), float(reach)
        self.directions = Directions(self.n, kind, seed=seed, keys=keys)

    @property
    def n_points(self) -> int:
        """The present estimate and a pair."""
        return 3

    def _offsets(self) -> NDArray[np.float64]:
        u = self.perturbation * self.directions.draw(self.step)
        return np.stack([np.zeros(self.n), u, -u])

    def _move(
        self, losses: NDArray[np.float64], floor: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], bool]:
        middle, plus, minus = losses
        difference, curvature = plus - minus, plus - 2.0 * middle + minus
        audible = np.abs(difference) > floor
        with np.errstate(divide="ignore", invalid="ignore"):
            length = np.where(curvature > 0.0, -0.5 * difference / curvature, -np.inf * np.sign(difference))
        length = np.clip(
            np.nan_to_num(length, posinf=self.reach, neginf=-self.reach), -self.reach, self.reach
        )
        length = np.where(audible, length, 0.0)
        return length[self.blocks] * self.perturbation * self.directions.draw(self.step), bool(audible.any())
