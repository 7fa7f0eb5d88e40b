"""Reference points that use what no tuner of a real chip could: bounds, not competitors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evidence.belief import CellBelief
from finetune.evidence.choice import choose
from rramsim.checks import InputError
from rramsim.chip.simulated import SimulatedChip
from rramsim.host.deployment import Deployment
from rramsim.network import Network, windows

__all__ = ["oracle"]


def oracle(
    chip: SimulatedChip,
    deployment: Deployment,
    teacher: Network,
    images: NDArray[np.float32],
    *,
    passes: int = 10,
    writes: float = 1.0,
) -> Deployment:
    """Not comparable (sees the true conductances). Rewrite cells of a simulated chip knowing each of them.

    Parameters
    ----------
    chip : SimulatedChip
        The simulator itself; it is written to.
    deployment : Deployment
        A mapped deployment on it; its gains and offsets are fitted in closed form after each layer.
    passes : int
        Rounds of rewriting and looking per layer.
    writes : float
        Most writes per cell of a layer.

    Returns
    -------
    Deployment
        On the same chip.
    """
    sheet = chip.datasheet
    if sheet.mapping != "differential":
        raise InputError(f"oracle: needs differential mapping, got {sheet.mapping}")
    result = deployment.on(chip)
    window = np.asarray(sheet.levels)
    means = (window - window[0]) / (window[-1] - window[0])
    values: dict[str, Any] = teacher.feed(images)
    teacher.evaluate(values, teacher.output, keep=set(teacher.mapped))
    trace = result.trace(images)
    for layer, host in result.layers.items():
        codes = trace.codes(layer)
        some = codes[:: max(1, len(codes) // 8192)].astype(np.float64)
        centred = some - some.mean(axis=0)
        hessian = centred.T @ centred / len(centred)
        wanted = result.weights(layer).astype(np.float64) / host.scale
        assert host.levels is not None
        left = int(writes * host.levels.size)
        for _ in range(passes):
            g = chip.conductances(layer).astype(np.float64)
            cells = (g.reshape(*host.levels.shape) - window[0]) / (window[-1] - window[0])
            factor = np.array([1.0, -1.0])
            belief = CellBelief.written(cells, np.zeros(cells.shape), factor)
            # a new write errs by about as much as the present ones do
            error = np.square(cells - means[host.levels])
            present = [error[host.levels == q] for q in range(means.size)]
            level_sd = np.sqrt([e.mean() if e.size else error.mean() for e in present])
            slope = hessian @ (wanted - belief.weights)
            levels, mask = choose(belief, host.levels, hessian, slope, means, level_sd, left)
            if not mask.any():
                break
            left -= int(mask.sum())
            result.write(layer, levels, mask)
        reading = chip.mvm(layer, codes).codes
        node = result.network.node(host.node)
        if len(result.nodes_of(layer)) > 1:
            raise InputError(f"oracle: layer {layer!r} is shared by several nodes, which it cannot tune")
        target = windows.to_columns(node, values[host.node], host.group)
        z, y = target.astype(np.float64), reading * host.unit
        spread = np.maximum(np.square(y - y.mean(axis=0)).sum(axis=0), 1e-300)
        host.gain = ((y - y.mean(axis=0)) * (z - z.mean(axis=0))).sum(axis=0) / spread
        host.offset = z.mean(axis=0) - host.gain * y.mean(axis=0)
        if host.group == len(windows.matrices(node)) - 1:
            trace.forget_after(host.node)
    return result
