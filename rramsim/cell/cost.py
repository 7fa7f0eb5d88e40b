"""Figures of merit for what no circuit solution gives: converters, line charges, digital work, areas.

Every default names its source and what kind of evidence it is (see `rramsim.cell.presets.MARKS`). A figure
that no source gives has no default: what depends on it is unknown (NaN in numbers, "unknown" in tables).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rramsim.cell.config import OPEN
from rramsim.cell.presets import load_preset, preset_table
from rramsim.checks import InputError
from rramsim.config import check_settings, setting

__all__ = ["SOURCES", "CostConfig", "adc_area", "adc_energy"]

SOURCES = {
    "survey": "Andrulis, Chen, Lee, Emer & Sze, Modeling analog-digital-converter energy and area for "
    "compute-in-memory accelerator design (2024), arXiv 2404.06553; coefficients of "
    "Accelergy-Project/accelergy-adc-plug-in (model.yaml of 2023), fitted to B. Murmann, ADC performance "
    "survey 1997-2023, github.com/bmurmann/ADC-survey",
    "zigzag": "Houshmand, Sun & Verhelst, Benchmarking and modeling of analog and digital SRAM in-memory "
    "computing architectures (2023), arXiv 2305.18335; coefficients of KULeuven-MICAS/zigzag, imc_array.py",
    "neurosim": "Lee, Lu, Li & Yu, NeuroSim V1.4 (2024), doi 10.1109/TCSI.2024.3357975; defaults of "
    "neurosim/DNN_NeuroSim_V1.4, Param.cpp and SubArray.cpp",
    "horowitz": "Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, "
    "doi 10.1109/ISSCC.2014.6757323: 45 nm, 0.9 V",
}


@preset_table("cost")
@dataclass(frozen=True, kw_only=True)
class CostConfig:
    """Figures for energy, time and area that the circuit does not give; the table [cost].

    Energies of cells, wires and drivers come from Kirchhoff's laws and the actual inputs and have no figure
    here. Where the table is absent, the one of the cells' preset holds, if it has one, then the defaults.

    Examples
    --------
    >>> cost = CostConfig()
    >>> print(f"{cost.conversion_energy(8, 1e-7):.3g} J, {cost.adc_area_of(8, 1e-7):.3g} m^2")
    1.71e-12 J, 3.78e-09 m^2
    """

    preset: str | None = setting(None, "", "preset that fills what is not given here")
    node: float = setting(
        OPEN, "m", "technology node of the survey's fits and of cells", "(0, 1e-5]", usual=(1e-9, 1e-6),
        default_text="3.2e-08", source="assumed",
    )  # fmt: skip
    columns_per_adc: int = setting(
        OPEN, "1", "channels that take turns at one ADC within a read", "[1, 65536]", default_text="8",
        source="assumed: as neurosim (numColMuxed)",
    )  # fmt: skip
    e_adc: float | None = setting(
        None, "J", "energy of one conversion; replaces the survey's fit", "[0, inf)", usual=(1e-16, 1e-8),
        source="fitted: survey, at adc_bits and the rate columns_per_adc / t_read",
    )  # fmt: skip
    a_adc: float | None = setting(
        None, "m^2", "area of one ADC; replaces the survey's fit", "[0, inf)", usual=(1e-12, 1e-5),
        source="fitted: survey",
    )  # fmt: skip
    c_dac: float = setting(
        OPEN, "F", "capacitance that a DAC charges to v_dac for each of its bits", "[0, inf)",
        usual=(1e-16, 1e-11), default_text="5e-14", source="fitted: zigzag (k0)",
    )  # fmt: skip
    v_dac: float = setting(
        OPEN, "V", "supply of the DACs", "(0, 100]", usual=(0.1, 10.0), default_text="0.9",
        source="assumed: as zigzag (28 nm)",
    )  # fmt: skip
    a_dac: float | None = setting(
        None, "m^2", "area of one DAC", "[0, inf)", usual=(1e-14, 1e-6), default_text="unknown"
    )
    c_line: float = setting(
        OPEN, "F/m", "capacitance of a word line per length, charged at every read", "[0, inf)",
        usual=(1e-12, 1e-8), default_text="2e-10", source="assumed: as neurosim (0.2 fF/um)",
    )  # fmt: skip
    cell_features: float = setting(
        OPEN, "1", "area of a cell over node^2; its root is the pitch of lines", "(0, inf)",
        usual=(1.0, 1e5), default_text="48", source="assumed: as neurosim (1T1R, 4 F x 12 F)",
    )  # fmt: skip
    a_driver: float | None = setting(
        None, "m^2", "area of a word line's driver", "[0, inf)", usual=(1e-14, 1e-6), default_text="unknown"
    )
    e_add: float = setting(
        OPEN, "J", "adding one conversion to a sum (32-bit integers)", "[0, inf)", usual=(1e-16, 1e-9),
        default_text="1e-13", source="measured: horowitz",
    )  # fmt: skip
    e_mac: float = setting(
        OPEN, "J", "one multiply-add of the digital side (32-bit floats)", "[0, inf)", usual=(1e-16, 1e-9),
        default_text="4.6e-12", source="derived: horowitz (3.7 pJ + 0.9 pJ)",
    )  # fmt: skip
    a_digital: float | None = setting(
        None, "m^2", "area of the digital side", "[0, inf)", usual=(1e-12, 1e-2), default_text="unknown"
    )

    def __post_init__(self) -> None:
        given: dict[str, Any] = {}
        if self.preset is not None:
            found = load_preset(self.preset).tables.get("cost")
            if found is None:
                raise InputError(f"preset {self.preset!r} has no table [cost]")
            given = found
        for name, value in {**dict.fromkeys(_OPTIONAL), **_DEFAULTS, **given}.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        check_settings(self, "cost.")

    @classmethod
    def of_cells(cls, preset: str | None) -> CostConfig:
        """Figures of the cells' preset where it has a table [cost], else the defaults."""
        if preset is not None and "cost" in load_preset(preset).tables:
            return cls(preset=preset)
        return cls()

    def conversion_energy(self, bits: int, t_read: float) -> float:
        """Energy [J] of a conversion where an ADC serves `columns_per_adc` channels within `t_read` [s]."""
        return (
            self.e_adc
            if self.e_adc is not None
            else adc_energy(bits, self.columns_per_adc / t_read, self.node)
        )

    def adc_area_of(self, bits: int, t_read: float) -> float:
        """Area [m^2] of one such ADC."""
        return (
            self.a_adc if self.a_adc is not None else adc_area(bits, self.columns_per_adc / t_read, self.node)
        )

    def drive_energy(self, bits: int) -> float:
        """Energy [J] of setting one DAC of `bits` bits."""
        return self.c_dac * bits * self.v_dac**2

    @property
    def cell_area(self) -> float:
        """Area [m^2] of a cell."""
        return self.cell_features * self.node**2

    @property
    def line_capacitance(self) -> float:
        """Capacitance [F] of a word line per cell."""
        return self.c_line * math.sqrt(self.cell_area)


