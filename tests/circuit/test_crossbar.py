"""The user's array: kept up to date with its cells, the same answers as the functions."""

import dataclasses

import numpy as np
import pytest

from rramsim.checks import InputError
from rramsim.circuit.crossbar import Crossbar
from rramsim.circuit.estimates import attenuation
from rramsim.circuit.solve import cell_voltages, effective_conductance, output_currents, solve_crossbar
from rramsim.circuit.wiring import WiresConfig

CIRCUIT = {"r_word": 2.0, "r_bit": 3.0, "r_driver": 20.0}


def test_cells_can_change():
    rng = np.random.default_rng(1)
    g = rng.uniform(1e-6, 1e-4, (20, 12))
    v_in = rng.uniform(-1.0, 1.0, (3, 20))
    crossbar = Crossbar(g, WiresConfig(**CIRCUIT))
    before = crossbar.solve(v_in).i_out
    g[4, 5] *= 3.0
    assert np.array_equal(crossbar.solve(v_in).i_out, before)  # the array holds its own copy
    crossbar.g = g
    assert np.array_equal(crossbar.g_eff, effective_conductance(g, **CIRCUIT))
    assert np.array_equal(crossbar.solve(v_in).i_out, solve_crossbar(g, v_in, **CIRCUIT).i_out)
    with pytest.raises(InputError, match=r"g must have shape \(20, 12\), got \(12, 20\)"):
        crossbar.g = g.T


def test_ideal_wires_by_default():
    g = np.full((2, 3), 1e-5)
    s = Crossbar(g).solve([[1.0, 0.5]])
    np.testing.assert_allclose(s.i_out, [[1.5e-5] * 3])
    np.testing.assert_allclose(s.i_in, [[3e-5, 1.5e-5]])


def test_nonlinear_cells():
    rng = np.random.default_rng(2)
    g = rng.uniform(1e-6, 1e-4, (6, 5))
    v_in = rng.uniform(-1.0, 1.0, (2, 6))
    wires = WiresConfig(**CIRCUIT, alpha=3.0)
    s = Crossbar(g, wires).solve(v_in)
    want = solve_crossbar(g, v_in, **CIRCUIT, alpha=3.0)
    assert np.array_equal(s.i_out, want.i_out)
    assert np.array_equal(output_currents(g, v_in, wires), want.i_out)
    assert np.array_equal(cell_voltages(g, v_in, wires), want.v_cell)
    with pytest.raises(InputError, match="non-linear cells"):
        _ = Crossbar(g, wires).g_eff


def test_attenuation_is_the_cell_voltage_for_equal_drive():
    g = np.random.default_rng(3).uniform(1e-6, 1e-4, (9, 7))
    wires = WiresConfig(**CIRCUIT)
    factor = attenuation(g, dataclasses.replace(wires, alpha=2.0))
    np.testing.assert_allclose(0.3 * factor, cell_voltages(g, np.full((1, 9), 0.3), wires)[0], rtol=1e-12)
    assert np.all((factor > 0.0) & (factor < 1.0))
    assert factor[-1, 0] == factor.max()  # next to driver and ground
