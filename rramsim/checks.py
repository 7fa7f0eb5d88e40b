"""Argument checks shared by every public function.

Each message says what must hold, what was got and, where there is a usual
slip behind it, which one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class InputError(ValueError):
    """A value from the user that cannot be used; the command line prints it in one line."""


class UnitWarning(UserWarning):
    """A setting has a magnitude that is not met in practice, as if a prefix had been forgotten."""


class VerifyWarning(UserWarning):
    """Write-verify left many cells outside their window."""


class CalibrationWarning(UserWarning):
    """Calibration images leave something undetermined that tuning needs."""


class NoEffectWarning(UserWarning):
    """A setting or an action changes nothing here."""


class ConvergenceError(RuntimeError):
    """A solver gave up; carries `iterations`, `residual` and `tolerance`."""

    def __init__(self, message: str, *, iterations: int, residual: float, tolerance: float) -> None:
        super().__init__(message)
        self.iterations = iterations
        self.residual = residual
        self.tolerance = tolerance


def check_array(
    value: Any,
    name: str,
    *,
    shape: Sequence[int | None] | None = None,
    dtype: Any = np.float64,
    minimum: float | None = None,
    maximum: float | None = None,
    unit: str = "",
    hint: str = "",
) -> NDArray[Any]:
    """Return `value` as a C-contiguous array of `dtype`, or raise `InputError`.

    Parameters
    ----------
    shape : sequence of int or None, optional
        Wanted shape; None leaves that axis free.
    minimum, maximum : float, optional
        Inclusive bounds, in `unit`.
    hint : str
        The likely slip, appended to the message.
    """
    try:
        array = np.ascontiguousarray(value, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be an array of {np.dtype(dtype).name}: {error}") from None
    # ascontiguousarray lifts a scalar to one axis, which would hide a wrong rank
    if np.ndim(value) == 0:
        array = array.reshape(())
    tail = f"; {hint}" if hint else ""
    if shape is not None and (
        array.ndim != len(shape)
        or any(want is not None and want != got for want, got in zip(shape, array.shape, strict=False))
    ):
        wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
        raise InputError(f"{name} must have shape {wanted}, got {array.shape}{tail}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{name} must be finite, got {array[where]} at index {where}{tail}")
    check_bounds(array, name, minimum=minimum, maximum=maximum, unit=unit, hint=hint)
    return array


def check_bounds(
    value: Any,
    name: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    unit: str = "",
    hint: str = "",
) -> None:
    """Raise `InputError` unless every entry of `value` lies within the bounds (inclusive)."""
    if np.size(value) == 0 or (minimum is None and maximum is None):
        return
    low, high = np.min(value), np.max(value)
    unit, tail = f" {unit}" if unit else "", f"; {hint}" if hint else ""
    if minimum is not None and not low >= minimum:
        raise InputError(f"{name} must be >= {minimum:g}{unit}, got {low:g}{tail}")
    if maximum is not None and not high <= maximum:
        raise InputError(f"{name} must be <= {maximum:g}{unit}, got {high:g}{tail}")


def nearest_name(name: str, known: Iterable[str]) -> str:
    """A hint such as ``did you mean 'levels'?``; lists the known names when nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}"
