"""What an archive says: stages summarised, methods compared, as plain rows and as pandas DataFrames.

The command's table, its figures and `rramsim compare` all show the numbers computed here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.study.results import Archive, Study, plain_stage, split_stage
from finetune.study.statistics import (
    ChipSummary,
    Comparison,
    Ratio,
    chips_needed,
    compare_images,
    holm,
    signed_rank_p,
    spread,
)
from rramsim.checks import InputError, nearest_name

__all__ = [
    "StageSummary",
    "best_rival",
    "compare_conditions",
    "compare_stages",
    "is_apart",
    "stage_summaries",
]

POINTS = 100.0  # accuracies are fractions, differences are told in percentage points
DIFFERENCES = (0.1, 0.5, 1.0)  # points for which `compare_stages` says how many chips one needs


@dataclass(frozen=True)
class StageSummary:
    """One stage of an archive; accuracies in percent, differences in points."""

    stage: str
    accuracy: ChipSummary
    gap: Comparison  # digital network - stage, over the same chips and images
    gain: Comparison | None  # stage - mapped at the same age; None for `mapped` itself
    recovered: Ratio | None  # R; None for `mapped` itself
    rival: str  # the best other stage at the same age; "" where there is none
    p_value: float  # signed-rank test against the rival, Holm-adjusted over the table; NaN without


def is_apart(stage: str) -> bool:
    """Whether a stage had more access to the chip than the black box allows, so that it is no rival."""
    from finetune.strategies.composition import parse_strategy
    from rramsim.blackbox.protocol import Tier

    method, _ = split_stage(stage)
    if method == "mapped":
        return False
    return parse_strategy(method).needed_tier >= Tier.PROBE or "reference." in method


def best_rival(archive: Archive, stage: str) -> str:
    """The other stage at the same age with the highest mean accuracy; "" where there is none.

    Stages that are apart are rivals of one another alone.
    """
    age, apart = split_stage(stage)[1], is_apart(stage)
    others = [
        name
        for name in archive.stages
        if name != stage and split_stage(name)[1] == age and (apart or not is_apart(name))
    ]
    return max(others, key=lambda name: float(archive.accuracy(name).mean()), default="")


def stage_summaries(archive: Archive) -> list[StageSummary]:
    """Every stage: accuracy, gap to the digital network, gain over `mapped`, R, test against the best rival.

    Raises
    ------
    InputError
        If the archive has no complete trial.
    """
    _need_trials(archive)
    teacher = _teacher_right(archive)
    rivals = {
        stage: "" if stage == plain_stage(stage) else best_rival(archive, stage) for stage in archive.stages
    }
    tests = [
        signed_rank_p(_whole(archive, stage) - _whole(archive, rival)) if rival else math.nan
        for stage, rival in rivals.items()
    ]
    rows = []
    for (stage, rival), p_value in zip(rivals.items(), holm(tests).tolist(), strict=True):
        plain = plain_stage(stage)
        gain = recovered = None
        if stage != plain:
            gain = _in_points(compare_images(_right(archive, stage), _right(archive, plain)))
            recovered = archive.recovered(stage)
        rows.append(
            StageSummary(
                stage,
                spread(POINTS * archive.accuracy(stage)),
                _in_points(compare_images(teacher, _right(archive, stage))),
                gain,
                recovered,
                rival,
                p_value,
            )
        )
    return rows


def compare_stages(archive: Archive, *, by: str = "strategy", baseline: str | None = None) -> Any:
    """Paired differences of every method, or age, from one of them.

    Parameters
    ----------
    archive : Archive
    by : str
        `strategy`: methods at each age against the method `baseline`; `age`: ages of each method against
        the age `baseline`, "" being right after tuning.
    baseline : str, optional
        Default: the best method that is not apart, or the fresh chip.

    Returns
    -------
    pandas.DataFrame
        A row per comparison. `strategy`, `age`, `baseline`, `n_chips`, `n_images`, `accuracy` (%);
        `difference` (points) with `low` and `high` (95 %, for other chips and other images); `p` (exact
        signed-rank test over chips) and `p_holm` (adjusted over the table); `effect` (Hedges' g) and `std`
        (points) of the paired differences over chips; `chips_for_0.1`, `chips_for_0.5` and `chips_for_1`
        (chips that find so many points with 80 % power); `recovered` with `recovered_low` and
        `recovered_high`.

    Raises
    ------
    InputError
        No complete trial, an unknown `by` or baseline, or pandas is missing.
    """
    _need_trials(archive)
    rows = []
    for stage, reference in _pairs(archive, by, baseline):
        row = _row(archive, stage, _right(archive, stage), _right(archive, reference), reference)
        rows.append(row)
    return _adjusted(rows)


def compare_conditions(study: Study, *, by: str = "strategy", baseline: str | None = None) -> Any:
    """Paired differences across the conditions of a study.

    Parameters
    ----------
    study : Study
    by : str
        `strategy` or `age`: `compare_stages` within every condition. The name of an axis: the same stage
        under its other values against its value `baseline`, everything else of the condition equal, on the
        chips that both have.
    baseline : str, optional
        Method, age, or value of the axis as the archive shows it; default: as `compare_stages`, or the
        first value.

    Returns
    -------
    pandas.DataFrame
        The columns of `compare_stages` after one column for each axis; `p_holm` is adjusted over the whole
        table.

    Raises
    ------
    InputError
        An unknown axis or value, no pair of conditions, other images on either side, or pandas is missing.

    Examples
    --------
    >>> from finetune.study.archive import open_study
    >>> study = open_study("results/lifetime.h5")  # doctest: +SKIP
    >>> compare_conditions(study, by="cycles_before", baseline="0")  # doctest: +SKIP
    """
    if by not in ("strategy", "age"):
        return _adjusted(_rows_over_axis(study, by, baseline))
    rows: list[dict[str, Any]] = []
    for label, archive in study.items():
        point = {axis: str(study.coordinates[label].get(axis, "")) for axis in study.axes}
        if archive.n_trials:
            pairs = _pairs(archive, by, baseline)
            rows += [
                point | _row(archive, stage, _right(archive, stage), _right(archive, other), other)
                for stage, other in pairs
            ]
    if not rows:
        raise InputError(f"{study.path}: no condition has a complete trial")
    return _adjusted(rows)


def _rows_over_axis(study: Study, by: str, baseline: str | None) -> list[dict[str, Any]]:
    """Every condition against the one that differs from it in one axis alone."""
    if by not in study.axes:
        known = ("strategy", "age", *study.axes)
        raise InputError(f"by must be one of {', '.join(known)}, got {by!r}; {nearest_name(by, known)}")
    values = list(dict.fromkeys(str(point.get(by, "")) for point in study.coordinates.values()))
    baseline = values[0] if baseline is None else baseline
    if baseline not in values:
        raise InputError(f"{study.path}: no {by} {baseline!r}; {nearest_name(baseline, values)}")
    found = {
        tuple((axis, str(point.get(axis, ""))) for axis in study.axes): study[label]
        for label, point in study.coordinates.items()
    }
    rows = []
    for point, archive in found.items():
        twin = found.get(tuple((axis, baseline if axis == by else value) for axis, value in point))
        if twin is None or twin is archive or not (archive.n_trials and twin.n_trials):
            continue
        if not np.array_equal(archive["labels"], twin["labels"]):
            raise InputError(f"{study.path}: conditions over {by} were tested on different images")
        mine, theirs = archive["trial/chip"].tolist(), twin["trial/chip"].tolist()
        shared = [chip for chip in mine if chip in set(theirs)]
        if not shared:
            raise InputError(f"{study.path}: conditions over {by} share no chip, so nothing is paired")
        at, there = [mine.index(chip) for chip in shared], [theirs.index(chip) for chip in shared]
        rows += [
            dict(point)
            | _row(archive, stage, _right(archive, stage)[at], _right(twin, stage)[there], f"{by}={baseline}")
            for stage in archive.stages
            if stage in twin.stages
        ]
    if not rows:
        raise InputError(f"{study.path}: no two conditions differ in {by} alone and have trials")
    return rows


def _row(
    archive: Archive, stage: str, right: NDArray[np.bool_], other: NDArray[np.bool_], reference: str
) -> dict[str, Any]:
    """One comparison: images classified as labelled on the same chips, shape (n_chips, n_images) each."""
    result = _in_points(compare_images(right, other))
    method, age = split_stage(stage)
    over = archive.recovered(stage)
    known = math.isfinite(result.low)  # from two chips nothing is known of their deviation
    return {
        "strategy": method,
        "age": age,
        "baseline": reference,
        "n_chips": result.n,
        "n_images": right.shape[1],
        "accuracy": POINTS * float(right.mean()),
        "difference": result.mean,
        "low": result.low,
        "high": result.high,
        "p": result.p_value,
        "p_holm": math.nan,
        "effect": result.effect,
        "std": result.std,
        **{
            f"chips_for_{points:g}": float(chips_needed(result.std, points)) if known else math.nan
            for points in DIFFERENCES
        },
        "recovered": over.value,
        "recovered_low": over.low,
        "recovered_high": over.high,
    }


def _adjusted(rows: list[dict[str, Any]]) -> Any:
    """A DataFrame whose p-values are adjusted over all of it."""
    for row, adjusted in zip(rows, holm([float(row["p"]) for row in rows]).tolist(), strict=True):
        row["p_holm"] = adjusted
    try:
        import pandas
    except ImportError:
        raise InputError("comparisons need pandas: install rramsim[tables]") from None
    return pandas.DataFrame(rows)


def _pairs(archive: Archive, by: str, baseline: str | None) -> list[tuple[str, str]]:
    """(stage, stage it is compared with), in the archive's order."""
    stages = archive.stages
    methods = list(dict.fromkeys(split_stage(stage)[0] for stage in stages))
    ages = list(dict.fromkeys(split_stage(stage)[1] for stage in stages))
    if by not in ("strategy", "age"):
        raise InputError(
            f"by must be 'strategy' or 'age', got {by!r}; {nearest_name(by, ('strategy', 'age'))}"
        )
    known = methods if by == "strategy" else ages
    if baseline is None:
        fair = [method for method in methods if not is_apart(method)]
        best = max(fair, key=lambda method: float(archive.accuracy(method).mean()))
        baseline = best if by == "strategy" else ""
    if baseline not in known:
        raise InputError(f"{archive.path}: no {by} {baseline!r}; {nearest_name(baseline, known)}")
    if len(known) < 2:
        raise InputError(f"{archive.path}: holds one {by} alone, so there is nothing to compare")
    pairs = []
    for stage in stages:
        method, age = split_stage(stage)
        other = (baseline, age) if by == "strategy" else (method, baseline)
        reference = other[0] + (f" + {other[1]}" if other[1] else "")
        if stage != reference:
            pairs.append((stage, reference))
    return pairs


def _need_trials(archive: Archive) -> None:
    if archive.n_trials == 0:
        raise InputError(f"{archive.path}: has no complete trial yet; `rramsim run` continues it")


def _right(archive: Archive, stage: str) -> NDArray[np.bool_]:
    """Whether each test image was classified as labelled, shape (n_chips, n_images)."""
    archive.accuracy(stage)  # refuses unknown stages
    return archive["trial/predictions"][:, archive.stages.index(stage)] == archive["labels"]


def _teacher_right(archive: Archive) -> NDArray[np.bool_]:
    return archive["teacher/outputs"].argmax(axis=1) == archive["labels"]


def _whole(archive: Archive, stage: str) -> NDArray[np.float64]:
    """Images classified as labelled, as whole numbers, so that equal differences are equal."""
    return _right(archive, stage).sum(axis=1).astype(np.float64)


def _in_points(result: Comparison) -> Comparison:
    return Comparison(
        POINTS * result.mean,
        POINTS * result.low,
        POINTS * result.high,
        result.p_value,
        result.n,
        POINTS * result.std,
        result.effect,
        POINTS * result.std_images,
    )
