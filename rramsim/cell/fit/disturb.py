"""Read disturbance: the power or exponential law from values paired with their undisturbed one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.cell.disturb import PowerLaw
from rramsim.cell.fit.drift import DriftFit
from rramsim.checks import InputError

__all__ = ["fit_disturb"]

Columns = dict[str, NDArray[Any]]


def fit_disturb(
    columns: Columns, rows: NDArray[np.bool_], g0: NDArray[np.float64], means: NDArray[np.float64], path: Any
) -> DriftFit | None:
    """Power or exponential law from values paired with their undisturbed one."""
    if "v_read" not in columns:
        raise InputError(f"{path}: rows with n_reads need the column v_read")
    rows = rows & np.isfinite(g0)
    if rows.sum() < 5:
        return None
    n = int(rows.sum())
    g, start, v = columns["g"][rows], g0[rows], np.abs(columns["v_read"][rows])
    if not (np.isfinite(v).all() and (v > 0).all()):
        raise InputError(f"{path}: v_read must be given and not 0 in every row with n_reads")
    t_read = columns["t_read"][rows] if "t_read" in columns else np.full(n, 100e-9)
    cycles = np.nan_to_num(columns["n_cycles"][rows]) if "n_cycles" in columns else np.zeros(n)
    seconds = columns["n_reads"][rows] * t_read
    v_read = float(np.median(v))
    rising = float(np.median(g - start)) > 0.0
    low, high = float(means[0]), float(means[-1])
    common = {
        "v_read": v_read,
        "t_read": float(np.median(t_read)),
        "polarity": "positive" if rising else "negative",
    }

    def power(p: NDArray[np.float64]) -> NDArray[np.float64]:
        law = PowerLaw(v_read=v_read, t_read=1.0, c1=np.exp(p[0]), a=np.exp(p[1]), b=np.exp(p[2]))
        onset = law.log_bracket(cycles) - law.exponent(v) * np.log(seconds / law.constants["t0"])
        r = np.exp(np.minimum(onset, 0.0))
        return high - (high - start) * r if rising else np.maximum(start * r, np.minimum(start, low))

    several = np.ptp(v) > 1e-6

    def exponential(p: NDArray[np.float64]) -> NDArray[np.float64]:
        weight = v / v_read
        if several:  # sinh(v/s) / sinh(v_read/s), free of overflow
            s = np.exp(p[1])
            weight = (
                np.exp(np.minimum((v - v_read) / s, 500.0)) * np.expm1(-2 * v / s) / np.expm1(-2 * v_read / s)
            )
        end = high if rising else low
        return end + (start - end) * np.exp(-seconds * weight / np.exp(p[0]))

    tries = {
        "power": _least_squares(power, (np.log(0.0068), np.log(0.11), np.log(1.43339)), g),
        "exponential": _least_squares(
            exponential, (np.log(np.median(seconds)), np.log(0.1))[: 2 if several else 1], g
        ),
    }
    # a single voltage cannot tell c1 from a: the second is then not counted as fitted
    free = {"power": 3 if several else 2, "exponential": 2 if several else 1}
    bic = {
        name: n * np.log(max(rms, 1e-15) ** 2) + free[name] * np.log(n) for name, (_, rms) in tries.items()
    }
    best, other = sorted(bic, key=lambda name: bic[name])
    p, rms = tries[best]
    if best == "power":
        constants = {"c1": float(np.exp(p[0])), "a": float(np.exp(p[1])), "b": float(np.exp(p[2]))}
    else:
        constants = {"tau": float(np.exp(p[0])), "v_scale": float(np.exp(p[1])) if several else 0.0}
    return DriftFit(best, {**common, **constants}, rms, n, {other: bic[other] - bic[best]})


def _least_squares(model: Any, first: Any, g: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Parameters (logarithms) of least squares, and the rms residual [S]."""
    from scipy.optimize import least_squares

    first = np.asarray(first, float)
    scale = float(g.mean())
    bounds = (first - 12.0, first + 12.0)
    result = least_squares(lambda p: (model(p) - g) / scale, first, bounds=bounds, x_scale=0.1, method="trf")
    return result.x, float(np.sqrt(np.mean((model(result.x) - g) ** 2)))
