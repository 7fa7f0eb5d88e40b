"""Budgets, resuming, checkpoints, strategy texts, plans, and the tuner's good manners."""

import ast
from pathlib import Path

import numpy as np
import pytest

import finetune
from finetune.meter import Budget
from finetune.strategies.base import COMPONENTS
from finetune.strategies.composition import SCHEMES, parse_strategy
from finetune.tuner import Tuner, tune
from rramsim.blackbox.gate import TierError
from rramsim.blackbox.protocol import Tier
from rramsim.checks import InputError
from rramsim.host.deployment import Deployment
from tests.finetune import small


@pytest.fixture(scope="module")
def full(net, calibration):
    return tune(small.chip(net), net, net, calibration)


def same(a, b, path="state"):
    """Compare nested states bit by bit; wall clock aside."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            if key != "seconds":
                same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{path}[{i}]")
    else:
        np.testing.assert_array_equal(a, b, err_msg=path)


# -- budgets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_vectors_stay_within_the_budget(net, calibration, full, share):
    chip = small.chip(net)
    report = tune(chip, net, net, calibration, budget=Budget(vectors=int(share * full.vectors)))
    assert not report.finished
    assert report.vectors <= share * full.vectors
    assert chip.ledger.total.vectors == report.vectors
    assert "vectors" in report.stopped_by
    # every layer holds something, so that the network runs
    assert all(host.levels is not None for host in report.deployment.layers.values())
    assert small.logit_error(net, report.deployment) < 2.0


def test_more_vectors_recover_more(net, calibration, full):
    errors = []
    for share in (0.05, 0.7, 1.0):
        budget = Budget(vectors=int(share * full.vectors))
        report = tune(small.chip(net), net, net, calibration, budget=budget)
        errors.append(small.logit_error(net, report.deployment))
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("limit", [0.3, 0.55])
def test_writes_per_cell_stay_within_the_budget(net, calibration, limit):
    chip = small.chip(net)
    report = tune(chip, net, net, calibration, budget=Budget(writes_per_cell=limit))
    assert chip.ledger.writes_per_cell <= limit
    assert report.writes_per_cell == pytest.approx(chip.ledger.writes_per_cell)


def test_no_cell_is_written_more_often_than_allowed(net, calibration):
    chip = small.chip(net)
    tune(chip, net, net, calibration, budget=Budget(max_cycles=1))
    assert chip.ledger.total.max_cycles == 1


def test_images_and_seconds(net, calibration):
    few = tune(small.chip(net), net, net, calibration, strategy="lsq.affine", budget=Budget(images=8))
    all_of_them = tune(small.chip(net), net, net, calibration, strategy="lsq.affine")
    assert few.vectors * 8 == all_of_them.vectors
    late = tune(small.chip(net), net, net, calibration, budget=Budget(seconds=0))
    assert not late.finished
    assert late.vectors == 0


def test_negative_limit_is_refused():
    with pytest.raises(InputError, match="vectors must be >= 0"):
        Budget(vectors=-1)


def test_plan_is_near_the_truth_and_costs_nothing(net, calibration, full):
    chip = small.chip(net)
    before = chip.state_dict()
    dry = tune(chip, net, net, calibration, dry_run=True)
    same(before, chip.state_dict())
    assert chip.ledger.total.vectors == chip.ledger.total.cell_writes == 0
    assert not dry.finished
    assert dry.vectors == dry.cell_writes == 0
    plan = dry.planned
    assert full.vectors <= plan["vectors"] <= 1.5 * full.vectors
    assert plan["cell_writes"] == pytest.approx(full.cell_writes, rel=0.25)
    assert plan["writes_per_cell"] == pytest.approx(full.writes_per_cell, rel=0.25)
    assert 0.0 < plan["seconds"] < 10.0


# a run uses at most 1.05 times the planned vectors and 1.3 times the writes, and at least these shares
PLANNED = {
    "lsq.affine + adapter(rank=2)": (0.99, 1.0),
    "sparse(fraction=0.1)": (0.9, 1.0),
    "lsq.identify(probe=True)": (0.9, 1.0),
    "lsq.rewrite(accept=True, probe=True)": (0.7, 0.7),
    "lsq.sequential + lsq.rewrite + lsq.affine": (0.7, 0.7),
    "lsq.open_loop + lsq.affine": (0.99, 0.7),
    "lsq.closed_loop + lsq.affine": (0.7, 0.7),
    "lsq.affine + zo.levels(trials=5)": (0.7, 0.7),
    "lsq+kd+zo": (0.5, 0.7),
    "lsq.affine + zo(method='spsa', steps=5)": (0.3, 1.0),
    "lsq.affine + zo(method='evolution', steps=5)": (0.3, 1.0),
    "zo(method='line', cached=False, steps=3)": (0.9, 1.0),
    "maintain + lsq.affine": (0.5, 0.3),
}


@pytest.mark.parametrize("strategy", PLANNED)
def test_plans_bound_what_a_run_uses(net, calibration, strategy):
    tuner = Tuner(small.chip(net), net, net, calibration, strategy=strategy)
    plan = tuner.plan()
    while not tuner.step():
        pass
    report = tuner.report()
    vectors, writes = PLANNED[strategy]
    assert report.planned == plan
    assert vectors * plan["vectors"] <= report.vectors <= 1.05 * plan["vectors"]
    assert writes * plan["cell_writes"] <= report.cell_writes <= 1.3 * plan["cell_writes"]


# -- resuming ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 2])
@pytest.mark.parametrize("strategy", ["default", "lsq.affine + adapter(rank=1)"])
def test_resumed_run_is_bit_identical(net, calibration, stop, strategy):
    whole = Tuner(small.chip(net), net, net, calibration, strategy=strategy)
    while not whole.step():
        pass
    first = Tuner(small.chip(net), net, net, calibration, strategy=strategy)
    for _ in range(stop):
        assert not first.step()
    state = first.state_dict()
    first.step()  # going on after the state was saved changes nothing in it
    second = Tuner(small.chip(net), net, net, calibration, strategy=strategy)
    second.load_state_dict(state)
    while not second.step():
        pass
    same(whole.state_dict(), second.state_dict())
    with pytest.raises(InputError, match="the state is of strategy"):
        Tuner(small.chip(net), net, net, calibration, strategy="batch_norm").load_state_dict(state)


def test_checkpoints_change_no_bit(net, calibration, full):
    seen = []

    def evaluate(deployment):
        seen.append(small.logit_error(net, deployment))
        return seen[-1]

    report = tune(small.chip(net), net, net, calibration, evaluate=evaluate)
    same(report.deployment.state_dict(), full.deployment.state_dict())
    assert report.ledger == full.ledger
    recovery = report.recovery()
    assert [row[0] for row in recovery] == ["start", "conv1", "conv2", "fc", "end"]
    assert [row[3] for row in recovery] == seen
    assert seen[-1] < 0.2 * seen[0]
    assert [row[1] for row in recovery] == sorted(row[1] for row in recovery)


def test_same_seed_same_bits(net, calibration, full):
    again = tune(small.chip(net), net, net, calibration)
    same(again.deployment.state_dict(), full.deployment.state_dict())


# -- texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        ("lsq.afine", "unknown strategy 'lsq.afine'; did you mean 'lsq.affine'"),
        ("adapter(rang=2)", "no argument 'rang'; did you mean 'rank'"),
        ("adapter(2)", "arguments must be named"),
        ("lsq.affine +", "must read like"),
        ("adapter(rank=print)", "rank must be a plain value"),
        ("default + adapter", "stands alone"),
        ("adapter(rank=-1)", "rank must be >= 0"),
    ],
)
def test_wrong_texts_say_what_is_near(text, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(").replace("+", r"\+")):
        parse_strategy(text)


def test_neighbouring_layer_steps_are_fused():
    assert len(parse_strategy("lsq.rewrite + lsq.affine + adapter(rank=3)").stages) == 1
    assert len(parse_strategy("lsq.affine + zo + lsq.affine").stages) == 3
    assert parse_strategy("lsq.affine").needed_tier == Tier.LAYERS


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_schemes_parse(name):
    assert parse_strategy(name).stages


def test_every_component_has_defaults_and_a_docstring():
    for name, cls in COMPONENTS.items():
        assert cls().name == name
        assert len(cls.__doc__) > 80


def test_gate_holds_a_layer_step_to_recorded_vectors(net, calibration):
    tuner = Tuner(small.chip(net), net, net, calibration, strategy="lsq.affine")
    tuner.step()
    with pytest.raises(TierError, match="declare PROBE"):
        tuner.bench.deployment.chip.mvm("fc", np.full((1, 12), 77))


# -- manners ----------------------------------------------------------------------------------


def sources():
    return sorted(Path(finetune.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_no_private_attribute_of_another_object(path):
    """Nothing in finetune reaches into a simulator."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            assert ast.unparse(node.value) in ("self", "cls", "other", "os"), ast.unparse(node)


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_strategies_import_no_simulator(path):
    if path.stem == "reference_points":  # the oracle says on its label that it looks inside
        return
    if "strategies" not in path.parts and path.stem not in ("bench", "budget", "tune", "belief", "kernels"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            assert not name.startswith(("rramsim.cell", "rramsim.chip", "rramsim.circuit")), name


def test_deployment_survives_without_a_tuner(net, calibration, full):
    """The digital state alone, on the same chip, gives the same outputs."""
    twin = Deployment(net, full.deployment.chip)
    twin.load_state_dict(full.deployment.state_dict())
    assert twin.digital_overhead() == full.digital_overhead
