"""Recurrent layers, transposed convolutions, Resize, QDQ models, sharing and order, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from rramsim.checks import InputError
from rramsim.network import NamedInputs, Network
from tests.network.witness import TensorProto, build, check, helper, one, onnx, onnxruntime

RNG = np.random.default_rng(3)


def f32(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def recurrent(kind, output, direction="forward", bias=True, states=False, **attributes):
    """Model nodes and constants: batch first around an ONNX recurrent layer of 5 inputs and 6 units."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    n = 2 if direction == "bidirectional" else 1
    constants = {"w": f32(n, gates * 6, 5) / 2, "r": f32(n, gates * 6, 6) / 2}
    inputs = ["steps", "w", "r", "", "", "", ""]
    if bias:
        constants["b"], inputs[3] = f32(n, 2 * gates * 6) / 2, "b"
    nodes = [helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2])]
    if states:  # computed from the input, so that they differ between examples
        nodes += [
            helper.make_node("ReduceMean", ["steps"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("MatMul", ["mean", "m"], ["h"]),
            helper.make_node("Concat", ["h"] * n, ["h0"], axis=0),
            helper.make_node("Tanh", ["h0"], ["c0"]),
        ]
        constants["m"] = f32(5, 6)
        inputs[5:7] = ["h0", "c0"] if kind == "LSTM" else ["h0", ""]
    while not inputs[-1]:
        inputs.pop()
    outs = ["y", "yh", "yc"][: 3 if kind == "LSTM" else 2]
    nodes.append(helper.make_node(kind, inputs, outs, hidden_size=6, direction=direction, **attributes))
    perm = [2, 0, 1, 3] if output == "y" else [1, 0, 2]
    nodes.append(helper.make_node("Transpose", [output], ["out"], perm=perm))
    return nodes, constants


RECURRENT = {
    "lstm": ("LSTM", "y", {}),
    "lstm_last": ("LSTM", "yh", {}),
    "lstm_cell": ("LSTM", "yc", {"direction": "reverse"}),
    "lstm_both_ways": ("LSTM", "y", {"direction": "bidirectional", "states": True}),
    "lstm_no_bias": ("LSTM", "y", {"bias": False, "states": True}),
    "lstm_activations": ("LSTM", "y", {"activations": ["HardSigmoid", "Softsign", "Relu"]}),
    "gru": ("GRU", "y", {"direction": "bidirectional"}),
    "gru_linear": ("GRU", "y", {"direction": "bidirectional", "linear_before_reset": 1}),
    "gru_states": ("GRU", "yh", {"states": True}),
    "gru_linear_states": ("GRU", "yh", {"states": True, "linear_before_reset": 1}),
    "rnn": ("RNN", "y", {"direction": "bidirectional"}),
    "rnn_relu": ("RNN", "yh", {"direction": "reverse", "activations": ["Relu"], "states": True}),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(name, tmp_path):
    kind, output, options = RECURRENT[name]
    nodes, constants = recurrent(kind, output, **options)
    network = check(tmp_path, build(nodes, (7, 5), constants), f32(4, 7, 5))
    # one array for all steps: the input matrix and the recurrent one of each direction
    owners = [n for n in network.mapped if "shares" not in network.node(n).attributes]
    n_weights = sum(constants[key].size for key in ("w", "r")) + (30 if "m" in constants else 0)
    assert network.n_weights == n_weights
    assert len(owners) < len(network.mapped)
    network.save(tmp_path / "network.h5")
    x = f32(3, 7, 5)
    np.testing.assert_array_equal(Network.load(tmp_path / "network.h5").run(x), network.run(x))


def test_peepholes_and_clips_are_refused_by_name(tmp_path):
    nodes, constants = recurrent("LSTM", "y", clip=3.0)
    onnx.save(build(nodes, (7, 5), constants), tmp_path / "m.onnx")
    with pytest.raises(InputError, match=r"\(LSTM\): a clip is not supported"):
        Network.load(tmp_path / "m.onnx")
    nodes, constants = recurrent("LSTM", "y", states=True)
    nodes[-2].input.append("p")
    onnx.save(build(nodes, (7, 5), {**constants, "p": f32(1, 18)}), tmp_path / "m.onnx")
    with pytest.raises(InputError, match="peephole"):
        Network.load(tmp_path / "m.onnx")


NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
MODELS = {
    "transposed": (
        one("ConvTranspose", ["w", "b"], strides=[2, 2], pads=[1, 0, 1, 1], output_padding=[1, 0]),
        (4, 5, 6),
        {"w": f32(4, 3, 3, 2), "b": f32(3)},
    ),
    "transposed_grouped": (
        one("ConvTranspose", ["w"], strides=[3, 1], dilations=[1, 2], group=2),
        (4, 5, 6),
        {"w": f32(4, 3, 2, 3)},
    ),
    "transposed_1d": (one("ConvTranspose", ["w"], strides=[2]), (4, 9), {"w": f32(4, 5, 4)}),
    "transposed_same": (
        one("ConvTranspose", ["w"], strides=[2, 2], auto_pad="SAME_LOWER"),
        (2, 5, 6),
        {"w": f32(2, 3, 3, 3)},
    ),
    "resize_nearest": (
        one("Resize", ["", "s"], **NEAREST),
        (2, 5, 6),
        {"s": np.array([1, 1, 2, 3], np.float32)},
    ),
    "resize_linear": (
        one("Resize", ["", "s"], mode="linear"),
        (2, 5, 6),
        {"s": np.array([1, 1, 2, 1.5], np.float32)},
    ),
    "resize_down": (
        one("Resize", ["", "s"], mode="linear"),
        (2, 8, 6),
        {"s": np.array([1, 1, 0.5, 0.5], np.float32)},
    ),
    "resize_corners": (
        one("Resize", ["", "", "z"], mode="linear", coordinate_transformation_mode="align_corners"),
        (2, 5, 6),
        {"z": np.array([3, 2, 9, 4])},
    ),
    "resize_round": (one("Resize", ["", "", "z"], mode="nearest"), (2, 5, 6), {"z": np.array([3, 2, 7, 9])}),
    "left": ([*one("Identity"), helper.make_node("MatMul", ["w", "y"], ["z"])], (7, 5), {"w": f32(4, 7)}),
    "einsum_right": (one("Einsum", ["w"], equation="bik,kn->bin"), (7, 5), {"w": f32(5, 4)}),
    "einsum_right_transposed": (one("Einsum", ["w"], equation="bik,nk->bin"), (7, 5), {"w": f32(4, 5)}),
    "einsum_left": (one("Einsum", ["w"], equation="bkj,mk->bmj"), (7, 5), {"w": f32(4, 7)}),
}


@pytest.mark.parametrize("name", MODELS)
def test_operators(name, tmp_path):
    nodes, shape, constants = MODELS[name]
    batch = 3 if name in ("resize_corners", "resize_round") else "batch"
    network = check(tmp_path, build(nodes, shape, constants, opset=19, batch=batch), f32(3, *shape))
    if not name.startswith("resize"):  # all of them are on the chip
        assert network.n_weights == constants["w"].size


def test_quantised_models_keep_their_scales(tmp_path):
    """A QDQ model: int8 weights per channel, uint8 activations; the quantised weights are mapped."""
    w = RNG.integers(-127, 128, (6, 4, 3, 3)).astype(np.int8)
    constants = {
        "w": w, "ws": RNG.uniform(0.01, 0.02, 6).astype(np.float32), "wz": np.zeros(6, np.int8),
        "xs": np.float32(0.03), "xz": np.uint8(120), "ys": np.float32(0.2), "yz": np.int8(-3),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "ys", "yz"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "ys", "yz"], ["y"]),
    ]
    model = build(nodes, (4, 8, 8), constants)
    onnx.save(model, tmp_path / "model.onnx")
    network = Network.load(tmp_path / "model.onnx")
    x = f32(3, 4, 8, 8)
    want = onnxruntime.InferenceSession(str(tmp_path / "model.onnx")).run(None, {"x": x})[0]
    step = 0.2
    got = network.run(x)
    off = np.abs(got - want) > 1e-4  # ties may round to the next step
    assert off.mean() < 0.01
    assert np.abs(got - want).max() <= step * 1.001
    weight = network.node(network.mapped[0]).parameters["weight"]
    np.testing.assert_allclose(weight, w * constants["ws"][:, None, None, None], rtol=1e-6)


def test_a_linear_layer_used_twice_is_one_array(tmp_path):
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Gemm", ["r", "w", "b"], ["c"], transB=1),
        helper.make_node("MatMul", ["c", "v"], ["y"]),
    ]
    constants = {"w": f32(6, 6), "b": f32(6), "v": f32(6, 3)}
    network = check(tmp_path, build(nodes, (6,), constants), f32(4, 6))
    assert network.uses("a") == ("a", "c")
    assert network.n_weights == 36 + 18


