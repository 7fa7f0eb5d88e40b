"""Errors that lines, arrays or a whole chip have in common: the tables [variation] and [temperature]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rramsim.cell.config import CellsConfig
from rramsim.cell.variation import CellVariation
from rramsim.checks import InputError
from rramsim.chip.placement import Place
from rramsim.circuit.wiring import WiresConfig
from rramsim.config import check_settings, setting
from rramsim.streams import Cause, stream

__all__ = ["TemperatureConfig", "Variation", "VariationConfig"]

_WORD, _BIT, _TILE, _LEVELS = range(4)  # keys of correlated draws: append, never renumber


@dataclass(frozen=True, kw_only=True)
class VariationConfig:
    """Errors that many cells share; the table [variation]. All are off by default and normal where drawn.

    Notes
    -----
    Shared errors are fixed for the life of the chip: gradients of the process and of supply lines over an
    array (assumed sizes and shapes). A dead word line has no driver, a dead bit line no sense amplifier:
    with wires both float, without wires their cells carry no current; no pulse reaches their cells.

    Examples
    --------
    >>> VariationConfig(sigma_word=0.05).correlated
    True
    """

    write_bias: float = setting(
        0.0, "1", "every level is written too high by this fraction", "(-1, 10]", source="assumed"
    )
    level_offset: float = setting(
        0.0, "1", "standard deviation of each level's own offset on a chip, over g_max", "[0, 1]",
        source="assumed",
    )  # fmt: skip
    sigma_word: float = setting(
        0.0, "1", "standard deviation of ln G that cells of a word line share", "[0, 5]", source="assumed"
    )
    sigma_bit: float = setting(
        0.0, "1", "standard deviation of ln G that cells of a bit line share", "[0, 5]", source="assumed"
    )
    sigma_tile: float = setting(
        0.0, "1", "standard deviation of ln G that cells of an array share", "[0, 5]", source="assumed"
    )
    g_floor: float = setting(0.0, "S", "least conductance of any cell", "[0, 1]", usual=(1e-15, 1e-4))
    dead_word_rate: float = setting(0.0, "1", "fraction of word lines without driver", "[0, 1]")
    dead_bit_rate: float = setting(0.0, "1", "fraction of bit lines without sense amplifier", "[0, 1]")
    v_half: float = setting(
        0.0, "V", "voltage at half-selected cells of a line during a write pulse; needs a disturb law",
        "[-100, 100]", source="assumed",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_settings(self, "variation.")

    @property
    def correlated(self) -> bool:
        """Whether cells share a factor."""
        return self.sigma_word > 0.0 or self.sigma_bit > 0.0 or self.sigma_tile > 0.0

    @property
    def dead_lines(self) -> bool:
        """Whether lines may be broken."""
        return self.dead_word_rate > 0.0 or self.dead_bit_rate > 0.0


@dataclass(frozen=True, kw_only=True)
class TemperatureConfig:
    """Temperature of cells and wires at reads; the table [temperature].

    A conductance changes by its coefficient per kelvin away from `reference`, at which levels are
    written; coefficients in between g_min and g_max follow ln G. Signs and sizes are assumed: low resistance
    conducts like a metal, high resistance is thermally activated. The wires' coefficient is that of copper
    at 293 K.

    Examples
    --------
    >>> TemperatureConfig(read=350.0).read
    350.0
    """

    read: float = setting(300.0, "K", "temperature at reads", "(0, 1000]", usual=(200.0, 500.0))
    reference: float = setting(
        300.0, "K", "temperature at which levels hold", "(0, 1000]", usual=(200.0, 500.0)
    )
    cell_low: float = setting(5e-3, "1", "change of g_min per kelvin, relative", "[-1, 1]", source="assumed")
    cell_high: float = setting(
        -1e-3, "1", "change of g_max per kelvin, relative", "[-1, 1]", source="assumed"
    )
    wire: float = setting(3.93e-3, "1", "change of line resistance per kelvin, relative", "[0, 1]",
                          source="copper, CRC Handbook")  # fmt: skip

    def __post_init__(self) -> None:
        check_settings(self, "temperature.")
        if not 1.0 + self.wire * (self.read - self.reference) > 0.0:
            raise InputError(
                f"temperature.wire x (read - reference) must be > -1, or resistances vanish, got "
                f"{self.wire * (self.read - self.reference):g}"
            )

    def of_cells(self, kelvin: float) -> tuple[float, float]:
        """Relative change of conductance at g_min and g_max."""
        return self.cell_low * (kelvin - self.reference), self.cell_high * (kelvin - self.reference)

    def of_wires(self, wires: WiresConfig, kelvin: float) -> WiresConfig:
        """Lines at a temperature; drivers, amplifiers and transistors stay as they are."""
        factor = 1.0 + self.wire * (kelvin - self.reference)
        if not factor > 0.0:
            raise InputError(f"temperature must leave line resistances positive, got {kelvin:g} K")
        return replace(wires, r_word=factor * wires.r_word, r_bit=factor * wires.r_bit)


class Variation:
    """The individual chip's shared errors, drawn per physical array.

    Parameters
    ----------
    config : VariationConfig
    cells : CellsConfig
    shapes : sequence of (word lines, bit lines)
        Every physical array.
    seed, chip : int

    Notes
    -----
    Word lines are counted from the sense amplifiers, so that an array cut to its layer has the errors
    of the whole one.
    """

    def __init__(
        self,
        config: VariationConfig,
        cells: CellsConfig,
        shapes: Sequence[tuple[int, int]],
        *,
        seed: int,
        chip: int,
    ) -> None:
        self.config, self._shapes, self._seed, self._chip = config, tuple(shapes), seed, chip
        scale = cells.scale
        offsets = config.level_offset * scale.g_max * self._normal(scale.n_levels, _LEVELS)
        levels = scale.levels * (1.0 + config.write_bias) + offsets
        self._levels = np.maximum(levels, 0.0)  # no level lies below zero conductance

    def _normal(self, n: int, *keys: int) -> NDArray[np.float64]:
        return stream(self._seed, Cause.CORRELATED, self._chip, *keys).standard_normal(n)

    def factor(self, tile: int) -> NDArray[np.float32] | None:
        """Factor that the cells of an array share, shape of the array; its mean over chips is 1."""
        c, (n_wl, n_bl) = self.config, self._shapes[tile]
        if not c.correlated:
            return None
        word = c.sigma_word * self._normal(n_wl, _WORD, tile)[::-1, None]
        bit = c.sigma_bit * self._normal(n_bl, _BIT, tile)
        whole = c.sigma_tile * self._normal(1, _TILE, tile)
        variance = c.sigma_word**2 + c.sigma_bit**2 + c.sigma_tile**2
        return np.exp(word + bit + whole - variance / 2.0).astype(np.float32)

    def dead(self, tile: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Masks of dead word and bit lines of an array; a higher rate keeps those of a lower one."""
        masks = []
        rates = (self.config.dead_word_rate, self.config.dead_bit_rate)
        for kind, (n, rate) in enumerate(zip(self._shapes[tile], rates, strict=True)):
            draws = stream(self._seed, Cause.DEAD_LINE, self._chip, tile, kind).random(n)
            masks.append((draws[::-1] if kind == 0 else draws) < rate)
        return masks[0], masks[1]

    def of_tile(self, tile: int) -> CellVariation:
        """What the cells around layers have in common."""
        word, bit = self.dead(tile)
        unreachable = word[:, None] | bit if self.config.dead_lines else None
        return CellVariation(self._levels, self.factor(tile), self.config.g_floor, unreachable)

    def of_layer(
        self,
        shape: tuple[int, int],
        blocks: Sequence[tuple[slice, slice]],
        places: Sequence[Place],
    ) -> tuple[CellVariation, NDArray[np.bool_], NDArray[np.bool_]]:
        """The same for a layer, with masks of the cells on its dead word lines and dead bit lines."""
        factor = np.ones(shape, np.float32) if self.config.correlated else None
        word, bit = np.zeros(shape, bool), np.zeros(shape, bool)
        for part, place in zip(blocks, places, strict=True):
            inner = slice(place.row, place.row + place.n_rows), slice(place.line, place.line + place.n_lines)
            own = self.factor(place.tile)
            if factor is not None and own is not None:
                factor[part] = own[inner]
            dead_word, dead_bit = self.dead(place.tile)
            word[part], bit[part] = dead_word[inner[0]][:, None], dead_bit[inner[1]]
        unreachable = word | bit if self.config.dead_lines else None
        return CellVariation(self._levels, factor, self.config.g_floor, unreachable), word, bit
