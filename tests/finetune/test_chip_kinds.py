"""Every strategy on every kind of chip: it runs and does no harm, or refuses before anything is written."""

import functools

import numpy as np
import pytest

from finetune.evidence.identify import cell_factors
from finetune.strategies.base import COMPONENTS
from finetune.strategies.sequential import nearest_pairs, representable
from finetune.tuner import Tuner, tune
from rramsim.blackbox.mapping import levels_from_weights, weights_from_levels
from rramsim.cell import CellsConfig
from rramsim.checks import InputError
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.simulated import ChipConfig, SimulatedChip
from rramsim.host.layer import layer_shapes
from tests.finetune import small

CELLS = {"law": "lognormal", "n_levels": 16, "g_max": 40e-6, "on_off_ratio": 30.0, "fixed_fraction": 0.5}


def config(kind="differential", iv_alpha=0.0, n_slices=2, **converters):
    return ChipConfig(
        cells=CellsConfig(sigma=0.3, iv_alpha=iv_alpha, **CELLS),
        mapping=MappingConfig(kind=kind, n_slices=n_slices, tile_rows=16, tile_cols=16),
        converters=ConverterConfig(**converters),
    )


KINDS = {
    "differential": config(),
    "reference": config("reference"),
    "sliced": config("sliced"),
    "sliced_per_line": config("sliced", adc_per_line=True),
    "per_line": config(adc_per_line=True),
    "two_phase": config(drive="two_phase"),
    "bit_serial": config(input_mode="bit_serial"),
    "nonlinear": config(iv_alpha=2.0),
}
# largest share of the plain mapping's error that may be left
STRATEGIES = {
    "batch_norm": 0.75,
    "lsq.affine": 0.25,
    "lsq.affine + adapter(rank=2)": 0.15,
    "sparse(fraction=0.1)": 0.25,
    "lsq.identify": 1.03,  # changes nothing; read noise differs
    "lsq.rewrite + lsq.affine": 0.15,
    "lsq.sequential + lsq.affine": 0.25,
    "lsq.open_loop + lsq.affine": 0.25,
    "lsq.closed_loop + lsq.affine": 0.25,
    "default": 0.1,
    "zo(reach=1, steps=1)": 0.5,
    "zo.local(rounds=10)": 0.3,
    "zo.range(rounds=1) + lsq.affine": 0.25,
    "zo.levels(trials=3) + lsq.affine": 0.25,
    "maintain + lsq.affine": 0.2,
    "reference.surrogate(steps=5)": 0.9,
}
REFUSED = {("maintain + lsq.affine", kind) for kind in ("reference", "sliced", "sliced_per_line")}


CHIPS = (0, 1, 2)  # errors are averaged over them: what one chip gains scatters widely


def new_chip(kind, number=2):
    return SimulatedChip(KINDS[kind], layer_shapes(small.network()), seed=5, chip=number)


@functools.cache
def plain_error(kind):
    net = small.network()
    mapped = [small.mapped(net, new_chip(kind, number), small.images()) for number in CHIPS]
    return np.mean([small.logit_error(net, deployment) for deployment in mapped])


def test_no_component_is_left_out():
    for name in COMPONENTS:
        assert any(name in text or name == "adapter" for text in STRATEGIES), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_helps_or_refuses(kind, strategy):
    net = small.network()
    if (strategy, kind) in REFUSED:
        chip = new_chip(kind)
        with pytest.raises(InputError, match=r"differential mapping, got '\w+'; lsq.rewrite"):
            Tuner(chip, net, net, small.images(), strategy=strategy)
        assert chip.ledger.total.cell_writes == 0
        return
    reports = [tune(new_chip(kind, n), net, net, small.images(), strategy=strategy) for n in CHIPS]
    error = np.mean([small.logit_error(net, report.deployment) for report in reports])
    assert error < STRATEGIES[strategy] * plain_error(kind)


def test_sequential_refuses_tables_beyond_memory_before_it_erases():
    net = small.network()
    chip = SimulatedChip(config("sliced", n_slices=5), layer_shapes(net), seed=5)
    with pytest.raises(InputError, match=r"at most 65536 magnitudes, got 1048576 \(5 slices of 16"):
        Tuner(chip, net, net, small.images(), strategy="lsq.sequential")
    assert chip.ledger.total.cell_writes == 0


@pytest.mark.parametrize(
    "kind, n_slices", [("differential", 1), ("reference", 1), ("sliced", 2), ("sliced", 3)]
)
def test_tables_of_weights_agree_with_the_mapping(kind, n_slices):
    sheet = SimulatedChip(config(kind, n_slices=n_slices), {"a": (4, 4)}).datasheet
    n_cells = {"differential": 2, "reference": 1, "sliced": 2 * n_slices}[kind]
    table = representable(sheet, n_cells)
    if kind == "reference":  # the lowest level lies farther from the middle one than the highest
        assert table[0] < -1.0
        table = table[1:]
    assert (np.diff(table) > 0).all()
    levels = nearest_pairs(table[:, None], sheet, n_cells)
    np.testing.assert_array_equal(levels, levels_from_weights(table[:, None], kind, sheet.levels, n_slices))
    np.testing.assert_allclose(weights_from_levels(levels, kind, sheet.levels)[:, 0], table, atol=1e-12)
    # and so do the factors by which identification counts cells
    unit = sheet.levels[-1] - sheet.levels[0]
    if kind != "reference":
        weights = np.asarray(sheet.levels)[levels] @ cell_factors(sheet, n_cells) / unit
        np.testing.assert_allclose(weights[:, 0], table, atol=1e-12)