def test_nodes_in_any_order_and_circles(tmp_path):
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "v"], ["y"]),
    ]
    constants = {"w": f32(6, 5), "v": f32(5, 3)}
    model = build(nodes, (6,), constants)
    onnx.save(model, tmp_path / "right.onnx")
    right = Network.load(tmp_path / "right.onnx")
    shuffled = [model.graph.node[i] for i in (2, 0, 1)]
    del model.graph.node[:]
    model.graph.node.extend(shuffled)
    onnx.save(model, tmp_path / "shuffled.onnx")
    x = f32(4, 6)
    np.testing.assert_array_equal(Network.load(tmp_path / "shuffled.onnx").run(x), right.run(x))
    model.graph.node[1].input[0] = "b"
    onnx.save(model, tmp_path / "circle.onnx")
    with pytest.raises(InputError, match="wait for each other in a circle"):
        Network.load(tmp_path / "circle.onnx")


def test_several_inputs_tokens_and_a_mask(tmp_path):
    """Embedding, masked mean, a matrix: integer tokens and a float mask, by name."""
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["e"], axis=0),
        helper.make_node("MatMul", ["e", "w"], ["h"]),
        helper.make_node("Unsqueeze", ["mask", "last"], ["m"]),
        helper.make_node("Mul", ["h", "m"], ["hm"]),
        helper.make_node("ReduceSum", ["hm", "first"], ["s"], keepdims=0),
        helper.make_node("MatMul", ["s", "v"], ["y"]),
    ]
    constants = {
        "table": f32(11, 6),
        "w": f32(6, 6),
        "v": f32(6, 3),
        "last": np.array([2]),
        "first": np.array([1]),
    }
    graph = helper.make_graph(
        nodes,
        "two",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", "steps"]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", "steps"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(InputError, match=r"'tokens' is open.*mapping of input names"):
        Network.load(path)
    network = Network.load(path, input_shape={"tokens": (5,), "mask": (5,)})
    feeds = {"tokens": RNG.integers(0, 11, (8, 5)), "mask": (RNG.random((8, 5)) < 0.7).astype(np.float32)}
    want = onnxruntime.InferenceSession(str(path)).run(None, feeds)[0]
    np.testing.assert_allclose(network.run(feeds), want, rtol=1e-5, atol=1e-5)
    network.save(tmp_path / "two.h5")
    loaded = Network.load(tmp_path / "two.h5")
    np.testing.assert_array_equal(loaded.run(NamedInputs(feeds)), network.run(feeds))
    with pytest.raises(InputError, match=r"named arrays \['tokens', 'mask'\], got one array"):
        network.run(feeds["tokens"])
    with pytest.raises(InputError, match="whole numbers"):
        network.run({**feeds, "tokens": feeds["mask"] + 0.5})
    with pytest.raises(InputError, match="same number of examples"):
        network.run({**feeds, "mask": feeds["mask"][:3]})
