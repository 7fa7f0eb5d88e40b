"""Settings of cells, faults and read disturbance: the tables [cells], [faults], [disturb].

Fields of `CellsConfig` left at None come from the preset named by `preset`, else from the
preset `generic`; after construction the object holds every number, so that an archive
that stores it needs no preset file.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from rramsim.cell.levels import LevelScale
from rramsim.checks import InputError, nearest_name

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


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _resolve(settings: Any, table: str, defaults: dict[str, Any]) -> None:
    """Fill open fields from the table of the preset, then from `defaults`."""
    from rramsim.cell.presets import load_preset

    if any(getattr(settings, name) is None for name in defaults):
        known = load_preset(settings.preset).tables.get(table) if settings.preset else {}
        _need(known is not None, f"preset {settings.preset!r} has no table [{table}]")
        for name, value in {**defaults, **(known or {})}.items():
            if getattr(settings, name) is None:
                object.__setattr__(settings, name, value)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(
            f"{name} must be one of {', '.join(known)}, got {value!r}; {nearest_name(value, known)}"
        )


def _finite(settings: Any) -> None:
    """Every float must be finite and no count, time or spread negative (inf means "never")."""
    signed = ("mean_polynomial", "shift_polynomial", "sigma_polynomial", "sigma_offset", "balance")
    for entry in dataclasses.fields(settings):
        value = getattr(settings, entry.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            unbounded = entry.name in ("n_endurance", "lifetime") and number == math.inf
            _need(math.isfinite(number) or unbounded, f"{entry.name} must be finite, got {number}")
            _need(entry.name in signed or number >= 0, f"{entry.name} must be >= 0, got {number:g}")


@dataclass(frozen=True, kw_only=True)
class ProgrammingConfig:
    """How a level is written, and what a pulse costs.

    `one_shot` draws the realised conductance from the error law. `write_verify` pulses a
    cell until it is within `window` of its target; the error law then describes only the
    reset state, and what verify cannot hold is described by `[cells.relaxation]`.
    """

    method: str = "one_shot"  # "one_shot" or "write_verify"
    window: float = 1e-6  # [S] half-width of the acceptance window
    gain: float = 0.3  # fraction of the remaining error that a pulse closes
    scatter: float = 0.3  # std of a step relative to the step, pulse to pulse
    scatter_floor: float = 0.0  # [S] std of a step, absolute
    sigma_gain: float = 0.0  # std of ln(gain), cell to cell
    n_pulses_max: int = 50  # pulse budget of one write
    pulses_per_write: float = 1.0  # pulses that one one_shot write is charged with
    t_pulse: float = 1e-6  # [s] width of a programming pulse
    t_verify: float = 1e-6  # [s] read after each pulse (write_verify, or pulses_per_write > 1)
    e_pulse: float | None = None  # [J] energy of a pulse, where a source gives it

    def __post_init__(self) -> None:
        _one_of("method", self.method, ("one_shot", "write_verify"))
        _finite(self)
        _need(self.window > 0.0, f"window must be > 0 siemens, got {self.window:g}")
        _need(0.0 < self.gain < 2.0, f"gain must lie in (0, 2), or pulses diverge; got {self.gain:g}")
        _need(
            1 <= self.n_pulses_max < 65536,
            f"n_pulses_max must lie in 1 ... 65535, got {self.n_pulses_max}",
        )


@dataclass(frozen=True, kw_only=True)
class RelaxationConfig:
    """Sudden loss of precision right after the last pulse, in under a second.

    G += shift(G) + sigma(G) e, polynomials (lowest power first, [S]) in G / g_reference;
    e has the fixed part `fixed_fraction`, drawn apart from the programming error's.
    """

    shift_polynomial: tuple[float, ...] = ()  # [S]
    sigma_polynomial: tuple[float, ...] = ()  # [S]
    g_reference: float = 1e-6  # [S] unit of the polynomials' argument
    fixed_fraction: float = 0.5

    def __post_init__(self) -> None:
        _finite(self)
        _need(self.g_reference > 0.0, f"g_reference must be > 0 siemens, got {self.g_reference:g}")
        _need(self.fixed_fraction <= 1.0, f"fixed_fraction must lie in [0, 1], got {self.fixed_fraction:g}")

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
    """

    law: str = "none"
    t_reference: float = 1.0  # [s]
    mean_polynomial: tuple[float, ...] = ()  # [S], or exponent of the power law
    sigma_polynomial: tuple[float, ...] = ()  # [S], or exponent of the power law
    sigma_offset: tuple[float, ...] = ()  # [S] logarithmic law only
    g_reference: float = 1e-6  # [S]
    fixed_fraction: float = 0.5

    def __post_init__(self) -> None:
        _one_of("drift law", self.law, ("none", "exponential", "logarithmic", "power"))
        _finite(self)
        _need(self.t_reference > 0.0, f"t_reference must be > 0 seconds, got {self.t_reference:g}")
        _need(self.g_reference > 0.0, f"g_reference must be > 0 siemens, got {self.g_reference:g}")
        _need(self.fixed_fraction <= 1.0, f"fixed_fraction must lie in [0, 1], got {self.fixed_fraction:g}")


