"""The command `cost`, and the bill under the tables of `run` and `report`."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from finetune.study.bill import BILL_IMAGES, break_even, config_of, network_bill, stage_bills, verify_cost
from finetune.study.catalogue import numbers_of
from finetune.study.materials import load_network
from finetune.study.output import written
from finetune.study.report import console
from rramsim.cell import CellsConfig
from rramsim.checks import InputError
from rramsim.chip.bill import PARTS
from rramsim.chip.config import ChipConfig

__all__ = ["cost", "print_bill"]

UNKNOWN = "unknown"
PREFIXES = tuple(zip("GMk mµnpfa", (10.0**n for n in range(9, -19, -3)), strict=True))


def amount(value: float, unit: str) -> str:
    """A quantity with the prefix that leaves 1 to 999 before it; "unknown" for NaN.

    Examples
    --------
    >>> amount(2.5e-9, "J"), amount(0.0, "J"), amount(float("nan"), "J"), amount(float("inf"), "J")
    ('2.5 nJ', '0 J', 'unknown', 'never')
    """
    if value != value:
        return UNKNOWN
    if math.isinf(value):
        return "never"
    if value == 0.0:
        return f"0 {unit}"
    prefix, size = next((p for p in PREFIXES if abs(value) >= p[1]), PREFIXES[-1])
    return f"{value / size:.3g} {prefix.strip()}{unit}"


def _square(value: float) -> str:
    return UNKNOWN if value != value else f"{value * 1e6:.3g} mm²"


@click.command()
@click.argument("network")
@click.option("--preset", help="Device: a preset's name or TOML file [default: generic].")
@click.option("--tile", default="128", show_default=True, help="Lines of a tile: 128, or 128,64.")
@click.option("--config", type=click.Path(path_type=Path), help="Chip of an experiment's TOML file.")
@click.option("--dataset", help="Inputs [default: the network's own data set, else standard normal numbers].")
@click.option("--shape", help="Shape of one input where an ONNX file leaves it open, such as 3,224,224.")
@click.option(
    "--json", "as_json", is_flag=False, flag_value="-", metavar="[FILE]",
    help="Write the bill as JSON into FILE, or print it instead of the tables.",
)  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path), help="Draw energy by layer and part into this file.")
def cost(
    network: str, preset: str | None, tile: str, config: Path | None, dataset: str | None, shape: str | None,
    as_json: str | None, plot: Path | None,
) -> None:  # fmt: skip
    """Cells, tiles, energy, time and area of a network on a kind of chip.

    NETWORK is the name of a shipped one, an HDF5 or ONNX file, or an experiment's TOML file, whose network,
    images and chip are taken. Energies of cells and wires come from the
    solved circuit and these inputs, others from published figures; see the page on cost. What no source gives
    is printed as unknown.
    """
    if network.lower().endswith(".toml"):
        if config is not None or dataset is not None or shape is not None:
            raise InputError("an experiment's TOML file takes no --config, --dataset or --shape: it has them")
        config = Path(network)
        net, images, what = _experiment_inputs(config)
        chip = _chip(preset, tile, config)
    else:
        chip = _chip(preset, tile, config)
        net = load_network(network, None if shape is None else numbers_of(shape, "--shape", "3,224,224"))
        images, what = _inputs(net, dataset)
    bill = network_bill(net, chip, images)
    if as_json is not None:
        text = json.dumps({"network": net.name, "inputs": what} | bill.as_dict(), indent=1)
        if as_json == "-":
            click.echo(text)
        else:
            with written(Path(as_json)):
                Path(as_json).write_text(text + "\n", encoding="utf-8")
    if as_json != "-":
        _print(net.name, what, chip, bill)
    if plot is not None:
        from finetune.study.plot_cost import energy_figure

        with written(plot, err=as_json == "-"):
            energy_figure(bill, plot)


def _chip(preset: str | None, tile: str, config: Path | None) -> ChipConfig:
    from finetune.study.config import load_experiment

    lines = numbers_of(tile, "--tile", "128 or 128,64")
    if len(lines) > 2:
        raise InputError(f"--tile must be one number or two such as 128,64, got {tile!r}")
    chip = ChipConfig() if config is None else load_experiment(config).chip_config()
    if config is None:
        chip = replace(chip, mapping=replace(chip.mapping, tile_rows=lines[0], tile_cols=lines[-1]))
    elif tile != "128":
        raise InputError("--tile and --config exclude each other: set mapping.tile_rows and tile_cols there")
    return chip if preset is None else replace(chip, cells=CellsConfig(preset=preset))


def _experiment_inputs(file: Path) -> tuple[Any, Any, str]:
    """Network of an experiment, its first calibration images, and what they are in words."""
    from finetune.study.config import load_experiment
    from finetune.study.materials import Materials

    materials = Materials.load(load_experiment(file))
    images = materials.calibration[:BILL_IMAGES]
    return materials.network, images, f"{len(images)} images of {materials.dataset_name}"


def _inputs(network: Any, dataset: str | None) -> tuple[Any, str]:
    """Inputs for the bill, and what they are in words."""
    import numpy as np

    from rramsim.datasets.embedded import load_dataset
    from rramsim.streams import Cause, stream

    name = dataset or network.metadata.get("dataset")
    if name is not None:
        found = load_dataset(str(name))
        if tuple(found.image_shape) == tuple(network.input_shape):
            return found["calibration"].images[:BILL_IMAGES], f"{BILL_IMAGES} images of {found.name}"
        if dataset is not None:
            raise InputError(
                f"network {network.name!r} takes inputs {tuple(network.input_shape)}, data set {dataset!r} "
                f"has {found.image_shape}"
            )
    if len(network.inputs) != 1 or next(iter(network.inputs.values()))[1] not in ("float32", "float64"):
        raise InputError(
            f"network {network.name!r} needs inputs of its own kind: give --dataset, or use "
            "finetune.study.bill.network_bill"
        )
    shape = (BILL_IMAGES, *network.input_shape)
    click.echo("note: no data set is known for this network; inputs are standard normal numbers", err=True)
    numbers = stream(0, Cause.DATA).standard_normal(shape).astype(np.float32)
    return numbers, f"{BILL_IMAGES} inputs of standard normal numbers"


def _print(name: str, inputs: str, chip: ChipConfig, bill: Any) -> None:
    from rich.table import Table

    mapping, terminal = chip.mapping, console()
    table = Table(
        title=f"{name}: one image ({inputs})",
        caption="cells, wires, drivers: exact, from the solved circuit; dac, adc, digital: published figures",
    )
    table.add_column("layer", overflow="fold")
    for head in ("weights", "arrays", "vectors", "reads", "conversions", *PARTS, "energy", "time"):
        table.add_column(head, justify="right")
    for row in bill.rows:
        energies = [amount(row[part], "J") for part in PARTS]
        table.add_row(
            row["layer"], f"{row['rows']} x {row['columns']}", str(row["arrays"]), f"{row['vectors']:g}",
            f"{row['array_reads']:,.0f}", f"{row['conversions']:,.0f}", *energies,
            amount(math.fsum(row[part] for part in PARTS), "J"), amount(row["seconds"], "s"),
        )  # fmt: skip
    totals = [math.fsum(row[key] for row in bill.rows) for key in ("array_reads", "conversions")]
    table.add_section()
    table.add_row(
        "all", "", str(bill.area.n_arrays), "", *(f"{n:,.0f}" for n in totals),
        *(amount(bill.parts[part], "J") for part in PARTS), amount(sum(bill.parts.values()), "J"),
        amount(bill.seconds, "s"),
    )  # fmt: skip
    terminal.print(table)
    lines = [
        f"chip: {bill.cells:,} cells of weights on {bill.area.n_arrays} arrays of {mapping.tile_rows} x "
        f"{mapping.tile_cols} lines, {100 * bill.utilisation:.1f} % of their cells in use",
        f"image: {amount(bill.joules, 'J')} in {amount(bill.seconds, 's')} (layers one after another), "
        f"{amount(sum(bill.parts.values()) / bill.macs, 'J')} per multiply-add; products at the host: "
        f"{bill.host_macs:,.0f} multiply-adds, {amount(bill.host_joules, 'J')}",
        f"programming: {bill.pulses:,} pulses, {amount(bill.write_seconds, 's')} one by one, energy "
        f"{amount(bill.write_joules, 'J')}",
        "area: " + ", ".join(f"{part} {_square(value)}" for part, value in bill.area.parts.items())
        + f"; {_square(bill.area.known)} known ({bill.area.n_adcs:,} ADCs, {bill.area.n_dacs:,} DACs)",
    ]  # fmt: skip
    for line in lines:
        terminal.print(line, highlight=False)


def print_bill(archive: Any) -> None:
    """Energy and time of tuning beside accuracy, and the break-even with write-verify; not for old files."""
    from rich.table import Table

    bills = stage_bills(archive)
    if not bills:
        return
    config = config_of(archive)
    e_conversion = config.figures.conversion_energy(config.converters.adc_bits, config.converters.t_read)
    verify = verify_cost(config, round(bills[0].cell_writes))
    caption = (
        "means over chips, from the chip's arrival on: reads with all their parts, pulses of writes; "
        "break-even: energy of a pulse above which the stage took less than write-verify of the cells that "
        f"mapping writes, with one conversion of {amount(e_conversion, 'J')} after each pulse; image: with "
        "the digital side path"
    )
    table = Table(title="energy and time of tuning", caption=caption)
    table.add_column("stage", min_width=17, overflow="fold")
    heads = (
        "accuracy",
        "pulses",
        "conversions",
        "reads",
        "writes",
        "time",
        "break-even",
        "image",
        "image time",
    )
    for head in heads:
        table.add_column(head, justify="right")
    for bill in bills:
        table.add_row(
            bill.stage.replace("[", r"\["), f"{100 * bill.accuracy:.2f}", f"{bill.pulses:.3g}",
            f"{bill.conversions:.3g}", amount(bill.read_joules, "J"), amount(bill.write_joules, "J"),
            amount(bill.seconds, "s"), amount(break_even(bill, verify, e_conversion), "J"),
            amount(bill.image_joules, "J"), amount(bill.image_seconds, "s"),
        )  # fmt: skip
    writes = math.nan
    if config.cells.programming.e_pulse is not None:
        writes = verify.pulses * config.cells.programming.e_pulse
    table.add_section()
    table.add_row(
        "write-verify", "", f"{verify.pulses:.3g}", f"{verify.conversions:.3g}",
        amount(verify.conversions * e_conversion, "J"), amount(writes, "J"), amount(verify.seconds, "s"),
    )  # fmt: skip
    console().print(table)
