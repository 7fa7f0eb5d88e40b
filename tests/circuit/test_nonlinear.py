"""Non-linear cells against dense Newton steps from the definition, and between the two ways to solve."""

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from rramsim.circuit.newton import sinh_law, solve_lines, solve_nodes
from rramsim.circuit.solve import output_currents, prepare, solve_crossbar
from rramsim.circuit.wiring import Lines, WiresConfig

from .naive import newton
from .test_linear import error

RTOL = 1e-10


@st.composite
def circuits(draw):
    m, n = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    wire = st.one_of(st.just(0.0), st.floats(0.01, 100.0))
    circuit = {
        "r_word": draw(wire),
        "r_bit": draw(wire),
        "r_driver": draw(st.one_of(st.just(0.0), st.floats(1.0, 1e4))),
        "r_sense": draw(st.one_of(st.just(0.0), st.floats(1.0, 1e4))),
        "r_access": draw(st.one_of(st.just(0.0), st.floats(1.0, 1e4))),
        "word_both": draw(st.booleans()),
        "bit_both": draw(st.booleans()),
    }
    g = 10.0 ** rng.uniform(-6, -3, (m, n))
    g[rng.random((m, n)) < 0.1] = 0.0
    g[0, 0] = 1e-5
    return g, rng.uniform(-1.0, 1.0, (2, m)), draw(st.floats(0.1, 5.0)), circuit


CANCELLING = (  # one bit line whose currents cancel to 1/240
    np.array([[1e-5], [0.0], [2.53409794e-4]]),
    np.array([[-0.0418974, -0.68052217, 0.4691543], [-0.77265596, -0.21754362, 0.03348037]]),
    1.0,
    {"r_word": 0.0, "r_bit": 0.0, "r_driver": 0.0, "r_sense": 1.0, "r_access": 1.0,
     "word_both": False, "bit_both": False},
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(circuits())
@example(CANCELLING)
def test_equals_the_definition(case):
    g, v_in, alpha, circuit = case
    s = solve_crossbar(g, v_in, alpha=alpha, **circuit)
    v_word, v_bit, i_out, i_in = newton(g, v_in, alpha, **circuit)
    assert error(s.i_out, i_out) < RTOL
    assert error(s.i_in, i_in) < RTOL
    assert np.abs(s.v_word - v_word).max() < RTOL
    assert np.abs(s.v_bit - v_bit).max() < RTOL


@settings(max_examples=30, deadline=None)
@given(circuits())
def test_three_ways_agree(case):
    """Kernel, law given in Python, node voltages with a sparse factorisation."""
    g, v_in, alpha, circuit = case
    wires = WiresConfig(alpha=alpha, **circuit)
    one, done = solve_lines(g, v_in, wires, None)
    two, also = solve_lines(g, v_in, wires, sinh_law(alpha))
    three = solve_nodes(g, v_in, wires, Lines(g, None, None), None)
    assert done.all()
    assert also.all()
    for s in (one, two):
        assert error(s.i_out, three.i_out) < RTOL
        assert np.abs(s.v_cell - three.v_cell).max() < RTOL


@pytest.mark.parametrize("alpha", [1.0, 5.0])
def test_strong_drop(alpha):
    """Wires that take more than half the voltage, more cells than the twin can do."""
    rng = np.random.default_rng(1)
    g = rng.uniform(1e-5, 1e-3, (40, 30))
    v_in = rng.uniform(0.5, 1.0, (2, 40))
    wires = WiresConfig(r_word=10.0, r_bit=10.0, r_driver=20.0, alpha=alpha)
    s = solve_crossbar(g, v_in, r_word=10.0, r_bit=10.0, r_driver=20.0, alpha=alpha)
    want = solve_nodes(g, v_in, wires, Lines(g, None, None), None)
    assert np.abs(s.v_cell).mean() < 0.5 * v_in.mean()
    assert error(s.i_out, want.i_out) < RTOL
    assert np.array_equal(output_currents(g, v_in, wires), s.i_out)
    mismatch = s.i_cell - g * np.sinh(alpha * s.v_cell) / alpha
    assert np.abs(mismatch.sum(axis=1)).max() < 1e-9 * np.abs(s.i_out).max()


def test_power_balance():
    rng = np.random.default_rng(2)
    g = rng.uniform(1e-6, 1e-3, (20, 25))
    v_in = rng.uniform(-1.0, 1.0, (3, 20))
    s = solve_crossbar(
        g, v_in, r_word=8.0, r_bit=4.0, r_driver=50.0, r_access=200.0, alpha=4.0, word_both=True
    )
    heat = s.power_cell.sum(axis=(1, 2)) + s.power_word.sum(axis=1) + s.power_bit.sum(axis=1)
    np.testing.assert_allclose(s.power, heat, rtol=1e-9)
    np.testing.assert_allclose(s.i_in.sum(axis=1), s.i_out.sum(axis=1), rtol=0.0, atol=1e-10 * s.i_in.max())


def test_small_signals_are_linear():
    rng = np.random.default_rng(3)
    g = rng.uniform(1e-6, 1e-4, (30, 30))
    v_in = rng.uniform(-1e-6, 1e-6, (2, 30))
    s = solve_crossbar(g, v_in, r_word=5.0, r_bit=5.0, alpha=3.0)
    want = prepare(g, WiresConfig(r_word=5.0, r_bit=5.0)).solve(v_in)
    assert error(s.i_out, want.i_out) < 1e-9


def test_other_law():
    """A diode-like law, odd or not; the current at the cells satisfies it."""

    def law(v, g):
        return g * np.expm1(2.0 * v) / 2.0, g * np.exp(2.0 * v)

    rng = np.random.default_rng(4)
    g = rng.uniform(1e-6, 1e-3, (12, 9))
    v_in = rng.uniform(-1.0, 1.0, (3, 12))
    s = solve_crossbar(g, v_in, r_word=20.0, r_bit=10.0, r_access=100.0, law=law)
    cell = s.v_cell - 100.0 * s.i_cell
    assert np.abs(law(cell, g)[0] - s.i_cell).max() < 1e-9 * np.abs(s.i_cell).max()
    drive = np.zeros(12, dtype=bool)
    drive[3] = True
    floated = solve_crossbar(
        g, v_in * ~drive, r_word=20.0, r_bit=10.0, r_access=100.0, law=law, float_word=drive
    )
    cell = floated.v_cell - 100.0 * floated.i_cell
    assert np.abs(law(cell, g)[0] - floated.i_cell).max() < 1e-9 * np.abs(floated.i_cell).max()
    assert np.abs(floated.i_cell[:, 3].sum(axis=1)).max() < 1e-10 * np.abs(floated.i_cell).max()
    assert np.all(floated.i_in[:, 3] == 0.0)


def test_no_input_gives_no_current():
    s = solve_crossbar(np.full((3, 3), 1e-4), np.zeros((1, 3)), r_word=1.0, r_bit=1.0, alpha=2.0)
    assert not s.i_out.any()
    assert not s.v_word.any()


def test_steps_are_counted():
    s = solve_crossbar(np.full((8, 8), 1e-4), np.ones((1, 8)), r_word=5.0, r_bit=5.0, alpha=3.0)
    assert 1 <= s.iterations <= 10
    assert 0.0 <= s.residual <= 1e-10
