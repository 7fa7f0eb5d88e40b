"""Readers of image files: idx (MNIST's form), CIFAR's binary form, `.npz` and HDF5; and a checked download.

Each reader returns a mapping of split to (pixels, labels) as stored; `rramsim.datasets.embedded`
checks and normalises them. What is unreadable raises `InputError`.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import sys
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError
from rramsim.hdf5 import DAMAGE, check_size, open_plain

Arrays = dict[str, tuple[NDArray[Any], NDArray[Any]]]

UNREADABLE: tuple[type[Exception], ...] = (*DAMAGE, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error)
IDX_PREFIXES = {"train": "train", "test": "t10k"}
UNLABELLED = -1  # label of a calibration image without one
SPLIT_NAMES = ("train", "calibration", "validation", "test")
IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CIFAR_PIXELS = 3 * 32 * 32


def _idx_file(directory: Path, prefix: str, kind: str) -> Path | None:
    """The file of this role under any of its usual names."""
    number = "3" if kind == "images" else "1"
    for stem in (f"{prefix}-{kind}-idx{number}-ubyte", f"{prefix}-{kind}.idx{number}-ubyte"):
        for name in (stem, f"{stem}.gz"):
            if (directory / name).is_file():
                return directory / name
    return None


def find_idx(directory: Path) -> bool:
    """Whether the directory holds idx images."""
    return any(_idx_file(directory, prefix, "images") for prefix in IDX_PREFIXES.values())


def has_all_idx(directory: Path) -> bool:
    """Whether images and labels are there for training and test."""
    roles = ((prefix, kind) for prefix in IDX_PREFIXES.values() for kind in ("images", "labels"))
    return all(_idx_file(directory, *role) for role in roles)


def read_idx(path: Path) -> NDArray[Any]:
    """The array of one idx file, packed with gzip or not (format: Y. LeCun, C. Cortes, MNIST)."""
    try:
        stored = path.stat().st_size
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as stream:
            head = stream.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_DTYPES:
                raise InputError(f"{path} is no idx file; it must begin with two zero bytes and a known type")
            n_axes = head[3]
            sizes = stream.read(4 * n_axes)
            if len(sizes) < 4 * n_axes:
                raise InputError(f"{path} is truncated within its header; fetch it again")
            shape = struct.unpack(f">{n_axes}I", sizes)
            dtype = np.dtype(IDX_DTYPES[head[2]])
            wanted = dtype.itemsize * math.prod(shape)  # of any size: no product overflows
            if packed:
                check_size(wanted, stored, str(path))
            elif wanted + 4 + 4 * n_axes != stored:
                wanted += 4 + 4 * n_axes
                raise InputError(
                    f"{path} must hold {wanted:,} bytes by its header, got {stored:,}; is it truncated?"
                )
            raw = stream.read(wanted + 1)
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read ({error}); fetch it again") from None
    if len(raw) != wanted:
        got = "more" if len(raw) > wanted else f"{len(raw):,}"
        raise InputError(f"{path} must hold {wanted:,} bytes by its header, got {got}; is it truncated?")
    if len(shape) > 32:
        raise InputError(f"{path} claims {len(shape)} axes; an idx file of images has 3")
    return np.frombuffer(raw, dtype).reshape(shape)


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """The unpacked idx file of an array of bytes."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 0x08, array.ndim, *array.shape)
    return header + np.ascontiguousarray(array, dtype=np.uint8).tobytes()


def read_idx_pairs(directory: Path) -> Arrays:
    """`train` and `test`, whichever are there."""
    arrays: Arrays = {}
    for split, prefix in IDX_PREFIXES.items():
        images = _idx_file(directory, prefix, "images")
        labels = _idx_file(directory, prefix, "labels")
        if images is None and labels is None:
            continue
        if images is None or labels is None:
            missing = "images-idx3" if images is None else "labels-idx1"
            raise InputError(f"{directory} lacks {prefix}-{missing}-ubyte; put it beside its companion")
        arrays[split] = (read_idx(images), read_idx(labels))
    return arrays


