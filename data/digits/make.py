"""Pack scikit-learn's digits and choose their splits.

    pip install scikit-learn
    python data/digits/make.py

Writes `digits.npz` beside this file: `images` (1797, 8, 8) uint8 of 0..16, `labels`
uint8, and the sorted places of 360 test images (36 of each class), 170 calibration
and 170 validation images (17 of each), all disjoint.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from rramsim.datasets.embedded import SPLIT_SEED

PER_CLASS = {"test": 36, "calibration": 17, "validation": 17}


def main() -> None:
    digits = load_digits()
    labels = digits.target.astype(np.uint8)
    rng = np.random.default_rng(SPLIT_SEED)
    orders = [rng.permutation(np.flatnonzero(labels == label)) for label in range(10)]
    places, start = {}, 0
    for name, n in PER_CLASS.items():
        chosen = np.concatenate([order[start : start + n] for order in orders])
        places[name] = np.sort(chosen).astype(np.int32)
        start += n
    path = Path(__file__).resolve().with_name("digits.npz")
    np.savez_compressed(path, images=digits.images.astype(np.uint8), labels=labels, **places)
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB,", {k: len(v) for k, v in places.items()})


if __name__ == "__main__":
    main()
