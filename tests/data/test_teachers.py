"""The shipped teachers do on the test images what their metadata says."""

from __future__ import annotations

import numpy as np
import pytest

from rramsim.checks import InputError
from rramsim.datasets.embedded import load_dataset
from rramsim.datasets.teachers import load_teacher, teacher_names

# weights in mapped layers and the least test accuracy with which a teacher may ship
TEACHERS = {
    "cnn_digits": (1_864, 0.98),
    "depthwise_fashion": (15_488, 0.90),
    "lenet5_fashion": (61_470, 0.91),
    "lstm_fashion": (48_576, 0.87),
    "mixer_fashion": (54_000, 0.90),
    "resnet8_fashion": (77_072, 0.923),
    "vit_fashion": (62_832, 0.90),
}


def test_names():
    assert teacher_names() == tuple(sorted(TEACHERS))
    with pytest.raises(InputError, match="did you mean 'lenet5_fashion'"):
        load_teacher("lenet_fashion")


@pytest.mark.parametrize("name", TEACHERS)
def test_weights_and_metadata(name):
    network = load_teacher(name)
    n_weights, least = TEACHERS[name]
    assert network.n_weights == n_weights
    dataset = load_dataset(network.metadata["dataset"])
    assert (network.metadata["mean"], network.metadata["std"]) == (dataset.mean, dataset.std)
    assert tuple(network.input_shape) == dataset.image_shape
    assert network.metadata["test_accuracy"] >= least
    assert network.metadata["script"] == "data/train_teachers.py"


@pytest.mark.parametrize("name", TEACHERS)
def test_accuracy_on_the_first_images(name):
    """Within four standard errors of 500 images; a wrong normalisation or weight costs far more."""
    network = load_teacher(name)
    test = load_dataset(network.metadata["dataset"], split="test")["test"]
    right = network.run(test.images[:500]).argmax(1) == test.labels[:500]
    share = network.metadata["test_accuracy"]
    assert abs(right.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(right))


LONG = ("lstm_fashion", "mixer_fashion", "vit_fashion", "depthwise_fashion")  # minutes on one core


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in TEACHERS]
)
def test_accuracy_on_the_whole_test_set(name):
    network = load_teacher(name)
    test = load_dataset(network.metadata["dataset"], split="test")["test"]
    predicted = np.concatenate([network.run(images).argmax(1) for images, _ in test.batches(1000)])
    accuracy = float((predicted == test.labels).mean())
    assert accuracy >= TEACHERS[name][1]
    # one image may change class with another order of summation
    assert accuracy == pytest.approx(network.metadata["test_accuracy"], abs=1.5 / len(test))


@pytest.mark.parametrize("name", TEACHERS)
def test_validation_images_were_not_trained_on(name):
    """A memorised split would score above the test set by far more than chance allows."""
    network = load_teacher(name)
    dataset = load_dataset(network.metadata["dataset"], split="validation")
    accuracy = network.metadata["validation_accuracy"]
    test = network.metadata["test_accuracy"]
    n = len(dataset["validation"])
    # five standard deviations of the difference: false alarm below 1e-6
    n_test = len(load_dataset(network.metadata["dataset"])["test"])
    deviation = np.sqrt(test * (1 - test) * (1 / n + 1 / n_test))
    assert abs(accuracy - test) < 5 * deviation
