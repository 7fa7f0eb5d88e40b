"""One named random stream per physical cause.

A stream is identified by (seed, cause, keys...), for instance (seed, READ_NOISE,
chip, layer). Switching one cause off leaves the draws of the others untouched,
and no draw depends on the order of calls or on the number of threads.
"""

from __future__ import annotations

import functools
import statistics
import zlib
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cause", "key", "normal_table", "stream", "text_key"]


class Cause(IntEnum):
    """Physical or numerical cause of a draw; numbers are stored: append, never renumber."""

    CELL_FIXED = 0  # device-to-device part of a cell's programming error, once per cell
    CELL_WRITE = 1  # cycle-to-cycle part, once per write
    PULSE_SCATTER = 2  # scatter of single programming pulses in write-verify
    RELAXATION = 3  # conductance change after programming
    READ_NOISE = 4  # once per cell, read and vector
    TELEGRAPH = 5  # random telegraph noise
    ADC_NOISE = 6  # noise at the ADC input, once per conversion
    FAULT = 7  # which cells are stuck, and where
    DISTURB = 8  # susceptibility of a cell to read disturbance
    RESET = 9  # error of the reset state in which a chip arrives
    DRIFT = 10  # per-cell drift exponents
    DATA = 11  # choice of calibration images
    TUNER = 12  # perturbations and orders chosen by a tuning strategy
    EVALUATION = 13  # noise of evaluation reads, which runs on a fork
    CONVERTER = 14  # mismatch and non-linearity of each DAC, driver and ADC
    CORRELATED = 15  # part of programming errors that lines or a whole tile share
    DEAD_LINE = 16  # which word and bit lines are broken


def _sequence(seed: int, cause: Cause, keys: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence(int(seed), spawn_key=(int(cause), *(int(k) for k in keys)))


def stream(seed: int, cause: Cause, *keys: int) -> np.random.Generator:
    """Generator that depends on these arguments alone."""
    return np.random.default_rng(_sequence(seed, cause, keys))


def key(seed: int, cause: Cause, *keys: int) -> np.uint64:
    """64-bit key for the counter-based draws of `rramsim.kernels.counter`."""
    return np.uint64(_sequence(seed, cause, keys).generate_state(1, np.uint64)[0])


def text_key(text: str) -> int:
    """Stable 32-bit number for a name, for instance a layer's (CRC-32 of its UTF-8 bytes)."""
    return zlib.crc32(text.encode())


@functools.cache
def normal_table() -> NDArray[np.float32]:
    """4096 equally likely values of a normal variable of variance 1/2, for `rramsim.kernels.read`.

    The sum of two independent entries has variance 1; its distribution function differs from the
    normal one by less than 1e-5.
    """
    quantile = statistics.NormalDist().inv_cdf
    values = np.array([quantile((i + 0.5) / 4096) for i in range(4096)])
    return (values / values.std() / np.sqrt(2.0)).astype(np.float32)
