"""The run of a study: trials handed to workers, stored by one process as they end.

A trial is one chip under one condition (an experiment); its identity is the digest of the condition's
settings, the seed among them, and the chip's id.  Workers are spawned with one thread each, also when there
is only one, so the bits do not depend on how many there are.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rramsim
from finetune.strategies.composition import parse_strategy
from finetune.study import storage
from finetune.study.archive import Archive, Study, open_study
from finetune.study.config import ExperimentConfig
from finetune.study.describe import unlike_text
from finetune.study.engines import Engine, process_engine, scheduler_engine
from finetune.study.journal import Journal, Record, journal_path
from finetune.study.locking import locked
from finetune.study.machine import differences, versions
from finetune.study.materials import HISTOGRAM_BINS, Materials, Store
from finetune.study.methods import join_methods, method_groups
from finetune.study.notices import facts
from finetune.study.sweep import Case
from finetune.study.trial import Notify
from rramsim.checks import InputError
from rramsim.host.layer import layer_shapes
from rramsim.parallel import LostWorkers

__all__ = ["OnTrial", "run_experiment", "run_study"]

FOLD_AT = 1 << 28  # bytes of the journal, or the size of the archive if that is more
ATTEMPTS = 4  # of work whose worker was lost
OnTrial = Callable[[str, int, NDArray[np.float64]], None]  # label, chip, accuracy of each stage


def run_experiment(
    config: ExperimentConfig,
    out: str | Path,
    *,
    workers: int = 1,
    fresh: bool = False,
    notify: Notify | None = None,
    on_trial: Callable[[int, NDArray[np.float64]], None] | None = None,
    executor: Executor | None = None,
    scheduler: str | None = None,
    shard: tuple[int, int] | None = None,
    allow_mixed: bool = False,
) -> Archive:
    """Run all trials that the archive `out` does not hold yet.

    Parameters
    ----------
    out : path
        Archive; made if absent, continued if it is of the same experiment, refused otherwise.
    workers : int
        Processes, one thread each.
    fresh : bool
        Replace an existing archive of rramsim.
    notify : callable, optional
        `notify(chip, stage, share)` while trials run.
    on_trial : callable, optional
        `on_trial(chip, accuracy of each stage)` after a trial is stored.
    executor, scheduler, shard, allow_mixed
        As for `run_study`.

    Raises
    ------
    InputError
        If `out` is another experiment's or not an archive.
    """
    study = run_study(
        [Case("", config, {})],
        out,
        name=config.experiment.name,
        workers=workers,
        fresh=fresh,
        notify=None if notify is None else lambda label, *rest: notify(*rest),
        on_trial=None if on_trial is None else lambda label, chip, accuracy: on_trial(chip, accuracy),
        executor=executor,
        scheduler=scheduler,
        shard=shard,
        allow_mixed=allow_mixed,
    )
    return next(iter(study.values()))


def run_study(
    cases: Sequence[Case],
    out: str | Path,
    *,
    name: str,
    workers: int = 1,
    fresh: bool = False,
    notify: Callable[[str, int, str, float], None] | None = None,
    on_trial: OnTrial | None = None,
    executor: Executor | None = None,
    scheduler: str | None = None,
    shard: tuple[int, int] | None = None,
    allow_mixed: bool = False,
) -> Study:
    """Run all trials of all conditions that the archive `out` does not hold yet.

    Parameters
    ----------
    cases : sequence of Case
        Conditions; a single one without a label is an experiment, stored at the root of the file.
    out : path
        Archive; made if absent; continued, and extended by conditions and chips, if it is of a study.
    name : str
        Name of the study, kept in the file.
    workers : int
        Processes, one thread each.
    fresh : bool
        Replace an existing archive of rramsim.
    notify : callable, optional
        `notify(label, chip, stage, share)` while trials run.
    on_trial : callable, optional
        `on_trial(label, chip, accuracy of each stage)` after a trial is stored.
    executor : concurrent.futures.Executor, optional
        Computes the trials in place of processes of this machine; its processes read networks and data sets
        for themselves.
    scheduler : str, optional
        Address of a Dask scheduler, or `local` to start one with `workers` workers.
    shard : (int, int), optional
        (3, 20): the third twentieth of the trials alone, for arrays of jobs; see `rramsim archive merge`.
    allow_mixed : bool
        Go on where BLAS, processor or libraries differ from those the archive was begun with; each trial's
        `trial/platform` tells them apart.

    Raises
    ------
    InputError
        Before the first trial, if `out` is of something else or settings do not fit; and when the disk is
        full or workers are lost time and again, in which case the same call continues.

    Examples
    --------
    >>> from dask.distributed import Client  # doctest: +SKIP
    >>> executor = Client("tcp://head:8786").get_executor()  # doctest: +SKIP
    >>> run_study(load_sweep("study.toml")[1], "study.h5", name="study", executor=executor)  # doctest: +SKIP
    """
    out = Path(out)
    if workers < 1:
        raise InputError(f"workers must be >= 1, got {workers}")
    plans = [_Plan(case, "" if not case.label else f"conditions/{case.config.digest}") for case in cases]
    _assign(plans, shard)
    store = Store(size=8)
    for plan in plans:  # bad input shows here, before any process starts
        materials = store.get(plan.case.config)
        plan.fingerprint = materials.fingerprint
        for strategy in plan.case.config.all_strategies:
            parse_strategy(strategy).check_chip(materials.chip(plan.case.config.experiment.chip_ids[0]))
    with locked(out):
        previous = _previous(plans, out, fresh, allow_mixed)
        for plan in plans:
            held = set() if previous is None else _done(previous, plan)
            plan.todo = [chip for chip in plan.chips if chip not in held]
        n_tasks = sum(len(plan.todo) * len(method_groups(plan.case.config.methods)) for plan in plans)
        if previous is not None and not n_tasks and not _is_new(previous, plans):
            return previous
        with contextlib.ExitStack() as stack:
            labels = {plan.case.config.digest: plan.case.label for plan in plans}
            hear = None if notify is None else lambda said: notify(labels[said[0]], *said[1:])
            engine = stack.enter_context(_engine(executor, scheduler, workers, n_tasks, hear))
            _prepare(plans, out, name, engine, store, previous, fresh)
            _Writer(out, plans, engine, store, allow_mixed, on_trial).run()
        return open_study(out)


@contextlib.contextmanager
def _engine(
    executor: Executor | None,
    scheduler: str | None,
    workers: int,
    n_tasks: int,
    hear: Callable[[Any], None] | None,
) -> Iterator[Engine]:
    """Who computes: the given executor, a Dask cluster, or processes of this machine."""
    if executor is not None:
        yield Engine(executor, max(workers, 32))
    elif scheduler is not None:
        with scheduler_engine(scheduler, workers) as cluster:
            yield cluster
    else:
        with process_engine(max(1, min(workers, n_tasks)), hear) as processes:
            yield processes


@dataclass
class _Plan:
    """One condition: which of its chips belong to this run, and which are left."""

    case: Case
    group: str
    chips: list[int] = field(default_factory=list)
    todo: list[int] = field(default_factory=list)
    outputs: NDArray[np.float32] | None = None
    fingerprint: str = ""


def _assign(plans: list[_Plan], shard: tuple[int, int] | None) -> None:
    """Trials counted through all conditions; a shard takes every so-manieth."""
    number, n_shards = shard or (1, 1)
    if not 1 <= number <= n_shards:
        raise InputError(f"shard must be NUMBER/COUNT with 1 <= NUMBER <= COUNT, got {number}/{n_shards}")
    count = 0
    for plan in plans:
        for chip in plan.case.config.experiment.chip_ids:
            if count % n_shards == number - 1:
                plan.chips.append(chip)
            count += 1
    plans[:] = [plan for plan in plans if plan.chips]
    if not plans:
        raise InputError(f"shard {number}/{n_shards} holds no trial: the study has {count}")


def _find(study: Study, plan: _Plan) -> Archive | None:
    """The archive's part for a condition, by its digest."""
    for archive in study.values():
        if archive.attributes.get("digest") == plan.case.config.digest:
            return archive
    return None


