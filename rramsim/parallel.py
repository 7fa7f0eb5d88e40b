"""Cores, and spawned processes of one thread each that survive the loss of any of them.

`Workers` is a `concurrent.futures.Executor`.  The one of the standard library shares one result pipe between
all processes: a process that is killed in the middle of a message leaves the parent waiting for ever, and
one that is killed at any time ends the whole pool.  Here every process has a pipe of its own, so a lost one
is an end of file; it is replaced, and its work is done again.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from rramsim.checks import InputError

__all__ = [
    "LostWorkers", "Workers", "cores", "count_threads", "one_thread", "over_threads", "release_memory", "tell"
]  # fmt: skip

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_LOSSES = 3  # processes lost over one piece of work, or before any was ready, until it is given up


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_threads(threads: int | None, n_tasks: int, name: str = "threads") -> int:
    """Threads or processes for so many pieces of work: as asked for, by default one per core."""
    threads = cores() if threads is None else threads
    if threads < 1:
        raise InputError(f"{name} must be >= 1, got {threads}")
    return max(1, min(threads, n_tasks))


def one_thread() -> Any:
    """Give this process one thread of BLAS and of Numba; keep the answer as long as that shall hold."""
    import numba
    import threadpoolctl

    numba.set_num_threads(1)
    return threadpoolctl.threadpool_limits(1)


def over_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None
) -> list[Result]:
    """Results of `function` for each item, in order, by threads; `function` must let go of the GIL to gain.

    Parameters
    ----------
    threads : int, optional
        By default as many as Numba's kernels would use here: the processors, ``NUMBA_NUM_THREADS``, or one
        in a process of `Workers` and inside a thread of this function.

    Examples
    --------
    >>> from rramsim.parallel import over_threads
    >>> over_threads(abs, [-1, 2, -3], threads=2)
    [1, 2, 3]
    """
    work = list(items)
    if len(work) > 1 and threads is None:
        import numba

        threads = min(cores(), numba.get_num_threads())
    n_threads = count_threads(threads, len(work))
    if n_threads == 1:
        return [function(item) for item in work]
    with ThreadPoolExecutor(n_threads, initializer=_only_thread) as pool:
        return list(pool.map(function, work))


def _only_thread() -> None:
    """Kernels and pools started by this thread get no further threads."""
    import numba

    numba.set_num_threads(1)


def release_memory() -> None:
    """Give memory that the C library keeps for later back to the system, where it is glibc.

    Arrays of some megabytes that come and go by the hundred leave holes in its heap: tuning a ResNet-20 held
    1.5 GB of which 0.3 GB were in use. A call takes milliseconds; pages come back when they are needed.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # other C libraries keep less, and lack the call
            ctypes.CDLL(None).malloc_trim(0)


class LostWorkers(RuntimeError):
    """Several processes in a row ended without an answer to the same work."""


@dataclass
class _Work:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    future: Future[Any]
    losses: int = 0


@dataclass(eq=False)
class _Worker:
    process: Any
    pipe: Connection
    ready: bool = False
    work: _Work | None = None


