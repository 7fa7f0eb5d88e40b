"""The digital state of one chip layer, as plain data, and which layers a network needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.blackbox.windows import WindowCodes
from rramsim.network import Network, Node, windows

__all__ = ["HostLayer", "layer_shapes"]

BLOCK = 4096  # vectors whose codes are floats at a time


@dataclass
class HostLayer:
    """Digital state of one chip layer (one group of one network node).

    A pre-activation is ``gain * nominal + offset + (x @ down) @ up + x @ sparse`` with
    ``nominal = codes * unit + common * sum(x)``; `unit` converts ADC codes to the layer's own unit as if
    every cell were perfect, and x are the inputs the DAC really drove. `common` takes off what all cells of
    a column conduct alike, where a weight of 0 does not send 0 to the ADC: a sum of the inputs for each
    vector, shared by all columns, and one product for each column. Where a reference line is subtracted
    whose cells err, `reference_error` holds what was found of it: ``scale * (x @ reference_error)`` is taken
    off too, one product for each row, shared by the columns of a tile.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones(4)
    >>> HostLayer(node="fc", group=0, scale=one, gain=one, offset=0 * one).n_extra
    0
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
    zero_point: NDArray[np.float64] | None = None  # (n_cols,) normalised chip weight that stands for 0
    common: NDArray[np.float64] | None = None  # (n_cols,)
    reference_error: NDArray[np.float64] | None = None  # (n_rows, n_col_tiles) found error, normalised
    reference_of: NDArray[np.int64] | None = None  # (n_cols,) column of `reference_error`
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
                parts.append(_product(codes, down.astype(np.float32)) @ up)
        if self.sparse_index is not None and self.sparse_value is not None:
            matrix = np.zeros((codes.shape[1], self.scale.size), dtype=np.float32)
            matrix[tuple(self.sparse_index.T)] = self.sparse_value * self.x_step
            if isinstance(codes, WindowCodes):
                parts.append(codes.multiply(matrix))
            else:
                parts.append(_product(codes, matrix))
        return None if not parts else sum(parts[1:], parts[0])

    def common_mode(self, codes: NDArray[Any] | WindowCodes) -> NDArray[np.float32] | None:
        """``common * sum(x)`` for DAC codes, shaped as `correction`; None where nothing is common."""
        if self.common is None:
            return None
        common = (self.common * self.x_step).astype(np.float32)
        shared = np.ones((codes.shape[1], 1), dtype=np.float32)
        if self.reference_error is not None:
            shared = np.hstack([shared, self.reference_error.astype(np.float32)])
        if isinstance(codes, WindowCodes):
            sums = codes.multiply(shared)
            common_mode = sums[:, :1] * common[:, None, None]
        else:
            sums = _product(codes, shared)
            common_mode = sums[:, :1] * common
        if self.reference_of is not None:
            scale = (self.scale * self.x_step).astype(np.float32)
            part = np.take(sums, 1 + self.reference_of, axis=1)
            common_mode -= part * (scale[:, None, None] if isinstance(codes, WindowCodes) else scale)
        return common_mode

    def beside(self, codes: NDArray[Any] | WindowCodes) -> NDArray[np.float32] | None:
        """All that is added to ``gain * unit * reading + offset``, shaped as `correction`; None without."""
        common, correction = self.common_mode(codes), self.correction(codes)
        if common is not None:
            gain = self.gain.astype(np.float32)
            common *= gain[:, None, None] if isinstance(codes, WindowCodes) else gain
        if common is None or correction is None:
            return correction if common is None else common
        return common + correction

    @property
    def n_extra(self) -> int:
        """Digital numbers kept beside gain and offset (common mode, adapter and sparse entries)."""
        common = 0 if self.common is None else self.common.size
        common += 0 if self.reference_error is None else self.reference_error.size
        dense = (
            common + (0 if self.down is None else self.down.size) + (0 if self.up is None else self.up.size)
        )
        return dense + (0 if self.sparse_value is None else self.sparse_value.size)

    @property
    def n_macs(self) -> int:
        """Multiply-accumulates of these numbers for one vector: every number takes part in one product.

        The found error of reference lines takes one more for each column.
        """
        return self.n_extra + (0 if self.reference_of is None else self.reference_of.size)


def _product(codes: NDArray[Any], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Integer codes (n, n_rows) times a float32 matrix; the codes become floats block by block."""
    out = np.empty((len(codes), matrix.shape[1]), dtype=np.float32)
    for first in range(0, len(codes), BLOCK):
        part = codes[first : first + BLOCK].astype(np.float32)
        np.matmul(part, matrix, out=out[first : first + BLOCK])
    return out


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
