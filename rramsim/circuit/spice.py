"""SPICE netlists of crossbars.

Node names: word node ``w_i_j``, bit node ``b_i_j``, source ``s_i``; sources are ``Vs_i``. Each bit
line's currents into ground flow through zero-volt sources ``Vg_j`` (bottom) and ``Vt_j`` (top), so
that ``i(vg_j)`` is what the solver calls `i_out`.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.circuit.wiring import Lines, WiresConfig, check_conductance, check_inputs

OPTIONS = ".options reltol=1e-10 abstol=1e-19 vntol=1e-13 gmin=1e-18"


class _Names:
    """Node names, with nodes that no resistance separates under one name."""

    def __init__(self, shape: tuple[int, int], wires: WiresConfig, lines: Lines) -> None:
        self.m, self.n = shape
        self.wires, self.lines = wires, lines

    def word(self, i: int, j: int) -> str:
        if self.wires.r_word:
            return f"w_{i}_{j}"
        return f"w_{i}_0" if self.wires.r_driver or self.lines.word[i] else f"s_{i}"

    def bit(self, i: int, j: int) -> str:
        if self.wires.r_bit:
            return f"b_{i}_{j}"
        return f"b_0_{j}" if self.wires.r_sense or self.lines.bit[j] else f"g_{j}"


def write_netlist(
    path: str | PathLike[str] | TextIO,
    g: ArrayLike,
    v_in: ArrayLike,
    wires: WiresConfig,
    *,
    float_word: ArrayLike | None = None,
    float_bit: ArrayLike | None = None,
    title: str = "rramsim crossbar",
) -> None:
    """Write the circuit of one array state and input vector as a SPICE netlist with an ``.op`` analysis.

    Parameters
    ----------
    path : path or text file
        Where to write.
    g : array_like, shape (n_wl, n_bl)
        Cell conductance [S]; open cells (0) are left out.
    v_in : array_like, shape (n_wl,)
        Source voltages [V].
    wires : WiresConfig
        The circuit; non-linear cells become B sources.
    """
    g = check_conductance(g)
    lines = Lines(g, float_word, float_bit)
    v = check_inputs(np.atleast_2d(np.asarray(v_in, dtype=np.float64)), g.shape[0], lines)[0]
    text = "\n".join([title, *_elements(g, v, wires, lines), OPTIONS, ".op", ".end", ""])
    if hasattr(path, "write"):
        path.write(text)
    else:
        Path(path).write_text(text, encoding="ascii")


def _elements(g: NDArray[np.float64], v: NDArray[np.float64], wires: WiresConfig, lines: Lines) -> list[str]:
    m, n = g.shape
    names = _Names((m, n), wires, lines)
    out = []
    for i in range(m):
        if not lines.word[i]:
            out.append(f"Vs_{i} s_{i} 0 {v[i]:.17g}")
            ends = {"": 0, "r": n - 1} if wires.word_both else {"": 0}
            for tag, j in ends.items():
                out += _end(f"word{tag}_{i}", f"s_{i}", names.word(i, j), wires.r_driver + wires.r_word)
        if wires.r_word:
            out += [f"Rw_{i}_{j} w_{i}_{j - 1} w_{i}_{j} {wires.r_word:.17g}" for j in range(1, n)]
    for j in range(n):
        if not lines.bit[j]:
            ends = {"g": m - 1, "t": 0} if wires.bit_both else {"g": m - 1}
            total = wires.r_bit + wires.r_sense
            if total == 0.0:
                ends = {"g": m - 1}  # two ideal grounds of one node: one carries the current
            for tag, i in ends.items():
                out.append(f"V{tag}_{j} {tag}_{j} 0 0")
                out += _end(f"bit{tag}_{j}", names.bit(i, j), f"{tag}_{j}", total)
        if wires.r_bit:
            out += [f"Rb_{i}_{j} b_{i}_{j} b_{i + 1}_{j} {wires.r_bit:.17g}" for i in range(m - 1)]
    for i in range(m):
        for j in range(n):
            if g[i, j] > 0.0:
                out += _cell(i, j, g[i, j], names.word(i, j), names.bit(i, j), wires)
    return out


def _end(name: str, a: str, b: str, resistance: float) -> list[str]:
    return [f"R{name} {a} {b} {resistance:.17g}"] if resistance else []


def _cell(i: int, j: int, g: float, word: str, bit: str, wires: WiresConfig) -> list[str]:
    inner, out = word, []
    if wires.r_access:
        inner = f"x_{i}_{j}"
        out.append(f"Ra_{i}_{j} {word} {inner} {wires.r_access:.17g}")
    if wires.alpha == 0.0:
        return [*out, f"Rc_{i}_{j} {inner} {bit} {1.0 / g:.17g}"]
    law = f"{g / wires.alpha:.17g}*sinh({wires.alpha:.17g}*v({inner},{bit}))"
    return [*out, f"Bc_{i}_{j} {inner} {bit} I={law}"]
