"""Every setting of a chip is switched: the result changes, or a message says why it does not.

The settings are those that their classes declare, so a new one is covered as soon as it exists. A setting
that is read only beside others is switched beside them too (`PARTNERS`): the pairs that interact.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import warnings
from typing import Any

import numpy as np
import pytest

from rramsim.blackbox.codes import dac_codes
from rramsim.cell import DisturbConfig, list_presets
from rramsim.checks import InputError
from rramsim.chip.config import ChipConfig, ConverterConfig
from rramsim.chip.simulated import SimulatedChip
from rramsim.chip.unread import RULES, unread_settings
from rramsim.config import describe, parse

BASE: dict[str, Any] = {
    "mapping": {"tile_rows": 16, "tile_cols": 8},
    "cells": {"sigma": 0.2},
    "wires": {"r_word": 2.0, "r_bit": 2.0},
}
DISTURBED = {**BASE, "disturb": {"law": "power"}}
ROWS = {row.key: row for row in describe(ChipConfig) if row.type != "table"}

# another value where the declaration does not suggest one
VALUES: dict[str, Any] = {
    "cells.preset": list_presets()[0],
    "cells.n_levels": 8,
    "cells.g_min": 2e-6,
    "cells.spacing": "resistance",
    "cells.levels": [1e-6 * k for k in range(1, 17)],
    "cells.law": "additive",
    "cells.sigma": 0.3,
    "cells.sigma_levels": [0.01 * k for k in range(1, 17)],
    "cells.sigma_conductance": [1e-6],
    "cells.sigma_polynomial": [1e-6],
    "cells.g_polynomial": 2e-5,
    "cells.parameters": {"a": 1.0},
    "cells.programming.e_pulse": 1e-12,
    "cells.programming.n_pulses_max": 2,
    "mapping.tile_cols": 6,
    "wires.r_access": 1e4,
    "wires.r_driver": 100.0,
    "wires.r_sense": 100.0,
    "mapping.reference_level": 7,
    "cells.fixed_fraction_levels": [0.1] * 16,
    "cells.cell_correlation": [[1.0 if i == j else 0.5 for j in range(16)] for i in range(16)],
    "cells.programming.window_low": [0.0] * 16,
    "cells.programming.window_high": [1e-3] * 16,
    "cells.programming.gain_levels": [0.5] * 16,
    "cells.programming.sigma_gain_levels": [0.3] * 16,
    "cells.programming.pulse_table": {"probabilities": [0.4, 0.6], "pulses": [[3.0, 5.0]] * 16},
    "cells.programming.final": "law",
    "temperature.cell_low": 0.05,
    "temperature.cell_high": 0.01,
    "temperature.wire": 0.5,
    "nonlinear_tolerance": 0.0,
    "cells.relaxation.shift_polynomial": [-1e-6],
    "cells.relaxation.sigma_polynomial": [1e-6],
    "cells.drift.law": "power",
    "cells.drift.mean_polynomial": [0.02],
    "cells.drift.sigma_polynomial": [0.03],
    "cells.drift.sigma_offset": [1e-7],
    "cells.drift.parameters": {"a": 1.0},
    "cells.drift.activation_energy": 1.6e-19,
    "cells.drift.kelvin": 320.0,
    "cells.read_noise.sigma_polynomial": [1e-6],
    "cells.endurance.n_endurance": 20.0,
    "faults.preset": "wan_2022_1h",
    "faults.g_stuck_low": 5e-7,
    "faults.g_stuck_high": 5e-5,
    "faults.cluster_cells": 4,
    "disturb.preset": "wan_2022_1h",
    "disturb.law": "power",
    "disturb.polarity": "positive",
    "disturb.cycles_before": 10_000,
    "disturb.parameters": {"a": 0.12},
    "disturb.state_step": 8,
    "disturb.mode": "off",
    "state_tolerance": 1e-9,
    "cost.preset": "yao_2020",
    "cost.node": 4e-8,
    "cost.columns_per_adc": 2,
    "cost.e_adc": 1e-12,
    "cost.a_adc": 1e-9,
    "cost.c_dac": 1e-14,
    "cost.v_dac": 1.2,
    "cost.a_dac": 1e-12,
    "cost.c_line": 1e-10,
    "cost.cell_features": 12.0,
    "cost.a_driver": 1e-12,
    "cost.e_add": 1e-14,
    "cost.e_mac": 1e-12,
    "cost.a_digital": 1e-9,
}
VERIFY = {"programming": {"method": "write_verify", "sigma_gain": 0.1, "scatter_floor": 1e-7}}
DRIFT = {"law": "power", "mean_polynomial": [0.02, 1e-4], "sigma_polynomial": [0.02]}
WEAR = {"n_endurance": 10.0, "window_loss": 0.2, "sigma_growth": 1.0, "cycles_before": 2}
# what a setting needs to be read
PARTNERS: dict[str, dict[str, Any]] = {
    **{
        f"mapping.{name}": {**BASE, "mapping": {"kind": "reference", "tile_rows": 16, "tile_cols": 8}}
        for name in ("reference", "reference_level")
    },
    **{
        f"temperature.{name}": {**BASE, "temperature": {"read": 360.0}}
        for name in ("cell_low", "cell_high", "wire")
    },
    "nonlinear_tolerance": {
        **BASE, "cells": {"sigma": 0.2, "iv_alpha": 3.0}, "wires": {"r_word": 50.0, "r_bit": 50.0},
    },
    "converters.clock": {**BASE, "cells": {"sigma": 0.2, "drift": DRIFT}},
    "mapping.n_slices": {**BASE, "mapping": {"kind": "sliced", "tile_cols": 16}},
    "cells.g_polynomial": {
        **BASE, "cells": {"law": "normal", "sigma_polynomial": [0.0, 1e-6], "g_polynomial": 1e-5},
    },
    **{
        f"cells.programming.{name}": {**BASE, "cells": {"sigma": 0.2, **VERIFY}}
        for name in (
            *("window", "window_low", "window_high", "gain", "gain_levels", "scatter", "scatter_floor"),
            *("sigma_gain", "sigma_gain_levels", "n_pulses_max", "t_verify", "final"),
        )
    },
    "cells.programming.pulses_per_write": BASE,
    **{
        f"cells.relaxation.{name}": {
            **BASE, "cells": {"sigma": 0.2, "relaxation": {"sigma_polynomial": [1e-6, 1e-8]}},
        }
        for name in ("g_reference", "fixed_fraction")
    },
    **{
        f"cells.drift.{name}": {**BASE, "cells": {"sigma": 0.2, "drift": DRIFT}}
        for name in ("t_reference", "mean_polynomial", "sigma_polynomial", "g_reference", "fixed_fraction")
    },
    "cells.drift.activation_energy": {**BASE, "cells": {"sigma": 0.2, "drift": DRIFT}},
    "cells.drift.kelvin": {
        **BASE, "cells": {"sigma": 0.2, "drift": {**DRIFT, "activation_energy": 1.6e-19}},
    },
    "cells.drift.law": {**BASE, "cells": {"sigma": 0.2, "drift": {"mean_polynomial": [0.02]}}},
    "cells.drift.sigma_offset": {
        **BASE, "cells": {"sigma": 0.2, "drift": {"law": "logarithmic", "mean_polynomial": [1e-7]}},
    },
    **{
        f"cells.read_noise.{name}": {**BASE, "cells": {"sigma": 0.2, "read_noise": {"log_coefficient": 0.1}}}
        for name in ("t_read", "g_reference")
    },
    **{
        f"cells.telegraph.{name}": {
            **BASE, "cells": {"sigma": 0.2, "telegraph": {"fraction": 0.5, "lifetime": 2.0}},
        }
        for name in ("amplitude_low", "amplitude_high", "occupancy", "lifetime")
    },
    **{
        f"cells.endurance.{name}": {**BASE, "cells": {"sigma": 0.2, "endurance": WEAR}}
        for name in ("n_endurance", "exponent", "window_loss", "sigma_growth", "cycles_before")
    },
    **{
        f"faults.{name}": {**BASE, "faults": {"stuck_low_rate": 0.2, "stuck_high_rate": 0.2}}
        for name in ("g_stuck_low", "g_stuck_high", "cluster_cells")
    },
    **{
        f"disturb.{name}": DISTURBED
        for name in ("v_read", "t_read", "polarity", "cycles_before", "parameters")
    },
    **{
        f"disturb.{name}": {**BASE, "disturb": {"law": "exponential", "parameters": {"tau": 1e-6}}}
        for name in ("mode", "state_step")
    },
    "disturb.balance": {**BASE, "disturb": {"law": "power", "polarity": "alternating"}},
    "wires.word_both": BASE,
    "wires.bit_both": BASE,
    "state_tolerance": {**DISTURBED, "disturb": {"law": "power", "polarity": "negative"}},
}  # fmt: skip
# settings that must be switched together, or are refused
TOGETHER = {"disturb.v_read": "converters.v_read", "disturb.t_read": "converters.t_read"}
INSTEAD_OF_SIGMA = {"cells.sigma_levels", "cells.sigma_conductance", "cells.sigma_polynomial"}


def another(key: str, present: Any) -> Any:
    """A value of a setting that differs from the present one and lies within its declared range."""
    row = ROWS[key]
    if key in VALUES:
        return VALUES[key]
    if row.type == "bool":
        return not present
    if row.type.startswith("Literal") or (row.type == "str" and "," in row.span):
        return next(name.strip() for name in row.span.split(",") if name.strip() != present)
    if row.type == "int":
        return int(present) + 1
    if row.type == "float":
        return 1.5 * present if present and np.isfinite(present) else 0.25
    raise AssertionError(f"{key}: add another value of this new setting to VALUES")


def switched(table: dict[str, Any], key: str) -> dict[str, Any]:
    """The table with one setting changed, and what must be changed with it."""
    table = copy.deepcopy(table)
    settings: Any = parse(ChipConfig, table)
    for part in key.split("."):
        settings = None if settings is None else getattr(settings, part)
    if settings is None and ROWS[key].type in ("int", "float"):  # of a table that is absent
        with contextlib.suppress(ValueError):
            settings = float(ROWS[key].default)
    together = key in TOGETHER and parse(ChipConfig, table).disturb.enabled
    for name in (key, *([TOGETHER[key]] if together else [])):
        *parents, last = name.split(".")
        place = table
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = another(key, settings)
    if key in INSTEAD_OF_SIGMA or table.get("cells", {}).get("preset"):
        table["cells"].pop("sigma", None)
        if key in ("cells.sigma_conductance", "cells.sigma_polynomial"):
            table["cells"]["law"] = "normal"
    return table


def results(table: dict[str, Any]) -> str:
    """Digest of everything a chip answers, holds and charges in a short life: writes, reads, use and time."""
    config = parse(ChipConfig, table)
    chip = SimulatedChip(config, {"a": (20, 6), "b": (5, 3)}, seed=1, chip=2)
    rng, total = np.random.default_rng(0), hashlib.sha256()
    n_levels = len(chip.datasheet.levels)
    for layer, info in chip.layers.items():
        shape = (info.n_rows, info.n_cols, info.cells_per_weight)
        v = config.converters.v_read
        high = dac_codes(config.converters.dac_bits, True)[1]
        fractions = rng.uniform(-1, 1, (24, info.n_rows))
        codes = np.rint(fractions * high).astype(np.int64)
        chip.configure(layer, input_range=(-v, v), output_range=2e-5)
        chip.write(layer, np.floor(rng.random(shape) * n_levels).astype(np.int64))
        total.update(chip.mvm(layer, codes).codes.tobytes())
        total.update(chip.mvm(layer, codes[:2], per_tile=True).codes.tobytes())
        chip.wait(3.0)
        if config.cells.drift.law != "none" and config.cells.drift.activation_energy > 0.0:
            chip.wait(3.0, kelvin=350.0)
        chip.write(layer, np.floor(rng.random(shape) * n_levels).astype(np.int64), rng.random(shape) < 0.5)
        total.update(chip.mvm(layer, codes).codes.tobytes())
        chip.age(1e12, {layer: codes})
        total.update(chip.mvm(layer, codes).codes.tobytes())
        chip.wait(1e4)
        total.update(chip.mvm(layer, codes).codes.tobytes())
        total.update(chip.conductances(layer).tobytes())
    # nominal cells: what other settings do to the state is in the answers already
    codes_of = {layer: np.full((1, info.n_rows), high) for layer, info in chip.layers.items()}
    total.update(repr((chip.ledger, chip.bill(codes_of), chip.area)).encode())
    return total.hexdigest()


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    return {}


def cached(known: dict[str, str], table: dict[str, Any]) -> str:
    name = repr(table)
    if name not in known:
        known[name] = results(table)
    return known[name]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("key", ROWS)
def test_a_switched_setting_changes_something_or_says_why_not(key: str, known: dict[str, str]) -> None:
    base = BASE
    refused = ""
    try:
        table = switched(base, key)
        config = parse(ChipConfig, table)
        changed = results(table) != cached(known, base)
    except InputError as error:
        refused = str(error)
    if refused:
        named = key.split(".")[-1] in refused
        assert named, f"{key}: refused without being named: {refused}"
        return
    messages = [text for text in unread_settings(config) if text.startswith(f"{key} ")]
    assert changed or messages, f"{key} = {table} changes nothing and says nothing"
    assert not (changed and messages), f"{key} is said to have no effect, but has: {messages}"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("key", [key for rule in RULES for key in rule.keys])
def test_what_a_setting_is_said_to_need_makes_it_matter(key: str, known: dict[str, str]) -> None:
    partner = PARTNERS[key]
    table = switched(partner, key)
    assert not [t for t in unread_settings(parse(ChipConfig, table)) if t.startswith(f"{key} ")]
    assert results(table) != cached(known, partner)


def test_rules_name_declared_settings() -> None:
    assert {key for rule in RULES for key in rule.keys} <= set(ROWS)


def test_the_harness_sees_no_change_where_there_is_none(known: dict[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert results(BASE) == cached(known, BASE)


def test_a_disturb_preset_with_a_voltage_of_its_own(tmp_path):
    """As `fit-device` writes one: its law holds at the median voltage of the measurements, not at 0.2 V."""
    preset = tmp_path / "stress.toml"
    preset.write_text(
        '[preset]\ntitle = "stress"\n[sources]\nlab = "a test"\n[cells]\nlaw = "lognormal"\n'
        '[disturb]\nlaw = "power"\n'
        'v_read = { value = 0.325, unit = "V", mark = "measured", source = "lab" }\n'
    )
    config = ChipConfig(
        disturb=DisturbConfig(preset=str(preset), v_read=0.3),
        converters=ConverterConfig(v_read=0.3),
    )
    assert config.disturb.law == "power"
    assert unread_settings(config) == []
