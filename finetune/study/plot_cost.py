"""Stacked bars of energy by part: of the layers of a network, or of the stages of an archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.study.bill import NetworkBill, StageBill
from finetune.study.plot_style import axes as axes_of, save, styled
from rramsim.chip.bill import PARTS

__all__ = ["energy_by_layer", "energy_by_stage", "energy_figure"]

COLORS = dict(zip(PARTS, ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#777777"), strict=True))
PREFIXES = {1e-15: "fJ", 1e-12: "pJ", 1e-9: "nJ", 1e-6: "µJ", 1e-3: "mJ", 1.0: "J"}


@styled
def energy_by_layer(bill: NetworkBill, ax: Any = None) -> Any:
    """Energy of one image, a bar for each layer, stacked by part.

    Parameters
    ----------
    bill : NetworkBill
    ax : matplotlib Axes, optional

    Returns
    -------
    Axes
    """
    return _bars([row["layer"] for row in bill.rows], bill.rows, ax)


@styled
def energy_by_stage(bills: Sequence[StageBill], ax: Any = None) -> Any:
    """Energy of one image, a bar for each stage of an archive, stacked by part; returns the Axes."""
    return _bars([bill.stage for bill in bills], [bill.image_parts for bill in bills], ax)


def energy_figure(bill: NetworkBill, path: str | Path) -> Any:
    """`energy_by_layer` drawn into a file."""
    axes = energy_by_layer(bill)
    save(axes.figure, path)
    return axes


def _bars(names: Sequence[str], rows: Sequence[Mapping[str, float]], ax: Any) -> Any:
    axes = axes_of(ax, height=3.0)
    largest = max((sum(row[part] for part in PARTS if row[part] == row[part]) for row in rows), default=0.0)
    scale = max((size for size in PREFIXES if size <= largest), default=1e-15)
    below = [0.0] * len(rows)
    for part in PARTS:
        heights = [row[part] / scale if row[part] == row[part] else 0.0 for row in rows]
        label = part if all(row[part] == row[part] for row in rows) else f"{part} (partly unknown)"
        axes.bar(range(len(rows)), heights, bottom=below, color=COLORS[part], label=label, width=0.7)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    many = len(rows) > 3
    axes.set_xticks(range(len(rows)), names, rotation=60 if many else 0, ha="right" if many else "center")
    axes.set_ylabel(f"energy per image ({PREFIXES[scale]})")
    axes.legend()
    return axes
