"""One layer on a chip: its arrays behind converters, read in passes and charged for."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from rramsim.blackbox.codes import adc_code_max, dac_codes
from rramsim.blackbox.protocol import LayerCosts, LayerInfo
from rramsim.blackbox.windows import WindowCodes
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.tiles import LayerArray
from rramsim.kernels import read as read_kernels
from rramsim.kernels.windows import Geometry
from rramsim.streams import normal_table

__all__ = ["ChipLayer", "drive_matrix"]


class ChipLayer:
    """Arrays, converter ranges, noise keys and costs of one layer.

    Parameters
    ----------
    info : LayerInfo
    array : LayerArray
    mapping, converters : MappingConfig, ConverterConfig
    n_levels : int
        Levels of a cell.
    adc_key, read_key : uint64
        Keys of the layer's draws of converter and cell noise.
    """

    def __init__(
        self,
        info: LayerInfo,
        array: LayerArray,
        mapping: MappingConfig,
        converters: ConverterConfig,
        n_levels: int,
        adc_key: np.uint64,
        read_key: np.uint64,
    ) -> None:
        self.info = info
        self.array = array
        self.converters = converters
        self.adc_key, self.read_key = adc_key, read_key
        self.signed = False
        self.v_full = converters.v_read  # [V] at the largest DAC code
        self.output_range = 0.0  # [A]; 0 means not configured yet
        self.n_read = 0  # vectors so far: the counter of read and ADC noise
        self.costs = LayerCosts(weight_cells=info.n_cells)
        self.reference_written = False
        self._settings: tuple[Any, ...] = ()
        powers = n_levels ** np.arange(mapping.slices, dtype=np.int64)[::-1]
        self._weights = np.stack([powers, -powers], axis=1).ravel() if converters.adc_per_line else powers

    @property
    def code_high(self) -> int:
        """Largest DAC code."""
        return dac_codes(self.converters.dac_bits, self.signed)[1]

    @property
    def v_lsb(self) -> float:
        """Drive [V] of one DAC step, or of one bit."""
        bit_serial = self.converters.input_mode == "bit_serial"
        return self.v_full if bit_serial else self.v_full / self.code_high

    @property
    def passes(self) -> NDArray[np.int64]:
        """(bit, sign) of each array read of one vector: bit -1 is amplitude, sign 0 both."""
        return _passes(self.converters, self.signed)

    @property
    def _weight_sum(self) -> int:
        """Sum of the magnitudes of all digital weights of one column's conversions in a tile."""
        bits = self.passes[:, 0]
        return int((1 << np.maximum(bits, 0)).sum() * np.abs(self._weights).sum())

    def charge_reads(self, n_vectors: int) -> None:
        """Enter `n_vectors` into the costs."""
        costs, array_reads = self.costs, n_vectors * len(self.passes) * len(self.info.row_tiles)
        costs.vectors += n_vectors
        costs.array_reads += array_reads * self.info.n_col_tiles
        costs.conversions += array_reads * self.array.n_channels
        costs.seconds += n_vectors * len(self.passes) * self.converters.t_read  # tiles work in parallel

    def buffers(self, n_vectors: int, per_tile: bool) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Zeros for sums of codes and for marks, (n_row_tiles or 1, n_cols, n_vectors)."""
        n_tiles = len(self.info.row_tiles)
        shape = (n_tiles if per_tile else 1, self.info.n_cols, n_vectors)
        wide = n_tiles * adc_code_max(self.converters.adc_bits) * self._weight_sum >= 2**31
        return np.zeros(shape, np.int64 if wide else np.int32), np.zeros(shape, np.bool_)

    def read(
        self,
        data: NDArray[Any],
        geometry: Geometry | None,
        first: int,
        last: int,
        total: NDArray[Any],
        saturated: NDArray[np.bool_],
    ) -> None:
        """Add the conversions of entries first..last of a call to `buffers` of the whole call.

        Entries are vectors of codes (n_vectors, n_rows), or maps (n_images, c, h, w) with a geometry.
        """
        each = geometry.out_h * geometry.out_w if geometry else 1
        if not self.array.linear:
            where = slice(first * each, last * each)
            part = total[:, :, where].copy(), saturated[:, :, where].copy()
            self._read_nonlinear(data[first:last], geometry, *part)
            total[:, :, where], saturated[:, :, where] = part
            return
        settings = (self.array.packed(), self._conversion(total.dtype, self.n_read - first * each))
        n_threads = get_num_threads()
        if geometry is None:
            read_kernels.read_rows(data, first, last, *settings, n_threads, total, saturated)
        else:
            read_kernels.read_maps(data, first, last, geometry, *settings, n_threads, total, saturated)

    def _scales(self) -> NDArray[np.int64]:
        """Digital weight of each channel of a column in each pass."""
        bits, signs = self.passes.T
        return np.outer((1 << np.maximum(bits, 0)) * np.where(signs == 0, 1, signs), self._weights)

    def _conversion(self, total_type: Any, first_vector: int) -> read_kernels.Conversion:
        """Settings of a call whose first vector has the given number in the life of the layer."""
        key = (total_type, self.signed, self.v_full, self.output_range, self.adc_key)
        if self._settings[:1] != (key,):
            code_max = adc_code_max(self.converters.adc_bits)
            conversion = read_kernels.Conversion(
                gain=code_max / self.output_range * self.v_lsb,
                sigma=self.converters.adc_noise * code_max / adc_code_max(8),
                code_max=float(code_max),
                adc_key=self.adc_key,
                read_key=self.read_key,
                first_vector=0,
                passes=self.passes,
                scales=self._scales().astype(total_type),
                tiles=np.array(self.info.row_tiles, dtype=np.int64),
                table=normal_table(),
            )
            self._settings = (key, conversion)
        return self._settings[1]._replace(first_vector=first_vector)

    def _read_nonlinear(
        self,
        data: NDArray[Any],
        geometry: Geometry | None,
        total: NDArray[Any],
        saturated: NDArray[np.bool_],
    ) -> None:
        """Non-linear cells: Kirchhoff's laws for every vector, then the same conversion. Slow."""
        conversion = self._conversion(total.dtype, self.n_read)
        n_passes = len(conversion.passes)
        for index, (bit, sign) in enumerate(conversion.passes):
            drive = drive_matrix(data, geometry, bit, sign)
            for tile, (top, bottom) in enumerate(conversion.tiles):
                current = self.array.currents(slice(top, bottom), drive[:, top:bottom] * self.v_lsb)
                scaled = np.ascontiguousarray(current.T / np.float32(self.v_lsb))
                out = tile if total.shape[0] > 1 else 0
                read_kernels.convert_currents(
                    scaled, tile * n_passes + index, index, conversion, total[out], saturated[out]
                )


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
