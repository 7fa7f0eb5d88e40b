"""Matrix-multiplying nodes as matrices and vectors.

A convolution becomes one matrix per group, its rows ordered (c_in, k_h, k_w); its inputs
become one vector per output position, ordered (image, out_y, out_x). Linear nodes pass through.
One-dimensional convolutions count as two-dimensional ones of height 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError
from rramsim.kernels import windows
from rramsim.kernels.windows import Geometry

if TYPE_CHECKING:
    from rramsim.network.node import Node

__all__ = [
    "channel_axis",
    "channel_slice",
    "from_columns",
    "geometry",
    "lower",
    "matrices",
    "to_columns",
    "vectors_per_example",
    "window_geometry",
]


def window_geometry(node: Node, kernel: Sequence[int], shape: Sequence[int]) -> Geometry:
    """Window of a Conv or pooling node on inputs of `shape` (n, c, h, w) or (n, c, l).

    Raises
    ------
    InputError
        If the window does not fit into the padded map.
    """
    attributes, rank = node.attributes, len(kernel)
    strides = [int(s) for s in attributes.get("strides", [1] * rank)]
    dilations = [int(d) for d in attributes.get("dilations", [1] * rank)]
    pads = [int(p) for p in attributes.get("pads", [0] * (2 * rank))]
    sizes = [int(n) for n in shape[2:]]
    if len(sizes) != rank:
        raise InputError(f"node {node.name!r} has a {rank}-D window but input of shape {tuple(shape)}")
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    auto = attributes.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        missing = [
            max((-(-n // s) - 1) * s + span - n, 0) for n, s, span in zip(sizes, strides, spans, strict=True)
        ]
        small, large = [m // 2 for m in missing], [m - m // 2 for m in missing]
        pads = small + large if auto == "SAME_UPPER" else large + small
    ends = pads[rank:]
    if attributes.get("ceil_mode", 0):
        # ONNX: a window may start in the map or its front padding, never wholly behind it
        outs = []
        for i, (n, s, span) in enumerate(zip(sizes, strides, spans, strict=True)):
            out = -(-(n + pads[i] + ends[i] - span) // s) + 1
            outs.append(out - 1 if (out - 1) * s >= n + pads[i] else out)
    else:
        outs = [
            (n + pads[i] + ends[i] - span) // s + 1
            for i, (n, s, span) in enumerate(zip(sizes, strides, spans, strict=True))
        ]
    if min(outs) < 1:
        raise InputError(
            f"node {node.name!r}: a window of {tuple(kernel)} does not fit into input of shape "
            f"{tuple(shape)} with pads {pads}"
        )
    if rank == 1:
        return Geometry(1, kernel[0], 1, strides[0], 1, dilations[0], 0, pads[0], 0, ends[0], 1, outs[0])
    return Geometry(
        kernel_h=kernel[0],
        kernel_w=kernel[1],
        stride_h=strides[0],
        stride_w=strides[1],
        dilation_h=dilations[0],
        dilation_w=dilations[1],
        pad_top=pads[0],
        pad_left=pads[1],
        pad_bottom=ends[0],
        pad_right=ends[1],
        out_h=outs[0],
        out_w=outs[1],
    )


def geometry(node: Node, shape: Sequence[int]) -> Geometry | None:
    """Window of a Conv node on inputs of `shape`; None for a linear node."""
    if node.op != "Conv":
        return None
    return window_geometry(node, node.parameters["weight"].shape[2:], shape)


def as_maps(x: NDArray[Any]) -> NDArray[Any]:
    """Input of a convolution with two spatial axes."""
    return x[:, :, None, :] if x.ndim == 3 else x


def matrices(node: Node) -> list[NDArray[np.float32]]:
    """Weights as (n_rows, n_cols), one matrix per group."""
    weight = node.parameters["weight"]
    if node.op != "Conv":
        return [weight]
    parts = np.split(weight, int(node.attributes.get("group", 1)))
    return [np.ascontiguousarray(part.reshape(len(part), -1).T) for part in parts]


def channel_axis(node: Node) -> int:
    """Axis of a mapped node's output along which its columns lie, as its operator declares it.

    Convolutions have channels on axis 1 whatever the number of spatial axes; matrix products on the last
    axis, whether their input is a vector, tokens (n, t, c) or a map (n, h, w, c); with the matrix on the
    left of tokens (n, c, t), on the last axis but one.
    """
    if node.op == "Conv":
        return 1
    return -2 if node.attributes.get("left", 0) else -1


def channel_slice(node: Node, group: int) -> slice:
    """Channels of a mapped node's output that are the columns of one group."""
    weight = node.parameters["weight"]
    if node.op != "Conv":
        return slice(0, weight.shape[1])
    own = weight.shape[0] // int(node.attributes.get("group", 1))
    return slice(group * own, (group + 1) * own)


def vectors_per_example(node: Node, shape: Sequence[int]) -> int:
    """Vectors that one example sends to each group of a mapped node whose output has `shape` (n, ...)."""
    channels = shape[channel_axis(node)]
    return int(np.prod(shape[1:], dtype=np.int64)) // max(int(channels), 1)


def to_columns(node: Node, y: NDArray[Any], group: int = 0) -> NDArray[Any]:
    """One group's matrix (n_vectors, n_cols) out of a mapped node's output, the inverse of `from_columns`.

    Parameters
    ----------
    y : ndarray
        An array shaped like the node's output, of any rank.

    Returns
    -------
    ndarray
        C-contiguous, in the number type of `y`; rows are ordered like the vectors of `lower`.
    """
    last = np.moveaxis(y, channel_axis(node), -1)[..., channel_slice(node, group)]
    return np.ascontiguousarray(last).reshape(-1, last.shape[-1])


def lower(node: Node, x: NDArray[Any], group: int = 0) -> NDArray[Any]:
    """Input vectors of one group, shape (n_vectors, n_rows), in the number type of `x`."""
    window = geometry(node, x.shape)
    if window is None:
        x = x.swapaxes(-1, -2) if node.attributes.get("left", 0) else x
        return np.ascontiguousarray(x.reshape(-1, x.shape[-1]))
    maps = as_maps(x)
    own = maps.shape[1] // int(node.attributes.get("group", 1))
    maps = np.ascontiguousarray(maps[:, group * own : (group + 1) * own])
    n_vectors = len(maps) * window.out_h * window.out_w
    out = np.empty((n_vectors, own * window.kernel_h * window.kernel_w), dtype=x.dtype)
    windows.im2col(maps, window, out)
    return out


def from_columns(
    node: Node, x_shape: Sequence[int], columns: list[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Node output from one matrix (n_vectors, n_cols) per group."""
    window = geometry(node, x_shape)
    if window is None and node.attributes.get("left", 0):
        *outer, _, positions = x_shape
        return np.ascontiguousarray(columns[0].reshape(*outer, positions, -1).swapaxes(-1, -2))
    if window is None:
        return columns[0].reshape(*x_shape[:-1], columns[0].shape[1])
    n_images = x_shape[0]
    parts = [c.reshape(n_images, window.out_h, window.out_w, -1).transpose(0, 3, 1, 2) for c in columns]
    # always C order: sums over pixels must not depend on how a chip lays out its answer
    out = np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))
    return out[:, :, 0] if len(x_shape) == 3 else out
