"""One layer on a chip: its arrays behind converters, its disturbance, its costs and its state."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from rramsim.blackbox.codes import adc_code_max
from rramsim.blackbox.mapping import conductance_unit
from rramsim.blackbox.protocol import LayerCosts, LayerInfo, Reading
from rramsim.blackbox.windows import WindowCodes
from rramsim.cell import CellArray
from rramsim.cell.pulses import VERIFY_SHARE, likely_cause
from rramsim.checks import InputError, VerifyWarning
from rramsim.chip.config import ChipConfig
from rramsim.chip.disturbance import ReadStress
from rramsim.chip.drive import Drive, drive_matrix
from rramsim.chip.layer_array import LayerArray
from rramsim.chip.layout import TileLayout
from rramsim.chip.mismatch import DAC_FRACTION, Mismatch
from rramsim.chip.nonlinear import law_curves
from rramsim.chip.placement import Place
from rramsim.chip.variation import Variation
from rramsim.kernels import read as read_kernels
from rramsim.kernels.curved import Curves
from rramsim.kernels.windows import Geometry
from rramsim.streams import Cause, key, normal_table, text_key

__all__ = ["ChipLayer", "laid_out"]

FEW_CELLS = 32  # a write of fewer is not judged by its share of failures
TABLE_BITS = 16  # largest DAC resolution for which a law is tabled
LAID_OUT = 8192  # vectors laid out as a matrix at a time


class ChipLayer:
    """Arrays, converter ranges, noise keys, disturbance and costs of one layer.

    Parameters
    ----------
    layout : TileLayout
    places : sequence of Place
        Where each block of the layer lies.
    config : ChipConfig
        The kind of chip.
    variation : Variation or None
        Errors that the chip's cells share.
    name : str
    seed, chip, position : int
        The individual chip and the layer's place on it: they decide every draw.
    """

    def __init__(
        self,
        layout: TileLayout,
        places: Sequence[Place],
        config: ChipConfig,
        variation: Variation | None,
        *,
        name: str,
        seed: int,
        chip: int,
        position: int,
    ) -> None:
        mapping, converters = config.mapping, config.converters
        levels = tuple(float(g) for g in config.cells.scale.levels)
        self._keys = (chip, position if mapping.layer_keys == "position" else text_key(name))
        self._seed = seed
        shape = layout.n_word_lines, layout.n_lines
        shared = dead_word = dead_bit = None
        if variation is not None:
            shared, dead_word, dead_bit = variation.of_layer(shape, layout.blocks, places)
        cells = CellArray(
            shape, config.cells, config.faults, config.disturb, seed=seed, keys=self._keys, variation=shared
        )
        self.array = LayerArray(layout, cells, per_line=converters.adc_per_line or mapping.single_lines)
        self.mismatch = Mismatch(converters, layout, self.array.n_channels, seed, self._keys)
        gain = self.mismatch.driver_gain()
        if dead_word is not None and dead_word.any():
            gain = np.where(dead_word, np.float32(0.0), np.float32(1.0) if gain is None else gain)
        self.array.driver_gain = gain
        if variation is not None:
            self.array.dead_bit = dead_bit if dead_bit is not None and dead_bit.any() else None
            self.array.v_half = variation.config.v_half
        self.info = LayerInfo(
            name=name,
            n_rows=layout.n_rows,
            n_cols=layout.n_cols,
            cells_per_weight=mapping.cells_per_weight,
            row_tiles=layout.row_tiles,
            n_col_tiles=len(layout.col_tiles),
            g_unit=layout.n_copies * conductance_unit(mapping.kind, levels),
        )
        self.converters = converters
        self.adc_key = key(seed, Cause.ADC_NOISE, *self._keys)
        self.read_key = key(seed, Cause.READ_NOISE, *self._keys)
        self.drive = Drive(converters, signed=False, v_full=converters.v_read)
        self.output_range = 0.0  # [A]; 0 means not configured yet
        self.n_read = 0  # vectors so far: the counter of read and ADC noise
        self.costs = LayerCosts(weight_cells=self.n_weight_cells)
        self.pending = 0.0  # [s] that writes and reads took and that has not passed for the cells yet
        self.reference_written = False
        self._warned = False
        self.n_levels = len(levels)
        self.reference_level = mapping.level_of_reference(len(levels))
        self._settings: tuple[Any, ...] = ()
        powers = self.n_levels ** np.arange(mapping.slices, dtype=np.int64)[::-1]
        self._weights = np.stack([powers, -powers], axis=1).ravel() if converters.adc_per_line else powers
        if 2 * self._largest_sum >= 2**63:  # two phases at most
            raise InputError(
                f"layer {name!r}: sums of its conversions must fit in 64 bits, got up to "
                f"{self._largest_sum:.3g}; choose fewer slices, ADC bits or levels"
            )
        # None on a fork, whose reads leave no traces
        self.stress = ReadStress(self.array, self.drive, config.disturb) if config.disturb.enabled else None

    @property
    def n_weight_cells(self) -> int:
        """Cells that hold weights, copies counted."""
        return self.array.layout.n_copies * self.info.n_cells

    # -- writing ------------------------------------------------------------------------------

    def write(self, levels: NDArray[np.integer], mask: NDArray[np.bool_]) -> None:
        """Program checked level targets (n_rows, n_cols, cells_per_weight) and charge for it."""
        layout = self.array.layout
        line_levels = np.zeros((layout.n_rows, layout.n_lines), dtype=np.int64)
        line_mask = np.zeros((layout.n_rows, layout.n_lines), dtype=bool)
        line_levels[:, layout.line_of] = levels
        line_mask[:, layout.line_of] = mask
        if layout.reference_lines.size and not self.reference_written:
            line_levels[:, layout.reference_lines] = self.reference_level
            line_mask[:, layout.reference_lines] = True
            self.reference_written = True
        self.advance()
        report = self.array.write(layout.on_word_lines(line_levels), layout.on_word_lines(line_mask))
        costs = self.costs
        n_references = layout.n_copies * int(line_mask[:, layout.reference_lines].sum())
        costs.cell_writes += int(report.n_cells) - n_references
        costs.reference_writes += n_references
        costs.pulses += int(report.n_pulses)
        costs.max_cycles = int(self.array.cells.write_count.max())
        costs.failed_writes += int(report.n_failed)
        self._warn_of_failures(int(report.n_failed), int(report.n_cells))
        self._take(report.seconds or 0.0)
        if report.n_pulses and (report.joules is None or costs.joules is None):
            costs.joules = None
        elif costs.joules is not None:
            costs.joules += report.joules or 0.0

    def _warn_of_failures(self, n_failed: int, n_cells: int) -> None:
        """Once in the layer's life, where a write of many cells missed the verify window too often."""
        if self._warned or n_cells < FEW_CELLS or n_failed <= VERIFY_SHARE * n_cells:
            return
        self._warned = True
        cells = self.array.cells
        warnings.warn(
            f"layer {self.info.name!r}: {n_failed / n_cells:.0%} of {n_cells:,} cells written missed the "
            f"verify window (expected below {VERIFY_SHARE:.0%}); likely cause: "
            f"{likely_cause(cells.config, cells.faults)}",
            VerifyWarning,
            stacklevel=4,
        )

    def set_input_range(self, signed: bool, v_full: float) -> None:
        """Let the largest DAC code drive `v_full` [V]."""
        drive = replace(self.drive, signed=signed, v_full=v_full)
        if drive != self.drive:
            if self.stress is not None:
                self.stress.set_drive(drive)
            self.drive = drive

    # -- time and reads without answers -------------------------------------------------------

    def advance(self) -> None:
        """Let the reads counted so far act on the cells."""
        if self.stress is not None:
            self.stress.advance()

    def wait(self, seconds: float, kelvin: float | None = None) -> None:
        """Let time pass [s], at a temperature [K] if given: cells relax and drift."""
        self.advance()
        if self.array.cells.timed:
            self.array.wait(seconds, kelvin)
        else:
            self.array.cells.clock += seconds

    def age(self, n_reads: float, codes: NDArray[Any] | None) -> None:
        """Let `n_reads` vectors with the distribution of `codes` act at once; full drive for None."""
        if self.stress is not None:
            self.stress.age(n_reads, codes)

    # -- reading ------------------------------------------------------------------------------

    def mvm(self, data: NDArray[Any], geometry: Geometry | None, per_tile: bool = False) -> Reading:
        """Conversions of checked codes, summed over row tiles or `per_tile`; see `ChipProtocol.mvm`.

        Parameters
        ----------
        data : integer ndarray
            Vectors of codes (n_vectors, n_rows), or maps (n_images, c, h, w) with a geometry.
        """
        each = geometry.out_h * geometry.out_w if geometry else 1
        n_vectors = len(data) * each
        total, saturated = self._buffers(n_vectors, per_tile)
        stress = self.stress
        chunks = [(0, len(data))] if stress is None else stress.chunks(len(data), each, self.n_read)
        for first, last in chunks:
            self._read(data, geometry, first, last, total, saturated)
            if stress is not None:
                stress.count(data[first:last], geometry, self.n_read)
            self.n_read += (last - first) * each
        self._charge_reads(n_vectors)
        if per_tile:
            return Reading(total.transpose(2, 0, 1), saturated.transpose(2, 0, 1))
        return Reading(total[0].T, saturated[0].T)

    @property
    def _weight_sum(self) -> int:
        """Sum of the magnitudes of all digital weights of one column's conversions in a tile."""
        bits = self.drive.passes[:, 0]
        return int((1 << np.maximum(bits, 0)).sum()) * int(np.abs(self._weights).sum())

    def _charge_reads(self, n_vectors: int) -> None:
        """Enter `n_vectors` into the costs."""
        costs, array_reads = self.costs, n_vectors * len(self.drive.passes) * len(self.info.row_tiles)
        costs.vectors += n_vectors
        costs.array_reads += array_reads * self.info.n_col_tiles
        costs.conversions += array_reads * self.array.n_channels
        self._take(self.read_seconds(n_vectors))

    def read_seconds(self, n_vectors: float) -> float:
        """Time [s] of `n_vectors` vectors; tiles work in parallel."""
        return n_vectors * len(self.drive.passes) * self.converters.t_read

    def _take(self, seconds: float) -> None:
        """Enter time into the costs, and let the chip's clock know."""
        self.costs.seconds += seconds
        if self.converters.clock == "ledger":
            self.pending += seconds

    def _buffers(self, n_vectors: int, per_tile: bool) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Zeros for sums of codes and for marks, (n_row_tiles or 1, n_cols, n_vectors)."""
        n_tiles = len(self.info.row_tiles)
        shape = (n_tiles if per_tile else 1, self.info.n_cols, n_vectors)
        wide = self._largest_sum >= 2**31
        return np.zeros(shape, np.int64 if wide else np.int32), np.zeros(shape, np.bool_)

    @property
    def _largest_sum(self) -> int:
        """Bound of what all conversions of a column add up to."""
        return len(self.info.row_tiles) * adc_code_max(self.converters.adc_bits) * self._weight_sum

    def _read(
        self,
        data: NDArray[Any],
        geometry: Geometry | None,
        first: int,
        last: int,
        total: NDArray[Any],
        saturated: NDArray[np.bool_],
    ) -> None:
        """Add the conversions of entries first..last of a call to `_buffers` of the whole call.

        Entries are vectors of codes (n_vectors, n_rows), or maps (n_images, c, h, w) with a geometry.
        """
        each = geometry.out_h * geometry.out_w if geometry else 1
        steps = self.mismatch.dac_steps(self.drive.signed)
        if steps is not None or not self._by_products:
            at_once = max(1, LAID_OUT // each)
            for begin in range(first, last, at_once):
                part = data[begin : min(begin + at_once, last)]
                where = slice(begin * each, (begin + len(part)) * each)
                done = (begin - first) * each
                sums, marks = total[:, :, where].copy(), saturated[:, :, where].copy()
                self._read_laid_out(laid_out(part, geometry, steps), done, sums, marks)
                total[:, :, where], saturated[:, :, where] = sums, marks
            return
        conversion = self._conversion(total.dtype, self.n_read - first * each)
        settings = (*self.array.packed(), conversion, self._settings[2])
        n_threads = get_num_threads()
        if geometry is None:
            read_kernels.read_rows(data, first, last, *settings, n_threads, total, saturated)
        else:
            read_kernels.read_maps(data, first, last, geometry, *settings, n_threads, total, saturated)

    @property
    def _by_products(self) -> bool:
        """Whether matrix products answer a read; a law's table of all drives must fit in memory."""
        return self.array.by_products and (self.array.linear or self.converters.dac_bits <= TABLE_BITS)

    def _curves(self) -> Curves:
        """The cells' law at every drive of one pass."""
        largest = 1 if self.converters.input_mode == "bit_serial" else self.drive.code_high
        tabled = self.converters.dac_bits <= TABLE_BITS
        alpha = self.array.alpha if tabled else 0.0
        return law_curves(alpha, largest, self.drive.v_lsb, self.array.wired)

    def _scales(self) -> NDArray[np.int64]:
        """Digital weight of each channel of a column in each pass."""
        bits, signs = self.drive.passes.T
        return np.outer((1 << np.maximum(bits, 0)) * np.where(signs == 0, 1, signs), self._weights)

    def _conversion(self, total_type: Any, first_vector: int) -> read_kernels.Conversion:
        """Settings of a call whose first vector has the given number in the life of the layer."""
        key = (total_type, self.drive, self.output_range, self.adc_key)
        if self._settings[:1] != (key,):
            code_max = adc_code_max(self.converters.adc_bits)
            conversion = read_kernels.Conversion(
                gain=code_max / self.output_range * self.v_step,
                sigma=self.converters.adc_noise * code_max / adc_code_max(8),
                code_max=float(code_max),
                adc_key=self.adc_key,
                read_key=self.read_key,
                first_vector=0,
                passes=self.drive.passes,
                scales=self._scales().astype(total_type),
                tiles=np.array(self.info.row_tiles, dtype=np.int64),
                table=normal_table(),
                adc_gain=self.mismatch.adc_gain,
                adc_offset=self.mismatch.adc_offset,
                adc_edges=self.mismatch.adc_edges,
            )
            self._settings = (key, conversion, self._curves())
        return self._settings[1]._replace(first_vector=first_vector)

    @property
    def v_step(self) -> float:
        """Voltage [V] of a step of laid-out codes."""
        even = self.mismatch.dac_steps(self.drive.signed) is None
        return self.drive.v_lsb if even else self.drive.v_lsb / 2**DAC_FRACTION

    def _read_laid_out(
        self, codes: NDArray[np.integer], done: int, total: NDArray[Any], saturated: NDArray[np.bool_]
    ) -> None:
        """Read a matrix of codes or of DAC steps, `done` vectors after the first of `_read`."""
        conversion = self._conversion(total.dtype, self.n_read + done)
        if self.array.linear:
            n_threads = get_num_threads()
            read_kernels.read_rows(
                codes,
                0,
                len(codes),
                *self.array.packed(),
                conversion,
                self._settings[2],
                n_threads,
                total,
                saturated,
            )
            return
        # non-linear cells: Kirchhoff's laws for every vector, then the same conversion. Slow.
        n_passes = len(conversion.passes)
        for index, (bit, sign) in enumerate(conversion.passes):
            drive = drive_matrix(codes, None, bit, sign)
            for tile, (top, bottom) in enumerate(conversion.tiles):
                normals = _Normals(self.read_key, conversion.first_vector, tile * n_passes + index)
                current = self.array.currents(tile, drive[:, top:bottom] * self.v_step, normals)
                scaled = np.ascontiguousarray(current.T / np.float32(self.v_step))
                out = tile if total.shape[0] > 1 else 0
                read_kernels.convert_currents(
                    scaled, tile * n_passes + index, index, conversion, total[out], saturated[out]
                )

    # -- copies and state -----------------------------------------------------------------------

    def fork(self, array: LayerArray, stream: int, first_vector: int) -> ChipLayer:
        """Copy for evaluation around a copy of the array.

        It has its own costs and noise stream, and its reads leave no disturbance.
        """
        twin = copy.copy(self)
        twin.array = array
        twin.stress = None
        twin.adc_key = key(self._seed, Cause.EVALUATION, *self._keys, stream, 0)
        twin.read_key = key(self._seed, Cause.EVALUATION, *self._keys, stream, 1)
        twin.n_read = first_vector
        twin.costs = LayerCosts(weight_cells=self.n_weight_cells)
        return twin

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes over the layer's life, as nested dicts of arrays and numbers."""
        return {
            "cells": self.array.cells.state_dict(),
            "array": self.array.state_dict(),
            "signed": self.drive.signed,
            "v_full": self.drive.v_full,
            "output_range": self.output_range,
            "n_read": self.n_read,
            "pending": self.pending,
            "reference_written": self.reference_written,
            "stress": None if self.stress is None else self.stress.state_dict(),
            "costs": dict(vars(self.costs)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict` bit for bit."""
        self.array.cells.load_state_dict(state["cells"])
        self.array.load_state_dict(state["array"])
        self.drive = replace(self.drive, signed=bool(state["signed"]), v_full=float(state["v_full"]))
        self.output_range, self.n_read = float(state["output_range"]), int(state["n_read"])
        self.pending = float(state["pending"])
        self.reference_written = bool(state["reference_written"])
        if self.stress is not None and state["stress"] is not None:
            self.stress.load_state_dict(state["stress"], self.drive)
        self.costs = LayerCosts(**state["costs"])


class _Normals:
    """Standard normal numbers of cells' read noise, keyed by layer, tile, pass and vector."""

    def __init__(self, key: np.uint64, first_vector: int, counter: int) -> None:
        self._key, self._vector, self._counter = int(key), first_vector, counter

    def __call__(
        self, n_vectors: int, shape: tuple[int, ...], part: int = 0
    ) -> Iterator[NDArray[np.float64]]:
        """Numbers of the given shape for each of the next vectors; `part` tells arrays apart."""
        for vector in range(self._vector, self._vector + n_vectors):
            bits = np.random.Philox(key=self._key, counter=[0, part, self._counter, vector])
            yield np.random.Generator(bits).standard_normal(shape)


def laid_out(
    data: NDArray[Any], geometry: Geometry | None, steps: NDArray[np.int32] | None
) -> NDArray[np.integer]:
    """Codes, or what each row's DAC makes of them (signed codes count from the smallest), as a matrix."""
    codes = data if geometry is None else np.asarray(WindowCodes(data, geometry))
    if steps is None:
        return codes
    zero = steps.shape[1] // 2 if steps.shape[1] % 2 else 0
    return steps[np.arange(len(steps)), codes + zero]
