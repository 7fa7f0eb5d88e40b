"""Train the shipped teachers and export them to `data/teachers/`.

    pip install "rramsim[train]" scikit-learn
    python data/train_teachers.py                  # all three
    python data/train_teachers.py resnet8_fashion --work checkpoints

Seeds are fixed (the number of threads changes rounding, and so the last digits),
and a checkpoint after every epoch lets a stopped run go on where it was. The
choice between the last and the averaged weights is made on the validation images,
which no teacher trains on; the test images are looked at once, at the very end.
Networks called `*_vat` are rivals, not teachers: variation-aware training goes on from a
teacher with a new programming of all weights in every step.
Fashion-MNIST is read from `--data`, else as `load_dataset("fashion_mnist_full")`
finds it.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rramsim.datasets.embedded import Dataset, Split, load_dataset
from rramsim.datasets.teachers import load_teacher
from rramsim.network import Network, Node

HERE = Path(__file__).resolve().parent
BATCH = 128


@dataclass(frozen=True)
class Recipe:
    """How one teacher is trained: SGD with Nesterov momentum, or AdamW, on a one-cycle schedule."""

    dataset: str
    epochs: int
    peak_rate: float
    crop_pad: int  # random crop after padding by so many pixels
    flip: bool
    weight_decay: float = 5e-4
    ema_decay: float = 0.998  # per step
    seed: int = 1
    start: str = ""  # teacher to go on from
    sigma: float = 0.0  # of ln G: variation-aware training, every weight on a pair of erring cells
    adam: bool = False  # AdamW with decoupled decay, which transformers need


RECIPES = {
    "cnn_digits": Recipe("digits", epochs=60, peak_rate=0.1, crop_pad=1, flip=False, ema_decay=0.98),
    "lenet5_fashion": Recipe(
        "fashion_mnist_full", epochs=24, peak_rate=0.1, crop_pad=1, flip=True, weight_decay=3e-4
    ),
    "resnet8_fashion": Recipe(
        "fashion_mnist_full", epochs=28, peak_rate=0.2, crop_pad=2, flip=True, weight_decay=3e-4
    ),
    "lenet5_fashion_vat": Recipe(
        "fashion_mnist_full", epochs=12, peak_rate=0.03, crop_pad=1, flip=True, weight_decay=3e-4,
        start="lenet5_fashion", sigma=0.3,
    ),
    "resnet8_fashion_vat": Recipe(
        "fashion_mnist_full", epochs=10, peak_rate=0.06, crop_pad=2, flip=True, weight_decay=3e-4,
        start="resnet8_fashion", sigma=0.3,
    ),
    "depthwise_fashion": Recipe(
        "fashion_mnist_full", epochs=10, peak_rate=4e-3, crop_pad=1, flip=True, weight_decay=1e-2, adam=True
    ),
    "vit_fashion": Recipe(
        "fashion_mnist_full", epochs=5, peak_rate=1e-3, crop_pad=1, flip=True, weight_decay=5e-2, adam=True,
        seed=2,
    ),
    "mixer_fashion": Recipe(
        "fashion_mnist_full", epochs=10, peak_rate=3e-3, crop_pad=1, flip=True, weight_decay=5e-2, adam=True
    ),
    "lstm_fashion": Recipe(
        "fashion_mnist_full", epochs=6, peak_rate=4e-3, crop_pad=1, flip=True, weight_decay=1e-2, adam=True
    ),
}  # fmt: skip
FIRST = {  # a cycle before the recipe's own, which goes on from its averaged weights
    "vit_fashion": Recipe(
        "fashion_mnist_full", epochs=10, peak_rate=2e-3, crop_pad=1, flip=True, weight_decay=5e-2, adam=True
    ),
}
LEVELS, ON_OFF = 16, 30.0  # of the cells that variation-aware training imagines
VALIDATION_DRAWS = 4  # programmings over which its validation accuracy is averaged


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the size changes."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if stride > 1 else None
        self.bn_shortcut = nn.BatchNorm2d(c_out) if stride > 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.shortcut is not None:
            x = self.bn_shortcut(self.shortcut(x))
        return F.relu(x + y)


class ResNet8(nn.Module):
    """77,072 weights in nine convolutions (two of them shortcuts) and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.block1, self.block2, self.block3 = Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.conv(x)))
        x = self.block3(self.block2(self.block1(x)))
        return self.fc(x.mean((2, 3)))


