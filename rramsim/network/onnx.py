"""Networks from ONNX files (extra `onnx`).

Operators keep ONNX's names and meaning; what differs between opset versions is brought to the
present form here. Constant weights of Conv, Gemm, MatMul and BatchNormalization become the
node's parameters, other constants become Constant nodes.

Long because one reader holds a short converter for each operator that needs one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError
from rramsim.network.graph import Network, execute
from rramsim.network.node import Node
from rramsim.network.onnx_batch import opened
from rramsim.network.onnx_layers import SPREAD, in_order
from rramsim.network.operators import MAPPED, OPERATORS

__all__ = ["from_onnx", "onnx_package"]

LARGEST_INPUT = 1 << 30  # [B] of one example
ARITHMETIC = ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor")
# operators whose constant inputs are parameters here, or whose meaning depends on the opset
NOT_FOLDED = ("BatchNormalization", "Clip", "Conv", "Gemm", "LogSoftmax", "Softmax", *SPREAD)


def onnx_package() -> Any:
    """The module `onnx`, or the command that installs it."""
    try:
        import onnx
    except ImportError:
        raise InputError("reading ONNX files needs the package onnx: pip install 'rramsim[onnx]'") from None
    return onnx


def from_onnx(
    path: str | Path,
    *,
    fold_batch_norm: bool = False,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
) -> Network:
    """Read a network from an ONNX file; its nodes may come in any order.

    Parameters
    ----------
    path : path
    fold_batch_norm : bool
        Fold each batch norm into the matrix before it; kept by default, since tuners use it.
    input_shape : sequence of int, or mapping of input name to such, optional
        Shape of an input without the batch axis, where the file leaves it open.

    Raises
    ------
    InputError
        No readable model, an open input shape, or unsupported operators (all of them, with the names of
        their nodes).
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
    try:
        with np.errstate(all="ignore"):  # damaged numbers are refused when nodes are checked
            network = _Reader(onnx, model, str(path), input_shape).network()
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except RecursionError:
        raise InputError(f"{path}: the graph is nested too deeply") from None
    except MemoryError:
        raise InputError(f"{path}: a tensor is larger than the memory of this machine") from None
    except (
        AttributeError,
        IndexError,
        KeyError,
        OverflowError,
        RuntimeError,
        TypeError,
        ValueError,
        AssertionError,
    ) as error:  # what onnx's own helpers and wrong attributes lead to
        raise InputError(f"{path}: a node or tensor is damaged ({type(error).__name__}: {error})") from None
    return network.fold_batch_norm() if fold_batch_norm else network


