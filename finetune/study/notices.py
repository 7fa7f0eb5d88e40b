"""What a result must not be read without: shares on the chip, failed writes, settings without effect.

Kept in the archive, so that `rramsim report` says it too.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any

import numpy as np

from finetune.study.config import ExperimentConfig, unread_of_experiment
from finetune.study.results import Archive
from rramsim.cell.pulses import VERIFY_SHARE, likely_cause
from rramsim.checks import InputError
from rramsim.config import parse
from rramsim.host.summary import summarise
from rramsim.network import Network

__all__ = ["facts", "missed_share", "missed_writes", "notes", "shares_text"]


def facts(config: ExperimentConfig, network: Network) -> dict[str, Any]:
    """Attributes of a condition: shares of weights and products on the chip, notes on its settings."""
    summary = summarise(network)
    return {
        "weight_share": summary.weight_share,
        "mac_share": summary.mac_share,
        "notes": json.dumps(unread_of_experiment(config)),
    }


def notes(archive: Archive) -> list[str]:
    """Settings of an archived experiment that changed nothing; none in archives older than this note."""
    return [str(text) for text in json.loads(str(archive.attributes.get("notes", "[]")))]


def shares_text(archive: Archive) -> str:
    """Shares of weights and of multiply-accumulates on the chip; "" where an old archive lacks them."""
    weights, macs = archive.attributes.get("weight_share"), archive.attributes.get("mac_share")
    if weights is None or macs is None:
        return ""
    return (
        f"on the chip: {100 * weights:.1f} % of the weights, {100 * macs:.1f} % of the multiply-accumulates"
    )


def missed_share(archive: Archive, stage: str) -> float:
    """Share of the cells written up to a stage that missed the verify window, over all trials."""
    if "ledger/failed_writes" not in archive or not archive.n_trials:
        return 0.0
    written = archive.cost("cell_writes", stage) + _cost(archive, "reference_writes", stage)
    return float(archive.cost("failed_writes", stage).sum() / max(float(np.sum(written)), 1.0))


def _cost(archive: Archive, quantity: str, stage: str) -> Any:
    return archive.cost(quantity, stage) if f"ledger/{quantity}" in archive else 0.0


def missed_writes(archive: Archive) -> str:
    """A warning where more than `VERIFY_SHARE` of a layer's writes missed the verify window, else "".

    It names the layers, the largest share over the stages, and the likely cause.
    """
    if "ledger/failed_writes" not in archive or not archive.n_trials:
        return ""
    written = archive["ledger/cell_writes"].astype(np.float64)
    if "ledger/reference_writes" in archive:
        written = written + archive["ledger/reference_writes"]
    failed = archive["ledger/failed_writes"].sum(axis=0) / np.maximum(written.sum(axis=0), 1.0)
    worst = failed.max(axis=0)  # over the stages, shape (layer,)
    over = [int(index) for index in np.argsort(-worst, kind="stable") if worst[index] > VERIFY_SHARE]
    if not over:
        return ""
    named = ", ".join(f"{archive['layers/name'][index]} {100 * worst[index]:.0f} %" for index in over[:4])
    more = f" and {len(over) - 4} more layers" if len(over) > 4 else ""
    return (
        f"writes missed the verify window: {named}{more} of the cells written (expected below "
        f"{100 * VERIFY_SHARE:.0f} %); likely cause: {_cause(archive)}"
    )


def _cause(archive: Archive) -> str:
    try:
        table: Mapping[str, Any] = tomllib.loads(archive.config)
        config = parse(ExperimentConfig, dict(table))
    except (InputError, ValueError):
        return "unknown, since the archive's settings are those of another version"
    return likely_cause(config.cells, config.faults)
