"""A simulated multi-level RRAM chip behind the black-box protocol of `rramsim.protocol`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.array import LayerArray
from rramsim.cell import CellArray, CellsConfig, DisturbConfig, FaultsConfig
from rramsim.checks import InputError, nearest_name
from rramsim.kernels import read as read_kernels
from rramsim.mapping import MappingConfig, TileLayout, conductance_unit, reference_level
from rramsim.periphery import ConverterConfig, adc_code_max, dac_codes
from rramsim.protocol import Datasheet, LayerCosts, LayerInfo, Ledger, Reading
from rramsim.random import Cause, key, normal_table, text_key
from rramsim.wiring import WiresConfig

__all__ = ["ChipConfig", "SimulatedChip"]

CHUNK_ELEMENTS = 1 << 18  # codes per chunk: the float copy of a chunk stays in the second-level cache


@dataclass(frozen=True, kw_only=True)
class ChipConfig:
    """Everything that makes a kind of chip; a single chip is this and (seed, chip id)."""

    mapping: MappingConfig = field(default_factory=MappingConfig)
    converters: ConverterConfig = field(default_factory=ConverterConfig)
    cells: CellsConfig = field(default_factory=CellsConfig)
    faults: FaultsConfig = field(default_factory=FaultsConfig)
    disturb: DisturbConfig = field(default_factory=DisturbConfig)
    wires: WiresConfig | None = None

    def __post_init__(self) -> None:
        if self.converters.adc_per_line and self.mapping.kind == "reference":
            raise InputError("adc_per_line needs differential or sliced mapping, got reference")
        if self.cells.alpha and self.disturb.mode == "exact":
            raise InputError("disturb.mode 'exact' needs linear cells (alpha = 0); choose 'fast'")


class _Layer:
    """One layer: its arrays, converter ranges, noise keys and costs."""

    def __init__(self, info: LayerInfo, array: LayerArray, full_scale: float, noise: tuple[int, ...]) -> None:
        self.info = info
        self.array = array
        self.signed = False
        self.v_full = full_scale  # [V] at the largest DAC code
        self.output_range = 0.0  # [A]; 0 means not configured yet
        self.n_read = 0  # vectors so far: the counter of read and ADC noise
        self.costs = LayerCosts(weight_cells=info.n_cells)
        self.adc_key, self.read_key = (np.uint64(k) for k in noise)
        self.reference_written = False


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
        self._infos = MappingProxyType({name: layer.info for name, layer in self._layers.items()})

    def _build_layer(self, name: str, n_rows: int, n_cols: int) -> _Layer:
        config = self.config
        layout = TileLayout.build(n_rows, n_cols, config.mapping)
        keys = (self.chip, text_key(name))
        cells = CellArray(
            (n_rows, layout.n_lines), config.cells, config.faults, config.disturb, seed=self.seed, keys=keys
        )
        array = LayerArray(layout, cells, config.wires, per_line=config.converters.adc_per_line)
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
        return self._infos

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
                    f"input_range of {layer!r} must be (0, v) or (-v, v) with v > 0 V, got ({low:g}, {high:g})"
                )
            if high > self.config.converters.v_read * (1 + 1e-9):
                raise InputError(
                    f"input_range of {layer!r} must not exceed v_read = {self.config.converters.v_read:g} V, "
                    f"got {high:g} V"
                )
            item.signed, item.v_full = low < 0, high
        if output_range is not None:
            output_range = float(output_range)
            if not (np.isfinite(output_range) and output_range > 0):
                raise InputError(f"output_range of {layer!r} must be > 0 A, got {output_range:g}")
            item.output_range = output_range

    def mvm(self, layer: str, codes: NDArray[Any], per_tile: bool = False) -> Reading:
        """Multiply vectors by the stored matrix; see `ChipProtocol.mvm`."""
        item = self._layer(layer)
        info, converters = item.info, self.config.converters
        if item.output_range == 0.0:
            raise InputError(f"layer {layer!r} has no output_range yet: call configure(...) before mvm(...)")
        low, high = dac_codes(converters.dac_bits, item.signed)
        codes = _integers(codes, f"codes of {layer!r}", (None, info.n_rows), low, high)
        n_vectors, n_tiles = codes.shape[0], len(info.row_tiles)
        total_type = np.int32 if self._code_bound(item) < 2**31 else np.int64
        shape = (n_vectors, n_tiles, info.n_cols) if per_tile else (n_vectors, 1, info.n_cols)
        total = np.zeros(shape, dtype=total_type)
        saturated = np.zeros(shape, dtype=np.bool_)
        step = max(1, CHUNK_ELEMENTS // info.n_rows)
        for first, last in self._chunks(item, n_vectors, step):
            chunk = codes[first:last]
            for tile, (top, bottom) in enumerate(info.row_tiles):
                out = tile if per_tile else 0
                self._read_tile(
                    item, tile, chunk[:, top:bottom], total[first:last, out], saturated[first:last, out]
                )
            if self._leaves_traces:
                self._disturb(item, chunk)
            item.n_read += last - first
        self._charge_reads(item, n_vectors)
        if per_tile:
            return Reading(total, saturated)
        return Reading(total[:, 0], saturated[:, 0])

    def wait(self, seconds: float) -> None:
        """Let time pass [s]: cells relax and drift."""
        if not seconds >= 0:
            raise InputError(f"seconds must be >= 0, got {seconds}")
        for item in self._layers.values():
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

    def _read_tile(
        self,
        item: _Layer,
        tile: int,
        codes: NDArray[Any],
        total: NDArray[Any],
        saturated: NDArray[np.bool_],
    ) -> None:
        """Add one row tile's conversions of a chunk to `total`."""
        converters = self.config.converters
        rows = slice(*item.info.row_tiles[tile])
        code_max = adc_code_max(converters.adc_bits)
        gain = code_max / item.output_range
        sigma = converters.adc_noise * code_max / adc_code_max(8)
        passes = self._passes(item)
        for index, (bit, sign) in enumerate(passes):
            drive, v_lsb = self._drive(item, codes, bit, sign)
            if item.array.linear:
                current = drive @ item.array.matrix(rows)
                factor = gain * v_lsb
            else:
                current = item.array.currents(rows, drive * np.float32(v_lsb))
                factor = gain
            counter = tile * len(passes) + index
            if item.array.linear:
                self._add_read_noise(item, rows, drive, counter, current)
            read_kernels.convert(
                current,
                factor,
                sigma,
                code_max,
                item.adc_key,
                item.n_read,
                counter,
                normal_table(),
                self._scales(item, bit, sign),
                total,
                saturated,
            )

    def _drive(
        self, item: _Layer, codes: NDArray[Any], bit: int, sign: int
    ) -> tuple[NDArray[np.float32], float]:
        """Word-line drive of one pass in DAC steps, and the volts of a step."""
        high = dac_codes(self.config.converters.dac_bits, item.signed)[1]
        drive = codes.astype(np.float32)
        if sign:
            drive = np.maximum(drive * sign, 0)
        if bit < 0:
            return drive, item.v_full / high
        magnitude = (np.abs(codes).astype(np.int64) >> bit) & 1
        return magnitude.astype(np.float32) * np.sign(drive), item.v_full

    def _add_read_noise(
        self,
        item: _Layer,
        rows: slice,
        drive: NDArray[np.float32],
        counter: int,
        current: NDArray[np.float32],
    ) -> None:
        """Sum of independent Gaussian cell noises: Gaussian itself, variance v^2 @ sigma^2."""
        own, reference = item.array.variances(rows)
        if own is None:
            return
        squares = np.square(drive)
        read_kernels.add_noise(
            current, squares @ own, item.read_key, item.n_read, 2 * counter, normal_table()
        )
        if reference is not None:
            common = np.zeros((drive.shape[0], reference.shape[1]), dtype=np.float32)
            read_kernels.add_noise(
                common,
                squares @ reference,
                item.read_key,
                item.n_read,
                2 * counter + 1,
                normal_table(),
            )
            current -= common[:, item.array.reference_of_channel()]

    def _chunks(self, item: _Layer, n_vectors: int, step: int) -> Iterator[tuple[int, int]]:
        """Split a call into chunks that also end where the disturbance state advances."""
        every = self.config.disturb.state_step if self._disturbs else 0
        first = 0
        while first < n_vectors:
            last = min(first + step, n_vectors)
            if every:
                last = min(last, first + every - item.n_read % every)
            yield first, last
            first = last

    @property
    def _disturbs(self) -> bool:
        return self.config.disturb.mode != "off" and self._leaves_traces

    def _disturb(self, item: _Layer, codes: NDArray[Any]) -> None:
        if self.config.disturb.mode == "off":
            return
        raise AssertionError("filled in with the cell package")

    def _charge_reads(self, item: _Layer, n_vectors: int) -> None:
        info, costs = item.info, item.costs
        passes = len(self._passes(item))
        tiles = len(info.row_tiles)
        channels = item.array.matrix(slice(0, 1)).shape[1] if item.array.linear else info.n_cols
        costs.vectors += n_vectors
        costs.array_reads += n_vectors * passes * tiles * info.n_col_tiles
        costs.conversions += n_vectors * passes * tiles * channels
        costs.seconds += n_vectors * passes * self.config.converters.t_read  # tiles work in parallel

    def _layer(self, name: str) -> _Layer:
        try:
            return self._layers[name]
        except KeyError:
            raise InputError(f"no layer {name!r} on this chip; {nearest_name(name, self._layers)}") from None

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

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes over a chip's life, as nested dicts of arrays and numbers."""
        return {
            name: {
                "cells": item.array.cells.state_dict(),
                "signed": item.signed,
                "v_full": item.v_full,
                "output_range": item.output_range,
                "n_read": item.n_read,
                "reference_written": item.reference_written,
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
            item.array.invalidate()
            item.signed, item.v_full = bool(entry["signed"]), float(entry["v_full"])
            item.output_range, item.n_read = float(entry["output_range"]), int(entry["n_read"])
            item.reference_written = bool(entry["reference_written"])
            item.costs = LayerCosts(**entry["costs"])


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
