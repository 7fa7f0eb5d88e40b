"""What an archive holds of every trial: names, element types, axes, units, meanings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rramsim.blackbox.protocol import LEDGER_QUANTITIES, LedgerQuantity

__all__ = ["FIRST", "FORMAT", "FORMAT_VERSION", "GROWING", "QUANTITIES", "Quantity"]

FORMAT = "rramsim archive"
FORMAT_VERSION = 2


@dataclass(frozen=True)
class Quantity:
    """One dataset with a trial axis: element type, names of axes, unit, meaning."""

    dtype: str
    dims: tuple[str, ...]
    unit: str
    text: str
    fill: Any = 0


def _ledger(entry: LedgerQuantity) -> Quantity:
    fill: Any = np.nan if entry.kind == "float64" else 0
    return Quantity(entry.kind, ("trial", "stage", "layer"), entry.unit, entry.text, fill)


def _real(text: str, unit: str, *dims: str) -> Quantity:
    return Quantity("float64", ("trial", *dims), unit, text, np.nan)


def _row(dtype: str, text: str, axis: str = "row") -> Quantity:
    fill: Any = {"int64": -1, "float64": np.nan, "str": b""}[dtype]
    return Quantity(dtype, ("trial", axis), "" if dtype == "str" else "1", text, fill)


QUANTITIES: dict[str, Quantity] = {
    "trial/chip": Quantity("int64", ("trial",), "1", "chip id; with the seed it names the individual"),
    "trial/complete": Quantity("uint8", ("trial",), "1", "1 when the trial is whole; written last"),
    "trial/platform": Quantity(
        "uint8", ("trial",), "1", "index into the attribute `platforms`: where the trial was computed"
    ),
    "trial/accuracy": _real("share of test images classified as labelled", "1", "stage"),
    "trial/kl": _real("mean over test images of T^2 KL(teacher || chip) of the outputs, T = 2", "1", "stage"),
    "trial/predictions": Quantity("uint8", ("trial", "stage", "image"), "1", "predicted class", 255),
    "trial/layer_error": _real(
        "error power over signal power of a mapped node's outputs against the teacher, mean over channels, "
        "on calibration images, errors of earlier layers included",
        "1",
        "stage",
        "node",
    ),
    "trial/overhead": _real("extra digital numbers over the number of weights", "1", "stage"),
    "trial/finished": Quantity("uint8", ("trial", "stage"), "1", "0 where the budget ended the tuning"),
    **{f"ledger/{entry.name}": _ledger(entry) for entry in LEDGER_QUANTITIES.values() if entry.cost},
    **{
        f"bill/{part}": _real(f"energy of one input vector in {text}", "J", "stage", "layer")
        for part, text in {
            "cells": "cells, from the solved circuit",
            "wires": "line segments, from the solved circuit",
            "drivers": "drivers and sense resistors, and charges of word lines",
            "dac": "DACs",
            "adc": "ADCs",
            "digital": "the digital side path",
        }.items()
    },
    "bill/seconds": _real("array time of one input vector", "s", "stage", "layer"),
    "bill/vectors": _real("input vectors that one image sends", "1", "stage", "layer"),
    "cells/histogram": Quantity(
        "int64",
        ("trial", "layer", "level", "bin"),
        "1",
        "weight-holding cells by level target and realised conductance, after plain mapping",
    ),
    "checkpoint/stage": _row("int64", "index into /stages; -1 pads", "checkpoint"),
    "checkpoint/label": _row("str", "where in the tuning", "checkpoint"),
    "checkpoint/vectors": _row("int64", "input vectors used by the tuning so far", "checkpoint"),
    "checkpoint/cell_writes": _row("int64", "cells written so far, mapping included", "checkpoint"),
    "checkpoint/accuracy": _row("float64", "on the first n_checkpoint test images", "checkpoint"),
    "history/stage": _row("int64", "index into /stages; -1 pads"),
    "history/layer": _row("str", "chip layer"),
    "history/step": _row("str", "component of the strategy"),
    "history/quantity": _row("str", "what `value` is"),
    "history/value": _row("float64", "a number that the step recorded"),
    "history/vectors": _row("int64", "input vectors used by the tuning so far"),
    "history/cell_writes": _row("int64", "cells written so far, mapping included"),
    "timing/seconds": _real("wall clock of tuning and evaluation", "s", "stage"),
}
GROWING = ("row", "checkpoint")  # axes that grow with the longest trial; `fill` pads
# what every archive has since version 1; of the other quantities `fill` stands for those that one lacks
FIRST = frozenset(
    {
        *("trial/chip", "trial/complete", "trial/accuracy", "trial/kl", "trial/predictions"),
        *("trial/layer_error", "trial/overhead", "trial/finished", "timing/seconds", "cells/histogram"),
        *(f"ledger/{name}" for name in ("vectors", "array_reads", "conversions", "cell_writes", "pulses")),
        *(f"checkpoint/{name}" for name in ("stage", "label", "vectors", "cell_writes", "accuracy")),
        *(f"history/{name}" for name in ("stage", "layer", "step", "quantity", "value")),
    }
)
