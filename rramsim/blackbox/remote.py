"""A chip in another process, reached only through the public protocol.

Messages are a JSON header and raw array bytes over a socket (`multiprocessing.connection`,
bytes only: nothing is unpickled). The same two ends serve a laboratory: run `serve_chip` on the
computer that owns the instrument, and `RemoteChip` where the tuner runs.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict
from multiprocessing.connection import Client, Connection, Listener
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.blackbox.protocol import ChipProtocol, Datasheet, LayerInfo, Ledger, Reading
from rramsim.blackbox.windows import WindowCodes
from rramsim.checks import InputError
from rramsim.kernels.windows import Geometry

__all__ = ["RemoteChip", "serve_chip"]


def _pack(header: dict[str, Any], arrays: Mapping[str, NDArray[Any] | None]) -> bytes:
    """Length of the header, the header, then the arrays one after another."""
    present = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}
    header = header | {"arrays": {n: [a.dtype.str, list(a.shape)] for n, a in present.items()}}
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + b"".join(a.tobytes() for a in present.values())


def _unpack(message: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    (length,) = struct.unpack_from("<I", message)
    header = json.loads(message[4 : 4 + length])
    arrays, offset = {}, 4 + length
    for name, (kind, shape) in header.pop("arrays").items():
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(message, np.dtype(kind), count, offset).reshape(shape)
        offset += arrays[name].nbytes
    return header, arrays


def serve_chip(chip: ChipProtocol, listener: Listener) -> None:
    """Answer one client until it closes the connection.

    Parameters
    ----------
    listener : multiprocessing.connection.Listener
        Where the client knocks; give it an `authkey`.
    """
    with listener.accept() as connection:
        while True:
            try:
                header, arrays = _unpack(connection.recv_bytes())
            except EOFError:
                return
            try:
                reply = _answer(chip, header, arrays)
            except (ValueError, TypeError) as error:
                reply = _pack({"error": str(error)}, {})
            connection.send_bytes(reply)


def _answer(chip: ChipProtocol, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> bytes:
    match header.pop("call"):
        case "describe":
            layers = {name: asdict(info) for name, info in chip.layers.items()}
            return _pack({"datasheet": asdict(chip.datasheet), "layers": layers}, {})
        case "ledger":
            return _pack({"ledger": chip.ledger.as_dict()}, {})
        case "write":
            chip.write(header["layer"], arrays["levels"], arrays.get("mask"))
            return _pack({}, {})
        case "configure":
            limits = header["input_range"]
            chip.configure(
                header["layer"],
                input_range=None if limits is None else (limits[0], limits[1]),
                output_range=header["output_range"],
            )
            return _pack({}, {})
        case "mvm":
            codes: Any = arrays["codes"]
            if header["window"] is not None:
                codes = WindowCodes(codes, Geometry(*header["window"]))
            reading = chip.mvm(header["layer"], codes, header["per_tile"])
            return _pack({}, reading._asdict())
        case "wait":
            chip.wait(header["seconds"])
            return _pack({}, {})
        case other:
            raise InputError(f"a chip knows no call {other!r}; do both ends run the same version?")


class RemoteChip:
    """Client end: a `ChipProtocol` whose calls travel to `serve_chip`.

    Parameters
    ----------
    address : (host, port) or str
        As for `multiprocessing.connection.Client`.
    authkey : bytes
        Shared secret of both ends.
    """

    def __init__(self, address: tuple[str, int] | str, authkey: bytes) -> None:
        self._connection: Connection = Client(address, authkey=authkey)
        header, _ = self._call("describe")
        sheet = header["datasheet"]
        self._datasheet = Datasheet(**(sheet | {"levels": tuple(sheet["levels"])}))
        self._layers = MappingProxyType(
            {
                name: LayerInfo(**(info | {"row_tiles": tuple((a, b) for a, b in info["row_tiles"])}))
                for name, info in header["layers"].items()
            }
        )

    def _call(
        self, call: str, arrays: Mapping[str, NDArray[Any] | None] | None = None, **header: Any
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        self._connection.send_bytes(_pack({"call": call, **header}, arrays or {}))
        answer, results = _unpack(self._connection.recv_bytes())
        if "error" in answer:
            raise InputError(answer["error"])
        return answer, results

    @property
    def datasheet(self) -> Datasheet:
        """Nominal data of the far chip."""
        return self._datasheet

    @property
    def layers(self) -> Mapping[str, LayerInfo]:
        """Layers of the far chip."""
        return self._layers

    @property
    def ledger(self) -> Ledger:
        """Costs of the far chip."""
        return Ledger.from_dict(self._call("ledger")[0]["ledger"])

    def write(self, layer: str, levels: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Program level targets."""
        self._call("write", {"levels": levels, "mask": mask}, layer=layer)

    def configure(
        self,
        layer: str,
        *,
        input_range: tuple[float, float] | None = None,
        output_range: float | None = None,
    ) -> None:
        """Set converter ranges."""
        self._call("configure", layer=layer, input_range=input_range, output_range=output_range)

    def mvm(self, layer: str, codes: ArrayLike | WindowCodes, per_tile: bool = False) -> Reading:
        """Multiply vectors by the stored matrix."""
        window = list(codes.geometry) if isinstance(codes, WindowCodes) else None
        plain = codes.maps if isinstance(codes, WindowCodes) else np.asarray(codes)
        _, arrays = self._call("mvm", {"codes": plain}, layer=layer, per_tile=per_tile, window=window)
        return Reading(arrays["codes"], arrays["saturated"])

    def wait(self, seconds: float) -> None:
        """Let time pass [s]."""
        self._call("wait", seconds=seconds)

    def close(self) -> None:
        """Hang up; the server returns."""
        self._connection.close()