class _Reader:
    """One model on its way to a `Network`."""

    def __init__(
        self,
        onnx: Any,
        model: Any,
        where: str,
        input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None,
    ) -> None:
        self.onnx, self.graph, self.where = onnx, model.graph, where
        self.opset = next(
            (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1
        )
        self.constants: dict[str, NDArray[Any]] = {
            entry.name: self._array(entry) for entry in self.graph.initializer
        }
        self.origin: dict[str, Any] = {}  # constant that was computed: from what, so that sharing is seen
        self.owners: dict[Any, str] = {}  # weights in use: the first node
        self.taken: set[str] = set()
        self.nodes: list[Node] = []
        self.names: dict[str, str] = {}  # ONNX tensor -> our node
        self.unsupported: list[str] = []
        self.makers = {tensor: node for node in self.graph.node for tensor in node.output}
        inputs = [entry for entry in self.graph.input if entry.name not in self.constants]
        if not inputs or not self.graph.output:
            raise InputError(f"{where}: the model has no input or no output")
        self.fixed_batch = 0
        self.inputs: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        self.input_names = [entry.name for entry in inputs]
        for index, entry in enumerate(inputs):
            name = "input" if index == 0 else entry.name
            if isinstance(input_shape, Mapping):
                given = input_shape.get(entry.name)
            else:
                given = input_shape if index == 0 else None
            self.inputs[name] = self._input(entry, given)
            self.names[entry.name] = name
        self.input_shape, self.input_dtype = self.inputs["input"]

    def _input(self, entry: Any, given: Sequence[int] | None) -> tuple[tuple[int, ...], np.dtype[Any]]:
        tensor = entry.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in tensor.shape.dim]
        batch = max(dims[0], 0) if dims else 0
        if self.inputs and batch != self.fixed_batch:
            raise InputError(
                f"{self.where}: all inputs must have the batch as their first axis, the same for all; "
                f"{self.input_names[0]!r} and {entry.name!r} differ. Make an input without it an initializer"
            )
        self.fixed_batch = batch
        shape = tuple(int(n) for n in given) if given is not None else tuple(dims[1:])
        if not dims or any(n <= 0 for n in shape):
            raise InputError(
                f"{self.where}: the shape of input {entry.name!r} is open, {dims}: give "
                "input_shape=(c, h, w), or a mapping of input names to shapes where there are several"
            )
        if int(np.prod(shape, dtype=np.float64)) * 4 > LARGEST_INPUT:
            raise InputError(f"{self.where}: input {entry.name!r} of shape {shape} is too large")
        return shape, np.dtype(self.onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))

    def _array(self, entry: Any) -> NDArray[Any]:
        try:
            return self.onnx.numpy_helper.to_array(entry)
        except Exception as error:  # of many types
            raise InputError(f"{self.where}: initializer {entry.name!r} is damaged ({error})") from None

    def network(self) -> Network:
        """Convert all nodes."""
        known = [*self.constants, *self.names]
        for node in in_order(self.graph.node, known, self.where):
            self._convert(node)
        if self.unsupported:
            raise InputError(f"{self.where}: unsupported operators: {'; '.join(self.unsupported)}")
        output = self.source(self.graph.output[0].name)
        metadata: dict[str, Any] = {"source": Path(self.where).name, "opset": int(self.opset)}
        if len(self.inputs) > 1:
            metadata["input_name"] = self.input_names[0]
        if self.fixed_batch:
            metadata["batch"] = self.fixed_batch
        return opened(self._part(output, metadata))

    def _part(self, output: str, metadata: dict[str, Any]) -> Network:
        nodes = self._reachable(output)
        more = {name: entry for name, entry in self.inputs.items() if name != "input"}
        return Network(
            nodes, self.input_shape, output, self.graph.name or "onnx", metadata, self.input_dtype, more
        )

    def value_of(self, tensor: str) -> NDArray[Any] | None:
        """A tensor that depends on shapes alone, for a batch as small as the file allows."""
        if not self._of_shapes_alone(tensor):
            return None
        return self._probed(tensor)

    def shape_of(self, tensor: str) -> tuple[int, ...]:
        """Shape of a tensor for a small batch."""
        return tuple(self._probed(tensor).shape)

    def _probed(self, tensor: str) -> NDArray[Any]:
        if tensor in self.constants:
            return self.constants[tensor]
        source = self.source(tensor)
        n = self.fixed_batch or 2
        values = {name: np.zeros((n, *shape), dtype=dtype) for name, (shape, dtype) in self.inputs.items()}
        if source in values:
            return values[source]
        part = self._part(source, {"batch": n})
        return part.evaluate(values, part.output)

    def append(self, node: Node) -> str:
        """Add a finished node; returns its name."""
        self.nodes.append(node)
        self.taken.add(node.name)
        return node.name

    def _reachable(self, output: str) -> list[Node]:
        by_name = {node.name: node for node in self.nodes}
        wanted, stack = set(), [output]
        while stack:
            name = stack.pop()
            if name not in self.inputs and name not in wanted:
                wanted.add(name)
                stack.extend(by_name[name].inputs)
        heirs: dict[str, str] = {}  # where the owner of shared weights is not part of it, the first user is
        part = []
        for node in self.nodes:
            if node.name not in wanted:
                continue
            owner = str(node.attributes.get("shares", ""))
            if owner and owner not in wanted:
                heir = heirs.setdefault(owner, node.name)
                attributes = {k: v for k, v in node.attributes.items() if k != "shares"}
                node = replace(
                    node, attributes=attributes if heir == node.name else {**attributes, "shares": heir}
                )
            part.append(node)
        return part

    def source(self, tensor: str) -> str:
        """Our node that makes an ONNX tensor; a constant gets its node when first used."""
        if tensor not in self.names:
            if tensor not in self.constants:
                raise InputError(f"{self.where}: tensor {tensor!r} is made by no supported node")
            name = self.free(f"constant:{tensor}")
            self.append(Node(name, "Constant", (), {}, {"value": self.constants[tensor]}))
            self.names[tensor] = name
        return self.names[tensor]

    def free(self, name: str) -> str:
        result, count = name, 1
        while result in self.taken or result in self.inputs:
            count += 1
            result = f"{name}#{count}"
        return result

    def _convert(self, node: Any) -> None:
        label = f"{node.op_type} ({node.name or node.output[0]})"
        attributes = {entry.name: self.attribute(entry) for entry in node.attribute}
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
        if node.op_type in SPREAD and node.domain in ("", "ai.onnx"):
            if not SPREAD[node.op_type](self, node, attributes):
                self.unsupported.append(label)
                for tensor in node.output:
                    self.names[tensor] = "input"
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
        self.names[node.output[0]] = self.append(converted)

    def _fold(self, node: Any, attributes: dict[str, Any]) -> bool:
        """Compute a node of constant inputs here and now."""
        known = all(tensor in self.constants for tensor in node.input if tensor)
        if node.op_type not in OPERATORS or node.op_type in NOT_FOLDED or not (node.input and known):
            return False
        if (node.op_type == "Slice" and "starts" in attributes) or "" in node.input:
            return False  # forms that need their converter first
        values = [self.constants[tensor] for tensor in node.input]
        self.origin[node.output[0]] = (
            node.op_type,
            repr(sorted(attributes.items())),
            tuple(self.origin.get(tensor, tensor) for tensor in node.input),
        )
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
                condition = bool(self._probed(node.input[0]))
            except InputError:
                return False
        branch = attributes["then_branch" if condition else "else_branch"]
        for entry in branch.initializer:
            self.constants[entry.name] = self._array(entry)
        self.makers |= {tensor: inner for inner in branch.node for tensor in inner.output}
        for inner in in_order(branch.node, [*self.constants, *self.names], self.where):
            self._convert(inner)
        for tensor, made in zip(node.output, branch.output, strict=True):
            self.names[tensor] = self.source(made.name)
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

    def attribute(self, entry: Any) -> Any:
        value = self.onnx.helper.get_attribute_value(entry)
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, self.onnx.TensorProto):
            return self.onnx.numpy_helper.to_array(value)
        if isinstance(value, int | float | str | self.onnx.GraphProto):
            return value
        return [item.decode() if isinstance(item, bytes) else item for item in value]

    def _made(
        self, node: Any, op: str, inputs: Sequence[str], attributes: dict[str, Any], **parameters: Any
    ) -> Node:
        name = self.free(node.name or node.output[0])
        if "weight" in parameters and op in MAPPED:
            # the same tensor in the same role twice: one array on a chip, read for both nodes
            rest = [t if "bias" in parameters else None for t in node.input[2:]]
            weight = self.origin.get(node.input[1], node.input[1])
            spelled = repr(sorted((k, repr(v)) for k, v in attributes.items()))
            spelled += repr(sorted((e.name, repr(self.attribute(e))) for e in node.attribute))
            owner = self.owners.setdefault((op, weight, tuple(rest), spelled), name)
            if owner != name:
                twin = next(entry for entry in self.nodes if entry.name == owner)
                if all(np.array_equal(parameters.get(k, np.nan), v) for k, v in twin.parameters.items()):
                    attributes = {**attributes, "shares": owner}
        return Node(name, op, tuple(self.source(tensor) for tensor in inputs), attributes, parameters)

    def _plain(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        inputs = list(node.input)
        while inputs and not inputs[-1]:
            inputs.pop()
        if "" in inputs:  # dropping one would shift those after it
            return None
        return self._made(node, node.op_type, inputs, attributes)

    def constant(self, node: Any, index: int) -> NDArray[Any] | None:
        """Constant input by position; None where it is absent or computed."""
        return self.constants.get(node.input[index]) if index < len(node.input) else None

    def _bias(self, node: Any) -> tuple[NDArray[Any] | None, bool]:
        """Third input if it is constant, and whether there is one at all."""
        given = len(node.input) > 2 and bool(node.input[2])
        return (self.constant(node, 2) if given else None), given

    def _conv(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        weight = self.constant(node, 1)
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
        weight = self.constant(node, 1)
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
        tensor = self.free(f"{inputs[0]}:{op}")
        self.append(Node(tensor, op, tuple(self.source(name) for name in inputs)))
        self.names[tensor] = tensor
        return tensor

    def _then(self, node: Any, first: Node, op: str, other: Any) -> Node:
        """A node after `first` that takes it and another tensor or number."""
        self.append(first)
        other = other if isinstance(other, str) else self._number(f"{node.output[0]}:{op}", other)
        return Node(self.free(f"{first.name}:{op}"), op, (first.name, self.source(other)))

    def _matmul(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        weight = self.constant(node, 1)
        if weight is not None and weight.ndim == 2:
            return self._made(node, "MatMul", node.input[:1], {}, weight=weight)
        left = self.constant(node, 0)
        if weight is None and left is not None and left.ndim == 2 and len(self.shape_of(node.input[1])) > 2:
            matrix = np.ascontiguousarray(left.T)
            return Node(
                self.free(node.name or node.output[0]),
                "MatMul",
                (self.source(node.input[1]),),
                {"left": 1},
                {"weight": matrix},
            )
        return self._made(node, "MatMul", node.input[:2], {})

    def _batchnormalization(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        values = [self.constant(node, index) for index in range(1, 5)]
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
                value = self.constant(node, index)
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
        inputs = tuple(self.source(tensor) for tensor in node.input if tensor)
        for index, tensor in enumerate(node.output):
            each = {**attributes, "num_outputs": len(node.output), "output": index}
            self.names[tensor] = self.append(Node(self.free(tensor), "Split", inputs, each))

    def _pad(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        inputs = list(node.input)
        if len(inputs) > 3 and inputs[3]:
            axes = self.constant(node, 3)
            if axes is None:
                return None
            attributes = {**attributes, "axes": axes.tolist()}
        inputs = inputs[:3] if len(inputs) > 2 and inputs[2] else inputs[:2]
        return self._made(node, "Pad", inputs, attributes)

    def _slice(self, node: Any, attributes: dict[str, Any]) -> Node | None:
        if "starts" not in attributes:
            inputs = list(node.input)
            starts = self.constant(node, 1)
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
