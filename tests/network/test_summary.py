"""What is on the chip and what is not, counted by hand; `rramsim info` of a file."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from finetune.study.cli import main
from finetune.study.materials import load_network
from rramsim.host.summary import summarise
from rramsim.network import Network, Node, zoo
from tests.network.witness import build, helper, onnx

rng = np.random.default_rng(0)


def attention():
    """Tokens (5, 8) through two projections, their product, and a constant in a form no array computes."""
    w = [rng.normal(size=(8, 6)).astype(np.float32) for _ in range(2)]
    nodes = [
        Node("q", "MatMul", ("input",), {}, {"weight": w[0]}),
        Node("k", "MatMul", ("input",), {}, {"weight": w[1]}),
        Node("kt", "Transpose", ("k",), {"perm": [0, 2, 1]}),
        Node("s", "MatMul", ("q", "kt")),  # 5 x 6 x 5
        Node("c", "Constant", (), {}, {"value": rng.normal(size=(5, 5)).astype(np.float32)}),
        Node("y", "Einsum", ("s", "c"), {"equation": "bij,ij->bi"}),
    ]
    return Network(nodes, (5, 8), "y", "attention")


def test_products_at_the_host_are_counted_and_named():
    summary = summarise(attention())
    rows = {row.node: row for row in summary.layers}
    assert summary.chip_weights == 96
    assert summary.host_weights == 25
    assert summary.chip_macs == 2 * 5 * 8 * 6
    assert rows["s"].macs == 5 * 6 * 5
    assert rows["s"].note == "between activations"
    assert rows["y"].macs == 25
    assert "no array computes" in rows["y"].note
    assert summary.host_macs == 175
    assert summary.mac_share == pytest.approx(480 / 655)


def test_convolutions_and_groups():
    summary = summarise(zoo.resnet8((1, 28, 28), (16, 32, 64)))
    assert summary.weight_share == summary.mac_share == 1.0
    first = summary.layers[0]
    assert (first.rows, first.columns, first.vectors, first.macs) == (9, 16, 784, 784 * 9 * 16)


def test_info_prints_a_file(tmp_path):
    constants = {
        "w": rng.normal(size=(300, 7)).astype(np.float32),
        "v": rng.normal(size=(7, 2)).astype(np.float32),
    }
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "v"], ["y"])]
    path = tmp_path / "net.onnx"
    onnx.save(build(nodes, ("m", 300), constants), path)
    result = CliRunner().invoke(main, ["info", str(path)])
    assert result.exit_code == 2
    assert "is open" in result.output + result.stderr
    result = CliRunner().invoke(main, ["info", str(path), "--shape", "4,300"])
    assert result.exit_code == 0, result.output
    assert "2,114 weights (100.0 % of all) on 4 tiles" in " ".join(result.output.split())
    assert load_network(str(path), (4, 300)).input_shape == (4, 300)
    result = CliRunner().invoke(main, ["info", str(path), "--shape", "x"])
    assert result.exit_code == 2
    assert "--shape must be positive" in result.output + result.stderr
