"""A chip class written from docs/protocol.md alone, sentence by sentence, works at first.

It uses no code of the simulator. Each comment names the sentence that decided a line, so a sentence that
goes missing from the page is missed here.
"""

from pathlib import Path

import numpy as np
import pytest

from finetune import tune
from rramsim import Datasheet, LayerInfo, Ledger, Reading, check_chip
from rramsim.blackbox.protocol import LayerCosts
from rramsim.host.layer import layer_shapes
from tests.finetune import small

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
TILE = 16
G = tuple(np.linspace(1e-6, 31e-6, 16))


class PageChip:
    """Pairs or single cells with a reference line, tiles of 16 word lines, 8-bit converters."""

    def __init__(self, shapes, mapping, tile_codes=True):
        self.rng = np.random.default_rng(3)
        self.datasheet = Datasheet(
            mapping=mapping, n_levels=16, levels=G, v_read=0.2, dac_bits=8, adc_bits=8, adc_noise=0.3,
            tile_rows=TILE, tile_cols=64, t_read=1e-6, tile_codes=tile_codes,
        )  # fmt: skip
        # "the largest level minus the lowest for `differential`, the largest minus the middle one ..."
        low = {"differential": G[0], "reference": G[8]}[mapping]
        cells = {"differential": 2, "reference": 1}[mapping]
        self.layers, self.g, self.line = {}, {}, {}
        for name, (n_rows, n_cols) in shapes.items():
            tiles = tuple((a, min(a + TILE, n_rows)) for a in range(0, n_rows, TILE))
            self.layers[name] = LayerInfo(
                name=name, n_rows=n_rows, n_cols=n_cols, cells_per_weight=cells, row_tiles=tiles,
                n_col_tiles=1, g_unit=G[-1] - low,
            )  # fmt: skip
            # "A chip arrives reset. Every cell is at level 0"
            self.g[name] = np.full((n_rows, n_cols, cells), G[0])
        self.ledger = Ledger({n: LayerCosts(weight_cells=i.n_cells) for n, i in self.layers.items()})
        self.volts, self.amperes = {}, {}

    def write(self, layer, levels, mask=None):
        # "all cells without one"; "Cells outside the mask keep their state"; "counted, changed or not"
        mask = np.ones(levels.shape, dtype=bool) if mask is None else mask
        new = np.asarray(G)[levels] * np.exp(self.rng.normal(-0.02, 0.2, levels.shape))
        self.g[layer] = np.where(mask, new, self.g[layer])
        self.ledger.layers[layer].cell_writes += int(mask.sum())
        # "a line of cells at level n_levels // 2, which it writes itself, at the first write of the layer"
        if layer not in self.line:
            self.line[layer] = G[8] * np.exp(self.rng.normal(-0.02, 0.2, len(levels)))

    def configure(self, layer, *, input_range=None, output_range=None):
        if input_range is not None:
            low, high = input_range
            # "0 ... 2^bits - 1 drive 0 ... v volts; -(2^(bits-1) - 1) ... drive -v ... v"
            self.volts[layer] = high / (127 if low < 0 else 255)
        if output_range is not None:
            # "the current of the largest code of the signed, symmetric ADC, 2^(bits-1) - 1", per row tile
            self.amperes[layer] = output_range / 127

    def mvm(self, layer, codes, per_tile=False):
        # "or anything that numpy.asarray turns into one"
        codes, info = np.asarray(codes), self.layers[layer]
        assert not (per_tile and not self.datasheet.tile_codes)  # "is never asked with per_tile"
        g = self.g[layer]
        # "The chip subtracts the current of the - line from that of the + line", or of the reference line
        line = self.line.get(layer, np.full(info.n_rows, G[8]))
        weights = g[:, :, 0] - (g[:, :, 1] if g.shape[2] == 2 else line[:, None])
        tiles = [codes[:, a:b] * self.volts[layer] @ weights[a:b] for a, b in info.row_tiles]
        noisy = np.stack(tiles, axis=1) / self.amperes[layer]
        noisy = np.rint(noisy + 0.3 * self.rng.standard_normal(noisy.shape)).astype(np.int32)
        # "A conversion at the end of its range is marked. A sum is marked if any of the conversions is."
        marks, read = np.abs(noisy) >= 127, np.clip(noisy, -127, 127)
        self.ledger.layers[layer].vectors += len(codes)  # "one per row of codes"
        return Reading(read, marks) if per_tile else Reading(read.sum(axis=1), marks.any(axis=1))

    def wait(self, seconds):
        pass  # "a laboratory sleeps"


@pytest.mark.parametrize(("mapping", "tile_codes"), [("differential", True), ("reference", True),
                                                     ("differential", False)])  # fmt: skip
def test_chip_from_the_page_conforms_and_is_tuned(net, calibration, mapping, tile_codes):
    chip = PageChip(layer_shapes(net), mapping, tile_codes)
    check_chip(chip, exercise=True)
    report = tune(chip, net, net, calibration)
    assert small.logit_error(net, report.deployment) < 0.05
    assert report.finished


@pytest.fixture(scope="module")
def net():
    return small.network()


@pytest.fixture(scope="module")
def calibration():
    return small.images()


@pytest.mark.parametrize(
    "sentence",
    [
        "is the word line that column *i* of `codes` drives",  # row order
        "(input channel, kernel row, kernel column)",
        "cell 0 is the + cell, cell 1 the - cell",  # polarity
        "A chip arrives reset.",
        "write level 0 to every cell, without a mask, for each layer",  # how a used one is erased
        "A sum is marked if any of the conversions in it is",  # saturation marks
        "The chip subtracts the current of the - line",  # who subtracts references
        "The chip subtracts the current of a line of cells at level `n_levels // 2`",
        "It is the range of one conversion, so of one row tile",
        "sets `Datasheet.tile_codes` to False",
        "### Wire format",
    ],
)
def test_page_says_what_must_hold(sentence):
    assert sentence in " ".join(PAGE.split())
