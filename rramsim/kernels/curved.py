"""Reads of non-linear cells: what their law makes of the drive, and the further products of wires."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from rramsim.kernels.convolution import multiply_block, wide_pitch


class Terms(NamedTuple):
    """Further products of non-linear cells on wires (`rramsim.circuit.expansion`); empty for other arrays.

    cubic, plus_gain, plus_drop, minus_gain, minus_drop : float32, flat, of `pack_weights`
        A channel's current is further p @ cubic + (c @ plus_gain) (v @ plus_drop)
        - (c @ minus_gain) (v @ minus_drop); the last two empty where channels are single lines.
    """

    cubic: np.ndarray
    plus_gain: np.ndarray
    plus_drop: np.ndarray
    minus_gain: np.ndarray
    minus_drop: np.ndarray


class Curves(NamedTuple):
    """The law of non-linear cells at every drive, drive d at index d + zero; empty for linear cells.

    bend : float32
        Cell current over conductance, in DAC steps: replaces the drive where lines are ideal.
    cubic, steep : float32
        p(v) in DAC steps, and c(v), of `rramsim.circuit.expansion`.
    """

    bend: np.ndarray
    cubic: np.ndarray
    steep: np.ndarray
    zero: int


@njit(cache=True, error_model="numpy")
def _square(values, out):
    for i in range(out.size):
        out[i] = values[i] * values[i]


@njit(cache=True, error_model="numpy")
def add_terms(terms, block, planes, curved, offsets, source, count, top, bottom, work, out):
    """Add what non-linear cells on wires draw beyond the linear product; `curved` holds planes of p and c."""
    width = wide_pitch(count)
    first, second = work
    cubic, steep = curved
    multiply_block(first, width, count, terms.cubic, block, cubic, source, offsets, top, bottom)
    _add(out, first)
    multiply_block(first, width, count, terms.plus_gain, block, steep, source, offsets, top, bottom)
    multiply_block(second, width, count, terms.plus_drop, block, planes, source, offsets, top, bottom)
    _add_product(out, first, second, np.float32(1.0))
    if terms.minus_gain.size > 0:
        multiply_block(first, width, count, terms.minus_gain, block, steep, source, offsets, top, bottom)
        multiply_block(second, width, count, terms.minus_drop, block, planes, source, offsets, top, bottom)
        _add_product(out, first, second, np.float32(-1.0))


@njit(cache=True, error_model="numpy")
def _add(out, values):
    for n in range(out.size):
        out[n] += values[n]


@njit(cache=True, error_model="numpy")
def _add_product(out, first, second, sign):
    for n in range(out.size):
        out[n] += sign * first[n] * second[n]


@njit(cache=True, error_model="numpy")
def _look_up(curve, zero, drive, out):
    """out = curve at an integer drive; `out` may be `drive`. Places that hold no drive give any value."""
    for n in range(out.size):
        out[n] = curve[min(max(np.int64(drive[n]) + zero, 0), curve.size - 1)]


@njit(cache=True, error_model="numpy")
def bend(curves, planes, curved, squares):
    """Turn planes of drive into what the cells' law makes of it, and fill those of squared currents."""
    cubic, steep = curved
    if cubic.size > 0:
        _look_up(curves.cubic, curves.zero, planes, cubic)
        _look_up(curves.steep, curves.zero, planes, steep)
        for n in range(squares.size):
            current = planes[n] + cubic[n]
            squares[n] = current * current
        return
    if curves.bend.size > 0:
        _look_up(curves.bend, curves.zero, planes, planes)
    _square(planes, squares)
