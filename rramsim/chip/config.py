"""Everything that makes a kind of chip."""

from __future__ import annotations

from dataclasses import dataclass

from rramsim.blackbox.mapping import check_slices
from rramsim.cell import CellsConfig, CostConfig, DisturbConfig, FaultsConfig
from rramsim.checks import InputError
from rramsim.chip.converters import ConverterConfig
from rramsim.chip.layout import MappingConfig
from rramsim.chip.variation import TemperatureConfig, VariationConfig
from rramsim.circuit.wiring import ALPHA_V_MAX, WiresConfig
from rramsim.config import check_settings, setting

__all__ = ["ChipConfig"]


@dataclass(frozen=True, kw_only=True)
class ChipConfig:
    """Everything that makes a kind of chip; a single chip is this and (seed, chip id).

    Examples
    --------
    >>> from rramsim import CellsConfig, ChipConfig, WiresConfig
    >>> config = ChipConfig(cells=CellsConfig(sigma=0.2), wires=WiresConfig(r_word=2.5, r_bit=2.5))
    >>> config.mapping.tile_rows
    128
    """

    mapping: MappingConfig = setting(MappingConfig, "", "how weights sit on cells and tiles")
    converters: ConverterConfig = setting(ConverterConfig, "", "DACs, ADCs and the read pulse")
    cells: CellsConfig = setting(CellsConfig, "", "levels, programming error, time and noise of cells")
    faults: FaultsConfig = setting(FaultsConfig, "", "stuck cells")
    disturb: DisturbConfig = setting(DisturbConfig, "", "read disturbance")
    wires: WiresConfig | None = setting(None, "", "resistances of lines; absent: ideal lines")
    variation: VariationConfig | None = setting(None, "", "errors that many cells share; absent: none")
    temperature: TemperatureConfig | None = setting(None, "", "temperature at reads; absent: no effect")
    cost: CostConfig | None = setting(
        None, "", "figures for the bill; absent: those of the cells' preset, or the defaults"
    )
    state_tolerance: float = setting(
        1e-3, "1", "output error over full scale that makes a wired tile be solved again", "[0, inf)"
    )
    nonlinear_tolerance: float = setting(
        2e-3, "1", "output error over full scale up to which products stand for Newton's method", "[0, inf)"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        level, n_levels = self.mapping.reference_level, len(self.cells.scale.levels)
        if level is not None and level >= n_levels:
            raise InputError(f"mapping: reference_level must be below n_levels = {n_levels}, got {level}")
        if self.mapping.kind == "sliced":
            check_slices(n_levels, self.mapping.n_slices)
        if self.converters.adc_per_line and self.mapping.kind == "reference":
            raise InputError("adc_per_line needs differential or sliced mapping, got reference")
        for name in ("v_read", "t_read"):
            read, stress = getattr(self.converters, name), getattr(self.disturb, name)
            if self.disturb.enabled and read != stress:
                raise InputError(
                    f"disturb.{name} must equal converters.{name}, got {stress:g} and {read:g}; "
                    "set both, the law is evaluated at the voltage and pulse of the reads"
                )
        if self.cells.iv_alpha and self.disturb.enabled and self.disturb.mode == "exact":
            raise InputError("disturb.mode 'exact' needs linear cells (iv_alpha = 0); choose 'fast'")
        drive = self.cells.iv_alpha * self.converters.v_read
        if drive > ALPHA_V_MAX:
            raise InputError(
                f"cells.iv_alpha times converters.v_read must not exceed {ALPHA_V_MAX:g}, got {drive:g}: "
                f"published cells have iv_alpha of 1 to 20 1/V, got {self.cells.iv_alpha:g}"
            )
        if self.wires is not None and self.wires.alpha:
            raise InputError(
                f"wires.alpha must be 0 on a chip, got {self.wires.alpha:g} 1/V: the law of a chip's cells "
                "is cells.iv_alpha"
            )
        if self.mapping.placement == "packed" and self.disturb.enabled:
            raise InputError(
                "placement 'packed' needs disturb.law 'none' or mode 'off': reads of one layer would stress "
                "others on the same word lines, which is not modelled; choose placement 'full'"
            )
        if self.cells.iv_alpha and self.wires is not None and self.mapping.unused == "floating":
            raise InputError("unused = 'floating' needs linear cells (iv_alpha = 0) where lines are wires")
        errors = self.converters.errors
        if self.disturb.enabled and errors is not None and (errors.dac_inl or errors.dac_dnl):
            raise InputError(
                "disturb needs even DAC steps: set converters.errors.dac_inl and dac_dnl to 0; a histogram "
                "of codes stands for the voltages of reads"
            )

        if self.variation is not None:
            self._check_variation(self.variation)

    def _check_variation(self, variation: VariationConfig) -> None:
        if variation.correlated and self.cells.programming.method == "write_verify":
            raise InputError(
                "variation.sigma_word, sigma_bit and sigma_tile need one-shot writes: verification corrects "
                "them, and would leave no trace of them"
            )
        if variation.dead_lines and self.cells.iv_alpha and self.wires is not None:
            raise InputError(
                "variation.dead_word_rate and dead_bit_rate need linear cells (iv_alpha = 0) on wires"
            )
        if variation.v_half and not self.disturb.enabled:
            raise InputError("variation.v_half needs a disturb law, such as disturb.law = 'power'")

    @property
    def figures(self) -> CostConfig:
        """The figures of the bill that hold: the table [cost], the preset's, or the defaults."""
        return CostConfig.of_cells(self.cells.preset) if self.cost is None else self.cost

    @property
    def noisy_reads(self) -> bool:
        """Whether conductances fluctuate from read to read."""
        telegraph = self.cells.telegraph
        return self.cells.read_noise.enabled or (telegraph.fraction > 0.0 and telegraph.lifetime == 0.0)
