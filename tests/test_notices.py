"""What no table may be read without: shares on the chip, missed verify windows, settings without effect."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from finetune.study.archive import Archive, open_archive
from finetune.study.cli import main
from finetune.study.config import ExperimentConfig, unread_of_experiment
from finetune.study.notices import missed_share, missed_writes, notes, shares_text
from finetune.study.report import print_table
from rramsim.cell import CellsConfig, DriftConfig, EnduranceConfig, FaultsConfig, ProgrammingConfig
from rramsim.cell.pulses import likely_cause
from rramsim.chip.converters import ConverterConfig
from rramsim.network import zoo

TEXT = """
[experiment]
name = "missed"
chips = 1
dataset = "digits"
network = "cnn_digits"
n_calibration = 16
n_test = 40
n_layer_images = 0
digital = [{digital}]
[tuning]
strategies = []
[cells.programming]
method = "write_verify"
gain = 1e-4
[cells.drift]
law = "power"
mean_polynomial = [0.05]
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An archive whose writes fail, whose drift has no time, whose first layer is digital; its table."""
    from finetune.study.materials import load_network

    folder = tmp_path_factory.mktemp("missed")
    first = load_network("cnn_digits").mapped[0]
    (folder / "missed.toml").write_text(TEXT.format(digital=f'"{first}"'), encoding="utf-8")
    done = CliRunner(env={"COLUMNS": "200"}).invoke(  # narrow tables break their cells
        main, ["run", str(folder / "missed.toml"), "--out", str(folder / "m.h5"), "--no-figures", "-q"]
    )
    assert done.exit_code == 0, done.output
    return folder / "m.h5", done.output


def test_missed_windows_are_in_archive_table_and_warning(told: tuple[Path, str]) -> None:
    """Before: 91 to 93 % of the cells missed the window, accuracy near chance, and no word."""
    path, output = told
    archive = open_archive(path)
    failed, written = archive["ledger/failed_writes"][0, 0], archive["ledger/cell_writes"][0, 0]
    assert (failed / written > 0.8).all()
    table = archive.table()
    assert int(table["failed_writes"].iloc[0]) == failed.sum()
    share = failed.sum() / written.sum()
    assert missed_share(archive, "mapped") == pytest.approx(share)
    assert "missed" in output
    assert f"{100 * share:.1f} %" in output
    worst = int(np.argmax(failed / written))
    line = next(line for line in output.splitlines() if line.startswith("warning: "))
    assert line == f"warning: {missed_writes(archive)}"
    assert f"{archive['layers/name'][worst]} {100 * failed[worst] / written[worst]:.0f} %" in line
    assert "likely cause: a pulse closes 0.0001 of the remaining error, so that 50 pulses leave" in line


def test_a_law_of_time_without_time_is_noted_and_stored(told: tuple[Path, str]) -> None:
    path, output = told
    note = "cells change with time, but chips are evaluated right after tuning"
    assert any(line.startswith(f"note: {note}") for line in output.splitlines())
    assert any(text.startswith(note) for text in notes(open_archive(path)))
    cells = CellsConfig(drift=DriftConfig(law="power", mean_polynomial=(0.05,)))
    frozen = ExperimentConfig(cells=cells, converters=ConverterConfig(clock="frozen"))
    assert "no time passes at all" in unread_of_experiment(frozen)[-1]
    assert unread_of_experiment(ExperimentConfig()) == []


def test_shares_on_the_chip_are_in_every_table(
    told: tuple[Path, str], quick_archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, output = open_archive(told[0]), told[1]
    weights, macs = archive.attributes["weight_share"], archive.attributes["mac_share"]
    assert 0.0 < macs < 1.0
    assert 0.0 < weights < 1.0
    text = shares_text(archive)
    shares = f"{100 * weights:.1f} % of the weights, {100 * macs:.1f} % of the multiply-accumulates"
    assert text == f"on the chip: {shares}"
    assert " ".join(text.split()) in " ".join(output.split())
    assert archive.table()["mac_share"].tolist() == [macs]
    assert "100.0 % of the weights" in shares_text(quick_archive)
    assert missed_writes(quick_archive) == ""
    assert json.loads(quick_archive.attributes["notes"]) == []
    print_table(quick_archive)
    printed = " ".join(capsys.readouterr().out.split())
    assert "missed" not in printed
    assert "100.0 % of the weights" in printed


def test_layers_kept_digital_count_as_host() -> None:
    """By hand for LeNet-5: conv1 holds 25 x 6 weights, read at 28 x 28 positions."""
    from rramsim.host.summary import summarise

    network = zoo.lenet5()
    first = network.mapped[0]
    whole, part = summarise(network), summarise(network.with_digital([first]))
    row = next(row for row in part.layers if row.node == first)
    assert not row.on_chip
    assert row.note == "kept digital"
    assert part.host_weights == network.node(first).parameters["weight"].size
    assert part.chip_weights + part.host_weights == whole.chip_weights
    assert part.chip_macs + part.host_macs == whole.chip_macs
    assert part.host_macs == row.macs == whole.layers[0].macs


@pytest.mark.parametrize(
    ("cells", "faults", "cause"),
    [
        ({"gain": 1e-3}, {}, "raise cells.programming.gain or n_pulses_max"),
        ({"gain": 1.99, "n_pulses_max": 9}, {}, "a pulse closes 1.99 of the remaining error"),
        ({"scatter_floor": 5e-6}, {}, "every pulse scatters by 5 uS"),
        ({}, {"stuck_low_rate": 0.2}, "20.0% of the cells are stuck"),
        ({"scatter": 3.0}, {}, "widen cells.programming.window"),
    ],
)
def test_the_likely_cause_names_the_setting(
    cells: dict[str, float], faults: dict[str, float], cause: str
) -> None:
    config = CellsConfig(programming=ProgrammingConfig(method="write_verify", **cells))
    assert cause in likely_cause(config, FaultsConfig(**faults))


def test_worn_cells_are_a_cause() -> None:
    wear = EnduranceConfig(n_endurance=10.0, window_loss=0.9, cycles_before=10)
    config = CellsConfig(programming=ProgrammingConfig(method="write_verify"), endurance=wear)
    assert "worn" in likely_cause(config)
