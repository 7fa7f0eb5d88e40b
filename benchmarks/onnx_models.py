"""Agreement of imported ONNX models with onnxruntime: `python -m benchmarks.onnx_models [--json FILE]`.

Looks for ONNX files that ship inside installed Python packages (magika, rapidocr-onnxruntime,
ddddocr, onnx's own light model-zoo graphs) and compares the digital execution on random inputs.
The light graphs hold one constant for all weights, with which every class scores alike and any
executor agrees; they get random weights here, and are compared before the last softmax.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from rramsim.checks import InputError
from rramsim.network import Network

# package, file inside it, input shape where the file leaves it open
MODELS: list[tuple[str, str, tuple[int, ...] | None]] = [
    ("magika", "models/standard_v3_3/model.onnx", (2048,)),
    ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", (3, 48, 192)),
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", (3, 64, 96)),
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", (3, 48, 160)),
    ("ddddocr", "common_old.onnx", (1, 64, 160)),
    *(
        ("onnx", f"backend/test/data/light/light_{name}.onnx", None)
        for name in (
            "resnet50", "squeezenet", "shufflenet", "densenet121", "vgg19", "inception_v1",
            "inception_v2", "bvlc_alexnet", "zfnet512",
        )
    ),
]  # fmt: skip


def find(package: str, file: str) -> Path | None:
    """Path of a file inside an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / file
    return path if path.is_file() else None


def random_weights(model: Any, seed: int = 0) -> Any:
    """The same graph with He-distributed matrices and positive vectors instead of filled constants."""
    import onnx

    rng = np.random.default_rng(seed)
    graph, arrays = model.graph, {t.name: t for t in model.graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in arrays:
            kept.append(node)
            continue
        shape = tuple(onnx.numpy_helper.to_array(arrays[node.input[0]]))
        if len(shape) > 1:
            weight = rng.standard_normal(shape, dtype=np.float32)
            weight *= np.float32((2 / max(np.prod(shape[1:]), 1)) ** 0.5)
        else:
            weight = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(weight, node.output[0]))
    if kept[-1].op_type == "Softmax":
        logits = kept.pop().input[0]
        graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(logits, onnx.TensorProto.FLOAT, None))
    del graph.node[:]
    graph.node.extend(kept)
    return model


def random_inputs(network: Network, n: int, seed: int = 0) -> np.ndarray:
    """Inputs of the network's type; small integers for tokens."""
    rng = np.random.default_rng(seed)
    shape = (n, *network.input_shape)
    if network.input_dtype.kind in "iu":
        return rng.integers(0, 256, shape).astype(network.input_dtype)
    return rng.uniform(-1, 1, shape).astype(np.float32)


def compare(path: Path, input_shape: tuple[int, ...] | None) -> dict[str, Any]:
    """Largest difference to onnxruntime over the largest output, and how much outputs vary."""
    import onnx
    import onnxruntime

    if path.name.startswith("light_"):
        with tempfile.TemporaryDirectory() as folder:
            filled = Path(folder) / path.name.removeprefix("light_")
            onnx.save(random_weights(onnx.load(str(path))), str(filled))
            return compare(filled, input_shape)

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    network = Network.from_onnx(path, input_shape=input_shape)
    source = session.get_inputs()[0]
    x = random_inputs(network, source.shape[0] if isinstance(source.shape[0], int) else 2)
    want = session.run(None, {source.name: x})[0]
    got = network.run(x)
    return {
        "weights": network.n_weights,
        "nodes": len(network.nodes),
        "error": float(np.abs(got - want).max() / np.abs(want).max()),
        "spread": float(want.std() / np.abs(want).max()),  # 0: agreement would mean nothing
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    rows = []
    arguments = parser.parse_args()
    print(
        f"{'package':22} {'model':34} {'weights':>10} {'nodes':>6}  max|difference| / max|output|  std / max"
    )
    for package, file, shape in MODELS:
        path = find(package, file)
        row: dict[str, Any] = {"package": package, "model": Path(file).stem}
        if path is None:
            row["note"] = "not installed"
        else:
            try:
                row |= compare(path, shape)
            except InputError as error:
                row["note"] = str(error).split(": ", 1)[-1]
        rows.append(row)
        figures = (
            f"{row['weights']:10} {row['nodes']:6}  {row['error']:29.1e}  {row['spread']:9.1e}"
            if "error" in row
            else row["note"]
        )
        print(f"{package:22} {row['model']:34} {figures}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
