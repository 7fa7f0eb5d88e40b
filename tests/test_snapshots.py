"""States of tuned chips: a run that was put away and taken up again equals one that was never interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from finetune.study.archive import Archive
from finetune.study.cli import main
from finetune.study.config import load_experiment
from finetune.study.continuing import continue_chip
from finetune.study.runner import run_experiment
from finetune.study.snapshots import load_snapshot, save_snapshot, snapshot_path
from rramsim.checks import InputError

BASE = """
[experiment]
chips = 1
dataset = "digits"
network = "cnn_digits"
n_calibration = 32
n_test = 120
n_layer_images = 0

[cells]
sigma = 0.3

[cells.drift]
law = "power"
mean_polynomial = [0.05]
sigma_polynomial = [0.05]
fixed_fraction = 1.0

[disturb]
law = "power"

[tuning]
strategies = ["lsq.affine", "lsq.affine + zo"]
"""
LIFE = """
[lifetime]
seconds = [1e3, 1e8]
reads = [1e5, 1e9]
maintenance = "lsq.affine"
"""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("unbroken")
    (folder / "life.toml").write_text(BASE + LIFE)
    return run_experiment(load_experiment(folder / "life.toml"), folder / "life.h5")


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `rramsim run --save-chips` stores, from a run without a lifetime."""
    folder = tmp_path_factory.mktemp("stored")
    (folder / "life.toml").write_text(BASE)
    result = CliRunner().invoke(
        main,
        ["run", str(folder / "life.toml"), "--out", str(folder / "life.h5"), "--no-figures", "-q",
         "--save-chips", str(folder / "chips")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "states of 3 chips and methods" in result.stderr
    assert "missing" not in result.stderr
    return folder / "chips"


def predictions(archive: Archive, stage: str) -> np.ndarray:
    return archive["trial/predictions"][0, archive.stages.index(stage)]


def test_next_weeks_chip_is_that_of_an_unbroken_run(unbroken: Archive, states: Path, tmp_path: Path) -> None:
    first = snapshot_path(states, 100, "lsq.affine")
    now = continue_chip(first)
    assert np.array_equal(now.predictions, predictions(unbroken, "lsq.affine"))
    later = continue_chip(first, seconds=1e3, save=tmp_path / "later")
    assert np.array_equal(later.predictions, predictions(unbroken, "lsq.affine + 1000 s"))
    assert not np.array_equal(later.predictions, now.predictions)
    # put away once more, then the rest of the time
    again = continue_chip(snapshot_path(tmp_path / "later", 100, "lsq.affine"), seconds=1e8 - 1e3)
    assert np.array_equal(again.predictions, predictions(unbroken, "lsq.affine + 1e+08 s"))
    costs = again.life.chip.ledger.total
    assert costs.vectors == unbroken.cost("vectors", "lsq.affine + 1e+08 s")[0]


@pytest.mark.parametrize("unit", ["reads", "s"])
def test_reads_and_maintenance_go_on_too(unbroken: Archive, states: Path, tmp_path: Path, unit: str) -> None:
    ages = (1e5, 1e9) if unit == "reads" else (1e3, 1e8)
    path, name = snapshot_path(states, 100, "lsq.affine"), "reads" if unit == "reads" else "seconds"
    for before, age in zip((0.0, ages[0]), ages, strict=True):
        step = continue_chip(path, maintain="lsq.affine", save=tmp_path, **{name: age - before})
        stage = f"lsq.affine + {age:g} {unit} maintained"
        assert np.array_equal(step.predictions, predictions(unbroken, stage)), stage
        path = snapshot_path(tmp_path, 100, "lsq.affine")


def test_tuning_goes_on_from_the_stored_tuner(unbroken: Archive, states: Path) -> None:
    longer = "lsq.affine + zo"
    found = continue_chip(snapshot_path(states, 100, "lsq.affine"), strategy=longer)
    assert np.array_equal(found.predictions, predictions(unbroken, longer))
    assert found.life.chip.ledger.total.cell_writes == unbroken.cost("cell_writes", longer)[0]
    with pytest.raises(InputError, match="mapped and not tuned"):
        continue_chip(snapshot_path(states, 100, "mapped"), strategy=longer)
    with pytest.raises(InputError, match="does not begin with"):
        continue_chip(snapshot_path(states, 100, "lsq.affine"), strategy="batch_norm")


def test_the_command(states: Path, unbroken: Archive, tmp_path: Path) -> None:
    arguments = ["continue", str(states), "--wait", "1e3", "--json", "--csv", str(tmp_path / "rows.csv")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert {row["method"]: row["accuracy"] for row in rows} == {
        method: unbroken.accuracy(f"{method} + 1000 s")[0]
        for method in ("mapped", "lsq.affine", "lsq.affine + zo")
    }
    assert "1000 s" in CliRunner().invoke(main, ["continue", str(states), "--wait", "1000"]).stdout


def test_states_keep_kinds_and_are_refused_where_damaged(tmp_path: Path) -> None:
    array = np.arange(2000, dtype=np.int16).reshape(40, 50)
    state = {
        "a": array, "same": array.copy(), "f": np.float32(0.1), "text": np.array(["é", "abc"]),
        3: (1, [None, True]), "nan": float("nan"), "inf": float("inf"), "empty": np.zeros((0, 3)),
        "big": 2**70, "scalar": np.array(7.0),
    }  # fmt: skip
    path = save_snapshot(tmp_path / "s.h5", state)
    found = load_snapshot(path)
    assert found.keys() == state.keys()
    for key, value in state.items():
        assert type(found[key]) is type(value), key
        if isinstance(value, np.ndarray | np.generic):
            assert found[key].dtype == value.dtype
            assert np.array_equal(found[key], value)
    assert found[3] == (1, [None, True])
    assert np.isnan(found["nan"])
    assert (found["inf"], found["big"]) == (float("inf"), 2**70)
    with pytest.raises(TypeError, match="no place in a file"):
        save_snapshot(tmp_path / "bad.h5", {"a": {1, 2}})
    assert not list(tmp_path.glob("bad*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="checksum is wrong"):
        load_snapshot(path)
    with pytest.raises(InputError, match="no such file"):
        load_snapshot(tmp_path / "absent.h5")
