"""Networks larger than memory: every piece of a layer on a chip that exists only while it is read.

A whole simulated chip keeps about 60 bytes per cell. Here a network is followed layer by layer; the matrix of
a layer is cut, at the borders of tiles, into pieces, and each is mapped, solved and read before the
next is made. Nothing of a chip is kept, so nothing has to be rounded for storage: the price is that every
call programs and solves all arrays again, so all images belong into one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.blackbox.protocol import ChipProtocol
from rramsim.checks import InputError
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from rramsim.network import Network, Node
from rramsim.network.graph import execute

__all__ = ["Streamed", "run_streamed"]

PIECE = 1 << 22  # weights on a chip at a time
CUT = ("Gemm", "MatMul")  # operators whose matrix may be cut; others come whole

MakeChip = Callable[[Mapping[str, tuple[int, int]]], ChipProtocol]


class Streamed(NamedTuple):
    """Outputs of a network, and how many chips were made on the way."""

    outputs: NDArray[np.float32]  # (n_images, ...)
    n_layers: int
    n_pieces: int


def run_streamed(
    network: Network,
    images: ArrayLike,
    make_chip: MakeChip,
    *,
    calibration: ArrayLike | None = None,
    piece: int = PIECE,
    progress: Callable[[str, int], None] | None = None,
) -> Streamed:
    """Map a network onto chips and run images through it, in the memory of one piece of a layer.

    Parameters
    ----------
    network : Network
        With one input, and without layers that share their weights.
    images : array_like, shape (n_images, *network.input_shape)
        All of them: a second call programs and solves everything again.
    make_chip : callable
        Gives a chip for a mapping of one layer's name to its shape. Pieces have names of their own, so
        simulated chips want ``MappingConfig(layer_keys="name")``: by place, all pieces would be the
        first layer of a chip and have the same errors.
    calibration : array_like, optional
        Images for which the digital network tells the converters' ranges; `images` by default.
    piece : int
        Weights on one chip at most. Cuts fall on borders of row tiles, whose sums are digital as on one
        chip, and on multiples of the bit lines of a tile; each piece has converter ranges of its own.
    progress : callable, optional
        ``progress(layer, pieces so far)`` after each layer.

    Raises
    ------
    InputError
        For several inputs, shared weights, or a piece smaller than a tile.

    Examples
    --------
    >>> import numpy as np
    >>> from rramsim.chip.simulated import ChipConfig, SimulatedChip
    >>> from rramsim.host.streaming import run_streamed
    >>> from rramsim.network import zoo
    >>> images = np.random.default_rng(0).random((2, 300), dtype=np.float32)
    >>> found = run_streamed(zoo.mlp((300, 40, 10)), images, lambda s: SimulatedChip(ChipConfig(), s))
    >>> found.outputs.shape, found.n_layers
    ((2, 10), 2)
    """
    if len(network.inputs) > 1 or any("shares" in network.node(n).attributes for n in network.mapped):
        raise InputError("run_streamed takes networks with one input and without shared weights")
    read = np.asarray(network.checked(images))
    guides = read if calibration is None else np.asarray(network.checked(calibration, "calibration"))
    n_guides, n_pieces = len(guides), 0

    def on_chips(node: Node, x: NDArray[Any]) -> NDArray[Any]:
        """The digital outputs of the guides, then the chips' of the images."""
        nonlocal n_pieces
        total: NDArray[np.float32] | None = None
        for part, rows, columns in _pieces(node, x.shape, make_chip, piece):
            inputs = x if rows is None else x[..., rows]
            deployment = Deployment(part, make_chip(layer_shapes(part)))
            deployment.map(inputs[:n_guides])
            answer = deployment.run(inputs[n_guides:])
            n_pieces += 1
            if columns is None:
                total = answer
            else:
                if total is None:
                    n_columns = node.parameters["weight"].shape[1]
                    total = np.zeros((*answer.shape[:-1], n_columns), dtype=np.float32)
                total[..., columns] += answer
        assert total is not None
        if progress is not None:
            progress(node.name, n_pieces)
        return np.concatenate([execute(node, [x[:n_guides]]), total])

    values = network.feed(np.concatenate([guides, read]))
    outputs = network.evaluate(values, network.output, mapped=on_chips)
    return Streamed(outputs[n_guides:], len(network.mapped), n_pieces)


def _pieces(
    node: Node, shape: tuple[int, ...], make_chip: MakeChip, piece: int
) -> Iterator[tuple[Network, slice | None, slice | None]]:
    """Networks of one mapped node each, with their rows and columns of its matrix; None for all of it."""
    weight = node.parameters["weight"]
    own_shape = shape[1:]
    if weight.size <= piece or node.op not in CUT or "left" in node.attributes:
        whole = replace(node, inputs=("input",))
        yield Network([whole], own_shape, node.name, node.name), None, None
        return
    n_rows, n_columns = weight.shape
    sheet = make_chip({node.name: (1, 1)}).datasheet
    tile_rows, tile_columns = sheet.tile_rows, sheet.tile_cols
    if piece < tile_rows * tile_columns:
        raise InputError(f"piece must hold the weights of a tile, {tile_rows} x {tile_columns}, got {piece}")
    columns = min(n_columns, max(piece // n_rows, piece // (64 * tile_rows)) // tile_columns * tile_columns)
    columns = max(columns, tile_columns)
    rows = max(piece // columns // tile_rows * tile_rows, tile_rows)
    bias = node.parameters.get("bias")
    for j in range(0, n_columns, columns):
        for i in range(0, n_rows, rows):
            own = slice(i, min(i + rows, n_rows)), slice(j, min(j + columns, n_columns))
            parameters = {"weight": np.ascontiguousarray(weight[own])}
            if bias is not None:
                parameters["bias"] = bias[own[1]] if i == 0 else np.zeros_like(bias[own[1]])
            name = f"{node.name} rows {i} columns {j}"
            part = Node(name, node.op, ("input",), dict(node.attributes), parameters)
            yield Network([part], (*own_shape[:-1], own[0].stop - i), name, name), *own
