"""Zeroth-order methods on functions whose minimum is known."""

import numpy as np
import pytest

from finetune.optimizers import METHODS, Directions, GaussNewton, RandomLine, Rule, Spsa, make_optimizer
from rramsim.checks import InputError

CURVATURES = np.linspace(0.5, 2.0, 12)
TARGET = np.sin(np.arange(12.0))


def quadratic(points):
    return 0.5 * ((points - TARGET) ** 2 * CURVATURES).sum(axis=1)


def outputs(points):
    return (points - TARGET) * np.sqrt(CURVATURES)


def build(name, **more):
    settings = {
        "spsa": {"perturbation": 0.01, "rate": 0.08},
        "variance_reduced": {"perturbation": 0.01, "rate": 0.06, "n_anchor": 24, "period": 3},
        "line": {"perturbation": 0.1},
        "coordinate": {"perturbation": 0.01, "n_coordinates": 4, "rate": 0.4},
        "gauss_newton": {"perturbation": 0.05, "n_directions": 4},
        "evolution": {"spread": 0.5},
    }[name]
    return make_optimizer(name, np.zeros(12), seed=7, **(settings | more))


def advance(optimizer, loss=quadratic, noise=None, error=0.0):
    points = optimizer.ask()
    if isinstance(optimizer, GaussNewton):
        optimizer.tell_outputs(outputs(points), np.zeros(12), error)
        return
    values = loss(points)
    optimizer.tell(values if noise is None else values + noise.standard_normal(values.shape) * 0.01, error)


@pytest.mark.parametrize("name", METHODS)
def test_reaches_the_minimum_of_a_quadratic(name):
    optimizer = build(name)
    start = quadratic(optimizer.x[None])[0]
    for _ in range(150):
        advance(optimizer)
    if isinstance(optimizer, GaussNewton):
        optimizer.settle()
    assert quadratic(optimizer.x[None])[0] < 0.02 * start


@pytest.mark.parametrize("name", METHODS)
def test_resumes_bit_for_bit(name):
    whole, first = build(name), build(name)
    for _ in range(5):
        advance(whole)
        advance(first)
    second = build(name)
    second.load_state_dict(first.state_dict())
    for _ in range(5):
        advance(whole)
        advance(second)
    np.testing.assert_array_equal(whole.x, second.x)
    assert (whole.step, whole.silent) == (second.step, second.silent)


@pytest.mark.parametrize("name", [n for n in METHODS if n != "gauss_newton"])
def test_noise_does_not_carry_it_away(name):
    noise = np.random.default_rng(1)
    finite = name in ("spsa", "variance_reduced", "coordinate")
    optimizer = build(name, **({"perturbation": 0.1} if finite else {}))
    start = quadratic(optimizer.x[None])[0]
    for _ in range(150):
        advance(optimizer, noise=noise)
    assert quadratic(optimizer.x[None])[0] < 0.25 * start


@pytest.mark.parametrize("rule", ["sgd", "momentum", "sign", "adam"])
def test_rules_lower_the_loss(rule):
    optimizer = Spsa(
        np.zeros(12), perturbation=0.01, n_directions=2, rule=Rule(rule, rate=0.03, half_life=100)
    )
    start = quadratic(optimizer.x[None])[0]
    for _ in range(300):
        advance(optimizer)
    assert quadratic(optimizer.x[None])[0] < 0.1 * start


def test_one_pair_of_measurements_serves_every_block():
    """20 columns of 3 parameters: as many rounds as one column needs, not twenty times as many."""
    blocks = np.repeat(np.arange(20), 3)
    target = np.random.default_rng(3).normal(size=60)
    for optimizer in (
        RandomLine(np.zeros(60), perturbation=0.1, blocks=blocks, seed=1),
        make_optimizer("coordinate", np.zeros(60), perturbation=0.1, curvature=True, blocks=blocks),
    ):
        for _ in range(60):
            points = optimizer.ask()
            optimizer.tell(((points - target) ** 2).reshape(len(points), 20, 3).sum(axis=2))
        assert np.abs(optimizer.x - target).max() < 0.05


def test_estimate_is_unbiased():
    """Mean of many SPSA estimates against the gradient; 5 standard errors, false alarm < 1e-4."""
    optimizer = Spsa(np.zeros(12), perturbation=1e-3, n_directions=4000, seed=2)
    gradient, heard = optimizer.estimate(quadratic(optimizer.ask())[:, None], np.zeros(1))
    exact = -CURVATURES * TARGET
    assert heard
    np.testing.assert_allclose(gradient, exact, atol=5 * np.linalg.norm(exact) / np.sqrt(4000))


def test_differences_below_the_floor_stop_it():
    optimizer = build("spsa", floor=2.0, patience=3)
    rounds = 0
    while not optimizer.finished:
        advance(optimizer, error=1e3)
        rounds += 1
    assert rounds == 3
    np.testing.assert_array_equal(optimizer.x, np.zeros(12))