@dataclass(frozen=True, kw_only=True)
class ReadNoiseConfig:
    """Gaussian noise per cell and read: sigma^2 = polynomial(G)^2 + (relative G)^2 + grown^2.

    The grown part is that of `ReRamCMONoiseModel` of aihwkit:
    log_coefficient |log10(G / g_reference)| g_reference sqrt(ln((t + t_read) / (2 t_read))).
    """

    sigma_polynomial: tuple[float, ...] = ()  # [S] in powers of G / g_reference
    sigma_relative: float = 0.0  # fraction of G
    log_coefficient: float = 0.0
    t_read: float = 1e-6  # [s] read time in the grown part
    g_reference: float = 1e-6  # [S]

    def __post_init__(self) -> None:
        _finite(self)
        _need(self.g_reference > 0.0, f"g_reference must be > 0 siemens, got {self.g_reference:g}")
        _need(self.t_read > 0.0, f"t_read must be > 0 seconds, got {self.t_read:g}")

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
    """

    fraction: float = 0.0  # fraction of cells with an active trap
    amplitude_low: float = 0.5  # relative change of resistance at g_min
    amplitude_high: float = 0.028  # relative change of resistance at g_max
    occupancy: float = 0.5  # share of time captured
    lifetime: float = 0.0  # [s] correlation time

    def __post_init__(self) -> None:
        _finite(self)
        for name in ("fraction", "occupancy"):
            _need(getattr(self, name) <= 1.0, f"{name} must lie in [0, 1], got {getattr(self, name):g}")


@dataclass(frozen=True, kw_only=True)
class EnduranceConfig:
    """Wear with write cycles n: x = min(1, (n/n_endurance)^exponent).

    The window loses `window_loss` x of g_max - g_min from above; errors grow by 1 + sigma_growth x.
    """

    n_endurance: float = math.inf  # cycles; inf: no wear
    exponent: float = 1.0
    window_loss: float = 0.0
    sigma_growth: float = 0.0
    cycles_before: int = 0  # cycles before delivery

    def __post_init__(self) -> None:
        _finite(self)
        _need(self.n_endurance > 0.0, f"n_endurance must be > 0 cycles, got {self.n_endurance:g}")
        _need(self.window_loss < 1.0, f"window_loss must lie in [0, 1), got {self.window_loss:g}")


@dataclass(frozen=True, kw_only=True)
class CellsConfig:
    """Levels, programming error and everything after programming; the table [cells].

    Give either `g_min` or `on_off_ratio`; exactly one description of sigma is used:
    `sigma` (lognormal: std of ln G; additive: fraction of g_max), `sigma_levels` (lognormal,
    per level), `sigma_conductance` (normal, [S], one value or one per level) or
    `sigma_polynomial` (normal, [S], lowest power first in G / g_polynomial).
    """

    preset: str | None = None  # name of a shipped preset, or the path of a TOML file
    n_levels: int = OPEN
    g_max: float = OPEN  # [S] highest programmed conductance
    g_min: float | None = None  # [S] lowest programmed conductance
    on_off_ratio: float | None = None  # g_max / g_min
    spacing: str = OPEN  # "conductance" or "resistance"
    levels: tuple[float, ...] | None = None  # [S] explicit levels, ascending
    law: str = OPEN  # "lognormal", "additive", "normal" or a registered one
    sigma: float | None = None
    sigma_levels: tuple[float, ...] | None = None
    sigma_conductance: tuple[float, ...] | None = None  # [S]
    sigma_polynomial: tuple[float, ...] | None = None  # [S]
    g_polynomial: float | None = None  # [S]
    fixed_fraction: float = OPEN  # f: share of the variance that is fixed per cell
    iv_alpha: float = OPEN  # [1/V] I = G sinh(iv_alpha V) / iv_alpha; 0 is linear
    programming: ProgrammingConfig = OPEN
    relaxation: RelaxationConfig = OPEN
    drift: DriftConfig = OPEN
    read_noise: ReadNoiseConfig = OPEN
    telegraph: TelegraphConfig = OPEN
    endurance: EnduranceConfig = OPEN

    def __post_init__(self) -> None:
        from rramsim.cell.presets import preset_cells

        if any(getattr(self, name) is None for name in _COMPLETE):
            _fill(self, preset_cells(self.preset or "generic", self.n_levels))
        kinds = {
            "programming": ProgrammingConfig,
            "relaxation": RelaxationConfig,
            "drift": DriftConfig,
            "read_noise": ReadNoiseConfig,
            "telegraph": TelegraphConfig,
            "endurance": EnduranceConfig,
        }
        for name, kind in kinds.items():
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
        if self.on_off_ratio is not None:
            _need(
                self.on_off_ratio > 1.0, f"on_off_ratio = g_max/g_min must be > 1, got {self.on_off_ratio:g}"
            )
        if self.g_min is not None and self.on_off_ratio is not None:
            agree = math.isclose(self.g_max / self.g_min, self.on_off_ratio, rel_tol=1e-6)
            _need(agree, "g_min and on_off_ratio contradict each other; give only one of them")
        _need(
            0.0 <= self.fixed_fraction <= 1.0,
            f"fixed_fraction must lie in [0, 1], got {self.fixed_fraction:g}",
        )
        _finite(self)
        given = [n for n in _SIGMAS if getattr(self, n) is not None]
        _need(len(given) <= 1, f"give one description of sigma only, got {', '.join(given)}")
        wanted = {"lognormal": _SIGMAS[:2], "additive": _SIGMAS[:1], "normal": _SIGMAS[2:]}.get(self.law)
        if wanted and given and given[0] not in wanted:
            raise InputError(f"law {self.law!r} takes {' or '.join(wanted)}, got {given[0]}")
        self.error_law()

    @property
    def scale(self) -> LevelScale:
        """The levels as conductances."""
        g_min = self.g_min
        if g_min is None:
            assert self.on_off_ratio is not None  # by _check
            g_min = self.g_max / self.on_off_ratio
        return LevelScale(self.n_levels, g_min, self.g_max, self.levels or self.spacing)

    def error_law(self) -> Any:
        """The `ErrorLaw` of these settings."""
        from rramsim.cell.laws import error_law

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
        # lists per level fit the preset's own scale only, a sigma fits its own law only
        if name == "levels" and (moved or len(value) != config.n_levels):
            continue
        if name == "sigma_levels" and len(value) not in (1, config.n_levels):
            continue
        if name in (*_SIGMAS, "g_polynomial") and config.law not in (None, preset.get("law")):
            continue
        put(name, value)


@dataclass(frozen=True, kw_only=True)
class FaultsConfig:
    """Stuck cells, by the physical state they are stuck in; the table [faults].

    Rates are fractions of cells. Values default to the window's ends. With `cluster_cells`
    > 1 faults come in square patches of about that many cells, at the same mean rate.
    """

    preset: str | None = None  # fills what is not given here
    stuck_low_rate: float = OPEN  # fraction of cells; default 0
    stuck_high_rate: float = OPEN  # fraction of cells; default 0
    g_stuck_low: float | None = None  # [S] default g_min
    g_stuck_high: float | None = None  # [S] default g_max
    cluster_cells: int = OPEN  # default 1: independent cells

    def __post_init__(self) -> None:
        _resolve(self, "faults", {"stuck_low_rate": 0.0, "stuck_high_rate": 0.0, "cluster_cells": 1})
        _finite(self)
        total = self.stuck_low_rate + self.stuck_high_rate
        _need(total <= 1.0, f"stuck_low_rate + stuck_high_rate must be <= 1, got {total:g}")
        _need(self.cluster_cells >= 1, f"cluster_cells must be >= 1, got {self.cluster_cells}")


@dataclass(frozen=True, kw_only=True)
class DisturbConfig:
    """Read disturbance; the table [disturb].

    polarity: `default` (the law's), `negative` (RESET direction: conductance falls),
    `positive` (SET direction: rises), `bipolar` (the sign of each read voltage decides; net
    signed stress counts, an assumption), `alternating` (the sign flips from read to read;
    the fraction `balance` of the stress is left over).
    mode: `fast` (histogram of codes per word line, slope and offset per cell), `exact` (solved
    cell voltages of every vector), `off`.
    """

    preset: str | None = None  # fills what is not given here
    law: str = OPEN  # "none" (default), "power", "exponential", "drift" or a registered one
    v_read: float = OPEN  # [V] read voltage to which stress times are referred; default 0.2
    t_read: float = OPEN  # [s] width of a read pulse; default 100e-9
    polarity: str = OPEN  # default "default"
    balance: float = OPEN  # residue of alternating reads; default 0
    cycles_before: int = OPEN  # SET/RESET cycles before delivery; default 0
    mode: str = OPEN  # default "fast"
    state_step: int = OPEN  # vectors between updates of conductances; default 4096
    parameters: dict[str, float] = OPEN  # constants of the law that differ from its defaults

    def __post_init__(self) -> None:
        from rramsim.cell.disturb import disturb_law

        defaults = {"law": "none", "v_read": 0.2, "t_read": 100e-9, "polarity": "default", "balance": 0.0,
                    "cycles_before": 0, "mode": "fast", "state_step": 4096, "parameters": {}}  # fmt: skip
        _resolve(self, "disturb", defaults)
        _finite(self)
        _one_of("mode", self.mode, ("fast", "exact", "off"))
        _one_of("polarity", self.polarity, ("default", "negative", "positive", "bipolar", "alternating"))
        _need(self.v_read > 0.0, f"v_read must be > 0 volts, got {self.v_read:g}")
        _need(self.t_read > 0.0, f"t_read must be > 0 seconds, got {self.t_read:g}")
        _need(self.state_step >= 1, f"state_step must be >= 1 vector, got {self.state_step}")
        _need(-1.0 <= self.balance <= 1.0, f"balance must lie in [-1, 1], got {self.balance:g}")
        disturb_law(self)

    @property
    def enabled(self) -> bool:
        return self.law != "none" and self.mode != "off"
