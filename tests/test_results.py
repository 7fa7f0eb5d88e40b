"""RESULTS.md says what the committed archives say."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies.tables import RESULTS, blocks, filled

ARCHIVES = Path(__file__).resolve().parent.parent / "studies" / "archives"


@pytest.fixture(scope="module")
def parts() -> dict[str, str]:
    return blocks(ARCHIVES)


def test_tables_are_those_of_the_archives(parts: dict[str, str]) -> None:
    text = RESULTS.read_text(encoding="utf-8")
    for part in parts.values():
        assert part in text
    assert filled(text, parts) == text


def test_a_changed_digit_is_noticed(parts: dict[str, str]) -> None:
    text = RESULTS.read_text(encoding="utf-8")
    number = next(word for word in parts["recovery"].splitlines()[2].split() if "." in word)
    changed = text.replace(number, number[:-1] + str((int(number[-1]) + 1) % 10), 1)
    assert filled(changed, parts) != changed


def test_every_condition_has_ten_chips(parts: dict[str, str]) -> None:
    rows = parts["recovery"].splitlines()[2:]
    assert rows
    assert all(row.split("|")[2].strip() == "10" for row in rows)
