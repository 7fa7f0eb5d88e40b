"""The black box: everything a tuner may ask of a chip, simulated or real.

To attach real hardware, write a class with the members of `ChipProtocol`; about 30 lines
suffice (`tests/fake_chip.py` is one in NumPy). Nothing else in this package or in
`finetune` needs to change. What the members mean:

* A chip holds *layers*, one matrix each, of `n_rows` inputs by `n_cols` outputs. Each weight
  takes `cells_per_weight` cells. `layers` gives their shapes, `datasheet` the chip's nominal data.
* `write(layer, levels, mask)` programs integer level targets. Every cell under the mask is
  pulsed and counted, changed or not. What conductance came out stays unknown.
* `configure(layer, input_range=..., output_range=...)` sets the full scale of converters.
* `mvm(layer, codes)` drives integer DAC codes and returns integer ADC codes, summed over the
  row tiles (or per row tile), with the conversions that saturated marked.
* `wait(seconds)` lets time pass: cells relax and drift.
* `ledger` counts what all this cost.

A simulated chip has more (`fork`, `state_dict`); none of it belongs to the protocol, and a gate
(`rramsim.blackbox.gate.Gate`) keeps a tuner from reaching it.

Long because whoever attaches a chip reads the protocol and its data on one page, examples included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.checks import InputError, nearest_name

__all__ = [
    "LEDGER_QUANTITIES",
    "ChipProtocol",
    "Datasheet",
    "ForwardingChip",
    "HostPort",
    "LayerCosts",
    "LayerInfo",
    "Ledger",
    "LedgerQuantity",
    "Reading",
    "Tier",
    "host_port",
    "pass_time",
]


Read = Callable[[str, ArrayLike, bool], "Reading"]


class Tier(IntEnum):
    """What a tuner may see; each tier includes the ones before it.

    Examples
    --------
    >>> Tier.LAYERS < Tier.PROBE, Tier["OUTPUTS"].value
    (True, 0)
    """

    OUTPUTS = 0  # T0: end-to-end outputs of the network
    LAYERS = 1  # T1: layer outputs for codes that were recorded from images
    PROBE = 2  # layer outputs for codes of the tuner's own choice (one-hot vectors read single cells)
    CELLS = 3  # T2: reads of single cells
    PULSES = 4  # T3: raw programming pulses


MAPPINGS = [
    "differential",
    "reference",
    "sliced",
]  # grows by `rramsim.blackbox.mapping.register_pair_mapping`

_CHOICES = {
    "mapping": MAPPINGS,
    "input_mode": ("amplitude", "bit_serial"),
    "drive": ("bipolar", "two_phase"),
}


@dataclass(frozen=True, kw_only=True)
class Datasheet:
    """Nominal data a maker would print; nothing of the individual chip.

    Examples
    --------
    >>> sheet = Datasheet(
    ...     mapping="differential", n_levels=2, levels=(1e-6, 40e-6), v_read=0.2, dac_bits=8, adc_bits=8,
    ...     adc_noise=0.5, tile_rows=128, tile_cols=128, t_read=1e-7,
    ... )
    >>> round(sheet.on_off_ratio), sheet.g_max
    (40, 4e-05)
    """

    mapping: str  # "differential", "reference", "sliced" or a registered mapping on pairs
    n_levels: int
    levels: tuple[float, ...]  # [S] nominal conductance of each level
    v_read: float  # [V] largest read voltage
    dac_bits: int
    adc_bits: int
    adc_noise: float  # standard deviation of the noise at the ADC's input, in LSB of 8 bits
    tile_rows: int  # word lines of an array
    tile_cols: int  # bit lines of an array
    t_read: float  # [s] one array read
    input_mode: str = "amplitude"  # or "bit_serial"
    drive: str = "bipolar"  # or "two_phase": one read and one conversion per sign of the inputs
    adc_per_line: bool = False
    programming_sigma: float | None = None  # nominal spread of the error law, in the law's own unit
    error_law: str = ""
    reference: str = "line"  # what is subtracted where one cell holds a weight: "line" or "digital" (nothing)
    reference_level: int | None = None  # level of the reference line's cells; None for the middle one
    tile_codes: bool = True  # answers per row tile on request; False: it tells their sum only

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise InputError(
                    f"datasheet: {name} must be one of {', '.join(known)}, got {value!r}; "
                    f"{nearest_name(str(value).lower(), known)}"
                )
        if self.n_levels != len(self.levels) or self.n_levels < 2:
            raise InputError(
                f"datasheet: n_levels must be the number of levels and >= 2, got {self.n_levels} "
                f"with {len(self.levels)} levels"
            )
        if list(self.levels) != sorted(set(self.levels)) or not self.levels[0] >= 0:
            raise InputError("datasheet: levels must be conductances [S] >= 0 in ascending order")
        for name in ("v_read", "t_read", "dac_bits", "adc_bits", "tile_rows", "tile_cols"):
            if not getattr(self, name) > 0:
                raise InputError(f"datasheet: {name} must be > 0, got {getattr(self, name)}")

    @property
    def g_max(self) -> float:
        """Largest nominal conductance [S]."""
        return max(self.levels)

    @property
    def on_off_ratio(self) -> float:
        """Largest over smallest nominal conductance."""
        return max(self.levels) / min(self.levels)


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """Shape of one layer on the chip.

    Examples
    --------
    >>> info = LayerInfo(
    ...     name="fc", n_rows=200, n_cols=10, cells_per_weight=2, row_tiles=((0, 128), (128, 200)),
    ...     n_col_tiles=1, g_unit=39e-6,
    ... )
    >>> info.n_cells
    4000
    """

    name: str
    n_rows: int
    n_cols: int
    cells_per_weight: int
    row_tiles: tuple[tuple[int, int], ...]  # first and one-past-last row of each row tile
    n_col_tiles: int
    g_unit: float  # [S] conductance difference that stands for a weight of 1

    def __post_init__(self) -> None:
        for name in ("n_rows", "n_cols", "cells_per_weight", "n_col_tiles", "g_unit"):
            if not getattr(self, name) > 0:
                raise InputError(f"layer {self.name!r}: {name} must be > 0, got {getattr(self, name)}")
        stops = [0, *(stop for _, stop in self.row_tiles)]
        if [first for first, _ in self.row_tiles] != stops[:-1] or stops[-1] != self.n_rows:
            raise InputError(
                f"layer {self.name!r}: row_tiles must follow one another from 0 to n_rows = {self.n_rows}, "
                f"got {self.row_tiles}"
            )

    @property
    def n_cells(self) -> int:
        """Cells that hold weights."""
        return self.n_rows * self.n_cols * self.cells_per_weight


class Reading(NamedTuple):
    """Answer of `mvm`: integer codes and, of the same shape, whether a conversion saturated.

    Examples
    --------
    >>> import numpy as np
    >>> answer = np.array([[3, -127]], np.int32), np.array([[False, True]])
    >>> Reading(*answer).saturated.mean()
    np.float64(0.5)
    """

    codes: NDArray[np.int32]
    saturated: NDArray[np.bool_]


@dataclass(frozen=True)
class LedgerQuantity:
    """What is known of a quantity of the ledger, for archives and tables."""

    name: str
    kind: Literal["int64", "float64"]
    unit: str
    text: str
    largest: bool  # totals take the largest of the layers, not their sum
    cost: bool  # counts what was used; False for what a layer simply has


def _quantity(
    text: str, unit: str = "1", *, default: float = 0, largest: bool = False, cost: bool = True
) -> Any:
    """A field of `LayerCosts`; its declaration is all that archives and tables need."""
    about = {"text": text, "unit": unit, "largest": largest, "cost": cost}
    return field(default=default, metadata=about)


@dataclass(kw_only=True)
class LayerCosts:
    """Costs of one layer since the chip arrived: the one list of the ledger's quantities.

    Examples
    --------
    >>> costs = LayerCosts(vectors=10, max_cycles=1)
    >>> costs.add(LayerCosts(vectors=5, max_cycles=3))
    >>> costs.vectors, costs.max_cycles
    (15, 3)
    """

    vectors: int = _quantity("input vectors")
    array_reads: int = _quantity("array reads: tile x phase x bit")
    conversions: int = _quantity("ADC conversions")
    cell_writes: int = _quantity("cells under write masks, changed or not")
    reference_writes: int = _quantity("cells of reference lines, written once by the chip itself")
    pulses: int = _quantity("programming pulses")
    failed_writes: int = _quantity("cells that write-verify left outside their window")
    weight_cells: int = _quantity("cells that hold weights", cost=False)
    max_cycles: int = _quantity("most writes of any cell", largest=True)
    seconds: float = _quantity("array time, where a source gives it", "s", default=0.0)
    joules: float | None = _quantity(
        "energy of programming pulses; None once there were any whose energy no source gives",
        "J",
        default=0.0,
    )

    def add(self, other: LayerCosts) -> None:
        """Add the counts of `other`; of `max_cycles` and its like keep the larger; unknown stays unknown."""
        for entry in LEDGER_QUANTITIES.values():
            mine, theirs = getattr(self, entry.name), getattr(other, entry.name)
            if mine is None or theirs is None:
                setattr(self, entry.name, None)
            else:
                setattr(self, entry.name, max(mine, theirs) if entry.largest else mine + theirs)


LEDGER_QUANTITIES: Mapping[str, LedgerQuantity] = MappingProxyType(
    {
        entry.name: LedgerQuantity(
            entry.name, "int64" if isinstance(entry.default, int) else "float64", **entry.metadata
        )
        for entry in fields(LayerCosts)
    }
)


@dataclass
class Ledger:
    """Costs per layer and in total.

    Examples
    --------
    >>> ledger = Ledger({"a": LayerCosts(cell_writes=30, weight_cells=20), "b": LayerCosts(weight_cells=10)})
    >>> ledger.total.cell_writes, ledger.writes_per_cell
    (30, 1.0)
    """

    layers: dict[str, LayerCosts] = field(default_factory=dict)

    @property
    def total(self) -> LayerCosts:
        """Sum over layers."""
        result = LayerCosts()
        for costs in self.layers.values():
            result.add(costs)
        return result

    @property
    def writes_per_cell(self) -> float:
        """Cell writes over weight-holding cells."""
        total = self.total
        return total.cell_writes / max(total.weight_cells, 1)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Plain numbers per layer, for archives and pipes."""
        return {name: dict(vars(costs)) for name, costs in self.layers.items()}

    @classmethod
    def from_dict(cls, table: Mapping[str, Mapping[str, Any]]) -> Ledger:
        """Rebuild from `as_dict`."""
        return cls({name: LayerCosts(**costs) for name, costs in table.items()})


