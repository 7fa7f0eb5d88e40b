"""Bytes between the two ends of a remote chip: handshake, frames, headers with arrays.

The format, for far ends in other languages, is documented in `docs/protocol.md`. Nothing received is
ever unpickled or evaluated: a header is JSON, arrays are raw integers of declared type and shape, and
both are checked against the size of the message before memory is taken.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError

__all__ = [
    "AccessRefusedError",
    "ChipConnectionError",
    "ChipTimeoutError",
    "MessageError",
    "WireLimits",
    "greet",
    "pack",
    "receive",
    "send",
    "unpack",
    "welcome",
]

MAGIC = b"RRAMCHIP"
VERSION = 1
NONCE = 32  # bytes of a random challenge
DIGEST = hashlib.sha256().digest_size
KINDS = {"|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8"}
MAX_RANK = 4
MAX_HEADER = 2**24  # bytes of a JSON header
STEP = 2**20  # bytes taken at a time, so that a declared size alone costs no memory


class ChipConnectionError(ConnectionError):
    """The far end of a remote chip is gone, or cannot be reached; carries what to look at."""


class ChipTimeoutError(ChipConnectionError, TimeoutError):
    """The far end did not answer in time: stopped, or busy with another client."""


class AccessRefusedError(ChipConnectionError):
    """The two ends do not hold the same key, or one holds none."""


class MessageError(InputError):
    """A message that does not follow the format."""


@dataclass(frozen=True, kw_only=True)
class WireLimits:
    """How long and how large a stranger's or client's bytes may be.

    Examples
    --------
    >>> WireLimits(handshake_seconds=0.5).handshake_seconds
    0.5
    """

    handshake_seconds: float = 5.0  # from the connection to the end of the handshake
    message_seconds: float = 60.0  # from a message's first byte to its last
    message_bytes: int = 2**29  # largest message

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise InputError(f"{name} must be > 0, got {value}")


# -- frames ---------------------------------------------------------------------------------------


def _take(end: socket.socket, n_bytes: int, deadline: float | None) -> bytearray:
    """Exactly `n_bytes`, before `deadline` (a time of `time.monotonic`)."""
    taken = bytearray()
    while len(taken) < n_bytes:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ChipTimeoutError(f"only {len(taken)} of {n_bytes} bytes came in time")
            end.settimeout(left)
        else:
            end.settimeout(None)
        try:
            part = end.recv(min(STEP, n_bytes - len(taken)))
        except TimeoutError:
            continue  # the loop's head says so
        except OSError as error:
            raise ChipConnectionError(f"the connection broke ({error.strerror or error})") from None
        if not part:
            raise ChipConnectionError("the far end hung up" + (" in mid-message" if taken else ""))
        taken += part
    return taken


def _give(end: socket.socket, message: bytes, seconds: float | None) -> None:
    end.settimeout(seconds)
    try:
        end.sendall(message)
    except TimeoutError:
        raise ChipTimeoutError(f"the far end took no message within {seconds:g} s") from None
    except OSError as error:
        raise ChipConnectionError(f"the connection broke ({error.strerror or error})") from None


def send(end: socket.socket, message: bytes, seconds: float | None) -> None:
    """One frame: its length as eight bytes, little endian, then the message."""
    _give(end, struct.pack("<Q", len(message)) + message, seconds)


def receive(end: socket.socket, limits: WireLimits, wait: float | None) -> bytearray:
    """The next frame; `wait` seconds for its first byte (None: for ever), then `limits`.

    Raises
    ------
    ChipConnectionError
        The far end is gone, or `ChipTimeoutError`.
    MessageError
        A frame longer than the limit; nothing of it is read, the connection is of no more use.
    """
    first = _take(end, 1, None if wait is None else time.monotonic() + wait)
    deadline = time.monotonic() + limits.message_seconds
    (length,) = struct.unpack("<Q", first + _take(end, 7, deadline))
    if length > limits.message_bytes:
        raise MessageError(f"a message may have {limits.message_bytes} bytes, {length} were announced")
    return _take(end, length, deadline)


# -- handshake ------------------------------------------------------------------------------------


def _proof(key: bytes, role: bytes, server_nonce: bytes, client_nonce: bytes) -> bytes:
    return hmac.digest(key, role + server_nonce + client_nonce, "sha256")


def welcome(end: socket.socket, key: bytes, limits: WireLimits) -> None:
    """The server's side of the handshake; an empty key lets anybody in.

    Raises
    ------
    ChipConnectionError
        Whoever is there speaks another language, holds another key, or says nothing in time.
    """
    deadline = time.monotonic() + limits.handshake_seconds
    nonce = secrets.token_bytes(NONCE)
    _give(end, MAGIC + bytes([VERSION, bool(key)]) + nonce, limits.handshake_seconds)
    answer = bytes(_take(end, len(MAGIC) + 2 + NONCE + DIGEST, deadline))
    head, theirs, proof = answer[: len(MAGIC) + 2], answer[len(MAGIC) + 2 : -DIGEST], answer[-DIGEST:]
    if head[:-1] != MAGIC + bytes([VERSION]):
        raise MessageError("a stranger that does not speak this protocol")
    good = bool(key) == bool(head[-1]) and hmac.compare_digest(proof, _proof(key, b"client", nonce, theirs))
    mine = _proof(key, b"server", nonce, theirs) if good else bytes(DIGEST)
    _give(end, bytes([good]) + mine, limits.handshake_seconds)
    if not good:
        raise AccessRefusedError("a client with another key was refused")


def greet(end: socket.socket, key: bytes, limits: WireLimits) -> None:
    """The client's side of the handshake."""
    deadline = time.monotonic() + limits.handshake_seconds
    head = bytes(_take(end, len(MAGIC) + 2 + NONCE, deadline))
    if head[: len(MAGIC)] != MAGIC:
        raise ChipConnectionError("something else answers at this address, not a chip server")
    version, wants_key, theirs = head[len(MAGIC)], bool(head[len(MAGIC) + 1]), head[len(MAGIC) + 2 :]
    if version != VERSION:
        raise ChipConnectionError(f"the server speaks version {version} of the format, this end {VERSION}")
    if wants_key != bool(key):
        raise AccessRefusedError(
            "the server asks for a key, none was given"
            if wants_key
            else "a key was given, the server has none"
        )
    nonce = secrets.token_bytes(NONCE)
    mine = _proof(key, b"client", theirs, nonce)
    _give(end, MAGIC + bytes([VERSION, bool(key)]) + nonce + mine, limits.handshake_seconds)
    answer = bytes(_take(end, 1 + DIGEST, deadline))
    if not answer[0] or not hmac.compare_digest(answer[1:], _proof(key, b"server", theirs, nonce)):
        raise AccessRefusedError("the server holds another key")


