"""Tuning layers of any rank: axes are the operator's, so the same weights in another layout tune alike."""

from __future__ import annotations

import numpy as np
import pytest

from finetune import tune
from rramsim.chip.simulated import SimulatedChip
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from rramsim.network import Network, Node
from tests.finetune.small import config

rng = np.random.default_rng(11)


def normal(*shape, fan_in):
    return (rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)


W1, W2, W3 = normal(6, 14, fan_in=6), normal(14, 8, fan_in=14), normal(8, 5, fan_in=8)
B1 = normal(14, fan_in=1)


def as_conv(weight):
    return np.ascontiguousarray(weight.T[:, :, None, None])


def nodes(layout):
    """Two 1x1 layers with bias, relu and mean over positions, in one of three layouts of the same numbers."""
    if layout == "conv":
        return [
            Node("a", "Conv", ("input",), {"kernel_shape": [1, 1]}, {"weight": as_conv(W1), "bias": B1}),
            Node("r", "Relu", ("a",)),
            Node("b", "Conv", ("r",), {"kernel_shape": [1, 1]}, {"weight": as_conv(W2)}),
            Node("p", "ReduceMean", ("b",), {"axes": [2, 3], "keepdims": 0}),
            Node("c", "Gemm", ("p",), {}, {"weight": W3}),
        ]
    axes = [1, 2] if layout == "map" else [1]
    return [
        Node("a", "Gemm", ("input",), {}, {"weight": W1, "bias": B1}),
        Node("r", "Relu", ("a",)),
        Node("b", "MatMul", ("r",), {}, {"weight": W2}),
        Node("p", "ReduceMean", ("b",), {"axes": axes, "keepdims": 0}),
        Node("c", "Gemm", ("p",), {}, {"weight": W3}),
    ]


SHAPES = {"conv": (6, 7, 5), "map": (7, 5, 6), "tokens": (35, 6)}


def examples(layout, seed, n=48):
    x = np.random.default_rng(seed).normal(size=(n, 6, 7, 5)).astype(np.float32)
    x += np.random.default_rng(seed + 1).normal(size=(n, 6, 1, 1)).astype(np.float32)
    if layout == "conv":
        return x
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    return x if layout == "map" else x.reshape(n, 35, 6)


def tuned(layout, strategy):
    network = Network(nodes(layout), SHAPES[layout], "c")
    chip = SimulatedChip(config(), layer_shapes(network), seed=5, chip=1)
    report = tune(chip, network, network, examples(layout, 1), strategy=strategy)
    x = examples(layout, 9, 200)
    mapped = Deployment(network, SimulatedChip(config(), layer_shapes(network), seed=5, chip=1))
    mapped.map(examples(layout, 1))
    wanted = network.run(x)
    errors = [
        np.square(d.run(x) - wanted).mean() / wanted.var(axis=0).mean() for d in (mapped, report.deployment)
    ]
    return errors, report


STRATEGIES = (
    "affine",
    "lsq.closed_loop + lsq.affine",
    "lsq.open_loop + lsq.affine",
    "lsq.sequential + lsq.affine",
    "lsq.affine + sparse",
    "lsq.affine + zo.local(rounds=3)",
    "lsq.affine + zo(reach=100, steps=1, images=16)",
    "lsq.affine + zo.range",
    "lsq.affine + maintain",
)


@pytest.mark.parametrize("strategy", ["lsq.affine", "default"])
def test_layouts_of_the_same_network_tune_alike(strategy):
    """Channels first, channels last on maps, and tokens: the same chip, so the same error but for rounding.

    Before axes were declared by the node, channels-last layers were fitted to scrambled targets: the
    tuned network was worse than the mapped one.
    """
    reference, _ = tuned("conv", strategy)
    assert reference[1] < 0.5 * reference[0]
    for layout in ("map", "tokens"):
        errors, _ = tuned(layout, strategy)
        np.testing.assert_allclose(errors[0], reference[0], rtol=0.02)
        np.testing.assert_allclose(errors[1], reference[1], rtol=0.15)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("layout", ["map", "tokens"])
def test_every_strategy_takes_any_rank(layout, strategy):
    errors, _ = tuned(layout, strategy)
    assert errors[1] < errors[0]
