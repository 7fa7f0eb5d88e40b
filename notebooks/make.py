"""Write the notebooks from their cells below and run them: python notebooks/make.py [NAME ...]

Each is run in an empty folder with `examples/` beside it and stored with its outputs. Long because every text
and program of six notebooks stands here.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
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

FROM_MEASURED_CELLS = [
    """# How long does a chip of the cells that I measured stay accurate, at rest and while it is read?

Two tables of measurements become a preset, the preset becomes chips, and the chips grow old. The tables are
made here, by simulated cells of known constants, so that the fit can be checked; yours come from the
laboratory.""",
    """%matplotlib inline
import os
import tempfile

import numpy as np
import pandas as pd

from finetune import ExperimentConfig, run_experiment
from finetune.study.config import ExperimentTable, LifetimeTable, TuningTable
from rramsim import CellArray, CellsConfig, ConverterConfig, DisturbConfig, DriftConfig, plot
from rramsim.cell.fit import fit

os.chdir(tempfile.mkdtemp())  # the files of this notebook lie in a folder of their own
drift = DriftConfig(law="power", mean_polynomial=(0.015,), sigma_polynomial=(0.006,))
truth = CellsConfig(n_levels=8, g_max=40e-6, on_off_ratio=20.0, sigma=0.06, drift=drift)
rng = np.random.default_rng(0)""",
    """## The measurements

*Retention*: 1,600 cells, each written four times to one of eight levels, read 1 s, 1,000 s and
1,000,000 s (12 days) after the write.
*Stress*: 360 cells, six voltages, up to ten million reads of 100 ns.""",
    """rows, array = [], CellArray((1600, 1), truth, seed=1)
for cycle in range(4):
    array.write(levels := rng.integers(0, 8, (1600, 1)))
    elapsed = 0.0
    for seconds in (1.0, 1e3, 1e6):
        array.wait(seconds - elapsed)
        elapsed = seconds
        table = {"cell": range(1600), "cycle": cycle, "time (s)": seconds, "level": levels[:, 0]}
        rows.append(pd.DataFrame(table | {"G (uS)": 1e6 * array.conductance[:, 0]}))
retention = pd.concat(rows)
retention.to_csv("retention.csv", index=False)

rows = []
for part, volts in enumerate((0.2, 0.25, 0.3, 0.35, 0.4, 0.5)):
    array = CellArray((60, 1), truth, disturb=DisturbConfig(law="power", v_read=volts), seed=2 + part)
    array.write(levels := rng.integers(0, 8, (60, 1)))
    done = 0.0
    for reads in (0.0, 1e3, 1e4, 1e5, 1e6, 1e7):
        array.add_reads(np.full((60, 1), reads - done), [volts])
        done = reads
        table = {"cell": 100 * part + np.arange(60), "level": levels[:, 0], "n_reads": reads, "v_read": volts}
        rows.append(pd.DataFrame(table | {"n_cycles": 1, "G (uS)": 1e6 * array.conductance[:, 0]}))
stress = pd.concat(rows)
stress.to_csv("stress.csv", index=False)
retention.sample(5, random_state=0)""",
    """## The preset

Each table is fitted by itself. The fit says which law it took, and how sure it is.""",
    """cells, reads = fit("retention.csv"), fit("stress.csv")
