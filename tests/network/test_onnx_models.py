"""Whole ONNX models: what is refused and how, what is rewritten at import, other people's models."""

import sys

import numpy as np
import pytest

from benchmarks.onnx_models import MODELS, compare, find
from rramsim.checks import InputError
from rramsim.network import Network
from tests.network.witness import RTOL, TensorProto, build, check, helper, one, onnx

RNG = np.random.default_rng(7)
IMAGE = (4, 9, 8)


def f32(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_every_unsupported_operator_is_named(tmp_path):
    nodes = [
        helper.make_node("Hardmax", ["x"], ["a"], name="first"),
        helper.make_node("Det", ["a"], ["y"], name="second"),
    ]
    onnx.save(build(nodes, IMAGE), tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"Hardmax \(first\); Det \(second\)"):
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


def test_inputs_without_a_batch_are_refused_unless_they_have_defaults(tmp_path):
    model = build([helper.make_node("Add", ["x", "z"], ["y"])], (3,))
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [3]))
    onnx.save(model, tmp_path / "two.onnx")
    with pytest.raises(InputError, match="'x' and 'z' differ"):
        Network.from_onnx(tmp_path / "two.onnx")
    model.graph.initializer.append(onnx.numpy_helper.from_array(f32(3), "z"))
    check(tmp_path, model, f32(2, 3))


def test_missing_onnx_tells_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match="pip install"):
        Network.from_onnx(tmp_path / "model.onnx")


def test_branches_that_shapes_decide_are_taken_at_import(tmp_path):
    branches = {}
    for name, op in (("then_branch", "Neg"), ("else_branch", "Abs")):
        out = helper.make_tensor_value_info(f"{name}:y", TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([helper.make_node(op, ["x"], [out.name])], name, [], [out])
    constants = {"one": np.array(1), "size": np.array(4)}
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "one"], ["n"]),
        helper.make_node("Equal", ["n", "size"], ["same"]),
        helper.make_node("If", ["same"], ["b"], name="choice", **branches),
        helper.make_node("Exp", ["b"], ["y"]),
    ]
    network = check(tmp_path, build(nodes, (4, 3), constants), f32(2, 4, 3))
    assert [node.op for node in network.nodes] == ["Neg", "Exp"]
    check(tmp_path, build(nodes, (5, 3), constants), f32(2, 5, 3))
    nodes[0] = helper.make_node("Cast", ["x"], ["s"], to=TensorProto.INT64)
    onnx.save(build(nodes, (4,), constants), tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"unsupported operators: If \(choice\)"):
        Network.from_onnx(tmp_path / "model.onnx")


def test_functions_of_a_model_are_inlined(tmp_path):
    model = build([helper.make_node("Twice", ["x"], ["y"], domain="own")], (4,))
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    check(tmp_path, model, f32(2, 4))


def test_a_fixed_batch_is_opened_where_that_changes_nothing(tmp_path):
    reshape = [helper.make_node("Reshape", ["x", "s"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    constants = {"s": np.array([1, -1]), "w": f32(12, 5)}
    network = check(tmp_path, build(reshape, (3, 4), constants, batch=1), f32(1, 3, 4))
    assert "batch" not in network.metadata
    assert network.run(f32(7, 3, 4)).shape == (7, 5)
    joined = [helper.make_node("Concat", ["x", "c"], ["y"], axis=1)]
    network = check(tmp_path, build(joined, (3,), {"c": f32(1, 2)}, batch=1), f32(1, 3))
    assert "batch" not in network.metadata
    assert network.run(f32(7, 3)).shape == (7, 5)


def test_a_fixed_batch_stays_where_images_of_a_batch_act_on_one_another(tmp_path):
    mixed = [helper.make_node("Reshape", ["x", "s"], ["f"]), helper.make_node("MatMul", ["m", "f"], ["y"])]
    constants = {"s": np.array([4, 6]), "m": f32(4, 4)}  # a matrix over the images of a batch
    network = check(tmp_path, build(mixed, (2, 3), constants, batch=4), f32(4, 2, 3))
    x = f32(5, 2, 3)
    got = network.run(x)
    assert network.metadata["batch"] == 4
    assert got.shape == (5, 6)
    np.testing.assert_array_equal(got[:4], network.run(x[:4]))


def test_aligned_operands_of_old_opsets_are_refused(tmp_path):
    model = build(one("Add", ["c"], axis=1, broadcast=1), IMAGE, {"c": f32(4)}, opset=6)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"unsupported operators: Add \(node\)"):
        Network.from_onnx(tmp_path / "model.onnx")


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
