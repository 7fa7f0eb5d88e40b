"""The digital state of one chip layer, as plain data, and which layers a network needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.blackbox.windows import WindowCodes
from rramsim.network import Network, Node, windows

__all__ = ["HostLayer", "layer_shapes"]


@dataclass
class HostLayer:
    """Digital state of one chip layer (one group of one network node).

    A pre-activation is ``gain * nominal + offset + (x @ down) @ up + x @ sparse`` with
    ``nominal = codes * unit``; `unit` converts ADC codes to the layer's own unit as if every
    cell were perfect, and x are the inputs the DAC really drove.
    """

    node: str
    group: int
    scale: NDArray[np.float64]  # (n_cols,) magnitude that a normalised weight of 1 stands for
    x_step: float = 0.0  # input value of one DAC step
    signed: bool = False
    output_range: float = 0.0  # [A]
    unit: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # (n_cols,)
    gain: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # (n_cols,)
    offset: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # (n_cols,)
    levels: NDArray[np.int64] | None = None  # targets last written, (n_rows, n_cols, cells)
    down: NDArray[np.float64] | None = None  # (n_rows, rank)
    up: NDArray[np.float64] | None = None  # (rank, n_cols)
    sparse_index: NDArray[np.int64] | None = None  # (n_entries, 2) row and column
    sparse_value: NDArray[np.float64] | None = None  # (n_entries,)

    def correction(self, codes: NDArray[Any] | WindowCodes) -> NDArray[np.float32] | None:
        """Digital side-correction for DAC codes; None without one.

        Shape (n_vectors, n_cols), or (n_images, n_cols, out_h, out_w) for the windows of maps.
        """
        parts = []
        if self.down is not None and self.up is not None:
            down, up = self.down * self.x_step, self.up.astype(np.float32)
            if isinstance(codes, WindowCodes):
                parts.append(np.einsum("nrhw,rc->nchw", codes.multiply(down), up, optimize=True))
            else:
                parts.append((codes.astype(np.float32) @ down.astype(np.float32)) @ up)
        if self.sparse_index is not None and self.sparse_value is not None:
            matrix = np.zeros((codes.shape[1], self.scale.size), dtype=np.float32)
            matrix[tuple(self.sparse_index.T)] = self.sparse_value * self.x_step
            if isinstance(codes, WindowCodes):
                parts.append(codes.multiply(matrix))
            else:
                parts.append(codes.astype(np.float32) @ matrix)
        return None if not parts else sum(parts[1:], parts[0])

    @property
    def n_extra(self) -> int:
        """Digital numbers kept beside gain and offset (adapter and sparse entries)."""
        dense = (0 if self.down is None else self.down.size) + (0 if self.up is None else self.up.size)
        return dense + (0 if self.sparse_value is None else self.sparse_value.size)


def layer_shapes(network: Network) -> dict[str, tuple[int, int]]:
    """Chip layers of a network: name to (n_rows, n_cols); a grouped node gives one per group.

    Nodes that share their weights give one layer, which is read for each of them.
    """
    return {
        name: (matrix.shape[0], matrix.shape[1])
        for node in map(network.node, network.mapped)
        if "shares" not in node.attributes
        for name, matrix in zip(layer_names(node), windows.matrices(node), strict=True)
    }


def layer_names(node: Node) -> list[str]:
    n_groups = len(windows.matrices(node))
    owner = str(node.attributes.get("shares", node.name))
    return [owner] if n_groups == 1 else [f"{owner}/{group}" for group in range(n_groups)]
