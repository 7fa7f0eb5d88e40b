"""Cells of the tables."""

from __future__ import annotations

import math


def interval_cell(mean: float, low: float, high: float) -> str:
    """A difference of accuracies in percentage points with its interval."""
    if math.isnan(low):
        return f"{100 * mean:.2f} (too few chips)"
    return f"{100 * mean:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
