"""What a layer's arrays dissipate while they are read, from the solved circuit and the actual inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.chip.drive import drive_matrix
from rramsim.chip.layer import LAID_OUT, ChipLayer, laid_out
from rramsim.chip.layer_array import LayerArray
from rramsim.circuit.power import NONE, Power, power_of_moment, power_of_vectors
from rramsim.kernels.windows import Geometry

__all__ = ["ReadEnergy", "read_energy"]

SOLVED = 16  # vectors solved by Newton's method, for non-linear cells on wires


@dataclass(frozen=True)
class ReadEnergy:
    """Energy [J] of the arrays per input vector of a layer, averaged over the vectors given.

    Attributes
    ----------
    cells, wires, drivers, terminals : float
        Dissipated in cells with their access transistors, in line segments, in the resistances of drivers and
        sense amplifiers, and drawn from the sources, which is their sum.
    v2_lines : float
        Sum over reads, arrays and word lines of v^2 times the line's number of cells [V^2]: what charging
        the lines takes, times the capacitance per cell.
    n_vectors : int
        Vectors averaged over.
    n_solved : int
        Vectors the circuit was solved for: all, unless non-linear cells sit on wires.
    """

    cells: float
    wires: float
    drivers: float
    terminals: float
    v2_lines: float
    n_vectors: int
    n_solved: int


def read_energy(layer: ChipLayer, data: NDArray[Any], geometry: Geometry | None) -> ReadEnergy:
    """Mean energy of reading the given vectors in the layer's present state; nothing is charged or aged.

    Parameters
    ----------
    layer : ChipLayer
    data : integer ndarray
        Vectors of codes (n_vectors, n_rows), or maps (n_images, c, h, w) with a geometry.

    Notes
    -----
    Mean conductances stand for fluctuating ones: the mean power of linear cells is linear in them. Every
    array read lasts `t_read`. Reads of a layer drive its own word lines and find all other lines of its
    arrays at 0 V, or open where they float. Without wires, cells outside the layer's lines do not count.
    """
    array, drive = layer.array, layer.drive
    drives = [_Drives(stop - start) for start, stop in layer.info.row_tiles]
    steps = layer.mismatch.dac_steps(drive.signed)
    each = geometry.out_h * geometry.out_w if geometry else 1
    keep = not array.linear
    n_vectors = len(data) * each
    at_once = max(1, LAID_OUT // each)
    for first in range(0, len(data), at_once):
        codes = laid_out(data[first : first + at_once], geometry, steps)
        for bit, sign in drive.passes:
            v = drive_matrix(codes, None, int(bit), int(sign)).astype(np.float64) * layer.v_step
            for own, (start, stop) in zip(drives, layer.info.row_tiles, strict=True):
                own.add(v[:, start:stop], keep=keep)
    total, v2_lines, n_solved = NONE, 0.0, n_vectors
    n_line_tiles = len(array.layout.line_tiles)
    for index in range(len(array.tiles())):
        own = drives[index // n_line_tiles]
        power, squares, n = _block(array, index, own)
        total, v2_lines = total + power, v2_lines + squares
        n_solved = min(n_solved, n)
    scale = layer.converters.t_read / max(n_vectors, 1)
    return ReadEnergy(
        total.cells * scale,
        total.wires * scale,
        total.drivers * scale,
        total.terminals * scale,
        v2_lines / max(n_vectors, 1),
        n_vectors,
        n_solved,
    )


class _Drives:
    """What the word-line voltages of one row tile were: their second moment, and themselves if wanted."""

    def __init__(self, n_rows: int) -> None:
        self.moment = np.zeros((n_rows, n_rows))
        self._kept: list[NDArray[np.float64]] = []

    def add(self, v: NDArray[np.float64], *, keep: bool) -> None:
        self.moment += v.T @ v
        if keep:
            self._kept.append(v)

    @property
    def vectors(self) -> NDArray[np.float64]:
        """All of them, shape (n, n_rows)."""
        return np.concatenate(self._kept)


def _block(array: LayerArray, index: int, own: _Drives) -> tuple[Power, float, int]:
    """Power, sum of v^2 over the cells of driven lines, and vectors solved, of one block."""
    rows, lines = array.tiles()[index]
    copies = array.layout.n_copies
    gain = np.ones(rows.stop - rows.start)
    if array.driver_gain is not None:
        gain = np.asarray(array.driver_gain[rows, lines.start], np.float64)
    moment = np.tile(own.moment, (copies, copies)) * np.outer(gain, gain)
    if not array.wired:
        g = np.asarray(array.cells.read_mean()[rows, lines], np.float64)
        if array.dead_bit is not None:
            g = np.where(array.dead_bit[rows, lines], 0.0, g)
        squares = float(np.trace(moment)) * g.shape[1]
        if array.linear:
            power = float(np.diag(moment) @ g.sum(axis=1))
        else:
            v = np.tile(own.vectors, (1, copies)) * gain
            power = float((v * np.sinh(array.alpha * v) / array.alpha).sum(axis=0) @ g.sum(axis=1))
        return Power(power, 0.0, 0.0, power), squares, np.iinfo(np.int64).max
    block, tile = array.blocks[index], array.on_tiles[index]
    squares = float(np.trace(moment)) * tile.shape[1]
    g = np.asarray(tile.conductance(), np.float64)
    if array.linear:
        whole = tile.on_tile(block, tile.on_tile(block, moment, axis=0), axis=1)
        return power_of_moment(g, whole, tile.wires, **tile.open_lines()), squares, np.iinfo(np.int64).max
    v = np.tile(own.vectors, (1, copies)) * gain
    some = v[np.unique(np.linspace(0, len(v) - 1, SOLVED).astype(np.int64))]
    wires = replace(tile.wires, alpha=array.alpha)
    solved = power_of_vectors(g, tile.on_tile(block, some, axis=1), wires)
    factor = len(v) / len(some)
    return Power(*(part * factor for part in solved)), squares, len(some)
