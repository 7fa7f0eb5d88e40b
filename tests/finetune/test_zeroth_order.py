"""Zeroth-order strategies on a small network: what they lower, cost, and leave alone."""

import numpy as np
import pytest

from finetune.bench import Bench
from finetune.evidence.host_vector import HostParameters
from finetune.evidence.measurement import Measurement
from finetune.evidence.sensitivity import channel_sensitivity, descendants, image_weights
from finetune.meter import Budget
from finetune.strategies.composition import parse_strategy
from finetune.strategies.zeroth_order import tail_layers
from finetune.tuner import Tuner, tune
from rramsim.blackbox.gate import Gate
from rramsim.blackbox.protocol import Tier
from rramsim.checks import InputError
from rramsim.streams import Cause, stream
from tests.finetune import small
from tests.finetune.small import mapped


def errors(net, calibration, strategy, numbers=(0, 1, 2), common_shift=True, **changes):
    """Logit errors of mapped and of tuned chips."""
    before, after, reports = [], [], []
    for number in numbers:
        plain = mapped(net, small.chip(net, number, **changes), calibration)
        before.append(small.logit_error(net, plain, common_shift=common_shift))
        report = tune(small.chip(net, number, **changes), net, net, calibration, strategy=strategy)
        after.append(small.logit_error(net, report.deployment, common_shift=common_shift))
        reports.append(report)
    return np.array(before), np.array(after), reports


@pytest.mark.parametrize(
    "strategy, share",
    [
        ("zo.local(rounds=60)", 0.8),
        ("zo.local(rounds=60, rank=4)", 0.6),
        ("zo.local(rounds=80, method='spsa', rate=0.2)", 0.9),
        ("zo.local(rounds=80, method='coordinate', rate=0.4)", 0.9),
        ("zo.levels(trials=12)", 0.98),
        ("zo(reach=-1, parameters='gain+offset', steps=2)", 0.8),
        ("zo(method='line', reach=-1, steps=60, perturbation=0.1)", 0.95),
        ("zo(method='spsa', reach=-1, steps=60, rule='momentum', rate=0.05)", 0.97),
        ("zo(method='evolution', reach=0, parameters='offset', steps=15, perturbation=0.1)", 0.97),
    ],
)
def test_lowers_the_error_of_mapped_chips(net, calibration, strategy, share):
    before, after, reports = errors(net, calibration, strategy)
    assert after.mean() < share * before.mean()
    if "levels" not in strategy:
        programmed = int(
            sum((q != 0).sum() for q in map(reports[0].deployment.nearest_levels, reports[0].ledger.layers))
        )
        assert reports[0].cell_writes == programmed  # the plain mapping and no write more


def test_range_is_found_again(net, calibration):
    """Converters set far too wide for 4 bits: the search brings most of the loss back."""
    from rramsim.chip.converters import ConverterConfig

    table = []
    for number in range(12):
        row = []
        for strategy, widening in (("lsq.affine", 0.0), ("lsq.affine", 1.0), ("zo.range + lsq.affine", 1.0)):
            chip = small.chip(net, number, converters=ConverterConfig(adc_bits=4))
            deployment = mapped(net, chip, calibration)
            parameters = HostParameters(deployment, list(deployment.layers), ("range",))
            parameters.write(parameters.read() + widening)
            text = strategy.replace("zo.range", "zo.range(rounds=6)")
            report = tune(chip, net, net, calibration, strategy=text, start_from=deployment)
            row.append(small.logit_error(net, report.deployment))
        table.append(row)
    good, wide, found = np.mean(table, axis=0)
    assert found < wide - 0.5 * (wide - good)


def test_after_least_squares_it_does_no_harm(net, calibration):
    """By what the distillation loss sees: a shift common to all logits is free to it."""
    first = "lsq.affine + adapter(rank=2)"
    least = errors(net, calibration, first, range(12), common_shift=False)[1]
    both = errors(net, calibration, f"{first} + zo(reach=0, steps=2)", range(12), common_shift=False)[1]
    assert both.mean() < 1.05 * least.mean()


def test_the_named_scheme_keeps_up_with_the_default(net, calibration):
    least = errors(net, calibration, "default")[1]
    both, reports = errors(net, calibration, "lsq+kd+zo")[1:]
    assert both.mean() < 1.15 * least.mean()
    assert {"lsq.rewrite", "zo"} <= {row["step"] for row in reports[0].history}


@pytest.mark.parametrize(
    "strategy",
    [
        "zo.local(rounds=5, rank=2)",
        "zo.range(rounds=2)",
        "zo.levels(trials=3)",
        "zo(steps=1, reach=0)",
        "zo(method='spsa', cached=False, steps=4, reach=-1)",
        "maintain(passes=2) + lsq.affine",
        "reference.surrogate(steps=3)",
    ],
)
def test_interrupted_ends_as_if_never_stopped(net, calibration, strategy):
    def make():
        return Tuner(small.chip(net), net, net, calibration, strategy=strategy)

    whole = make()
    while not whole.step():
        pass
    first = make()
    first.step()
    second = make()
    second.load_state_dict(first.state_dict())
    while not second.step():
        pass
    for name, host in whole.bench.deployment.layers.items():
        other = second.bench.deployment.layers[name]
        np.testing.assert_array_equal(host.gain, other.gain)
        np.testing.assert_array_equal(host.offset, other.offset)
        np.testing.assert_array_equal(host.levels, other.levels)
    assert whole.report().vectors == second.report().vectors


