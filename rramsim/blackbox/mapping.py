"""Weights to integer levels, and where the cells of a layer sit on its tiles.

A normalised weight lies in [-1, 1]. Three mappings:

* ``differential`` - two cells on adjacent bit lines; the + or the - cell holds the magnitude,
  the other stays at level 0.
* ``reference`` - one cell per weight; a bit line of mid-level cells in each tile is subtracted.
* ``sliced`` - the conventional baseline: the magnitude's digits in base `n_levels` on
  `n_slices` differential pairs, most significant digit first, recombined digitally after the ADC.

`register_pair_mapping` adds others that hold a weight by the difference of a pair.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.blackbox.codes import adc_code_max
from rramsim.blackbox.protocol import MAPPINGS, Datasheet
from rramsim.checks import InputError, check_array

__all__ = [
    "check_slices",
    "column_scale",
    "conductance_unit",
    "conversion_weights",
    "levels_from_weights",
    "levels_near",
    "register_pair_mapping",
    "unsubtracted",
    "weights_from_conductances",
    "weights_from_levels",
    "zero_points",
]

PairLevels = Callable[[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[Any], NDArray[Any]]]
_PAIRS: dict[str, PairLevels] = {}
EXACT = 2**53  # whole numbers up to here are exact in float64


def reference_level(n_levels: int) -> int:
    """Level of the reference bit line: the middle one, the upper of two."""
    return n_levels // 2


def conductance_unit(kind: str, levels: Sequence[float]) -> float:
    """Conductance difference [S] of one pair that stands for a weight of 1.

    With slices it is that of the least significant step, see `weights_from_levels`.
    """
    if kind == "reference":
        return levels[-1] - levels[reference_level(len(levels))]
    if kind == "sliced":
        return (levels[-1] - levels[0]) / (len(levels) - 1)
    return levels[-1] - levels[0]


def column_scale(weights: NDArray[Any]) -> NDArray[np.float64]:
    """Largest magnitude of each output column (1 for an all-zero column), shape (n_cols,)."""
    weights = check_array(weights, "weights", shape=(None, None))
    scale = np.abs(weights).max(axis=0)
    return np.where(scale > 0, scale, 1.0)


def register_pair_mapping(name: str, levels_of: PairLevels) -> None:
    """Make `mapping.kind = "name"` hold a weight by the difference of two cells in a way of its own.

    Parameters
    ----------
    name : str
    levels_of : callable
        ``levels_of(weights, g)`` gives the levels of the + and of the - cells, both of shape
        (n_rows, n_cols), for normalised weights in [-1, 1] and the ascending conductances of the levels [S].
        A weight of 1 is the difference ``g[-1] - g[0]``.

    Raises
    ------
    InputError
        If the name is taken.

    Examples
    --------
    Both cells of a pair about the middle of the window, so that pairs of all weights draw one current:

    >>> import numpy as np
    >>> def balanced(weights, g):
    ...     middle, half = (g[0] + g[-1]) / 2, weights * (g[-1] - g[0]) / 2
    ...     edges = (g[1:] + g[:-1]) / 2
    ...     return np.searchsorted(edges, middle + half), np.searchsorted(edges, middle - half)
    >>> register_pair_mapping("balanced", balanced)
    >>> levels_from_weights(np.array([[1.0, -0.5, 0.0]]), "balanced", (1e-6, 2e-6, 3e-6, 4e-6, 5e-6)).tolist()
    [[[4, 0], [1, 3], [2, 2]]]
    """
    if name in MAPPINGS:
        raise InputError(f"a mapping named {name!r} exists already")
    _PAIRS[name] = levels_of
    MAPPINGS.append(name)


def check_slices(n_levels: int, n_slices: int) -> None:
    """Raise `InputError` unless magnitudes of `n_slices` digits in base `n_levels` are exact in float64.

    Examples
    --------
    >>> check_slices(16, 13)
    >>> check_slices(16, 14)
    Traceback (most recent call last):
    rramsim.checks.InputError: n_slices must be at most 13 with 16 levels, got 14: a weight would have 56 \
