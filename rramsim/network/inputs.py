"""Inputs of a network: one array, or several named arrays whose first axis counts the examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError, check_array, nearest_name

__all__ = ["Examples", "NamedInputs", "check_examples"]


class NamedInputs:
    """Named arrays of the same examples: tokens and a mask, two images, a series and its length.

    `len` is the number of examples, and an index, slice or mask picks examples of all arrays at once.

    Parameters
    ----------
    arrays : mapping of str to ndarray, shape (n, ...)

    Raises
    ------
    InputError
        No arrays, or arrays of different length.

    Examples
    --------
    >>> import numpy as np
    >>> pair = NamedInputs({"tokens": np.zeros((4, 7), int), "mask": np.ones((4, 7))})
    >>> len(pair), len(pair[:3]), pair["mask"].shape
    (4, 3, (4, 7))
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays: dict[str, NDArray[Any]] = {name: np.asarray(value) for name, value in arrays.items()}
        lengths = {name: array.shape[0] if array.ndim else None for name, array in self.arrays.items()}
        if len(set(lengths.values())) != 1 or None in lengths.values():
            raise InputError(f"named inputs must be arrays of the same number of examples, got {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            if index not in self.arrays:
                raise InputError(f"no input {index!r}; {nearest_name(index, self.arrays)}")
            return self.arrays[index]
        return NamedInputs({name: array[index] for name, array in self.arrays.items()})

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in self.arrays.items())
        return f"NamedInputs({shapes})"


Examples = NDArray[Any] | NamedInputs  # what a network takes


def check_examples(
    value: Any, wanted: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]], what: str, first_name: str
) -> Examples:
    """Examples for a network: an array if it has one input, else `NamedInputs` in its order.

    Parameters
    ----------
    value : array, mapping of arrays, or NamedInputs
    wanted : mapping of name to (shape without the batch axis, number type)
        The first name is "input".
    what : str
        Name for messages, such as "images".
    first_name : str
        Another name of the first input, as its file calls it.
    """
    if isinstance(value, Mapping):
        value = NamedInputs(value)
    if not isinstance(value, NamedInputs):
        if len(wanted) > 1:
            raise InputError(f"{what} must be named arrays {_public(wanted, first_name)}, got one array")
        shape, dtype = wanted["input"]
        return _checked(value, what, shape, dtype)
    given = dict(value.arrays)
    if len(wanted) == 1 and len(given) == 1:
        (array,) = given.values()
        return _checked(array, what, *wanted["input"])
    if "input" not in given and first_name in given:
        given["input"] = given.pop(first_name)
    if set(given) != set(wanted):
        raise InputError(
            f"{what} must be named arrays {_public(wanted, first_name)}, got {sorted(value.arrays)}"
        )
    return NamedInputs({name: _checked(given[name], f"{what} {name!r}", *wanted[name]) for name in wanted})


def _public(wanted: Mapping[str, Any], first_name: str) -> list[str]:
    return [first_name if name == "input" else name for name in wanted]


def _checked(value: Any, what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    array = np.asarray(value)
    if dtype.kind in "iub":
        if array.dtype.kind not in "iubf" or array.shape[1:] != shape:
            raise InputError(
                f"{what} must be numbers of shape (n, *{shape}), got {array.dtype} {array.shape}"
            )
        if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
            raise InputError(f"{what} must be whole numbers ({dtype}), got fractions; are these tokens?")
        return array.astype(dtype, copy=False)
    if shape and array.dtype == np.uint8 and array.ndim == len(shape) + 1 and len(shape) == 3:
        raise InputError(
            f"{what} must be floats, normalised as the network was trained, got uint8; divide by 255 and "
            "subtract the mean, or use Split.images of a data set, which does it"
        )
    checked = check_array(array, what, dtype=np.float32)
    if checked.shape[1:] != shape:
        raise InputError(f"{what} must have shape (n, *{shape}), got {checked.shape}")
    return checked
