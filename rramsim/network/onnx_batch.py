"""Networks whose ONNX file fixes the batch, opened for batches of any size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError
from rramsim.network.graph import Network
from rramsim.network.node import Node

__all__ = ["opened"]


def opened(network: Network) -> Network:
    """The network for batches of any size where its file fixes one, if that changes no output.

    Shapes and constants that hold the file's batch get that of the input instead; what then gives
    the same for two batches at once as for each alone is taken, else the network stays as it is.
    """
    fixed = network.metadata.get("batch")
    if fixed is None:
        return network
    constants = {node.name: node.parameters["value"] for node in network.nodes if node.op == "Constant"}
    nodes = [Node("batch:size", "Shape", ("input",), {"start": 0, "end": 1})]

    def with_batch(name: str, rest: NDArray[Any]) -> str:
        nodes.append(Node(f"{name}:rest", "Constant", (), {}, {"value": np.asarray(rest, dtype=np.int64)}))
        inputs = ("batch:size", f"{name}:rest")
        nodes.append(Node(f"{name}:shape", "Concat", inputs, {"axis": 0}))
        return f"{name}:shape"

    for node in network.nodes:
        inputs = list(node.inputs)
        if node.op in ("Reshape", "Expand") and len(inputs) > 1:
            shape = constants.get(inputs[1])
            if shape is not None and shape[:1].tolist() == [fixed]:
                inputs[1] = with_batch(node.name, shape[1:])
        elif node.op == "Concat":
            for index, name in enumerate(inputs):
                value = constants.get(name)
                if fixed == 1 and value is not None and value.ndim > 1 and len(value) == 1:
                    shape_name = with_batch(f"{node.name}:{index}", np.array(value.shape[1:]))
                    inputs[index] = f"{node.name}:{index}"
                    nodes.append(Node(inputs[index], "Expand", (name, shape_name)))
        nodes.append(replace(node, inputs=tuple(inputs)))
    metadata = {key: value for key, value in network.metadata.items() if key != "batch"}
    if len(nodes) == len(network.nodes) + 1:  # nothing holds the batch
        nodes = nodes[1:]
    rng = np.random.default_rng(0)
    x = {
        name: rng.uniform(0, 2, (2 * fixed, *shape)).astype(dtype)
        for name, (shape, dtype) in network.inputs.items()
    }
    parts = [{name: v[half] for name, v in x.items()} for half in (slice(fixed), slice(fixed, None))]
    halves = [network.evaluate(part, network.output) for part in parts]
    try:
        twin = Network(
            nodes,
            network.input_shape,
            network.output,
            network.name,
            metadata,
            network.input_dtype,
            network.more_inputs,
        )
        both = twin.evaluate(x, twin.output)
    except InputError:
        return network
    want = np.concatenate(halves)
    same = both.shape == want.shape and np.allclose(both, want, rtol=1e-5, atol=1e-6, equal_nan=True)
    return twin if same else network
