"""Images shared out over processes: the bits of one process, and clear errors."""

import numpy as np
import pytest

from rramsim.cell import CellsConfig, DisturbConfig, ReadNoiseConfig
from rramsim.checks import InputError
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.host.deployment import Deployment
from rramsim.host.evaluation import evaluate_images
from rramsim.host.layer import layer_shapes
from rramsim.network import Network
from tests.chip.conftest import conv_network

CONFIG = ChipConfig(
    mapping=MappingConfig(tile_rows=16, tile_cols=8),
    cells=CellsConfig(read_noise=ReadNoiseConfig(sigma_relative=0.05)),
    disturb=DisturbConfig(law="power", state_step=64),
)


@pytest.fixture
def deployed():
    """A noisy, disturbed chip and images of several batches, the last one not full."""
    whole = conv_network(groups=2)
    network = Network(whole.nodes, whole.input_shape, whole.output, whole.name, {"batch": 4})
    chip = SimulatedChip(CONFIG, layer_shapes(network), seed=3)
    images = np.random.default_rng(5).random((18, *network.input_shape), dtype=np.float32)
    deployment = Deployment(network, chip)
    deployment.map(images)
    deployment.run(images)  # counters and stress that evaluation must leave alone
    return deployment, images


def test_any_number_of_workers_gives_the_same_bits(deployed):
    deployment, images = deployed
    before, reads = deployment.chip.state_dict(), deployment.chip.ledger
    want = deployment.fork(7).run(images)
    heard = []
    np.testing.assert_array_equal(evaluate_images(deployment, images, stream=7), want)
    got = evaluate_images(deployment, images, workers=2, stream=7, progress=heard.append)
    np.testing.assert_array_equal(got, want)
    assert sum(heard) == len(images)
    assert not np.array_equal(evaluate_images(deployment, images, stream=8), want)
    assert deployment.chip.ledger == reads
    after = deployment.chip.state_dict()
    for name, state in before.items():
        assert after[name]["n_read"] == state["n_read"]
    np.testing.assert_array_equal(deployment.fork(7).run(images), want)


def test_forks_count_on_from_any_vector(deployed):
    deployment, images = deployed
    fork = deployment.fork(1)
    fork.run(images[:8])
    rest = fork.run(images[8:])
    seen = {name: costs.vectors for name, costs in _costs(fork).items()}
    first = {name: seen[name] * 8 // len(images) for name in seen}
    again = deployment.on(deployment.chip.fork(1, first)).run(images[8:])
    np.testing.assert_array_equal(again, rest)


def _costs(deployment):
    return deployment.chip.ledger.layers


class RealChip:
    """A chip with the protocol alone."""

    def __init__(self, chip):
        self._chip = chip
        for name in ("datasheet", "layers", "ledger", "write", "configure", "mvm", "wait"):
            setattr(self, name, getattr(chip, name))


def test_chips_that_cannot_be_copied_run_in_place_by_one_worker(deployed):
    deployment, images = deployed
    real = deployment.on(RealChip(deployment.chip))
    with pytest.raises(InputError, match="cannot be copied to 2 workers"):
        evaluate_images(real, images, workers=2)
    assert evaluate_images(real, images).shape == (18, 5)


def test_errors_of_a_worker_arrive(deployed):
    deployment, images = deployed
    with pytest.raises(InputError, match="workers must be >= 1"):
        evaluate_images(deployment, images, workers=0)
    with pytest.raises(InputError, match="must have shape"):  # before any worker starts
        evaluate_images(deployment, images[:, :1], workers=2)
    unmapped = Deployment(deployment.network, deployment.chip)
    with pytest.raises(InputError, match=r"call map\(\.\.\.\) first"):  # found in the worker
        evaluate_images(unmapped, images, workers=2)
