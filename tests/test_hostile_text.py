"""Hostile text: settings, sweeps and measurement files are read, or refused by one `InputError`.

RRAMSIM_FUZZ_SEED is added to the seeds, so that `make test-all` can try other inputs elsewhere.
"""

from __future__ import annotations

import gzip
import os
import random
import re
import resource
from pathlib import Path

import pytest
from click.testing import CliRunner

from finetune.study.cli import main
from finetune.study.config import load_experiment
from finetune.study.sweep import load_sweep
from rramsim.cell.fit import fit
from rramsim.cell.fit.reading import read_measurements
from rramsim.checks import InputError

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("examples/*.toml"))]
SWEEPS = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("studies/*.toml"))]
SWEEPS = [text for text in SWEEPS if "[sweep" in text]
OTHER_SEED = int(os.environ.get("RRAMSIM_FUZZ_SEED", "0"))
HOSTILE = (
    *("-1", "0", "9223372036854775807", "-9223372036854775808", "1" + "0" * 40, "1e308", "-1e-308", "inf"),
    *("nan", "true", '""', '"../x"', '"a\\u0000b"', "[]", "[[]]", "{}", "[1, 'a']", "1979-05-27", "2.5"),
    *("[nan, nan]", "{ a = 1 }", "0.1", "3", "[1e-6, 2e-6]", '"lognormal"', f"'{'x' * 300}'"),
)


def mutated(rng: random.Random, examples: list[str]) -> str:
    """An example whose values, lines or characters were changed, repeated, swapped or dropped."""
    lines = rng.choice(examples).splitlines()
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


def try_texts(n: int, seed: int, folder: Path, examples: list[str] = EXAMPLES) -> int:
    """Read `n` mutated texts as run and as sweep; returns how many were refused."""
    seed += OTHER_SEED
    rng, path, refused = random.Random(seed), folder / "m.toml", 0
    for index in range(n):
        text = mutated(rng, examples)
        path.write_text(text, encoding="utf-8")
        try:
            load_sweep(path) if "[sweep" in text else load_experiment(path)
        except InputError as error:
            refused += str(path) in str(error)
        except Exception as error:
            raise AssertionError(f"text {index} of seed {seed}: {error!r}\n{text}") from error
    return refused


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutated_texts(tmp_path: Path) -> None:
    refused = try_texts(250, 0, tmp_path)
    assert 25 < refused < 225  # both outcomes are met


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutated_sweeps(tmp_path: Path) -> None:
    refused = try_texts(60, 0, tmp_path, SWEEPS)
    assert 6 < refused < 60


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("examples", [EXAMPLES, SWEEPS], ids=["run", "sweep"])
def test_ten_thousand_mutated_texts(tmp_path: Path, examples: list[str]) -> None:
    assert try_texts(10_000, 1, tmp_path, examples) > 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 20  # [KiB], of the whole process


def tables() -> list[bytes]:
    """Measurement files of several layouts, as laboratories write them."""
    rng = random.Random(7)
    scatter = [1e-6 * (1 + 3 * (k % 4)) * (1 + 0.05 * rng.random()) for k in range(64)]
    rows = [(k % 4, g, k // 8, 10.0 ** (k % 5)) for k, g in enumerate(scatter)]
    plain = "\n".join(f"{a},{g:.6g},{c},{t:g}" for a, g, c, t in rows)
    repeats = ["\t".join(f"{1 / g * (1 + 0.01 * k):.1f}" for k in range(5)) for g in scatter]
    wide = "\n".join(f"{k % 4}\t{line}" for k, line in enumerate(repeats))
    comma = "\n".join(f"{a};{1e6 * g:.4f}".replace(".", ",") for a, g, _, _ in rows)
    texts = [
        f"level,g_meas,cell,time\n{plain}\n",
        f"level,G (S),cell (no),time (s)\n{plain}\n",
        f"# a b\n{plain}\n",
        f"level\tR1 (ohm)\tR2 (ohm)\tR3\tR4\tR5\n{wide}\n", f"level;g\n;uS\n{comma}\n",
    ]  # fmt: skip
    return [*(text.encode() for text in texts), gzip.compress(texts[0].encode()), texts[0].encode("utf-16")]


def mutated_table(rng: random.Random, examples: list[bytes]) -> bytes:
    """A file whose entries, rows, columns, separators or bytes were changed, repeated or dropped."""
    data = rng.choice(examples)
    for _ in range(rng.choice((1, 1, 2, 4))):
        lines, kind = data.split(b"\n"), rng.randrange(7)
        where = rng.randrange(len(lines))
        if kind == 0:
            entries = re.split(rb"[,;\t]", lines[where])
            entries[rng.randrange(len(entries))] = rng.choice(HOSTILE).encode()
            lines[where] = rng.choice((b",", b";", b"\t")).join(entries)
        elif kind == 1:
            lines[where : where + 1] = rng.choice(
                ([], [lines[where]] * 2, [rng.choice(lines)], [b""], [b"#"])
            )
            lines = lines or [b""]
        elif kind == 2:  # a column twice, or gone
            cut = [line.split(b",") for line in lines]
            lines = [b",".join(c[: -1 if where % 2 else None] + c[:1] * (where % 3)) for c in cut]
        elif kind == 3:
            lines[0] = lines[0].replace(
                *rng.choice(((b"g", b"level"), (b"level", b""), (b",", b" "), (b"S", b"mK")))
            )
        if kind <= 3:
            data = b"\n".join(lines)
        elif data:
            place = rng.randrange(len(data))
            data = (
                data[:place]
                + rng.randbytes(rng.choice((0, 1, 3)))
                + data[place + rng.choice((0, 1, 1, 30)) :]
            )
    return data


def try_tables(n: int, seed: int, folder: Path) -> int:
    """Read `n` mutated measurement files, and fit some of them; returns how many were refused."""
    seed += OTHER_SEED
    rng, path, refused, examples = random.Random(seed), folder / "m.csv", 0, tables()
    for index in range(n):
        data = mutated_table(rng, examples)
        path.write_bytes(data)
        try:
            read_measurements(path)
            if index % 50 == 0:
                fit(path)
        except InputError as error:
            refused += "m.csv" in str(error)
        except Exception as error:
            raise AssertionError(f"file {index} of seed {seed}: {error!r}\n{data!r}") from error
    return refused


@pytest.mark.filterwarnings("ignore")
def test_mutated_measurements(tmp_path: Path) -> None:
    assert 15 < try_tables(150, 0, tmp_path) < 140


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ten_thousand_mutated_measurements(tmp_path: Path) -> None:
    assert try_tables(10_000, 1, tmp_path) > 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 20  # [KiB], of the whole process


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