def _done(study: Study, plan: _Plan) -> set[int]:
    archive = _find(study, plan)
    return set() if archive is None else set(archive["trial/chip"].tolist())


def _is_new(study: Study, plans: list[_Plan]) -> bool:
    """Whether conditions or chips are to be added, or labels have changed."""
    for order, plan in enumerate(plans):
        archive = _find(study, plan)
        if archive is None or _described(plan, order).items() - archive.attributes.items():
            return True
    return False


def _previous(plans: list[_Plan], out: Path, fresh: bool, allow_mixed: bool) -> Study | None:
    """The archive as it stands, its journal folded in; None where there is none or it shall be replaced."""
    if not out.exists():
        journal_path(out).unlink(missing_ok=True)  # of an archive that somebody has removed
        return None
    previous = open_study(out)  # refuses files that are no archives, also with `fresh`
    if fresh:
        return None
    first = next(iter(previous.values()))
    single, was_single = not plans[0].group, "digest" in first.attributes and not previous.axes
    mine = {"digest": plans[0].case.config.digest, "rramsim_version": rramsim.__version__}
    theirs = {key: first.attributes.get(key) for key in mine}
    if single and was_single and theirs["digest"] != mine["digest"]:
        what = "another experiment"
    elif single != was_single:
        what = "an experiment" if was_single else "a study of several conditions"
    else:
        what = "another version of rramsim"
    if theirs["rramsim_version"] != mine["rramsim_version"] or what != "another version of rramsim":
        which = unlike_text(first.config, plans[0].case.config) if single and was_single else ""
        raise InputError(
            f"{out}: holds {what} ({theirs['digest']}, rramsim {theirs['rramsim_version']}; this is "
            f"{mine['digest']}, rramsim {mine['rramsim_version']}{which}); choose another --out, "
            "or --fresh to replace it"
        )
    for plan in plans:
        archive = _find(previous, plan)
        if archive is not None and archive.attributes.get("fingerprint") != plan.fingerprint:
            raise InputError(
                f"{out}: was made with other weights or images under the same names; "
                "choose another --out, or --fresh to replace it"
            )
    unlike = differences(versions(), str(first.attributes["versions"]))
    if unlike and not allow_mixed:
        raise InputError(
            f"{out}: was begun where bits may come out differently ({'; '.join(unlike)}); continue it "
            "there, or with --allow-mixed, which marks the trials"
        )
    if storage.migrate(out) or storage.fold(out):
        journal_path(out).unlink(missing_ok=True)
        previous = open_study(out)
    return previous


