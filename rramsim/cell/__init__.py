"""Cells: levels, programming error, time, noise, read disturbance, published devices."""

from rramsim.cell.array import CellArray, WriteReport
from rramsim.cell.config import (
    CellsConfig,
    DisturbConfig,
    DriftConfig,
    EnduranceConfig,
    FaultsConfig,
    ProgrammingConfig,
    ReadNoiseConfig,
    RelaxationConfig,
    TelegraphConfig,
)
from rramsim.cell.cost import CostConfig
from rramsim.cell.disturb import (
    DisturbLaw,
    DriftToMaximumLaw,
    ExponentialLaw,
    PowerLaw,
    RangeWarning,
    disturb_law,
    register_disturb_law,
)
from rramsim.cell.drift import DriftLaw, drift_law, register_drift_law
from rramsim.cell.iv import alpha_from_half_bias, cell_current, half_bias_ratio
from rramsim.cell.laws import ErrorLaw, LognormalLaw, NormalLaw, error_law, register_error_law
from rramsim.cell.levels import LevelScale
from rramsim.cell.overlap import LevelErrors, OverlapWarning, check_overlap, level_errors
from rramsim.cell.presets import Evidence, Preset, list_presets, load_preset

__all__ = [
    "CellArray",
    "CellsConfig",
    "CostConfig",
    "DisturbConfig",
    "DisturbLaw",
    "DriftConfig",
    "DriftLaw",
    "DriftToMaximumLaw",
    "EnduranceConfig",
    "ErrorLaw",
    "Evidence",
    "ExponentialLaw",
    "FaultsConfig",
    "LevelErrors",
    "LevelScale",
    "LognormalLaw",
    "NormalLaw",
    "OverlapWarning",
    "PowerLaw",
    "Preset",
    "ProgrammingConfig",
    "RangeWarning",
    "ReadNoiseConfig",
    "RelaxationConfig",
    "TelegraphConfig",
    "WriteReport",
    "alpha_from_half_bias",
    "cell_current",
    "check_overlap",
    "disturb_law",
    "drift_law",
    "error_law",
    "half_bias_ratio",
    "level_errors",
    "list_presets",
    "load_preset",
    "register_disturb_law",
    "register_drift_law",
    "register_error_law",
]
