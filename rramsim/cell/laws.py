"""Laws of programming error: target level and a standard normal deviate to conductance.

The deviate is e = sqrt(f) e_cell + sqrt(1 - f) e_write: e_cell belongs to the cell for
life (device-to-device) and is the same for all levels, e_write is drawn at every write
(cycle-to-cycle); f is `fixed_fraction`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.cell.levels import LevelScale
from rramsim.checks import InputError, nearest_name

if TYPE_CHECKING:
    from rramsim.cell.config import CellsConfig

__all__ = [
    "EmpiricalLaw",
    "ErrorLaw",
    "LognormalLaw",
    "NormalLaw",
    "error_law",
    "polynomial",
    "register_error_law",
]

G_TOP = 1.3
"""Highest conductance an additive error may reach, as a multiple of g_max."""


def polynomial(coefficients: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """Sum of c_i x^i."""
    return np.polynomial.polynomial.polyval(np.asarray(x, float), np.asarray(coefficients, float))


class ErrorLaw:
    """What a one-shot write makes of a target; subclass and register to add one.

    Attributes
    ----------
    scale : LevelScale
    sigma : ndarray, shape (n_levels,)
        Spread per level: [S], or of ln g where `multiplicative`.

    Examples
    --------
    >>> from rramsim.cell import CellsConfig, error_law
    >>> law = CellsConfig(law="lognormal", sigma=0.2).error_law()
    >>> isinstance(law, ErrorLaw)
    True
    """

    multiplicative: bool = False

    def __init__(self, scale: LevelScale, sigma: ArrayLike) -> None:
        self.scale = scale
        self.sigma = np.ascontiguousarray(np.broadcast_to(np.asarray(sigma, float), (scale.n_levels,)))
        if not (np.isfinite(self.sigma).all() and (self.sigma >= 0.0).all()):
            raise InputError(f"sigma must be finite and >= 0 at every level, got {self.sigma.tolist()}")

    @property
    def sigma_conductance(self) -> NDArray[np.float64]:
        """Standard deviation of the realised conductance per level [S], before clamping."""
        return self.sigma

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest conductance a write can leave [S]."""
        return 0.0, G_TOP * self.scale.g_max

    def realise(self, level: NDArray[np.integer], e: NDArray[np.float64]) -> NDArray[np.float64]:
        """Conductance [S] of cells asked for `level` whose deviate is `e` (same shape)."""
        return np.clip(self.scale.levels[level] + self.sigma[level] * e, *self.bounds)

    def misread(self, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability per level that the conductance lies outside (lower, upper) [S]."""
        from scipy.special import ndtr

        with np.errstate(divide="ignore", invalid="ignore"):
            low = np.where(self.sigma > 0, (lower - self.scale.levels) / self.sigma, -np.inf)
            high = np.where(self.sigma > 0, (upper - self.scale.levels) / self.sigma, np.inf)
        return ndtr(low) + ndtr(-high)


class NormalLaw(ErrorLaw):
    """G = G_t + sigma(level) e, clamped to [0, 1.3 g_max].

    Examples
    --------
    >>> import numpy as np
    >>> from rramsim.cell import CellsConfig
    >>> law = CellsConfig(law="additive", sigma=0.05, g_max=40e-6).error_law()
    >>> e = np.array([0.0, 1.0])
    >>> np.round(1e6 * law.realise(np.array([15, 15]), e), 1).tolist()
    [40.0, 42.0]
    """


class LognormalLaw(ErrorLaw):
    """G = G_t exp(s e - s^2/2): the mean is G_t, s is the std of ln G.

    Examples
    --------
    >>> import numpy as np
    >>> from rramsim.cell import CellsConfig
    >>> law = CellsConfig(law="lognormal", sigma=0.2, g_max=40e-6).error_law()
    >>> e = np.random.default_rng(0).standard_normal(100_000)
    >>> round(1e6 * float(law.realise(np.full(e.size, 15), e).mean()), 1)  # the mean is the target
    40.0
    """

    multiplicative = True

    @property
    def sigma_conductance(self) -> NDArray[np.float64]:
        return self.scale.levels * np.sqrt(np.expm1(self.sigma**2))

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, np.inf

    def realise(self, level: NDArray[np.integer], e: NDArray[np.float64]) -> NDArray[np.float64]:
        s = self.sigma[level]
        return self.scale.levels[level] * np.exp(s * e - 0.5 * s * s)

    def misread(self, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> NDArray[np.float64]:
        from scipy.special import ndtr

        centre = np.log(self.scale.levels) - 0.5 * self.sigma**2
        with np.errstate(divide="ignore", invalid="ignore"):
            low = np.where(self.sigma > 0, (np.log(lower) - centre) / self.sigma, -np.inf)
            high = np.where(self.sigma > 0, (np.log(upper) - centre) / self.sigma, np.inf)
        return ndtr(low) + ndtr(-high)


class EmpiricalLaw(ErrorLaw):
    """Measured distribution of each level: G is the quantile that e is of the normal distribution.

    `parameters` of [cells]: `probabilities` (n,), ascending in (0, 1), and `conductances`
    (n_levels, n) [S], the quantiles of each level. Between them G is linear in e; beyond them it is
    the outermost one.
    """

    def __init__(self, scale: LevelScale, probabilities: ArrayLike, conductances: ArrayLike) -> None:
        from scipy.special import ndtri

        p, g = np.asarray(probabilities, float), np.asarray(conductances, float)
        if p.ndim != 1 or len(p) < 2 or not (np.diff(p) > 0).all() or not (p[0] > 0.0 and p[-1] < 1.0):
            raise InputError("parameters.probabilities must ascend within (0, 1), two values at least")
        if g.shape != (scale.n_levels, len(p)):
            raise InputError(
                f"parameters.conductances must have shape ({scale.n_levels}, {len(p)}), got {g.shape}"
            )
        if not (np.isfinite(g).all() and (g >= 0.0).all() and (np.diff(g, axis=1) >= 0.0).all()):
            raise InputError("parameters.conductances must be finite, >= 0 and ascend along each level")
        self.deviates, self.conductances = ndtri(p), g
        nodes = np.linspace(-6.0, 6.0, 4001)
        weight = np.exp(-0.5 * nodes**2)
        table = np.stack([np.interp(nodes, self.deviates, row) for row in g])
        self.means = table @ weight / weight.sum()
        super().__init__(scale, np.sqrt((table - self.means[:, None]) ** 2 @ weight / weight.sum()))

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, float(self.conductances.max())

    def realise(self, level: NDArray[np.integer], e: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.empty(np.shape(level))
        for number in np.unique(level):
            chosen = level == number
            out[chosen] = np.interp(e[chosen], self.deviates, self.conductances[number])
        return out

    def misread(self, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> NDArray[np.float64]:
        from scipy.special import ndtr

        rate = np.zeros(self.scale.n_levels)
        for level, row in enumerate(self.conductances):
            steps = row + np.arange(len(row)) * 1e-15 * max(row[-1], 1e-15)  # equal quantiles: a step
            low, high = np.interp((lower[level], upper[level]), steps, self.deviates,
                                  left=-np.inf, right=np.inf)  # fmt: skip
            rate[level] = ndtr(low) + ndtr(-high)
        return rate


_LAWS: dict[str, Callable[[LevelScale, CellsConfig], ErrorLaw]] = {}


def register_error_law(name: str, make: Callable[[LevelScale, CellsConfig], ErrorLaw]) -> None:
    """Make `law = "name"` build its law by `make(scale, config)`.

    A law that only overrides `realise` works; `CellArray` then calls it with whole arrays.
    """
    if name in _LAWS:
        raise InputError(f"an error law named {name!r} exists already")
    _LAWS[name] = make


def error_law(scale: LevelScale, config: CellsConfig) -> ErrorLaw:
    """The registered law that `config.law` names."""
    if config.law not in _LAWS:
        raise InputError(f"law: unknown error law {config.law!r}; {nearest_name(config.law, _LAWS)}")
    return _LAWS[config.law](scale, config)


def _per_level(values: tuple[float, ...], name: str, scale: LevelScale) -> tuple[float, ...]:
    if len(values) not in (1, scale.n_levels):
        raise InputError(
            f"{name} must have 1 value or one per level ({scale.n_levels}), got {len(values)} values"
        )
    return values


def _sigma(config: CellsConfig, needs: str) -> float:
    if config.sigma is None:
        raise InputError(f"law {config.law!r} needs {needs} for n_levels = {config.n_levels}")
    return config.sigma


def _no_constants(config: CellsConfig) -> None:
    if config.parameters:
        raise InputError(f"law {config.law!r} has no constants of its own, got parameters")


def _lognormal(scale: LevelScale, config: CellsConfig) -> ErrorLaw:
    _no_constants(config)
    if config.sigma_levels is not None:
        return LognormalLaw(scale, _per_level(config.sigma_levels, "sigma_levels", scale))
    return LognormalLaw(scale, _sigma(config, "sigma or sigma_levels (std of ln G)"))


def _additive(scale: LevelScale, config: CellsConfig) -> ErrorLaw:
    _no_constants(config)
    return NormalLaw(scale, _sigma(config, "sigma (fraction of g_max)") * scale.g_max)


def _normal(scale: LevelScale, config: CellsConfig) -> ErrorLaw:
    _no_constants(config)
    if config.sigma_polynomial is not None:
        reference = config.g_polynomial or scale.g_max
        sigma = polynomial(config.sigma_polynomial, scale.levels / reference)
        if (sigma < 0.0).any():
            raise InputError(
                f"sigma_polynomial must be >= 0 at every level, got {sigma.min():g} S at "
                f"{scale.levels[sigma.argmin()]:g} S; is the window outside the range it was fitted to?"
            )
        return NormalLaw(scale, sigma)
    if config.sigma_conductance is not None:
        return NormalLaw(scale, _per_level(config.sigma_conductance, "sigma_conductance", scale))
    raise InputError("law 'normal' needs sigma_conductance or sigma_polynomial (both in siemens)")


def _empirical(scale: LevelScale, config: CellsConfig) -> ErrorLaw:
    parameters = config.parameters or {}
    known = ("probabilities", "conductances")
    for name in parameters:
        if name not in known:
            raise InputError(f"parameters.{name}: unknown key; {nearest_name(name, known)}")
    for name in known:
        if name not in parameters:
            raise InputError(f"law 'empirical' needs parameters.{name}")
    return EmpiricalLaw(scale, parameters["probabilities"], parameters["conductances"])


register_error_law("empirical", _empirical)
register_error_law("lognormal", _lognormal)
register_error_law("additive", _additive)
register_error_law("normal", _normal)
