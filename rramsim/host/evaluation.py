"""Outputs of many images on a pool of processes, with the bits that one process gives."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError
from rramsim.host.deployment import Deployment
from rramsim.network import Node, windows
from rramsim.network.inputs import Examples
from rramsim.parallel import Workers

__all__ = ["evaluate_images"]

CHUNKS_EACH = 4  # pieces of work per process: the last ones end at about the same time
_worker: dict[str, Any] = {}


def evaluate_images(
    deployment: Deployment,
    images: Any,
    *,
    workers: int = 1,
    stream: int = 0,
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Network outputs of images on forks of a deployment's chip, which itself is not touched.

    Parameters
    ----------
    images : ndarray, shape (n, *input_shape), or named arrays
    workers : int
        Spawned processes of one thread each. A script that asks for more than one must start under
        ``if __name__ == "__main__":``.
    stream : int
        Noise stream of the forks; the same stream gives the same noise.
    progress : callable, optional
        Called with the number of finished images.

    Returns
    -------
    float32 ndarray, shape (n, ...)
        The same bits for any number of workers: noise is drawn by the number of a vector, and each
        fork counts on from where a single one would be.

    Raises
    ------
    InputError
        Several workers for a chip that cannot be copied (a real one).
    """
    import threadpoolctl

    if workers < 1:
        raise InputError(f"workers must be >= 1, got {workers}")
    images = deployment.network.checked(images)
    fork = getattr(deployment.chip, "fork", None)
    n_batches = -(-len(images) // deployment.network.batch)
    n_workers = min(workers, n_batches)
    if n_workers <= 1 or fork is None:
        if n_workers > 1:
            raise InputError(
                f"a chip without fork(...) cannot be copied to {workers} workers; use workers=1, "
                "which evaluates in place and is charged"
            )
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            return deployment.fork(stream).run(images, progress=progress)
    first = fork(stream)
    if hasattr(first, "refresh"):
        first.refresh()  # wires are solved once, not in every process
    shared = deployment.on(first)
    parts: list[NDArray[np.float32]] = []
    with Workers(n_workers, _start, (shared, stream)) as pool:
        waiting: deque[Future[NDArray[np.float32]]] = deque(
            pool.submit(_run, images[start:stop], vectors)
            for start, stop, vectors in _chunks(deployment, len(images), n_workers)
        )
        while waiting:
            parts.append(waiting.popleft().result())
            if progress is not None:
                progress(len(parts[-1]))
    return np.concatenate(parts)


def _start(deployment: Deployment, stream: int) -> None:
    """Set up one process: the deployment that all its work shares."""
    _worker["deployment"], _worker["stream"] = deployment, stream


def _run(images: Examples, first_vectors: dict[str, int]) -> NDArray[np.float32]:
    deployment = _worker["deployment"]
    chip = deployment.chip.fork(_worker["stream"], first_vectors)
    return deployment.on(chip).run(images)


def _chunks(
    deployment: Deployment, n_images: int, n_workers: int
) -> Iterator[tuple[int, int, dict[str, int]]]:
    """Image ranges of whole batches, and the number of each layer's first vector in them."""
    batch = deployment.network.batch
    n_batches = -(-n_images // batch)
    each = batch * max(1, n_batches // (n_workers * CHUNKS_EACH))
    per_batch = _vectors_of_a_batch(deployment)
    for start in range(0, n_images, each):
        numbers = {layer: n * (start // batch) for layer, n in per_batch.items()}
        yield start, min(start + each, n_images), numbers


def _vectors_of_a_batch(deployment: Deployment) -> dict[str, int]:
    """Vectors that every layer sees in one batch; found on the digital network, whatever its input."""
    network = deployment.network
    counts: dict[str, int] = {}

    def count(node: Node, x: NDArray[Any]) -> NDArray[np.float32]:
        window = windows.geometry(node, x.shape)
        n = int(np.prod(x.shape[:-1])) if window is None else len(x) * window.out_h * window.out_w
        matrices = windows.matrices(node)
        layers = deployment.layers_of(node.name)
        for layer in layers:  # a shared one is read again
            counts[layer] = counts.get(layer, 0) + n
        blank = [np.zeros((n, matrix.shape[1]), dtype=np.float32) for matrix in matrices]
        return windows.from_columns(node, x.shape, blank)

    network.evaluate(network.zeros(network.batch), network.output, mapped=count)
    return counts
