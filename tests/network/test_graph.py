"""Layer graphs: execution against loops written from the definition, storage, and refusals."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from rramsim.checks import InputError
from rramsim.network import Network, Node, windows

RTOL = 2e-6  # float32 sums of a few hundred terms


def naive_convolution(x, weight, bias, stride, dilation, pad, groups):
    """Six loops."""
    n, _, h, w = x.shape
    c_out, own, kh, kw = weight.shape
    x = np.pad(x.astype(float), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    out_h = (h + 2 * pad - (kh - 1) * dilation - 1) // stride + 1
    out_w = (w + 2 * pad - (kw - 1) * dilation - 1) // stride + 1
    out = np.zeros((n, c_out, out_h, out_w))
    for o in range(c_out):
        first = o // (c_out // groups) * own
        for y in range(out_h):
            for z in range(out_w):
                rows = slice(y * stride, y * stride + (kh - 1) * dilation + 1, dilation)
                cols = slice(z * stride, z * stride + (kw - 1) * dilation + 1, dilation)
                window = x[:, first : first + own, rows, cols]
                out[:, o, y, z] = (window * weight[o]).sum(axis=(1, 2, 3)) + bias[o]
    return out


def conv_node(weight, bias, stride=1, dilation=1, pad=0, groups=1):
    attributes = {
        "strides": [stride] * 2,
        "dilations": [dilation] * 2,
        "pads": [pad] * 4,
        "group": groups,
    }
    return Node("conv", "Conv", ("input",), attributes, {"weight": weight, "bias": bias})


@settings(deadline=None, max_examples=40)
@given(
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    pad=st.integers(0, 2),
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.sampled_from([(1, 1), (3, 3), (2, 3), (5, 5)]),
    c_out=st.sampled_from([4, 12, 20]),
    seed=st.integers(0, 1000),
)
def test_convolution_and_its_lowering(stride, dilation, pad, groups, kernel, c_out, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 4, 11, 12)).astype(np.float32)
    weight = rng.normal(size=(c_out, 4 // groups, *kernel)).astype(np.float32)
    bias = rng.normal(size=c_out).astype(np.float32)
    node = conv_node(weight, bias, stride, dilation, pad, groups)
    want = naive_convolution(x, weight, bias, stride, dilation, pad, groups)
    got = Network([node], x.shape[1:], "conv").run(x)
    assert np.abs(got - want).max() <= RTOL * np.abs(want).max()
    columns = [windows.lower(node, x, g) @ m for g, m in enumerate(windows.matrices(node))]
    lowered = windows.from_columns(node, x.shape, columns) + bias[:, None, None]
    assert np.abs(lowered - want).max() <= RTOL * np.abs(want).max()


def test_one_dimensional_convolution_is_the_two_dimensional_one_of_height_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 20)).astype(np.float32)
    weight = rng.normal(size=(6, 4, 3)).astype(np.float32)
    node = Node("conv", "Conv", ("input",), {"pads": [1, 1]}, {"weight": weight})
    got = Network([node], (4, 20), "conv").run(x)
    x_2d = np.pad(x, ((0, 0), (0, 0), (1, 1)))[:, :, None]
    want = naive_convolution(x_2d, weight[:, :, None], np.zeros(6), 1, 1, 0, 1)[:, :, 0]
    assert got.shape == (3, 6, 20)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_lowering_keeps_narrow_integers():
    weight = np.zeros((2, 1, 3, 3), dtype=np.float32)
    node = conv_node(weight, np.zeros(2, dtype=np.float32), pad=1)
    codes = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    vectors = windows.lower(node, codes)
    assert vectors.dtype == np.uint8
    np.testing.assert_array_equal(vectors[5], [0, 1, 2, 4, 5, 6, 8, 9, 10])
    np.testing.assert_array_equal(vectors[0], [0, 0, 0, 0, 0, 1, 0, 4, 5])


def small_network():
    rng = np.random.default_rng(3)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    nodes = [
        Node("conv", "Conv", ("input",), {"pads": [1] * 4}, {"weight": normal(4, 2, 3, 3)}),
        Node(
            "norm",
            "BatchNormalization",
            ("conv",),
            {"epsilon": 1e-3},
            {"scale": normal(4), "bias": normal(4), "mean": normal(4), "variance": normal(4) ** 2},
        ),
        Node("relu", "Relu", ("norm",)),
        Node("again", "Conv", ("relu",), {"pads": [1] * 4}, {"weight": normal(4, 4, 3, 3)}),
        Node("sum", "Add", ("again", "relu")),
        Node("pool", "GlobalAveragePool", ("sum",)),
        Node("flat", "Flatten", ("pool",)),
        Node("fc", "Gemm", ("flat",), {}, {"weight": normal(4, 3), "bias": normal(3)}),
    ]
    return Network(nodes, (2, 6, 6), "fc", "small", {"mean": 0.5})


@pytest.fixture
def x():
    return np.random.default_rng(4).normal(size=(5, 2, 6, 6)).astype(np.float32)


def test_evaluate_starts_from_known_tensors_and_keeps_what_is_asked(x):
    network = small_network()
    values = {"input": x}
    network.evaluate(values, "relu", keep=["conv"])
    assert set(values) == {"input", "conv", "relu"}
    relu = values["relu"].copy()
    del values["input"]
    got = network.evaluate(values, "fc")
    np.testing.assert_array_equal(got, network.run(x))
    np.testing.assert_array_equal(values["relu"], relu)  # reuse of memory must not touch kept tensors
    with pytest.raises(InputError, match="must hold 'input'"):
        network.evaluate({}, "fc")


def test_a_callable_takes_the_place_of_mapped_nodes(x):
    network, seen = small_network(), []

    def double(node, inputs):
        seen.append(node.name)
        values = {node.inputs[0]: inputs}
        return 2 * network.evaluate(values, node.name)

    network.evaluate({"input": x}, "fc", mapped=double)
    assert seen == ["conv", "again", "fc"] == list(network.mapped)


def test_folded_batch_norm_computes_the_same(x):
    network = small_network()
    folded = network.fold_batch_norm()
    assert "BatchNormalization" not in {node.op for node in folded.nodes}
    np.testing.assert_allclose(folded.run(x), network.run(x), rtol=1e-4, atol=1e-5)


def test_replace_changes_one_node_and_not_the_original(x):
    network = small_network()
    before = network.run(x)
    fc = network.node("fc").parameters
    other = network.replace("fc", {"weight": 2 * fc["weight"], "bias": 2 * fc["bias"]})
    np.testing.assert_allclose(other.run(x), 2 * before, rtol=1e-5)
    np.testing.assert_array_equal(network.run(x), before)
    with pytest.raises(InputError, match="shape"):
        network.replace("fc", {"weight": np.zeros((3, 3)), "bias": fc["bias"]})


def test_work_in_place_touches_neither_inputs_nor_views(x):
    weight = -np.ones((2, 2, 1, 1), dtype=np.float32)
    nodes = [
        Node("conv", "Conv", ("input",), {}, {"weight": weight}),
        Node("flat", "Flatten", ("conv",)),
        Node("relu", "Relu", ("conv",)),  # after a view of its input was taken
        Node("flat_relu", "Flatten", ("relu",)),
        Node("out", "Sub", ("flat", "flat_relu")),
    ]
    conv = -x.sum(axis=1, keepdims=True).repeat(2, axis=1).reshape(len(x), -1)
    np.testing.assert_allclose(Network(nodes, x.shape[1:], "out").run(x), np.minimum(conv, 0), atol=1e-5)
    for op in ("Clip", "Sum", "Max", "Identity"):  # pass their input through
        before = x.copy()
        Network([Node("a", op, ("input",)), Node("b", "Relu", ("a",))], x.shape[1:], "b").run(x)
        np.testing.assert_array_equal(x, before)


def test_saved_network_is_the_same(tmp_path, x):
    network = small_network()
    network.save(tmp_path / "net.h5")
    other = Network.load(tmp_path / "net.h5")
    np.testing.assert_array_equal(other.run(x), network.run(x))
    assert other.metadata == {"mean": 0.5}
    assert [node.name for node in other.nodes] == [node.name for node in network.nodes]


def test_unusable_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Network.load(tmp_path / "absent.h5")
    small_network().save(tmp_path / "net.h5")
    content = (tmp_path / "net.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="the checksum is wrong, the file is damaged"):
        Network.load(tmp_path / "cut.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match="holds no network"):
        Network.load(tmp_path / "other.h5")
    with h5py.File(tmp_path / "net.h5", "a") as file:
        file.attrs["format_version"] = 1
    with pytest.raises(InputError, match="the checksum is wrong"):
        Network.load(tmp_path / "net.h5")
    with h5py.File(tmp_path / "new.h5", "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "rramsim network", 99
    with pytest.raises(InputError, match="newer"):
        Network.load(tmp_path / "new.h5")


WEIGHT = np.ones((4, 3), dtype=np.float32)


@pytest.mark.parametrize(
    "nodes, message",
    [
        ([Node("a", "Convv", ("input",))], "did you mean 'Conv'"),
        ([Node("a", "Gemm", ("input",), {}, {"weight": WEIGHT * np.nan})], "'a'.*finite"),
        ([Node("a", "Gemm", ("input",), {}, {"weight": WEIGHT.T})], "'a'.*shape"),
        ([Node("a", "Gemm", ("input",))], "needs the parameters"),
        ([Node("a", "Relu", ("b",))], "no earlier node"),
        ([Node("a", "Relu", ("input",)), Node("a", "Relu", ("input",))], "unique"),
        ([Node("b", "Relu", ("input",))], "output must name a node"),
    ],
)
def test_graphs_that_cannot_run_are_refused(nodes, message):
    with pytest.raises(InputError, match=message):
        Network(nodes, (4,), "a")


def test_inputs_of_another_shape_are_refused(x):
    with pytest.raises(InputError, match="inputs must have shape"):
        small_network().run(x[:, :1])


def test_digital_nodes_stay_at_the_host():
    """A chip gets the other layers alone, and an erring chip no longer harms the digital ones."""
    from rramsim import (
        CellsConfig,
        ChipConfig,
        Deployment,
        SimulatedChip,
        layer_shapes,
        load_dataset,
        load_teacher,
    )

    whole, images = load_teacher("cnn_digits"), load_dataset("digits")["test"].images[:50]
    network = whole.with_digital(["conv1"])
    assert network.mapped == tuple(name for name in whole.mapped if name != "conv1")
    assert "conv1" not in layer_shapes(network)
    np.testing.assert_array_equal(network.run(images), whole.run(images))
    chip = SimulatedChip(ChipConfig(cells=CellsConfig(sigma=0.5)), layer_shapes(network), seed=1)
    deployment = Deployment(network, chip)
    deployment.map(images)
    values = {"input": images}
    deployment.evaluate(values, network.output, keep=["conv1"])
    np.testing.assert_array_equal(values["conv1"], whole.evaluate({"input": images}, "conv1"))
    with pytest.raises(InputError, match="'conv3' is no mapped node; did you mean"):
        whole.with_digital(["conv3"])
    with pytest.raises(InputError, match="at least one mapped node must stay"):
        whole.with_digital(whole.mapped)
