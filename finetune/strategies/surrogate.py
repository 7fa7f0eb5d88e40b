"""Reference points, not comparable with tuners: they use more access than a real chip allows.

`reference.surrogate` runs the chip forward and goes backward through the digital network, as if the chip
had its weights (physics-aware training, Wright et al., Nature 601, 2022; straight-through). It needs a
digital model of every operator and its derivative, which black-box tuning does without.

`oracle` reads the true conductances of a simulated chip, which no protocol offers, and rewrites cells with
that knowledge. It stands outside the registry of strategies on purpose: it gets the simulator
itself, not a gate. What it reaches bounds what identification could reach with the same writes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.bench import Bench
from finetune.evidence.host_vector import HostParameters
from finetune.evidence.layer import column_spread
from finetune.evidence.measurement import Measurement
from finetune.objective import distillation, softmax
from finetune.optimizers import Rule
from finetune.strategies.base import Strategy, register
from finetune.strategies.zeroth_order import positions
from rramsim.blackbox.protocol import Tier
from rramsim.checks import InputError
from rramsim.network import Network, Node, windows

__all__ = ["Surrogate", "backward"]

Array = NDArray[np.floating]


# -- backward through the digital network ---------------------------------------------------------


def _windows_back(node: Node, grad: Array, shape: tuple[int, ...]) -> Array:
    """Gradient with respect to the input of a Conv node, (n, c, h, w), from that of its output."""
    attributes = node.attributes
    weight = node.parameters["weight"]
    n_groups = int(attributes.get("group", 1))
    (k_h, k_w), (s_h, s_w) = weight.shape[2:], attributes.get("strides", [1, 1])
    d_h, d_w = attributes.get("dilations", [1, 1])
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    n, c, h, w = shape
    padded = np.zeros((n, c, h + top + bottom, w + left + right), dtype=np.float32)
    own_in, own_out = c // n_groups, weight.shape[0] // n_groups
    out_h, out_w = grad.shape[2:]
    for group in range(n_groups):
        outs = slice(group * own_out, (group + 1) * own_out)
        ins = slice(group * own_in, (group + 1) * own_in)
        for y in range(k_h):
            for x in range(k_w):
                part = np.einsum("nohw,oc->nchw", grad[:, outs], weight[outs, :, y, x], optimize=True)
                rows = slice(y * d_h, y * d_h + (out_h - 1) * s_h + 1, s_h)
                cols = slice(x * d_w, x * d_w + (out_w - 1) * s_w + 1, s_w)
                padded[:, ins, rows, cols] += part
    return padded[:, :, top : top + h, left : left + w]


def _max_pool_back(node: Node, grad: Array, x: Array, y: Array) -> Array:
    k_h, k_w = node.attributes["kernel_shape"]
    if list(node.attributes.get("strides", [k_h, k_w])) != [k_h, k_w] or any(
        node.attributes.get("pads", [0])
    ):
        raise InputError(f"reference.surrogate: node {node.name!r} must pool without overlap or padding")
    out = np.zeros_like(x)
    h, w = y.shape[2] * k_h, y.shape[3] * k_w
    hits = x[:, :, :h, :w] == np.repeat(np.repeat(y, k_h, 2), k_w, 3)
    out[:, :, :h, :w] = hits * np.repeat(np.repeat(grad, k_h, 2), k_w, 3)
    return out


def _node_back(node: Node, grad: Array, inputs: list[Array], output: Array) -> list[Array]:
    """Gradients with respect to the inputs of a node."""
    x, p = inputs[0], node.parameters
    if node.op == "Conv":
        return [_windows_back(node, grad, x.shape)]
    if node.op in ("Gemm", "MatMul"):
        return [grad @ p["weight"].T]
    if node.op == "BatchNormalization":
        factor = p["scale"] / np.sqrt(p["variance"] + node.attributes.get("epsilon", 1e-5))
        return [grad * factor.reshape(1, -1, *([1] * (grad.ndim - 2)))]
    if node.op == "Relu":
        return [grad * (output > 0)]
    if node.op == "MaxPool":
        return [_max_pool_back(node, grad, x, output)]
    if node.op == "GlobalAveragePool":
        return [np.broadcast_to(grad / np.prod(x.shape[2:]), x.shape).astype(np.float32)]
    if node.op in ("Flatten", "Reshape", "Squeeze", "Identity", "Dropout"):
        return [grad.reshape(x.shape)]
    if node.op == "Add" and all(entry.shape == grad.shape for entry in inputs):
        return [grad] * len(inputs)
    raise InputError(f"reference.surrogate: no derivative of operator {node.op} (node {node.name!r})")


def backward(network: Network, values: dict[str, Array], grad: Array, wanted: set[str]) -> dict[str, Array]:
    """Gradients of a loss with respect to the outputs of chosen nodes.

    Parameters
    ----------
    values : dict
        Every tensor of the forward pass, the chip's own activations.
    grad : ndarray
        Gradient with respect to the network's output.
    wanted : set of str
        Nodes whose output gradients are returned.
    """
    grads: dict[str, Array] = {network.output: grad.astype(np.float32)}
    for node in reversed(network.nodes):
        if node.name not in grads or not node.inputs:
            continue
        inputs = [values[name] for name in node.inputs]
        for name, part in zip(
            node.inputs, _node_back(node, grads[node.name], inputs, values[node.name]), strict=False
        ):
            if name not in network.inputs:
                grads[name] = grads[name] + part if name in grads else part
        if node.name not in wanted:
            del grads[node.name]
    return {name: grads[name] for name in wanted if name in grads}


@register("reference.surrogate")
class Surrogate(Strategy):
    """Not comparable (needs gradients). Chip in the loop with a digital surrogate, on gains and offsets.

    Forward through the chip, ``dL/dz`` of the distillation loss backward through the teacher's operators
    evaluated at the chip's own activations, Adam on every layer's gain and offset.

    Parameters
    ----------
    steps : int
        Minibatches.
    batch : int
        Images in each; every step reads all layers for them.
    rate : float
        Step of Adam in natural units.
    """

    name = "reference.surrogate"
    tier = Tier.LAYERS

    def __init__(
        self, *, steps: int = 60, batch: int = 64, rate: float = 0.02, temperature: float = 2.0
    ) -> None:
        if steps < 1 or batch < 1:
            raise InputError(f"reference.surrogate: need steps >= 1 and batch >= 1, got {steps} and {batch}")
        self.steps, self.batch, self.rate, self.temperature = steps, batch, rate, temperature
        self._step = 0
        self._rule = self._new_rule()

    def _new_rule(self) -> Rule:
        return Rule("adam", rate=self.rate, half_life=self.steps / 2, power=1.0)

    def plan(self, bench: Bench) -> dict[str, float]:
        """Predicted costs."""
        per_image = sum(positions(bench, node) for node in bench.network.mapped)
        n_images = min(self.batch, len(bench.images))
        return {"vectors": float(self.steps * n_images * per_image), "cell_writes": 0.0}

    def start(self, bench: Bench) -> None:
        """Begin with the present gains and offsets."""
        self._step, self._rule = 0, self._new_rule()

    def advance(self, bench: Bench) -> bool:
        """One step."""
        network, deployment = bench.deployment.network, bench.deployment
        layers = list(deployment.layers)
        spread = {layer: column_spread(bench, layer) for layer in layers}
        parameters = HostParameters(deployment, layers, ("gain", "offset"), spread)
        rng = bench.rng(f"surrogate {self._step}")
        chosen = rng.choice(len(bench.images), min(self.batch, len(bench.images)), replace=False)
        teacher = bench.teacher_values(bench.teacher.output)[chosen]

        measurement = Measurement(deployment, bench.images[chosen])
        logits = measurement.base()
        values = {node.name: measurement.activations(node.name) for node in network.nodes}
        values |= network.feed(bench.images[chosen])
        error = softmax(logits, self.temperature) - softmax(teacher, self.temperature)
        if any("shares" in network.node(name).attributes for name in network.mapped):
            raise InputError("reference.surrogate: has no gradient for nodes that share their weights")
        grads = backward(network, values, self.temperature * error / len(chosen), set(network.mapped))

        slope = np.zeros(parameters.n)
        for segment in parameters.segments:
            host = deployment.layers[segment.owner]
            flat = windows.to_columns(network.node(host.node), grads[host.node], host.group)
            if segment.kind == "gain":
                _, reading = measurement.codes(segment.owner)
                slope[segment.entries] = (flat * reading).sum(axis=0) * host.unit
            else:
                slope[segment.entries] = flat.sum(axis=0)
        parameters.write(parameters.read() + parameters.scale * self._rule.move(slope * parameters.scale))
        bench.record(
            "",
            self.name,
            loss=float(distillation(teacher, logits, self.temperature).mean()),
            round=self._step,
        )
        self._step += 1
        return self._step == self.steps

    def state_dict(self) -> dict[str, Any]:
        """Steps done and Adam's averages."""
        return {"step": self._step, "rule": self._rule.state_dict()}

    def load_state_dict(self, state: Any) -> None:
        """Go on from `state_dict`."""
        self._step = int(state["step"])
        self._rule.load_state_dict(state["rule"])


# -- the oracle -------------------------------------------------------------------------------------
