"""Data sets behind one type, embedded ones and readers of the usual file formats.

`load_dataset("fashion_mnist")` and `load_dataset("digits")` need no network: they
lie in the package. `fashion_mnist_full`, `mnist`, `cifar10` and `cifar100` are
read from a directory, and any `.npz` or HDF5 file with `images` and `labels` by
its path. Pixels stay in the type in which they were stored; `Split.images` gives
them as the networks take them, (pixel / pixel_max - mean) / std. Images from files are only scaled to 0..1 if
they are integers, and stay as they are if they are floats, unless the file or the caller says otherwise.

Long because the type, its checks and normalisation, and every named data set share private helpers.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError, nearest_name
from rramsim.datasets import files
from rramsim.datasets.teachers import data_path

if TYPE_CHECKING:
    pass

__all__ = ["Dataset", "Split", "balanced_split", "load_dataset"]

DATA_VARIABLE = "RRAMSIM_DATA"
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
# SHA-256 of the unpacked files, which the packaging of the mirror does not change
FASHION_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FASHION_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
Moment = float | tuple[float, ...]  # of all pixels, or of each channel
SPLIT_SEED = 20260101
SPLIT_PER_CLASS = 200


@dataclass(frozen=True)
class Split:
    """Images and labels of one part of a data set.

    Attributes
    ----------
    pixels : ndarray, shape (n, c, h, w)
        As stored, uint8 or float32.
    labels : ndarray of int64, shape (n,)
        -1 throughout for calibration images without labels.
    pixel_max : float
    mean, std : float or tuple of float
        Normalisation, one number or one for each channel.

    Examples
    --------
    >>> calibration = load_dataset("digits")["calibration"]
    >>> calibration.images.shape, calibration.take(5).labels.shape
    ((170, 1, 8, 8), (5,))
    """

    pixels: NDArray[Any]
    labels: NDArray[np.int64]
    pixel_max: float
    mean: Moment
    std: Moment

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def images(self) -> NDArray[np.float32]:
        """Normalised images, float32 of shape (n, c, h, w), read-only."""
        scaled = self.pixels.astype(np.float32) / np.float32(self.pixel_max)
        images = (scaled - _per_channel(self.mean)) / _per_channel(self.std)
        images.flags.writeable = False
        return images

    def take(self, index: Any) -> Split:
        """The images that `index` names: a slice, an integer array, a mask or the first `index` images."""
        if isinstance(index, (int, np.integer)):
            if not 0 < index <= len(self):
                raise InputError(f"between 1 and {len(self)} images can be taken, got {index}")
            index = slice(0, int(index))
        return replace(self, pixels=self.pixels[index], labels=self.labels[index])

    def batches(self, size: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Normalised images and labels, `size` at a time and in order."""
        for start in range(0, len(self), size):
            part = self.take(slice(start, start + size))
            yield part.images, part.labels


