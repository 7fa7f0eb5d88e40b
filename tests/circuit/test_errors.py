"""What is refused, and what the message says."""

import numpy as np
import pytest

from rramsim.checks import ConvergenceError, InputError
from rramsim.circuit import newton
from rramsim.circuit.crossbar import Crossbar
from rramsim.circuit.solve import (
    cell_voltages,
    effective_conductance,
    effective_conductances,
    output_currents,
    prepare,
    solve_crossbar,
)
from rramsim.circuit.wiring import Lines, WiresConfig

G = np.full((3, 4), 1e-5)
V = np.ones((2, 3))
WIRES = {"r_word": 1.0, "r_bit": 1.0}


@pytest.mark.parametrize("g, message", [
    (np.where(np.eye(3, 4), -1e-6, G), "g must be >= 0 S, got -1e-06"),
    (np.where(np.eye(3, 4), np.nan, G), "g must be finite, got nan at index"),
    (G[0], "g must have shape"),
    (np.zeros((0, 4)), "at least one cell"),
])  # fmt: skip
def test_conductance(g, message):
    for call in (lambda: effective_conductance(g, **WIRES), lambda: solve_crossbar(g, V, **WIRES)):
        with pytest.raises(InputError, match=message):
            call()


@pytest.mark.parametrize("change, message", [
    ({"r_word": -1.0}, "r_word must be >= 0 ohm, got -1"),
    ({"r_bit": np.inf}, "r_bit must be finite"),
    ({"r_driver": "10"}, "r_driver must be a number in ohm"),
    ({"r_sense": 1e-12}, "0 merges the nodes exactly"),
    ({"alpha": -1.0}, "alpha must be >= 0 1/V"),
    ({"word_both": 1}, "word_both must be true or false"),
])  # fmt: skip
def test_wires(change, message):
    with pytest.raises(InputError, match=message):
        solve_crossbar(G, V, **{**WIRES, **change})


def test_inputs():
    with pytest.raises(InputError, match=r"v_in must have shape \(any, 3\), got \(2, 4\)"):
        solve_crossbar(G, np.ones((2, 4)), **WIRES)
    with pytest.raises(InputError, match="v_in of floating word lines must be 0 V"):
        solve_crossbar(G, V, **WIRES, float_word=[True, False, False])
    with pytest.raises(InputError, match="use solve_crossbar for non-linear cells"):
        effective_conductance(G, **WIRES, alpha=1.0)
    with pytest.raises(InputError, match="dtype must be float64 or float32, got float16"):
        effective_conductance(G, **WIRES, dtype=np.float16)
    with pytest.raises(InputError, match=r"tiles\[1\] must be >= 0 S"):
        effective_conductances([G, -G], WiresConfig(**WIRES))
    with pytest.raises(InputError, match="threads must be >= 1, got 0"):
        effective_conductances([G], WiresConfig(**WIRES), threads=0)


def test_floating_lines():
    with pytest.raises(InputError, match="all lines float"):
        prepare(G, WiresConfig(**WIRES), float_word=np.ones(3, bool), float_bit=np.ones(4, bool))
    g = G.copy()
    g[1] = 0.0
    with pytest.raises(InputError, match="floating word line 1 has no path"):
        prepare(g, WiresConfig(**WIRES), float_word=np.array([False, True, False]))
    with pytest.raises(
        InputError, match=r"float_bit must be a boolean mask of shape \(4,\), got int64 \(4,\)"
    ):
        prepare(G, WiresConfig(**WIRES), float_bit=np.zeros(4, int))
    crossbar = Crossbar(G, WiresConfig(**WIRES), float_word=np.array([False, True, False]))
    with pytest.raises(InputError, match="floating word line 1 has no path"):
        crossbar.g = g


def test_law():
    with pytest.raises(InputError, match="monotone: its slope must be >= 0 S"):
        solve_crossbar(G, V, **WIRES, law=lambda v, g: (-g * v, -g))
    with pytest.raises(InputError, match="slope must have the shape"):
        solve_crossbar(G, V, **WIRES, law=lambda v, g: (g * v, 1e-5))
    with pytest.raises(InputError, match="current must be finite"):
        solve_crossbar(G, V, **WIRES, law=lambda v, g: (g * np.inf, g))


def test_no_convergence(monkeypatch):
    """Too few steps are an error with the figures, not an answer."""
    monkeypatch.setattr(newton, "MAX_NEWTON", 2)
    wires = WiresConfig(r_word=5e3, r_bit=5e3, alpha=5.0)
    lines = Lines(G, None, None)
    with pytest.raises(
        ConvergenceError, match="after 2 iterations the node voltages still change by"
    ) as caught:
        newton.solve_nonlinear(G * 10, V, wires, lines, None)
    assert caught.value.iterations == 2
    assert caught.value.residual > caught.value.tolerance


@pytest.mark.parametrize("r", [0.0, 2.5])
@pytest.mark.parametrize("alpha_v", [41.0, 100.0, 700.0, 2000.0])
def test_a_law_beyond_all_sense_is_refused(r, alpha_v):
    """These gave currents of 1e298 A or NaN without a word."""
    options = {"r_word": r, "r_bit": r, "alpha": alpha_v / V.max()}
    for call in (solve_crossbar, lambda g, v, **w: output_currents(g, v, WiresConfig(**w))):
        with pytest.raises(InputError, match=r"alpha times the largest input voltage must not exceed 40"):
            call(G, V, **options)
    with pytest.raises(InputError, match="must not exceed 40"):
        cell_voltages(G, -V, WiresConfig(**options))


@pytest.mark.parametrize("r", [2.5, 50.0])
def test_steep_laws_are_solved_up_to_the_limit(r):
    """Kirchhoff's and the cells' laws hold at alpha V = 40, 1e17 times the current of linear cells."""
    alpha = 40.0 / V.max()
    solution = solve_crossbar(G, V, r_word=r, r_bit=r, alpha=alpha)
    law = G * np.sinh(alpha * solution.v_cell) / alpha
    np.testing.assert_allclose(solution.i_cell, law, rtol=1e-9)
    # the node voltages follow from the currents: segment by segment along word line 1 and bit line 2
    along = solution.v_word[:, 1, :-1] - solution.v_word[:, 1, 1:]
    np.testing.assert_allclose(along, r * solution.i_word[:, 1, 1:], atol=1e-12)
    down = solution.v_bit[:, :-1, 2] - solution.v_bit[:, 1:, 2]
    np.testing.assert_allclose(down, r * solution.i_bit[:, :-1, 2], atol=1e-12)
    np.testing.assert_allclose(solution.i_in.sum(axis=1), solution.i_out.sum(axis=1), rtol=1e-12)
    assert (solution.i_out > 0).all()
    assert np.isfinite(solution.i_out).all()


def test_a_chip_refuses_such_cells_before_it_is_made():
    from rramsim import CellsConfig, ChipConfig, ConverterConfig

    with pytest.raises(InputError, match="iv_alpha"):
        ChipConfig(cells=CellsConfig(iv_alpha=500.0))
    with pytest.raises(InputError, match=r"cells\.iv_alpha times converters\.v_read must not exceed 40"):
        ChipConfig(cells=CellsConfig(iv_alpha=150.0), converters=ConverterConfig(v_read=0.5))
