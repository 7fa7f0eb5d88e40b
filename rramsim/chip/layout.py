"""Where the cells of a layer sit: tiles of physical lines."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rramsim.blackbox.protocol import MAPPINGS
from rramsim.checks import InputError
from rramsim.config import check_settings, setting

__all__ = ["MappingConfig", "TileLayout"]


@dataclass(frozen=True, kw_only=True)
class MappingConfig:
    """How weights sit on cells, and the size of an array in physical lines.

    Examples
    --------
    >>> mapping = MappingConfig(kind="sliced", n_slices=3, tile_cols=64)
    >>> mapping.cells_per_weight, mapping.weights_per_tile
    (6, 10)
    """

    kind: str = setting("differential", "", "how a weight is held by cells", choices=MAPPINGS)
    n_slices: int = setting(2, "1", "digits of a weight, for the kind sliced", "[1, 64]")
    reference: Literal["line", "digital"] = setting(
        "line",
        "",
        "for the kind reference: a bit line of each tile is subtracted, or nothing before conversion",
        choices=("line", "digital"),
    )
    reference_level: int | None = setting(
        None, "1", "level of the reference line's cells; three eighths of the levels by default", "[0, 4096]"
    )
    tile_rows: int = setting(128, "1", "word lines of an array", "[1, 65536]")
    tile_cols: int = setting(128, "1", "bit lines of an array", "[1, 65536]")
    layer_keys: Literal["position", "name"] = setting(
        "position", "", "what decides a layer's cells: its place on the chip, or its name (as in 0.1)",
        choices=("position", "name"),
    )  # fmt: skip
    placement: Literal["cropped", "full", "packed"] = setting(
        "full", "", "arrays cut to the layer, a whole array per block, or blocks that share arrays",
        choices=("cropped", "full", "packed"),
    )  # fmt: skip
    unused: Literal["reset", "floating"] = setting(
        "reset",
        "",
        "lines without weights: at 0 V with reset cells, or left open",
        choices=("reset", "floating"),
    )
    copies: int = setting(1, "1", "word lines that each row drives; their currents add", "[1, 65536]")
    fill: bool = setting(
        False, "", "repeat the rows of small layers as often as the word lines of their array allow"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.copies > self.tile_rows:
            raise InputError(
                f"copies must lie in 1 ... tile_rows = {self.tile_rows}, got {self.copies}: every copy "
                "takes word lines of the same array"
            )
        if self.fill and self.placement == "packed":
            raise InputError(
                "fill = true needs placement 'full' or 'cropped': on packed arrays the word lines that one "
                "layer leaves free belong to others; set copies instead"
            )
        if self.placement == "cropped" and self.unused == "floating":
            raise InputError(
                "unused = 'floating' needs placement 'full' or 'packed': cropped arrays have no unused lines"
            )
        if self.weights_per_tile < 1:
            raise InputError(
                f"tile_cols must hold at least one weight and its reference, got {self.tile_cols} bit lines"
            )

    def copies_of(self, n_rows: int) -> int:
        """Word lines that each row of a layer with `n_rows` rows drives."""
        return max(self.copies, self.tile_rows // n_rows) if self.fill else self.copies

    @property
    def has_reference_line(self) -> bool:
        """Whether each tile holds a bit line of mid-level cells that is subtracted before conversion."""
        return self.kind == "reference" and self.reference == "line"

    def level_of_reference(self, n_levels: int) -> int:
        """Level of the reference line's cells."""
        return 3 * n_levels // 8 if self.reference_level is None else self.reference_level

    @property
    def single_lines(self) -> bool:
        """Whether bit lines of single cells are converted as they are, nothing subtracted."""
        return self.kind == "reference" and self.reference == "digital"

    @property
    def cells_per_weight(self) -> int:
        """Cells that hold one weight, copies not counted."""
        return {"reference": 1, "sliced": 2 * self.n_slices}.get(self.kind, 2)

    @property
    def slices(self) -> int:
        """Conversions per weight column and tile."""
        return self.n_slices if self.kind == "sliced" else 1

    @property
    def weights_per_tile(self) -> int:
        """Weight columns on one tile's bit lines."""
        if self.has_reference_line:
            return self.tile_cols - 1
        return self.tile_cols // self.cells_per_weight


