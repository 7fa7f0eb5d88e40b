"""The bill of a chip: energy and time of reads by layer and part, area by part.

Cells, wires and drivers come from the solved circuit and the actual inputs (`rramsim.chip.read_energy`);
converters, line charges and digital work from figures of merit (`rramsim.cell.CostConfig`). What no
source gives is NaN here and "unknown" in tables, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rramsim.cell.cost import CostConfig
from rramsim.chip.config import ChipConfig
from rramsim.chip.layer import ChipLayer
from rramsim.chip.placement import ChipMap
from rramsim.chip.read_energy import ReadEnergy

__all__ = ["AREAS", "PARTS", "ChipArea", "LayerBill", "chip_area", "layer_bill"]

PARTS = ("cells", "wires", "drivers", "dac", "adc", "digital")  # of the energy of reads
AREAS = ("cells", "drivers", "dac", "adc", "digital")


@dataclass(frozen=True)
class LayerBill:
    """What one input vector of a layer takes.

    Attributes
    ----------
    parts : mapping of part to float
        Energy [J] in each of `PARTS`; `drivers` holds the charges of word lines too.
    seconds : float
        Time [s]; tiles work in parallel.
    array_reads, drives, conversions : int
        Tiles times passes; settings of DACs; conversions of ADCs.
    """

    parts: Mapping[str, float]
    seconds: float
    array_reads: int
    drives: int
    conversions: int

    @property
    def joules(self) -> float:
        """Energy [J] of all parts: their sum, not a number where one of them is unknown."""
        return math.fsum(self.parts.values())


def layer_bill(layer: ChipLayer, energy: ReadEnergy, cost: CostConfig, n_macs: float = 0.0) -> LayerBill:
    """What one vector takes, from the mean energy of the arrays and the figures of the other parts.

    Parameters
    ----------
    energy : ReadEnergy
        Of typical vectors in the present state.
    n_macs : float
        Multiply-adds of the digital side for each vector, beside one per column for gain and offset.

    Notes
    -----
    A tile has a DAC per word line of the layer. An ADC serves `CostConfig.columns_per_adc` channels in turn
    within `t_read`, so it converts at the rate columns_per_adc / t_read. Each conversion is added to a sum.
    """
    converters, n_passes = layer.converters, len(layer.drive.passes)
    n_line_tiles = len(layer.array.layout.line_tiles)
    array_reads = n_passes * len(layer.array.tiles())
    drives = n_passes * layer.array.layout.n_word_lines * n_line_tiles
    conversions = n_passes * len(layer.info.row_tiles) * layer.array.n_channels
    drive_bits = 1 if converters.input_mode == "bit_serial" else converters.dac_bits
    parts = {
        "cells": energy.cells,
        "wires": energy.wires,
        "drivers": energy.drivers + cost.line_capacitance * energy.v2_lines,
        "dac": drives * cost.drive_energy(drive_bits),
        "adc": conversions * cost.conversion_energy(converters.adc_bits, converters.t_read),
        "digital": conversions * cost.e_add + (layer.info.n_cols + n_macs) * cost.e_mac,
    }
    return LayerBill(parts, n_passes * converters.t_read, array_reads, drives, conversions)


@dataclass(frozen=True)
class ChipArea:
    """Area of a chip.

    Attributes
    ----------
    parts : mapping of part to float
        Area [m^2] of each of `AREAS`; NaN where no source gives it.
    n_arrays, n_cells, n_dacs, n_adcs : int
        On all arrays, the unused lines of whole arrays included.
    """

    parts: Mapping[str, float]
    n_arrays: int
    n_cells: int
    n_dacs: int
    n_adcs: int

    @property
    def known(self) -> float:
        """Area [m^2] of the parts that are known: a lower bound."""
        return math.fsum(area for area in self.parts.values() if area == area)


def chip_area(config: ChipConfig, placed: ChipMap) -> ChipArea:
    """Area of cells and periphery for arrays that lie as `placed`.

    Examples
    --------
    >>> from rramsim.chip.layout import TileLayout
    >>> from rramsim.chip.placement import place_layers
    >>> config = ChipConfig()
    >>> placed = place_layers({"a": TileLayout.build(128, 64, config.mapping)}, config.mapping)
    >>> area = chip_area(config, placed)
    >>> area.n_cells, area.n_dacs, area.n_adcs, f"{area.parts['cells']:.3g} m^2"
    (16384, 128, 8, '8.05e-10 m^2')
    """
    cost, converters, mapping = config.figures, config.converters, config.mapping

    def channels(n_lines: int) -> int:
        if converters.adc_per_line or mapping.single_lines:
            return n_lines
        return n_lines - 1 if mapping.has_reference_line else n_lines // 2

    n_dacs = sum(rows for rows, _ in placed.shapes)
    n_adcs = sum(-(-channels(lines) // cost.columns_per_adc) for _, lines in placed.shapes)
    parts = {
        "cells": placed.n_cells * cost.cell_area,
        "drivers": n_dacs * _or_nan(cost.a_driver),
        "dac": n_dacs * _or_nan(cost.a_dac),
        "adc": n_adcs * cost.adc_area_of(converters.adc_bits, converters.t_read),
        "digital": _or_nan(cost.a_digital),
    }
    return ChipArea(parts, len(placed.shapes), placed.n_cells, n_dacs, n_adcs)


def _or_nan(figure: float | None) -> float:
    return math.nan if figure is None else figure
