"""Heat maps of an array: what each cell holds, sees and carries."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rramsim.checks import InputError, check_array, nearest_name
from rramsim.circuit.solution import Solution

__all__ = ["QUANTITIES", "array_figure", "heat_map", "sneak_paths"]

# quantity: title, unit on the colour bar, factor from SI
QUANTITIES = {
    "conductance": ("Conductance", "µS", 1e6),
    "v_word": ("Word-line node voltage", "mV", 1e3),
    "v_bit": ("Bit-line node voltage", "mV", 1e3),
    "v_cell": ("Cell voltage", "mV", 1e3),
    "drop": ("Voltage lost on wires", "mV", 1e3),
    "current": ("Cell current", "µA", 1e6),
    "error": ("Error of the cell current", "µA", 1e6),
}


def heat_map(values: ArrayLike, quantity: str, ax: Any = None) -> Any:
    """Draw one number per cell.

    Parameters
    ----------
    values : ndarray, shape (n_wl, n_bl)
        In SI units.
    quantity : str
        One of `QUANTITIES`: names title, unit and scale.
    ax : matplotlib Axes, optional
        Where to draw; a new figure without it.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> import numpy as np
    >>> axes = heat_map(np.full((4, 3), 2e-5), "conductance")
    >>> axes.get_title()
    'Conductance'
    """
    if quantity not in QUANTITIES:
        raise InputError(f"quantity: unknown {quantity!r}; {nearest_name(quantity, QUANTITIES)}")
    title, unit, factor = QUANTITIES[quantity]
    values = check_array(values, "values", shape=(None, None))
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(3.5, 3.0), layout="constrained").add_subplot()
    shown = values * factor
    style: dict[str, Any] = {"cmap": "viridis"}
    if shown.min() < 0.0:  # signed: white is zero
        style = {"cmap": "RdBu_r", "vmax": np.abs(shown).max(), "vmin": -np.abs(shown).max()}
    image = ax.imshow(shown, interpolation="nearest", aspect="auto", **style)
    ax.set_title(title, fontsize=8.5)
    ax.set_xlabel("bit line", fontsize=8)
    ax.set_ylabel("word line", fontsize=8)
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label(unit, fontsize=8)
    for axis in (ax, bar.ax):
        axis.tick_params(labelsize=7.5)
    return ax


def sneak_paths(solution: Solution, word_line: int, bit_line: int, vector: int = 0, ax: Any = None) -> Any:
    """Cell currents while one cell is selected: what flows elsewhere is a sneak path.

    Parameters
    ----------
    solution : Solution
        Of `rramsim.solve_crossbar`, one word line driven and the others grounded or floating.
    word_line, bit_line : int
        The selected cell, outlined.
    vector : int
        Which input vector.
    ax : matplotlib Axes, optional
        Where to draw; a new figure without it.

    Returns
    -------
    matplotlib Axes
        Signed currents in uA; the title says which share of the bit line's current is the selected cell's.

    Raises
    ------
    InputError
        If there is no such cell.

    Examples
    --------
    >>> import numpy as np
    >>> from rramsim import solve_crossbar
    >>> v, floating = np.array([[0.2, 0.0, 0.0]]), np.array([False, True, True])
    >>> solution = solve_crossbar(np.full((3, 4), 4e-5), v, r_word=2.5, r_bit=2.5, float_word=floating)
    >>> sneak_paths(solution, 0, 1).get_title().splitlines()[0]
    'Cell currents, cell (0, 1) selected'
    """
    currents = solution.i_cell[vector]
    if not (0 <= word_line < currents.shape[0] and 0 <= bit_line < currents.shape[1]):
        raise InputError(f"no cell ({word_line}, {bit_line}) in an array of {currents.shape}")
    ax = heat_map(currents, "current", ax)
    ax.add_patch(_outline(bit_line, word_line))
    total, own = float(solution.i_out[vector, bit_line]), float(currents[word_line, bit_line])
    share = "" if total == 0.0 else f"\n{100 * own / total:.1f} % of its bit line's current is its own"
    ax.set_title(f"Cell currents, cell ({word_line}, {bit_line}) selected{share}", fontsize=8.5)
    return ax


def _outline(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.5)


def array_figure(g: ArrayLike, v_in: ArrayLike, solution: Solution, vector: int = 0) -> Any:
    """Conductances, voltage lost on wires, cell currents and the bit lines' loss, for one input vector.

    Parameters
    ----------
    g : ndarray, shape (n_wl, n_bl)
        Conductances [S].
    v_in : ndarray, shape (batch, n_wl)
        Inputs [V] that belong to `solution`.
    solution : Solution
        Of `rramsim.solve_crossbar`.
    vector : int
        Which input vector.

    Returns
    -------
    matplotlib Figure
    """
    from matplotlib.figure import Figure

    g = check_array(g, "g", shape=(None, None), minimum=0.0, unit="S")
    v = check_array(v_in, "v_in", shape=(None, g.shape[0]), unit="V")[vector]
    v_cell = solution.v_word[vector] - solution.v_bit[vector]
    figure = Figure(figsize=(7.0, 5.6), layout="constrained")
    axes = figure.subplots(2, 2)
    heat_map(g, "conductance", axes[0, 0])
    heat_map(np.broadcast_to(v[:, None], g.shape) - v_cell, "drop", axes[0, 1])
    heat_map(solution.i_cell[vector], "current", axes[1, 0])
    ideal = v @ g
    axes[1, 1].plot(ideal * 1e6, label="without wires", color="#777777")
    axes[1, 1].plot(solution.i_out[vector] * 1e6, label="with wires", color="#0072B2")
    axes[1, 1].set(title="Output current", xlabel="bit line", ylabel="µA")
    axes[1, 1].legend(frameon=False)
    return figure
