"""What documentation says of the code is true: names exist, blocks run, links lead on, the site builds."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rramsim

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")])
SOURCES = sorted([*ROOT.glob("rramsim/**/*.py"), *ROOT.glob("finetune/**/*.py")])
OURS = re.compile(r"`((?:rramsim|finetune)\.[A-Za-z_][\w.]*)(?:\([^`]*)?`")
HISTORY = {"CHANGELOG.md"}  # tells of names that are gone


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


def exists(name: str) -> bool:
    """Whether a dotted name leads to a module or to an attribute of one, fields of classes included."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                return part in getattr(found, "__annotations__", {})
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("path", [p for p in (*PAGES, *SOURCES) if p.name not in HISTORY], ids=relative)
def test_names_of_ours_exist(path: Path) -> None:
    text = "\n".join(docstrings(path)) if path.suffix == ".py" else path.read_text(encoding="utf-8")
    missing = sorted({name for name in OURS.findall(text) if not exists(name)})
    assert not missing


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", [p for p in PAGES if "```python" in p.read_text("utf-8")], ids=relative)
def test_python_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a page share their names, as a reader who types them in would; ``no-run`` marks sketches.

    A comment ``<!-- setup ... -->`` makes what the page takes for granted, an archive for instance.
    """
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    blocks = re.findall(
        r"^(?:```python|<!-- setup)([^\n]*)\n(.*?)^(?:```|-->)", path.read_text("utf-8"), re.M | re.S
    )
    for info, code in blocks:
        if "no-run" not in info:
            exec(compile(code, relative(path), "exec"), names)


def test_a_ledger_quantity_is_one_line(tmp_path: Path) -> None:
    """The line of docs/extend.md, added to a copy of the package, reaches ledgers and archives."""
    page = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    found = re.search(r"## A quantity of the ledger.*?```python no-run\n(.*?)```", page, re.S)
    assert found is not None
    for name in ("rramsim", "finetune"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    protocol = tmp_path / "rramsim" / "blackbox" / "protocol.py"
    lines = protocol.read_text(encoding="utf-8").splitlines(keepends=True)
    first = min(number for number, line in enumerate(lines) if " = _quantity(" in line)
    lines.insert(first, found.group(1))
    protocol.write_text("".join(lines), encoding="utf-8")
    code = (
        "from finetune.study.quantities import QUANTITIES\n"
        "from rramsim.blackbox.protocol import LayerCosts, Ledger\n"
        "ledger = Ledger({'a': LayerCosts(charge=2.0), 'b': LayerCosts(charge=0.5)})\n"
        "assert ledger.total.charge == 2.5\n"
        "assert Ledger.from_dict(ledger.as_dict()).total.charge == 2.5\n"
        "entry = QUANTITIES['ledger/charge']\n"
        "assert (entry.unit, entry.dims, entry.dtype) == ('C', ('trial', 'stage', 'layer'), 'float64')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


EXAMPLE_ELSEWHERE = {"Archive", "ReplayChip"}  # shown by `open_archive` and by `RecordingChip`


def test_public_classes_have_an_example() -> None:
    """Every class that `rramsim` exports, errors aside."""
    public = {name: getattr(rramsim, name) for name in rramsim.__all__}
    classes = {n for n, o in public.items() if isinstance(o, type) and not issubclass(o, BaseException)}
    without = {name for name in classes if ">>>" not in (public[name].__doc__ or "")}
    assert without <= EXAMPLE_ELSEWHERE
    assert len(classes - without) >= 40


def modules_with_examples() -> list[str]:
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if any(">>>" in text for text in docstrings(path))
    ]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings_run(name: str) -> None:
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(importlib.import_module(name), optionflags=flags).failed == 0


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    build = pytest.importorskip("mkdocs.commands.build", reason="the extra `docs` is not installed")
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True)
    config.plugins.run_event("startup", command="build", dirty=False)
    build.build(config)
    assert (tmp_path / "site" / "index.html").exists()
