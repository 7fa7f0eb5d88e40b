"""Damaged and hostile files: every reader gives an array, a network or an `InputError`, in bounded memory.

Mutations are flips, cuts, insertions and overwrites of valid files, from one seed (RRAMSIM_FUZZ_SEED is added
to it). A sample runs always, 10,000 for each reader with the marker `slow`. HDF5 files without checksum are
read by a child process first, since the HDF5 library itself may crash on them; that takes a third of a second
each, so there are fewer.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest

from rramsim import hdf5
from rramsim.checks import InputError
from rramsim.datasets import files
from rramsim.network import Network, zoo

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
SAMPLE, MANY = 150, 10_000


def npz_bytes():
    stream = io.BytesIO()
    np.savez(stream, images=np.zeros((4, 6, 6), np.uint8), labels=np.arange(4), mean=np.float64(0.3))
    return stream.getvalue()


def idx(array):
    return files.idx_bytes(array)


def onnx_bytes():
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(3, 2, 3, 3)), "v": rng.normal(size=(12, 4)), "s": np.ones(3), "b": np.zeros(3),
        "m": np.zeros(3), "q": np.ones(3),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "q"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 2, 4, 4])],
        [helper.make_tensor_value_info("y", kind, ["n", 4])],
        [onnx.numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def network_bytes(folder):
    zoo.mlp((6, 5, 3)).save(folder / "valid.h5")
    return (folder / "valid.h5").read_bytes()


def data_bytes(folder):
    with h5py.File(folder / "valid.h5", "w") as file:
        file["images"] = np.random.default_rng(0).integers(0, 255, (12, 5, 5)).astype("u1")
        file.create_dataset("labels", data=np.arange(12) % 4, compression="gzip", chunks=(5,))
        file.attrs["mean"] = 0.3
    return (folder / "valid.h5").read_bytes()


READERS = {
    "hdf5": ("x.hdf5", data_bytes, files.read_arrays),
    "idx": ("x-ubyte", lambda _: idx(np.zeros((5, 4, 4), np.uint8)), files.read_idx),
    "idx.gz": ("x-ubyte.gz", lambda _: gzip.compress(idx(np.zeros((5, 4, 4), np.uint8))), files.read_idx),
    "npz": ("x.npz", lambda _: npz_bytes(), files.read_arrays),
    "onnx": ("x.onnx", lambda _: onnx_bytes(), Network.load),
    "network": ("x.h5", network_bytes, Network.load),
}


def mutated(data, rng):
    """A copy with one to four flips, cuts, insertions or overwritten numbers."""
    result = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        where = int(rng.integers(0, max(len(result), 1)))
        match int(rng.integers(0, 5)):
            case 0 if result:
                result[where] ^= 1 << int(rng.integers(0, 8))
            case 1:
                del result[where : where + int(rng.integers(1, 40))]
            case 2:
                result[where:where] = rng.bytes(int(rng.integers(1, 20)))
            case 3:
                extremes = (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0")
                result[where : where + 4] = extremes[int(rng.integers(0, 4))]
            case _:
                del result[where:]
    return bytes(result)


def fuzz(name, folder, count, seed):
    seed += int(os.environ.get("RRAMSIM_FUZZ_SEED", "0"))
    file_name, make, read = READERS[name]
    data, path = make(folder), folder / file_name
    path.write_bytes(data)
    read(path)
    rng = np.random.default_rng(seed)
    messages = []
    tracemalloc.start()
    for _ in range(count):
        path.write_bytes(mutated(data, rng))
        try:
            read(path)
        except InputError as error:
            messages.append(str(error))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 30
    assert all(str(path) in message and len(message) < 2000 for message in messages)
    assert len(messages) > count // 10
    return len(messages)


@pytest.mark.parametrize("name", READERS)
def test_a_sample_of_damaged_files(name, tmp_path):
    refused = fuzz(name, tmp_path, 15 if name == "hdf5" else SAMPLE, seed=1)
    if name == "network":  # a checksum: every change of content is found
        assert refused > 0.95 * SAMPLE


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_files(name, tmp_path):
    fuzz(name, tmp_path, int(os.environ.get("RRAMSIM_FUZZ_HDF5", "500")) if name == "hdf5" else MANY, seed=2)


def test_any_changed_byte_of_a_network_is_one_clear_error(tmp_path):
    data = network_bytes(tmp_path)
    for where in range(512, len(data), max(1, len(data) // 300)):
        changed = bytearray(data)
        changed[where] ^= 0x10
        (tmp_path / "x.h5").write_bytes(changed)
        with pytest.raises(InputError, match="checksum is wrong"):
            Network.load(tmp_path / "x.h5")


def test_declared_sizes_are_checked_before_memory_is_taken(tmp_path):
    header = struct.pack(">HBB3I", 0, 8, 3, 60_000, 28 * 10, 28 * 10)
    with gzip.open(tmp_path / "big.gz", "wb") as stream:
        stream.write(header + bytes(1000))
    with pytest.raises(InputError, match=r"claims 4,704,000,000 bytes"):
        files.read_idx(tmp_path / "big.gz")
    overflow = struct.pack(">HBB4I", 0, 8, 4, *[2**31] * 4)
    (tmp_path / "odd").write_bytes(overflow)
    with pytest.raises(InputError, match="must hold"):
        files.read_idx(tmp_path / "odd")
    with h5py.File(tmp_path / "big.h5", "w") as file:
        file.create_dataset("images", shape=(10**6, 28, 28), dtype="u1", chunks=(1000, 28, 28))
        file["labels"] = np.zeros(3)
    with pytest.raises(InputError, match=r"/images claims 784,000,000 bytes and stores 0"):
        files.read_arrays(tmp_path / "big.h5")
    stream = io.BytesIO()
    np.save(stream, np.zeros((3, 3)))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as whole:
        whole.writestr("images.npy", stream.getvalue().replace(b"(3, 3)", b"(9, 9)"))
    with pytest.raises(InputError, match="by its header"):
        files.read_arrays(tmp_path / "x.npz")


def test_files_that_point_to_other_files_are_refused(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(range(48)))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros((3, 4, 4), np.uint8)
    for kind in ("external", "link", "soft"):
        path = tmp_path / f"{kind}.h5"
        with h5py.File(path, "w") as file:
            file["labels"] = np.zeros(3, np.int64)
            if kind == "external":
                file.create_dataset("images", (3, 4, 4), "u1", external=[(str(secret), 0, 48)])
            else:
                other = (
                    h5py.ExternalLink("other.h5", "/images") if kind == "link" else h5py.SoftLink("/labels")
                )
                file["images"] = other
        with pytest.raises(InputError, match=r"another file|is a link"):
            files.read_arrays(path)
        with pytest.raises(InputError):
            Network.load(path)


def test_objects_in_npz_are_never_loaded(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.array([{"a": 1}], dtype=object), labels=np.zeros(1))
    with pytest.raises(InputError, match="objects"):
        files.read_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "child, message",
    [
        ("import os; os.kill(os.getpid(), 11)", r"reading it crashes the HDF5 library \(signal 11\)"),
        ("while True: pass", "reading it does not end within 2 s"),
        ("x = bytearray(1 << 40)", r"reading it takes more than 2\.\d GiB of memory"),
    ],
)
def test_what_would_crash_or_hang_is_one_error(tmp_path, monkeypatch, child, message):
    """libhdf5 crashed or looped on a few damaged files of some hundred, and took the program with it."""
    monkeypatch.setattr(hdf5, "CHILD", child)
    monkeypatch.setattr(hdf5, "CHILD_SECONDS", 2.0)
    data_bytes(tmp_path)
    with pytest.raises(InputError, match=message):
        files.read_arrays(tmp_path / "valid.h5")
    with pytest.raises(InputError, match=message):
        Network.load(tmp_path / "valid.h5")


def test_a_healthy_file_is_read_apart_once(tmp_path, monkeypatch):
    data_bytes(tmp_path)
    files.read_arrays(tmp_path / "valid.h5")
    monkeypatch.setattr(hdf5, "CHILD", "import os; os.kill(os.getpid(), 11)")
    arrays, extra = files.read_arrays(tmp_path / "valid.h5")
    assert arrays["test"][0].shape == (12, 5, 5)
    assert extra["mean"] == 0.3
