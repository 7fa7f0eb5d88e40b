"""A recorded session gives the same tuning decisions without the chip, bit for bit."""

import numpy as np
import pytest

from finetune import tune
from rramsim.blackbox.recording import RecordingChip, ReplayChip
from rramsim.checks import InputError
from tests.fake_chip import FakeChip
from tests.finetune import small


@pytest.mark.filterwarnings("ignore:the teacher puts all 24")  # random weights have a favourite class
def test_a_session_replays_to_the_same_tuning_decisions(tmp_path):
    net, images = small.network(), small.images(24)
    with RecordingChip(small.chip(net), tmp_path / "session.h5") as chip:
        then = tune(chip, net, net, images, strategy="lsq.affine")
    replay = ReplayChip(tmp_path / "session.h5")
    now = tune(replay, net, net, images, strategy="lsq.affine")
    assert replay.n_left == 0
    assert now.history == then.history
    assert (now.vectors, now.cell_writes) == (then.vectors, then.cell_writes)
    assert now.ledger == then.ledger
    for name, host in then.deployment.layers.items():
        for key, value in vars(host).items():
            np.testing.assert_array_equal(vars(now.deployment.layers[name])[key], value, err_msg=key)
    assert now.deployment.layers["conv1"].gain.std() > 0  # something was tuned


def session(chip):
    chip.configure("fc", input_range=(0.0, 0.2), output_range=1e-4)
    chip.write("fc", np.full((6, 4, 2), 3))
    reading = chip.mvm("fc", np.ones((5, 6), np.int16), per_tile=True)
    chip.wait(2.0)
    return reading


def test_another_call_than_then_is_refused_with_its_number(tmp_path):
    path = tmp_path / "session.h5"
    with RecordingChip(FakeChip({"fc": (6, 4)}), path) as chip:
        then = session(chip)
    replay = ReplayChip(path)
    now = session(replay)
    np.testing.assert_array_equal(now.codes, then.codes)
    np.testing.assert_array_equal(now.saturated, then.saturated)
    with pytest.raises(InputError, match="ended after 4 calls, a wait of 1 s is one more"):
        replay.wait(1.0)
    replay = ReplayChip(path)
    replay.configure("fc", input_range=(0.0, 0.2), output_range=1e-4)
    with pytest.raises(InputError, match="call 1 of the session was another 'write'"):
        replay.write("fc", np.full((6, 4, 2), 4))
    with pytest.raises(InputError, match="a read of 'fc'"):
        replay.mvm("fc", np.ones((5, 6), np.int16))


def test_an_interrupted_session_counts_and_none_is_written_over(tmp_path):
    path = tmp_path / "session.h5"
    chip = RecordingChip(FakeChip({"fc": (6, 4)}), path)
    session(chip)
    with pytest.raises(InputError, match="never written over"):
        RecordingChip(FakeChip({"fc": (6, 4)}), path)
    chip.close()
    session(ReplayChip(path))
    (tmp_path / "no.h5").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable session"):
        ReplayChip(tmp_path / "no.h5")
