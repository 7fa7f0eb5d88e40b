"""Distillation losses against their definitions."""

import numpy as np
import pytest

from finetune.objective import Objective, distillation, feature_error, fisher_factor, softmax
from rramsim.checks import InputError

RNG = np.random.default_rng(0)
TEACHER = RNG.normal(size=(40, 10)) * 3.0


def naive_kl(teacher, logits, temperature):
    total = []
    for t, z in zip(teacher, logits, strict=True):
        p = np.exp(t / temperature) / np.exp(t / temperature).sum()
        q = np.exp(z / temperature) / np.exp(z / temperature).sum()
        total.append(temperature**2 * sum(a * np.log(a / b) for a, b in zip(p, q, strict=True)))
    return np.array(total)


def test_distillation_is_the_divergence():
    logits = TEACHER + RNG.normal(size=TEACHER.shape)
    np.testing.assert_allclose(distillation(TEACHER, logits, 2.0), naive_kl(TEACHER, logits, 2.0), rtol=1e-9)
    np.testing.assert_allclose(
        distillation(TEACHER, TEACHER + 5.0), 0.0, atol=1e-12
    )  # a shift changes nothing
    assert np.isfinite(distillation(TEACHER * 1e4, logits)).all()


def test_fisher_factor_is_its_second_order():
    change = 1e-3 * RNG.normal(size=TEACHER.shape)
    exact = distillation(TEACHER, TEACHER + change, 2.0)
    factor = fisher_factor(TEACHER, change, 2.0)
    np.testing.assert_allclose(0.5 * np.square(factor).sum(axis=1), exact, rtol=1e-2)


def test_feature_error_ignores_the_scale_of_channels():
    teacher = RNG.normal(size=(20, 3, 4, 4)) * np.array([1.0, 100.0, 0.0]).reshape(1, 3, 1, 1)
    noisy = teacher * 1.1
    scaled = feature_error(teacher * 7.0, noisy * 7.0)
    np.testing.assert_allclose(feature_error(teacher, noisy), scaled)
    assert feature_error(teacher, noisy).mean() == pytest.approx(0.01, rel=0.1)
    assert feature_error(teacher, teacher).max() == 0.0


def test_mix_and_labels_and_cost():
    features, labels = RNG.normal(size=(40, 5)), TEACHER.argmax(axis=1)
    logits = TEACHER + RNG.normal(size=TEACHER.shape)
    mixed = Objective(TEACHER, feature_share=0.25, features=features)
    losses = mixed.losses(logits, feature=features * 1.2)
    parts = 0.75 * distillation(TEACHER, logits) + 0.25 * feature_error(features, features * 1.2)
    np.testing.assert_allclose(losses, parts)
    labelled = Objective(TEACHER, labels=labels, label_share=1.0)
    p = softmax(logits)[np.arange(40), labels]
    np.testing.assert_allclose(labelled.losses(logits), -np.log(p))
    labelled.losses(logits[:8], slice(0, 8))
    assert (labelled.cost.evaluations, labelled.cost.images) == (2, 48)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"temperature": 0.0}, "temperature"),
        ({"feature_share": 0.5}, "features"),
        ({"label_share": 0.5}, "labels"),
        ({"feature_share": 1.5}, "lie in"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        Objective(TEACHER, **settings)
