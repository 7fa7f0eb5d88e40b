"""Circuit-exact simulation of neural networks on multi-level RRAM chips.

Names are loaded when first used, so that `import rramsim` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; at run time a name is loaded at its first use
    from rramsim.blackbox.averaging import AveragedReads as AveragedReads
    from rramsim.blackbox.conformance import check_chip as check_chip
    from rramsim.blackbox.gate import (
        Gate as Gate,
        TierError as TierError,
    )
    from rramsim.blackbox.protocol import (
        ChipProtocol as ChipProtocol,
        Datasheet as Datasheet,
        LayerInfo as LayerInfo,
        Ledger as Ledger,
        Reading as Reading,
        Tier as Tier,
    )
    from rramsim.blackbox.recording import (
        RecordingChip as RecordingChip,
        ReplayChip as ReplayChip,
    )
    from rramsim.blackbox.remote import (
        ChipListener as ChipListener,
        RemoteChip as RemoteChip,
        serve_chip as serve_chip,
    )
    from rramsim.blackbox.wire import (
        ChipConnectionError as ChipConnectionError,
        ChipTimeoutError as ChipTimeoutError,
        WireLimits as WireLimits,
    )
    from rramsim.cell import (
        CellArray as CellArray,
        CellsConfig as CellsConfig,
        CostConfig as CostConfig,
        DisturbConfig as DisturbConfig,
        DriftConfig as DriftConfig,
        EnduranceConfig as EnduranceConfig,
        FaultsConfig as FaultsConfig,
        ProgrammingConfig as ProgrammingConfig,
        ReadNoiseConfig as ReadNoiseConfig,
        RelaxationConfig as RelaxationConfig,
        TelegraphConfig as TelegraphConfig,
        list_presets as list_presets,
        load_preset as load_preset,
    )
    from rramsim.checks import (
        ConvergenceError as ConvergenceError,
        InputError as InputError,
    )
    from rramsim.chip.config import ChipConfig as ChipConfig
    from rramsim.chip.converters import (
        ConverterConfig as ConverterConfig,
        ConverterErrors as ConverterErrors,
    )
    from rramsim.chip.layout import MappingConfig as MappingConfig
    from rramsim.chip.placement import ChipMap as ChipMap
    from rramsim.chip.plot import map_figure as map_figure
    from rramsim.chip.simulated import SimulatedChip as SimulatedChip
    from rramsim.chip.variation import (
        TemperatureConfig as TemperatureConfig,
        VariationConfig as VariationConfig,
    )
    from rramsim.circuit.crossbar import Crossbar as Crossbar
    from rramsim.circuit.elimination import Factorisation as Factorisation
    from rramsim.circuit.estimates import attenuation as attenuation
    from rramsim.circuit.solution import Solution as Solution
    from rramsim.circuit.solve import (
        cell_voltages as cell_voltages,
        effective_conductance as effective_conductance,
        effective_conductances as effective_conductances,
        output_currents as output_currents,
        prepare as prepare,
        solve_crossbar as solve_crossbar,
    )
    from rramsim.circuit.wiring import WiresConfig as WiresConfig
    from rramsim.datasets import (
        Dataset as Dataset,
        Split as Split,
        data_path as data_path,
        load_dataset as load_dataset,
        load_teacher as load_teacher,
        teacher_names as teacher_names,
    )
    from rramsim.host.deployment import Deployment as Deployment
    from rramsim.host.evaluation import evaluate_images as evaluate_images
    from rramsim.host.layer import (
        HostLayer as HostLayer,
        layer_shapes as layer_shapes,
    )
    from rramsim.network import (
        NamedInputs as NamedInputs,
        Network as Network,
        Node as Node,
    )

__version__ = "0.2.0"

_HOME = {
    "rramsim.blackbox.averaging": ["AveragedReads"],
    "rramsim.blackbox.gate": ["Gate", "TierError"],
    "rramsim.blackbox.protocol": ["ChipProtocol", "Datasheet", "LayerInfo", "Ledger", "Reading", "Tier"],
    "rramsim.blackbox.conformance": ["check_chip"],
    "rramsim.blackbox.recording": ["RecordingChip", "ReplayChip"],
    "rramsim.blackbox.remote": ["ChipListener", "RemoteChip", "serve_chip"],
    "rramsim.blackbox.wire": ["ChipConnectionError", "ChipTimeoutError", "WireLimits"],
    "rramsim.cell": [
        "CellArray",
        "CellsConfig",
        "CostConfig",
        "DisturbConfig",
        "DriftConfig",
        "EnduranceConfig",
        "FaultsConfig",
        "ProgrammingConfig",
        "ReadNoiseConfig",
        "RelaxationConfig",
        "TelegraphConfig",
        "list_presets",
        "load_preset",
    ],
    "rramsim.checks": ["ConvergenceError", "InputError"],
    "rramsim.chip.converters": ["ConverterConfig", "ConverterErrors"],
    "rramsim.chip.layout": ["MappingConfig"],
    "rramsim.chip.config": ["ChipConfig"],
    "rramsim.chip.placement": ["ChipMap"],
    "rramsim.chip.plot": ["map_figure"],
    "rramsim.chip.variation": ["TemperatureConfig", "VariationConfig"],
    "rramsim.chip.simulated": ["SimulatedChip"],
    "rramsim.circuit.crossbar": ["Crossbar"],
    "rramsim.circuit.elimination": ["Factorisation"],
    "rramsim.circuit.estimates": ["attenuation"],
    "rramsim.circuit.solution": ["Solution"],
    "rramsim.circuit.solve": [
        "cell_voltages",
        "effective_conductance",
        "effective_conductances",
        "output_currents",
        "prepare",
        "solve_crossbar",
    ],
    "rramsim.circuit.wiring": ["WiresConfig"],
    "rramsim.datasets": ["Dataset", "Split", "data_path", "load_dataset", "load_teacher", "teacher_names"],
    "rramsim.host.deployment": ["Deployment"],
    "rramsim.host.evaluation": ["evaluate_images"],
    "rramsim.host.layer": ["HostLayer", "layer_shapes"],
    "rramsim.network": ["NamedInputs", "Network", "Node"],
    # moved to `finetune`; kept here for users of 0.1
    "finetune.study.archive": ["Archive", "open_archive"],
    "finetune.study.statistics": ["compare", "spread"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(["__version__", *_MODULE_OF])


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rramsim' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