# -- messages -------------------------------------------------------------------------------------


def pack(header: dict[str, Any], arrays: Mapping[str, NDArray[Any] | None] | None = None) -> bytes:
    """Length of the header (four bytes, little endian), the header, the arrays one after another."""
    present = {n: np.ascontiguousarray(a) for n, a in (arrays or {}).items() if a is not None}
    little = {n: a.astype(a.dtype.newbyteorder("<"), copy=False) for n, a in present.items()}
    header = header | {"arrays": {n: [a.dtype.str, list(a.shape)] for n, a in little.items()}}
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + b"".join(a.tobytes() for a in little.values())


def unpack(message: bytes | bytearray) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays of a message.

    Raises
    ------
    MessageError
        Unless header and arrays fill the message exactly.
    """
    if len(message) < 4:
        raise MessageError(f"a message has at least 4 bytes, got {len(message)}")
    (length,) = struct.unpack_from("<I", message)
    if length > min(MAX_HEADER, len(message) - 4):
        raise MessageError(f"the header has {length} bytes by its own account, {len(message) - 4} are there")
    try:
        header = json.loads(bytes(message[4 : 4 + length]))
    except (ValueError, RecursionError) as error:
        raise MessageError(f"the header must be JSON: {error}") from None
    if not isinstance(header, dict) or not isinstance(header.get("arrays", {}), dict):
        raise MessageError("the header must be a JSON object, its `arrays` too")
    arrays, offset = {}, 4 + length
    for name, about in header.pop("arrays", {}).items():
        kind, shape = _declared(name, about)
        count = int(np.prod(shape, dtype=object)) if shape else 1
        if count * kind.itemsize > len(message) - offset:
            raise MessageError(f"array {name!r} of shape {shape} is longer than the message")
        arrays[name] = np.frombuffer(message, kind, count, offset).reshape(shape)
        if kind.kind == "b":  # a byte that is neither 0 nor 1 is no truth value
            arrays[name] = arrays[name].view(np.uint8) != 0
        offset += count * kind.itemsize
    if offset != len(message):
        raise MessageError(f"{len(message) - offset} bytes are left over behind the arrays")
    return header, arrays


def _declared(name: str, about: Any) -> tuple[np.dtype[Any], list[int]]:
    """Type and shape that a header declares for an array."""
    if not (isinstance(about, list) and len(about) == 2 and isinstance(about[1], list)):
        raise MessageError(f"array {name!r} must be declared as [type, shape], got {about!r:.80}")
    kind, shape = about
    if not isinstance(kind, str) or kind not in KINDS:
        raise MessageError(f"array {name!r} must have a type of {sorted(KINDS)}, got {kind!r:.40}")
    if len(shape) > MAX_RANK or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise MessageError(
            f"array {name!r} must have at most {MAX_RANK} axes of length >= 0, got {shape!r:.80}"
        )
    return np.dtype(kind), shape
