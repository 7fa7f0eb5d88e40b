"""A small network with all kinds of layers, chips for it, and a measure of how far off it is."""

import numpy as np

from rramsim.cell import CellsConfig, FaultsConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from rramsim.network import Network, Node


def network(seed=0):
    """conv 1->8, batch norm, relu, grouped conv 8->12, relu, pool, linear 12->5; random weights."""
    rng = np.random.default_rng(seed)

    def normal(*shape, fan_in=1):
        return (rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)

    window = {"strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "kernel_shape": [3, 3]}
    norm = {
        "scale": 1 + 0.1 * normal(8),
        "bias": 0.3 * normal(8),
        "mean": 0.1 * normal(8),
        "variance": np.full(8, 1.0, np.float32),
    }
    nodes = [
        Node("conv1", "Conv", ("input",), {**window, "group": 1}, {"weight": normal(8, 1, 3, 3, fan_in=9)}),
        Node("norm1", "BatchNormalization", ("conv1",), {"epsilon": 1e-5}, norm),
        Node("relu1", "Relu", ("norm1",), {}, {}),
        Node("conv2", "Conv", ("relu1",), {**window, "group": 2}, {"weight": normal(12, 4, 3, 3, fan_in=18)}),
        Node("relu2", "Relu", ("conv2",), {}, {}),
        Node("pool", "GlobalAveragePool", ("relu2",), {}, {}),
        Node("flatten", "Flatten", ("pool",), {}, {}),
        Node("fc", "Gemm", ("flatten",), {}, {"weight": normal(12, 5, fan_in=3), "bias": normal(5)}),
    ]
    return Network(nodes, (1, 8, 8), "fc", "small")


def images(n=64, seed=1):
    """Smooth random images, so that neighbouring pixels are correlated as in pictures."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 1, 12, 12))
    for axis in (2, 3):
        x = sum(np.roll(x, k, axis) for k in range(3)) / np.sqrt(3)
    return np.ascontiguousarray(x[:, :, 2:10, 2:10], dtype=np.float32)


def config(kind="differential", sigma=0.3, law="lognormal", stuck=0.0, **more):
    """Reference cells on small tiles, so that layers span several."""
    cells = CellsConfig(law=law, sigma=sigma, n_levels=16, g_max=40e-6, on_off_ratio=30.0, fixed_fraction=0.5)
    faults = FaultsConfig(stuck_low_rate=stuck / 2, stuck_high_rate=stuck / 2)
    tiles = MappingConfig(kind=kind, tile_rows=16, tile_cols=16)
    return ChipConfig(cells=cells, faults=faults, mapping=tiles, **more)


def chip(net, number=0, **changes):
    """A reset chip for a network."""
    return SimulatedChip(config(**changes), layer_shapes(net), seed=5, chip=number)


def mapped(net, chip, calibration):
    """A chip after plain mapping."""
    deployment = Deployment(net, chip)
    deployment.map(calibration)
    return deployment


def logit_error(net, deployment, seed=9, *, common_shift=True):
    """Mean square of the logits' error over each logit's variance, on images not used for tuning.

    Without `common_shift`, a shift of all logits of an image is no error: no class gains by it, and
    softmax, so the distillation loss, does not see it.
    """
    x = images(200, seed)
    wanted = net.run(x)
    error = deployment.run(x) - wanted
    if not common_shift:
        error -= error.mean(axis=1, keepdims=True)
    return float(np.square(error).mean() / wanted.var(axis=0).mean())
