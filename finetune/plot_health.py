"""The health report of a tuned chip as a figure."""

from __future__ import annotations

from typing import Any

from finetune.health import Health

__all__ = ["health_figure"]


def health_figure(health: Health) -> Any:
    """A figure of all layers: noise, gain, offsets, stuck weights."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(11.0, 2.8), layout="constrained")
    names = [entry.layer for entry in health.layers]
    panels = (
        ("noise_codes", "noise of a conversion (codes)", "noise_expected"),
        ("gain", "answers over written levels", None),
        ("offset_codes", "offsets of conversions (codes)", None),
        ("outliers", "weights that stand out", None),
    )
    for ax, (name, label, expected) in zip(axes, panels, strict=True):
        ax.plot([getattr(entry, name) for entry in health.layers], names, "o")
        if expected:
            ax.plot([getattr(entry, expected) for entry in health.layers], names, "|", ms=12, color="black")
        if name == "gain":
            ax.axvline(1.0, color="black", lw=0.8)
        ax.set_xlabel(label)
        ax.set_xlim(left=0.0)
        ax.invert_yaxis()
        if ax is not axes[0]:
            ax.set_yticklabels([])
    return figure