@dataclass(frozen=True)
class Dataset:
    """Named splits of labelled images with one normalisation.

    Attributes
    ----------
    splits : mapping of str to Split
        `test` always, mostly `calibration` and `validation`, and `train` where there is one. `train`
        includes the calibration images and never the validation images.
    mean, std : float or tuple of float
        What `Split.images` subtracts from pixel / pixel_max and divides by, for all channels or for each.
    provenance : mapping of str to str
        Origin, licence and, where known, checksum.

    Examples
    --------
    >>> digits = load_dataset("digits")
    >>> digits.image_shape, digits.n_classes, sorted(digits.splits)
    ((1, 8, 8), 10, ['calibration', 'test', 'train', 'validation'])
    """

    name: str
    splits: Mapping[str, Split]
    mean: Moment
    std: Moment
    n_classes: int
    provenance: Mapping[str, str]
    class_names: tuple[str, ...] = field(default=())

    def __getitem__(self, split: str) -> Split:
        if split not in self.splits:
            raise InputError(
                f"the data set {self.name!r} has no split {split!r}; {nearest_name(split, self.splits)}"
            )
        return self.splits[split]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(c, h, w)."""
        c, h, w = next(iter(self.splits.values())).pixels.shape[1:]
        return int(c), int(h), int(w)

    def normalised(self, mean: Any = None, std: Any = None) -> Dataset:
        """The same images with another mean or standard deviation; one number, or one for each channel."""
        c = self.image_shape[0]
        mean = self.mean if mean is None else _moment(mean, "mean", c, self.name)
        std = self.std if std is None else _moment(std, "std", c, self.name)
        splits = {name: replace(split, mean=mean, std=std) for name, split in self.splits.items()}
        return replace(self, splits=_frozen(splits), mean=mean, std=std)

    def normalisation(self) -> str:
        """What is done to the stored pixels before a network sees them, in words."""
        scale = next(iter(self.splits.values())).pixel_max
        first = "pixels as stored" if scale == 1 else f"pixels / {scale:g}"
        if np.all(np.equal(self.mean, 0)) and np.all(np.equal(self.std, 1)):
            return first
        return f"{first}, less {_brief(self.mean)}, over {_brief(self.std)}"

    def describe(self) -> str:
        """One line for a terminal."""
        sizes = ", ".join(f"{len(split):,} {name}" for name, split in self.splits.items())
        shape = "x".join(map(str, self.image_shape))
        return f"{self.name}: {self.n_classes} classes, {shape} pixels; {sizes}"


def _per_channel(value: Moment) -> Any:
    """A moment in the form that broadcasts over images (n, c, h, w)."""
    return np.asarray(value, np.float32)[:, None, None] if isinstance(value, tuple) else np.float32(value)


def _brief(value: Moment) -> str:
    return f"({', '.join(f'{v:.4g}' for v in value)})" if isinstance(value, tuple) else f"{value:.4g}"


def _moment(value: Any, what: str, n_channels: int, name: str) -> Moment:
    """One number, or one for each channel."""
    array = np.asarray(value, dtype=np.float64).reshape(-1)
    if array.size not in (1, n_channels):
        raise InputError(
            f"{name}: {what} must be one number or one for each of {n_channels} channels, got shape "
            f"{np.shape(value)}"
        )
    if not (np.isfinite(array).all() and (what != "std" or (array > 0).all())):
        wanted = "finite and > 0" if what == "std" else "finite"
        raise InputError(f"{name}: {what} must be {wanted}, got {array.tolist()}")
    return float(array[0]) if array.size == 1 else tuple(array.tolist())


def balanced_split(
    labels: NDArray[Any], *, per_class: int = SPLIT_PER_CLASS, seed: int = SPLIT_SEED
) -> dict[str, NDArray[np.int32]]:
    """Choose disjoint `calibration` and `validation` images, `per_class` of each class in both.

    A class with fewer than ten times `per_class` images gives a tenth of the smallest class instead.
    Returns sorted indices into `labels`; they depend on the arguments alone.
    """
    rng = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    n = min(per_class, int(counts.min()) // 10)
    if n < 1:
        raise InputError(
            f"class {classes[counts.argmin()]} has {counts.min()} images; ten of each are needed to set some "
            "aside for calibration and validation, or give those splits in the file"
        )
    chosen: dict[str, list[NDArray[Any]]] = {"calibration": [], "validation": []}
    for label in classes:
        order = rng.permutation(np.flatnonzero(labels == label))
        chosen["calibration"].append(order[:n])
        chosen["validation"].append(order[n : 2 * n])
    return {name: np.sort(np.concatenate(parts)).astype(np.int32) for name, parts in chosen.items()}


def load_dataset(name_or_path: str | os.PathLike[str], *, split: str | None = None) -> Dataset:
    """A data set by name, or from a file or directory.

    Parameters
    ----------
    name_or_path : str or path
        `fashion_mnist` (10,000 test, 2,000 calibration and 2,000 validation images) or `digits`, both
        embedded; `fashion_mnist_full`, `mnist`, `cifar10` or `cifar100`, searched for in the directory
        that the environment variable RRAMSIM_DATA names; or the path of an `.npz` or HDF5 file, or of a
        directory with idx files or CIFAR's binary files.
    split : str, optional
        Keep this split alone.

    Raises
    ------
    InputError
        If the data are missing or unreadable; the message says how to get them.
    """
    name = os.fspath(name_or_path)
    if name in LOADERS:
        dataset = LOADERS[name]()
    elif Path(name).exists():
        dataset = _from_path(Path(name))
    elif os.sep in name or "." in name:
        raise InputError(f"there is no data file or directory {name!r}; check the path")
    else:
        raise InputError(f"unknown data set {name!r}; {nearest_name(name, LOADERS)}")
    return dataset if split is None else replace(dataset, splits=_frozen({split: dataset[split]}))


def _frozen(mapping: Mapping[Any, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(mapping))


def make_dataset(
    name: str,
    arrays: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    *,
    provenance: Mapping[str, str],
    pixel_max: float | None = None,
    mean: Any = None,
    std: Any = None,
    standardise: bool = False,
    n_classes: int | None = None,
    class_names: tuple[str, ...] = (),
    indices: Mapping[str, NDArray[Any]] | None = None,
) -> Dataset:
    """Check raw arrays and make them a `Dataset`.

    Parameters
    ----------
    arrays : mapping of split to (pixels, labels)
        Pixels of shape (n, h, w), (n, c, h, w) or (n, h, w, c) with c of 1 or 3, uint8 or float. Missing
        `calibration` and `validation` splits are chosen, class by class, from `train`, or else from
        the only split there is.
    pixel_max : float, optional
        What pixels are divided by; 255 for integers and 1 for floats where not given.
    mean, std : float or sequence of float, optional
        Subtracted from and divided by thereafter, one number or one for each channel; 0 and 1 where not
        given.
    standardise : bool
        Measure `mean` and `std` over the training images (all images where there are none) instead.
    indices : mapping, optional
        `calibration` and `validation` indices into `train`, instead of a choice.
    """
    checked = {part: _check_split(*pair, f"{name}: {part}") for part, pair in arrays.items()}
    shapes = {part: pixels.shape[1:] for part, (pixels, _) in checked.items()}
    if len(set(shapes.values())) != 1:
        raise InputError(f"{name}: all splits must have images of one shape, got {shapes}")
    highest = max(int(labels.max()) for _, labels in checked.values())
    n_classes = highest + 1 if n_classes is None else int(n_classes)
    if highest >= n_classes:
        raise InputError(f"{name}: labels must lie in 0..{n_classes - 1}, got {highest}")
    if not {"calibration", "validation"} & set(checked):
        checked = _carve(checked, indices)
    measured = [checked["train"][0]] if "train" in checked else [pixels for pixels, _ in checked.values()]
    if pixel_max is None:
        pixel_max = 255.0 if measured[0].dtype == np.uint8 else 1.0
    if not (np.isfinite(pixel_max) and pixel_max > 0):
        raise InputError(f"{name}: pixel_max must be finite and > 0, got {pixel_max:g}")
    if all(pixels.min() == pixels.max() == measured[0].flat[0] for pixels in measured):
        raise InputError(f"{name}: images must differ, got {measured[0].flat[0]:g} for every pixel of all")
    moments = tuple(m / pixel_max for m in _mean_and_std(measured)) if standardise else (0.0, 1.0)
    n_channels = measured[0].shape[1]
    mean = _moment(moments[0] if mean is None else mean, "mean", n_channels, name)
    std = _moment(moments[1] if std is None else std, "std", n_channels, name)
    for pixels, labels in checked.values():
        pixels.flags.writeable = labels.flags.writeable = False
    splits = {
        part: Split(*checked[part], pixel_max, mean, std)
        for part in ("train", "calibration", "validation", "test")
        if part in checked
    }
    return Dataset(name, _frozen(splits), mean, std, n_classes, _frozen(dict(provenance)), class_names)


def _mean_and_std(arrays: list[NDArray[Any]]) -> tuple[float, float]:
    """Over all entries, in double precision and a few images at a time."""
    n, total, squares = 0, 0.0, 0.0
    for array in arrays:
        for start in range(0, len(array), 1000):
            part = array[start : start + 1000].astype(np.float64)
            n, total, squares = n + part.size, total + part.sum(), squares + (part * part).sum()
    mean = total / n
    return float(mean), float(np.sqrt(max(squares / n - mean * mean, 0.0)))


def _check_split(
    pixels: NDArray[Any], labels: NDArray[Any], what: str
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    pixels, labels = np.asarray(pixels), np.asarray(labels)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.ndim == 4 and pixels.shape[3] in (1, 3) and pixels.shape[1] not in (1, 3):
        pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    elif pixels.ndim != 4:
        raise InputError(
            f"{what} images must have shape (n, h, w), (n, c, h, w) or (n, h, w, c), got {pixels.shape}"
        )
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32)
        if not np.isfinite(pixels).all():
            raise InputError(f"{what} images must be finite; NaN or infinite pixels found")
    elif pixels.dtype.kind in "iu" and pixels.size and pixels.min() >= 0 and pixels.max() <= 255:
        pixels = pixels.astype(np.uint8)
    else:
        raise InputError(f"{what} images must be floats or integers in 0..255, got {pixels.dtype}")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(
            f"{what} labels must be integers of shape (n,), got {labels.dtype} {labels.shape}; "
            "were they one-hot encoded?"
        )
    if len(labels) != len(pixels) or len(labels) == 0:
        raise InputError(f"{what} needs one label per image, got {len(pixels)} images, {len(labels)} labels")
    unlabelled = what.endswith(": calibration") and bool((labels == files.UNLABELLED).all())
    if labels.min() < 0 and not unlabelled:
        raise InputError(f"{what} labels must be >= 0, got {labels.min()}")
    return pixels, labels.astype(np.int64)


def _carve(
    checked: dict[str, tuple[NDArray[Any], NDArray[np.int64]]], indices: Mapping[str, NDArray[Any]] | None
) -> dict[str, tuple[NDArray[Any], NDArray[np.int64]]]:
    """Set calibration and validation images aside from `train`, or from the only split."""
    whole = "train" if "train" in checked else next(iter(checked))
    if whole != "train" and len(checked) > 1:
        return checked
    pixels, labels = checked[whole]
    chosen = balanced_split(labels) if indices is None else indices
    rest = np.ones(len(labels), dtype=bool)
    rest[chosen["validation"]] = False
    if whole != "train":  # calibration images that are tested would flatter the tuning
        rest[chosen["calibration"]] = False
    parts = {name: (pixels[index], labels[index]) for name, index in chosen.items()}
    return {**checked, **parts, whole: (pixels[rest], labels[rest])}


@functools.cache
def _fashion_mnist() -> Dataset:
    """The embedded part of Fashion-MNIST."""
    with np.load(data_path("fashion_mnist", "fashion_mnist.npz"), allow_pickle=False) as file:
        # columns before rows: pixels of a garment's column resemble each other, which packs better
        pixels, labels = file["images_by_column"].transpose(0, 2, 1), file["labels"]
        mean, std = float(file["mean"]), float(file["std"])
    stops = {"test": (0, 10_000), "calibration": (10_000, 12_000), "validation": (12_000, 14_000)}
    return make_dataset(
        "fashion_mnist",
        {part: (np.ascontiguousarray(pixels[a:b]), labels[a:b]) for part, (a, b) in stops.items()},
        mean=mean,
        std=std,
        n_classes=10,
        class_names=FASHION_CLASSES,
        provenance={
            "origin": "Fashion-MNIST, Zalando SE 2017 (H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747)",
            "licence": "MIT",
            "script": "data/fashion_mnist/make.py",
        },
    )


@functools.cache
def _digits() -> Dataset:
    """scikit-learn's 1,797 digits with pixels in 0..16."""
    with np.load(data_path("digits", "digits.npz"), allow_pickle=False) as file:
        pixels, labels, test = file["images"], file["labels"], file["test"]
        indices = {name: file[name] for name in ("calibration", "validation")}
    train = np.setdiff1d(np.arange(len(labels)), np.concatenate([test, indices["validation"]]))
    places = {"train": train, "test": test, **indices}
    return make_dataset(
        "digits",
        {part: (pixels[index], labels[index]) for part, index in places.items()},
        pixel_max=16.0,
        standardise=True,
        n_classes=10,
        class_names=tuple("0123456789"),
        provenance={
            "origin": "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak 1998, "
            "doi:10.24432/C50P49, as in scikit-learn's load_digits",
            "licence": "CC BY 4.0",
            "script": "data/digits/make.py",
        },
    )


