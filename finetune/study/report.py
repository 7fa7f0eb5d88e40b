"""Tables of plans, archives and sweeps, printed to the terminal."""

from __future__ import annotations

import re
import sys
from typing import Any

import click

from rramsim.checks import InputError

__all__ = ["console", "print_plan", "print_sweep", "print_table"]

WIDE = 156  # columns where no terminal tells its width


def console() -> Any:
    """Where tables are printed: as wide as the terminal, or wide where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDE)


def print_plan(settings: Any, workers: int) -> None:
    """Predicted costs of one chip, strategy by strategy, and a rough time of the whole run."""
    from rich.table import Table

    from finetune.study.methods import plan_methods

    rows, n_chips = plan_methods(settings), len(settings.experiment.chip_ids)
    caption = (
        "predicted for one chip; times of one thread, within a factor of about three; a strategy that begins "
        "with another one of the list goes on from there"
    )
    table = Table(title=f"{settings.experiment.name}: plan, nothing was run", caption=caption)
    table.add_column("strategy")
    for name in ("tier", "vectors", "cell writes", "writes/cell", "tuning (s)", "evaluation (s)"):
        table.add_column(name, justify="right")
    tuning = {row["strategy"]: row["tuning_seconds"] for row in rows}
    seconds = max((row["evaluation_seconds"] for row in rows), default=0.0)  # of plain mapping
    for row in rows:
        seconds += row["tuning_seconds"] - tuning.get(row["starts_with"], 0.0) + row["evaluation_seconds"]
        table.add_row(
            row["strategy"].replace("[", r"\["),
            row["tier"],
            f"{row['vectors']:.3g}",
            f"{row['cell_writes']:.0f}",
            f"{row['writes_per_cell']:.2f}",
            f"{row['tuning_seconds']:.1f}",
            f"{row['evaluation_seconds']:.1f}",
        )
    console().print(table)
    busy = max(1, min(workers, n_chips * max(len(rows), 1)))
    click.echo(f"{n_chips} chips on {busy} workers: about {seconds * n_chips / busy / 60:.1f} min")


def print_table(archive: Any) -> None:
    """Teacher, mapped and tuned accuracy with spread, paired differences, costs."""
    import numpy as np
    from rich.table import Table

    from finetune.study.statistics import compare, spread

    if archive.n_trials == 0:
        raise InputError(f"{archive.path}: has no complete trial yet; `rramsim run` continues it")
    n_images = archive["trial/predictions"].shape[2]
    chips = (
        f"{archive.n_trials} of {archive.n_planned}"
        if archive.n_trials < archive.n_planned
        else str(archive.n_trials)
    )
    what = f"{archive.attributes['network']} on {archive.attributes['dataset']}"
    caption = (
        "accuracy in %: mean ± standard deviation over chips; gap to the teacher and gain over mapped in "
        "points: paired, 95 % bootstrap interval, Wilcoxon p; R: share of the lost accuracy recovered; "
        "writes: mapping included; digital: numbers kept beside the chip over weights"
    )
    apart = [stage for stage in archive.stages if _apart(stage)]
    if apart:
        caption += (
            "; * no fair competitor: designed vectors amount to write-verify, reference points know more"
        )
    table = Table(title=f"{what}: {chips} chips, {n_images:,} test images", caption=caption)
    heads = (
        "accuracy",
        "worst",
        "gap",
        "gain over mapped",
        "p",
        "R",
        "array reads",
        "writes/cell",
        "digital",
    )
    table.add_column("stage", justify="left", min_width=17, overflow="fold")
    for name in heads:
        table.add_column(name, justify="right")
    teacher = np.full(archive.n_trials, 100 * archive.teacher_accuracy)
    table.add_row("teacher (digital)", f"{teacher[0]:.2f}", *[""] * (len(heads) - 1))
    for index, stage in enumerate(archive.stages):
        accuracy = 100 * archive.accuracy(stage)
        over, gap = spread(accuracy), compare(teacher, accuracy)
        cells = [stage + " *" * (stage in apart), f"{over.mean:.2f} ± {over.std:.2f}", f"{over.worst:.2f}"]
        cells.append(f"{gap.mean:.2f} [{gap.low:.2f}, {gap.high:.2f}]")
        if stage == "mapped":
            cells += ["", "", ""]
        else:
            gain = compare(accuracy, 100 * archive.accuracy("mapped"))
            recovered = archive.recovered(stage)
            cells += [
                f"{gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]",
                "" if np.isnan(gain.p_value) else f"{gain.p_value:.2g}",
                "" if np.isnan(recovered).all() else f"{100 * np.nanmean(recovered):.0f} %",
            ]
        cells += [
            f"{archive.cost('array_reads', stage).mean():.3g}",
            f"{archive.writes_per_cell(stage).mean():.2f}",
            f"{100 * archive['trial/overhead'][:, index].mean():.1f} %",
        ]
        table.add_row(*(cell.replace("[", r"\[") for cell in cells))
    console().print(table)


def _apart(stage: str) -> bool:
    """Whether a stage is no fair competitor: it sends designed vectors, or looks behind the curtain."""
    from finetune.strategies.composition import parse_strategy
    from rramsim.blackbox.protocol import Tier

    method = re.sub(r" \+ \S+ reads$", "", stage)
    if method == "mapped":
        return False
    return parse_strategy(method).needed_tier >= Tier.PROBE or "reference." in method


def print_sweep(name: str, archives: dict[str, Any]) -> None:
    """Mean accuracy and worst chip of every stage and case."""
    from rich.table import Table

    from finetune.study.statistics import spread

    table = Table(title=f"{name}: accuracy in %, mean over chips (worst chip)")
    table.add_column("stage")
    for label in archives:
        table.add_column(label, justify="right")
    stages = next(iter(archives.values())).stages
    for stage in stages:
        overs = [spread(100 * archive.accuracy(stage)) for archive in archives.values()]
        table.add_row(stage, *(f"{over.mean:.2f} ({over.worst:.2f})" for over in overs))
    console().print(table)
