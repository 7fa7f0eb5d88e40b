"""Power of many reads at the price of few: against every vector solved, and against v i at the terminals."""

from __future__ import annotations

import numpy as np
import pytest

from rramsim.checks import InputError
from rramsim.circuit.power import power_of_moment, power_of_solution, power_of_vectors
from rramsim.circuit.solve import prepare, solve_crossbar
from rramsim.circuit.wiring import WiresConfig

RTOL = 1e-9  # required by the bill; the solutions themselves agree to 1e-13
WIRES = {
    "ideal": {},
    "lines": {"r_word": 2.5, "r_bit": 5.0},
    "ends": {"r_word": 2.5, "r_bit": 2.5, "r_driver": 100.0, "r_sense": 50.0, "r_access": 1e3},
    "both": {
        "r_word": 2.5,
        "r_bit": 2.5,
        "r_driver": 100.0,
        "r_sense": 50.0,
        "word_both": True,
        "bit_both": True,
    },
    "nodes": {"r_bit": 2.5, "r_driver": 100.0, "word_both": True},
}


@pytest.mark.parametrize("kind", WIRES)
def test_moment_equals_every_vector_solved(kind: str) -> None:
    rng = np.random.default_rng(1)
    g, v = rng.uniform(0, 4e-5, (24, 17)), rng.uniform(-0.2, 0.2, (60, 24))
    v[:, 3] = 0.0
    wires = WiresConfig(**WIRES[kind])
    few, all_of_them = power_of_moment(g, v.T @ v, wires), power_of_solution(prepare(g, wires).solve(v))
    np.testing.assert_allclose(few, all_of_them, rtol=RTOL, atol=1e-25)
    assert few.cells + few.wires + few.drivers == pytest.approx(few.terminals, rel=RTOL)
    assert (few.wires > 0) == bool(wires.r_word or wires.r_bit)
    assert (few.drivers > 0) == bool(wires.r_driver or wires.r_sense)


def test_floating_lines_take_nothing_from_drivers() -> None:
    rng = np.random.default_rng(2)
    g, v = rng.uniform(1e-6, 4e-5, (12, 9)), rng.uniform(-0.2, 0.2, (20, 12))
    word, bit = np.arange(12) % 4 == 1, np.arange(9) == 5
    v[:, word] = 0.0
    wires = WiresConfig(**WIRES["ends"])
    few = power_of_moment(g, v.T @ v, wires, float_word=word, float_bit=bit)
    every = power_of_solution(prepare(g, wires, float_word=word, float_bit=bit).solve(v))
    np.testing.assert_allclose(few, every, rtol=RTOL)
    assert few.cells + few.wires + few.drivers == pytest.approx(few.terminals, rel=RTOL)


def test_non_linear_cells_balance_at_the_terminals() -> None:
    rng = np.random.default_rng(3)
    g, v = rng.uniform(1e-6, 4e-5, (10, 8)), rng.uniform(-0.3, 0.3, (5, 10))
    power = power_of_vectors(g, v, WiresConfig(**WIRES["ends"], alpha=3.0))
    assert power.cells + power.wires + power.drivers == pytest.approx(power.terminals, rel=RTOL)


def test_two_by_two_by_hand() -> None:
    """One column of one cell behind its resistors: a voltage divider; and the currents of four cells."""
    # driver 100 + segment 10 + cell 1000 + segment 20 + sense 70 = 1200 ohm at 1.2 V: 1 mA
    power = power_of_moment([[1e-3]], [[1.44]], WiresConfig(r_word=10, r_bit=20, r_driver=100, r_sense=70))
    np.testing.assert_allclose(power, (1e-3, 30e-6, 170e-6, 1.2e-3), rtol=1e-12)
    # ideal wires, g = [[10, 20], [30, 40]] uS, v = (0.1, 0.2) V: 0.01 x 30 uS + 0.04 x 70 uS = 3.1 uW
    v = np.array([0.1, 0.2])
    power = power_of_moment([[1e-5, 2e-5], [3e-5, 4e-5]], np.outer(v, v), WiresConfig())
    np.testing.assert_allclose(power, (3.1e-6, 0.0, 0.0, 3.1e-6), rtol=1e-12)
    solution = solve_crossbar([[1e-5, 2e-5], [3e-5, 4e-5]], v[None], r_word=0.0, r_bit=0.0)
    assert solution.power[0] == pytest.approx(3.1e-6, rel=1e-12)


def test_wrong_moments_are_refused() -> None:
    with pytest.raises(InputError, match="moment"):
        power_of_moment([[1e-5]], [[np.nan]], WiresConfig())
    with pytest.raises(InputError, match="moment"):
        power_of_moment([[1e-5]], np.eye(2), WiresConfig())
