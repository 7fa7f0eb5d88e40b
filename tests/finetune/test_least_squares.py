"""Least-squares strategies on small networks: what they recover, cost, and leave alone."""

import threading

import numpy as np
import pytest

from finetune.bench import Bench
from finetune.evidence.identify import cell_factors, conductances, identify, learn
from finetune.evidence.layer import Work
from finetune.evidence.samples import take_samples
from finetune.tuner import tune
from rramsim.blackbox.protocol import Tier
from rramsim.blackbox.remote import ChipListener, RemoteChip, serve_chip
from rramsim.host.layer import layer_shapes
from tests.fake_chip import FakeChip
from tests.finetune import small
from tests.finetune.small import mapped


def tuned_error(net, calibration, strategy, numbers=(0, 1, 2), **changes):
    """Mean error of the logits over a few chips."""
    errors = []
    for number in numbers:
        report = tune(small.chip(net, number, **changes), net, net, calibration, strategy=strategy)
        errors.append(small.logit_error(net, report.deployment))
    return float(np.mean(errors))


def plain_error(net, calibration, numbers=(0, 1, 2), **changes):
    return float(
        np.mean(
            [small.logit_error(net, mapped(net, small.chip(net, n, **changes), calibration)) for n in numbers]
        )
    )


@pytest.mark.parametrize(
    "strategy, share",
    [
        ("lsq.affine", 0.8),
        ("batch_norm", 0.9),
        ("lsq.affine + adapter(rank=2)", 0.6),
        ("lsq.affine + sparse(fraction=0.1)", 0.7),
        ("lsq.open_loop + lsq.affine", 0.9),
        ("lsq.closed_loop(rounds=2) + lsq.affine", 0.7),
        ("lsq.sequential + lsq.affine", 0.5),
        ("lsq.rewrite + lsq.affine", 0.3),
        ("default", 0.2),
    ],
)
def test_each_strategy_leaves_a_share_of_the_error(net, calibration, strategy, share):
    assert tuned_error(net, calibration, strategy) < share * plain_error(net, calibration)


@pytest.mark.parametrize(
    "changes, share",
    [
        ({"kind": "reference", "sigma": 0.2}, 0.5),
        ({"law": "additive", "sigma": 0.06}, 0.5),
        ({"stuck": 0.02}, 0.3),
    ],
)
def test_default_under_other_conditions(net, calibration, changes, share):
    assert tuned_error(net, calibration, "default", **changes) < share * plain_error(
        net, calibration, **changes
    )


def test_shuffled_teacher_recovers_nothing(net, calibration):
    report = tune(small.chip(net), net, net, calibration, shuffle_teacher=True)
    # targets that have nothing to do with the inputs leave their mean: all of the variance is lost
    assert small.logit_error(net, report.deployment) > 0.7


@pytest.mark.parametrize("strategy", ["lsq.affine", "batch_norm", "adapter", "sparse", "lsq.identify"])
def test_digital_strategies_write_no_cell(net, calibration, strategy):
    chip = small.chip(net)
    start = mapped(net, chip, calibration)
    before, cells = chip.ledger.total.cell_writes, chip.state_dict()
    report = tune(chip, net, net, calibration, strategy=strategy, start_from=start)
    assert report.cell_writes == 0
    assert chip.ledger.total.cell_writes == before
    after = chip.state_dict()
    assert all(after[name]["cells"].keys() == cells[name]["cells"].keys() for name in cells)


def test_starting_from_a_mapped_chip_erases_first(net, calibration):
    chip = small.chip(net)
    start = mapped(net, chip, calibration)
    report = tune(chip, net, net, calibration, strategy="lsq.sequential + lsq.affine", start_from=start)
    assert report.cell_writes > chip.ledger.total.weight_cells * 0.8
    assert small.logit_error(net, report.deployment) < 0.5 * plain_error(net, calibration, (0,))


def test_a_chip_of_thirty_lines_is_enough(net, calibration):
    chip = FakeChip(layer_shapes(net))
    report = tune(chip, net, net, calibration)
    plain = mapped(net, FakeChip(layer_shapes(net)), calibration)
    assert small.logit_error(net, report.deployment) < 0.3 * small.logit_error(net, plain)
    assert report.cell_writes == chip.ledger.total.cell_writes
    assert report.vectors < chip.ledger.total.vectors  # evaluation came after


def test_same_result_through_a_pipe(net, calibration):
    """The tuner reaches nothing but the protocol: a chip in another process behaves the same."""
    near = tune(small.chip(net), net, net, calibration)
    with ChipListener(("localhost", 0), authkey=b"key") as listener:
        thread = threading.Thread(target=serve_chip, args=(small.chip(net), listener), daemon=True)
        thread.start()
        far = RemoteChip(listener.address, b"key")
        report = tune(far, net, net, calibration)
        far.close()
        thread.join(30)
    assert report.ledger == near.ledger
    for name, host in near.deployment.layers.items():
        np.testing.assert_array_equal(host.levels, report.deployment.layers[name].levels)
        np.testing.assert_array_equal(host.gain, report.deployment.layers[name].gain)


# -- parts ------------------------------------------------------------------------------------


def work_on(net, calibration, layer, **changes):
    """A mapped layer on the bench, and its true weights."""
    chip = small.chip(net, **changes)
    start = mapped(net, chip, calibration)
    bench = Bench(chip, net, net, calibration, tier=Tier.LAYERS, start_from=start)
    return bench, Work(bench, bench.deployment.trace(calibration), layer)


