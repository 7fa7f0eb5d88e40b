"""Operators that move, pick, repeat or describe elements and compute nothing with them.

Each is a function (node, inputs, reuse) -> array, defined as in ONNX; see `operators`. Those in
`VIEWS` may answer with memory of their input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rramsim.network.node import Node

__all__ = ["SHAPING", "VIEWS", "axes_of"]

Array = NDArray[Any]
Operator = Callable[["Node", list[Array], bool], Array]


def axes_of(node: Node, xs: list[Array]) -> tuple[int, ...] | None:
    """Axes from the second input or the attribute; None where there are none."""
    axes = np.atleast_1d(xs[1]) if len(xs) > 1 else node.attributes.get("axes")
    return None if axes is None else tuple(int(a) for a in axes)


def _flatten(node: Node, xs: list[Array], reuse: bool) -> Array:
    axis = int(node.attributes.get("axis", 1))
    first = math.prod(xs[0].shape[:axis])  # a negative axis counts from the back
    return xs[0].reshape(first, math.prod(xs[0].shape[axis:]) if axis < xs[0].ndim else 1)


def _reshape(node: Node, xs: list[Array], reuse: bool) -> Array:
    x = xs[0]
    wanted = [int(n) for n in (xs[1] if len(xs) > 1 else node.attributes["shape"])]
    if not node.attributes.get("allowzero", 0):
        wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    return x.reshape(wanted)


def _squeeze(node: Node, xs: list[Array], reuse: bool) -> Array:
    return np.squeeze(xs[0], axis=axes_of(node, xs))


def _unsqueeze(node: Node, xs: list[Array], reuse: bool) -> Array:
    axes = axes_of(node, xs)
    assert axes is not None
    return np.expand_dims(xs[0], axes)


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
    # negative pads cut away
    inside = tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(widths, x.shape, strict=True))
    x, widths = x[inside], [(max(a, 0), max(b, 0)) for a, b in widths]
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
        size = xs[0].shape[axis]
        before_first = step < 0 and end < -size
        # backwards, ONNX starts at the first element at the earliest, NumPy before it
        start = max(start, -size) if step < 0 else start
        where[axis] = slice(start, None if before_first else end, step)
    return xs[0][tuple(where)]


def _split(node: Node, xs: list[Array], reuse: bool) -> Array:
    """Part number `output` of `num_outputs`; sizes as an input or an attribute, else equal parts."""
    x, count = xs[0], int(node.attributes["num_outputs"])
    axis = int(node.attributes.get("axis", 0))
    sizes = xs[1] if len(xs) > 1 else node.attributes.get("split")
    if sizes is None:
        each = -(-x.shape[axis] // count)  # the last part takes what is left
        sizes = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
    ends = np.cumsum(sizes)
    index = int(node.attributes["output"])
    where = [slice(None)] * x.ndim
    where[axis] = slice(int(ends[index] - sizes[index]), int(ends[index]))
    return x[tuple(where)]


def _expand(node: Node, xs: list[Array], reuse: bool) -> Array:
    shape = tuple(int(n) for n in xs[1])
    return np.broadcast_to(xs[0], np.broadcast_shapes(xs[0].shape, shape))


def _gather_elements(node: Node, xs: list[Array], reuse: bool) -> Array:
    axis = int(node.attributes.get("axis", 0))
    others = list(np.ogrid[tuple(slice(n) for n in xs[1].shape)])
    others[axis] = xs[1]
    return xs[0][tuple(others)]


def _gather_nd(node: Node, xs: list[Array], reuse: bool) -> Array:
    x, indices = xs
    n_batch = int(node.attributes.get("batch_dims", 0))
    each = np.ogrid[tuple(slice(n) for n in indices.shape[:n_batch])] if n_batch else []
    rank = indices.ndim - 1
    batch = [part.reshape(*part.shape, *(1,) * (rank - n_batch)) for part in each]
    return x[(*batch, *np.moveaxis(indices, -1, 0))]


def _depth_to_space(node: Node, xs: list[Array], reuse: bool) -> Array:
    n, c, h, w = xs[0].shape
    b = int(node.attributes["blocksize"])
    if node.attributes.get("mode", "DCR") == "DCR":
        parts = xs[0].reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = xs[0].reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // b**2, h * b, w * b)


def _space_to_depth(node: Node, xs: list[Array], reuse: bool) -> Array:
    n, c, h, w = xs[0].shape
    b = int(node.attributes["blocksize"])
    parts = xs[0].reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * b**2, h // b, w // b)


def _trilu(node: Node, xs: list[Array], reuse: bool) -> Array:
    k = int(xs[1]) if len(xs) > 1 else 0
    return (np.triu if node.attributes.get("upper", 1) else np.tril)(xs[0], k)


SHAPING: dict[str, Operator] = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": lambda node, xs, reuse: np.transpose(xs[0], node.attributes.get("perm")),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": lambda node, xs, reuse: np.concatenate(xs, axis=int(node.attributes.get("axis", 1))),
    "Slice": _slice,
    "Split": _split,
    "Pad": _pad,
    "Expand": _expand,
    "Tile": lambda node, xs, reuse: np.tile(xs[0], tuple(int(n) for n in xs[1])),
    "Gather": lambda node, xs, reuse: np.take(xs[0], xs[1], axis=int(node.attributes.get("axis", 0))),
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Trilu": _trilu,
    "Shape": _shape,
    "Size": lambda node, xs, reuse: np.array(xs[0].size, dtype=np.int64),
    "Range": lambda node, xs, reuse: np.arange(*(x.item() for x in xs), dtype=xs[0].dtype),
    "ConstantOfShape": _constant_of_shape,
    "Cast": lambda node, xs, reuse: xs[0].astype(node.attributes["to"]),
    "CastLike": lambda node, xs, reuse: xs[0].astype(xs[1].dtype),
    "Constant": lambda node, xs, reuse: node.parameters["value"],
    "Identity": lambda node, xs, reuse: xs[0],
    "Dropout": lambda node, xs, reuse: xs[0],  # inference
}

VIEWS = (
    "Constant",
    "DepthToSpace",
    "Dropout",
    "Einsum",
    "Expand",
    "Flatten",
    "Identity",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
