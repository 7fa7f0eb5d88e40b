"""Non-linear cells, and few input vectors of linear ones: Newton's method.

Driven lines are solved on the cell currents (see `rramsim.kernels.nodal_line`); arrays with
floating lines, and drops so strong that conjugate gradients would take long, on the node voltages
with a sparse factorisation per step.  Both are safeguarded by the same convex function, the
content of the circuit (W. Millar, 1951), whose minimum is the solution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import ConvergenceError, InputError
from rramsim.circuit.solution import Solution
from rramsim.circuit.wiring import Lines, WiresConfig, check_drive
from rramsim.kernels import nodal_line
from rramsim.parallel import over_threads

Law = Callable[[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]

TOLERANCE = 1e-11  # of the mismatch between wires and cells, weighted, over the cell voltages
TOLERANCE_LINEAR = 1e-13  # the same where one step of CG gives the answer
CANCELLATION = 10.0  # currents of the cells over the largest output up to which TOLERANCE is enough
STEP_TOLERANCE = 1e-10  # of the change of node voltages; it falls quadratically
VECTORS = 8  # solved by a thread at a time
MAX_NEWTON = 60
MAX_CG = 400  # per Newton step; beyond this a sparse factorisation is the faster way


def drop_ratio(g: NDArray[np.float64], wires: WiresConfig) -> float:
    """Upper bound of the wires' resistance times the cells' conductance: how hard CG has to work."""
    m, n = g.shape
    word = wires.r_driver * n + wires.r_word * n * (n + 1) / 2
    bit = wires.r_sense * m + wires.r_bit * m * (m + 1) / 2
    return float(g.max() * (word + bit))


def tolerance(g: NDArray[np.float64], wires: WiresConfig, linear: bool) -> float:
    """Allowed mismatch: errors of outputs exceed it by about the root of the drop ratio."""
    if linear:
        return TOLERANCE_LINEAR
    return max(TOLERANCE_LINEAR, TOLERANCE * min(1.0, 10.0 / max(drop_ratio(g, wires), 1e-300) ** 0.5))


def sinh_law(alpha: float) -> Law:
    """I = g sinh(alpha V) / alpha and its derivative."""

    def law(
        v: NDArray[np.float64], g: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if alpha == 0.0:
            return g * v, np.broadcast_to(g, v.shape)
        s = np.sinh(alpha * v)
        return g * s / alpha, g * np.sqrt(1.0 + s * s)

    return law


def _solve_by_law(
    g: NDArray[np.float64],
    v_in: NDArray[np.float64],
    wires: WiresConfig,
    law: Law,
    max_cg: int,
    limit: float,
    v_cell: NDArray[np.float64],
    i_cell: NDArray[np.float64],
    report: NDArray[np.float64],
) -> None:
    """Newton's method with a law given in Python, vector by vector; fills the last three."""
    work, rows = np.empty((8, *g.shape)), np.empty((3, g.shape[1]))
    for b in range(len(v_in)):
        _newton_lines(g, v_in[b], wires, law, v_cell[b], i_cell[b], report[b], work, rows, max_cg, limit)
    # outputs whose cells' currents cancel keep their relative error by a smaller mismatch
    total, out = np.abs(i_cell).sum(axis=1).max(axis=1), np.abs(i_cell.sum(axis=1)).max(axis=1)
    finer = limit / np.maximum(total / np.maximum(out, 1e-300) / CANCELLATION, 1.0)
    for b in map(int, np.flatnonzero((finer < limit) & (report[:, 1] <= limit))):
        fine = max(TOLERANCE_LINEAR, float(finer[b]))
        report[b] = 0.0
        _newton_lines(g, v_in[b], wires, law, v_cell[b], i_cell[b], report[b], work, rows, max_cg, fine)


