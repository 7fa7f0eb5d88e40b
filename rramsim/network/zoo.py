"""Well-known architectures with random weights, for measuring speed and memory; none is trained."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from rramsim.checks import InputError
from rramsim.network.graph import Network
from rramsim.network.node import Node

__all__ = ["cifar_resnet", "lenet5", "mlp", "resnet8", "resnet18", "token_mlp", "vgg16"]


class _Builder:
    """Nodes one after another; weights keep the variance of activations."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Node] = []

    def add(self, op: str, *inputs: str, attributes: dict | None = None, **parameters: np.ndarray) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(Node(name, op, inputs, attributes or {}, parameters))
        return name

    def weight(self, *shape: int, fan_in: int) -> np.ndarray:
        return (self.rng.standard_normal(shape, dtype=np.float32)) * np.float32((2.0 / fan_in) ** 0.5)

    def conv(
        self, x: str, c_in: int, c_out: int, kernel: int, stride: int = 1, pad: int | None = None
    ) -> str:
        """Convolution and batch norm."""
        pad = kernel // 2 if pad is None else pad
        attributes = {"strides": [stride] * 2, "pads": [pad] * 4, "kernel_shape": [kernel] * 2}
        fan_in = c_in * kernel * kernel
        weight = self.weight(c_out, c_in, kernel, kernel, fan_in=fan_in)
        x = self.add("Conv", x, attributes=attributes, weight=weight)
        ones, zeros = np.ones(c_out, np.float32), np.zeros(c_out, np.float32)
        return self.add(
            "BatchNormalization",
            x,
            attributes={"epsilon": 1e-5},
            scale=ones,
            bias=zeros,
            mean=zeros,
            variance=ones,
        )

    def linear(self, x: str, n_in: int, n_out: int) -> str:
        weight = self.weight(n_in, n_out, fan_in=n_in)
        return self.add("Gemm", x, weight=weight, bias=np.zeros(n_out, np.float32))

    def block(self, x: str, c_in: int, c_out: int, stride: int) -> str:
        """Basic residual block."""
        y = self.add("Relu", self.conv(x, c_in, c_out, 3, stride))
        y = self.conv(y, c_out, c_out, 3)
        if stride != 1 or c_in != c_out:
            x = self.conv(x, c_in, c_out, 1, stride)
        return self.add("Relu", self.add("Add", y, x))


def mlp(sizes: Sequence[int] = (784, 256, 10), seed: int = 0) -> Network:
    """Linear layers with ReLU between them; two sizes give a single matrix."""
    b, x = _Builder(seed), "input"
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        x = b.linear(b.add("Relu", x) if i else x, n_in, n_out)
    return Network(b.nodes, (sizes[0],), x, "mlp")


