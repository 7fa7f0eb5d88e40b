"""The embedded data sets are what their scripts say."""

from __future__ import annotations

import numpy as np
import pytest

from rramsim.checks import InputError
from rramsim.datasets.embedded import DEBIAN_FASHION, balanced_split, load_dataset
from rramsim.datasets.teachers import data_path


@pytest.fixture(scope="module")
def fashion():
    return load_dataset("fashion_mnist")


def test_fashion_mnist_splits(fashion):
    assert {name: len(split) for name, split in fashion.splits.items()} == {
        "calibration": 2000,
        "validation": 2000,
        "test": 10000,
    }
    assert fashion.image_shape == (1, 28, 28)
    for name, per_class in (("calibration", 200), ("validation", 200), ("test", 1000)):
        assert np.bincount(fashion[name].labels).tolist() == [per_class] * 10
    assert fashion.provenance["licence"] == "MIT"
    assert "Permission is hereby granted" in data_path("fashion_mnist", "LICENSE").read_text()


def test_recorded_indices_are_disjoint_and_as_chosen(fashion):
    with np.load(data_path("fashion_mnist", "indices.npz")) as file:
        indices = {name: file[name] for name in file.files}
    assert not np.intersect1d(indices["calibration"], indices["validation"]).size
    for name, index in indices.items():
        assert len(np.unique(index)) == 2000
        assert index.min() >= 0
        assert index.max() < 60_000
        assert len(fashion[name]) == len(index)


def test_no_image_is_in_two_splits(fashion):
    pixels = {name: {p.tobytes() for p in split.pixels} for name, split in fashion.splits.items()}
    assert not pixels["calibration"] & pixels["validation"]
    assert not pixels["calibration"] & pixels["test"]
    assert not pixels["validation"] & pixels["test"]


def test_embedded_part_agrees_with_the_full_set(fashion):
    if not DEBIAN_FASHION.is_dir():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    full = load_dataset("fashion_mnist_full")
    assert len(full["train"]) == 58_000
    for name in ("calibration", "validation", "test"):
        np.testing.assert_array_equal(full[name].pixels, fashion[name].pixels)
        np.testing.assert_array_equal(full[name].labels, fashion[name].labels)
    scaled = full["train"].pixels / 255
    assert scaled.mean() == pytest.approx(fashion.mean, rel=1e-12)
    assert scaled.std() == pytest.approx(fashion.std, rel=1e-12)
    # calibration images may be trained on, validation images never
    train = {p.tobytes() for p in full["train"].pixels}
    assert not train & {p.tobytes() for p in full["validation"].pixels}
    assert {p.tobytes() for p in full["calibration"].pixels} <= train
    with np.load(data_path("fashion_mnist", "indices.npz")) as file:
        labels = np.empty(60_000, np.int64)
        rest = np.ones(60_000, bool)
        rest[file["validation"]] = False
        labels[rest], labels[~rest] = full["train"].labels, full["validation"].labels
        for name, index in balanced_split(labels).items():
            np.testing.assert_array_equal(index, file[name])


def test_digits_splits():
    digits = load_dataset("digits")
    assert digits.image_shape == (1, 8, 8)
    assert {name: len(split) for name, split in digits.splits.items()} == {
        "train": 1267,
        "calibration": 170,
        "validation": 170,
        "test": 360,
    }
    for name, per_class in (("calibration", 17), ("validation", 17), ("test", 36)):
        assert np.bincount(digits[name].labels).tolist() == [per_class] * 10
    with np.load(data_path("digits", "digits.npz")) as file:
        places = [file[name] for name in ("test", "calibration", "validation")]
    assert len(np.unique(np.concatenate(places))) == 360 + 170 + 170


def test_digits_are_scikit_learns():
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    images = sklearn_datasets.load_digits().images
    with np.load(data_path("digits", "digits.npz")) as file:
        np.testing.assert_array_equal(file["images"], images)


def test_normalised_images(fashion):
    calibration = fashion["calibration"]
    expected = (calibration.pixels / 255 - fashion.mean) / fashion.std
    np.testing.assert_allclose(calibration.images, expected, atol=1e-6)
    assert calibration.images.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        calibration.images[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        calibration.pixels[0] = 0


def test_take_and_batches(fashion):
    test = fashion["test"]
    part = test.take(25)
    np.testing.assert_array_equal(part.images, test.images[:25])
    np.testing.assert_array_equal(test.take(np.array([5, 3])).labels, test.labels[[5, 3]])
    batches = list(part.batches(10))
    assert [len(labels) for _, labels in batches] == [10, 10, 5]
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), part.images)
    for n in (0, -1, 10_001):
        with pytest.raises(InputError, match="between 1 and 10000"):
            test.take(n)


def test_one_split_and_description(fashion):
    only = load_dataset("fashion_mnist", split="validation")
    assert list(only.splits) == ["validation"]
    assert fashion.describe() == (
        "fashion_mnist: 10 classes, 1x28x28 pixels; 2,000 calibration, 2,000 validation, 10,000 test"
    )
    with pytest.raises(InputError, match="has no split 'train'"):
        fashion["train"]
