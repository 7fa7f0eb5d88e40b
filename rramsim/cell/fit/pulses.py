"""Programming records: windows, pulses of a write, and the pulse model that comes nearest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PulseFit", "fit_pulses"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PulseFit:
    """Measured and modelled pulses per level."""

    low: Floats | None  # [S] accepted windows; None where the file has none
    high: Floats | None
    mean: Floats  # measured pulses of a write, per level
    p90: Floats  # 90th percentile
    gain: Floats  # pulse model: fraction of the remaining error that a pulse closes
    sigma_gain: Floats  # std of its logarithm
    table: dict[str, Any]  # quantiles of the measured pulses: `programming.pulse_table`
    success: float | None  # share of writes that ended inside
    n_max: int

    def parameters(self) -> dict[str, Any]:
        """Keys of [cells.programming]."""
        keys: dict[str, Any] = {
            "method": "write_verify",
            "final": "law",
            "n_pulses_max": int(min(max(self.n_max, 1), 65535)),
            "gain_levels": self.gain.tolist(),
            "sigma_gain_levels": self.sigma_gain.tolist(),
            "pulse_table": self.table,
        }
        if self.low is not None and self.high is not None:
            keys |= {"window_low": self.low.tolist(), "window_high": self.high.tolist()}
        return keys


def fit_pulses(
    pulses: Floats,
    level: Ints,
    means: Floats,
    low: Floats | None,
    high: Floats | None,
    success: Floats | None,
) -> PulseFit:
    """Pulses of each write, level by level.

    Parameters
    ----------
    pulses, low, high, success : ndarray, shape (n,)
        Per write: pulses, accepted window [S], whether it ended inside.
    level : ndarray of int, shape (n,)
    means : ndarray, shape (n_levels,)
        Mean conductance [S] of the levels.

    Notes
    -----
    The gain is that of a cell which starts at the lowest level and takes the median number of pulses;
    its logarithmic spread is that of the pulses between median and 90th percentile. Measured
    distributions are often mixtures of quick and slow writes, which no spread of gains gives:
    the quantile table describes them, and simulated writes draw from it.
    """
    n_levels = len(means)
    rows = [pulses[level == k] for k in range(n_levels)]
    p = np.concatenate([[0.002, 0.005], np.arange(1, 64) / 64, [0.99, 0.995, 0.998]])
    p = np.sort(p[(p > 0.5 / max(map(len, rows))) & (p < 1.0 - 0.5 / max(map(len, rows)))])
    table = [np.quantile(row, p, method="hazen") for row in rows]
    # a quantile table cuts the tail off: its ends carry what keeps the mean
    for row, quantiles in zip(rows, table, strict=True):
        missing = row.mean() - _table_mean(p, quantiles)
        weight = _table_mean(p, np.eye(len(p))[-1])
        quantiles[-1] = max(quantiles[-1] + missing / weight, quantiles[-2])
    window = None
    bounds: list[Any] = [None, None]
    if low is not None and high is not None:
        bounds = [np.array([np.median(x[level == k]) for k in range(n_levels)]) for x in (low, high)]
        window = np.minimum(means - bounds[0], bounds[1] - means)
    medians = np.array([np.median(row) for row in rows])
    p90 = np.array([np.quantile(row, 0.9) for row in rows])
    gain, spread = np.empty(n_levels), np.empty(n_levels)
    for k in range(n_levels):
        start = means[0] if k else means[-1]
        width = max(window[k], 1e-3 * means[k]) if window is not None else 0.05 * means[k]
        distance = max(np.log(max(abs(means[k] - start), 2 * width) / width), 0.1)
        gain[k] = np.clip(-np.expm1(-distance / max(medians[k], 1.0)), 1e-4, 0.999)
        spread[k] = np.clip(np.log(max(p90[k], 1.0) / max(medians[k], 1.0)) / 1.2816, 0.0, 3.0)
    mean = np.array([row.mean() for row in rows])
    return PulseFit(
        bounds[0], bounds[1], mean, p90, gain, spread,
        {"probabilities": p.tolist(), "pulses": [row.tolist() for row in table]},
        None if success is None else float(np.mean(success > 0)), int(pulses.max()),
    )  # fmt: skip


def _table_mean(p: Floats, quantiles: Floats) -> float:
    """Mean of a table's values, linear in the normal deviate between them."""
    from scipy.special import ndtri

    nodes = np.linspace(-6.0, 6.0, 4001)
    weight = np.exp(-0.5 * nodes**2)
    return float(np.interp(nodes, ndtri(p), quantiles) @ weight / weight.sum())
