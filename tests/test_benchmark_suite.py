"""The suite of benchmarks: its arithmetic, and that a run can be kept and compared."""

import json

import numpy as np
import pytest

from benchmarks.suite import chosen, growth, last_run, main, ratios
from benchmarks.suite_cases import CASES
from rramsim.checks import InputError


def test_growth_is_the_exponent():
    sizes = [32, 64, 128, 256]
    assert growth(sizes, [3e-7 * n**2.5 for n in sizes]) == pytest.approx(2.5)
    assert growth([64], [1.0]) is None


def test_ratios_are_freed_of_the_machine():
    before = {"sizes": [32, 64], "seconds": [1.0, 4.0], "yardstick": 0.5}
    row = {"sizes": [64, 128], "seconds": [12.0, 30.0], "yardstick": 1.0}  # a machine half as fast
    assert ratios(row, before) == {64: 1.5}
    assert ratios(row, None) == {}


def test_a_run_is_kept_and_compared(tmp_path, capsys):
    history, copy = tmp_path / "history.json", tmp_path / "run.json"
    main(["g_eff", "update cell", "--largest", "64", "--keep", "--baseline", str(history)])
    assert "no earlier run" in capsys.readouterr().out
    kept = last_run(history)
    assert [row["case"] for row in kept["rows"]] == ["g_eff", "update cell"]
    assert kept["rows"][0]["sizes"] == [32, 64]
    assert kept["rows"][0]["growth"] > 0.0
    # the same work a hundred times faster before: reported, and an error where asked for
    kept["rows"][0]["seconds"] = (np.array(kept["rows"][0]["seconds"]) / 100.0).tolist()
    foreign = {**kept, "machine": {**kept["machine"], "processor": "another"}}
    history.write_text(json.dumps([kept, foreign]))
    with pytest.raises(SystemExit, match="1"):
        main(["g_eff", "--largest", "64", "--baseline", str(history), "--json", str(copy), "--check"])
    assert "slower: g_eff 32" in capsys.readouterr().out
    assert len(json.loads(copy.read_text())["rows"]) == 1


def test_names():
    assert chosen(["all"]) == list(CASES)
    with pytest.raises(InputError, match=r"no benchmark 'g_ef'.*g_eff"):
        chosen(["g_ef"])
