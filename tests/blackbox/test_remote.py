"""A server of a chip outlives strangers, garbage and bad clients; clients are told what happened."""

import contextlib
import json
import os
import random
import socket
import struct
import threading
import time

import numpy as np
import pytest

from rramsim.blackbox import remote
from rramsim.blackbox.remote import ChipListener, RemoteChip, serve_chip
from rramsim.blackbox.windows import WindowCodes
from rramsim.blackbox.wire import (
    AccessRefusedError,
    ChipConnectionError,
    ChipTimeoutError,
    MessageError,
    WireLimits,
    greet,
    pack,
    receive,
    send,
    unpack,
)
from rramsim.checks import InputError
from rramsim.kernels.windows import Geometry
from tests.fake_chip import FakeChip

OTHER_SEED = int(os.environ.get("RRAMSIM_FUZZ_SEED", "0"))  # other inputs, for `make test-all` elsewhere
KEY = b"secret of this test"
SHAPES = {"conv": (8, 3), "fc": (6, 4)}
QUICK = WireLimits(handshake_seconds=2.0, message_seconds=2.0, message_bytes=2**20)


@contextlib.contextmanager
def served(chip=None, *, clients=None, key=KEY, limits=QUICK):
    """A chip behind a listener; its server thread and what ended it."""
    listener = ChipListener(("127.0.0.1", 0), authkey=key, limits=limits)
    ended = []

    def run():
        try:
            serve_chip(FakeChip(SHAPES) if chip is None else chip, listener, clients=clients)
            ended.append(None)
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield listener, thread, ended
    listener.close()
    thread.join(10)
    assert not thread.is_alive()


def stranger(address, message=b""):
    end = socket.create_connection(address)
    end.sendall(message)
    return end


def test_strangers_do_not_end_the_server_and_do_not_block_the_client():
    with served() as (listener, thread, _):
        silent = [stranger(listener.address) for _ in range(3)]
        stranger(listener.address).close()
        stranger(listener.address, b"GET / HTTP/1.1\r\nHost: chip\r\n\r\n").close()
        garbage = stranger(listener.address, bytes(range(256)) * 8)
        with pytest.raises(AccessRefusedError, match="another key"):
            RemoteChip(listener.address, b"wrong")
        with pytest.raises(AccessRefusedError, match="asks for a key"):
            RemoteChip(listener.address)
        started = time.monotonic()
        far = RemoteChip(listener.address, KEY)
        assert time.monotonic() - started < QUICK.handshake_seconds  # nobody's limit had to pass first
        assert far.layers["fc"].n_rows == 6
        assert thread.is_alive()
        far.close()
        for end in (*silent, garbage):
            end.close()
        RemoteChip(listener.address, KEY).close()


def test_a_silent_connection_is_dropped_at_its_limit():
    limits = WireLimits(handshake_seconds=0.2)
    with served(limits=limits) as (listener, _, _):
        end = stranger(listener.address)
        end.settimeout(10)
        assert len(end.recv(100)) == 42  # the server's greeting
        assert end.recv(1) == b""  # and its farewell
        end.close()


def session(address):
    """A client's socket behind the handshake."""
    end = socket.create_connection(address)
    greet(end, KEY, QUICK)
    return end


def ask(end, message):
    send(end, message, 2.0)
    return unpack(receive(end, QUICK, 5.0))[0]


def messages():
    """One valid message of each call."""
    window = list(Geometry(2, 2, 1, 1, 1, 1, 0, 0, 0, 0, 2, 2))
    mask = np.ones((6, 4, 2), bool)
    return [
        pack({"call": "describe"}),
        pack({"call": "ledger"}),
        pack({"call": "write", "layer": "fc"}, {"levels": np.ones((6, 4, 2), np.int16), "mask": mask}),
        pack({"call": "configure", "layer": "fc", "input_range": [-0.2, 0.2], "output_range": 1e-4}),
        pack({"call": "configure", "layer": "conv", "input_range": [0.0, 0.2], "output_range": 1e-4}),
        pack({"call": "mvm", "layer": "fc", "per_tile": True}, {"codes": np.ones((5, 6), np.int16)}),
        pack({"call": "mvm", "layer": "conv", "window": window}, {"codes": np.ones((1, 2, 3, 3), np.int16)}),
        pack({"call": "wait", "seconds": 1.0}),
    ]


