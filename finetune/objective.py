"""What a tuner minimises when it measures the whole network: distillation losses, per image.

The teacher is the digital network itself. Its logits say more than labels and need none:

    KD       T**2 KL(softmax(t / T) || softmax(z / T))        (Hinton, Vinyals, Dean, arXiv 1503.02531)
    feature  |f - f_teacher|**2 / |f_teacher - mean|**2       relative error of a layer's pre-activations
    label    cross entropy, only where labels were given

Every loss is returned per image, so that differences of two measurements with the same images
come with their own standard error.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError, check_array

__all__ = ["Cost", "Objective", "cross_entropy", "distillation", "feature_error", "fisher_factor", "softmax"]


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Class probabilities, shape (n_images, n_classes)."""
    z = np.asarray(logits, dtype=np.float64) / temperature
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return z / z.sum(axis=1, keepdims=True)


def _log_softmax(logits: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    z = np.asarray(logits, dtype=np.float64) / temperature
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def distillation(
    teacher: NDArray[np.floating], logits: NDArray[np.floating], temperature: float = 2.0
) -> NDArray[np.float64]:
    """``T**2 KL(teacher || student)`` of each image, shape (n_images,); logits (n_images, n_classes)."""
    wanted, got = _log_softmax(teacher, temperature), _log_softmax(logits, temperature)
    return temperature**2 * (np.exp(wanted) * (wanted - got)).sum(axis=1)


def cross_entropy(labels: NDArray[np.integer], logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """-log p(label) of each image, shape (n_images,)."""
    return -_log_softmax(logits, 1.0)[np.arange(len(labels)), labels]


def feature_error(teacher: NDArray[np.floating], feature: NDArray[np.floating]) -> NDArray[np.float64]:
    """Squared error of each image over the teacher's variance, shape (n_images,).

    Both arrays are (n_images, n_channels, ...); the variance is each channel's own, over images and
    positions, so that no channel counts for its scale. Channels that are constant do not count.
    """
    n_images, n_channels = teacher.shape[:2]
    wanted = np.asarray(teacher, dtype=np.float64).reshape(n_images, n_channels, -1)
    got = np.asarray(feature, dtype=np.float64).reshape(wanted.shape)
    variance = wanted.var(axis=(0, 2))
    square = np.square(got - wanted).mean(axis=2)
    alive = variance > 1e-12 * variance.max(initial=1e-300)
    if not alive.any():
        return square.mean(axis=1)
    return (square[:, alive] / variance[alive]).mean(axis=1)


def fisher_factor(
    teacher: NDArray[np.floating], values: NDArray[np.floating], temperature: float = 2.0
) -> NDArray[np.float64]:
    """Logits in coordinates where squared distance is twice the KD loss, to second order.

    ``T**2 KL = 1/2 d' (diag(p) - p p') d`` for logits off by d, p = softmax(t / T); the square root used
    is ``sqrt(p) * (v - p . v)``. Shape of `values` (n_images, n_classes), and of the result.
    """
    p = softmax(teacher, temperature)
    return np.sqrt(p) * (values - (p * values).sum(axis=1, keepdims=True))


@dataclass
class Cost:
    """What the evaluations of an objective took."""

    evaluations: int = 0
    images: int = 0


@dataclass
class Objective:
    """Weighted sum of distillation, feature error and (optional) label loss.

    Parameters
    ----------
    teacher : ndarray, shape (n_images, n_classes)
        Teacher's logits.
    temperature : float
        T of the distillation loss.
    feature_share : float
        Share of the feature error in [0, 1]; the rest is distillation.
    features : ndarray, shape (n_images, n_channels, ...), optional
        Teacher's pre-activations, needed when `feature_share` > 0.
    labels : ndarray, shape (n_images,), optional
        Class labels; with `label_share` > 0 they replace that share of the distillation loss.
    """

    teacher: NDArray[np.floating]
    temperature: float = 2.0
    feature_share: float = 0.0
    features: NDArray[np.floating] | None = None
    labels: NDArray[np.integer] | None = None
    label_share: float = 0.0
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        self.teacher = check_array(self.teacher, "teacher", shape=(None, None))
        if not self.temperature > 0.0:
            raise InputError(f"temperature must be > 0, got {self.temperature:g}")
        for name in ("feature_share", "label_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name} must lie in [0, 1], got {getattr(self, name):g}")
        if self.feature_share > 0.0 and self.features is None:
            raise InputError("feature_share > 0 needs features of the teacher, got none")
        if self.label_share > 0.0 and self.labels is None:
            raise InputError("label_share > 0 needs labels, got none; set label_share = 0")

    def losses(
        self,
        logits: NDArray[np.floating],
        images: NDArray[np.integer] | slice = slice(None),
        feature: NDArray[np.floating] | None = None,
    ) -> NDArray[np.float64]:
        """Loss of each image, shape (n_images,).

        Parameters
        ----------
        logits : ndarray, shape (n_images, n_classes)
            What was measured.
        images : index
            Which of the teacher's images these are; all by default.
        feature : ndarray, optional
            Measured pre-activations, where `feature_share` > 0.
        """
        teacher = self.teacher[images]
        if logits.shape != teacher.shape:
            raise InputError(f"logits must have shape {teacher.shape}, got {logits.shape}")
        self.cost.evaluations += 1
        self.cost.images += len(logits)
        loss = np.zeros(len(logits))
        if self.feature_share < 1.0:
            loss = distillation(teacher, logits, self.temperature)
            if self.label_share > 0.0 and self.labels is not None:
                loss = (1.0 - self.label_share) * loss
                loss += self.label_share * cross_entropy(self.labels[images], logits)
            loss *= 1.0 - self.feature_share
        if self.feature_share > 0.0 and self.features is not None:
            if feature is None:
                raise InputError("feature_share > 0 needs the measured feature, got none")
            loss = loss + self.feature_share * feature_error(self.features[images], feature)
        return loss
