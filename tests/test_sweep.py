"""Grids of experiments: combinations, refusals, and one run through the command line."""

import pytest
from click.testing import CliRunner

from finetune.study.archive import open_archive
from finetune.study.cli import main
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


def test_a_sweep_leaves_an_archive_for_each_case_and_continues(tmp_path):
    path = write(tmp_path, '[sweep]\n"cells.sigma" = [0.1, 0.3]\n')
    arguments = ["sweep", str(path), "--out", str(tmp_path / "out"), "--workers", "1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "sigma=0.3" in result.output
    archive = open_archive(tmp_path / "out" / "sigma=0.3.h5")
    assert archive.stages == ["mapped", "mapped + 1e+09 reads", "lsq.affine", "lsq.affine + 1e+09 reads"]
    before = (tmp_path / "out" / "sigma=0.3.h5").read_bytes()
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert (tmp_path / "out" / "sigma=0.3.h5").read_bytes() == before
