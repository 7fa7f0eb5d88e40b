"""Torch modules of current kinds: imported by way of ONNX, and mapped onto a chip."""

import numpy as np
import pytest

from rramsim.blackbox.mapping import column_scale
from rramsim.checks import InputError
from rramsim.chip.simulated import SimulatedChip
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from rramsim.network import Network, windows
from tests.chip.conftest import exact_chip
from tests.network.witness import RTOL

torch = pytest.importorskip("torch", reason="the extra 'train' is not installed")
nn, functional = torch.nn, torch.nn.functional
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on import

RTOL_CHIP = 1e-5  # as for single layers: 24-bit converters, weights on the level grid, float32 sums


class Separable(nn.Module):
    """Inverted bottleneck with squeeze-and-excitation, as in MobileNet and EfficientNet."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.widen = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.ReLU6())
        self.gate = nn.Sequential(nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1), nn.Hardsigmoid())
        self.narrow = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        first = self.stem(x)
        x = self.depthwise(self.widen(first))
        x = first + self.narrow(x * self.gate(functional.adaptive_avg_pool2d(x, 1)))
        return self.head(functional.dropout(x.mean([2, 3]), training=self.training))


class Shuffled(nn.Module):
    """Channel split and shuffle, dense connection, ceil-mode pooling: ShuffleNet, DenseNet, SqueezeNet."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.branch = nn.Sequential(nn.BatchNorm2d(4), nn.PReLU(4), nn.Conv2d(4, 4, 3, padding="same"))
        self.grouped = nn.Conv2d(12, 8, 1, groups=4)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x):
        a, b = functional.max_pool2d(self.stem(x), 3, 2, ceil_mode=True).chunk(2, dim=1)
        x = torch.cat([a, b, self.branch(b)], 1)
        n, c, h, w = x.shape
        x = x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = functional.avg_pool2d(functional.elu(self.grouped(x)), 3, 2, 1, ceil_mode=True)
        return functional.adaptive_avg_pool2d(self.head(x), 1).flatten(1)


class Attention(nn.Module):
    """Patches, class token, position, multi-head attention and an MLP, as in vision transformers."""

    def __init__(self, width=12):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 5, width))
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 3, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 20), nn.GELU(), nn.Linear(20, width))
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head((x + self.mlp(x))[:, 0])


class Signal(nn.Module):
    """One-dimensional convolutions, dilated and grouped."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(3, 8, 5, 2, 2),
            nn.BatchNorm1d(8),
            nn.LeakyReLU(0.1),
            nn.MaxPool1d(2),
            nn.Conv1d(8, 8, 3, dilation=2, groups=2),
            nn.GroupNorm(2, 8),
            nn.Tanh(),
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return functional.log_softmax(self.head(self.body(x).amax(-1)), dim=-1)


class Text(nn.Module):
    """Embedding, position, mask, one-dimensional convolutions and pooling over time."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 6, padding_idx=0)
        self.places = nn.Embedding(9, 6)
        self.convolutions = nn.ModuleList(nn.Conv1d(6, 4, k) for k in (2, 3))
        self.head = nn.Linear(14, 5)

    def forward(self, words):
        x = self.words(words) + self.places(torch.arange(words.shape[1]))
        known = (words != 0).float().unsqueeze(-1)
        mean = (x * known).sum(1) / known.sum(1).clamp(min=1)
        x = x.permute(0, 2, 1)
        return self.head(torch.cat([torch.relu(c(x)).amax(2) for c in self.convolutions] + [mean], 1))


CASES = {
    "separable": (Separable, (3, 12, 12)),
    "shuffled": (Shuffled, (3, 11, 11)),
    "attention": (Attention, (3, 8, 8)),
    "signal": (Signal, (3, 40)),
    "text": (Text, (9,)),
}


def made(case):
    """Module in evaluation mode with lively batch norms, inputs, and torch's outputs."""
    torch.manual_seed(1)
    kind, shape = CASES[case]
    module = kind().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    x = torch.randint(0, 20, (5, *shape)) if case == "text" else torch.randn(5, *shape)
    with torch.no_grad():
        return module, x, module(x).numpy()


def largest_error(got, want):
    assert got.shape == want.shape
    return np.abs(got - want).max() / np.abs(want).max()


