"""Choose the splits of Fashion-MNIST and pack the embedded part.

    python data/fashion_mnist/make.py [DIRECTORY]

DIRECTORY holds the four files of the Fashion-MNIST project; without it they are
sought as `load_dataset("fashion_mnist_full")` does. Writes beside this file

- `indices.npz`: places of the 2,000 calibration and 2,000 validation images in
  the training file, disjoint, 200 of each class, sorted;
- `fashion_mnist.npz`: `images_by_column` (n, 28, 28) uint8, of axes (image,
  column, row), and `labels` uint8: the 10,000 test images, then the calibration
  and the validation images; `mean` and `std` of pixel / 255 over the 58,000
  training images, validation left out.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np

from rramsim.datasets import files
from rramsim.datasets.embedded import DEBIAN_FASHION, balanced_split

HERE = Path(__file__).resolve().parent


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An .npz packed with LZMA (a sixth smaller than deflate), with fixed dates: the same bytes each time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.array(array, order="C"), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_LZMA
            file.writestr(info, buffer.getvalue())


def main(directory: Path) -> None:
    arrays = files.read_idx_pairs(directory)
    images, labels = arrays["train"]
    indices = balanced_split(labels)
    write_npz(HERE / "indices.npz", indices)

    training = np.ones(len(labels), dtype=bool)
    training[indices["validation"]] = False
    scaled = images[training] / 255
    chosen = np.concatenate([indices["calibration"], indices["validation"]])
    packed = {
        "images_by_column": np.concatenate([arrays["test"][0], images[chosen]]).transpose(0, 2, 1),
        "labels": np.concatenate([arrays["test"][1], labels[chosen]]),
        "mean": np.array(scaled.mean()),
        "std": np.array(scaled.std()),
    }
    path = HERE / "fashion_mnist.npz"
    write_npz(path, packed)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, mean {packed['mean']}, std {packed['std']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEBIAN_FASHION)
