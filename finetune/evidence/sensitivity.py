"""Where errors hurt: weights of layer outputs by what they do to the distillation loss.

Computed at the host on the teacher alone, by finite differences; the chip is never asked. Near
the teacher the distillation loss is ``1/2 d' F d`` in the logits' error d, F = diag(p) - p p'. Disturbing one
output channel of a layer by a small field e and watching the logits move by d gives the loss per unit
of squared error there: a Fisher-type sensitivity like those of second-order quantisation
(BRECQ, Li et al., ICLR 2021), without automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.objective import fisher_factor, softmax
from rramsim.checks import InputError, nearest_name
from rramsim.network import Network, Node, windows
from rramsim.network.graph import execute
from rramsim.streams import Cause, stream, text_key

__all__ = ["WEIGHTS", "channel_sensitivity", "check_weights", "descendants", "image_weights"]

WEIGHTS = ("variance", "distillation")  # how columns of a layer may be weighed against each other


def check_weights(step: str, weights: str) -> str:
    """Return `weights` if it is one of `WEIGHTS`."""
    if weights not in WEIGHTS:
        raise InputError(f"{step}: weights: unknown name {weights!r}; {nearest_name(weights, WEIGHTS)}")
    return weights


def descendants(network: Network, name: str) -> set[str]:
    """Tensors that depend on the named one, itself included."""
    found = {name}
    for node in network.nodes:
        if found.intersection(node.inputs):
            found.add(node.name)
    return found


def image_weights(teacher: NDArray[np.floating], temperature: float = 2.0) -> NDArray[np.float64]:
    """Trace of F for each image, mean 1: how much its logits can still change the outcome.

    Parameters
    ----------
    teacher : ndarray, shape (n_images, n_classes)
        Teacher's logits.
    """
    p = softmax(teacher, temperature)
    weights = 1.0 - np.square(p).sum(axis=1)
    return weights / max(weights.mean(), 1e-300)


def channel_sensitivity(
    network: Network,
    images: NDArray[np.float32],
    name: str,
    *,
    temperature: float = 2.0,
    size: float = 0.05,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Distillation loss per unit of mean squared error in each output channel of a mapped node.

    The disturbing fields are what random errors of the weights would cause, one error matrix
    for the node, scaled to `size` standard deviations of each channel's output.

    Parameters
    ----------
    network : Network
        The teacher.
    images : ndarray, shape (n_images, c, h, w)
        Some calibration images; 16 to 64 do.
    name : str
        Conv, Gemm or MatMul node.
    size : float
        Relative size of the disturbance.

    Returns
    -------
    ndarray, shape (n_channels,)
        0 where no logit moved; a channel without any signal to disturb gets the smallest of the others.
    """
    if name not in network.mapped:
        raise InputError(f"{name!r} must be one of the mapped nodes {list(network.mapped)}")
    if not size > 0.0:
        raise InputError(f"size must be > 0, got {size:g}")
    node = network.node(name)
    values: dict[str, NDArray[np.float32]] = network.feed(images)
    logits = network.evaluate(values, network.output, keep="all")
    later = descendants(network, name)
    before = {key: value for key, value in values.items() if key not in later}
    clean, x = values[name], values[node.inputs[0]]

    rng = stream(seed, Cause.TUNER, text_key(name))
    columns = []
    for group, matrix in enumerate(windows.matrices(node)):
        errors = rng.standard_normal(matrix.shape).astype(np.float32)
        columns.append(windows.lower(node, x, group) @ errors)
    field = windows.from_columns(node, x.shape, columns)

    axis = windows.channel_axis(node) % clean.ndim
    others = tuple(other for other in range(clean.ndim) if other != axis)
    wanted = size * clean.std(axis=others)
    present = np.sqrt(np.square(field).mean(axis=others))
    weights, felt = np.zeros(clean.shape[axis]), (wanted > 0) & (present > 0)
    if len(network.uses(name)) > 1:
        disturb = _shared_disturbance(network, before, name, errors)
    for channel in np.flatnonzero(felt).tolist():
        if len(network.uses(name)) > 1:
            outcome = disturb(channel, np.float32(wanted[channel] / present[channel]))
            change = fisher_factor(logits, outcome - logits, temperature)
            weights[channel] = 0.5 * np.square(change).sum(axis=1).mean() / wanted[channel] ** 2
            continue
        moved = clean.copy()
        where: Any = (*(slice(None),) * axis, channel)
        moved[where] += field[where] * np.float32(wanted[channel] / present[channel])
        outcome = network.evaluate(before | {name: moved}, network.output)
        change = fisher_factor(logits, outcome - logits, temperature)
        weights[channel] = 0.5 * np.square(change).sum(axis=1).mean() / wanted[channel] ** 2
    positive = weights[weights > 0]
    weights[~felt] = positive.min() if positive.size else 1.0
    return weights


def _shared_disturbance(
    network: Network, before: dict[str, NDArray[np.float32]], name: str, errors: NDArray[np.float32]
) -> Callable[[int, np.float32], NDArray[np.float32]]:
    """Logits with one column of a shared matrix in error: every node that shares it is disturbed."""
    uses = set(network.uses(name))

    def disturb(channel: int, size: np.float32) -> NDArray[np.float32]:
        error = np.zeros_like(errors)
        error[:, channel] = size * errors[:, channel]

        def mapped(node: Node, x: NDArray[Any]) -> NDArray[np.float32]:
            y = execute(node, [x])
            if node.name in uses:
                y = y + windows.from_columns(node, x.shape, [windows.lower(node, x) @ error])
            return y

        return network.evaluate(dict(before), network.output, mapped=mapped)

    return disturb
