"""Outside witnesses: ngspice on exported netlists, and badcrossbar."""

import io

import numpy as np
import pytest

from rramsim.circuit.crossbar import Crossbar
from rramsim.circuit.solve import solve_crossbar
from rramsim.circuit.wiring import WiresConfig

from . import ngspice

RTOL_LINEAR = 1e-10
RTOL_NONLINEAR = 1e-9  # ngspice keeps about 11 digits of the numbers in an expression

needs_ngspice = pytest.mark.skipif(not ngspice.AVAILABLE, reason="the program ngspice is not installed")


def compare(g, v_in, wires, tmp_path, rtol, **floating):
    """Outputs, inputs and all node voltages of both programs; returns the largest drop over the drive."""
    crossbar = Crossbar(g, wires, **floating)
    path = tmp_path / "array.cir"
    crossbar.to_spice(path, v_in)
    spice = ngspice.operating_point(path, tmp_path)
    s = crossbar.solve(v_in[None])
    m, n = g.shape
    i_in = np.array([-spice.get(f"i(vs_{i})", 0.0) for i in range(m)])
    i_out = np.array([spice.get(f"i(vg_{j})", 0.0) + spice.get(f"i(vt_{j})", 0.0) for j in range(n)])
    assert np.abs(s.i_in[0] - i_in).max() <= rtol * np.abs(i_in).max()
    assert np.abs(s.i_out[0] - i_out).max() <= rtol * np.abs(i_out).max()
    for name, ours in (("w", s.v_word[0]), ("b", s.v_bit[0])):
        for i in range(m):
            for j in range(n):
                voltage = spice.get(f"v({name}_{i}_{j})")
                if voltage is not None:
                    assert abs(ours[i, j] - voltage) <= rtol * np.abs(v_in).max()
    return np.max(1.0 - np.abs(s.v_cell[0]) / np.abs(v_in).max())


def random_case(rng, *, strong=False):
    m, n = rng.integers(1, 8, 2)
    top = -2.5 if strong else -4
    g = np.array([float(f"{x:.9g}") for x in 10.0 ** rng.uniform(-6, top, m * n)]).reshape(m, n)
    g[rng.random((m, n)) < 0.1] = 0.0

    def some(value):
        return float(rng.choice([0.0, value]))

    circuit = {
        "r_word": some(25.0 if strong else 2.5),
        "r_bit": some(40.0 if strong else 3.5),
        "r_driver": some(100.0),
        "r_sense": some(30.0),
        "r_access": some(500.0),
        "word_both": bool(rng.integers(2)),
        "bit_both": bool(rng.integers(2)),
    }
    return g, np.round(rng.uniform(-1.0, 1.0, m), 6), circuit


@needs_ngspice
@pytest.mark.parametrize("seed", range(12))
def test_linear(seed, tmp_path):
    g, v_in, circuit = random_case(np.random.default_rng(seed))
    g[0, 0] = 1e-5
    compare(g, v_in, WiresConfig(**circuit), tmp_path, RTOL_LINEAR)


@needs_ngspice
@pytest.mark.parametrize("seed", range(12))
def test_nonlinear(seed, tmp_path):
    rng = np.random.default_rng(100 + seed)
    g, v_in, circuit = random_case(rng, strong=True)
    g[0, 0] = 1e-3
    wires = WiresConfig(**circuit, alpha=float(rng.choice([0.5, 3.0, 5.0])))
    compare(g, v_in, wires, tmp_path, RTOL_NONLINEAR)


@needs_ngspice
def test_nonlinear_with_half_the_voltage_lost(tmp_path):
    rng = np.random.default_rng(1)
    g = np.array([float(f"{x:.9g}") for x in rng.uniform(1e-4, 1e-3, 144)]).reshape(12, 12)
    v_in = np.round(rng.uniform(0.8, 1.0, 12), 6)
    wires = WiresConfig(r_word=3.0, r_bit=3.0, alpha=5.0)
    assert compare(g, v_in, wires, tmp_path, RTOL_NONLINEAR) > 0.5


@needs_ngspice
@pytest.mark.parametrize("alpha", [0.0, 4.0])
def test_floating_lines(alpha, tmp_path):
    rng = np.random.default_rng(2)
    g = np.array([float(f"{x:.9g}") for x in rng.uniform(1e-6, 1e-4, 30)]).reshape(5, 6)
    v_in = np.array([0.9, 0.0, 0.0, -0.4, 0.0])
    floating = {
        "float_word": np.array([0, 1, 1, 0, 0], bool),
        "float_bit": np.array([0, 1, 1, 1, 0, 1], bool),
    }
    wires = WiresConfig(r_word=5.0, r_bit=4.0, r_driver=50.0, alpha=alpha)
    compare(g, v_in, wires, tmp_path, RTOL_NONLINEAR, **floating)


def test_netlist_lists_every_element():
    """One line per source, segment and closed cell, in a form any SPICE reads."""
    g = np.array([[1e-6, 0.0], [2e-6, 3e-6]])
    text = io.StringIO()
    Crossbar(g, WiresConfig(r_word=2.0, r_bit=3.0, r_driver=10.0, r_access=100.0, alpha=2.0)).to_spice(
        text, [1.0, 0.5]
    )
    lines = text.getvalue().splitlines()
    assert sum(line.startswith("Vs_") for line in lines) == 2
    assert sum(line.startswith("Rw_") for line in lines) == 2
    assert sum(line.startswith("Rb_") for line in lines) == 2
    assert sum(line.startswith("Bc_") for line in lines) == 3
    assert "Rword_0 s_0 w_0_0 12" in lines
    assert lines[-2:] == [".op", ".end"]


def test_badcrossbar():
    """badcrossbar has no driver or sense resistance and takes device resistances."""
    badcrossbar = pytest.importorskip("badcrossbar", reason="the bench extra (badcrossbar) is not installed")
    rng = np.random.default_rng(3)
    g = rng.uniform(1e-6, 1e-4, (17, 13))
    v_in = rng.uniform(0.1, 0.5, (4, 17))
    theirs = badcrossbar.compute(v_in.T, 1.0 / g, r_i_word_line=2.5, r_i_bit_line=1.5)
    ours = solve_crossbar(g, v_in, r_word=2.5, r_bit=1.5)
    np.testing.assert_allclose(ours.i_out, theirs.currents.output, rtol=1e-10)
    np.testing.assert_allclose(ours.v_word.transpose(1, 2, 0), theirs.voltages.word_line, rtol=1e-10)
    np.testing.assert_allclose(ours.v_bit.transpose(1, 2, 0), theirs.voltages.bit_line, rtol=1e-9, atol=1e-13)