@dataclass(frozen=True)
class TileLayout:
    """Physical lines of one layer: word lines as rows, bit lines tile after tile.

    `line_of` has shape (n_cols, cells_per_weight): the bit line of each cell;
    `reference_of` (n_cols,) the reference line of each weight column (-1 without one);
    `row_of` (copies, n_rows) the word lines that each row drives.

    Examples
    --------
    >>> layout = TileLayout.build(200, 5, MappingConfig(tile_rows=128))
    >>> layout.row_tiles, layout.n_lines
    (((0, 128), (128, 200)), 10)
    """

    n_rows: int
    n_cols: int
    row_tiles: tuple[tuple[int, int], ...]
    col_tiles: tuple[tuple[int, int], ...]  # weight columns
    line_tiles: tuple[tuple[int, int], ...]  # bit lines
    line_of: NDArray[np.int64]
    reference_of: NDArray[np.int64]
    row_of: NDArray[np.int64]

    @classmethod
    def build(cls, n_rows: int, n_cols: int, config: MappingConfig) -> TileLayout:
        """Cut a layer into tiles of at most `tile_rows` x `tile_cols` physical lines."""
        if n_rows < 1 or n_cols < 1:
            raise InputError(f"a layer needs at least one row and one column, got {n_rows} x {n_cols}")
        cells, per_tile = config.cells_per_weight, config.weights_per_tile
        copies = config.copies_of(n_rows)
        per_array = config.tile_rows // copies
        rows = tuple((first, min(first + per_array, n_rows)) for first in range(0, n_rows, per_array))
        cols = tuple((first, min(first + per_tile, n_cols)) for first in range(0, n_cols, per_tile))
        line_of = np.empty((n_cols, cells), dtype=np.int64)
        reference_of = np.full(n_cols, -1, dtype=np.int64)
        lines = []
        line = 0
        for first, last in cols:
            start = line
            count = (last - first) * cells
            line_of[first:last] = start + np.arange(count).reshape(last - first, cells)
            line += count
            if config.has_reference_line:
                reference_of[first:last] = line
                line += 1
            lines.append((start, line))
        row_of = np.empty((copies, n_rows), dtype=np.int64)
        for first, last in rows:
            starts = copies * first + (last - first) * np.arange(copies)
            row_of[:, first:last] = starts[:, None] + np.arange(last - first)
        return cls(n_rows, n_cols, rows, cols, tuple(lines), line_of, reference_of, row_of)

    @property
    def n_copies(self) -> int:
        """Word lines that each row drives."""
        return len(self.row_of)

    @property
    def n_word_lines(self) -> int:
        """Word lines of all row tiles."""
        return self.row_of.size

    @property
    def word_line_tiles(self) -> tuple[tuple[int, int], ...]:
        """First and one-past-last word line of each row tile."""
        return tuple((self.n_copies * first, self.n_copies * last) for first, last in self.row_tiles)

    @property
    def blocks(self) -> list[tuple[slice, slice]]:
        """Word-line and bit-line range of each part that lies on one array, row tile by row tile."""
        return [(slice(*rows), slice(*lines)) for rows in self.word_line_tiles for lines in self.line_tiles]

    def on_word_lines(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Values of rows (axis 0) at the word lines that they drive."""
        if self.n_copies == 1:
            return rows
        result = np.empty((self.n_word_lines, *rows.shape[1:]), dtype=rows.dtype)
        result[self.row_of] = rows
        return result

    def over_copies(self, word_lines: NDArray[Any]) -> NDArray[Any]:
        """Sum over the copies of each row, axis 0 word lines to rows."""
        return word_lines if self.n_copies == 1 else word_lines[self.row_of].sum(axis=0)

    @property
    def n_lines(self) -> int:
        """Bit lines of all column tiles."""
        return self.line_tiles[-1][1]

    @functools.cached_property
    def reference_lines(self) -> NDArray[np.int64]:
        """Distinct reference bit lines, one per column tile (empty without references)."""
        return np.unique(self.reference_of[self.reference_of >= 0])


def line_index(lines: NDArray[np.int64]) -> Any:
    """Index of the given columns; a slice where they are evenly spaced, which reads much faster."""
    steps = np.unique(np.diff(lines))
    if steps.size != 1 or steps[0] <= 0:
        return lines
    return slice(int(lines[0]), int(lines[-1]) + 1, int(steps[0]))