def _fashion_mnist_full() -> Dataset:
    """All 70,000 images, from a directory or the network."""
    for directory in (
        *_user_directories("fashion_mnist_full", "fashion_mnist", "fashion-mnist"),
        DEBIAN_FASHION,
    ):
        if files.find_idx(directory):
            return _fashion_from(directory)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rramsim"
    store = Path(os.environ.get(DATA_VARIABLE) or cache).expanduser()
    directory = store / "fashion_mnist_full"
    if not files.has_all_idx(directory):
        try:
            files.download_gzip(FASHION_URL, FASHION_SHA256, directory)
        except OSError as error:
            raise InputError(
                f"Fashion-MNIST is not on this machine and could not be fetched ({error}); set "
                f"{DATA_VARIABLE} to a directory with its four idx files, or install the Debian package "
                "dataset-fashion-mnist, or use the embedded data set 'fashion_mnist'"
            ) from None
    return _fashion_from(directory)


def _fashion_from(directory: Path) -> Dataset:
    arrays = files.read_idx_pairs(directory)
    for part, prefix in (("train", "train"), ("test", "t10k")):
        for array, kind in zip(arrays.get(part, ()), ("images-idx3", "labels-idx1"), strict=False):
            expected = FASHION_SHA256[f"{prefix}-{kind}-ubyte"]
            if hashlib.sha256(files.idx_bytes(array)).hexdigest() != expected:
                raise InputError(
                    f"{directory}: {prefix}-{kind}-ubyte is not Fashion-MNIST's (checksum differs); is it "
                    "MNIST, or damaged?"
                )
    if set(arrays) != {"train", "test"}:
        raise InputError(f"{directory} must hold the training and the t10k files, got {sorted(arrays)}")
    with np.load(data_path("fashion_mnist", "indices.npz"), allow_pickle=False) as file:
        indices = {name: file[name] for name in ("calibration", "validation")}
    embedded = _fashion_mnist()
    return make_dataset(
        "fashion_mnist_full",
        arrays,
        indices=indices,
        mean=embedded.mean,
        std=embedded.std,
        n_classes=10,
        class_names=FASHION_CLASSES,
        provenance={
            "origin": f"{embedded.provenance['origin']}, read from {directory}",
            "licence": embedded.provenance["licence"],
        },
    )


