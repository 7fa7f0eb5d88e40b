"""Converters with errors of their own against the same conversion written in NumPy."""

import numpy as np
import pytest

from rramsim.cell import DisturbConfig
from rramsim.checks import InputError
from rramsim.chip.converters import ConverterConfig, ConverterErrors
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import SimulatedChip
from rramsim.circuit.wiring import WiresConfig
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from tests.chip.conftest import conv_network, exact_cells, exact_chip

RANGE = 2e-4  # [A]


def chip_with(errors, *, wires=None, kind="differential", **converters):
    settings = {"dac_bits": 6, "adc_bits": 8, "adc_noise": 0.0}
    config = exact_chip(
        MappingConfig(kind=kind, tile_rows=16, tile_cols=8),
        cells=exact_cells(n_levels=16),
        converters=ConverterConfig(**(settings | converters), errors=errors),
        wires=wires,
    )
    chip = SimulatedChip(config, {"layer": (30, 6)}, seed=4)
    rng = np.random.default_rng(0)
    chip.write("layer", rng.integers(0, 16, (30, 6, chip.layers["layer"].cells_per_weight)))
    chip.configure("layer", input_range=(-0.2, 0.2), output_range=RANGE)
    return chip, rng.integers(-31, 32, (400, 30))


def ideal_currents(chip, drive):
    """Currents in ADC codes per row tile (n_vectors, n_tiles, n_cols) of drives [V] (n_vectors, n_rows)."""
    g = chip.conductances("layer").astype(float)
    pair = g[:, :, 0] - g[:, :, 1]
    tiles = chip.layers["layer"].row_tiles
    return np.stack([drive[:, a:b] @ pair[a:b] for a, b in tiles], axis=1) / RANGE * 127


def test_gain_and_offset_of_every_adc():
    chip, codes = chip_with(ConverterErrors(adc_gain=0.05, adc_offset=2.0))
    mismatch = chip._layers["layer"].mismatch
    gain, offset = mismatch.adc_gain, mismatch.adc_offset
    assert gain.shape == (2, 6)
    assert np.unique(gain).size == np.unique(offset).size == 12
    x = ideal_currents(chip, codes / 31 * 0.2) * gain + offset
    got = chip.mvm("layer", codes, per_tile=True).codes
    clear = np.abs(x - np.floor(x) - 0.5) > 1e-3  # float32 may round the others either way
    np.testing.assert_array_equal(got[clear], np.clip(np.rint(x), -127, 127)[clear])
    assert clear.mean() > 0.99


def test_mismatch_has_the_stated_spread_and_other_chips_have_other_converters():
    """1200 draws: standard error 2 %, bound of five of them; false alarms below 1e-6."""
    gains, offsets = [], []
    for number in range(100):
        config = chip_with(ConverterErrors(adc_gain=0.05, adc_offset=2.0))[0].config
        mismatch = SimulatedChip(config, {"layer": (30, 6)}, seed=4, chip=number)._layers["layer"].mismatch
        gains.append(mismatch.adc_gain)
        offsets.append(mismatch.adc_offset)
    assert abs(np.std(gains) / 0.05 - 1) < 0.1
    assert abs(np.std(offsets) / 2.0 - 1) < 0.1
    assert abs(np.mean(gains) - 1) < 0.01


def test_uneven_steps_of_every_adc():
    chip, codes = chip_with(ConverterErrors(adc_inl=2.0, adc_dnl=0.5))
    edges = chip._layers["layer"].mismatch.adc_edges
    assert edges.shape == (2, 6, 254)
    assert (np.diff(edges) >= 0).all()
    assert np.abs(edges - (np.arange(-127, 127) + 0.5)).max() > 2.0
    x = ideal_currents(chip, codes / 31 * 0.2)
    want = np.empty(x.shape, dtype=int)
    for t in range(2):
        for c in range(6):
            want[:, t, c] = np.searchsorted(edges[t, c], x[:, t, c], side="right") - 127
    got = chip.mvm("layer", codes, per_tile=True).codes
    assert (got != want).mean() < 2e-3  # float32 at an edge
    assert np.abs(got - want).max() <= 1
    assert (want != np.clip(np.rint(x), -127, 127)).mean() > 0.3


