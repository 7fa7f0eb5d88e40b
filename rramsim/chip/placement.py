"""Where the blocks of all layers lie on the chip's physical arrays.

A layer is cut into blocks of at most one array (`TileLayout`). `full` gives each block an array of its
own, beside the corner of drivers and sense amplifiers, where wires cost least; `packed` lets blocks
share arrays, in shelves of falling height (next-fit decreasing height: Coffman et al. 1980,
doi 10.1137/0209062); `cropped` cuts the array to the block, which no real array is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rramsim.chip.layout import MappingConfig, TileLayout

__all__ = ["ChipMap", "Place", "place_layers"]


class Place(NamedTuple):
    """A block on its array: word lines count from the far end of bit lines, bit lines from the drivers."""

    tile: int  # number of the physical array
    row: int  # first word line
    line: int  # first bit line
    n_rows: int
    n_lines: int


@dataclass(frozen=True)
class ChipMap:
    """Where every block of every layer lies.

    Parameters
    ----------
    shapes : tuple of (word lines, bit lines)
        Each physical array.
    places : mapping of layer to places
        Blocks of a layer, row tile by row tile.

    Examples
    --------
    >>> from rramsim import ChipConfig, SimulatedChip
    >>> chip = SimulatedChip(ChipConfig(), {"fc": (128, 32)})
    >>> len(chip.map.shapes), chip.map.utilisation
    (1, 0.5)
    """

    shapes: tuple[tuple[int, int], ...]
    places: Mapping[str, tuple[Place, ...]]

    @property
    def n_cells(self) -> int:
        """Cells on all arrays."""
        return sum(rows * lines for rows, lines in self.shapes)

    @property
    def utilisation(self) -> float:
        """Share of all cells that belong to a layer (its reference lines included)."""
        return sum(p.n_rows * p.n_lines for own in self.places.values() for p in own) / self.n_cells

    def occupancy(self) -> list[NDArray[np.int64]]:
        """Per array the number of the layer at each cell, -1 for unused cells."""
        result = [np.full(shape, -1) for shape in self.shapes]
        for number, own in enumerate(self.places.values()):
            for p in own:
                result[p.tile][p.row : p.row + p.n_rows, p.line : p.line + p.n_lines] = number
        return result

    def table(self) -> list[dict[str, Any]]:
        """One row per layer: its arrays, its cells and their share of those arrays."""
        rows = []
        for name, own in self.places.items():
            tiles = sorted({p.tile for p in own})
            cells = sum(p.n_rows * p.n_lines for p in own)
            all_cells = sum(self.shapes[t][0] * self.shapes[t][1] for t in tiles)
            rows.append({"layer": name, "tiles": tiles, "cells": cells, "share": cells / all_cells})
        return rows


def place_layers(layouts: Mapping[str, TileLayout], mapping: MappingConfig) -> ChipMap:
    """Place every block; the same layouts and settings give the same map.

    Examples
    --------
    >>> from rramsim.chip.layout import MappingConfig, TileLayout
    >>> mapping = MappingConfig(placement="packed")
    >>> layouts = {name: TileLayout.build(25, 6, mapping) for name in ("a", "b")}
    >>> place_layers(layouts, mapping).places["b"]
    (Place(tile=0, row=103, line=12, n_rows=25, n_lines=12),)
    """
    blocks = [
        (name, bottom - top, last - first)
        for name, layout in layouts.items()
        for top, bottom in layout.word_line_tiles
        for first, last in layout.line_tiles
    ]
    if mapping.placement == "cropped":
        shapes = tuple((n_rows, n_lines) for _, n_rows, n_lines in blocks)
        return _map(blocks, [(number, 0, 0) for number in range(len(blocks))], shapes)
    height, width = mapping.tile_rows, mapping.tile_cols
    if mapping.placement == "full":
        corners = [(number, height - n_rows, 0) for number, (_, n_rows, _) in enumerate(blocks)]
    else:
        corners = _shelves([block[1:] for block in blocks], height, width)
    return _map(blocks, corners, ((height, width),) * (1 + max(tile for tile, _, _ in corners)))


def _map(
    blocks: list[tuple[str, int, int]],
    corners: list[tuple[int, int, int]],
    shapes: tuple[tuple[int, int], ...],
) -> ChipMap:
    places: dict[str, list[Place]] = {}
    for (name, n_rows, n_lines), corner in zip(blocks, corners, strict=True):
        places.setdefault(name, []).append(Place(*corner, n_rows, n_lines))
    return ChipMap(shapes, {name: tuple(own) for name, own in places.items()})


def _shelves(sizes: list[tuple[int, int]], height: int, width: int) -> list[tuple[int, int, int]]:
    """Tile, first word line and first bit line of each (n_rows, n_lines), tallest first.

    Shelves stack from the sense amplifiers up and fill from the drivers on; a block goes on the first
    shelf where it fits.
    """
    shelves: list[list[int]] = []  # tile, word line below the shelf, height, bit lines taken
    corners = [(0, 0, 0)] * len(sizes)
    below: list[int] = []  # per tile the word lines that are left above its shelves
    for index in sorted(range(len(sizes)), key=lambda k: (-sizes[k][0], -sizes[k][1], k)):
        n_rows, n_lines = sizes[index]
        shelf = next((s for s in shelves if n_rows <= s[2] and s[3] + n_lines <= width), None)
        if shelf is None:
            tile = next((t for t, left in enumerate(below) if n_rows <= left), len(below))
            if tile == len(below):
                below.append(height)
            shelf = [tile, below[tile], n_rows, 0]
            below[tile] -= n_rows
            shelves.append(shelf)
        corners[index] = (shelf[0], shelf[1] - n_rows, shelf[3])
        shelf[3] += n_lines
    return corners
