"""The script that trained the teachers: its networks, its export and its resumption."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys

import numpy as np
import pytest

from rramsim.datasets.embedded import load_dataset
from rramsim.datasets.teachers import data_path
from rramsim.network import Network

torch = pytest.importorskip("torch", reason="needs the extra `train`")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_teachers", data_path("train_teachers.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield module
    torch.set_num_threads(threads)
    del sys.modules[spec.name]


@pytest.fixture
def short(script, monkeypatch):
    recipe = dataclasses.replace(script.RECIPES["cnn_digits"], epochs=2)
    monkeypatch.setitem(script.RECIPES, "cnn_digits", recipe)
    return script


def weights_of(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def test_interrupted_training_ends_as_if_never_stopped(short, tmp_path, monkeypatch):
    digits = load_dataset("digits")
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, accuracies = short.train("cnn_digits", digits, tmp_path / "whole")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(short, "accuracy", interrupt)  # called once the first checkpoint is written
        with pytest.raises(KeyboardInterrupt):
            short.train("cnn_digits", digits, tmp_path / "parts")
    resumed, again = short.train("cnn_digits", digits, tmp_path / "parts")
    assert again == accuracies
    for name, array in weights_of(whole).items():
        np.testing.assert_array_equal(weights_of(resumed)[name], array, err_msg=name)


NAMES = (
    "cnn_digits",
    "lenet5_fashion",
    "resnet8_fashion",
    "depthwise_fashion",
    "vit_fashion",
    "mixer_fashion",
)


@pytest.mark.parametrize("name", [*NAMES, "mixer_fashion", "lstm_fashion"])
def test_export_agrees_with_torch_and_survives_storage(script, tmp_path, name):
    dataset = load_dataset("digits" if name == "cnn_digits" else "fashion_mnist")
    few = dataclasses.replace(dataset, splits={"test": dataset["test"].take(50)})
    torch.manual_seed(3)
    model = script.MODELS[name]()
    model.train()(torch.from_numpy(few["test"].images.copy()))  # statistics that are not 0 and 1
    network = script.export(name, model, few, {"validation": 0.5, "test": 0.25})
    network.save(tmp_path / "network.h5")
    loaded = Network.load(tmp_path / "network.h5")
    np.testing.assert_array_equal(loaded.run(few["test"].images), network.run(few["test"].images))
    assert loaded.metadata["test_accuracy"] == 0.25


def test_augmentation_moves_and_flips_but_invents_nothing(script):
    recipe = script.RECIPES["resnet8_fashion"]
    images = torch.arange(1.0, 29.0).repeat(64, 1, 28, 1)  # pixel value = column + 1
    moved = script.augment(images, recipe, -9.0, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert set(moved.unique().tolist()) <= {-9.0, *range(1, 29)}
    middle = moved[:, 0, 14, 4:24]
    steps = middle.diff(dim=1)
    assert ((steps == 1).all(1) | (steps == -1).all(1)).all()
    assert 16 < int((steps[:, 0] == -1).sum()) < 48  # 64 fair coins; four standard deviations