def test_steps_of_every_dac_are_what_the_array_sees():
    chip, codes = chip_with(ConverterErrors(dac_inl=1.0, dac_dnl=0.2), adc_bits=16)
    steps = chip._layers["layer"].mismatch.dac_steps(True)
    assert steps.shape == (30, 63)
    assert (steps[:, [0, -1]] == np.array([-31, 31]) * 256).all()  # ends are where they should be
    drive = steps[np.arange(30), codes + 31] / 256 / 31 * 0.2
    want = ideal_currents(chip, drive) * 32767 / 127
    got = chip.mvm("layer", codes, per_tile=True).codes
    assert np.abs(got - want).max() < 0.51 + 2e-6 * 32767
    flat = ideal_currents(chip, codes / 31 * 0.2) * 32767 / 127
    assert np.abs(got - flat).max() > 50


@pytest.mark.parametrize("ohm", [0.0, 5.0])
def test_drivers_differ_from_word_line_to_word_line_and_array_to_array(ohm):
    wires = WiresConfig(r_word=ohm, r_bit=ohm) if ohm else None
    chip, _ = chip_with(ConverterErrors(driver_gain=0.1), adc_bits=16, wires=wires)
    plain, _ = chip_with(None, adc_bits=16, wires=wires)
    gain = chip._layers["layer"].array.driver_gain
    assert gain.shape == (30, 12)
    assert np.unique(gain).size == 30 * 2  # columns 0-3 lie on one array, 4 and 5 on another
    one_hot = np.eye(30, dtype=int) * 31
    got = chip.mvm("layer", one_hot).codes
    want = plain.mvm("layer", one_hot).codes * gain[:, 0::2]
    assert np.abs(got - want).max() <= 2


def test_errors_of_dacs_reach_every_window_of_a_convolution(images):
    network = conv_network()
    config = exact_chip(
        converters=ConverterConfig(
            dac_bits=6, adc_bits=12, adc_noise=0.0, errors=ConverterErrors(dac_inl=1.0, adc_gain=0.02)
        )
    )
    chip = SimulatedChip(config, layer_shapes(network))
    deployment = Deployment(network, chip)
    deployment.map(images)
    trace = deployment.trace(images)
    codes = trace.codes("conv2")
    laid_out = chip.fork().mvm("conv2", codes).codes
    x = trace.activations("relu1")
    window_codes = deployment._window_codes("conv2", x)
    as_maps = chip.fork().mvm("conv2", window_codes).codes
    np.testing.assert_array_equal(as_maps, laid_out)


def test_ideal_errors_change_no_bit():
    ideal, codes = chip_with(None)
    zero, _ = chip_with(ConverterErrors())
    np.testing.assert_array_equal(ideal.mvm("layer", codes).codes, zero.mvm("layer", codes).codes)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ConverterErrors(adc_gain=-0.1), "adc_gain"),
        (lambda: ConverterErrors(driver_gain=1.5), "driver_gain"),
        (lambda: ConverterConfig(adc_bits=16, errors=ConverterErrors(adc_dnl=0.1)), "adc_bits <= 12"),
        (
            lambda: ConverterConfig(input_mode="bit_serial", errors=ConverterErrors(dac_inl=0.1)),
            "bit_serial",
        ),
        (
            lambda: exact_chip(
                converters=ConverterConfig(errors=ConverterErrors(dac_inl=0.1)),
                disturb=DisturbConfig(law="power"),
            ),
            "even DAC steps",
        ),
    ],
)
def test_errors_that_would_do_nothing_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
