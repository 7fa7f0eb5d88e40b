"""Circuit-exact simulation and black-box fine-tuning of neural networks on multi-level RRAM chips.

Names are loaded when first used, so that `import rramsim` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "archive": ["Archive", "open_archive"],
    "cell": [
        "CellArray",
        "CellsConfig",
        "DisturbConfig",
        "FaultsConfig",
        "list_presets",
        "load_preset",
    ],
    "checks": ["ConvergenceError", "InputError"],
    "chip": ["ChipConfig", "SimulatedChip"],
    "crossbar": ["Crossbar"],
    "datasets": ["Dataset", "Split", "data_path", "load_dataset", "load_teacher", "teacher_names"],
    "deployment": ["Deployment", "layer_shapes"],
    "evaluation": ["evaluate_images"],
    "gate": ["Gate", "TierError"],
    "mapping": ["MappingConfig"],
    "network": ["Network", "Node"],
    "periphery": ["ConverterConfig"],
    "protocol": ["ChipProtocol", "Datasheet", "LayerInfo", "Ledger", "Reading", "Tier"],
    "remote": ["RemoteChip", "serve_chip"],
    "solver": [
        "Factorisation",
        "Solution",
        "attenuation",
        "cell_voltages",
        "effective_conductance",
        "effective_conductances",
        "output_currents",
        "prepare",
        "solve_crossbar",
    ],
    "statistics": ["compare", "spread"],
    "wiring": ["WiresConfig"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(["__version__", *_MODULE_OF])


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rramsim' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"rramsim.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