bits, and float64 numbers have 53; 2 to 4 slices hold what a network needs
    """
    if n_slices < 1:
        raise InputError(f"n_slices must be >= 1, got {n_slices}")
    largest = 1
    while n_levels ** (largest + 1) <= EXACT:
        largest += 1
    if n_slices > largest:
        bits = n_slices * math.log2(n_levels)
        raise InputError(
            f"n_slices must be at most {largest} with {n_levels} levels, got {n_slices}: a weight would have "
            f"{bits:.0f} bits, and float64 numbers have 53; 2 to 4 slices hold what a network needs"
        )


def levels_from_weights(
    weights: NDArray[Any], kind: str, levels: Sequence[float], n_slices: int = 2
) -> NDArray[np.int64]:
    """Level targets whose nominal conductance comes nearest to normalised weights.

    Parameters
    ----------
    weights : ndarray, shape (n_rows, n_cols)
        Normalised weights; magnitudes above 1 are an error, never clipped.
    kind : str
        Mapping, see the module's text.
    levels : sequence of float
        Nominal conductance of each level [S], ascending.

    n_slices : int
        Digits of a magnitude, for the kind sliced.

    Returns
    -------
    ndarray of int64, shape (n_rows, n_cols, cells_per_weight)

    Raises
    ------
    InputError
        For weights beyond 1, and for more digits than a float64 number has, see `check_slices`.

    Examples
    --------
    >>> import numpy as np
    >>> levels_from_weights(np.array([[0.4, -1.0]]), "sliced", (1e-6, 2e-6, 3e-6, 4e-6), n_slices=2).tolist()
    [[[1, 0, 2, 0], [0, 3, 0, 3]]]
    """
    if kind == "sliced":
        check_slices(len(levels), n_slices)
    weights = check_array(
        weights,
        "weights",
        shape=(None, None),
        minimum=-1.0 - 1e-6,
        maximum=1.0 + 1e-6,
        hint="divide by column_scale(weights) first",
    )
    g = np.asarray(levels, dtype=np.float64)
    middles = (g[1:] + g[:-1]) / 2
    unit = conductance_unit(kind, levels)
    if kind == "reference":
        target = g[reference_level(g.size)] + weights * unit
        return np.searchsorted(middles, target)[:, :, None]
    if kind in _PAIRS:
        return np.stack(_PAIRS[kind](weights, g), axis=2).astype(np.int64)
    if kind == "differential":
        magnitude = np.searchsorted(middles, g[0] + np.abs(weights) * unit)
        return np.stack([np.where(weights > 0, magnitude, 0), np.where(weights < 0, magnitude, 0)], axis=2)
    top = g.size**n_slices - 1
    # a weight that rounding left just above 1 would begin again at 0
    magnitude = np.minimum(np.rint(np.abs(weights) * top), top).astype(np.int64)
    digits = []
    for position in reversed(range(n_slices)):
        digit = magnitude // g.size**position % g.size
        digits += [np.where(weights > 0, digit, 0), np.where(weights < 0, digit, 0)]
    return np.stack(digits, axis=2)


def conversion_weights(
    target_levels: NDArray[Any], kind: str, levels: Sequence[float], *, per_line: bool = False
) -> NDArray[np.float64]:
    """What error-free cells contribute to each ADC conversion, in units of `conductance_unit`.

    Returns
    -------
    ndarray, shape (n_rows, n_cols, n_slices), or (n_rows, n_cols, cells_per_weight) `per_line`
    """
    g = np.asarray(levels, dtype=np.float64)[np.asarray(target_levels)]
    return _contributions(g, kind, levels, per_line)


def _contributions(
    g: NDArray[np.float64], kind: str, levels: Sequence[float], per_line: bool = False
) -> NDArray[np.float64]:
    unit = conductance_unit(kind, levels)
    if per_line:
        return g / unit
    if kind == "reference":
        return (g - levels[reference_level(len(levels))]) / unit
    return (g[:, :, 0::2] - g[:, :, 1::2]) / unit


def weights_from_levels(
    target_levels: NDArray[Any], kind: str, levels: Sequence[float]
) -> NDArray[np.float64]:
    """Normalised weights that error-free cells would hold, shape (n_rows, n_cols)."""
    return _joined(conversion_weights(target_levels, kind, levels), kind, levels)


def weights_from_conductances(
    conductances: NDArray[Any], kind: str, levels: Sequence[float]
) -> NDArray[np.float64]:
    """Normalised weights that cells of these conductances [S] hold, shape (n_rows, n_cols).

    Parameters
    ----------
    conductances : ndarray, shape (n_rows, n_cols, cells_per_weight)
    """
    return _joined(_contributions(np.asarray(conductances, dtype=np.float64), kind, levels), kind, levels)


def _joined(channels: NDArray[np.float64], kind: str, levels: Sequence[float]) -> NDArray[np.float64]:
    if kind != "sliced":
        return channels[:, :, 0]
    n_slices = channels.shape[2]
    powers = float(len(levels)) ** np.arange(n_slices)[::-1]
    return channels @ powers / (len(levels) ** n_slices - 1)


def levels_near(weights: NDArray[Any], kind: str, levels: Sequence[float]) -> NDArray[np.int64]:
    """Levels nearest to chip weights of one cell each; beyond the window the first or the last level.

    Parameters
    ----------
    weights : ndarray, shape (n_rows, n_cols)
        ``(g - g_reference) / conductance_unit``, that is network weights over their scale plus zero point.

    Returns
    -------
    ndarray of int64, shape (n_rows, n_cols, 1)
    """
    g = np.asarray(levels, dtype=np.float64)
    target = g[reference_level(g.size)] + np.asarray(weights) * conductance_unit(kind, levels)
    return np.searchsorted((g[1:] + g[:-1]) / 2, target)[:, :, None]


def unsubtracted(sheet: Datasheet) -> float:
    """Chip weight that every cell adds to what the ADC sees.

    Chip weights of one cell each count from the middle level. Where the reference line holds another one, or
    nothing is subtracted before conversion, each cell brings the same surplus: a multiple of the inputs' sum,
    which the host takes off.
    """
    if sheet.mapping != "reference":
        return 0.0
    middle = reference_level(sheet.n_levels)
    level = middle if sheet.reference_level is None else sheet.reference_level
    subtracted = 0.0 if sheet.reference == "digital" else sheet.levels[level]
    return (sheet.levels[middle] - subtracted) / conductance_unit(sheet.mapping, sheet.levels)


ASSUMED = {
    "additive": (0.0, 0.04),
    "lognormal": (0.1, 0.0),
}  # spread that tuning leaves: of g, and of the window
ASSUMED_ELSE = (0.1, 0.02)
SHARES = np.linspace(0.0, 1.0, 11)  # of a column's largest weight of either sign, up to which it is held
CREST = (
    8.0  # range of the converters over the root mean square of what a column sends them; see `zero_points`
)
DRIVEN = 512  # vectors that decide what columns send to the converters


def zero_points(
    weights: NDArray[Any],
    energy: NDArray[np.float64],
    sheet: Datasheet,
    codes: NDArray[Any] | None = None,
    row_tiles: Sequence[tuple[int, int]] = (),
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and zero point of each column, for one cell per weight, with the least expected error energy.

    A weight w is held as the chip weight ``w / scale + zero_point``. Where errors grow with conductance,
    columns do best with 0 at a low level: the few weights beyond the window's ends are then cut off,
    which costs less than the errors of all the others save. `scale` is negative where the column's long
    tail is negative. The expected energy is ``sum_i energy_i (cut_i**2 + scale**2 var(g_i))``, var with the
    rounding to levels. With `codes`, rounding and noise of the converters count too: their range, which the
    columns of a layer share, has to hold a multiple of the inputs' sum besides the weighted sum, the larger
    the farther the zero point lies from what is subtracted. A range of `CREST` times each column's root mean
    square stands for it: 4 would serve the column alone, but the widest column spoils the others' range.

    Parameters
    ----------
    weights : ndarray, shape (n_rows, n_cols)
    energy : ndarray, shape (n_rows,)
        Variance of each input.
    codes : integer ndarray, shape (n_vectors, n_rows), optional
        Inputs.
    row_tiles : sequence of (first, stop)
        Rows of each tile, with `codes`.

    Returns
    -------
    scale, zero_point : ndarray, shape (n_cols,)
    """
    window = sheet.levels[-1] - sheet.levels[0]
    g = np.asarray(sheet.levels) / window
    relative, absolute = ASSUMED.get(sheet.error_law, ASSUMED_ELSE)
    constant = absolute**2 + float(np.square(np.diff(g)).mean()) / 12.0
    unit = conductance_unit(sheet.mapping, sheet.levels) / window
    middle = g[reference_level(g.size)]
    subtracted = middle - unsubtracted(sheet) * unit
    w, power = np.asarray(weights, dtype=np.float64), np.maximum(energy, 1e-12 * max(energy.max(), 1e-30))
    alone, both, sums = _conversions(w, codes, row_tiles, sheet)
    best = np.full(w.shape[1], np.inf)
    scale, zero = np.ones(w.shape[1]), np.zeros(w.shape[1])
    for sign in (1.0, -1.0):
        signed = sign * w
        for high, low in itertools.product(SHARES[1:], SHARES):
            top = high * np.maximum(signed.max(axis=0), 0.0)
            bottom = low * np.maximum(-signed.min(axis=0), 0.0)
            span = top + bottom
            kept = np.clip(signed, -bottom, top)
            conductance = (kept + bottom) / np.maximum(span, 1e-30) + g[0]
            shift = bottom + span * (g[0] - subtracted)
            loss = power @ (
                np.square(signed - kept) + np.square(span) * (np.square(relative * conductance) + constant)
            )
            loss += alone + 2.0 * sign * shift * both + np.square(shift) * sums
            better = (loss < best) & (span > 0.0)
            best = np.where(better, loss, best)
            scale = np.where(better, sign * span * unit, scale)
            zero = np.where(better, (bottom / np.maximum(span, 1e-30) + g[0] - middle) / unit, zero)
    return scale, zero


def _conversions(
    w: NDArray[np.float64],
    codes: NDArray[Any] | None,
    row_tiles: Sequence[tuple[int, int]],
    sheet: Datasheet,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Energy of the converters' errors, ``alone + 2 shift both + shift**2 sums``, for a column w + shift.

    Each conversion of ``x @ (w + shift)`` errs by rounding and noise of a range of `CREST` times its root
    mean square.
    """
    alone, both, sums = np.zeros(w.shape[1]), np.zeros(w.shape[1]), 0.0
    if codes is None or not len(codes):
        return alone, both, sums
    some = codes[:: max(1, len(codes) // DRIVEN)].astype(np.float64)
    for top, bottom in row_tiles:
        x = some[:, top:bottom]
        y, total = x @ w[top:bottom], x.sum(axis=1)
        alone += np.square(y).mean(axis=0)
        both += total @ y / len(x)
        sums += float(np.square(total).mean())
    code_max = adc_code_max(sheet.adc_bits)
    noise = sheet.adc_noise * code_max / adc_code_max(8)
    share = (CREST / code_max) ** 2 * (1.0 / 12.0 + noise**2)
    return share * alone, share * both, share * sums
