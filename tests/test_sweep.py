"""Grids of experiments: combinations, refusals, and one run through the command line."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from finetune.study.archive import open_study
from finetune.study.cli import main
from finetune.study.runner import run_experiment
from finetune.study.sweep import load_sweep
from rramsim.checks import InputError

BASE = """
[experiment]
name = "grid"
chips = 1
dataset = "digits"
network = "cnn_digits"
n_calibration = 16
n_test = 40
n_layer_images = 0

[disturb]
law = "power"

[tuning]
strategies = ["lsq.affine"]

[lifetime]
reads = [1e9]

"""


def write(tmp_path, sweep):
    path = tmp_path / "grid.toml"
    path.write_text(BASE + sweep)
    return path


def test_every_combination_is_a_case_and_linked_settings_move_together(tmp_path):
    path = write(
        tmp_path,
        '[sweep]\n"converters.v_read disturb.v_read" = [0.2, 0.3]\n"disturb.cycles_before" = [0, 10000]\n',
    )
    name, cases = load_sweep(path)
    assert name == "grid"
    assert [case.label for case in cases] == [
        "v_read=0.2, cycles_before=0",
        "v_read=0.2, cycles_before=10000",
        "v_read=0.3, cycles_before=0",
        "v_read=0.3, cycles_before=10000",
    ]
    assert all(case.config.converters.v_read == case.config.disturb.v_read for case in cases)
    assert len({case.config.digest for case in cases}) == 4


@pytest.mark.parametrize(
    "sweep, message",
    [
        ("", r"needs a table \[sweep\]"),
        ('[sweep]\n"cells.sigma" = 0.2\n', "must be a list"),
        ('[sweep]\n"cells.sigam" = [0.1]\n', "did you mean 'sigma'"),
        ('[sweep]\n"sigma" = [0.1]\n', "dotted path"),
        ('[sweep]\n"converters.v_read" = [0.3]\n', r"disturb\.v_read must equal.*v_read=0.3"),
    ],
)
def test_grids_that_cannot_run_are_refused(tmp_path, sweep, message):
    with pytest.raises(InputError, match=message):
        load_sweep(write(tmp_path, sweep))


def labels(tmp_path, sweep):
    return [case.label for case in load_sweep(write(tmp_path, sweep))[1]]


def test_ranges_zips_and_strategies(tmp_path):
    assert labels(tmp_path, '[sweep]\n"cells.sigma" = { from = 0.1, to = 0.3, count = 3 }\n') == [
        "sigma=0.1",
        "sigma=0.2",
        "sigma=0.3",
    ]
    steps = '[sweep]\n"cells.n_levels" = { from = 4, to = 16, step = 6 }\n'
    assert labels(tmp_path, steps) == ["n_levels=4", "n_levels=10", "n_levels=16"]
    decades = "[sweep]\ncells.sigma = { from = 0.001, to = 0.1, count = 3, log = true }\n"
    assert labels(tmp_path, decades) == ["sigma=0.001", "sigma=0.01", "sigma=0.1"]
    zipped = '[sweep]\n"cells.n_levels cells.g_max" = { zip = [[4, 40e-6], [16, 90e-6]] }\n'
    assert labels(tmp_path, zipped) == ["n_levels=4, g_max=4e-05", "n_levels=16, g_max=9e-05"]
    strategies = '[sweep]\n"tuning.strategies" = ["batch_norm", ["batch_norm", "lsq.affine"]]\n'
    _, cases = load_sweep(write(tmp_path, strategies))
    assert [case.config.tuning.strategies for case in cases] == [
        ("batch_norm",),
        ("batch_norm", "lsq.affine"),
    ]
    # values that look alike when rounded stay apart
    assert labels(tmp_path, '[sweep]\n"cells.sigma" = [0.3000001, 0.3000002]\n') == [
        "sigma=0.3000001",
        "sigma=0.3000002",
    ]
    # the whole path where the last part would be ambiguous
    both = '[sweep]\n"cells.law" = ["lognormal"]\n"disturb.law" = ["power"]\n'
    assert labels(tmp_path, both)[0] == "cells.law=lognormal, disturb.law=power"


@pytest.mark.parametrize(
    "sweep, message",
    [
        ('"" = [1]', "dotted path"),
        ('"cells.sigma." = [1]', "dotted path"),
        ('"cells.sigma" = []', "must be a list of values"),
        ('"cells.sigma" = [0.1, 0.1]', "two combinations are the same experiment"),
        ('"cells.sigma" = { from = 0.1, to = 0.5 }', "either count or step"),
        ('"cells.sigma" = { from = 0.1, to = 0.5, step = 0 }', "step must lead"),
        ('"cells.sigma" = { from = 0.1, to = 0.5, step = -0.1 }', "step must lead"),
        ('"cells.sigma" = { from = 0.0, to = 0.5, count = 3, log = true }', "must be > 0"),
        ('"cells.sigma" = { from = 0.1, to = 0.5, cuont = 3 }', "did you mean 'count'"),
        ('"cells.sigma" = { from = 0.1, to = nan, count = 3 }', "must be finite"),
        ('"cells.sigma cells.g_max" = { zip = [[0.1]] }', "needs 2 values"),
        ('"cells.sigma" = { zip = 3 }', "zip must be a list of rows"),
        ('"experiment.chips" = [1, 2]', "it is no condition"),
        ('"experiment.seed" = { from = 0, to = 1000000, step = 1 }', "step must lead"),
        ('"cells.sigma" = [0.1, "many"]', "sigma=many"),
        ('"cells.sigma" = [1979-05-27]', "sigma"),
        ('"tuning.strategies" = ["lsq.afine"]', "did you mean"),
    ],
)
def test_grids_with_slips_are_refused(tmp_path, sweep, message):
    with pytest.raises(InputError, match=message):
        load_sweep(write(tmp_path, f"[sweep]\n{sweep}\n"))


def test_names_are_names(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(BASE.replace('"grid"', '"../../x"') + '[sweep]\n"cells.sigma" = [0.1]\n')
    with pytest.raises(InputError, match="usable as a file name"):
        load_sweep(path)


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_study_continues_and_grows_by_values_and_chips(tmp_path):
    out = tmp_path / "study.h5"
    path = write(tmp_path, '[sweep]\n"cells.sigma" = [0.3]\n')
    first = call("sweep", path, "--out", out, "--workers", "1", "--csv", tmp_path / "long.csv")
    assert first.exit_code == 0, first.output
    kept = open_study(out)["sigma=0.3"].without_timing()
    before = out.read_bytes()
    again = call("sweep", path, "--out", out, "--workers", "1")
    assert again.exit_code == 0
    assert "chip 100" not in again.stderr, "nothing is left to do"
    assert out.read_bytes() == before
    path = write(tmp_path, '[sweep]\n"cells.sigma" = [0.1, 0.3]\n"cells.n_levels" = [16]\n')
    dry = call("sweep", path, "--out", out, "--dry-run", "--chips", "2")
    assert "2 combinations, nothing was run" in dry.output
    assert "3 trials on" in dry.output
    grown = call("sweep", path, "--out", out, "--workers", "2", "--chips", "2", "--json")
    assert grown.exit_code == 0, grown.output
    study = open_study(out)
    assert list(study) == ["sigma=0.1, n_levels=16", "sigma=0.3, n_levels=16"]
    assert study.axes == ["sigma", "n_levels"]
    assert study.n_trials == study.n_planned == 4
    assert grown.stderr.count("chip 10") == 3, "the trial that was there was not computed again"
    for name, values in study["sigma=0.3, n_levels=16"].without_timing().items():
        if study["sigma=0.3, n_levels=16"].dims(name)[:1] == ("trial",):
            np.testing.assert_array_equal(values[:1], kept[name], name)
    rows = json.loads(grown.stdout)
    assert len(rows) == 2 * 2 * 4
    assert {row["sigma"] for row in rows} == {0.1, 0.3}
    assert len({row["trial"] for row in rows}) == 4
    # every condition is what a run of its own gives
    _, cases = load_sweep(path)
    alone = run_experiment(cases[0].config.replaced(chips=2), tmp_path / "alone.h5")
    for name, values in alone.without_timing().items():
        np.testing.assert_array_equal(values, study["sigma=0.1, n_levels=16"][name], name)
    # an experiment does not continue a study
    config = tmp_path / "single.toml"
    config.write_text(BASE)
    refused = call("run", config, "--out", out)
    assert refused.exit_code == 2
    assert "a study of several conditions" in refused.stderr
    for target in (out, tmp_path):
        shown = call("report", target, "--out", tmp_path / "figures")
        assert shown.exit_code == 0, shown.output
        assert "sigma" in shown.output
    assert (tmp_path / "figures" / "accuracy_sigma.png").stat().st_size > 5000


def test_shards_merge_into_the_archive_of_a_single_run(tmp_path):
    path = write(tmp_path, '[sweep]\n"cells.sigma" = [0.1, 0.3]\n')
    whole, parts = tmp_path / "whole.h5", [tmp_path / f"part{n}.h5" for n in (1, 2)]
    assert call("sweep", path, "--out", whole, "--chips", "3", "--no-figures").exit_code == 0
    for number, part in enumerate(parts, start=1):
        done = call(
            "sweep", path, "--out", part, "--chips", "3", "--shard", f"{number}/2", "-q", "--no-figures"
        )
        assert done.exit_code == 0, done.output
        assert "chip" not in done.stderr
    merged = tmp_path / "merged.h5"
    result = call("archive", "merge", *reversed(parts), "--out", merged)
    assert result.exit_code == 0, result.output
    assert "6 of 6 trials in 2 condition(s)" in result.output
    assert call("archive", "check", merged, *parts).exit_code == 0
    one, two = open_study(whole), open_study(merged)
    assert list(one) == list(two)
    for label, archive in one.items():
        theirs = two[label].without_timing()
        assert list(theirs) == list(archive.without_timing())
        for name, values in archive.without_timing().items():
            assert values.dtype == theirs[name].dtype, name
            np.testing.assert_array_equal(values, theirs[name], name)
        assert archive.attributes["config"] == two[label].attributes["config"]
    assert call("archive", "merge", *parts, "--out", merged).exit_code == 2, "never overwrites"
    refused = call("sweep", path, "--out", whole, "--shard", "3/2")
    assert "shard must be" in refused.stderr
