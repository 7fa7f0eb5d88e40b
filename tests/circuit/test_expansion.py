"""Non-linear cells by matrix products, against Newton's method."""

import numpy as np
import pytest

from rramsim.checks import InputError
from rramsim.circuit.expansion import expand, probe_error, probe_vectors, secant
from rramsim.circuit.solve import effective_conductance, output_currents
from rramsim.circuit.wiring import WiresConfig

V_FULL = 0.2
RANDOM = np.random.default_rng(0)
G = RANDOM.uniform(1e-6, 4e-5, (40, 24)) * (RANDOM.uniform(size=(40, 24)) > 0.1)
V = RANDOM.uniform(-V_FULL, V_FULL, (50, 40)) * (RANDOM.uniform(size=(50, 40)) > 0.5)


def error(g, v, wires):
    want = output_currents(g, v, wires)
    return np.abs(expand(g, wires, v_full=V_FULL).currents(v) - want).max() / np.abs(want).max()


@pytest.mark.parametrize("options", [
    {"r_word": 2.5, "r_bit": 2.5},
    {"r_word": 10.0, "r_bit": 2.5},
    {"r_word": 0.0, "r_bit": 5.0, "r_driver": 50.0},
    {"r_word": 5.0, "r_bit": 0.0, "r_sense": 50.0},
    {"r_word": 2.5, "r_bit": 2.5, "r_access": 3e3},
    {"r_word": 5.0, "r_bit": 5.0, "r_driver": 20.0, "word_both": True},
    {"r_word": 5.0, "r_bit": 5.0, "r_sense": 20.0, "bit_both": True},
])  # fmt: skip
def test_outputs_of_any_wiring(options):
    """A tenth of the bar of 2e-3 at alpha 3 /V; the linear matrix alone is off by 30 times as much."""
    wires = WiresConfig(alpha=3.0, **options)
    assert error(G, V, wires) < 3e-4
    want = output_currents(G, V, wires)
    linear = V @ effective_conductance(G, **options)
    assert np.abs(linear - want).max() / np.abs(want).max() > 5e-3


def test_error_falls_with_the_drive():
    """What is left out is at least of second order in alpha V: half of it, a quarter or less."""
    errors = [error(G, V, WiresConfig(r_word=10.0, r_bit=10.0, alpha=alpha)) for alpha in (1.5, 3.0, 6.0)]
    assert errors[0] < errors[1] / 3.0
    assert errors[1] < errors[2] / 3.0


def test_no_drop_leaves_the_bare_law():
    """Wires of a microohm: each cell draws the law's current at its source's voltage."""
    wires = WiresConfig(r_word=1e-6, r_bit=1e-6, alpha=5.0)
    bare = np.sinh(5.0 * V) / 5.0 @ G
    got = expand(G, wires, v_full=V_FULL).currents(V)
    np.testing.assert_allclose(got, bare, atol=1e-6 * np.abs(bare).max())


def test_small_inputs_see_the_linear_circuit():
    wires = WiresConfig(r_word=2.5, r_bit=2.5, alpha=3.0)
    expansion = expand(G, wires, v_full=V_FULL)
    want = 1e-4 * V @ effective_conductance(G, r_word=2.5, r_bit=2.5)
    np.testing.assert_allclose(expansion.currents(1e-4 * V), want, atol=3e-4 * np.abs(want).max())


def test_probes_are_fixed_and_find_the_error():
    """Two hard arrays: what the probes say is no less than a third of the error on other vectors."""
    np.testing.assert_array_equal(probe_vectors(64, 0.2), probe_vectors(64, 0.2))
    assert np.abs(probe_vectors(64, 0.2)).max() <= 0.2
    assert (probe_vectors(64, 0.2) < 0).any()
    for r, alpha in ((10.0, 3.0), (2.5, 6.0)):
        wires = WiresConfig(r_word=r, r_bit=r, alpha=alpha)
        probes = probe_vectors(40, V_FULL)
        found = probe_error(expand(G, wires, v_full=V_FULL), G, wires, probes)
        assert found > error(G, V, wires) / 3.0


def test_secant_lies_between_the_slopes():
    assert secant(3.0, 1e-9) == pytest.approx(1.0)
    assert 1.0 < secant(3.0, 0.2) < np.sinh(0.6) / 0.6


def test_linear_cells_are_refused():
    with pytest.raises(InputError, match="needs non-linear cells"):
        expand(G, WiresConfig(r_word=1.0, r_bit=1.0), v_full=0.2)
