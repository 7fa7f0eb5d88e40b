"""Imported ONNX models against onnxruntime, operator by operator and on random graphs."""

import numpy as np
import pytest

from rramsim.network import Network
from tests.network.witness import TensorProto, build, check, helper, one

RNG = np.random.default_rng(7)


def f32(*shape):
    return RNG.normal(size=shape).astype(np.float32)


IMAGE = (4, 9, 8)
UNARY = ("Abs", "Sign", "Sin", "Cos", "Ceil", "Round", "Softplus", "Softsign")
REDUCTIONS = (
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSumExp",
)
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
    **{name: (one(name), IMAGE, {}) for name in UNARY},
    "leaky_unit": (one("Elu", alpha=0.7), IMAGE, {}),
    "selu": (one("Selu", alpha=1.5, gamma=1.1), IMAGE, {}),
    "celu": (one("Celu", alpha=0.5), IMAGE, {}),
    "thresholded": (one("ThresholdedRelu", alpha=0.3), IMAGE, {}),
    "prelu": (one("PRelu", ["c"]), IMAGE, {"c": f32(4, 1, 1)}),
    "log": ([helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Log", ["a"], ["y"])], IMAGE, {}),
    "log_softmax": (one("LogSoftmax", axis=1), IMAGE, {}),
    "log_softmax_old": (one("LogSoftmax", axis=1), IMAGE, {}, 11),
    "fmod": (one("Mod", ["c"], fmod=1), IMAGE, {"c": np.float32(0.4)}),
    "mean": (one("Mean", ["c", "x"]), IMAGE, {"c": f32(8)}),
    "flatten_from_behind": (one("Flatten", axis=-1), IMAGE, {}),
    "flatten_to_row": (one("Flatten", axis=0), IMAGE, {}),
    "instance_norm": (one("InstanceNormalization", ["s", "b"]), IMAGE, {"s": f32(4), "b": f32(4)}),
    "group_norm_old": (
        one("GroupNormalization", ["s", "b"], num_groups=2),
        IMAGE,
        {"s": f32(2), "b": f32(2)},
        18,
    ),
    "group_norm": (
        one("GroupNormalization", ["s", "b"], num_groups=2),
        IMAGE,
        {"s": f32(4), "b": f32(4)},
        21,
    ),
    "lp_norm": (one("LpNormalization", axis=1, p=1), IMAGE, {}),
    "split_evenly": (
        [
            helper.make_node("Split", ["x"], ["a", "b"], axis=-1),
            helper.make_node("Sub", ["a", "b"], ["y"]),
        ],
        IMAGE,
        {},
        13,
    ),
    "split_unevenly": (
        [
            helper.make_node("Split", ["x"], ["a", "b"], axis=2, num_outputs=2),
            helper.make_node("Concat", ["b", "a"], ["y"], axis=2),
        ],
        IMAGE,
        {},
        18,
    ),
    "tile": (one("Tile", ["r"]), IMAGE, {"r": np.array([1, 2, 1, 3])}),
    "depth_to_space": (one("DepthToSpace", blocksize=2), IMAGE, {}),
    "depth_to_space_crd": (one("DepthToSpace", blocksize=2, mode="CRD"), IMAGE, {}),
    "space_to_depth": (one("SpaceToDepth", blocksize=2), (4, 6, 8), {}),
    "einsum": (one("Einsum", ["w"], equation="b c h w, c d -> b d h w"), IMAGE, {"w": f32(4, 3)}),
    "gather_nd": (
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[1, 2, 3, 0]),
            helper.make_node("GatherND", ["t", "i"], ["y"], batch_dims=1),
        ],
        IMAGE,
        {"i": RNG.integers(-8, 8, (4, 3, 2))},
    ),
    "gather_elements": (
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[1, 2, 3, 0]),
            helper.make_node("GatherElements", ["t", "i"], ["y"], axis=1),
        ],
        IMAGE,
        {"i": RNG.integers(-9, 9, (4, 2, 8, 1))},
    ),
    "trilu": (one("Trilu", ["k"], upper=0), IMAGE, {"k": np.array(1)}),
    "arg_max": (one("ArgMax", axis=1, keepdims=0), IMAGE, {}),
    "arg_min_last": (one("ArgMin", axis=-1, select_last_index=1), IMAGE, {}),
    "cumulative": (one("CumSum", ["a"], exclusive=1, reverse=1), IMAGE, {"a": np.array(2)}),
    **{f"{name}_old": (one(name, axes=[-1, 1], keepdims=0), IMAGE, {}, 13) for name in REDUCTIONS},
    **{name: (one(name, ["a"]), IMAGE, {"a": np.array([-2])}, 18) for name in REDUCTIONS},
    "reduce_all": (one("ReduceMean", ["a"]), IMAGE, {"a": np.array([], dtype=np.int64)}, 18),
    "reduce_none": (
        one("ReduceMean", ["a"], noop_with_empty_axes=1),
        IMAGE,
        {"a": np.array([], dtype=np.int64)},
        18,
    ),
    "logic": (
        [
            helper.make_node("Greater", ["x", "c"], ["g"]),
            helper.make_node("LessOrEqual", ["x", "d"], ["l"]),
            helper.make_node("Or", ["g", "l"], ["o"]),
            helper.make_node("Not", ["o"], ["n"]),
            helper.make_node("Xor", ["n", "g"], ["e"]),
            helper.make_node("And", ["e", "g"], ["a"]),
            helper.make_node("Where", ["a", "x", "c"], ["y"]),
        ],
        IMAGE,
        {"c": np.float32(0.2), "d": np.float32(-0.3)},
    ),
    "range_by_size": (
        [
            helper.make_node("Size", ["x"], ["n"]),
            helper.make_node("Mod", ["n", "m"], ["r"]),
            helper.make_node("Range", ["r", "top", "m"], ["i"]),
            helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
        ],
        (5,),
        {"m": np.array(7), "top": np.array(30)},
    ),
    "pad_negative": (
        one("Pad", ["p", "v"]),
        IMAGE,
        {"p": np.array([0, -1, 2, -2, 0, 0, -3, 1]), "v": np.float32(0.5)},
    ),
    "slice_from_before_the_first": (
        one("Slice", ["s", "e", "a", "t"]),
        IMAGE,
        {"s": np.array([-20]), "e": np.array([-99]), "a": np.array([2]), "t": np.array([-1])},
    ),
    "conv_without_bias": (one("Conv", ["w", ""]), IMAGE, {"w": f32(2, 4, 3, 3)}),
    "gemm_turned": (
        [
            helper.make_node("Transpose", ["x"], ["t"]),
            helper.make_node("Gemm", ["t", "w"], ["y"], transA=1, alpha=2.0),
        ],
        (12,),
        {"w": f32(12, 5)},
    ),
    "gemm_matrix_bias": (one("Gemm", ["w", "b"], beta=0.5), (12,), {"w": f32(12, 5), "b": f32(3, 5)}),
    "gemm_column_bias": (one("Gemm", ["w", "b"]), (12,), {"w": f32(12, 5), "b": f32(3, 1)}),
    "gemm_number_bias": (one("Gemm", ["w", "b"], beta=2.0), (12,), {"w": f32(12, 5), "b": f32(1)}),
    "gemm_of_two_variables": (
        [
            helper.make_node("Tanh", ["x"], ["h"]),
            helper.make_node("Gemm", ["x", "h", "x"], ["y"], transA=1, alpha=0.5, beta=0.3),
        ],
        (3,),
        {},
    ),
    "constant_numbers": (
        [
            helper.make_node("Constant", [], ["c"], value_float=0.7),
            helper.make_node("Constant", [], ["d"], value_floats=[0.1] * 8),
            helper.make_node("Mul", ["d", "c"], ["e"]),
            helper.make_node("Add", ["x", "e"], ["y"]),
        ],
        IMAGE,
        {},
    ),
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


def test_gelu_mish_swish_and_root_mean_square_of_late_opsets(tmp_path):
    check(tmp_path, build(one("Mish"), IMAGE, opset=18), f32(2, *IMAGE))
    for approximate in ("none", "tanh"):
        check(tmp_path, build(one("Gelu", approximate=approximate), IMAGE, opset=20), f32(2, *IMAGE))
    model = build(one("RMSNormalization", ["s"], axis=-1), IMAGE, {"s": f32(8)}, opset=23)
    check(tmp_path, model, f32(2, *IMAGE))
