"""Tables of plans, archives and sweeps, printed to the terminal."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

__all__ = [
    "console",
    "print_comparison",
    "print_notes",
    "print_notices",
    "print_plan",
    "print_study",
    "print_table",
]

SHARES = ("weights on chip", "MACs on chip")
HOW_TO_READ = (
    "accuracy in %: mean ± standard deviation over chips; gap to the teacher and gain over mapped in "
    "points: paired, with the 95 % interval for other chips and other test images (from three chips on); "
    "p: exact signed-rank test against the best rival of the same age, Holm-adjusted over this table; "
    "R: mean gain over mean loss, with its 95 % interval; writes: mapping included; digital: numbers "
    "kept beside the chip over weights"
)
NOT_COMPARABLE = (
    "* not comparable: more access to the chip than allowed; designed vectors amount to "
    "write-verify, reference points know more"
)
TIERS = {  # what `rramsim.Tier` says, for the caption of plans
    "OUTPUTS": "outputs of the whole network",
    "LAYERS": "outputs of single layers for inputs recorded from images",
    "PROBE": "outputs of single layers for inputs of its own design, which no black box allows",
    "CELLS": "single cells",
    "PULSES": "raw programming pulses",
}
WIDE = 156  # columns where no terminal tells its width


def console() -> Any:
    """Where tables are printed: as wide as the terminal or COLUMNS says, or wide where neither does."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE)


def print_plan(settings: Any, workers: int) -> None:
    """Predicted costs of one chip, strategy by strategy, and a rough time of the whole run."""
    from rich.table import Table

    from finetune.study.methods import plan_methods

    rows, n_chips = plan_methods(settings), len(settings.experiment.chip_ids)
    tiers = {row["tier"] for row in rows}
    caption = (
        "predicted for one chip; times of one thread, within a factor of about three, memory beside the chip "
        "within two; a strategy that begins with another one of the list goes on from there; tiers say what "
        "a strategy may see of the chip: "
        + "; ".join(f"{name}: {text}" for name, text in TIERS.items() if name in tiers)
    )
    table = Table(title=f"{settings.experiment.name}: plan, nothing was run", caption=caption)
    table.add_column("strategy")
    for name in ("tier", "vectors", "cell writes", "writes/cell", "tuning (s)", "GB", "evaluation (s)"):
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
            f"{row['tuning_bytes'] / 1e9:.2f}",
            f"{row['evaluation_seconds']:.1f}",
        )
    console().print(table)
    busy = max(1, min(workers, n_chips * max(len(rows), 1)))
    click.echo(f"{n_chips} chips on {busy} workers: about {seconds * n_chips / busy / 60:.1f} min")


def print_notes(cases: Any) -> None:
    """Settings that change nothing, on stderr before anything runs; each once for all conditions."""
    from finetune.study.config import unread_of_experiment

    found: dict[str, int] = {}
    for case in cases:
        for text in unread_of_experiment(case.config):
            found[text] = found.get(text, 0) + 1
    for text, n in found.items():
        where = "" if n == len(cases) else f" ({n} of {len(cases)} conditions)"
        click.echo(f"note: {text}{where}", err=True)


def print_notices(study: Any) -> None:
    """What a result must not be read without, on stderr: failed writes of each condition."""
    from finetune.study.notices import missed_writes

    for label, archive in study.items():
        text = missed_writes(archive)
        if text:
            click.echo(f"warning: {f'{label}: ' if label else ''}{text}", err=True)


def print_table(archive: Any) -> None:
    """Teacher, mapped and tuned accuracy over chips, paired differences, costs."""
    import numpy as np
    from rich.table import Table

    from finetune.study.analysis import is_apart, stage_summaries
    from finetune.study.notices import notes, shares_text
    from finetune.study.statistics import interval_text

    rows = stage_summaries(archive)
    n_images = archive["trial/predictions"].shape[2]
    chips = (
        f"{archive.n_trials} of {archive.n_planned}"
        if archive.n_trials < archive.n_planned
        else str(archive.n_trials)
    )
    what = f"{archive.attributes['network']} on {archive.attributes['dataset']}"
    given, shares, missed = archive.attributes.get("images"), shares_text(archive), _missed(archive)
    texts = [*notes(archive), f"images: {given}" if given else "", shares, HOW_TO_READ]
    if missed:
        texts.append("missed: cells that write-verify left outside their window, over cells written")
    if any(is_apart(stage) for stage in archive.stages):
        texts.append(NOT_COMPARABLE)
    caption = "; ".join(text for text in texts if text)
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
        *(("missed",) if missed else ()),
    )
    table.add_column("stage", justify="left", min_width=17, overflow="fold")
    for name in heads:
        table.add_column(name, justify="right")
    table.add_row("teacher (digital)", f"{100 * archive.teacher_accuracy:.2f}", *[""] * (len(heads) - 1))
    for index, row in enumerate(rows):
        over, stage = row.accuracy, row.stage
        std = "" if np.isnan(over.std) else f" ± {over.std:.2f}"
        cells = [stage + " *" * is_apart(stage), f"{over.mean:.2f}{std}", f"{over.worst:.2f}"]
        cells.append(f"{row.gap.mean:.2f}{interval_text(row.gap.low, row.gap.high, '.2f')}")
        if row.gain is None or row.recovered is None:
            cells += ["", "", ""]
        else:
            r = row.recovered
            cells += [
                f"{row.gain.mean:+.2f}{interval_text(row.gain.low, row.gain.high, '+.2f')}",
                "" if np.isnan(row.p_value) else f"{row.p_value:.2g}",
                "none lost"
                if np.isnan(r.value)
                else f"{100 * r.value:.0f} %{interval_text(100 * r.low, 100 * r.high, '.0f')}",
            ]
        cells += [
            f"{archive.cost('array_reads', stage).mean():.3g}",
            f"{archive.writes_per_cell(stage).mean():.2f}",
            f"{100 * archive['trial/overhead'][:, index].mean():.1f} %",
            *((f"{100 * missed[index]:.1f} %",) if missed else ()),
        ]
        table.add_row(*(cell.replace("[", r"\[") for cell in cells))
    console().print(table)


