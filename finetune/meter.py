"""Limits of a tuning run, and the meter that stops a strategy within them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.blackbox.protocol import ChipProtocol, ForwardingChip, Read, Reading
from rramsim.checks import InputError
from rramsim.config import check_settings, parse, setting

__all__ = ["Budget", "BudgetSpent", "MeteredChip", "as_budget"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of one tuning run; None leaves a cost free.

    All counts begin where the run begins, the first programming of a reset chip included.
    """

    vectors: int | None = setting(None, "1", "input vectors, one per layer and position", "[0, inf)")
    cell_writes: int | None = setting(None, "1", "programmed cells", "[0, inf)")
    writes_per_cell: float | None = setting(
        None, "1", "programmed cells over weight-holding cells", "[0, inf]"
    )
    max_cycles: int | None = setting(None, "1", "writes of any single cell", "[0, inf)")
    images: int | None = setting(None, "1", "calibration images", "[0, inf)")
    seconds: float | None = setting(None, "s", "wall clock, looked at between layers and steps", "[0, inf]")

    def __post_init__(self) -> None:
        check_settings(self, "budget: ")


def as_budget(value: Any) -> Budget:
    """A budget, or the one that a mapping of its fields or None (no limits) stands for.

    Examples
    --------
    >>> as_budget({"vectors": 1000}).vectors
    1000
    >>> as_budget({"vektors": 1000})
    Traceback (most recent call last):
    rramsim.checks.InputError: budget.vektors: unknown key; did you mean 'vectors'?
    >>> as_budget(1000)
    Traceback (most recent call last):
    rramsim.checks.InputError: budget must be a Budget or a mapping of its limits, got 1000; write \
Budget(vectors=...)
    """
    if value is None:
        return Budget()
    if isinstance(value, Budget):
        return value
    if isinstance(value, Mapping):
        return parse(Budget, dict(value), "budget")
    raise InputError(
        f"budget must be a Budget or a mapping of its limits, got {value!r:.60}; write Budget(vectors=...)"
    )


class BudgetSpent(Exception):
    """The next operation would exceed a limit; raised before it happens."""


class MeteredChip(ForwardingChip):
    """A chip that refuses operations beyond a budget, and counts what was used.

    Parameters
    ----------
    chip : ChipProtocol
    budget : Budget

    Attributes
    ----------
    vectors, cell_writes : int
        Used since this meter was made.
    reserved_cells : int
        Writes that later layers cannot do without (their first programming); ordinary writes
        stop short of them.
    """

    def __init__(self, chip: ChipProtocol, budget: Budget) -> None:
        super().__init__(chip)
        self.budget = budget
        self.vectors = 0
        self.cell_writes = 0
        self.reserved_cells = 0
        # a chip that averages (`rramsim.AveragedReads`) reads each vector several times
        self.reads_per_vector = int(getattr(chip, "reads_per_vector", 1))
        self.n_cells = sum(info.n_cells for info in chip.layers.values())
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self._cycles = {
            name: np.zeros((info.n_rows, info.n_cols, info.cells_per_weight), dtype=np.int32)
            for name, info in chip.layers.items()
        }

    # -- the protocol -------------------------------------------------------------------------

    def write(self, layer: str, levels: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Program level targets, if the budget allows all of them."""
        cycles = self._cycles[layer]
        mask = np.ones(cycles.shape, dtype=bool) if mask is None else mask
        n_cells = int(mask.sum())
        if n_cells > self.cells_left:
            raise BudgetSpent(f"writing {n_cells} cells of {layer!r} with {self.cells_left} left")
        if self.budget.max_cycles is not None and (cycles[mask] >= self.budget.max_cycles).any():
            raise BudgetSpent(f"a cell of {layer!r} has had its {self.budget.max_cycles} writes")
        if n_cells:
            self._chip.write(layer, levels, mask)
        cycles[mask] += 1
        self.cell_writes += n_cells

    def read_through(self, read: Read, layer: str, codes: ArrayLike, per_tile: bool) -> Reading:
        """Read, if the budget allows all vectors."""
        n_vectors = self.reads_per_vector * (len(codes) if isinstance(codes, Sized) else 1)
        if n_vectors > self.vectors_left:
            raise BudgetSpent(f"reading {n_vectors} vectors of {layer!r} with {self.vectors_left} left")
        self.vectors += n_vectors
        return read(layer, codes, per_tile)

    # -- what is left -------------------------------------------------------------------------

    @property
    def vectors_left(self) -> float:
        """Vectors that may still be read."""
        return np.inf if self.budget.vectors is None else self.budget.vectors - self.vectors

    @property
    def cells_left(self) -> float:
        """Cells that may still be written now (reserved ones taken off)."""
        limits = [np.inf]
        if self.budget.cell_writes is not None:
            limits.append(self.budget.cell_writes)
        if self.budget.writes_per_cell is not None:
            limits.append(int(self.budget.writes_per_cell * self.n_cells))
        return max(min(limits) - self.cell_writes - self.reserved_cells, 0)

    @property
    def seconds(self) -> float:
        """Wall clock used, runs before a resume included [s]."""
        return self._seconds_before + time.monotonic() - self._started

    def check_time(self) -> None:
        """Raise when the seconds are spent."""
        if self.budget.seconds is not None and self.seconds > self.budget.seconds:
            raise BudgetSpent(f"{self.seconds:.1f} s of {self.budget.seconds:g} s are used")

    def cycles(self, layer: str) -> NDArray[np.int32]:
        """Writes of each cell in this run, shape (n_rows, n_cols, cells_per_weight)."""
        return self._cycles[layer].copy()

    def writable(self, layer: str) -> NDArray[np.bool_]:
        """Cells that `max_cycles` still lets be written, same shape."""
        if self.budget.max_cycles is None:
            return np.ones(self._cycles[layer].shape, dtype=bool)
        return self._cycles[layer] < self.budget.max_cycles

    # -- state --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Counts so far."""
        return {
            "vectors": self.vectors,
            "cell_writes": self.cell_writes,
            "reserved_cells": self.reserved_cells,
            "seconds": self.seconds,
            "cycles": {name: counts.copy() for name, counts in self._cycles.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from `state_dict`."""
        self.vectors, self.cell_writes = int(state["vectors"]), int(state["cell_writes"])
        self.reserved_cells = int(state["reserved_cells"])
        self._seconds_before, self._started = float(state["seconds"]), time.monotonic()
        self._cycles = {name: np.array(counts) for name, counts in state["cycles"].items()}
