"""Crossbar solvers side by side: ours, SuperLU, badcrossbar, ngspice.

``python -m benchmarks.circuit`` prints one table from one run, one thread each.  Times are the
least of a few repetitions; errors are per input vector, max |difference| / max |reference|, against
a sparse solution refined with residuals in longer precision.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine, machine_line

Array = NDArray[Any]


clock = time.perf_counter  # or time.process_time, with --cpu-time


def best_time(call: Callable[[], Any], repeat: int, budget: float = 10.0) -> tuple[float, Any]:
    """Least time [s] of up to `repeat` calls within `budget` seconds, and the last result."""
    least, spent = np.inf, 0.0
    for _ in range(repeat):
        start = clock()
        result = call()
        took = clock() - start
        least, spent = min(least, took), spent + took
        if spent > budget:
            break
    return least, result


def dissection(m: int, n: int) -> NDArray[np.int64]:
    """Nested-dissection order of the 2 m n nodes: halves of the array first, then what joins them.

    A cut between columns separates word nodes only, one between rows bit nodes only.
    """
    word = np.arange(m * n).reshape(m, n)
    bit = word + m * n

    def order(w: Array, b: Array) -> list[Array]:
        rows, columns = w.shape
        if rows * columns <= 8:
            return [w[w >= 0].ravel(), b[b >= 0].ravel()]
        if columns >= rows:
            c = columns // 2
            joint = w[:, c - 1]
            left = w[:, :c].copy()
            left[:, -1] = -1
            return [*order(left, b[:, :c]), *order(w[:, c:], b[:, c:]), joint[joint >= 0]]
        r = rows // 2
        joint = b[r, :]
        lower = b[r:].copy()
        lower[0] = -1
        return [*order(w[:r], b[:r]), *order(w[r:], lower), joint[joint >= 0]]

    return np.concatenate(order(word, bit))


def nodal_matrix(g: Array, r: float) -> tuple[Any, Array, Array]:
    """Sparse nodal matrix; nodes driven by each source and their conductance to it."""
    from scipy.sparse import coo_matrix

    m, n = g.shape
    word = np.arange(m * n).reshape(m, n)
    bit = word + m * n
    a = np.concatenate([word[:, 1:].ravel(), bit[1:].ravel(), word.ravel()])
    b = np.concatenate([word[:, :-1].ravel(), bit[:-1].ravel(), bit.ravel()])
    c = np.concatenate([np.full(m * (n - 1) + n * (m - 1), 1.0 / r), g.ravel()])
    ends = np.concatenate([word[:, 0], bit[-1]])
    rows, columns = np.concatenate([a, b, a, b, ends]), np.concatenate([a, b, b, a, ends])
    values = np.concatenate([c, c, -c, -c, np.full(m + n, 1.0 / r)])
    return coo_matrix((values, (rows, columns))).tocsc(), word[:, 0], bit[-1]


def superlu(g: Array, r: float, order: Array, n_rhs: int) -> Array:
    """First n_rhs rows of the effective matrix, by SuperLU with the given order."""
    from scipy.sparse.linalg import splu

    matrix, first, last = nodal_matrix(g, r)
    permuted = matrix[order][:, order]
    lu = splu(permuted, permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    position = np.empty_like(order)
    position[order] = np.arange(order.size)
    rows = np.empty((n_rhs, last.size))
    for k in range(
        0, n_rhs, 32
    ):  # some at a time: all right-hand sides of a large array would fill the memory
        sources = first[k : min(k + 32, n_rhs)]
        rhs = np.zeros((order.size, sources.size))
        rhs[position[sources], np.arange(sources.size)] = 1.0 / r
        rows[k : k + 32] = lu.solve(rhs)[position[last]].T / r
    return rows


def reference(g: Array, v_in: Array, r: float) -> Array:
    """Output currents from a sparse solution, refined with residuals in longer precision."""
    from scipy.sparse.linalg import splu

    m, n = g.shape
    matrix, first, last = nodal_matrix(g, r)
    lu = splu(matrix)
    rhs = np.zeros((2 * m * n, len(v_in)))
    rhs[first] = v_in.T / r
    x = lu.solve(rhs)
    long = matrix.tocoo()
    for _ in range(2):
        residual = rhs.astype(np.longdouble)
        np.subtract.at(residual, long.row, long.data[:, None].astype(np.longdouble) * x[long.col])
        x = x + lu.solve(residual.astype(np.float64))
    return (x[last] / r).T


def relative_error(got: Array, want: Array) -> float:
    return float((np.abs(got - want).max(axis=1) / np.abs(want).max(axis=1)).max())


def run_ngspice(g: Array, v_in: Array, r: float, alpha: float) -> tuple[float, Array]:
    """Wall time [s] of the whole program for one input vector, and its output currents."""
    from rramsim.circuit.spice import write_netlist
    from rramsim.circuit.wiring import WiresConfig

    with tempfile.TemporaryDirectory() as folder:
        path, raw = Path(folder) / "array.cir", Path(folder) / "result.raw"
        write_netlist(path, g, v_in, WiresConfig(r_word=r, r_bit=r, alpha=alpha))
        start = time.perf_counter()
        subprocess.run(["ngspice", "-b", "-r", str(raw), str(path)], capture_output=True, check=True)
        took = time.perf_counter() - start
        head, body = raw.read_bytes().split(b"Binary:\n", 1)
    lines = head.decode().splitlines()
    names = [line.split()[1] for line in lines[lines.index("Variables:") + 1 :]]
    values = dict(zip(names, np.frombuffer(body, dtype=np.float64), strict=False))
    return took, np.array([values[f"i(vg_{j})"] for j in range(g.shape[1])])


class Table:
    """Rows printed as they come and kept for the JSON file."""

    columns = ("size", "r_wire", "vectors", "task", "tool", "ms", "error", "ratio")

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        head = f"{'size':>5} {'ohm':>5} {'vectors':>7}  {'task':<18} {'tool':<16}"
        print(f"{head} {'ms':>10} {'error':>8} {'times':>9}")

    def add(
        self,
        size: int,
        r: float,
        vectors: int | None,
        task: str,
        tool: str,
        seconds: float,
        error: float | None,
        ours: float | None = None,
    ) -> None:
        """One measurement; `ours` is the time that `seconds` is put in relation to."""
        ratio = seconds / ours if ours else None
        row = dict(
            zip(self.columns, (size, r, vectors, task, tool, seconds * 1e3, error, ratio), strict=True)
        )
        self.rows.append(row)
        count = "-" if vectors is None else vectors
        shown = "" if error is None else f"{error:.1e}"
        times = "" if ratio is None else f"{ratio:.1f}x"
        head = f"{size:>5} {r:>5g} {count:>7}  {task:<18} {tool:<16}"
        print(f"{head} {seconds * 1e3:>10.3f} {shown:>8} {times:>9}", flush=True)


def linear(table: Table, size: int, r: float, args: argparse.Namespace) -> None:
    """Effective matrix, then 1, 100 and 1000 vectors, by every tool."""
    from rramsim.circuit import solve
    from rramsim.circuit.wiring import WiresConfig

    rng = np.random.default_rng(size)
    g = rng.uniform(1e-6, 1e-4, (size, size))
    v_all = rng.uniform(0.0, 0.2, (max(args.vectors), size))
    wires = WiresConfig(r_word=r, r_bit=r)
    check = v_all[:3]
    want = reference(g, check, r)

    def g_eff(dtype: Any = np.float64) -> Array:
        return solve.effective_conductance(g, r_word=r, r_bit=r, dtype=dtype)

    ours, matrix = best_time(g_eff, args.repeat)
    table.add(size, r, None, "g_eff", "rramsim", ours, relative_error(check @ matrix, want))
    single, matrix = best_time(lambda: g_eff(np.float32), args.repeat)
    error = relative_error(check @ matrix.astype(np.float64), want)
    table.add(size, r, None, "g_eff", "rramsim float32", single, error, ours)
    lu_time = None
    if size <= args.max_superlu:
        order = dissection(size, size)
        lu_time, matrix = best_time(lambda: superlu(g, r, order, size), min(args.repeat, 3))
        table.add(size, r, None, "g_eff", "SuperLU", lu_time, relative_error(check @ matrix, want), ours)
    for k in args.vectors:
        v = v_all[:k]
        first = min(k, len(check))
        own, out = best_time(
            lambda v=v: solve.output_currents(g, v, wires) if len(v) < 16 else v @ g_eff(), args.repeat
        )
        table.add(size, r, k, "outputs", "rramsim", own, relative_error(out[:first], want[:first]))
        if lu_time is not None and k < size:
            took, _ = best_time(lambda k=k: superlu(g, r, order, k), min(args.repeat, 3))
            table.add(size, r, k, "outputs", f"SuperLU, {k} rhs", took, None, own)
        elif lu_time is not None:
            table.add(size, r, k, "outputs", f"SuperLU, {size} rhs", lu_time, None, own)
        if size <= args.max_badcrossbar:
            import badcrossbar

            took, theirs = best_time(
                lambda v=v: badcrossbar.compute(v.T, 1.0 / g, r, node_voltages=False, all_currents=False),
                min(args.repeat, 2),
            )
            error = relative_error(np.atleast_2d(theirs.currents.output)[:first], want[:first])
            table.add(size, r, k, "outputs", "badcrossbar", took, error, own)
        if k == 1 and size <= args.max_ngspice and shutil.which("ngspice"):
            took, out = run_ngspice(g, v[0], r, 0.0)
            table.add(size, r, k, "outputs", "ngspice", took, relative_error(out[None], want[:1]), own)


def voltages(table: Table, size: int, r: float, args: argparse.Namespace) -> None:
    """All node voltages for 100 vectors, and a solution after some cells have changed."""
    from rramsim.circuit import solve
    from rramsim.circuit.wiring import WiresConfig

    rng = np.random.default_rng(size)
    g = rng.uniform(1e-6, 1e-4, (size, size))
    v = rng.uniform(0.0, 0.2, (100, size))
    wires = WiresConfig(r_word=r, r_bit=r)
    base, _ = best_time(lambda: solve.effective_conductance(g, r_word=r, r_bit=r), args.repeat)
    took, factors = best_time(lambda: solve.prepare(g, wires), args.repeat)
    table.add(size, r, None, "factorise", "rramsim", took, None, base)
    took, _ = best_time(lambda: factors.voltages(v), args.repeat)
    table.add(size, r, 100, "node voltages", "rramsim", took, None, base)
    took, _ = best_time(lambda: solve.prepare(g, wires).voltages(v), args.repeat)
    table.add(size, r, 100, "factor+voltages", "rramsim", took, None, base)
    for name, cells in (("one cell", np.s_[size // 2, size // 3]), ("one column", np.s_[:, size // 3])):

        def change(cells: Any = cells) -> None:
            g[cells] = rng.uniform(1e-6, 1e-4, np.shape(g[cells]))
            factors.update(g)

        took, _ = best_time(change, args.repeat)
        error = relative_error(
            v[:3] @ factors.g_eff, v[:3] @ solve.effective_conductance(g, r_word=r, r_bit=r)
        )
        table.add(size, r, None, "update, " + name, "rramsim", took, error, base)


def nonlinear(table: Table, size: int, r: float, args: argparse.Namespace) -> None:
    """sinh cells, alpha 3 /V, 8 vectors of up to 0.2 V; times per vector."""
    from rramsim.circuit import solve
    from rramsim.circuit.newton import solve_nodes
    from rramsim.circuit.wiring import Lines, WiresConfig

    rng = np.random.default_rng(size)
    g = np.array([float(f"{x:.9g}") for x in rng.uniform(1e-6, 1e-4, size * size)]).reshape(size, size)
    v = np.round(rng.uniform(0.0, 0.2, (8, size)), 6)
    wires = WiresConfig(r_word=r, r_bit=r, alpha=3.0)
    took, out = best_time(lambda: solve.output_currents(g, v, wires), args.repeat)
    want = (
        solve_nodes(g, v[:1], wires, Lines(g, None, None), None).i_out if size <= args.max_superlu else None
    )
    error = None if want is None else relative_error(out[:1], want)
    table.add(size, r, 8, "sinh, per vector", "rramsim", took / 8, error)
    if size <= args.max_ngspice and shutil.which("ngspice"):
        spice, theirs = run_ngspice(g, v[0], r, 3.0)
        table.add(
            size, r, 1, "sinh, per vector", "ngspice", spice, relative_error(theirs[None], out[:1]), took / 8
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.circuit", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--r-wire", type=float, nargs="+", default=[0.5, 2.5, 10.0], help="ohm per segment")
    parser.add_argument("--vectors", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--max-superlu", type=int, default=512, help="largest size for SuperLU")
    parser.add_argument("--max-badcrossbar", type=int, default=128)
    parser.add_argument("--max-ngspice", type=int, default=32, help="its time grows steeply: 20 s at 64")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time, for busy machines (not ngspice)"
    )
    args = parser.parse_args()
    if args.cpu_time:
        global clock
        clock = time.process_time
    from threadpoolctl import threadpool_limits

    import rramsim.circuit.solve  # noqa: F401  (imports before the clock starts)

    logging.disable(logging.INFO)  # badcrossbar reports its progress

    print(f"{machine_line()}; one thread")
    table = Table()
    with threadpool_limits(1):
        for size in args.sizes:
            middle = sorted(args.r_wire)[len(args.r_wire) // 2]
            for r in args.r_wire if size <= 256 else [middle]:
                linear(table, size, r, args)
            if size <= 256:
                voltages(table, size, middle, args)
                nonlinear(table, size, middle, args)
    if args.json:
        args.json.write_text(
            json.dumps({"machine": machine(), "rows": table.rows}, indent=1), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