WRONG = {
    "no call": {},
    "unknown call": {"call": "explode"},
    "call of another kind": {"call": ["mvm"]},
    "no layer": {"call": "mvm"},
    "unknown layer": {"call": "mvm", "layer": "nothing"},
    "no array": {"call": "mvm", "layer": "fc"},
    "range of text": {"call": "configure", "layer": "fc", "input_range": ["a", "b"]},
    "negative wait": {"call": "wait", "seconds": -1},
    "wait of text": {"call": "wait", "seconds": "long"},
    "window without maps": {"call": "mvm", "layer": "conv", "window": [1]},
}


def wrong_bytes():
    header = json.dumps({"call": "mvm", "layer": "fc", "arrays": {"codes": ["<i2", [2**40, 2**40]]}}).encode()
    deep = b"[" * 100_000
    objects = json.dumps({"call": "mvm", "layer": "fc", "arrays": {"codes": ["|O8", [1]]}}).encode()
    yield b""
    yield b"\xff\xff\xff\xff"
    yield struct.pack("<I", 2) + b"[]"
    for text in (header, deep, objects):
        yield struct.pack("<I", len(text)) + text


def test_malformed_messages_are_answered_and_the_session_goes_on():
    with served() as (listener, _, _):
        end = session(listener.address)
        for header in WRONG.values():
            assert ask(end, pack(header))["error"]
        for message in wrong_bytes():
            assert ask(end, message)["error"]
        lying = list(Geometry(2, 2, 1, 1, 1, 1, 0, 0, 0, 0, 2000, 2000))
        maps = {"codes": np.ones((1, 2, 3, 3), np.int16)}
        assert "positions" in ask(end, pack({"call": "mvm", "layer": "conv", "window": lying}, maps))["error"]
        levels = {"levels": np.full((6, 4, 2), 16)}
        assert "[0, 15]" in ask(end, pack({"call": "write", "layer": "fc"}, levels))["error"]
        assert ask(end, messages()[0])["datasheet"]["n_levels"] == 16
        end.close()


def test_an_announced_length_costs_no_memory_and_ends_the_session_only():
    with served() as (listener, thread, _):
        end = session(listener.address)
        end.sendall(struct.pack("<Q", 2**60))
        assert "2**" not in (error := unpack(receive(end, QUICK, 5.0))[0]["error"])
        assert str(2**60) in error
        end.close()
        RemoteChip(listener.address, KEY).close()
        assert thread.is_alive()


def mutated(message, rng):
    """A frame with a few bytes changed, cut, doubled or swapped."""
    data = bytearray(message)
    for _ in range(rng.choice([1, 1, 2, 5])):
        where = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0 if data:
                data[min(where, len(data) - 1)] = rng.randrange(256)
            case 1:
                del data[where : where + rng.randrange(1, 9)]
            case 2:
                data[where:where] = rng.randbytes(rng.randrange(1, 9))
            case 3:
                data[where:where] = data[where : where + 30]
            case _:
                data[where : where + 1] = rng.choice([b"[", b"{", b'"', b"-", b"9" * 20, b"null", b"\0"])
    return bytes(data)


def fuzz(n, seed):
    """Send mutated frames; the server must answer or hang up, and serve the next client."""
    rng, valid = random.Random(seed + OTHER_SEED), messages()
    kept = 0
    with served() as (listener, thread, ended):
        end = session(listener.address)
        for _ in range(n):
            frame = mutated(rng.choice(valid), rng)
            try:
                answer = ask(end, frame)
                assert isinstance(answer, dict)
                assert "failure" not in answer, (frame, answer)
                kept += 1
            except ChipConnectionError:
                end.close()
                end = session(listener.address)
            assert thread.is_alive(), (frame, ended)
        end.close()
        far = RemoteChip(listener.address, KEY)
        assert far.ledger.layers["fc"].weight_cells == 48
        far.close()
    return kept


def test_a_sample_of_mutated_messages():
    assert fuzz(2_000, 1) > 0


@pytest.mark.slow
def test_ten_thousand_mutated_messages():
    assert fuzz(10_000, 2) > 0


@pytest.mark.slow
def test_ten_thousand_mutated_beginnings():
    """Handshakes of strangers: a valid one with a key, mutated."""
    rng = random.Random(3 + OTHER_SEED)
    with served(limits=WireLimits(handshake_seconds=0.5)) as (listener, thread, _):
        hello = b"RRAMCHIP" + bytes([1, 1]) + bytes(64)
        for _ in range(10_000):
            with contextlib.suppress(OSError):
                stranger(listener.address, mutated(hello, rng)).close()
        assert thread.is_alive()
        deadline = time.monotonic() + 20
        while True:  # while the places of the strangers' last handshakes run out
            try:
                RemoteChip(listener.address, KEY).close()
                break
            except ChipConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.1)


