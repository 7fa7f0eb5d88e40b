"""Hostile settings: whatever the text says, the answer is settings or one `InputError`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from finetune.study.cli import main
from finetune.study.config import load_experiment
from finetune.study.sweep import load_sweep
from rramsim.checks import InputError

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("examples/*.toml"))]
HOSTILE = (
    *("-1", "0", "9223372036854775807", "-9223372036854775808", "1" + "0" * 40, "1e308", "-1e-308", "inf"),
    *("nan", "true", '""', '"../x"', '"a\\u0000b"', "[]", "[[]]", "{}", "[1, 'a']", "1979-05-27", "2.5"),
    *("[nan, nan]", "{ a = 1 }", "0.1", "3", "[1e-6, 2e-6]", '"lognormal"', f"'{'x' * 300}'"),
)


def mutated(rng: random.Random) -> str:
    """An example whose values, lines or characters were changed, repeated, swapped or dropped."""
    lines = rng.choice(EXAMPLES).splitlines()
    for _ in range(rng.choice((1, 1, 2, 4))):
        where = rng.randrange(len(lines))
        line, kind = lines[where], rng.randrange(6)
        if kind <= 2 and "=" in line:
            lines[where] = f"{line.split('=')[0]}= {rng.choice(HOSTILE)}"
        elif kind == 3:
            lines[where : where + 1] = rng.choice(([], [line, line], [rng.choice(lines)]))
            lines = lines or [""]
        elif line:
            place = rng.randrange(len(line))
            letter = rng.choice(("", "\0", "[", "]", '"', "=", ".", "é", "\n", str(rng.randrange(10)), "e9"))
            lines[where] = line[:place] + letter + line[place + 1 :]
    return "\n".join(lines)


def try_texts(n: int, seed: int, folder: Path) -> int:
    """Read `n` mutated texts as run and as sweep; returns how many were refused."""
    rng, path, refused = random.Random(seed), folder / "m.toml", 0
    for index in range(n):
        text = mutated(rng)
        path.write_text(text, encoding="utf-8")
        try:
            load_sweep(path) if "sweep" in text else load_experiment(path)
        except InputError as error:
            refused += str(path) in str(error)
        except Exception as error:
            raise AssertionError(f"text {index} of seed {seed}: {error!r}\n{text}") from error
    return refused


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutated_texts(tmp_path: Path) -> None:
    refused = try_texts(250, 0, tmp_path)
    assert 25 < refused < 225  # both outcomes are met


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_ten_thousand_mutated_texts(tmp_path: Path) -> None:
    assert try_texts(10_000, 1, tmp_path) > 1000


@pytest.mark.parametrize(
    "command, text, message",
    [
        ("sweep", '[sweep]\n"" = [1]\n', "must be a dotted path"),
        ("sweep", '[sweep]\n"cells." = [1]\n', "dotted path"),
        ("sweep", "[experiment]\nname = '../x'\n[sweep]\n'cells.sigma' = [0.1]\n", "name must be usable"),
        ("sweep", "".join(f"{'' if i else '[sweep]'}\n'cells.sigma{i}' = [{'1,' * 99}1]" for i in range(3)),
         "1000000 combinations"),
        ("run", f"[cells]\nn_levels = {2**63 - 1}\n", "n_levels"),
        ("run", "x = " + "[" * 20_000, "nested too deeply"),
        ("run", "[experiment]\nseed = -1\n", "seed must be >= 0"),
        ("run", f"[experiment]\nseed = {2**70}\n", "seed"),
        ("run", f"[experiment]\nchips = {10**12}\n", "chips must be at most"),
        ("run", f"[experiment]\nchips = [{2**40}]\n", "chip ids must be below"),
        ("run", "[experiment]\nname = '../x'\n", "name must be usable"),
        ("run", f"[experiment]\nseed = {'9' * 5000}\n", "not valid TOML"),
        ("run", '[experiment]\ndataset = "a\\u0000b"\n', "dataset"),
        ("run", '[experiment]\nnetwork = "a\\u0000b.h5"\n', "network"),
    ],
)  # fmt: skip
def test_known_slips_are_refused_in_one_line(tmp_path: Path, command: str, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    result = CliRunner().invoke(main, [command, str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert message in lines[-1]
    assert not (tmp_path / "out").exists()
