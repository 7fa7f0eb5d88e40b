"""What objects say of themselves when printed, and as tables and labelled arrays."""

from __future__ import annotations

import numpy as np

from finetune.study.archive import Archive, open_study
from rramsim import ChipConfig, Deployment, SimulatedChip, layer_shapes, load_teacher, solve_crossbar


def test_a_network_prints_its_layers() -> None:
    network = load_teacher("cnn_digits")
    text = str(network)
    assert text == network.summary()
    for node in network.nodes:
        assert node.name in text
    n_weights = sum(node.parameters["weight"].size for node in network.nodes if "weight" in node.parameters)
    assert f"{n_weights:,} weights" in repr(network)
    assert "\n" not in repr(network)
    last = next(line for line in text.splitlines() if line.startswith(network.mapped[-1]))
    assert "(10,)" in last
    assert last.endswith("chip")


def test_chips_and_deployments_say_where_they_stand() -> None:
    network = load_teacher("cnn_digits")
    chip = SimulatedChip(ChipConfig(), layer_shapes(network), seed=0, chip=7)
    deployment = Deployment(network, chip)
    assert "0 of 3 layers written" in repr(deployment)
    deployment.map(np.zeros((4, 1, 8, 8), dtype=np.float32) + np.linspace(0, 1, 8, dtype=np.float32))
    assert "3 of 3 layers written" in repr(deployment)
    assert "SimulatedChip 7 of seed 0: 3 layers" in repr(chip)
    assert f"{chip.ledger.total.cell_writes:,} cell writes" in repr(chip)


def test_archives_print_their_result(quick_archive: Archive) -> None:
    text, page = repr(quick_archive), quick_archive._repr_html_()
    for stage in quick_archive.stages:
        mean = f"{100 * quick_archive.accuracy(stage).mean():.2f}"
        assert f"{stage} {mean} %" in text
        assert f"<td>{stage}</td><td>{mean}</td>" in page
    assert "1 conditions" in repr(open_study(quick_archive.path))


def test_a_solution_as_labelled_arrays() -> None:
    g, v = np.full((3, 2), 4e-5), np.array([[0.2, 0.1, 0.0], [0.1, 0.1, 0.1]])
    solution = solve_crossbar(g, v, r_word=2.0, r_bit=2.0)
    data = solution.to_xarray()
    assert dict(data.sizes) == {"vector": 2, "word_line": 3, "bit_line": 2}
    assert np.array_equal(data.i_cell.sum("word_line"), solution.i_cell.sum(axis=1))
    assert np.array_equal(data.i_out, solution.i_out)
    assert {name: data[name].units for name in ("v_cell", "i_in", "power_cell")} == {
        "v_cell": "V",
        "i_in": "A",
        "power_cell": "W",
    }
    assert "2 input vectors on 3 x 2 cells" in repr(solution)
