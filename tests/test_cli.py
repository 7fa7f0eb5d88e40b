"""The command line: what it prints, and how it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from finetune.study.archive import Archive, open_archive
from finetune.study.cli import main
from finetune.study.config import default_experiment, load_experiment
from finetune.study.sweep import load_sweep
from rramsim.checks import InputError

ROOT = Path(__file__).resolve().parent.parent
QUICK = str(ROOT / "examples" / "quick.toml")


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_refused(result: Result, *parts: str) -> None:
    """One line on stderr that begins with `error:`, exit code 2, no traceback."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]
    assert "Traceback" not in result.output


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[cells]\nn_levles = 4\n", ["cells.n_levles: unknown key", "did you mean 'n_levels'?"]),
        ("[cell]\nn_levels = 4\n", ["unknown table or key 'cell'", "did you mean 'cells'?"]),
        ("[cells]\nn_levels = 1\n", ["cells", "2", "got 1"]),
        ("[cells]\ng_min = 5e-5\ng_max = 4e-5\n", ["g_min", "g_max"]),
        ("[cells]\npreset = 'wan_2022_1h'\n", ["unknown preset", "wan_2022_1"]),
        ("[cells]\nsigma = -0.1\n", ["sigma must be >= 0"]),
        ("[experiment]\nchips = 0\n", ["chips must be at least 1"]),
        ("[experiment]\nchips = [3, 3]\n", ["different ids"]),
        ("[experiment]\nseed = 'many'\n", ["experiment.seed", "got 'many'"]),
        ("[experiment]\nnetwork = 'lenet5_fashon'\n", ["unknown teacher", "did you mean 'lenet5_fashion'?"]),
        ("[experiment]\nnetwork = 'absent.h5'\n", ["absent.h5: no such file"]),
        ("[experiment]\ndataset = 'fashon_mnist'\n", ["unknown data set", "did you mean 'fashion_mnist'?"]),
        ("[experiment]\ndataset = 'mnist'\n", ["was not found", "RRAMSIM_DATA"]),
        ("[experiment]\ndataset = 'digits'\nnetwork = 'lenet5_fashion'\n", ["takes images (1, 28, 28)"]),
        ("[experiment]\nn_calibration = 5000\n", ["n_calibration must be <= 2000"]),
        ("[experiment]\nn_test = 10001\n", ["n_test must be <= 10000"]),
        ("[tuning]\nstrategies = ['lsq.afine']\n", ["unknown strategy 'lsq.afine'", "did you mean"]),
        (
            "[tuning]\nstrategies = ['lsq.affine(rigde=1)']\n",
            ["no argument 'rigde'", "did you mean 'ridge'?"],
        ),
        (
            "[mapping]\nkind = 'sliced'\n[tuning]\nstrategies = ['maintain']\n",
            ["maintain: needs differential mapping, got 'sliced'", "lsq.rewrite"],
        ),
        ("[tuning.budget]\nvectors = -1\n", ["vectors must be >= 0"]),
        ("[converters]\nadc_bits = 0\n", ["adc_bits must lie in [1, 24]"]),
        ("[mapping]\nkind = 'diferential'\n", ["mapping: kind", "did you mean 'differential'?"]),
        ("[wires]\nr_word = -1.0\n", ["r_word must be >= 0 ohm"]),
        ("[cells\n", ["not valid TOML"]),
        ("cells = 3\n", ["cells must be a table"]),
    ],
)
def test_a_bad_configuration_is_refused_in_one_line(tmp_path: Path, text: str, parts: list[str]) -> None:
    config, out = write(tmp_path / "bad.toml", text), tmp_path / "out.h5"
    assert_refused(call("run", config, "--out", out), *parts)
    assert not out.exists()


