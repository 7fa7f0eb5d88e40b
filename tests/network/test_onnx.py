"""Imported ONNX models against onnxruntime, operator by operator and on models of other people."""

import sys

import numpy as np
import pytest

from benchmarks.onnx_models import MODELS, compare, find
from rramsim.checks import InputError
from rramsim.network import Network

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
helper, TensorProto = onnx.helper, onnx.TensorProto

RTOL = 1e-4  # of the largest output
RNG = np.random.default_rng(7)


def build(nodes, shape, constants=None, opset=17, kind=TensorProto.FLOAT):
    """A model file from ONNX nodes; the last node's output is the model's."""
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, ["batch", *shape])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def check(tmp_path, model, x, **options):
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    want = session.run(None, {"x": x})[0]
    network = Network.from_onnx(path, **options)
    got = network.run(x)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= RTOL * np.abs(want).max()
    return network


def f32(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def one(op, constants=(), **attributes):
    return [helper.make_node(op, ["x", *constants], ["y"], name="node", **attributes)]


IMAGE = (4, 9, 8)
CASES = {
    "relu": (one("Relu"), IMAGE, {}),
    "leaky": (one("LeakyRelu", alpha=0.2), IMAGE, {}),
    "clip": (one("Clip", ["low", "high"]), IMAGE, {"low": np.float32(-0.5), "high": np.float32(0.7)}),
    "sigmoid": (one("Sigmoid"), IMAGE, {}),
    "hard_sigmoid": (one("HardSigmoid", alpha=0.3, beta=0.4), IMAGE, {}),
    "hard_swish": (one("HardSwish"), IMAGE, {}),
    "tanh": (one("Tanh"), IMAGE, {}),
    "erf": (one("Erf"), IMAGE, {}),
    "softmax": (one("Softmax", axis=1), IMAGE, {}),
    "flatten": (one("Flatten", axis=2), IMAGE, {}),
    "transpose": (one("Transpose", perm=[0, 2, 3, 1]), IMAGE, {}),
    "max_pool": (
        one("MaxPool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1], ceil_mode=1),
        IMAGE,
        {},
    ),
    "average_pool": (one("AveragePool", kernel_shape=[3, 3], strides=[2, 1], pads=[1, 1, 1, 1]), IMAGE, {}),
    "average_pool_counted": (
        one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        IMAGE,
        {},
    ),
    "same_pool": (one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"), IMAGE, {}),
    "global_pool": (one("GlobalAveragePool"), IMAGE, {}),
    "lrn": (one("LRN", size=3, alpha=0.1, beta=0.5), IMAGE, {}),
    "conv": (
        one("Conv", ["w", "b"], strides=[2, 1], pads=[1, 2, 0, 1], dilations=[1, 2], group=2),
        IMAGE,
        {"w": f32(6, 2, 3, 3), "b": f32(6)},
    ),
    "conv_1d": (one("Conv", ["w"], pads=[2, 1], strides=[2]), (4, 30), {"w": f32(5, 4, 4)}),
    "gemm": (one("Gemm", ["w", "b"], transB=1, alpha=0.5, beta=2.0), (12,), {"w": f32(5, 12), "b": f32(5)}),
    "matmul": (one("MatMul", ["w"]), (7, 12), {"w": f32(12, 5)}),
    "batch_norm": (
        one("BatchNormalization", ["s", "b", "m", "v"], epsilon=1e-3),
        IMAGE,
        {"s": f32(4), "b": f32(4), "m": f32(4), "v": f32(4) ** 2},
    ),
    "layer_norm": (one("LayerNormalization", ["s", "b"], axis=-1), (5, 8), {"s": f32(8), "b": f32(8)}),
    "add": (one("Add", ["c"]), IMAGE, {"c": f32(4, 1, 1)}),
    "sub": (one("Sub", ["c"]), IMAGE, {"c": f32(1, 8)}),
    "mul": (one("Mul", ["c"]), IMAGE, {"c": f32(9, 1)}),
    "div": (one("Div", ["c"]), IMAGE, {"c": 2 + np.abs(f32(1))}),
    "pad": (
        one("Pad", ["p"], mode="constant"),
        IMAGE,
        {"p": np.array([0, 0, 1, 2, 0, 0, 3, 0], dtype=np.int64)},
    ),
    "reduce_mean": (one("ReduceMean", axes=[2, 3], keepdims=0), IMAGE, {}),
    "squeeze": (one("Squeeze", ["a"]), (1, 6), {"a": np.array([1], dtype=np.int64)}),
    "unsqueeze": (one("Unsqueeze", ["a"]), (6,), {"a": np.array([1], dtype=np.int64)}),
    "reshape": (one("Reshape", ["s"]), IMAGE, {"s": np.array([0, 2, -1], dtype=np.int64)}),
    "slice": (
        one("Slice", ["s", "e", "a", "t"]),
        IMAGE,
        {
            "s": np.array([1, -1]),
            "e": np.array([3, -20]),
            "a": np.array([1, 3]),
            "t": np.array([1, -2]),
        },
    ),
    "slice_without_axes": (
        one("Slice", ["s", "e", "", "t"]),
        IMAGE,
        {"s": np.zeros(4, dtype=np.int64), "e": np.full(4, 9), "t": np.array([1, 2, 1, 2])},
    ),
    "pad_axes": (
        one("Pad", ["p", "", "a"], mode="reflect"),
        IMAGE,
        {"p": np.array([1, 2]), "a": np.array([3])},
        18,
    ),
    "split": (
        [
            helper.make_node("Split", ["x", "n"], ["a", "b"], axis=1),
            helper.make_node("Sub", ["a", "b"], ["y"]),
        ],
        IMAGE,
        {"n": np.array([2, 2])},
    ),
    "concat": (one("Concat", ["x", "c"], axis=0), IMAGE, {"c": f32(2, *IMAGE)}),
    "gather": (one("Gather", ["i"], axis=2), IMAGE, {"i": np.array([-1, 0, 3])}),
    "where": (
        [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("Equal", ["r", "x"], ["e"]),
            helper.make_node("Where", ["e", "x", "c"], ["y"]),
        ],
        IMAGE,
        {"c": f32(1)},
    ),
    "expand": (one("Expand", ["s"]), (1, 4), {"s": np.array([1, 3, 4])}),
    "constant_of_shape": (
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node(
                "ConstantOfShape", ["s"], ["c"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [2.5])
            ),
            helper.make_node("Mul", ["x", "c"], ["y"]),
        ],
        IMAGE,
        {},
    ),
    "shape_from": (
        [
            helper.make_node("Shape", ["x"], ["s"], start=1),
            helper.make_node("Cast", ["s"], ["y"], to=TensorProto.FLOAT),
        ],
        IMAGE,
        {},
    ),
    "cast_weight": (
        [
            helper.make_node("Cast", ["w"], ["w32"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["x", "w32"], ["y"]),
        ],
        (6,),
        {"w": f32(6, 3).astype(np.float16)},
    ),
    "sliced_weight_old": (
        [
            helper.make_node("Slice", ["w"], ["part"], starts=[1], ends=[5], axes=[0]),
            helper.make_node("MatMul", ["x", "part"], ["y"]),
        ],
        (4,),
        {"w": f32(6, 3)},
        9,
    ),
    "gemm_of_constants": (
        [
            helper.make_node("Gemm", ["u", "w"], ["v"], transB=1),
            helper.make_node("MatMul", ["x", "v"], ["y"]),
        ],
        (4,),
        {"u": f32(4, 2), "w": f32(3, 2)},
    ),
    "matmul_constant_left": ([helper.make_node("MatMul", ["w", "x"], ["y"])], (4, 5), {"w": f32(3, 4)}),
    "same_lower": (one("Conv", ["w"], auto_pad="SAME_LOWER", strides=[2, 2]), IMAGE, {"w": f32(3, 4, 3, 3)}),
    "power": (one("Pow", ["p"]), IMAGE, {"p": np.float32(2)}),
    "reduce_sum": (one("ReduceSum", ["a"], keepdims=0), IMAGE, {"a": np.array([-1])}),
    "reduce_max": (one("ReduceMax", axes=[1]), IMAGE, {}),
    "global_max": (one("GlobalMaxPool"), IMAGE, {}),
    "sum": (one("Sum", ["c", "x"]), IMAGE, {"c": f32(8)}),
    "max": (one("Max", ["c"]), IMAGE, {"c": f32(8)}),
    "min": (one("Min", ["c"]), IMAGE, {"c": f32(8)}),
    "exp": (one("Exp"), IMAGE, {}),
    "neg": (one("Neg"), IMAGE, {}),
    "floor": (one("Floor"), IMAGE, {}),
    "identity": (one("Identity"), IMAGE, {}),
    "dropout": (one("Dropout"), IMAGE, {}),
    "sqrt_and_reciprocal": (
        [
            helper.make_node("Exp", ["x"], ["e"]),
            helper.make_node("Sqrt", ["e"], ["r"]),
            helper.make_node("Reciprocal", ["r"], ["y"]),
        ],
        IMAGE,
        {},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_operator_agrees_with_onnxruntime(tmp_path, case):
    nodes, shape, constants, *opset = CASES[case]
    x = f32(3, *shape)
    before = x.copy()
    network = check(tmp_path, build(nodes, shape, constants, *opset), x)
    np.testing.assert_array_equal(x, before)  # never written to
    network.save(tmp_path / "net.h5")
    stored = Network.load(tmp_path / "net.h5").run(x)
    assert stored.dtype == network.run(x).dtype
    np.testing.assert_array_equal(stored, network.run(x))


def test_gelu(tmp_path):
    for approximate in ("none", "tanh"):
        model = build(one("Gelu", approximate=approximate), IMAGE, opset=20)
        check(tmp_path, model, f32(2, *IMAGE))


def test_old_softmax_runs_over_all_later_axes(tmp_path):
    check(tmp_path, build(one("Softmax", axis=1), (3, 4), opset=11), f32(2, 3, 4))


def test_embedding_of_tokens_and_reshape_by_shape_of_the_batch(tmp_path):
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"]),
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "first"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["e", "target"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["y"], to=TensorProto.FLOAT),
    ]
    constants = {
        "table": f32(10, 3),
        "zero": np.array(0, dtype=np.int64),
        "first": np.array([0], dtype=np.int64),
        "rest": np.array([-1], dtype=np.int64),
    }
    model = build(nodes, (4,), constants, kind=TensorProto.INT64)
    for n in (2, 5):  # the batch stays open
        check(tmp_path, model, RNG.integers(0, 10, (n, 4)))


@pytest.mark.parametrize("seed", range(6))
def test_random_graphs(tmp_path, seed):
    rng = np.random.default_rng(seed)
    nodes, constants, tensor, channels = [], {}, "x", 3
    for i in range(8):
        kind = rng.choice(["Conv", "Relu", "Add", "BatchNormalization", "HardSwish", "Concat", "MaxPool"])
        out, extra, attributes = f"t{i}", [], {}
        if kind == "Conv":
            c_out = int(rng.integers(1, 9))
            constants[f"w{i}"] = rng.normal(size=(c_out, channels, 3, 3)).astype(np.float32)
            extra, attributes, channels = [f"w{i}"], {"pads": [1] * 4}, c_out
        elif kind == "BatchNormalization":
            for p in "sbmv":
                constants[f"{p}{i}"] = rng.uniform(0.5, 1.5, channels).astype(np.float32)
            extra = [f"{p}{i}" for p in "sbmv"]
        elif kind == "Add":
            extra = [tensor]
        elif kind == "Concat":
            extra, attributes, channels = [tensor], {"axis": 1}, 2 * channels
        elif kind == "MaxPool":
            attributes = {"kernel_shape": [3, 3], "pads": [1] * 4}
        nodes.append(helper.make_node(kind, [tensor, *extra], [out], name=f"n{i}", **attributes))
        tensor = out
    nodes.append(helper.make_node("GlobalAveragePool", [tensor], ["y"], name="last"))
    model = build(nodes, (3, 10, 10), constants)
    x = rng.normal(size=(2, 3, 10, 10)).astype(np.float32)
    check(tmp_path, model, x)
    check(tmp_path, model, x, fold_batch_norm=True)


def test_every_unsupported_operator_is_named(tmp_path):
    nodes = [
        helper.make_node("Selu", ["x"], ["a"], name="first"),
        helper.make_node("Celu", ["a"], ["y"], name="second"),
    ]
    onnx.save(build(nodes, IMAGE), tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"Selu \(first\); Celu \(second\)"):
        Network.from_onnx(tmp_path / "model.onnx")


def test_unreadable_and_open_models_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Network.from_onnx(tmp_path / "absent.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(InputError, match="not a readable ONNX model"):
        Network.from_onnx(tmp_path / "bad.onnx")
    model = build(one("Relu"), ("h",))
    onnx.save(model, tmp_path / "open.onnx")
    with pytest.raises(InputError, match="give input_shape"):
        Network.from_onnx(tmp_path / "open.onnx")


def test_models_of_several_inputs_are_refused_unless_the_others_have_defaults(tmp_path):
    model = build([helper.make_node("Add", ["x", "z"], ["y"])], (3,))
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [3]))
    onnx.save(model, tmp_path / "two.onnx")
    with pytest.raises(InputError, match=r"one input, got \['x', 'z'\]"):
        Network.from_onnx(tmp_path / "two.onnx")
    model.graph.initializer.append(onnx.numpy_helper.from_array(f32(3), "z"))
    check(tmp_path, model, f32(2, 3))


def test_missing_onnx_tells_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match="pip install"):
        Network.from_onnx(tmp_path / "model.onnx")


def test_split_without_sizes_is_listed(tmp_path):
    onnx.save(build([helper.make_node("Split", ["x"], ["y", "z"], name="half")], (4,), opset=13),
              tmp_path / "model.onnx")  # fmt: skip
    with pytest.raises(InputError, match=r"unsupported operators: Split \(half\)"):
        Network.from_onnx(tmp_path / "model.onnx")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on import
def test_torch_module(tmp_path):
    torch = pytest.importorskip("torch", reason="the extra 'train' is not installed")
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
            self.norm = torch.nn.BatchNorm2d(8)
            self.fc = torch.nn.Linear(8 * 9, 5)

        def forward(self, x):
            a, b = torch.relu(self.norm(self.conv(x))).chunk(2, 1)
            x = torch.nn.functional.max_pool2d(torch.cat([b, a], 1), 2)
            return self.fc(x.view(x.shape[0], -1))

    module = Net()
    module.norm.eval()
    network = Network.from_torch(module, torch.zeros(2, 3, 6, 6))
    assert module.training  # left as they were
    assert not module.norm.training
    x = f32(5, 3, 6, 6)  # another batch than the example's
    with torch.no_grad():
        want = module.eval()(torch.from_numpy(x)).numpy()
    assert np.abs(network.run(x) - want).max() <= RTOL * np.abs(want).max()
    assert len(network.mapped) == 2


SMALL = ("magika", "rapidocr_onnxruntime", "squeezenet", "shufflenet", "densenet121")


@pytest.mark.parametrize(
    "package, file, shape",
    [
        entry
        for entry in MODELS
        if any(name in entry[0] + entry[1] for name in SMALL) and "_det_" not in entry[1]
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_models_of_other_people(package, file, shape):
    path = find(package, file)
    if path is None:
        pytest.skip(f"the package {package} is not installed")
    result = compare(path, shape)
    assert result["spread"] > 1e-3  # constant outputs would agree whatever is computed
    assert result["error"] <= RTOL
