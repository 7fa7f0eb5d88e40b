"""Fixtures that several parts of the suite share."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.study.archive import Archive
from finetune.study.config import ExperimentConfig, load_experiment
from finetune.study.runner import run_experiment

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def quick() -> ExperimentConfig:
    """The experiment of seconds."""
    return load_experiment(ROOT / "examples" / "quick.toml")


@pytest.fixture(scope="session")
def quick_archive(quick: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Its archive, made by one worker."""
    return run_experiment(quick, tmp_path_factory.mktemp("quick") / "quick.h5")


@pytest.fixture(autouse=True)
def _width_of_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as off a terminal, whatever another test's library has put into the environment."""
    monkeypatch.delenv("COLUMNS", raising=False)
