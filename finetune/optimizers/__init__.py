"""Ask/tell zeroth-order methods in pure NumPy.

They know nothing of chips: parameters in, points to measure out, losses in.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from finetune.optimizers.base import Optimizer
from finetune.optimizers.coordinate import Coordinate
from finetune.optimizers.directions import Directions
from finetune.optimizers.evolution import Evolution
from finetune.optimizers.gauss_newton import GaussNewton
from finetune.optimizers.rules import Rule
from finetune.optimizers.simultaneous import RandomLine, Spsa, VarianceReduced
from rramsim.checks import InputError, nearest_name

__all__ = [
    "METHODS",
    "Coordinate",
    "Directions",
    "Evolution",
    "GaussNewton",
    "Optimizer",
    "RandomLine",
    "Rule",
    "Spsa",
    "VarianceReduced",
    "make_optimizer",
]

METHODS: dict[str, type[Optimizer]] = {
    "spsa": Spsa,
    "variance_reduced": VarianceReduced,
    "line": RandomLine,
    "coordinate": Coordinate,
    "gauss_newton": GaussNewton,
    "evolution": Evolution,
}


def make_optimizer(name: str, x: ArrayLike, *, rule: str | Rule | None = None, **settings: Any) -> Optimizer:
    """Build a method by name; `rule` may be a name of `rules.RULES`, with `rate` beside it."""
    if name not in METHODS:
        raise InputError(f"method: unknown name {name!r}; {nearest_name(name, METHODS)}")
    rate = settings.pop("rate", None)
    if name in ("spsa", "variance_reduced", "coordinate"):
        if isinstance(rule, str) or rule is None:
            rule = Rule(rule or "sgd", **({} if rate is None else {"rate": rate}))
        settings["rule"] = rule
    elif rule is not None or rate is not None:
        raise InputError(f"method {name!r} chooses its own steps: rule and rate must be omitted")
    return METHODS[name](x, **settings)
