"""Settings that nothing reads: which ones, beside which others, and what would make them matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rramsim.cell import CellsConfig, DisturbConfig, FaultsConfig
from rramsim.chip.config import ChipConfig, ConverterConfig
from rramsim.circuit.wiring import WiresConfig
from rramsim.config import describe

__all__ = ["RULES", "Rule", "unread_settings"]


@dataclass(frozen=True)
class Rule:
    """Settings that are read only where others have certain values."""

    keys: tuple[str, ...]
    is_read: Callable[[ChipConfig], bool]
    needs: str  # completes "it needs ..."


def _table(prefix: str, names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in names.split())


def _not_constant(*polynomials: tuple[float, ...]) -> bool:
    return any(any(polynomial[1:]) for polynomial in polynomials)


def _verifies(config: ChipConfig) -> bool:
    return config.cells.programming.method == "write_verify"


def _drifts(config: ChipConfig) -> bool:
    return config.cells.drift.law != "none"


def _polynomials(config: ChipConfig) -> tuple[tuple[float, ...], ...]:
    drift = config.cells.drift
    return drift.mean_polynomial, drift.sigma_polynomial, drift.sigma_offset


def _polynomial_law(config: ChipConfig) -> bool:
    """Whether the drift law is one whose change is given by polynomials alone."""
    return config.cells.drift.law in ("exponential", "logarithmic", "power")


def _wears(config: ChipConfig) -> bool:
    wear = config.cells.endurance
    return wear.n_endurance < float("inf") and (wear.window_loss > 0 or wear.sigma_growth > 0)


def _moves(config: ChipConfig) -> bool:
    """Whether conductances change between writes, so that wired tiles grow stale."""
    return config.disturb.enabled or config.cells.changes_with_time


def _has_wires(config: ChipConfig) -> bool:
    return config.wires is not None and not config.wires.ideal


def _is_warm(config: ChipConfig) -> bool:
    heat = config.temperature
    return heat is not None and heat.read != heat.reference


RULES: tuple[Rule, ...] = (
    Rule(("mapping.reference",), lambda c: c.mapping.kind == "reference", "mapping.kind = 'reference'"),
    Rule(
        ("mapping.reference_level",),
        lambda c: c.mapping.kind == "reference" and c.mapping.reference == "line",
        "mapping.kind = 'reference' and mapping.reference = 'line'",
    ),
    Rule(
        _table("temperature", "cell_low cell_high wire"), _is_warm,
        "temperature.read apart from temperature.reference",
    ),
    Rule(
        ("nonlinear_tolerance",), lambda c: _has_wires(c) and c.cells.iv_alpha > 0,
        "wires, and cells.iv_alpha > 0",
    ),
    Rule(
        ("converters.clock",), lambda c: c.cells.changes_with_time,
        "a law of time (cells.drift, cells.relaxation, growing read noise, slow cells.telegraph)",
    ),
    Rule(("mapping.n_slices",), lambda c: c.mapping.kind == "sliced", "mapping.kind = 'sliced'"),
    Rule(
        ("cells.g_polynomial",), lambda c: bool(c.cells.sigma_polynomial),
        "cells.sigma_polynomial",
    ),
    Rule(
        _table("cells.programming", "window window_low window_high gain gain_levels scatter scatter_floor "
            "sigma_gain sigma_gain_levels n_pulses_max final"), _verifies,
        "cells.programming.method = 'write_verify'",
    ),
    Rule(
        ("cells.programming.pulses_per_write",), lambda c: not _verifies(c),
        "cells.programming.method = 'one_shot'",
    ),
    Rule(
        ("cells.programming.t_verify",),
        lambda c: _verifies(c) or c.cells.programming.pulses_per_write > 1,
        "cells.programming.method = 'write_verify', or pulses_per_write > 1",
    ),
    Rule(
        ("cells.relaxation.g_reference",),
        lambda c: _not_constant(c.cells.relaxation.shift_polynomial, c.cells.relaxation.sigma_polynomial),
        "a polynomial of cells.relaxation that depends on G",
    ),
    Rule(
        ("cells.relaxation.fixed_fraction",), lambda c: any(c.cells.relaxation.sigma_polynomial),
        "cells.relaxation.sigma_polynomial",
    ),
    Rule(
        _table("cells.drift", "t_reference mean_polynomial sigma_polynomial"), _drifts, "cells.drift.law",
    ),
    Rule(("cells.drift.activation_energy",), _drifts, "cells.drift.law"),
    Rule(
        ("cells.drift.kelvin",), lambda c: _drifts(c) and c.cells.drift.activation_energy > 0.0,
        "cells.drift.law and cells.drift.activation_energy",
    ),
    Rule(
        ("cells.drift.law",),
        lambda c: bool(c.cells.drift.parameters) or any(map(any, _polynomials(c))) or not _polynomial_law(c),
        "cells.drift.mean_polynomial or sigma_polynomial",
    ),
    Rule(
        ("cells.drift.sigma_offset",), lambda c: c.cells.drift.law == "logarithmic",
        "cells.drift.law = 'logarithmic'",
    ),
    Rule(
        ("cells.drift.g_reference",),
        lambda c: _drifts(c) and _not_constant(
            c.cells.drift.mean_polynomial, c.cells.drift.sigma_polynomial, c.cells.drift.sigma_offset
        ),
        "cells.drift.law and a polynomial that depends on G",
    ),
    Rule(
        ("cells.drift.fixed_fraction",),
        lambda c: _drifts(c) and (any(c.cells.drift.sigma_polynomial) or any(c.cells.drift.sigma_offset)),
        "cells.drift.law and cells.drift.sigma_polynomial",
    ),
    Rule(
        ("cells.read_noise.t_read",), lambda c: c.cells.read_noise.log_coefficient > 0,
        "cells.read_noise.log_coefficient",
    ),
    Rule(
        ("cells.read_noise.g_reference",),
        lambda c: c.cells.read_noise.log_coefficient > 0
        or _not_constant(c.cells.read_noise.sigma_polynomial),
        "cells.read_noise.log_coefficient, or a sigma_polynomial that depends on G",
    ),
    Rule(
        _table("cells.telegraph", "amplitude_low amplitude_high occupancy lifetime"),
        lambda c: c.cells.telegraph.fraction > 0, "cells.telegraph.fraction > 0",
    ),
    Rule(
        ("cells.endurance.n_endurance",), _wears, "cells.endurance.window_loss or sigma_growth",
    ),
    Rule(
        _table("cells.endurance", "window_loss sigma_growth"), _wears, "a finite cells.endurance.n_endurance",
    ),
    Rule(
        _table("cells.endurance", "exponent cycles_before"), _wears,
        "a finite cells.endurance.n_endurance, and window_loss or sigma_growth",
    ),
    Rule(("faults.g_stuck_low",), lambda c: c.faults.stuck_low_rate > 0, "faults.stuck_low_rate > 0"),
    Rule(("faults.g_stuck_high",), lambda c: c.faults.stuck_high_rate > 0, "faults.stuck_high_rate > 0"),
    Rule(
        ("faults.cluster_cells",), lambda c: c.faults.stuck_low_rate + c.faults.stuck_high_rate > 0,
        "faults.stuck_low_rate or stuck_high_rate > 0",
    ),
    Rule(
        _table("disturb", "v_read t_read polarity cycles_before mode state_step parameters"),
        lambda c: c.disturb.law != "none", "disturb.law",
    ),
    Rule(
        ("disturb.balance",), lambda c: c.disturb.enabled and c.disturb.polarity == "alternating",
        "disturb.law and disturb.polarity = 'alternating'",
    ),
    Rule(
        ("wires.word_both",), lambda c: c.wires is not None and c.wires.r_word + c.wires.r_driver > 0,
        "wires.r_word or r_driver > 0",
    ),
    Rule(
        ("wires.bit_both",), lambda c: c.wires is not None and c.wires.r_bit + c.wires.r_sense > 0,
        "wires.r_bit or r_sense > 0",
    ),
    Rule(
        ("state_tolerance",), lambda c: _has_wires(c) and _moves(c),
        "wires, and cells that drift or are disturbed",
    ),
)  # fmt: skip


def unread_settings(config: ChipConfig) -> list[str]:
    """A message for each setting that was changed from its default and changes nothing.

    Examples
    --------
    >>> from rramsim import CellsConfig, ChipConfig, ProgrammingConfig
    >>> unread_settings(ChipConfig(cells=CellsConfig(programming=ProgrammingConfig(window=2e-6))))
    ["cells.programming.window has no effect: it needs cells.programming.method = 'write_verify'"]
    """
    disturb = DisturbConfig(preset=config.disturb.preset)
    window: dict[str, Any] = {}  # of presets that leave it open; measured quantiles hold at their own alone
    if config.cells.preset is None or config.cells.law != "empirical":
        window = {"g_max": config.cells.g_max, "g_min": config.cells.scale.g_min}
    defaults = ChipConfig(
        converters=ConverterConfig(v_read=disturb.v_read, t_read=disturb.t_read),  # a chip wants them equal
        cells=CellsConfig(preset=config.cells.preset, **window),
        faults=FaultsConfig(preset=config.faults.preset),
        disturb=disturb,
        wires=None if config.wires is None else WiresConfig(),
        temperature=None if config.temperature is None else type(config.temperature)(),
    )
    keys = [row.key for row in describe(ChipConfig) if row.type != "table"]
    messages = []
    for rule in RULES:
        if not rule.is_read(config):
            messages += [
                f"{key} has no effect: it needs {rule.needs}"
                for key in keys
                if key in rule.keys and _value(config, key) != _value(defaults, key)
            ]
    return messages


def _value(settings: Any, key: str) -> Any:
    for name in key.split("."):
        settings = None if settings is None else getattr(settings, name)
    return settings
