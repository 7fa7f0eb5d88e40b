"""Laws of read disturbance.

A law answers two questions: with what weight does a read at another voltage count
(`weight`), and what is left of a cell after an equivalent stress time (`remaining`)?
A cell of conductance G under stress t ends at

    falling (negative polarity):  power law  G r(t), not below g_min;  others g_min + (G - g_min) r(t)
    rising (positive polarity):   g_max - (g_max - G) r(t)

The power law was published for low-resistance cells read with negative polarity; applying
it to intermediate levels, mirroring it for rising conductance, stopping it at g_min and
adding stress of different voltages are assumptions of this package.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.checks import InputError, nearest_name
from rramsim.kernels import cell as kernels

if TYPE_CHECKING:
    from rramsim.cell.config import DisturbConfig

__all__ = [
    "DisturbLaw",
    "DriftToMaximumLaw",
    "ExponentialLaw",
    "PowerLaw",
    "RangeWarning",
    "disturb_law",
    "register_disturb_law",
]


BOLTZMANN_EV = 8.617333262e-5
"""Boltzmann constant over elementary charge [V/K]."""


class RangeWarning(UserWarning):
    """A law is used outside the range it was given for."""


class DisturbLaw:
    """Interface of a law; subclass, give `defaults`, and register.

    Class attributes
    ----------------
    defaults : dict
        Names and default values of the law's constants (SI).
    polarity : {"negative", "positive"}
        Direction under `polarity = "default"`.
    v_valid : float
        Highest read voltage [V] for which the law was given.
    positive : tuple of str
        Constants that must be > 0; the others must be >= 0.
    depends_on_cycles : bool
        Whether `weight` does; it then is tabulated over write counts.

    The shipped laws have a kernel; any law that overrides `remaining` is called with arrays,
    one word line at a time.
    """

    defaults: dict[str, float] = {}  # noqa: RUF012
    polarity = "negative"
    v_valid = np.inf
    depends_on_cycles = False
    positive: tuple[str, ...] = ()

    def __init__(self, *, v_read: float, t_read: float, **constants: float) -> None:
        for name in constants:
            if name not in self.defaults:
                raise InputError(f"parameters.{name}: unknown key; {nearest_name(name, self.defaults)}")
        self.v_read, self.t_read = v_read, t_read
        self.constants = {**self.defaults, **constants}
        for name, value in self.constants.items():
            above = name in self.positive
            if not (np.isfinite(value) and (value > 0.0 if above else value >= 0.0)):
                bound = "> 0" if above else ">= 0"
                raise InputError(f"parameters.{name} must be finite and {bound}, got {value:g}")

    def check_voltage(self, v: float) -> None:
        """Warn when |v| [V] leaves the law's range."""
        if v > self.v_valid * (1.0 + 1e-9):
            warnings.warn(
                f"read disturb law {type(self).__name__} holds for |V| <= {self.v_valid:g} V, "
                f"a read of {v:g} V extrapolates it",
                RangeWarning,
                stacklevel=3,
            )

    def check_cycles(self, n: float) -> None:
        """Warn when `n` SET/RESET cycles leave the law's range."""

    def weight(self, v: ArrayLike, n_cycles: ArrayLike) -> NDArray[np.float64]:
        """Stress of a read at |V| = v relative to one at `v_read`; 0 at v = 0. Broadcasts."""
        size = np.abs(np.asarray(v, float))
        return np.broadcast_to(size / self.v_read, np.broadcast_shapes(size.shape, np.shape(n_cycles)))

    def remaining(
        self, seconds: ArrayLike, n_cycles: ArrayLike, susceptibility: ArrayLike = 1.0
    ) -> NDArray[np.float64]:
        """Fraction r of the conductance (or of the distance to the end state) that is left."""
        raise TypeError(f"{type(self).__name__} must define remaining(seconds, n_cycles, susceptibility)")

    @property
    def sigma_susceptibility(self) -> float:
        """Std of ln(susceptibility) from cell to cell; its mean is 1."""
        return self.constants.get("sigma_susceptibility", 0.0)