def true_weights(chip, work):
    """What only the simulator knows: realised normalised weights of a differential layer."""
    g = chip._layers[work.layer].array.cells.conductance
    plus, minus = chip._layers[work.layer].array.layout.line_of.T
    return (g[:, plus] - g[:, minus]) / work.info.g_unit


@pytest.mark.parametrize("changes", [{}, {"law": "additive", "sigma": 0.06}, {"sigma": 0.5}])
def test_identification_is_calibrated(net, calibration, changes):
    bench, work = work_on(net, calibration, "conv2/0", **changes)
    chip = bench.meter._chip
    samples = take_samples(work)
    reading = samples.read()
    spread, noise, reading = learn(work, samples, reading, 1.0)
    g = conductances(work)
    estimate = identify(samples, reading, samples.stored(), spread.of(g).sum(axis=2), noise)
    truth = true_weights(chip, work)
    np.testing.assert_allclose(samples.stored(), g @ cell_factors(chip.datasheet, 2), atol=1e-12)
    before = np.square(samples.stored() - truth).mean()
    error = np.square(estimate.weights - truth)
    assert error.mean() < 0.2 * before
    # errors in units of the posterior's own standard deviation: mean square near 1
    assert 0.4 < np.mean(error / np.maximum(estimate.variance, 1e-12)) < 2.5
    assert ((estimate.determined > 0) & (estimate.determined <= 1)).all()
    wanted = np.square(chip.config.cells.error_law().sigma_conductance / work.info.g_unit)
    levels = np.asarray(chip.datasheet.levels) / work.info.g_unit
    upper = slice(4, None)  # low levels add little to what the outputs show
    assert 0.5 < np.sqrt(spread.of(levels)[upper].mean() / wanted[upper].mean()) < 2.0


def test_affine_is_least_squares(net, calibration):
    from finetune.strategies.affine import Affine

    _bench, work = work_on(net, calibration, "fc")
    codes, saturated = work.full_reading()
    Affine(ridge=0.0).tune_layer(work)
    for column in range(codes.shape[1]):
        free = ~saturated[:, column]
        design = np.stack([codes[free, column] * work.host.unit[column], np.ones(free.sum())], axis=1)
        expected = np.linalg.lstsq(design, work.target[free, column].astype(float), rcond=None)[0]
        np.testing.assert_allclose([work.host.gain[column], work.host.offset[column]], expected, rtol=1e-6)


def test_affine_survives_dead_columns_and_leaves_saturated_samples_out(net, calibration):
    from finetune.strategies.affine import Affine

    _bench, work = work_on(net, calibration, "fc")
    codes, saturated = work.full_reading()
    codes, saturated = codes.copy(), saturated.copy()
    codes[:, 0] = 3
    worst = np.argsort(-np.abs(codes[:, 1]))[:6]
    clean = np.setdiff1d(np.flatnonzero(~saturated[:, 1]), worst)
    codes[worst, 1], saturated[worst, 1] = 20, True
    work._reading = (codes, saturated)
    Affine(ridge=0.0).tune_layer(work)
    assert work.host.gain[0] == 0.0
    assert work.host.offset[0] == pytest.approx(work.target[:, 0].mean(), rel=1e-5)
    design = np.stack([codes[clean, 1] * work.host.unit[1], np.ones(clean.size)], axis=1)
    expected = np.linalg.lstsq(design, work.target[clean, 1].astype(float), rcond=None)[0]
    np.testing.assert_allclose([work.host.gain[1], work.host.offset[1]], expected, rtol=1e-6)


def test_full_rank_adapter_removes_what_is_linear(net, calibration):
    from finetune.strategies.adapter import Adapter

    bench, work = work_on(net, calibration, "conv2/1")
    before = float(np.square(work.target - work.outputs()).mean())
    Adapter(rank=6, ridge=1e-6, most=2.0).tune_layer(work)
    assert (
        float(np.square(work.target - work.outputs()).mean()) < 0.15 * before
    )  # the ADC's rounding and noise are left
    assert work.host.n_extra == 6 * (36 + 6)
    overhead = bench.deployment.digital_overhead()
    assert overhead["numbers"] == work.host.n_extra
    assert overhead["indices"] == 0
    assert overhead["macs"] == 64 * work.host.n_extra  # 8 x 8 positions
    macs = 64 * (9 * 8 + 36 * 12) + 12 * 5
    assert overhead["fraction_of_macs"] == pytest.approx(64 * 6 * (36 + 6) / macs)


def test_adapter_costs_less_than_the_layer(net, calibration):
    """36 rows and 6 columns, 216 products: rank 5 costs 210, rank 6 would cost 252."""
    from finetune.strategies.adapter import Adapter

    _bench, work = work_on(net, calibration, "conv2/1")
    Adapter(rank=6).tune_layer(work)
    assert work.host.n_extra == 5 * (36 + 6)
    Adapter(rank=6, most=0.1).tune_layer(work)
    assert work.host.down is None
    assert work.host.n_extra == 0


def test_sparse_correction_counts_its_entries(net, calibration):
    from finetune.strategies.sparse import Sparse

    _bench, work = work_on(net, calibration, "conv2/0")
    before = float(np.square(work.target - work.outputs()).mean())
    Sparse(fraction=0.1).tune_layer(work)
    assert float(np.square(work.target - work.outputs()).mean()) < 0.7 * before
    assert work.host.n_extra == int(0.1 * 36 * 6)
