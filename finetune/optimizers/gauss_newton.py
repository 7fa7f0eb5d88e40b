"""Derivative-free Gauss-Newton: measured outputs instead of a measured scalar."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.optimizers.base import Optimizer
from finetune.optimizers.directions import Directions
from rramsim.checks import InputError

__all__ = ["GaussNewton"]

DAMPINGS = np.geomspace(1e-3, 1e3, 13)


class GaussNewton(Optimizer):
    """Finite differences of all outputs along a few directions, then a damped step in their span.

    A measurement of a network gives many outputs (the logits of every image), not one number. For
    directions u_1 ... u_q the differences ``j_k = [y(x + c u_k) - y(x - c u_k)] / (2 c)`` are columns of
    the Jacobian's restriction; ``a = (J' J + damping mean(diag J' J) I)^-1 J' r`` for residuals
    r = target - y(x) gives ``x <- x + sum a_k u_k``. The residuals may be weighted, so that the squared
    error is the second-order expansion of the distillation loss. Derivative-free Gauss-Newton as in
    DFO-GN (Cartis and Roberts, Math. Prog. Comp. 11, 2019) with a random subspace per round
    (Cartis and Roberts, arXiv 2102.12016).

    `ask` gives x and then pairs x +- c u_k; `tell_outputs` takes weighted outputs and target. The step is
    shrunk until the next measurement (`ask` again) shows that the loss fell: a move that made it worse
    is taken back and the damping grows.

    Parameters
    ----------
    n_directions : int
        q; with `kind = "coordinates"` every parameter in turn, q of them in a round.
    """

    def __init__(
        self,
        x: ArrayLike,
        *,
        perturbation: float = 0.05,
        n_directions: int = 8,
        kind: str = "normal",
        damping: float = 0.1,
        seed: int = 0,
        keys: tuple[int, ...] = (),
        **settings: Any,
    ) -> None:
        super().__init__(x, **settings)
        if not (perturbation > 0.0 and damping > 0.0):
            raise InputError(f"perturbation and damping must be > 0, got {perturbation:g} and {damping:g}")
        self.perturbation, self.damping = float(perturbation), float(damping)
        self.n_directions = min(int(n_directions), self.n)
        self.kind = kind
        self.directions = Directions(
            self.n, "normal" if kind == "coordinates" else kind, seed=seed, keys=keys
        )
        self.best = self.x.copy()
        self.best_loss = np.inf
        self.promised = 0.0  # share of the loss that the last step is predicted to remove from held-out folds

    @property
    def n_points(self) -> int:
        """The present estimate, and a pair for each direction."""
        return 2 * self.n_directions + 1

    def span(self) -> NDArray[np.float64]:
        """Directions of this round, shape (n_directions, n)."""
        if self.kind != "coordinates":
            return np.stack([self.directions.draw(self.step, k) for k in range(self.n_directions)])
        span = np.zeros((self.n_directions, self.n))
        which = (self.step * self.n_directions + np.arange(self.n_directions)) % self.n
        span[np.arange(self.n_directions), which] = 1.0
        return span

    def _offsets(self) -> NDArray[np.float64]:
        u = self.perturbation * self.span()
        pairs = np.stack([u, -u], axis=1).reshape(-1, self.n)
        return np.concatenate([np.zeros((1, self.n)), pairs])

    def tell_outputs(
        self,
        outputs: ArrayLike,
        target: ArrayLike,
        error: float = 0.0,
        groups: ArrayLike | None = None,
    ) -> None:
        """Take measured outputs (n_points, n_outputs), the wanted ones (n_outputs,), and move.

        Parameters
        ----------
        error : float
            Standard error of a difference of two losses (mean squared residuals).
        groups : integer ndarray, shape (n_outputs,), optional
            Fold of each output. The damping is then the one that predicts held-out folds best, and
            nothing moves where no damping would lower their error: noise and chance are not fitted.
        """
        outputs = np.asarray(outputs, dtype=np.float64)
        target = np.asarray(target, dtype=np.float64)
        if outputs.shape != (self.n_points, target.size):
            raise InputError(f"outputs must have shape ({self.n_points}, {target.size}), got {outputs.shape}")
        residual = target - outputs[0]
        loss = float(residual @ residual / target.size)
        if loss > self.best_loss + self.floor * error:
            self.x, self.damping = self.best.copy(), min(4.0 * self.damping, 1e6)
            self.silent += 1
            self.step += 1
            return
        gained = self.best_loss - loss > self.floor * error
        self.silent = 0 if gained else self.silent + 1
        self.best, self.best_loss = self.x.copy(), min(loss, self.best_loss)
        jacobian = (outputs[1::2] - outputs[2::2]) / (2.0 * self.perturbation)  # (q, n_outputs)
        if groups is None:
            damping: float | None = self.damping
            self.damping = max(0.7 * self.damping, 1e-3)
        else:
            damping, self.promised = _held_out_damping(jacobian, residual, np.asarray(groups))
        if damping is None:
            self.silent += 1
        else:
            amounts = _solve(jacobian @ jacobian.T, jacobian @ residual, damping)
            self.x = np.clip(self.x + self.scale * (amounts @ self.span()), self.lower, self.upper)
        self.step += 1

    def settle(self, loss: float | None = None) -> None:
        """End: keep x when its loss, measured last, is no worse than the best; else go back."""
        if loss is None or loss > self.best_loss:
            self.x = self.best.copy()

    def _move(
        self, losses: NDArray[np.float64], floor: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], bool]:
        raise InputError("gauss_newton needs outputs: call tell_outputs(outputs, target)")

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "best": self.best.copy(),
            "best_loss": self.best_loss,
            "damping": self.damping,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.best = np.array(state["best"])
        self.best_loss, self.damping = float(state["best_loss"]), float(state["damping"])


def _solve(gram: NDArray[np.float64], slope: NDArray[np.float64], damping: float) -> NDArray[np.float64]:
    """Damped normal equations; directions without any effect get no amount."""
    ridge = damping * np.trace(gram) / len(gram)
    if not ridge > 0.0:
        return np.zeros(len(gram))
    return np.linalg.solve(gram + ridge * np.eye(len(gram)), slope)


def _held_out_damping(
    jacobian: NDArray[np.float64], residual: NDArray[np.float64], groups: NDArray[np.integer]
) -> tuple[float | None, float]:
    """Damping with the least predicted error on held-out groups, and the share of the error that it removes.

    None and 0 where standing still is best.
    """
    gram, slope = jacobian @ jacobian.T, jacobian @ residual
    error = np.zeros(DAMPINGS.size)
    for group in np.unique(groups):
        held = groups == group
        part = jacobian[:, held]
        gram_held, slope_held = part @ part.T, part @ residual[held]
        for index, damping in enumerate(DAMPINGS):
            amounts = _solve(gram - gram_held, slope - slope_held, damping)
            error[index] += amounts @ gram_held @ amounts - 2.0 * (amounts @ slope_held)
    best = int(error.argmin())
    if not error[best] < 0.0:
        return None, 0.0
    return float(DAMPINGS[best]), float(-error[best] / max(residual @ residual, 1e-300))
