"""Magnitudes of measured quantities that hint at a wrong unit, though nothing else is wrong with a file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import UnitWarning
from rramsim.config import implausible

__all__ = ["check_files", "check_units"]

# medians met in the literature on RRAM, in SI units: (quantity, unit, lowest, highest)
USUAL = {
    "g": ("conductance", "S", 1e-9, 1e-3),
    "v_read": ("read voltage", "V", 1e-2, 5.0),
    "t_read": ("read pulse", "s", 1e-10, 1.0),
    "kelvin": ("temperature", "K", 70.0, 700.0),
}
LONGEST = 1e10  # [s] of retention, 300 years
FACTOR = 100.0  # ratio of medians between things of one kind that hints at two units


def check_units(columns: Mapping[str, NDArray[Any]], source: str) -> None:
    """Warn of implausible medians, and of targets or bounds in another unit than the values.

    Parameters
    ----------
    columns : mapping of meaning to ndarray, shape (n_rows,)
        In SI units, see `Measurements.columns`.
    source : str
        Name of the file.

    Warns
    -----
    UnitWarning
        Each names the file, the quantity and the likely slip.
    """
    for text in _problems(columns):
        warnings.warn(f"{source}: {text}", UnitWarning, stacklevel=4)


def check_files(names: Sequence[str], medians: Sequence[float]) -> None:
    """Warn where conductances of one file are 100 times those of another one.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     check_files(["a.csv", "b.csv"], [20e-6, 20e-3])
    >>> print(caught[0].message)
    median conductances are 20 uS in a.csv and 20000 uS in b.csv, a factor of 1000: have they the same unit?
    """
    low, high = int(np.argmin(medians)), int(np.argmax(medians))
    if medians[high] > FACTOR * medians[low]:
        warnings.warn(
            f"median conductances are {1e6 * medians[low]:.4g} uS in {names[low]} and "
            f"{1e6 * medians[high]:.5g} uS in {names[high]}, a factor of "
            f"{medians[high] / medians[low]:.4g}: have they the same unit?",
            UnitWarning,
            stacklevel=4,
        )


def _problems(columns: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    for name, (words, unit, lowest, highest) in USUAL.items():
        if name in columns and len(columns[name]):
            median = float(np.nanmedian(np.abs(columns[name])))
            if median > 0.0 and not lowest <= median <= highest:
                slip = f"was another unit meant (--unit {name}=...)?"
                yield implausible(f"median {words}", median, unit, (lowest, highest), slip)
    if "time" in columns and (longest := float(np.nanmax(columns["time"], initial=0.0))) > LONGEST:
        years = longest / 3.156e7
        yield f"the longest time is {longest:.3g} s, that is {years:.3g} years: were ms or us meant?"
    g = float(np.median(columns["g"]))
    for name in ("target", "lower", "upper"):
        if name not in columns:
            continue
        kept = columns[name][np.isfinite(columns[name]) & (columns[name] > 0.0)]
        ratio = float(np.median(kept)) / g if len(kept) else 1.0
        if not 1.0 / FACTOR <= ratio <= FACTOR:
            what = f"the median of {name} is {ratio:.3g} times that of the conductances"
            yield f"{what}: have they the same unit?"
