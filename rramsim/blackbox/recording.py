"""A session with a chip, kept in HDF5, and the same session again without the chip.

`RecordingChip` stands in front of any chip and writes every answer to a file. `ReplayChip` gives the
answers back to the same calls, bit for bit, so that what a tuner decided on a real chip can be analysed
again, and followed by another version of the host's side, as long as it asks the chip the same things.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.blackbox.protocol import (
    ChipProtocol,
    Datasheet,
    ForwardingChip,
    LayerInfo,
    Ledger,
    Read,
    Reading,
)
from rramsim.blackbox.windows import WindowCodes
from rramsim.checks import InputError

__all__ = ["RecordingChip", "ReplayChip"]

FORMAT = "rramsim session"
VERSION = 1


def _digest(*parts: Any) -> str:
    """Identifies what a call sent: numbers by value and shape, whatever their integer type."""
    code = hashlib.sha256()
    for part in parts:
        if isinstance(part, WindowCodes):
            code.update(repr(tuple(int(n) for n in part.geometry)).encode())
            part = part.maps
        if isinstance(part, np.ndarray):
            code.update(repr(part.shape).encode())
            code.update(np.ascontiguousarray(part, dtype="<i8").tobytes())
        else:
            code.update(repr(part).encode())
    return code.hexdigest()


def _plain(codes: ArrayLike | WindowCodes) -> Any:
    return codes if isinstance(codes, WindowCodes) else np.asarray(codes)


def _configure_digest(layer: str, input_range: Any, output_range: Any) -> str:
    limits = None if input_range is None else tuple(float(v) for v in input_range)
    return _digest(layer, limits, None if output_range is None else float(output_range))


def _wait_digest(seconds: float, kelvin: float | None) -> str:
    return _digest(float(seconds)) if kelvin is None else _digest(float(seconds), float(kelvin))


class RecordingChip(ForwardingChip):
    """A chip whose calls and answers are kept in a file.

    Parameters
    ----------
    chip : ChipProtocol
        The chip itself, nearer to it than meter and gate.
    path : path
        HDF5 file to make; an existing one is refused.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from rramsim import ChipConfig, RecordingChip, ReplayChip, SimulatedChip
    >>> path = tempfile.mkdtemp() + "/session.h5"
    >>> codes = np.ones((2, 4), dtype=np.int16)
    >>> with RecordingChip(SimulatedChip(ChipConfig(), {"fc": (4, 3)}), path) as chip:
    ...     chip.configure("fc", input_range=(0.0, 0.2), output_range=1e-5)
    ...     answer = chip.mvm("fc", codes)
    >>> again = ReplayChip(path)
    >>> again.configure("fc", input_range=(0.0, 0.2), output_range=1e-5)
    >>> bool((again.mvm("fc", codes).codes == answer.codes).all())
    True
    """

    def __init__(self, chip: ChipProtocol, path: str | Path) -> None:
        super().__init__(chip)
        self.path = Path(path)
        if self.path.exists():
            raise InputError(f"{self.path} exists; a session is never written over, choose another file")
        try:
            self._file = h5py.File(self.path, "x")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror or error})") from None
        self._file.attrs["format"], self._file.attrs["format_version"] = FORMAT, VERSION
        self._file.attrs["datasheet"] = json.dumps(asdict(chip.datasheet))
        self._file.attrs["layers"] = json.dumps([asdict(info) for info in chip.layers.values()])
        self._calls = self._file.create_group("calls", track_order=True)
        self._file.flush()

    def _keep(self, call: str, digest: str, reading: Reading | None = None) -> None:
        group = self._calls.create_group(f"{len(self._calls):09d}")
        group.attrs["call"], group.attrs["digest"] = call, digest
        if reading is not None:
            for name, array in zip(Reading._fields, reading, strict=True):
                axes = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
                stored = np.ascontiguousarray(array.transpose(axes))
                entry = group.create_dataset(name, data=stored, compression="gzip", compression_opts=1)
                entry.attrs["axes"] = axes  # the answer's order in memory: host kernels take their way by it
        self._file.flush()

    @property
    def ledger(self) -> Ledger:
        """The chip's costs; kept too."""
        ledger = super().ledger
        last = f"{len(self._calls) - 1:09d}"
        (self._calls[last] if len(self._calls) else self._file).attrs["ledger"] = json.dumps(ledger.as_dict())
        return ledger

    def write(self, layer: str, levels: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Program level targets."""
        super().write(layer, levels, mask)
        self._keep("write", _digest(layer, np.asarray(levels), None if mask is None else np.asarray(mask)))

    def configure(
        self,
        layer: str,
        *,
        input_range: tuple[float, float] | None = None,
        output_range: float | None = None,
    ) -> None:
        """Set converter ranges."""
        super().configure(layer, input_range=input_range, output_range=output_range)
        self._keep("configure", _configure_digest(layer, input_range, output_range))

    def read_through(self, read: Read, layer: str, codes: ArrayLike, per_tile: bool) -> Reading:
        """Read, and keep the answer."""
        reading = read(layer, codes, per_tile)
        self._keep("mvm", _digest(layer, _plain(codes), bool(per_tile)), reading)
        return reading

    def wait(self, seconds: float, *, kelvin: float | None = None) -> None:
        """Let time pass [s]."""
        super().wait(seconds, kelvin=kelvin)
        self._keep("wait", _wait_digest(seconds, kelvin))

    def close(self) -> None:
        """End the session; the file is complete after every call, so an interrupted one counts too."""
        self._file.close()

    def __enter__(self) -> RecordingChip:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ReplayChip:
    """A chip that gives a recorded session's answers to the same calls in the same order.

    Parameters
    ----------
    path : path
        File of a `RecordingChip`.

    Raises
    ------
    InputError
        A call that differs from the recorded one, at once, with its number.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with h5py.File(self.path, "r") as file:
                if file.attrs.get("format") != FORMAT:
                    raise InputError(f"{self.path}: an HDF5 file, but not a session of RecordingChip")
                if file.attrs["format_version"] > VERSION:
                    raise InputError(f"{self.path}: made by a newer version of rramsim")
                sheet, infos = json.loads(file.attrs["datasheet"]), json.loads(file.attrs["layers"])
                first = json.loads(file.attrs.get("ledger", "{}"))
                self._names = sorted(file["calls"])
        except (OSError, KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.path}: not a readable session ({error})") from None
        self.datasheet = Datasheet(**(sheet | {"levels": tuple(sheet["levels"])}))
        rebuilt = [LayerInfo(**(i | {"row_tiles": tuple((a, b) for a, b in i["row_tiles"])})) for i in infos]
        self.layers: Mapping[str, LayerInfo] = MappingProxyType({info.name: info for info in rebuilt})
        self._ledger = Ledger.from_dict(first)
        self._next = 0

    @property
    def ledger(self) -> Ledger:
        """Costs as they were when they were asked for last, up to here in the session."""
        return Ledger.from_dict(self._ledger.as_dict())

    @property
    def n_left(self) -> int:
        """Recorded calls that have not been repeated yet."""
        return len(self._names) - self._next

    def _repeat(self, call: str, digest: str, what: str) -> Reading | None:
        if self.n_left == 0:
            raise InputError(f"{self.path}: the session ended after {self._next} calls, {what} is one more")
        with h5py.File(self.path, "r") as file:
            group = file["calls"][self._names[self._next]]
            if group.attrs["call"] != call or group.attrs["digest"] != digest:
                raise InputError(
                    f"{self.path}: call {self._next} of the session was another {group.attrs['call']!r}, "
                    f"now it is {what}: the host's side decides differently than when this was recorded"
                )
            if "ledger" in group.attrs:
                self._ledger = Ledger.from_dict(json.loads(group.attrs["ledger"]))
            self._next += 1
            if call != "mvm":
                return None
            arrays = []
            for name in Reading._fields:
                array, axes = group[name][()], group[name].attrs["axes"]
                arrays.append(array.transpose(np.argsort(axes)))
            return Reading(*arrays)

    def write(self, layer: str, levels: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Program level targets, as then."""
        digest = _digest(layer, np.asarray(levels), None if mask is None else np.asarray(mask))
        self._repeat("write", digest, f"a write of {layer!r}")

    def configure(
        self,
        layer: str,
        *,
        input_range: tuple[float, float] | None = None,
        output_range: float | None = None,
    ) -> None:
        """Set converter ranges, as then."""
        digest = _configure_digest(layer, input_range, output_range)
        self._repeat("configure", digest, f"a configure of {layer!r}")

    def mvm(self, layer: str, codes: ArrayLike | WindowCodes, per_tile: bool = False) -> Reading:
        """The recorded answer."""
        reading = self._repeat("mvm", _digest(layer, _plain(codes), bool(per_tile)), f"a read of {layer!r}")
        assert reading is not None
        return reading

    def wait(self, seconds: float, *, kelvin: float | None = None) -> None:
        """Let time pass, as then."""
        warm = "" if kelvin is None else f" at {kelvin:g} K"
        self._repeat("wait", _wait_digest(seconds, kelvin), f"a wait of {seconds:g} s{warm}")
