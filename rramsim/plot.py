"""All plots in one place, loaded when first used: arrays, chips, cells, archives, studies.

A function that takes `ax` draws on those matplotlib Axes, or on a new figure of a journal column's width, and
returns the Axes; `save` writes a file with fonts that journals accept.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; at run time a name is loaded at its first use
    from finetune.study.plot_archive import (
        accuracy as accuracy,
        against as against,
        confusion as confusion,
        history as history,
        layers as layers,
        levels as levels,
        pareto as pareto,
        retention as retention,
    )
    from finetune.study.plot_cost import (
        energy_by_layer as energy_by_layer,
        energy_by_stage as energy_by_stage,
    )
    from finetune.study.plot_style import colors as colors, save as save
    from finetune.study.plot_sweep import over_axis as over_axis, study_map as study_map
    from rramsim.cell.plot import fit_figure as fit_figure, preset_figure as preset_figure
    from rramsim.chip.plot import map_figure as map_figure
    from rramsim.circuit.plot import (
        array_figure as array_figure,
        heat_map as heat_map,
        sneak_paths as sneak_paths,
    )

_HOME = {
    "finetune.study.plot_archive": [
        "accuracy",
        "against",
        "confusion",
        "history",
        "layers",
        "levels",
        "pareto",
        "retention",
    ],
    "finetune.study.plot_cost": ["energy_by_layer", "energy_by_stage"],
    "finetune.study.plot_style": ["colors", "save"],
    "finetune.study.plot_sweep": ["over_axis", "study_map"],
    "rramsim.cell.plot": ["fit_figure", "preset_figure"],
    "rramsim.chip.plot": ["map_figure"],
    "rramsim.circuit.plot": ["array_figure", "heat_map", "sneak_paths"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rramsim.plot' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