class Workers(Executor):
    """An executor of spawned processes with one thread each.

    Parameters
    ----------
    n_workers : int
        Processes at most; they start when there is work.
    initializer, initargs : callable and tuple, optional
        Called once in each process.
    on_message : callable, optional
        Called, in a thread of its own, with what a process sends by `tell` while it works.

    Notes
    -----
    A script that uses it must start under ``if __name__ == "__main__":``, since spawned processes import it.
    A process that is lost is replaced and its work repeated; after the third loss over the same work its
    future raises `LostWorkers`.

    Examples
    --------
    >>> from rramsim.parallel import Workers
    >>> with Workers(2) as workers:
    ...     list(workers.map(abs, [-1, 2, -3]))
    [1, 2, 3]
    """

    def __init__(
        self,
        n_workers: int,
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
        on_message: Callable[[Any], None] | None = None,
    ) -> None:
        self._n_workers = count_threads(n_workers, n_workers, "workers")
        self._setup = (initializer, initargs)
        self._on_message = on_message
        self._context = multiprocessing.get_context("spawn")
        self._waiting: deque[_Work] = deque()
        self._workers: list[_Worker] = []
        self._early_losses = 0
        self._closing = self._ended = False
        self._lock = threading.Lock()
        self._woken, self._waker = self._context.Pipe(duplex=False)
        self._thread = threading.Thread(target=self._serve, daemon=True, name="rramsim workers")
        self._thread.start()

    @property
    def process_ids(self) -> list[int]:
        """Ids of the processes that are running now."""
        with self._lock:
            return [int(worker.process.pid) for worker in self._workers]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have `fn(*args, **kwargs)` done by some process; everything must pickle."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closing:
                raise RuntimeError("the workers were sent home")
            self._waiting.append(_Work(fn, args, kwargs, future))
        self._wake()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes when the work is done."""
        with self._lock:
            self._closing = True
            dropped = list(self._waiting) if cancel_futures else []
            if cancel_futures:
                self._waiting.clear()
        for work in dropped:
            work.future.cancel()
        self._wake()
        if wait:
            self._thread.join()

    def terminate(self) -> None:
        """End the processes at once; work that is not done is cancelled or fails."""
        with self._lock:
            self._closing = self._ended = True
        self._wake()
        self._thread.join()

    def __exit__(self, kind: type[BaseException] | None, value: Any, trace: Any) -> None:
        if kind is None:
            self.shutdown()
        else:
            self.terminate()

    # -- the thread that talks to the processes

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send_bytes(b"w")

    def _serve(self) -> None:
        try:
            while self._hand_out():
                pipes = {worker.pipe: worker for worker in self._workers}
                for pipe in wait([self._woken, *pipes]):
                    if pipe is self._woken:
                        self._woken.recv_bytes()
                    else:
                        self._hear(pipes[pipe])  # type: ignore[index]
        finally:
            self._end()

    def _hand_out(self) -> bool:
        """Give work to idle processes; False when all is over."""
        with self._lock:
            if self._ended:
                return False
            busy = sum(worker.work is not None for worker in self._workers)
            if self._closing and not self._waiting and not busy:
                return False
            wanted = min(self._n_workers, busy + len(self._waiting))
            missing = wanted - len(self._workers)
        for _ in range(missing):
            self._start()
        lost = False
        for worker in [worker for worker in self._workers if worker.ready and worker.work is None]:
            with self._lock:
                if not self._waiting:
                    break
                work = self._waiting.popleft()
            if work.losses or work.future.set_running_or_notify_cancel():
                worker.work = work
                lost |= not self._send(worker, work)
        # a process that died while it was idle leaves its work waiting: without another round nobody
        # might be left to wake this thread
        return self._hand_out() if lost else True

    def _send(self, worker: _Worker, work: _Work) -> bool:
        """Hand work to a process; False if the process turned out to be dead."""
        try:
            worker.pipe.send((work.function, work.arguments, work.options))
        except OSError:
            self._lose(worker)
            return False
        except Exception as error:  # cannot be pickled
            worker.work = None
            work.future.set_exception(error)
        return True

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_live, args=(theirs, *self._setup), daemon=True, name="rramsim worker"
        )
        process.start()
        theirs.close()  # so that the process's end is the pipe's
        with self._lock:
            self._workers.append(_Worker(process, ours))

    def _hear(self, worker: _Worker) -> None:
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            self._lose(worker)
            return
        except Exception as error:  # cannot be unpickled here
            kind, value = "error", error
        if kind == "ready":
            worker.ready, self._early_losses = True, 0
        elif kind == "message":
            if self._on_message is not None:
                self._on_message(value)
        elif worker.work is not None:
            work, worker.work = worker.work, None
            if kind == "result":
                work.future.set_result(value)
            else:
                work.future.set_exception(value)

    def _lose(self, worker: _Worker) -> None:
        """A process is gone: its work goes back to the front, unless it has cost too many already."""
        with self._lock:
            self._workers.remove(worker)
        worker.pipe.close()
        worker.process.kill()
        worker.process.join()
        self._early_losses += not worker.ready
        if worker.work is not None:
            worker.work.losses += 1
            if worker.work.losses < MAX_LOSSES:
                with self._lock:
                    self._waiting.appendleft(worker.work)
            else:
                worker.work.future.set_exception(LostWorkers(_why(worker.process.exitcode, "three times")))
        if self._early_losses >= MAX_LOSSES * self._n_workers:
            with self._lock:
                failed = list(self._waiting)
                self._waiting.clear()
            self._early_losses = 0
            for work in failed:
                if work.losses or work.future.set_running_or_notify_cancel():
                    work.future.set_exception(LostWorkers(_why(worker.process.exitcode, "at the start")))

    def _end(self) -> None:
        with self._lock:
            self._closing = True
            workers, left = list(self._workers), list(self._waiting)
            self._workers.clear()
            self._waiting.clear()
            ended = self._ended
        for work in left:
            work.future.cancel()
        for worker in workers:
            if ended:
                worker.process.kill()
            with contextlib.suppress(OSError):
                worker.pipe.send(None)
            worker.pipe.close()
            if worker.work is not None:
                worker.work.future.set_exception(LostWorkers("the workers were ended"))
        for worker in workers:
            worker.process.join(10.0)
            worker.process.kill()
            worker.process.join()


def _why(exit_code: int | None, when: str) -> str:
    how = f"signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
    return (
        f"a worker process ended without an answer {when} ({how}): memory may be short (try fewer workers), "
        'or the script does not start under `if __name__ == "__main__":`'
    )


# -- in the processes -----------------------------------------------------------------------------

_process: dict[str, Any] = {}  # what a worker process holds: its pipe and its limits


def tell(message: Any) -> None:
    """Say something to the `on_message` of the `Workers` that this process belongs to; else nothing."""
    if "pipe" in _process:
        _process["pipe"].send(("message", message))


def _live(pipe: Connection, initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    """A worker process: one thread, quiet on Ctrl-C, gone when the parent is."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    parent = multiprocessing.parent_process()
    if parent is not None:

        def leave_with_parent() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=leave_with_parent, daemon=True).start()
    failure: BaseException | None = None
    try:
        _process["limits"], _process["pipe"] = one_thread(), pipe
        if initializer is not None:
            initializer(*initargs)
    except Exception as error:  # the answer to whatever is asked
        failure = error
    with contextlib.suppress(ConnectionError):  # ended before there was work
        pipe.send(("ready", None))
    while True:
        try:
            request = pipe.recv()
            if request is None:
                return
            if failure is not None:
                raise failure
            function, arguments, options = request
            answer = ("result", function(*arguments, **options))
        except (EOFError, ConnectionError):
            return  # the parent has ended
        except Exception as error:
            import traceback

            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
            answer = ("error", error)
        try:
            pipe.send(answer)
        except OSError:
            return
        except Exception as error:  # cannot be pickled
            pipe.send(("error", RuntimeError(f"the answer {answer[1]!r:.200} cannot be sent: {error}")))
