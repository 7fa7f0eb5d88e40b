"""What a strategy is, how strategies are named and joined, and the fused pass over the layers.

A strategy text joins components with ``+``, each with keyword arguments:

    lsq.sequential + lsq.rewrite(passes=4) + lsq.affine + adapter(rank=2) + zo(steps=2)

Neighbouring *layer steps* (they tune one layer at a time from its inputs and outputs) run fused in one
pass over the layers in graph order: a layer is finished, digital correction included, before the
next one sees its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from finetune.bench import Bench
from finetune.evidence.layer import Work
from rramsim.blackbox.protocol import ChipProtocol, Tier
from rramsim.checks import InputError

__all__ = ["COMPONENTS", "LayerStep", "Strategy", "register"]

COMPONENTS: dict[str, Callable[..., Any]] = {}


def register(name: str) -> Callable[[type], type]:
    """Class decorator: make a strategy or layer step known under `name`."""

    def add(cls: type) -> type:
        if name in COMPONENTS:
            raise InputError(f"a strategy named {name!r} exists already")
        COMPONENTS[name] = cls
        return cls

    return add


class Strategy:
    """A way to tune a chip, in resumable units of work.

    `start` once, then `advance` until it returns True. Between two calls `state_dict` holds
    everything needed to go on bit for bit. `BudgetSpent` may leave `advance` at any
    operation; the deployment must then be in a usable state.
    """

    name: ClassVar[str] = ""
    tier: Tier = Tier.LAYERS
    from_reset: ClassVar[bool] = False  # writes the cells itself, so wants a chip that was not mapped

    def check_chip(self, chip: ChipProtocol) -> None:
        """Raise `InputError` for a kind of chip this cannot tune; called before any read or write."""

    def plan(self, bench: Bench) -> dict[str, float]:
        """Predicted `vectors`, `cell_writes` and, where they count, the host's `flops`."""
        raise TypeError(f"{type(self).__name__} must define plan()")

    def start(self, bench: Bench) -> None:
        """Prepare; reads and writes nothing."""

    def advance(self, bench: Bench) -> bool:
        """Do one unit of work; True when finished."""
        raise TypeError(f"{type(self).__name__} must define advance()")

    def state_dict(self) -> dict[str, Any]:
        """Progress, as nested dicts of arrays and numbers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; called after `start`."""


class LayerStep:
    """A component that tunes one layer after another; see `Work` for what it has at hand."""

    name: ClassVar[str] = ""
    tier: Tier = Tier.LAYERS
    from_reset: ClassVar[bool] = False

    def check_chip(self, chip: ChipProtocol) -> None:
        """Raise `InputError` for a kind of chip this cannot tune; called before any read or write."""

    def plan_layer(self, bench: Bench, layer: str, n_vectors: int) -> dict[str, float]:
        """Predicted costs of one layer, as of `Strategy.plan`; the pass's own full read is not counted."""
        return {"vectors": 0.0, "cell_writes": 0.0}

    def tune_layer(self, work: Work) -> None:
        """Tune the layer that `work` is about."""
        raise TypeError(f"{type(self).__name__} must define tune_layer()")

    def state_dict(self) -> dict[str, Any]:
        """What was learnt from earlier layers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""


def first_writes(bench: Bench, layer: str) -> int:
    """Cells that plain mapping of a reset layer programs."""
    return int((bench.deployment.nearest_levels(layer) != 0).sum())
