"""Images on their way through a deployment, for tuners."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rramsim.network import windows
from rramsim.parallel import release_memory

if TYPE_CHECKING:
    from rramsim.host.deployment import Deployment

__all__ = ["Trace"]


class Trace:
    """Images on their way through a deployment: what a tuner of one layer after another needs.

    Activations before the present layer are kept, so that finishing a layer and going on costs
    one read of each layer. Its `codes` are vectors recorded from images, which a gate at tier
    `LAYERS` lets pass; those behind a tensor that was `put` are not.
    """

    def __init__(self, deployment: Deployment, images: Any) -> None:
        self._deployment = deployment
        self._values: dict[str, NDArray[Any]] = deployment.network.feed(images)
        self._foreign: set[str] = set()  # tensors that are not the chip's own doing, or rest on such
        self._codes: dict[str, tuple[Any, ...]] = {}  # while somebody holds them: what they came from

    def activations(self, tensor: str) -> NDArray[np.float32]:
        """A tensor of the network as chip and host produce it; what it needs runs on the chip once."""
        if tensor not in self._values:
            mapped, before = set(self._deployment.network.mapped), set(self._values)
            self._deployment.evaluate(self._values, tensor, keep=mapped | self._inputs())
            self._spread_foreign(before)
        return self._values[tensor]

    def _spread_foreign(self, before: set[str]) -> None:
        """Mark tensors that rest on foreign ones; those known `before` keep the mark they have."""
        marked = set(self._foreign)
        for node in self._deployment.network.nodes:
            if node.name not in before and marked.intersection(node.inputs):
                marked.add(node.name)
        self._foreign = marked & set(self._values)

    def _inputs(self) -> set[str]:
        network = self._deployment.network
        return {network.node(name).inputs[0] for name in network.mapped}

    def codes(self, layer: str, node: str | None = None) -> NDArray[Any]:
        """DAC codes the layer receives for these images, shape (n_vectors, n_rows).

        Of a layer that several nodes share, those of one of them, or of all, one after another.
        """
        deployment = self._deployment
        nodes = deployment.nodes_of(layer)
        if node is None and len(nodes) > 1:
            return np.concatenate([self.codes(layer, each) for each in nodes])
        source = deployment.network.node(node or nodes[0]).inputs[0]
        if len(nodes) > 1:
            codes = deployment.codes(layer, self.activations(source))
            if source not in self._foreign:
                deployment.port.record(layer, codes)
            return codes
        x, host = self.activations(source), deployment.layers[layer]
        origin = (x, host.x_step, host.signed)
        held, recorded, *known = self._codes.get(layer, (lambda: None, False))
        codes = held()
        if codes is None or known[0] is not x or known[1:] != list(origin[1:]):
            codes, recorded = deployment.codes(layer, x), False
        if source not in self._foreign and not recorded:
            deployment.port.record(layer, codes)
            recorded = True
        self._codes[layer] = (weakref.ref(codes), recorded, *origin)
        return codes

    def answer(self, node: str, readings: list[NDArray[Any]]) -> None:
        """Continue from ADC codes (n_vectors, n_cols), one matrix per group, that the chip gave for `codes`.

        Spares the chip a read whose answer the tuner already has. A gate confirms that these are the
        chip's own answers.
        """
        deployment = self._deployment
        columns = []
        for layer, reading in zip(deployment.layers_of(node), readings, strict=True):
            codes = self.codes(layer, node)
            deployment.port.confirm(layer, codes, reading)
            columns.append(deployment.finish(layer, codes, reading))
        self._set(node, columns)
        if deployment.network.node(node).inputs[0] in self._foreign:
            self._foreign.add(node)
        else:
            self._foreign.discard(node)

    def put(self, node: str, columns: list[NDArray[np.float32]]) -> None:
        """Set a mapped node's pre-activations to anything, one matrix (n_vectors, n_cols) per group.

        Vectors behind it are not natural any more: a gate at tier `LAYERS` refuses them. See `answer`.
        """
        self._set(node, columns)
        self._foreign.add(node)

    def _set(self, node: str, columns: list[NDArray[np.float32]]) -> None:
        network = self._deployment.network
        x = self.activations(network.node(node).inputs[0])
        self._values[node] = windows.from_columns(network.node(node), x.shape, columns)

    def forget_before(self, node: str) -> None:
        """Drop tensors that neither the output nor mapped nodes behind this one need any more."""
        network = self._deployment.network
        mapped = network.mapped
        behind = [network.node(name).inputs[0] for name in mapped[mapped.index(node) + 1 :]]
        needed: set[str] = set()
        stack = [network.output, *behind]
        while stack:
            name = stack.pop()
            if name not in needed:
                needed.add(name)
                stack += [] if name in self._values else network.node(name).inputs
        self._values = {name: value for name, value in self._values.items() if name in needed}
        self._foreign &= set(self._values)
        self._codes = {layer: entry for layer, entry in self._codes.items() if entry[0]() is not None}
        release_memory()

    def forget_after(self, node: str) -> None:
        """Drop the node's own and all later activations: the layer was changed."""
        names = [entry.name for entry in self._deployment.network.nodes]
        for name in names[names.index(node) :]:
            self._values.pop(name, None)
            self._foreign.discard(name)
