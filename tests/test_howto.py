"""How-to pages keep what they promise: from an installation to a tuned chip in under 30 lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "howto" / "all_of_it.md"
MOST_LINES = 30


def test_own_cells_network_and_data_in_under_30_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines with something on them: the installation and every line of Python that a reader types."""
    pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
    text = PAGE.read_text(encoding="utf-8")
    installs = re.findall(r"^    (pip install .*)$", text, re.M)
    shown = re.findall(r"^```python[^\n]*\n(.*?)^```", text, re.M | re.S)
    (setup,) = re.findall(r"^<!-- setup\n(.*?)^-->", text, re.M | re.S)
    assert len(installs) == len(shown) == 1
    typed = installs + [line for line in shown[0].splitlines() if line.strip()]
    assert len(typed) < MOST_LINES

    monkeypatch.chdir(tmp_path)
    exec(compile(setup, "setup", "exec"), {})  # the files of the reader; no name of it is used below
    assert {path.name for path in tmp_path.iterdir()} == {"lab.csv", "mine.npz", "net.onnx"}
    exec(compile(shown[0], PAGE.name, "exec"), {})
    printed = capsys.readouterr().out
    right = {name: float(share) for name, share in re.findall(r"^(\w+): ([\d.]+) % right$", printed, re.M)}
    assert list(right) == ["digital", "mapped", "tuned"]
    assert right["mapped"] < right["tuned"] - 5.0  # points; the measured errors cost more than 10
    assert right["tuned"] > right["digital"] - 5.0
    assert "lognormal" in printed
    sigma = re.search(r"^sigma = ([\d.]+)$", printed, re.M)
    assert sigma is not None
    assert float(sigma.group(1)) == pytest.approx(0.5, abs=0.04)  # what made the cells
