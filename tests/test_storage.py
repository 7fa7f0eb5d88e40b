"""Archives under bad luck: damage, killed writers, full disks, old versions, foreign machines."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import rramsim
from finetune.study import curate, journal as journals, runner, storage
from finetune.study.archive import Archive, open_archive, open_study
from finetune.study.cli import main
from finetune.study.config import ExperimentConfig
from finetune.study.journal import Journal, Record, journal_path, read_journal
from finetune.study.machine import differences, versions
from finetune.study.quantities import QUANTITIES
from finetune.study.runner import run_experiment
from finetune.study.seal import add_seal, check_seal, content_size
from rramsim.checks import InputError

ROOT = Path(__file__).resolve().parent.parent
VERSION_1 = ROOT / "tests" / "data" / "archives" / "version1.h5"  # examples/quick.toml, written by format 1


def same_bits(one: Archive, two: Archive) -> None:
    mine, theirs = one.without_timing(), two.without_timing()
    assert set(mine) == set(theirs)
    for name, values in mine.items():
        assert values.dtype == theirs[name].dtype, name
        assert values.tobytes() == theirs[name].tobytes(), name


# -- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bytes", [150, pytest.param(3000, marks=pytest.mark.slow)])
def test_every_changed_byte_is_found_before_anything_is_read(
    quick_archive: Archive, tmp_path: Path, n_bytes: int
) -> None:
    """Single flipped bits at random places, seed 0: CRC-32 finds every one, so there is no false alarm."""
    whole = quick_archive.path.read_bytes()
    path, rng = tmp_path / "flipped.h5", random.Random(0)
    places = [rng.randrange(len(whole)) for _ in range(n_bytes)] + list(range(len(whole) - 40, len(whole)))
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            open_study(path)


def test_cut_archives_are_refused(quick_archive: Archive, tmp_path: Path) -> None:
    whole, path = quick_archive.path.read_bytes(), tmp_path / "cut.h5"
    content = content_size(quick_archive.path)
    assert content is not None
    for size in (0, 1, 100, content // 2, content - 1, content, content + 3, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"damaged|not a readable HDF5 file|checksums are missing"):
            open_study(path)


def test_an_archive_that_another_program_changed_is_accepted_on_request(
    quick_archive: Archive, tmp_path: Path
) -> None:
    path = tmp_path / "edited.h5"
    shutil.copy(quick_archive.path, path)
    os.truncate(path, content_size(path) or 0)
    with h5py.File(path, "r+") as file:
        file.attrs["name"] = "renamed by hand"
    with pytest.raises(InputError, match="archive seal"):
        open_archive(path)
    result = CliRunner().invoke(main, ["archive", "seal", str(path)])
    assert result.exit_code == 0, result.output
    assert open_archive(path).attributes["name"] == "renamed by hand"
    same_bits(quick_archive, open_archive(path))


def test_data_in_other_files_are_refused(quick_archive: Archive, tmp_path: Path) -> None:
    path, secret = tmp_path / "thief.h5", tmp_path / "secret"
    secret.write_bytes(bytes(range(256)) * 8)
    shutil.copy(quick_archive.path, path)
    os.truncate(path, content_size(path) or 0)
    with h5py.File(path, "r+") as file:
        file.create_dataset("stolen", (256,), "u1", external=[(str(secret), 0, 256)])
    add_seal(path)
    with pytest.raises(InputError, match="stolen lies in another file"):
        open_study(path)
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file.attrs.update({"format": "rramsim archive", "format_version": 1})
        file["trial"] = h5py.ExternalLink(str(quick_archive.path), "trial")
    with pytest.raises(InputError, match="damaged, it lacks"):
        open_study(tmp_path / "linked.h5")


def test_sizes_that_a_file_cannot_hold_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "bomb.h5"
    shutil.copy(VERSION_1, path)
    with h5py.File(path, "r+") as file:
        file.create_dataset("bomb", (1 << 40,), "f8", chunks=(1 << 16,), compression="gzip")
        file["bomb"].attrs["dims"] = "x"
    with pytest.raises(InputError, match=r"bomb claims 8.8e\+12 bytes"):
        open_study(path)


def test_check_reads_files_without_checksums_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.h5"
    shutil.copy(VERSION_1, path)
    assert "without checksums" in curate.check(path)
    rng, whole = random.Random(1), VERSION_1.read_bytes()
    for _ in range(3):  # whatever HDF5 makes of it, this process lives and says a sentence
        damaged = bytearray(whole)
        for _ in range(40):
            damaged[rng.randrange(4096)] ^= 255
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=str(path)):
            curate.check(path)
    monkeypatch.setattr(curate, "CHECK_SECONDS", 0.01)
    with pytest.raises(InputError, match="does not end"):
        curate.check(VERSION_1)


def test_wrong_accuracies_are_found(quick_archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "wrong.h5"
    shutil.copy(quick_archive.path, path)
    os.truncate(path, content_size(path) or 0)
    with h5py.File(path, "r+") as file:
        file["trial/accuracy"][0, 0] += 0.01
    add_seal(path)
    with pytest.raises(InputError, match="not those of the stored predictions"):
        curate.check(path)


# -- versions and machines ------------------------------------------------------------------------


def test_version_1_is_read_and_migrated_without_a_changed_value(tmp_path: Path) -> None:
    path = tmp_path / "old.h5"
    shutil.copy(VERSION_1, path)
    old = open_archive(path)
    assert old.n_trials == 2
    with h5py.File(VERSION_1) as file:  # by h5py alone, as it always was
        np.testing.assert_array_equal(old["trial/accuracy"], file["trial/accuracy"][()])
        np.testing.assert_array_equal(old["history/layer"], file["history/layer"].asstr()[()])
    for name in old:
        assert old[name] is not None  # everything is read before the file is replaced
    result = CliRunner().invoke(main, ["archive", "migrate", str(path)])
    assert result.exit_code == 0, result.output
    new = open_archive(path)
    assert new.attributes["format_version"] == 2
    same_bits(old, new)
    assert check_seal(path)
    assert "is version 2 already" in CliRunner().invoke(main, ["archive", "migrate", str(path)]).output
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(path, engine="h5netcdf", group="trial") as data:
        np.testing.assert_array_equal(data["accuracy"], old["trial/accuracy"])


def test_another_machine_is_refused_or_marked(
    quick: ExperimentConfig, quick_archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "elsewhere.h5"
    shutil.copy(quick_archive.path, path)
    there = json.loads(versions())
    assert there["rramsim"] == rramsim.__version__
    assert {"blas", "cpu", "cpu_features", "threads", "numpy", "scipy"} <= set(there)
    there["blas"] = ["openblas 0.3.30 Prescott"]
    monkeypatch.setattr(runner, "versions", lambda: json.dumps(there))
    with pytest.raises(InputError, match=r"bits may come out differently \(blas .* Prescott here\)"):
        run_experiment(quick.replaced(chips=3), path)
    monkeypatch.undo()
    os.truncate(path, content_size(path) or 0)
    with h5py.File(path, "r+") as file:
        file.attrs["versions"], file.attrs["platforms"] = json.dumps(there), f"[{json.dumps(there)}]"
    add_seal(path)
    with pytest.raises(InputError, match="--allow-mixed"):
        run_experiment(quick.replaced(chips=3), path)
    mixed = run_experiment(quick.replaced(chips=3), path, allow_mixed=True)
    assert mixed["trial/platform"].tolist() == [0, 0, 1]
    assert [
        bool(differences(versions(), json.dumps(p))) for p in json.loads(mixed.attributes["platforms"])
    ] == [
        True,
        False,
    ]


def test_xarray_opens_archives_with_names_coordinates_and_units(
    quick_archive: Archive, tmp_path: Path
) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    with xarray.open_datatree(quick_archive.path, engine="h5netcdf") as tree:
        accuracy = tree["trial/accuracy"]
        assert accuracy.dims == ("chip", "stage")
        assert accuracy.coords["stage"].values.tolist() == quick_archive.stages
        assert accuracy.coords["chip"].values.tolist() == [100, 101]
        assert tree["ledger/seconds"].attrs["units"] == "s"
        assert tree["cells/histogram"].dims == ("chip", "layer", "level", "bin")
        np.testing.assert_array_equal(accuracy, quick_archive["trial/accuracy"])
    data = quick_archive.to_xarray()
    assert float(data["accuracy"].sel(chip=101, stage="mapped")) == quick_archive.accuracy("mapped")[1]
    pandas = pytest.importorskip("pandas")
    table = quick_archive.table()
    for name in ("t.csv", "t.parquet", "t.json"):
        path = quick_archive.export(tmp_path / name)
        read: dict[str, Callable[..., Any]] = {
            ".csv": pandas.read_csv,
            ".parquet": pandas.read_parquet,
            ".json": pandas.read_json,
        }
        pandas.testing.assert_frame_equal(read[path.suffix](path), table, check_dtype=False)
    with xarray.open_dataset(quick_archive.export(tmp_path / "t.nc"), engine="h5netcdf") as again:
        np.testing.assert_array_equal(again["predictions"], quick_archive["trial/predictions"])
    with pytest.raises(InputError, match="exports end in"):
        quick_archive.export(tmp_path / "t.xls")


# -- the journal ----------------------------------------------------------------------------------


def record(archive: Archive, row: int) -> Record:
    names = [name for name in QUANTITIES if name not in ("trial/chip", "trial/complete")]
    return Record("", int(archive["trial/chip"][row]), {name: archive[name][row] for name in names})


def empty_copy(archive: Archive, path: Path) -> None:
    """The archive as it is at the beginning, without trials."""
    shutil.copy(archive.path, path)
    os.truncate(path, content_size(path) or 0)
    with h5py.File(path, "r+") as file:
        file["trial/complete"][:] = 0
        file["trial/accuracy"][:] = np.nan
    add_seal(path)


def test_trials_of_the_journal_are_read_and_folded_in_as_they_are(
    quick_archive: Archive, tmp_path: Path
) -> None:
    path = tmp_path / "running.h5"
    empty_copy(quick_archive, path)
    journal = Journal(path)
    assert open_archive(path).n_trials == 0
    journal.append(record(quick_archive, 1))
    seen = open_archive(path)
    assert (seen.n_trials, seen.n_planned, seen["trial/chip"].tolist()) == (1, 2, [101])
    np.testing.assert_array_equal(seen["trial/predictions"], quick_archive["trial/predictions"][1:])
    journal.append(record(quick_archive, 0))
    journal.append(record(quick_archive, 0))  # as after an end between folding and clearing
    same_bits(quick_archive, open_archive(path))
    journal.close()
    assert storage.fold(path) == 3
    same_bits(quick_archive, open_archive(path))  # both at once
    journal_path(path).unlink()
    same_bits(quick_archive, open_archive(path))
    assert curate.check(path).startswith("2 of 2 trials")


def test_torn_records_are_dropped_and_damaged_ones_refused(quick_archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "torn.h5"
    empty_copy(quick_archive, path)
    journal = Journal(path)
    for row in (0, 1):
        journal.append(record(quick_archive, row))
    journal.close()
    file = journal_path(path)
    whole = file.read_bytes()
    first = len(journals.pack(record(quick_archive, 0)))
    for size in (first, first + 1, first + 15, first + 16, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert [entry.chip for entry in read_journal(path)] == [100]
        Journal(path).close()
        assert file.stat().st_size == first, "the next writer begins after the last whole record"
    damaged = bytearray(whole)
    damaged[first // 2] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(InputError, match="damaged at byte 0, with whole trials behind it"):
        open_archive(path)


def test_long_texts_are_kept_whole(quick_archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "long.h5"
    empty_copy(quick_archive, path)
    entry = record(quick_archive, 0)
    step = np.array([f"Schritt {'ü' * 200} {n}" for n in range(len(entry.values["history/step"]))])
    entry.values["history/step"] = step
    storage.write(path, records=[entry])
    assert open_archive(path)["history/step"][0].tolist() == step.tolist()


def test_a_full_disk_is_one_line_and_loses_nothing(
    quick: ExperimentConfig, quick_archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "full.h5"
    empty_copy(quick_archive, path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:  # while the archive is replaced
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(InputError, match=r"the disk is full\); what it held is kept"):
            storage.write(path, records=[record(quick_archive, 0)])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    journal = Journal(path)  # while a trial is appended: half of it fits
    journal.append(record(quick_archive, 0))
    really = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: really(file, data[:100]) if len(data) > 500 else full())
        with pytest.raises(OSError, match="No space"):
            journal.append(record(quick_archive, 1))
    journal.close()
    assert [entry.chip for entry in read_journal(path)] == [100]
    same_bits(quick_archive, run_experiment(quick, path))


@pytest.mark.skipif(not Path("/dev/shm").is_dir() or os.name != "posix", reason="needs a limit of file sizes")
def test_a_run_that_may_write_no_more_says_so(quick_archive: Archive, tmp_path: Path) -> None:
    """The system itself refuses to write, by a limit on the size of files."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))\n"
        "from finetune.study.cli import main\n"
        "main()\n"
    )
    out = tmp_path / "limited.h5"
    command = [sys.executable, "-c", code, "run", str(ROOT / "examples" / "quick.toml"), "--out", str(out)]
    done = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: {out}: cannot be written")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "no empty file blocks the next attempt"


