"""Random directions that are drawn again from their name instead of being kept (seed replay)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError, nearest_name
from rramsim.streams import Cause, stream

__all__ = ["KINDS", "Directions"]

KINDS = ("rademacher", "normal", "sphere")


class Directions:
    """Perturbations of `n` parameters, each named by (step, index).

    A direction is never stored: `draw` makes the same one as often as it is asked, so a
    two-sided test and its update need no memory beyond the parameters themselves (MeZO,
    Malladi et al., NeurIPS 2023, arXiv 2305.17333, algorithm 1).

    Parameters
    ----------
    n : int
        Parameters.
    kind : {"rademacher", "normal", "sphere"}
        Entries +-1 (SPSA, Spall 1992), standard normal (Gaussian smoothing, Nesterov and
        Spokoiny 2017), or uniform on the sphere of radius sqrt(n). All have unit covariance.
    seed : int
    keys : tuple of int
        Distinguishes optimisers of the same seed.
    """

    def __init__(
        self, n: int, kind: str = "rademacher", *, seed: int = 0, keys: tuple[int, ...] = ()
    ) -> None:
        if kind not in KINDS:
            raise InputError(f"directions: unknown kind {kind!r}; {nearest_name(kind, KINDS)}")
        self.n, self.kind, self.seed, self.keys = int(n), kind, int(seed), tuple(keys)

    def draw(self, step: int, index: int = 0) -> NDArray[np.float64]:
        """Direction number `index` of `step`, shape (n,)."""
        rng = self._rng(step, index)
        if self.kind == "rademacher":
            return rng.integers(0, 2, self.n).astype(np.float64) * 2.0 - 1.0
        direction = rng.standard_normal(self.n)
        if self.kind == "sphere":
            direction *= np.sqrt(self.n) / np.linalg.norm(direction)
        return direction

    def _rng(self, step: int, index: int) -> Any:
        return stream(self.seed, Cause.TUNER, *self.keys, step, index)
