"""A simulated multi-level RRAM chip behind the black-box protocol of `rramsim.protocol`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.array import LayerArray, refresh_all
from rramsim.cell import CellArray, CellsConfig, DisturbConfig, FaultsConfig
from rramsim.checks import InputError, nearest_name
from rramsim.kernels import read as read_kernels
from rramsim.kernels.windows import Geometry
from rramsim.lowered import WindowCodes, border_classes
from rramsim.mapping import MappingConfig, TileLayout, conductance_unit, reference_level
from rramsim.periphery import ConverterConfig, adc_code_max, dac_codes
from rramsim.protocol import Datasheet, LayerCosts, LayerInfo, Ledger, Reading
from rramsim.random import Cause, key, normal_table, text_key
from rramsim.wiring import WiresConfig

__all__ = ["ChipConfig", "SimulatedChip"]

EXACT_VECTORS = 64  # vectors per solve of cell voltages in disturb mode 'exact'
BLOCK_ELEMENTS = 1 << 18  # codes laid out at a time: their float copy stays in the second-level cache


@dataclass(frozen=True, kw_only=True)
class ChipConfig:
    """Everything that makes a kind of chip; a single chip is this and (seed, chip id)."""

    mapping: MappingConfig = field(default_factory=MappingConfig)
    converters: ConverterConfig = field(default_factory=ConverterConfig)
    cells: CellsConfig = field(default_factory=CellsConfig)
    faults: FaultsConfig = field(default_factory=FaultsConfig)
    disturb: DisturbConfig = field(default_factory=DisturbConfig)
    wires: WiresConfig | None = None
    state_tolerance: float = 1e-4  # change of a cell over g_max that makes a wired tile be solved again

    def __post_init__(self) -> None:
        if self.converters.adc_per_line and self.mapping.kind == "reference":
            raise InputError("adc_per_line needs differential or sliced mapping, got reference")
        for name in ("v_read", "t_read"):
            read, stress = getattr(self.converters, name), getattr(self.disturb, name)
            if self.disturb.enabled and read != stress:
                raise InputError(
                    f"disturb.{name} must equal converters.{name}, got {stress:g} and {read:g}; "
                    "set both, the law is evaluated at the voltage and pulse of the reads"
                )
        if self.cells.iv_alpha and self.disturb.enabled and self.disturb.mode == "exact":
            raise InputError("disturb.mode 'exact' needs linear cells (iv_alpha = 0); choose 'fast'")


class _Layer:
    """One layer: its arrays, converter ranges, noise keys and costs."""

    def __init__(self, info: LayerInfo, array: LayerArray, full_scale: float, noise: tuple[Any, Any]) -> None:
        self.info = info
        self.array = array
        self.signed = False
        self.v_full = full_scale  # [V] at the largest DAC code
        self.output_range = 0.0  # [A]; 0 means not configured yet
        self.n_read = 0  # vectors so far: the counter of read and ADC noise
        self.costs = LayerCosts(weight_cells=info.n_cells)
        self.adc_key, self.read_key = (np.uint64(k) for k in noise)
        self.reference_written = False
        self.histogram: NDArray[Any] | None = None  # reads per word line and code that have not acted yet


class SimulatedChip:
    """Cells, wires and converters of a chip that holds the given layers.

    Parameters
    ----------
    config : ChipConfig
        The kind of chip.
    shapes : mapping of str to (n_rows, n_cols)
        Layers in network order; see `rramsim.Deployment.shapes`.
    seed, chip : int
        Together they name the individual: the same pair has the same cells.
    """

    def __init__(
        self,
        config: ChipConfig,
        shapes: Mapping[str, tuple[int, int]],
        *,
        seed: int = 0,
        chip: int = 0,
    ) -> None:
        if not shapes:
            raise InputError("a chip needs at least one layer, got an empty mapping of shapes")
        self.config = config
        self.seed = int(seed)
        self.chip = int(chip)
        self._levels = tuple(float(g) for g in config.cells.scale.levels)
        self._leaves_traces = True  # reads are counted as disturbance; a fork's are not
        self._layers: dict[str, _Layer] = {}
        for name, (n_rows, n_cols) in shapes.items():
            self._layers[name] = self._build_layer(name, int(n_rows), int(n_cols))
        self._infos = {name: layer.info for name, layer in self._layers.items()}

    def _build_layer(self, name: str, n_rows: int, n_cols: int) -> _Layer:
        config = self.config
        layout = TileLayout.build(n_rows, n_cols, config.mapping)
        keys = (self.chip, text_key(name))
        cells = CellArray(
            (n_rows, layout.n_lines), config.cells, config.faults, config.disturb, seed=self.seed, keys=keys
        )
        array = LayerArray(
            layout,
            cells,
            config.wires,
            per_line=config.converters.adc_per_line,
            tolerance=config.state_tolerance,
        )
        info = LayerInfo(
            name=name,
            n_rows=n_rows,
            n_cols=n_cols,
            cells_per_weight=config.mapping.cells_per_weight,
            row_tiles=layout.row_tiles,
            n_col_tiles=len(layout.col_tiles),
            g_unit=conductance_unit(config.mapping.kind, self._levels),
        )
        noise = (key(self.seed, Cause.ADC_NOISE, *keys), key(self.seed, Cause.READ_NOISE, *keys))
        return _Layer(info, array, config.converters.v_read, noise)

    # -- protocol -----------------------------------------------------------------------------

    @property
    def datasheet(self) -> Datasheet:
        """Nominal data of this kind of chip."""
        cells, converters, mapping = self.config.cells, self.config.converters, self.config.mapping
        return Datasheet(
            mapping=mapping.kind,
            n_levels=len(self._levels),
            levels=self._levels,
            v_read=converters.v_read,
            dac_bits=converters.dac_bits,
            adc_bits=converters.adc_bits,
            adc_noise=converters.adc_noise,
            tile_rows=mapping.tile_rows,
            tile_cols=mapping.tile_cols,
            t_read=converters.t_read,
            input_mode=converters.input_mode,
            adc_per_line=converters.adc_per_line,
            error_law=cells.law,
        )

    @property
    def layers(self) -> Mapping[str, LayerInfo]:
        """Shapes by name."""
        return MappingProxyType(self._infos)

    @property
    def ledger(self) -> Ledger:
        """Costs since the chip arrived (a copy)."""
        return Ledger({name: copy.copy(layer.costs) for name, layer in self._layers.items()})

    def write(self, layer: str, levels: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Program level targets; see `ChipProtocol.write`."""
        item = self._layer(layer)
        info, layout = item.info, item.array.layout
        shape = (info.n_rows, info.n_cols, info.cells_per_weight)
        levels = _integers(levels, f"levels of {layer!r}", shape, 0, len(self._levels) - 1)
        if mask is None:
            mask = np.ones(shape, dtype=bool)
        mask = np.asarray(mask)
        if mask.shape != shape or mask.dtype != np.bool_:
            raise InputError(
                f"mask of {layer!r} must be bool of shape {shape}, got {mask.dtype} {mask.shape}"
            )
        line_levels = np.zeros((info.n_rows, layout.n_lines), dtype=np.int64)
        line_mask = np.zeros((info.n_rows, layout.n_lines), dtype=bool)
        line_levels[:, layout.line_of] = levels
        line_mask[:, layout.line_of] = mask
        if layout.reference_lines.size and not item.reference_written:
            line_levels[:, layout.reference_lines] = reference_level(len(self._levels))
            line_mask[:, layout.reference_lines] = True
            item.reference_written = True
        self._advance(item)
        report = item.array.cells.write(line_levels, line_mask)
        costs = item.costs
        costs.cell_writes += int(report.n_cells)
        costs.pulses += int(report.n_pulses)
        costs.max_cycles = int(item.array.cells.write_count.max())
        costs.seconds += report.seconds or 0.0
        costs.joules += report.joules or 0.0

    def configure(
        self,
        layer: str,
        *,
        input_range: tuple[float, float] | None = None,
        output_range: float | None = None,
    ) -> None:
        """Set converter ranges; see `ChipProtocol.configure`."""
        item = self._layer(layer)
        if input_range is not None:
            low, high = (float(v) for v in input_range)
            if not (high > 0 and (low == 0 or low == -high)):
                raise InputError(
                    f"input_range of {layer!r} must be (0, v) or (-v, v), v > 0 V, got ({low:g}, {high:g})"
                )
            if high > self.config.converters.v_read * (1 + 1e-9):
                raise InputError(
                    f"input_range of {layer!r} must not exceed v_read = {self.config.converters.v_read:g} V, "
                    f"got {high:g} V"
                )
            if (item.signed, item.v_full) != (low < 0, high):
                self._advance(item)  # codes counted so far stand for voltages of the old range
                item.signed, item.v_full, item.histogram = low < 0, high, None
        if output_range is not None:
            output_range = float(output_range)
            if not (np.isfinite(output_range) and output_range > 0):
                raise InputError(f"output_range of {layer!r} must be > 0 A, got {output_range:g}")
            item.output_range = output_range

    def mvm(self, layer: str, codes: ArrayLike | WindowCodes, per_tile: bool = False) -> Reading:
        """Multiply vectors by the stored matrix; see `ChipProtocol.mvm`."""
        item = self._layer(layer)
        info, converters = item.info, self.config.converters
        if item.output_range == 0.0:
            raise InputError(f"layer {layer!r} has no output_range yet: call configure(...) before mvm(...)")
        low, high = dac_codes(converters.dac_bits, item.signed)
        name = f"codes of {layer!r}"
        if isinstance(codes, WindowCodes):
            if codes.shape[1] != info.n_rows:
                raise InputError(f"{name} must have shape (any, {info.n_rows}), got {codes.shape}")
            data = _integers(codes.maps, name, (None,) * 4, low, high)
            vectors_each = codes.geometry.out_h * codes.geometry.out_w
        else:
            data = _integers(codes, name, (None, info.n_rows), low, high)
            vectors_each = 1
        data = data.astype(np.int16 if converters.dac_bits <= 15 else np.int32, copy=False)
        n_vectors = len(data) * vectors_each
        total_type = np.int32 if self._code_bound(item) < 2**31 else np.int64
        shape = (len(info.row_tiles) if per_tile else 1, info.n_cols, n_vectors)
        total, saturated = np.zeros(shape, dtype=total_type), np.zeros(shape, dtype=np.bool_)
        geometry = codes.geometry if isinstance(codes, WindowCodes) else None
        for first, last in self._chunks(item, len(data), vectors_each):
            where = slice(first * vectors_each, last * vectors_each)
            whole = first == 0 and last == len(data)
            part = (total, saturated) if whole else (total[:, :, where].copy(), saturated[:, :, where].copy())
            self._read(item, data[first:last], geometry, *part)
            if not whole:
                total[:, :, where], saturated[:, :, where] = part
            if self._disturbs:
                self._disturb(item, data[first:last], geometry)
            item.n_read += (last - first) * vectors_each
        self._charge_reads(item, n_vectors)
        if per_tile:
            return Reading(total.transpose(2, 0, 1), saturated.transpose(2, 0, 1))
        return Reading(total[0].T, saturated[0].T)

    def wait(self, seconds: float) -> None:
        """Let time pass [s]: cells relax and drift."""
        if not seconds >= 0:
            raise InputError(f"seconds must be >= 0, got {seconds}")
        for item in self._layers.values():
            self._advance(item)
            item.array.cells.wait(float(seconds))

    # -- reading ------------------------------------------------------------------------------

    def _passes(self, item: _Layer) -> list[tuple[int, int]]:
        """(bit, sign) of each array read of one vector: bit -1 is amplitude, sign 0 both."""
        converters = self.config.converters
        signs = (1, -1) if item.signed and converters.drive == "two_phase" else (0,)
        if converters.input_mode == "amplitude":
            return [(-1, sign) for sign in signs]
        n_bits = converters.dac_bits - 1 if item.signed and converters.dac_bits > 1 else converters.dac_bits
        return [(bit, sign) for bit in range(n_bits) for sign in signs]

    def _scales(self, item: _Layer, bit: int, sign: int) -> NDArray[np.int64]:
        """Digital weight of each channel of a column in one pass."""
        mapping = self.config.mapping
        weight = (1 << bit if bit >= 0 else 1) * (sign or 1)
        powers = len(self._levels) ** np.arange(mapping.slices, dtype=np.int64)[::-1]
        if self.config.converters.adc_per_line:
            powers = np.stack([powers, -powers], axis=1).ravel()
        return powers * weight

    def _code_bound(self, item: _Layer) -> int:
        per_pass = sum(int(np.abs(self._scales(item, *p)).sum()) for p in self._passes(item))
        return per_pass * adc_code_max(self.config.converters.adc_bits) * len(item.info.row_tiles)

    def _read(
        self,
        item: _Layer,
        data: NDArray[Any],
        geometry: Geometry | None,
        total: NDArray[Any],
        saturated: NDArray[np.bool_],
    ) -> None:
        """Add the conversions of vectors or maps to `total` (n_row_tiles or 1, n_cols, n_vectors)."""
        converters, array = self.config.converters, item.array
        high = dac_codes(converters.dac_bits, item.signed)[1]
        v_lsb = item.v_full / high if converters.input_mode == "amplitude" else item.v_full
        code_max = adc_code_max(converters.adc_bits)
        passes = np.array(self._passes(item), dtype=np.int64)
        conversion = read_kernels.Conversion(
            gain=code_max / item.output_range * v_lsb,
            sigma=converters.adc_noise * code_max / adc_code_max(8),
            code_max=float(code_max),
            adc_key=item.adc_key,
            read_key=item.read_key,
            first_vector=item.n_read,
        )
        scales = np.array([self._scales(item, bit, sign) for bit, sign in self._passes(item)])
        tiles = np.array(item.info.row_tiles, dtype=np.int64)
        if not array.linear:
            self._read_nonlinear(item, data, geometry, v_lsb, conversion, scales, total, saturated)
            return
        packed = array.packed(taps=geometry is not None)
        if geometry is None:
            block = max(16, BLOCK_ELEMENTS // item.info.n_rows)
            read_kernels.read_rows(
                data, passes, tiles, *packed, conversion, scales, normal_table(), block, total, saturated
            )
        else:
            read_kernels.read_maps(
                data, geometry, passes, tiles, *packed, conversion, scales, normal_table(), total, saturated
            )

    def _read_nonlinear(
        self,
        item: _Layer,
        data: NDArray[Any],
        geometry: Geometry | None,
        v_lsb: float,
        conversion: read_kernels.Conversion,
        scales: NDArray[np.int64],
        total: NDArray[Any],
        saturated: NDArray[np.bool_],
    ) -> None:
        """Non-linear cells: Kirchhoff's laws for every vector, then the same conversion. Slow."""
        passes = self._passes(item)
        for index, (bit, sign) in enumerate(passes):
            drive = _drive(data, geometry, bit, sign)
            for tile, rows in enumerate(item.info.row_tiles):
                volts = drive[:, slice(*rows)] * v_lsb
                current = item.array.currents(slice(*rows), volts) / np.float32(v_lsb)
                out = tile if total.shape[0] > 1 else 0
                read_kernels.convert_currents(
                    np.ascontiguousarray(current.T),
                    tile * len(passes) + index,
                    conversion,
                    scales[index],
                    normal_table(),
                    total[out],
                    saturated[out],
                )

    def _chunks(self, item: _Layer, n_entries: int, vectors_each: int) -> Iterator[tuple[int, int]]:
        """Split a call where the disturbance state advances; entries are vectors or whole images."""
        first = 0
        every = self.config.disturb.state_step if self._disturbs else 0
        while first < n_entries:
            last = n_entries
            if every:
                last = min(last, first + max(1, -(-(every - item.n_read % every) // vectors_each)))
            yield first, last
            first = last

    @property
    def _disturbs(self) -> bool:
        return self.config.disturb.enabled and self._leaves_traces

    def _disturb(self, item: _Layer, data: NDArray[Any], geometry: Geometry | None) -> None:
        """Count the reads of a chunk; where a state step is complete, let them act."""
        every = self.config.disturb.state_step
        n_vectors = len(data) * (geometry.out_h * geometry.out_w if geometry else 1)
        due = (item.n_read + n_vectors) // every > item.n_read // every
        if self.config.disturb.mode == "exact":
            self._disturb_exactly(item, data, geometry, refresh=due)
            return
        high = self._code_high(item)
        if item.histogram is None:
            item.histogram = np.zeros((item.info.n_rows, 2 * high + 1), dtype=np.int64)
        if geometry is None:
            read_kernels.count_codes(data, high, item.histogram)
        else:
            _count_windows(data, geometry, high, item.histogram)
        if due:
            self._advance(item)

    def _disturb_exactly(
        self, item: _Layer, data: NDArray[Any], geometry: Geometry | None, *, refresh: bool
    ) -> None:
        """Stress of every cell from its own solved voltage in every vector and pass: slow."""
        high = self._code_high(item)
        amplitude = self.config.converters.input_mode == "amplitude"
        v_lsb = item.v_full / high if amplitude else item.v_full
        parts = [
            v_in
            for bit, sign in self._passes(item)
            for drive in [_drive(data, geometry, bit, sign) * v_lsb]
            for v_in in np.array_split(drive, max(1, len(drive) // EXACT_VECTORS))
        ]
        for index, v_in in enumerate(parts):
            v_cell = item.array.cell_voltages(v_in.astype(np.float64))
            item.array.cells.add_cell_voltages(v_cell, refresh=refresh and index == len(parts) - 1)

    def _advance(self, item: _Layer) -> None:
        """Let the reads counted so far act on the cells."""
        if item.histogram is None or not item.histogram.any():
            return
        high = self._code_high(item)
        steps = np.arange(-high, high + 1)
        counts = item.histogram.astype(np.float64)
        n_reads = counts.sum(axis=1).max() * len(self._passes(item))
        if self.config.converters.input_mode == "bit_serial":
            ones = np.array([int(abs(step)).bit_count() for step in steps])
            pulses = counts * ones  # a set bit is one pulse of full voltage
            counts = np.stack([pulses[:, :high].sum(axis=1), pulses[:, high + 1 :].sum(axis=1)], axis=1)
            voltages = np.array([-item.v_full, item.v_full])
        else:
            voltages = steps * (item.v_full / high)
        if self.config.converters.drive == "two_phase":
            voltages = np.abs(voltages)
        v_mean, v_rms = counts @ voltages / n_reads, np.sqrt(counts @ voltages**2 / n_reads)
        item.array.cells.add_reads(counts, voltages, *item.array.cell_drive(v_mean, v_rms))
        item.histogram[:] = 0

    def _code_high(self, item: _Layer) -> int:
        return dac_codes(self.config.converters.dac_bits, item.signed)[1]

    def age(self, n_reads: float, activity: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Let `n_reads` vectors per layer act at once, as if they had been sent (simulator only).

        Parameters
        ----------
        n_reads : float
            Vectors per layer.
        activity : mapping of layer to integer codes (n_vectors, n_rows), optional
            Typical inputs; their distribution of codes per word line is scaled to `n_reads`.
            A layer without an entry is driven at the largest code throughout.

        Notes
        -----
        Fast mode's accounting in one step: cell voltages of the present state serve all reads.
        """
        if not (np.isfinite(n_reads) and n_reads >= 0):
            raise InputError(f"n_reads must be finite and >= 0, got {n_reads}")
        if not self.config.disturb.enabled:
            return
        for name in activity or {}:
            self._layer(name)
        for name, item in self._layers.items():
            self._advance(item)
            high = self._code_high(item)
            histogram: NDArray[Any] = np.zeros((item.info.n_rows, 2 * high + 1))
            codes = None if activity is None else activity.get(name)
            if codes is None:
                histogram[:, -1] = n_reads
            else:
                counted = np.zeros(histogram.shape, dtype=np.int64)
                low = dac_codes(self.config.converters.dac_bits, item.signed)[0]
                codes = _integers(codes, f"activity of {name!r}", (None, item.info.n_rows), low, high)
                read_kernels.count_codes(codes, high, counted)
                histogram = counted * (n_reads / len(codes))
            item.histogram = histogram
            self._advance(item)
            item.histogram = None

    def _charge_reads(self, item: _Layer, n_vectors: int) -> None:
        info, costs = item.info, item.costs
        passes = len(self._passes(item))
        tiles = len(info.row_tiles)
        channels = item.array.n_channels
        costs.vectors += n_vectors
        costs.array_reads += n_vectors * passes * tiles * info.n_col_tiles
        costs.conversions += n_vectors * passes * tiles * channels
        costs.seconds += n_vectors * passes * self.config.converters.t_read  # tiles work in parallel

    def _layer(self, name: str) -> _Layer:
        try:
            return self._layers[name]
        except KeyError:
            raise InputError(f"no layer {name!r} on this chip; {nearest_name(name, self._layers)}") from None

    def refresh(self) -> None:
        """Bring every layer's effective matrices up to date, solving all stale tiles in one batch."""
        refresh_all([item.array for item in self._layers.values()])

    # -- simulator only -----------------------------------------------------------------------

    def fork(self, stream: int = 0) -> SimulatedChip:
        """Copy for evaluation: own ledger, own noise stream, and its reads leave no disturbance."""
        twin = copy.deepcopy(self)
        twin._leaves_traces = False
        for name, item in twin._layers.items():
            keys = (self.chip, text_key(name), stream)
            item.adc_key = key(self.seed, Cause.EVALUATION, *keys, 0)
            item.read_key = key(self.seed, Cause.EVALUATION, *keys, 1)
            item.n_read = 0
            item.costs = LayerCosts(weight_cells=item.info.n_cells)
        return twin

    def conductances(self, layer: str) -> NDArray[np.float32]:
        """Present conductance of the weights' cells [S], shape (n_rows, n_cols, cells_per_weight)."""
        array = self._layer(layer).array
        return array.cells.conductance[:, array.layout.line_of]

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes over a chip's life, as nested dicts of arrays and numbers."""
        return {
            name: {
                "cells": item.array.cells.state_dict(),
                "solved": item.array.solved_conductance,
                "signed": item.signed,
                "v_full": item.v_full,
                "output_range": item.output_range,
                "n_read": item.n_read,
                "reference_written": item.reference_written,
                "histogram": None if item.histogram is None else item.histogram.copy(),
                "costs": dict(vars(item.costs)),
            }
            for name, item in self._layers.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict` bit for bit; config, shapes, seed and chip must be the same."""
        if set(state) != set(self._layers):
            raise InputError(
                f"state must hold the layers {sorted(self._layers)}, got {sorted(state)}; another network's?"
            )
        for name, entry in state.items():
            item = self._layers[name]
            item.array.cells.load_state_dict(entry["cells"])
            item.array.restore(entry["solved"])
            item.signed, item.v_full = bool(entry["signed"]), float(entry["v_full"])
            item.output_range, item.n_read = float(entry["output_range"]), int(entry["n_read"])
            item.reference_written = bool(entry["reference_written"])
            histogram = entry["histogram"]
            item.histogram = None if histogram is None else np.array(histogram)
            item.costs = LayerCosts(**entry["costs"])


def _drive(data: NDArray[Any], geometry: Geometry | None, bit: int, sign: int) -> NDArray[np.float32]:
    """Word-line drive (n_vectors, n_rows) of one pass in DAC steps or bits, laid out in full."""
    if geometry is not None:
        g = geometry
        pads = ((0, 0), (0, 0), (g.pad_top, g.pad_bottom), (g.pad_left, g.pad_right))
        span = ((g.kernel_h - 1) * g.dilation_h + 1, (g.kernel_w - 1) * g.dilation_w + 1)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(data, pads), span, axis=(2, 3))
        windows = windows[:, :, :: g.stride_h, :: g.stride_w, :: g.dilation_h, :: g.dilation_w]
        data = windows.transpose(0, 2, 3, 1, 4, 5).reshape(len(data) * g.out_h * g.out_w, -1)
    if bit < 0:
        drive = data.astype(np.float32)
    else:
        drive = (((np.abs(data) >> bit) & 1) * np.sign(data)).astype(np.float32)
    return np.maximum(drive * sign, 0) if sign else drive


def _count_windows(maps: NDArray[Any], geometry: Geometry, high: int, histogram: NDArray[np.int64]) -> None:
    """`count_codes` for windows: pixels are counted once and shared out to kernel positions."""
    g = geometry
    rows, row_member = border_classes(maps.shape[2], g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.out_h)
    cols, col_member = border_classes(
        maps.shape[3], g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.out_w
    )
    shape = (maps.shape[1], len(row_member), len(col_member), histogram.shape[1])
    counts = np.zeros(shape, dtype=np.int64)
    read_kernels.count_map_codes(maps, rows, cols, high, counts)
    counts[..., high] = 0  # undriven lines gain nothing, padded ones included
    shared = np.einsum("crsv,rk,sl->cklv", counts, row_member, col_member, dtype=np.int64, optimize=True)
    histogram += shared.reshape(histogram.shape)


def _integers(
    value: Any, name: str, shape: tuple[int | None, ...], low: int, high: int
) -> NDArray[np.integer]:
    """Check integer kind, shape and range without copying narrow types."""
    array = np.ascontiguousarray(value)
    if array.dtype.kind not in "iu":
        raise InputError(f"{name} must be integers, got {array.dtype}; quantise first")
    if array.ndim != len(shape) or any(
        w is not None and w != g for w, g in zip(shape, array.shape, strict=True)
    ):
        wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
        raise InputError(f"{name} must have shape {wanted}, got {array.shape}")
    if array.size and not (int(array.min()) >= low and int(array.max()) <= high):
        raise InputError(f"{name} must lie in [{low}, {high}], got [{int(array.min())}, {int(array.max())}]")
    return array
