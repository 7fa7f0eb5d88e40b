"""Large networks: posteriors of columns against the definition, memory that is planned and given back."""

import gc
import tracemalloc

import numpy as np
import pytest

from finetune import bench
from finetune.bench import Bench
from finetune.evidence import posterior
from finetune.evidence.layer import Work
from finetune.evidence.samples import LEAST, MOST, sample_count
from finetune.tuner import Tuner, tune
from rramsim.cell import CellsConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.datasets.embedded import load_dataset
from rramsim.datasets.teachers import load_teacher
from rramsim.host.layer import layer_shapes
from rramsim.network import zoo


def system(n_rows, n_cols, n_samples, seed=0):
    """Correlated rectified inputs, priors over three decades, and what identification is asked."""
    rng = np.random.default_rng(seed)
    n_ways = max(n_rows // 4, 1)
    x = rng.standard_normal((n_samples, n_ways)) @ rng.standard_normal((n_ways, n_rows))
    x = 20.0 * np.maximum(x + 0.5 * rng.standard_normal(x.shape), 0.0)
    x -= x.mean(axis=0)
    variance = 0.1 * rng.uniform(0.0, 1.0, (n_rows, n_cols)) ** 4 + 2e-4
    noise = rng.uniform(200.0, 400.0, n_cols)
    weights = rng.standard_normal(variance.shape) * np.sqrt(variance)
    y = x @ weights + rng.standard_normal((n_samples, n_cols)) * np.sqrt(noise)
    return x.T @ x / n_samples, noise / n_samples / variance, x.T @ y / n_samples


def by_definition(gram, ridge, slope):
    inverses = [np.linalg.inv(gram + np.diag(column)) for column in ridge.T]
    step = np.stack([inverse @ s for inverse, s in zip(inverses, slope.T, strict=True)], axis=1)
    return step, np.stack([np.diag(inverse) for inverse in inverses], axis=1)


@pytest.mark.parametrize("n_rows", [1, 9, posterior.EXACT_ROWS])
def test_few_rows_are_exact(n_rows):
    gram, ridge, slope = system(n_rows, 7, 500)
    for got, expected in zip(
        posterior.posterior_columns(gram, ridge, slope, 500), by_definition(gram, ridge, slope), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-8)


@pytest.mark.parametrize("n_samples", [60, 2000])  # fewer samples than rows, and more
def test_many_rows_are_close(n_samples):
    """Means to 1 % of their size, the determined share of each variance to 0.1."""
    gram, ridge, slope = system(160, 24, n_samples)
    step, diagonal = posterior.posterior_columns(gram, ridge, slope, n_samples)
    wanted, exact = by_definition(gram, ridge, slope)
    assert np.linalg.norm(step - wanted) < 1e-2 * np.linalg.norm(wanted)
    known, truly = 1.0 - ridge * diagonal, 1.0 - ridge * exact
    assert known.min() >= 0.0
    assert known.max() <= 1.0
    assert np.abs(known - truly).max() < 0.1
    assert np.abs(known - truly).mean() < 0.01


def test_weights_that_inputs_never_drive_keep_their_prior():
    gram, ridge, slope = system(160, 5, 2000)
    gram[3], gram[:, 3], slope[3] = 0.0, 0.0, 0.0
    step, diagonal = posterior.posterior_columns(gram, ridge, slope, 2000)
    assert (step[3] == 0.0).all()
    np.testing.assert_allclose(diagonal[3], 1.0 / ridge[3], rtol=1e-6)


def test_samples_stop_growing_with_rows():
    assert sample_count(10, 10**6) == LEAST
    assert sample_count(576, 10**6) == 12 * 576
    assert sample_count(4096, 10**6) == MOST
    assert sample_count(4096, 300) == 300


def test_plan_predicts_memory():
    """Numbers that arrays of the largest layer really take, within a factor of two."""
    net = zoo.token_mlp((300, 64, 8), tokens=4)
    images = np.random.default_rng(0).standard_normal((500, 4, 300)).astype(np.float32)
    chip = SimulatedChip(ChipConfig(), layer_shapes(net))
    planned = tune(chip, net, net, images, dry_run=True).planned
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    tune(chip, net, net, images)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.5 < planned["bytes"] / (peak - before) < 2.0


def test_finished_layers_leave_memory():
    """A layer's vectors, samples and answers are gone once it is tuned, without the cycle collector."""
    net = zoo.token_mlp((64, 64, 64, 64, 8), tokens=8)
    images = np.random.default_rng(0).standard_normal((400, 8, 64)).astype(np.float32)
    tuner = Tuner(SimulatedChip(ChipConfig(), layer_shapes(net)), net, net, images)
    held = []
    gc.collect()
    gc.disable()
    try:
        while not tuner.step():
            held.append(sum(isinstance(thing, Work) for thing in gc.get_objects()))
    finally:
        gc.enable()
    assert max(held) <= 1, held


def test_large_teachers_give_the_same_tensors(monkeypatch):
    """A teacher followed layer by layer, in order, out of order and again, against one that is kept."""
    net = zoo.cifar_resnet(8, (3, 8, 8))
    images = np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)
    chip = SimulatedChip(ChipConfig(), layer_shapes(net))
    kept = Bench(chip, net, net, images, shuffle_teacher=True)
    wanted = {name: kept.teacher_values(name) for name in (*net.mapped, net.output)}
    monkeypatch.setattr(bench, "TEACHER_BYTES", 0)
    followed = Bench(chip, net, net, images, shuffle_teacher=True)
    order = [*net.mapped, net.output, net.mapped[3], net.mapped[1], net.output, *net.mapped]
    for name in order:
        np.testing.assert_array_equal(followed.teacher_values(name), wanted[name], err_msg=name)
        assert followed.teacher_shape(name) == wanted[name].shape
        assert len(followed._teacher_values) <= 2


def test_the_shipped_vision_transformer_tunes():
    """Attention, layer norm and tokens of the shipped file; chip 0, a gap within 2.5 points."""
    net, data = load_teacher("vit_fashion"), load_dataset("fashion_mnist")
    cells = CellsConfig(n_levels=16, on_off_ratio=30.0, law="lognormal", sigma=0.3)
    chip = SimulatedChip(ChipConfig(cells=cells), layer_shapes(net), chip=0)
    some = data["validation"].take(500)
    report = tune(chip, net, net, data["calibration"].images[:128])
    right = (report.deployment.run(some.images).argmax(axis=1) == some.labels).mean()
    assert (net.run(some.images).argmax(axis=1) == some.labels).mean() - right < 0.025
