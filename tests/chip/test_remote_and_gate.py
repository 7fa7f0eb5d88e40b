"""The same calls through a gate and to a chip in another process."""

import multiprocessing
import threading
from multiprocessing.connection import Listener

import numpy as np
import pytest

from rramsim.blackbox.gate import Gate, TierError
from rramsim.blackbox.protocol import ChipProtocol, Tier
from rramsim.blackbox.remote import RemoteChip, serve_chip
from rramsim.checks import InputError
from rramsim.chip.simulated import SimulatedChip
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from tests.chip.conftest import conv_network, exact_chip

KEY = b"test"


def _serve(config, shapes, pipe):
    listener = Listener(("127.0.0.1", 0), authkey=KEY)
    pipe.send(listener.address)
    serve_chip(SimulatedChip(config, shapes), listener)
    listener.close()


@pytest.fixture
def network():
    return conv_network(groups=2)


def test_a_chip_in_another_process_gives_the_same_logits_and_costs(network, images):
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    config = exact_chip()
    process = context.Process(target=_serve, args=(config, layer_shapes(network), there), daemon=True)
    process.start()
    remote = RemoteChip(here.recv(), KEY)
    local = SimulatedChip(config, layer_shapes(network))
    outputs = []
    for chip in (remote, local):
        deployment = Deployment(network, chip)
        deployment.map(images)
        outputs.append(deployment.run(images))
    np.testing.assert_array_equal(*outputs)
    assert remote.ledger == local.ledger
    assert isinstance(remote, ChipProtocol)
    with pytest.raises(InputError, match="did you mean 'conv1'"):
        remote.mvm("conv", np.zeros((1, 2), dtype=np.int16))
    remote.close()
    process.join(30)
    assert process.exitcode == 0


def test_the_server_ends_when_the_client_hangs_up(network):
    with Listener(("127.0.0.1", 0), authkey=KEY) as listener:
        chip = SimulatedChip(exact_chip(), layer_shapes(network))
        thread = threading.Thread(target=serve_chip, args=(chip, listener))
        thread.start()
        remote = RemoteChip(listener.address, KEY)
        remote.wait(1.0)
        remote.close()
        thread.join(30)
        assert not thread.is_alive()


def deploy(network, tier):
    gate = Gate(SimulatedChip(exact_chip(), layer_shapes(network)), tier)
    deployment = Deployment(network, gate)
    return gate, deployment


def test_layer_tier_lets_recorded_vectors_pass_and_no_others(network, images):
    gate, deployment = deploy(network, Tier.LAYERS)
    deployment.map(images)
    codes = deployment.trace(images).codes("conv2/0")
    gate.mvm("conv2/0", codes[::3])
    one_hot = np.eye(codes.shape[1], dtype=codes.dtype)
    with pytest.raises(TierError, match="declare PROBE"):
        gate.mvm("conv2/0", one_hot)
    with pytest.raises(TierError):
        gate.mvm("conv2/1", codes)  # recorded for another layer


def test_output_tier_runs_images_but_reads_no_layer(network, images):
    gate, deployment = deploy(network, Tier.OUTPUTS)
    deployment.map(images)
    assert deployment.run(images).shape == (6, 5)
    with pytest.raises(TierError, match="OUTPUTS"):
        gate.mvm("fc", np.zeros((1, 8), dtype=np.int16))


def test_probe_tier_frees_the_inputs(network, images):
    gate, deployment = deploy(network, Tier.PROBE)
    deployment.map(images)
    assert gate.mvm("fc", np.eye(8, dtype=np.int16)).codes.shape == (8, 5)


def test_a_gate_hides_what_is_not_protocol(network):
    gate, _ = deploy(network, Tier.PROBE)
    for name in ("fork", "state_dict", "age", "config"):
        assert not hasattr(gate, name)
