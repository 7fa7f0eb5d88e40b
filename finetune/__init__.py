"""Black-box fine-tuning: strategies, experiments, the command `rramsim`. Names load when first used.

The entry point is `finetune.tune`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; at run time a name is loaded at its first use
    from finetune.meter import Budget as Budget
    from finetune.study.archive import (
        Archive as Archive,
        open_archive as open_archive,
    )
    from finetune.study.config import (
        ExperimentConfig as ExperimentConfig,
        default_experiment as default_experiment,
        load_experiment as load_experiment,
    )
    from finetune.study.runner import run_experiment as run_experiment
    from finetune.study.statistics import (
        compare as compare,
        spread as spread,
    )
    from finetune.tuner import (
        Tuner as Tuner,
        TuneReport as TuneReport,
        tune as tune,
    )

_HOME = {
    "finetune.meter": ["Budget"],
    "finetune.study.archive": ["Archive", "open_archive"],
    "finetune.study.config": ["ExperimentConfig", "default_experiment", "load_experiment"],
    "finetune.study.runner": ["run_experiment"],
    "finetune.study.statistics": ["compare", "spread"],
    "finetune.tuner": ["TuneReport", "Tuner", "tune"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted([*_MODULE_OF])


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'finetune' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
