"""How often a level would be read back as another one."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rramsim.cell.config import CellsConfig
from rramsim.cell.laws import ErrorLaw, LognormalLaw, NormalLaw, polynomial

__all__ = ["LevelErrors", "OverlapWarning", "check_overlap", "level_errors"]

USABLE_ERROR_RATE = 0.1
"""Above this raw error rate levels carry little of their nominal information: a warning is due."""

_QUANTILES = (np.arange(4001) + 0.5) / 4001


class OverlapWarning(UserWarning):
    """Neighbouring levels overlap beyond use."""


@dataclass(frozen=True)
class LevelErrors:
    """Raw level error rates of freshly written cells.

    Examples
    --------
    >>> from rramsim.cell import CellsConfig, level_errors
    >>> isinstance(level_errors(CellsConfig(sigma=0.05)), LevelErrors)
    True
    """

    rates: NDArray[np.float64]  # per level
    thresholds: NDArray[np.float64]  # [S] decision thresholds between levels, (n_levels - 1,)

    @property
    def mean(self) -> float:
        """Probability that a cell at a random level is read as another level."""
        return float(self.rates.mean())


def level_errors(config: CellsConfig) -> LevelErrors:
    """Probability per level that the conductance lies beyond the midpoint to a neighbour.

    Right after the write, relaxation included, read noise and later drift left out. Under
    write_verify accepted conductances are taken as uniform over the acceptance window, which
    leaves out cells that ran out of pulses.
    """
    scale, law = config.scale, config.error_law()
    levels = scale.levels
    thresholds = 0.5 * (levels[1:] + levels[:-1])
    lower, upper = np.append(0.0, thresholds), np.append(thresholds, np.inf)
    lower[0] = -np.inf
    verify, relaxation = config.programming.method == "write_verify", config.relaxation
    closed_form = type(law).realise in (NormalLaw.realise, LognormalLaw.realise, ErrorLaw.realise)
    if closed_form and not verify and not relaxation.enabled:
        lower[0] = 0.0 if law.multiplicative else -np.inf
        return LevelErrors(law.misread(lower, upper), thresholds)
    from scipy.special import ndtr, ndtri

    index = np.broadcast_to(np.arange(scale.n_levels)[:, None], (scale.n_levels, _QUANTILES.size))
    if verify:
        g = levels[:, None] + config.programming.window * (2.0 * _QUANTILES - 1.0)
    else:
        g = np.asarray(law.realise(index, np.broadcast_to(ndtri(_QUANTILES), index.shape)))
    if relaxation.enabled:
        x = g / relaxation.g_reference
        mean = g + polynomial(relaxation.shift_polynomial or (0.0,), x)
        sigma = np.maximum(polynomial(relaxation.sigma_polynomial or (0.0,), x), 1e-300)
        outside = ndtr((lower[:, None] - mean) / sigma) + ndtr((mean - upper[:, None]) / sigma)
    else:
        outside = (g < lower[:, None]) | (g > upper[:, None])
    return LevelErrors(outside.mean(axis=1), thresholds)


def check_overlap(config: CellsConfig) -> LevelErrors:
    """`level_errors`, with a warning when levels overlap beyond use (more than 10 % misread)."""
    errors = level_errors(config)
    if errors.mean > USABLE_ERROR_RATE:
        warnings.warn(
            f"{config.n_levels} levels overlap: a cell is read back as another level with probability "
            f"{errors.mean:.2g} (worst level {errors.rates.max():.2g}); below {USABLE_ERROR_RATE:g} the "
            f"levels tell states apart: use fewer levels, a larger on_off_ratio or write_verify",
            OverlapWarning,
            stacklevel=2,
        )
    return errors