class LeNet5(nn.Module):
    """61,470 weights; batch norm after both convolutions and both hidden linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 5, padding=2, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 16, 5, bias=False), nn.BatchNorm2d(16)
        self.fc1, self.bn3 = nn.Linear(400, 120, bias=False), nn.BatchNorm1d(120)
        self.fc2, self.bn4 = nn.Linear(120, 84, bias=False), nn.BatchNorm1d(84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.bn3(self.fc1(x.flatten(1))))
        return self.fc3(F.relu(self.bn4(self.fc2(x))))


class DigitsCNN(nn.Module):
    """Two 3x3 convolutions and one linear layer for 8x8 digits: 1,864 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        return self.fc(x.flatten(1))


class Separable(nn.Module):
    """A depthwise 3x3 convolution and a pointwise one, each with batch norm and hard-swish."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(c_in, c_in, 3, stride, 1, groups=c_in, bias=False)
        self.norm1 = nn.BatchNorm2d(c_in)
        self.pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.hardswish(self.norm1(self.depthwise(x)))
        y = F.hardswish(self.norm2(self.pointwise(y)))
        return x + y if y.shape == x.shape else y


class DepthwiseNet(nn.Module):
    """MobileNet-like: four separable convolutions behind a strided one, 15,488 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(
            Separable(16, 32), Separable(32, 64, 2), Separable(64, 64), Separable(64, 96)
        )
        self.head = nn.Linear(96, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.hardswish(self.norm(self.stem(x)))
        return self.head(self.blocks(x).mean((2, 3)))


class Tokens(nn.Module):
    """49 tokens from two strided convolutions (early convolutions, T. Xiao et al. 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, width, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(F.relu(self.norm(self.conv1(x)))).flatten(2).transpose(1, 2)


class Perceptron(nn.Module):
    """Two linear layers with GELU between them, over the last axis."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Attention(nn.Module):
    """Multi-head self-attention over 49 tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.each = heads, width // heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part(x).reshape(-1, 49, self.heads, self.each).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        weights = torch.softmax(q @ k.transpose(2, 3) * self.each**-0.5, dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(-1, 49, self.heads * self.each))


class TransformerBlock(nn.Module):
    """Attention and a perceptron, both behind layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), Perceptron(width, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Three transformer blocks of width 48 on 49 tokens: 62,832 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = Tokens(48)
        self.place = nn.Parameter(0.02 * torch.randn(1, 49, 48))
        self.blocks = nn.Sequential(*(TransformerBlock(48, 4, 96) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(48), nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.tokens(x) + self.place)).mean(1))


class MixerBlock(nn.Module):
    """A perceptron over the tokens and one over the channels (I. Tolstikhin et al. 2021)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.over_tokens = nn.LayerNorm(width), Perceptron(49, 64)
        self.norm2, self.over_channels = nn.LayerNorm(width), Perceptron(width, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.over_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.over_channels(self.norm2(x))


class Mixer(nn.Module):
    """Three mixer blocks of width 48 on 49 tokens: 54,000 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = Tokens(48)
        self.blocks = nn.Sequential(*(MixerBlock(48, 96) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(48), nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.tokens(x))).mean(1))