def _described(plan: _Plan, order: int) -> dict[str, Any]:
    """Attributes of a condition that a later run may change: which chips and which place in the grid."""
    found: dict[str, Any] = {"config": plan.case.config.to_toml()}
    if plan.group:
        found |= {"label": plan.case.label, "order": order, "coordinates": json.dumps(plan.case.coordinates)}
    return found


def _prepare(
    plans: list[_Plan],
    out: Path,
    name: str,
    engine: Engine,
    store: Store,
    previous: Study | None,
    fresh: bool,
) -> None:
    """Make the archive, or add what it lacks: conditions, chips, labels."""
    teachers: dict[str, Future[Any]] = {}
    new, chips, described = [], {}, {}
    for order, plan in enumerate(plans):
        archive = None if previous is None else _find(previous, plan)
        if archive is not None:
            plan.outputs = archive["teacher/outputs"]
            chips[plan.group], described[plan.group] = plan.chips, _described(plan, order)
        elif plan.fingerprint not in teachers:
            teachers[plan.fingerprint] = engine.teacher(store.get(plan.case.config))
    for order, plan in enumerate(plans):
        if plan.outputs is None:
            plan.outputs = _answer(teachers[plan.fingerprint])
            entry = condition(plan.group, plan.case, store.get(plan.case.config), plan.outputs, plan.chips)
            new.append(entry)
            described[plan.group] = _described(plan, order)
        store.get(plan.case.config).warn_of_teacher(plan.outputs)
    for materials in {plan.fingerprint: store.get(plan.case.config) for plan in plans}.values():
        materials.warn_of_calibration()
    made = versions()
    attributes = {} if previous is not None else {
        "name": name,
        "rramsim_version": rramsim.__version__,
        "versions": made,
        "platforms": f"[{made}]",
    }  # fmt: skip
    if fresh:
        journal_path(out).unlink(missing_ok=True)
    storage.write(
        out,
        attributes=attributes,
        conditions=new,
        chips=chips,
        group_attributes=described,
        space=(1 << 22) + sum(int(plan.outputs.nbytes) for plan in plans if plan.outputs is not None),
        fresh=previous is None,
    )