@pytest.mark.parametrize("address", [("0.0.0.0", 0), ("192.0.2.7", 0), ("example.org", 1)])
def test_a_key_is_required_off_the_loopback(address):
    with pytest.raises(InputError, match="needs an authkey"):
        ChipListener(address)
    with pytest.raises(InputError, match="needs an authkey"):
        ChipListener(address, authkey=b"")


def test_on_the_loopback_and_on_a_socket_file_no_key_is_needed(tmp_path):
    for address in (("127.0.0.1", 0), str(tmp_path / "chip")):
        with ChipListener(address) as listener:
            thread = threading.Thread(target=serve_chip, args=(FakeChip(SHAPES), listener), daemon=True)
            thread.start()
            with contextlib.closing(RemoteChip(listener.address)) as far:
                assert list(far.layers) == ["conv", "fc"]
            thread.join(10)
            assert not thread.is_alive()


def test_nobody_there_a_stopped_server_and_a_dead_one_are_told_apart():
    with ChipListener(("127.0.0.1", 0), authkey=KEY) as listener:
        with pytest.raises(
            ChipTimeoutError, match=r"no answer to 'describe' within 0.3 s; is the server stopped"
        ):
            RemoteChip(listener.address, KEY, timeout=0.3)  # nobody serves
        address = listener.address
    with pytest.raises(ChipConnectionError, match="no chip server can be reached"):
        RemoteChip(address, KEY)
    with socket.create_server(("127.0.0.1", 0)) as other:

        def talk():
            with other.accept()[0] as end:
                end.sendall(b"SSH-2.0-OpenSSH" * 9)

        threading.Thread(target=talk, daemon=True).start()
        with pytest.raises(ChipConnectionError, match="something else answers"):
            RemoteChip(other.getsockname(), KEY)


class DyingChip(FakeChip):
    def wait(self, seconds):
        raise RuntimeError("the instrument is off")


def test_a_chip_that_fails_ends_its_server_and_the_client_is_told():
    with served(DyingChip(SHAPES)) as (listener, thread, ended):
        far = RemoteChip(listener.address, KEY)
        with pytest.raises(ChipConnectionError, match="RuntimeError: the instrument is off"):
            far.wait(1.0)
        thread.join(10)
        assert isinstance(ended[0], RuntimeError)
        with pytest.raises(ChipConnectionError, match="the connection is closed"):
            far.wait(1.0)


def test_refusals_leave_the_connection_open():
    with served() as (listener, _, _):
        far = RemoteChip(listener.address, KEY)
        with pytest.raises(InputError, match="did you mean 'fc'"):
            far.mvm("fcc", np.zeros((1, 6), np.int16))
        with pytest.raises(InputError, match=r"codes must be of shape \(any, 6\)"):
            far.mvm("fc", np.zeros((1, 5), np.int16))
        with pytest.raises(InputError, match="must be integers, got float64"):
            far.mvm("fc", np.zeros((1, 6)))
        assert len(far.ledger.layers) == 2
        far.close()


@pytest.mark.parametrize("per_tile", [False, True])
def test_large_reads_travel_in_parts_and_give_the_same_codes(per_tile, monkeypatch):
    monkeypatch.setattr(remote, "PART_BYTES", 256)
    near = FakeChip(SHAPES)
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 255, (50, 6)).astype(np.int16)
    maps = WindowCodes(
        rng.integers(0, 255, (20, 2, 3, 3)).astype(np.int16), Geometry(2, 2, 1, 1, 1, 1, 0, 0, 0, 0, 2, 2)
    )
    with served() as (listener, _, _):
        far = RemoteChip(listener.address, KEY)
        for layer, vectors in (("fc", codes), ("conv", maps)):
            answers = []
            for chip in (far, near):
                chip.write(layer, np.full((*SHAPES[layer], 2), [9, 2]))
                chip.configure(layer, input_range=(0.0, 0.2), output_range=1e-4)
                answers.append(chip.mvm(layer, vectors, per_tile))
            np.testing.assert_array_equal(answers[0].codes, answers[1].codes)
            np.testing.assert_array_equal(answers[0].saturated, answers[1].saturated)
        far.close()


def test_messages_survive_the_way_there_and_back():
    arrays = {"a": np.arange(6, dtype=">i4").reshape(2, 3), "b": np.array([True, False]), "c": np.array(7)}
    header, back = unpack(pack({"call": "x"}, arrays))
    assert header == {"call": "x"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
    with pytest.raises(MessageError, match="left over"):
        unpack(pack({}, {"a": np.zeros(3, np.int8)}) + b"\0")
