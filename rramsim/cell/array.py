"""The state of all cells of one layer.

Long because one state and everything that acts on it, writes, time and reads, stand together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim import streams
from rramsim.cell.config import CellsConfig, DisturbConfig, FaultsConfig
from rramsim.cell.disturb import DisturbLaw, ExponentialLaw, PowerLaw, disturb_law, kernel_kind
from rramsim.cell.drift import drift_law, kernel_kind as drift_kind
from rramsim.cell.faults import draw_faults
from rramsim.cell.laws import ErrorLaw, LognormalLaw, NormalLaw
from rramsim.cell.noise import fast_trap_mean, read_sigma
from rramsim.cell.pulses import kernel_pulses
from rramsim.cell.stress import StressTables, add_solved, sign
from rramsim.cell.variation import CellVariation
from rramsim.checks import InputError, check_array
from rramsim.kernels import cell as kernels, write as write_kernels
from rramsim.streams import Cause

__all__ = ["CellArray", "WriteReport"]

_NONE = np.zeros((0, 0))
_NONE_32 = np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class WriteReport:
    """What one call of `CellArray.write` cost.

    Examples
    --------
    >>> import numpy as np
    >>> from rramsim.cell import CellArray, CellsConfig, ProgrammingConfig
    >>> verified = CellsConfig(programming=ProgrammingConfig(method="write_verify"))
    >>> report = CellArray((4, 8), verified).write(np.full((4, 8), 15))
    >>> report.n_cells, report.n_failed, report.n_pulses > 32
    (32, 0, True)
    """

    n_cells: int  # cells written (masked), stuck ones included
    n_pulses: int  # programming pulses
    n_failed: int  # cells that write-verify could not bring into the window
    seconds: float  # [s] serial time of pulses and verify reads
    joules: float | None  # [J] where the settings give an energy per pulse


class CellArray:
    """Every cell of a layer, with its own conductance, history and errors.

    Parameters
    ----------
    shape : (int, int)
        Word lines and bit lines, over all tiles of the layer.
    cells, faults, disturb : CellsConfig, FaultsConfig, DisturbConfig
        Settings; missing ones are the defaults (`generic` cells, no faults, no disturbance).
    seed : int
    keys : tuple of int
        Identify this array among others of the same seed, such as (chip, layer).
    variation : CellVariation, optional
        Errors that cells have in common.

    Notes
    -----
    Cells arrive reset: at g_min with an error of their own that no write counter sees.
    Memory is 9 to 35 bytes a cell, depending on which causes are on.

    Examples
    --------
    >>> import numpy as np
    >>> from rramsim.cell import CellsConfig
    >>> array = CellArray((2, 3), CellsConfig(sigma=0.0, g_max=40e-6, on_off_ratio=40.0))
    >>> report = array.write(np.array([[15, 0, 15], [0, 15, 0]]))
    >>> np.round(1e6 * array.conductance).tolist()
    [[40.0, 1.0, 40.0], [1.0, 40.0, 1.0]]
    """

    def __init__(
        self,
        shape: tuple[int, int],
        cells: CellsConfig | None = None,
        faults: FaultsConfig | None = None,
        disturb: DisturbConfig | None = None,
        *,
        seed: int = 0,
        keys: tuple[int, ...] = (),
        variation: CellVariation | None = None,
    ) -> None:
        n_wl, n_bl = (int(n) for n in shape)
        if n_wl < 1 or n_bl < 1:
            raise InputError(f"shape must be (word lines, bit lines), each >= 1, got {shape!r}")
        self.shape = (n_wl, n_bl)
        self.config = cells if cells is not None else CellsConfig()
        self.faults = faults if faults is not None else FaultsConfig()
        self.disturb = disturb if disturb is not None else DisturbConfig()
        self.seed, self.keys = int(seed), tuple(int(k) for k in keys)
        self.scale = self.config.scale
        self.variation = variation
        self._aims = self.scale.levels if variation is None else variation.levels
        self._thermal = (0.0, 0.0)  # relative change of conductance at g_min and g_max
        self.law: ErrorLaw = self.config.error_law()
        self.disturb_law = disturb_law(self.disturb) if self.disturb.enabled else None
        self.drift_law = drift_law(self.config.drift)
        self.clock = 0.0  # [s] since delivery
        self.version = 0  # grows whenever a conductance may have changed
        self._n_telegraph = 0
        self._count_min = self._count_max = 0
        self._tables: StressTables | None = None
        self._prepare()
        self._allocate()
        self._arrive()

    # -- set-up ---------------------------------------------------------------------------

    def _key(self, cause: Cause, *more: int) -> np.uint64:
        return streams.key(self.seed, cause, *self.keys, *more)

    def _prepare(self) -> None:
        """Kernel parameters that never change."""
        cells, low, high = self.config, self.scale.g_min, self.scale.g_max
        f = cells.fixed_fraction
        fixed, fresh = float(np.sqrt(f)), float(np.sqrt(1.0 - f))
        key_fixed = self._key(Cause.CELL_FIXED)
        self._split = write_kernels.Split(fixed, fresh, key_fixed, self._key(Cause.CELL_WRITE))
        self._split_reset = write_kernels.Split(fixed, fresh, key_fixed, self._key(Cause.RESET))
        relaxation = cells.relaxation
        f = relaxation.fixed_fraction
        self._split_relaxed = write_kernels.Split(
            float(np.sqrt(f)),
            float(np.sqrt(1.0 - f)),
            self._key(Cause.RELAXATION, 0),
            self._key(Cause.RELAXATION, 1),
        )
        top = self.law.bounds[1]
        self._relaxation = write_kernels.Relaxation(
            relaxation.enabled, relaxation.g_reference, 0.0, float(top if np.isfinite(top) else 1.3 * high)
        )
        self._shift = np.array(relaxation.shift_polynomial or (0.0,))
        self._sigma_relaxed = np.array(relaxation.sigma_polynomial or (0.0,))
        wear = cells.endurance
        self._wear = write_kernels.Wear(
            float(wear.n_endurance),
            wear.exponent,
            wear.window_loss,
            wear.sigma_growth,
            int(wear.cycles_before),
            low,
            high,
        )
        programming = cells.programming
        self._pulses = kernel_pulses(programming, self.scale.levels)
        drift, kind = cells.drift, drift_kind(self.drift_law)
        f = drift.fixed_fraction
        # a law without a kernel is applied to what was written, before the kernel sees it
        self._drift = kernels.Drift(
            kernels.DRIFT_OFF if kind is None else kind,
            drift.t_reference,
            drift.g_reference,
            float(np.sqrt(f)),
            float(np.sqrt(1.0 - f)),
            self._key(Cause.DRIFT, 0),
            self._key(Cause.DRIFT, 1),
        )
        self._mean = np.array(drift.mean_polynomial or (0.0,))
        self._sigma = np.array(drift.sigma_polynomial or (0.0,))
        self._sigma_offset = np.array(drift.sigma_offset or (0.0,))
        law, p, t_reference = self.disturb_law, 0.0, 1.0
        kind = kernel_kind(law)
        if isinstance(law, PowerLaw):
            p, t_reference = float(law.exponent(self.disturb.v_read)), law.constants["t0"]
        elif isinstance(law, ExponentialLaw):
            t_reference = law.tau
        self._disturb = kernels.Disturb(kind, p, t_reference, self.disturb.cycles_before, low, high)

    def _allocate(self) -> None:
        shape = self.shape
        self._g_written = np.zeros(shape, np.float32)
        self._count = np.zeros(shape, np.uint32)
        self._stuck = draw_faults(shape, self.faults, self.seed, self.keys)
        drifting = self.drift_law is not None or self.config.read_noise.log_coefficient > 0.0
        self._t_write = np.zeros(shape) if drifting else _NONE
        self._stress, self._susceptibility = _NONE, _NONE_32
        if self.disturb_law is not None:
            self._stress = np.zeros(shape)
            sigma = self.disturb_law.sigma_susceptibility
            if sigma > 0.0:
                self._susceptibility = np.empty(shape, np.float32)
                kernels.lognormal_factors(self._key(Cause.DISTURB), sigma, self._susceptibility)
        telegraph = self.config.telegraph
        self._trap = self._captured = np.zeros((0, 0), np.uint8)
        if telegraph.fraction > 0.0:
            self._trap = np.zeros(shape, np.uint8)
            kernels.independent_faults(self._key(Cause.TELEGRAPH, 0), telegraph.fraction, 0.0, self._trap)
            if telegraph.lifetime > 0.0:
                self._captured = np.zeros(shape, np.uint8)
                self._switch_traps(np.inf)
        changing = drifting or self.disturb_law is not None or self._captured.size > 0
        # without a cause that acts after writing, what was written is the conductance
        self._g = np.zeros(shape, np.float32) if changing else self._g_written

    def _arrive(self) -> None:
        """Reset state: g_min with its own error, outside all counters."""
        zeros = np.zeros(self.shape, np.int32)
        count = np.zeros(self.shape, np.uint32)
        count -= np.uint32(1)  # the kernel counts up to 0
        everywhere = np.ones(self.shape, bool)
        self._write_open_loop(zeros, everywhere, count, self._split_reset)
        low = self.faults.g_stuck_low if self.faults.g_stuck_low is not None else self.scale.g_min
        high = self.faults.g_stuck_high if self.faults.g_stuck_high is not None else self.scale.g_max
        self._g_written[self._stuck == 1] = low
        self._g_written[self._stuck == 2] = high
        if self.variation is not None:
            if self.variation.unreachable is not None:
                self._stuck[self.variation.unreachable & (self._stuck == 0)] = 3
            np.maximum(self._g_written, np.float32(self.variation.floor), out=self._g_written)
        self._refresh()

    # -- what the chip reads ----------------------------------------------------------------

    @property
    def conductance(self) -> NDArray[np.float32]:
        """Present conductance [S], shape (n_wl, n_bl), read only."""
        view = self._g.view()
        view.setflags(write=False)
        return view

    def read_mean(self) -> NDArray[np.float32]:
        """Mean conductance [S] of each cell over many reads, read only.

        A trap that switches faster than reads lowers the mean by occupancy x change, see `TelegraphConfig`.
        """
        mean = self.conductance
        if self._trap.size and not self._captured.size:
            mean = fast_trap_mean(self._g, self.config, self._trap)
        if any(self._thermal):
            mean = mean * self._thermal_factor()
        mean.setflags(write=False)
        return mean

    def set_thermal(self, change_low: float, change_high: float) -> None:
        """Let reads see conductances changed by these fractions at g_min and g_max, in between by ln G."""
        if self._thermal != (change_low, change_high):
            self._thermal = (change_low, change_high)
            self.version += 1

    def _thermal_factor(self) -> NDArray[np.float32]:
        position = np.log(np.maximum(self._g, 1e-12) / self.scale.g_min) / np.log(self.scale.on_off_ratio)
        low, high = self._thermal
        change = low + np.clip(position, 0.0, 1.0) * (high - low)
        return np.maximum(1.0 + change, 0.0).astype(np.float32)

    @property
    def write_count(self) -> NDArray[np.uint32]:
        """Writes of each cell since delivery."""
        view = self._count.view()
        view.setflags(write=False)
        return view

    @property
    def stuck(self) -> NDArray[np.uint8]:
        """0 = sound, 1 = stuck at low, 2 = stuck at high conductance, 3 = no pulse reaches it."""
        return self._stuck

    @property
    def stress(self) -> NDArray[np.float64] | None:
        """Signed equivalent stress time [s] since the last write; None without disturbance."""
        return self._stress if self._stress.size else None

    @property
    def nbytes(self) -> int:
        """Bytes held for the cells' state."""
        arrays = {id(a): a.nbytes for a in vars(self).values() if isinstance(a, np.ndarray) and a.ndim == 2}
        return sum(arrays.values())

    def read_sigma(self) -> NDArray[np.float32] | None:
        """Standard deviation [S] of each cell's noise in one read; None without noise."""
        seconds = self.clock - self._t_write if self._t_write.size else None
        sigma = read_sigma(self._g, seconds, self.config, self._trap if not self._captured.size else None)
        return sigma * self._thermal_factor() if sigma is not None and any(self._thermal) else sigma

    # -- writing ------------------------------------------------------------------------------

    def write(self, levels: ArrayLike, mask: ArrayLike | None = None) -> WriteReport:
        """Program cells to integer levels.

        Parameters
        ----------
        levels : ndarray of int, shape (n_wl, n_bl)
            Wanted level, 0 ... n_levels - 1, of every masked cell.
        mask : ndarray of bool, shape (n_wl, n_bl), optional
            Cells to write; all by default. A masked cell is written even when its level is
            the one it has, and a stuck cell is counted though it does not move.
        """
        levels = np.asarray(levels)
        if levels.dtype.kind not in "iu":
            raise InputError(f"levels must be integers, got dtype {levels.dtype}")
        if levels.shape != self.shape:
            raise InputError(f"levels must have shape {self.shape}, got {levels.shape}")
        mask = (
            np.ones(self.shape, bool)
            if mask is None
            else check_array(mask, "mask", dtype=bool, shape=self.shape)
        )
        wanted = levels[mask]
        n_cells = wanted.size
        if n_cells and not (wanted.min() >= 0 and wanted.max() < self.scale.n_levels):
            raise InputError(
                f"levels must lie in 0 ... {self.scale.n_levels - 1}, got {wanted.min()} ... {wanted.max()}"
            )
        del wanted
        levels = np.ascontiguousarray(levels, dtype=np.int32)  # one kernel for all integer kinds
        programming, n_failed = self.config.programming, 0
        if programming.pulse_table is not None:
            n_pulses = int(self.pulses_of_next_write(levels)[mask].sum())
            self._write_open_loop(levels, mask, self._count, self._split)
            seconds = n_pulses * (programming.t_pulse + programming.t_verify)
        elif programming.method == "write_verify":
            pulses, failed = np.zeros(self.shape[0], np.int64), np.zeros(self.shape[0], np.int64)
            by_law = programming.final == "law"
            count, g_written = self._count, self._g_written
            if by_law:  # the pulse model counts pulses, the error law says where a cell ends
                count, g_written = count.copy(), g_written.copy()
            write_kernels.write_verify(
                levels, mask, self._stuck, self._aims, self._g, self._pulses,
                self._key(Cause.PULSE_SCATTER, 0), self._key(Cause.PULSE_SCATTER, 1), self._wear,
                self._relaxation, self._shift, self._sigma_relaxed, self._split_relaxed,
                count, g_written, pulses, failed,
            )  # fmt: skip
            n_pulses, n_failed = int(pulses.sum()), int(failed.sum())
            if by_law:
                self._write_open_loop(levels, mask, self._count, self._split)
            seconds = n_pulses * (programming.t_pulse + programming.t_verify) + n_cells * programming.t_verify
        else:
            self._write_open_loop(levels, mask, self._count, self._split)
            n_pulses = round(n_cells * programming.pulses_per_write)
            verified = programming.pulses_per_write > 1.0  # the law then describes verified cells
            seconds = n_pulses * (programming.t_pulse + (programming.t_verify if verified else 0.0))
        if self.variation is not None:
            np.maximum(self._g_written, np.float32(self.variation.floor), out=self._g_written)
        if self._t_write.size:
            self._t_write[mask] = self.clock
        if self._stress.size:
            self._stress[mask] = 0.0
        if n_cells:
            self._count_min, self._count_max = int(self._count.min()), int(self._count.max())
            self._refresh()
        joules = None if programming.e_pulse is None else n_pulses * programming.e_pulse
        return WriteReport(n_cells, n_pulses, n_failed, seconds, joules)

    def pulses_of_next_write(self, levels: ArrayLike) -> NDArray[np.int64]:
        """Pulses that the next write of each cell to `levels` takes, drawn from `pulse_table`."""
        from scipy.special import ndtri

        table = self.config.programming.pulse_table
        if table is None:
            raise InputError("pulses are drawn where cells.programming.pulse_table is given")
        levels, e = np.asarray(levels), np.empty(self.shape)
        key = self._key(Cause.PULSE_SCATTER, 2)
        split = write_kernels.Split(0.0, 1.0, key, key)
        write_kernels.deviates(np.ones(self.shape, bool), self._count, split, e)
        nodes = ndtri(np.asarray(table["probabilities"], float))
        pulses = np.empty(self.shape)
        for number, row in enumerate(table["pulses"]):
            chosen = levels == number
            pulses[chosen] = np.interp(e[chosen], nodes, row)
        return np.rint(pulses).astype(np.int64)

    def _write_open_loop(self, levels: Any, mask: Any, count: Any, split: Any) -> None:
        law = self.law
        shares = self.config.fixed_fraction_levels is not None or self.config.cell_correlation is not None
        relaxed = (self._relaxation, self._shift, self._sigma_relaxed, self._split_relaxed)
        if type(law).realise in (NormalLaw.realise, LognormalLaw.realise) and not shares:
            write_kernels.write_one_shot(
                levels, mask, self._stuck, self._aims, law.sigma, law.multiplicative, law.bounds,
                split, self._wear, *relaxed, count, self._g_written,
            )  # fmt: skip
            self._err_alike(mask)
            return
        wanted = np.where(mask, levels, 0)
        e = np.empty(self.shape)
        if shares:
            e = self._deviates_by_level(wanted, mask, count, split)
        else:
            write_kernels.deviates(mask, count, split, e)
        values = np.asarray(law.realise(wanted, e), float)
        if self.variation is not None:
            moved = self._aims - self.scale.levels
            values = np.maximum(values + moved[wanted], 0.0)
        if values.shape != self.shape or not np.isfinite(values).all() or (values < 0.0).any():
            raise InputError(
                f"error law {self.config.law!r} must return finite conductances >= 0 of shape {self.shape}"
            )
        write_kernels.write_values(values, mask, self._stuck, *relaxed, count, self._g_written)
        self._err_alike(mask)

    def _err_alike(self, mask: Any) -> None:
        """Apply what cells of a line or a tile have in common to those just written."""
        if self.variation is not None and self.variation.factor is not None:
            written = mask & (self._stuck == 0)
            self._g_written[written] *= self.variation.factor[written]

    def add_pulses(self, n_pulses: NDArray[np.floating], v: float, seconds: float) -> None:
        """Stress every cell by its own number (n_wl, n_bl) of pulses of `v` [V] that last `seconds`."""
        if self.disturb_law is None:
            return
        self.disturb_law.check_voltage(abs(v))
        n_cycles = self._count.astype(float) + self.disturb.cycles_before
        weight = self.disturb_law.weight(np.full(self.shape, abs(v)), n_cycles)
        self._stress += n_pulses * weight * sign(self.disturb_law, self.disturb, np.asarray(v)) * seconds
        self._refresh(always=False)

    def _deviates_by_level(self, levels: Any, mask: Any, count: Any, split: Any) -> NDArray[np.float64]:
        """Deviates of the next write where share and correlation of the fixed part depend on the level.

        The fixed parts of a cell at all levels are `loadings` times independent normals of the cell,
        whose covariance is the correlation matrix; the first of them is the cell's ordinary deviate.
        """
        config, n_levels = self.config, self.scale.n_levels
        fractions = np.array(config.fixed_fraction_levels or (config.fixed_fraction,) * n_levels)
        loadings = np.ones((n_levels, 1))
        if config.cell_correlation is not None:
            values, vectors = np.linalg.eigh(np.array(config.cell_correlation, float))
            kept = values > 1e-9 * values[-1]
            loadings = (vectors[:, kept] * np.sqrt(values[kept]))[:, ::-1]
        draw, e = np.empty(self.shape), np.zeros(self.shape)
        for k in range(loadings.shape[1]):
            key = split.key_fixed if k == 0 else self._key(Cause.CELL_FIXED, k)
            write_kernels.deviates(mask, count, write_kernels.Split(1.0, 0.0, key, key), draw)
            e += loadings[levels, k] * draw
        write_kernels.deviates(
            mask, count, write_kernels.Split(0.0, 1.0, split.key_fresh, split.key_fresh), draw
        )
        return np.sqrt(fractions[levels]) * e + np.sqrt(1.0 - fractions[levels]) * draw

    # -- time and reads -------------------------------------------------------------------------

    @property
    def timed(self) -> bool:
        """Whether time alone changes these cells: drift, growing read noise or slow traps."""
        return bool(self._t_write.size or self._captured.size)

    def wait(self, seconds: float, kelvin: float | None = None) -> None:
        """Let time pass [s]: drift, growing read noise, switching traps.

        At another temperature `kelvin` [K] all that grows with the time since the write is faster or slower
        by Arrhenius' law (`DriftConfig.acceleration`); traps are not (assumed).
        """
        if not (np.isfinite(seconds) and seconds >= 0.0):
            raise InputError(f"seconds must be finite and >= 0, got {seconds}")
        if seconds == 0.0:
            return
        factor = 1.0 if kelvin is None else self.config.drift.acceleration(kelvin)
        self.clock += float(seconds) * factor
        self._switch_traps(seconds)
        self._refresh()

    def add_reads(
        self,
        counts: ArrayLike,
        voltages: ArrayLike,
        slope: ArrayLike | None = None,
        offset: ArrayLike | None = None,
    ) -> None:
        """Stress the cells by reads whose voltages are given as a histogram per word line.

        Parameters
        ----------
        counts : ndarray, shape (n_wl, n_codes)
            Reads of each word line at each voltage; fractions are welcome.
        voltages : ndarray, shape (n_codes,)
            Signed voltage [V] of each code at the driver.
        slope : ndarray, shape (n_wl, n_bl), optional
            Voltage across each cell per volt of its own driver; 1 where wires are ideal.
        offset : ndarray, shape (n_wl, n_bl), optional
            Voltage [V] that the other word lines' mean inputs add, see `rramsim.circuit.estimates`.
            One slope and offset for all inputs are the approximation of the mode `fast`.
        """
        if self.disturb_law is None:
            return
        voltages = check_array(voltages, "voltages", shape=(None,), unit="V")
        counts = check_array(counts, "counts", shape=(self.shape[0], len(voltages)), minimum=0.0)
        extent = (self._count_min, self._count_max)
        if self._tables is None or not self._tables.fits(voltages, slope, offset, extent):
            frozen = all(x is None or not np.asarray(x).flags.writeable for x in (slope, offset))
            if slope is not None:
                slope = check_array(slope, "slope", shape=self.shape)
            if offset is not None:
                offset = check_array(offset, "offset", shape=self.shape, unit="V")
            tables = StressTables(self.disturb_law, self.disturb, voltages, slope, offset, extent)
            tables.add(self._stress, self._count, counts)
            # arrays that can change under the same name are not remembered
            self._tables = tables if frozen else None
        else:
            self._tables.add(self._stress, self._count, counts)
        self._refresh(always=False)

    def add_cell_voltages(self, v_cell: ArrayLike, *, refresh: bool = True) -> None:
        """Stress the cells by solved voltages of every vector, the mode `exact`.

        Parameters
        ----------
        v_cell : ndarray, shape (n_vectors, n_wl, n_bl)
            Signed voltage [V] across each cell.
        refresh : bool
            False postpones the update of conductances to the next call that refreshes.
        """
        if self.disturb_law is None:
            return
        v_cell = check_array(v_cell, "v_cell", shape=(None, *self.shape), unit="V")
        add_solved(self._stress, self._count, self._count_max, self.disturb_law, self.disturb, v_cell)
        if refresh:
            self._refresh()

    # -- state ------------------------------------------------------------------------------------

    def _switch_traps(self, seconds: float) -> None:
        if not self._captured.size:
            return
        telegraph = self.config.telegraph
        stay = float(np.exp(-seconds / telegraph.lifetime))
        key = self._key(Cause.TELEGRAPH, 1)
        kernels.switch_traps(key, self._n_telegraph, telegraph.occupancy, stay, self._captured)
        self._n_telegraph += 1

    def _refresh(self, *, always: bool = True) -> None:
        """Bring `conductance` up to date; without `always` the version grows only if it changed."""
        self.version += 1
        if self._g is self._g_written:
            return
        base = np.zeros(1, np.float32)
        law = self.disturb_law
        if isinstance(law, PowerLaw):
            cycles = np.arange(self._count_max + 1) + self.disturb.cycles_before
            law.check_cycles(float(cycles[-1]))
            base = law.log_bracket(cycles).astype(np.float32)
        written = self._g_written
        if self.drift_law is not None and drift_kind(self.drift_law) is None:
            written = self._drifted_by_user_law()
        n_changed = kernels.refresh(
            written, self.clock, self._t_write, self._count, self._stuck, self._stress,
            self._susceptibility, self._drift, self._mean, self._sigma, self._sigma_offset,
            self._disturb, base, self._g,
        )  # fmt: skip
        by_table = self._disturb.kind == kernels.DISTURB_TABLE
        if by_table and law is not None:
            self._apply_user_law(law)
        if self._captured.size:
            self._apply_traps()
        if self.variation is not None:
            np.maximum(self._g, np.float32(self.variation.floor), out=self._g)
        if not (always or by_table or self._captured.size or n_changed):
            self.version -= 1

    def _drifted_by_user_law(self) -> NDArray[np.float32]:
        """What was written, after a drift law that has no kernel; stuck cells stay."""
        law, drift = self.drift_law, self._drift
        assert law is not None
        e = np.empty(self.shape)
        split = write_kernels.Split(drift.fixed, drift.fresh, drift.key_fixed, drift.key_fresh)
        # the kernel draws for the next write; drift belongs to the last one
        last = self._count.astype(np.int64) - 1
        write_kernels.deviates(np.ones(self.shape, bool), last, split, e)
        g = np.asarray(law.conductance(self._g_written.astype(float), self.clock - self._t_write, e), float)
        if g.shape != self.shape or not np.isfinite(g).all() or (g < 0.0).any():
            raise InputError(
                f"drift law {self.config.drift.law!r} must return finite conductances >= 0 of shape "
                f"{self.shape}"
            )
        return np.where(self._stuck > 0, self._g_written, g.astype(np.float32))

    def _apply_user_law(self, law: DisturbLaw) -> None:
        low, high = self.scale.g_min, self.scale.g_max
        for i in range(self.shape[0]):  # a word line at a time bounds the memory
            s = self._susceptibility[i] if self._susceptibility.size else 1.0
            cycles = self._count[i].astype(float) + self.disturb.cycles_before
            r = np.asarray(law.remaining(np.abs(self._stress[i]), cycles, s))
            g = self._g[i].astype(float)
            falling = np.where(g > low, low + (g - low) * r, g)
            rising = np.where(g < high, high - (high - g) * r, g)
            moved = np.where(self._stress[i] > 0.0, rising, np.where(self._stress[i] < 0.0, falling, g))
            self._g[i] = np.where(self._stuck[i] > 0, g, moved)

    def _apply_traps(self) -> None:
        from rramsim.cell.noise import telegraph_amplitude

        for i in range(self.shape[0]):
            active = (self._trap[i] > 0) & (self._captured[i] > 0) & (self._stuck[i] == 0)
            amplitude = telegraph_amplitude(self._g[i], self.config)
            self._g[i] = np.where(active, self._g[i] / (1.0 + amplitude), self._g[i])

    _ARRAYS = (
        "_g_written",
        "_count",
        "_stuck",
        "_t_write",
        "_stress",
        "_susceptibility",
        "_trap",
        "_captured",
    )
    _SCALARS = ("clock", "version", "_n_telegraph", "_count_max")

    def state_dict(self) -> dict[str, Any]:
        """Arrays and scalars from which `load_state_dict` continues bit for bit."""
        state: dict[str, Any] = {name.strip("_"): getattr(self, name).copy() for name in self._ARRAYS}
        state.update({name.strip("_"): getattr(self, name) for name in self._SCALARS})
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state of an array made with the same shape and settings."""
        for name in self._ARRAYS:
            mine, theirs = getattr(self, name), np.asarray(state[name.strip("_")])
            if theirs.shape != mine.shape:
                raise InputError(
                    f"state {name.strip('_')!r} must have shape {mine.shape}, got {theirs.shape}; "
                    "was it made with other settings?"
                )
            mine[...] = theirs
        for name in self._SCALARS:
            setattr(self, name, type(getattr(self, name))(state[name.strip("_")]))
        self._count_min, self._tables = int(self._count.min()), None
        version = self.version
        self._refresh()
        self.version = version
