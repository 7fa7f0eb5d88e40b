"""A chip in another process, reached only through the public protocol.

Run `serve_chip` on the computer that owns the instrument, and `RemoteChip` where the tuner runs. The
server outlives everything but its own chip: strangers, garbage, silent connections and malformed
messages cost nothing but the time of a limit. Traffic is authenticated at its beginning, not
encrypted: cross untrusted networks through a tunnel. The wire format is documented in
`docs/protocol.md`, for far ends in other languages.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import os
import queue
import socket
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.blackbox.protocol import ChipProtocol, Datasheet, LayerInfo, Ledger, Reading
from rramsim.blackbox.requests import answer
from rramsim.blackbox.windows import WindowCodes
from rramsim.blackbox.wire import (
    ChipConnectionError,
    ChipTimeoutError,
    MessageError,
    WireLimits,
    greet,
    pack,
    receive,
    send,
    unpack,
    welcome,
)
from rramsim.checks import InputError

__all__ = ["ChipListener", "RemoteChip", "serve_chip"]

PART_BYTES = 2**26  # a read is sent in parts of about this size, answers included
WAITING = 16  # connections in their handshake, or behind the client that is being served
BACKLOG = 128  # connections that the system holds until they are accepted
REFUSALS = (ValueError, TypeError, LookupError, ArithmeticError)  # of a chip: about what was asked of it
Address = tuple[str, int] | str


def _local(address: Address) -> bool:
    """Whether only this computer can reach an address: a socket file, or the loopback."""
    if isinstance(address, str) or address[0] == "localhost":
        return True
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return False


def _family(address: Address) -> socket.AddressFamily:
    if isinstance(address, str):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _checked_address(address: Any) -> Address:
    """A pair or a path as sockets take it; a list, as pipes and JSON make of a pair, is a pair."""
    if isinstance(address, str):
        return address
    try:
        host, port = address
    except (TypeError, ValueError):
        raise InputError(f"an address is (host, port) or the path of a socket, got {address!r}") from None
    if not isinstance(host, str) or not isinstance(port, int) or not 0 <= port < 65536:
        raise InputError(f"an address is (host, port) with a port in 0..65535, got {address!r}")
    return host, port


class ChipListener:
    """Where clients of `serve_chip` knock.

    Parameters
    ----------
    address : (host, port) or str
        Port 0 lets the system choose one, see `address`; a text is the path of a Unix socket.
    authkey : bytes
        Secret that clients must hold too. Only the loopback and Unix sockets may go without.
    limits : WireLimits, optional
        Time and size that a stranger or a client may take.

    Raises
    ------
    InputError
        No key off the loopback, or an address that cannot be had.

    Examples
    --------
    >>> from rramsim.blackbox.remote import ChipListener
    >>> with ChipListener(("127.0.0.1", 0), authkey=b"a secret") as listener:
    ...     listener.address[0]
    '127.0.0.1'
    """

    def __init__(
        self, address: Address, *, authkey: bytes | None = None, limits: WireLimits | None = None
    ) -> None:
        address = _checked_address(address)
        self.key = bytes(authkey or b"")
        self.limits = WireLimits() if limits is None else limits
        if not self.key and not _local(address):
            raise InputError(
                f"a chip served at {address!r} needs an authkey: anybody on the network could write to it; "
                "without a key serve on 127.0.0.1"
            )
        self._socket = socket.socket(_family(address), socket.SOCK_STREAM)
        try:
            if not isinstance(address, str):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
            self._socket.listen(BACKLOG)
        except OSError as error:
            self._socket.close()
            raise InputError(f"cannot listen at {address!r} ({error.strerror or error})") from None
        self._path = address if isinstance(address, str) else None
        self._ready: queue.Queue[socket.socket | None] = queue.Queue()
        self._places = threading.BoundedSemaphore(WAITING)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._receive_guests, daemon=True).start()

    @property
    def address(self) -> Address:
        """Where clients find it, the port that was chosen included."""
        if self._path is not None:
            return self._path
        host, port = self._socket.getsockname()[:2]
        return host, port

    def _receive_guests(self) -> None:
        """Shake hands with whoever comes, each in its own thread, so that nobody blocks the others."""
        while not self._closed.is_set():
            try:
                guest, _ = self._socket.accept()
            except OSError:
                if self._closed.is_set():
                    break
                self._closed.wait(0.1)  # out of handles, or the guest left again
                continue
            if self._places.acquire(blocking=False):
                threading.Thread(target=self._shake_hands, args=(guest,), daemon=True).start()
            else:
                guest.close()
        self._ready.put(None)

    def _shake_hands(self, guest: socket.socket) -> None:
        try:
            welcome(guest, self.key, self.limits)
        except (ChipConnectionError, MessageError, OSError):
            guest.close()
            self._places.release()
            return
        with contextlib.suppress(OSError):
            guest.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with self._lock:
            if self._closed.is_set():
                guest.close()
            else:
                self._ready.put(guest)

    def accept(self) -> socket.socket:
        """The next client that holds the key; waits for one.

        Raises
        ------
        ChipConnectionError
            The listener was closed.
        """
        guest = None if self._closed.is_set() else self._ready.get()
        if guest is None:
            self._ready.put(None)
            raise ChipConnectionError("the listener was closed")
        self._places.release()
        return guest

    def close(self) -> None:
        """Stop listening; `serve_chip` returns when its present client leaves."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._socket.close()
        with contextlib.suppress(queue.Empty):
            while True:
                guest = self._ready.get_nowait()
                if guest is not None:
                    guest.close()
        self._ready.put(None)
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def __enter__(self) -> ChipListener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve_chip(chip: ChipProtocol, listener: ChipListener, *, clients: int | None = 1) -> None:
    """Answer clients, one after another.

    Parameters
    ----------
    chip : ChipProtocol
        Any chip. What it refuses (`REFUSALS`) the client hears as an `InputError`; any other exception is a
        failure of the chip: the client is told, and the server ends with it.
    listener : ChipListener
    clients : int or None
        Return after so many clients have come and gone (strangers do not count); None: when the
        listener is closed.

    Examples
    --------
    >>> import threading
    >>> from rramsim import ChipConfig, ChipListener, RemoteChip, SimulatedChip, serve_chip
    >>> listener = ChipListener(("127.0.0.1", 0))
    >>> chip = SimulatedChip(ChipConfig(), {"fc": (4, 3)})
    >>> server = threading.Thread(target=serve_chip, args=(chip, listener))
    >>> server.start()
    >>> far = RemoteChip(listener.address)
    >>> far.layers["fc"].n_cells
    24
    >>> far.close()
    >>> server.join()
    >>> listener.close()
    """
    served = 0
    while clients is None or served < clients:
        try:
            guest = listener.accept()
        except ChipConnectionError:
            return
        with guest:
            _serve(chip, guest, listener.limits)
        served += 1


