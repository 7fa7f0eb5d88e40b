"""Temperature and drift: waiting at a temperature, and activation energies from measured retention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rramsim import streams
from rramsim.blackbox.recording import RecordingChip, ReplayChip
from rramsim.cell import CellArray, CellsConfig, DriftConfig
from rramsim.cell.fit import fit
from rramsim.checks import InputError
from rramsim.chip.config import ChipConfig
from rramsim.chip.simulated import SimulatedChip

EV = 1.602176634e-19
BOLTZMANN = 1.380649e-23
DRIFT = {"law": "logarithmic", "mean_polynomial": (-2e-7,), "sigma_polynomial": (5e-8,), "t_reference": 1.0}


def config(energy: float) -> CellsConfig:
    drift = DriftConfig(**DRIFT, activation_energy=energy, kelvin=300.0)  # type: ignore[arg-type]
    return CellsConfig(levels=(1e-5, 2e-5, 4e-5), law="normal", sigma_conductance=(3e-7,), drift=drift)


def test_time_at_a_temperature_counts_by_arrhenius() -> None:
    factor = np.exp(1.0 * EV / BOLTZMANN * (1 / 300 - 1 / 350))
    warm, cool = (CellArray((8, 8), config(EV), seed=3) for _ in range(2))
    for array in (warm, cool):
        array.write(np.full((8, 8), 2))
    warm.wait(10.0, 350.0)
    cool.wait(10.0 * factor)
    np.testing.assert_allclose(warm.conductance, cool.conductance, rtol=1e-6)
    fresh = CellArray((8, 8), config(EV), seed=3)
    fresh.write(np.full((8, 8), 2))
    fresh.wait(10.0)
    assert (fresh.conductance > warm.conductance).mean() > 0.9  # the warm ones have drifted more
    same = CellArray((8, 8), config(EV), seed=3)
    same.write(np.full((8, 8), 2))
    same.wait(10.0, 300.0)
    np.testing.assert_array_equal(same.conductance, fresh.conductance)


def a_chip(energy: float = EV) -> SimulatedChip:
    chip = SimulatedChip(ChipConfig(cells=config(energy)), {"a": (4, 3)}, seed=1)
    chip.configure("a", input_range=(0.0, 0.2), output_range=1e-5)
    chip.write("a", np.full((4, 3, 2), 2))
    return chip


def test_chip_refuses_temperatures_it_knows_nothing_about() -> None:
    with pytest.raises(InputError, match="activation_energy"):
        a_chip(0.0).wait(1.0, kelvin=350.0)
    with pytest.raises(InputError, match="Celsius"):
        a_chip().wait(1.0, kelvin=-20.0)
    with pytest.raises(InputError, match=r"1 eV is 1\.602e-19 J"):
        DriftConfig(law="logarithmic", activation_energy=1.1)


def test_recorded_waits_know_their_temperature(tmp_path: Path) -> None:
    path = tmp_path / "session.h5"
    with RecordingChip(a_chip(), path) as chip:
        chip.wait(5.0, kelvin=350.0)
        chip.wait(5.0)
    replay = ReplayChip(path)
    with pytest.raises(InputError, match="a wait of 5 s"):
        replay.wait(5.0)  # it was warm then
    replay.wait(5.0, kelvin=350.0)
    replay.wait(5.0)


def test_wrappers_ask_nothing_of_chips_without_temperature() -> None:
    from rramsim.blackbox.protocol import ForwardingChip

    asked: list[tuple[object, ...]] = []

    class Bare:
        mvm = None

        def wait(self, seconds: float) -> None:
            asked.append((seconds,))

    front = ForwardingChip(Bare())  # type: ignore[arg-type]
    front.wait(2.0)
    assert asked == [(2.0,)]
    with pytest.raises(TypeError):
        front.wait(2.0, kelvin=300.0)


def retention(path: Path, energy: float, seed: int, temperatures: tuple[float, ...]) -> None:
    """Cells read after 1 s at 300 K, then kept warm: a file as a laboratory would write it."""
    lines = ["cell,level,time (s),temperature (C),g"]
    number = 0
    for k, kelvin in enumerate(temperatures):
        array = CellArray((60, 3), config(energy), seed=seed, keys=(k,))
        array.write(np.tile(np.arange(3), (60, 1)))
        array.wait(1.0)
        shots = [(1.0, array.conductance.copy())]
        passed = 1.0
        for time in (1e2, 1e3, 1e4, 1e5):
            array.wait(time - passed, kelvin)
            passed = time
            shots.append((time, array.conductance.copy()))
        for i in range(60):
            for j in range(3):
                for time, g in shots:
                    lines.append(f"{number},{j},{time:g},{kelvin - 273.15:.2f},{g[i, j]:.9g}")
                number += 1
    path.write_text("\n".join(lines))


def test_activation_energy_is_found_again(tmp_path: Path) -> None:
    """One device through a file in degrees Celsius, and back through its preset."""
    path = tmp_path / "retention.csv"
    retention(path, 0.9 * EV, seed=11, temperatures=(300.0, 358.0, 398.0))
    found = fit(path)
    value, low, high = found.intervals()["drift activation energy"]
    assert low < 0.9 * EV < high
    assert (high - low) < 0.3 * EV
    assert value == pytest.approx(0.9 * EV, rel=0.1)
    assert any("Activation energy" in note for note in found.notes)
    found.save(tmp_path / "device.toml")
    cells = CellsConfig(preset=str(tmp_path / "device.toml"))
    assert cells.drift.activation_energy == pytest.approx(value)
    assert cells.drift.kelvin == pytest.approx(300.0, abs=0.02)


def test_coverage_of_the_interval(tmp_path: Path) -> None:
    """Eight devices of random energies, at least six within: false alarm 0.6 %; fixed seeds."""
    rng = streams.stream(7, streams.Cause.DATA)
    held = 0
    for seed in range(8):
        energy = float(rng.uniform(0.3, 1.6)) * EV
        path = tmp_path / f"{seed}.csv"
        retention(path, energy, seed, (300.0, 370.0))
        _, low, high = fit(path).intervals()["drift activation energy"]
        held += low <= energy <= high
    assert held >= 6
