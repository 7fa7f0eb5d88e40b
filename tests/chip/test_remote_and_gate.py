"""The same calls through a gate and to a chip in another process."""

import multiprocessing
import threading

import numpy as np
import pytest

from finetune.caretaker import AlternatingReads
from rramsim.blackbox.gate import Gate, TierError
from rramsim.blackbox.protocol import ChipProtocol, ForwardingChip, Tier
from rramsim.blackbox.remote import ChipListener, RemoteChip, serve_chip
from rramsim.checks import InputError
from rramsim.chip.simulated import SimulatedChip
from rramsim.host.deployment import Deployment
from rramsim.host.layer import layer_shapes
from tests.chip.conftest import conv_network, exact_chip

KEY = b"test"


def _serve(config, shapes, pipe):
    listener = ChipListener(("127.0.0.1", 0), authkey=KEY)
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


@pytest.mark.filterwarnings("ignore::rramsim.checks.NoEffectWarning")
def test_the_server_ends_when_the_client_hangs_up(network):
    with ChipListener(("127.0.0.1", 0), authkey=KEY) as listener:
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


def readings_of(gate, deployment, trace, node):
    return [gate.mvm(layer, trace.codes(layer)).codes for layer in deployment.layers_of(node)]


def test_vectors_behind_a_tensor_of_the_tuners_choice_are_not_natural(network, images):
    gate, deployment = deploy(network, Tier.LAYERS)
    deployment.map(images)
    trace = deployment.trace(images)
    made_up = np.zeros((6 * 49, 4), dtype=np.float32)
    made_up[:, 0] = 1.0
    trace.put("conv1", [made_up])
    for layer in ("conv2/0", "conv2/1"):
        codes = trace.codes(layer)
        with pytest.raises(TierError, match="only vectors recorded from images"):
            gate.mvm(layer, codes)
    trace.activations("fc")  # runs conv2 on what was made up
    with pytest.raises(TierError):
        gate.mvm("fc", trace.codes("fc"))
    trace.forget_after("conv1")
    assert gate.mvm("fc", trace.codes("fc")).codes.shape == (6, 5)


def test_a_trace_continues_only_from_the_chips_own_answers(network, images):
    gate, deployment = deploy(network, Tier.LAYERS)
    deployment.map(images)
    trace = deployment.trace(images)
    readings = readings_of(gate, deployment, trace, "conv1")
    for wrong in (readings[0] + 1, readings[0][::-1], np.zeros_like(readings[0])):
        with pytest.raises(TierError, match="changed or made up"):
            trace.answer("conv1", [wrong])
    trace.answer("conv1", readings)
    vectors = gate.ledger.layers["conv1"].vectors
    answers = readings_of(gate, deployment, trace, "conv2")
    assert [reading.shape for reading in answers] == [(6 * 49, 4)] * 2
    assert gate.ledger.layers["conv1"].vectors == vectors  # the answer spared a read
    natural = deployment.trace(images).codes("conv2/0")
    np.testing.assert_array_equal(trace.codes("conv2/0"), natural)
    trace.put("conv1", [np.zeros((6 * 49, 4), dtype=np.float32)])
    trace.forget_after("norm1")
    with pytest.raises(TierError):
        trace.answer("conv2", answers)  # they belong to vectors that this trace no longer sends


def test_an_interrupted_gate_remembers_what_the_chip_answered(network, images):
    gate, deployment = deploy(network, Tier.LAYERS)
    deployment.map(images)
    readings = readings_of(gate, deployment, deployment.trace(images), "conv1")
    fresh, other = deploy(network, Tier.LAYERS)
    other.load_state_dict(deployment.state_dict())
    with pytest.raises(TierError, match="changed or made up"):
        other.trace(images).answer("conv1", readings)
    fresh.load_gate_state(gate.gate_state())
    other.trace(images).answer("conv1", readings)


@pytest.mark.parametrize("tier", [Tier.OUTPUTS, Tier.LAYERS])
def test_wrappers_hand_the_hosts_port_on_to_a_gate(tier, network, images):
    chip = SimulatedChip(exact_chip(), layer_shapes(network))
    direct = Deployment(network, chip.fork())
    wrapped = Deployment(network, AlternatingReads(ForwardingChip(Gate(chip, tier))))
    for deployment in (direct, wrapped):
        deployment.map(images)
    outputs = wrapped.run(images)
    np.testing.assert_allclose(outputs, direct.on(chip.fork()).run(images), atol=2e-2)
    codes = wrapped.trace(images).codes("fc")
    with pytest.raises(TierError):
        wrapped.chip.mvm("fc", np.eye(8, dtype=np.int16))
    assert len(codes) == len(images)


def test_a_gate_hides_what_is_not_protocol(network):
    gate, _ = deploy(network, Tier.PROBE)
    for name in ("fork", "state_dict", "age", "config"):
        assert not hasattr(gate, name)
