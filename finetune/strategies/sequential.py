"""Sequential write-and-compensate: each block of rows corrects what the blocks before it got wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune.bench import Bench
from finetune.evidence import kernels
from finetune.evidence.layer import Work
from finetune.evidence.samples import Samples, sample_count, take_samples
from finetune.strategies.base import LayerStep, register
from rramsim.blackbox.mapping import weights_from_levels
from rramsim.blackbox.protocol import ChipProtocol, Datasheet
from rramsim.checks import InputError

__all__ = ["Sequential", "check_rounding", "nearest_pairs", "representable", "round_block"]

MOST_VALUES = 2**16  # magnitudes of a weight that rounding keeps a table of


def representable(sheet: Datasheet, n_cells: int) -> NDArray[np.float64]:
    """Every weight that a lone cell, or pairs with one cell of each reset, can hold; ascending."""
    if n_cells == 1:
        levels = np.arange(sheet.n_levels)[:, None, None]
        return np.ascontiguousarray(weights_from_levels(levels, sheet.mapping, sheet.levels)[:, 0])
    digits = sheet.n_levels ** (n_cells // 2)
    if digits > MOST_VALUES:
        raise InputError(
            f"rounding to levels takes weights of at most {MOST_VALUES} magnitudes, got {digits} "
            f"({n_cells // 2} slices of {sheet.n_levels} levels); use lsq.rewrite, or fewer slices"
        )
    index = np.arange(digits)
    half = np.zeros((digits, 1, n_cells), dtype=np.int64)
    for place in range(n_cells // 2):
        half[:, 0, n_cells - 2 - 2 * place] = index // sheet.n_levels**place % sheet.n_levels
    magnitude = weights_from_levels(half, sheet.mapping, sheet.levels)[:, 0]
    return np.concatenate([-magnitude[:0:-1], magnitude])


def check_rounding(chip: ChipProtocol) -> None:
    """Raise `InputError` for a chip whose weights `representable` has no table of."""
    for info in chip.layers.values():
        representable(chip.datasheet, info.cells_per_weight)


def nearest_pairs(values: NDArray[np.float64], sheet: Datasheet, n_cells: int) -> NDArray[np.int64]:
    """Levels (n_rows, n_cols, n_cells) of weights taken from `representable`."""
    table = representable(sheet, n_cells)
    index = np.searchsorted((table[1:] + table[:-1]) / 2, values)
    if n_cells == 1:
        return index[:, :, None]
    signed = index - (table.size // 2)
    magnitude, levels = np.abs(signed), np.zeros((*values.shape, n_cells), dtype=np.int64)
    for place in range(n_cells // 2):
        digit = magnitude // sheet.n_levels**place % sheet.n_levels
        first = n_cells - 2 - 2 * place
        levels[:, :, first] = np.where(signed > 0, digit, 0)
        levels[:, :, first + 1] = np.where(signed < 0, digit, 0)
    return levels


def round_block(
    wanted: NDArray[np.float64], gram: NDArray[np.float64], n_block: int, sheet: Datasheet, n_cells: int
) -> NDArray[np.int64]:
    """Levels of the first `n_block` rows; rounding errors are spread over rows not yet rounded.

    Parameters
    ----------
    wanted : ndarray, shape (n_rows, n_cols)
        Weights in the order of writing.
    gram : ndarray, shape (n_rows, n_rows)
        Positive definite.
    """
    inverse = np.linalg.inv(gram)
    upper = np.linalg.cholesky(inverse[:n_block, :n_block]).T  # of the block alone: enough for its rounding
    rounded, table = np.empty((n_block, wanted.shape[1])), representable(sheet, n_cells)
    kernels.round_in_order(
        np.ascontiguousarray(wanted[:n_block]), np.ascontiguousarray(upper), table, rounded
    )
    return nearest_pairs(rounded, sheet, n_cells)


@register("lsq.sequential")
class Sequential(LayerStep):
    """Write a block of word lines, measure, let the rows not yet written make up for its error.

    ``P_r = D_r + (H_rr + lambda I)^-1 (X_r'(T - Y) / n - H_rr D_r)`` for the remaining rows r, of which
    the next block is rounded to levels and programmed once. Realised conductances never need to be
    known: the measured residual carries them. The update is that of optimal brain surgeon and GPTQ
    (Hassibi, Stork 1993; Frantar et al., arXiv 2210.17323), with the chip's errors in place of rounding.

    Parameters
    ----------
    block : int
        Word lines written between two reads.
    ridge : float
        lambda over the mean diagonal of H.
    follow : float
        1: targets are the teacher's outputs at the teacher's own inputs, so that errors of earlier layers
        are corrected; 0: the teacher's layer at the inputs the chip really saw.
    """

    name = "lsq.sequential"
    from_reset = True

    def __init__(self, *, block: int = 32, ridge: float = 0.2, follow: float = 1.0) -> None:
        if block < 1:
            raise InputError(f"lsq.sequential: block must be >= 1, got {block}")
        self.block = block
        self.ridge = ridge
        self.follow = follow

    def check_chip(self, chip: ChipProtocol) -> None:
        """Weights are rounded to a table of values."""
        check_rounding(chip)

    def plan_layer(self, bench: Bench, layer: str, n_vectors: int) -> dict[str, float]:
        """One read before each block."""
        info = bench.deployment.chip.layers[layer]
        n_blocks = -(-info.n_rows // self.block)
        levels = bench.deployment.nearest_levels(layer)
        writes = int((levels != 0).sum()) * 1.06
        return {"vectors": n_blocks * sample_count(info.n_rows, n_vectors), "cell_writes": writes}

    def tune_layer(self, work: Work) -> None:
        """Write all rows of the layer, block by block."""
        samples = take_samples(work, self.follow)
        sheet, info = work.sheet, work.info
        levels = np.zeros((info.n_rows, info.n_cols, info.cells_per_weight), dtype=np.int64)
        if work.host.levels is not None:  # a chip mapped before: erase what is not reset
            work.write(levels, work.host.levels != 0)
        bounds = representable(sheet, info.cells_per_weight)[[0, -1]]
        order = np.argsort(-write_order(samples), kind="stable")
        for first in range(0, info.n_rows, self.block):
            rest = order[first:]
            n_block = min(self.block, rest.size)
            residual = samples.target - samples.read().total
            gram = samples.gram[np.ix_(rest, rest)]
            damped = gram + self.ridge * max(np.diag(gram).mean(), 1e-12) * np.eye(rest.size)
            ideal = samples.ideal[rest]
            slope = (samples.x[:, rest].T @ residual).astype(np.float64) / samples.n - gram @ ideal
            wanted = np.clip(ideal + np.linalg.solve(damped, slope), *bounds)
            rows = rest[:n_block]
            levels[rows] = round_block(wanted, damped, n_block, sheet, info.cells_per_weight)
            mask = np.zeros(levels.shape, dtype=bool)
            mask[rows] = levels[rows] != 0
            work.write(levels, mask if info.cells_per_weight > 1 else _whole_rows(mask, rows))


def _whole_rows(mask: NDArray[np.bool_], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    mask[rows] = True
    return mask


def write_order(samples: Samples) -> NDArray[np.float64]:
    """Energy that a row's error would send to the outputs; the largest are written first."""
    return np.diag(samples.gram) * np.square(samples.ideal).mean(axis=1)