def test_missing_files_and_bad_options(tmp_path: Path) -> None:
    assert_refused(call("run", tmp_path / "absent.toml"), "absent.toml: cannot be read")
    assert_refused(call("report", tmp_path / "absent.h5"), "no such archive")
    assert_refused(call("run", QUICK, "--chips", "many"), "--chips must be a count")
    assert_refused(call("run", QUICK, "--workers", "0", "--out", tmp_path / "x.h5"), "workers must be >= 1")
    assert_refused(call("run", QUICK, "--seed", "-1"), "seed must be >= 0")
    assert_refused(call("presets", "milo"), "unknown preset", "milo_ihp_2021")
    assert_refused(call("fit-device", tmp_path / "absent.csv"), "absent.csv")
    blocked = write(tmp_path / "file", "")
    assert_refused(call("run", QUICK, "--out", blocked / "x.h5"), "cannot be written")
    assert call("rnu").exit_code == 2


def test_a_data_directory_without_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnist").mkdir()
    monkeypatch.setenv("RRAMSIM_DATA", str(tmp_path))
    config = write(tmp_path / "m.toml", "[experiment]\ndataset = 'mnist'\nnetwork = 'lenet5_fashion'\n")
    assert_refused(call("run", config, "--out", tmp_path / "x.h5"), "mnist")


def test_foreign_and_damaged_archives_are_never_overwritten(quick_archive: Archive, tmp_path: Path) -> None:
    text = write(tmp_path / "precious.h5", "my thesis")
    for extra in ([], ["--fresh"]):
        assert_refused(call("run", QUICK, "--out", text, *extra), "not a readable HDF5 file")
    assert text.read_text() == "my thesis"
    other = tmp_path / "other.h5"
    shutil.copy(quick_archive.path, other)
    before = other.read_bytes()
    assert_refused(call("run", QUICK, "--seed", "3", "--out", other), "another experiment", "--fresh")
    assert other.read_bytes() == before


