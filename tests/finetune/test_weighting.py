"""Columns weighed by the distillation loss, and columns judged by re-measured outputs."""

import numpy as np
import pytest

from finetune.bench import Bench
from finetune.evidence.layer import Work
from finetune.evidence.samples import Samples
from finetune.meter import Budget
from finetune.strategies.composition import parse_strategy
from finetune.strategies.rewrite import Best
from finetune.tuner import tune
from rramsim.blackbox.protocol import ForwardingChip, Tier
from rramsim.checks import InputError
from rramsim.host.deployment import Deployment
from tests.finetune import small

SILENT = 3  # channel of conv2 (group 0) that the next layer ignores
GUIDED = (
    "lsq.rewrite(weights='distillation') + lsq.affine + adapter(rank=2, weights='distillation')"
    " + sparse(fraction=0.05, weights='distillation')"
)


@pytest.fixture(scope="module")
def teacher():
    net = small.network()
    net.node("fc").parameters["weight"][SILENT] = 0.0
    return net


def on_bench(chip, net, calibration):
    start = small.mapped(net, chip, calibration)
    return Bench(chip, net, net, calibration, tier=Tier.LAYERS, start_from=start)


def test_a_channel_that_cannot_matter_weighs_nothing(teacher, calibration):
    bench = on_bench(small.chip(teacher), teacher, calibration)
    work = Work(bench, bench.deployment.trace(calibration), "conv2/0")
    before = bench.meter.vectors
    weights = bench.channel_sensitivity("conv2")
    assert weights[SILENT] < 1e-9 * np.median(weights)
    assert (np.delete(weights, SILENT) > 0).all()
    relative = work.column_weights("distillation")
    assert relative.shape == (6,)
    assert relative.mean() == pytest.approx(1.0)
    np.testing.assert_array_equal(work.column_weights("variance"), np.ones(6))
    assert Samples(work, 500, weights="distillation").importance[SILENT] == pytest.approx(0.0, abs=1e-12)
    assert bench.meter.vectors == before  # the host worked it out alone


def test_its_cells_are_left_alone(teacher, calibration):
    plain = Deployment(teacher, small.chip(teacher)).nearest_levels("conv2/0")

    def changed(text):
        report = tune(small.chip(teacher), teacher, teacher, calibration, strategy=text)
        return report, (report.deployment.layers["conv2/0"].levels != plain).any(axis=(0, 2))

    report, columns = changed(GUIDED)
    assert not columns[SILENT]
    assert columns.sum() == 5
    index = report.deployment.layers["conv2/0"].sparse_index
    assert SILENT not in index[:, 1]
    assert changed("default")[1].all()
    assert small.logit_error(teacher, report.deployment) < 0.05


def test_unknown_weights_are_refused():
    for step in ("lsq.rewrite", "adapter", "sparse"):
        with pytest.raises(InputError, match=f"{step}: weights: unknown name 'kd'"):
            parse_strategy(f"{step}(weights='kd')")


# -- acceptance -------------------------------------------------------------------------------------


class Spoilt(ForwardingChip):
    """The seventh write to fc (the last pass) leaves column 0 reset, as a failing driver might."""

    def __init__(self, chip):
        super().__init__(chip)
        self.n_writes = 0

    def write(self, layer, levels, mask=None):
        if layer == "fc":
            self.n_writes += 1
            if self.n_writes == 7:
                levels, mask = levels.copy(), mask.copy()
                levels[:, 0], mask[:, 0] = 0, True
        super().write(layer, levels, mask)


def column_errors(net, deployment):
    x = small.images(200, 9)
    return np.square(deployment.run(x) - net.run(x)).mean(axis=0)


def test_a_column_that_ended_worse_is_offered_again(calibration):
    net, ratios = small.network(), []
    for number in range(6):
        errors = {}
        for accept in (False, True):
            text = f"lsq.rewrite(rewrites=2.0, accept={accept}) + lsq.affine"
            chip = Spoilt(small.chip(net, number))
            report = tune(chip, net, net, calibration, strategy=text)
            assert chip.n_writes > 6
            errors[accept] = column_errors(net, report.deployment)[0]
        ratios.append(errors[True] / errors[False])
    assert max(ratios) < 0.6
    assert np.mean(ratios) < 0.3


def test_worse_means_worse_than_the_best_and_beyond_chance(calibration):
    net = small.network()
    bench = on_bench(small.chip(net), net, calibration)
    work = Work(bench, bench.deployment.trace(calibration), "conv2/0")
    samples = Samples(work, 1000)
    best, rng = Best(samples), np.random.default_rng(0)

    def reading(*sizes):
        noise = rng.normal(size=samples.target.shape).astype(np.float32)
        return samples.target + noise * np.float32(samples.target.std()) * np.array(sizes, dtype=np.float32)

    assert not best.worse(reading(1, 1, 1, 1, 1, 1)).any()
    # two better, two as before, two worse; a false alarm among the middle ones has probability 0.05
    first = best.worse(reading(0.5, 0.5, 1, 1, 1.5, 1.5))
    assert first.tolist() == [False, False, False, False, True, True]
    # the yardstick is the best so far, not the last
    assert best.worse(reading(0.8, 0.5, 1, 1, 0.7, 1.5)).tolist() == [True, False, False, False, False, True]


def test_acceptance_stays_within_the_rewrites_and_the_budget(calibration):
    net = small.network()
    n_cells = sum(info.n_cells for info in small.chip(net).layers.values())
    plain = small.mapped(net, small.chip(net), calibration)
    first = plain.chip.ledger.total.cell_writes
    report = tune(small.chip(net), net, net, calibration, strategy="lsq.rewrite(accept=True, rewrites=0.3)")
    assert report.finished
    assert report.cell_writes <= first + 0.3 * n_cells
    limited = tune(
        small.chip(net),
        net,
        net,
        calibration,
        strategy="lsq.rewrite(accept=True)",
        budget=Budget(writes_per_cell=first / n_cells + 0.05),
    )
    assert limited.cell_writes <= first + 0.05 * n_cells
