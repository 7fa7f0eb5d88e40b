"""A trained network as a graph of layers, and its digital execution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError, nearest_name
from rramsim.network.inputs import Examples, NamedInputs, check_examples
from rramsim.network.node import Node
from rramsim.network.operators import MAPPED, OPERATORS, required_parameters
from rramsim.network.shaping import VIEWS

__all__ = ["Network", "execute"]

FORMATS: dict[str, Callable[..., Any]] = {}  # readers and writers, registered by `rramsim.network.formats`
LARGEST_INPUT = 1 << 26  # numbers of one example
PASS_NUMBERS = 1 << 20  # of the largest tensor in one pass: activations stay near the processor
PASS_IMAGES = 1024  # at most, in one pass


class Network:
    """Nodes in topological order from "input" to `output`.

    Parameters
    ----------
    nodes : sequence of Node
        Each after those it reads.
    input_shape : tuple of int
        Shape of one input without the batch axis, (c, h, w) for images.
    output : str
        Node whose output is the network's.
    name : str
    metadata : mapping
        Plain values kept with the network (data set, normalisation, accuracy...).
    input_dtype : dtype-like
        float32 for images; an integer type for tokens.
    more_inputs : mapping of str to (shape, dtype)
        Further inputs beside "input", such as a mask; shapes without the batch axis, which all share.

    Raises
    ------
    InputError
        Unknown operators, missing inputs or parameters, NaN weights, or shapes that do not fit;
        each names the node.

    Examples
    --------
    >>> import numpy as np
    >>> nodes = [
    ...     Node("fc", "MatMul", ("input",), {}, {"weight": np.eye(3, dtype=np.float32)}),
    ...     Node("relu", "Relu", ("fc",)),
    ... ]
    >>> network = Network(nodes, (3,), "relu")
    >>> network.run(np.array([[1.0, -2.0, 3.0]], np.float32)).tolist(), network.mapped
    ([[1.0, 0.0, 3.0]], ('fc',))
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        input_shape: Sequence[int],
        output: str,
        name: str = "network",
        metadata: Mapping[str, Any] | None = None,
        input_dtype: Any = np.float32,
        more_inputs: Mapping[str, tuple[Sequence[int], Any]] | None = None,
    ) -> None:
        self.input_shape = tuple(int(n) for n in input_shape)
        self.input_dtype = np.dtype(input_dtype)
        self.inputs: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "input": (self.input_shape, self.input_dtype)
        }
        _check_input_size(self.input_shape, "input")
        for extra, (shape, dtype) in (more_inputs or {}).items():
            if extra == "input":
                raise InputError("more_inputs must have names of their own, got 'input'")
            self.inputs[extra] = (tuple(int(n) for n in shape), np.dtype(dtype))
            _check_input_size(self.inputs[extra][0], extra)
        self.output = output
        self.name = name
        self.metadata = dict(metadata or {})
        self.nodes = tuple(_checked(node) for node in nodes)
        self._by_name: dict[str, Node] = {}
        self._sharing: dict[str, list[str]] = {}  # owner of weights: later nodes that use them too
        self._viewed: set[str] = set()  # tensors whose memory another tensor may share
        for node in self.nodes:
            self._link(node)
        if output not in self._by_name:
            raise InputError(
                f"output must name a node, got {output!r}; {nearest_name(output, self._by_name)}"
            )
        self._probe()

    def _link(self, node: Node) -> None:
        if node.name in self._by_name or node.name in self.inputs:
            raise InputError(f"node names must be unique and not those of inputs, got {node.name!r} twice")
        if "shares" in node.attributes:
            self._check_shared(node)
            self._sharing.setdefault(str(node.attributes["shares"]), []).append(node.name)
        for source in node.inputs:
            if source not in self.inputs and source not in self._by_name:
                raise InputError(f"node {node.name!r} reads {source!r}, which no earlier node makes")
        self._by_name[node.name] = node
        if node.op in VIEWS:
            self._viewed.update(node.inputs)

    def _check_shared(self, node: Node) -> None:
        """A node that uses another one's weights must be its twin in all that a chip holds."""
        owner = self._by_name.get(str(node.attributes["shares"]))
        same = owner is not None and "shares" not in owner.attributes and owner.op == node.op
        if same:
            assert owner is not None
            mine, theirs = ({**n.attributes, "shares": ""} for n in (node, owner))
            same = mine == theirs and set(node.parameters) == set(owner.parameters)
            same = same and all(np.array_equal(node.parameters[k], v) for k, v in owner.parameters.items())
        if not same:
            raise InputError(
                f"node {node.name!r} shares the weights of {node.attributes['shares']!r}, which must be an "
                "earlier node of the same operator, attributes and parameters"
            )

    def _probe(self) -> None:
        """Run one zero input, so that shapes that do not fit are found here and not later."""
        n = int(self.metadata.get("batch", 1))
        values = self.zeros(n)
        self.evaluate(values, self.output, keep="all")
        # constants, such as a table of embeddings, do not grow with the batch
        grown = [
            v.size // n for key, v in values.items() if key in self.inputs or self.node(key).op != "Constant"
        ]
        largest = max(1, *grown)
        # fixed by the network, so that bits do not depend on how a caller batches; some ONNX files fix it
        self.batch = int(self.metadata.get("batch", np.clip(PASS_NUMBERS // largest, 1, PASS_IMAGES)))

    @property
    def mapped(self) -> tuple[str, ...]:
        """Nodes that multiply by a constant matrix, in topological order: what a chip can hold.

        Nodes kept at the host by `with_digital` are left out.
        """
        kept = self.metadata.get("digital", ())
        return tuple(
            n.name for n in self.nodes if n.op in MAPPED and "weight" in n.parameters and n.name not in kept
        )

    def __repr__(self) -> str:
        n_weights = sum(int(node.parameters["weight"].size) for node in self._weighted())
        return (
            f"<Network {self.name!r}: {tuple(self.input_shape)} to {self.output!r}, {len(self.nodes)} nodes, "
            f"{len(self.mapped)} for the chip, {n_weights:,} weights>"
        )

    def __str__(self) -> str:
        return self.summary()

    def _weighted(self) -> list[Node]:
        """Nodes with weights of their own; shared ones count once."""
        return [n for n in self.nodes if "weight" in n.parameters and "shares" not in n.attributes]

    def summary(self) -> str:
        """A line for every node: operator, shape of its output for one example, weights, and where it runs.

        The tiles that it takes on a chip are printed by `rramsim info NETWORK`.

        Examples
        --------
        >>> from rramsim.datasets import load_teacher
        >>> print(load_teacher("cnn_digits").summary().splitlines()[2])
        conv1           Conv                 (8, 8, 8)             72  chip
        """
        values = self.zeros(n := int(self.metadata.get("batch", 1)))
        self.evaluate(values, self.output, keep="all")
        mapped, own = set(self.mapped), {node.name for node in self._weighted()}
        lines = [repr(self), f"{'node':<15} {'operator':<20} {'output':<15} {'weights':>8}  where"]
        for node in self.nodes:
            size = int(node.parameters["weight"].size) if "weight" in node.parameters else 0
            weights = f"{size:,}" if node.name in own else f"as {node.attributes['shares']}" if size else ""
            value = values.get(node.name)
            shape = "" if value is None else str(tuple(value.shape[1:]) if len(value) == n else value.shape)
            where = "chip" if node.name in mapped else ""
            lines.append(f"{node.name:<15} {node.op:<20} {shape:<15} {weights:>8}  {where}".rstrip())
        return "\n".join(lines)

    def with_digital(self, names: Iterable[str]) -> Network:
        """The same network with some of its mapped nodes computed at the host, exactly.

        First and last layers are often few weights and much of the loss: a cheap part to keep digital.

        Raises
        ------
        InputError
            For a name that is no mapped node, or if nothing would be left for the chip.
        """
        names = tuple(names)
        for name in names:
            if name not in self.mapped:
                raise InputError(f"digital: {name!r} is no mapped node; {nearest_name(name, self.mapped)}")
        if not set(self.mapped) - set(names):
            raise InputError("digital: at least one mapped node must stay on the chip")
        twin = object.__new__(Network)
        vars(twin).update(vars(self))
        twin.metadata = {**self.metadata, "digital": [*self.metadata.get("digital", ()), *names]}
        return twin

    @property
    def n_weights(self) -> int:
        """Weights of all mapped nodes; shared ones count once."""
        nodes = [self.node(name) for name in self.mapped]
        return sum(n.parameters["weight"].size for n in nodes if "shares" not in n.attributes)

    def uses(self, name: str) -> tuple[str, ...]:
        """A mapped node that owns its weights and all later ones that share them, in order."""
        return (name, *self._sharing.get(name, ()))

    def node(self, name: str) -> Node:
        """The node called `name`."""
        try:
            return self._by_name[name]
        except KeyError:
            raise InputError(f"no node {name!r}; {nearest_name(name, self._by_name)}") from None

    def replace(self, name: str, parameters: Mapping[str, NDArray[Any]]) -> Network:
        """A network with other parameters in one node; shapes must stay."""
        old = self.node(name)
        if "shares" in old.attributes or len(self.uses(name)) > 1:
            raise InputError(f"node {name!r} shares its weights with others: build a new Network instead")
        node = _checked(replace(old, parameters=dict(parameters)))
        shapes = {key: value.shape for key, value in node.parameters.items()}
        for key, value in old.parameters.items():
            if key in shapes and shapes[key] != value.shape:
                raise InputError(
                    f"parameter {key!r} of {name!r} must have shape {value.shape}, got {shapes[key]}"
                )
        twin = object.__new__(Network)
        vars(twin).update(vars(self))
        twin.nodes = tuple(node if entry.name == name else entry for entry in self.nodes)
        twin._by_name = {entry.name: entry for entry in twin.nodes}
        return twin

    # -- execution ----------------------------------------------------------------------------

    @property
    def more_inputs(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Inputs beside the first, as the parameter of this name."""
        return {name: entry for name, entry in self.inputs.items() if name != "input"}

    def zeros(self, n: int) -> dict[str, NDArray[Any]]:
        """Starting values of `n` examples of zeros."""
        return {name: np.zeros((n, *shape), dtype=dtype) for name, (shape, dtype) in self.inputs.items()}

    def checked(self, examples: Any, what: str = "images") -> Examples:
        """Examples in the form and number type this network takes, or `InputError`."""
        return check_examples(examples, self.inputs, what, str(self.metadata.get("input_name", "input")))

    def feed(self, examples: Any, what: str = "images") -> dict[str, NDArray[Any]]:
        """Starting values for `evaluate`: "input" and the other inputs by name."""
        examples = self.checked(examples, what)
        return dict(examples.arrays) if isinstance(examples, NamedInputs) else {"input": examples}

    def run(self, images: Any) -> NDArray[np.float32]:
        """Outputs for inputs of shape (n, *input_shape), or named arrays where there are several inputs."""
        examples = self.checked(images, "inputs")
        n = len(examples)
        n_missing = -n % self.batch if "batch" in self.metadata else 0
        if n_missing:  # the network takes whole batches only
            examples = examples[np.minimum(np.arange(n + n_missing), n - 1)]
        parts = [
            self.evaluate(self.feed(examples[i : i + self.batch]), self.output)
            for i in range(0, len(examples), self.batch)
        ]
        if n_missing:
            parts[-1] = parts[-1][: len(parts[-1]) - n_missing]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def evaluate(
        self,
        values: dict[str, NDArray[Any]],
        target: str,
        mapped: Callable[[Node, NDArray[Any]], NDArray[Any]] | None = None,
        keep: Iterable[str] | Literal["all"] = (),
    ) -> NDArray[Any]:
        """Compute one tensor from those already known.

        Parameters
        ----------
        values : dict
            Known tensors by name, at least the inputs (see `feed`); receives `target` and the kept ones.
        target : str
            Tensor to compute.
        mapped : callable, optional
            Takes the place of a mapped node's digital execution: (node, input) -> full output.
        keep : names or "all"
            Tensors to store in `values` when they are computed on the way.
        """
        if target in values:
            return values[target]
        for name, (_, dtype) in self.inputs.items():
            if name in values:  # token numbers may come as floats
                values[name] = values[name].astype(dtype, copy=False)
        needed = self._needed(values, target)
        kept = set(self._by_name) if keep == "all" else {*keep, target}
        on_chip = set(self.mapped) if mapped is not None else set()
        readers = dict.fromkeys(needed, 0)
        for name in needed:
            for source in self._by_name[name].inputs:
                if source in readers:
                    readers[source] += 1
        memo: dict[str, NDArray[Any]] = {}
        for node in self.nodes:
            if node.name not in readers:
                continue
            xs = [memo[s] if s in memo else values[s] for s in node.inputs]
            if mapped is not None and node.name in on_chip:
                result = mapped(node, xs[0])
            else:
                result = execute(node, xs, self._may_reuse(node, memo, readers, kept))
            for source in node.inputs:
                if source in readers:
                    readers[source] -= 1
                    if readers[source] == 0:
                        del memo[source]
            memo[node.name] = result
            if node.name in kept:
                values[node.name] = result
        return memo[target]

    def _needed(self, values: Mapping[str, Any], target: str) -> set[str]:
        needed, stack = set(), [target]
        while stack:
            name = stack.pop()
            if name in values or name in needed:
                continue
            if name in self.inputs:
                raise InputError(f"values must hold {name!r} or tensors that make it unnecessary")
            needed.add(name)
            stack.extend(self.node(name).inputs)
        return needed

    def _may_reuse(
        self, node: Node, memo: Mapping[str, Any], readers: Mapping[str, int], kept: set[str]
    ) -> bool:
        """Whether the first input is a temporary that nobody else reads (nor views)."""
        if not node.inputs:
            return False
        source = node.inputs[0]
        if source not in memo or readers[source] > node.inputs.count(source) or source in kept:
            return False
        shared = source in self._viewed or self._by_name[source].op in VIEWS
        return node.inputs.count(source) == 1 and not shared

    # -- transformation and storage -----------------------------------------------------------

    def fold_batch_norm(self) -> Network:
        """The same function with every batch norm that directly follows a mapped node folded into it."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for source in node.inputs:
                readers.setdefault(source, []).append(node)
        folded: dict[str, Node] = {}
        renamed: dict[str, str] = {}
        for node in self.nodes:
            followers = readers.get(node.name, [])
            fold = (
                node.name in self.mapped
                and node.name != self.output
                and len(followers) == 1
                and "left" not in node.attributes
                and "shares" not in node.attributes
                and len(self.uses(node.name)) == 1
                and followers[0].op == "BatchNormalization"
            )
            inputs = tuple(renamed.get(s, s) for s in node.inputs)
            if fold:
                renamed[followers[0].name] = node.name
                folded[node.name] = replace(node, inputs=inputs, parameters=_fold(node, followers[0]))
            elif node.name not in renamed:
                folded[node.name] = replace(node, inputs=inputs)
        output = renamed.get(self.output, self.output)
        return Network(
            list(folded.values()),
            self.input_shape,
            output,
            self.name,
            self.metadata,
            self.input_dtype,
            self.more_inputs,
        )

    def save(self, target: str | Path | Any) -> None:
        """Write weights and graph to an HDF5 file or into an open h5py group."""
        FORMATS["save"](self, target)

    @classmethod
    def from_onnx(
        cls,
        path: str | Path,
        *,
        fold_batch_norm: bool = False,
        input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    ) -> Network:
        """Read an ONNX file; see `rramsim.network.onnx.from_onnx`."""
        return FORMATS["from_onnx"](path, fold_batch_norm=fold_batch_norm, input_shape=input_shape)

    @classmethod
    def from_torch(cls, module: Any, example: Any, *, fold_batch_norm: bool = False) -> Network:
        """Convert a torch module; see `rramsim.network.torch.from_torch`."""
        return FORMATS["from_torch"](module, example, fold_batch_norm=fold_batch_norm)

    @classmethod
    def load(
        cls,
        source: str | Path | Any,
        *,
        input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    ) -> Network:
        """Read what `save` wrote, or an ONNX file (`.onnx`); `InputError` for anything else.

        `input_shape` is for ONNX files that leave it open, see `from_onnx`.
        """
        return FORMATS["load"](source, input_shape=input_shape)


def _check_input_size(shape: tuple[int, ...], name: str) -> None:
    if any(n < 1 for n in shape) or math.prod(shape) > LARGEST_INPUT:
        raise InputError(
            f"the shape of {name!r} must have positive sizes, at most {LARGEST_INPUT:,} numbers, got {shape}"
        )


def _checked(node: Node) -> Node:
    """The node with known operator, all parameters, and finite contiguous arrays."""
    if node.op not in OPERATORS:
        raise InputError(
            f"node {node.name!r}: operator {node.op!r} is not supported; {nearest_name(node.op, OPERATORS)}"
        )
    missing = [p for p in required_parameters(node.op) if p not in node.parameters]
    if missing:
        raise InputError(f"node {node.name!r} ({node.op}) needs the parameters {missing}")
    parameters = {}
    for key, value in node.parameters.items():
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        if array.dtype.kind == "f":
            array = array.astype(np.float32, copy=False)
            if not np.isfinite(array).all() and node.op != "Constant":
                raise InputError(f"node {node.name!r}: parameter {key!r} must be finite, it holds NaN or inf")
        parameters[key] = array
    return replace(node, inputs=tuple(node.inputs), parameters=parameters)


def execute(node: Node, xs: list[NDArray[Any]], reuse: bool = False) -> NDArray[Any]:
    """Output of one node in the digital network; `InputError` names it where its inputs do not fit."""
    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # ONNX: what IEEE 754 gives
            return np.asarray(OPERATORS[node.op](node, xs, reuse))  # NumPy answers 0-d arrays by scalars
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
        shapes = ", ".join(str(x.shape) for x in xs)
        weights = {key: value.shape for key, value in node.parameters.items()}
        raise InputError(
            f"node {node.name!r} ({node.op}) cannot take inputs of shape {shapes} "
            f"with parameters {weights}: {error}"
        ) from None


def _fold(node: Node, norm: Node) -> dict[str, NDArray[np.float32]]:
    p = norm.parameters
    factor = p["scale"] / np.sqrt(p["variance"] + norm.attributes.get("epsilon", 1e-5))
    weight = node.parameters["weight"]
    bias = node.parameters.get("bias", np.zeros_like(p["mean"]))
    scaled = weight * (factor.reshape(-1, *(1,) * (weight.ndim - 1)) if node.op == "Conv" else factor)
    return {"weight": scaled.astype(np.float32), "bias": ((bias - p["mean"]) * factor + p["bias"])}
