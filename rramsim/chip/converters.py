"""Converters at the edge of an array: word-line DACs and bit-line ADCs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rramsim.checks import InputError

__all__ = ["ConverterConfig"]


@dataclass(frozen=True, kw_only=True)
class ConverterConfig:
    """Settings of DACs and ADCs; the same for every tile of a chip."""

    dac_bits: int = 8
    adc_bits: int = 8
    adc_noise: float = 0.5  # standard deviation at the ADC input, in LSB of an 8-bit conversion
    v_read: float = 0.2  # [V] voltage of the largest DAC code
    t_read: float = 1e-7  # [s] one array read
    drive: Literal["bipolar", "two_phase"] = "bipolar"  # two_phase: one read per input sign
    input_mode: Literal["amplitude", "bit_serial"] = "amplitude"
    adc_per_line: bool = False  # convert + and - lines apart and subtract digitally

    def __post_init__(self) -> None:
        for name in ("dac_bits", "adc_bits"):
            bits = getattr(self, name)
            if not 1 <= bits <= 24:
                raise InputError(f"{name} must lie in 1..24, got {bits}")
        if not self.adc_noise >= 0:
            raise InputError(f"adc_noise must be >= 0 LSB, got {self.adc_noise}")
        for name in ("v_read", "t_read"):
            if not getattr(self, name) > 0:
                unit = "V" if name == "v_read" else "s"
                raise InputError(f"{name} must be > 0 {unit}, got {getattr(self, name)}")
        if self.input_mode == "bit_serial" and self.dac_bits > 8:
            raise InputError(f"bit_serial input takes 1..8 dac_bits, got {self.dac_bits}")
