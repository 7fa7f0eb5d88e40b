"""Archives checked, sealed and merged: what `rramsim archive` does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetune.study import storage
from finetune.study.archive import Archive, Study, open_study
from finetune.study.config import ExperimentConfig
from finetune.study.journal import Record, journal_path
from finetune.study.locking import locked
from finetune.study.machine import differences
from finetune.study.quantities import QUANTITIES
from finetune.study.seal import add_seal, check_seal, content_size
from rramsim.checks import InputError

__all__ = ["check", "merge", "seal"]

CHECK_SECONDS = 120  # a reader in a child process may take so long,
CHECK_MEMORY = 4 << 30  # and so many bytes


def check(path: str | Path) -> str:
    """Verify an archive, and say in a line what it holds.

    The checksums are verified first; then everything is read.  A file without checksums, of version 1 or of
    somebody else's making, is read in a child process with limits of time and memory, since HDF5 may crash or
    loop on damaged files.

    Raises
    ------
    InputError
        If anything is damaged, naming the file and the place.
    """
    path = Path(path)
    if path.is_file() and not check_seal(path):
        _check_apart(path)
    return examine(path)


def examine(path: Path) -> str:
    """Read everything that an archive holds, and compare what can be compared."""
    study = open_study(path)
    for label, archive in study.items():
        where = f"{path}{f' ({label})' if label else ''}"
        for name in archive:
            values = archive[name]
            if len(archive.dims(name)) != values.ndim:
                raise InputError(f"{where}: {name} has {values.ndim} axes, named are {archive.dims(name)}")
            if archive.dims(name)[:1] == ("trial",) and len(values) != archive.n_trials:
                raise InputError(f"{where}: {name} has {len(values)} of {archive.n_trials} trials")
        right = (archive["trial/predictions"] == archive["labels"]).mean(axis=2)
        if not np.array_equal(right, archive["trial/accuracy"]):
            raise InputError(f"{where}: accuracies are not those of the stored predictions")
        if len(set(archive["trial/chip"].tolist())) != archive.n_trials:
            raise InputError(f"{where}: a chip is there twice")
    kind = "with checksums" if path.is_dir() or content_size(path) else "without checksums (version 1)"
    return f"{study.n_trials} of {study.n_planned} trials in {len(study)} condition(s), {kind}: whole"


def _check_apart(path: Path) -> None:
    code = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({CHECK_MEMORY}, {CHECK_MEMORY}))\n"
        "from pathlib import Path\n"
        "from rramsim.checks import InputError\n"
        "from finetune.study.curate import examine\n"
        "try:\n"
        "    examine(Path(sys.argv[1]))\n"
        "except InputError as error:\n"
        "    sys.exit(str(error))\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS,
            env=None,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{path}: damaged: reading it does not end") from None
    if done.returncode < 0:
        raise InputError(f"{path}: damaged: reading it crashes HDF5 (signal {-done.returncode})")
    if done.returncode:
        raise InputError((done.stderr.strip().splitlines() or [f"{path}: damaged"])[-1])


def seal(path: str | Path) -> None:
    """Accept an archive as it is, with new checksums: after another program has changed it on purpose."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such archive")
    with locked(path):
        if content_size(path) is not None:
            check_seal(path)
            return
        storage.check_format(path)
        add_seal(path)


