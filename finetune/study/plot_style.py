"""How figures look: one colour per strategy everywhere, sizes that can be read in one column, PDF fonts."""

from __future__ import annotations

import base64
import colorsys
import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["COLUMN", "MARKERS", "STYLE", "axes", "colors", "save", "styled", "svg_text", "wrapped"]

COLUMN = 3.5  # inches, the width of a journal's column
STYLE: Any = {
    "font.size": 8.0,
    "axes.labelsize": 8.0,
    "axes.titlesize": 8.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.0,
    "pdf.fonttype": 42,  # TrueType, which journals ask for: text stays text
    "ps.fonttype": 42,
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Okabe and Ito's colours, which colour-blind readers can distinguish
KNOWN = {
    "mapped": "#777777",
    "batch_norm": "#E69F00",
    "lsq.affine": "#0072B2",
    "default": "#009E73",
    "lsq+kd+zo": "#D55E00",
}
SPARE = ("#CC79A7", "#56B4E9", "#000000", "#8C6D1F", "#7B3294", "#4D9221")
T = TypeVar("T", bound=Callable[..., Any])


def colors(methods: Sequence[str]) -> dict[str, str]:
    """A colour for each method: well-known ones always have theirs, and none is given twice.

    Parameters
    ----------
    methods : sequence of str
        `mapped` and strategy texts, in the archive's order.

    Returns
    -------
    dict
        Method to `#RRGGBB`.

    Examples
    --------
    >>> colors(["mapped", "my_strategy"])
    {'mapped': '#777777', 'my_strategy': '#CC79A7'}
    >>> len(set(colors([f"s{n}" for n in range(40)]).values()))
    40
    """
    others = [method for method in dict.fromkeys(methods) if method not in KNOWN]
    spare = list(SPARE)
    n_more = len(others) - len(spare)
    for k in range(max(n_more, 0)):  # around the circle of hues, dark and light by turns
        red, green, blue = colorsys.hls_to_rgb(k / n_more, 0.62 if k % 2 else 0.38, 0.7)
        spare.append(f"#{round(255 * red):02X}{round(255 * green):02X}{round(255 * blue):02X}")
    found = {method: KNOWN.get(method, "") for method in dict.fromkeys(methods)}
    return found | dict(zip(others, spare, strict=False))


def styled(draw: T) -> T:
    """Decorator: the function draws with `STYLE`."""

    @functools.wraps(draw)
    def inner(*args: Any, **kwargs: Any) -> Any:
        from matplotlib import rc_context

        with rc_context(STYLE):
            return draw(*args, **kwargs)

    return inner  # type: ignore[return-value]


def axes(ax: Any = None, height: float = 2.6, width: float = COLUMN) -> Any:
    """The given matplotlib Axes, or those of a new figure of one column's width (inches)."""
    return figure(width, height).add_subplot() if ax is None else ax


def figure(width: float, height: float) -> Any:
    """A figure that saves with `STYLE` whoever calls `savefig`."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    class PaperFigure(Figure):
        def savefig(self, *args: Any, **kwargs: Any) -> None:
            with rc_context(STYLE):
                super().savefig(*args, **{"dpi": 200} | kwargs)

    return PaperFigure(figsize=(width, height), layout="constrained")


def save(drawn: Any, path: str | Path) -> Path:
    """Save a figure, or the figure of some Axes, with type-42 fonts; the ending says how.

    Parameters
    ----------
    drawn : matplotlib Figure or Axes
        What any function of `rramsim.plot` returns.
    path : path
        Such as `figure.pdf`, `figure.svg` or `figure.png`.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> save(axes(), folder / "empty.pdf").stat().st_size > 0
    True
    """
    from matplotlib import rc_context

    path = Path(path)
    with rc_context(STYLE):
        getattr(drawn, "figure", drawn).savefig(path, dpi=200)
    return path


def svg_text(drawn: Any) -> str:
    """A figure as SVG in base64, for pages; the same figure gives the same text."""
    from matplotlib import rc_context

    stream = io.BytesIO()
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": "rramsim"}):
        drawn.savefig(stream, format="svg", metadata={"Date": None})
    return base64.b64encode(stream.getvalue()).decode("ascii")


def wrapped(text: str, width: int = 18) -> str:
    """Strategy texts broken at their plus signs, so that labels stay apart."""
    lines: list[str] = []
    for part in text.split(" + "):
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += f" + {part}"
        else:
            lines.append(part if not lines else f"+ {part}")
    return "\n".join(lines)
