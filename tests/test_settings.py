"""Declarations of settings: every field says its unit, range and meaning, and is held to them."""

import dataclasses
import re
import warnings

import numpy as np
import pytest

from finetune.study.config import ExperimentConfig
from rramsim.cell import CellArray, CellsConfig, DisturbConfig, DriftConfig, DriftLaw, register_drift_law
from rramsim.cell.config import ReadNoiseConfig
from rramsim.cell.drift import drift_law
from rramsim.checks import InputError, UnitWarning
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.simulated import ChipConfig
from rramsim.circuit.wiring import WiresConfig
from rramsim.config import check_settings, describe, kind_of, parse, setting, unit_of

UNITS = {"1", "S", "V", "s", "J", "K", "A", "ohm", "1/V", "S or 1", "m", "m^2", "F", "F/m", "Hz", "W"}


@pytest.mark.parametrize("cls", [ExperimentConfig, ChipConfig])
def test_every_setting_is_declared(cls):
    rows = describe(cls)
    assert len(rows) > 70
    for row in rows:
        assert row.description, row.key
        assert len(row.description) < 110, row.key
        if re.search(r"\b(int|float)\b", row.type) and not row.type.startswith("dict"):
            assert row.unit in UNITS, f"{row.key}: {row.unit!r}"
            assert row.span, row.key
    keys = [row.key for row in rows]
    assert len(set(keys)) == len(keys)
    assert {
        "cells.programming.window",
        "wires.r_word",
        "converters.adc_noise",
        "faults.cluster_cells",
    } <= set(keys)


def test_a_row_of_the_reference():
    row = next(row for row in describe(ExperimentConfig) if row.key == "cells.programming.gain")
    assert row[1:6] == ("float", "1", "0.3", "(0, 2)", "fraction of the remaining error that a pulse closes")
    assert kind_of(CellsConfig, "drift") is DriftConfig
    assert kind_of(CellsConfig, "g_max") is None
    assert unit_of(CellsConfig, "iv_alpha") == "1/V"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CellsConfig(g_max=1e-40), r"g_max must lie in \[1e-18, 1e6\] siemens, got 1e-40"),
        (lambda: CellsConfig(on_off_ratio=1 + 1e-7), r"on_off_ratio must lie in \[1.001, 1e12\], got 1"),
        (lambda: CellsConfig(g_max=4e-5, g_min=4e-5 / (1 + 1e-7)), "g_max / g_min must be >= 1.001"),
        (lambda: ConverterConfig(adc_noise=np.inf), r"adc_noise must lie in \[0, 256\], got inf"),
        (lambda: ConverterConfig(adc_noise=np.nan), r"adc_noise must lie in \[0, 256\], got nan"),
        (lambda: ConverterConfig(dac_bits=7.5), "dac_bits must be a whole number, got 7.5"),
        (lambda: WiresConfig(r_word="1 ohm"), "r_word must be a number in ohm, got '1 ohm'"),
        (lambda: WiresConfig(r_bit=np.inf), "r_bit must be finite and >= 0 ohm, got inf"),
        (lambda: DisturbConfig(mode="slow"), "mode must be one of fast, exact, off, got 'slow'"),
        (lambda: ReadNoiseConfig(sigma_polynomial=(0.0, np.nan)), "sigma_polynomial must be finite, got nan"),
        (lambda: ReadNoiseConfig(t_read=-1e-6), "t_read must be > 0 seconds, got -1e-06"),
    ],
)
def test_ranges_are_kept(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CellsConfig(g_max=40.0),
            r"g_max = 40 S \(4e\+07 uS\) is outside the usual .* was 40 uS meant",
        ),
        (
            lambda: ConverterConfig(v_read=50.0),
            r"outside .* 1 mV to 5 V; .* was 50 mV meant, that is 0.05\?",
        ),
        (lambda: ConverterConfig(t_read=100.0), r"t_read = 100 s .* was 100 ns meant, that is 1e-07\?"),
        (lambda: CellsConfig(sigma=30.0), r"sigma = 30 .* was 30 % meant, that is 0.3\?"),
    ],
)
def test_implausible_magnitudes_are_warned_about(make, message):
    with pytest.warns(UnitWarning, match=message):
        make()


def test_warnings_point_at_the_callers_line():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ConverterConfig(v_read=50.0)
    assert [entry.filename for entry in caught] == [__file__]


def test_declaring_a_setting_is_enough():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Own:
        n: int = setting(3, "1", "a count", "[1, 10]")
        words: str = setting("a", "", "a word", choices=("a", "bee"))

        def __post_init__(self):
            check_settings(self, "own.")

    assert [row.key for row in describe(Own)] == ["n", "words"]
    with pytest.raises(InputError, match=r"own.n must lie in \[1, 10\], got 11"):
        Own(n=11)
    with pytest.raises(InputError, match=r"own.words must be one of a, bee, got 'be'; did you mean 'bee'"):
        Own(words="be")


