"""The README's Python runs as it stands, and its commands and files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from finetune.study.cli import main

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    mapped, tuned = (float(number) for number in re.findall(r": ([\d.]+) % right", capsys.readouterr().out))
    assert mapped < tuned <= 100.0
    assert len(code.strip().splitlines()) <= 15


def test_commands_exist() -> None:
    named = set(re.findall(r"rramsim ([a-z][a-z-]+)(?= )", TEXT)) & {
        "run",
        "report",
        "presets",
        "fit-device",
        "info",
    }
    assert named
    assert named <= set(main.commands)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`make ([a-z-]+)`", TEXT)):
        assert f"\n{target}:" in makefile


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target
