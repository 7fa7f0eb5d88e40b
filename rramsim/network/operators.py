"""Digital execution of every operator, named and defined as in ONNX, in NumPy.

An operator is a function (node, inputs, reuse) -> array. `reuse` means that the first input is
a temporary of its own that may be overwritten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from rramsim.kernels import convolution, windows
from rramsim.network.elementwise import ELEMENTWISE
from rramsim.network.sampling import SAMPLING
from rramsim.network.shaping import SHAPING, axes_of
from rramsim.network.windows import as_maps, matrices, window_geometry

if TYPE_CHECKING:
    from rramsim.network.node import Node

__all__ = ["MAPPED", "OPERATORS", "required_parameters"]

Array = NDArray[Any]
Operator = Callable[["Node", list[Array], bool], Array]
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
    if node.attributes.get("left", 0):
        if xs[0].ndim < 3:
            raise ValueError("a matrix on the left needs inputs of shape (n, c, ...), batch axis first")
        return node.parameters["weight"].T @ xs[0]
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


def _normalised(x: Array, axes: tuple[int, ...], node: Node) -> Array:
    centred = x - x.mean(axis=axes, keepdims=True)
    variance = np.square(centred).mean(axis=axes, keepdims=True)
    return centred / np.sqrt(variance + np.float32(node.attributes.get("epsilon", 1e-5)))


def _layer_norm(node: Node, xs: list[Array], reuse: bool) -> Array:
    x, axis = xs[0], int(node.attributes.get("axis", -1))
    y = _normalised(x, tuple(range(axis % x.ndim, x.ndim)), node) * xs[1]
    return y + xs[2] if len(xs) > 2 else y


def _pool(average: bool) -> Operator:
    def apply(node: Node, xs: list[Array], reuse: bool) -> Array:
        geometry = window_geometry(node, node.attributes["kernel_shape"], xs[0].shape)
        x = np.ascontiguousarray(as_maps(xs[0]), dtype=np.float32)
        out = np.empty((*x.shape[:2], geometry.out_h, geometry.out_w), dtype=np.float32)
        windows.pool(x, geometry, average, int(node.attributes.get("count_include_pad", 0)), out)
        return out[:, :, 0] if xs[0].ndim == 3 else out

    return apply


def _global_pool(reduce: Callable[..., Array]) -> Operator:
    return lambda node, xs, reuse: reduce(xs[0], axis=tuple(range(2, xs[0].ndim)), keepdims=True)


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


def _instance_norm(node: Node, xs: list[Array], reuse: bool) -> Array:
    x = xs[0]
    y = _normalised(x, tuple(range(2, x.ndim)), node)
    return y * _per_channel(xs[1], x.ndim) + _per_channel(xs[2], x.ndim)


def _group_norm(node: Node, xs: list[Array], reuse: bool) -> Array:
    x, n_groups = xs[0], int(node.attributes["num_groups"])
    groups = x.reshape(len(x), n_groups, -1)
    y = _normalised(groups, (2,), node).reshape(x.shape)
    scale, bias = (np.repeat(p, x.shape[1] // p.size) for p in xs[1:3])  # per group until opset 20
    return y * _per_channel(scale, x.ndim) + _per_channel(bias, x.ndim)


def _rms_norm(node: Node, xs: list[Array], reuse: bool) -> Array:
    x = xs[0]
    axes = tuple(range(int(node.attributes.get("axis", -1)) % x.ndim, x.ndim))
    mean = np.square(x).mean(axis=axes, keepdims=True)
    return x / np.sqrt(mean + np.float32(node.attributes.get("epsilon", 1e-5))) * xs[1]


def _lp_norm(node: Node, xs: list[Array], reuse: bool) -> Array:
    order, axis = int(node.attributes.get("p", 2)), int(node.attributes.get("axis", -1))
    return xs[0] / np.linalg.norm(xs[0], ord=order, axis=axis, keepdims=True)


def _softmax(node: Node, xs: list[Array], reuse: bool) -> Array:
    e, total, _ = _exponentials(node, xs[0])
    return e / total


def _log_softmax(node: Node, xs: list[Array], reuse: bool) -> Array:
    _, total, shifted = _exponentials(node, xs[0])
    return shifted - np.log(total)


def _exponentials(node: Node, x: Array) -> tuple[Array, Array, Array]:
    axis = int(node.attributes.get("axis", -1))
    axes = tuple(range(axis % x.ndim, x.ndim)) if node.attributes.get("flatten", 0) else axis
    shifted = x - x.max(axis=axes, keepdims=True)
    e = np.exp(shifted)
    return e, e.sum(axis=axes, keepdims=True), shifted


def _reduce(function: Callable[..., Array]) -> Operator:
    def apply(node: Node, xs: list[Array], reuse: bool) -> Array:
        axes = axes_of(node, xs) or None  # an empty list means all
        if axes is None and node.attributes.get("noop_with_empty_axes", 0):
            return xs[0].copy()
        keep = bool(node.attributes.get("keepdims", 1))
        return np.asarray(function(xs[0], axis=axes, keepdims=keep)).astype(xs[0].dtype, copy=False)

    return apply


def _log_sum_exp(x: Array, axis: Any, keepdims: bool) -> Array:
    from scipy.special import logsumexp

    return logsumexp(x, axis=axis, keepdims=keepdims)


def _arg(function: Callable[..., Array]) -> Operator:
    def apply(node: Node, xs: list[Array], reuse: bool) -> Array:
        x, axis = xs[0], int(node.attributes.get("axis", 0))
        last = bool(node.attributes.get("select_last_index", 0))
        index = function(np.flip(x, axis) if last else x, axis=axis)
        index = x.shape[axis] - 1 - index if last else index
        return np.expand_dims(index, axis) if node.attributes.get("keepdims", 1) else np.asarray(index)

    return apply


def _cumulative_sum(node: Node, xs: list[Array], reuse: bool) -> Array:
    axis, backwards = int(xs[1]), bool(node.attributes.get("reverse", 0))
    x = np.flip(xs[0], axis) if backwards else xs[0]
    y = np.cumsum(x, axis=axis, dtype=x.dtype)
    y = y - x if node.attributes.get("exclusive", 0) else y
    return np.flip(y, axis) if backwards else y


OPERATORS: dict[str, Operator] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Einsum": lambda node, xs, reuse: np.einsum(node.attributes["equation"].replace(" ", ""), *xs),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LpNormalization": _lp_norm,
    "LRN": _lrn,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "MaxPool": _pool(average=False),
    "AveragePool": _pool(average=True),
    "GlobalAveragePool": _global_pool(np.mean),
    "GlobalMaxPool": _global_pool(np.max),
    "ReduceMean": _reduce(np.mean),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceL1": _reduce(lambda x, **where: np.sum(np.abs(x), **where)),
    "ReduceL2": _reduce(lambda x, **where: np.sqrt(np.sum(np.square(x), **where))),
    "ReduceSumSquare": _reduce(lambda x, **where: np.sum(np.square(x), **where)),
    "ReduceLogSumExp": _reduce(_log_sum_exp),
    "ArgMax": _arg(np.argmax),
    "ArgMin": _arg(np.argmin),
    "CumSum": _cumulative_sum,
    **ELEMENTWISE,
    **SAMPLING,
    **SHAPING,
}
