"""A chip in thirty lines of NumPy: what somebody with hardware would have to write."""

import numpy as np

from rramsim.blackbox.protocol import Datasheet, LayerCosts, LayerInfo, Ledger, Reading

LEVELS = tuple(np.linspace(1e-6, 30e-6, 16))


class FakeChip:
    """Differential pairs with lognormal write errors, one tile a layer, 8-bit converters with noise."""

    def __init__(self, shapes, sigma=0.3, seed=0):
        self.rng, self.sigma = np.random.default_rng(seed), sigma
        self.datasheet = Datasheet(
            mapping="differential", n_levels=16, levels=LEVELS, v_read=0.2, dac_bits=8, adc_bits=8,
            adc_noise=0.5, tile_rows=4096, tile_cols=4096, t_read=1e-7,
        )  # fmt: skip
        unit = LEVELS[-1] - LEVELS[0]
        self.layers = {
            name: LayerInfo(
                name=name,
                n_rows=r,
                n_cols=c,
                cells_per_weight=2,
                row_tiles=((0, r),),
                n_col_tiles=1,
                g_unit=unit,
            )
            for name, (r, c) in shapes.items()
        }
        self.g = {name: np.full((r, c, 2), LEVELS[0]) for name, (r, c) in shapes.items()}
        self.ledger = Ledger({n: LayerCosts(weight_cells=i.n_cells) for n, i in self.layers.items()})
        self.step = {}  # volts per DAC code and amperes per ADC code

    def write(self, layer, levels, mask=None):
        mask = np.ones(self.g[layer].shape, bool) if mask is None else mask
        error = np.exp(self.sigma * self.rng.standard_normal(mask.shape) - self.sigma**2 / 2)
        self.g[layer] = np.where(mask, np.asarray(LEVELS)[levels] * error, self.g[layer])
        self.ledger.layers[layer].cell_writes += int(mask.sum())

    def configure(self, layer, *, input_range=None, output_range=None):
        volts, amperes = self.step.get(layer, (0.0, 0.0))
        if input_range is not None:
            volts = input_range[1] / (127 if input_range[0] < 0 else 255)
        self.step[layer] = (volts, amperes if output_range is None else output_range / 127)

    def mvm(self, layer, codes, per_tile=False):
        volts, amperes = self.step.get(layer, (0.0, 0.0))
        if not amperes:
            raise ValueError(f"configure the ranges of {layer!r} first")
        self.ledger.layers[layer].vectors += len(codes)
        y = (np.asarray(codes) * volts) @ (self.g[layer][:, :, 0] - self.g[layer][:, :, 1]) / amperes
        y = np.rint(y + 0.5 * self.rng.standard_normal(y.shape)).astype(np.int32)
        codes, saturated = np.clip(y, -127, 127), np.abs(y) > 127
        return Reading(codes[:, None], saturated[:, None]) if per_tile else Reading(codes, saturated)

    def wait(self, seconds):
        pass
