"""Tables of the two claims from the archive of `studies/claims.toml`, by the rules of the protocol."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune.study.archive import Archive, open_study
from finetune.study.statistics import compare_images, holm, recovered_fraction
from studies.text import interval_cell

COLUMNS = {"mapped": "mapped", "batch norm": "batch_norm", "affine": "lsq.affine"}
TUNED = "default"


@dataclass(frozen=True)
class Condition:
    """Archives of one network and one programming error: the plain network's and its rivals'."""

    label: str
    plain: Archive
    rivals: dict[str, Archive]


def right(archive: Archive, stage: str) -> np.ndarray:
    """Whether each test image is classified as labelled, shape (n_chips, n_images)."""
    where = list(archive.stages).index(stage)
    return archive["trial/predictions"][:, where] == archive["labels"]


def teacher_right(archive: Archive) -> np.ndarray:
    """The same for the digital network, shape (n_images,)."""
    return archive["teacher/outputs"].argmax(axis=1) == archive["labels"]


def conditions(path: Path) -> list[Condition]:
    """Archives of the study, grouped."""
    groups: dict[tuple[str, str], dict[str, Archive]] = {}
    for archive in open_study(path).values():
        if archive.n_trials < archive.n_planned:
            continue  # a condition counts when all of its chips are there
        config = tomllib.loads(archive.config)
        law = f"{config['cells']['law']} {config['cells']['sigma']:g}"
        network = Path(str(config["experiment"]["network"])).stem
        family = "LeNet-5" if network.startswith("lenet5") else "ResNet-8"
        groups.setdefault((family, law), {})[network] = archive
    found = []
    for (family, law), members in sorted(groups.items()):
        plain = next((name for name in members if name.endswith("_fashion")), "")
        if not plain:
            continue
        rivals = {name: archive for name, archive in members.items() if name != plain}
        found.append(Condition(f"{family}, {law}", members[plain], rivals))
    return found


def recovery_table(found: list[Condition]) -> str:
    """Claim 1."""
    lines = [
        "| condition | chips | mapped (%) | tuned (%) | digital (%) | gap (points) | worst gap | R "
        "| writes per cell | claim 1 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for condition in found:
        archive = condition.plain
        mapped, tuned = archive.accuracy("mapped"), archive.accuracy(TUNED)
        teacher = float(archive["teacher/accuracy"])
        gap = compare_images(teacher_right(archive), right(archive, TUNED))
        ratio = recovered_fraction(tuned, mapped, teacher)
        writes = archive.writes_per_cell(TUNED)
        holds = ratio.low >= 0.95 and 100 * gap.high <= 1.0
        lines.append(
            f"| {condition.label} | {len(tuned)} | {100 * mapped.mean():.2f} | {100 * tuned.mean():.2f} "
            f"| {100 * teacher:.2f} | {interval_cell(gap.mean, gap.low, gap.high)} "
            f"| {100 * (teacher - tuned.min()):.2f} "
            f"| {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] | {writes.mean():.2f} "
            f"| {'holds' if holds else 'fails'} |"
        )
    return "\n".join(lines)


def rival_table(found: list[Condition]) -> str:
    """Claim 2: tuned plain network against the best rival of each column."""
    lines = [
        "| condition | column | best rival | rival (%) | tuned plain network (%) | difference (points) "
        "| p (Holm) | claim 2 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows, p_values = [], []
    for condition in found:
        ours = right(condition.plain, TUNED)
        for column, stage in {**COLUMNS, "tuned alike": TUNED}.items():
            if not condition.rivals:
                continue
            name, best = max(condition.rivals.items(), key=lambda item: float(item[1].accuracy(stage).mean()))
            if list(best["trial/chip"]) != list(condition.plain["trial/chip"]):
                raise ValueError(f"{condition.label}: {name} was run on other chips")
            gain = compare_images(ours, right(best, stage))
            p_values.append(gain.p_value)
            rows.append((condition.label, column, name, 100 * best.accuracy(stage).mean(), ours.mean(), gain))
    for (label, column, name, rival, mine, gain), p_value in zip(rows, holm(p_values), strict=True):
        holds = "not a claim" if column == "tuned alike" else "holds" if 100 * gain.low >= 3.0 else "fails"
        lines.append(
            f"| {label} | {column} | `{name}` | {rival:.2f} | {100 * mine:.2f} "
            f"| {interval_cell(gain.mean, gain.low, gain.high)} | {p_value:.3g} | {holds} |"
        )
    return "\n".join(lines)
