"""ONNX models made in tests, and their comparison with onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from rramsim.network import Network

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
helper, TensorProto = onnx.helper, onnx.TensorProto

RTOL = 1e-4  # of the largest output


def build(nodes, shape, constants=None, opset=17, kind=TensorProto.FLOAT, batch="batch"):
    """A model file from ONNX nodes; the last node's output is the model's."""
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, [batch, *shape])],
        [onnx.ValueInfoProto(name=nodes[-1].output[0])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def check(folder, model, x, **options):
    """Compare a model's digital execution with onnxruntime's on inputs `x`; returns the network."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    want = session.run(None, {"x": x})[0]
    network = Network.from_onnx(path, **options)
    got = network.run(x)
    assert got.shape == want.shape
    assert got.dtype.kind == want.dtype.kind
    if want.size:
        assert np.abs(got.astype(float) - want).max() <= RTOL * np.abs(want.astype(float)).max()
    return network


def one(op, constants=(), **attributes):
    """A single node from "x" to "y"."""
    return [helper.make_node(op, ["x", *constants], ["y"], name="node", **attributes)]