def merge(paths: Sequence[str | Path], out: str | Path, *, allow_mixed: bool = False) -> Study:
    """Join archives of shards, or of separate chips or conditions, into one.

    Trials keep their identity (digest of the settings, chip); one that several archives hold is taken once.
    Chips stand in the order of the configuration, so that the shards of a study give the archive of a single
    run.

    Parameters
    ----------
    paths : sequence of path
        Archives of experiments with one digest, or of studies.
    out : path
        New archive.
    allow_mixed : bool
        Join also what was computed where bits may differ; `trial/platform` tells it apart.

    Raises
    ------
    InputError
        If `out` exists, an archive is damaged, or they do not belong together.
    """
    out, studies = Path(out), [open_study(path) for path in paths]
    if not studies:
        raise InputError("merge needs at least one archive")
    if out.exists():
        raise InputError(f"{out}: exists already; merge writes a new archive")
    platforms = _platforms(studies, allow_mixed)
    versions = {archive.attributes.get("rramsim_version") for study in studies for archive in study.values()}
    if len(versions) > 1:
        raise InputError(
            f"archives of different versions of rramsim: {', '.join(sorted(map(str, versions)))}"
        )
    parts: dict[str, list[Archive]] = {}
    for study in studies:
        for archive in study.values():
            parts.setdefault(str(archive.attributes["digest"]), []).append(archive)
    swept = any("label" in archive.attributes for same in parts.values() for archive in same)
    if len(parts) > 1 and not swept:
        raise InputError(
            "archives of different experiments; only shards of one, or of one study, can be merged"
        )
    conditions, records = [], []
    for digest, same in parts.items():
        group = f"conditions/{digest}" if swept else ""
        _check_same(same)
        conditions.append(_condition(group, same))
        records.append((group, same))
    first = next(iter(studies[0].values())).attributes
    attributes = {name: first[name] for name in ("name", "rramsim_version", "versions")}
    with locked(out):
        storage.write(
            out,
            attributes={**attributes, "platforms": json.dumps(platforms)},
            conditions=conditions,
            records=_records(records, platforms),
            space=sum(path.stat().st_size for path in map(Path, paths)) * 4 + (1 << 24),
            fresh=True,
        )
        journal_path(out).unlink(missing_ok=True)
    return open_study(out)


def _platforms(studies: Sequence[Study], allow_mixed: bool) -> list[Any]:
    found: list[Any] = []
    for study in studies:
        for archive in study.values():
            for platform in _platforms_of(archive):
                unlike = [differences(json.dumps(platform), json.dumps(known)) for known in found]
                if all(unlike) and found and not allow_mixed:
                    raise InputError(
                        f"{archive.path}: was computed where bits may come out differently "
                        f"({'; '.join(unlike[0])}); --allow-mixed joins it nevertheless and marks the trials"
                    )
                if all(unlike):
                    found.append(platform)
    return found


def _platforms_of(archive: Archive) -> list[Any]:
    attributes = archive.attributes
    return list(json.loads(attributes.get("platforms", f"[{attributes.get('versions', '{}')}]")))


def _check_same(archives: Sequence[Archive]) -> None:
    first = archives[0]
    for other in archives[1:]:
        if other.attributes["fingerprint"] != first.attributes["fingerprint"] or not np.array_equal(
            other["teacher/outputs"], first["teacher/outputs"]
        ):
            raise InputError(f"{other.path}: was made with other weights or images than {first.path}")


def _condition(group: str, archives: Sequence[Archive]) -> storage.Condition:
    import tomllib

    from rramsim.config import parse

    first = archives[0]
    wanted: dict[int, None] = {}
    for archive in archives:
        wanted |= dict.fromkeys(parse(ExperimentConfig, tomllib.loads(archive.config)).experiment.chip_ids)
    planned = {int(chip) for archive in archives for chip in archive.planned}
    chips = [chip for chip in wanted if chip in planned] + sorted(planned - set(wanted))
    constants: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for name in first:
        dims = first.dims(name)
        if name not in QUANTITIES:
            constants[name] = (first[name], dims, first.unit(name), first.text(name))
        sizes.update(zip(dims, first[name].shape, strict=True))
    kept = {"format", "format_version", "rramsim_version", "versions", "platforms"}
    attributes = {name: value for name, value in first.attributes.items() if name not in kept}
    return storage.Condition(group, attributes, sizes, constants, chips)


def _records(groups: Sequence[tuple[str, Sequence[Archive]]], platforms: list[Any]) -> Iterator[Record]:
    for group, archives in groups:
        for archive in archives:
            own = _platforms_of(archive)
            place = [
                next(
                    k
                    for k, known in enumerate(platforms)
                    if not differences(json.dumps(p), json.dumps(known))
                )
                for p in own
            ]
            names = [name for name in QUANTITIES if name not in ("trial/chip", "trial/complete")]
            for row, chip in enumerate(archive["trial/chip"].tolist()):
                values = {name: np.asarray(archive[name][row]) for name in names}
                values["trial/platform"] = np.array(place[int(values["trial/platform"])], dtype=np.uint8)
                yield Record(group, chip, values)
