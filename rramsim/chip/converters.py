"""Converters at the edge of an array: word-line DACs and bit-line ADCs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rramsim.checks import InputError

__all__ = ["ConverterConfig", "ConverterErrors"]


MAX_BITS_OF_STEPS = 12  # tables of uneven steps grow with 2**bits


@dataclass(frozen=True, kw_only=True)
class ConverterErrors:
    """Mismatch and non-linearity of converters, drawn once per chip; the table [converters.errors].

    Every converter has errors of its own: an ADC per channel and row tile, a DAC per row, a driver per
    word line and array. Distributions are normal (assumed). An integral non-linearity is a bow and an
    S-shape of random size, zero at both ends of the range (assumed shape); a differential one draws the
    width of every step, and a step of negative width is a missing code.
    """

    adc_gain: float = 0.0  # standard deviation of an ADC's gain, relative
    adc_offset: float = 0.0  # standard deviation of an ADC's offset, in its own LSB
    adc_inl: float = 0.0  # standard deviation of the largest deviation of an ADC's curve, in its own LSB
    adc_dnl: float = 0.0  # standard deviation of the width of an ADC's steps, in its own LSB
    dac_inl: float = 0.0  # the same of a DAC's curve, in LSB of the DAC
    dac_dnl: float = 0.0  # the same of a DAC's steps
    driver_gain: float = 0.0  # standard deviation of a word-line driver's gain, relative

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0.0 <= value < float("inf"):
                raise InputError(f"converters.errors.{name} must be >= 0 and finite, got {value}")
        for name in ("adc_gain", "driver_gain"):
            if not getattr(self, name) < 1.0:
                raise InputError(
                    f"converters.errors.{name} must be < 1, a fraction, got {getattr(self, name):g}"
                )


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
    errors: ConverterErrors | None = None  # ideal converters by default

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
        if self.errors is not None:
            self._check_errors(self.errors)

    def _check_errors(self, errors: ConverterErrors) -> None:
        for kind in ("adc", "dac"):
            uneven = getattr(errors, f"{kind}_inl") or getattr(errors, f"{kind}_dnl")
            bits = getattr(self, f"{kind}_bits")
            if uneven and bits > MAX_BITS_OF_STEPS:
                raise InputError(
                    f"converters.errors.{kind}_inl and {kind}_dnl need {kind}_bits <= {MAX_BITS_OF_STEPS}, "
                    f"got {bits}: every step has a width of its own"
                )
        if self.input_mode == "bit_serial" and (errors.dac_inl or errors.dac_dnl):
            raise InputError(
                "converters.errors.dac_inl and dac_dnl do nothing with bit_serial input, whose drivers know "
                "two voltages only; use driver_gain"
            )
