"""Digital numbers of a deployment as one vector, for methods that know only vectors.

Kinds: `gain` and `offset` of a layer's columns, `adapter` (the output side of a low-rank correction),
`range` (logarithm of the ADC's full scale), `norm` (scale and bias of kept batch norm).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.checks import InputError, check_array, nearest_name
from rramsim.host.deployment import Deployment

__all__ = ["KINDS", "HostParameters", "Segment"]

KINDS = ("gain", "offset", "adapter", "range", "norm")


@dataclass(frozen=True)
class Segment:
    """Consecutive entries of the vector that belong together."""

    owner: str  # chip layer, or network node for `norm`
    kind: str
    start: int
    stop: int

    @property
    def entries(self) -> slice:
        """Where in the vector."""
        return slice(self.start, self.stop)


class HostParameters:
    """A view of chosen digital parameters as a vector.

    Parameters
    ----------
    deployment : Deployment
    layers : iterable of str
        Chip layers.
    kinds : iterable of str
        Which of `KINDS`; layers without an adapter have no `adapter` entries.
    spread : mapping of layer to ndarray (n_cols,)
        Standard deviation of the layer's outputs (the teacher's): the natural size of an offset.
    latent : mapping of layer to ndarray (rank,)
        Standard deviation of the adapter's inner values, 1 by default.

    Attributes
    ----------
    scale : ndarray, shape (n,)
        Natural size of a change of each entry: the gain itself, one standard deviation of output.
    blocks : ndarray, shape (n,)
        Column of its layer that each entry acts on, counted over all layers; -1 for `range`, `norm`.
    """

    def __init__(
        self,
        deployment: Deployment,
        layers: Iterable[str],
        kinds: Iterable[str] = ("gain", "offset"),
        spread: Mapping[str, NDArray[np.floating]] | None = None,
        latent: Mapping[str, NDArray[np.floating]] | None = None,
    ) -> None:
        self.deployment = deployment
        self.segments: list[Segment] = []
        self.layers = list(layers)
        kinds = tuple(kinds)
        for kind in kinds:
            if kind not in KINDS:
                raise InputError(f"parameters: unknown kind {kind!r}; {nearest_name(kind, KINDS)}")
        spread, latent = spread or {}, latent or {}
        scales: list[NDArray[np.float64]] = []
        blocks: list[NDArray[np.int64]] = []
        n_columns = 0
        for layer in self.layers:
            host = deployment.layers[layer]
            width = np.asarray(spread.get(layer, np.abs(host.scale)), dtype=np.float64)
            width = np.maximum(width, 1e-6 * max(width.max(initial=0.0), 1e-30))
            columns = n_columns + np.arange(host.gain.size)
            n_columns += host.gain.size
            for kind in kinds:
                if kind == "gain":
                    self._add(layer, kind, np.maximum(np.abs(host.gain), 0.1), columns, scales, blocks)
                elif kind == "offset":
                    self._add(layer, kind, width, columns, scales, blocks)
                elif kind == "range":
                    self._add(layer, kind, np.ones(1), np.array([-1]), scales, blocks)
                elif kind == "adapter" and host.up is not None:
                    rank = host.up.shape[0]
                    inner = np.maximum(np.asarray(latent.get(layer, np.ones(rank)), dtype=np.float64), 1e-30)
                    size = (width[None, :] / inner[:, None]).ravel()
                    self._add(layer, kind, size, np.tile(columns, rank), scales, blocks)
        if "norm" in kinds:
            for node in deployment.network.nodes:
                if node.op == "BatchNormalization":
                    size = np.maximum(np.abs(node.parameters["scale"].astype(np.float64)), 1e-3)
                    self._add(node.name, "norm", np.tile(size, 2), np.full(2 * size.size, -1), scales, blocks)
        if not self.segments:
            raise InputError(
                f"no parameters of kinds {kinds} in layers {self.layers}; was an adapter fitted?"
            )
        self.scale, self.blocks = np.concatenate(scales), np.concatenate(blocks)

    def _add(
        self,
        owner: str,
        kind: str,
        scale: NDArray[np.float64],
        block: NDArray[np.int64],
        scales: list[NDArray[np.float64]],
        blocks: list[NDArray[np.int64]],
    ) -> None:
        start = self.segments[-1].stop if self.segments else 0
        self.segments.append(Segment(owner, kind, start, start + scale.size))
        scales.append(scale)
        blocks.append(block)

    @property
    def n(self) -> int:
        """Number of parameters."""
        return self.segments[-1].stop

    def read(self) -> NDArray[np.float64]:
        """Present values, shape (n,)."""
        parts = []
        for segment in self.segments:
            if segment.kind == "norm":
                parameters = self.deployment.network.node(segment.owner).parameters
                parts.append(np.concatenate([parameters["scale"], parameters["bias"]]).astype(np.float64))
                continue
            host = self.deployment.layers[segment.owner]
            if segment.kind == "range":
                parts.append(np.array([np.log(host.output_range)]))
            elif segment.kind == "adapter" and host.up is not None:
                parts.append(host.up.ravel().astype(np.float64))
            else:
                parts.append(np.array(host.gain if segment.kind == "gain" else host.offset, dtype=np.float64))
        return np.concatenate(parts)

    def write(self, x: ArrayLike) -> None:
        """Set all values; writes no cell."""
        x = check_array(x, "x", shape=(self.n,))
        for segment in self.segments:
            values = x[segment.entries]
            if segment.kind == "norm":
                node = self.deployment.network.node(segment.owner)
                scale, bias = np.split(values.astype(np.float32), 2)
                changed = {**node.parameters, "scale": scale, "bias": bias}
                self.deployment.network = self.deployment.network.replace(segment.owner, changed)
                continue
            host = self.deployment.layers[segment.owner]
            if segment.kind == "gain":
                host.gain = values.copy()
            elif segment.kind == "offset":
                host.offset = values.copy()
            elif segment.kind == "adapter" and host.up is not None:
                host.up = values.reshape(host.up.shape).copy()
            elif segment.kind == "range":
                wanted = float(np.exp(values[0]))
                if wanted != host.output_range:
                    host.unit = host.unit * (wanted / host.output_range)
                    host.output_range = wanted
                    self.deployment.chip.configure(segment.owner, output_range=wanted)

    def touched(self, before: NDArray[np.float64], after: NDArray[np.float64]) -> set[str]:
        """Network nodes whose parameters differ between two vectors."""
        nodes: set[str] = set()
        for segment in self.segments:
            if not np.array_equal(before[segment.entries], after[segment.entries]):
                owner = segment.owner
                nodes.update([owner] if segment.kind == "norm" else self.deployment.nodes_of(owner))
        return nodes