def _serve(chip: ChipProtocol, guest: socket.socket, limits: WireLimits) -> None:
    """Answer one client until it leaves or its bytes make no sense any more."""
    while True:
        try:
            message = receive(guest, limits, wait=None)
        except (ChipConnectionError, MessageError) as error:
            if isinstance(error, MessageError):  # too long: say so; what follows cannot be read
                with contextlib.suppress(ChipConnectionError):
                    send(guest, pack({"error": str(error)}), limits.message_seconds)
            return
        failure: Exception | None = None
        try:
            reply = answer(chip, *unpack(message))
        except REFUSALS as error:
            reply = pack({"error": str(error) if isinstance(error, ValueError) else repr(error)})
        except Exception as error:
            failure, reply = error, pack({"failure": f"{type(error).__name__}: {error}"})
        with contextlib.suppress(ChipConnectionError):  # a client that left is noticed by the next `receive`
            send(guest, reply, limits.message_seconds)
        if failure is not None:
            raise failure


class RemoteChip:
    """Client end: a `ChipProtocol` whose calls travel to `serve_chip`.

    Parameters
    ----------
    address : (host, port) or str
        Of the listener; a text is the path of a Unix socket.
    authkey : bytes, optional
        Shared secret of both ends.
    timeout : float or None
        Seconds to wait for an answer; None waits as long as it takes. Parts of a large read count apart.
    limits : WireLimits, optional

    Raises
    ------
    AccessRefusedError
        The ends hold different keys.
    ChipTimeoutError
        No answer in time: the server is stopped, or serves another client.
    ChipConnectionError
        Nobody listens, the server died or its chip failed. The chip object is of no use afterwards.
    InputError
        The far chip refuses what was asked; the connection goes on.

    Examples
    --------
    >>> import threading
    >>> from rramsim import ChipConfig, ChipListener, SimulatedChip, serve_chip
    >>> listener = ChipListener(("127.0.0.1", 0))
    >>> chip = SimulatedChip(ChipConfig(), {"fc": (12, 5)})
    >>> server = threading.Thread(target=serve_chip, args=(chip, listener), daemon=True)
    >>> server.start()
    >>> far = RemoteChip(listener.address)
    >>> list(far.layers)
    ['fc']
    >>> far.close()
    >>> server.join()
    >>> listener.close()
    """

    def __init__(
        self,
        address: Address,
        authkey: bytes | None = None,
        *,
        timeout: float | None = 600.0,
        limits: WireLimits | None = None,
    ) -> None:
        address = _checked_address(address)
        self._timeout, self._limits = timeout, WireLimits() if limits is None else limits
        self._where = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
        self._end: socket.socket | None = socket.socket(_family(address), socket.SOCK_STREAM)
        try:
            self._end.settimeout(self._limits.handshake_seconds)
            self._end.connect(address)
            greet(self._end, bytes(authkey or b""), self._limits)
        except ChipConnectionError as error:
            self.close()
            raise type(error)(f"{self._where}: {error}") from None
        except OSError as error:
            self.close()
            raise ChipConnectionError(
                f"{self._where}: no chip server can be reached ({error.strerror or error})"
            ) from None
        header, _ = self._call("describe")
        try:
            sheet = header["datasheet"]
            self._datasheet = Datasheet(**(sheet | {"levels": tuple(sheet["levels"])}))
            infos = [
                LayerInfo(**(info | {"row_tiles": tuple((a, b) for a, b in info["row_tiles"])}))
                for info in header["layers"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            self.close()
            raise MessageError(
                f"{self._where}: datasheet and layers of the far chip make no sense: {error}"
            ) from None
        self._layers = MappingProxyType({info.name: info for info in infos})

    def _call(
        self, call: str, arrays: Mapping[str, NDArray[Any] | None] | None = None, **header: Any
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        if self._end is None:
            raise ChipConnectionError(f"{self._where}: the connection is closed; make a new RemoteChip")
        try:
            send(self._end, pack({"call": call, **header}, arrays), self._timeout)
            answer, results = unpack(receive(self._end, self._limits, self._timeout))
        except ChipTimeoutError:
            self.close()
            raise ChipTimeoutError(
                f"{self._where}: no answer to {call!r} within {self._timeout or math.inf:g} s; is the server "
                "stopped, or serving another client?"
            ) from None
        except (ChipConnectionError, MessageError) as error:
            self.close()
            raise ChipConnectionError(f"{self._where}: the server is gone, {error}") from None
        if "failure" in answer:
            self.close()
            raise ChipConnectionError(
                f"{self._where}: the far chip failed and its server ended: {answer['failure']}"
            )
        if "error" in answer:
            raise InputError(str(answer["error"]))
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
        levels = np.asarray(levels)
        if levels.dtype.kind in "iu" and levels.size and levels.min() >= 0 and levels.max() < 2**15:
            levels = levels.astype(np.int16)  # a quarter of the bytes
        self._call("write", {"levels": levels, "mask": mask}, layer=layer)

    def configure(
        self,
        layer: str,
        *,
        input_range: tuple[float, float] | None = None,
        output_range: float | None = None,
    ) -> None:
        """Set converter ranges."""
        limits = None if input_range is None else [float(v) for v in input_range]
        amperes = None if output_range is None else float(output_range)
        self._call("configure", layer=layer, input_range=limits, output_range=amperes)

    def mvm(self, layer: str, codes: ArrayLike | WindowCodes, per_tile: bool = False) -> Reading:
        """Multiply vectors by the stored matrix; large reads travel in parts."""
        window = list(codes.geometry) if isinstance(codes, WindowCodes) else None
        plain = np.asarray(codes.maps if isinstance(codes, WindowCodes) else codes)
        if plain.dtype.kind not in "iu":
            raise InputError(f"codes of {layer!r} must be integers, got {plain.dtype}; quantise first")
        info = self._layers.get(layer)
        n_parts = 1
        if info is not None and plain.ndim > 0:
            n_vectors = codes.shape[0] if isinstance(codes, WindowCodes) else len(plain)
            answers = n_vectors * info.n_cols * 9 * (len(info.row_tiles) if per_tile else 1)
            n_parts = max(1, min(len(plain), -(-max(plain.nbytes, answers) // PART_BYTES)))
        parts = [
            self._call("mvm", {"codes": part}, layer=layer, per_tile=per_tile, window=window)[1]
            for part in (np.array_split(plain, n_parts) if n_parts > 1 else [plain])
        ]
        if any(set(part) != {"codes", "saturated"} for part in parts):
            self.close()
            raise MessageError(f"{self._where}: an answer to 'mvm' lacks codes or saturation marks")
        return Reading(*(np.concatenate([part[name] for part in parts]) for name in ("codes", "saturated")))

    def wait(self, seconds: float, *, kelvin: float | None = None) -> None:
        """Let time pass [s], at a temperature [K] if the far chip knows temperatures."""
        warm: dict[str, Any] = {} if kelvin is None else {"kelvin": float(kelvin)}
        self._call("wait", seconds=float(seconds), **warm)

    def close(self) -> None:
        """Hang up."""
        if self._end is not None:
            self._end.close()
            self._end = None
