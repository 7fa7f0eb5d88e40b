"""Integer codes of converters."""

from __future__ import annotations

__all__ = ["adc_code_max", "dac_codes"]


def dac_codes(bits: int, signed: bool) -> tuple[int, int]:
    """Smallest and largest DAC code; one signed bit still drives -1, 0, 1."""
    if signed:
        largest = max(2 ** (bits - 1) - 1, 1)
        return -largest, largest
    return 0, 2**bits - 1


def adc_code_max(bits: int) -> int:
    """Largest code of a signed symmetric ADC."""
    return max(2 ** (bits - 1) - 1, 1)