@pytest.mark.parametrize(
    "strategy", ["zo.local(rounds=20)", "zo(steps=2, reach=-1)", "zo(method='spsa', cached=False, steps=50)"]
)
def test_stops_within_its_budget_in_a_usable_state(net, calibration, strategy):
    before, after = [], []
    for number in range(6):
        before.append(small.logit_error(net, mapped(net, small.chip(net, number), calibration)))
        chip = small.chip(net, number)
        report = tune(chip, net, net, calibration, strategy=strategy, budget=Budget(vectors=40_000))
        assert not report.finished
        assert report.vectors <= 40_000
        after.append(small.logit_error(net, report.deployment.on(chip)))
    assert np.mean(after) < 1.25 * np.mean(before)


@pytest.mark.parametrize(
    "strategy",
    ["zo.local(rounds=6, rank=2)", "zo.range", "zo(steps=1, reach=0)", "zo(method='line', steps=3)"],
)
def test_plan_predicts_the_reads(net, calibration, strategy):
    tuner = Tuner(small.chip(net), net, net, calibration, strategy=strategy)
    planned = tuner.plan()["vectors"]
    while not tuner.step():
        pass
    used = tuner.report().vectors
    assert used <= 1.05 * planned
    if "line" not in strategy:  # caches spare a scalar method reads that its plan does not foresee
        assert used > 0.5 * planned


def test_works_with_outputs_alone(net, calibration):
    """Without caches nothing but the network's outputs is used: tier OUTPUTS lets it pass."""
    strategy = parse_strategy("zo(method='line', cached=False, steps=2, reach=-1)")
    assert strategy.needed_tier == Tier.OUTPUTS
    chip = small.chip(net)
    bench = Bench(chip, net, net, calibration, tier=Tier.OUTPUTS, start_from=mapped(net, chip, calibration))
    strategy.start(bench)
    while not strategy.advance(bench):
        pass
    assert bench.meter.cell_writes == 0


def test_measurement_reads_only_what_lies_behind_a_change(net, calibration):
    """With a noiseless converter the cached and the full measurement agree exactly."""
    from rramsim.chip.converters import ConverterConfig

    chip = small.chip(net, converters=ConverterConfig(adc_noise=0.0))
    deployment = mapped(net, chip, calibration)
    gated = deployment.on(Gate(chip, Tier.LAYERS))
    measurement = Measurement(gated, calibration[:16])
    np.testing.assert_array_equal(measurement.base(), deployment.run(calibration[:16]))
    gated.layers["conv2/1"].gain *= 1.2
    before = chip.ledger.total.vectors
    predicted = measurement.vectors({"conv2"})
    changed = measurement.changed({"conv2"})
    assert chip.ledger.total.vectors - before == predicted == 16
    np.testing.assert_allclose(changed, gated.run(calibration[:16]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(measurement.base({"conv2"}), changed, rtol=1e-5, atol=1e-5)


def test_parameters_read_what_was_written(net, calibration):
    deployment = mapped(net, small.chip(net), calibration)
    host = deployment.layers["fc"]
    host.down, host.up = np.ones((12, 2)), np.zeros((2, 5))
    parameters = HostParameters(deployment, ["conv1", "fc"], ("gain", "offset", "adapter", "range", "norm"))
    x = parameters.read() + 0.01 * stream(0, Cause.TUNER).standard_normal(parameters.n)
    start = parameters.read()
    parameters.write(x)
    np.testing.assert_allclose(parameters.read(), x, rtol=1e-6)
    assert parameters.touched(start, x) == {"conv1", "fc", "norm1"}
    assert parameters.scale.shape == parameters.blocks.shape == (parameters.n,)
    with pytest.raises(InputError, match="adapter"):
        HostParameters(deployment, ["conv1"], ("adapter",))


def test_a_wider_range_keeps_the_gain(net, calibration):
    """Full scale and unit change together: outputs stay the same but for rounding."""
    deployment = mapped(net, small.chip(net), calibration)
    before = deployment.run(calibration)
    parameters = HostParameters(deployment, ["fc"], ("range",))
    parameters.write(parameters.read() + 0.1)
    assert np.square(deployment.run(calibration) - before).mean() < 0.01 * before.var()


def test_tail_is_what_little_lies_behind(net, calibration):
    bench = Bench(small.chip(net), net, net, calibration)
    assert tail_layers(bench, 0) == ["fc"]
    assert tail_layers(bench, 1) == ["conv2/0", "conv2/1", "fc"]


def test_channel_weights_find_what_the_logits_hear(net, calibration):
    """A channel whose way on is cut has no weight; a louder way on has more."""
    fc = net.node("fc").parameters["weight"].copy()
    fc[3], fc[7] = 0.0, 4.0 * fc[7]
    deaf = net.replace("fc", {**net.node("fc").parameters, "weight": fc})
    weights = channel_sensitivity(deaf, calibration[:24], "conv2")
    usual = channel_sensitivity(net, calibration[:24], "conv2")
    assert weights.shape == (12,)
    assert (np.delete(weights, 3) > 0).all()
    assert weights[3] < 1e-9 * weights.max()
    assert weights[7] > 3.0 * usual[7]
    assert descendants(net, "relu2") == {"relu2", "pool", "flatten", "fc"}
    spread = image_weights(np.array([[9.0, 0.0, 0.0], [0.1, 0.0, 0.0]]))
    assert spread[1] > spread[0]
    assert spread.mean() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "text, message",
    [
        ("zo(method='spas')", "spsa"),
        ("zo(parameters='gains')", "gain"),
        ("zo(steps=0)", "steps"),
        ("zo.local(method='lines')", "line"),
        ("zo.local(rounds=0)", "rounds"),
        ("zo.range(rounds=0)", "rounds"),
        ("zo.levels(span=0)", "span"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(InputError, match=message):
        parse_strategy(text)
