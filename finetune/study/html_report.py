"""A page about an archive for a colleague: one HTML file that needs no network and no other file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from finetune.study.analysis import is_apart, stage_summaries
from finetune.study.archive import Archive, Study
from finetune.study.config import ExperimentConfig, experiment_from
from finetune.study.describe import annotated_toml, setting_rows
from finetune.study.plot_style import svg_text
from finetune.study.statistics import spread
from rramsim.checks import InputError

__all__ = ["write_page"]

MOST_ROWS = 2000  # of the table of single chips
FIGURES = {  # of an experiment: caption, whether it takes the whole width
    "accuracy": ("Accuracy of every chip after each stage, and the gap to the digital network.", False),
    "levels": ("Realised against target conductance of the cells of the largest layer after mapping.", False),
    "recovery": ("Accuracy against what the tuning cost.", True),
    "layers": ("Error of the outputs of each layer against the digital network.", False),
    "lifetime": ("Accuracy as the tuned chips grow old.", True),
    "methods": ("Gap of every method to the digital network.", True),
    "history": ("Residual error that the strategies saw while they worked.", False),
    "confusion": ("Confusion of the classes after mapping and after the best strategy.", True),
}


class Cell(NamedTuple):
    text: str
    value: Any  # what the table is sorted by; "" is last


class Row(NamedTuple):
    cells: list[Cell]
    default: bool = False


class Head(NamedTuple):
    name: str
    meaning: str


class Sheet(NamedTuple):
    heads: list[Head]
    rows: list[Row]
    texts: tuple[int, ...] = (0,)  # columns set to the left
    note: str = ""


def write_page(study: Study, path: str | Path) -> Path:
    """Write the page of an archive or a study.

    Parameters
    ----------
    study : Study
        As `finetune.study.archive.open_study` reads it.
    path : path
        File to write, usually `NAME.html`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If no trial is complete or the file cannot be written.

    Examples
    --------
    >>> from finetune.study.archive import open_study
    >>> write_page(open_study("results/quick.h5"), "quick.html")  # doctest: +SKIP
    """
    import jinja2

    path = Path(path)
    if not study.n_trials:
        raise InputError(f"{study.path}: has no complete trial yet; `rramsim run` continues it")
    text = (resources.files("finetune.study") / "page.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
    single = len(study) == 1 and not study.axes
    content = _experiment(next(iter(study.values()))) if single else _study(study)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(template.render(content), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    return path


def _experiment(archive: Archive) -> dict[str, Any]:
    """What the page of one experiment shows."""
    from finetune.study.plot import FIGURES as DRAWN, drawable

    config = _config(archive)
    rows = stage_summaries(archive)
    best = max((row for row in rows if not is_apart(row.stage)), key=lambda row: row.accuracy.mean)
    teacher = 100 * archive.teacher_accuracy
    sentences = [
        f"The digital network is right for {teacher:.2f} % of {len(archive['labels']):,} test images. "
        f"Plainly mapped to chips it is right for {rows[0].accuracy.mean:.2f} % on average, and for "
        f"{best.accuracy.mean:.2f} % after the best stage, {best.stage}."
    ]
    figures = [
        {"data": svg_text(DRAWN[name](archive)), "caption": caption, "wide": wide}
        for name, (caption, wide) in FIGURES.items()
        if drawable(archive, name)
    ]
    return {
        "title": f"{archive.attributes['name']}: {archive.attributes['network']} on simulated RRAM chips",
        "lead": f"{archive.n_trials} of {archive.n_planned} chips, data set {archive.attributes['dataset']}, "
        f"archive {archive.path.name}.",
        "sentences": sentences,
        "result": _stage_sheet(archive, rows),
        "figures": figures,
        "chips": _chip_sheet(archive),
        **_common(archive, config),
    }


def _config(archive: Archive) -> ExperimentConfig:
    import tomllib

    table = tomllib.loads(archive.config)
    table.get("experiment", {}).pop("folder", None)  # a folder of another machine
    return experiment_from(table, Path(f"{archive.attributes['name']}.toml"))


def _number(value: float, digits: int = 2, sign: str = "") -> Cell:
    return Cell("", "") if not math.isfinite(value) else Cell(f"{value:{sign}.{digits}f}", float(value))


def _between(low: float, high: float) -> Cell:
    return Cell("", "") if not math.isfinite(low) else Cell(f"{low:.2f} to {high:.2f}", float(low))


def _stage_sheet(archive: Archive, rows: Sequence[Any]) -> Sheet:
    """One row for each stage."""
    heads = [
        Head("stage", "what was done to the chip before the evaluation"),
        Head("accuracy (%)", "mean over chips"),
        Head("std", "standard deviation over chips"),
        Head("worst", "worst chip (%)"),
        Head("gap", "points below the digital network, mean over chips"),
        Head("95 % interval", "of the gap, for other chips and other test images; from three chips on"),
        Head("gain", "points over plain mapping"),
        Head("R (%)", "mean gain over mean loss of plain mapping"),
        Head("p", "signed-rank test against the best rival, Holm-adjusted over this table"),
        Head("array reads", "of the tuning"),
        Head("writes per cell", "mapping included"),
        Head("digital (%)", "numbers kept beside the chip over weights"),
    ]
    found = []
    for index, row in enumerate(rows):
        mark = " *" if is_apart(row.stage) else ""
        recovered = math.nan if row.recovered is None else 100 * row.recovered.value
        reads = float(archive.cost("array_reads", row.stage).mean())
        found.append(
            Row(
                [
                    Cell(row.stage + mark, row.stage),
                    _number(row.accuracy.mean),
                    _number(row.accuracy.std),
                    _number(row.accuracy.worst),
                    _number(row.gap.mean),
                    _between(row.gap.low, row.gap.high),
                    _number(math.nan if row.gain is None else row.gain.mean, 2, "+"),
                    _number(recovered, 0),
                    Cell("", "")
                    if math.isnan(row.p_value)
                    else Cell(f"{row.p_value:.2g}", float(row.p_value)),
                    Cell(f"{reads:.3g}", reads),
                    _number(float(archive.writes_per_cell(row.stage).mean())),
                    _number(100 * float(archive["trial/overhead"][:, index].mean()), 1),
                ]
            )
        )
    note = ""
    if any(is_apart(row.stage) for row in rows):
        note = "* had more access to the chip than a black box allows and is no rival of the others. "
    return Sheet(heads, found, (0,), note)


def _chip_sheet(archive: Archive) -> Sheet | None:
    if archive.n_trials * len(archive.stages) > MOST_ROWS:
        return None
    heads = [Head("chip", "id of the individual"), Head("stage", ""), Head("accuracy (%)", "")]
    chips = archive["trial/chip"].tolist()
    rows = [
        Row([Cell(str(chip), chip), Cell(stage, stage), _number(100 * float(archive.accuracy(stage)[k]))])
        for k, chip in enumerate(chips)
        for stage in archive.stages
    ]
    return Sheet(heads, rows, (1,))


def _study(study: Study) -> dict[str, Any]:
    """What the page of several conditions shows."""
    from finetune.study.plot_sweep import study_figures

    heads = [Head(axis, "what was swept") for axis in study.axes] + [
        Head("stage", "what was done to the chip before the evaluation"),
        Head("chips", "complete trials"),
        Head("accuracy (%)", "mean over chips"),
        Head("95 % interval", "of the mean over chips; from three chips on"),
        Head("worst", "worst chip (%)"),
        Head("lost", "points below the digital network"),
    ]
    rows = []
    for label, archive in study.items():
        point = [study.coordinates[label].get(axis, "") for axis in study.axes]
        for stage in archive.stages if archive.n_trials else ():
            over = spread(100 * archive.accuracy(stage))
            cells = [Cell(str(value), value) for value in point]
            cells += [Cell(stage, stage), Cell(str(over.n), over.n), _number(over.mean)]
            cells += [_between(over.low, over.high), _number(over.worst)]
            rows.append(Row([*cells, _number(100 * archive.teacher_accuracy - over.mean)]))
    figures = [
        {"data": svg_text(figure), "caption": caption, "wide": False}
        for caption, figure in study_figures(study)
    ]
    first = next(archive for archive in study.values() if archive.n_trials)
    name = str(first.attributes.get("name", study.path.stem))
    return {
        "title": f"{name}: a study of simulated RRAM chips",
        "lead": f"{study.n_trials} of {study.n_planned} trials under {len(study)} conditions, "
        f"archive {study.path.name}.",
        "sentences": [
            "A chip id names the same random deviates under every condition, so conditions are compared "
            "chip by chip (rramsim compare), not as independent samples."
        ],
        "result": Sheet(heads, rows, tuple(range(len(study.axes) + 1))),
        "figures": figures,
        "chips": None,
        **_common(first, _config(first), swept=study.axes),
    }


def _common(archive: Archive, config: ExperimentConfig, swept: Sequence[str] = ()) -> dict[str, Any]:
    """Settings, versions, and how to run it again."""
    name = f"{archive.attributes['name']}.toml"
    rows = []
    for row in setting_rows(config):
        value = (
            ""
            if row.value is None
            else json.dumps(row.value)
            if not isinstance(row.value, str)
            else row.value
        )
        unit = row.about.unit if row.about.unit != "1" else ""
        cells = [Cell(row.key, row.key), Cell(_cut(value), value), Cell(unit, unit)]
        cells += [Cell(row.about.default, row.about.default), Cell(row.about.description, "")]
        rows.append(Row(cells, row.is_default))
    heads = [
        Head("setting", ""),
        Head("value", ""),
        Head("unit", "SI"),
        Head("default", ""),
        Head("meaning", ""),
    ]
    of_first = " They are those of the first condition; the study changes " + ", ".join(swept) + "."
    note = "Settings in grey have their default." + (of_first if swept else "")
    made = json.loads(str(archive.attributes["versions"]))
    versions = [
        Row(
            [
                Cell(key, key),
                Cell(_cut(", ".join(map(str, value)) if isinstance(value, list) else str(value)), ""),
            ]
        )
        for key, value in made.items()
    ]
    verb = "sweep" if swept else "run"
    text = (
        f"Save the settings below as {name} and install the version of rramsim named under Made with. The "
        f"seed is {archive.attributes['seed']}, the digest of the settings {archive.attributes['digest']}; "
        "with the same processor and libraries every array outside /timing comes out equal bit for bit."
    )
    if swept:
        text += " The table [sweep] of the study is not in the archive: add the axes of the table above."
    return {
        "settings": Sheet(heads, rows, (0, 1, 2, 3, 4), note),
        "versions": Sheet([Head("what", ""), Head("version", "")], versions, (0, 1)),
        "again": {
            "name": name,
            "text": text,
            "commands": f"pip install rramsim=={archive.attributes['rramsim_version']}\n"
            f"rramsim {verb} {name} --out again.h5",
            "toml": annotated_toml(config),
        },
    }


def _cut(text: str, most: int = 400) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
