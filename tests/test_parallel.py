"""Spawned processes of one thread: what they answer, and that the loss of any of them is no loss of work."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rramsim.checks import InputError
from rramsim.parallel import LostWorkers, Workers, cores, count_threads, tell

TIME_LIMIT = 120.0  # seconds after which a future that does not answer counts as a hang


def square(x: int) -> int:
    return x * x


def fail(x: int) -> int:
    raise InputError(f"no {x}")


def threads() -> tuple[int, int]:
    import numba
    import threadpoolctl

    pools = threadpoolctl.threadpool_info()
    return numba.get_num_threads(), max((pool["num_threads"] for pool in pools), default=1)


def say(x: int) -> int:
    tell(("said", x))
    return x


def die_once(marker: str) -> str:
    """Be killed the first time, in the middle of a long message; answer the second time."""
    path = Path(marker)
    if not path.exists():
        path.write_text("was here")
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGKILL)).start()
        while True:
            tell(bytes(10_000_000))
    return "done"


def die() -> None:
    os._exit(7)


def doze(x: int) -> int:
    time.sleep(0.02)
    return x


def refuse() -> None:
    raise InputError("bad settings")


def test_answers_errors_and_messages_come_back() -> None:
    heard: list[object] = []
    with Workers(2, on_message=heard.append) as workers:
        assert list(workers.map(square, range(20))) == [n * n for n in range(20)]
        with pytest.raises(InputError, match="no 3"):
            workers.submit(fail, 3).result(TIME_LIMIT)
        assert workers.submit(say, 4).result(TIME_LIMIT) == 4
        assert workers.submit(threads).result(TIME_LIMIT) == (1, 1)
        with pytest.raises(Exception, match="pickle"):
            workers.submit(lambda: None).result(TIME_LIMIT)
        assert workers.submit(square, 5).result(TIME_LIMIT) == 25
    assert heard == [("said", 4)]
    with pytest.raises(RuntimeError, match="sent home"):
        workers.submit(square, 1)


def test_a_worker_killed_in_mid_message_is_replaced_and_its_work_done_again(tmp_path: Path) -> None:
    with Workers(2) as workers:
        futures = [workers.submit(die_once, str(tmp_path / f"marker{n}")) for n in range(3)]
        assert [future.result(TIME_LIMIT) for future in futures] == ["done"] * 3


class IdleDeath(Workers):
    """Its first process dies while it waits for work, just before work is handed to it."""

    died = False

    def _send(self, worker: Any, work: Any) -> bool:
        if not self.died:
            self.died = True
            os.kill(worker.process.pid, signal.SIGKILL)
            worker.process.join()
        return super()._send(worker, work)


def test_a_worker_that_dies_idle_is_replaced_at_once() -> None:
    """The parent waited for ever: the work was back in the queue and nobody was left to wake it."""
    with IdleDeath(1) as workers:
        assert workers.submit(square, 7).result(TIME_LIMIT) == 49
        assert workers.died


def test_work_that_kills_every_worker_is_given_up() -> None:
    with Workers(2) as workers:
        bad, good = workers.submit(die), workers.submit(square, 6)
        with pytest.raises(LostWorkers, match="three times"):
            bad.result(TIME_LIMIT)
        assert good.result(TIME_LIMIT) == 36


def test_workers_that_cannot_start_say_so() -> None:
    with Workers(1, die) as workers, pytest.raises(LostWorkers, match="at the start"):
        workers.submit(square, 1).result(TIME_LIMIT)
    with Workers(1, refuse) as workers, pytest.raises(InputError, match="bad settings"):
        workers.submit(square, 1).result(TIME_LIMIT)


@pytest.mark.parametrize("n_kills", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_workers_killed_at_random_moments_lose_and_double_nothing(n_kills: int) -> None:
    """Work is repeated twice; where three kills fall on the same piece it is submitted again."""
    n_killed, results = 0, {}
    with Workers(2) as workers:
        waiting = {n: workers.submit(doze, n) for n in range(40 + 4 * n_kills)}
        while waiting:
            alive = workers.process_ids
            if n_killed < n_kills and alive:
                with contextlib.suppress(ProcessLookupError):  # gone already
                    os.kill(alive[n_killed % len(alive)], signal.SIGKILL)
                    n_killed += 1
            time.sleep(0.01 * (n_killed % 7))
            for n, future in list(waiting.items()):
                if future.done():
                    del waiting[n]
                    if isinstance(future.exception(), LostWorkers):
                        waiting[n] = workers.submit(doze, n)
                    else:
                        assert n not in results
                        results[n] = future.result()
    assert results == {n: n for n in range(40 + 4 * n_kills)}


def test_an_error_in_the_block_ends_the_processes_at_once() -> None:
    started = time.monotonic()
    workers = Workers(1)
    future = workers.submit(time.sleep, 600)
    while not future.running():
        time.sleep(0.01)
    with pytest.raises(KeyboardInterrupt), workers:
        raise KeyboardInterrupt
    assert time.monotonic() - started < TIME_LIMIT
    assert isinstance(future.exception(1.0), LostWorkers)


def test_counts() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
    assert count_threads(8, 3) == 3
    assert count_threads(None, 1) == 1
    with pytest.raises(InputError, match="workers must be >= 1, got 0"):
        Workers(0)
