"""Tuned chips taken up again: aged, read, maintained or tuned further from their stored states."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.strategies.composition import parse_strategy
from finetune.study.config import ExperimentConfig, experiment_from
from finetune.study.materials import Materials, Store
from finetune.study.snapshots import load_snapshot
from finetune.study.trial import Life, evaluate_on_fork, save_chip, tuner_of
from rramsim.checks import InputError
from rramsim.host.deployment import Deployment

__all__ = ["Continued", "continue_chip"]


@dataclass(frozen=True)
class Continued:
    """A chip after it was taken up again."""

    chip_id: int
    method: str
    what: str  # what was done to it now
    predictions: NDArray[np.uint8]  # class of each test image, shape (n_images,)
    accuracy: float
    life: Life
    materials: Materials


def continue_chip(
    path: str | Path,
    *,
    strategy: str | None = None,
    seconds: float = 0.0,
    reads: float = 0.0,
    maintain: str | None = None,
    save: str | Path | None = None,
    store: Store | None = None,
) -> Continued:
    """Take up a stored chip: tune it further, let time pass, let reads act, maintain it; then evaluate it.

    Everything comes out bit for bit as in a run that was never interrupted.

    Parameters
    ----------
    path : path
        File that `rramsim run --save-chips` wrote.
    strategy : str, optional
        A strategy that begins with the one the chip was tuned with; the tuning goes on from there.
    seconds : float
        Time that passes [s].
    reads : float
        Reads of every layer that act then, those of some calibration images over and over.
    maintain : str, optional
        Strategy applied at the end, from where the chip stands.
    save : path, optional
        Folder for the new state.
    store : Store, optional
        Networks and images that are loaded already.

    Returns
    -------
    Continued

    Raises
    ------
    InputError
        If the file is not a state of this version, if network or images are no longer those it was made with,
        or if a strategy does not fit.

    Examples
    --------
    >>> week = continue_chip("chips/chip100_default.h5", seconds=7 * 86400)  # doctest: +SKIP
    >>> week.accuracy  # doctest: +SKIP
    0.914
    """
    path = Path(path)
    state = load_snapshot(path)
    config = _config(state, path)
    materials = (Store() if store is None else store).get(config)
    if materials.fingerprint != state["fingerprint"]:
        raise InputError(f"{path}: was made with other weights or images under the same names")
    chip_id, method = int(state["chip_id"]), str(state["method"])
    life, end = _restored(state, materials, strategy, path)
    done = [] if strategy is None else ["tuned further"]
    method = method if strategy is None else strategy
    if seconds:
        life.wait(seconds)
        done.append(f"{seconds:g} s")
    if reads:
        life.read(reads)
        done.append(f"{reads:g} reads")
    if maintain is not None:
        parse_strategy(maintain).check_chip(life.chip)
        life.maintain(maintain)
        done.append(f"maintained by {maintain}")
    outputs = evaluate_on_fork(life.deployment, materials.test, lambda n: None)
    predictions = outputs.argmax(axis=1).astype(np.uint8)
    if save is not None:
        save_chip(materials, life, chip_id, method, end, str(save))
    accuracy = float((predictions == materials.test.labels).mean())
    return Continued(chip_id, method, ", ".join(done) or "as stored", predictions, accuracy, life, materials)


def _restored(
    state: dict[str, Any], materials: Materials, strategy: str | None, path: Path
) -> tuple[Life, Any]:
    """The chip as it was put away, or tuned further with a strategy, and the state of its tuner."""
    chip_id, end = int(state["chip_id"]), state["tuner"]
    chip = materials.chip(chip_id)
    if strategy is None:
        chip.load_state_dict(state["chip"])
        deployment = Deployment(materials.network, chip)
        deployment.load_state_dict(state["deployment"])
    elif end is None:
        raise InputError(f"{path}: the chip was mapped and not tuned; run the strategy itself")
    else:
        tuner = tuner_of(materials, chip, chip_id, strategy)
        tuner.go_on_from(end)
        while not tuner.step():
            pass
        deployment, end = tuner.report().deployment.on(chip), tuner.state_dict()
    life = Life(materials, chip, chip_id, deployment)
    life.visits, life.activity = int(state["visits"]), state["activity"]
    return life, end


def _config(state: dict[str, Any], path: Path) -> ExperimentConfig:
    """The experiment, whose relative paths begin where they did."""
    table = tomllib.loads(str(state["config"]))
    table["experiment"].pop("save_chips", None)
    return experiment_from(table, path)