def line_currents(
    g: NDArray[np.float64],
    v_in: NDArray[np.float64],
    wires: WiresConfig,
    law: Law | None,
    *,
    max_cg: int = MAX_CG,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Cell voltages and currents (n_batch, n_wl, n_bl) of an array without floating lines, by vectors.

    Also a report (n_batch, 3) of Newton steps, last mismatch and iterations of CG, and which
    vectors have converged. A thread owns whole vectors: their number changes no bit.
    """
    shape = (len(v_in), *g.shape)
    v_cell, i_cell = np.empty(shape), np.empty(shape)
    report = np.zeros((len(v_in), 3))
    limit = tolerance(g, wires, wires.alpha == 0.0 and law is None)
    if law is not None:
        _solve_by_law(g, v_in, wires, law, max_cg, limit, v_cell, i_cell, report)
        return v_cell, i_cell, report, report[:, 1] <= limit

    def solve(first: int) -> None:
        nodal_line.solve_sinh(
            g, v_in, first, min(first + VECTORS, len(v_in)), wires.alpha, wires.drops(), limit, CANCELLATION,
            TOLERANCE_LINEAR, MAX_NEWTON, max_cg, v_cell, i_cell, report,
        )  # fmt: skip

    over_threads(solve, range(0, len(v_in), VECTORS), threads)
    return v_cell, i_cell, report, report[:, 1] <= limit


def solve_lines(
    g: NDArray[np.float64],
    v_in: NDArray[np.float64],
    wires: WiresConfig,
    law: Law | None,
    *,
    max_cg: int = MAX_CG,
) -> tuple[Solution, NDArray[np.bool_]]:
    """Solution of an array without floating lines, and which vectors have converged."""
    _, i_cell, report, done = line_currents(g, v_in, wires, law, max_cg=max_cg)
    v_word, v_bit = np.empty_like(i_cell), np.empty_like(i_cell)
    nodal_line.line_voltages(v_in, i_cell, wires.drops(access=False), v_word, v_bit)
    floating = np.zeros(g.shape[0], dtype=bool), np.zeros(g.shape[1], dtype=bool)
    solution = Solution.from_cells(
        v_in, v_word, v_bit, i_cell, wires, *floating,
        iterations=int(report[:, 0].max(initial=0)), residual=float(report[:, 1].max(initial=0.0)),
    )  # fmt: skip
    return solution, done


def _newton_lines(
    g: NDArray[np.float64],
    v_in: NDArray[np.float64],
    wires: WiresConfig,
    law: Law,
    v: NDArray[np.float64],
    drawn: NDArray[np.float64],
    report: NDArray[np.float64],
    work: NDArray[np.float64],
    rows: NDArray[np.float64],
    max_cg: int,
    limit: float,
) -> None:
    """One input vector with a law given in Python; the twin of the kernel `solve_sinh`."""
    v[:], drawn[:] = v_in[:, None], 0.0
    current, slope = _call_law(law, v, g)
    forcing = 0.03
    report[:2] = MAX_NEWTON, np.inf
    for step in range(MAX_NEWTON):
        mismatch, size, iterations = nodal_line.newton_step(
            v, drawn, current, slope, wires.drops(), forcing, 0.3 * limit, max_cg, work, rows
        )
        report[2] += iterations
        relative = report[1] = mismatch / size if size > 0.0 else 0.0
        change, x = work[0], work[1]
        before = np.sum((current - drawn) * change)
        t = 1.0
        for _ in range(60):
            trial = v + t * change
            current, slope = _call_law(law, trial, g)
            after = np.sum((current - drawn - t * x) * change)
            if relative < 1e-6 or after <= 0.5 * abs(before):
                break
            t *= 0.5
        v[:] = trial
        drawn += t * x
        if relative <= limit:
            report[0] = step + 1
            return
        forcing = min(0.03, max(1e-6, relative * relative))


def _call_law(law: Law, v: NDArray[np.float64], g: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    current, slope = (np.ascontiguousarray(a, dtype=np.float64) for a in law(v, g))
    for name, array in (("current", current), ("slope", slope)):
        if array.shape != v.shape:
            raise InputError(f"the cell law's {name} must have the shape {v.shape} of v, got {array.shape}")
        if not np.isfinite(array).all():
            raise InputError(f"the cell law's {name} must be finite, got {array[~np.isfinite(array)][0]}")
    if (slope < 0.0).any():
        raise InputError(f"the cell law must be monotone: its slope must be >= 0 S, got {slope.min():g}")
    return current, slope


def _through_access(law: Law, r_access: float) -> Law:
    """The law of a cell in series with its access transistor, in terms of their common voltage."""
    if r_access == 0.0:
        return law

    def series(
        v: NDArray[np.float64], g: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        low, high = np.minimum(v, 0.0), np.maximum(v, 0.0)  # bracket of the cell's own voltage
        cell = v / (1.0 + r_access * _call_law(law, np.zeros_like(v), g)[1])
        for _ in range(200):
            current, slope = _call_law(law, cell, g)
            excess = cell + r_access * current - v
            high, low = np.where(excess > 0.0, cell, high), np.where(excess < 0.0, cell, low)
            new = cell - excess / (1.0 + r_access * slope)
            new = np.where((new < low) | (new > high), 0.5 * (low + high), new)
            if (np.abs(new - cell) <= 1e-15 * np.abs(v)).all():
                break
            cell = new
        current, slope = _call_law(law, cell, g)
        return current, slope / (1.0 + r_access * slope)

    return series


class _Nodes:
    """Numbered nodes of the wires: `n` unknown ones, then the sources, then the grounds."""

    def __init__(self, shape: tuple[int, int], wires: WiresConfig, lines: Lines) -> None:
        m, n = shape
        self.n, self.n_total = 0, 0
        self._edges: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
        word = self._side(m, n, 0, wires.r_word, wires.r_driver, lines.word, wires.word_both)
        bit = self._side(n, m, m, wires.r_bit, wires.r_sense, lines.bit, wires.bit_both)
        self.n_total = self.n + m + n
        self.word = self._number(word)
        self.bit = self._number(bit)[:, ::-1].T  # a bit line begins at its ground, below row m - 1
        none = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
        a, b, self.c = (np.concatenate(parts) for parts in zip(none, *self._edges, strict=True))
        self.a, self.b = self._number(a), self._number(b)

    def _number(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(nodes < 0, self.n - 1 - nodes, nodes)

    def _side(
        self,
        n_lines: int,
        n: int,
        first: int,
        r: float,
        r_end: float,
        floating: NDArray[np.bool_],
        both: bool,
    ) -> NDArray[np.int64]:
        """Nodes (n_lines, n) of lines fed at index 0; -1 - (first + line) is a line's source or ground."""
        fixed = -1 - (first + np.arange(n_lines))
        driven = ~floating
        if r > 0.0:
            nodes = self.n + np.arange(n_lines * n).reshape(n_lines, n)
            self.n += n_lines * n
            self._connect(nodes[:, :-1].ravel(), nodes[:, 1:].ravel(), 1.0 / r)
            for end in [nodes[:, 0], nodes[:, -1]] if both else [nodes[:, 0]]:
                self._connect(end[driven], fixed[driven], 1.0 / (r + r_end))
            return nodes
        free = floating | (r_end > 0.0)
        own = np.where(free, self.n + np.cumsum(free) - 1, fixed)
        self.n += int(free.sum())
        if r_end > 0.0:
            self._connect(own[driven], fixed[driven], (2.0 if both else 1.0) / r_end)
        return np.repeat(own[:, None], n, axis=1)

    def _connect(self, a: NDArray[np.int64], b: NDArray[np.int64], conductance: float) -> None:
        self._edges.append((a, b, np.full(a.size, conductance)))


def solve_nodes(
    g: NDArray[np.float64], v_in: NDArray[np.float64], wires: WiresConfig, lines: Lines, law: Law | None
) -> Solution:
    """Newton's method on node voltages, one sparse factorisation per step; any wiring."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    nodes = _Nodes(g.shape, wires, lines)
    cell_law = _through_access(law or sinh_law(wires.alpha), wires.r_access)
    word, bit = nodes.word.ravel(), nodes.bit.ravel()
    m, n = g.shape
    shape = (len(v_in), m, n)
    v_word, v_bit, i_cell = np.empty(shape), np.empty(shape), np.empty(shape)
    steps, worst = 0, 0.0
    for b in range(len(v_in)):
        v = np.zeros(nodes.n_total)
        v[nodes.n : nodes.n + m] = v_in[b]

        def balance(v: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], float]:
            """Current leaving each node, cell currents and slopes, size of the currents."""
            current, slope = cell_law((v[word] - v[bit]).reshape(m, n), g)
            wire = nodes.c * (v[nodes.a] - v[nodes.b])
            leaving = np.zeros(nodes.n_total)
            np.add.at(leaving, nodes.a, wire)
            np.add.at(leaving, nodes.b, -wire)
            np.add.at(leaving, word, current.ravel())
            np.add.at(leaving, bit, -current.ravel())
            return leaving[: nodes.n], current, slope, float(np.abs(leaving[nodes.n :]).max(initial=0.0))

        excess, current, slope, size = balance(v)
        converged = nodes.n == 0
        relative = 0.0
        for step in range(MAX_NEWTON if nodes.n else 0):
            c = np.concatenate([nodes.c, slope.ravel()])
            a, z = np.concatenate([nodes.a, word]), np.concatenate([nodes.b, bit])
            matrix = coo_matrix(
                (
                    np.concatenate([c, c, -c, -c]),
                    (np.concatenate([a, z, a, z]), np.concatenate([a, z, z, a])),
                ),
                shape=(nodes.n_total, nodes.n_total),
            ).tocsc()[: nodes.n, : nodes.n]
            change = -splu(matrix).solve(excess)
            before = float(excess @ change)
            scale = float(np.abs(v).max()) + float(np.abs(change).max())
            relative = float(np.abs(change).max()) / scale if scale > 0.0 else 0.0
            t = 1.0
            for _ in range(60):
                trial = v.copy()
                trial[: nodes.n] += t * change
                excess, current, slope, size = balance(trial)
                if relative < 1e-9 or float(excess @ change) <= 0.5 * abs(before):
                    break
                t *= 0.5
            v = trial
            steps = max(steps, step + 1)
            if relative <= STEP_TOLERANCE:
                converged = True
                break
        worst = max(worst, float(np.abs(excess).max(initial=0.0)) / size if size > 0.0 else 0.0)
        if not converged:
            raise ConvergenceError(
                f"Newton's method did not converge for input vector {b}: after {steps} iterations the "
                f"node voltages still change by {relative:.1e} of the largest one (tolerance "
                f"{STEP_TOLERANCE:.1e}); check that the cell law is monotone and smooth",
                iterations=steps,
                residual=relative,
                tolerance=STEP_TOLERANCE,
            )
        v_word[b], v_bit[b], i_cell[b] = v[word].reshape(m, n), v[bit].reshape(m, n), current
    return Solution.from_cells(
        v_in, v_word, v_bit, i_cell, wires, lines.word, lines.bit, iterations=steps, residual=worst
    )


def solve_nonlinear(
    g: NDArray[np.float64], v_in: NDArray[np.float64], wires: WiresConfig, lines: Lines, law: Law | None
) -> Solution:
    """Solution for non-linear cells, by currents where every line is driven, else by node voltages."""
    if law is None:
        check_drive(v_in, wires.alpha)
    if lines.any:
        return solve_nodes(g, v_in, wires, lines, law)
    solution, done = solve_lines(g, v_in, wires, law)
    if done.all():
        return solution
    left = np.flatnonzero(~done)
    rest = solve_nodes(g, v_in[left], wires, lines, law)
    arrays = {}
    for name in ("i_out", "i_in", "v_word", "v_bit", "i_cell"):
        whole = getattr(solution, name).copy()
        whole[left] = getattr(rest, name)
        arrays[name] = whole
    return Solution(
        v_in=v_in,
        wires=wires,
        iterations=max(solution.iterations, rest.iterations),
        residual=rest.residual,
        **arrays,
    )
