"""Weights that the cells hold, and every cell as a table."""

from __future__ import annotations

import csv

import h5py
import numpy as np
import pytest

from rramsim.blackbox.gate import Gate
from rramsim.blackbox.protocol import Tier
from rramsim.checks import InputError
from rramsim.chip.simulated import SimulatedChip
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from rramsim.network import zoo
from tests.finetune.small import config


def deployed(kind, sigma):
    network = zoo.mlp((20, 18, 5))
    chip = SimulatedChip(config(kind=kind, sigma=sigma), layer_shapes(network), seed=2, chip=1)
    deployment = Deployment(network, chip)
    deployment.map(np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32))
    return deployment, chip


@pytest.mark.parametrize("kind", ["differential", "reference", "sliced"])
def test_realised_weights_are_the_targets_on_error_free_cells(kind):
    deployment, _ = deployed(kind, 0.0)
    for layer in deployment.layers:
        host = deployment.layers[layer]
        zero = 0.0 if host.zero_point is None else host.zero_point
        stored = (deployment.stored_weights(layer) - zero) * host.scale
        np.testing.assert_allclose(deployment.weights(layer, realised=True), stored, atol=2e-6)


def test_realised_weights_follow_the_cells_and_a_black_box_does_not_tell():
    deployment, chip = deployed("differential", 0.3)
    layer = next(iter(deployment.layers))
    g = chip.conductances(layer).astype(np.float64)
    wanted = (g[..., 0] - g[..., 1]) / chip.layers[layer].g_unit * deployment.layers[layer].scale
    np.testing.assert_allclose(deployment.weights(layer, realised=True), wanted, rtol=1e-5, atol=1e-7)
    with pytest.raises(InputError, match="needs a simulated chip"):
        deployment.on(Gate(chip, Tier.LAYERS)).weights(layer, realised=True)


@pytest.mark.parametrize("kind", ["differential", "reference"])
def test_export_names_every_cell(kind, tmp_path):
    deployment, chip = deployed(kind, 0.3)
    levels = {name: host.levels for name, host in deployment.layers.items()}
    chip.export(tmp_path / "cells.csv", levels)
    chip.export(tmp_path / "cells.h5", levels)
    with (tmp_path / "cells.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = {name: np.full(array.shape, np.nan) for name, array in levels.items()}
    places = set()
    for row in rows:
        place = tuple(row[k] for k in ("layer", "row_tile", "column_tile", "word_line", "bit_line"))
        assert place not in places
        places.add(place)
        assert 0 <= int(row["word_line"]) < 16
        assert 0 <= int(row["bit_line"]) < 16
        if int(row["column"]) >= 0:
            index = int(row["row"]), int(row["column"]), int(row["cell"])
            assert int(row["target"]) == levels[row["layer"]][index]
            found[row["layer"]][index] = float(row["conductance [S]"])
        else:
            assert kind == "reference"
    for layer, values in found.items():
        np.testing.assert_allclose(values, chip.conductances(layer), rtol=1e-6)
    with h5py.File(tmp_path / "cells.h5") as file:
        assert [file[name].attrs["layer"] for name in file] == list(levels)
        assert sum(len(file[name]["conductance"]) for name in file) == len(rows)
        assert file["0000/conductance"].attrs["unit"] == "S"


def test_export_refuses_other_endings_and_shapes(tmp_path):
    deployment, chip = deployed("differential", 0.0)
    with pytest.raises(InputError, match="must end in"):
        chip.export(tmp_path / "cells.txt")
    layer = next(iter(deployment.layers))
    with pytest.raises(InputError, match="must have shape"):
        chip.export(tmp_path / "cells.csv", {layer: np.zeros((2, 2, 2), int)})
