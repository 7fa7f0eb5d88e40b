"""From integer codes to voltages on word lines: the input side of a layer's converters."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.blackbox.codes import dac_codes
from rramsim.blackbox.windows import WindowCodes
from rramsim.chip.converters import ConverterConfig
from rramsim.kernels.windows import Geometry

__all__ = ["Drive", "drive_matrix"]


@dataclass(frozen=True)
class Drive:
    """How the DAC codes of one layer drive its word lines.

    Parameters
    ----------
    converters : ConverterConfig
    signed : bool
        Whether codes are signed.
    v_full : float
        Voltage [V] of the largest DAC code.
    """

    converters: ConverterConfig
    signed: bool
    v_full: float

    @property
    def code_high(self) -> int:
        """Largest DAC code."""
        return dac_codes(self.converters.dac_bits, self.signed)[1]

    @property
    def v_lsb(self) -> float:
        """Voltage [V] of one DAC step, or of one bit."""
        bit_serial = self.converters.input_mode == "bit_serial"
        return self.v_full if bit_serial else self.v_full / self.code_high

    @property
    def passes(self) -> NDArray[np.int64]:
        """(bit, sign) of each array read of one vector: bit -1 is amplitude, sign 0 both."""
        return _passes(self.converters, self.signed)


@functools.cache
def _passes(converters: ConverterConfig, signed: bool) -> NDArray[np.int64]:
    signs = (1, -1) if signed and converters.drive == "two_phase" else (0,)
    if converters.input_mode == "amplitude":
        return np.array([(-1, sign) for sign in signs])
    n_bits = converters.dac_bits - 1 if signed and converters.dac_bits > 1 else converters.dac_bits
    return np.array([(bit, sign) for bit in range(n_bits) for sign in signs])


def drive_matrix(data: NDArray[Any], geometry: Geometry | None, bit: int, sign: int) -> NDArray[np.float32]:
    """Word-line drive (n_vectors, n_rows) of one pass in DAC steps or bits, laid out in full."""
    if geometry is not None:
        data = np.asarray(WindowCodes(data, geometry))
    if bit < 0:
        drive = data.astype(np.float32)
    else:
        drive = (((np.abs(data) >> bit) & 1) * np.sign(data)).astype(np.float32)
    return np.maximum(drive * sign, 0) if sign else drive
