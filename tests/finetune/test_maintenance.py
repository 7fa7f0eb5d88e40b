"""Maintenance under read disturbance, its schedule, and the reference points."""

import dataclasses

import numpy as np
import pytest

from finetune.caretaker import AlternatingReads, Caretaker, Policy, operate
from finetune.references import oracle
from finetune.strategies.maintain import Maintain
from finetune.strategies.surrogate import backward
from finetune.tuner import tune
from rramsim.cell import DisturbConfig
from rramsim.checks import InputError
from rramsim.chip.simulated import SimulatedChip
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from tests.finetune import small

DRIFT = DisturbConfig(law="drift", parameters={"rate": 0.15})


def disturbed_chip(net, number=0, disturb=DRIFT, layer_keys="position"):
    config = small.config(disturb=disturb)
    mapping = dataclasses.replace(config.mapping, layer_keys=layer_keys)
    config = dataclasses.replace(config, mapping=mapping)
    return SimulatedChip(config, layer_shapes(net), seed=5, chip=number)


def run(net, calibration, visit, numbers=(0, 1, 2), periods=3):
    """Logit errors after tuning and after each period, and writes per cell and period."""
    table, writes = [], []
    for number in numbers:
        chip = disturbed_chip(net, number)
        report = tune(chip, net, net, calibration, strategy="default")
        maintain = Maintain(rate=0.15, uniform=True)
        caretaker = Caretaker(chip, net, net, calibration, report.deployment.on(chip), maintain=maintain)
        rows = [small.logit_error(net, caretaker.deployment.fork())]
        for _ in range(periods):
            chip.age(1e6)
            if visit is not None:
                bench = caretaker.visit(write=visit)
                writes.append(bench.meter.cell_writes / bench.meter.n_cells)
            rows.append(small.logit_error(net, caretaker.deployment.fork()))
        table.append(rows)
    return np.mean(table, axis=0), float(np.mean(writes)) if writes else 0.0


def test_writes_keep_what_recalibration_loses(net, calibration):
    none, _ = run(net, calibration, None)
    free, no_writes = run(net, calibration, False)
    kept, writes = run(net, calibration, True)
    assert no_writes == 0.0
    assert none[-1] > free[-1] > kept[-1]
    assert kept[-1] < 0.75 * free[-1]
    assert 0.0 < writes < 1.0


def test_a_visit_resumes_with_its_memory(net, calibration):
    chip = disturbed_chip(net)
    report = tune(chip, net, net, calibration, strategy="lsq.affine")
    maintain = Maintain(rate=0.15, uniform=True)
    caretaker = Caretaker(chip, net, net, calibration, report.deployment.on(chip), maintain=maintain)
    caretaker.visit()
    copy = Maintain(rate=0.15, uniform=True)
    copy.load_state_dict(maintain.state_dict())
    for layer, belief in maintain.beliefs.items():
        np.testing.assert_array_equal(belief.mean, copy.beliefs[layer].mean)
        np.testing.assert_array_equal(belief.variance, copy.beliefs[layer].variance)
    assert copy.n_written == maintain.n_written


def test_beliefs_track_true_cells(net, calibration):
    """After a visit the expected weights are nearer to the true ones than the written levels are.

    The last layer has one vector an image and 120 cells: single chips scatter there, so four are pooled.
    """
    before, after = {}, {}
    first = None  # the individual of version 0.1, held by each of its layers
    for number in (None, 0, 1, 2, 3):
        chip = disturbed_chip(net, 0, layer_keys="name") if number is None else disturbed_chip(net, number)
        report = tune(chip, net, net, calibration, strategy="lsq.affine")
        chip.age(1e6)
        maintain = Maintain(rate=0.15, uniform=True, limit=0.0)
        Caretaker(chip, net, net, calibration, report.deployment.on(chip), maintain=maintain).visit()
        levels = np.asarray(chip.datasheet.levels)
        window = levels[-1] - levels[0]
        for layer, belief in maintain.beliefs.items():
            g = chip.conductances(layer).reshape(belief.mean.shape)
            true = (g[:, :, 0] - g[:, :, 1]) / window
            written = ((levels - levels[0]) / window)[report.deployment.layers[layer].levels]
            naive = written[:, :, 0] - written[:, :, 1]
            before[layer] = before.get(layer, 0.0) + np.square(naive - true).sum()
            after[layer] = after.get(layer, 0.0) + np.square(belief.weights - true).sum()
        if number is None:
            first = all(after[layer] < 0.7 * before[layer] for layer in before)
    assert first
    assert all(after[layer] < 0.1 * before[layer] for layer in before if layer != "fc")
    assert sum(after.values()) < 0.1 * sum(before.values())


def test_schedule_looks_acts_and_lengthens(net, calibration):
    chip = disturbed_chip(net)
    report = tune(chip, net, net, calibration, strategy="default")
    caretaker = Caretaker(
        chip, net, net, calibration, report.deployment.on(chip), maintain=Maintain(uniform=True)
    )
    heard = []
    operation = operate(caretaker, chip.age, 2e6, Policy(band=0.1, first_reads=2.5e5), on_visit=heard.append)
    assert operation.visits == heard
    assert operation.visits[0].action == "look"
    assert operation.visits[-1].reads == 2e6
    reference = operation.visits[0].disagreement
    assert operation.visits[-1].disagreement <= reference + 0.15  # a band, and the choice of 64 images
    assert operation.vectors > 0
    still = disturbed_chip(net, disturb=DisturbConfig())
    report = tune(still, net, net, calibration, strategy="lsq.affine")
    caretaker = Caretaker(still, net, net, calibration, report.deployment.on(still))
    operation = operate(caretaker, still.age, 7e6, Policy(band=0.2, first_reads=1e6))
    assert [v.reads for v in operation.visits] == [0.0, 1e6, 3e6, 7e6]
    assert operation.writes_per_cell == 0.0