def _answer(future: Future[Any]) -> Any:
    try:
        return future.result()
    except LostWorkers as error:
        raise InputError(f"{error}; what is done is kept, and the same command continues") from None


class _Writer:
    """Hands out the work of a study and stores its trials; the only one that writes the archive."""

    def __init__(
        self,
        out: Path,
        plans: list[_Plan],
        engine: Engine,
        store: Store,
        allow_mixed: bool,
        on_trial: OnTrial | None,
    ) -> None:
        self._out, self._plans, self._engine, self._store = out, plans, engine, store
        self._allow_mixed, self._on_trial = allow_mixed, on_trial
        self._platforms = json.loads(next(iter(open_study(out).values())).attributes["platforms"])
        self._parts: dict[tuple[str, int], dict[str, Any]] = {}

    def run(self) -> None:
        """Until every trial is stored; the journal is folded in at the end, also after an error."""
        journal = Journal(self._out)
        try:
            work = self._work()
            running: dict[Future[Any], tuple[_Plan, int, list[str], int]] = {}
            while True:
                while len(running) < 2 * self._engine.n_workers and (task := next(work, None)) is not None:
                    running[self._submit(task)] = task
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    plan, chip, methods, attempt = running.pop(future)
                    error = future.exception() if not future.cancelled() else InterruptedError()
                    if attempt < ATTEMPTS and (future.cancelled() or (error and self._engine.lost(error))):
                        task = (plan, chip, methods, attempt + 1)
                        running[self._submit(task)] = task
                        continue
                    self._take(journal, plan, chip, *_answer(future))
                if journal.size > max(FOLD_AT, self._out.stat().st_size) and storage.fold(self._out):
                    journal.clear()
        finally:
            try:
                if storage.fold(self._out):
                    journal.clear()
            finally:
                journal.close()

    def _work(self) -> Iterator[tuple[_Plan, int, list[str], int]]:
        # methods of a chip may run side by side; a trial is stored when its last one is done
        for plan in self._plans:
            groups = method_groups(plan.case.config.methods)
            yield from ((plan, chip, methods, 1) for chip in plan.todo for methods in groups)

    def _submit(self, task: tuple[_Plan, int, list[str], int]) -> Future[Any]:
        plan, chip, methods, _ = task
        assert plan.outputs is not None
        return self._engine.methods(self._store.get(plan.case.config), plan.outputs, chip, methods)

    def _take(self, journal: Journal, plan: _Plan, chip: int, answer: dict[str, Any], platform: str) -> None:
        parts = self._parts.setdefault((plan.group, chip), {})
        parts |= answer
        if len(parts) < len(plan.case.config.methods):
            return
        del self._parts[plan.group, chip]
        values = join_methods([parts[method] for method in plan.case.config.methods])
        values["trial/platform"] = np.uint8(self._platform(platform))
        unknown = set(values) - set(storage.QUANTITIES)
        if unknown:
            raise KeyError(f"no quantity of the archive: {sorted(unknown)}")
        try:
            journal.append(Record(plan.group, chip, values))
        except OSError as error:
            raise InputError(
                f"{self._out}: cannot be written ({error.strerror or error}); the trials before this one are "
                "kept, and the same command continues"
            ) from None
        if self._on_trial is not None:
            self._on_trial(plan.case.label, chip, values["trial/accuracy"])

    def _platform(self, found: str) -> int:
        """Number of the platform a trial was computed on; a new one is refused, or written down at once."""
        for number, known in enumerate(self._platforms):
            unlike = differences(found, json.dumps(known))
            if not unlike:
                return number
        if not self._allow_mixed:
            raise InputError(
                f"{self._out}: a worker computes where bits may come out differently ({'; '.join(unlike)}); "
                "leave it out, or use --allow-mixed, which marks the trials"
            )
        self._platforms.append(json.loads(found))
        storage.write(self._out, attributes={"platforms": json.dumps(self._platforms)})
        return len(self._platforms) - 1