def _cifar_files(n_classes: int) -> dict[str, tuple[str, ...]]:
    if n_classes == 10:
        return {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
    return {"train": ("train.bin",), "test": ("test.bin",)}


def find_cifar(directory: Path, n_classes: int) -> bool:
    """Whether the directory holds CIFAR's binary training or test file."""
    files = _cifar_files(n_classes)
    return any((directory / name).is_file() for names in files.values() for name in names)


def read_cifar(directory: Path, n_classes: int) -> Arrays:
    """CIFAR-10 or CIFAR-100 in the official binary form: records of label bytes and 3x32x32 pixels.

    CIFAR-100's records bear a coarse label first, which is left out.
    """
    n_labels = 1 if n_classes == 10 else 2
    arrays: Arrays = {}
    for split, names in _cifar_files(n_classes).items():
        records = []
        for name in names:
            path = directory / name
            if not path.is_file():
                raise InputError(
                    f"{directory} lacks {name}; unpack the whole binary version of CIFAR-{n_classes}"
                )
            raw = np.fromfile(path, dtype=np.uint8)
            if len(raw) == 0 or len(raw) % (n_labels + CIFAR_PIXELS):
                raise InputError(
                    f"{path} must hold whole records of {n_labels + CIFAR_PIXELS} bytes, got {len(raw):,}; "
                    "is it truncated, or the Python version of CIFAR?"
                )
            records.append(raw.reshape(-1, n_labels + CIFAR_PIXELS))
        table = np.concatenate(records)
        arrays[split] = (
            table[:, n_labels:].reshape(-1, 3, 32, 32),
            table[:, n_labels - 1].astype(np.int64),
        )
    return arrays


def read_arrays(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Splits and normalisation from an `.npz` or HDF5 file.

    Arrays are named `images` and `labels`, or `train_images`, `train_labels`, `test_images`, ... (in
    HDF5 also `train/images`); `calibration_images` need no labels. Optional `mean` and `std` (one number
    or one for each channel), `pixel_max` and `n_classes` (in HDF5 also root attributes) set the
    normalisation.
    """
    if path.suffix == ".npz":
        table = _read_npz(path)
    elif path.suffix in (".h5", ".hdf5"):
        table = _read_hdf5(path)
    else:
        raise InputError(
            f"{path} must be an .npz or HDF5 (.h5, .hdf5) file or a directory, got {path.suffix!r}"
        )
    arrays: Arrays = {}
    for split in SPLIT_NAMES:
        if f"{split}_images" in table or f"{split}_labels" in table:
            arrays[split] = _pair(table, f"{split}_", path, labelled=split != "calibration")
    if not arrays:
        arrays["test"] = _pair(table, "", path)
    extra: dict[str, Any] = {}
    for name in ("mean", "std", "pixel_max", "n_classes"):
        if name in table:
            if name in ("mean", "std"):
                extra[name] = np.asarray(table[name], dtype=np.float64)  # one number, or one for each channel
                continue
            if np.size(table[name]) != 1:
                raise InputError(f"{path}: {name} must be one number, got shape {np.shape(table[name])}")
            extra[name] = np.asarray(table[name]).reshape(-1)[0].item()
    return arrays, extra


def _pair(
    table: Mapping[str, NDArray[Any]], prefix: str, path: Path, *, labelled: bool = True
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images and labels; calibration images need none, and have label -1 without."""
    for name in (f"{prefix}images", f"{prefix}labels"):
        if name not in table:
            if not labelled and name.endswith("labels"):
                return table[f"{prefix}images"], np.full(len(table[f"{prefix}images"]), UNLABELLED)
            raise InputError(
                f"{path} must hold an array {name!r}, got {', '.join(sorted(table))[:300] or 'nothing'}"
            )
    return table[f"{prefix}images"], table[f"{prefix}labels"]


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # numpy leaves its own handle open where the archive is damaged
        with path.open("rb") as stream, zipfile.ZipFile(stream) as whole:
            for entry in whole.infolist():
                where = f"{path}: {entry.filename[:80]}"
                check_size(entry.file_size, entry.compress_size, where)
                with whole.open(entry) as part:
                    _check_npy_header(part, entry.file_size, where)
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(
            f"{path} is no readable .npz of plain arrays ({str(error)[:200]}); save it with numpy.savez"
        ) from None


def _check_npy_header(stream: Any, size: int, where: str) -> None:
    """Refuse an array whose header claims another size than the file has, before memory is taken."""
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise InputError(f"{where}: version {version} of the .npy format is not supported")
    shape, _, dtype = read[version](stream)
    if dtype.hasobject:
        raise InputError(f"{where} holds Python objects, which are never loaded; save plain arrays")
    wanted = math.prod(shape) * dtype.itemsize + stream.tell()
    if wanted != size or any(n < 0 for n in shape):
        raise InputError(f"{where} must hold {wanted:,} bytes by its header, got {size:,}; is it damaged?")


def _read_hdf5(path: Path) -> dict[str, NDArray[Any]]:
    import h5py

    table: dict[str, NDArray[Any]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            table[name.replace("/", "_")] = item[()]

    with open_plain(path, "data set") as file:
        table.update({name: np.asarray(value) for name, value in file.attrs.items()})
        file.visititems(visit)
    return table


def download_gzip(url: str, sha256: Mapping[str, str], directory: Path) -> None:
    """Fetch `url`/NAME.gz for each NAME, check its unpacked content, and store it in `directory`.

    A file appears under its final name only once its checksum is right. Progress is shown on a
    terminal. Raises OSError where the network or the disk fails, InputError on a wrong checksum.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name, expected in sha256.items():
        target = directory / f"{name}.gz"
        if target.is_file():
            continue
        packed = b"".join(_chunks(f"{url.rstrip('/')}/{name}.gz", name))
        try:
            digest = hashlib.sha256(gzip.decompress(packed)).hexdigest()
        except (OSError, EOFError, zlib.error):
            digest = "unreadable"
        if digest != expected:
            raise InputError(f"{name}.gz from {url} has a wrong checksum ({digest[:12]}); try again later")
        partial = target.with_suffix(".part")
        partial.write_bytes(packed)
        partial.replace(target)


def _chunks(url: str, what: str) -> Iterable[bytes]:
    from rich.progress import Progress

    with (
        urllib.request.urlopen(url, timeout=30) as response,
        Progress(disable=not sys.stderr.isatty()) as progress,
    ):
        task = progress.add_task(what, total=int(response.headers.get("Content-Length") or 0) or None)
        while chunk := response.read(1 << 16):
            progress.advance(task, len(chunk))
            yield chunk
