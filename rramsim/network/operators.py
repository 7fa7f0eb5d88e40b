"""Digital execution of every operator, named and defined as in ONNX, in NumPy.

An operator is a function (node, inputs, reuse) -> array. `reuse` tells that the first input is
a temporary of its own that may be overwritten.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from rramsim.checks import InputError
from rramsim.kernels import convolution, windows
from rramsim.network.lowering import as_maps, matrices, window_geometry

if TYPE_CHECKING:
    from rramsim.network.graph import Node

__all__ = ["MAPPED", "OPERATORS", "required_parameters"]

Array = NDArray[Any]
MAPPED = ("Conv", "Gemm", "MatMul")  # run on a chip when their weights are constant


def required_parameters(op: str) -> tuple[str, ...]:
    """Parameters a node of this kind must bring."""
    return {
        "Conv": ("weight",),
        "Gemm": ("weight",),
        "BatchNormalization": ("scale", "bias", "mean", "variance"),
        "Constant": ("value",),
    }.get(op, ())


def _conv(node: Node, xs: list[Array], reuse: bool) -> Array:
    weight = node.parameters["weight"]
    geometry = window_geometry(node, weight.shape[2:], xs[0].shape)
    x = np.ascontiguousarray(as_maps(xs[0]), dtype=np.float32)
    bias = node.parameters.get("bias")
    if bias is None:
        bias = np.zeros(len(weight), dtype=np.float32)
    packed = np.stack([convolution.pack_weights(matrix) for matrix in matrices(node)])
    out = np.empty((len(x), len(weight), geometry.out_h, geometry.out_w), dtype=np.float32)
    convolution.convolve(x, packed, len(packed), bias, geometry, min(len(x), get_num_threads()), out)
    return out[:, :, 0] if xs[0].ndim == 3 else out


def _gemm(node: Node, xs: list[Array], reuse: bool) -> Array:
    y = xs[0] @ node.parameters["weight"]
    bias = node.parameters.get("bias")
    return y if bias is None else np.add(y, bias, out=y)


def _matmul(node: Node, xs: list[Array], reuse: bool) -> Array:
    return _gemm(node, xs, reuse) if "weight" in node.parameters else xs[0] @ xs[1]


def _per_channel(values: Array, rank: int) -> Array:
    return values.reshape(-1, *(1,) * (rank - 2))


def _batch_norm(node: Node, xs: list[Array], reuse: bool) -> Array:
    p, x = node.parameters, xs[0]
    factor = p["scale"] / np.sqrt(p["variance"] + np.float32(node.attributes.get("epsilon", 1e-5)))
    shift = p["bias"] - p["mean"] * factor
    if x.dtype != np.float32 or not x.flags.c_contiguous:
        return x * _per_channel(factor, x.ndim) + _per_channel(shift, x.ndim)
    y = x if reuse else np.empty_like(x)
    maps = (*x.shape[:2], -1)
    windows.scale_shift(x.reshape(maps), factor.astype(np.float32), shift.astype(np.float32), y.reshape(maps))
    return y


def _layer_norm(node: Node, xs: list[Array], reuse: bool) -> Array:
    x, axis = xs[0], int(node.attributes.get("axis", -1))
    axes = tuple(range(axis % x.ndim, x.ndim))
    centred = x - x.mean(axis=axes, keepdims=True)
    variance = np.square(centred).mean(axis=axes, keepdims=True)
    y = centred / np.sqrt(variance + np.float32(node.attributes.get("epsilon", 1e-5))) * xs[1]
    return y + xs[2] if len(xs) > 2 else y


def _pool(average: bool) -> Callable[[Node, list[Array], bool], Array]:
    def apply(node: Node, xs: list[Array], reuse: bool) -> Array:
        geometry = window_geometry(node, node.attributes["kernel_shape"], xs[0].shape)
        x = np.ascontiguousarray(as_maps(xs[0]), dtype=np.float32)
        out = np.empty((*x.shape[:2], geometry.out_h, geometry.out_w), dtype=np.float32)
        windows.pool(x, geometry, average, int(node.attributes.get("count_include_pad", 0)), out)
        return out[:, :, 0] if xs[0].ndim == 3 else out

    return apply


def _global_pool(reduce: Callable[..., Array]) -> Callable[[Node, list[Array], bool], Array]:
    return lambda node, xs, reuse: reduce(xs[0], axis=tuple(range(2, xs[0].ndim)), keepdims=True)


def _elementwise(function: Callable[[Array, Node], Array]) -> Callable[[Node, list[Array], bool], Array]:
    return lambda node, xs, reuse: function(xs[0], node).astype(xs[0].dtype, copy=False)


def _binary(ufunc: Callable[..., Array]) -> Callable[[Node, list[Array], bool], Array]:
    def apply(node: Node, xs: list[Array], reuse: bool) -> Array:
        a, b = xs
        fits = reuse and np.broadcast_shapes(a.shape, b.shape) == a.shape and a.dtype == b.dtype
        return ufunc(a, b, out=a if fits else None)

    return apply


def _variadic(ufunc: Callable[..., Array]) -> Callable[[Node, list[Array], bool], Array]:
    return lambda node, xs, reuse: functools.reduce(ufunc, xs[1:], xs[0].copy() if len(xs) == 1 else xs[0])


def _divide(node: Node, xs: list[Array], reuse: bool) -> Array:
    if xs[0].dtype.kind in "iu":
        return np.trunc(xs[0] / xs[1]).astype(xs[0].dtype)  # ONNX: integers round towards zero
    return xs[0] / xs[1]


def _relu(node: Node, xs: list[Array], reuse: bool) -> Array:
    return np.maximum(xs[0], 0, out=xs[0] if reuse else None)


def _clip(node: Node, xs: list[Array], reuse: bool) -> Array:
    low, high = node.attributes.get("min"), node.attributes.get("max")
    if low is None and high is None:
        return xs[0].copy()  # nodes after it may overwrite its output
    return np.clip(xs[0], low, high, out=xs[0] if reuse else None)


def _erf(x: Array) -> Array:
    from scipy.special import erf

    return erf(x)


def _gelu(x: Array, node: Node) -> Array:
    if node.attributes.get("approximate", "none") == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _sigmoid(x: Array, node: Node) -> Array:
    from scipy.special import expit

    return expit(x)


def _hard_sigmoid(x: Array, node: Node) -> Array:
    return np.clip(x * node.attributes.get("alpha", 0.2) + node.attributes.get("beta", 0.5), 0, 1)


def _softmax(node: Node, xs: list[Array], reuse: bool) -> Array:
    x, axis = xs[0], int(node.attributes.get("axis", -1))
    axes = tuple(range(axis % x.ndim, x.ndim)) if node.attributes.get("flatten", 0) else axis
    e = np.exp(x - x.max(axis=axes, keepdims=True))
    return e / e.sum(axis=axes, keepdims=True)


def _flatten(node: Node, xs: list[Array], reuse: bool) -> Array:
    axis = int(node.attributes.get("axis", 1)) % (xs[0].ndim + 1)
    return xs[0].reshape(math.prod(xs[0].shape[:axis]), -1)


def _reshape(node: Node, xs: list[Array], reuse: bool) -> Array:
    x = xs[0]
    wanted = [int(n) for n in (xs[1] if len(xs) > 1 else node.attributes["shape"])]
    if not node.attributes.get("allowzero", 0):
        wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    return x.reshape(wanted)


def _axes(node: Node, xs: list[Array]) -> tuple[int, ...] | None:
    if len(xs) > 1:
        return tuple(int(a) for a in np.atleast_1d(xs[1]))
    axes = node.attributes.get("axes")
    return None if axes is None else tuple(int(a) for a in axes)


def _squeeze(node: Node, xs: list[Array], reuse: bool) -> Array:
    return np.squeeze(xs[0], axis=_axes(node, xs))


def _unsqueeze(node: Node, xs: list[Array], reuse: bool) -> Array:
    axes = _axes(node, xs)
    assert axes is not None
    return np.expand_dims(xs[0], axes)


def _reduce(function: Callable[..., Array]) -> Callable[[Node, list[Array], bool], Array]:
    def apply(node: Node, xs: list[Array], reuse: bool) -> Array:
        axes = _axes(node, xs)
        if axes is None and node.attributes.get("noop_with_empty_axes", 0):
            return xs[0].copy()
        return function(xs[0], axis=axes, keepdims=bool(node.attributes.get("keepdims", 1)))

    return apply


def _lrn(node: Node, xs: list[Array], reuse: bool) -> Array:
    """Local response normalisation over neighbouring channels."""
    x, size = xs[0], int(node.attributes["size"])
    before, after = (size - 1) // 2, size // 2
    widths = [(0, 0), (before, after), *((0, 0),) * (x.ndim - 2)]
    squares = np.pad(np.square(x), widths)
    total = sum(squares[:, i : i + x.shape[1]] for i in range(size))
    alpha, beta = node.attributes.get("alpha", 1e-4), node.attributes.get("beta", 0.75)
    scale = np.float32(node.attributes.get("bias", 1.0)) + np.float32(alpha / size) * total
    return x / scale ** np.float32(beta)


def _constant_of_shape(node: Node, xs: list[Array], reuse: bool) -> Array:
    value, kind = node.attributes.get("value", 0.0), node.attributes.get("dtype", "<f4")
    return np.full(tuple(int(n) for n in xs[0]), value, dtype=kind)


def _shape(node: Node, xs: list[Array], reuse: bool) -> Array:
    span = slice(node.attributes.get("start"), node.attributes.get("end"))
    return np.array(xs[0].shape[span], dtype=np.int64)


def _pad(node: Node, xs: list[Array], reuse: bool) -> Array:
    x = xs[0]
    pads = [int(p) for p in (xs[1] if len(xs) > 1 else node.attributes["pads"])]
    axes = [int(a) for a in node.attributes.get("axes", range(len(pads) // 2))]
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        widths[axis] = (pads[i], pads[len(axes) + i])
    if min(min(w) for w in widths) < 0:
        raise InputError(f"node {node.name!r}: negative pads {pads} are not supported")
    mode = node.attributes.get("mode", "constant")
    if mode in ("reflect", "edge", "wrap"):  # the same names in NumPy
        return np.pad(x, widths, mode=mode)
    value = xs[2].item() if len(xs) > 2 else node.attributes.get("value", 0.0)
    return np.pad(x, widths, constant_values=value)


def _slice(node: Node, xs: list[Array], reuse: bool) -> Array:
    starts, ends = xs[1].tolist(), xs[2].tolist()
    axes = xs[3].tolist() if len(xs) > 3 else range(len(starts))
    steps = xs[4].tolist() if len(xs) > 4 else [1] * len(starts)
    where = [slice(None)] * xs[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        before_first = step < 0 and end < -xs[0].shape[axis]
        where[axis] = slice(start, None if before_first else end, step)
    return xs[0][tuple(where)]


def _cast(node: Node, xs: list[Array], reuse: bool) -> Array:
    return xs[0].astype(node.attributes["to"])


OPERATORS: dict[str, Callable[[Node, list[Array], bool], Array]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Relu": _relu,
    "LeakyRelu": _elementwise(lambda x, n: np.where(x < 0, x * n.attributes.get("alpha", 0.01), x)),
    "Clip": _clip,
    "Sigmoid": _elementwise(_sigmoid),
    "HardSigmoid": _elementwise(_hard_sigmoid),
    "HardSwish": _elementwise(lambda x, n: x * np.clip(x / 6 + 0.5, 0, 1)),
    "Tanh": _elementwise(lambda x, n: np.tanh(x)),
    "Gelu": _elementwise(_gelu),
    "Erf": _elementwise(lambda x, n: _erf(x)),
    "Sqrt": _elementwise(lambda x, n: np.sqrt(x)),
    "Exp": _elementwise(lambda x, n: np.exp(x)),
    "MaxPool": _pool(average=False),
    "AveragePool": _pool(average=True),
    "GlobalAveragePool": _global_pool(np.mean),
    "GlobalMaxPool": _global_pool(np.max),
    "Add": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "Div": _divide,
    "Sum": _variadic(np.add),
    "Max": _variadic(np.maximum),
    "Min": _variadic(np.minimum),
    "Floor": _elementwise(lambda x, n: np.floor(x)),
    "Reciprocal": _elementwise(lambda x, n: 1 / x),
    "LRN": _lrn,
    "ConstantOfShape": _constant_of_shape,
    "Neg": _elementwise(lambda x, n: -x),
    "Where": lambda node, xs, reuse: np.where(*xs),
    "Equal": lambda node, xs, reuse: np.equal(*xs),
    "Expand": lambda node, xs, reuse: np.broadcast_to(
        xs[0], np.broadcast_shapes(xs[0].shape, tuple(int(n) for n in xs[1]))
    ),
    "Pow": lambda node, xs, reuse: np.power(xs[0], xs[1]).astype(xs[0].dtype, copy=False),
    "Concat": lambda node, xs, reuse: np.concatenate(xs, axis=int(node.attributes.get("axis", 1))),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": lambda node, xs, reuse: np.transpose(xs[0], node.attributes.get("perm")),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "ReduceMean": _reduce(np.mean),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "Pad": _pad,
    "Slice": _slice,
    "Softmax": _softmax,
    "Gather": lambda node, xs, reuse: np.take(xs[0], xs[1], axis=int(node.attributes.get("axis", 0))),
    "Shape": _shape,
    "Cast": _cast,
    "Constant": lambda node, xs, reuse: node.parameters["value"],
    "Identity": lambda node, xs, reuse: xs[0],
    "Dropout": lambda node, xs, reuse: xs[0],  # inference
}
