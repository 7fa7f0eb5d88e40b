"""Strategies joined by their text: the fused pass over the layers, and the parser."""

from __future__ import annotations

import ast
import inspect
import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.bench import Bench
from finetune.evidence.layer import Knowledge, Work
from finetune.evidence.samples import sample_count
from finetune.meter import BudgetSpent
from finetune.strategies.base import COMPONENTS, LayerStep, Strategy, first_writes
from rramsim.blackbox.protocol import ChipProtocol
from rramsim.checks import InputError, nearest_name
from rramsim.host.trace import Trace
from rramsim.network import windows

__all__ = ["SCHEMES", "Composition", "LayerPass", "parse_strategy"]

CELL_BYTES = 110.0  # of belief, choice and copies, for each cell of the layer being tuned
SCHEMES: dict[str, str] = {}  # named strategies: name to text


class LayerPass(Strategy):
    """Layer steps fused into one pass over the network, a layer per unit of work."""

    name = "layer pass"

    def __init__(self, steps: list[LayerStep]) -> None:
        self.steps = steps
        self._done: dict[str, list[NDArray[Any]]] = {}  # ADC codes of each finished node's layers
        self._next = 0
        self._trace: Trace | None = None
        self._knowledge = Knowledge()

    def check_chip(self, chip: ChipProtocol) -> None:
        """Ask every step."""
        for step in self.steps:
            step.check_chip(chip)

    def plan(self, bench: Bench) -> dict[str, float]:
        """Sum over layers and steps, and one full read of every layer; memory of the largest layer."""
        total = {"vectors": 0.0, "cell_writes": 0.0, "bytes": 0.0}
        for node in bench.network.mapped:
            if "shares" in bench.network.node(node).attributes:
                continue
            uses = bench.network.uses(node)
            shapes = [bench.teacher_shape(use) for use in uses]
            n_vectors = sum(
                shape[0] * windows.vectors_per_example(bench.network.node(use), shape)
                for use, shape in zip(uses, shapes, strict=True)
            )
            if len(uses) > 1:  # inputs of the later ones are recorded through the layer itself
                total["vectors"] += 2 * n_vectors * len(bench.deployment.layers_of(node))
            for layer in bench.deployment.layers_of(node):
                total["bytes"] = max(total["bytes"], _layer_bytes(bench, layer, n_vectors))
                plans = [step.plan_layer(bench, layer, n_vectors) for step in self.steps]
                writes = [plan.get("cell_writes", 0.0) > 0.0 for plan in plans]
                # outputs are read in full once, and again where cells are written after a digital step
                again = sum(not before and now for before, now in itertools.pairwise(writes))
                total["vectors"] += n_vectors * (1 + again)
                for plan in plans:
                    for key, value in plan.items():
                        total[key] = total.get(key, 0.0) + value
        return total

    def start(self, bench: Bench) -> None:
        """Begin at the first layer."""
        self._trace = bench.deployment.trace(bench.images)
        self._done, self._next = {}, 0
        if any(step.from_reset for step in self.steps) and not bench.was_mapped:
            bench.meter.reserved_cells = sum(first_writes(bench, layer) for layer in bench.deployment.layers)

    def advance(self, bench: Bench) -> bool:
        """Tune the next node's layers; True after the last."""
        assert self._trace is not None
        nodes = bench.network.mapped
        node = nodes[self._next]
        uses = bench.network.uses(node)
        if "shares" in bench.network.node(node).attributes:  # tuned with the node that owns the layer
            self._next += 1
            return self._next == len(nodes)
        readings = []
        try:
            if len(uses) > 1:  # inputs of the later ones need what the layer itself answers
                self._write_first(bench, bench.deployment.layers_of(node))
            for layer in bench.deployment.layers_of(node):
                if bench.deployment.layers[layer].levels is None:
                    kept = bench.meter.reserved_cells - first_writes(bench, layer)
                    bench.meter.reserved_cells = max(kept, 0)
                work = Work(bench, self._trace, layer, self._knowledge)
                for step in self.steps:
                    step.tune_layer(work)
                readings.append(work.full_reading()[0])
                work.samples = None  # they know their work: a circle that would outlive the layer
        except BudgetSpent:
            self._write_rest(bench)
            raise
        if len(uses) == 1:
            self._trace.answer(node, readings)
            self._done[node] = [_narrow(codes) for codes in readings]
        else:
            self._trace.forget_after(node)
        self._trace.forget_before(node)
        self._next += 1
        bench.checkpoint(node)
        return self._next == len(nodes)

    def _write_first(self, bench: Bench, layers: list[str]) -> None:
        """Plain mapping of layers that nothing was written to."""
        for layer in layers:
            if bench.deployment.layers[layer].levels is None:
                kept = bench.meter.reserved_cells - first_writes(bench, layer)
                bench.meter.reserved_cells = max(kept, 0)
                bench.deployment.write(layer, bench.deployment.nearest_levels(layer))

    def _write_rest(self, bench: Bench) -> None:
        """Give layers that nothing was written to their plain mapping, as far as the budget goes."""
        bench.meter.reserved_cells = 0
        for layer, host in bench.deployment.layers.items():
            if host.levels is None and first_writes(bench, layer) <= bench.meter.cells_left:
                bench.deployment.write(layer, bench.deployment.nearest_levels(layer))

    def state_dict(self) -> dict[str, Any]:
        """Readings of finished nodes, position, what steps have learnt."""
        return {
            "done": {node: [codes.copy() for codes in readings] for node, readings in self._done.items()},
            "next": self._next,
            "knowledge": self._knowledge.state_dict(),
            "steps": [step.state_dict() for step in self.steps],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Answer for finished nodes with what was read, so that no layer is read again."""
        assert self._trace is not None
        done = state["done"].items()
        self._done = {node: [_narrow(codes) for codes in readings] for node, readings in done}
        for node, readings in self._done.items():
            self._trace.answer(node, [codes.astype(np.int32) for codes in readings])
            self._trace.forget_before(node)
        self._next = int(state["next"])
        self._knowledge = Knowledge.from_state(state["knowledge"])
        for step, entry in zip(self.steps, state["steps"], strict=True):
            step.load_state_dict(entry)


def _layer_bytes(bench: Bench, layer: str, n_vectors: int) -> float:
    """What the host holds while it tunes one layer: all its vectors, answers and targets, samples, cells."""
    info, host = bench.deployment.chip.layers[layer], bench.deployment.layers[layer]
    rows, cols, tiles = info.n_rows, info.n_cols, len(info.row_tiles)
    n_samples = sample_count(rows, n_vectors)
    vectors = n_vectors * (2.0 * rows + 20.0 * cols)  # codes; answers, targets, saturation, activations
    samples = n_samples * (8.0 * rows + cols * (13.0 * tiles + 12.0))
    cells = info.n_cells * CELL_BYTES + 8.0 * rows * rows * 3
    return vectors + samples + cells + 4.0 * math.prod(bench.teacher_shape(host.node))


def _narrow(codes: NDArray[np.integer]) -> NDArray[np.integer]:
    """Integers in two bytes each where they fit."""
    least, most = codes.min(initial=0), codes.max(initial=0)
    return codes.astype(np.int16) if least >= -(2**15) and most < 2**15 else codes


class Composition(Strategy):
    """Components one after another; neighbouring layer steps are fused."""

    def __init__(self, text: str, parts: list[Strategy | LayerStep], terms: list[str] | None = None) -> None:
        terms = [part.name for part in parts] if terms is None else terms
        self.text = text
        self.stages: list[Strategy] = []
        self.stage_texts: list[str] = []
        for fused, group in itertools.groupby(
            zip(terms, parts, strict=True), key=lambda pair: isinstance(pair[1], LayerStep)
        ):
            members = list(group)
            if fused:
                self.stages.append(LayerPass([step for _, step in members if isinstance(step, LayerStep)]))
                self.stage_texts.append(" + ".join(term for term, _ in members))
            else:
                self.stages += [part for _, part in members if isinstance(part, Strategy)]
                self.stage_texts += [term for term, _ in members]
        self.needed_tier = max(part.tier for part in parts)
        self.writes_itself = parts[0].from_reset
        self._stage = 0

    def begins_with(self, other: Composition) -> bool:
        """Whether `other`, run to its end, is how this one starts: the same first stages, and more."""
        n = len(other.stages)
        return n < len(self.stages) and self.stage_texts[:n] == other.stage_texts

    def check_chip(self, chip: ChipProtocol) -> None:
        """Ask every stage."""
        for stage in self.stages:
            stage.check_chip(chip)

    def plan(self, bench: Bench) -> dict[str, float]:
        """Sum over stages; memory of the hungriest."""
        total: dict[str, float] = {"vectors": 0.0, "cell_writes": 0.0}
        for stage in self.stages:
            for key, value in stage.plan(bench).items():
                before = total.get(key, 0.0)
                total[key] = max(before, value) if key == "bytes" else before + value
        return total

    def start(self, bench: Bench) -> None:
        """Begin the first stage."""
        self._stage = 0
        self.stages[0].start(bench)

    def advance(self, bench: Bench) -> bool:
        """One unit of the present stage."""
        if self.stages[self._stage].advance(bench):
            self._stage += 1
            if self._stage == len(self.stages):
                return True
            self.stages[self._stage].start(bench)
        return False

    def state_dict(self) -> dict[str, Any]:
        """The stage and its progress."""
        return {"stage": self._stage, "inner": self.stages[self._stage].state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the stage that was interrupted."""
        self._stage = int(state["stage"])
        self.stages[self._stage].load_state_dict(state["inner"])

    def enter(self, bench: Bench, stage: int) -> None:
        """Begin at a later stage, on a bench that the stages before it have left."""
        self._stage = stage
        self.stages[stage].start(bench)

    def restart(self, bench: Bench, state: Mapping[str, Any]) -> None:
        """`start` the stage that `state` names, then load it."""
        self.stages[int(state["stage"])].start(bench)
        self.load_state_dict(state)


def parse_strategy(text: str) -> Composition:
    """A strategy from its text or the name of a scheme.

    Raises
    ------
    InputError
        For unknown names and arguments, with the nearest known one.
    """
    import finetune.strategies  # fills the registry  # noqa: F401

    source = SCHEMES.get(text.strip(), text)
    try:
        tree = ast.parse(source.strip(), mode="eval").body
    except SyntaxError:
        raise InputError(
            f"strategy must read like 'lsq.affine + adapter(rank=2)', got {text!r}; "
            f"{nearest_name(text, [*SCHEMES, *COMPONENTS])}"
        ) from None
    terms = _terms(tree)
    return Composition(source, [_component(t, text) for t in terms], [ast.unparse(t) for t in terms])


def _terms(tree: ast.expr) -> list[ast.expr]:
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add):
        return [*_terms(tree.left), *_terms(tree.right)]
    return [tree]


def _component(term: ast.expr, text: str) -> Any:
    keywords = []
    function = term
    if isinstance(term, ast.Call):
        if term.args:
            raise InputError(f"strategy {text!r}: arguments must be named, as in adapter(rank=2)")
        function, keywords = term.func, term.keywords
    name = ast.unparse(function)
    if name not in COMPONENTS:
        if name in SCHEMES:
            raise InputError(f"strategy {text!r}: the scheme {name!r} stands alone; it is {SCHEMES[name]!r}")
        raise InputError(f"unknown strategy {name!r}; {nearest_name(name, [*COMPONENTS, *SCHEMES])}")
    cls = COMPONENTS[name]
    known = list(inspect.signature(cls).parameters)
    arguments = {}
    for keyword in keywords:
        if keyword.arg not in known:
            hint = nearest_name(str(keyword.arg), known) if known else "it takes none"
            raise InputError(f"strategy {name!r} has no argument {keyword.arg!r}; {hint}")
        try:
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            raise InputError(f"strategy {name!r}: {keyword.arg} must be a plain value") from None
    return cls(**arguments)
