"""Every cell of a chip as a table, for a tester or another program: place, target, conductance."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError

if TYPE_CHECKING:
    from rramsim.chip.layout import TileLayout

__all__ = ["COLUMNS", "cell_table", "write_cells"]

# tiles count from 0 within the layer, lines within the tile; row, column, cell name the weight's cell (-1 on
# a reference line); target is the level, -1 where it is not known
COLUMNS = (
    "row_tile", "column_tile", "word_line", "bit_line", "row", "column", "cell", "target", "conductance",
)  # fmt: skip


def cell_table(
    layout: TileLayout, conductance: NDArray[np.float32], levels: NDArray[np.integer] | None
) -> dict[str, NDArray[Any]]:
    """One layer's cells, word line by word line; each column has shape (n_word_lines * n_bit_lines,).

    Parameters
    ----------
    conductance : ndarray, shape (n_word_lines, n_bit_lines)
        [S].
    levels : integer ndarray, shape (n_rows, n_cols, cells_per_weight), optional
        Targets.
    """
    n_word, n_bit = conductance.shape
    row = np.full(n_word, -1)
    for copy in layout.row_of:
        row[copy] = np.arange(layout.n_rows)
    column, cell = np.full(n_bit, -1), np.full(n_bit, -1)
    n_cols, n_cells = layout.line_of.shape
    column[layout.line_of] = np.arange(n_cols)[:, None]
    cell[layout.line_of] = np.arange(n_cells)[None, :]
    places = []
    for tiles, n in ((layout.word_line_tiles, n_word), (layout.line_tiles, n_bit)):
        tile, line = np.empty(n, np.int64), np.empty(n, np.int64)
        for index, (first, stop) in enumerate(tiles):
            tile[first:stop], line[first:stop] = index, np.arange(stop - first)
        places.append((tile, line))
    target = np.full((n_word, n_bit), -1)
    if levels is not None:
        weighty = column >= 0
        target[:, weighty] = levels[row][:, column[weighty], cell[weighty]]
    along = (places[0][0], places[0][1], row)
    across = (places[1][0], places[1][1], column, cell)
    tile_row, word, row_of = (np.repeat(values, n_bit) for values in along)
    tile_col, bit, column_of, cell_of = (np.tile(values, n_word) for values in across)
    row_of = np.where(column_of < 0, -1, row_of)
    values = (tile_row, tile_col, word, bit, row_of, column_of, cell_of, target.ravel(), conductance.ravel())
    return dict(zip(COLUMNS, values, strict=True))


def write_cells(
    path: Path, tables: Iterator[tuple[str, dict[str, NDArray[Any]]]], attributes: Mapping[str, Any]
) -> None:
    """Write layers' tables as CSV (a first column names the layer) or HDF5 (a group for each layer)."""
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["layer", *COLUMNS[:-1], "conductance [S]"])
            for layer, table in tables:
                columns = [table[name].tolist() for name in COLUMNS]
                writer.writerows([layer, *row] for row in zip(*columns, strict=True))
    elif path.suffix in (".h5", ".hdf5"):
        import h5py

        with h5py.File(path, "w") as file:
            file.attrs.update(attributes)
            for index, (layer, table) in enumerate(tables):
                group = file.create_group(f"{index:04d}")
                group.attrs["layer"] = layer
                for name, values in table.items():
                    kind = values.astype(np.int32) if values.dtype.kind == "i" else values
                    group.create_dataset(name, data=kind, compression="gzip", shuffle=True)
                group["conductance"].attrs["unit"] = "S"
    else:
        raise InputError(f"{path} must end in .csv, .h5 or .hdf5, got {path.suffix!r}")