def test_run_and_report(quick_archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "quick.h5"
    shutil.copy(quick_archive.path, path)
    for result in (call("run", QUICK, "--out", path), call("report", path)):  # run: complete already
        assert result.exit_code == 0, result.output
        accuracy = 100 * quick_archive.accuracy("lsq.affine")
        assert "teacher (digital)" in result.output
        assert f"{accuracy.mean():.2f} ± {accuracy.std(ddof=1):.2f}" in result.output
        assert "accuracy.png" in result.output
    assert f"archive: {path}" in call("run", QUICK, "--out", path, "--no-figures").output
    assert len(list((tmp_path / "quick").glob("*.png"))) == 7


def test_dry_run_predicts_and_runs_nothing(tmp_path: Path) -> None:
    out = tmp_path / "never.h5"
    strategies = "['lsq.affine', 'default', 'lsq+kd+zo', 'lsq.identify(probe=True)']"
    config = write(
        tmp_path / "d.toml",
        f"[experiment]\ndataset = 'digits'\nnetwork = 'cnn_digits'\nn_calibration = 16\nn_test = 20\n"
        f"chips = 3\n[tuning]\nstrategies = {strategies}\n",
    )
    result = call("run", config, "--dry-run", "--out", out, "--workers", "2")
    assert result.exit_code == 0, result.output
    assert not out.exists()
    for part in ("lsq+kd+zo", "PROBE", "vectors", "writes/cell", "3 chips on 2 workers: about"):
        assert part in result.output
    assert_refused(call("run", tmp_path / "absent.toml", "--dry-run"), "absent.toml: cannot be read")


def test_unfair_methods_are_starred(tmp_path: Path) -> None:
    config = write(
        tmp_path / "p.toml",
        "[experiment]\ndataset = 'digits'\nnetwork = 'cnn_digits'\nn_calibration = 16\nn_test = 20\n"
        "chips = 1\n[tuning]\nstrategies = ['lsq.identify(probe=True)', 'lsq.affine']\n",
    )
    result = call("run", config, "--out", tmp_path / "p.h5", "--workers", "1", "--no-figures")
    assert result.exit_code == 0, result.output
    assert "lsq.identify(probe=True) *" in result.output
    assert "lsq.affine *" not in result.output
    assert "write-verify" in result.output
    assert "digital" in result.output


def test_presets(tmp_path: Path) -> None:
    listed = call("presets")
    assert listed.exit_code == 0
    assert "milo_ihp_2021" in listed.output
    figure = tmp_path / "milo.png"
    shown = call("presets", "milo_ihp_2021", "--plot", figure)
    assert shown.exit_code == 0, shown.output
    assert "cells.g_max" in shown.output
    assert "measured" in shown.output
    assert figure.stat().st_size > 5000
    assert_refused(call("presets", "milo_ihp_2021", "--plot", tmp_path / "no" / "x.png"), "cannot be written")


def test_fit_device(tmp_path: Path) -> None:
    rows = ["level,g_target,g_measured"]
    for level, target in enumerate((1e-5, 2e-5, 4e-5)):
        rows += [f"{level},{target},{target * (1 + 0.01 * (k % 7 - 3))}" for k in range(40)]
    data, preset = write(tmp_path / "cells.csv", "\n".join(rows)), tmp_path / "mine.toml"
    result = call("fit-device", data, "--out", preset, "--plot", tmp_path / "fit.png")
    assert result.exit_code == 0, result.output
    assert "120 programmed values at 3 levels" in result.output
    config = load_experiment(write(tmp_path / "use.toml", f"[cells]\npreset = '{preset}'\n"))
    assert config.cells.n_levels == 3
    assert_refused(call("fit-device", data, "--out", preset), "exists already")


def test_info() -> None:
    result = call("info")
    assert result.exit_code == 0
    for part in ("rramsim 0.", "numpy", "fashion_mnist", "lenet5_fashion", "92.36 %"):
        assert part in result.output


def test_the_embedded_default_is_the_example() -> None:
    example = load_experiment(ROOT / "examples" / "reference.toml")
    default = default_experiment()
    assert example.digest == default.digest
    assert len(default.experiment.chip_ids) >= 5
    assert default.experiment.n_test is None


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*.toml")), ids=lambda path: path.stem)
def test_examples_are_valid(path: Path) -> None:
    if "[sweep]" in path.read_text(encoding="utf-8"):
        _, cases = load_sweep(path)
        assert len({case.config.digest for case in cases}) == len(cases) > 1
        return
    config = load_experiment(path)
    again = load_experiment(path)
    assert config == again
    assert config.digest == again.digest


def test_digest_sees_what_matters() -> None:
    config = load_experiment(QUICK)
    assert config.replaced(chips=7).digest == config.digest
    assert config.replaced(seed=7).digest != config.digest
    with pytest.raises(InputError, match="name must be usable"):
        type(config.experiment)(name="a/b")


def test_full_example_runs_everything_together(tmp_path: Path) -> None:
    """Multi-level cells, faults, read noise, exact IR drop and read disturbance, end to end."""
    example = Path(__file__).parents[1] / "examples" / "full.toml"
    out = tmp_path / "full.h5"
    arguments = ["run", str(example), "--chips", "1", "--out", str(out), "--workers", "1", "--no-figures"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    archive = open_archive(out)
    assert archive.n_trials == 1
    assert archive.stages[:3] == ["mapped", "mapped + 1e+06 reads", "mapped + 1e+09 reads"]
    worn, fresh = archive.accuracy("mapped + 1e+09 reads")[0], archive.accuracy("mapped")[0]
    assert worn < fresh  # a billion reads at 0.3 V after 10,000 cycles are felt


def test_overlapping_levels_are_noted_with_their_error_rate(tmp_path: Path) -> None:
    config = tmp_path / "wide.toml"
    config.write_text(
        '[experiment]\nchips = 1\ndataset = "digits"\nnetwork = "cnn_digits"\n'
        "n_calibration = 16\nn_test = 20\n"
        '[cells]\nsigma = 0.5\n[tuning]\nstrategies = ["lsq.affine"]\n'
    )
    arguments = ["run", str(config), "--out", str(tmp_path / "w.h5"), "--workers", "1", "--no-figures"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "16 levels overlap: a cell is read back as another level with probability 0." in result.output
