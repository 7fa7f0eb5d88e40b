"""`rramsim config`, files beside a TOML file, `python -m rramsim`, completion, rows as JSON and CSV."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner, Result

from finetune.study.archive import Archive
from finetune.study.cli import main
from finetune.study.config import ExperimentConfig, default_experiment, experiment_from, load_experiment
from finetune.study.describe import annotated_toml, json_schema, setting_rows
from finetune.study.materials import Materials
from finetune.study.paths import PathWarning
from rramsim.chip.converters import ConverterConfig, ConverterErrors
from rramsim.config import describe
from rramsim.datasets import load_teacher

ROOT = Path(__file__).resolve().parent.parent
QUICK = ROOT / "examples" / "quick.toml"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", ["", "quick.toml", "full.toml", "preset"])
def test_the_printed_settings_are_the_experiment(name: str, tmp_path: Path) -> None:
    if name == "preset":  # constants of a law, a table that is absent by default, lists of numbers
        config = experiment_from(
            tomllib.loads(
                '[cells]\npreset = "milo_ihp_2021"\n[disturb]\nlaw = "power"\nmode = "exact"\n'
                '[converters.errors]\nadc_gain = 0.02\n[tuning]\nstrategies = ["default"]\n'
            ),
            tmp_path / "preset.toml",
        )
    else:
        config = load_experiment(ROOT / "examples" / name) if name else default_experiment()
    text = annotated_toml(config)
    again = experiment_from(tomllib.loads(text), tmp_path / "again.toml")
    assert again == config
    assert again.digest == config.digest
    for about in describe(ExperimentConfig):  # every setting is there with its meaning
        if about.type != "table":
            assert about.description in text
            assert any(
                line.removeprefix("# ").startswith((about.key.rpartition(".")[2], f"[{about.key}]"))
                for line in text.splitlines()
            ), about.key


def test_config_prints_checks_and_tells_what_was_changed(tmp_path: Path) -> None:
    printed = call("config", QUICK)
    assert printed.exit_code == 0
    path = tmp_path / "printed.toml"
    path.write_text(printed.stdout)
    assert load_experiment(path) == load_experiment(QUICK)
    assert "sigma = 0.5" in printed.stdout
    assert "CHANGED, default: none" in printed.stdout
    changed = call("config", QUICK, "--changed").stdout
    assert "cells.sigma = 0.5" in changed
    assert "wires" not in changed
    assert json.loads(call("config", "--json").stdout)["experiment"]["network"] == "resnet8_fashion"
    good = call("config", "--check", QUICK)
    assert good.exit_code == 0
    assert "good; 1 experiment, 2 trials" in good.stdout
    sweep = tmp_path / "grid.toml"
    sweep.write_text(QUICK.read_text() + "[sweep]\n'cells.sigma' = [0.1, 0.2]\n")
    assert "good; 2 combinations, 4 trials" in call("config", "--check", sweep).stdout
    sweep.write_text(QUICK.read_text() + "[lifetime]\nseconds = [1.0]\n")
    refused = call("config", "--check", sweep)
    assert refused.exit_code == 2
    assert "cells that change with time" in refused.stderr
    sweep.write_text("[experiment]\ndataset = 'digits'\n")  # each is good alone, but they do not fit
    assert "takes images" in call("config", sweep, "--check").stderr
    assert call("config", "--check").exit_code == 2


def test_rows_of_settings_know_their_defaults() -> None:
    config = dataclasses.replace(
        ExperimentConfig(), converters=ConverterConfig(errors=ConverterErrors(adc_gain=0.01))
    )
    assert [row.key for row in setting_rows(config) if not row.is_default] == ["converters.errors.adc_gain"]
    assert not [row.key for row in setting_rows(ExperimentConfig()) if not row.is_default]


def test_the_schema_takes_good_files_and_refuses_bad_ones() -> None:
    schema = json_schema()
    assert json.loads(call("config", "--schema").stdout) == schema
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    files = [
        *ROOT.glob("examples/*.toml"),
        *ROOT.glob("studies/*.toml"),
        ROOT / "finetune/study/default.toml",
    ]
    assert len(files) > 6
    for file in files:
        check.validate(tomllib.loads(file.read_text()))
    check.validate(tomllib.loads(annotated_toml(default_experiment())))
    for bad in (
        {"wires": {"r_wrod": 2.5}},
        {"wires": {"r_word": -1.0}},
        {"wires": {"r_word": "2.5 ohm"}},
        {"converters": {"drive": "unipolar"}},
        {"cells": {"programming": {"n_pulses_max": 0}}},
        {"wire": {}},
    ):
        assert not check.is_valid(bad), bad
    for name, part in schema["$defs"].items():
        for key, entry in part["properties"].items():
            assert "description" in entry or "$ref" in entry or "anyOf" in entry, f"{name}.{key}"


def write_study(folder: Path) -> Path:
    """A folder with an experiment, its network, data set and preset, named by the file without a path."""
    folder.mkdir(parents=True)
    load_teacher("cnn_digits").save(folder / "mine.h5")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 1, 8, 8), dtype=np.uint8)
    labels = np.arange(200) % 10
    np.savez(folder / "mine.npz", images=images, labels=labels, test_images=images, test_labels=labels)
    shutil.copy(ROOT / "rramsim" / "presets" / "milo_ihp_2021.toml", folder / "device.toml")
    config = folder / "study.toml"
    config.write_text(
        "[experiment]\nnetwork = 'mine.h5'\ndataset = 'mine.npz'\nn_calibration = 16\n"
        "[cells]\npreset = 'device.toml'\n"
    )
    return config


def test_files_are_looked_for_beside_the_toml_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_study(tmp_path / "a" / "b")
    digests = set()
    for here, text in ((tmp_path, "a/b/study.toml"), (config.parent, "study.toml"), (Path("/"), str(config))):
        monkeypatch.chdir(here)
        loaded = load_experiment(text)
        assert Materials.load(loaded).network.input_shape == (1, 8, 8)
        digests.add(loaded.digest)
    assert len(digests) == 1  # the same experiment, from wherever it is called


def test_the_working_directory_is_the_fallback_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_study(tmp_path / "nets")
    moved = tmp_path / "elsewhere" / "study.toml"
    moved.parent.mkdir()
    shutil.move(config, moved)
    monkeypatch.chdir(tmp_path / "nets")
    with pytest.warns(PathWarning, match="found in the working directory, not beside"):
        loaded = load_experiment(moved)
    assert Materials.load(loaded).network.input_shape == (1, 8, 8)
    (tmp_path / "nets" / "mine.h5").unlink()
    result = call("config", "--check", moved)
    assert result.exit_code == 2
    assert "warning: device.toml was found in the working directory" in result.stderr
    assert "mine.h5: no such file" in result.stderr


def test_another_experiments_archive_says_what_differs(quick_archive: Archive, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    shutil.copy(quick_archive.path, other)
    text = QUICK.read_text().replace("sigma = 0.5", "sigma = 0.25\nn_levels = 8")
    (tmp_path / "quick.toml").write_text(text)
    result = call("run", tmp_path / "quick.toml", "--out", other)
    assert result.exit_code == 2
    assert "cells.sigma: there 0.5, here 0.25" in result.stderr
    assert "cells.n_levels: there 16, here 8" in result.stderr
    assert "chips" not in result.stderr.replace("--", "")


def test_the_dry_run_explains_its_tiers() -> None:
    assert "LAYERS: outputs of single layers" in call("run", QUICK, "--dry-run").stdout.replace("\n", " ")


def test_python_m_rramsim_and_completion() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "rramsim", "--version"], capture_output=True, text=True, cwd=ROOT
    )
    assert found.stdout.startswith("rramsim, version")
    environment = os.environ | {
        "_RRAMSIM_COMPLETE": "bash_complete",
        "COMP_WORDS": "rramsim re",
        "COMP_CWORD": "1",
    }
    found = subprocess.run(
        [sys.executable, "-c", "from finetune.study.cli import main; main(prog_name='rramsim')"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert found.stdout.split() == ["plain,report"]


def test_rows_as_json_and_csv(quick_archive: Archive, tmp_path: Path) -> None:
    path = str(quick_archive.path)
    cases = {
        "report": ["report", path, "--no-figures"],
        "compare": ["compare", path],
        "presets": ["presets"],
        "one preset": ["presets", "milo_ihp_2021"],
        "network": ["info", "cnn_digits"],
        "map": ["info", str(QUICK)],
    }
    for name, arguments in cases.items():
        table = tmp_path / f"{name}.csv"
        result = call(*arguments, "--json", "--csv", table)
        assert result.exit_code == 0, result.output
        rows = json.loads(result.stdout)
        with table.open(newline="") as file:
            assert len(list(csv.DictReader(file))) == len(rows) > 0
    known = json.loads(call("info", "--json").stdout)
    assert "cnn_digits" in {row["network"] for row in known["networks"]}
    lines = call("watch", path, "--once", "--json").stdout.splitlines()
    assert [json.loads(line)["chip"] for line in lines] == quick_archive["trial/chip"].tolist()
    assert not call("archive", "check", "-q", path).output


@pytest.mark.parametrize(
    "text, message",
    [
        ("[cells]\nsigma = true", "cells.sigma: must be a number, got true"),
        ("[experiment]\nchips = 'two'", "experiment.chips: must be a valid integer"),
    ],
)
def test_a_value_of_another_kind_is_refused(tmp_path, text, message):
    """`true` was taken as 1.0; the key bore pydantic's name of a type behind it."""
    file = tmp_path / "x.toml"
    file.write_text(text)
    result = CliRunner().invoke(main, ["config", str(file), "--check"])
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["lenet5_fashion", "--plot", "x.png"], "--plot needs the TOML file"),
        (["x.toml", "--tile", "64,64"], "--shape and --tile are for a network"),
    ],
)
def test_info_ignores_no_option(arguments, message):
    result = CliRunner().invoke(main, ["info", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_preset_of_measured_quantiles_is_checked(tmp_path):
    """The law `empirical`, which `fit-device` writes where no other fits, was refused by run and --check."""
    (tmp_path / "mine.toml").write_text(
        "[preset]\ntitle = 'x'\n[sources]\nm = 'm'\n[cells]\nlaw = 'empirical'\n"
        "levels = { value = [1e-6, 2e-5], unit = 'S', mark = 'measured', source = 'm' }\n"
        "n_levels = { value = 2, unit = '1', mark = 'measured', source = 'm' }\n"
        "[cells.parameters]\n"
        "probabilities = { value = [0.1, 0.9], unit = '1', mark = 'measured', source = 'm' }\n"
        "conductances = { value = [[9e-7, 1.1e-6], [1.9e-5, 2.1e-5]], unit = 'S', mark = 'measured', "
        "source = 'm' }\n"
    )
    file = tmp_path / "x.toml"
    file.write_text(
        "[experiment]\ndataset = 'digits'\nnetwork = 'cnn_digits'\nn_calibration = 32\n"
        "[cells]\npreset = 'mine.toml'\n"
    )
    result = CliRunner().invoke(main, ["config", str(file), "--check"])
    assert result.exit_code == 0, result.output
