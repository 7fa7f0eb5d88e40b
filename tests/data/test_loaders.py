"""Readers against files written here by their formats' definitions, and the messages of what goes wrong."""

from __future__ import annotations

import gzip
import hashlib
import struct

import h5py
import numpy as np
import pytest

from rramsim.checks import InputError
from rramsim.datasets import embedded, files
from rramsim.datasets.embedded import balanced_split, load_dataset, make_dataset


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def write_idx(path, array, packed=False):
    """MNIST's format from its definition: magic number, sizes big-endian, bytes."""
    raw = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(raw) if packed else raw)
    return raw


def write_mnist(directory, rng, packed=False, n_train=300, n_test=40):
    directory.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for prefix, n in (("train", n_train), ("t10k", n_test)):
        images = rng.integers(0, 256, (n, 5, 4), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{prefix}-{kind}-ubyte"
            arrays[name] = write_idx(directory / (name + ".gz" * packed), array, packed)
        arrays[prefix] = (images, labels)
    return arrays


@pytest.mark.parametrize("packed", [False, True])
def test_idx_directory(tmp_path, rng, packed):
    arrays = write_mnist(tmp_path / "digits60k", rng, packed)
    dataset = load_dataset(tmp_path / "digits60k")
    assert dataset.name == "digits60k"
    assert dataset.image_shape == (1, 5, 4)
    assert dataset.n_classes == 10
    np.testing.assert_array_equal(dataset["test"].pixels[:, 0], arrays["t10k"][0])
    np.testing.assert_array_equal(dataset["test"].labels, arrays["t10k"][1])
    # 30 images a class: a tenth each for calibration and validation
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 270,
        "calibration": 30,
        "validation": 30,
        "test": 40,
    }


def test_mnist_by_name(tmp_path, rng, monkeypatch):
    write_mnist(tmp_path / "mnist", rng)
    monkeypatch.setenv("RRAMSIM_DATA", str(tmp_path))
    assert len(load_dataset("mnist")["test"]) == 40
    monkeypatch.setenv("RRAMSIM_DATA", str(tmp_path / "mnist"))
    assert len(load_dataset("mnist")["test"]) == 40


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_missing_data_set_says_how_to_get_it(tmp_path, monkeypatch, name):
    monkeypatch.delenv("RRAMSIM_DATA", raising=False)
    with pytest.raises(
        InputError, match=f"'{name}' was not found \\(RRAMSIM_DATA is not set\\).*set RRAMSIM_DATA"
    ):
        load_dataset(name)
    monkeypatch.setenv("RRAMSIM_DATA", str(tmp_path))
    with pytest.raises(InputError, match=f"RRAMSIM_DATA is '{tmp_path}'"):
        load_dataset(name)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda raw: raw[:-1], "is it truncated"),
        (lambda raw: raw[:6], "truncated within its header"),
        (lambda raw: b"PNG" + raw, "no idx file"),
        (lambda raw: b"", "no idx file"),
        (lambda raw: gzip.compress(raw)[:-9], "cannot be read"),
    ],
)
def test_damaged_idx(tmp_path, rng, damage, message):
    write_mnist(tmp_path, rng)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path)


def test_idx_without_labels(tmp_path, rng):
    write_mnist(tmp_path, rng)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match="lacks train-labels-idx1-ubyte"):
        load_dataset(tmp_path)


def test_idx_of_other_types(tmp_path):
    values = np.array([[1.5, -2.0]], dtype=">f4")
    raw = bytes([0, 0, 0x0D, 2]) + struct.pack(">2I", 1, 2) + values.tobytes()
    (tmp_path / "x").write_bytes(raw)
    np.testing.assert_array_equal(files.read_idx(tmp_path / "x"), values)