cells.save("retention.toml", "My cells at rest")
reads.save("stress.toml", "My cells under reads")
print(cells.summary())
print(reads.summary())""",
    """plot.fit_figure(cells)""",
    """## Does the fit find the constants that made the cells?""",
    """power = DisturbConfig(law="power").parameters | {"c1": 0.0068, "a": 0.11, "b": 1.43339}
found = {
    "sigma of ln G": (truth.sigma, cells.sigma["sigma"]),
    "exponent of drift": (0.015, cells.drift.parameters["mean_polynomial"][0]),
    "its spread over cells": (0.006, cells.drift.parameters["sigma_polynomial"][0]),
    "c1 of read disturbance": (power["c1"], reads.disturb.parameters["c1"]),
}
pd.DataFrame(found, index=["true", "fitted"]).T""",
    """## A life of two chips

Tuned once by `lsq.affine`, then left alone for a year, or read a billion times at 0.3 V. Dashed lines are the
same chips, tuned again (gains and offsets, no write) at each age. The year is 32 times,
the billion reads 100 times as long as the measurements lasted: beyond them stands only the fitted law.""",
    """experiment = ExperimentConfig(
    experiment=ExperimentTable(
        chips=2, dataset="digits", network="cnn_digits", n_calibration=64, n_layer_images=0, n_test=200
    ),
    cells=CellsConfig(preset="retention.toml"),
    disturb=DisturbConfig(preset="stress.toml", v_read=0.3, t_read=1e-7),
    converters=ConverterConfig(v_read=0.3, t_read=1e-7),  # read as the stress law is evaluated
    tuning=TuningTable(strategies=("lsq.affine",)),
    lifetime=LifetimeTable(
        seconds=(1e3, 86400.0, 31536000.0), reads=(1e5, 1e7, 1e9), maintenance="lsq.affine"
    ),
)
archive = run_experiment(experiment, "life.h5")
plot.retention(archive, "s").figure""",
    """plot.retention(archive, "reads").figure""",
    """## Answer""",
    """def mean(stage):
    return f"{archive.accuracy(stage).mean():.1%}"


fresh, year, worn = "lsq.affine", "lsq.affine + 3.1536e+07 s", "lsq.affine + 1e+09 reads"
print(
    f"Chips of these cells are {mean(fresh)} accurate when tuned, {mean(year)} after a year at rest and "
    f"{mean(worn)} after a billion reads at 0.3 V; tuned again at each age, {mean(year + ' maintained')} and "
    f"{mean(worn + ' maintained')}."
)""",
]

FROM_A_STUDY = [
    """# From a study to a paper's figure: at which programming errors does tuning pay?

A study is a TOML file with a table `[sweep]`. It leaves one archive, and a figure is drawn from that.""",
    """%matplotlib inline
import os
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

import rramsim
from finetune.study.runner import run_study
from finetune.study.sweep import load_sweep
from rramsim import plot

os.chdir(tempfile.mkdtemp())  # the files of this notebook lie in a folder of their own
Path("sigma.toml").write_text(\"\"\"
[experiment]
name = "sigma"
chips = 5
dataset = "digits"
network = "cnn_digits"
n_calibration = 32
n_layer_images = 0
n_test = 200

[tuning]
strategies = ["lsq.affine", "lsq.rewrite"]

[sweep]
"cells.sigma" = [0.2, 0.4, 0.6]
\"\"\")
name, cases = load_sweep("sigma.toml")  # in a terminal: rramsim sweep sigma.toml
study = run_study(cases, "sigma.h5", name=name)
study""",
    """## The numbers

One row for each chip and stage; a mean hides chips, so the worst one stands beside it.""",
    """table = study.table()
table.groupby(["sigma", "stage"], sort=False)["accuracy"].agg(["mean", "min"])""",
    """## The figure

7 inches wide, two columns of a journal: accuracy over the programming error with 95 % intervals of the mean,
and every chip's accuracy against its writes at one error. A method has the same colour in both panels.""",
    """figure = Figure(figsize=(7.0, 3.3), layout="constrained")
left, right = figure.subplots(1, 2)
plot.over_axis(study, "sigma", ax=left)
hardest = list(study)[-1]  # the last condition
plot.against(study[hardest], "writes_per_cell", ax=right, legend=False)
for panel in (left, right):
    panel.set_ylim(0, 100)
right.set_title(f"Chips with sigma = {study.coordinates[hardest]['sigma']}", fontsize=8.5)
figure""",
    """## The file for the journal

Text in the PDF is TrueType (type 42), never outlines or type 3, which journals refuse.""",
    """pdf = plot.save(figure, "figure_1.pdf").read_bytes()
print("TrueType:", b"/TrueType" in pdf or b"/CIDFontType2" in pdf, "- type 3:", b"/Type3" in pdf)""",
    """## Answer""",
    """paying = []
for label, archive in study.items():
    gain = rramsim.compare(archive.accuracy("lsq.rewrite"), archive.accuracy("mapped"))
    sigma = study.coordinates[label]["sigma"]
    print(f"sigma {sigma}: {100 * gain.mean:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})")
    if gain.low > 0:
        paying.append(sigma)
print(
    f"Tuning by 'lsq.rewrite' pays (the 95 % interval of its gain lies above 0) at sigma = "
    f"{', '.join(map(str, paying)) or 'none of these'}, on five chips."
)""",
]