@runtime_checkable
class ChipProtocol(Protocol):
    """Members a chip must have; see the module's text for their meaning.

    Examples
    --------
    >>> from rramsim import ChipConfig, SimulatedChip
    >>> isinstance(SimulatedChip(ChipConfig(), {"fc": (12, 5)}), ChipProtocol)
    True
    """

    @property
    def datasheet(self) -> Datasheet:
        """Nominal data."""
        ...

    @property
    def layers(self) -> Mapping[str, LayerInfo]:
        """Shapes, by layer name, in the order of the network."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Costs so far (a copy)."""
        ...

    def write(self, layer: str, levels: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Program level targets.

        Parameters
        ----------
        levels : integer ndarray, shape (n_rows, n_cols, cells_per_weight)
            Targets in [0, n_levels).
        mask : bool ndarray of the same shape, optional
            Cells to write; all by default.
        """
        ...

    def configure(
        self,
        layer: str,
        *,
        input_range: tuple[float, float] | None = None,
        output_range: float | None = None,
    ) -> None:
        """Set converter ranges.

        Parameters
        ----------
        input_range : (low, high), optional
            Voltages [V] of the smallest and largest DAC code: (0, v) drives codes
            0 .. 2**bits - 1; (-v, v) drives -(2**(bits-1) - 1) .. 2**(bits-1) - 1.
        output_range : float, optional
            Current [A] of the largest ADC code; codes are signed and symmetric.
        """
        ...

    def mvm(self, layer: str, codes: ArrayLike, per_tile: bool = False) -> Reading:
        """Multiply vectors by the stored matrix.

        Parameters
        ----------
        codes : integer ndarray, shape (n_vectors, n_rows)
            DAC codes within the configured range; anything `numpy.asarray` takes.
        per_tile : bool
            Return each row tile's codes, shape (n_vectors, n_row_tiles, n_cols), not their sum.

        Returns
        -------
        Reading
            `codes` int32, shape (n_vectors, n_cols), and `saturated`.
        """
        ...

    def wait(self, seconds: float) -> None:
        """Let time pass [s].

        A chip may take a keyword `kelvin` beside: the temperature [K] meanwhile. What stands in front of
        a chip hands it on where it is given, and to no other chip.
        """
        ...


@runtime_checkable
class HostPort(Protocol):
    """What the host says to a gate in front of a chip, beside the protocol.

    Wrappers (`ForwardingChip`) hand these calls on, so a gate receives them wherever it stands; a chip
    without them is reached through `host_port`, which records nothing.
    """

    def host_mvm(self, layer: str, codes: ArrayLike, per_tile: bool = False) -> Reading:
        """`mvm` for the host that runs images through the network: open at every tier."""
        ...

    def record(self, layer: str, codes: NDArray[Any]) -> None:
        """These vectors (n_vectors, n_rows) reach the layer when images run through the chip."""
        ...

    def confirm(self, layer: str, codes: NDArray[Any], answers: NDArray[Any]) -> None:
        """Raise `TierError` unless the chip gave these answers (n_vectors, n_cols) to these vectors."""
        ...


class _BarePort:
    """The port of a chip without a gate: reads go straight to it, and nobody asks about vectors."""

    def __init__(self, chip: ChipProtocol) -> None:
        self.host_mvm = chip.mvm

    def record(self, layer: str, codes: NDArray[Any]) -> None:
        """Nothing to note."""

    def confirm(self, layer: str, codes: NDArray[Any], answers: NDArray[Any]) -> None:
        """Nothing to check."""


def host_port(chip: ChipProtocol) -> HostPort:
    """The chip's own port where it has one, as every `ForwardingChip` does, else one that asks nothing."""
    return chip if isinstance(chip, HostPort) else _BarePort(chip)


def pass_time(chip: ChipProtocol, seconds: float, kelvin: float | None) -> None:
    """`chip.wait`, with the keyword `kelvin` only where it is given: not every chip knows it."""
    if kelvin is None:
        chip.wait(seconds)
        return
    warm: Any = chip
    warm.wait(seconds, kelvin=kelvin)


class ForwardingChip:
    """A chip in front of another one: hands every call on; wrappers override what they change.

    A wrapper that changes reads overrides `read_through`, which serves the tuner's `mvm` and the host's
    `host_mvm` alike.

    Examples
    --------
    >>> from rramsim import ChipConfig, SimulatedChip
    >>> class Late(ForwardingChip):
    ...     "Every read comes after a second."
    ...     def read_through(self, read, layer, codes, per_tile):
    ...         self.wait(1.0)
    ...         return read(layer, codes, per_tile)
    >>> list(Late(SimulatedChip(ChipConfig(), {"fc": (12, 5)})).layers)
    ['fc']
    """

    def __init__(self, chip: ChipProtocol) -> None:
        self._chip = chip
        self._port = host_port(chip)

    @property
    def datasheet(self) -> Datasheet:
        """The chip's nominal data."""
        return self._chip.datasheet

    @property
    def layers(self) -> Mapping[str, LayerInfo]:
        """The chip's layers."""
        return self._chip.layers

    @property
    def ledger(self) -> Ledger:
        """The chip's own costs since it arrived."""
        return self._chip.ledger

    def write(self, layer: str, levels: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Program level targets."""
        self._chip.write(layer, levels, mask)

    def configure(
        self,
        layer: str,
        *,
        input_range: tuple[float, float] | None = None,
        output_range: float | None = None,
    ) -> None:
        """Set converter ranges."""
        self._chip.configure(layer, input_range=input_range, output_range=output_range)

    def mvm(self, layer: str, codes: ArrayLike, per_tile: bool = False) -> Reading:
        """Multiply vectors by the stored matrix."""
        return self.read_through(self._chip.mvm, layer, codes, per_tile)

    def host_mvm(self, layer: str, codes: ArrayLike, per_tile: bool = False) -> Reading:
        """The same on the host's behalf."""
        return self.read_through(self._port.host_mvm, layer, codes, per_tile)

    def read_through(self, read: Read, layer: str, codes: ArrayLike, per_tile: bool) -> Reading:
        """Do what this wrapper does to a read, with `read` of the chip behind it."""
        return read(layer, codes, per_tile)

    def record(self, layer: str, codes: NDArray[Any]) -> None:
        """Tell a gate further on which vectors images send to a layer."""
        self._port.record(layer, codes)

    def confirm(self, layer: str, codes: NDArray[Any], answers: NDArray[Any]) -> None:
        """Let a gate further on say whether the chip gave these answers."""
        self._port.confirm(layer, codes, answers)

    def wait(self, seconds: float, *, kelvin: float | None = None) -> None:
        """Let time pass [s], at a temperature [K] if the chip behind knows temperatures."""
        pass_time(self._chip, seconds, kelvin)