def test_gauss_newton_takes_a_bad_move_back():
    optimizer = GaussNewton(np.zeros(2), perturbation=0.1, n_directions=2, kind="coordinates")
    optimizer.tell_outputs(optimizer.ask(), np.ones(2))
    assert not np.array_equal(optimizer.x, np.zeros(2))
    optimizer.tell_outputs(optimizer.ask() + 10.0, np.ones(2))
    np.testing.assert_array_equal(optimizer.x, np.zeros(2))


def test_gauss_newton_does_not_fit_chance():
    """Outputs that answer to the parameters but whose residuals are pure noise: next to no move."""
    rng = np.random.default_rng(4)
    jacobian, groups = rng.normal(size=(20, 200)), np.arange(200) % 4
    free, held = (GaussNewton(np.zeros(20), n_directions=20, kind="coordinates") for _ in range(2))
    noise = rng.normal(size=200)
    free.tell_outputs(free.ask() @ jacobian, noise)
    held.tell_outputs(held.ask() @ jacobian, noise, groups=groups)
    assert np.linalg.norm(held.x) < 0.3 * np.linalg.norm(free.x)
    signal = GaussNewton(np.zeros(20), n_directions=20, kind="coordinates")
    signal.tell_outputs(signal.ask() @ jacobian, np.ones(20) @ jacobian + noise, groups=groups)
    np.testing.assert_allclose(signal.x, 1.0, atol=0.4)  # 5 standard errors of 1/sqrt(200)


def test_directions_are_replayed_and_have_unit_covariance():
    for kind in ("rademacher", "normal", "sphere"):
        directions = Directions(4, kind, seed=5)
        np.testing.assert_array_equal(directions.draw(3, 1), Directions(4, kind, seed=5).draw(3, 1))
        draws = np.stack([directions.draw(k) for k in range(4000)])
        np.testing.assert_allclose(draws.T @ draws / 4000, np.eye(4), atol=0.15)  # 5 sigma of 1.4/sqrt(4000)
    assert not np.array_equal(directions.draw(1), directions.draw(2))


def test_bounds_hold_in_points_and_result():
    optimizer = Spsa(np.full(3, 0.9), perturbation=0.5, upper=1.0, lower=0.0, rule=Rule(rate=10.0))
    for _ in range(10):
        points = optimizer.ask()
        assert points.min() >= 0.0
        assert points.max() <= 1.0
        optimizer.tell(points.sum(axis=1))
    assert optimizer.x.min() >= 0.0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: make_optimizer("spasa", [0.0]), "spsa"),
        (lambda: make_optimizer("line", [0.0], rate=1.0), "own steps"),
        (lambda: Rule("sgdd"), "sgd"),
        (lambda: Spsa([]), "at least one"),
        (lambda: Spsa([0.0], perturbation=0.0), "> 0"),
        (lambda: Spsa([0.0]).tell([1.0, 2.0, 3.0]), "shape"),
        (lambda: Spsa([0.0]).tell([1.0, np.nan]), "finite"),
        (lambda: make_optimizer("evolution", np.zeros(4), blocks=np.arange(4)), "blocks"),
        (lambda: build("gauss_newton").tell(np.zeros(9)), "tell_outputs"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("rule", ["sgd", "momentum"])
def test_coordinate_steps_that_are_too_long_are_taken_back(rule):
    """Curvatures 0.5, 2, 12 and 37 in four blocks, rate 0.4: without the guard the last two diverge."""
    curvature = np.repeat([0.5, 2.0, 12.0, 37.0], 3)
    blocks = np.repeat(np.arange(4), 3)
    aim = np.random.default_rng(2).normal(size=12)
    optimizer = make_optimizer(
        "coordinate", np.zeros(12), blocks=blocks, perturbation=0.05, rule=rule, rate=0.4
    )

    def losses(x):
        return np.bincount(blocks, 0.5 * curvature * np.square(x - aim))

    first = losses(optimizer.x)
    twin = None
    for round_ in range(120):
        if round_ == 60:
            twin = make_optimizer(
                "coordinate", np.zeros(12), blocks=blocks, perturbation=0.05, rule=rule, rate=0.4
            )
            twin.load_state_dict(optimizer.state_dict())
        for entry in (optimizer, twin):
            if entry is not None:
                entry.tell(np.array([losses(point) for point in entry.ask()]))
    assert (losses(optimizer.x) < 0.1 * first).all()
    np.testing.assert_array_equal(twin.x, optimizer.x)


def test_gauss_newton_says_what_it_promises_on_held_out_groups():
    """A linear problem is solved at once; residuals of chance alone move next to nothing."""
    rng = np.random.default_rng(4)
    jacobian, groups = rng.normal(size=(6, 80)), np.arange(80) % 4
    for target, share in ((jacobian.T @ rng.normal(size=6), 1.0), (rng.normal(size=80), 0.0)):
        optimizer = make_optimizer("gauss_newton", np.zeros(6), n_directions=6, kind="coordinates")
        outputs = optimizer.ask() @ jacobian
        optimizer.tell_outputs(outputs, target, groups=groups)
        assert optimizer.promised == pytest.approx(share, abs=0.01)
        moved = np.linalg.norm(optimizer.x)
        assert moved > 1.0 if share else moved < 0.05
