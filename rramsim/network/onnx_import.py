"""Networks from ONNX files (extra `onnx`).

Operators keep ONNX's names and meaning; what differs between opset versions is brought to the
present form here. Constant weights of Conv, Gemm, MatMul and BatchNormalization become the
node's parameters, other constants become Constant nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError
from rramsim.network.graph import Network, Node
from rramsim.network.operators import OPERATORS

__all__ = ["from_onnx", "from_torch"]

# operators whose constant inputs are parameters here, or whose meaning depends on the opset
NOT_FOLDED = ("BatchNormalization", "Clip", "Conv", "Gemm", "Softmax")


def _onnx() -> Any:
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
    onnx = _onnx()
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf raises its own types
        raise InputError(f"{path}: not a readable ONNX model ({type(error).__name__})") from None
    network = _Reader(onnx, model, str(path), input_shape).network()
    return network.fold_batch_norm() if fold_batch_norm else network


def from_torch(module: Any, example: Any, *, fold_batch_norm: bool = False) -> Network:
    """Convert a torch module in evaluation mode through ONNX.

    Parameters
    ----------
    example : torch.Tensor
        One batch of inputs, shape (n, ...).

    The module itself keeps its mode.
    """
    import tempfile
    import warnings

    _onnx()
    try:
        import torch
    except ImportError:
        raise InputError("converting a torch module needs torch: pip install 'rramsim[train]'") from None
    modes = {part: part.training for part in module.modules()}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's, of its own exporter
        path = Path(folder) / "module.onnx"
        try:
            torch.onnx.export(
                module.eval(),
                (example,),
                str(path),
                dynamo=False,
                input_names=["input"],
                dynamic_axes={"input": {0: "batch"}},
                do_constant_folding=False,
            )
        finally:
            for part, mode in modes.items():
                part.training = mode
        return from_onnx(path, fold_batch_norm=fold_batch_norm, input_shape=tuple(example.shape[1:]))


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
            self.constants[node.output[0]] = np.asarray(next(iter(attributes.values())))
            return
        if node.op_type == "ConstantOfShape":
            value = np.asarray(attributes.get("value", np.zeros(1, dtype=np.float32)))
            attributes = {"value": value.item(), "dtype": value.dtype.str}
        if node.op_type == "Split" and self._as_slices(node, attributes):
            return
        if self._fold(node, attributes):
            return
        handler: Callable[[Any, dict[str, Any]], Node | None] = getattr(
            self, f"_{node.op_type.lower()}", self._plain
        )
        if node.domain not in ("", "ai.onnx") or (handler == self._plain and node.op_type not in OPERATORS):
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
        self.constants[node.output[0]] = np.asarray(OPERATORS[node.op_type](stand_in, values, False))
        return True

    def _attribute(self, entry: Any) -> Any:
        value = self.onnx.helper.get_attribute_value(entry)
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, self.onnx.TensorProto):
            return self.onnx.numpy_helper.to_array(value)
        return list(value) if not isinstance(value, int | float | str) else value

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

    def _conv(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        weight, bias = self._constant(node, 1), self._constant(node, 2)
        if weight is None or weight.ndim not in (3, 4) or (len(node.input) > 2 and bias is None):
            return None
        parameters = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        return self._made(node, "Conv", node.input[:1], attributes, **parameters)

    def _gemm(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        weight, bias = self._constant(node, 1), self._constant(node, 2)
        if weight is None or attributes.get("transA", 0) or (len(node.input) > 2 and bias is None):
            return None
        if attributes.get("transB", 0):
            weight = weight.T
        parameters = {"weight": weight * np.float32(attributes.get("alpha", 1.0))}
        if bias is not None:
            shift = np.broadcast_to(bias * np.float32(attributes.get("beta", 1.0)), (1, weight.shape[1]))
            parameters["bias"] = shift.reshape(-1)
        return self._made(node, "Gemm", node.input[:1], {}, **parameters)

    def _matmul(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        weight = self._constant(node, 1)
        if weight is not None and weight.ndim == 2:
            return self._made(node, "MatMul", node.input[:1], {}, weight=weight)
        return self._made(node, "MatMul", node.input[:2], {})

    def _batchnormalization(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        values = [self._constant(node, index) for index in range(1, 5)]
        if any(value is None for value in values):
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
        return self._made(node, "Softmax", node.input[:1], {"axis": axis, "flatten": int(flatten)})

    def _dropout(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        return self._made(node, "Dropout", node.input[:1], {})

    def _as_slices(self, node: Any, attributes: dict[str, Any]) -> bool:
        """One Slice per output; sizes must be given and constant."""
        sizes = attributes.get("split", self._constant(node, 1))
        if sizes is None:
            return False
        ends = np.cumsum(np.asarray(sizes, dtype=np.int64))
        axis = np.array([attributes.get("axis", 0)], dtype=np.int64)
        for tensor, end, size in zip(node.output, ends, sizes, strict=True):
            keys = [f"{tensor}:{name}" for name in ("starts", "ends", "axes")]
            values = [np.array([end - size]), np.array([end]), axis]
            self.constants |= dict(zip(keys, values, strict=True))
            sources = tuple(self._source(name) for name in (node.input[0], *keys))
            self.nodes.append(Node(self._free(tensor), "Slice", sources))
            self.names[tensor] = self.nodes[-1].name
        return True

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