def write_cifar(directory, rng, n_classes, n=100):
    directory.mkdir()
    batches = [f"data_batch_{i}.bin" for i in range(1, 6)]
    names = [*batches, "test_batch.bin"] if n_classes == 10 else ["train.bin", "test.bin"]
    tables = {}
    for name in names:
        pixels = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
        fine = (np.arange(n) % n_classes).astype(np.uint8)
        columns = [fine[:, None]] if n_classes == 10 else [fine[:, None] // 5, fine[:, None]]
        table = np.hstack([*columns, pixels])
        (directory / name).write_bytes(table.tobytes())
        tables[name] = (pixels, fine)
    return tables


def test_cifar10(tmp_path, rng, monkeypatch):
    tables = write_cifar(tmp_path / "cifar-10-batches-bin", rng, 10)
    monkeypatch.setenv("RRAMSIM_DATA", str(tmp_path))
    dataset = load_dataset("cifar10")
    assert dataset.image_shape == (3, 32, 32)
    pixels, labels = tables["test_batch.bin"]
    # a record's pixels run through the red plane first, then green, then blue
    assert dataset["test"].pixels[7, 1, 2, 3] == pixels[7, 1024 + 2 * 32 + 3]
    np.testing.assert_array_equal(dataset["test"].labels, labels)
    assert len(dataset["train"]) + len(dataset["validation"]) == 500


def test_cifar100_takes_fine_labels(tmp_path, rng):
    tables = write_cifar(tmp_path / "cifar-100-binary", rng, 100, n=1000)
    dataset = load_dataset(tmp_path / "cifar-100-binary")
    assert dataset.n_classes == 100
    np.testing.assert_array_equal(dataset["test"].labels, tables["test.bin"][1])


def test_truncated_or_incomplete_cifar(tmp_path, rng):
    directory = tmp_path / "cifar-10-batches-bin"
    write_cifar(directory, rng, 10)
    path = directory / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"data_batch_3.bin must hold whole records of 3073 bytes"):
        load_dataset(directory)
    path.unlink()
    with pytest.raises(InputError, match=r"lacks data_batch_3.bin"):
        load_dataset(directory)


def test_directory_without_data(tmp_path):
    with pytest.raises(InputError, match=r"holds neither idx files .* nor CIFAR"):
        load_dataset(tmp_path)


def test_npz_with_named_splits(tmp_path, rng):
    path = tmp_path / "mine.npz"
    arrays = {}
    for split, n in (("train", 60), ("test", 20)):
        arrays[f"{split}_images"] = rng.random((n, 6, 6, 3))
        arrays[f"{split}_labels"] = np.arange(n) % 3
    np.savez(path, **arrays, mean=0.5, std=0.25)
    dataset = load_dataset(path)
    assert (dataset.name, dataset.mean, dataset.std, dataset.n_classes) == ("mine", 0.5, 0.25, 3)
    assert dataset.image_shape == (3, 6, 6)
    expected = (arrays["test_images"].transpose(0, 3, 1, 2) - 0.5) / 0.25
    np.testing.assert_allclose(dataset["test"].images, expected, atol=1e-6)
    assert dataset["test"].images.dtype == np.float32


@pytest.mark.parametrize("grouped", [False, True])
def test_hdf5(tmp_path, rng, grouped):
    path = tmp_path / "mine.h5"
    images, labels = rng.integers(0, 256, (50, 2, 7, 7), dtype=np.uint8), np.arange(50) % 5
    with h5py.File(path, "w") as file:
        group = file.create_group("test") if grouped else file
        group["images"], group["labels"] = images, labels
        file.attrs["n_classes"] = 6
    dataset = load_dataset(path)
    assert dataset.n_classes == 6
    assert dataset.image_shape == (2, 7, 7)
    # one image a class each is set aside and no longer tested
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "calibration": 5,
        "validation": 5,
        "test": 40,
    }
    # integers are scaled only
    first = dataset["test"]
    np.testing.assert_array_equal(first.images, first.pixels / np.float32(255))
    assert dataset.normalisation() == "pixels / 255"


def test_float_images_stay_as_they_are(tmp_path, rng):
    """A network trained on raw [0, 1] floats lost half its accuracy when they were standardised unasked."""
    images, labels = rng.random((40, 1, 5, 5), dtype=np.float32), np.arange(40) % 2
    np.savez(tmp_path / "raw.npz", test_images=images, test_labels=labels, train_images=images + 1,
             train_labels=labels)  # fmt: skip
    dataset = load_dataset(tmp_path / "raw.npz")
    np.testing.assert_array_equal(dataset["test"].images, images)
    assert dataset.normalisation() == "pixels as stored"


