"""Recurrent layers, step by step: LSTM, GRU and RNN as matrix products that a chip can hold.

A recurrent operator becomes one product with the input matrix for all steps, and one product with the
recurrent matrix per step; those of a direction share one array (`Node.attributes["shares"]`), which a chip
reads once per step. Everything else, gates and states, is elementwise and stays at the host. The first step
of a zero state needs no product. Definitions and the order of gates are those of ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError
from rramsim.network.node import Node

__all__ = ["KINDS", "Unrolled"]

KINDS = {"LSTM": 4, "GRU": 3, "RNN": 1}  # gates
ACTIVATIONS = {
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "GRU": ("Sigmoid", "Tanh"),
    "RNN": ("Tanh",),
}
KNOWN_ACTIVATIONS = ("Elu", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Softplus", "Softsign", "Tanh")


class Unrolled:
    """The nodes of one recurrent operator.

    Parameters
    ----------
    kind : str
        "LSTM", "GRU" or "RNN".
    name : str
        Prefix of all nodes' names.
    x : str
        Tensor of shape (n, n_steps, n_inputs): examples first.
    n_steps : int
    w, r, b : ndarray or None
        As in ONNX: (n_directions, n_gates * n_hidden, n_inputs or n_hidden), (n_directions, 2 * ...).
    h0, c0 : str or None
        Tensors of initial states (n_directions, n, n_hidden); zero without.
    attributes : mapping
        Of the ONNX operator.

    Attributes
    ----------
    nodes : list of Node
    y, y_h, y_c : str
        Outputs (n_steps, n_directions, n, n_hidden) and (n_directions, n, n_hidden), as ONNX has them with
        `layout` 0.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        x: str,
        n_steps: int,
        w: NDArray[np.float32],
        r: NDArray[np.float32],
        b: NDArray[np.float32] | None,
        attributes: Mapping[str, Any],
        h0: str | None = None,
        c0: str | None = None,
    ) -> None:
        self.kind, self.name, self.x, self.n_steps = kind, name, x, n_steps
        self.n_hidden, self.attributes = r.shape[2], attributes
        self.nodes: list[Node] = []
        direction = attributes.get("direction", "forward")
        directions = ("forward", "reverse") if direction == "bidirectional" else (direction,)
        if len(w) != len(directions):
            raise InputError(f"node {name!r}: direction {direction!r} needs {len(directions)} weights")
        hidden, last, cells = [], [], []
        for index, way in enumerate(directions):
            bias = np.zeros(2 * w.shape[1], np.float32) if b is None else b[index].astype(np.float32)
            states, cell = self._direction(index, way, w[index], r[index], bias, h0, c0)
            hidden.append(states)
            last.append(states[0 if way == "reverse" else -1])
            cells.append(cell)
        self._made(hidden, last, cells)

    def _add(self, label: str, op: str, *inputs: str, **more: Any) -> str:
        attributes, parameters = more.pop("attributes", {}), more.pop("parameters", {})
        node = Node(f"{self.name}:{label}", op, inputs, attributes, parameters)
        self.nodes.append(node)
        return node.name

    def _constant(self, label: str, value: Any) -> str:
        return self._add(label, "Constant", parameters={"value": np.asarray(value)})

    def _activations(self, index: int) -> tuple[tuple[str, dict[str, float]], ...]:
        defaults = ACTIVATIONS[self.kind]
        given = [str(entry) for entry in self.attributes.get("activations", defaults * 2)]
        mine = given[index * len(defaults) : (index + 1) * len(defaults)] or given[: len(defaults)]
        chosen: list[tuple[str, dict[str, float]]] = []
        for entry in mine:
            match = next((known for known in KNOWN_ACTIVATIONS if known.lower() == entry.lower()), None)
            if match is None or "activation_alpha" in self.attributes or "activation_beta" in self.attributes:
                raise InputError(f"node {self.name!r}: activation {entry!r} with parameters is not supported")
            chosen.append((match, {}))
        return tuple(chosen)

    def _direction(
        self,
        index: int,
        way: str,
        w: NDArray[np.float32],
        r: NDArray[np.float32],
        bias: NDArray[np.float32],
        h0: str | None,
        c0: str | None,
    ) -> tuple[list[str], str]:
        """States of all steps in the order of time, and the last cell state (or hidden state)."""
        tag = way
        of_input, of_state = np.split(bias, 2)
        separate = self.kind == "GRU" and bool(self.attributes.get("linear_before_reset", 0))
        if not separate:  # one bias does
            of_input, of_state = of_input + of_state, np.zeros_like(of_state)
        else:  # the candidate's recurrent bias is inside the reset
            h = self.n_hidden
            of_input[: 2 * h] += of_state[: 2 * h]
            of_state[: 2 * h] = 0.0
        parameters = {"weight": np.ascontiguousarray(w.T), "bias": of_input}
        self._projected = self._add(f"{tag}:input", "Gemm", self.x, parameters=parameters)
        self._recurrent: dict[str, Any] = {"weight": np.ascontiguousarray(r.T), "bias": of_state}
        self._owner: dict[int, str] = {}
        h = None if h0 is None else self._state(f"{tag}:h0", h0, index)
        c = None if c0 is None else self._state(f"{tag}:c0", c0, index)
        step = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.kind]
        functions = self._activations(index)
        states: list[str] = [""] * self.n_steps
        times = range(self.n_steps) if way == "forward" else range(self.n_steps - 1, -1, -1)
        for time in times:
            label = f"{tag}:step{time}"
            where = self._constant(f"{label}:time", np.int64(time))
            drive = self._add(f"{label}:drive", "Gather", self._projected, where, attributes={"axis": 1})
            h, c = step(label, drive, h, c, functions)
            states[time] = h
        assert h is not None
        return states, c or h

    def _state(self, label: str, source: str, index: int) -> str:
        where = self._constant(f"{label}:direction", np.int64(index))
        return self._add(label, "Gather", source, where, attributes={"axis": 0})

    def _product(self, label: str, h: str, part: slice = slice(None)) -> str:
        """The state times the recurrent matrix, or some of its columns; each part is one array."""
        key = part.start or 0
        owner = self._owner.setdefault(key, f"{self.name}:{label}")
        attributes = {} if owner == f"{self.name}:{label}" else {"shares": owner}
        parameters = {
            "weight": np.ascontiguousarray(self._recurrent["weight"][:, part]),
            "bias": self._recurrent["bias"][part],
        }
        return self._add(label, "Gemm", h, attributes=attributes, parameters=parameters)

    def _gate(self, label: str, total: str, index: int, count: int, function: tuple[str, Any]) -> str:
        attributes = {"axis": -1, "num_outputs": count, "output": index}
        part = self._add(f"{label}:part", "Split", total, attributes=attributes) if count > 1 else total
        return self._add(label, function[0], part, attributes=dict(function[1]))

    def _lstm(self, label: str, drive: str, h: str | None, c: str | None, functions: Any) -> tuple[str, str]:
        f, g, out = functions
        total = drive
        if h is not None:
            total = self._add(f"{label}:sum", "Add", drive, self._product(f"{label}:state", h))
        gates = {
            gate: self._gate(f"{label}:{gate}", total, index, 4, g if gate == "candidate" else f)
            for index, gate in enumerate(("input", "output", "forget", "candidate"))
        }
        new = self._add(f"{label}:new", "Mul", gates["input"], gates["candidate"])
        if c is not None:
            kept = self._add(f"{label}:kept", "Mul", gates["forget"], c)
            new = self._add(f"{label}:cell", "Add", new, kept)
        squashed = self._add(f"{label}:squashed", out[0], new, attributes=dict(out[1]))
        return self._add(label, "Mul", gates["output"], squashed), new

    def _gru(self, label: str, drive: str, h: str | None, c: str | None, functions: Any) -> tuple[str, None]:
        f, g = functions
        n = self.n_hidden
        split = {"axis": -1, "num_outputs": 3}
        parts = [
            self._add(f"{label}:drive{k}", "Split", drive, attributes={**split, "output": k})
            for k in range(3)
        ]
        linear = bool(self.attributes.get("linear_before_reset", 0))
        if h is None:
            z = self._add(f"{label}:update", f[0], parts[0], attributes=dict(f[1]))
            candidate = parts[2]
            if linear and self._recurrent["bias"][2 * n :].any():
                reset = self._add(f"{label}:reset", f[0], parts[1], attributes=dict(f[1]))
                shift = self._constant(f"{label}:shift", self._recurrent["bias"][2 * n :])
                shift = self._add(f"{label}:shifted", "Mul", reset, shift)
                candidate = self._add(f"{label}:sum", "Add", candidate, shift)
            candidate = self._add(f"{label}:candidate", g[0], candidate, attributes=dict(g[1]))
            one = self._constant(f"{label}:one", np.float32(1))
            return self._add(label, "Mul", self._add(f"{label}:rest", "Sub", one, z), candidate), None
        if linear:  # all three products of the same state: one read
            state = self._product(f"{label}:state", h)
            of_state = [
                self._add(f"{label}:state{k}", "Split", state, attributes={**split, "output": k})
                for k in range(3)
            ]
        else:
            both = self._product(f"{label}:state", h, slice(0, 2 * n))
            two = {"axis": -1, "num_outputs": 2}
            of_state = [
                self._add(f"{label}:state{k}", "Split", both, attributes={**two, "output": k})
                for k in range(2)
            ]
        z, reset = (
            self._add(
                f"{label}:{gate}",
                f[0],
                self._add(f"{label}:{gate}:sum", "Add", parts[k], of_state[k]),
                attributes=dict(f[1]),
            )
            for k, gate in enumerate(("update", "reset"))
        )
        if linear:
            memory = self._add(f"{label}:memory", "Mul", reset, of_state[2])
        else:
            gated = self._add(f"{label}:gated", "Mul", reset, h)
            memory = self._product(f"{label}:memory", gated, slice(2 * n, 3 * n))
        candidate = self._add(f"{label}:sum", "Add", parts[2], memory)
        candidate = self._add(f"{label}:candidate", g[0], candidate, attributes=dict(g[1]))
        # (1 - z) candidate + z h
        difference = self._add(f"{label}:difference", "Sub", h, candidate)
        turned = self._add(f"{label}:turned", "Mul", z, difference)
        return self._add(label, "Add", candidate, turned), None

    def _rnn(self, label: str, drive: str, h: str | None, c: str | None, functions: Any) -> tuple[str, None]:
        total = drive
        if h is not None:
            total = self._add(f"{label}:sum", "Add", drive, self._product(f"{label}:state", h))
        return self._gate(label, total, 0, 1, functions[0]), None

    def _made(self, hidden: list[list[str]], last: list[str], cells: list[str]) -> None:
        """Stack states as ONNX's outputs do."""

        def stacked(label: str, parts: list[str], axis: int) -> str:
            axes = self._constant(f"{label}:axis", np.array([axis], dtype=np.int64))
            wide = [
                self._add(f"{part[len(self.name) + 1 :]}:{label}", "Unsqueeze", part, axes) for part in parts
            ]
            return self._add(label, "Concat", *wide, attributes={"axis": axis})

        self.y_h = stacked("last", last, 0)
        self.y_c = stacked("cells", cells, 0)
        steps = [stacked(f"time{t}", [states[t] for states in hidden], 0) for t in range(self.n_steps)]
        self.y = stacked("all", steps, 0)
