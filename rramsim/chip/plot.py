"""Figure of a chip's arrays and the layers on them (matplotlib is loaded when a figure is drawn)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rramsim.chip.placement import ChipMap

__all__ = ["map_figure"]

COLUMNS = 4  # arrays side by side


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
        A panel for each array, with the share of its cells that hold layers.

    Examples
    --------
    >>> from rramsim import ChipConfig, SimulatedChip
    >>> figure = map_figure(SimulatedChip(ChipConfig(), {"fc": (60, 10)}, seed=0, chip=0).map)
    >>> len(figure.axes)
    1
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    names, grids = list(chip_map.places), chip_map.occupancy()
    n_columns = min(COLUMNS, len(grids))
    n_rows = -(-len(grids) // n_columns)
    lines = -(-len(names) // 4)  # of the legend
    width = max(0.85 * n_columns, 2.6)
    figure = Figure(figsize=(width, 0.95 * n_rows + 0.4 + 0.16 * lines), layout="constrained")
    axes = np.ravel(figure.subplots(n_rows, n_columns, squeeze=False))
    # no colour twice: Matplotlib's twenty, or a circle of hues for deeper networks
    places = np.arange(len(names))
    colours = colormaps["tab20"](places) if len(names) <= 20 else colormaps["turbo"](places / len(names))
    palette = np.concatenate([[[0.88, 0.88, 0.88, 1.0]], colours])
    for number, axis in enumerate(axes):
        axis.set_axis_off()
        if number < len(grids):
            axis.imshow(palette[grids[number] + 1], interpolation="nearest")
            used = (grids[number] >= 0).mean()
            axis.set_title(f"{number}: {100 * used:.0f} %", fontsize=7)
    patches = [Patch(color=colour, label=name) for colour, name in zip(colours, names, strict=True)]
    figure.legend(
        handles=patches, loc="outside lower center", ncols=4, fontsize=7, frameon=False, handlelength=1
    )
    figure.suptitle(
        f"{len(grids)} arrays, {100 * chip_map.utilisation:.1f} % of the cells hold layers", fontsize=8
    )
    if path is not None:
        figure.savefig(path, dpi=200)
    return figure
