"""Hooks of the site's build: pages that are generated from the code they describe."""

from __future__ import annotations

import importlib
import re
from typing import Any

SETTINGS = re.compile(r"^<!-- settings: ([\w.]+) -->$", re.M)
API = re.compile(r"^<!-- api: (\w+) -->$", re.M)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the tables of settings and the list of exported names."""
    return API.sub(lambda m: _api(m[1]), SETTINGS.sub(lambda m: _settings(m[1]), markdown))


def _settings(path: str) -> str:
    """One row per field of a settings class, from its declaration."""
    from rramsim.config import describe

    module, name = path.rsplit(".", 1)
    rows = describe(getattr(importlib.import_module(module), name))
    lines = ["| key | type | unit | default | range | meaning |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = (f"`{row.key}`", row.type, row.unit, row.default, row.span, row.description)
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _api(package: str) -> str:
    """A reference entry for every public name of a package, grouped by the module it comes from."""
    door = importlib.import_module(package)
    groups: dict[str, list[str]] = {}
    for name in door.__all__:
        if not name.startswith("__"):
            groups.setdefault(getattr(door, name).__module__, []).append(name)
    parts = []
    for module, names in sorted(groups.items()):
        parts.append(f"## {module}\n")
        parts += [f"::: {module}.{name}\n" for name in sorted(names)]
    return "\n".join(parts)