# -- killed writers -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_at_random_moments_lose_nothing(
    quick: ExperimentConfig, quick_archive: Archive, tmp_path: Path, n_kills: int
) -> None:
    """SIGKILL at moments drawn with seed 0: the archive opens, is whole, and the next run goes on."""
    rng, path = random.Random(0), tmp_path / "killed.h5"
    command = [sys.executable, "-m", "finetune.study.cli", "run", str(ROOT / "examples" / "quick.toml")]
    command += ["--out", str(path), "--workers", "2", "--no-figures", "-q"]
    longest = None
    for _ in range(n_kills):
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            stderr = process.communicate(timeout=None if longest is None else rng.uniform(0, longest))[1]
            assert process.returncode == 0, stderr.decode()
            longest = time.monotonic() - started if longest is None else longest
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        if path.exists():
            curate.check(path)
            if open_archive(path).n_trials == 2 and not journal_path(path).exists():
                same_bits(quick_archive, open_archive(path))
                path.unlink()  # begin again
    same_bits(quick_archive, run_experiment(quick, path))
    assert [p.name for p in tmp_path.iterdir()] == ["killed.h5"]


def test_sigterm_stops_a_sweep_cleanly(tmp_path: Path) -> None:
    study = tmp_path / "s.toml"
    study.write_text(
        '[experiment]\nchips = 3\ndataset = "digits"\nnetwork = "cnn_digits"\nn_calibration = 16\n'
        'n_test = 40\nn_layer_images = 0\n[tuning]\nstrategies = ["lsq.affine"]\n'
        '[sweep]\n"cells.sigma" = [0.1, 0.2, 0.3]\n'
    )
    out = tmp_path / "s.h5"
    command = [sys.executable, "-m", "finetune.study.cli", "sweep", str(study), "--out", str(out)]
    command += ["--workers", "1", "--no-figures"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "chip 100" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    rest = process.communicate(timeout=120)[1]
    if process.returncode:  # else it was done before the signal came
        assert process.returncode == 130
        assert rest.splitlines()[-1].startswith("interrupted")
        assert "Traceback" not in rest
    assert {p.name for p in tmp_path.iterdir()} == {"s.toml", "s.h5"}
    kept = open_study(out).n_trials
    assert kept >= 1
    watched = CliRunner().invoke(main, ["watch", str(out), "--once"])
    assert f"{kept} of 9 trials" in watched.output
    done = CliRunner().invoke(main, ["sweep", str(study), "--out", str(out), "--no-figures"])
    assert done.exit_code == 0, done.output
    assert done.stderr.count("; chip") == 9 - kept
    assert curate.check(out) == "9 of 9 trials in 3 condition(s), with checksums: whole"
