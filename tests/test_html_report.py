"""`rramsim report --html`: one page that stands alone, read by a parser and by a browser."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from finetune.study.archive import Archive, Study, open_study
from finetune.study.cli import main
from finetune.study.config import experiment_from
from finetune.study.html_report import write_page
from rramsim.checks import InputError

ROOT = Path(__file__).resolve().parent.parent
MODULES = Path(os.environ.get("BROWSER_MODULES", ROOT / "build" / "browser" / "node_modules"))
VOID = {"meta", "input", "img", "br"}


class Page(HTMLParser):
    """Tags with their attributes, cells of tables, text of `pre`; refuses tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.pre: list[str] = []
        self.table = ""
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.table = str(dict(attrs)["id"])
            self.rows[self.table] = []
        if tag == "tr":
            self.rows[self.table].append([])
        if tag in ("td", "th"):
            self.rows[self.table][-1].append("")
        if tag == "pre":
            self.pre.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "button"):
            self.rows[self.table][-1][-1] += data
        if self.open and self.open[-1] == "pre":
            self.pre[-1] += data


@pytest.fixture(scope="module")
def page(quick_archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "quick.html"
    result = CliRunner().invoke(main, ["report", str(quick_archive.path), "--html", str(path)])
    assert result.exit_code == 0, result.output
    assert not quick_archive.path.with_suffix("").exists()  # the page holds the figures
    return path


def test_the_page_holds_everything_and_asks_for_nothing(page: Path, quick_archive: Archive) -> None:
    text = page.read_text(encoding="utf-8")
    found = Page(text)
    sources = [
        value for _, attributes in found.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert len(sources) >= 6
    for source in sources:  # figures are in the page, and are SVG
        assert source is not None
        head, data = source.split(",", 1)
        assert head == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")
    assert not re.search(r"(?:url\(|@import|fetch\(|XMLHttpRequest|https?://(?!www\.w3\.org))", text)
    stages = [row[0] for row in found.rows["result"][1:]]
    assert stages == quick_archive.stages
    for row, stage in zip(found.rows["result"][1:], quick_archive.stages, strict=True):
        assert row[1] == f"{100 * quick_archive.accuracy(stage).mean():.2f}"
    assert len(found.rows["chips"]) - 1 == quick_archive.n_trials * len(quick_archive.stages)
    config = experiment_from(tomllib.loads(found.pre[-1]), Path("quick.toml"))
    assert config.digest == quick_archive.attributes["digest"]  # what it says runs the same experiment
    grey = [attributes.get("class") == "default" for tag, attributes in found.tags if tag == "tr"]
    assert 0 < len([g for g in grey if not g]) < len(grey)
    values = {row[0]: row[1] for row in found.rows["settings"][1:]}
    assert values["cells.sigma"] == "0.5"
    assert any(row[0] == "numpy" for row in found.rows["versions"])


def test_names_cannot_break_the_page(quick_archive: Archive, tmp_path: Path) -> None:
    odd = "<script>alert(1)</script>"
    study = Study(
        quick_archive.path, {"a": quick_archive, "b": quick_archive}, {"a": {"x": odd}, "b": {"x": "&"}}
    )
    text = write_page(study, tmp_path / "odd.html").read_text()
    found = Page(text)
    assert odd not in text
    assert odd in {row[0] for row in found.rows["result"]}
    with pytest.raises(InputError, match="cannot be written"):
        write_page(study, tmp_path / "odd.html" / "x.html")


def test_a_browser_shows_it(page: Path) -> None:
    """Headless Chromium: no word on the console, no request, tables sort, every figure is seen."""
    if shutil.which("node") is None or not (MODULES / "@sparticuz" / "chromium").is_dir():
        pytest.skip("needs node, and `make browser` (or BROWSER_MODULES with its two packages)")
    script = ROOT / "tests" / "browser" / "open_page.mjs"
    environment = os.environ | {"BROWSER_MODULES": str(MODULES)}
    result = subprocess.run(
        ["node", str(script), str(page)], capture_output=True, text=True, env=environment, timeout=240
    )
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    assert seen["said"] == []
    assert seen["asked"] == []
    assert seen["title"].startswith("quick: cnn_digits")
    assert seen["up"] == sorted(seen["before"], key=float)
    assert seen["down"] == seen["up"][::-1]
    assert len(set(seen["up"])) > 1
    assert 0 < seen["changed"] < seen["all"]
    assert len(seen["figures"]) >= 6
    assert all(own > 100 and shown > 100 for own, shown in seen["figures"])


def test_a_study_has_a_page_too(quick_archive: Archive, tmp_path: Path) -> None:
    points = {f"{v}": {"cells.sigma": v} for v in (0.1, 0.5)}
    study = Study(quick_archive.path, dict.fromkeys(points, quick_archive), points)
    found = Page(write_page(study, tmp_path / "study.html").read_text())
    assert len(found.rows["result"]) - 1 == 2 * len(quick_archive.stages)
    assert sum(tag == "img" for tag, _ in found.tags) == 1
    assert len(open_study(quick_archive.path)) == 1