YOUR_OWN = [
    """# Can my own network, on my own data, be tuned on my own chip, which another process drives?

The network is an ONNX file, the data an `.npz` file, and the chip a class of one's own behind a socket, as a
laboratory's instrument server would be. The tuner sees nothing but integer codes.""",
    """%matplotlib inline
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from matplotlib.figure import Figure
from onnx import TensorProto, helper, numpy_helper

from finetune import tune
from finetune.plot_health import health_figure
from rramsim import Deployment, Network, RemoteChip, load_dataset, plot

os.chdir(tempfile.mkdtemp())  # the files of this notebook lie in a folder of their own
rng = np.random.default_rng(0)""",
    """## Data: stripes of 4 directions under noise""",
    """def stripes(n):
    labels = rng.integers(0, 4, n)
    angle = np.pi / 4 * labels[:, None, None] + rng.normal(0, 0.1, (n, 1, 1))
    y, x = np.mgrid[:8, :8]
    wave = np.sin(1.6 * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 2 * np.pi, (n, 1, 1)))
    pixels = np.clip(128 + 70 * wave + rng.normal(0, 25, wave.shape), 0, 255)
    return pixels[:, None].astype(np.uint8), labels


train_x, train_y = stripes(2000)
test_x, test_y = stripes(500)
calibration_x, calibration_y = stripes(200)
np.savez(
    "stripes.npz",
    test_images=test_x,
    test_labels=test_y,
    calibration_images=calibration_x,
    calibration_labels=calibration_y,
)
data = load_dataset("stripes.npz")
print(data.describe())""",
    """## Network: 64 inputs, 128 random features, a readout by least squares; written as ONNX""",
    """def features(images):
    return np.maximum(images.reshape(-1, 64) / 255.0 @ w1 + b1, 0.0)


w1 = rng.normal(0, 0.4, (64, 128)).astype(np.float32)
b1 = (-0.5 * w1.sum(axis=0)).astype(np.float32)  # the mean pixel is 1/2
h = np.c_[features(train_x), np.ones(len(train_x))]
wanted = np.eye(4)[train_y]
readout = np.linalg.solve(h.T @ h + 1.0 * np.eye(129), h.T @ wanted).astype(np.float32)
nodes = [
    helper.make_node("Flatten", ["x"], ["flat"]),
    helper.make_node("Gemm", ["flat", "w1", "b1"], ["z"], name="features"),
    helper.make_node("Relu", ["z"], ["h"]),
    helper.make_node("Gemm", ["h", "w2", "b2"], ["y"], name="readout"),
]
weights = {"w1": w1, "b1": b1, "w2": readout[:-1], "b2": readout[-1]}
graph = helper.make_graph(
    nodes,
    "stripes",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
    [numpy_helper.from_array(value, key) for key, value in weights.items()],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "stripes.onnx")
network = Network.from_onnx("stripes.onnx")
print(network)""",
    """## Chip: a class, in a file of its own

Sixteen levels, programming errors of 40 % (standard deviation of ln G), and columns that draw a little too
much or too little. `docs/howto/chip.md` explains the members.""",
    """Path("my_chip.py").write_text(\"\"\"
import sys
import numpy as np
from rramsim import ChipListener, Datasheet, LayerInfo, Ledger, Network, Reading, layer_shapes, serve_chip
from rramsim.blackbox.protocol import LayerCosts

LEVELS = tuple(np.linspace(1e-6, 30e-6, 16))  # [S]


class MyChip:
    def __init__(self, shapes):
        self.rng = np.random.default_rng(7)
        self.datasheet = Datasheet(
            mapping="differential", n_levels=16, levels=LEVELS, v_read=0.2, dac_bits=8, adc_bits=8,
            adc_noise=0.0, tile_rows=4096, tile_cols=4096, t_read=1e-7,
        )
        self.layers = {
            name: LayerInfo(name=name, n_rows=rows, n_cols=columns, cells_per_weight=2,
                            row_tiles=((0, rows),), n_col_tiles=1, g_unit=LEVELS[-1] - LEVELS[0])
            for name, (rows, columns) in shapes.items()
        }
        self.g = {name: np.full((*shape, 2), LEVELS[0]) for name, shape in shapes.items()}
        self.gain = {name: self.rng.normal(1.0, 0.05, shape[1]) for name, shape in shapes.items()}
        self.ledger = Ledger({n: LayerCosts(weight_cells=i.n_cells) for n, i in self.layers.items()})
        self.steps = {}

    def write(self, layer, levels, mask=None):
        mask = np.ones(self.g[layer].shape, bool) if mask is None else mask
        written = np.asarray(LEVELS)[levels] * self.rng.lognormal(0.0, 0.4, mask.shape)
        self.g[layer] = np.where(mask, written, self.g[layer])
        self.ledger.layers[layer].cell_writes += int(mask.sum())

    def configure(self, layer, *, input_range=None, output_range=None):
        volts, amperes = self.steps.get(layer, (0.0, 0.0))
        if input_range is not None:
            volts = input_range[1] / (127 if input_range[0] < 0 else 255)
        self.steps[layer] = (volts, amperes if output_range is None else output_range / 127)

    def mvm(self, layer, codes, per_tile=False):
        volts, amperes = self.steps[layer]
        self.ledger.layers[layer].vectors += len(codes)
        difference = (self.g[layer][..., 0] - self.g[layer][..., 1]) * self.gain[layer]
        y = (np.asarray(codes) * volts) @ difference / amperes
        out, saturated = np.clip(np.rint(y), -127, 127).astype(np.int32), np.abs(y) > 127
        return Reading(out[:, None], saturated[:, None]) if per_tile else Reading(out, saturated)

    def wait(self, seconds):
        pass


listener = ChipListener(("127.0.0.1", 0))
print(listener.address[1], flush=True)  # the port that the system chose
serve_chip(MyChip(layer_shapes(Network.from_onnx(sys.argv[1]))), listener)
\"\"\")
command = [sys.executable, "my_chip.py", "stripes.onnx"]
server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
chip = RemoteChip(("127.0.0.1", int(server.stdout.readline())))
for name, info in chip.layers.items():
    print(f"{name}: {info.n_rows} x {info.n_cols} weights on {info.n_cells:,} cells")
print("driven by another process:", server.pid != os.getpid())""",
    """## Map, tune, compare""",
    """images, test = data["calibration"].images, data["test"]


def accuracy(outputs):
    return float((outputs.argmax(axis=1) == test.labels).mean())


digital = accuracy(network.run(test.images))
mapped = Deployment(network, chip)
mapped.map(images)
before = accuracy(mapped.run(test.images))
report = tune(chip, network, network, images, strategy="default", start_from=mapped)
after = accuracy(report.deployment.on(chip).run(test.images))
print(report.health.text())""",
    """## What tuning learnt of the chip, and what it brought""",
    """_ = health_figure(report.health)""",
    """axis = Figure(figsize=(3.5, 2.2), layout="constrained").add_subplot()
color = {"digital": "black"} | plot.colors(["mapped", "default"])
for place, (name, share) in enumerate({"digital": digital, "mapped": before, "default": after}.items()):
    axis.bar(place, 100 * share, color=color[name], label=name)
    axis.annotate(f"{100 * share:.1f}", (place, 100 * share), ha="center", va="bottom", fontsize=8)
axis.set(ylim=(0, 110), ylabel="accuracy (%)", xticks=range(3), xticklabels=color)
axis.figure""",
    """chip.close()
server.wait(timeout=30)""",
    """## Answer""",
    """print(
    f"{'Yes' if after > before else 'No'}. The network reaches {digital:.1%} at the host, {before:.1%} "
    f"mapped on the chip of the other process and {after:.1%} tuned, by {report.vectors:,} reads of a "
    f"layer and {report.writes_per_cell:.2f} writes per cell."
)""",
]

NOTEBOOKS = {
    "first_look": FIRST_LOOK,
    "inside_an_array": INSIDE_AN_ARRAY,
    "from_measured_cells": FROM_MEASURED_CELLS,
    "what_the_tuner_does": WHAT_THE_TUNER_DOES,
    "from_a_study_to_a_figure": FROM_A_STUDY,
    "your_network_data_and_chip": YOUR_OWN,
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


def run(notebook: nbformat.NotebookNode) -> None:
    """Fill in the outputs; times and the version of Python, which would differ each time, are left out."""
    from nbclient import NotebookClient

    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(root / "examples", Path(folder, "examples"))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
        NotebookClient(notebook, timeout=240, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("language_info", None)


if __name__ == "__main__":
    for name in sys.argv[1:] or NOTEBOOKS:
        notebook = build(NOTEBOOKS[name])
        run(notebook)
        nbformat.write(notebook, Path(__file__).with_name(f"{name}.ipynb"))
