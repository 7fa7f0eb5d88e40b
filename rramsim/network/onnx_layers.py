"""ONNX operators that become several nodes here: recurrent layers, transposed convolutions, Einsum, resizing.

Each function takes the reader (`rramsim.network.onnx`), an ONNX node and its attributes, adds nodes and names
the outputs. It returns False where a form is not supported, or raises `InputError` that says which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from rramsim.checks import InputError
from rramsim.network.node import Node
from rramsim.network.recurrent import KINDS, Unrolled

__all__ = ["SPREAD", "in_order"]


def in_order(nodes: Iterable[Any], known: Iterable[str], where: str) -> list[Any]:
    """ONNX nodes sorted so that each comes after those it reads; an order that is right already is kept."""
    waiting, done, result = list(nodes), {"", *known}, []
    made = {tensor for node in waiting for tensor in node.output}
    while waiting:
        later = []
        for node in waiting:
            if all(tensor in done or tensor not in made for tensor in _reads(node)):
                result.append(node)
                done.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            names = [node.name or node.output[0] for node in later[:4]]
            raise InputError(f"{where}: the nodes {names} wait for each other in a circle")
        waiting = later
    return result


def _reads(node: Any) -> list[str]:
    """Inputs of a node and what branches inside it take from around them."""
    tensors = list(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node if attribute.HasField("g") else ():
            tensors += _reads(inner)
    return tensors


def _recurrent(reader: Any, node: Any, attributes: dict[str, Any]) -> bool:
    """LSTM, GRU or RNN, unrolled over its fixed number of steps."""
    kind, label = node.op_type, node.name or node.output[0]
    tensors = [*node.input, *[""] * (8 - len(node.input))]
    x, _, _, _, lengths, h0, c0, peephole = tensors
    weights = [reader.constant(node, index) for index in (1, 2)]
    bias = reader.constant(node, 3)
    refused = {
        "peephole weights (P)": bool(peephole),
        "computed weights": any(w is None for w in weights) or (bool(tensors[3]) and bias is None),
        "a clip": bool(attributes.get("clip", 0)),
        "input_forget": bool(attributes.get("input_forget", 0)),
    }
    for what, given in refused.items():
        if given:
            raise InputError(f"{reader.where}: node {label!r} ({kind}): {what} is not supported")
    layout = int(attributes.get("layout", 0))
    shape = reader.shape_of(x)
    if len(shape) != 3:
        raise InputError(f"{reader.where}: node {label!r} ({kind}) needs inputs of rank 3, got {shape}")
    n_steps = shape[1 if layout else 0]
    if lengths:
        given_lengths = reader.constant(node, 4)
        if given_lengths is None or np.any(given_lengths != n_steps):
            raise InputError(
                f"{reader.where}: node {label!r} ({kind}): sequence_lens must be the full length"
            )
    first = [reader.source(tensor) if tensor and not _zero(reader, tensor) else None for tensor in (h0, c0)]
    name = reader.free(label)
    source = reader.source(x)
    if not layout:
        source = reader.append(
            Node(reader.free(f"{name}:batch_first"), "Transpose", (source,), {"perm": [1, 0, 2]})
        )
    elif any(first):
        raise InputError(f"{reader.where}: node {label!r} ({kind}): initial states need layout 0")
    parts = Unrolled(
        kind, name, source, n_steps, weights[0], weights[1], bias, attributes, first[0], first[1]
    )
    for each in parts.nodes:
        reader.append(each)
    outputs = (parts.y, parts.y_h, parts.y_c)
    for index, tensor in enumerate(node.output):
        if not tensor:
            continue
        made = outputs[index]
        if layout:  # examples first
            perm = [2, 0, 1, 3] if index == 0 else [1, 0, 2]
            made = reader.append(Node(reader.free(f"{made}:layout"), "Transpose", (made,), {"perm": perm}))
        reader.names[tensor] = made
    return True


def _zero(reader: Any, tensor: str) -> bool:
    """Whether a state is zero whatever the input."""
    value = reader.constants.get(tensor)
    if value is not None:
        return not np.any(value)
    maker = reader.makers.get(tensor)
    while maker is not None and maker.op_type in ("Expand", "Identity", "Reshape", "Unsqueeze", "Slice"):
        value = reader.constants.get(maker.input[0])
        if value is not None:
            return not np.any(value)
        maker = reader.makers.get(maker.input[0])
    if maker is not None and maker.op_type == "ConstantOfShape":
        return all(not np.any(reader.attribute(entry)) for entry in maker.attribute)
    return False


def _conv_transpose(reader: Any, node: Any, attributes: dict[str, Any]) -> bool:
    """A product with the matrix (c_in, c_out * kernel) at every position; overlapping windows add up."""
    label = node.name or node.output[0]
    weight = reader.constant(node, 1)
    given = len(node.input) > 2 and bool(node.input[2])
    bias = reader.constant(node, 2) if given else None
    if weight is None or (given and bias is None) or weight.ndim not in (3, 4):
        return False
    shape, kernel = reader.shape_of(node.input[0]), weight.shape[2:]
    rank, group = len(kernel), int(attributes.get("group", 1))
    strides, dilations = (list(attributes.get(k, [1] * rank)) for k in ("strides", "dilations"))
    extra = list(attributes.get("output_padding", [0] * rank))
    pads = list(attributes.get("pads", [0] * (2 * rank)))
    full = [
        s * (n - 1) + e + (k - 1) * d + 1
        for n, s, e, k, d in zip(shape[2:], strides, extra, kernel, dilations, strict=True)
    ]
    auto, wanted = attributes.get("auto_pad", "NOTSET"), attributes.get("output_shape")
    if auto in ("SAME_UPPER", "SAME_LOWER") and wanted is None:
        wanted = [n * s for n, s in zip(shape[2:], strides, strict=True)]
    if wanted is not None:
        totals = [f - w for f, w in zip(full, wanted, strict=True)]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = small + large if auto == "SAME_UPPER" else large + small
    sizes = [f - pads[i] - pads[rank + i] for i, f in enumerate(full)]
    name, own = reader.free(label), weight.shape[0] // group
    x = reader.append(
        Node(f"{name}:positions", "Reshape", (reader.source(node.input[0]),), {"shape": [0, 0, -1]})
    )
    parts = []
    for g in range(group):
        part = x
        if group > 1:
            split = {"axis": 1, "num_outputs": group, "output": g}
            part = reader.append(Node(f"{name}:group{g}", "Split", (x,), split))
        matrix = np.ascontiguousarray(weight[g * own : (g + 1) * own].reshape(own, -1))
        product = Node(f"{name}:product{g}", "MatMul", (part,), {"left": 1}, {"weight": matrix})
        parts.append(reader.append(product))
    columns = parts[0]
    if group > 1:
        columns = reader.append(Node(f"{name}:columns", "Concat", tuple(parts), {"axis": 1}))
    fold = {
        "image_shape": [int(s) for s in sizes],
        "block_shape": [int(k) for k in kernel],
        "strides": [int(s) for s in strides],
        "dilations": [int(d) for d in dilations],
        "pads": [int(p) for p in pads],
        "positions": [int(n) for n in shape[2:]],
    }
    made = reader.append(Node(f"{name}:fold", "Col2Im", (columns,), fold))
    if bias is not None:
        shift = bias.reshape(-1, *(1,) * rank)
        constant = reader.append(Node(f"{name}:bias", "Constant", (), {}, {"value": shift}))
        made = reader.append(Node(f"{name}:biased", "Add", (made, constant)))
    reader.names[node.output[0]] = made
    return True


def _einsum(reader: Any, node: Any, attributes: dict[str, Any]) -> bool:
    """A product with a constant matrix where it is one (one letter summed, one new); else as it stands."""
    equation = str(attributes["equation"]).replace(" ", "")
    label = node.name or node.output[0]
    constant = [reader.constants.get(tensor) is not None for tensor in node.input]
    if len(node.input) == 2 and sum(constant) == 1 and "->" in equation and "." not in equation:
        terms, result = equation.split("->")
        w_letters, x_letters = (terms.split(",")[i] for i in (constant.index(True), constant.index(False)))
        weight = reader.constants[node.input[constant.index(True)]]
        summed = set(w_letters) & set(x_letters) - set(result)
        new = set(w_letters) - set(x_letters)
        plain = len(w_letters) == 2 == weight.ndim and len(set(x_letters)) == len(x_letters)
        if plain and len(summed) == len(new) == 1 and new <= set(result):
            (k,), (m,) = summed, new
            matrix = weight if w_letters == k + m else np.ascontiguousarray(weight.T)
            batch_first = x_letters[0] == result[0]
            swapped = x_letters.replace(k, m)
            if batch_first and x_letters[-1] == k and swapped == result:
                side: dict[str, Any] = {}
            elif batch_first and len(x_letters) > 2 and x_letters[-2] == k and swapped == result:
                side = {"left": 1}
            else:
                side = {"none": 1}
            if "none" not in side:
                source = reader.source(node.input[constant.index(False)])
                made = reader.append(Node(reader.free(label), "MatMul", (source,), side, {"weight": matrix}))
                reader.names[node.output[0]] = made
                return True
    inputs = tuple(reader.source(tensor) for tensor in node.input)
    made = reader.append(Node(reader.free(label), "Einsum", inputs, dict(attributes)))
    reader.names[node.output[0]] = made
    return True


def _resize(reader: Any, node: Any, attributes: dict[str, Any]) -> bool:
    """Fixed scales or sizes, nearest or linear."""
    label = node.name or node.output[0]
    mode = attributes.get("mode", "nearest")
    if mode not in ("nearest", "linear") or attributes.get("antialias", 0) or "axes" in attributes:
        raise InputError(
            f"{reader.where}: node {label!r} (Resize): mode {mode!r} (or antialias or axes) is not supported"
        )
    names = ("scales",) if node.op_type == "Upsample" else ("roi", "scales", "sizes")
    kept: dict[str, Any] = {
        key: attributes[key]
        for key in ("coordinate_transformation_mode", "nearest_mode")
        if key in attributes
    }
    kept["mode"] = mode
    if node.op_type == "Upsample" or len(node.input) == 2:  # until opset 10
        names = ("scales",)
        kept["coordinate_transformation_mode"] = "asymmetric"
        kept["nearest_mode"] = "floor"
    if "scales" in attributes:
        kept["scales"] = [float(s) for s in attributes["scales"]]
    for index, name in enumerate(names, start=1):
        value = reader.constant(node, index)
        if (
            name == "roi"
            or index >= len(node.input)
            or not node.input[index]
            or (value is not None and not value.size)
        ):
            continue
        if value is None and name == "sizes":  # from the shape of another tensor: all but the batch is fixed
            value = reader.value_of(node.input[index])
        if value is None:
            return False
        kept[name] = [float(v) if name == "scales" else int(v) for v in value]
    made = Node(reader.free(label), "Resize", (reader.source(node.input[0]),), kept)
    reader.names[node.output[0]] = reader.append(made)
    return True


SPREAD: dict[str, Callable[[Any, Any, dict[str, Any]], bool]] = {
    **dict.fromkeys(KINDS, _recurrent),
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Resize": _resize,
    "Upsample": _resize,
}
