"""Heat maps of an array: what each cell holds, sees and carries."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rramsim.checks import InputError, check_array, nearest_name
from rramsim.circuit.solution import Solution

__all__ = ["QUANTITIES", "array_figure", "heat_map"]

# quantity: title, unit on the colour bar, factor from SI
QUANTITIES = {
    "conductance": ("Conductance", "µS", 1e6),
    "v_word": ("Word-line node voltage", "mV", 1e3),
    "v_bit": ("Bit-line node voltage", "mV", 1e3),
    "v_cell": ("Cell voltage", "mV", 1e3),
    "drop": ("Voltage lost on wires", "mV", 1e3),
    "current": ("Cell current", "µA", 1e6),
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
    image = ax.imshow(values * factor, cmap="viridis", interpolation="nearest", aspect="auto")
    ax.set(title=title, xlabel="bit line", ylabel="word line")
    ax.figure.colorbar(image, ax=ax, label=unit)
    return ax


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
