"""Operators that change the raster or the number format: Resize, Col2Im, quantisation.

Each is a function (node, inputs, reuse) -> array, defined as in ONNX; see `operators`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError, nearest_name

if TYPE_CHECKING:
    from rramsim.network.node import Node

__all__ = ["SAMPLING"]

Array = NDArray[Any]
Operator = Callable[["Node", list[Array], bool], Array]


def _positions(mode: str, n_out: int, n_in: int, scale: float) -> NDArray[np.float64]:
    """Where each output lies on the input's axis."""
    i = np.arange(n_out, dtype=np.float64)
    if mode == "half_pixel":
        return (i + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (i + 0.5) / scale - 0.5 if n_out > 1 else np.zeros(1)
    if mode == "align_corners":
        return i * (n_in - 1) / (n_out - 1) if n_out > 1 else np.zeros(1)
    if mode == "asymmetric":
        return i / scale
    known = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    raise InputError(f"Resize: coordinate_transformation_mode {mode!r}; {nearest_name(mode, known)}")


def _nearest(position: NDArray[np.float64], mode: str) -> NDArray[np.int64]:
    rounding: dict[str, Callable[..., Any]] = {
        "round_prefer_floor": lambda p: np.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: np.floor(p + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    if mode not in rounding:
        raise InputError(f"Resize: nearest_mode {mode!r}; {nearest_name(mode, rounding)}")
    return rounding[mode](position).astype(np.int64)


def _resize(node: Node, xs: list[Array], reuse: bool) -> Array:
    """Separable nearest or linear interpolation; the first axis, the batch, keeps its size."""
    x, attributes = xs[0], node.attributes
    mode = attributes.get("coordinate_transformation_mode", "half_pixel")
    for axis in range(1, x.ndim):
        n_in = x.shape[axis]
        if "sizes" in attributes:
            n_out = int(attributes["sizes"][axis])
            scale = n_out / n_in
        else:
            scale = float(attributes["scales"][axis])
            n_out = int(np.floor(n_in * scale))
        if n_out == n_in and scale == 1.0:
            continue
        position = _positions(mode, n_out, n_in, scale)
        if attributes.get("mode", "nearest") == "nearest":
            index = _nearest(position, attributes.get("nearest_mode", "round_prefer_floor"))
            x = np.take(x, np.clip(index, 0, n_in - 1), axis=axis)
            continue
        position = np.clip(position, 0, n_in - 1)
        low = np.floor(position).astype(np.int64)
        share = (position - low).astype(np.float32).reshape(-1, *(1,) * (x.ndim - 1 - axis))
        above = np.take(x, np.minimum(low + 1, n_in - 1), axis=axis)
        x = np.take(x, low, axis=axis) * (1 - share) + above * share
    return x if x is not xs[0] else x.copy()


def _col2im(node: Node, xs: list[Array], reuse: bool) -> Array:
    """Columns (n, c * kernel, n_positions) added up where their windows overlap, (n, c, *image_shape)."""
    attributes = node.attributes
    kernel, sizes = attributes["block_shape"], attributes["image_shape"]
    strides, dilations = attributes["strides"], attributes["dilations"]
    pads, positions = attributes["pads"], attributes["positions"]
    rank = len(kernel)
    n = len(xs[0])
    columns = xs[0].reshape(n, -1, *kernel, *positions)
    padded = [size + pads[i] + pads[rank + i] for i, size in enumerate(sizes)]
    # a crop beyond the windows' reach, or a negative one, needs room
    reach = [
        max(p, s * (m - 1) + (k - 1) * d + 1)
        for p, s, m, k, d in zip(padded, strides, positions, kernel, dilations, strict=True)
    ]
    out = np.zeros((n, columns.shape[1], *reach), dtype=xs[0].dtype)
    everything = slice(None)
    for offset in itertools.product(*(range(k) for k in kernel)):
        where: Any = tuple(
            slice(o * d, o * d + s * (m - 1) + 1, s)
            for o, d, s, m in zip(offset, dilations, strides, positions, strict=True)
        )
        taken: Any = (everything, everything, *offset)
        placed: Any = (everything, everything, *where)
        out[placed] += columns[taken]
    inside = tuple(slice(pads[i], pads[i] + size) for i, size in enumerate(sizes))
    return np.ascontiguousarray(out[(slice(None), slice(None), *inside)])


def _along(values: Array, axis: int, rank: int) -> Array:
    """Per-channel values in the shape that broadcasts along their axis."""
    if values.ndim == 0 or values.size == 1:
        return values.reshape(())
    return values.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def _quantize(node: Node, xs: list[Array], reuse: bool) -> Array:
    x, axis = xs[0], int(node.attributes.get("axis", 1))
    zero = xs[2] if len(xs) > 2 else np.zeros((), dtype=np.uint8)
    if zero.dtype.kind not in "iu":
        raise InputError(f"node {node.name!r}: only integer quantisation is supported, got {zero.dtype}")
    limits = np.iinfo(zero.dtype)
    scaled = np.rint(x / _along(xs[1], axis, x.ndim)) + _along(zero.astype(np.float32), axis, x.ndim)
    return np.clip(scaled, limits.min, limits.max).astype(zero.dtype)


def _dequantize(node: Node, xs: list[Array], reuse: bool) -> Array:
    x, axis = xs[0], int(node.attributes.get("axis", 1))
    value = x.astype(np.float32)
    if len(xs) > 2:
        value = value - _along(xs[2].astype(np.float32), axis, x.ndim)
    return value * _along(xs[1].astype(np.float32), axis, x.ndim)


SAMPLING: dict[str, Operator] = {
    "Resize": _resize,
    "Col2Im": _col2im,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
