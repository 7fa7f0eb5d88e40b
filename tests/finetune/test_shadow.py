"""What a teacher shadows of the inputs that a chip serves."""

import numpy as np
import pytest

from finetune.caretaker import Caretaker
from finetune.shadow import Shadow
from finetune.strategies.maintain import Maintain
from finetune.tuner import tune
from rramsim.cell import DisturbConfig
from rramsim.checks import InputError
from rramsim.chip.simulated import SimulatedChip
from rramsim.host.layer import layer_shapes
from tests.finetune import small


def numbered(first, n):
    """Inputs that tell when they came."""
    return np.arange(first, first + n, dtype=np.float32)[:, None]


def test_a_random_share_is_kept_and_the_oldest_go():
    """20,000 inputs at 1 %: 200 expected with a standard deviation of 14; false alarm 6e-5 (seed 3)."""
    shadow = Shadow(share=0.01, size=50, seed=3)
    for block in range(20):
        shadow.see(numbered(1000 * block, 1000))
    assert shadow.seen == 20_000
    assert abs(shadow.kept - 200) < 4 * 14.1
    assert shadow.images.shape == (50, 1)
    assert (np.diff(shadow.images[:, 0]) > 0).all()
    assert shadow.images[0, 0] > 12_000  # 50 of 200 kept: the last quarter, to within 4 standard deviations
    again = Shadow(share=0.01, size=50, seed=3)
    again.see(numbered(0, 20_000))
    np.testing.assert_array_equal(again.images, shadow.images)  # blocks do not matter


def test_visits_on_served_inputs_keep_the_chip(net, calibration):
    config = small.config(disturb=DisturbConfig(law="drift", parameters={"rate": 0.15}))
    served = small.images(4000, seed=8)
    errors = []
    for visits in (False, True):
        chip = SimulatedChip(config, layer_shapes(net), seed=5, chip=0)
        report = tune(chip, net, net, calibration, strategy="default")
        caretaker = Caretaker(
            chip,
            net,
            net,
            calibration,
            report.deployment.on(chip),
            maintain=Maintain(rate=0.15, uniform=True),
        )
        shadow = Shadow(share=0.05, size=64, seed=1)
        for period in range(3):
            shadow.see(served[1000 * period : 1000 * (period + 1)])
            chip.age(1e6)
            if visits:
                caretaker.visit(images=shadow.images)
        errors.append(small.logit_error(net, caretaker.deployment.fork()))
    assert errors[1] < 0.2 * errors[0]


def test_mistakes_are_named():
    with pytest.raises(InputError, match=r"share must be in \(0, 1\], got 1000"):
        Shadow(share=1000)
    with pytest.raises(InputError, match="size must be >= 1"):
        Shadow(size=0)
    shadow = Shadow(share=1e-9)
    shadow.see(np.zeros((3, 2)))
    with pytest.raises(InputError, match="nothing kept of 3 inputs"):
        _ = shadow.images
    with pytest.raises(InputError, match="must keep their shape"):
        shadow.see(np.zeros((3, 4)))