def test_mean_and_deviation_of_each_channel(tmp_path, rng):
    images, labels = rng.random((40, 3, 5, 5), dtype=np.float32), np.arange(40) % 2
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.5])
    np.savez(tmp_path / "rgb.npz", test_images=images, test_labels=labels, train_images=images,
             train_labels=labels, mean=mean, std=std)  # fmt: skip
    dataset = load_dataset(tmp_path / "rgb.npz")
    assert dataset.mean == (0.4, 0.5, 0.6)
    wanted = (images - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(dataset["test"].images, wanted, atol=1e-6)
    assert dataset.normalisation() == "pixels as stored, less (0.4, 0.5, 0.6), over (0.2, 0.25, 0.5)"
    other = dataset.normalised(mean=0.0, std=1.0)
    np.testing.assert_array_equal(other["test"].images, images)
    with pytest.raises(InputError, match="one for each of 3 channels"):
        dataset.normalised(mean=[0.1, 0.2])


def base_arrays():
    return {
        "images": np.zeros((40, 4, 4), np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None],
        "labels": np.arange(40) % 2,
    }


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": np.arange(39) % 2}, "one label per image, got 40 images, 39 labels"),
        ({"labels": np.eye(40)}, "one-hot"),
        ({"labels": np.full(40, -1)}, "labels must be >= 0"),
        ({"labels": np.arange(40) // 38}, "ten of each are needed"),
        ({"images": np.zeros((40, 16))}, r"must have shape \(n, h, w\)"),
        ({"images": np.full((40, 4, 4), np.nan)}, "must be finite"),
        ({"images": np.full((40, 4, 4), 300)}, "floats or integers in 0..255"),
        ({"images": np.zeros((40, 4, 4))}, "images must differ, got 0 for every pixel"),
        ({"mean": np.zeros(2)}, "mean must be one number or one for each of"),
        ({"n_classes": 1}, r"labels must lie in 0\.\.0"),
        ({"std": -1.0}, "std must be finite and > 0"),
        ({"pixel_max": 0.0}, "pixel_max must be finite and > 0"),
        ({"images": np.array([{}] * 40)}, "no readable .npz of plain arrays|Python objects"),
    ],
)
def test_bad_arrays(tmp_path, change, message):
    np.savez(tmp_path / "bad.npz", **(base_arrays() | change))
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path / "bad.npz")


def test_bad_files(tmp_path):
    np.savez(tmp_path / "empty.npz", pictures=np.zeros(3))
    with pytest.raises(InputError, match="must hold an array 'images', got pictures"):
        load_dataset(tmp_path / "empty.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "empty.npz").read_bytes()[:40])
    with pytest.raises(InputError, match=r"no readable .npz"):
        load_dataset(tmp_path / "cut.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(InputError, match=r"no readable .npz"):
        load_dataset(tmp_path / "one.npz")
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n1234")
    with pytest.raises(InputError, match="not a readable HDF5 data set"):
        load_dataset(tmp_path / "cut.h5")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"must be an .npz or HDF5"):
        load_dataset(tmp_path / "notes.txt")


def test_unknown_names():
    with pytest.raises(InputError, match="did you mean 'fashion_mnist'"):
        load_dataset("fashion_mnits")
    with pytest.raises(InputError, match="no data file or directory"):
        load_dataset("missing/file.npz")
    with pytest.raises(InputError, match="did you mean 'validation'"):
        load_dataset("digits", split="validaton")
    with pytest.raises(InputError, match="is missing; reinstall"):
        embedded.data_path("no_such_thing")


def test_splits_must_agree_in_shape():
    zeros = np.zeros(20, np.int64)
    arrays = {
        "train": (np.zeros((20, 4, 4), np.uint8), zeros),
        "test": (np.zeros((20, 5, 4), np.uint8), zeros),
    }
    with pytest.raises(InputError, match="one shape"):
        make_dataset("mixed", arrays, provenance={})


def test_balanced_split_depends_on_its_arguments_alone(rng):
    labels = rng.integers(0, 4, 4000)
    first, second = balanced_split(labels, per_class=50), balanced_split(labels, per_class=50)
    for name in ("calibration", "validation"):
        np.testing.assert_array_equal(first[name], second[name])
        assert np.bincount(labels[first[name]]).tolist() == [50] * 4
    assert not np.intersect1d(first["calibration"], first["validation"]).size
    other = balanced_split(labels, per_class=50, seed=1)
    assert not np.array_equal(first["calibration"], other["calibration"])


@pytest.fixture
def fashion_mirror(tmp_path, rng, monkeypatch):
    """A small stand-in for the Fashion-MNIST server, and a machine without the Debian package."""
    mirror = tmp_path / "mirror"
    arrays = write_mnist(mirror, rng, packed=True)
    sums = {name: hashlib.sha256(arrays[name]).hexdigest() for name in embedded.FASHION_SHA256}
    indices = balanced_split(arrays["train"][1])
    np.savez(tmp_path / "indices.npz", **indices)
    monkeypatch.setattr(embedded, "FASHION_URL", mirror.as_uri())
    monkeypatch.setattr(embedded, "FASHION_SHA256", sums)
    monkeypatch.setattr(embedded, "DEBIAN_FASHION", tmp_path / "no_package")
    embedded.load_dataset("fashion_mnist")  # held in memory, so that its files are not sought below
    monkeypatch.setattr(embedded, "data_path", lambda *parts: tmp_path / "indices.npz")
    monkeypatch.setenv("RRAMSIM_DATA", str(tmp_path / "store"))
    return mirror


def test_full_fashion_mnist_is_fetched_once_and_checked(fashion_mirror, tmp_path):
    dataset = load_dataset("fashion_mnist_full")
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 270,
        "calibration": 30,
        "validation": 30,
        "test": 40,
    }
    for path in fashion_mirror.iterdir():
        path.unlink()
    again = load_dataset("fashion_mnist_full")
    np.testing.assert_array_equal(again["test"].pixels, dataset["test"].pixels)


