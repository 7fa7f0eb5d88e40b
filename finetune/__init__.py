"""Black-box fine-tuning: strategies, experiments, the command `rramsim`. Names load when first used.

The entry point is `finetune.tune.tune`.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "budget": ["Budget"],
    "config": ["ExperimentConfig", "default_experiment", "load_experiment"],
    "experiment": ["run_experiment"],
    "tune": ["TuneReport", "Tuner"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'finetune' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"finetune.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