def test_alternating_polarity_cancels_signed_stress(net, calibration):
    disturb = DisturbConfig(law="drift", polarity="bipolar", parameters={"rate": 20.0}, state_step=16)
    change = []
    for wrap in (lambda c: c, AlternatingReads):
        chip = disturbed_chip(net, disturb=disturb)
        deployment = Deployment(net, wrap(chip))
        deployment.map(calibration)
        start = chip.conductances("fc").copy()
        answers = deployment.run(calibration)
        for _ in range(20):
            deployment.run(calibration)
        change.append(np.abs(chip.conductances("fc") - start).mean())
        assert answers.shape == (64, 5)
    assert change[1] < 0.2 * change[0]


def test_alternating_polarity_answers_the_same(net, calibration):
    """One bit of the converters is lost; averaged over chips, since how much of it shows differs."""
    errors = []
    for number in (None, 0, 1, 2, 3, 4, 5):
        # None: the individual of version 0.1
        undisturbed = {"number": number or 0, "disturb": DisturbConfig()}
        chip = disturbed_chip(net, **undisturbed, layer_keys="name" if number is None else "position")
        plain, alternating = Deployment(net, chip), Deployment(net, AlternatingReads(chip))
        plain.map(calibration)
        before = plain.run(calibration)
        alternating.map(calibration)
        errors.append(np.square(alternating.run(calibration) - before).mean() / before.var())
    assert errors[0] < 0.05
    assert np.mean(errors[1:]) < 0.25


# -- reference points ---------------------------------------------------------------------------------


def test_backward_is_the_derivative(net, calibration):
    """Central differences of a random projection of the outputs, in float32.

    Entries at the kink of a rectifier, where the derivative is not defined, are left alone; 5 % covers the
    rectifiers that switch within the step.
    """
    rng = np.random.default_rng(0)
    values = {"input": calibration[:4]}
    net.evaluate(values, net.output, keep="all")
    projection = rng.normal(size=(4, 5)).astype(np.float32)
    grads = backward(net, values, projection, {"conv1", "conv2", "flatten"})
    for name in ("conv1", "conv2", "flatten"):
        direction = rng.normal(size=values[name].shape).astype(np.float32)
        direction *= np.abs(values[name]) > 0.02
        outcome = []
        for sign in (1, -1):
            moved = {"input": calibration[:4], name: values[name] + np.float32(sign * 1e-3) * direction}
            outcome.append((net.evaluate(moved, net.output).astype(np.float64) * projection).sum())
        slope = (outcome[0] - outcome[1]) / 2e-3
        assert slope == pytest.approx(float((grads[name] * direction).sum()), rel=0.05)


def test_surrogate_lowers_the_error(net, calibration):
    chip = small.chip(net)
    deployment = Deployment(net, chip)
    deployment.map(calibration)
    before = small.logit_error(net, deployment)
    report = tune(small.chip(net), net, net, calibration, strategy="reference.surrogate(steps=60, batch=32)")
    assert small.logit_error(net, report.deployment) < 0.9 * before


def test_oracle_beats_the_mapping_and_counts_its_writes(net, calibration):
    chip = small.chip(net)
    deployment = Deployment(net, chip)
    deployment.map(calibration)
    before, written = small.logit_error(net, deployment), chip.ledger.total.cell_writes
    best = oracle(chip, deployment, net, calibration)
    assert small.logit_error(net, best) < 0.3 * before
    assert chip.ledger.total.cell_writes > written


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Maintain(passes=0), "passes"),
        (lambda: Maintain(price=-1.0), "price"),
        (lambda: Policy(growth=1.0), "growth"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("polarity", ["positive", "negative"])
def test_direction_of_drift_is_learnt(net, calibration, polarity):
    """A wrong guess of the direction is found out at the first visit, and costs nothing."""
    disturb = dataclasses.replace(DRIFT, polarity=polarity)
    errors, written = {True: [], False: []}, {True: 0, False: 0}
    for number in range(2):
        for right in (True, False):
            chip = disturbed_chip(net, number, disturb)
            report = tune(chip, net, net, calibration, strategy="default")
            maintain = Maintain(rate=0.15, uniform=True, rising=(polarity == "positive") == right)
            caretaker = Caretaker(chip, net, net, calibration, report.deployment.on(chip), maintain=maintain)
            caretaker.learn()
            chip.age(1e6)
            caretaker.visit()
            assert (maintain.direction > 5.0) if polarity == "positive" else (maintain.direction < -5.0)
            errors[right].append(small.logit_error(net, caretaker.deployment.fork()))
            written[right] += maintain.n_written
    assert np.mean(errors[False]) < 1.15 * np.mean(errors[True])
    assert abs(written[False] - written[True]) < 0.15 * written[True]