def _missed(archive: Any) -> list[float]:
    """Share of missed writes of every stage; empty where none failed, which needs no column."""
    from finetune.study.notices import missed_share

    shares = [missed_share(archive, stage) for stage in archive.stages]
    return shares if any(shares) else []


def print_study(study: Any, name: str) -> None:
    """A row for each condition and stage: narrow, whatever the number of axes."""
    from rich.table import Table

    from finetune.study.notices import shares_text
    from finetune.study.statistics import spread

    caption = (
        "accuracy in %: mean over chips, its 95 % interval (from three chips on; its part "
        "from 0 to 100), worst chip; lost: points "
        "below the digital network; a chip id names the same random deviates under every condition, so "
        "conditions are not independent samples: compare them chip by chip"
    )
    shares = {label: shares_text(archive) for label, archive in study.items()}
    alike = len(set(shares.values())) == 1
    if alike and any(shares.values()):
        caption = f"{next(iter(shares.values()))}; {caption}"
    table = Table(title=f"{name}: {study.n_trials} of {study.n_planned} trials", caption=caption)
    for axis in study.axes:
        table.add_column(axis, overflow="fold")
    table.add_column("stage", overflow="fold")
    for head in ("chips", "accuracy", "interval", "worst", "lost", *(() if alike else SHARES)):
        table.add_column(head, justify="right")
    for label, archive in study.items():
        point = [str(study.coordinates[label].get(axis, "")) for axis in study.axes]
        if not archive.n_trials:
            table.add_row(
                *(cell.replace("[", r"\[") for cell in point), "(no trial yet)", "0", "", "", "", ""
            )
            continue
        for index, stage in enumerate(archive.stages):
            over = spread(100 * archive.accuracy(stage))
            cells = [*(point if index == 0 else [""] * len(point)), stage, str(over.n), f"{over.mean:.2f}"]
            cells.append(
                "" if over.low != over.low else f"{max(over.low, 0.0):.2f} to {min(over.high, 100.0):.2f}"
            )
            cells += [f"{over.worst:.2f}", f"{100 * archive.teacher_accuracy - over.mean:.2f}"]
            if not alike:
                known = (archive.attributes.get(name) for name in ("weight_share", "mac_share"))
                cells += ["" if share is None else f"{100 * share:.1f} %" for share in known]
            table.add_row(*(cell.replace("[", r"\[") for cell in cells))
    console().print(table)


def print_comparison(study: Any, frame: Any) -> None:
    """The rows of `compare_conditions`, of one experiment or of a study."""
    from rich.table import Table

    from finetune.study.notices import shares_text
    from finetune.study.statistics import interval_text

    caption = (
        "difference in points with its 95 % interval for other chips and other test images; p: exact "
        "signed-rank test over chips, p (Holm): adjusted over this table; effect: Hedges' g of the paired "
        "differences; chips: how many find a difference of 0.1, 0.5 and 1 point with 80 % power"
    )
    shares = set(map(shares_text, study.values()))
    caption = f"{shares.pop()}; {caption}" if len(shares) == 1 and "" not in shares else caption
    names = ", ".join(dict.fromkeys(frame["baseline"]))
    chips = " or ".join(f"{n}" for n in sorted(set(frame["n_chips"])))
    images = " or ".join(f"{n:,}" for n in sorted(set(frame["n_images"])))
    title = f"{study.path.name}: {chips} chips, {images} images, against {names}"
    table = Table(title=title.replace("[", r"\["), caption=caption)
    for axis in study.axes:
        table.add_column(axis, overflow="fold")
    table.add_column("strategy", min_width=17, overflow="fold")
    for name in ("age", "accuracy", "difference", "p", "p (Holm)", "effect", "chips"):
        table.add_column(name, justify="right")
    for row in frame.to_dict("records"):
        needed = [row[f"chips_for_{points}"] for points in ("0.1", "0.5", "1")]
        cells = [
            *(str(row[axis]) for axis in study.axes),
            row["strategy"],
            row["age"],
            f"{row['accuracy']:.2f}",
            f"{row['difference']:+.2f}{interval_text(row['low'], row['high'], '+.2f')}",
            *("" if row[name] != row[name] else f"{row[name]:.2g}" for name in ("p", "p_holm", "effect")),
            "" if needed[0] != needed[0] else " ".join(f"{n:.0f}" for n in needed),
        ]
        table.add_row(*(cell.replace("[", r"\[") for cell in cells))
    console().print(table)
