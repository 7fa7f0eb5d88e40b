"""The read kernels against their definition, and what they promise about noise and about splitting."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from rramsim.blackbox.windows import WindowCodes
from rramsim.cell import CellsConfig, ReadNoiseConfig
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.kernels.read_simd import turn
from rramsim.kernels.windows import Geometry

SHAPE = (37, 11)  # word lines and columns that fill no register tile


def chip(**changes):
    settings = {
        "mapping": MappingConfig(tile_rows=16, tile_cols=128),
        "cells": CellsConfig(read_noise=ReadNoiseConfig(sigma_relative=0.05)),
    }
    made = SimulatedChip(ChipConfig(**(settings | changes)), {"layer": SHAPE}, seed=2)
    made.write(
        "layer", np.random.default_rng(0).integers(0, 16, (*SHAPE, made.layers["layer"].cells_per_weight))
    )
    made.configure("layer", input_range=(-0.2, 0.2), output_range=2e-5)
    return made


@pytest.mark.parametrize("shape", [(16, 16), (33, 47), (5, 100), (100, 5), (1, 1)])
@pytest.mark.parametrize("kind", [np.int16, np.int32])
@pytest.mark.parametrize("to", [np.int32, np.float32])
def test_turn_transposes(shape, kind, to):
    codes = np.random.default_rng(1).integers(-30_000, 30_000, shape).astype(kind)
    pitch = shape[0] + 7
    out = np.full(shape[1] * pitch, -1, dtype=to)
    turn(codes, out, pitch)
    np.testing.assert_array_equal(out.reshape(shape[1], pitch)[:, : shape[0]], codes.T)
    assert (out.reshape(shape[1], pitch)[:, shape[0] :] == -1).all()


@pytest.mark.parametrize("kind", ["differential", "reference"])
@pytest.mark.parametrize("converters", [{}, {"input_mode": "bit_serial"}, {"drive": "two_phase"}])
def test_calls_may_be_split_anywhere(kind, converters):
    """Noise belongs to a vector's number, so parts of a call answer as the whole does, marks too."""
    codes = np.random.default_rng(5).integers(-127, 128, (300, SHAPE[0]))
    settings = {
        "mapping": MappingConfig(kind=kind, tile_rows=16),
        "converters": ConverterConfig(adc_bits=6, **converters),
    }
    whole = chip(**settings).mvm("layer", codes, per_tile=True)
    other = chip(**settings)
    parts = [other.mvm("layer", part, per_tile=True) for part in np.array_split(codes, [1, 18, 147, 275])]
    np.testing.assert_array_equal(whole.codes, np.concatenate([part.codes for part in parts]))
    np.testing.assert_array_equal(whole.saturated, np.concatenate([part.saturated for part in parts]))
    assert whole.saturated.any()
    assert not whole.saturated.all()


@pytest.mark.parametrize("n_threads", [2, 3, 50])
def test_threads_change_no_bit(monkeypatch, n_threads):
    geometry = Geometry(2, 2, 1, 1, 1, 1, 0, 0, 0, 0, 6, 6)
    maps = np.random.default_rng(6).integers(-127, 128, (7, 9, 7, 7))
    for codes in (np.random.default_rng(5).integers(-127, 128, (700, 36)), WindowCodes(maps, geometry)):
        answers = []
        for count in (1, n_threads):
            monkeypatch.setattr("rramsim.chip.layer.get_num_threads", lambda count=count: count)
            made = SimulatedChip(
                ChipConfig(cells=CellsConfig(read_noise=ReadNoiseConfig(sigma_relative=0.05))),
                {"layer": (36, 9)},
            )
            made.configure("layer", input_range=(-0.2, 0.2), output_range=2e-6)
            answers.append(made.mvm("layer", codes).codes)
        np.testing.assert_array_equal(*answers)


def test_windows_of_maps_read_as_their_matrix():
    """Noise included: a convolution is only another layout of the same vectors."""
    geometry = Geometry(3, 2, 2, 1, 1, 2, 1, 0, 1, 1, 4, 5)
    maps = np.random.default_rng(6).integers(-127, 128, (3, 5, 8, 6))
    windows = WindowCodes(maps, geometry)
    answers = []
    for codes in (windows, np.asarray(windows)):
        made = SimulatedChip(
            ChipConfig(cells=CellsConfig(read_noise=ReadNoiseConfig(sigma_relative=0.05))), {"layer": (30, 9)}
        )
        made.write("layer", np.random.default_rng(0).integers(0, 16, (30, 9, 2)))
        made.configure("layer", input_range=(-0.2, 0.2), output_range=2e-5)
        answers.append(made.mvm("layer", codes).codes)
    np.testing.assert_array_equal(*answers)


def test_noise_of_channels_from_one_hash_is_independent_and_normal():
    """Four channels share a hash: their noise must not correlate, nor must its squares."""
    made = SimulatedChip(
        ChipConfig(
            cells=CellsConfig(sigma=0.0, fixed_fraction=0.0, read_noise=ReadNoiseConfig(sigma_relative=0.0)),
            converters=ConverterConfig(adc_bits=16, adc_noise=20.0),
        ),
        {"layer": (4, 8)},
    )
    made.configure("layer", output_range=1e-3)
    n = 200_000
    noise = made.mvm("layer", np.zeros((n, 4), dtype=int)).codes.astype(float)
    noise /= noise.std(axis=0)
    limit = 5.0 / np.sqrt(n)  # 28 pairs twice: one false alarm in 30,000 correct programs
    for values, scale in ((noise, 1.0), (noise**2, 2.0)):
        centred = values - values.mean(axis=0)
        covariance = centred.T @ centred / n / scale
        assert np.abs(covariance - np.diag(np.diag(covariance))).max() < limit
    assert np.abs((noise**4).mean(axis=0) - 3.0).max() < 5.0 * np.sqrt(96.0 / n)


def test_without_compilation_the_same_codes():
    """NUMBA_DISABLE_JIT=1, for debuggers and profilers: NumPy stands in for vector code."""
    script = """
import warnings
import numpy as np
from rramsim import ChipConfig, SimulatedChip
from rramsim.chip.converters import ConverterConfig
warnings.simplefilter("ignore", RuntimeWarning)  # NumPy scalars tell when a hash wraps
chip = SimulatedChip(ChipConfig(converters=ConverterConfig(adc_noise=0.5)), {"layer": (19, 5)}, seed=3)
chip.write("layer", np.random.default_rng(0).integers(0, 16, (19, 5, 2)))
chip.configure("layer", input_range=(-0.2, 0.2), output_range=1e-5)
print(chip.mvm("layer", np.random.default_rng(1).integers(-127, 128, (18, 19))).codes.tolist())
"""
    answers = []
    for disabled in ("0", "1"):
        environment = dict(os.environ, NUMBA_DISABLE_JIT=disabled)
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
        answers.append(np.array(json.loads(done.stdout)))
    assert np.abs(answers[0] - answers[1]).max() <= 1  # sums are ordered otherwise: a tie may round otherwise
    assert (answers[0] != answers[1]).mean() < 0.05
