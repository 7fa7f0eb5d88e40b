"""The methods of an experiment: which go on from one another, what each would cost, and all of one chip.

A strategy that begins with another one of the experiment goes on from where that one ended, which gives the
same bits as a run of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.strategies.composition import parse_strategy
from finetune.strategies.zeroth_order import positions
from finetune.study.config import ExperimentConfig
from finetune.study.materials import Materials
from finetune.study.trial import Notify, run_method
from finetune.tuner import Tuner, operations_per_vector

__all__ = ["join_methods", "method_groups", "plan_methods", "run_methods", "shared_starts"]

EVALUATION_RATE = 1.5e10  # rough multiply-accumulates per second of one thread, for plans


def shared_starts(methods: Sequence[str]) -> dict[str, str | None]:
    """For every method the longest other one that it begins with (`Composition.begins_with`), or None.

    A trial tunes with `default` once and goes on from there with `lsq+kd+zo`, which is `default` and more:
    the bits are the same as those of two runs.
    """
    parsed = {method: parse_strategy(method) for method in methods if method != "mapped"}
    starts: dict[str, str | None] = dict.fromkeys(methods)
    for method, whole in parsed.items():
        shorter = [other for other in parsed if whole.begins_with(parsed[other])]
        starts[method] = max(shorter, key=lambda other: len(parsed[other].stages), default=None)
    return starts


def method_groups(methods: Sequence[str]) -> list[list[str]]:
    """Methods that share a start, in an order in which each follows its start; large groups first."""
    starts = shared_starts(methods)
    roots = {}
    for method in methods:
        root, depth = method, 0
        while (start := starts[root]) is not None:
            root, depth = start, depth + 1
        roots[method] = (root, depth)
    groups = [
        sorted((method for method in methods if roots[method][0] == root), key=lambda m: roots[m][1])
        for root in methods
        if starts[root] is None
    ]
    return sorted(groups, key=len, reverse=True)  # the longest work first, so that workers end together


def run_methods(
    materials: Materials,
    teacher_outputs: NDArray[np.float32],
    chip_id: int,
    methods: Sequence[str],
    notify: Notify,
) -> dict[str, dict[str, Any]]:
    """`run_method` for methods that begin with one another, each after the one it begins with."""
    states: dict[str, dict[str, Any]] = {}
    starts = shared_starts(methods)
    parts = {}
    for method in methods:
        start = starts[method]
        parts[method], states[method] = run_method(
            materials,
            teacher_outputs,
            chip_id,
            method,
            notify,
            start=None if start is None else states[start],
            keep=method in starts.values(),
        )
    return parts


def join_methods(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One trial's arrays from those of its methods, in order."""
    values: dict[str, Any] = {}
    for name in {name for part in parts for name in part}:
        arrays = [part[name] for part in parts if name in part]
        filled = [array for array in arrays if array.size] or arrays[:1]
        values[name] = filled[0] if name.startswith("cells/") else np.concatenate(filled)
    return values


def plan_methods(config: ExperimentConfig) -> list[dict[str, Any]]:
    """What tuning a chip with each strategy would cost, and a rough time per chip; nothing is run.

    Returns
    -------
    list of dict
        Per strategy `strategy`, `tier`, `vectors`, `cell_writes`, `writes_per_cell`, `tuning_seconds` and
        `evaluation_seconds`, of one thread, and `tuning_bytes`, the memory beside the chip; the part shared
        with `starts_with` is in the numbers.
    """
    materials = Materials.load(config)
    starts = shared_starts(config.methods)
    rows = []
    for strategy in config.tuning.strategies:
        tuner = Tuner(
            materials.chip(config.experiment.chip_ids[0]),
            materials.network,
            materials.network,
            materials.calibration,
            strategy=strategy,
            budget=config.tuning.budget,
        )
        plan = tuner.plan()
        n_images = len(materials.test) * len(config.lifetime.suffixes)
        vectors = sum(positions(tuner.bench, node) for node in materials.network.mapped) * n_images
        rows.append(
            {
                "strategy": strategy,
                "starts_with": starts[strategy] or "",
                "tier": tuner.strategy.needed_tier.name,
                "vectors": plan["vectors"],
                "cell_writes": plan["cell_writes"],
                "writes_per_cell": plan["writes_per_cell"],
                "tuning_seconds": plan["seconds"],
                "tuning_bytes": plan["bytes"],
                "evaluation_seconds": vectors * operations_per_vector(tuner.bench) / EVALUATION_RATE,
            }
        )
    return rows
