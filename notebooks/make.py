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

INSIDE_AN_ARRAY = [
    """# How much of a read is lost on the wires of an array, and where?

An array of 64 x 64 cells with 2.5 ohm per wire segment, solved exactly; then the same as a SPICE netlist.""",
    """%matplotlib inline
from pathlib import Path

import numpy as np

from rramsim import Crossbar, WiresConfig, effective_conductance, solve_crossbar
from rramsim.circuit.plot import array_figure

rng = np.random.default_rng(0)
g = rng.uniform(1e-6, 40e-6, (64, 64))  # [S]
v = rng.uniform(0.0, 0.2, (1, 64))  # [V]
wires = WiresConfig(r_word=2.5, r_bit=2.5)
solution = solve_crossbar(g, v, r_word=2.5, r_bit=2.5)
array_figure(g, v, solution)""",
    """## Is the solution right?

Kirchhoff's laws must hold: the currents that flow in also flow out.""",
    """balance = abs(solution.i_in.sum() - solution.i_out.sum()) / solution.i_out.sum()
print(f"currents balance to {balance:.1e}")""",
    """## One matrix for every input

A linear array multiplies its inputs by an *effective matrix* that contains the wires exactly.""",
    """g_eff = effective_conductance(g, r_word=2.5, r_bit=2.5)
many = rng.uniform(-0.2, 0.2, (100, 64))
wanted = solve_crossbar(g, many, r_word=2.5, r_bit=2.5).i_out
error = np.abs(many @ g_eff - wanted).max() / np.abs(wanted).max()
print(f"largest relative difference {error:.1e}")""",
    """## The same in SPICE""",
    """Crossbar(g[:4, :4], wires).to_spice("array.cir", v[0, :4])
print(Path("array.cir").read_text()[:400])""",
    """## Answer""",
    """loss = 1 - solution.i_out[0] / (v[0] @ g)
print(f"Bit lines lose {loss.min():.1%} to {loss.max():.1%} of their current, most far from the drivers.")""",
]

WHAT_THE_TUNER_DOES = [
    """# What does the tuner do to a chip, layer by layer, and what does it cost?

One small chip with heavy programming errors, tuned with the default strategy; the history says what each
step saw and did. It never saw a conductance.""",
    """%matplotlib inline
import matplotlib.pyplot as plt
import pandas as pd

from finetune import tune
from rramsim import (
    CellsConfig,
    ChipConfig,
    Deployment,
    SimulatedChip,
    layer_shapes,
    load_dataset,
    load_teacher,
)

network, data = load_teacher("cnn_digits"), load_dataset("digits")
images, test = data["calibration"].images, data["test"]
chip = SimulatedChip(ChipConfig(cells=CellsConfig(sigma=0.6)), layer_shapes(network), seed=3)
mapped = Deployment(network, chip)
mapped.map(images)


def accuracy(deployment):
    return float((deployment.fork().run(test.images).argmax(axis=1) == test.labels).mean())


before = accuracy(mapped)
report = tune(chip, network, network, images, strategy="default", start_from=mapped)
after = accuracy(report.deployment.on(chip))
print(f"{before:.1%} before, {after:.1%} after")""",
    """## The history""",
    """history = pd.DataFrame(report.history)
history[["layer", "step", "vectors", "cell_writes", "error"]].dropna(subset=["error"])""",
    """## Error of each layer's outputs after its last step

Error power over signal power, as the step itself measured it on the chip's own outputs.""",
    """last = history.dropna(subset=["error"]).groupby("layer", sort=False)["error"].last()
figure, axis = plt.subplots(figsize=(3.5, 2.6), layout="constrained")
axis.bar(last.index, 100 * last.values, color="#0072B2")
axis.set(ylabel="error power / signal power (%)", title="After tuning")
figure""",
    """## Costs""",
    """total = report.ledger.total
print(f"{report.vectors:,} vectors, {total.conversions:,} conversions")
print(f"{report.writes_per_cell:.2f} writes per cell")""",
    """## Answer""",
    """print(
    f"The tuner brought the chip from {before:.1%} to {after:.1%} of the test images with "
    f"{report.vectors:,} reads of a layer and {report.writes_per_cell:.2f} writes per cell."
)""",
]

NOTEBOOKS = {
    "first_look": FIRST_LOOK,
    "inside_an_array": INSIDE_AN_ARRAY,
    "what_the_tuner_does": WHAT_THE_TUNER_DOES,
}


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
    for name, cells in NOTEBOOKS.items():
        nbformat.write(build(cells), Path(__file__).with_name(f"{name}.ipynb"))