class Halving(DriftLaw):
    """G halves every `period` seconds; the deviate moves it by `kick` [S]."""

    defaults = {"period": 10.0, "kick": 0.0}  # noqa: RUF012

    def conductance(self, g, seconds, e):
        return np.maximum(g * 0.5 ** (seconds / self.constants["period"]) + self.constants["kick"] * e, 0.0)


register_drift_law("test_halving", Halving)


class TestRegisteredDrift:
    def test_a_law_with_its_own_constants_from_toml(self):
        config = parse(
            CellsConfig, {"sigma": 0.0, "drift": {"law": "test_halving", "parameters": {"period": 2.0}}}
        )
        array = CellArray((3, 4), config)
        array.write(np.full((3, 4), 15))
        before = array.conductance.copy()
        array.wait(2.0)
        np.testing.assert_allclose(array.conductance, before / 2, rtol=1e-6)
        array.write(np.full((3, 4), 15), np.eye(3, 4, dtype=bool))
        np.testing.assert_allclose(array.conductance[np.eye(3, 4, dtype=bool)], before[0, 0], rtol=1e-6)

    @pytest.mark.parametrize("law", ["exponential", "logarithmic", "power"])
    def test_shipped_laws_equal_their_kernels(self, law):
        """The class called with arrays and the kernel are two versions of one law, with the same draws."""
        from rramsim.cell import drift

        unit = 1.0 if law == "power" else 1e-6
        config = DriftConfig(
            law=law, mean_polynomial=(0.05 * unit, -1e-3 * unit), sigma_polynomial=(0.02 * unit,),
            sigma_offset=(1e-7,) if law == "logarithmic" else (), t_reference=3.0, fixed_fraction=0.3,
        )  # fmt: skip
        cells = CellsConfig(n_levels=4, drift=config)
        twin = type("Twin", (type(drift_law(config)),), {})

        def conductance(self, g, seconds, e):
            return super(twin, self).conductance(g, seconds, e)

        twin.conductance = conductance
        name = f"test_twin_{law}"
        drift.register_drift_law(name, twin)
        arrays = [
            CellArray((5, 6), cells, seed=4),
            CellArray(
                (5, 6), dataclasses.replace(cells, drift=dataclasses.replace(config, law=name)), seed=4
            ),
        ]
        for array in arrays:
            array.write(np.arange(30).reshape(5, 6) % 4)
            array.wait(50.0)
            array.write(np.arange(30).reshape(5, 6) % 4, np.arange(30).reshape(5, 6) % 3 == 0)
            array.wait(500.0)
        np.testing.assert_allclose(arrays[1].conductance, arrays[0].conductance, rtol=1e-6)
        assert (arrays[0].conductance != arrays[0]._g_written).any()

    def test_mistakes_are_named(self):
        with pytest.raises(
            InputError, match=r"drift law must be one of none, .*, got 'powr'; did you mean 'power'"
        ):
            DriftConfig(law="powr")
        with pytest.raises(InputError, match=r"drift.parameters.peroid: unknown key; did you mean 'period'"):
            DriftConfig(law="test_halving", parameters={"peroid": 1.0})
        with pytest.raises(InputError, match=r"drift.parameters needs a drift law"):
            DriftConfig(parameters={"period": 1.0})
        with pytest.raises(InputError, match="exists already"):
            register_drift_law("power", Halving)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: CellsConfig(read_noise=0.02), r"read_noise must be a ReadNoiseConfig, got 0.02; write "
         r"read_noise=ReadNoiseConfig\(\.\.\.\), whose fields are .*sigma_polynomial"),
        (lambda: CellsConfig(programming="write_verify"), "programming must be a ProgrammingConfig, got"),
        (lambda: CellsConfig(drift={"law": "power"}), r"write drift=DriftConfig\(\*\*\{\.\.\.\}\)"),
        (lambda: ChipConfig(wires=2.5), "wires must be a WiresConfig, got 2.5"),
        (lambda: ChipConfig(cells={"sigma": 0.2}), "cells must be a CellsConfig, got {'sigma': 0.2}"),
        (lambda: ChipConfig(mapping="differential"), "mapping must be a MappingConfig"),
    ],
)  # fmt: skip
def test_something_else_in_place_of_a_table_is_refused(make, message):
    """A number was taken and never read; a text or a dict failed later with an AttributeError."""
    with pytest.raises(InputError, match=message):
        make()
