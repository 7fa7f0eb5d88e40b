"""The ask/tell interface of zeroth-order methods."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.checks import InputError, check_array

__all__ = ["Optimizer"]


class Optimizer:
    """Minimise losses that can be measured but not differentiated.

    Each round: ``points = ask()``, shape (n_points, n); measure each of them, all with the same
    images (common random numbers); ``tell(losses)``. The present estimate is `x`.

    Parameters
    ----------
    x : ndarray, shape (n,)
        Where to start.
    scale : ndarray, shape (n,), optional
        Natural size of a change of each parameter; steps and perturbations are in these units.
    lower, upper : ndarray, shape (n,), optional
        Bounds; points outside are moved onto them.
    blocks : integer ndarray, shape (n,), optional
        Block of each parameter, 0 ... n_blocks - 1, when the loss is a sum of terms that depend on
        one block each (the columns of a layer). `tell` then takes losses (n_points, n_blocks) and
        one pair of measurements yields an estimate for every block.
    floor : float
        Smallest difference of losses, in standard errors given to `tell`, that counts as seen.
    patience : int
        `finished` after this many rounds in a row without a difference above the floor.
    """

    def __init__(
        self,
        x: ArrayLike,
        *,
        scale: ArrayLike | None = None,
        lower: ArrayLike | None = None,
        upper: ArrayLike | None = None,
        blocks: ArrayLike | None = None,
        floor: float = 0.0,
        patience: int = 0,
    ) -> None:
        self.x = check_array(x, "x", shape=(None,)).copy()
        n = self.x.size
        if n == 0:
            raise InputError("x must hold at least one parameter, got none")
        self.scale = np.ones(n) if scale is None else check_array(scale, "scale", shape=(n,), minimum=0.0)
        self.lower = np.full(n, -np.inf) if lower is None else np.broadcast_to(np.asarray(lower, float), (n,))
        self.upper = np.full(n, np.inf) if upper is None else np.broadcast_to(np.asarray(upper, float), (n,))
        self.blocks = (
            np.zeros(n, int) if blocks is None else check_array(blocks, "blocks", dtype=int, shape=(n,))
        )
        self.n_blocks = int(self.blocks.max()) + 1
        self.floor, self.patience = float(floor), int(patience)
        self.step = 0
        self.silent = 0  # rounds in a row below the noise floor

    @property
    def n(self) -> int:
        """Number of parameters."""
        return self.x.size

    @property
    def finished(self) -> bool:
        """True when further measurements of this kind would only show noise."""
        return 0 < self.patience <= self.silent

    def ask(self) -> NDArray[np.float64]:
        """Points to measure, shape (n_points, n)."""
        points = self.x + self.scale * self._offsets()
        return np.clip(points, self.lower, self.upper)

    def tell(self, losses: ArrayLike, error: ArrayLike = 0.0) -> None:
        """Take the losses of the points asked for last, and move.

        Parameters
        ----------
        losses : ndarray, shape (n_points,) or (n_points, n_blocks)
        error : float or ndarray, shape (n_blocks,)
            Standard error of a difference of two losses.
        """
        losses = np.asarray(losses, dtype=np.float64)
        if losses.ndim == 1:
            losses = losses[:, None]
        if losses.ndim != 2 or losses.shape[1] != self.n_blocks or losses.shape[0] != self.n_points:
            raise InputError(
                f"losses must have shape ({self.n_points}, {self.n_blocks}), got {losses.shape}; "
                "tell answers the points of the last ask"
            )
        if not np.isfinite(losses).all():
            raise InputError("losses must be finite, got NaN or infinity")
        error = np.broadcast_to(np.asarray(error, dtype=np.float64), (self.n_blocks,))
        move, heard = self._move(losses, self.floor * error)
        self.x = np.clip(self.x + self.scale * move, self.lower, self.upper)
        self.silent = 0 if heard else self.silent + 1
        self.step += 1

    @property
    def n_points(self) -> int:
        """Points that the present round measures, what `ask` returns."""
        raise TypeError(f"{type(self).__name__} must define n_points")

    def points_in(self, n_rounds: int) -> int:
        """Points that the next `n_rounds` rounds measure in all; for plans."""
        return n_rounds * self.n_points

    def _offsets(self) -> NDArray[np.float64]:
        """Points relative to x in units of `scale`, shape (n_points, n)."""
        raise TypeError(f"{type(self).__name__} must define _offsets()")

    def _move(
        self, losses: NDArray[np.float64], floor: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], bool]:
        """Change of x in units of `scale`, and whether any difference exceeded the floor."""
        raise TypeError(f"{type(self).__name__} must define _move(losses, floor)")

    def state_dict(self) -> dict[str, Any]:
        """What changes from round to round; the directions are drawn again from their names."""
        return {"x": self.x.copy(), "step": self.step, "silent": self.silent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict` bit for bit."""
        self.x = np.array(state["x"], dtype=np.float64)
        self.step, self.silent = int(state["step"]), int(state["silent"])
