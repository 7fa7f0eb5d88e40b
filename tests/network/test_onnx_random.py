"""Operators with random attributes and shapes, as imported from ONNX, against onnxruntime."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import assume, given, settings, strategies as st

from tests.network.witness import build, check, helper

few = settings(max_examples=60, deadline=None)
small = st.integers(1, 3)


def agree(nodes, x, constants=None, opset=19):
    with tempfile.TemporaryDirectory() as folder:
        return check(Path(folder), build(nodes, x.shape[1:], constants, opset), x)


def normal(draw, *shape):
    seed = draw(st.integers(0, 2**16))
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@st.composite
def windows(draw, rank, *, dilated=True):
    """Sizes of a map, a window on it, and its attributes; the window fits."""
    kernel = [draw(st.integers(1, 4)) for _ in range(rank)]
    dilations = [draw(st.integers(1, 2)) if dilated else 1 for _ in range(rank)]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [draw(st.integers(span, span + 6)) for span in spans]
    attributes = {"kernel_shape": kernel, "strides": [draw(small) for _ in range(rank)]}
    if max(dilations) > 1:
        attributes["dilations"] = dilations
    auto = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto == "NOTSET":  # pads below the kernel, or a window could see nothing but padding
        attributes["pads"] = [draw(st.integers(0, k - 1)) for k in kernel * 2]
    else:
        # windows further apart than they are wide: onnxruntime crops or fails, the standard pads nothing
        assume(
            all(s <= span for s, span in zip(attributes["strides"], spans, strict=True)) or auto == "VALID"
        )
        attributes["auto_pad"] = auto
    return sizes, attributes


@few
@given(st.data())
def test_convolution(data):
    draw = data.draw
    sizes, attributes = draw(windows(draw(st.integers(1, 2))))
    # onnxruntime refuses dilated windows that are padded to keep the size
    assume("dilations" not in attributes or not attributes.get("auto_pad", "").startswith("SAME"))
    group, own, each = draw(small), draw(small), draw(small)
    constants = {"w": normal(draw, group * each, own, *attributes["kernel_shape"])}
    inputs = ["x", "w"]
    if draw(st.booleans()):
        constants["b"] = normal(draw, group * each)
        inputs.append("b")
    if draw(st.booleans()):
        del attributes["kernel_shape"]  # follows from the weight
    node = helper.make_node("Conv", inputs, ["y"], group=group, **attributes)
    agree([node], normal(draw, 2, group * own, *sizes), constants)


@few
@given(st.data())
def test_pooling(data):
    draw = data.draw
    op = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    sizes, attributes = draw(windows(draw(st.integers(1, 2))))
    assume("dilations" not in attributes or not attributes.get("auto_pad", "").startswith("SAME"))
    if "auto_pad" not in attributes:
        attributes["ceil_mode"] = draw(st.integers(0, 1))
    if op == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    agree([helper.make_node(op, ["x"], ["y"], **attributes)], normal(draw, 2, 3, *sizes))


@few
@given(st.data())
def test_broadcasting(data):
    draw = data.draw
    shape = [draw(small) for _ in range(draw(st.integers(1, 4)))]
    other = [n if draw(st.booleans()) else 1 for n in shape[draw(st.integers(0, len(shape))) :]]
    x, c = normal(draw, 2, *shape), normal(draw, *other)
    op = draw(st.sampled_from(["Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu", "Sum"]))
    inputs = ["x", "c"] if op == "PRelu" or draw(st.booleans()) else ["c", "x"]
    if op == "Div":
        x, c = (np.where(np.abs(v) < 0.1, np.float32(0.1), v) for v in (x, c))
    agree([helper.make_node(op, inputs, ["y"])], x, {"c": c})


@few
@given(st.data())
def test_axes(data):
    draw = data.draw
    x = normal(draw, 2, *(draw(small) for _ in range(draw(st.integers(1, 3)))))
    rank, constants = x.ndim, {}
    inputs, attributes, opset = ["x"], {}, draw(st.sampled_from([11, 13, 18]))
    axis = draw(st.integers(-rank, rank - 1))
    op = draw(
        st.sampled_from(
            ["Softmax", "LogSoftmax", "Flatten", "Concat", "Gather", "ReduceMean", "ReduceMax", "Unsqueeze",
             "Transpose", "LayerNormalization", "ArgMax", "Split"]
        )
    )  # fmt: skip
    if op in ("Softmax", "LogSoftmax", "Flatten"):
        attributes["axis"] = axis
    elif op == "Concat":
        assume(axis % rank > 0)
        inputs, attributes["axis"] = ["x", "x"], axis
    elif op == "Gather":
        assume(axis % rank > 0)
        n = x.shape[axis]
        shape = [draw(small) for _ in range(draw(st.integers(0, 2)))]
        constants["i"] = np.random.default_rng(0).integers(-n, n, shape)
        inputs, attributes["axis"] = ["x", "i"], axis
    elif op in ("ReduceMean", "ReduceMax"):
        axes = draw(st.lists(st.integers(1, rank - 1), unique=True, min_size=1))
        axes = [a - rank if draw(st.booleans()) else a for a in axes]
        attributes["keepdims"] = draw(st.integers(0, 1))
        if opset < 18:
            attributes["axes"] = axes
        else:
            constants["a"] = np.array(axes)
            inputs = ["x", "a"]
    elif op == "Unsqueeze":
        axes = sorted({axis, axis - 1 if axis else 0} - {-rank - 1})
        if opset < 13:
            attributes["axes"] = axes
        else:
            constants["a"] = np.array(axes)
            inputs = ["x", "a"]
        assume(len({a % (rank + len(axes)) for a in axes}) == len(axes))
    elif op == "Transpose":
        attributes["perm"] = draw(st.permutations(range(rank)))
    elif op == "LayerNormalization":
        opset = 17
        constants["s"] = normal(draw, *x.shape[axis:])
        assume(axis % rank > 0 and constants["s"].size > 2)
        inputs, attributes["axis"] = ["x", "s"], axis
    elif op == "ArgMax":
        attributes |= {"axis": axis, "keepdims": draw(st.integers(0, 1))}
    else:
        assume(axis % rank > 0 and x.shape[axis] > 1)
        sizes = [1, x.shape[axis] - 1]
        attributes["axis"] = axis
        if opset < 13:
            attributes["split"] = sizes
        else:
            constants["n"] = np.array(sizes)
            inputs = ["x", "n"]
        parts = helper.make_node(op, inputs, ["a", "b"], **attributes)
        agree([parts, helper.make_node("Concat", ["b", "a"], ["y"], axis=axis)], x, constants, opset)
        return
    agree([helper.make_node(op, inputs, ["y"], **attributes)], x, constants, opset)


@few
@given(st.data())
def test_slices_and_pads(data):
    draw = data.draw
    x = normal(draw, 2, *(draw(st.integers(2, 5)) for _ in range(2)))
    axes = draw(st.lists(st.sampled_from([1, 2]), unique=True, min_size=1))
    if draw(st.booleans()):
        index = st.one_of(st.integers(-7, 7), st.sampled_from([2**63 - 1, -(2**63)]))
        constants = {
            "s": np.array([draw(index) for _ in axes]),
            "e": np.array([draw(index) for _ in axes]),
            "a": np.array([a - 3 if draw(st.booleans()) else a for a in axes]),
            "t": np.array([draw(st.sampled_from([1, 2, 3, -1, -2])) for _ in axes]),
        }
        spans = zip(constants["s"], constants["e"], axes, constants["t"], strict=True)
        for start, end, axis, step in spans:  # some elements must be left
            size = x.shape[axis]
            a, b = (int(v) + size if v < 0 else int(v) for v in (start, end))
            assume(min(b, size) > max(a, 0) if step > 0 else min(max(a, 0), size - 1) > max(b, -1))
        agree([helper.make_node("Slice", ["x", *"seat"], ["y"])], x, constants)
    else:
        mode = draw(st.sampled_from(["constant", "edge", "reflect"]))
        constants = {
            "p": np.array([draw(st.integers(0, 1)) for _ in range(2 * len(axes))]),
            "v": np.float32(2),
        }
        constants["a"] = np.array(axes)
        inputs = ["x", "p", "v", "a"] if mode == "constant" else ["x", "p", "", "a"]
        agree([helper.make_node("Pad", inputs, ["y"], mode=mode)], x, constants)


@few
@given(st.data())
def test_linear_nodes(data):
    draw = data.draw
    rows, cols = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    lead = [] if draw(st.booleans()) else [draw(small) for _ in range(draw(st.integers(1, 2)))]
    x = normal(draw, 2, *lead, rows)
    if lead or draw(st.booleans()):
        agree([helper.make_node("MatMul", ["x", "w"], ["y"])], x, {"w": normal(draw, rows, cols)})
        return
    turned = draw(st.integers(0, 1))
    constants = {"w": normal(draw, *((cols, rows) if turned else (rows, cols)))}
    attributes = {"transB": turned, "alpha": draw(st.sampled_from([1.0, -0.5])), "beta": 0.3}
    shape = draw(st.sampled_from([None, (), (1,), (cols,), (1, cols), (2, cols), (2, 1)]))
    if shape is not None:
        constants["b"] = normal(draw, *shape)
    agree([helper.make_node("Gemm", ["x", *constants], ["y"], **attributes)], x, constants)
