"""Measure a network on its chip, again and again, reading no more than what changed.

After a change of one layer's digital parameters the ADC codes of that layer stand as they
are, and so does everything before it. `Measurement` keeps codes and activations of a base state and
reads only the layers behind the change. With `cached=False` every measurement runs all images
from the first layer on, as a tuner would that sees nothing but the network's outputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evidence.sensitivity import descendants
from rramsim.host.deployment import Deployment
from rramsim.host.trace import Trace
from rramsim.network import Node, windows

__all__ = ["Measurement"]


class Measurement:
    """Logits of calibration images as chip and host produce them.

    Parameters
    ----------
    deployment : Deployment
        On a gate of tier LAYERS, or any tier with `cached=False`.
    images : ndarray, shape (n_images, c, h, w)
    cached : bool
        Keep codes and activations between measurements.
    """

    def __init__(self, deployment: Deployment, images: NDArray[np.float32], *, cached: bool = True) -> None:
        self.deployment = deployment
        self.images = images
        self.cached = cached
        self._trace: Trace | None = None
        self._readings: dict[tuple[str, str], tuple[NDArray[Any], NDArray[Any]]] = {}  # by node and layer

    def base(self, changed: Iterable[str] | None = None) -> NDArray[np.float32]:
        """Measure the present state, shape (n_images, n_classes), and keep it as the base.

        Parameters
        ----------
        changed : iterable of str, optional
            Nodes whose digital parameters differ from the last base; everything is read without it.
        """
        if not self.cached:
            return self.deployment.run(self.images)
        network = self.deployment.network
        stale: set[str] = set()
        if changed is None or self._trace is None:
            self._trace, self._readings = self.deployment.trace(self.images), {}
        else:
            touched = set(changed)
            stale = self._stale(touched)
            first = next((node.name for node in network.nodes if node.name in touched), None)
            if first is None:
                return self._trace.activations(network.output)
            self._trace.forget_after(first)
        for name in network.mapped:
            known = network.node(name).inputs[0] not in stale
            layers = self.deployment.layers_of(name)
            for layer in layers:
                if not (known and (name, layer) in self._readings):
                    codes = self._trace.codes(layer, name)
                    self._readings[name, layer] = (codes, self.deployment.chip.mvm(layer, codes).codes)
            self._trace.answer(name, [self._readings[name, layer][1] for layer in layers])
        return self._trace.activations(network.output)

    def changed(self, nodes: Iterable[str]) -> NDArray[np.float32]:
        """Logits after a change of these nodes' digital parameters; the base stays what it was."""
        if not self.cached or self._trace is None:
            return self.deployment.run(self.images)
        network = self.deployment.network
        stale = self._stale(set(nodes))
        inputs = {network.node(name).inputs[0] for name in network.mapped}
        fresh = (set(network.mapped) | inputs) - stale
        values = network.feed(self.images) | {name: self._trace.activations(name) for name in fresh}

        def mapped(node: Node, x: NDArray[Any]) -> NDArray[np.float32]:
            if node.inputs[0] in stale:
                return self.deployment.execute(node, x)
            layers = self.deployment.layers_of(node.name)
            columns = [self.deployment.finish(layer, *self._readings[node.name, layer]) for layer in layers]
            return windows.from_columns(node, x.shape, columns)

        return network.evaluate(values, network.output, mapped=mapped)

    def activations(self, name: str) -> NDArray[np.float32]:
        """A tensor of the base."""
        if self._trace is None:
            self.base()
        assert self._trace is not None
        return self._trace.activations(name)

    def codes(self, layer: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """DAC codes and ADC codes of a layer at the base."""
        nodes = self.deployment.nodes_of(layer)
        codes, answers = zip(*(self._readings[node, layer] for node in nodes), strict=True)
        return (codes[0], answers[0]) if len(nodes) == 1 else (np.concatenate(codes), np.concatenate(answers))

    def vectors(self, nodes: Iterable[str]) -> int:
        """Vectors that `changed(nodes)` reads, from the base's counts."""
        network = self.deployment.network
        stale = (
            self._stale(set(nodes)) if self.cached else {network.node(n).inputs[0] for n in network.mapped}
        )
        total = 0
        for name in network.mapped:
            if network.node(name).inputs[0] in stale:
                total += sum(len(self._readings[name, layer][0]) for layer in self.deployment.layers_of(name))
        return total

    def _stale(self, nodes: set[str]) -> set[str]:
        found: set[str] = set()
        for name in nodes:
            found |= descendants(self.deployment.network, name)
        return found
