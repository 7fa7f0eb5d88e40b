"""Arrays read several times (recurrent layers, a layer used twice), and networks with named inputs."""

from __future__ import annotations

import numpy as np
import pytest

from finetune import tune
from rramsim.chip.simulated import SimulatedChip
from rramsim.host.deployment import Deployment
from rramsim.host.evaluation import evaluate_images
from rramsim.host.layer import layer_shapes
from rramsim.network import Network, Node
from rramsim.network.recurrent import Unrolled
from tests.finetune.small import config

rng = np.random.default_rng(4)


def normal(*shape, fan_in):
    return (rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)


def lstm(n_steps=6, n_inputs=8, n_hidden=10):
    parts = Unrolled(
        "LSTM",
        "lstm",
        "input",
        n_steps,
        2 * normal(1, 4 * n_hidden, n_inputs, fan_in=n_inputs),
        2 * normal(1, 4 * n_hidden, n_hidden, fan_in=n_hidden),
        normal(1, 8 * n_hidden, fan_in=1),
        {},
    )
    head = Node(
        "head", "Gemm", (f"lstm:forward:step{n_steps - 1}",), {}, {"weight": normal(n_hidden, 4, fan_in=10)}
    )
    return Network([*parts.nodes, head], (n_steps, n_inputs), "head", "lstm")


def twice():
    w, v = normal(12, 12, fan_in=12), normal(12, 4, fan_in=12)
    nodes = [
        Node("a", "MatMul", ("input",), {}, {"weight": w}),
        Node("r", "Relu", ("a",)),
        Node("b", "MatMul", ("r",), {"shares": "a"}, {"weight": w}),
        Node("s", "Tanh", ("b",)),
        Node("p", "ReduceMean", ("s",), {"axes": [1], "keepdims": 0}),
        Node("c", "MatMul", ("p",), {}, {"weight": v}),
    ]
    return Network(nodes, (5, 12), "c", "twice")


def masked():
    """Tokens through an embedding, a masked mean of their hidden values, a matrix."""
    nodes = [
        Node("table", "Constant", (), {}, {"value": normal(20, 12, fan_in=1)}),
        Node("e", "Gather", ("table", "input"), {"axis": 0}),
        Node("h", "MatMul", ("e",), {}, {"weight": normal(12, 16, fan_in=12)}),
        Node("g", "Gelu", ("h",)),
        Node("axes", "Constant", (), {}, {"value": np.array([2])}),
        Node("m", "Unsqueeze", ("mask", "axes")),
        Node("hm", "Mul", ("g", "m")),
        Node("s", "ReduceSum", ("hm",), {"axes": [1], "keepdims": 0}),
        Node("c", "MatMul", ("s",), {}, {"weight": normal(16, 4, fan_in=16)}),
    ]
    return Network(nodes, (7,), "c", "masked", input_dtype=np.int64, more_inputs={"mask": ((7,), np.float32)})


def examples(network, seed, n):
    draw = np.random.default_rng(seed)
    if network.name == "masked":
        mask = (np.arange(7) < draw.integers(2, 8, (n, 1))).astype(np.float32)
        return {"input": draw.integers(0, 20, (n, 7)), "mask": mask}
    return draw.normal(size=(n, *network.input_shape)).astype(np.float32)


def chip(network, number=3, **changes):
    return SimulatedChip(config(**changes), layer_shapes(network), seed=5, chip=number)


NETWORKS = {"lstm": lstm(), "twice": twice(), "masked": masked()}


def test_one_array_for_all_uses():
    assert {name: len(layer_shapes(net)) for name, net in NETWORKS.items()} == {
        "lstm": 3,
        "twice": 2,
        "masked": 2,
    }
    network = NETWORKS["lstm"]
    deployment = Deployment(network, chip(network))
    deployment.map(examples(network, 1, 16))
    before = {name: costs.vectors for name, costs in deployment.chip.ledger.layers.items()}
    deployment.run(examples(network, 2, 10))
    read = {name: c.vectors - before[name] for name, c in deployment.chip.ledger.layers.items()}
    # all steps at once; once per step but for the first, whose state is zero; once
    assert list(read.values()) == [60, 50, 10]


@pytest.mark.parametrize("name", NETWORKS)
def test_error_free_chips_reproduce_the_network(name):
    network = NETWORKS[name]
    deployment = Deployment(network, chip(network, sigma=0.0))
    deployment.map(examples(network, 1, 64))
    x = examples(network, 2, 50)
    wanted = network.run(x)
    error = np.square(deployment.run(x) - wanted).mean() / wanted.var(axis=0).mean()
    assert error < 0.03  # 16 levels and 8-bit converters


@pytest.mark.parametrize(
    "strategy", ["affine", "lsq.affine", "default", "lsq.affine + zo(steps=1, images=16)"]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_tunes(name, strategy):
    network = NETWORKS[name]
    calibration, x = examples(network, 1, 64), examples(network, 2, 200)
    wanted = network.run(x)
    errors = np.zeros(2)  # mapped and tuned, over four chips: one gains more than another
    for number in range(4):
        mapped = Deployment(network, chip(network, number))
        mapped.map(calibration)
        report = tune(chip(network, number), network, network, calibration, strategy=strategy)
        assert report.finished
        errors += [np.square(d.run(x) - wanted).mean() for d in (mapped, report.deployment)]
    assert errors[1] < (0.95 if strategy == "affine" else 0.8) * errors[0]


def test_workers_give_the_same_bits_for_shared_layers():
    network = NETWORKS["lstm"]
    network.batch = 8
    deployment = Deployment(network, chip(network))
    deployment.map(examples(network, 1, 16))
    x = examples(network, 2, 40)
    np.testing.assert_array_equal(
        evaluate_images(deployment, x, workers=2), evaluate_images(deployment, x, workers=1)
    )
