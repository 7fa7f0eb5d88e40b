"""What of a network a chip holds, and what stays at the host: layers, weights, multiply-accumulates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.host.layer import layer_names
from rramsim.network import Network, Node, windows

__all__ = ["LayerSummary", "NetworkSummary", "summarise"]


@dataclass(frozen=True, kw_only=True)
class LayerSummary:
    """One mapped node, or one product that stays at the host.

    Attributes
    ----------
    node, op : str
    layers : int
        Arrays on the chip: one per group; 0 for a product at the host and for a node that shares its weights.
    rows, columns : int
        Of each array, or of the constant or computed matrix at the host.
    vectors : int
        That one example sends to each array.
    macs : int
        Multiply-accumulates of one example.
    on_chip : bool
    note : str
        Why not, or with which node the weights are shared.
    """

    node: str
    op: str
    layers: int
    rows: int
    columns: int
    vectors: int
    macs: int
    on_chip: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class NetworkSummary:
    """See `summarise`.

    Attributes
    ----------
    layers : tuple of LayerSummary
    chip_weights, host_weights : int
        On the chip; in constant tables and matrices of the host with at least two axes (embeddings too).
    chip_macs, host_macs : int
        Of matrix products for one example; elementwise work is not counted.
    """

    layers: tuple[LayerSummary, ...]
    chip_weights: int
    host_weights: int
    chip_macs: int
    host_macs: int

    @property
    def weight_share(self) -> float:
        """Share of the weights on the chip."""
        return self.chip_weights / max(self.chip_weights + self.host_weights, 1)

    @property
    def mac_share(self) -> float:
        """Share of the multiply-accumulates on the chip."""
        return self.chip_macs / max(self.chip_macs + self.host_macs, 1)


def summarise(network: Network) -> NetworkSummary:
    """Count layers, weights and multiply-accumulates on the chip and at the host, for one example.

    Examples
    --------
    >>> from rramsim.network import zoo
    >>> summary = summarise(zoo.lenet5())
    >>> len(summary.layers), summary.chip_weights, summary.weight_share, summary.mac_share
    (5, 61470, 1.0, 1.0)
    """
    n = int(network.metadata.get("batch", 1))
    values: dict[str, NDArray[Any]] = network.zeros(n)
    network.evaluate(values, network.output, keep="all")
    mapped, kept, rows = set(network.mapped), network.metadata.get("digital", ()), []
    for node in network.nodes:
        if node.name in mapped:
            rows.append(_mapped(node, values, n))
        elif "weight" in node.parameters and node.name in kept:
            row = _mapped(node, values, n)
            rows.append(replace(row, layers=0, on_chip=False, note="kept digital"))
        elif node.op in ("MatMul", "Einsum", "Gemm", "Conv"):
            rows.append(_at_host(network, node, values, n))
    constants = [c.parameters["value"] for c in network.nodes if c.op == "Constant"]
    return NetworkSummary(
        layers=tuple(rows),
        chip_weights=network.n_weights,
        host_weights=sum(c.size for c in constants if c.ndim > 1 and c.dtype.kind == "f" and min(c.shape) > 1)
        + sum(network.node(name).parameters["weight"].size for name in kept if not _shares(network, name)),
        chip_macs=sum(row.macs for row in rows if row.on_chip),
        host_macs=sum(row.macs for row in rows if not row.on_chip),
    )


def _shares(network: Network, name: str) -> bool:
    return "shares" in network.node(name).attributes


def _mapped(node: Node, values: dict[str, NDArray[Any]], n: int) -> LayerSummary:
    matrices = windows.matrices(node)
    vectors = windows.vectors_per_example(node, values[node.name].shape)
    owner = node.attributes.get("shares")
    return LayerSummary(
        node=node.name,
        op=node.op,
        layers=0 if owner else len(layer_names(node)),
        rows=matrices[0].shape[0],
        columns=matrices[0].shape[1],
        vectors=vectors,
        macs=vectors * sum(matrix.size for matrix in matrices),
        on_chip=True,
        note=f"the array of {owner}" if owner else "",
    )


def _at_host(network: Network, node: Node, values: dict[str, NDArray[Any]], n: int) -> LayerSummary:
    """A product between activations, or of a form that no array computes."""
    inputs, out = [values[name] for name in node.inputs], values[node.name]
    constant = any(s not in network.inputs and network.node(s).op == "Constant" for s in node.inputs)
    if node.op == "Einsum":
        terms = str(node.attributes["equation"]).replace(" ", "").split("->")[0].split(",")
        sizes = {
            letter: size
            for term, x in zip(terms, inputs, strict=True)
            for letter, size in zip(
                term.replace("...", ""), x.shape[-len(term.replace("...", "")) :], strict=True
            )
        }
        macs = int(np.prod(list(sizes.values()), dtype=np.int64))
        inner = max(macs // max(out.size, 1), 1)
    else:
        inner = inputs[0].shape[-1] if node.op != "Conv" else int(np.prod(inputs[1].shape[1:]))
        macs = out.size * inner
    return LayerSummary(
        node=node.name,
        op=node.op,
        layers=0,
        rows=inner,
        columns=out.shape[-1] if out.ndim else 1,
        vectors=max(out.size // n // max(out.shape[-1] if out.ndim else 1, 1), 1),
        macs=macs // n,
        on_chip=False,
        note="a constant in a form no array computes" if constant else "between activations",
    )
