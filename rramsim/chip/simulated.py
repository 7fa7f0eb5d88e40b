"""A simulated multi-level RRAM chip behind the black-box protocol of `rramsim.blackbox.protocol`.

Long because the class has two faces, the protocol and what only a simulator can tell.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.blackbox.codes import dac_codes
from rramsim.blackbox.protocol import Datasheet, LayerInfo, Ledger, Reading
from rramsim.blackbox.windows import WindowCodes
from rramsim.cell import CellArray
from rramsim.checks import InputError, NoEffectWarning, nearest_name
from rramsim.chip.bill import ChipArea, LayerBill, chip_area, layer_bill
from rramsim.chip.config import ChipConfig
from rramsim.chip.export import cell_table, write_cells
from rramsim.chip.layer import ChipLayer
from rramsim.chip.layer_array import refresh_all
from rramsim.chip.layout import TileLayout
from rramsim.chip.placement import ChipMap, place_layers
from rramsim.chip.read_energy import ReadEnergy, read_energy
from rramsim.chip.tiles import Tile
from rramsim.chip.variation import Variation
from rramsim.circuit.wiring import WiresConfig
from rramsim.kernels.windows import Geometry
from rramsim.streams import text_key

LONGEST_PENDING = 1.0  # [s] of reading that may wait for its effect on the cells

__all__ = ["ChipConfig", "SimulatedChip"]

AROUND = "cells around layers"  # names the draws of cells that belong to no layer


class SimulatedChip:
    """Cells, wires and converters of a chip that holds the given layers.

    Parameters
    ----------
    config : ChipConfig
        The kind of chip.
    shapes : mapping of str to (n_rows, n_cols)
        Layers in network order; see `rramsim.layer_shapes`.
    seed, chip : int
        Together they name the individual: the same pair has the same cells, layer by layer in their
        order (by their names with `MappingConfig.layer_keys` = "name", as in version 0.1).

    Notes
    -----
    Writes and reads take the time of the ledger, layer after layer, and the cells' clock goes with it
    (`ConverterConfig.clock`): before every write and `wait`, and before a read once a second has come
    together. So the split of reads into calls changes nothing below a second of reading.

    Examples
    --------
    >>> import numpy as np
    >>> from rramsim import CellsConfig
    >>> chip = SimulatedChip(ChipConfig(cells=CellsConfig(sigma=0.0)), {"fc": (12, 1)})
    >>> chip.write("fc", np.tile([15, 0], (12, 1, 1)))
    >>> chip.configure("fc", input_range=(0.0, 0.2), output_range=12 * 0.2 * 40e-6)
    >>> reading = chip.mvm("fc", np.full((1, 12), 255))
    >>> reading.codes.shape, 115 < reading.codes[0, 0] < 127, chip.ledger.total.vectors
    ((1, 1), np.True_, 1)
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
        layouts = {
            name: TileLayout.build(int(n_rows), int(n_cols), config.mapping)
            for name, (n_rows, n_cols) in shapes.items()
        }
        self._map = place_layers(layouts, config.mapping)
        variation = None
        if config.variation is not None:
            variation = Variation(
                config.variation, config.cells, self._map.shapes, seed=self.seed, chip=self.chip
            )
        self._layers: dict[str, ChipLayer] = {
            name: ChipLayer(
                layout,
                self._map.places[name],
                config,
                variation,
                name=name,
                seed=self.seed,
                chip=self.chip,
                position=position,
            )
            for position, (name, layout) in enumerate(layouts.items())
        }
        self._infos = {name: layer.info for name, layer in self._layers.items()}
        if config.wires is not None:
            tiles = self._build_tiles(config.wires, variation)
            for name, layer in self._layers.items():
                layer.array.put_on(tiles, self._map.places[name])
        self._kelvin = None if config.temperature is None else config.temperature.read
        if self._kelvin is not None:
            self.set_temperature(self._kelvin)

    def _build_tiles(self, wires: WiresConfig, variation: Variation | None) -> list[Tile]:
        """The physical arrays, each full of reset cells where no layer lies."""
        config, filled = self.config, np.zeros(len(self._map.shapes), dtype=np.int64)
        for own in self._map.places.values():
            for place in own:
                filled[place.tile] += place.n_rows * place.n_lines
        tiles = []
        for number, shape in enumerate(self._map.shapes):
            around = None
            if filled[number] < shape[0] * shape[1]:
                keys = (self.chip, text_key(AROUND), number)
                around = CellArray(
                    shape, config.cells, config.faults, config.disturb, seed=self.seed, keys=keys,
                    variation=None if variation is None else variation.of_tile(number),
                )  # fmt: skip
            tiles.append(
                Tile(
                    shape,
                    wires,
                    around=around,
                    floating=config.mapping.unused == "floating",
                    dead=None if variation is None else variation.dead(number),
                    noisy=config.noisy_reads,
                    tolerance=config.state_tolerance,
                    alpha=config.cells.iv_alpha,
                    v_full=config.converters.v_read,
                    nonlinear_tolerance=config.nonlinear_tolerance,
                )
            )
        return tiles

    # -- protocol -----------------------------------------------------------------------------

    @functools.cached_property
    def datasheet(self) -> Datasheet:
        """Nominal data of this kind of chip."""
        cells, converters, mapping = self.config.cells, self.config.converters, self.config.mapping
        return Datasheet(
            mapping=mapping.kind,
            reference=mapping.reference,
            reference_level=mapping.level_of_reference(len(self._levels)),
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
            drive=converters.drive,
            adc_per_line=converters.adc_per_line,
            error_law=cells.law,
            tile_codes=converters.tile_codes,
        )

    @property
    def layers(self) -> Mapping[str, LayerInfo]:
        """Shapes by name."""
        return MappingProxyType(self._infos)

    def __repr__(self) -> str:
        total = self.ledger.total
        sheet = self.datasheet
        return (
            f"<SimulatedChip {self.chip} of seed {self.seed}: {len(self._layers)} layers, {sheet.mapping}, "
            f"{sheet.n_levels} levels, arrays of {sheet.tile_rows} x {sheet.tile_cols}; so far "
            f"{total.cell_writes:,} cell writes, {total.vectors:,} vectors>"
        )

    @property
    def ledger(self) -> Ledger:
        """Costs since the chip arrived (a copy)."""
        return Ledger({name: copy.copy(layer.costs) for name, layer in self._layers.items()})

    def write(self, layer: str, levels: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Program level targets; see `ChipProtocol.write`."""
        item = self._layer(layer)
        info = item.info
        shape = (info.n_rows, info.n_cols, info.cells_per_weight)
        levels = _integers(levels, f"levels of {layer!r}", shape, 0, len(self._levels) - 1)
        if mask is None:
            mask = np.ones(shape, dtype=bool)
        mask = np.asarray(mask)
        if mask.shape != shape or mask.dtype != np.bool_:
            raise InputError(
                f"mask of {layer!r} must be bool of shape {shape}, got {mask.dtype} {mask.shape}"
            )
        self._pass_time()
        item.write(levels, mask)

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
            item.set_input_range(low < 0, high)
        if output_range is not None:
            output_range = float(output_range)
            if not (np.isfinite(output_range) and output_range > 0):
                raise InputError(f"output_range of {layer!r} must be > 0 A, got {output_range:g}")
            item.output_range = output_range

    def mvm(self, layer: str, codes: ArrayLike | WindowCodes, per_tile: bool = False) -> Reading:
        """Multiply vectors by the stored matrix; see `ChipProtocol.mvm`."""
        item = self._layer(layer)
        if item.output_range == 0.0:
            raise InputError(f"layer {layer!r} has no output_range yet: call configure(...) before mvm(...)")
        if per_tile and not self.config.converters.tile_codes:
            raise InputError(
                f"layer {layer!r}: this chip sums its row tiles (converters.tile_codes = false) and has no "
                "codes per tile"
            )
        data, geometry = self._checked(layer, codes)
        if self._pending >= LONGEST_PENDING:
            self._pass_time()
        return item.mvm(data, geometry, per_tile)

    def _checked(
        self, layer: str, codes: ArrayLike | WindowCodes
    ) -> tuple[NDArray[np.integer], Geometry | None]:
        """Vectors of codes, or maps with their geometry, in range and narrow."""
        item, converters = self._layer(layer), self.config.converters
        low, high = dac_codes(converters.dac_bits, item.drive.signed)
        name, n_rows = f"codes of {layer!r}", item.info.n_rows
        if isinstance(codes, WindowCodes):
            if codes.shape[1] != n_rows:
                raise InputError(f"{name} must have shape (any, {n_rows}), got {codes.shape}")
            data, geometry = _integers(codes.maps, name, (None,) * 4, low, high), codes.geometry
        else:
            data, geometry = _integers(codes, name, (None, n_rows), low, high), None
        return data.astype(np.int16 if converters.dac_bits <= 15 else np.int32, copy=False), geometry

    def wait(self, seconds: float, *, kelvin: float | None = None) -> None:
        """Let time pass [s]: cells relax and drift.

        With `kelvin` [K] the chip lies at that temperature meanwhile, and drift is as much faster or slower
        as Arrhenius' law says; this needs `cells.drift.activation_energy`.
        """
        if not seconds >= 0:
            raise InputError(f"seconds must be >= 0, got {seconds}")
        if kelvin is not None:
            self._check_kelvin(kelvin)
        if seconds > 0 and not self.config.cells.changes_with_time:
            warnings.warn(
                f"wait({seconds:g}) changes nothing: these cells have no law of time (cells.drift, "
                "cells.relaxation, cells.read_noise.log_coefficient, slow cells.telegraph)",
                NoEffectWarning,
                stacklevel=2,
            )
        if kelvin is None:
            self._pass_time(float(seconds))
            return
        self._pass_time()
        for item in self._layers.values():
            item.wait(float(seconds), float(kelvin))

    def _check_kelvin(self, kelvin: float) -> None:
        drift = self.config.cells.drift
        if not (np.isfinite(kelvin) and kelvin > 0.0):
            raise InputError(f"kelvin must be finite and > 0 K, got {kelvin}; was a Celsius value given?")
        if drift.law == "none" or drift.activation_energy == 0.0:
            raise InputError(
                "wait(..., kelvin=...) needs a law of drift with cells.drift.activation_energy > 0: these "
                "cells do not know what temperature does to them"
            )

    @property
    def _pending(self) -> float:
        """Time [s] of writes and reads that has not passed for the cells yet; layers work one by one."""
        return sum(item.pending for item in self._layers.values())

    def _pass_time(self, more: float = 0.0) -> None:
        """Let the time that writes and reads took, and `more` [s], pass for all cells."""
        seconds = self._pending + more
        if seconds > 0:
            for item in self._layers.values():
                item.pending = 0.0
                item.wait(seconds)

    # -- simulator only -----------------------------------------------------------------------

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
        Fast mode's accounting in one step: cell voltages of the present state serve all reads. The time
        that the reads take passes first, unless `ConverterConfig.clock` is frozen; nothing is charged.
        """
        if not (np.isfinite(n_reads) and n_reads >= 0):
            raise InputError(f"n_reads must be finite and >= 0, got {n_reads}")
        for name in activity or {}:
            self._layer(name)
        if self.config.converters.clock == "ledger":
            for item in self._layers.values():
                item.pending += item.read_seconds(n_reads)
            self._pass_time()
        if not self.config.disturb.enabled:
            return
        for name, item in self._layers.items():
            codes = None if activity is None else activity.get(name)
            if codes is not None:
                low, high = dac_codes(self.config.converters.dac_bits, item.drive.signed)
                codes = _integers(codes, f"activity of {name!r}", (None, item.info.n_rows), low, high)
            item.age(n_reads, codes)

    def _layer(self, name: str) -> ChipLayer:
        try:
            return self._layers[name]
        except KeyError:
            raise InputError(f"no layer {name!r} on this chip; {nearest_name(name, self._layers)}") from None

    def refresh(self) -> None:
        """Bring every layer's effective matrices up to date, solving all stale tiles in one batch."""
        refresh_all([item.array for item in self._layers.values()])

    def fork(self, stream: int = 0, first_vectors: Mapping[str, int] | None = None) -> SimulatedChip:
        """Copy for evaluation: own ledger, own noise stream, and its reads leave no disturbance.

        `first_vectors` numbers the next vector of each layer, 0 by default: noise is drawn by that
        number, so copies that share out a set of images draw what one copy would.
        """
        first = {} if first_vectors is None else first_vectors
        twin = copy.copy(self)
        # layers may share arrays: their copies must share the copies
        arrays = copy.deepcopy([item.array for item in self._layers.values()])
        twin._layers = {
            name: item.fork(array, stream, int(first[name]) if first else 0)
            for (name, item), array in zip(self._layers.items(), arrays, strict=True)
        }
        return twin

    def set_temperature(self, kelvin: float) -> None:
        """Read at another temperature [K] from now on (simulator only); see `TemperatureConfig`."""
        thermal = self.config.temperature
        if thermal is None:
            raise InputError("a chip without table [temperature] has no temperature to change")
        if not (np.isfinite(kelvin) and kelvin > 0.0):
            raise InputError(f"kelvin must be finite and > 0 K, got {kelvin}; was a Celsius value given?")
        self._kelvin = float(kelvin)
        for item in self._layers.values():
            item.array.cells.set_thermal(*thermal.of_cells(kelvin))
            for tile in item.array.on_tiles:
                assert self.config.wires is not None
                tile.set_wires(thermal.of_wires(self.config.wires, kelvin))
                if tile.around is not None:
                    tile.around.set_thermal(*thermal.of_cells(kelvin))

    def read_energy(self, layer: str, codes: ArrayLike | WindowCodes) -> ReadEnergy:
        """Mean energy [J] that the arrays of a layer take for one of these vectors, in their present state.

        Exact from the solved circuit and these inputs; see `rramsim.chip.read_energy`. Simulator only:
        nothing is charged, aged or drawn.

        Parameters
        ----------
        codes : integer ndarray, shape (n_vectors, n_rows), or WindowCodes
            DAC codes as for `mvm`.

        Examples
        --------
        A reset cell of 1 uS at 0.2 V for 100 ns, and its partner of the pair: 2 x 1 uS x 0.04 V^2 x 100 ns.

        >>> from rramsim import CellsConfig, ChipConfig
        >>> cells = CellsConfig(g_min=1e-6, g_max=3e-5, sigma=0.0)
        >>> chip = SimulatedChip(ChipConfig(cells=cells), {"a": (1, 1)})
        >>> print(f"{chip.read_energy('a', [[255]]).cells:.3g} J")
        8e-15 J
        """
        return read_energy(self._layer(layer), *self._checked(layer, codes))

    def bill(
        self,
        activity: Mapping[str, ArrayLike | WindowCodes],
        n_macs: Mapping[str, float] | None = None,
    ) -> dict[str, LayerBill]:
        """What one vector of each layer takes, by part; see `rramsim.chip.bill`.

        Parameters
        ----------
        activity : mapping of layer to codes
            Typical vectors of each.
        n_macs : mapping of layer to float, optional
            Multiply-adds of the digital side for each vector, beside gain and offset.
        """
        macs = n_macs or {}
        return {
            name: layer_bill(
                self._layer(name), self.read_energy(name, codes), self.config.figures, macs.get(name, 0.0)
            )
            for name, codes in activity.items()
        }

    @property
    def area(self) -> ChipArea:
        """Area of cells and periphery."""
        return chip_area(self.config, self._map)

    @property
    def map(self) -> ChipMap:
        """Where every layer lies on the chip's arrays."""
        return self._map

    @property
    def solution_error(self) -> float:
        """Largest estimated output error, over full scale, of wire solutions kept for drifting cells."""
        return max(item.array.worst_error for item in self._layers.values())

    @property
    def nonlinear_error(self) -> float:
        """Largest estimated output error, over full scale, of matrix products for non-linear cells.

        Tiles beyond `ChipConfig.nonlinear_tolerance` count as well, though Newton's method reads them.
        """
        return max(item.array.nonlinear_error for item in self._layers.values())

    def conductances(self, layer: str) -> NDArray[np.float32]:
        """Present conductance of the weights' cells [S], shape (n_rows, n_cols, cells_per_weight).

        With copies their mean.
        """
        array = self._layer(layer).array
        g = array.layout.over_copies(array.cells.conductance)
        if array.layout.n_copies > 1:
            g = g / np.float32(array.layout.n_copies)
        return g[:, array.layout.line_of]

    def export(self, path: str | Path, levels: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Write every cell of the layers' lines to a CSV or HDF5 file, see `rramsim.chip.export`.

        Parameters
        ----------
        path : path ending in .csv, .h5 or .hdf5
        levels : mapping of layer to integer ndarray, optional
            Targets as written, shape (n_rows, n_cols, cells_per_weight): `HostLayer.levels` of a deployment.
        """
        given = {} if levels is None else dict(levels)
        for name, array in given.items():
            info = self._layer(name).info
            wanted = (info.n_rows, info.n_cols, info.cells_per_weight)
            if np.shape(array) != wanted:
                raise InputError(f"levels of layer {name!r} must have shape {wanted}, got {np.shape(array)}")
        tables = (
            (name, cell_table(layer.array.layout, layer.array.cells.conductance, given.get(name)))
            for name, layer in self._layers.items()
        )
        write_cells(Path(path), tables, {"seed": self.seed, "chip": self.chip})

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes over a chip's life, as nested dicts of arrays and numbers."""
        return {name: item.state_dict() | {"kelvin": self._kelvin} for name, item in self._layers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict` bit for bit; config, shapes, seed and chip must be the same."""
        if set(state) != set(self._layers):
            raise InputError(
                f"state must hold the layers {sorted(self._layers)}, got {sorted(state)}; another network's?"
            )
        for name, entry in state.items():
            if entry["kelvin"] is not None:
                self.set_temperature(entry["kelvin"])
            self._layers[name].load_state_dict(entry)


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