class RowLSTM(nn.Module):
    """An LSTM of 96 units that reads an image row by row: 48,576 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(28, 96, batch_first=True), nn.Linear(96, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.lstm(x[:, 0])
        return self.head(y[:, -1])


MODELS: dict[str, type[nn.Module]] = {
    "cnn_digits": DigitsCNN,
    "lenet5_fashion": LeNet5,
    "resnet8_fashion": ResNet8,
    "lenet5_fashion_vat": LeNet5,
    "resnet8_fashion_vat": ResNet8,
    "depthwise_fashion": DepthwiseNet,
    "vit_fashion": VisionTransformer,
    "mixer_fashion": Mixer,
    "lstm_fashion": RowLSTM,
}


def programmed(model: nn.Module, sigma: float, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Weights as pairs of cells with lognormal errors would hold them; gradients pass straight.

    Each output column is scaled to its largest weight, levels are equally spaced between
    g_max / ON_OFF and g_max, and either cell of a pair errs by itself, as in a plain mapping.
    """
    held = {}
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            continue
        with torch.no_grad():
            scale = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True).clamp_min(1e-12)
            size = torch.round((weight / scale).abs() * (LEVELS - 1)) / (LEVELS - 1)
            lowest = 1.0 / ON_OFF
            pair = []
            for sign in (1.0, -1.0):
                target = lowest + (1.0 - lowest) * size * (weight * sign > 0)
                error = torch.randn(weight.shape, generator=generator)
                pair.append(target * torch.exp(sigma * error - sigma**2 / 2))
            change = scale * (pair[0] - pair[1]) / (1.0 - lowest) - weight
        held[name] = weight + change
    return held


def load_weights(model: nn.Module, network: Network) -> None:
    """Parameters of a shipped teacher into its torch module; nodes bear the modules' names."""
    names = {"scale": "weight", "mean": "running_mean", "variance": "running_var"}
    state = {}
    for node in network.nodes:
        for key, value in node.parameters.items():
            array = value.T if node.op == "Gemm" and key == "weight" else value
            state[f"{node.name}.{names.get(key, key)}"] = torch.tensor(np.ascontiguousarray(array))
    missing = model.load_state_dict(state, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in missing.missing_keys)


def augment(x: torch.Tensor, recipe: Recipe, blank: float, generator: torch.Generator) -> torch.Tensor:
    """Random crop and flip, drawn for each image."""
    n, _, h, w = x.shape
    pad = recipe.crop_pad
    x = F.pad(x, (pad, pad, pad, pad), value=blank)
    top, left = torch.randint(2 * pad + 1, (2, n, 1), generator=generator)
    rows, columns = top + torch.arange(h), left + torch.arange(w)
    if recipe.flip:
        flipped = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    x = x[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]
    return x


@torch.no_grad()
def logits_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    model.eval()
    return torch.cat([model(part) for part in images.split(500)])


