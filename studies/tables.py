"""All tables of RESULTS.md from the committed archives.

python -m studies.tables            # prints the tables
python -m studies.tables --write    # puts them between the marks in RESULTS.md
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from studies.beside import tables
from studies.claims import conditions, recovery_table, rival_table

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "RESULTS.md"


def blocks(folder: Path = HERE / "archives") -> dict[str, str]:
    """Generated parts of RESULTS.md by name."""
    found = conditions(folder / "claims.h5")
    return {"recovery": recovery_table(found), "rivals": rival_table(found), **tables(folder)}


def filled(text: str, parts: dict[str, str]) -> str:
    """`text` with what stands between its marks replaced by the generated parts.

    Raises
    ------
    ValueError
        If a part has no marks in the text.
    """
    for name, part in parts.items():
        place = re.search(rf"(?<=<!-- begin {name} -->\n).*?(?=<!-- end {name} -->)", text, re.S)
        if place is None:
            raise ValueError(f"the text has no marks for the table {name!r}")
        text = f"{text[: place.start()]}{part}\n{text[place.end() :]}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=HERE / "archives")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    parser.add_argument(
        "--claims", type=Path, help="only the two claims, from this archive, such as that of make study-quick"
    )
    arguments = parser.parse_args()
    if arguments.claims is not None:
        if arguments.write:
            parser.error("RESULTS.md is written from the committed archives: leave --claims out")
        found = conditions(arguments.claims)
        parts = {"recovery": recovery_table(found), "rivals": rival_table(found)}
    else:
        parts = blocks(arguments.folder)
    for name, part in parts.items():
        print(f"{name}\n{part}", end="\n\n")
    if arguments.write:
        RESULTS.write_text(filled(RESULTS.read_text(encoding="utf-8"), parts), encoding="utf-8")


if __name__ == "__main__":
    main()
