"""Where trials are computed: processes of this machine, any `concurrent.futures` executor, a Dask cluster."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.study.config import ExperimentConfig
from finetune.study.machine import versions
from finetune.study.materials import Materials, Store
from finetune.study.methods import run_methods
from rramsim.checks import CalibrationWarning, InputError, VerifyWarning
from rramsim.parallel import Workers, one_thread, tell

__all__ = ["DaskEngine", "Engine", "process_engine", "scheduler_engine"]

# errors of Dask that mean that a worker or what was sent to it is gone
LOST = {"KilledWorker", "CancelledError", "FutureCancelledError", "FuturesCancelledError", "CommClosedError"}

# -- in the worker processes ----------------------------------------------------------------------

_store = Store()
_one_at_a_time = threading.Lock()  # threads of one process would share its random generators' caches
_platform = functools.cache(versions)


def work_teacher(config: ExperimentConfig, materials: Materials | None) -> NDArray[np.float32]:
    """Outputs of the digital network on the test images."""
    with _one_at_a_time, _limits():
        held = _store.get(config) if materials is None else materials.of(config)
        return held.network.run(held.test.images)


def work_methods(
    config: ExperimentConfig,
    materials: Materials | None,
    teacher_outputs: NDArray[np.float32],
    chip_id: int,
    methods: Sequence[str],
) -> tuple[dict[str, dict[str, Any]], str]:
    """Some methods on one chip, and what the bits of the answer depend on."""
    last = [0.0]

    def notify(*message: Any) -> None:
        if time.monotonic() - last[0] > 0.2:
            last[0] = time.monotonic()
            tell((config.digest, *message))

    with _one_at_a_time, _limits(), warnings.catch_warnings():
        for kind in (VerifyWarning, CalibrationWarning):  # said once for all chips by the process that writes
            warnings.simplefilter("ignore", kind)
        held = _store.get(config) if materials is None else materials.of(config)
        return run_methods(held, teacher_outputs, chip_id, methods, notify), _platform()


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    with one_thread():
        yield


# -- in the process that writes -------------------------------------------------------------------


class Engine:
    """Hands work to an executor whose processes read networks and images for themselves."""

    def __init__(self, executor: Executor, n_workers: int) -> None:
        self.executor = executor
        self.n_workers = n_workers

    def teacher(self, materials: Materials) -> Future[Any]:
        """Outputs of the digital network, to come."""
        return self.executor.submit(work_teacher, materials.config, None)

    def methods(
        self, materials: Materials, outputs: NDArray[np.float32], chip: int, methods: Sequence[str]
    ) -> Future[Any]:
        """Answers of `work_methods`, to come."""
        return self.executor.submit(work_methods, materials.config, None, outputs, chip, methods)

    def lost(self, error: BaseException) -> bool:
        """Whether an error means that a worker was lost, so that its work may be tried again."""
        return False


class DaskEngine(Engine):
    """Hands work to a Dask cluster; network, images and teacher outputs are sent once to every worker."""

    def __init__(self, client: Any) -> None:
        super().__init__(client.get_executor(pure=False), max(1, len(client.scheduler_info()["workers"])))
        self._client = client
        self._sent: dict[int, tuple[Any, Any]] = {}

    def _send(self, thing: Any) -> Any:
        """The thing on the workers; sent again where every copy was lost."""
        held = self._sent.get(id(thing))
        if held is None or held[1].status != "finished":
            held = (thing, self._client.scatter(thing, broadcast=True, hash=False))
            while len(self._sent) > 8:
                del self._sent[next(iter(self._sent))]
            self._sent[id(thing)] = held
        return held[1]

    def teacher(self, materials: Materials) -> Future[Any]:
        return self.executor.submit(work_teacher, materials.config, self._shared(materials))

    def methods(
        self, materials: Materials, outputs: NDArray[np.float32], chip: int, methods: Sequence[str]
    ) -> Future[Any]:
        shared = self._shared(materials)
        return self.executor.submit(
            work_methods, materials.config, shared, self._send(outputs), chip, methods
        )

    def _shared(self, materials: Materials) -> Any:
        # conditions of a study share the network, of which there is one object for all
        held = self._bases.setdefault(id(materials.network), materials)
        return self._send(held)

    @functools.cached_property
    def _bases(self) -> dict[int, Materials]:
        return {}

    def lost(self, error: BaseException) -> bool:
        return bool(LOST & {kind.__name__ for kind in type(error).__mro__})


@contextlib.contextmanager
def process_engine(n_workers: int, on_message: Callable[[Any], None] | None = None) -> Iterator[Engine]:
    """Spawned processes of this machine with one thread each."""
    with Workers(n_workers, on_message=on_message) as workers:
        yield Engine(workers, n_workers)


@contextlib.contextmanager
def scheduler_engine(scheduler: str, n_workers: int) -> Iterator[DaskEngine]:
    """A Dask cluster: that of the scheduler at an address, or one of this machine for `local`.

    Raises
    ------
    InputError
        If Dask is missing, nobody answers at the address, or the cluster has no workers.
    """
    try:
        import distributed
    except ImportError:
        raise InputError('--scheduler needs Dask: pip install "rramsim[cluster]"') from None
    with contextlib.ExitStack() as stack:
        if scheduler == "local":
            cluster = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=None
                )
            )
            address: Any = cluster
        elif "://" in scheduler:
            address = scheduler
        else:
            raise InputError(
                f"scheduler must be `local` or an address such as tcp://host:8786, got {scheduler!r}"
            )
        try:
            client = stack.enter_context(distributed.Client(address, timeout="20s", set_as_default=False))
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(f"scheduler {scheduler}: no answer ({error})") from None
        if not client.scheduler_info()["workers"]:
            try:
                client.wait_for_workers(1, timeout=60)
            except Exception:
                raise InputError(f"scheduler {scheduler}: has no workers") from None
        yield DaskEngine(client)