def tensors(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(split.images), torch.tensor(split.labels)


def accuracy(model: nn.Module, split: Split) -> float:
    images, labels = tensors(split)
    return float((logits_of(model, images).argmax(1) == labels).double().mean())


def programmed_accuracy(model: nn.Module, split: Split, sigma: float) -> float:
    """Accuracy averaged over a few programmings; the plain one for sigma = 0."""
    if sigma == 0.0:
        return accuracy(model, split)
    images, labels = tensors(split)
    generator, right = torch.Generator().manual_seed(0), []
    model.eval()
    for _ in range(VALIDATION_DRAWS):
        with torch.no_grad():
            weights = programmed(model, sigma, generator)
            logits = torch.cat(
                [torch.func.functional_call(model, weights, (part,)) for part in images.split(500)]
            )
        right.append(float((logits.argmax(1) == labels).double().mean()))
    return float(np.mean(right))


def train(name: str, data: Dataset, work: Path, first: bool = False) -> tuple[nn.Module, dict[str, float]]:
    """The trained model and its accuracies; resumes from `work/name.pt` where that exists."""
    recipe, label = (FIRST[name], f"{name}_first") if first else (RECIPES[name], name)
    before = train(name, data, work, first=True)[0] if name in FIRST and not first else None
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    # convolutions run faster on two cores with channels last; the small pooling networks do not
    layout = torch.channels_last if MODELS[name] is ResNet8 else torch.contiguous_format
    model = MODELS[name]().to(memory_format=layout)
    if recipe.start:
        load_weights(model, load_teacher(recipe.start))
    if before is not None:
        model.load_state_dict(before.state_dict())
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True
    )
    images, labels = tensors(data["train"])
    n_steps = len(images) // BATCH
    # batch norm and biases are not decayed: decay would only shrink the logits
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer
    if recipe.adam:
        optimizer = torch.optim.AdamW(groups, lr=recipe.peak_rate)
    else:
        optimizer = torch.optim.SGD(groups, lr=recipe.peak_rate, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak_rate, total_steps=recipe.epochs * n_steps, pct_start=0.2, cycle_momentum=False
    )
    parts = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule}
    checkpoint = work / f"{label}.pt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        for key, part in parts.items():
            part.load_state_dict(state[key])
        generator.set_state(state["generator"])
        first = state["epoch"]
    blank = -data.mean / data.std
    for epoch in range(first, recipe.epochs):
        model.train()
        begin, total = time.perf_counter(), 0.0
        order = torch.randperm(len(images), generator=generator)[: n_steps * BATCH]
        for batch in order.split(BATCH):
            x = augment(images[batch], recipe, blank, generator).contiguous(memory_format=layout)
            weights = programmed(model, recipe.sigma, generator) if recipe.sigma > 0.0 else {}
            loss = F.cross_entropy(torch.func.functional_call(model, weights, (x,)), labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
            total += float(loss.detach())
        state = {key: part.state_dict() for key, part in parts.items()}
        state |= {"generator": generator.get_state(), "epoch": epoch + 1}
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
        print(
            f"{label} epoch {epoch + 1}/{recipe.epochs} loss {total / n_steps:.4f} validation "
            f"{programmed_accuracy(model, data['validation'], recipe.sigma):.4f} averaged "
            f"{programmed_accuracy(average.module, data['validation'], recipe.sigma):.4f} "
            f"{time.perf_counter() - begin:.0f} s",
            flush=True,
        )
    best = max(
        (model, average.module), key=lambda m: programmed_accuracy(m, data["validation"], recipe.sigma)
    )
    return best.eval(), {split: accuracy(best, data[split]) for split in ("validation", "test")}


class Exporter:
    """Builds the nodes of a `Network` from torch modules, in order of execution."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(self, name: str, op: str, *inputs: str, parameters: dict | None = None, **attributes: Any) -> str:
        arrays = {key: value.detach().numpy().copy() for key, value in (parameters or {}).items()}
        self.nodes.append(Node(name, op, inputs, attributes, arrays))
        return name

    def layer(self, name: str, module: nn.Module, x: str) -> str:
        if isinstance(module, nn.Conv2d):
            parameters = {"weight": module.weight.contiguous()}
            attributes = {
                "kernel_shape": list(module.kernel_size),
                "strides": list(module.stride),
                "pads": list(module.padding) * 2,
                "group": module.groups,
            }
            return self.add(name, "Conv", x, parameters=parameters, **attributes)
        if isinstance(module, nn.Linear):
            parameters = {"weight": module.weight.T.contiguous()}
            if module.bias is not None:
                parameters["bias"] = module.bias
            return self.add(name, "Gemm", x, parameters=parameters)
        assert isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))
        parameters = {
            "scale": module.weight,
            "bias": module.bias,
            "mean": module.running_mean,
            "variance": module.running_var,
        }
        return self.add(name, "BatchNormalization", x, parameters=parameters, epsilon=module.eps)

    def pool(self, name: str, x: str) -> str:
        return self.add(name, "MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])


def export_resnet8(model: ResNet8) -> list[Node]:
    e = Exporter()
    x = e.add("relu", "Relu", e.layer("bn", model.bn, e.layer("conv", model.conv, "input")))
    for name in ("block1", "block2", "block3"):
        block = getattr(model, name)
        y = e.layer(f"{name}.bn1", block.bn1, e.layer(f"{name}.conv1", block.conv1, x))
        y = e.add(f"{name}.relu1", "Relu", y)
        y = e.layer(f"{name}.bn2", block.bn2, e.layer(f"{name}.conv2", block.conv2, y))
        if block.shortcut is not None:
            x = e.layer(f"{name}.shortcut", block.shortcut, x)
            x = e.layer(f"{name}.bn_shortcut", block.bn_shortcut, x)
        x = e.add(f"{name}.relu", "Relu", e.add(f"{name}.add", "Add", x, y))
    x = e.add("flatten", "Flatten", e.add("pool", "GlobalAveragePool", x))
    e.layer("fc", model.fc, x)
    return e.nodes


def export_small(model: LeNet5 | DigitsCNN) -> list[Node]:
    """The two convolutions of LeNet-5 and the digits network and the linear layers behind them."""
    e = Exporter()
    x = "input"
    for i in (1, 2):
        x = e.layer(f"conv{i}", getattr(model, f"conv{i}"), x)
        x = e.add(f"relu{i}", "Relu", e.layer(f"bn{i}", getattr(model, f"bn{i}"), x))
        x = e.pool(f"pool{i}", x)
    x = e.add("flatten", "Flatten", x)
    if isinstance(model, DigitsCNN):
        e.layer("fc", model.fc, x)
        return e.nodes
    for i in (1, 2):
        x = e.layer(
            f"bn{i + 2}", getattr(model, f"bn{i + 2}"), e.layer(f"fc{i}", getattr(model, f"fc{i}"), x)
        )
        x = e.add(f"relu{i + 2}", "Relu", x)
    e.layer("fc3", model.fc3, x)
    return e.nodes


def export(name: str, model: nn.Module, data: Dataset, accuracies: dict[str, float]) -> Network:
    """The model as a `Network`, checked against torch on the test images.

    The gap between the logits must stay below 1e-5 of the largest logit, plain float32 rounding.
    """
    model = model.to(memory_format=torch.contiguous_format).eval()
    if isinstance(model, ResNet8):
        nodes = export_resnet8(model)
    elif isinstance(model, LeNet5 | DigitsCNN):
        nodes = export_small(model)
    else:  # as a user would: through torch's own exporter
        made = Network.from_torch(model, torch.from_numpy(np.array(data["test"].images[:2])))
        nodes = list(made.nodes)
    metadata = {
        "dataset": RECIPES[name].dataset.removesuffix("_full"),
        "mean": data.mean,
        "std": data.std,
        "pixel_max": data["test"].pixel_max,
        "validation_accuracy": accuracies["validation"],
        "test_accuracy": accuracies["test"],
        "script": "data/train_teachers.py",
        "recipe": " then ".join(str(table[name]) for table in (FIRST, RECIPES) if name in table),
        "versions": f"torch {torch.__version__.split('+')[0]}, numpy {np.__version__}",
        "licence": "MIT",
    }
    network = Network(
        nodes, input_shape=data.image_shape, output=nodes[-1].name, name=name, metadata=metadata
    )
    images = data["test"].images
    expected = logits_of(model, torch.from_numpy(np.array(images))).numpy()
    got = network.run(images)
    error = np.abs(got - expected).max() / np.abs(expected).max()
    right = float((got.argmax(1) == data["test"].labels).mean())
    print(f"{name}: exported network differs by {error:.1e} of the largest logit, test accuracy {right:.4f}")
    if error > 1e-5:
        raise RuntimeError(f"the exported {name} does not reproduce torch's logits")
    return network


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(RECIPES)}; all without one")
    parser.add_argument("--data", help="directory of the full Fashion-MNIST")
    parser.add_argument("--work", type=Path, default=Path("results/teachers"), help="where checkpoints go")
    parser.add_argument("--out", type=Path, default=HERE / "teachers")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.data:
        os.environ["RRAMSIM_DATA"] = arguments.data
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or RECIPES:
        data = load_dataset(RECIPES[name].dataset)
        model, accuracies = train(name, data, arguments.work)
        export(name, model, data, accuracies).save(arguments.out / f"{name}.h5")
        print(f"{name}: validation {accuracies['validation']:.4f}, test {accuracies['test']:.4f}", flush=True)


if __name__ == "__main__":
    main()
