"""Tables of the studies beside the claims: they describe and decide nothing (`studies/PROTOCOL.md`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.study.archive import Archive, Study, open_study
from finetune.study.statistics import compare_images
from studies.claims import right, teacher_right
from studies.text import interval_cell, markdown

PERCENT = 100.0


def accuracy_cell(archive: Archive, stage: str) -> str:
    """Mean and standard deviation over chips, in percent."""
    values = PERCENT * archive.accuracy(stage)
    return f"{values.mean():.2f} +- {values.std(ddof=1):.2f}"


def gap_cell(archive: Archive, stage: str) -> str:
    """Digital network less the stage, in points."""
    gap = compare_images(teacher_right(archive), right(archive, stage))
    return interval_cell(gap.mean, gap.low, gap.high)


def per_cell(archive: Archive, quantity: str, stage: str) -> float:
    """A quantity of the ledger over the number of cells that hold weights, mean over chips."""
    return float(archive.cost(quantity, stage).mean() / archive["layers/n_cells"].sum())


def sigma_table(study: Study) -> str:
    """Accuracy against the strength of programming errors."""
    head = ["error", "mapped (%)", "batch norm (%)", "affine (%)", "tuned (%)", "gap of tuned (points)"]
    rows = []
    for archive, where in members(study):
        cells = [accuracy_cell(archive, stage) for stage in ("mapped", "batch_norm", "lsq.affine", "default")]
        rows.append([f"{where['law']} {where['sigma']:g}", *cells, gap_cell(archive, "default")])
    return markdown(head, rows)


def write_verify_table(study: Study) -> str:
    """Precise programming instead of tuning, and before it."""
    head = ["window (uS)", "stage", "accuracy (%)", "gap (points)", "pulses per cell", "writes per cell"]
    rows = [
        [
            f"{1e6 * where['window']:g}",
            stage,
            accuracy_cell(archive, stage),
            gap_cell(archive, stage),
            f"{per_cell(archive, 'pulses', stage):.2f}",
            f"{archive.writes_per_cell(stage).mean():.2f}",
        ]
        for archive, where in members(study)
        for stage in archive.stages
    ]
    return markdown(head, rows)


def memory_table(study: Study) -> str:
    """Cells per weight."""
    head = [
        "cells per weight",
        "mapping",
        *("affine (%)", "rewritten (%)", "tuned (%)"),
        "gap of tuned (points)",
    ]
    rows = []
    for archive, where in members(study):
        kind, copies = where["kind"], int(where["copies"])
        n_cells = copies * {"reference": 1, "differential": 2, "sliced": 4}[kind]
        name = f"{kind}, {int(where['n_levels'])} levels" + (f", {copies} copies" if copies > 1 else "")
        stages = ("lsq.affine", "lsq.rewrite + lsq.affine", "default")
        rows.append(
            [
                str(n_cells),
                name,
                *(accuracy_cell(archive, stage) for stage in stages),
                gap_cell(archive, "default"),
            ]
        )
    return markdown(head, rows)


def levels_table(study: Study) -> str:
    """Gap of the tuned network over levels (rows) and on/off ratio (columns), in points."""
    found: dict[tuple[int, float], str] = {}
    for archive, where in members(study):
        gap = compare_images(teacher_right(archive), right(archive, "default"))
        mapped = PERCENT * archive.accuracy("mapped").mean()
        found[int(where["n_levels"]), float(where["on_off_ratio"])] = (
            f"{PERCENT * gap.mean:.2f} ({mapped:.1f})"
        )
    ratios = sorted({ratio for _, ratio in found})
    rows = [[str(n), *(found.get((n, ratio), "") for ratio in ratios)] for n in sorted({n for n, _ in found})]
    return markdown(["levels", *(f"on/off {ratio:g}" for ratio in ratios)], rows)


def retention_table(study: Study) -> str:
    """Gap over time at rest, in points, left alone and with an affine correction at each visit."""
    head = ["preset", "method", "care", *("fresh", "1 s", "1 h", "1 d", "30 d")]
    ages = ("1", "3600", "86400", "2.592e+06")
    rows = []
    for archive, where in members(study):
        for method in ("mapped", "lsq.affine", "default"):
            for care, suffix in (("none", ""), ("affine", " maintained")):
                stages = [method, *(f"{method} + {age} s{suffix}" for age in ages)]
                if not set(stages) <= set(archive.stages):
                    continue
                gaps = [
                    PERCENT * float((archive.teacher_accuracy - archive.accuracy(stage)).mean())
                    for stage in stages
                ]
                rows.append([f"`{where['preset']}`", method, care, *(f"{gap:.2f}" for gap in gaps)])
    return markdown(head, rows)


def members(study: Study) -> list[tuple[Archive, dict[str, Any]]]:
    """Complete conditions with the values of the axes."""
    return [
        (archive, study.coordinates[label])
        for label, archive in study.items()
        if archive.n_trials >= archive.n_planned
    ]


TABLES: dict[str, Callable[[Study], str]] = {
    "sigma": sigma_table,
    "write_verify": write_verify_table,
    "memory": memory_table,
    "levels": levels_table,
    "retention": retention_table,
}


def tables(folder: Path) -> dict[str, str]:
    """Tables by study, of the archives that are there."""
    return {
        name: table(open_study(folder / f"{name}.h5"))
        for name, table in TABLES.items()
        if (folder / f"{name}.h5").exists()
    }