def lenet5(input_shape: tuple[int, int, int] = (1, 28, 28), seed: int = 0) -> Network:
    """LeNet-5 with batch norm after the convolutions."""
    b, (c, h, w) = _Builder(seed), input_shape
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    x = b.add("MaxPool", b.add("Relu", b.conv("input", c, 6, 5)), attributes=pool)
    x = b.add("MaxPool", b.add("Relu", b.conv(x, 6, 16, 5, pad=0)), attributes=pool)
    x, size = b.add("Flatten", x), 16 * ((h // 2 - 4) // 2) * ((w // 2 - 4) // 2)
    for n_out in (120, 84):
        x, size = b.add("Relu", b.linear(x, size, n_out)), n_out
    return Network(b.nodes, input_shape, b.linear(x, size, 10), "lenet5")


def resnet8(
    input_shape: tuple[int, int, int] = (3, 32, 32), widths: Sequence[int] = (24, 48, 96), seed: int = 0
) -> Network:
    """Three residual blocks; widths (24, 48, 96) give 174 k weights, (16, 32, 64) 78 k."""
    b = _Builder(seed)
    x = b.add("Relu", b.conv("input", input_shape[0], widths[0], 3))
    for i, (c_in, c_out) in enumerate(zip((widths[0], *widths[:-1]), widths, strict=True)):
        x = b.block(x, c_in, c_out, 1 if i == 0 else 2)
    x = b.add("Flatten", b.add("GlobalAveragePool", x))
    return Network(b.nodes, input_shape, b.linear(x, widths[-1], 10), "resnet8")


def cifar_resnet(depth: int = 20, input_shape: tuple[int, int, int] = (3, 32, 32), seed: int = 0) -> Network:
    """The CIFAR ResNets of He et al. (2016), depth 6 n + 2 and widths 16, 32, 64: 0.27 M weights at 20."""
    if depth < 8 or (depth - 2) % 6:
        raise InputError(f"cifar_resnet needs a depth of 6 n + 2, such as 20 or 32, got {depth}")
    b = _Builder(seed)
    x, c_in = b.add("Relu", b.conv("input", input_shape[0], 16, 3)), 16
    for stage, c_out in enumerate((16, 32, 64)):
        for i in range((depth - 2) // 6):
            x, c_in = b.block(x, c_in, c_out, 2 if stage and i == 0 else 1), c_out
    x = b.add("Flatten", b.add("GlobalAveragePool", x))
    return Network(b.nodes, input_shape, b.linear(x, 64, 10), f"resnet{depth}")


def token_mlp(sizes: Sequence[int], tokens: int = 16, seed: int = 0) -> Network:
    """Matrix products with ReLU between them over the last axis of (tokens, sizes[0]) inputs."""
    b, x = _Builder(seed), "input"
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        x = b.add("Relu", x) if i else x
        x = b.add("MatMul", x, weight=b.weight(n_in, n_out, fan_in=n_in))
    return Network(b.nodes, (tokens, sizes[0]), x, "token_mlp")


def resnet18(input_shape: tuple[int, int, int] = (3, 32, 32), n_classes: int = 10, seed: int = 0) -> Network:
    """ResNet-18 (11.2 M weights); the large stem for inputs of more than 64 pixels."""
    b = _Builder(seed)
    if input_shape[1] > 64:
        x = b.add("Relu", b.conv("input", input_shape[0], 64, 7, 2))
        x = b.add("MaxPool", x, attributes={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4})
    else:
        x = b.add("Relu", b.conv("input", input_shape[0], 64, 3))
    c_in = 64
    for stage, c_out in enumerate((64, 128, 256, 512)):
        x = b.block(x, c_in, c_out, 1 if stage == 0 else 2)
        x, c_in = b.block(x, c_out, c_out, 1), c_out
    x = b.add("Flatten", b.add("GlobalAveragePool", x))
    return Network(b.nodes, input_shape, b.linear(x, 512, n_classes), "resnet18")


def vgg16(
    input_shape: tuple[int, int, int] = (3, 32, 32),
    n_classes: int = 10,
    seed: int = 0,
    hidden: Sequence[int] = (),
) -> Network:
    """VGG-16's convolutions with batch norm and one linear layer (14.7 M weights), after `hidden` ones.

    ``vgg16((3, 224, 224), 1000, hidden=(4096, 4096))`` is the network of Simonyan and Zisserman (2015) with
    batch norm: 138.3 M weights.
    """
    if input_shape[1] % 32 or input_shape[2] % 32:
        raise InputError(f"vgg16 halves its maps five times: sides must divide by 32, got {input_shape}")
    b, x, c_in = _Builder(seed), "input", input_shape[0]
    for c_out, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            x, c_in = b.add("Relu", b.conv(x, c_in, c_out, 3)), c_out
        x = b.add("MaxPool", x, attributes={"kernel_shape": [2, 2], "strides": [2, 2]})
    x = b.add("Flatten", x)
    n_in = 512 * (input_shape[1] // 32) * (input_shape[2] // 32)
    for n_out in hidden:
        x, n_in = b.add("Relu", b.linear(x, n_in, n_out)), n_out
    return Network(b.nodes, input_shape, b.linear(x, n_in, n_classes), "vgg16")
