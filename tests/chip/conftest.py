"""Small networks and chips of chosen (im)perfection."""

import numpy as np
import pytest

from rramsim.cell import CellsConfig
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import ChipConfig
from rramsim.network import Network, Node


def exact_cells(**changes):
    """Cells that hold their target exactly; many levels stand for continuous ones."""
    settings = {"law": "additive", "sigma": 0.0, "n_levels": 2**15, "g_max": 40e-6, "on_off_ratio": 30.0}
    return CellsConfig(**(settings | changes))


def exact_converters(**changes):
    """24-bit converters without noise."""
    settings = {"dac_bits": 24, "adc_bits": 24, "adc_noise": 0.0}
    return ConverterConfig(**(settings | changes))


def exact_chip(mapping=None, **changes):
    """A chip without any error."""
    parts = {
        "cells": exact_cells(),
        "converters": exact_converters(),
        "mapping": mapping or MappingConfig(),
    }
    return ChipConfig(**(parts | changes))


def conv_network(seed=0, *, stride=1, pad=1, groups=1, channels=4, kernel=3, size=7):
    """conv - batch norm - relu - conv - pool - linear, random weights."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    c = channels
    nodes = [
        Node(
            "conv1",
            "Conv",
            ("input",),
            {"strides": [1, 1], "pads": [1, 1, 1, 1], "group": 1},
            {"weight": normal(c, 2, 3, 3), "bias": normal(c)},
        ),
        Node(
            "norm1",
            "BatchNormalization",
            ("conv1",),
            {"epsilon": 1e-5},
            {
                "scale": 1 + 0.1 * normal(c),
                "bias": normal(c),
                "mean": normal(c),
                "variance": 5 + normal(c) ** 2,
            },
        ),
        Node("relu1", "Relu", ("norm1",), {}, {}),
        Node(
            "conv2",
            "Conv",
            ("relu1",),
            {"strides": [stride, stride], "pads": [pad] * 4, "group": groups},
            {"weight": normal(2 * c, c // groups, kernel, kernel)},
        ),
        Node("pool", "GlobalAveragePool", ("conv2",), {}, {}),
        Node("flat", "Flatten", ("pool",), {"axis": 1}, {}),
        Node("fc", "Gemm", ("flat",), {}, {"weight": normal(2 * c, 5), "bias": normal(5)}),
    ]
    return Network(nodes, input_shape=(2, size, size), output="fc", name="small", metadata={})


@pytest.fixture
def images():
    """A few random images (n, 2, 7, 7)."""
    return np.random.default_rng(1).normal(size=(6, 2, 7, 7)).astype(np.float32)
