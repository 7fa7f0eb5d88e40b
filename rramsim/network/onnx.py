"""Networks from ONNX files (extra `onnx`).

Operators keep ONNX's names and meaning; what differs between opset versions is brought to the
present form here. Constant weights of Conv, Gemm, MatMul and BatchNormalization become the
node's parameters, other constants become Constant nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError
from rramsim.network.graph import Network, execute
from rramsim.network.node import Node
from rramsim.network.operators import OPERATORS

__all__ = ["from_onnx", "onnx_package"]

ARITHMETIC = ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor")
# operators whose constant inputs are parameters here, or whose meaning depends on the opset
NOT_FOLDED = ("BatchNormalization", "Clip", "Conv", "Gemm", "LogSoftmax", "Softmax")


def onnx_package() -> Any:
    """The module `onnx`, or the command that installs it."""
    try:
        import onnx
    except ImportError:
        raise InputError("reading ONNX files needs the package onnx: pip install 'rramsim[onnx]'") from None
    return onnx


def from_onnx(
    path: str | Path, *, fold_batch_norm: bool = False, input_shape: Sequence[int] | None = None
) -> Network:
    """Read a classifier from an ONNX file.

    Parameters
    ----------
    path : path
    fold_batch_norm : bool
        Fold each batch norm into the matrix before it; kept by default, since tuners use it.
    input_shape : sequence of int, optional
        Shape of one input without the batch axis, where the file leaves it open.

    Raises
    ------
    InputError
        No readable model, more than one input, an open input shape, or unsupported operators
        (all of them, with the names of their nodes).
    """
    onnx = onnx_package()
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf raises its own types
        raise InputError(f"{path}: not a readable ONNX model ({type(error).__name__})") from None
    if model.functions:
        import onnx.inliner

        model = onnx.inliner.inline_local_functions(model)
    network = _Reader(onnx, model, str(path), input_shape).network()
    return network.fold_batch_norm() if fold_batch_norm else network


class _Reader:
    """One model on its way to a `Network`."""

    def __init__(self, onnx: Any, model: Any, where: str, input_shape: Sequence[int] | None) -> None:
        self.onnx, self.graph, self.where = onnx, model.graph, where
        self.opset = next(
            (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1
        )
        self.constants: dict[str, NDArray[Any]] = {
            entry.name: onnx.numpy_helper.to_array(entry) for entry in self.graph.initializer
        }
        self.nodes: list[Node] = []
        self.names: dict[str, str] = {}  # ONNX tensor -> our node
        self.unsupported: list[str] = []
        self.makers = {tensor: node for node in self.graph.node for tensor in node.output}
        inputs = [entry for entry in self.graph.input if entry.name not in self.constants]
        if len(inputs) != 1:
            raise InputError(
                f"{where}: the network must have one input, got {[entry.name for entry in inputs]}"
            )
        self.names[inputs[0].name] = "input"
        tensor = inputs[0].type.tensor_type
        self.input_dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        dims = [entry.dim_value if entry.HasField("dim_value") else 0 for entry in tensor.shape.dim]
        self.fixed_batch = dims[0] if dims and dims[0] > 0 else 0
        shape = tuple(input_shape) if input_shape is not None else tuple(dims[1:])
        if not dims or any(n <= 0 for n in shape):
            raise InputError(f"{where}: the input's shape is open, {dims}: give input_shape=(c, h, w)")
        self.input_shape = shape

    def network(self) -> Network:
        """Convert all nodes."""
        for node in self.graph.node:
            self._convert(node)
        if self.unsupported:
            raise InputError(f"{self.where}: unsupported operators: {'; '.join(self.unsupported)}")
        output = self._source(self.graph.output[0].name)
        metadata = {"source": Path(self.where).name, "opset": int(self.opset)}
        if self.fixed_batch:
            metadata["batch"] = self.fixed_batch
        return opened(self._part(output, metadata))

    def _part(self, output: str, metadata: dict[str, Any]) -> Network:
        nodes = self._reachable(output)
        return Network(nodes, self.input_shape, output, self.graph.name or "onnx", metadata, self.input_dtype)

    def _reachable(self, output: str) -> list[Node]:
        by_name = {node.name: node for node in self.nodes}
        wanted, stack = set(), [output]
        while stack:
            name = stack.pop()
            if name != "input" and name not in wanted:
                wanted.add(name)
                stack.extend(by_name[name].inputs)
        return [node for node in self.nodes if node.name in wanted]

    def _source(self, tensor: str) -> str:
        """Our node that makes an ONNX tensor; a constant gets its node when first used."""
        if tensor not in self.names:
            if tensor not in self.constants:
                raise InputError(f"{self.where}: tensor {tensor!r} is made by no supported node")
            name = self._free(f"constant:{tensor}")
            self.nodes.append(Node(name, "Constant", (), {}, {"value": self.constants[tensor]}))
            self.names[tensor] = name
        return self.names[tensor]

    def _free(self, name: str) -> str:
        taken = {node.name for node in self.nodes} | {"input"}
        result, count = name, 1
        while result in taken:
            count += 1
            result = f"{name}#{count}"
        return result

    def _convert(self, node: Any) -> None:
        label = f"{node.op_type} ({node.name or node.output[0]})"
        attributes = {entry.name: self._attribute(entry) for entry in node.attribute}
        if node.op_type == "Constant":
            kind, value = next(iter(attributes.items()))
            number = {"value_float": np.float32, "value_floats": np.float32}.get(kind)
            self.constants[node.output[0]] = np.asarray(value, dtype=number)
            return
        if node.op_type == "ConstantOfShape":
            value = np.asarray(attributes.get("value", np.zeros(1, dtype=np.float32)))
            attributes = {"value": value.item(), "dtype": value.dtype.str}
        if node.op_type == "Split":
            self._split_up(node, attributes)
            return
        if node.op_type == "If" and self._inline(node, attributes):
            return
        if self._fold(node, attributes):
            return
        handler: Callable[[Any, dict[str, Any]], Node | None] = getattr(
            self, f"_{node.op_type.lower()}", self._plain
        )
        known = node.op_type in OPERATORS and node.domain in ("", "ai.onnx")
        # until opset 6 a second operand was aligned by an attribute
        aligned = self.opset < 7 and "axis" in attributes and node.op_type in ARITHMETIC
        if not known or aligned:
            self.unsupported.append(label)
            for tensor in node.output:  # go on, so that the error lists every operator
                self.names[tensor] = "input"
            return
        converted = handler(node, attributes)
        if converted is None:
            self.unsupported.append(label)
            self.names[node.output[0]] = "input"
            return
        self.nodes.append(converted)
        self.names[node.output[0]] = converted.name

    def _fold(self, node: Any, attributes: dict[str, Any]) -> bool:
        """Compute a node of constant inputs here and now."""
        known = all(tensor in self.constants for tensor in node.input if tensor)
        if node.op_type not in OPERATORS or node.op_type in NOT_FOLDED or not (node.input and known):
            return False
        if (node.op_type == "Slice" and "starts" in attributes) or "" in node.input:
            return False  # forms that need their converter first
        values = [self.constants[tensor] for tensor in node.input]
        if node.op_type == "Cast":
            attributes = {"to": self.onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])}
        stand_in = Node(node.name, node.op_type, (), attributes, {})
        self.constants[node.output[0]] = np.asarray(execute(stand_in, values))
        return True

    def _inline(self, node: Any, attributes: dict[str, Any]) -> bool:
        """Convert the branch of an If that is taken, where constants and shapes decide that."""
        if not self._of_shapes_alone(node.input[0]):
            return False
        if node.input[0] in self.constants:
            condition = bool(self.constants[node.input[0]])
        else:
            try:
                part = self._part(self._source(node.input[0]), {})
            except InputError:
                return False
            inputs = np.zeros((self.fixed_batch or 2, *self.input_shape), dtype=self.input_dtype)
            condition = bool(part.evaluate({"input": inputs}, part.output))
        branch = attributes["then_branch" if condition else "else_branch"]
        for entry in branch.initializer:
            self.constants[entry.name] = self.onnx.numpy_helper.to_array(entry)
        self.makers |= {tensor: inner for inner in branch.node for tensor in inner.output}
        for inner in branch.node:
            self._convert(inner)
        for tensor, made in zip(node.output, branch.output, strict=True):
            self.names[tensor] = self._source(made.name)
        return True

    def _of_shapes_alone(self, tensor: str) -> bool:
        stack, seen = [tensor], set()
        while stack:
            name = stack.pop()
            maker = self.makers.get(name)
            if not name or name in self.constants or name in seen:
                continue
            if maker is None or maker.op_type == "If":
                return False
            seen.add(name)
            if maker.op_type not in ("Shape", "Size"):
                stack.extend(maker.input)
        return True

    def _attribute(self, entry: Any) -> Any:
        value = self.onnx.helper.get_attribute_value(entry)
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, self.onnx.TensorProto):
            return self.onnx.numpy_helper.to_array(value)
        plain = isinstance(value, int | float | str | self.onnx.GraphProto)
        return value if plain else list(value)

    def _made(
        self, node: Any, op: str, inputs: Sequence[str], attributes: dict[str, Any], **parameters: Any
    ) -> Node:
        name = self._free(node.name or node.output[0])
        return Node(name, op, tuple(self._source(tensor) for tensor in inputs), attributes, parameters)

    def _plain(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        inputs = list(node.input)
        while inputs and not inputs[-1]:
            inputs.pop()
        if "" in inputs:  # dropping one would shift those after it
            return None
        return self._made(node, node.op_type, inputs, attributes)

    def _constant(self, node: Any, index: int) -> NDArray[Any] | None:
        """Constant input by position; None where it is absent or computed."""
        return self.constants.get(node.input[index]) if index < len(node.input) else None

    def _bias(self, node: Any) -> tuple[NDArray[Any] | None, bool]:
        """Third input if it is constant, and whether there is one at all."""
        given = len(node.input) > 2 and bool(node.input[2])
        return (self._constant(node, 2) if given else None), given

    def _conv(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        weight = self._constant(node, 1)
        bias, given = self._bias(node)
        if weight is None or weight.ndim not in (3, 4) or (given and bias is None):
            return None
        parameters = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        return self._made(node, "Conv", node.input[:1], attributes, **parameters)

    def _maxpool(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        if len(attributes["kernel_shape"]) > 2:
            return None
        return self._made(node, node.op_type, node.input[:1], attributes)

    _averagepool = _maxpool

    def _gemm(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        alpha, beta = (np.float32(attributes.get(name, 1.0)) for name in ("alpha", "beta"))
        weight = self._constant(node, 1)
        bias, given = self._bias(node)
        left, right = node.input[:2]
        if attributes.get("transA", 0):
            left = self._extra(node, "Transpose", [left])
        if weight is None:
            right = self._extra(node, "Transpose", [right]) if attributes.get("transB", 0) else right
            product = self._made(node, "MatMul", [left, right], {})
            if alpha != 1:
                product = self._then(node, product, "Mul", alpha)
        else:
            weight = (weight.T if attributes.get("transB", 0) else weight) * alpha
            parameters = {"weight": weight}
            if bias is not None and bias.shape in ((), (1,), weight.shape[1:], (1, weight.shape[1])):
                parameters["bias"] = np.broadcast_to(beta * bias, (1, weight.shape[1])).reshape(-1)
                given = False
            product = self._made(node, "Gemm", [left], {}, **parameters)
        if not given:
            return product
        shift = node.input[2]
        if beta != 1:
            shift = self._extra(node, "Mul", [shift, self._number(f"{node.output[0]}:beta", beta)])
        return self._then(node, product, "Add", shift)

    def _number(self, name: str, value: Any) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def _extra(self, node: Any, op: str, inputs: Sequence[str]) -> str:
        """A node before the one being converted; returns the name of its tensor."""
        tensor = self._free(f"{inputs[0]}:{op}")
        self.nodes.append(Node(tensor, op, tuple(self._source(name) for name in inputs)))
        self.names[tensor] = tensor
        return tensor

    def _then(self, node: Any, first: Node, op: str, other: Any) -> Node:
        """A node after `first` that takes it and another tensor or number."""
        self.nodes.append(first)
        other = other if isinstance(other, str) else self._number(f"{node.output[0]}:{op}", other)
        return Node(self._free(f"{first.name}:{op}"), op, (first.name, self._source(other)))

    def _matmul(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        weight = self._constant(node, 1)
        if weight is not None and weight.ndim == 2:
            return self._made(node, "MatMul", node.input[:1], {}, weight=weight)
        return self._made(node, "MatMul", node.input[:2], {})

    def _batchnormalization(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        values = [self._constant(node, index) for index in range(1, 5)]
        per_position = not attributes.get("spatial", 1)  # until opset 8
        if any(value is None for value in values) or per_position or attributes.get("training_mode", 0):
            return None
        names = ("scale", "bias", "mean", "variance")
        kept = {"epsilon": attributes.get("epsilon", 1e-5)}
        return self._made(
            node, "BatchNormalization", node.input[:1], kept, **dict(zip(names, values, strict=True))
        )

    def _clip(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        limits = dict(attributes)
        for index, name in ((1, "min"), (2, "max")):
            if index < len(node.input) and node.input[index]:
                value = self._constant(node, index)
                if value is None:
                    return None
                limits[name] = value.item()
        return self._made(node, "Clip", node.input[:1], limits)

    def _cast(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        kind = self.onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])
        return self._made(node, "Cast", node.input[:1], {"to": np.dtype(kind).str})

    def _softmax(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        axis = attributes.get("axis", 1 if self.opset < 13 else -1)
        flatten = self.opset < 13  # then all axes from `axis` on are one
        return self._made(node, node.op_type, node.input[:1], {"axis": axis, "flatten": int(flatten)})

    _logsoftmax = _softmax

    def _dropout(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        return self._made(node, "Dropout", node.input[:1], {})

    def _split_up(self, node: Any, attributes: dict[str, Any]) -> None:
        """One Split node per output, since a node here has one."""
        inputs = tuple(self._source(tensor) for tensor in node.input if tensor)
        for index, tensor in enumerate(node.output):
            each = {**attributes, "num_outputs": len(node.output), "output": index}
            self.nodes.append(Node(self._free(tensor), "Split", inputs, each))
            self.names[tensor] = self.nodes[-1].name

    def _pad(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        inputs = list(node.input)
        if len(inputs) > 3 and inputs[3]:
            axes = self._constant(node, 3)
            if axes is None:
                return None
            attributes = {**attributes, "axes": axes.tolist()}
        inputs = inputs[:3] if len(inputs) > 2 and inputs[2] else inputs[:2]
        return self._made(node, "Pad", inputs, attributes)

    def _slice(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        if "starts" not in attributes:
            inputs = list(node.input)
            starts = self._constant(node, 1)
            if len(inputs) > 4 and not inputs[3] and starts is not None:
                inputs[3] = f"{node.output[0]}:axes"  # left out: the first axes
                self.constants[inputs[3]] = np.arange(len(starts))
            return None if "" in inputs else self._made(node, "Slice", inputs, attributes)
        for name in ("starts", "ends", "axes"):  # attributes until opset 9
            if name in attributes:
                key = f"{node.output[0]}:{name}"
                self.constants[key] = np.array(attributes[name], dtype=np.int64)
        tensors = [f"{node.output[0]}:{n}" for n in ("starts", "ends", "axes") if n in attributes]
        return self._made(node, "Slice", [node.input[0], *tensors], {})


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
    x = rng.uniform(0, 2, (2 * fixed, *network.input_shape)).astype(network.input_dtype)
    halves = [network.evaluate({"input": part}, network.output) for part in (x[:fixed], x[fixed:])]
    try:
        twin = Network(
            nodes, network.input_shape, network.output, network.name, metadata, network.input_dtype
        )
        both = twin.evaluate({"input": x}, twin.output)
    except InputError:
        return network
    want = np.concatenate(halves)
    same = both.shape == want.shape and np.allclose(both, want, rtol=1e-5, atol=1e-6, equal_nan=True)
    return twin if same else network
