"""Laws of drift: conductance as a function of the time since the write.

A law turns the written conductance, the time since and a standard normal deviate e of the cell
into the present conductance. The deviate has a part that is fixed per cell for life and one
that is drawn at every write (`fixed_fraction`). The shipped laws run as kernels; a law of your
own is called with whole arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError, nearest_name
from rramsim.kernels import cell as kernels

if TYPE_CHECKING:
    from rramsim.cell.config import DriftConfig

__all__ = [
    "DriftLaw",
    "ExponentialDrift",
    "LogarithmicDrift",
    "PowerDrift",
    "TableDrift",
    "drift_law",
    "register_drift_law",
]


class DriftLaw:
    """Interface of a drift law; subclass, give `defaults`, and register.

    Class attributes
    ----------------
    defaults : dict
        Names and default values of the law's own constants (SI), set by `cells.drift.parameters`.

    Examples
    --------
    >>> import numpy as np
    >>> from rramsim.cell import CellArray, CellsConfig, DriftConfig
    >>> class Sagging(DriftLaw):
    ...     "G falls towards half of its value with the time constant tau."
    ...     defaults = {"tau": 100.0}
    ...     def conductance(self, g, seconds, e):
    ...         return g * (0.5 + 0.5 * np.exp(-seconds / self.constants["tau"]))
    >>> register_drift_law("sagging", Sagging)
    >>> drift = DriftConfig(law="sagging", parameters={"tau": 10.0})
    >>> cells = CellArray((1, 1), CellsConfig(law="additive", sigma=0.0, drift=drift))
    >>> _ = cells.write(np.array([[15]]))
    >>> before = float(cells.conductance[0, 0])
    >>> cells.wait(1e6)
    >>> round(float(cells.conductance[0, 0]) / before, 6)
    0.5
    """

    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: DriftConfig) -> None:
        given = config.parameters or {}
        for name in given:
            if name not in self.defaults:
                known = nearest_name(name, self.defaults) if self.defaults else "the law has no constants"
                raise InputError(f"drift.parameters.{name}: unknown key; {known}")
        self.config = config
        self.constants = {**self.defaults, **given}

    def conductance(
        self, g: NDArray[np.float64], seconds: NDArray[np.float64], e: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Conductance [S], >= 0, `seconds` [s] after a write left `g` [S]; `e` is the cell's deviate.

        All arrays have one shape.
        """
        raise TypeError(f"{type(self).__name__} must define conductance(g, seconds, e)")


