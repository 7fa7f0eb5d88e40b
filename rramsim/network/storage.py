"""Networks in HDF5: weights as datasets, graph as attributes and JSON text, no pickles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rramsim.checks import InputError
from rramsim.hdf5 import DAMAGE, USER_BLOCK, open_plain, sign
from rramsim.network.graph import Network
from rramsim.network.node import Node

__all__ = ["load", "save"]

FORMAT = "rramsim network"
FORMAT_VERSION = 2  # 2: several inputs; networks with one are still written as version 1


def save(network: Network, target: str | Path | Any) -> None:
    """Write a network to a file path, with a checksum, or into an open h5py group."""
    if isinstance(target, str | Path):
        import h5py

        partial = Path(f"{target}.part")
        try:
            # compact headers: half the size of a graph of many nodes; any HDF5 since 1.10 reads them
            with h5py.File(partial, "w", libver=("v108", "v110"), userblock_size=USER_BLOCK) as file:
                _write(network, file)
            sign(partial)
            partial.replace(target)  # never a file that is half written
        finally:
            partial.unlink(missing_ok=True)
    else:
        _write(network, target)


def _write(network: Network, group: Any) -> None:
    group.attrs["format"] = FORMAT
    group.attrs["format_version"] = FORMAT_VERSION if network.more_inputs else 1
    group.attrs["name"] = network.name
    group.attrs["output"] = network.output
    group.attrs["input_shape"] = network.input_shape
    group.attrs["input_dtype"] = network.input_dtype.str
    if network.more_inputs:
        more = {name: [list(shape), dtype.str] for name, (shape, dtype) in network.more_inputs.items()}
        group.attrs["more_inputs"] = json.dumps(more)
    group.attrs["metadata"] = json.dumps(network.metadata, sort_keys=True)
    nodes = group.create_group("nodes", track_order=True)
    for index, node in enumerate(network.nodes):
        entry = nodes.create_group(f"{index:04d}")
        entry.attrs["name"] = node.name
        entry.attrs["op"] = node.op
        entry.attrs["inputs"] = json.dumps(node.inputs)
        entry.attrs["attributes"] = json.dumps(node.attributes, sort_keys=True, default=_plain)
        for key, value in node.parameters.items():
            if "shares" in node.attributes:
                break  # the owner's
            big = value.size > 1024
            entry.create_dataset(key, data=value, **({"compression": "gzip", "shuffle": True} if big else {}))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"attributes must be plain values, got {type(value).__name__}")


def load(source: str | Path | Any) -> Network:
    """Read a network from a file path or an open h5py group."""
    if not isinstance(source, str | Path):
        return _read(source, str(getattr(source, "name", source)))
    if not Path(source).is_file():
        raise InputError(f"{source}: no such file; a network is an HDF5 file written by Network.save")
    with open_plain(source, "network") as file:
        return _read(file, str(source))


def _read(group: Any, where: str) -> Network:
    if group.attrs.get("format") != FORMAT:
        raise InputError(f"{where}: holds no network (format {group.attrs.get('format')!r})")
    if group.attrs["format_version"] > FORMAT_VERSION:
        raise InputError(
            f"{where}: network format {group.attrs['format_version']} is newer than {FORMAT_VERSION}; "
            "update rramsim"
        )
    try:
        nodes = [
            Node(
                name=str(entry.attrs["name"]),
                op=str(entry.attrs["op"]),
                inputs=tuple(json.loads(entry.attrs["inputs"])),
                attributes=json.loads(entry.attrs["attributes"]),
                parameters={key: dataset[()] for key, dataset in entry.items()},
            )
            for _, entry in sorted(group["nodes"].items())
        ]
        owned = {node.name: node.parameters for node in nodes}
        nodes = [replace(n, parameters=owned[n.attributes.get("shares", n.name)]) for n in nodes]
        return Network(
            nodes,
            tuple(group.attrs["input_shape"]),
            str(group.attrs["output"]),
            str(group.attrs["name"]),
            json.loads(group.attrs["metadata"]),
            np.dtype(str(group.attrs["input_dtype"])),
            {name: tuple(entry) for name, entry in json.loads(group.attrs.get("more_inputs", "{}")).items()},
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except DAMAGE as error:
        raise InputError(f"{where}: the network is damaged ({type(error).__name__}: {error})") from None
