"""The benchmark's torch twins, and its rows where peers are absent or fail."""

import sys

import numpy as np
import pytest

from benchmarks import peers
from rramsim.network import zoo

RTOL = 1e-4  # of the largest output


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on import
@pytest.mark.parametrize("make", [zoo.mlp, zoo.lenet5, zoo.resnet8])
def test_twins_compute_what_the_networks_do(make):
    torch = pytest.importorskip("torch", reason="the extra 'train' is not installed")
    network = make()
    x = np.random.default_rng(0).random((2, *network.input_shape), dtype=np.float32)
    with torch.no_grad():
        got = peers.to_torch(network)(torch.from_numpy(x)).numpy()
    want = network.run(x)
    assert np.abs(got - want).max() <= RTOL * np.abs(want).max()


def test_absent_and_failing_peers_give_a_note(monkeypatch):
    monkeypatch.setitem(sys.modules, "simulator", None)
    monkeypatch.setattr(peers, "SECONDS", 0.01)

    def fails(network, x):
        yield "first", lambda: None, len(x)
        raise RuntimeError("of its own")

    monkeypatch.setattr(peers, "ADAPTERS", {"CrossSim": peers.crosssim, "other": fails})
    network = zoo.mlp((4, 3))
    rows = list(peers.measure_peers({"a": (network, 2), "b": (network, 2)}, {"a": 1.0, "b": 1.0}))
    assert [row.get("note") for row in rows] == [
        "not installed (no module 'simulator')",
        None,
        "failed: RuntimeError: of its own",
        None,
        "failed: RuntimeError: of its own",
    ]
    assert rows[1]["what"] == "other: first"
    assert "not installed" in peers.line(rows[0])
    assert peers.line(rows[1]).endswith("x  (batch 2)")
