"""Ages: reads and retention time, with and without maintenance; what does nothing says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from finetune.study.archive import open_archive
from finetune.study.cli import main
from finetune.study.config import ExperimentConfig, load_experiment, unread_of_experiment
from finetune.study.materials import Materials, TeacherWarning
from finetune.study.plot import FIGURES
from finetune.study.results import plain_stage, split_stage
from finetune.study.runner import run_experiment
from rramsim.checks import InputError, NoEffectWarning
from rramsim.chip.simulated import SimulatedChip
from rramsim.config import parse

DRIFTING = """
[experiment]
chips = 1
dataset = "digits"
network = "cnn_digits"
n_calibration = 64
n_layer_images = 0
[cells]
sigma = 0.2
[cells.drift]
law = "power"
mean_polynomial = [0.03]
sigma_polynomial = [0.05]
[tuning]
strategies = ["lsq.affine"]
[lifetime]
seconds = [1e3, 1e8]
maintenance = "lsq.affine"
"""


def load(tmp_path: Path, text: str) -> ExperimentConfig:
    path = tmp_path / "life.toml"
    path.write_text(text, encoding="utf-8")
    return load_experiment(path)


def test_retention_wears_and_maintenance_mends(tmp_path: Path) -> None:
    """Power-law drift with spread exponents; seed 0, one chip, differences above 10 points."""
    config = load(tmp_path, DRIFTING)
    out = tmp_path / "life.h5"
    archive = run_experiment(config, out, workers=1)
    ages = ("", " + 1000 s", " + 1e+08 s", " + 1000 s maintained", " + 1e+08 s maintained")
    assert archive.stages == [method + age for method in ("mapped", "lsq.affine") for age in ages]
    tuned = [float(archive.accuracy("lsq.affine" + age)[0]) for age in ages]
    assert tuned[2] < tuned[0] - 0.1  # eleven decades of drift
    assert tuned[4] > tuned[2] + 0.1
    # the aged copies leave the tuned chip and one another alone
    assert archive.cost("vectors", "lsq.affine + 1e+08 s") == archive.cost("vectors", "lsq.affine")
    assert archive.cost("vectors", "lsq.affine + 1e+08 s maintained") > archive.cost("vectors", "lsq.affine")
    result = CliRunner().invoke(main, ["compare", str(out), "--by", "age"])
    assert result.exit_code == 0, result.output
    assert "1e+08 s maintained" in result.output
    figure = FIGURES["lifetime"](archive, tmp_path / "lifetime.png")
    assert figure.axes[0].get_xlabel().startswith("time since tuning (s)")
    assert len(figure.legends[0].get_texts()) == 4  # two methods, each left alone and maintained
    report = CliRunner().invoke(main, ["report", str(out), "--out", str(tmp_path / "figures")])
    assert (tmp_path / "figures" / "lifetime.png").exists(), report.output
    assert "images: pixels / 16, less" in report.output
    assert open_archive(out).attributes["images"].startswith("pixels / 16")


def test_names_of_aged_stages() -> None:
    assert split_stage("lsq.affine + 1e+08 s maintained") == ("lsq.affine", "1e+08 s maintained")
    assert plain_stage("lsq.affine + 1e+08 s maintained") == "mapped + 1e+08 s"
    assert plain_stage("lsq.affine") == "mapped"


@pytest.mark.parametrize(
    "table, message",
    [
        ("seconds = [1.0]", "needs cells that change with time"),
        ("reads = [1.0]", "needs a read-disturb law"),
        ("maintenance = 'lsq.affine'", "needs ages"),
        ("seconds = [2.0, 1.0]", "must be positive and ascend"),
        ("seconds = [1.0000001, 1.0000002]", "differ in their first six digits"),
        ("maintenance = 'lsq.afine'\nseconds = [1.0]", "did you mean"),
    ],
)
def test_lifetimes_that_cannot_be_are_refused(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, f"[lifetime]\n{table}\n")


def test_waiting_without_a_law_of_time_says_so(quick: ExperimentConfig) -> None:
    chip = SimulatedChip(quick.chip_config(), {"fc": (4, 3)})
    with pytest.warns(NoEffectWarning, match=r"wait\(3.15576e\+07\) changes nothing"):
        chip.wait(365.25 * 86400)
    chip.wait(0.0)  # nothing is expected of no time


def test_every_setting_of_a_chip_can_be_set_from_toml(tmp_path: Path) -> None:
    """`state_tolerance` stood in `ChipConfig` alone, so that no file could set it."""
    config = load(tmp_path, "state_tolerance = 1e-2\n[wires]\nr_word = 1.0\n")
    assert config.chip_config().state_tolerance == 1e-2
    assert load(tmp_path, config.to_toml()) == config
    with pytest.raises(InputError, match="state_tolerance"):
        load(tmp_path, "state_tolerance = -1.0\n")


def test_a_teacher_far_below_its_promise_is_noticed(quick: ExperimentConfig) -> None:
    """Images given in another scale than the network was trained with."""
    materials = Materials.load(quick)
    outputs = materials.network.run(materials.test.images)
    materials.warn_of_teacher(outputs)  # right images: no warning
    table = {"dataset": "digits", "network": "cnn_digits", "n_calibration": 64, "mean": 0.0, "std": 60.0}
    wrong = Materials.load(parse(ExperimentConfig, {"experiment": table}))
    with pytest.warns(TeacherWarning, match="pixels / 16, less 0, over 60; set experiment.mean"):
        wrong.warn_of_teacher(wrong.network.run(wrong.test.images))
    with pytest.warns(TeacherWarning, match="no better than chance"):
        materials.warn_of_teacher(np.roll(outputs, 1, axis=0)[::-1] * 0.0)


def test_an_experiment_says_what_nothing_reads(tmp_path: Path) -> None:
    """A law of time without time, and the settings of a write-verify that is not chosen."""
    config = load(
        tmp_path,
        "[cells.drift]\nlaw = 'power'\nmean_polynomial = [0.01]\n[cells.programming]\nwindow = 2e-6\n",
    )
    drift, window = sorted(unread_of_experiment(config), key=lambda text: "window" in text)
    assert "set lifetime.seconds" in drift
    assert window == (
        "cells.programming.window has no effect: it needs cells.programming.method = 'write_verify'"
    )
    assert not unread_of_experiment(load(tmp_path, DRIFTING))
