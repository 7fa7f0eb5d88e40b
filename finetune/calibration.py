"""What calibration images cannot determine, said before the chip is touched."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import CalibrationWarning, InputError
from rramsim.network import NamedInputs

__all__ = ["check_calibration", "check_classes"]

ENOUGH = 64  # images from which tuning was measured to work
FEW = 16  # classes are not judged by fewer images


def check_calibration(images: Any) -> None:
    """Refuse calibration images that say nothing, and warn of those that leave much undetermined.

    Parameters
    ----------
    images : ndarray, shape (n, *input_shape), or NamedInputs
        As `Network.checked` returns them.

    Raises
    ------
    InputError
        No images, or images that are 0 throughout.

    Warns
    -----
    CalibrationWarning
        One image, several equal ones, or images that are one constant each.

    Examples
    --------
    >>> check_calibration(np.zeros((5, 1, 8, 8), np.float32))
    Traceback (most recent call last):
    ...
    rramsim.checks.InputError: calibration images must not be 0 throughout: no converter range and ...
    """
    if not len(images):
        raise InputError("calibration needs at least one image, got none")
    arrays = list(images.arrays.values()) if isinstance(images, NamedInputs) else [images]
    if all(array.dtype.kind == "f" and not array.any() for array in arrays):
        raise InputError(
            "calibration images must not be 0 throughout: no converter range and no gain can be found from "
            "them; were they loaded?"
        )
    n = len(images)
    alike = all(bool((array == array[:1]).all()) for array in arrays)
    if alike:
        what = "there is one calibration image" if n == 1 else f"the {n} calibration images are all the same"
        warnings.warn(
            f"{what}: gains of dense layers are not determined and keep their nominal values, ranges of "
            f"converters fit this image alone; give {ENOUGH} different ones or more",
            CalibrationWarning,
            stacklevel=4,
        )
    elif all(array.ndim > 2 and _flat(array) for array in arrays):
        warnings.warn(
            "each calibration image is one constant: weights of a kernel are not told apart, and their "
            f"errors are not found; give {ENOUGH} images of the kind that the network will see",
            CalibrationWarning,
            stacklevel=4,
        )


def _flat(array: NDArray[Any]) -> bool:
    rows = array.reshape(len(array), -1)
    return bool((rows == rows[:, :1]).all())


def check_classes(outputs: NDArray[Any]) -> None:
    """Warn where the teacher puts all calibration images into one class.

    Parameters
    ----------
    outputs : ndarray, shape (n, n_classes)
        Of the teacher for the calibration images; outputs of another shape are not judged.

    Warns
    -----
    CalibrationWarning
        From 16 images on.
    """
    if outputs.ndim != 2 or outputs.shape[1] < 2 or len(outputs) < FEW:
        return
    if np.allclose(outputs, outputs[:1]):  # equal images, of which `check_calibration` speaks
        return
    classes = np.unique(outputs.argmax(axis=1))
    if classes.size == 1:
        warnings.warn(
            f"the teacher puts all {len(outputs)} calibration images into class {classes[0]}: errors of "
            "features that other classes use are not determined; give images of all classes (labels are not "
            "needed)",
            CalibrationWarning,
            stacklevel=4,
        )
