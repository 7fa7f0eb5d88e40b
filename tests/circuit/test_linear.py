"""Linear arrays against the plain nodal solution with 50 digits, and against the laws."""

import dataclasses
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from rramsim.checks import InputError
from rramsim.circuit.elimination import Factorisation
from rramsim.circuit.estimates import attenuation
from rramsim.circuit.solve import (
    cell_voltages,
    effective_conductance,
    effective_conductances,
    output_currents,
    prepare,
    solve_crossbar,
)
from rramsim.circuit.wiring import WiresConfig

from .naive import exact

RTOL = 1e-10  # per input vector: max |difference| / max |reference|
RTOL_GEFF = 1e-12  # sums of positive terms: every entry by itself


def error(got, want):
    """Largest difference over the largest reference value, per input vector."""
    got, want = np.asarray(got), np.asarray(want)
    axes = tuple(range(1, want.ndim))
    scale = np.abs(want).max(axis=axes)
    scale = np.where(scale > 0.0, scale, 1.0)
    return float((np.abs(got - want).max(axis=axes) / scale).max(initial=0.0))


def random_array(rng, shape, open_share=0.1):
    """Conductances log-uniform over the whole range that must hold, some cells open."""
    g = 10.0 ** rng.uniform(-11, -2, shape)
    g[rng.random(shape) < open_share] = 0.0
    return g


@st.composite
def circuits(draw, floating=True):
    m, n = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    wire = st.one_of(st.just(0.0), st.floats(0.01, 100.0))
    circuit = {
        "r_word": draw(wire),
        "r_bit": draw(wire),
        "r_driver": draw(st.one_of(st.just(0.0), st.floats(0.01, 1e4))),
        "r_sense": draw(st.one_of(st.just(0.0), st.floats(0.01, 1e4))),
        "r_access": draw(st.one_of(st.just(0.0), st.floats(1.0, 1e4))),
        "word_both": draw(st.booleans()),
        "bit_both": draw(st.booleans()),
    }
    g = random_array(rng, (m, n))
    v_in = rng.uniform(-1.0, 1.0, (2, m))
    if floating and draw(st.booleans()):
        circuit["float_word"] = rng.random(m) < 0.4
        circuit["float_bit"] = rng.random(n) < 0.4
        v_in[:, circuit["float_word"]] = 0.0
    return g, v_in, circuit


@settings(max_examples=120, deadline=None)
@given(circuits())
def test_equals_the_definition(case):
    g, v_in, circuit = case
    try:
        solution = solve_crossbar(g, v_in, **circuit)
    except InputError:
        assume(False)  # a line floats without a path to a driver or a ground: see test_errors
    v_word, v_bit, i_out, i_in = exact(g, v_in, **circuit)
    assert error(solution.v_word, v_word) < RTOL
    assert (
        error(solution.v_bit, np.nan_to_num(v_bit)) < RTOL or np.abs(v_bit).max() < 1e-9 * np.abs(v_in).max()
    )
    assert error(v_in @ effective_conductance(g, **circuit), i_out) < RTOL
    assert error(solution.i_out, i_out) < RTOL
    # a floating line's cells may carry next to nothing: their voltage is a difference of two near 1 V
    rounding = 1e-14 * g.max() * np.abs(v_in).max()
    assert np.all(np.abs(solution.i_in - i_in) <= RTOL * np.abs(i_in).max(axis=1, keepdims=True) + rounding)


@settings(max_examples=40, deadline=None)
@given(circuits(floating=False))
def test_every_entry_of_the_matrix_is_accurate(case):
    g, _, circuit = case
    g_eff = effective_conductance(g, **circuit)
    want = exact(g, np.eye(len(g)), **circuit)[2]
    np.testing.assert_allclose(g_eff, want, rtol=RTOL_GEFF, atol=0.0)