def test_fetched_file_with_a_wrong_checksum_is_not_kept(fashion_mirror, tmp_path):
    write_idx(fashion_mirror / "t10k-labels-idx1-ubyte.gz", np.zeros(40, np.uint8), packed=True)
    with pytest.raises(InputError, match="wrong checksum"):
        load_dataset("fashion_mnist_full")
    assert not list((tmp_path / "store").rglob("t10k-labels*"))


def test_no_network_says_what_to_do(fashion_mirror):
    for path in fashion_mirror.iterdir():
        path.unlink()
    with pytest.raises(
        InputError, match=r"could not be fetched .* set RRAMSIM_DATA .* dataset-fashion-mnist"
    ):
        load_dataset("fashion_mnist_full")


def test_mnist_in_place_of_fashion_mnist(tmp_path, rng, monkeypatch):
    write_mnist(tmp_path / "fashion_mnist", rng)
    monkeypatch.setenv("RRAMSIM_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"is not Fashion-MNIST's .* is it MNIST"):
        load_dataset("fashion_mnist_full")


@pytest.mark.parametrize("ending", [".npz", ".h5"])
def test_calibration_images_need_no_labels(tmp_path, rng, ending):
    pixels = rng.integers(0, 256, (30, 6, 6), dtype=np.uint8)
    table = {
        "train_images": pixels, "train_labels": np.arange(30) % 3, "calibration_images": pixels[:9],
        "test_images": pixels, "test_labels": np.arange(30) % 3,
    }  # fmt: skip
    path = tmp_path / f"x{ending}"
    if ending == ".npz":
        np.savez(path, **table)
    else:
        with h5py.File(path, "w") as file:
            for name, array in table.items():
                file[name] = array
    data = load_dataset(str(path))
    assert len(data["calibration"]) == 9
    assert (data["calibration"].labels == -1).all()
    np.testing.assert_array_equal(data["calibration"].pixels[:, 0], pixels[:9])
    assert data.n_classes == 3
    del table["test_labels"]
    np.savez(tmp_path / "y.npz", **table)
    with pytest.raises(InputError, match="must hold an array 'test_labels'"):
        load_dataset(str(tmp_path / "y.npz"))
    np.savez(tmp_path / "z.npz", **(table | {"test_labels": np.full(30, -1)}))
    with pytest.raises(InputError, match="test labels must be >= 0"):
        load_dataset(str(tmp_path / "z.npz"))
