"""Operators that act on every element alone: activations, arithmetic, comparisons.

Each is a function (node, inputs, reuse) -> array, defined as in ONNX; see `operators`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rramsim.network.node import Node

__all__ = ["ELEMENTWISE"]

Array = NDArray[Any]
Operator = Callable[["Node", list[Array], bool], Array]


def _unary(function: Callable[[Array, Node], Array]) -> Operator:
    return lambda node, xs, reuse: function(xs[0], node).astype(xs[0].dtype, copy=False)


def _binary(ufunc: Callable[..., Array]) -> Operator:
    def apply(node: Node, xs: list[Array], reuse: bool) -> Array:
        a, b = xs
        fits = reuse and np.broadcast_shapes(a.shape, b.shape) == a.shape and a.dtype == b.dtype
        return ufunc(a, b, out=a if fits else None)

    return apply


def _compare(ufunc: Callable[..., Array]) -> Operator:
    return lambda node, xs, reuse: ufunc(*xs)


def _variadic(ufunc: Callable[..., Array]) -> Operator:
    return lambda node, xs, reuse: functools.reduce(ufunc, xs[1:], xs[0].copy() if len(xs) == 1 else xs[0])


def _mean(node: Node, xs: list[Array], reuse: bool) -> Array:
    return functools.reduce(np.add, xs[1:], xs[0]) / np.float32(len(xs))


def _divide(node: Node, xs: list[Array], reuse: bool) -> Array:
    if xs[0].dtype.kind in "iu":
        return np.trunc(xs[0] / xs[1]).astype(xs[0].dtype)  # ONNX: integers round towards zero
    return xs[0] / xs[1]


def _mod(node: Node, xs: list[Array], reuse: bool) -> Array:
    return (np.fmod if node.attributes.get("fmod", 0) else np.mod)(*xs)


def _relu(node: Node, xs: list[Array], reuse: bool) -> Array:
    return np.maximum(xs[0], 0, out=xs[0] if reuse else None)


def _clip(node: Node, xs: list[Array], reuse: bool) -> Array:
    low, high = node.attributes.get("min"), node.attributes.get("max")
    if low is None and high is None:
        return xs[0].copy()  # nodes after it may overwrite its output
    return np.clip(xs[0], low, high, out=xs[0] if reuse else None)


def _prelu(node: Node, xs: list[Array], reuse: bool) -> Array:
    return np.where(xs[0] < 0, xs[0] * xs[1], xs[0])


def _erf(x: Array) -> Array:
    from scipy.special import erf

    return erf(x)


def _sigmoid(x: Array) -> Array:
    from scipy.special import expit

    return expit(x)


def _gelu(x: Array, node: Node) -> Array:
    if node.attributes.get("approximate", "none") == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _hard_sigmoid(x: Array, node: Node) -> Array:
    return np.clip(x * node.attributes.get("alpha", 0.2) + node.attributes.get("beta", 0.5), 0, 1)


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, np.zeros((), dtype=x.dtype))


def _exponential_unit(x: Array, alpha: float, slope: float = 1.0, width: float = 1.0) -> Array:
    """`slope` times x above 0 and alpha * (exp(x / width) - 1) below."""
    return slope * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / width))


def _selu(x: Array, node: Node) -> Array:
    alpha = node.attributes.get("alpha", 1.67326319217681884765625)
    return _exponential_unit(x, alpha, slope=node.attributes.get("gamma", 1.05070102214813232421875))


def _celu(x: Array, node: Node) -> Array:
    alpha = node.attributes.get("alpha", 1.0)
    return _exponential_unit(x, alpha, width=alpha)


ELEMENTWISE: dict[str, Operator] = {
    "Relu": _relu,
    "Clip": _clip,
    "PRelu": _prelu,
    "LeakyRelu": _unary(lambda x, n: np.where(x < 0, x * n.attributes.get("alpha", 0.01), x)),
    "ThresholdedRelu": _unary(lambda x, n: np.where(x > n.attributes.get("alpha", 1.0), x, 0)),
    "Elu": _unary(lambda x, n: _exponential_unit(x, n.attributes.get("alpha", 1.0))),
    "Selu": _unary(_selu),
    "Celu": _unary(_celu),
    "Sigmoid": _unary(lambda x, n: _sigmoid(x)),
    "HardSigmoid": _unary(_hard_sigmoid),
    "Swish": _unary(lambda x, n: x * _sigmoid(x * n.attributes.get("alpha", 1.0))),
    "HardSwish": _unary(lambda x, n: x * np.clip(x / 6 + 0.5, 0, 1)),
    "Mish": _unary(lambda x, n: x * np.tanh(_softplus(x))),
    "Softplus": _unary(lambda x, n: _softplus(x)),
    "Softsign": _unary(lambda x, n: x / (1 + np.abs(x))),
    "Gelu": _unary(_gelu),
    "Tanh": _unary(lambda x, n: np.tanh(x)),
    "Erf": _unary(lambda x, n: _erf(x)),
    "Sqrt": _unary(lambda x, n: np.sqrt(x)),
    "Exp": _unary(lambda x, n: np.exp(x)),
    "Log": _unary(lambda x, n: np.log(x)),
    "Abs": _unary(lambda x, n: np.abs(x)),
    "Sign": _unary(lambda x, n: np.sign(x)),
    "Sin": _unary(lambda x, n: np.sin(x)),
    "Cos": _unary(lambda x, n: np.cos(x)),
    "Floor": _unary(lambda x, n: np.floor(x)),
    "Ceil": _unary(lambda x, n: np.ceil(x)),
    "Round": _unary(lambda x, n: np.rint(x)),
    "Reciprocal": _unary(lambda x, n: 1 / x),
    "Neg": _unary(lambda x, n: -x),
    "Not": _unary(lambda x, n: np.logical_not(x)),
    "Add": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "Div": _divide,
    "Mod": _mod,
    "Pow": lambda node, xs, reuse: np.power(xs[0], xs[1]).astype(xs[0].dtype, copy=False),
    "Sum": _variadic(np.add),
    "Mean": _mean,
    "Max": _variadic(np.maximum),
    "Min": _variadic(np.minimum),
    "Equal": _compare(np.equal),
    "Greater": _compare(np.greater),
    "GreaterOrEqual": _compare(np.greater_equal),
    "Less": _compare(np.less),
    "LessOrEqual": _compare(np.less_equal),
    "And": _compare(np.logical_and),
    "Or": _compare(np.logical_or),
    "Xor": _compare(np.logical_xor),
    "Where": lambda node, xs, reuse: np.where(*xs),
}