@pytest.mark.parametrize("both", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("zero", list(itertools.product([0.0, 1.0], repeat=4)))
def test_merged_nodes(zero, both):
    """Zero resistances in all combinations, through several blocks and both floating kinds."""
    rng = np.random.default_rng(7)
    g = rng.uniform(1e-6, 1e-3, (11, 10))
    circuit = dict(
        zip(("r_word", "r_bit", "r_driver", "r_sense"), np.array(zero) * (2, 3, 50, 20), strict=True)
    )
    circuit |= {"word_both": both[0], "bit_both": both[1]}
    circuit |= {"float_word": np.arange(11) % 5 == 2, "float_bit": np.arange(10) % 4 == 1}
    v_in = rng.uniform(-1, 1, (1, 11)) * ~circuit["float_word"]
    solution = solve_crossbar(g, v_in, **circuit)
    from .naive import Circuit

    model = Circuit(g, **circuit)
    word, bit = model.solve(v_in[0])
    i_out, i_in = model.currents(word, bit)
    for got, want in (
        (solution.v_word, word),
        (solution.v_bit, bit),
        (solution.i_out, i_out),
        (solution.i_in, i_in),
    ):
        assert np.abs(got[0] - want).max() < 1e-10 * np.abs(want).max() + 1e-20


def sparse_reference(g, v_in, r_word, r_bit, r_driver=0.0, r_sense=0.0):
    """Node voltages by SuperLU with a step of iterative refinement in longer precision."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    m, n = g.shape
    word = np.arange(m * n).reshape(m, n)
    bit = word + m * n
    a = [word[:, 1:].ravel(), bit[1:].ravel(), word.ravel()]
    b = [word[:, :-1].ravel(), bit[:-1].ravel(), bit.ravel()]
    c = [np.full(a[0].size, 1 / r_word), np.full(a[1].size, 1 / r_bit), g.ravel()]
    a, b, c = map(np.concatenate, (a, b, c))
    ends = np.zeros(2 * m * n)
    ends[word[:, 0]] = 1 / (r_word + r_driver)
    ends[bit[-1]] += 1 / (r_bit + r_sense)
    rhs = np.zeros((2 * m * n, len(v_in)))
    rhs[word[:, 0]] = v_in.T / (r_word + r_driver)
    own = np.arange(ends.size)
    rows, columns = np.concatenate([a, b, a, b, own]), np.concatenate([a, b, b, a, own])
    matrix = coo_matrix((np.concatenate([c, c, -c, -c, ends]), (rows, columns))).tocsc()
    lu = splu(matrix)
    x = lu.solve(rhs)
    for _ in range(2):
        flow = c[:, None] * (x[a] - x[b]).astype(np.longdouble)
        leaving = (ends[:, None] * x - rhs).astype(np.longdouble)
        np.add.at(leaving, a, flow)
        np.add.at(leaving, b, -flow)
        x = x - lu.solve(leaving.astype(float))
    v_word, v_bit = x[: m * n].T.reshape(-1, m, n), x[m * n :].T.reshape(-1, m, n)
    return v_word, v_bit, ((v_word - v_bit) * g).sum(axis=1)


SHAPES = [(1, 1), (1, 97), (89, 1), (2, 300), (31, 37), (64, 64), (8, 200), (127, 61)]


@pytest.mark.parametrize("shape", SHAPES)
def test_sizes(shape):
    rng = np.random.default_rng(shape[0])
    g = rng.uniform(1e-6, 1e-4, shape)
    v_in = rng.uniform(-0.2, 0.2, (3, shape[0]))
    circuit = {"r_word": 2.5, "r_bit": 1.5, "r_driver": 30.0, "r_sense": 10.0}
    v_word, v_bit, i_out = sparse_reference(g, v_in, **circuit)
    solution = solve_crossbar(g, v_in, **circuit)
    assert error(solution.v_word, v_word) < RTOL
    assert error(solution.v_bit, v_bit) < RTOL
    assert error(solution.i_out, i_out) < RTOL
    assert error(v_in @ effective_conductance(g, **circuit), i_out) < RTOL


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(256, 256), (509, 251), (512, 512)])
@pytest.mark.parametrize("r", [0.5, 10.0, 100.0])
def test_large_sizes(shape, r):
    rng = np.random.default_rng(3)
    g = rng.uniform(1e-6, 1e-4, shape)
    v_in = rng.uniform(-0.2, 0.2, (2, shape[0]))
    v_word, v_bit, i_out = sparse_reference(g, v_in, r_word=r, r_bit=r)
    factors = prepare(g, WiresConfig(r_word=r, r_bit=r))
    solution = factors.solve(v_in)
    assert error(solution.v_word, v_word) < RTOL
    assert error(solution.v_bit, v_bit) < RTOL
    assert error(solution.i_out, i_out) < RTOL


def test_few_vectors_take_the_iterative_way_to_the_same_answer():
    rng = np.random.default_rng(5)
    g = rng.uniform(1e-6, 1e-4, (96, 80))
    v_in = rng.uniform(-0.2, 0.2, (1, 96))
    wires = WiresConfig(r_word=2.5, r_bit=2.5, r_driver=100.0, r_sense=5.0, r_access=2e3, bit_both=True)
    want = prepare(g, wires).solve(v_in)
    assert error(solve_crossbar(g, v_in, **dataclasses.asdict(wires)).v_cell, want.v_cell) < RTOL
    assert error(output_currents(g, v_in, wires), want.i_out) < RTOL


@settings(max_examples=25, deadline=None)
@given(circuits(floating=False))
def test_kirchhoff_and_power(case):
    """Currents balance at every node, and the sources deliver what cells and wires turn into heat."""
    g, v_in, circuit = case
    s = solve_crossbar(g, v_in, **circuit)
    size = np.abs(s.i_in).max(axis=1)
    assert np.all(np.abs(s.i_in.sum(axis=1) - s.i_out.sum(axis=1)) <= 1e-10 * size)
    into = np.diff(s.i_word, axis=2)  # the next segment carries what the cell has left
    assert np.all(np.abs(into + s.i_cell[:, :, :-1]) <= 1e-12 * size[:, None, None])
    below = np.diff(s.i_bit, axis=1)
    assert np.all(np.abs(below - s.i_cell[:, 1:, :]) <= 1e-12 * size[:, None, None])
    drop = -np.diff(s.v_word, axis=2)
    assert np.all(np.abs(drop - s.wires.r_word * s.i_word[:, :, 1:]) <= 1e-10 * np.abs(v_in).max())
    drop = -np.diff(s.v_bit, axis=1)
    assert np.all(np.abs(drop - s.wires.r_bit * s.i_bit[:, :-1]) <= 1e-10 * np.abs(v_in).max())
    heat = s.power_cell.sum(axis=(1, 2)) + s.power_word.sum(axis=1) + s.power_bit.sum(axis=1)
    np.testing.assert_allclose(s.power, heat, rtol=1e-9, atol=1e-300)


def test_superposition_and_scale():
    rng = np.random.default_rng(11)
    g = rng.uniform(1e-6, 1e-4, (40, 30))
    v = rng.uniform(-1, 1, (2, 40))
    both = np.vstack([v, v[0] + 2.0 * v[1]])
    s = solve_crossbar(g, both, r_word=5.0, r_bit=5.0, r_driver=100.0)
    assert error(s.i_out[2:], (s.i_out[0] + 2.0 * s.i_out[1])[None]) < RTOL
    assert error(s.v_word[2:], (s.v_word[0] + 2.0 * s.v_word[1])[None]) < RTOL


def test_mirrored_array_and_swapped_kinds_of_line():
    """Reading an array from the other side of the cells: transpose it and turn it round."""
    rng = np.random.default_rng(13)
    g = rng.uniform(1e-6, 1e-4, (21, 34))
    one = effective_conductance(g, r_word=3.0, r_bit=7.0, r_driver=11.0, r_sense=13.0)
    two = effective_conductance(g.T[::-1, ::-1], r_word=7.0, r_bit=3.0, r_driver=13.0, r_sense=11.0)
    np.testing.assert_allclose(one, two[::-1, ::-1].T, rtol=1e-12)


def test_lines_without_segment_resistance_can_be_permuted():
    rng = np.random.default_rng(17)
    g = rng.uniform(1e-6, 1e-4, (18, 23))
    order = rng.permutation(18)
    circuit = {"r_word": 4.0, "r_bit": 0.0, "r_driver": 20.0, "r_sense": 30.0}
    np.testing.assert_allclose(
        effective_conductance(g[order], **circuit), effective_conductance(g, **circuit)[order], rtol=1e-12
    )


@pytest.mark.parametrize("r", [1e-9, 0.0])
def test_no_wires(r):
    g = np.random.default_rng(19).uniform(1e-6, 1e-4, (20, 17))
    np.testing.assert_allclose(effective_conductance(g, r_word=r, r_bit=r), g, rtol=1e-8)
    wires = WiresConfig(r_word=r, r_bit=r)
    np.testing.assert_allclose(attenuation(g, wires), np.ones(g.shape), rtol=1e-8)


def test_single_precision():
    g = np.random.default_rng(23).uniform(1e-6, 1e-4, (130, 120))
    circuit = {"r_word": 10.0, "r_bit": 10.0, "r_driver": 100.0}
    double = effective_conductance(g, **circuit)
    single = effective_conductance(g, dtype=np.float32, **circuit)
    assert single.dtype == np.float32
    np.testing.assert_allclose(
        single, double, rtol=2e-5
    )  # every entry; rounding grows with the lines' length
    factors = prepare(g, WiresConfig(**circuit), dtype=np.float32)
    v_in = np.ones((1, 130))
    assert error(factors.solve(v_in).v_word, prepare(g, WiresConfig(**circuit)).solve(v_in).v_word) < 2e-5


@pytest.mark.parametrize("circuit", [
    {"r_word": 2.5, "r_bit": 2.5},
    {"r_word": 2.5, "r_bit": 0.0, "r_sense": 10.0, "word_both": True},
    {"r_word": 0.0, "r_bit": 2.5, "r_driver": 10.0, "bit_both": True},
])  # fmt: skip
def test_changed_cells(circuit):
    """Updates give the same bits as a fresh solution, and compute fewer blocks."""
    rng = np.random.default_rng(29)
    g = rng.uniform(1e-6, 1e-4, (45, 50))
    wires = WiresConfig(**circuit)
    factors = prepare(g, wires)
    v_in = rng.uniform(-1, 1, (3, 45))
    factors.voltages(v_in)
    every = None
    for change in (np.s_[3, 7], np.s_[:, 20], np.s_[10:12, 5:9], np.s_[:, :]):
        g = g.copy()
        g[change] = rng.uniform(1e-6, 1e-4, g[change].shape)
        every = factors.update(g)
        fresh = prepare(g, wires)
        assert np.array_equal(factors.g_eff, fresh.g_eff)
        assert np.array_equal(factors.voltages(v_in)[0], fresh.voltages(v_in)[0])
        if change == np.s_[3, 7]:
            few = every
    assert few < every
    assert factors.update(g) == 0
    assert isinstance(factors, Factorisation)


@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_batches_change_no_bit(alpha):
    rng = np.random.default_rng(37)
    g = rng.uniform(1e-6, 1e-4, (40, 33))
    v_in = rng.uniform(-1.0, 1.0, (45, 40))
    wires = WiresConfig(r_word=2.5, r_bit=2.5, alpha=alpha)
    whole = cell_voltages(g, v_in, wires)
    for size in (1, 7, 20):
        assert np.array_equal(cell_voltages(g, v_in[:size], wires), whole[:size])


def test_threads_change_no_bit():
    rng = np.random.default_rng(31)
    tiles = [rng.uniform(1e-6, 1e-4, shape) for shape in [(64, 64), (33, 64), (64, 64), (20, 7), (64, 64)]]
    wires = WiresConfig(r_word=2.5, r_bit=2.5)
    one, two = (effective_conductances(tiles, wires, threads=k) for k in (1, 2))
    for a, b, g in zip(one, two, tiles, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, effective_conductance(g, r_word=2.5, r_bit=2.5))


def test_sneak_path():
    """2 x 2 cells, three closed: the selected open cell seems to conduct through the other three."""
    g = np.array([[0.0, 1e-4], [1e-4, 1e-4]])
    v_in = np.array([[0.3, 0.0]])
    floating = {"float_word": np.array([False, True]), "float_bit": np.array([False, True])}
    s = solve_crossbar(g, v_in, r_word=0.0, r_bit=0.0, **floating)
    np.testing.assert_allclose(s.i_out, [[0.3 * 1e-4 / 3.0, 0.0]], rtol=1e-12)
    grounded = solve_crossbar(g, v_in, r_word=0.0, r_bit=0.0)
    assert grounded.i_out[0, 0] == 0.0


def test_without_jit():
    """The plain NumPy loops that take the place of the vector ones give the same circuit."""
    code = (
        "import numpy as np; from rramsim.circuit.solve import solve_crossbar\n"
        "g = np.random.default_rng(1).uniform(1e-6, 1e-3, (9, 10))\n"
        "s = solve_crossbar(g, np.ones((1, 9)), r_word=2.0, r_bit=3.0, r_driver=5.0)\n"
        "print(s.i_out.sum().hex(), s.v_bit.sum().hex())"
    )
    environment = dict(os.environ, NUMBA_DISABLE_JIT="1")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    i_out, v_bit = (float.fromhex(word) for word in done.stdout.split())
    g = np.random.default_rng(1).uniform(1e-6, 1e-3, (9, 10))
    s = solve_crossbar(g, np.ones((1, 9)), r_word=2.0, r_bit=3.0, r_driver=5.0)
    np.testing.assert_allclose([s.i_out.sum(), s.v_bit.sum()], [i_out, v_bit], rtol=1e-12)
