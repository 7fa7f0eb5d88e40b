"""Trials: methods that begin with one another share the start, and the results do not depend on it."""

import numpy as np
import pytest

from finetune.study.config import ExperimentConfig, ExperimentTable, LifetimeTable, TuningTable
from finetune.study.materials import Materials
from finetune.study.methods import method_groups, run_methods, shared_starts
from finetune.tuner import Tuner, tune
from rramsim.cell import DisturbConfig
from rramsim.checks import InputError
from tests.finetune import small

MORE = "lsq.affine + adapter(rank=1) + zo(reach=1, steps=1, images=16)"
LESS = "lsq.affine + adapter(rank=1)"
METHODS = ("mapped", MORE, "lsq.affine", LESS, f"{MORE} + lsq.affine")


def test_only_whole_stages_are_shared():
    # lsq.affine is no start of LESS: both are one fused pass
    assert shared_starts(METHODS) == {
        "mapped": None,
        "lsq.affine": None,
        LESS: None,
        MORE: LESS,
        f"{MORE} + lsq.affine": MORE,
    }
    assert shared_starts(("default", "lsq+kd+zo"))["lsq+kd+zo"] == "default"
    assert method_groups(METHODS) == [[LESS, MORE, f"{MORE} + lsq.affine"], ["mapped"], ["lsq.affine"]]


def test_shared_starts_change_no_bit():
    config = ExperimentConfig(
        experiment=ExperimentTable(
            dataset="digits", network="cnn_digits", n_calibration=32, n_test=40, n_checkpoint=20
        ),
        disturb=DisturbConfig(law="power"),
        tuning=TuningTable(strategies=(LESS, MORE)),
        lifetime=LifetimeTable(reads=(1e6,)),
    )
    materials = Materials.load(config)
    outputs = materials.network.run(materials.test.images)

    def run(methods):
        return run_methods(materials, outputs, 100, methods, lambda *_: None)

    together = run((LESS, MORE))
    for method in (LESS, MORE):
        alone = run((method,))[method]
        assert alone.keys() == together[method].keys()
        for name, values in alone.items():
            if name != "timing/seconds":
                np.testing.assert_array_equal(values, together[method][name], err_msg=name)
    assert together[MORE]["ledger/vectors"].sum() > together[LESS]["ledger/vectors"].sum()


def test_going_on_from_another_strategy():
    net, calibration = small.network(), small.images()
    short = Tuner(small.chip(net), net, net, calibration, strategy=LESS)
    longer = Tuner(small.chip(net), net, net, calibration, strategy=MORE)
    for _ in range(2):  # not begun, then under way
        with pytest.raises(InputError, match="not at its end"):
            longer.go_on_from(short.state_dict())
        short.step()
    while not short.step():
        pass
    with pytest.raises(InputError, match="'batch_norm' does not begin with"):
        Tuner(small.chip(net), net, net, calibration, strategy="batch_norm").go_on_from(short.state_dict())
    longer = Tuner(small.chip(net), net, net, calibration, strategy=MORE)
    longer.go_on_from(short.state_dict())
    while not longer.step():
        pass
    alone = tune(small.chip(net), net, net, calibration, strategy=MORE)
    assert longer.report().ledger == alone.ledger
    for name, host in alone.deployment.layers.items():
        np.testing.assert_array_equal(host.gain, longer.report().deployment.layers[name].gain)
