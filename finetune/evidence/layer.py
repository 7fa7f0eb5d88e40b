"""One layer on the tuner's bench: all that a step may see of it and do to it, and what steps have learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune.bench import Bench
from finetune.evidence.contact import check_first_answers
from rramsim.blackbox.protocol import Datasheet, LayerInfo, Reading
from rramsim.host.layer import HostLayer
from rramsim.host.trace import Trace
from rramsim.network import windows

if TYPE_CHECKING:
    from finetune.evidence.samples import Samples

__all__ = ["Knowledge", "Work", "column_spread", "target_columns"]

# exponent on the teacher's sensitivities: they hold if nothing behind corrects an error, but later layers are
# tuned to do so; on validation chips 1/2 did a little better than 1
TEMPER = 0.5


@dataclass
class Knowledge:
    """What the steps of a pass have learnt about this kind of chip, in layers tuned so far.

    Attributes
    ----------
    spread_normal : ndarray, shape (2, 2), and spread_rhs : ndarray, shape (2,)
        Normal equations of the spread of writes (`finetune.evidence.identify.WriteSpread`); empty while
        nothing is known.
    carry : ndarray, shape (2,)
        Sums of products and of squares of the errors of cells before and after rewriting: their quotient is
        the share of an error that the next write repeats.
    """

    spread_normal: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    spread_rhs: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    carry: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    def state_dict(self) -> dict[str, NDArray[np.float64]]:
        """Copies of all of it."""
        return {entry.name: np.array(getattr(self, entry.name)) for entry in fields(self)}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[np.float64]]) -> Knowledge:
        """Rebuild from `state_dict`."""
        return cls(**{key: np.array(value) for key, value in state.items()})


class Work:
    """A step's view of the one layer it tunes: what it may read, write, aim at and record.

    Units: inputs are DAC codes, outputs are *normalised*, that is what one would get from the
    codes times normalised weights (a weight of 1 is `HostLayer.scale` of the network's).

    Attributes
    ----------
    layer : str
        Its name.
    info : LayerInfo
        Its shape on the chip.
    sheet : Datasheet
        Nominal data of the chip.
    host : HostLayer
        Its digital state, which steps may change.
    codes : integer ndarray, shape (n_vectors, n_rows)
        Every vector that the calibration images send to this layer, recorded from the chip's own
        activations.
    target : float32 ndarray, shape (n_vectors, n_cols)
        The teacher's pre-activations at the same images and positions.
    knowledge : Knowledge
        What steps have learnt about the kind of chip in earlier layers.
    samples : tuple of settings and `finetune.evidence.samples.Samples`, or None
        Made once per layer by `finetune.evidence.samples.take_samples`.
    """

    def __init__(self, bench: Bench, trace: Trace, layer: str, knowledge: Knowledge | None = None) -> None:
        self._bench = bench
        self._deployment = bench.deployment
        self.layer = layer
        self.host: HostLayer = bench.deployment.layers[layer]
        self.info: LayerInfo = bench.deployment.chip.layers[layer]
        self.sheet: Datasheet = bench.deployment.chip.datasheet
        self.knowledge = Knowledge() if knowledge is None else knowledge
        self.codes = trace.codes(layer)
        self.target = target_columns(bench, layer)
        self.samples: tuple[tuple[float, str], Samples] | None = None
        self._reading: tuple[NDArray[np.int32], NDArray[np.bool_]] | None = None

    # -- what is wanted -------------------------------------------------------------------------

    def rng(self, purpose: str) -> np.random.Generator:
        """Generator of a step's own draws for this layer."""
        return self._bench.rng(f"{purpose} {self.layer}")

    @property
    def seed(self) -> int:
        """Seed of the tuner's own draws."""
        return self._bench.seed

    def sample(self, n_vectors: int) -> NDArray[np.int64]:
        """About `n_vectors` vectors, evenly spread over images and drawn over positions."""
        n_all = len(self.codes)
        if n_vectors >= n_all:
            return np.arange(n_all)
        rng = self.rng("sample")
        edges = np.linspace(0, n_all, n_vectors + 1)
        picks = np.floor(edges[:-1] + rng.random(n_vectors) * np.diff(edges)).astype(np.int64)
        return np.unique(np.minimum(picks, n_all - 1))

    @property
    def weights(self) -> NDArray[np.float32]:
        """The network's own weights, shape (n_rows, n_cols), in the network's units."""
        return self._deployment.weights(self.layer)

    @property
    def stored(self) -> NDArray[np.float64]:
        """Normalised weights that the written levels stand for, shape (n_rows, n_cols)."""
        return self._deployment.stored_weights(self.layer)

    @property
    def nearest_levels(self) -> NDArray[np.int64]:
        """Level targets nearest to the network's own weights, shape (n_rows, n_cols, cells_per_weight)."""
        return self._deployment.nearest_levels(self.layer)

    @property
    def sensitivity(self) -> NDArray[np.float64]:
        """Distillation loss per squared error of each column's pre-activation, shape (n_cols,)."""
        columns = windows.channel_slice(self._bench.network.node(self.host.node), self.host.group)
        return self._bench.channel_sensitivity(self.host.node)[columns]

    @property
    def column_spread(self) -> NDArray[np.float64]:
        """Standard deviation of the teacher's pre-activations in each column, floored; shape (n_cols,)."""
        return column_spread(self._bench, self.layer)

    def column_weights(self, weights: str) -> NDArray[np.float64]:
        """What a column's error, relative to its target's variance, counts; shape (n_cols,).

        "variance": the same for all. "distillation": by what it does to the teacher's distillation loss
        (`finetune.evidence.sensitivity.channel_sensitivity`), tempered, mean 1.
        """
        if weights == "variance":
            return np.ones(self.info.n_cols)
        harm = self.sensitivity * self.target.var(axis=0, dtype=np.float64)
        harm **= TEMPER
        return harm / harm.mean() if harm.any() else np.ones(self.info.n_cols)

    @property
    def is_output(self) -> bool:
        """Whether this layer makes the network's outputs."""
        return self.host.node == self._bench.network.output

    # -- the chip -----------------------------------------------------------------------------

    @property
    def unit(self) -> NDArray[np.float64]:
        """Normalised output of one ADC code, shape (n_cols,)."""
        return self.host.unit / (self.host.scale * self.host.x_step)

    @property
    def row_tiles(self) -> tuple[tuple[int, int], ...]:
        """Rows whose conversions are told apart: row tiles, or all rows where the chip tells sums only."""
        return self.info.row_tiles if self.sheet.tile_codes else ((0, self.info.n_rows),)

    def read(self, picks: NDArray[np.int64], per_tile: bool = False) -> Reading:
        """Codes and saturation marks for chosen vectors; `per_tile` for each of `row_tiles`."""
        codes = self.codes[picks]
        return self._first_looked_at(codes, self.answers(codes, per_tile), per_tile)

    def answers(self, codes: NDArray[np.integer], per_tile: bool = False) -> Reading:
        """Codes and saturation marks for vectors; those of the tuner's own choice only at tier PROBE."""
        if per_tile and not self.sheet.tile_codes:
            sums = self._deployment.chip.mvm(self.layer, codes)
            return Reading(sums.codes[:, None], sums.saturated[:, None])
        return self._deployment.chip.mvm(self.layer, codes, per_tile)

    def _first_looked_at(self, codes: NDArray[np.integer], reading: Reading, per_tile: bool) -> Reading:
        """The reading; the first of a layer is compared with what the layer should hold."""
        contacts = self._bench.unwritten_contacts if self.host.levels is None else self._bench.contacts
        if self.layer in contacts:
            return reading
        first = not contacts
        contacts.add(self.layer)
        if check_first_answers(self, codes, reading, first):
            return self.answers(codes, per_tile)
        return reading

    @property
    def was_mapped(self) -> bool:
        """Whether the run goes on with a deployment that had been mapped before."""
        return self._bench.was_mapped

    @property
    def used_chip(self) -> bool:
        """Whether cells were found to be in use that the host took to be reset."""
        return self._bench.used_chip

    @used_chip.setter
    def used_chip(self, used: bool) -> None:
        self._bench.used_chip = used

    def reset_cells(self, mask: NDArray[np.bool_]) -> None:
        """Write level 0 to cells that the host believes to be at level 0; readings so far are void."""
        self._reading = None
        self._deployment.chip.write(self.layer, np.zeros(mask.shape, dtype=np.int64), mask)

    def set_output_range(self, output_range: float, unit: NDArray[np.float64]) -> None:
        """Set the range [A] of the layer's ADCs and the layer unit of a code; earlier readings are void."""
        self._reading = None
        self.host.output_range, self.host.unit = output_range, unit
        self._deployment.chip.configure(self.layer, output_range=output_range)

    def write(self, levels: NDArray[np.int64], mask: NDArray[np.bool_] | None = None) -> None:
        """Program; readings so far are void."""
        self._reading = None
        self._deployment.write(self.layer, levels, mask)

    def full_reading(self) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Codes of every vector in the present state, and saturation; read once per state."""
        if self._reading is None:
            reading = self._first_looked_at(self.codes, self.answers(self.codes), False)
            self._reading = (reading.codes, reading.saturated)
        return self._reading

    def finish(self, codes: NDArray[np.integer], reading: NDArray[np.integer]) -> NDArray[np.float32]:
        """Pre-activations (n, n_cols) from DAC codes and the chip's answer; present digital state."""
        return self._deployment.finish(self.layer, codes, reading)

    def nominal(self, codes: NDArray[np.integer], reading: NDArray[np.integer]) -> NDArray[np.float64]:
        """Pre-activations as if every cell were perfect, before gain, offset and corrections; (n, n_cols)."""
        common = self.host.common_mode(codes)
        nominal = reading * self.host.unit
        return nominal if common is None else nominal + common

    def outputs(self) -> NDArray[np.float32]:
        """Pre-activations of every vector with the present digital state, shape (n_vectors, n_cols)."""
        return self.finish(self.codes, self.full_reading()[0])

    # -- costs --------------------------------------------------------------------------------

    @property
    def cells_left(self) -> float:
        """Cells that the budget still lets be written."""
        return self._bench.meter.cells_left

    @property
    def chip_cells(self) -> int:
        """Cells of the whole chip that hold weights."""
        return self._bench.meter.n_cells

    @property
    def cycles(self) -> NDArray[np.int32]:
        """Writes of each cell in this run, shape (n_rows, n_cols, cells_per_weight)."""
        return self._bench.meter.cycles(self.layer)

    @property
    def writable(self) -> NDArray[np.bool_]:
        """Cells that the budget's limit of cycles still lets be written, same shape."""
        return self._bench.meter.writable(self.layer)

    def record(self, step: str, **quantities: float) -> None:
        """Append numbers of a step to the history, with the costs so far."""
        self._bench.record(self.layer, step, **quantities)


def target_columns(bench: Bench, layer: str) -> NDArray[np.float32]:
    """The teacher's pre-activations of a chip layer, ordered like its vectors."""
    host = bench.deployment.layers[layer]
    parts = [
        windows.to_columns(
            bench.network.node(node), np.asarray(bench.teacher_values(node), dtype=np.float32), host.group
        )
        for node in bench.deployment.nodes_of(layer)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def column_spread(bench: Bench, layer: str) -> NDArray[np.float64]:
    """Standard deviation of the teacher's pre-activations in each column of a layer, floored."""
    host = bench.deployment.layers[layer]
    if len(bench.deployment.nodes_of(layer)) > 1:
        spread = target_columns(bench, layer).std(axis=0).astype(np.float64)
        return np.maximum(spread, 1e-3 * max(spread.max(initial=0.0), 1e-12))
    values, node = bench.teacher_values(host.node), bench.network.node(host.node)
    axis = windows.channel_axis(node) % values.ndim
    part = values[(*(slice(None),) * axis, windows.channel_slice(node, host.group))]
    spread = part.std(axis=tuple(a for a in range(values.ndim) if a != axis)).astype(np.float64)
    return np.maximum(spread, 1e-3 * max(spread.max(initial=0.0), 1e-12))
