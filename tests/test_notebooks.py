"""Notebooks run from top to bottom and are what their script writes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ANSWERS = {  # figures at least, and the words of the last sentence
    "first_look": (5, "The digital network reaches"),
    "inside_an_array": (1, "Bit lines lose"),
    "what_the_tuner_does": (1, "The tuner brought the chip from"),
}


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
