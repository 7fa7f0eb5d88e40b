"""Notebooks run from top to bottom and are what their script writes."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ANSWERS = {  # figures at least, and the words of the last sentence
    "first_look": (5, "The digital network reaches"),
    "from_a_study_to_a_figure": (1, "Tuning by 'lsq.rewrite' pays"),
    "from_measured_cells": (3, "Chips of these cells are"),
    "inside_an_array": (1, "Bit lines lose"),
    "what_the_tuner_does": (1, "The tuner brought the chip from"),
    "your_network_data_and_chip": (2, "Yes. The network reaches"),
}
LARGEST_OUTPUT = 250_000  # bytes of a stored figure, base64


@pytest.mark.filterwarnings("default")  # of the notebook machinery, not of this project
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `make run` has not been, so the notebook makes its own archive."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    images = sum("image/png" in output.get("data", {}) for output in outputs)
    text = "".join(output.get("text", "") for output in outputs)
    n_images, answer = ANSWERS[path.stem]
    assert images >= n_images
    assert answer in text


def test_notebook_is_what_its_script_writes() -> None:
    import importlib.util

    nbformat = pytest.importorskip("nbformat")
    spec = importlib.util.spec_from_file_location("make", ROOT / "notebooks" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    assert {path.stem for path in NOTEBOOKS} == set(make.NOTEBOOKS)
    for path in NOTEBOOKS:
        stored = nbformat.read(path, as_version=4)
        assert [cell.source for cell in stored.cells] == make.NOTEBOOKS[path.stem]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_with_outputs(path: Path) -> None:
    """Every code cell was run, in order, without a message to stderr, and tells nothing of the machine."""
    nbformat = pytest.importorskip("nbformat")
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    images = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(images) >= ANSWERS[path.stem][0]
    assert max(map(len, images)) < LARGEST_OUTPUT
    texts = [output.get("text", "") + str(output.get("data", {}).get("text/plain", "")) for output in outputs]
    assert ANSWERS[path.stem][1] in texts[-1]
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|usr|work|Users)/|[A-Z]:\\\\", "".join(texts))