def _user_directories(*names: str) -> Iterator[Path]:
    """Directories below RRAMSIM_DATA in which a data set of one of these names may lie."""
    base = os.environ.get(DATA_VARIABLE)
    if base:
        root = Path(base).expanduser()
        yield from (root / name for name in names)
        yield root


def _named(name: str, find: Callable[[Path], Any], how: str, *aliases: str) -> Callable[[], Dataset]:
    def load() -> Dataset:
        for directory in _user_directories(name, *aliases):
            if find(directory):
                return _from_directory(directory, name)
        where = os.environ.get(DATA_VARIABLE)
        got = f"{DATA_VARIABLE} is {where!r}" if where else f"{DATA_VARIABLE} is not set"
        raise InputError(
            f"the data set {name!r} was not found ({got}); {how} into a directory {name!r} and set "
            f"{DATA_VARIABLE} to its parent"
        )

    return load


def _from_path(path: Path) -> Dataset:
    if path.is_dir():
        return _from_directory(path, path.name)
    arrays, extra = files.read_arrays(path)
    return make_dataset(path.stem, arrays, provenance={"origin": str(path)}, **extra)


def _from_directory(directory: Path, name: str) -> Dataset:
    if files.find_idx(directory):
        return make_dataset(
            name, files.read_idx_pairs(directory), provenance={"origin": f"idx files in {directory}"}
        )
    for n_classes in (10, 100):
        if files.find_cifar(directory, n_classes):
            arrays = files.read_cifar(directory, n_classes)
            return make_dataset(
                name,
                arrays,
                n_classes=n_classes,
                provenance={"origin": f"CIFAR-{n_classes} (A. Krizhevsky 2009), binary files in {directory}"},
            )
    raise InputError(
        f"{directory} holds neither idx files (train-images-idx3-ubyte, ...) nor CIFAR's binary files "
        "(data_batch_1.bin or train.bin); give the directory that holds them, unpacked"
    )


LOADERS: Mapping[str, Callable[[], Dataset]] = MappingProxyType(
    {
        "fashion_mnist": _fashion_mnist,
        "digits": _digits,
        "fashion_mnist_full": _fashion_mnist_full,
        "mnist": _named("mnist", files.find_idx, "put the four idx files of MNIST (packed or not)"),
        "cifar10": _named(
            "cifar10",
            functools.partial(files.find_cifar, n_classes=10),
            "unpack CIFAR-10's binary version (cifar-10-binary.tar.gz)",
            "cifar-10-batches-bin",
        ),
        "cifar100": _named(
            "cifar100",
            functools.partial(files.find_cifar, n_classes=100),
            "unpack CIFAR-100's binary version (cifar-100-binary.tar.gz)",
            "cifar-100-binary",
        ),
    }
)
