"""Settings of cells, faults and read disturbance: the tables [cells], [faults], [disturb].

Fields of `CellsConfig` left at None come from the preset named by `preset`, else from the
preset `generic`; after construction the object holds every number, so that an archive
that stores it needs no preset file. Long because every field is declared with unit, range and meaning.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rramsim.cell.disturb import disturb_law
from rramsim.cell.drift import drift_law
from rramsim.cell.laws import ErrorLaw, error_law
from rramsim.cell.levels import LevelScale
from rramsim.cell.presets import load_preset, preset_table
from rramsim.checks import InputError
from rramsim.config import check_settings, parse, setting, tables_of

__all__ = [
    "CellsConfig",
    "DisturbConfig",
    "DriftConfig",
    "EnduranceConfig",
    "FaultsConfig",
    "ProgrammingConfig",
    "ReadNoiseConfig",
    "RelaxationConfig",
    "TelegraphConfig",
]


OPEN: Any = None
"""Default of a field that a preset or a default fills after construction: never None for readers."""


BOLTZMANN = 1.380649e-23  # [J/K]


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _resolve(settings: Any, table: str, defaults: dict[str, Any]) -> None:
    """Fill open fields from the table of the preset, then from `defaults`."""
    if any(getattr(settings, name) is None for name in defaults):
        known = load_preset(settings.preset).tables.get(table) if settings.preset else {}
        _need(known is not None, f"preset {settings.preset!r} has no table [{table}]")
        for name, value in {**defaults, **(known or {})}.items():
            if getattr(settings, name) is None:
                object.__setattr__(settings, name, value)


# magnitudes met in practice: cells from picosiemens (tunnel junctions) to 10 mS, pulses from 100 ps to 10 s
_G = (1e-12, 1e-2)
_PULSE = (1e-10, 10.0)
_ANY = "(-inf, inf)"


@dataclass(frozen=True, kw_only=True)
class ProgrammingConfig:
    """How a level is written, and what a pulse costs.

    `one_shot` draws the realised conductance from the error law. `write_verify` pulses a
    cell until it is within `window` of its target; the error law then describes only the
    reset state, and what verify cannot hold is described by `[cells.relaxation]`.

    Examples
    --------
    >>> ProgrammingConfig(method="write_verify", window=0.5e-6, n_pulses_max=100).per_level
    False
    """

    method: str = setting("one_shot", "", "how a level is written", choices=("one_shot", "write_verify"))
    window: float = setting(
        1e-6, "S", "half-width of the acceptance window of write-verify", "(0, inf)", usual=_G
    )
    gain: float = setting(
        0.3, "1", "fraction of the remaining error that a pulse closes", "(0, 2)",
        hint="pulses diverge outside of it",
    )  # fmt: skip
    scatter: float = setting(0.3, "1", "std of a pulse's step relative to the step", "[0, inf)")
    scatter_floor: float = setting(0.0, "S", "std of a pulse's step, absolute", "[0, inf)", usual=_G)
    sigma_gain: float = setting(0.0, "1", "std of ln(gain) from cell to cell", "[0, inf)")
    n_pulses_max: int = setting(50, "1", "pulse budget of one write", "[1, 65535]")
    pulses_per_write: float = setting(
        1.0, "1", "pulses that one write by one_shot is charged with", "[0, inf)"
    )
    t_pulse: float = setting(1e-6, "s", "width of a programming pulse", "[0, inf)", usual=_PULSE)
    t_verify: float = setting(
        1e-6, "s", "read after each pulse (write_verify, or pulses_per_write > 1)", "[0, inf)", usual=_PULSE
    )
    window_low: tuple[float, ...] | None = setting(
        None, "S", "lowest accepted conductance of each level; replaces target - window", "[0, inf)"
    )
    window_high: tuple[float, ...] | None = setting(
        None, "S", "highest accepted conductance of each level; replaces target + window", "(0, inf]"
    )
    gain_levels: tuple[float, ...] | None = setting(
        None, "1", "gain of each level; replaces gain", "(0, 2)", hint="pulses diverge outside of it"
    )
    sigma_gain_levels: tuple[float, ...] | None = setting(
        None, "1", "std of ln(gain) of each level; replaces sigma_gain", "[0, inf)"
    )
    pulse_table: dict[str, Any] | None = setting(
        None, "", "measured pulses of a write: probabilities (n,) and pulses (n_levels, n), the quantiles"
    )
    final: str | None = setting(
        None, "", "where write_verify leaves a cell: as the pulse model does, or by the error law",
        choices=("pulses", "law"), default_text="pulses",
    )  # fmt: skip
    e_pulse: float | None = setting(
        None, "J", "energy of a pulse, where a source gives it", "[0, inf)", usual=(1e-18, 1e-3)
    )

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def per_level(self) -> bool:
        """Whether windows or gains differ between levels."""
        return any(v is not None for v in (self.window_low, self.window_high, self.gain_levels,
                                           self.sigma_gain_levels))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RelaxationConfig:
    """Sudden loss of precision right after the last pulse, in under a second.

    G += shift(G) + sigma(G) e, polynomials (lowest power first, [S]) in G / g_reference;
    e has the fixed part `fixed_fraction`, drawn apart from the programming error's.

    Examples
    --------
    >>> RelaxationConfig(sigma_polynomial=(1e-6,)).enabled
    True
    """

    shift_polynomial: tuple[float, ...] = setting(
        (), "S", "mean change, coefficients of G / g_reference, lowest power first", _ANY
    )
    sigma_polynomial: tuple[float, ...] = setting(
        (), "S", "std of the change, coefficients of G / g_reference, lowest power first", _ANY
    )
    g_reference: float = setting(1e-6, "S", "unit of the polynomials' argument", "(0, inf)")
    fixed_fraction: float = setting(0.5, "1", "share of the variance that is fixed per cell", "[0, 1]")

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def enabled(self) -> bool:
        return any(self.shift_polynomial) or any(self.sigma_polynomial)


@dataclass(frozen=True, kw_only=True)
class DriftConfig:
    """Retention: change of conductance with the time t since the write.

    exponential: G + (1 - exp(-t/t_reference)) (mean(G) + sigma(G) e)
    logarithmic: G + ln(t/t_reference) mean(G) + (sigma_offset(G) + ln(t/t_reference) sigma(G)) e
    power:       G (t/t_reference)^-(mean(G) + sigma(G) e), dimensionless exponents
    The last two begin at t_reference. Polynomials (lowest power first, [S]) in G / g_reference.
    Further laws are added by `rramsim.cell.register_drift_law`.

    Examples
    --------
    >>> DriftConfig(law="power", mean_polynomial=(0.05,), t_reference=1.0).law
    'power'
    """

    law: str = setting("none", "", "none, exponential, logarithmic, power, table or a registered law")
    t_reference: float = setting(1.0, "s", "time constant, or the time at which drift begins", "(0, inf)")
    mean_polynomial: tuple[float, ...] = setting(
        (), "S or 1", "mean of the change (power law: of the exponent) in G / g_reference", _ANY
    )
    sigma_polynomial: tuple[float, ...] = setting(
        (), "S or 1", "std of the change (power law: of the exponent) in G / g_reference", _ANY
    )
    sigma_offset: tuple[float, ...] = setting(
        (), "S", "part of the std that does not grow, in G / g_reference; logarithmic law only", _ANY
    )
    g_reference: float = setting(1e-6, "S", "unit of the polynomials' argument", "(0, inf)")
    fixed_fraction: float = setting(0.5, "1", "share of the variance that is fixed per cell", "[0, 1]")
    activation_energy: float = setting(
        0.0, "J", "Arrhenius: wait(t, kelvin=T) counts t exp(E/k (1/kelvin - 1/T)); 0: no temperature",
        "[0, 1e-18]", usual=(1e-21, 1e-18), hint="1 eV is 1.602e-19 J",
    )  # fmt: skip
    kelvin: float = setting(
        300.0, "K", "temperature at which the law's times hold", "[150, 2000]", usual=(200.0, 600.0)
    )
    parameters: dict[str, Any] | None = setting(None, "", "constants of a registered law")

    def __post_init__(self) -> None:
        check_settings(self)
        drift_law(self)

    def acceleration(self, kelvin: float) -> float:
        """Seconds at the law's own temperature that one second at `kelvin` [K] counts for (Arrhenius).

        Examples
        --------
        1 eV between 300 K and 398 K:

        >>> print(f"{DriftConfig(activation_energy=1.602176634e-19).acceleration(398.0):.4g}")
        1.369e+04
        """
        return math.exp(self.activation_energy / BOLTZMANN * (1.0 / self.kelvin - 1.0 / kelvin))


@dataclass(frozen=True, kw_only=True)
class ReadNoiseConfig:
    """Gaussian noise per cell and read: sigma^2 = polynomial(G)^2 + (relative G)^2 + grown^2.

    The grown part is that of `ReRamCMONoiseModel` of aihwkit:
    log_coefficient |log10(G / g_reference)| g_reference sqrt(ln((t + t_read) / (2 t_read))).

    Examples
    --------
    >>> ReadNoiseConfig(sigma_polynomial=(0.01,)).enabled
    True
    """

    sigma_polynomial: tuple[float, ...] = setting(
        (), "S", "std, coefficients of G / g_reference, lowest power first", _ANY
    )
    sigma_relative: float = setting(0.0, "1", "std as a fraction of G", "[0, inf)")
    log_coefficient: float = setting(0.0, "1", "strength of the part that grows with time", "[0, inf)")
    t_read: float = setting(1e-6, "s", "read time in the grown part", "(0, inf)", usual=_PULSE)
    g_reference: float = setting(1e-6, "S", "unit of the polynomial's argument", "(0, inf)")

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def enabled(self) -> bool:
        return any(self.sigma_polynomial) or self.sigma_relative > 0.0 or self.log_coefficient > 0.0


@dataclass(frozen=True, kw_only=True)
class TelegraphConfig:
    """Random telegraph noise: a trap lowers a cell's conductance while it holds an electron.

    A captured trap multiplies the resistance by 1 + amplitude(G), interpolated in ln G from
    `amplitude_low` at g_min to `amplitude_high` at g_max. With `lifetime` = 0 a trap
    switches faster than reads and counts as read noise of the same variance; else its state
    lasts and is redrawn with the correlation exp(-seconds/lifetime) as time passes.

    Examples
    --------
    >>> TelegraphConfig(fraction=0.1, amplitude_low=0.05, amplitude_high=0.2).lifetime
    0.0
    """

    fraction: float = setting(0.0, "1", "fraction of cells with an active trap", "[0, 1]")
    amplitude_low: float = setting(0.5, "1", "relative change of resistance at g_min", "[0, inf)")
    amplitude_high: float = setting(0.028, "1", "relative change of resistance at g_max", "[0, inf)")
    occupancy: float = setting(0.5, "1", "share of the time that the trap is captured", "[0, 1]")
    lifetime: float = setting(0.0, "s", "correlation time; 0: faster than reads", "[0, inf]")

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class EnduranceConfig:
    """Wear with write cycles n: x = min(1, (n/n_endurance)^exponent).

    The window loses `window_loss` x of g_max - g_min from above; errors grow by 1 + sigma_growth x.

    Examples
    --------
    >>> EnduranceConfig(n_endurance=1e6, window_loss=0.2).exponent
    1.0
    """

    n_endurance: float = setting(math.inf, "1", "write cycles of full wear; inf: no wear", "(0, inf]")
    exponent: float = setting(1.0, "1", "power of the number of cycles", "[0, inf)")
    window_loss: float = setting(0.0, "1", "share of g_max - g_min lost at n_endurance", "[0, 1)")
    sigma_growth: float = setting(0.0, "1", "relative growth of errors at n_endurance", "[0, inf)")
    cycles_before: int = setting(0, "1", "write cycles before delivery", "[0, inf)")

    def __post_init__(self) -> None:
        check_settings(self)


@preset_table("cells")
@dataclass(frozen=True, kw_only=True)
class CellsConfig:
    """Levels, programming error and everything after programming; the table [cells].

    Give either `g_min` or `on_off_ratio`; exactly one description of sigma is used:
    `sigma` (lognormal: std of ln G; additive: fraction of g_max), `sigma_levels` (lognormal,
    per level), `sigma_conductance` (normal, [S], one value or one per level) or
    `sigma_polynomial` (normal, [S], lowest power first in G / g_polynomial).

    Examples
    --------
    >>> cells = CellsConfig(n_levels=4, g_max=40e-6, on_off_ratio=40.0, sigma=0.1)
    >>> (1e6 * cells.scale.levels).round(1).tolist()
    [1.0, 14.0, 27.0, 40.0]
    """

    preset: str | None = setting(None, "", "name of a shipped preset, or the path of a TOML file")
    n_levels: int = setting(OPEN, "1", "number of levels of a cell", "[2, 65536]", default_text="16")
    g_max: float = setting(
        OPEN, "S", "highest programmed conductance", "[1e-18, 1e6]", usual=_G, default_text="4e-05"
    )
    g_min: float | None = setting(
        None, "S", "lowest programmed conductance", "[1e-18, 1e6]", usual=(1e-15, 1e-2),
        hint="were resistances given?",
    )  # fmt: skip
    on_off_ratio: float | None = setting(
        None, "1", "g_max / g_min", "[1.001, 1e12]", hint="it is a quotient of conductances",
        default_text="30",
    )  # fmt: skip
    spacing: str = setting(
        OPEN, "", "quantity in which levels are equally spaced: conductance or resistance",
        default_text="conductance",
    )  # fmt: skip
    levels: tuple[float, ...] | None = setting(
        None, "S", "explicit levels, ascending", "[1e-18, 1e6]", usual=(1e-15, 1e-2),
        hint="were resistances given?",
    )  # fmt: skip
    law: str = setting(
        OPEN, "", "programming error: lognormal, additive, normal, empirical or a registered law",
        default_text="lognormal",
    )  # fmt: skip
    sigma: float | None = setting(
        None, "1", "std of ln G (lognormal), or fraction of g_max (additive)", "[0, inf)", usual=(0.0, 5.0)
    )
    sigma_levels: tuple[float, ...] | None = setting(
        None, "1", "std of ln G, one value or one per level (lognormal)", "[0, inf)", usual=(0.0, 5.0)
    )
    sigma_conductance: tuple[float, ...] | None = setting(
        None, "S", "std of G, one value or one per level (normal)", "[0, inf)", usual=(1e-15, 1e-2)
    )
    sigma_polynomial: tuple[float, ...] | None = setting(
        None, "S", "std of G, coefficients of G / g_polynomial, lowest power first (normal)", _ANY
    )
    g_polynomial: float | None = setting(
        None, "S", "unit of the argument of sigma_polynomial", "(0, inf)", default_text="g_max"
    )
    parameters: dict[str, Any] | None = setting(None, "", "constants of a registered error law")
    fixed_fraction: float = setting(
        OPEN, "1", "share of the variance that is fixed per cell", "[0, 1]", default_text="0.5"
    )
    fixed_fraction_levels: tuple[float, ...] | None = setting(
        None, "1", "fixed share of the variance of each level; replaces fixed_fraction", "[0, 1]"
    )
    cell_correlation: tuple[tuple[float, ...], ...] | None = setting(
        None,
        "1",
        "correlation of a cell's fixed errors between levels, a matrix; absent: 1 throughout",
        "[-1, 1]",
    )
    iv_alpha: float = setting(
        OPEN, "1/V", "non-linearity of I = G sinh(iv_alpha V) / iv_alpha; 0 is linear", "[0, 200]",
        default_text="0",
    )  # fmt: skip
    programming: ProgrammingConfig = setting(OPEN, "", "how a level is written")
    relaxation: RelaxationConfig = setting(OPEN, "", "loss of precision right after writing")
    drift: DriftConfig = setting(OPEN, "", "change with the time since the write")
    read_noise: ReadNoiseConfig = setting(OPEN, "", "noise of single reads")
    telegraph: TelegraphConfig = setting(OPEN, "", "random telegraph noise")
    endurance: EnduranceConfig = setting(OPEN, "", "wear with write cycles")

    def __post_init__(self) -> None:
        if any(getattr(self, name) is None for name in _COMPLETE):
            _fill(self, _preset_cells(self.preset or "generic", self.n_levels))
        for name, kind in tables_of(CellsConfig):
            if getattr(self, name) is None:
                object.__setattr__(self, name, kind())
        for name, default in (("spacing", "conductance"), ("fixed_fraction", 0.5), ("iv_alpha", 0.0)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        self._check()

    def _check(self) -> None:
        where = f"preset {self.preset!r} " if self.preset else ""
        if self.g_max is None:
            raise InputError(f"{where}gives no g_max: set cells.g_max in siemens (its source has none)")
        if self.g_min is None and self.on_off_ratio is None:
            raise InputError(f"{where}gives neither g_min nor on_off_ratio: set one of them")
        check_settings(self)
        if self.g_min is not None and self.on_off_ratio is not None:
            agree = math.isclose(self.g_max / self.g_min, self.on_off_ratio, rel_tol=1e-6)
            _need(agree, "g_min and on_off_ratio contradict each other; give only one of them")
        if self.g_min is not None and self.g_min < self.g_max:
            ratio = self.g_max / self.g_min
            _need(ratio >= 1.001, f"g_max / g_min must be >= 1.001, got {ratio:.9g}: levels would coincide")
        given = [n for n in _SIGMAS if getattr(self, n) is not None]
        _need(len(given) <= 1, f"give one description of sigma only, got {', '.join(given)}")
        wanted = {"lognormal": _SIGMAS[:2], "additive": _SIGMAS[:1], "normal": _SIGMAS[2:]}.get(self.law)
        if wanted and given and given[0] not in wanted:
            raise InputError(f"law {self.law!r} takes {' or '.join(wanted)}, got {given[0]}")
        if wanted and self.parameters:
            raise InputError(f"parameters needs a registered error law; {self.law!r} takes none")
        self.error_law()
        self._check_per_level()

    def _check_per_level(self) -> None:
        """Tables over levels must have one entry per level, and windows must hold their level."""
        levels, programming = self.scale.levels, self.programming
        for name in ("window_low", "window_high", "gain_levels", "sigma_gain_levels"):
            values = getattr(programming, name)
            if values is not None and len(values) != len(levels):
                raise InputError(
                    f"programming.{name} must have one value per level ({len(levels)}), got {len(values)}"
                )
        for name, sign in (("window_low", 1.0), ("window_high", -1.0)):
            for level, bound in enumerate(getattr(programming, name) or ()):
                if not sign * bound < sign * levels[level]:
                    raise InputError(
                        f"programming.{name} of level {level} must lie {'below' if sign > 0 else 'above'} "
                        f"its conductance {levels[level]:g} S, got {bound:g} S"
                    )
        if programming.pulse_table is not None:
            table = programming.pulse_table
            if set(table) != {"probabilities", "pulses"}:
                raise InputError(
                    f"programming.pulse_table must hold probabilities and pulses, got {', '.join(table)}"
                )
            p, pulses = (np.asarray(table[name], float) for name in ("probabilities", "pulses"))
            if p.ndim != 1 or not (np.diff(p) > 0).all() or not (p[0] > 0.0 and p[-1] < 1.0):
                raise InputError("programming.pulse_table.probabilities must ascend within (0, 1)")
            if pulses.shape != (len(levels), len(p)) or (np.diff(pulses, axis=1) < 0).any():
                raise InputError(
                    f"programming.pulse_table.pulses must have shape ({len(levels)}, {len(p)}) and ascend "
                    f"along each level, got {pulses.shape}"
                )
        fractions = self.fixed_fraction_levels
        if fractions is not None and len(fractions) != len(levels):
            raise InputError(
                f"fixed_fraction_levels must have one value per level ({len(levels)}), got {len(fractions)}"
            )
        if self.cell_correlation is not None:
            matrix = np.array(self.cell_correlation, float)
            if matrix.shape != (len(levels), len(levels)):
                raise InputError(
                    f"cell_correlation must be a matrix of {len(levels)} x {len(levels)} levels, "
                    f"got {matrix.shape}"
                )
            good = np.allclose(matrix, matrix.T) and np.allclose(np.diag(matrix), 1.0)
            if not good or np.linalg.eigvalsh(matrix).min() < -1e-6:
                raise InputError(
                    "cell_correlation must be symmetric and positive semi-definite with 1 on its diagonal"
                )

    @property
    def scale(self) -> LevelScale:
        """The levels as conductances."""
        g_min = self.g_min
        if g_min is None:
            assert self.on_off_ratio is not None  # by _check
            g_min = self.g_max / self.on_off_ratio
        return LevelScale(self.n_levels, g_min, self.g_max, self.levels or self.spacing)

    @property
    def changes_with_time(self) -> bool:
        """Whether anything happens to cells that are left alone."""
        slow_traps = self.telegraph.fraction > 0.0 and self.telegraph.lifetime > 0.0
        return (
            self.drift.law != "none"
            or self.relaxation.enabled
            or self.read_noise.log_coefficient > 0.0
            or slow_traps
        )

    def error_law(self) -> ErrorLaw:
        """The `ErrorLaw` of these settings."""
        return error_law(self.scale, self)


_COMPLETE = (
    "n_levels", "g_max", "law", "spacing", "fixed_fraction", "iv_alpha", "programming", "relaxation", "drift",
    "read_noise", "telegraph", "endurance",
)  # fmt: skip
_SIGMAS = ("sigma", "sigma_levels", "sigma_conductance", "sigma_polynomial")
_WINDOW = ("g_min", "on_off_ratio")


def _fill(config: CellsConfig, preset: dict[str, Any]) -> None:
    """Put preset values where the user gave none; alternatives count as given together."""

    def put(name: str, value: Any) -> None:
        object.__setattr__(config, name, value)

    if config.levels is not None:  # an explicit list says it all
        for name, value in (("n_levels", len(config.levels)), ("g_min", min(config.levels)),
                            ("g_max", max(config.levels))):  # fmt: skip
            if getattr(config, name) is None and not (name == "g_min" and config.on_off_ratio):
                put(name, value)
    given = {f.name for f in dataclasses.fields(config) if getattr(config, f.name) is not None}
    if "n_levels" not in given:
        put("n_levels", preset["n_levels"])
    moved = given & {"g_max", "spacing", *_WINDOW}
    for name, value in preset.items():
        alternatives = next((group for group in (_SIGMAS, _WINDOW) if name in group), (name,))
        if given & set(alternatives):
            continue
        if name in ("fixed_fraction_levels", "cell_correlation", "parameters") and moved | (
            given & {"n_levels", "levels", "fixed_fraction"}
        ):
            continue
        # lists per level fit the preset's own scale only, a sigma fits its own law only
        if name == "levels" and (moved or len(value) != config.n_levels):
            continue
        if name == "sigma_levels" and len(value) not in (1, config.n_levels):
            continue
        if name in (*_SIGMAS, "g_polynomial", "parameters") and config.law not in (None, preset.get("law")):
            continue
        put(name, value)


def _preset_cells(name: str, n_levels: int | None) -> dict[str, Any]:
    """Values of [cells] for `n_levels` (None: the preset's own), settings objects inside."""
    preset = load_preset(name)
    table = dict(preset.tables["cells"])
    table.setdefault("n_levels", 16)
    if n_levels is not None:
        table.update(preset.variants.get(n_levels, {}))
        table["n_levels"] = n_levels
    kinds = dict(tables_of(CellsConfig))
    for key, value in table.items():
        if key in kinds:
            table[key] = parse(kinds[key], value, f"{name}.cells.{key}")
        elif isinstance(value, list):
            table[key] = tuple(value)
    if "levels" in table:
        table.setdefault("g_min", table["levels"][0])
        table.setdefault("g_max", table["levels"][-1])
    return table


@preset_table("faults")
@dataclass(frozen=True, kw_only=True)
class FaultsConfig:
    """Stuck cells, by the physical state they are stuck in; the table [faults].

    Rates are fractions of cells. Values default to the window's ends. With `cluster_cells`
    > 1 faults come in square patches of about that many cells, at the same mean rate.

    Examples
    --------
    >>> FaultsConfig(stuck_low_rate=0.005, stuck_high_rate=0.005).cluster_cells
    1
    """

    preset: str | None = setting(None, "", "preset that fills what is not given here")
    stuck_low_rate: float = setting(
        OPEN, "1", "fraction of cells stuck at low conductance", "[0, 1]", default_text="0"
    )
    stuck_high_rate: float = setting(
        OPEN, "1", "fraction of cells stuck at high conductance", "[0, 1]", default_text="0"
    )
    g_stuck_low: float | None = setting(
        None, "S", "conductance of cells stuck at low", "[0, 1e6]", usual=(1e-18, 1e-2), default_text="g_min"
    )
    g_stuck_high: float | None = setting(
        None, "S", "conductance of cells stuck at high", "[0, 1e6]", usual=_G, default_text="g_max"
    )
    cluster_cells: int = setting(
        OPEN, "1", "cells of a square patch of faults; 1: independent cells", "[1, inf)", default_text="1"
    )

    def __post_init__(self) -> None:
        _resolve(self, "faults", {"stuck_low_rate": 0.0, "stuck_high_rate": 0.0, "cluster_cells": 1})
        check_settings(self)
        total = self.stuck_low_rate + self.stuck_high_rate
        _need(total <= 1.0, f"stuck_low_rate + stuck_high_rate must be <= 1, got {total:g}")


@preset_table("disturb")
@dataclass(frozen=True, kw_only=True)
class DisturbConfig:
    """Read disturbance; the table [disturb].

    polarity: `default` (the law's), `negative` (RESET direction: conductance falls),
    `positive` (SET direction: rises), `bipolar` (the sign of each read voltage decides; net
    signed stress counts, an assumption), `alternating` (the sign flips from read to read;
    the fraction `balance` of the stress is left over).
    mode: `fast` (histogram of codes per word line, slope and offset per cell), `exact` (solved
    cell voltages of every vector), `off`.

    Examples
    --------
    >>> DisturbConfig().enabled, DisturbConfig(law="power").enabled
    (False, True)
    """

    preset: str | None = setting(None, "", "preset that fills what is not given here")
    law: str = setting(OPEN, "", "none, power, exponential, drift or a registered law", default_text="none")
    v_read: float = setting(
        OPEN, "V", "read voltage to which stress times are referred", "(0, 100]", usual=(1e-3, 5.0),
        default_text="0.2",
    )  # fmt: skip
    t_read: float = setting(
        OPEN, "s", "width of a read pulse", "(0, inf)", usual=_PULSE, default_text="1e-07"
    )
    polarity: str = setting(
        OPEN, "", "direction of the change",
        choices=("default", "negative", "positive", "bipolar", "alternating"), default_text="default",
    )  # fmt: skip
    balance: float = setting(OPEN, "1", "residue of alternating reads", "[-1, 1]", default_text="0")
    cycles_before: int = setting(OPEN, "1", "SET/RESET cycles before delivery", "[0, inf)", default_text="0")
    mode: str = setting(
        OPEN, "", "accounting of stress on wires", choices=("fast", "exact", "off"), default_text="fast"
    )
    state_step: int = setting(
        OPEN, "1", "vectors between updates of conductances", "[1, inf)", default_text="4096"
    )
    parameters: dict[str, float] = setting(
        OPEN, "", "constants of the law that differ from its defaults", default_text="the law's"
    )

    def __post_init__(self) -> None:
        defaults = {"law": "none", "v_read": 0.2, "t_read": 100e-9, "polarity": "default", "balance": 0.0,
                    "cycles_before": 0, "mode": "fast", "state_step": 4096, "parameters": {}}  # fmt: skip
        _resolve(self, "disturb", defaults)
        check_settings(self)
        disturb_law(self)

    @property
    def enabled(self) -> bool:
        return self.law != "none" and self.mode != "off"
