"""Converters at the edge of an array: word-line DACs and bit-line ADCs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rramsim.checks import InputError
from rramsim.config import check_settings, setting

__all__ = ["ConverterConfig"]


@dataclass(frozen=True, kw_only=True)
class ConverterConfig:
    """Settings of DACs and ADCs; the same for every tile of a chip."""

    dac_bits: int = setting(8, "1", "resolution of the word lines' DACs", "[1, 24]")
    adc_bits: int = setting(8, "1", "resolution of the bit lines' ADCs", "[1, 24]")
    adc_noise: float = setting(
        0.5, "1", "standard deviation at the ADC input, in LSB of an 8-bit conversion", "[0, 256]",
        hint="256 LSB are the full scale of an 8-bit conversion",
    )  # fmt: skip
    v_read: float = setting(0.2, "V", "voltage of the largest DAC code", "(0, 100]", usual=(1e-3, 5.0))
    t_read: float = setting(1e-7, "s", "duration of one array read", "(0, inf)", usual=(1e-10, 10.0))
    drive: Literal["bipolar", "two_phase"] = setting(
        "bipolar", "", "signed inputs: one bipolar read, or one read per sign",
        choices=("bipolar", "two_phase"),
    )  # fmt: skip
    input_mode: Literal["amplitude", "bit_serial"] = setting(
        "amplitude", "", "codes as voltages, or bit by bit", choices=("amplitude", "bit_serial")
    )
    adc_per_line: bool = setting(False, "", "convert + and - lines apart and subtract digitally")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.input_mode == "bit_serial" and self.dac_bits > 8:
            raise InputError(f"bit_serial input takes 1..8 dac_bits, got {self.dac_bits}")
