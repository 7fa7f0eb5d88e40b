"""Energy and time of a network on a chip: of one image, of mapping, of tuning; break-even with write-verify.

The chip says what one vector of a layer takes (`rramsim.chip.bill`), images say which vectors there are and
how many, the ledger what was written and read. What no source gives is NaN here and "unknown" in tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune.study.results import Archive
from rramsim.cell.programming import write_cost
from rramsim.chip.bill import PARTS, ChipArea, LayerBill
from rramsim.chip.config import ChipConfig
from rramsim.chip.simulated import SimulatedChip
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from rramsim.host.summary import summarise

if TYPE_CHECKING:
    from rramsim.network import Network

__all__ = [
    "BILL_IMAGES",
    "NetworkBill",
    "StageBill",
    "break_even",
    "config_of",
    "image_bill",
    "network_bill",
    "no_arrays",
    "stage_arrays",
    "stage_bills",
    "verify_cost",
]

BILL_IMAGES = 16  # whose vectors stand for those of an image
BILL_STREAM = 1_000_002  # noise stream of the reads that show which vectors images send


def image_bill(deployment: Deployment, images: Any) -> dict[str, tuple[LayerBill, float]]:
    """What one vector of each layer takes, and the vectors that one image sends to it.

    The deployment's chip is simulated; nothing is charged to it.
    """
    chip, n_images = deployment.chip, len(images)
    assert isinstance(chip, SimulatedChip)
    trace = deployment.fork(BILL_STREAM).trace(images)
    found = {}
    for layer, host in deployment.layers.items():
        codes = trace.codes(layer)
        n_macs = host.n_extra + (0 if host.common is None else codes.shape[1])
        bill = chip.bill({layer: codes}, {layer: float(n_macs)})[layer]
        found[layer] = bill, len(codes) / n_images
    return found


def stage_arrays(deployment: Deployment, images: Any, layers: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """`image_bill` as the archive keeps it: one value per layer."""
    bills = image_bill(deployment, images[:BILL_IMAGES])
    found = {f"bill/{part}": np.array([bills[name][0].parts[part] for name in layers]) for part in PARTS}
    found["bill/seconds"] = np.array([bills[name][0].seconds for name in layers])
    found["bill/vectors"] = np.array([bills[name][1] for name in layers])
    return found


def no_arrays(n_layers: int) -> dict[str, NDArray[Any]]:
    """The same for a stage whose energy is not measured."""
    names = (*(f"bill/{part}" for part in PARTS), "bill/seconds", "bill/vectors")
    return {name: np.full(n_layers, np.nan) for name in names}


# -- one network --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NetworkBill:
    """What a network costs on one kind of chip.

    Attributes
    ----------
    rows : tuple of dict
        Per layer: `layer`, `rows`, `columns`, `arrays`, `cells`, `vectors`, `array_reads`, `drives`,
        `conversions`, `seconds` and a number [J] for each part, of one image.
    area : ChipArea
    utilisation : float
        Share of the arrays' cells that belong to a layer.
    cells : int
        Cells that hold weights.
    pulses, failed_writes : int
        Of mapping the network once.
    write_seconds, write_joules : float
        Of that; energy NaN where no source gives it.
    host_macs, host_joules : float
        Products that stay at the host, per image: multiply-adds, and their energy [J].
    """

    rows: tuple[dict[str, Any], ...]
    area: ChipArea
    utilisation: float
    cells: int
    pulses: int
    failed_writes: int
    write_seconds: float
    write_joules: float
    host_macs: float
    host_joules: float

    @property
    def parts(self) -> dict[str, float]:
        """Energy [J] of one image by part; products at the host apart."""
        return {part: math.fsum(row[part] for row in self.rows) for part in PARTS}

    @property
    def joules(self) -> float:
        """Energy [J] of one image, products at the host included."""
        return math.fsum((*self.parts.values(), self.host_joules))

    @property
    def seconds(self) -> float:
        """Time [s] of one image on the chip: layers work one after another, tiles in parallel."""
        return math.fsum(row["seconds"] for row in self.rows)

    @property
    def macs(self) -> float:
        """Multiply-adds of one image on the chip."""
        return math.fsum(row["vectors"] * row["rows"] * row["columns"] for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON; None where unknown."""
        table = {
            "layers": list(self.rows),
            "image": {
                "joules": self.joules,
                "seconds": self.seconds,
                "macs": self.macs,
                "parts": self.parts,
                "host_macs": self.host_macs,
                "host_joules": self.host_joules,
            },
            "programming": {
                "cells": self.cells,
                "pulses": self.pulses,
                "failed_writes": self.failed_writes,
                "seconds": self.write_seconds,
                "joules": self.write_joules,
            },
            "area": {
                "square_metres": self.area.parts,
                "known": self.area.known,
                "arrays": self.area.n_arrays,
                "cells": self.area.n_cells,
                "dacs": self.area.n_dacs,
                "adcs": self.area.n_adcs,
                "utilisation": self.utilisation,
            },
        }
        plain: dict[str, Any] = _without_nan(table)
        return plain


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and value != value else value