@pytest.mark.parametrize("n_example", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_module(case, n_example):
    module, x, want = made(case)
    network = Network.from_torch(module, x[:n_example])
    assert largest_error(network.run(x.numpy()), want) <= RTOL
    folded = Network.from_torch(module, x[:n_example], fold_batch_norm=True)
    assert largest_error(folded.run(x.numpy()), want) <= RTOL


@pytest.mark.filterwarnings("ignore")  # the exporter's own
@pytest.mark.parametrize("case", CASES)
def test_file_of_the_other_exporter(case, tmp_path):
    pytest.importorskip("onnxscript", reason="torch's second exporter needs it")
    module, x, want = made(case)
    path = tmp_path / "module.onnx"
    shapes = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(module, (x[:2],), str(path), dynamo=True, dynamic_shapes=shapes, verbose=False)
    assert largest_error(Network.from_onnx(path).run(x.numpy()), want) <= RTOL


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_module_with_a_fixed_batch_of_one(case, tmp_path):
    module, x, want = made(case)
    path = tmp_path / "module.onnx"
    torch.onnx.export(module, (x[:1],), str(path), dynamo=False)
    network = Network.from_onnx(path)
    assert ("batch" in network.metadata) == (case == "attention")  # its heads lie beside the batch
    assert largest_error(network.run(x.numpy()), want) <= RTOL


def on_grid(network, n_levels):
    """The network with weights that a chip of `n_levels` holds exactly."""
    for name in network.mapped:
        node = network.node(name)
        matrices = [
            np.rint(m / column_scale(m) * (n_levels - 1)) * (column_scale(m) / (n_levels - 1))
            for m in windows.matrices(node)
        ]
        weight = node.parameters["weight"]
        rounded = (
            np.concatenate([m.T.reshape(-1, *weight.shape[1:]) for m in matrices])
            if node.op == "Conv"
            else matrices[0]
        )
        network = network.replace(name, {**node.parameters, "weight": rounded.astype(np.float32)})
    return network


@pytest.mark.parametrize("case", CASES)
def test_a_chip_without_errors_computes_what_the_module_does(case, tmp_path):
    module, x, _ = made(case)
    config = exact_chip()
    network = on_grid(Network.from_torch(module, x), config.cells.n_levels)
    network.save(tmp_path / "net.h5")  # names of torch's nodes survive the file
    network = Network.load(tmp_path / "net.h5")
    deployment = Deployment(network, SimulatedChip(config, layer_shapes(network)))
    images = x.numpy().astype(np.float32)
    deployment.map(images)
    assert largest_error(deployment.run(images), network.run(images)) <= RTOL_CHIP


def test_modes_are_left_as_they_were():
    module = CASES["separable"][0]()
    module.stem.eval()
    Network.from_torch(module, torch.zeros(2, 3, 12, 12))
    assert module.training
    assert not module.stem[1].training


class Thresholded(nn.Module):
    """What torch's first exporter cannot write."""

    def forward(self, x):
        return functional.threshold(x, 0.1, 0.2)


class Eigenvalues(nn.Module):
    """What neither of them can write."""

    def forward(self, x):
        return torch.linalg.eigvals(x).abs()


def test_the_second_exporter_steps_in():
    pytest.importorskip("onnxscript", reason="torch's second exporter needs it")
    x = torch.randn(4, 6)
    network = Network.from_torch(Thresholded(), x)
    np.testing.assert_allclose(network.run(x.numpy()), Thresholded()(x).numpy())
    with pytest.raises(InputError, match="Eigenvalues: torch cannot write it as ONNX"):
        Network.from_torch(Eigenvalues(), torch.randn(2, 3, 3))


class Windows(nn.Module):
    """Windows as rows: indices computed from numbers without axes; two outputs."""

    def forward(self, x):
        rows = functional.unfold(x, 3, stride=2)
        return rows.mean(2), rows


def test_first_of_several_outputs_and_unsupported_operators_of_a_module():
    x = torch.randn(2, 3, 9, 9)
    network = Network.from_torch(Windows(), x)
    assert largest_error(network.run(x.numpy()), Windows()(x)[0].numpy()) <= RTOL
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ConvTranspose2d(2, 2, 2))
    with pytest.raises(InputError, match=r"^Sequential: unsupported operators: ConvTranspose \("):
        Network.from_torch(module, x)


def test_a_state_dict_is_refused_with_what_is_missing():
    with pytest.raises(InputError, match="weights but no graph"):
        Network.from_torch(nn.Linear(3, 2).state_dict(), torch.zeros(2, 3))
    with pytest.raises(InputError, match=r"torch\.nn\.Module, got int"):
        Network.from_torch(3, torch.zeros(2, 3))


def test_both_exporters_tell_why_they_fail():
    class Odd(nn.Module):
        def forward(self, x):
            return x.cpu().sort().values if float(x.sum()) > 1e9 else torch.special.bessel_j0(x)

    with pytest.raises(InputError, match=r"tracing exporter: .*; dynamo exporter: "):
        Network.from_torch(Odd(), torch.zeros(2, 3))
