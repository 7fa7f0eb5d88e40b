"""The command `cost`, the bill of archives and the break-even with write-verify."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from finetune.study.archive import Archive
from finetune.study.bill import (
    StageBill,
    VerifyCost,
    break_even,
    config_of,
    image_bill,
    network_bill,
    stage_bills,
    verify_cost,
)
from finetune.study.cli import main
from rramsim import (
    CellsConfig,
    ChipConfig,
    Deployment,
    SimulatedChip,
    layer_shapes,
    load_dataset,
    load_teacher,
)
from rramsim.chip.bill import PARTS

RTOL = 1e-9


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return str(result.output)


def test_command_writes_what_it_prints(tmp_path: Path) -> None:
    file, drawing = tmp_path / "cost.json", tmp_path / "cost.png"
    text = invoke("cost", "cnn_digits", "--tile", "64", "--json", str(file), "--plot", str(drawing))
    bill = json.loads(file.read_text())
    assert "energy unknown" in text  # the preset generic has no energy of a pulse
    assert bill["programming"]["joules"] is None
    assert drawing.stat().st_size > 1000
    layers, image = bill["layers"], bill["image"]
    for part in PARTS:
        assert image["parts"][part] == pytest.approx(sum(layer[part] for layer in layers), rel=RTOL)
    assert image["joules"] == pytest.approx(sum(image["parts"].values()) + image["host_joules"], rel=RTOL)
    assert image["seconds"] == pytest.approx(sum(layer["seconds"] for layer in layers), rel=RTOL)
    assert image["parts"]["cells"] > 0
    assert json.loads(invoke("cost", "cnn_digits", "--tile", "64", "--json")) == bill


def test_command_takes_a_preset() -> None:
    bill = json.loads(invoke("cost", "cnn_digits", "--preset", "yao_2020", "--json"))
    programming = bill["programming"]
    assert programming["joules"] == pytest.approx(6e-12 * programming["pulses"], rel=RTOL)
    conversions = sum(layer["conversions"] for layer in bill["layers"])
    assert bill["image"]["parts"]["adc"] == pytest.approx(2.55e-12 * conversions, rel=RTOL)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--tile", "a"), "--tile"),
        (("--tile", "1,2,3"), "--tile"),
        (("--preset", "yoa_2020"), "yao_2020"),
        (("--dataset", "fashion_mnist"), "takes inputs"),
    ],
)
def test_command_refuses_in_one_line(arguments: tuple[str, ...], text: str) -> None:
    result = CliRunner().invoke(main, ("cost", "cnn_digits", *arguments))
    assert result.exit_code == 2
    assert text in result.output
    assert result.output.count("\n") == 1


def test_network_bill_counts_what_reading_an_image_charges() -> None:
    network, images = load_teacher("cnn_digits"), load_dataset("digits")["calibration"].images[:5]
    chip = SimulatedChip(ChipConfig(), layer_shapes(network))
    deployment = Deployment(network, chip)
    deployment.map(images)
    bills = image_bill(deployment, images)
    before = chip.ledger
    deployment.run(images)
    after = chip.ledger
    for layer, (bill, vectors) in bills.items():
        spent = after.layers[layer].conversions - before.layers[layer].conversions
        assert spent == 5 * vectors * bill.conversions
        assert (
            after.layers[layer].array_reads - before.layers[layer].array_reads
            == 5 * vectors * bill.array_reads
        )


def test_copies_of_pulses_and_area_follow_the_ledger() -> None:
    network, images = load_teacher("cnn_digits"), load_dataset("digits")["calibration"].images[:5]
    bill = network_bill(network, ChipConfig(cells=CellsConfig(preset="yao_2020")), images)
    assert bill.write_joules == pytest.approx(6e-12 * bill.pulses)
    assert bill.macs == sum(r["vectors"] * r["rows"] * r["columns"] for r in bill.rows)
    assert 0 < bill.utilisation < 1


def test_archive_holds_the_bill(quick_archive: Archive) -> None:
    bills = stage_bills(quick_archive)
    assert [bill.stage for bill in bills] == quick_archive.stages
    assert bills[0].read_joules == 0.0  # mapping reads nothing
    assert all(math.isnan(bill.write_joules) for bill in bills)  # unknown, not 0
    assert all(bill.read_joules > 0 for bill in bills[1:])
    for bill in bills:
        assert bill.image_joules == pytest.approx(sum(bill.image_parts.values()), rel=RTOL)
    columns = quick_archive.columns()
    mean = columns["image_joules"].reshape(quick_archive.n_trials, -1).mean(axis=0)
    np.testing.assert_allclose(mean, [bill.image_joules for bill in bills], rtol=RTOL)
    assert np.isnan(columns["joules"]).all()
    text = invoke("report", str(quick_archive.path), "--no-figures")
    for words in ("energy and time of tuning", "unknown", "write-verify"):
        assert words in text


def stage(**changes: float) -> StageBill:
    base = StageBill(
        stage="s", accuracy=0.9, pulses=100.0, conversions=1000.0, cell_writes=100.0, read_joules=1e-9,
        write_joules=math.nan, seconds=1.0, image_joules=1.0, image_seconds=1.0, image_parts={},
    )  # fmt: skip
    return replace(base, **changes)


def test_break_even_by_hand() -> None:
    verify = VerifyCost(pulses=300.0, conversions=400.0, seconds=1.0, failed=0.0)
    # tuning reads 1 nJ, verify 400 x 1 pJ = 0.4 nJ; it saves 200 pulses: 0.6 nJ / 200 = 3 pJ
    assert break_even(stage(), verify, 1e-12) == pytest.approx(3e-12)
    assert break_even(stage(read_joules=1e-10), verify, 1e-12) == 0.0
    assert break_even(stage(pulses=400.0), verify, 1e-12) == math.inf


def test_write_verify_costs_what_cells_say(quick_archive: Archive) -> None:
    config = config_of(quick_archive)
    cost = verify_cost(config, 1000)
    assert cost.pulses > 1000
    assert cost.conversions == cost.pulses + 1000
    programming = config.cells.programming
    seconds = cost.pulses * (programming.t_pulse + programming.t_verify) + 1000 * programming.t_verify
    assert cost.seconds == pytest.approx(seconds)


def test_command_takes_an_experiment(tmp_path: Path) -> None:
    """Its chip and its images: with the same chip, the digits network costs what its name alone gives."""
    file = tmp_path / "x.toml"
    file.write_text(
        "[experiment]\ndataset = 'digits'\nnetwork = 'cnn_digits'\nn_calibration = 32\n"
        "[mapping]\ntile_rows = 32\n"
    )
    result = CliRunner().invoke(main, ["cost", str(file), "--json"])
    assert result.exit_code == 0, result.output
    named = CliRunner().invoke(main, ["cost", "cnn_digits", "--tile", "32,128", "--json"])
    mine, other = json.loads(result.stdout), json.loads(named.stdout)
    counts = [[(row["arrays"], row["conversions"]) for row in bill["layers"]] for bill in (mine, other)]
    assert counts[0] == counts[1]
