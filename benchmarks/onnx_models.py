"""Agreement of imported ONNX models with onnxruntime: `python -m benchmarks.onnx_models [--json FILE]`.

Looks for ONNX files that ship inside installed Python packages (magika, rapidocr-onnxruntime,
ddddocr, onnx's own light model-zoo graphs) and compares the digital execution on random inputs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
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


def random_inputs(network: Network, n: int, seed: int = 0) -> np.ndarray:
    """Inputs of the network's type; small integers for tokens."""
    rng = np.random.default_rng(seed)
    shape = (n, *network.input_shape)
    if network.input_dtype.kind in "iu":
        return rng.integers(0, 256, shape).astype(network.input_dtype)
    return rng.uniform(-1, 1, shape).astype(np.float32)


def compare(path: Path, input_shape: tuple[int, ...] | None) -> dict[str, Any]:
    """Largest difference to onnxruntime over the largest output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    network = Network.from_onnx(path, input_shape=input_shape)
    x = random_inputs(network, int(network.metadata.get("batch", 2)))
    want = session.run(None, {session.get_inputs()[0].name: x})[0]
    got = network.run(x)
    return {
        "weights": network.n_weights,
        "nodes": len(network.nodes),
        "error": float(np.abs(got - want).max() / np.abs(want).max()),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    rows = []
    arguments = parser.parse_args()
    print(f"{'package':22} {'model':34} {'weights':>10} {'nodes':>6}  max|difference| / max|output|")
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
            f"{row['weights']:10} {row['nodes']:6}  {row['error']:.1e}" if "error" in row else row["note"]
        )
        print(f"{package:22} {row['model']:34} {figures}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
