"""Converters at the edge of an array: word-line DACs and bit-line ADCs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rramsim.checks import InputError
from rramsim.config import check_settings, setting

__all__ = ["ConverterConfig", "ConverterErrors"]


MAX_BITS_OF_STEPS = 12  # tables of uneven steps grow with 2**bits


@dataclass(frozen=True, kw_only=True)
class ConverterErrors:
    """Mismatch and non-linearity of converters, drawn once per chip; the table [converters.errors].

    Every converter has errors of its own: an ADC per channel and row tile, a DAC per row, a driver per
    word line and array. Distributions are normal (assumed). An integral non-linearity is a bow and an
    S-shape of random size, zero at both ends of the range (assumed shape); a differential one draws the
    width of every step, and a step of negative width is a missing code.

    Examples
    --------
    >>> errors = ConverterErrors(adc_gain=0.01)
    >>> ConverterConfig(errors=errors).errors.adc_gain
    0.01
    """

    adc_gain: float = setting(
        0.0, "1", "standard deviation of an ADC's gain, relative", "[0, 1)", source="assumed"
    )
    adc_offset: float = setting(
        0.0, "1", "standard deviation of an ADC's offset, in its own LSB", "[0, inf)", source="assumed"
    )
    adc_inl: float = setting(
        0.0,
        "1",
        "standard deviation of the peaks of an ADC's curve, in its own LSB",
        "[0, inf)",
        source="assumed",
    )
    adc_dnl: float = setting(
        0.0,
        "1",
        "standard deviation of the width of an ADC's steps, in its own LSB",
        "[0, inf)",
        source="assumed",
    )
    dac_inl: float = setting(
        0.0,
        "1",
        "standard deviation of the peaks of a DAC's curve, in its own LSB",
        "[0, inf)",
        source="assumed",
    )
    dac_dnl: float = setting(
        0.0,
        "1",
        "standard deviation of the width of a DAC's steps, in its own LSB",
        "[0, inf)",
        source="assumed",
    )
    driver_gain: float = setting(
        0.0, "1", "standard deviation of a word-line driver's gain, relative", "[0, 1)", source="assumed"
    )

    def __post_init__(self) -> None:
        check_settings(self, "converters.errors.")


@dataclass(frozen=True, kw_only=True)
class ConverterConfig:
    """Settings of DACs and ADCs; the same for every tile of a chip.

    Examples
    --------
    >>> ConverterConfig(dac_bits=6, adc_bits=6, drive="two_phase").adc_per_line
    False
    """

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
    clock: Literal["ledger", "frozen"] = setting(
        "ledger", "", "whether cells age while they are read and written, or only in wait(...)",
        choices=("ledger", "frozen"),
    )  # fmt: skip
    adc_per_line: bool = setting(False, "", "convert + and - lines apart and subtract digitally")
    tile_codes: bool = setting(
        True, "", "tell the codes of single row tiles on request; false: only their sum"
    )
    errors: ConverterErrors | None = setting(None, "", "mismatch and non-linearity; absent: ideal converters")

    def __post_init__(self) -> None:
        check_settings(self)
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