def _polynomial(coefficients: tuple[float, ...], x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.polynomial.polynomial.polyval(x, np.array(coefficients or (0.0,)))


class ExponentialDrift(DriftLaw):
    """G + (1 - exp(-t/t_reference)) (mean(G) + sigma(G) e)."""

    def conductance(self, g: Any, seconds: Any, e: Any) -> NDArray[np.float64]:
        c, x = self.config, np.asarray(g, float) / self.config.g_reference
        grown = -np.expm1(-np.asarray(seconds, float) / c.t_reference)
        spread = np.maximum(_polynomial(c.sigma_polynomial, x), 0.0)
        return np.maximum(g + grown * (_polynomial(c.mean_polynomial, x) + spread * e), 0.0)


class LogarithmicDrift(DriftLaw):
    """G + x mean(G) + (sigma_offset(G) + x sigma(G)) e with x = ln(t/t_reference), from t_reference on."""

    def conductance(self, g: Any, seconds: Any, e: Any) -> NDArray[np.float64]:
        c, x = self.config, np.asarray(g, float) / self.config.g_reference
        late = np.asarray(seconds, float) > c.t_reference
        grown = np.log(np.where(late, seconds, c.t_reference) / c.t_reference)
        spread = np.maximum(_polynomial(c.sigma_offset, x) + _polynomial(c.sigma_polynomial, x) * grown, 0.0)
        change = grown * _polynomial(c.mean_polynomial, x) + spread * e
        return np.where(late, np.maximum(g + change, 0.0), g)


class PowerDrift(DriftLaw):
    """G (t/t_reference)^-(mean(G) + sigma(G) e) from t_reference on; the exponents have no unit."""

    def conductance(self, g: Any, seconds: Any, e: Any) -> NDArray[np.float64]:
        c, x = self.config, np.asarray(g, float) / self.config.g_reference
        late = np.asarray(seconds, float) > c.t_reference
        nu = _polynomial(c.mean_polynomial, x) + np.maximum(_polynomial(c.sigma_polynomial, x), 0.0) * e
        return np.where(late, g * (np.where(late, seconds, c.t_reference) / c.t_reference) ** -nu, g)


class TableDrift(DriftLaw):
    """G + mean(G, t) + sigma(G, t) e, read off tables over conductance and time.

    `parameters` of [cells.drift]: `times` (n_t,) [s], `conductances` (n_g,) [S], `means` and `sigmas`
    (n_g, n_t) [S]. Linear in G and in ln t between the nodes, constant beyond them; before the first
    time the change grows linearly in t.
    """

    defaults: ClassVar[dict[str, Any]] = {"times": None, "conductances": None, "means": None, "sigmas": None}

    def __init__(self, config: DriftConfig) -> None:
        super().__init__(config)
        for name, value in self.constants.items():
            if value is None:
                raise InputError(f"drift law 'table' needs drift.parameters.{name}")
        self.times, self.nodes = (np.asarray(self.constants[n], float) for n in ("times", "conductances"))
        for name, axis in (("times", self.times), ("conductances", self.nodes)):
            if axis.ndim != 1 or len(axis) < 1 or not (axis > 0).all() or not (np.diff(axis) > 0).all():
                raise InputError(f"drift.parameters.{name} must be positive and ascend")
        self.means, self.sigmas = (np.asarray(self.constants[n], float) for n in ("means", "sigmas"))
        for name, table in (("means", self.means), ("sigmas", self.sigmas)):
            if table.shape != (len(self.nodes), len(self.times)) or not np.isfinite(table).all():
                raise InputError(
                    f"drift.parameters.{name} must be finite, of shape (conductances, times) = "
                    f"({len(self.nodes)}, {len(self.times)}), got {table.shape}"
                )

    def conductance(self, g: Any, seconds: Any, e: Any) -> NDArray[np.float64]:
        g, seconds = np.asarray(g, float), np.asarray(seconds, float)
        # place on both axes: lower node and share of the upper one
        x = np.interp(g, self.nodes, np.arange(len(self.nodes)))
        log_t = np.log(np.maximum(seconds, self.times[0]) / self.times[0])
        y = np.interp(log_t, np.log(self.times / self.times[0]), np.arange(len(self.times)))
        i, j = (
            np.minimum(x.astype(int), max(len(self.nodes) - 2, 0)),
            np.minimum(y.astype(int), max(len(self.times) - 2, 0)),
        )
        u, w = x - i, y - j
        up, on = np.minimum(i + 1, len(self.nodes) - 1), np.minimum(j + 1, len(self.times) - 1)

        def at(table: NDArray[np.float64]) -> NDArray[np.float64]:
            low = (1.0 - u) * table[i, j] + u * table[up, j]
            return (1.0 - w) * low + w * ((1.0 - u) * table[i, on] + u * table[up, on])

        begun = np.minimum(seconds / self.times[0], 1.0)
        return np.maximum(g + begun * (at(self.means) + at(self.sigmas) * e), 0.0)


_KERNELS: dict[Any, int] = {
    ExponentialDrift.conductance: kernels.DRIFT_EXPONENTIAL,
    LogarithmicDrift.conductance: kernels.DRIFT_LOGARITHMIC,
    PowerDrift.conductance: kernels.DRIFT_POWER,
}
_LAWS: dict[str, Callable[[DriftConfig], DriftLaw]] = {}


def kernel_kind(law: DriftLaw | None) -> int | None:
    """Kernel that evaluates `law`; None for a law that is called with arrays."""
    return kernels.DRIFT_OFF if law is None else _KERNELS.get(type(law).conductance)


def register_drift_law(name: str, make: Callable[[DriftConfig], DriftLaw]) -> None:
    """Make `law = "name"` in [cells.drift] build its law by `make(config)`."""
    if name in _LAWS or name == "none":
        raise InputError(f"a drift law named {name!r} exists already")
    _LAWS[name] = make


def drift_law(config: DriftConfig) -> DriftLaw | None:
    """The registered law that `config.law` names; None for "none"."""
    if config.law == "none":
        if config.parameters:
            raise InputError("drift.parameters needs a drift law: set drift.law")
        return None
    if config.law not in _LAWS:
        known = ("none", *_LAWS)
        raise InputError(
            f"drift law must be one of {', '.join(known)}, got {config.law!r}; "
            f"{nearest_name(config.law, known)}"
        )
    return _LAWS[config.law](config)


register_drift_law("exponential", ExponentialDrift)
register_drift_law("logarithmic", LogarithmicDrift)
register_drift_law("power", PowerDrift)
register_drift_law("table", TableDrift)