def condition(
    group: str, case: Case, materials: Materials, outputs: NDArray[np.float32], chips: Sequence[int]
) -> storage.Condition:
    """An experiment without trials, as the archive takes it."""
    config = case.config
    network, shapes = materials.network, layer_shapes(materials.network)
    chip = materials.chip(config.experiment.chip_ids[0])
    predicted = outputs.argmax(axis=1)
    layers = list(shapes)
    attributes = {
        "name": config.experiment.name,
        "seed": config.experiment.seed,
        "digest": config.digest,
        "config": config.to_toml(),
        "fingerprint": materials.fingerprint,
        "dataset": materials.dataset_name,
        "images": materials.normalisation,
        "network": network.name,
        "n_checkpoint_images": config.experiment.n_checkpoint,
        **facts(config, network),
    }
    constants = {
        "stages": (list(config.stages), ("stage",), "", "what was done to the chip before the evaluation"),
        "labels": (materials.test.labels.astype(np.uint8), ("image",), "1", "class of each test image"),
        "classes": (list(materials.class_names), ("class",), "", "names of the classes"),
        "calibration/index": (materials.calibration_index, ("calibration_image",), "1",
                              "place of each calibration image in its split"),
        "teacher/accuracy": (float((predicted == materials.test.labels).mean()), (), "1",
                             "digital network on the test images"),
        "teacher/outputs": (outputs, ("image", "class"), "1", "outputs of the digital network"),
        "layers/name": (layers, ("layer",), "", "layers on the chip, in network order"),
        "layers/n_rows": (np.array([shapes[name][0] for name in layers]), ("layer",), "1", "inputs"),
        "layers/n_cols": (np.array([shapes[name][1] for name in layers]), ("layer",), "1", "outputs"),
        "layers/n_cells": (np.array([chip.layers[name].n_cells for name in layers]), ("layer",), "1",
                           "cells that hold weights"),
        "nodes/name": (list(network.mapped), ("node",), "", "mapped nodes; a grouped one is several layers"),
        "cells/level_conductance": (np.array(chip.datasheet.levels), ("level",), "S", "nominal conductance"),
        "cells/bin_edges": (materials.bin_edges, ("bin_edge",), "S",
                            "bins of cells/histogram; the last one also counts what lies above"),
    }  # fmt: skip
    sizes = {
        "stage": len(config.stages),
        "image": len(materials.test),
        "layer": len(layers),
        "node": len(network.mapped),
        "level": len(chip.datasheet.levels),
        "bin": HISTOGRAM_BINS,
    }
    return storage.Condition(group, attributes, sizes, constants, chips)