def network_bill(network: Network, config: ChipConfig, images: Any, *, seed: int = 0) -> NetworkBill:
    """Map a network onto a simulated chip and add up what mapping and one image cost.

    Parameters
    ----------
    images : array or named inputs
        Typical inputs, normalised as the network wants them: ranges and vectors are theirs.

    Examples
    --------
    >>> from rramsim import ChipConfig, load_dataset, load_teacher
    >>> network = load_teacher("cnn_digits")
    >>> images = load_dataset("digits")["calibration"].images[:4]
    >>> bill = network_bill(network, ChipConfig(), images)
    >>> sum(row["conversions"] for row in bill.rows), bill.write_joules
    (778.0, nan)
    """
    images = images[:BILL_IMAGES]
    chip = SimulatedChip(config, layer_shapes(network), seed=seed)
    deployment = Deployment(network, chip)
    deployment.map(images)
    spent = chip.ledger.total
    tiles = {row["layer"]: row for row in chip.map.table()}
    rows = []
    for name, (bill, n) in image_bill(deployment, images).items():
        info = chip.layers[name]
        row: dict[str, Any] = {
            "layer": name, "rows": info.n_rows, "columns": info.n_cols,
            "arrays": len(tiles[name]["tiles"]), "cells": info.n_cells, "vectors": n,
            "array_reads": bill.array_reads * n, "drives": bill.drives * n,
            "conversions": bill.conversions * n, "seconds": bill.seconds * n,
        }  # fmt: skip
        rows.append(row | {part: bill.parts[part] * n for part in PARTS})
    host_macs = float(summarise(network).host_macs)
    return NetworkBill(
        rows=tuple(rows),
        area=chip.area,
        utilisation=chip.map.utilisation,
        cells=spent.weight_cells,
        pulses=spent.pulses,
        failed_writes=spent.failed_writes,
        write_seconds=spent.seconds,
        write_joules=math.nan if spent.joules is None else spent.joules,
        host_macs=host_macs,
        host_joules=host_macs * config.figures.e_mac,
    )


# -- stages of an archive -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StageBill:
    """Mean over chips of what reached a stage and what an image costs there; NaN where unknown.

    Attributes
    ----------
    stage : str
    accuracy : float
    pulses, conversions, cell_writes : float
        Spent from the chip's arrival to this stage, the first programming included.
    read_joules, write_joules : float
        Energy [J] of those reads and of those pulses.
    seconds : float
        Array time [s] of both.
    image_joules, image_seconds : float
        Of one image, on the chip and at its digital side.
    image_parts : mapping of part to float
    """

    stage: str
    accuracy: float
    pulses: float
    conversions: float
    cell_writes: float
    read_joules: float
    write_joules: float
    seconds: float
    image_joules: float
    image_seconds: float
    image_parts: Mapping[str, float]


def stage_bills(archive: Archive) -> list[StageBill]:
    """Energy and time of every stage of an archive that says them; none for archives made before.

    The tuner's reads count at the mean energy of the calibration images' vectors, which are the vectors it
    sends at the tiers of the black box.
    """
    joules = np.sum([archive[f"bill/{part}"] for part in PARTS], axis=0)  # per vector: trial, stage, layer
    if not np.isfinite(joules).any():
        return []
    bills = []
    per_image = archive["bill/vectors"]
    for index, stage in enumerate(archive.stages):
        vectors = archive["ledger/vectors"][:, index]
        parts = {p: float((archive[f"bill/{p}"] * per_image)[:, index].sum(axis=1).mean()) for p in PARTS}
        bills.append(
            StageBill(
                stage=stage,
                accuracy=float(archive.accuracy(stage).mean()),
                pulses=float(archive.cost("pulses", stage).mean()),
                conversions=float(archive.cost("conversions", stage).mean()),
                cell_writes=float(archive.cost("cell_writes", stage).mean()),
                read_joules=float((joules[:, index] * vectors).sum(axis=1).mean()),
                write_joules=float(archive.cost("joules", stage).mean()),
                seconds=float(archive.cost("seconds", stage).mean()),
                image_joules=math.fsum(parts.values()),
                image_seconds=float((archive["bill/seconds"] * per_image)[:, index].sum(axis=1).mean()),
                image_parts=parts,
            )
        )
    return bills


# -- write-verify -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VerifyCost:
    """What write-verify of every weight's cell takes: each pulse is followed by a read of the cell."""

    pulses: float
    conversions: float
    seconds: float  # [s] cells one by one, as the ledger counts writes
    failed: float  # share of cells outside the window


def verify_cost(config: ChipConfig, n_cells: int) -> VerifyCost:
    """Write-verify with the settings of `[cells.programming]`, whatever its `method` says."""
    programming = replace(config.cells.programming, method="write_verify", pulse_table=None)
    cost = write_cost(replace(config.cells, programming=programming), n_cells=8192)
    pulses = cost.n_pulses * n_cells
    return VerifyCost(pulses, pulses + n_cells, cost.seconds * n_cells, 1.0 - cost.success)


def break_even(bill: StageBill, verify: VerifyCost, e_conversion: float) -> float:
    """Energy [J] of a pulse above which a stage has taken less energy than write-verify would.

    0 where it takes less at any energy of a pulse, infinity where it never does. Reads of write-verify
    count with the energy of their conversions alone, in its favour.
    """
    reads = bill.read_joules - verify.conversions * e_conversion
    pulses = verify.pulses - bill.pulses
    if pulses <= 0.0:
        return math.inf if reads > 0.0 or pulses < 0.0 else 0.0
    return max(reads / pulses, 0.0)


def config_of(archive: Archive) -> ChipConfig:
    """The kind of chip of an archive."""
    import tomllib

    from finetune.study.config import ExperimentConfig
    from rramsim.config import parse

    return parse(ExperimentConfig, tomllib.loads(archive.config)).chip_config()
