"""Write the notebooks from their cells below: python notebooks/make.py"""

from __future__ import annotations

from pathlib import Path

import nbformat

FIRST_LOOK = [
    """# What does a multi-level RRAM chip cost in accuracy, and how much comes back?

This notebook opens the archive that `make run` leaves (`results/reference.h5`). Where there is none, it makes
a small one on the digits data set in some seconds.""",
    """%matplotlib inline
from pathlib import Path

import rramsim
from finetune import load_experiment, run_experiment

root = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "examples").is_dir())
path = root / "results" / "reference.h5"
if not path.exists():
    path = root / "results" / "quick.h5"
    run_experiment(load_experiment(root / "examples" / "quick.toml"), path)
archive = rramsim.open_archive(path)
print(archive.attributes["network"], "on", archive.attributes["dataset"], "-", archive.n_trials, "chips")""",
    """## Accuracy by stage

Every stage starts from the same chips, reset. `mapped` is the plain one-shot write; the strategies after it
see only what the chip answers. The dashed line is the digital network.""",
    """from finetune.study import plot

plot.accuracy_figure(archive)""",
    """table = archive.table()
table.groupby("stage", sort=False)[["accuracy", "gap", "writes_per_cell"]].agg(["mean", "min"])""",
    """## What the cells look like

Each colour is one level target. Where neighbours overlap, a weight lands on another value than was meant.""",
    "plot.levels_figure(archive)",
    """## Where the damage is

Error power over signal power of each layer's outputs, against the digital network.""",
    "plot.layers_figure(archive)",
    """## What recovery costs

Reads of the arrays by the tuning, and writes per cell, the first programming included.""",
    "plot.recovery_figure(archive)",
    """## Which classes suffer""",
    "plot.confusion_figure(archive)",
    """## Answer""",
    """best = max(archive.stages[1:], key=lambda stage: archive.accuracy(stage).mean())
gain = rramsim.compare(archive.accuracy(best), archive.accuracy("mapped"))
mapped, tuned = archive.accuracy("mapped").mean(), archive.accuracy(best).mean()
print(
    f"The digital network reaches {archive.teacher_accuracy:.2%}, the mapped chips {mapped:.2%} on average. "
    f"'{best}' brings them to {tuned:.2%}, a gain of {100 * gain.mean:.2f} points "
    f"(95 % interval {100 * gain.low:.2f} to {100 * gain.high:.2f}, {gain.n} chips)."
)""",
]


def build(cells: list[str]) -> nbformat.NotebookNode:
    """Text cells begin with #, code cells do not."""
    notebook = nbformat.v4.new_notebook()
    for index, text in enumerate(cells):
        is_text = text.startswith("#")
        make = nbformat.v4.new_markdown_cell if is_text else nbformat.v4.new_code_cell
        notebook.cells.append(make(text, id=f"cell-{index}"))
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return notebook


if __name__ == "__main__":
    nbformat.write(build(FIRST_LOOK), Path(__file__).with_name("first_look.ipynb"))
