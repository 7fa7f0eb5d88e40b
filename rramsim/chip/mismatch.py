"""The individual converters of one layer: gains, offsets and uneven steps, drawn once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rramsim.blackbox.codes import adc_code_max, dac_codes
from rramsim.chip.converters import ConverterConfig, ConverterErrors
from rramsim.chip.layout import TileLayout
from rramsim.streams import Cause, stream

__all__ = ["DAC_FRACTION", "Mismatch"]

DAC_FRACTION = 8  # bits behind the point of a DAC code with its non-linearity
# keys of the draws, one per quantity: append, never renumber
_ADC_GAIN, _ADC_OFFSET, _ADC_INL, _ADC_DNL, _DAC_INL, _DAC_DNL, _DRIVER = range(7)
_S_PEAK = 3.0 * np.sqrt(3.0) / 2.0  # 1 / largest value of u (1 - u^2)


class Mismatch:
    """Errors of every converter of a layer.

    Parameters
    ----------
    converters : ConverterConfig
    layout : TileLayout
    n_channels : int
        Conversions per row tile.
    seed : int
    keys : tuple of int
        Identify the layer.

    Attributes
    ----------
    adc_gain, adc_offset : float32 ndarray, shape (n_row_tiles, n_channels)
        Factor, and shift [ADC codes]; empty for ideal ADCs.
    adc_edges : float32 ndarray, shape (n_row_tiles, n_channels, 2 code_max)
        Input [ADC codes] at which each code begins; empty for even steps.
    """

    def __init__(
        self,
        converters: ConverterConfig,
        layout: TileLayout,
        n_channels: int,
        seed: int,
        keys: tuple[int, ...],
    ) -> None:
        self._errors = errors = converters.errors or ConverterErrors()
        self._converters, self._seed, self._keys = converters, seed, keys
        shape = (len(layout.row_tiles), n_channels)
        self.adc_gain = self.adc_offset = np.empty((0, 0), np.float32)
        self.adc_edges = np.empty((0, 0, 0), np.float32)
        if errors.adc_gain or errors.adc_offset or errors.adc_inl or errors.adc_dnl:
            self.adc_gain = (1.0 + errors.adc_gain * self._normal(_ADC_GAIN, shape)).astype(np.float32)
            self.adc_offset = (errors.adc_offset * self._normal(_ADC_OFFSET, shape)).astype(np.float32)
        if errors.adc_inl or errors.adc_dnl:
            top = adc_code_max(converters.adc_bits)
            edges = np.arange(-top, top, dtype=np.float64) + 0.5
            bent = _curve(edges / top, errors.adc_inl, self._normal(_ADC_INL, (*shape, 2)))
            width = 1.0 + errors.adc_dnl * self._normal(_ADC_DNL, (*shape, edges.size - 1))
            self.adc_edges = (edges + bent + _walk(width)).astype(np.float32)
            # overlapping curves leave no code behind another: an edge is never before the one below
            np.maximum.accumulate(self.adc_edges, axis=2, out=self.adc_edges)
        self._layout = layout
        self._steps: dict[bool, NDArray[np.int32]] = {}

    def _normal(self, which: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return stream(self._seed, Cause.CONVERTER, *self._keys, which).standard_normal(shape)

    def driver_gain(self) -> NDArray[np.float32] | None:
        """Factor of the driver of each cell's word line, (n_word_lines, n_lines); None for equal ones."""
        if not self._errors.driver_gain:
            return None
        layout = self._layout
        gain = 1.0 + self._errors.driver_gain * self._normal(
            _DRIVER, (layout.n_word_lines, len(layout.line_tiles))
        )
        widths = [last - first for first, last in layout.line_tiles]
        return np.repeat(gain, widths, axis=1).astype(np.float32)

    def dac_steps(self, signed: bool) -> NDArray[np.int32] | None:
        """What each code drives, in DAC steps / 2**DAC_FRACTION, (n_rows, n_codes); None for even steps."""
        errors = self._errors
        if not (errors.dac_inl or errors.dac_dnl):
            return None
        if signed not in self._steps:
            self._steps[signed] = self._draw_steps(errors, signed)
        return self._steps[signed]

    def _draw_steps(self, errors: ConverterErrors, signed: bool) -> NDArray[np.int32]:
        low, high = dac_codes(self._converters.dac_bits, signed)
        codes, n_rows = np.arange(low, high + 1.0), self._layout.n_rows
        # the curve belongs to the DAC: unsigned codes use all of it, signed ones as well
        position = 2.0 * (codes - low) / (high - low) - 1.0
        bent = _curve(position, errors.dac_inl, self._normal(_DAC_INL, (n_rows, 2)))
        width = 1.0 + errors.dac_dnl * self._normal(_DAC_DNL, (n_rows, codes.size - 1))
        bent += _walk(width)
        return np.rint((codes + bent) * 2**DAC_FRACTION).astype(np.int32)


def _curve(u: NDArray[np.float64], size: float, draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth deviation at positions u in [-1, 1]: a bow and an S-shape, each with peak 1."""
    shapes = np.stack([1.0 - u**2, _S_PEAK * u * (1.0 - u**2)])
    return size / np.sqrt(2.0) * (draws @ shapes)


def _walk(width: NDArray[np.float64]) -> NDArray[np.float64]:
    """Deviation of the ends of steps of the given widths from even ones, zero at both ends."""
    ends = np.zeros((*width.shape[:-1], width.shape[-1] + 1))
    np.cumsum(np.maximum(width, 0.0), axis=-1, out=ends[..., 1:])
    n = ends.shape[-1]
    return ends - np.arange(n) - np.linspace(0.0, 1.0, n) * (ends[..., -1:] - (n - 1))
