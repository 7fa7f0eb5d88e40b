"""What `Network.load`, `save`, `from_onnx` and `from_torch` call: one reader or writer per file format.

The graph knows no file format and the formats know the graph; `graph.FORMATS` is where they meet. A format's
module is loaded when it is first used, so that h5py, onnx and torch cost nothing before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rramsim.network import graph

__all__: list[str] = []

Shapes = Sequence[int] | Mapping[str, Sequence[int]]


def _load(source: str | Path | Any, *, input_shape: Shapes | None = None) -> graph.Network:
    """HDF5 written by `save`, or ONNX: a file that begins like neither is read as its suffix says."""
    if isinstance(source, str | Path) and Path(source).suffix.lower() in (".onnx", ".pb"):
        return _from_onnx(source, input_shape=input_shape)
    from rramsim.network.storage import load

    return load(source)


def _save(network: graph.Network, target: str | Path | Any) -> None:
    from rramsim.network.storage import save

    save(network, target)


def _from_onnx(
    path: str | Path, *, fold_batch_norm: bool = False, input_shape: Shapes | None = None
) -> graph.Network:
    from rramsim.network.onnx import from_onnx

    return from_onnx(path, fold_batch_norm=fold_batch_norm, input_shape=input_shape)


def _from_torch(module: Any, example: Any, *, fold_batch_norm: bool = False) -> graph.Network:
    from rramsim.network.torch import from_torch

    return from_torch(module, example, fold_batch_norm=fold_batch_norm)


graph.FORMATS.update(load=_load, save=_save, from_onnx=_from_onnx, from_torch=_from_torch)
