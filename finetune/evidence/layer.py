"""One layer on the tuner's bench: recorded inputs, readings, the teacher's targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.bench import Bench
from rramsim.blackbox.protocol import LayerInfo
from rramsim.host.layer import HostLayer
from rramsim.host.trace import Trace
from rramsim.network import windows

__all__ = ["Work"]

# exponent on the teacher's sensitivities: they hold if nothing behind corrects an error, but later layers are
# tuned to do so; on validation chips 1/2 did a little better than 1
TEMPER = 0.5


class Work:
    """What the steps of a pass share while they tune one layer.

    Units: inputs are DAC codes, outputs are *normalised*, that is what one would get from the
    codes times normalised weights (a weight of 1 is `layers[...].scale` of the network).

    Attributes
    ----------
    codes : integer ndarray, shape (n_vectors, n_rows)
        Every vector that the calibration images send to this layer, recorded from the chip's own
        activations.
    target : float32 ndarray, shape (n_vectors, n_cols)
        The teacher's pre-activations at the same images and positions.
    knowledge : dict
        What steps learnt about the kind of chip in earlier layers (spread of writes, noise).
    """

    def __init__(self, bench: Bench, trace: Trace, layer: str, knowledge: dict[str, Any]) -> None:
        deployment = bench.deployment
        self.bench = bench
        self.layer = layer
        self.host: HostLayer = deployment.layers[layer]
        self.info: LayerInfo = deployment.chip.layers[layer]
        self.knowledge = knowledge
        self.codes = trace.codes(layer)
        self.target = target_columns(bench, layer)
        self.samples: Any = None  # made by `finetune.evidence.samples`
        self._reading: tuple[NDArray[np.int32], NDArray[np.bool_]] | None = None

    # -- samples ------------------------------------------------------------------------------

    def sample(self, n_vectors: int) -> NDArray[np.int64]:
        """About `n_vectors` vectors, evenly spread over images and drawn over positions."""
        n_all = len(self.codes)
        if n_vectors >= n_all:
            return np.arange(n_all)
        rng = self.bench.rng(f"sample {self.layer}")
        edges = np.linspace(0, n_all, n_vectors + 1)
        picks = np.floor(edges[:-1] + rng.random(n_vectors) * np.diff(edges)).astype(np.int64)
        return np.unique(np.minimum(picks, n_all - 1))

    def column_weights(self, weights: str) -> NDArray[np.float64]:
        """What a column's error, relative to its target's variance, counts; shape (n_cols,).

        "variance": the same for all. "distillation": by what it does to the teacher's distillation loss
        (`weighting.channel_weights`), tempered, mean 1.
        """
        if weights == "variance":
            return np.ones(self.info.n_cols)
        columns = windows.channel_slice(self.bench.network.node(self.host.node), self.host.group)
        harm = self.bench.channel_weights(self.host.node)[columns] * self.target.var(axis=0, dtype=np.float64)
        harm **= TEMPER
        return harm / harm.mean() if harm.any() else np.ones(self.info.n_cols)

    # -- the chip -----------------------------------------------------------------------------

    @property
    def unit(self) -> NDArray[np.float64]:
        """Normalised output of one ADC code, shape (n_cols,)."""
        return self.host.unit / (self.host.scale * self.host.x_step)

    def read(self, picks: NDArray[np.int64], per_tile: bool = False) -> Any:
        """Codes and saturation marks for chosen vectors."""
        return self.bench.deployment.chip.mvm(self.layer, self.codes[picks], per_tile)

    def write(self, levels: NDArray[np.int64], mask: NDArray[np.bool_] | None = None) -> None:
        """Program; readings so far are void."""
        self._reading = None
        self.bench.deployment.write(self.layer, levels, mask)

    def void(self) -> None:
        """Forget readings, after a change of converter ranges."""
        self._reading = None

    def full_reading(self) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Codes of every vector in the present state, and saturation; read once per state."""
        if self._reading is None:
            reading = self.bench.deployment.chip.mvm(self.layer, self.codes)
            self._reading = (reading.codes, reading.saturated)
        return self._reading

    def outputs(self) -> NDArray[np.float32]:
        """Pre-activations of every vector with the present digital state, shape (n_vectors, n_cols)."""
        return self.bench.deployment.finish(self.layer, self.codes, self.full_reading()[0])

    @property
    def is_output(self) -> bool:
        """Whether this layer makes the network's outputs."""
        return self.host.node == self.bench.network.output


def target_columns(bench: Bench, layer: str) -> NDArray[np.float32]:
    """The teacher's pre-activations of a chip layer, ordered like its vectors."""
    host = bench.deployment.layers[layer]
    values = np.asarray(bench.teacher_values(host.node), dtype=np.float32)
    return windows.to_columns(bench.network.node(host.node), values, host.group)