_DEFAULTS: dict[str, Any] = {
    "node": 32e-9, "columns_per_adc": 8, "c_dac": 50e-15, "v_dac": 0.9, "c_line": 2e-10,
    "cell_features": 48.0, "e_add": 0.1e-12, "e_mac": 4.6e-12,
}  # fmt: skip
_OPTIONAL = ("e_adc", "a_adc", "a_dac", "a_driver", "a_digital")


def adc_energy(bits: float, rate: float, node: float = 32e-9) -> float:
    """Energy [J] per conversion of a good published ADC with `bits` effective bits at `rate` [1/s].

    Parameters
    ----------
    bits : float
        Effective number of bits; at most 20.
    rate : float
        Conversions per second.
    node : float
        Technology node [m].

    Notes
    -----
    The fit of Andrulis et al. (arXiv 2404.06553) to Murmann's survey: Schreier's figure of merit, bounded by
    the resolution and by the rate, corrected for node and resolution. It is optimistic: the better fifth of
    published converters. The nominal bits of a converter bound its effective ones from above.
    """
    if not (0 < bits <= 20 and rate > 0 and node > 0):
        raise InputError(
            f"an ADC needs 0 < bits <= 20, rate > 0 and node > 0, got {bits:g}, {rate:g}, {node:g}"
        )
    sndr = 20.0 * bits * math.log10(2.0) + 10.0 * math.log10(1.5)  # [dB]
    by_bits = 128.3068287398817 + 3.22051151097755 * math.ceil(bits)
    by_rate = 213.7806687348118 - 2.8719030399529957 * math.log(rate)
    figure = min(by_bits, by_rate)  # [dB] Schreier's, of energy [J]
    nanometres = node * 1e9
    correction = 26.0496215686518 + 1.8800369206815004 * math.log(nanometres)  # to pJ
    correction += -2.8291256050594527 * math.log(bits) - 1.4702022133784405
    return 1e-12 * math.exp(correction) / (2.0 * 10 ** ((figure - sndr) / 10))


def adc_area(bits: float, rate: float, node: float = 32e-9) -> float:
    """Area [m^2] of a small published ADC with the energy of `adc_energy`; arguments and source as there.

    Notes
    -----
    Regression on node, rate and energy per conversion, at the smallest tenth of areas.
    """
    energy = adc_energy(bits, rate, node) * 1e12
    logarithm = (
        1.3461916439910742
        + 0.9932794744745022 * math.log(node * 1e9)
        + 0.18071538424508238 * math.log(rate)
        + 0.29912426192653485 * math.log(energy)
    )
    return 1e-12 * math.exp(logarithm)
