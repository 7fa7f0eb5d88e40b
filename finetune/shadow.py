"""Natural traffic as calibration: a teacher shadows a small share of the inputs that a chip serves anyway."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError
from rramsim.streams import Cause, stream, text_key

__all__ = ["Shadow"]


class Shadow:
    """Keeps a random share of the inputs served, the newest ones, for the caretaker's visits.

    No calibration set has to be stored, labelled or chosen: `Caretaker.visit(images=shadow.images)` compares
    chip and teacher on what was served lately. The teacher runs once for each input kept.

    Parameters
    ----------
    share : float
        Of the inputs served, in (0, 1].
    size : int
        Inputs kept; older ones are dropped.
    seed : int
        Of the choice.

    Examples
    --------
    >>> import numpy as np
    >>> shadow = Shadow(share=0.01, size=256, seed=1)
    >>> for _ in range(100):
    ...     shadow.see(np.zeros((1000, 1, 28, 28), dtype=np.float32))
    >>> shadow.seen, 900 < shadow.kept < 1100, shadow.images.shape
    (100000, True, (256, 1, 28, 28))
    """

    def __init__(self, share: float = 1e-3, size: int = 256, seed: int = 0) -> None:
        if not 0.0 < share <= 1.0:
            raise InputError(f"shadow: share must be in (0, 1], got {share:g}; 1e-3 is one in a thousand")
        if size < 1:
            raise InputError(f"shadow: size must be >= 1, got {size}")
        self.share, self.size = float(share), int(size)
        self.seen = self.kept = 0
        self._rng = stream(seed, Cause.TUNER, text_key("shadow"))
        self._images: NDArray[Any] | None = None

    def see(self, images: NDArray[Any]) -> None:
        """Inputs (n, *input_shape) that the chip has served; a random share of them is kept."""
        images = np.asarray(images)
        if self._images is not None and images.shape[1:] != self._images.shape[1:]:
            raise InputError(
                f"shadow: inputs must keep their shape {self._images.shape[1:]}, got {images.shape[1:]}"
            )
        chosen = images[self._rng.random(len(images)) < self.share]
        self.seen += len(images)
        self.kept += len(chosen)
        before = chosen[:0] if self._images is None else self._images
        self._images = np.concatenate([before, chosen])[-self.size :]

    @property
    def images(self) -> NDArray[Any]:
        """The inputs kept, oldest first.

        Raises
        ------
        InputError
            While there is none.
        """
        if self._images is None or not len(self._images):
            raise InputError(
                f"shadow: nothing kept of {self.seen} inputs at a share of {self.share:g}; "
                "serve more before the visit, or raise the share"
            )
        return self._images
