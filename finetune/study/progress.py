"""Progress of a run, on stderr: bars on a terminal, a line for each finished trial elsewhere."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from finetune.study.sweep import Case

__all__ = ["progress", "stoppable"]


def _line(case: Case, chip: int, accuracy: Any) -> str:
    stages = zip(case.config.stages, accuracy, strict=True)
    parts = ", ".join(f"{stage} {100 * value:.2f} %" for stage, value in stages)
    return f"{f'{case.label}; ' if case.label else ''}chip {chip}: {parts}"


@contextlib.contextmanager
def progress(
    cases: Sequence[Case], *, quiet: bool = False, verbose: bool = False
) -> Iterator[tuple[Any, Any]]:
    """The callbacks `notify` and `on_trial` of `run_study`.

    Off a terminal `verbose` adds a line whenever a chip enters a stage, and every line has the rate and the
    time that is left.
    """
    known = {case.label: case for case in cases}
    if quiet:
        yield None, None
    elif sys.stderr.isatty():
        with _bars(cases, known) as callbacks:
            yield callbacks
    else:
        yield _lines(known, verbose)


def _lines(known: dict[str, Case], verbose: bool) -> tuple[Any, Any]:
    n_all = sum(len(case.config.experiment.chip_ids) for case in known.values())
    started, count, seen = time.monotonic(), 0, set()

    def on_trial(label: str, chip: int, accuracy: Any) -> None:
        nonlocal count
        count += 1
        seconds = (time.monotonic() - started) / count
        tail = f" [{count} of {n_all}, {seconds:.1f} s each]" if verbose else ""
        click.echo(_line(known[label], chip, accuracy) + tail, err=True)

    def notify(label: str, chip: int, stage: str, share: float) -> None:
        if (label, chip, stage) not in seen:
            seen.add((label, chip, stage))
            click.echo(f"{f'{label}; ' if label else ''}chip {chip}: {stage} ...", err=True)

    return notify if verbose else None, on_trial


@contextlib.contextmanager
def _bars(
    cases: Sequence[Case], known: dict[str, Case]
) -> Iterator[tuple[Callable[..., None], Callable[..., None]]]:
    """A bar for the study, and one for the chip that was heard of last."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        n_trials = sum(len(case.config.experiment.chip_ids) for case in cases)
        study = bars.add_task("trials", total=n_trials, rate="")
        trial = bars.add_task("starting", total=100, rate="")
        shares: dict[tuple[str, int], dict[str, float]] = {}
        started = time.monotonic()

        def notify(label: str, chip: int, stage: str, share: float) -> None:
            own = shares.setdefault((label, chip), {})
            own[stage] = share
            done = 100 * sum(own.values()) / len(known[label].config.stages)
            name = f"{label[:30]} chip {chip}: {stage[:30]}".strip()
            bars.update(trial, completed=round(done), description=name)

        def on_trial(label: str, chip: int, accuracy: Any) -> None:
            shares.pop((label, chip), None)
            bars.advance(study)
            rate = (bars.tasks[0].completed or 0) / max(time.monotonic() - started, 1e-9)
            bars.update(study, rate=f"{3600 * rate:.0f}/h")
            bars.console.print(_line(known[label], chip, accuracy), highlight=False, markup=False)

        yield notify, on_trial


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM stops a run as Ctrl-C does: workers are ended, what is done is kept."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
