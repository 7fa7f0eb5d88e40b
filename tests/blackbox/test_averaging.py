"""Vectors that are read several times: less noise, the same matrix, and every read is charged."""

import numpy as np
import pytest

from finetune import Budget, tune
from finetune.meter import BudgetSpent, MeteredChip
from rramsim import AveragedReads, Gate, SimulatedChip, Tier, check_chip, evaluate_images
from rramsim.cell import ReadNoiseConfig
from rramsim.checks import InputError
from rramsim.chip.converters import ConverterConfig
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from tests.fake_chip import FakeChip
from tests.finetune import small

NOISY = ReadNoiseConfig(sigma_relative=0.15)


def noisy_chip(net, number=0, **converters):
    config = small.config(converters=ConverterConfig(**converters))
    cells = config.cells.__class__(
        n_levels=16, g_max=40e-6, on_off_ratio=30.0, law="lognormal", sigma=0.3, read_noise=NOISY
    )
    config = config.__class__(cells=cells, mapping=config.mapping, converters=config.converters)
    return SimulatedChip(config, layer_shapes(net), seed=5, chip=number)


@pytest.fixture(scope="module")
def net():
    return small.network()


@pytest.mark.parametrize("reads", [2, 4, 16])
def test_noise_falls_with_the_square_root(net, reads):
    """Standard deviations over 2,000 reads of one vector; scatter of the quotient below 4 % per column."""
    chip = noisy_chip(net, adc_bits=10)
    dep = Deployment(net, chip)
    dep.map(small.images())
    codes = np.tile(dep.codes("conv2/0", np.ones((1, 8, 4, 4), np.float32))[5], (2000, 1))
    single = chip.mvm("conv2/0", codes).codes.astype(float)
    averaged = AveragedReads(chip, reads)
    averaged.configure("conv2/0", output_range=dep.layers["conv2/0"].output_range)
    mean = averaged.mvm("conv2/0", codes).codes / (2 ** (averaged.datasheet.adc_bits - 1) - 1) * (2**9 - 1)
    assert np.allclose(mean.mean(axis=0), single.mean(axis=0), atol=0.6 + 0.005 * np.abs(single).max())
    quotient = single.std(axis=0).mean() / mean.std(axis=0).mean()
    assert quotient == pytest.approx(np.sqrt(reads), rel=0.06)


def test_one_read_changes_no_bit_and_every_read_is_charged(net):
    x = small.images(8)
    outputs, counts = [], []
    for reads in (None, 1, 4):
        chip = noisy_chip(net)
        deployment = Deployment(net, chip if reads is None else AveragedReads(chip, reads))
        deployment.map(x)
        written = chip.ledger.total.seconds
        outputs.append(deployment.run(x))
        counts.append(chip.ledger.total)
        counts[-1].seconds -= written
    np.testing.assert_array_equal(outputs[0], outputs[1])
    for quantity in ("vectors", "array_reads", "conversions"):
        assert getattr(counts[2], quantity) == 4 * getattr(counts[0], quantity)
    assert counts[2].seconds == pytest.approx(4 * counts[0].seconds)


def test_budget_counts_every_read(net):
    metered = MeteredChip(AveragedReads(noisy_chip(net), 4), Budget(vectors=100))
    metered.configure("fc", input_range=(0.0, 0.2), output_range=1e-4)
    metered.mvm("fc", np.ones((25, 12), np.int64))
    assert metered.vectors == 100 == metered.ledger.total.vectors
    with pytest.raises(BudgetSpent):
        metered.mvm("fc", np.ones((1, 12), np.int64))


def test_saturation_of_any_read_marks_the_mean(net):
    chip = AveragedReads(noisy_chip(net), 2)
    chip.write("fc", np.full((12, 5, 2), (15, 0)))
    chip.configure("fc", input_range=(0.0, 0.2), output_range=1e-7)
    codes, saturated = chip.mvm("fc", np.full((3, 12), 200))
    assert saturated.all()
    assert (codes == 2 * 127).all()


@pytest.mark.parametrize("kind", ["differential", "reference", "sliced"])
def test_averaged_chips_keep_the_protocol(kind):
    config = small.config(kind=kind, sigma=0.1)
    check_chip(AveragedReads(SimulatedChip(config, {"a": (40, 6), "b": (6, 9)}), 8), exercise=True)
    real = AveragedReads(FakeChip({"a": (40, 6)}), 2)  # a chip without forks has none then either
    check_chip(real, exercise=True)
    assert not hasattr(real, "fork")


def test_gated_and_parallel_copies_draw_what_one_draws(net):
    x = small.images(40)
    chip = AveragedReads(noisy_chip(net), 2)
    deployment = Deployment(net, chip)
    deployment.map(x)
    whole = evaluate_images(deployment, x)
    np.testing.assert_array_equal(whole, evaluate_images(deployment, x))
    np.testing.assert_array_equal(whole, Deployment.on(deployment, Gate(chip.fork(0), Tier.LAYERS)).run(x))


def test_tuned_with_more_reads_errs_less(net):
    """Means of two chips; noise at every read is what is left after tuning."""
    calibration, errors = small.images(), {1: [], 8: []}
    for number in range(2):
        for reads, found in errors.items():
            chip = AveragedReads(noisy_chip(net, number), reads)
            report = tune(chip, net, net, calibration)
            assert report.vectors == chip.ledger.total.vectors
            found.append(small.logit_error(net, report.deployment.fork()))
    assert np.mean(errors[8]) < 0.6 * np.mean(errors[1]), errors


@pytest.mark.parametrize("reads", [0, 3, 128, 2.5, True])
def test_numbers_of_reads_are_checked(net, reads):
    with pytest.raises(InputError, match="power of two"):
        AveragedReads(noisy_chip(net), reads)
