"""One operator of a network, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

__all__ = ["Node"]


@dataclass(frozen=True)
class Node:
    """One operator; its single output bears its name.

    Parameters
    ----------
    op : str
        ONNX operator name.
    inputs : tuple of str
        Names of nodes, or "input".
    attributes : dict
        ONNX attributes, and on mapped nodes "shares", the earlier node whose weights (and so whose array on
        a chip) this one uses too, and "left", 1 where a MatMul is ``weight.T @ x``: its columns then lie on
        the last axis but one.
    parameters : dict of ndarray
        Conv: "weight" (c_out, c_in / group, k_h, k_w), "bias"; Gemm and MatMul: "weight"
        (c_in, c_out), "bias"; BatchNormalization: "scale", "bias", "mean", "variance".

    Examples
    --------
    >>> Node("relu", "Relu", ("fc",)).inputs
    ('fc',)
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, NDArray[Any]] = field(default_factory=dict)
