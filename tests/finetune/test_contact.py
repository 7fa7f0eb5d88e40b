"""Chips that are not as the protocol says: used before, cells of a pair swapped, sums instead of tiles."""

import warnings

import numpy as np
import pytest

from finetune import tune
from finetune.evidence.contact import UsedChipWarning
from rramsim.blackbox.protocol import ForwardingChip, LayerCosts, Ledger, Reading
from rramsim.checks import InputError
from rramsim.chip.converters import ConverterConfig
from rramsim.host.deployment import Deployment
from tests.finetune import small

pytestmark = pytest.mark.filterwarnings("error")


def use(net, chip, seed=0):
    """Leave another network's levels on a chip: those of this one, its weights in another order."""
    before = small.mapped(net, chip, small.images())
    rng = np.random.default_rng(seed)
    for layer, host in before.layers.items():
        cells = host.levels.reshape(-1, host.levels.shape[2])
        chip.write(layer, rng.permutation(cells).reshape(host.levels.shape))


class Forgetful(ForwardingChip):
    """A chip whose ledger begins anew: only its answers tell that it was used."""

    def __init__(self, chip):
        super().__init__(chip)
        self.before = chip.ledger

    @property
    def ledger(self):
        table = {}
        for name, now in self._chip.ledger.layers.items():
            then = self.before.layers[name]
            table[name] = LayerCosts(vectors=now.vectors - then.vectors, weight_cells=now.weight_cells,
                                     cell_writes=now.cell_writes - then.cell_writes)  # fmt: skip
        return Ledger(table)


class Swapped(ForwardingChip):
    """A chip whose class takes cell 0 of a pair for the - cell."""

    def write(self, layer, levels, mask=None):
        self._chip.write(layer, levels[:, :, ::-1], None if mask is None else mask[:, :, ::-1])


def test_used_chip_is_refused_before_anything_is_written(net, calibration):
    chip = small.chip(net)
    use(net, chip)
    written = chip.ledger.total.cell_writes
    with pytest.raises(InputError, match=rf"must be reset: its ledger counts {written} .*erase=True.*start"):
        tune(chip, net, net, calibration)
    assert chip.ledger.total.cell_writes == written


def test_erasing_brings_a_used_chip_back(net, calibration):
    chip, fresh = small.chip(net), small.chip(net)
    use(net, chip)
    report = tune(chip, net, net, calibration, erase=True)
    other = tune(fresh, net, net, calibration)
    n_cells = sum(info.n_cells for info in chip.layers.values())
    planned = [
        tune(small.chip(net), net, net, calibration, erase=e, dry_run=True).planned["cell_writes"]
        for e in (True, False)
    ]
    assert planned[0] - planned[1] == n_cells
    assert n_cells <= report.cell_writes <= other.cell_writes + 1.2 * n_cells
    # the same individual, but writes before this run draw other errors: the error is alike, not equal
    errors = [small.logit_error(net, r.deployment.fork()) for r in (report, other)]
    assert errors[0] < 2.0 * errors[1]
    with pytest.raises(InputError, match="give one of them"):
        tune(chip, net, net, calibration, erase=True, start_from=report.deployment)


def test_reset_chip_with_writes_in_its_ledger_is_taken(net, calibration):
    chip = small.chip(net)
    use(net, chip)
    for layer, info in chip.layers.items():
        chip.write(layer, np.zeros((info.n_rows, info.n_cols, info.cells_per_weight), dtype=np.int64))
    report = tune(chip, net, net, calibration, strategy="lsq.affine")
    assert report.finished


@pytest.mark.parametrize("strategy", ["default", "lsq.affine", "lsq.sequential + lsq.affine"])
def test_used_chip_whose_ledger_is_blind_is_noticed_in_its_answers(net, calibration, strategy):
    chip = small.chip(net)
    use(net, chip)
    with pytest.warns(UsedChipWarning, match="were not reset .*the chip was used before"):
        report = tune(Forgetful(chip), net, net, calibration, strategy=strategy)
    fresh = tune(small.chip(net), net, net, calibration, strategy=strategy)
    assert {row["layer"] for row in report.history if row["step"] == "used chip"}
    errors = [small.logit_error(net, r.deployment.on(r.deployment.chip)) for r in (report, fresh)]
    assert errors[0] < 2.0 * errors[1]


@pytest.mark.parametrize("strategy", ["default", "lsq.affine", "lsq.sequential"])
def test_swapped_pairs_are_refused_with_the_remedy(net, calibration, strategy):
    with pytest.raises(InputError, match=r"opposite sign.*cell 0: swap the cells of each pair"):
        tune(Swapped(small.chip(net)), net, net, calibration, strategy=strategy)


@pytest.mark.parametrize("kind", ["differential", "reference", "sliced"])
def test_ordinary_chips_are_not_suspected(net, calibration, kind):
    """Chips 0-3 of each mapping; nothing beyond the default's reads and writes is charged."""
    for number in range(4):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            report = tune(small.chip(net, number, kind=kind), net, net, calibration, strategy="lsq.affine")
        assert not [row for row in report.history if row["step"] in ("used chip", "reset check")]


class Summing(ForwardingChip):
    """A laboratory's chip that has no codes of single row tiles, whatever its sheet says."""

    def mvm(self, layer, codes, per_tile=False):
        assert not per_tile
        return self._chip.mvm(layer, codes)


@pytest.mark.parametrize("kind", ["differential", "reference"])
@pytest.mark.parametrize("strategy", ["default", "lsq.sequential + lsq.affine", "lsq.sequential + default"])
def test_chip_that_sums_its_tiles_is_tuned_from_sums(net, calibration, kind, strategy):
    """Layers span several row tiles of 16 word lines; of pairs the sums tell about as much as the tiles."""
    strategy = strategy.replace("+ default", "+ lsq.rewrite + lsq.affine + adapter(rank=2)")
    sums, tiles, mapped = [], [], []
    for number in range(2):
        for tile_codes, errors in ((False, sums), (True, tiles)):
            chip = small.chip(net, number, kind=kind, converters=ConverterConfig(tile_codes=tile_codes))
            report = tune(chip if tile_codes else Summing(chip), net, net, calibration, strategy=strategy)
            errors.append(small.logit_error(net, report.deployment.on(chip.fork())))
        chip = small.chip(net, number, kind=kind)
        mapped.append(small.logit_error(net, small.mapped(net, chip, calibration).fork()))
    assert np.mean(sums) < 0.25 * np.mean(mapped), (sums, mapped)
    if kind == "differential":
        assert np.mean(sums) < 1.3 * np.mean(tiles), (sums, tiles)


def test_sums_are_all_that_such_a_chip_tells(net):
    chip = small.chip(net, converters=ConverterConfig(tile_codes=False))
    chip.configure("conv2/0", input_range=(0.0, 0.2), output_range=1e-4)
    codes = np.full((3, 36), 5)
    assert isinstance(chip.mvm("conv2/0", codes), Reading)
    with pytest.raises(InputError, match=r"sums its row tiles \(converters.tile_codes = false\)"):
        chip.mvm("conv2/0", codes, per_tile=True)
    assert isinstance(Deployment(net, chip), Deployment)
