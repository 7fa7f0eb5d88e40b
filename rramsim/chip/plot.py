"""Figure of a chip's arrays and the layers on them (matplotlib is loaded when a figure is drawn)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rramsim.chip.placement import ChipMap

__all__ = ["map_figure"]

COLUMNS = 8  # arrays side by side


def map_figure(chip_map: ChipMap, path: str | Path | None = None) -> Any:
    """Every array of a chip, one colour per layer, unused cells in grey.

    Parameters
    ----------
    chip_map : ChipMap
        `SimulatedChip.map`.
    path : path, optional
        File to save to.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    names, grids = list(chip_map.places), chip_map.occupancy()
    n_columns = min(COLUMNS, len(grids))
    n_rows = -(-len(grids) // n_columns)
    figure = Figure(figsize=(1.6 * n_columns + 2.2, 1.6 * n_rows + 0.8), layout="constrained")
    axes = np.ravel(figure.subplots(n_rows, n_columns, squeeze=False))
    colours = colormaps["tab20"](np.arange(len(names)) % 20)
    palette = np.concatenate([[[0.88, 0.88, 0.88, 1.0]], colours])
    for number, axis in enumerate(axes):
        axis.set_axis_off()
        if number < len(grids):
            axis.imshow(palette[grids[number] + 1], interpolation="nearest")
            used = (grids[number] >= 0).mean()
            axis.set_title(f"array {number}: {100 * used:.0f} %", fontsize=8)
    patches = [Patch(color=colour, label=name) for colour, name in zip(colours, names, strict=True)]
    figure.legend(handles=patches, loc="outside right upper", fontsize=7, frameon=False)
    figure.suptitle(
        f"{len(grids)} arrays, {100 * chip_map.utilisation:.1f} % of their cells hold layers", fontsize=10
    )
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