class PowerLaw(DisturbLaw):
    """G(t)/G0 = min(1, (t/t_t)^-p), p = c1 exp(a |V| q / (k T)), t_t = t0 [b (1 - k N^m)]^(1/p).

    Jiang et al., "An Analytical Model of Read-Disturb Failure Time in a Post-Cycling
    Resistive Switching Memory", IEEE document 9580480; constants as in the source code of
    rpelke/analog-cim-sim (read_disturb.cpp, commit 68e3bdc). N counts SET/RESET cycles.
    """

    defaults = {  # noqa: RUF012
        "c1": 0.0068,
        "a": 0.11,
        "temperature": 300.0,  # [K]
        "t0": 15.5e-9,  # [s]
        "b": 1.43339,
        "k": 0.003,
        "m": 0.41,
        "sigma_susceptibility": 0.0,
    }
    # highest voltage at which reference values of the law are at hand; see docs/cells.md
    v_valid = 0.5
    depends_on_cycles = True
    positive = ("c1", "temperature", "t0", "b", "m")

    def exponent(self, v: ArrayLike) -> NDArray[np.float64]:
        """p at |V| = v."""
        return self.constants["c1"] * np.exp(self.slope * np.abs(np.asarray(v, float)))

    @property
    def slope(self) -> float:
        """d ln p / d|V| = a q / (k T) [1/V]."""
        return self.constants["a"] / (BOLTZMANN_EV * self.constants["temperature"])

    @property
    def n_limit(self) -> float:
        """Cycles at which the law ceases to be defined, k N^m = 1."""
        k = self.constants["k"]
        return (1.0 / k) ** (1.0 / self.constants["m"]) if k > 0.0 else np.inf

    def check_cycles(self, n: float) -> None:
        if n >= self.n_limit:
            warnings.warn(
                f"read disturb law PowerLaw holds for fewer than {self.n_limit:.3g} SET/RESET cycles, "
                f"got {n:g}; its value at the end of that range is used",
                RangeWarning,
                stacklevel=3,
            )

    def log_bracket(self, n_cycles: ArrayLike) -> NDArray[np.float64]:
        """ln[b (1 - k N^m)], kept finite at the end of the range."""
        c = self.constants
        n = np.asarray(n_cycles, float)
        return np.log(c["b"] * np.maximum(1.0 - c["k"] * n ** c["m"], 1e-6))

    def onset(self, v: ArrayLike, n_cycles: ArrayLike) -> NDArray[np.float64]:
        """t_t [s]: stress time at |V| = v before conductance begins to change."""
        return self.constants["t0"] * np.exp(self.log_bracket(n_cycles) / self.exponent(v))

    def weight(self, v: ArrayLike, n_cycles: ArrayLike) -> NDArray[np.float64]:
        volts = np.asarray(v, float)
        # past the cycles where the bracket reaches 1, t_t no longer orders with voltage
        bracket = np.maximum(self.log_bracket(n_cycles), 0.0)
        exponent = bracket * (1.0 / self.exponent(self.v_read) - 1.0 / self.exponent(volts))
        return np.where(volts == 0.0, 0.0, np.exp(exponent))

    def remaining(
        self, seconds: ArrayLike, n_cycles: ArrayLike, susceptibility: ArrayLike = 1.0
    ) -> NDArray[np.float64]:
        t = np.asarray(seconds, float) * susceptibility
        with np.errstate(divide="ignore"):
            log_r = self.log_bracket(n_cycles) - self.exponent(self.v_read) * np.log(t / self.constants["t0"])
        return np.exp(np.minimum(log_r, 0.0))


class ExponentialLaw(DisturbLaw):
    """r = exp(-s t / tau): the cell saturates at the end of the window.

    A read at V counts with sinh(|V|/v_scale) / sinh(v_read/v_scale), or |V|/v_read where
    `v_scale` is 0. `s` is the cell's susceptibility, lognormal with mean 1.
    """

    defaults = {"tau": 1.0, "v_scale": 0.0, "sigma_susceptibility": 0.0}  # noqa: RUF012  [s], [V], -
    positive: tuple[str, ...] = ("tau",)

    @property
    def tau(self) -> float:
        return self.constants["tau"]

    def weight(self, v: ArrayLike, n_cycles: ArrayLike) -> NDArray[np.float64]:
        v_scale = self.constants.get("v_scale", 0.0)
        if v_scale == 0.0:
            return super().weight(v, n_cycles)
        ratio = np.sinh(np.abs(np.asarray(v, float)) / v_scale) / np.sinh(self.v_read / v_scale)
        return np.broadcast_to(ratio, np.broadcast_shapes(ratio.shape, np.shape(n_cycles)))

    def remaining(
        self, seconds: ArrayLike, n_cycles: ArrayLike, susceptibility: ArrayLike = 1.0
    ) -> NDArray[np.float64]:
        return np.exp(-np.asarray(seconds, float) * susceptibility / self.tau)


class DriftToMaximumLaw(ExponentialLaw):
    """g <- g_max - (g_max - g) exp(-rate s) per period, s lognormal with ln-std 1 and mean 1.

    `period` is the stress time [s] that makes one period; the default is 1e6 reads of 100 ns.
    """

    defaults = {"rate": 0.05, "period": 0.1, "sigma_susceptibility": 1.0}  # noqa: RUF012
    polarity = "positive"
    positive = ("rate", "period")

    @property
    def tau(self) -> float:
        return self.constants["period"] / self.constants["rate"]


def kernel_kind(law: DisturbLaw | None) -> int:
    """Kernel that evaluates `law`; `DISTURB_TABLE` calls its `remaining` with arrays."""
    if law is None:
        return kernels.DISTURB_OFF
    kinds = {
        PowerLaw.remaining: kernels.DISTURB_POWER,
        ExponentialLaw.remaining: kernels.DISTURB_EXPONENTIAL,
    }
    return kinds.get(type(law).remaining, kernels.DISTURB_TABLE)


_LAWS: dict[str, Callable[..., Any]] = {}


def register_disturb_law(name: str, make: Callable[..., DisturbLaw]) -> None:
    """Make `law = "name"` build its law by `make(v_read=, t_read=, **parameters)`."""
    if name in _LAWS or name == "none":
        raise InputError(f"a disturb law named {name!r} exists already")
    _LAWS[name] = make


def disturb_law(config: DisturbConfig) -> DisturbLaw | None:
    """The registered law that `config.law` names; None for "none"."""
    if config.law == "none":
        if config.parameters:
            raise InputError("disturb.parameters needs a disturb law: set disturb.law")
        return None
    if config.law not in _LAWS:
        raise InputError(
            f"law: unknown disturb law {config.law!r}; {nearest_name(config.law, ['none', *_LAWS])}"
        )
    law = _LAWS[config.law](v_read=config.v_read, t_read=config.t_read, **config.parameters)
    law.check_voltage(config.v_read)
    law.check_cycles(config.cycles_before)
    return law


register_disturb_law("power", PowerLaw)
register_disturb_law("exponential", ExponentialLaw)
register_disturb_law("drift", DriftToMaximumLaw)
