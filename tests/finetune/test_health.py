"""The health report says what is wrong with a chip, and nothing about a sound one."""

import dataclasses

import numpy as np
import pytest

from finetune import tune
from finetune.health import Health
from finetune.plot_health import health_figure
from rramsim.cell import ReadNoiseConfig
from rramsim.chip.converters import ConverterConfig, ConverterErrors
from rramsim.chip.simulated import SimulatedChip
from rramsim.chip.variation import VariationConfig
from rramsim.host.layer import layer_shapes
from tests.finetune import small


def errors(**sizes):
    return {"converters": ConverterConfig(errors=ConverterErrors(**sizes))}


CASES = [
    ({}, None),
    ({"sigma": 0.5}, None),
    ({"kind": "reference", "sigma": 0.1}, None),
    ({"variation": VariationConfig(write_bias=-0.3)}, "of what the written levels stand for"),
    (errors(adc_offset=6.0), "offsets of conversions differ by"),
    ({"sigma": 0.1, **errors(adc_gain=0.3)}, "gains of conversions differ by"),
    ({"variation": VariationConfig(dead_bit_rate=0.1)}, "bit lines answer nothing"),
    ({"variation": VariationConfig(dead_word_rate=0.1)}, "word lines do not act"),
    ({"stuck": 0.1}, "at any level: additive errors or stuck cells"),
]


@pytest.mark.parametrize(("changes", "said"), CASES, ids=lambda value: str(value)[:40])
def test_deviations_are_said(net, calibration, changes, said):
    number = 0 if said is not None else 1
    report = tune(small.chip(net, number, **changes), net, net, calibration, strategy="lsq.rewrite(passes=1)")
    found = report.health.deviations
    if said is None:
        assert found == []
        assert "It behaves like its datasheet." in report.health.text()
    else:
        assert any(said in sentence for sentence in found), found
        assert "This chip does not behave like its datasheet:" in report.health.text()


def test_noise_and_spread_are_measured(net, calibration):
    config = small.config(sigma=0.3)
    noisy = dataclasses.replace(config.cells, read_noise=ReadNoiseConfig(sigma_relative=0.15))
    chip = SimulatedChip(dataclasses.replace(config, cells=noisy), layer_shapes(net), seed=5, chip=0)
    health = tune(chip, net, net, calibration).health
    assert any("noise of single reads is" in sentence for sentence in health.deviations)
    assert health.layers[-1].sigma_relative == pytest.approx(0.3, abs=0.08)
    assert 0.2 < health.repeated_share < 0.8  # half of the variance is fixed
    assert max(entry.reads for entry in health.layers) > 1
    quiet = tune(small.chip(net), net, net, calibration).health
    for entry in quiet.layers:
        assert entry.noise_codes == pytest.approx(entry.noise_expected, rel=0.15)


def test_report_is_drawn_and_says_when_nothing_is_known(net, calibration):
    report = tune(small.chip(net), net, net, calibration, strategy="lsq.affine")
    assert report.health.text().startswith("Nothing was identified")
    health = tune(small.chip(net), net, net, calibration, strategy="lsq.rewrite(passes=1)").health
    figure = health_figure(health)
    assert len(figure.axes) == 4
    drawn = figure.axes[0].lines[0].get_xdata()
    np.testing.assert_allclose(drawn, [entry.noise_codes for entry in health.layers])
    assert isinstance(health, Health)
