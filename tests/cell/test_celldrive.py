"""Fast stress accounting on resistive wires against solved cell voltages."""

import numpy as np
import pytest

from rramsim.cell import CellArray, CellsConfig, DisturbConfig
from rramsim.circuit.estimates import cell_drive
from rramsim.circuit.solve import cell_voltages
from rramsim.circuit.wiring import WiresConfig

N = 48
WIRES = WiresConfig(r_word=4.0, r_bit=4.0)


def arrays(v_read):
    config = DisturbConfig(law="power", v_read=v_read, cycles_before=1000)
    pair = [CellArray((N, N), CellsConfig(sigma=0.3), disturb=config, seed=1) for _ in range(2)]
    levels = np.random.default_rng(0).integers(0, 16, (N, N))
    for array in pair:
        array.write(levels)
    return pair


def inputs(kind, v_read):
    rng = np.random.default_rng(2)
    if kind == "sparse":
        codes = np.clip(np.round(rng.exponential(40, (200, N)) * (rng.random((200, N)) < 0.5)), 0, 255) / 255
    elif kind == "signed":
        codes = rng.integers(-127, 128, (200, N)) / 127
    else:
        codes = (255 - rng.integers(0, 30, (200, N))) / 255
    return codes * v_read


class TestCellDrive:
    @pytest.mark.parametrize("kind", ["sparse", "signed", "dense"])
    def test_stress_close_to_exact(self, kind):
        """Measured at 128 x 128 and 2.5 ohm in docs/cells.md; here the median within 5 %."""
        fast, exact = arrays(0.3)
        v_in = inputs(kind, 0.3)
        g = fast.conductance.astype(float)
        slope, offset = cell_drive(g, v_in.mean(axis=0), np.sqrt((v_in**2).mean(axis=0)), WIRES)
        voltages = np.unique(v_in)
        counts = np.stack([(v_in == v).sum(axis=0) for v in voltages], axis=1)
        fast.add_reads(counts, voltages, slope, offset)
        exact.add_cell_voltages(cell_voltages(g, v_in, WIRES))
        ratio = fast.stress / exact.stress
        assert np.median(ratio) == pytest.approx(1.0, abs=0.05)
        assert np.quantile(np.abs(ratio - 1.0), 0.95) < 0.2
        for array in (fast, exact):
            array.add_reads(counts * 1e6, voltages, slope, offset)
        change = fast.conductance / exact.conductance - 1.0
        assert np.abs(change).max() < 0.02

    def test_mean_input_gives_the_mean_cell_voltage(self):
        array, _ = arrays(0.3)
        v_mean = np.linspace(0.0, 0.2, N)
        slope, offset = cell_drive(array.conductance, v_mean, v_mean, WIRES)
        solved = cell_voltages(array.conductance.astype(float), v_mean[None], WIRES)[0]
        np.testing.assert_allclose(slope * v_mean[:, None] + offset, solved, atol=1e-12)

    def test_ideal_wires_give_slope_one(self):
        array, _ = arrays(0.3)
        v = np.full(N, 0.1)
        slope, offset = cell_drive(array.conductance, v, v, WiresConfig(r_word=1e-9, r_bit=1e-9))
        np.testing.assert_allclose(slope, 1.0, atol=1e-9)
        np.testing.assert_allclose(offset, 0.0, atol=1e-9)

    @pytest.mark.parametrize("polarity", ["negative", "bipolar", "alternating"])
    def test_affine_sum_equals_exact_for_affine_voltages(self, polarity):
        """Cell voltages that are affine in the input leave only the table's interpolation, 1e-4."""
        config = DisturbConfig(law="power", v_read=0.3, polarity=polarity, balance=-0.2)
        fast, exact = (CellArray((5, 4), CellsConfig(), disturb=config, seed=1) for _ in range(2))
        for array in (fast, exact):
            array.write(np.full((5, 4), 9))
            array.write(np.full((5, 4), 9), np.arange(20).reshape(5, 4) % 2 == 0)
        rng = np.random.default_rng(3)
        slope, offset = rng.uniform(0.7, 1.0, (5, 4)), rng.uniform(-0.05, 0.05, (5, 4))
        codes = rng.integers(-3, 4, (100, 5))
        counts = np.stack([(codes == code).sum(axis=0) for code in range(-3, 4)], axis=1)
        fast.add_reads(counts, 0.1 * np.arange(-3, 4), slope, offset)
        exact.add_cell_voltages(slope * (0.1 * codes)[:, :, None] + offset)
        scale = np.abs(exact.stress).max()
        np.testing.assert_allclose(fast.stress, exact.stress, rtol=1e-4, atol=1e-4 * scale)
