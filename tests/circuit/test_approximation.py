"""The estimates: exact where they claim to be, of first order elsewhere."""

import itertools

import numpy as np
import pytest

from rramsim.checks import InputError
from rramsim.circuit.estimates import estimate_conductance, ideal_conductance
from rramsim.circuit.solve import effective_conductance
from rramsim.circuit.wiring import WiresConfig


@pytest.mark.parametrize("both", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("side", ["word", "bit"])
@pytest.mark.parametrize("r_segment", [0.0, 20.0])
def test_exact_with_one_kind_of_resistive_line(side, both, r_segment):
    g = np.random.default_rng(0).uniform(1e-6, 1e-3, (12, 9))
    circuit = {"r_word": 0.0, "r_bit": 0.0, "r_access": 300.0, "word_both": both[0], "bit_both": both[1]}
    circuit |= {f"r_{side}": r_segment, {"word": "r_driver", "bit": "r_sense"}[side]: 50.0}
    estimate = estimate_conductance(g, WiresConfig(**circuit))
    np.testing.assert_allclose(estimate, effective_conductance(g, **circuit), rtol=1e-12)


def test_error_falls_with_the_square_of_the_resistance():
    g = np.random.default_rng(1).uniform(1e-6, 1e-4, (32, 32))
    errors = []
    for r in (0.2, 0.1):
        exact = effective_conductance(g, r_word=r, r_bit=r)
        errors.append(np.abs(estimate_conductance(g, WiresConfig(r_word=r, r_bit=r)) - exact).max())
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_ideal():
    g = np.array([[1e-3, 0.0]])
    np.testing.assert_allclose(ideal_conductance(g, WiresConfig(r_word=5.0, r_access=1e3)), [[5e-4, 0.0]])
    with pytest.raises(InputError, match="linear cells, got alpha=2"):
        estimate_conductance(g, WiresConfig(alpha=2.0))
