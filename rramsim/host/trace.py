"""Images on their way through a deployment, for tuners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import check_array
from rramsim.network import windows

if TYPE_CHECKING:
    from rramsim.host.deployment import Deployment

__all__ = ["Trace"]


class Trace:
    """Images on their way through a deployment: what a tuner of one layer after another needs.

    Activations before the present layer are kept, so that finishing a layer and going on costs
    one read of each layer. Its `codes` are vectors recorded from images, which a gate at tier
    `LAYERS` lets pass.
    """

    def __init__(self, deployment: Deployment, images: NDArray[np.float32]) -> None:
        self._deployment = deployment
        self._values: dict[str, NDArray[Any]] = {"input": check_array(images, "images", dtype=np.float32)}

    def activations(self, tensor: str) -> NDArray[np.float32]:
        """A tensor of the network as chip and host produce it; what it needs runs on the chip once."""
        if tensor not in self._values:
            mapped = set(self._deployment.network.mapped)
            self._deployment.evaluate(self._values, tensor, keep=mapped | self._inputs())
        return self._values[tensor]

    def _inputs(self) -> set[str]:
        network = self._deployment.network
        return {network.node(name).inputs[0] for name in network.mapped}

    def codes(self, layer: str) -> NDArray[Any]:
        """DAC codes the layer receives for these images, shape (n_vectors, n_rows)."""
        deployment = self._deployment
        source = deployment.network.node(deployment.layers[layer].node).inputs[0]
        codes = deployment.codes(layer, self.activations(source))
        record = getattr(deployment.chip, "_record", None)
        if record is not None:
            record(layer, codes)
        return codes

    def put(self, node: str, columns: list[NDArray[np.float32]]) -> None:
        """Set a mapped node's pre-activations from one matrix (n_vectors, n_cols) per group.

        Spares the chip a read whose answer the tuner already has.
        """
        network = self._deployment.network
        x = self.activations(network.node(node).inputs[0])
        self._values[node] = windows.from_columns(network.node(node), x.shape, columns)

    def forget_after(self, node: str) -> None:
        """Drop the node's own and all later activations: the layer was changed."""
        names = [entry.name for entry in self._deployment.network.nodes]
        for name in names[names.index(node) :]:
            self._values.pop(name, None)
