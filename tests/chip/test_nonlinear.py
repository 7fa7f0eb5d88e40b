"""Non-linear cells read by matrix products, against Newton's method for every vector."""

import numpy as np
import pytest

from rramsim.blackbox.windows import WindowCodes
from rramsim.cell import CellsConfig, ReadNoiseConfig
from rramsim.chip.config import ChipConfig
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import SimulatedChip
from rramsim.circuit.wiring import WiresConfig
from rramsim.kernels.windows import Geometry

ROWS, COLUMNS = 45, 10
CODE_MAX = 2**15 - 1  # of a 16-bit ADC: its steps are far finer than the tolerance
GEOMETRY = Geometry(3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 6, 6)
WIRES = WiresConfig(r_word=5.0, r_bit=5.0)


def chip(alpha, *, wires=WIRES, tolerance=2e-3, converters=None, mapping=None, cells=None):
    config = ChipConfig(
        cells=CellsConfig(iv_alpha=alpha, **(cells or {})),
        converters=ConverterConfig(adc_bits=16, adc_noise=0.0, **(converters or {})),
        mapping=MappingConfig(tile_rows=32, tile_cols=16, **(mapping or {})),
        wires=wires,
        nonlinear_tolerance=tolerance,
    )
    made = SimulatedChip(config, {"layer": (ROWS, COLUMNS)}, seed=3)
    shape = (ROWS, COLUMNS, made.layers["layer"].cells_per_weight)
    made.write("layer", np.random.default_rng(1).integers(0, 16, shape))
    return made


def codes_of(made, signed, maps=False):
    """Codes of one read of the layer whose largest output fills about half of the range."""
    rng = np.random.default_rng(2)
    low = -127 if signed else 0
    made.configure("layer", input_range=(-0.2 if signed else 0.0, 0.2), output_range=2.0)
    if maps:
        data = WindowCodes(rng.integers(low, 128 if signed else 256, (3, 5, 6, 6)).astype(np.int16), GEOMETRY)
    else:
        data = rng.integers(low, 128 if signed else 256, (200, ROWS))
        data *= rng.uniform(size=data.shape) < rng.uniform(0.1, 1.0, (200, 1))
    made.configure("layer", output_range=2e-4)
    return made.mvm("layer", data, per_tile=True).codes


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("mode", [
    {"mapping": {"kind": "differential"}},
    {"mapping": {"kind": "reference"}},
    {"converters": {"adc_per_line": True}},
    {"converters": {"input_mode": "bit_serial"}},
    {"converters": {"drive": "two_phase"}},
])  # fmt: skip
def test_products_agree_with_newton(mode, signed, maps):
    """Within the tolerance of the tile's full scale; the curve itself changes codes by ten times as much."""
    fast, exact, linear = chip(3.0, **mode), chip(3.0, tolerance=0.0, **mode), chip(0.0, **mode)
    got, want, bare = (codes_of(made, signed, maps).astype(float) for made in (fast, exact, linear))
    full = np.abs(want).max()
    assert np.abs(got - want).max() < 2e-3 * full
    assert np.abs(bare - want).max() > 5e-3 * full
    assert 0.0 < fast.nonlinear_error < 2e-3
    assert exact.nonlinear_error == 0.0


@pytest.mark.parametrize("mode", ["amplitude", "bit_serial"])
@pytest.mark.parametrize("signed", [False, True])
def test_ideal_lines_give_the_law_itself(mode, signed):
    """A table of the law times the conductances, to the precision of float32 and of the codes."""
    made = chip(5.0, wires=None, converters={"input_mode": mode})
    got = codes_of(made, signed)
    rng = np.random.default_rng(2)
    low, high = (-127, 127) if signed else (0, 255)
    data = rng.integers(low, high + 1, (200, ROWS))
    data *= rng.uniform(size=data.shape) < rng.uniform(0.1, 1.0, (200, 1))
    g = made.conductances("layer").astype(float)
    weights = g[..., 0] - g[..., 1]

    rows = [tuple(r) for r in made.layers["layer"].row_tiles]
    if mode == "amplitude":
        parts = [np.sinh(5.0 * 0.2 * data[:, a:b] / high) / 5.0 @ weights[a:b] for a, b in rows]
        want = np.stack([CODE_MAX * current / 2e-4 for current in parts], axis=1)
        assert np.abs(got - want).max() <= 1.0  # half a step of rounding and float32
        return
    want = 0.0
    for bit in range(7 if signed else 8):
        pulses = ((np.abs(data) >> bit) & 1) * np.sign(data)
        parts = [np.sinh(5.0 * 0.2 * pulses[:, a:b]) / 5.0 @ weights[a:b] for a, b in rows]
        want = want + (1 << bit) * np.rint(np.stack([CODE_MAX * current / 2e-4 for current in parts], axis=1))
    assert np.abs(got - want).max() <= 256  # one step in every bit


def test_a_tile_beyond_the_tolerance_is_read_by_newton():
    """Hard wires: the estimate says so, and codes are those of the exact reading, bit for bit."""
    wires = WiresConfig(r_word=100.0, r_bit=100.0)
    fast, exact = chip(6.0, wires=wires), chip(6.0, wires=wires, tolerance=0.0)
    got, want = codes_of(fast, False), codes_of(exact, False)
    assert fast.nonlinear_error > 2e-3
    np.testing.assert_array_equal(got, want)


def test_state_goes_on_with_the_same_bits():
    made, other = chip(3.0), chip(3.0)
    first = codes_of(made, True)
    other.load_state_dict(made.state_dict())
    np.testing.assert_array_equal(codes_of(made, True), codes_of(other, True))
    np.testing.assert_array_equal(first, codes_of(made.fork(), True))


def test_calls_may_be_split_anywhere():
    """Nothing depends on which vectors are read together: probes are fixed by the array alone."""
    made, other = chip(3.0), chip(3.0)
    data = np.random.default_rng(5).integers(0, 256, (40, ROWS))
    for item in (made, other):
        item.configure("layer", input_range=(0.0, 0.2), output_range=2e-4)
    whole = made.mvm("layer", data).codes
    parts = [other.mvm("layer", part).codes for part in (data[:7], data[7:8], data[8:])]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_read_noise_of_nonlinear_cells():
    """Scatter of repeated reads by products against reads that draw every cell and solve: 30 %, seed 3.

    4000 reads give each scatter within 1.1 % (one standard deviation); what remains is first order.
    """
    noisy = {"read_noise": ReadNoiseConfig(sigma_relative=0.05)}
    scatter = []
    for tolerance, n in ((2e-3, 4000), (0.0, 300)):
        made = chip(3.0, tolerance=tolerance, cells=noisy)
        made.configure("layer", input_range=(0.0, 0.2), output_range=2e-4)
        data = np.tile(np.random.default_rng(6).integers(0, 256, ROWS), (n, 1))
        scatter.append(made.mvm("layer", data, per_tile=True).codes.std(axis=0))
    np.testing.assert_allclose(np.mean(scatter[0] / scatter[1]), 1.0, atol=0.05)
    np.testing.assert_allclose(scatter[0], scatter[1], rtol=0.3)
