"""How a measurement file is to be read: the table [reading] of a recipe kept beside the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rramsim.checks import InputError, nearest_name
from rramsim.config import check_settings, parse, read_toml, setting

__all__ = ["MEANINGS", "ReadingConfig", "load_recipe"]

MEANINGS = {
    "g": "conductance",
    "resistance": "resistance",
    "current": "current at the read voltage",
    "level": "number of the level",
    "target": "wanted conductance, or resistance where resistances are read",
    "cell": "identifier of the cell",
    "cycle": "number of the write of that cell",
    "time": "time since the write",
    "n_reads": "reads since the write",
    "v_read": "read voltage",
    "t_read": "width of a read pulse",
    "n_cycles": "SET/RESET cycles before",
    "kelvin": "temperature",
    "pulses": "pulses of the write",
    "set_pulses": "SET pulses of the write",
    "reset_pulses": "RESET pulses of the write",
    "lower": "lower bound of the accepted window, in the quantity that was read",
    "upper": "upper bound of the accepted window, in the quantity that was read",
    "success": "1 where the write ended inside its window",
}
"""What a column can mean."""


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """Corrections to what the reader guesses; everything may be left out.

    Examples
    --------
    >>> reading = ReadingConfig(columns={"level": 3}, units={"g": "uS"})
    >>> reading.max_bad
    0.02
    """

    columns: dict[str, int | str] = setting(dict, "", "meaning of a column: its number (from 1) or header")
    units: dict[str, str] = setting(dict, "", "unit of a meaning, such as g = 'uS'")
    compute: dict[str, str] = setting(
        dict, "", "meaning computed from i (row), k (column of a wide table), both from 0, and columns"
    )
    quantity: str = setting(
        "auto", "", "what is read", choices=("auto", "conductance", "resistance", "current")
    )
    voltage: float | None = setting(
        None, "V", "read voltage that turns currents into conductances", "(0, inf)"
    )
    wide: str = setting("", "", "columns of a wide table that repeat the quantity, such as '2-' or '3-10'")
    separator: str = setting("", "", "between columns: a character, 'tab' or 'space'; empty: guessed")
    header: str = setting("auto", "", "whether names stand above the columns", choices=("auto", "yes", "no"))
    nominal: tuple[float, ...] = setting((), "S", "nominal levels to which targets are assigned", "(0, inf)")
    n_bins: int | None = setting(None, "1", "levels into which continuous targets are binned", "[2, 1024]")
    file_times: tuple[float, ...] = setting((), "s", "time since the write of each file", "[0, inf)")
    max_bad: float = setting(0.02, "1", "share of unusable rows above which a file is refused", "[0, 1]")
    min_cells: int = setting(5, "1", "values that a level needs to be fitted", "[3, inf)")

    def __post_init__(self) -> None:
        check_settings(self)
        for table in ("columns", "units", "compute"):
            for name in getattr(self, table):
                if name not in MEANINGS:
                    raise InputError(f"{table}: unknown meaning {name!r}; {nearest_name(name, MEANINGS)}")
        for name, column in self.columns.items():
            if isinstance(column, int) and column < 1:
                raise InputError(f"columns.{name} must be a number from 1 on or a header, got {column}")


def load_recipe(path: str | Path) -> ReadingConfig:
    """The table [reading] of a TOML file."""
    text = read_toml(path)
    if set(text) != {"reading"}:
        raise InputError(f"{path}: must hold the table [reading] and nothing else, got {', '.join(text)}")
    return parse(ReadingConfig, text["reading"], f"{path}: reading")
