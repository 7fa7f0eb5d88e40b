"""The installed command in an empty directory, far from the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.study.archive import open_archive

CONFIG = """
[experiment]
chips = 2
dataset = "digits"
network = "cnn_digits"
n_calibration = 64

[cells]
preset = "milo_ihp_2021"

[mapping]
kind = "reference"

[tuning]
strategies = ["lsq.affine"]
"""


@pytest.fixture
def command() -> list[str]:
    """The console script beside this interpreter; the module where the package is not installed."""
    script = shutil.which("rramsim", path=str(Path(sys.executable).parent))
    return [script] if script else [sys.executable, "-m", "finetune.study.cli"]


def test_a_whole_experiment(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(CONFIG, encoding="utf-8")
    # PYTHONPATH may be relative to the checkout
    path = os.pathsep.join(
        str(Path(entry).resolve()) for entry in sys.path if entry and "site-packages" not in entry
    )
    environment = {**os.environ, "PYTHONPATH": path}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=300
        )

    result = call("run", "mine.toml", "--workers", "2", "--seed", "5")
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout + result.stderr, "no colours where there is no terminal"
    lines = sorted(result.stderr.splitlines())
    assert len(lines) == 2, result.stderr
    for chip, line in zip((100, 101), lines, strict=True):
        assert re.fullmatch(rf"chip {chip}: mapped \d+\.\d\d %, lsq\.affine \d+\.\d\d %", line)
    assert "archive: results/mine.h5" in result.stdout
    archive = open_archive(tmp_path / "results" / "mine.h5")
    assert archive.n_trials == 2
    assert archive.attributes["seed"] == 5
    assert (tmp_path / "results" / "mine" / "accuracy.png").is_file()
    again = call("run", "mine.toml", "--seed", "5", "--no-figures")
    assert again.returncode == 0
    assert again.stderr == "", "nothing was left to do"
    refused = call("run", "mine.toml", "--seed", "6")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: results/mine.h5: holds another experiment")
    assert refused.stderr.count("\n") == 1
