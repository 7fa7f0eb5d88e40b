"""Archives: round trip, interruption, damage, documentation, statistics."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from finetune.study import storage
from finetune.study.archive import QUANTITIES, Archive, open_archive
from finetune.study.config import ExperimentConfig
from finetune.study.locking import locked
from finetune.study.plot import FIGURES, draw_figures
from finetune.study.runner import run_experiment
from finetune.study.seal import add_seal, content_size
from rramsim.checks import InputError
from rramsim.config import parse

ROOT = Path(__file__).resolve().parent.parent


def assert_same(one: Archive, two: Archive, *, chips: bool = True) -> None:
    """Equal bit for bit outside /timing."""
    mine, theirs = one.without_timing(), two.without_timing()
    assert set(mine) == set(theirs)
    for name, values in mine.items():
        assert values.dtype == theirs[name].dtype, name
        assert values.tobytes() == theirs[name].tobytes(), name
    skip = () if chips else ("config",)
    for name in set(one.attributes) - set(skip):
        assert one.attributes[name] == two.attributes[name], name


@contextlib.contextmanager
def changed(path: Path) -> Iterator[h5py.File]:
    """Change an archive behind its back, with checksums that fit again."""
    os.truncate(path, content_size(path) or path.stat().st_size)
    with h5py.File(path, "r+") as file:
        yield file
    add_seal(path)


def test_archive_holds_what_the_run_did(quick: ExperimentConfig, quick_archive: Archive) -> None:
    archive = quick_archive
    assert archive.n_trials == archive.n_planned == 2
    assert archive["trial/chip"].tolist() == [100, 101]
    assert archive.stages == ["mapped", "batch_norm", "lsq.affine"]
    predictions, labels = archive["trial/predictions"], archive["labels"]
    assert predictions.dtype == np.uint8
    assert predictions.shape == (2, 3, 360)
    # statistics can be redone without a chip
    np.testing.assert_array_equal((predictions == labels).mean(axis=2), archive["trial/accuracy"])
    teacher = archive["teacher/outputs"].argmax(axis=1)
    assert archive.teacher_accuracy == (teacher == labels).mean()
    # every cell of the mapped chip is in exactly one bin
    per_layer = archive["cells/histogram"].sum(axis=(2, 3))
    np.testing.assert_array_equal(per_layer, np.broadcast_to(archive["layers/n_cells"], per_layer.shape))
    # one-shot mapping writes cells once and reads nothing; these strategies only read
    assert not archive.cost("array_reads", "mapped").any()
    np.testing.assert_array_equal(
        archive.cost("cell_writes", "mapped"), archive.cost("cell_writes", "lsq.affine")
    )
    assert (archive.cost("max_cycles", "lsq.affine") == 1).all()
    assert (archive["timing/seconds"] > 0).all()
    assert parse(ExperimentConfig, tomllib.loads(archive.config)) == quick
    assert archive.attributes["digest"] == quick.digest


def test_every_dataset_tells_its_axes_and_unit(quick_archive: Archive) -> None:
    known_units = {"", "1", "S", "s", "J"}
    with h5py.File(quick_archive.path, "r") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            dims = [d for d in file[name].attrs["dims"].split(",") if d]
            assert len(dims) == file[name].ndim, name
            assert file[name].attrs["unit"] in known_units, name
            assert file[name].attrs["description"], name
        for name, quantity in QUANTITIES.items():
            assert file[name].maxshape[0] is None, "the trial axis grows"
            assert tuple(file[name].attrs["dims"].split(",")) == quantity.dims


def test_documentation_names_every_dataset(quick_archive: Archive) -> None:
    text = (ROOT / "docs" / "archive.md").read_text(encoding="utf-8")
    missing = [name for name in quick_archive if f"`{name}`" not in text]
    missing += [name for name in quick_archive.attributes if f"`{name}`" not in text]
    assert not missing


def test_table_is_tidy(quick_archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = quick_archive.table()
    assert list(frame["stage"].unique()) == quick_archive.stages
    assert len(frame) == 6
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if it were not installed
    rows = quick_archive.table()
    assert rows[0]["accuracy"] == quick_archive["trial/accuracy"][0, 0]
    assert set(rows[0]) == set(frame.columns)


def test_two_workers_give_the_same_bits(
    quick: ExperimentConfig, quick_archive: Archive, tmp_path: Path
) -> None:
    assert_same(quick_archive, run_experiment(quick, tmp_path / "two.h5", workers=2))


def test_a_broken_off_archive_is_continued(
    quick: ExperimentConfig, quick_archive: Archive, tmp_path: Path
) -> None:
    path = tmp_path / "cut.h5"
    shutil.copy(quick_archive.path, path)
    with changed(path) as file:  # as a run leaves it that was killed during its second trial
        file["trial/complete"][1] = 0
        file["trial/accuracy"][1] = np.nan
        file["trial/predictions"][1] = 255
    assert open_archive(path).n_trials == 1
    done: list[int] = []
    continued = run_experiment(quick, path, on_trial=lambda chip, _: done.append(chip))
    assert done == [101]
    assert_same(quick_archive, continued)
    # a complete archive is left alone
    before = path.read_bytes()
    run_experiment(quick, path, on_trial=lambda chip, _: done.append(chip))
    assert done == [101]
    assert path.read_bytes() == before


def test_more_chips_extend_an_archive(
    quick: ExperimentConfig, quick_archive: Archive, tmp_path: Path
) -> None:
    path = tmp_path / "grown.h5"
    run_experiment(quick.replaced(chips=1), path)
    assert_same(quick_archive, run_experiment(quick, path))


def test_checkpoints_change_no_bit(quick: ExperimentConfig, quick_archive: Archive, tmp_path: Path) -> None:
    table = dataclasses.replace(quick.experiment, n_checkpoint=50, chips=1)
    watched = run_experiment(dataclasses.replace(quick, experiment=table), tmp_path / "watched.h5")
    labels = watched["checkpoint/label"][0][watched["checkpoint/stage"][0] == 1].tolist()
    assert labels == ["start", "conv1", "conv2", "fc", "end"]
    for name, values in watched.without_timing().items():
        if QUANTITIES.get(name) is not None and not name.startswith("checkpoint/"):
            assert values.tobytes() == quick_archive[name][:1].tobytes(), name


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_loses_at_most_the_trial_in_progress(
    quick: ExperimentConfig, quick_archive: Archive, tmp_path: Path, stop: signal.Signals
) -> None:
    path = tmp_path / "killed.h5"
    command = [sys.executable, "-m", "finetune.study.cli", "run", str(ROOT / "examples" / "quick.toml")]
    command += ["--out", str(path), "--workers", "1", "--no-figures"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ)
    assert process.stderr is not None
    line = process.stderr.readline()  # one line for each finished trial
    assert line.startswith("chip 100: mapped "), line
    process.send_signal(stop)
    rest = process.communicate(timeout=60)[1]
    if stop == signal.SIGINT and process.returncode != 0:  # else it was done before the signal came
        assert process.returncode == 130
        assert any(entry.startswith("interrupted") for entry in rest.splitlines())
        assert "Traceback" not in rest
    assert open_archive(path).n_trials >= 1
    assert_same(quick_archive, run_experiment(quick, path))
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".lock"] == []


def test_another_experiments_archive_is_refused(
    quick: ExperimentConfig, quick_archive: Archive, tmp_path: Path
) -> None:
    path = tmp_path / "other.h5"
    shutil.copy(quick_archive.path, path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"holds another experiment .* --fresh"):
        run_experiment(quick.replaced(seed=1), path)
    with changed(path) as file:
        file.attrs["fingerprint"] = "0" * 16
    with pytest.raises(InputError, match="other weights or images"):
        run_experiment(quick, path)
    shutil.copy(quick_archive.path, path)
    assert path.read_bytes() == before
    fresh = run_experiment(quick.replaced(seed=1, chips=1), path, fresh=True)
    assert fresh.n_trials == 1
    assert fresh.attributes["seed"] == 1


def test_two_runs_do_not_share_an_archive(quick: ExperimentConfig, tmp_path: Path) -> None:
    path = tmp_path / "busy.h5"
    with locked(path), pytest.raises(InputError, match=rf"another run .* \(process {os.getpid()} on .*\)"):
        run_experiment(quick, path)
    assert not path.exists()
    assert list(tmp_path.iterdir()) == []
    # files that a killed run has left behind hold nobody up
    (tmp_path / ".busy.h5.lock").touch()
    (tmp_path / ".busy.h5.owner").write_text('{"process": 1, "host": "gone"}')
    with locked(path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes()[:-2000]),
            "not a readable HDF5 file, perhaps truncated",
        ),
        (lambda path: path.write_text("no archive"), "not a readable HDF5 file"),
        (lambda path: path.unlink(), "no such archive"),
        (lambda path: _foreign(path), "an HDF5 file, but not an archive of rramsim"),
        (lambda path: _newer(path), "archive format 99 is newer"),
        (lambda path: _incomplete(path), "damaged, it lacks trial/accuracy"),
    ],
    ids=["truncated", "text", "missing", "foreign", "newer", "incomplete"],
)
def test_damaged_archives(
    quick: ExperimentConfig, quick_archive: Archive, tmp_path: Path, damage, message
) -> None:
    path = tmp_path / "bad.h5"
    shutil.copy(quick_archive.path, path)
    damage(path)
    with pytest.raises(InputError, match=message):
        open_archive(path)
    if path.exists():  # never overwritten, also not with --fresh
        before = path.read_bytes()
        with pytest.raises(InputError, match=message):
            run_experiment(quick, path, fresh=True)
        assert path.read_bytes() == before


def _foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = 1


def _newer(path: Path) -> None:
    with changed(path) as file:
        file.attrs["format_version"] = 99


def _incomplete(path: Path) -> None:
    with changed(path) as file:
        del file["trial/accuracy"]


def test_a_failed_write_leaves_the_archive_as_it_was(quick_archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "kept.h5"
    shutil.copy(quick_archive.path, path)
    before = path.read_bytes()
    with pytest.raises(KeyError):
        storage.write(path, attributes={"name": "new"}, chips={"no/such/group": [1]})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_names_are_answered_with_the_nearest(quick_archive: Archive) -> None:
    with pytest.raises(InputError, match="did you mean 'trial/accuracy'"):
        quick_archive["trial/acuracy"]
    with pytest.raises(InputError, match="stages are mapped"):
        quick_archive.accuracy("maped")


def test_figures(quick_archive: Archive, tmp_path: Path) -> None:
    paths = draw_figures(quick_archive, tmp_path / "figures")
    assert [path.stem for path in paths] == [name for name in FIGURES if name != "lifetime"]  # no ages
    assert all(path.stat().st_size > 5000 for path in paths)
    figure = FIGURES["accuracy"](quick_archive)
    assert figure.axes[0].get_xlabel().startswith("accuracy (%)")
    with pytest.raises(InputError, match="no layer 'conv3'"):
        FIGURES["levels"](quick_archive, layer="conv3")


def test_reading_needs_no_experiment() -> None:
    code = (
        "import sys, finetune.study.archive\n"
        "assert not {'h5py', 'finetune.tuner', 'rramsim.chip.simulated'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_lifetime_stages(quick: ExperimentConfig, tmp_path: Path) -> None:
    """Each method is followed by its ages; ageing costs no reads of the tuner and wears the cells."""
    aged = dataclasses.replace(
        quick.replaced(chips=1),
        disturb=parse(type(quick.disturb), {"law": "power", "v_read": 0.3, "polarity": "negative"}),
        lifetime=parse(type(quick.lifetime), {"reads": [1e3, 1e9]}),
        converters=dataclasses.replace(quick.converters, v_read=0.3),
    )
    archive = run_experiment(aged, tmp_path / "aged.h5", workers=2)
    assert archive.stages[:3] == ["mapped", "mapped + 1000 reads", "mapped + 1e+09 reads"]
    assert len(archive.stages) == 9
    for method in ("batch_norm", "lsq.affine"):
        fresh, old = archive.cost("vectors", method), archive.cost("vectors", f"{method} + 1e+09 reads")
        np.testing.assert_array_equal(fresh, old)
    # digital corrections fit the chip as it was; on the mapped chip lower conductance may even help
    worn = archive["trial/layer_error"][0, 8] / archive["trial/layer_error"][0, 6]
    assert (worn > 1.0).all(), worn
