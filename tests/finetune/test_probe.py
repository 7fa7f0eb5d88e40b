"""Designed vectors: a tier of their own, refused by the gate unless declared."""

import numpy as np
import pytest

from finetune.bench import Bench
from finetune.evidence.layer import Work
from finetune.evidence.samples import Probes, take_samples
from finetune.strategies.composition import parse_strategy
from finetune.strategies.identify import Identify
from finetune.strategies.rewrite import Rewrite
from finetune.tuner import tune
from rramsim.blackbox.gate import TierError
from rramsim.blackbox.protocol import Tier
from tests.finetune import small


def work_on(net, calibration, layer, tier):
    chip = small.chip(net)
    bench = Bench(chip, net, net, calibration, tier=tier, start_from=small.mapped(net, chip, calibration))
    return bench, Work(bench, bench.deployment.trace(calibration), layer)


@pytest.mark.parametrize("step", [Identify, Rewrite])
def test_probing_declares_its_tier_and_the_gate_holds_it_to_that(net, calibration, step):
    assert step().tier == Tier.LAYERS
    assert step(probe=True).tier == Tier.PROBE
    _bench, work = work_on(net, calibration, "conv2/0", Tier.LAYERS)
    with pytest.raises(TierError, match="declare PROBE"):
        step(probe=True).tune_layer(work)
    step(probe=True).tune_layer(work_on(net, calibration, "conv2/0", Tier.PROBE)[1])


def test_reports_tell_the_tier(net, calibration):
    assert parse_strategy("lsq.affine").needed_tier == Tier.LAYERS
    text = "lsq.rewrite(probe=True) + lsq.affine"
    assert parse_strategy(text).needed_tier == Tier.PROBE
    report = tune(small.chip(net), net, net, calibration, strategy=text)
    assert report.tier == Tier.PROBE
    assert small.logit_error(net, report.deployment) < 0.05
    assert tune(small.chip(net), net, net, calibration, strategy="lsq.affine").tier == Tier.LAYERS


@pytest.mark.parametrize("layer", ["conv1", "conv2/0", "fc"])
def test_designed_vectors_determine_what_activations_leave_open(net, calibration, layer):
    bench, work = work_on(net, calibration, layer, Tier.PROBE)
    samples = take_samples(work)
    probes = Probes(work, samples)
    values = np.unique(probes.codes)
    assert values.size == (3 if work.host.signed else 2)  # all driven rows alike
    assert (np.abs(probes.codes).max(axis=0) > 0).all()  # every row is driven
    assert probes.read().saturated.mean() < 0.02
    # what is known least: the smallest second moment of any direction
    assert np.linalg.eigvalsh(probes.gram)[0] > 5.0 * np.linalg.eigvalsh(samples.gram)[0]
    determined = []
    for probe in (False, True):
        Identify(probe=probe).tune_layer(work)
        determined.append(bench.history[-1]["determined"])
    assert determined[1] > 0.99
    assert determined[1] >= determined[0] - 0.005
