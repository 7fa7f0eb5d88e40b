"""Outputs of non-linear cells on resistive wires as a few matrix products.

Newton's method solves the circuit for every input vector. Here it is expanded around the linear
circuit of the secant conductance s g, solved once per state. With V the cell voltages of that circuit,
A[i', i, j] the voltage of cell (i, j) per volt on word line i', and h(V) = f(V) - s V what the cell law
f(V) = sinh(alpha V) / alpha adds, a cell draws the further current g h(V); of a current in cell (i, j)
the fraction w[k, i, j] arrives at bit line k, which by reciprocity is the cell's voltage per volt
on that line's ground. So far this is exact to first order in h. The part (1 - s) V of h is linear, and
its effect the derivative of the effective matrix. In the rest, p(V) = f(V) - V, a cell's voltage is
a_ij v_i, from its own word line, and a smaller part b, from all others, mostly the voltage of its bit
line: p(a v + b) = a^3 p(v) + a^2 p'(v) b, as if p were cubic in a. Output k is then

    v @ linear + p(v) @ cubic + (c(v) @ gain) * (v @ drop),     c(v) = p'(v) = cosh(alpha v) - 1,

where `gain` and `drop` are the best factors of rank one of sum_j w g a^2 A over pairs of word lines: the
voltage of a bit line has nearly the same profile along the line, whatever drives it.

What it leaves out: effects of second order in h (the further current's own drop), of second order
in b, and profiles beyond the first. They grow with alpha v, and with the drop. `probe_error` measures
what remains against Newton's method; callers fall back on that where it is too much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.checks import InputError
from rramsim.circuit.elimination import Factorisation
from rramsim.circuit.solve import output_currents
from rramsim.circuit.wiring import Lines, WiresConfig, check_conductance

__all__ = ["Expansion", "bent", "expand", "probe_error", "probe_vectors", "secant"]

Array = NDArray[np.float64]

LINES_AT_ONCE = 64  # unit drives solved together: bounds the memory of their cell voltages
POWER_STEPS = 4  # of the power iteration for the factors of rank one
STEP = 0.01  # relative step of the numerical derivative with respect to the conductance
PROBES = 10  # vectors of `probe_vectors`


def secant(alpha: float, v_full: float) -> float:
    """Slope s of the secant circuit: half-way between the law's slope at 0 and its secant at `v_full` [V].

    Any s gives the same outputs to first order; this one keeps |f(V) - s V| small at both ends.
    """
    return 1.0 + 0.5 * (float(np.sinh(alpha * v_full)) / (alpha * v_full) - 1.0)


def bent(v: Array, alpha: float) -> tuple[Array, Array]:
    """What the law adds to a linear cell, p(v) = sinh(alpha v) / alpha - v [V], and its slope c(v)."""
    return np.sinh(alpha * v) / alpha - v, np.cosh(alpha * v) - 1.0


@dataclass(frozen=True, eq=False)
class Expansion:
    """Matrices of one array's state, each of shape (n_wl, n_bl); see the module.

    Examples
    --------
    >>> import numpy as np
    >>> from rramsim.circuit.expansion import expand
    >>> from rramsim.circuit.wiring import WiresConfig
    >>> g = np.random.default_rng(0).uniform(1e-6, 4e-5, (64, 64))
    >>> expansion = expand(g, WiresConfig(r_word=2.5, r_bit=2.5, alpha=3.0), v_full=0.2)
    >>> expansion.currents(np.full((1, 64), 0.1)).shape
    (1, 64)
    """

    linear: Array  # [S]
    cubic: Array  # [S], of p(v)
    gain: Array  # [S], of c(v)
    drop: Array  # of v
    alpha: float  # [1/V]
    slope: float  # s

    def part(self, cells: tuple[slice, slice]) -> Expansion:
        """The same for some word lines, the others at 0 V, and some bit lines."""
        linear, cubic, gain, drop = (m[cells] for m in (self.linear, self.cubic, self.gain, self.drop))
        return Expansion(linear, cubic, gain, drop, self.alpha, self.slope)

    def curves(self, v: ArrayLike) -> tuple[Array, Array]:
        """p(v) [V] and c(v) of voltages [V]."""
        return bent(np.asarray(v, dtype=np.float64), self.alpha)

    def currents(self, v_in: ArrayLike) -> Array:
        """Bit-line currents [A], shape (n_batch, n_bl), of inputs [V] (n_batch, n_wl)."""
        v = np.asarray(v_in, dtype=np.float64)
        p, c = self.curves(v)
        currents: Array = v @ self.linear + p @ self.cubic + (c @ self.gain) * (v @ self.drop)
        return currents


def expand(g: ArrayLike, wires: WiresConfig, *, v_full: float) -> Expansion:
    """Matrices of an array of sinh cells; costs about ten linear solutions.

    Parameters
    ----------
    g : array_like, shape (n_wl, n_bl)
        Cell conductance at 0 V [S]; no line floats.
    wires : WiresConfig
        Line resistances, and the law's `alpha` > 0.
    v_full : float
        Largest input voltage [V]: places the secant.
    """
    if not wires.alpha:
        raise InputError("an expansion needs non-linear cells, got alpha=0; linear ones have a matrix")
    g = check_conductance(g)
    m, n = g.shape
    s = secant(wires.alpha, v_full)
    circuit = replace(wires, alpha=0.0)
    inner = 1.0 + s * g * wires.r_access  # voltage over cell and access transistor over the cell's own
    from_words = _factorise(s * g, circuit)
    from_grounds = _factorise(np.ascontiguousarray(s * g[::-1, ::-1].T), _mirrored(circuit))
    a = np.empty((m, n))  # a cell's voltage per volt on its own word line
    others = np.empty((n, m, m), dtype=np.float32)  # [k, i, i'], cell (i, k) per volt on word line i'
    for first in range(0, m, LINES_AT_ONCE):
        lines = np.arange(first, min(m, first + LINES_AT_ONCE))
        word, bit = from_words.voltages(np.eye(m)[lines])
        cell = (word - bit) / inner
        a[lines] = cell[lines - first, lines]
        cell[lines - first, lines] = 0.0
        others[:, :, lines] = cell.transpose(2, 1, 0)
    # a current pattern g a^3 along a word line (what p draws), as it arrives at each bit line
    drawn = g * a**3
    cubic = np.empty((m, n))
    for first in range(0, n, LINES_AT_ONCE):
        lines = np.arange(first, min(n, first + LINES_AT_ONCE))
        word, bit = from_grounds.voltages(np.eye(n)[n - 1 - lines])
        arrives = ((word - bit).transpose(0, 2, 1)[:, ::-1, ::-1]) / inner
        cubic[:, lines] = np.einsum("kij,ij->ik", arrives, drawn)
    share = np.divide(cubic, a, out=np.zeros_like(cubic), where=a != 0.0)  # sum_j w g a^2
    others *= share.T[:, :, None].astype(np.float32)
    gain, drop = _rank_one(others)
    # the product of sums holds pairs of a line with itself; c(v) v = 3 p(v) to fourth order
    cubic -= 3.0 * gain * drop
    up, down = (_factorise((1.0 + e) * s * g, circuit).g_eff for e in (STEP, -STEP))
    linear = np.asarray(from_words.g_eff - (1.0 - 1.0 / s) * (up - down) / (2.0 * STEP), dtype=np.float64)
    return Expansion(linear, cubic, gain, drop, wires.alpha, s)


def _factorise(g: Array, wires: WiresConfig) -> Factorisation:
    return Factorisation(g, wires, Lines(g, None, None), np.float64)


def _mirrored(wires: WiresConfig) -> WiresConfig:
    """The circuit seen from the grounds: bit lines, last cell first, become word lines."""
    return WiresConfig(
        r_word=wires.r_bit, r_bit=wires.r_word, r_driver=wires.r_sense, r_sense=wires.r_driver,
        r_access=wires.r_access, word_both=wires.bit_both, bit_both=wires.word_both,
    )  # fmt: skip


def _rank_one(matrices: NDArray[np.float32]) -> tuple[Array, Array]:
    """Factors (m, n) of the best approximations u v^T of n matrices (n, m, m), by power iteration."""
    v = matrices.sum(axis=1)
    for _ in range(POWER_STEPS):
        norm = np.linalg.norm(v, axis=1, keepdims=True)
        v = np.divide(v, norm, out=np.zeros_like(v), where=norm > 0.0)
        u = np.matmul(matrices, v[:, :, None])[:, :, 0]
        squares = np.square(u).sum(axis=1, keepdims=True)
        unit = np.divide(u, squares, out=np.zeros_like(u), where=squares > 0.0)
        v = np.matmul(unit[:, None, :], matrices)[:, 0, :]
    return np.ascontiguousarray(u.T, dtype=np.float64), np.ascontiguousarray(v.T, dtype=np.float64)


def probe_vectors(n_wl: int, v_full: float) -> Array:
    """Inputs [V] (PROBES, n_wl) that test an expansion: from few driven lines to all, half of them signed.

    Fixed by their arguments, so that what is decided on them does not depend on what is read.
    """
    rng = np.random.default_rng(n_wl)
    v = rng.uniform(0.0, 1.0, (PROBES, n_wl))
    v *= rng.uniform(0.0, 1.0, v.shape) < np.linspace(0.1, 1.0, PROBES)[:, None]
    v[1::2] *= rng.choice([-1.0, 1.0], v[1::2].shape)
    return v_full * v


def probe_error(
    expansion: Expansion, g: ArrayLike, wires: WiresConfig, v_in: Array, lines: slice = slice(None)
) -> float:
    """Largest error of an expansion's outputs over the largest output, against Newton's method."""
    want = output_currents(g, v_in, wires)[:, lines]
    largest = float(np.abs(want).max(initial=0.0))
    error = float(np.abs(expansion.currents(v_in)[:, lines] - want).max(initial=0.0))
    return error / largest if largest > 0.0 else 0.0
