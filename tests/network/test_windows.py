"""Columns of mapped nodes: there and back for every kind of node and every rank."""

from __future__ import annotations

import numpy as np
import pytest

from rramsim.network import Node, windows

rng = np.random.default_rng(5)
WINDOW_2D = {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 0, 1, 0]}
CASES = {
    "conv": (Node("a", "Conv", ("input",), WINDOW_2D, {"weight": rng.random((6, 4, 3, 3))}), (2, 4, 7, 6)),
    "grouped": (
        Node("a", "Conv", ("input",), {**WINDOW_2D, "group": 2}, {"weight": rng.random((6, 2, 3, 3))}),
        (2, 4, 7, 6),
    ),
    "depthwise": (
        Node("a", "Conv", ("input",), {**WINDOW_2D, "group": 4}, {"weight": rng.random((4, 1, 3, 3))}),
        (2, 4, 7, 6),
    ),
    "conv1d": (
        Node(
            "a", "Conv", ("input",), {"kernel_shape": [3], "pads": [1, 1]}, {"weight": rng.random((5, 4, 3))}
        ),
        (2, 4, 9),
    ),
    "vectors": (Node("a", "Gemm", ("input",), {}, {"weight": rng.random((4, 3))}), (5, 4)),
    "tokens": (Node("a", "MatMul", ("input",), {}, {"weight": rng.random((4, 3))}), (2, 7, 4)),
    "channels last": (Node("a", "MatMul", ("input",), {}, {"weight": rng.random((4, 3))}), (2, 5, 6, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_to_columns_is_the_inverse_of_from_columns(name):
    node, shape = CASES[name]
    x = rng.normal(size=shape).astype(np.float32)
    matrices = windows.matrices(node)
    columns = [windows.lower(node, x, g) @ m.astype(np.float32) for g, m in enumerate(matrices)]
    y = windows.from_columns(node, x.shape, columns)
    assert y.shape[windows.channel_axis(node)] == sum(m.shape[1] for m in matrices)
    for group, wanted in enumerate(columns):
        got = windows.to_columns(node, y, group)
        np.testing.assert_array_equal(got, wanted)
        assert got.flags.c_contiguous
        # columns of a statistic over all positions sit where `channel_slice` says
        channels = np.moveaxis(y, windows.channel_axis(node), -1).reshape(
            -1, y.shape[windows.channel_axis(node)]
        )
        np.testing.assert_array_equal(channels[:, windows.channel_slice(node, group)], wanted)
