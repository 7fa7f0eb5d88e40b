"""What the reads of a layer do to its cells: counted as they come, let act every state step.

Mode `fast` keeps a histogram of DAC codes per word line and turns it into stress through each
cell's slope and offset (`rramsim.circuit.estimates`); these are kept until inputs or conductances have
changed noticeably. Mode `exact` solves the voltage of every cell for every vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.blackbox.windows import border_classes
from rramsim.cell import DisturbConfig
from rramsim.chip.drive import Drive, drive_matrix
from rramsim.chip.layer_array import LayerArray
from rramsim.kernels import read as read_kernels
from rramsim.kernels.windows import Geometry

__all__ = ["ReadStress"]

EXACT_VECTORS = 64  # vectors per solve of cell voltages in mode `exact`
DRIVE_TOLERANCE = 0.02  # change of mean inputs (of full drive) or conductances that renews slope and offset
DRIVE_STEPS = 64  # state steps over which the mean of inputs is taken at most


class ReadStress:
    """Pending reads of one layer and their effect on its cells.

    Parameters
    ----------
    array : LayerArray
        The cells that reads stress.
    drive : Drive
        What codes stand for; `set_drive` changes it.
    config : DisturbConfig
    """

    def __init__(self, array: LayerArray, drive: Drive, config: DisturbConfig) -> None:
        self._array = array
        self._drive = drive
        self._config = config
        self._histogram: NDArray[Any] | None = None  # reads per word line and code that have not acted yet
        self._n_pending = 0  # vectors in it
        self._pixels: NDArray[np.int64] | None = None  # the same per pixel class of `_geometry`'s maps
        self._geometry: tuple[Any, ...] = ()
        self._slopes: dict[str, Any] = {}  # slope and offset, and what they were computed from
        self._window: dict[str, Any] = {}  # inputs since then

    # -- counting -----------------------------------------------------------------------------

    def chunks(self, n_entries: int, vectors_each: int, n_read: int) -> Iterator[tuple[int, int]]:
        """Split a call where the state advances; entries are vectors or whole images.

        `n_read` vectors have been read before the call.
        """
        every, first = self._config.state_step, 0
        while first < n_entries:
            missing = every - (n_read + first * vectors_each) % every
            last = min(n_entries, first + max(1, -(-missing // vectors_each)))
            yield first, last
            first = last

    def count(self, data: NDArray[Any], geometry: Geometry | None, n_read: int) -> None:
        """Enter reads that the layer has just answered; where a state step is complete, let them act.

        `n_read` vectors were read before these.
        """
        every = self._config.state_step
        n_vectors = len(data) * (geometry.out_h * geometry.out_w if geometry else 1)
        due = (n_read + n_vectors) // every > n_read // every
        if self._config.mode == "exact":
            self._act_exactly(data, geometry, refresh=due)
            return
        if geometry is None:
            read_kernels.count_codes(data, self._offset, self._counts())
        else:
            self._count_maps(data, geometry)
        self._n_pending += n_vectors
        if due:
            self.advance()

    @property
    def _offset(self) -> int:
        """Column of code 0 in the histogram."""
        return self._drive.code_high if self._drive.signed else 0

    def _counts(self) -> NDArray[Any]:
        if self._histogram is None:
            shape = (self._array.layout.n_rows, self._offset + self._drive.code_high + 1)
            self._histogram = np.zeros(shape, dtype=np.int64)
        return self._histogram

    def _count_maps(self, maps: NDArray[Any], geometry: Geometry) -> None:
        """Count pixels by the windows that see them; `_share_pixels` makes reads of them."""
        if self._geometry[:2] != (geometry, maps.shape[1:]):
            self._share_pixels()
            g, (height, width) = geometry, maps.shape[2:]
            rows = border_classes(height, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.out_h)
            columns = border_classes(width, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.out_w)
            self._geometry = (geometry, maps.shape[1:], rows, columns)
        rows, columns = self._geometry[2:]
        if self._pixels is None:
            shape = (maps.shape[1], len(rows[1]), len(columns[1]), self._counts().shape[1])
            self._pixels = np.zeros(shape, dtype=np.int64)
        read_kernels.count_map_codes(maps, rows[0], columns[0], self._offset, self._pixels)

    def _share_pixels(self) -> None:
        """Turn counts of pixels into reads of word lines, one for each kernel position that sees them."""
        if self._pixels is None:
            return
        counts, (rows, columns) = self._pixels, (self._geometry[2][1], self._geometry[3][1])
        n_maps, n_r, n_c, n_codes = counts.shape
        # exact in float64: counts stay far below 2**53
        across = columns.T.astype(float) @ counts.reshape(-1, n_c, n_codes).astype(float)
        shared = rows.T.astype(float) @ across.reshape(n_maps, n_r, -1)
        shared[..., self._offset :: n_codes] = 0.0  # undriven lines gain nothing, padded ones included
        self._counts()[:] += shared.reshape(self._counts().shape).astype(np.int64)
        self._pixels = None

    # -- acting -------------------------------------------------------------------------------

    def advance(self) -> None:
        """Let the reads counted so far act on the cells."""
        self._share_pixels()
        if self._histogram is not None and self._histogram.any():
            self.act(self._histogram.astype(np.float64), self._n_pending)
            self._histogram[:] = 0
        self._n_pending = 0

    def set_drive(self, drive: Drive) -> None:
        """Let pending reads act, then count codes that stand for other voltages."""
        self.advance()
        self._histogram = None
        self._drive = drive

    def act(self, counts: NDArray[np.floating], n_vectors: float) -> None:
        """Stress of `counts` (n_rows, n_codes) reads of `n_vectors` vectors, present cells for all of them.

        Silent reads need not be among the counts: they do no harm.
        """
        drive = self._drive
        steps = np.arange(counts.shape[1]) - self._offset
        n_reads = n_vectors * len(drive.passes)
        if drive.converters.input_mode == "bit_serial":
            ones = np.array([abs(int(step)).bit_count() for step in steps])
            pulses = counts * ones  # a set bit is one pulse of full voltage
            counts = np.stack([pulses[:, steps < 0].sum(axis=1), pulses[:, steps > 0].sum(axis=1)], axis=1)
            voltages = np.array([-drive.v_full, drive.v_full])
        else:
            voltages = steps * drive.v_lsb
        if drive.converters.drive == "two_phase":
            voltages = np.abs(voltages)
        counts = self._array.layout.on_word_lines(counts)
        slopes: dict[str, Any] = {}
        if self._array.wired:
            slopes = self._cell_drive(n_reads, counts @ voltages, counts @ voltages**2)
        self._array.add_reads(counts, voltages, slopes)

    def _cell_drive(
        self, n_reads: float, sums: NDArray[np.float64], squares: NDArray[np.float64]
    ) -> dict[str, Any]:
        """Slope and offset of every cell, computed anew when inputs or conductances have moved.

        Inputs are compared over twice as many reads as before, so that chance moves little.
        """
        array, window, last = self._array, self._window, self._slopes
        for name, value in (("n", n_reads), ("sums", sums), ("squares", squares)):
            window[name] = window.get(name, 0.0) + value
        v_mean, v_rms = window["sums"] / window["n"], np.sqrt(window["squares"] / window["n"])
        g = array.cells.conductance
        renew = not last or bool(np.abs(g - last["g"]).sum() > DRIVE_TOLERANCE * last["g"].sum())
        if last and window["n"] >= 2 * last["n"]:
            change = max(_rms(v_mean - last["v_mean"]), _rms(v_rms - last["v_rms"]))
            renew |= change > DRIVE_TOLERANCE * self._drive.v_full
            last["n"] = np.minimum(window["n"], DRIVE_STEPS * self._config.state_step)
            self._window = {}
        if renew:
            self._slopes = {
                "g": g.copy(),
                "v_mean": v_mean,
                "v_rms": v_rms,
                **array.cell_drive(v_mean, v_rms),
            }
            for value in self._slopes.values():
                value.setflags(write=False)  # lets the cells keep tables made for them
            self._slopes["n"] = np.minimum(window["n"], DRIVE_STEPS * self._config.state_step)
            self._window = {}
        return self._slopes

    def _act_exactly(self, data: NDArray[Any], geometry: Geometry | None, *, refresh: bool) -> None:
        """Stress of every cell from its own solved voltage in every vector and pass: slow."""
        parts = [
            v_in
            for bit, sign in self._drive.passes
            for drive in [drive_matrix(data, geometry, bit, sign) * self._drive.v_lsb]
            for v_in in np.array_split(drive, max(1, len(drive) // EXACT_VECTORS))
        ]
        for index, v_in in enumerate(parts):
            v_in = self._array.layout.on_word_lines(v_in.T.astype(np.float64)).T
            self._array.add_exactly(v_in, refresh=refresh and index == len(parts) - 1)

    def age(self, n_reads: float, codes: NDArray[Any] | None) -> None:
        """Let `n_reads` vectors with the distribution of `codes` act at once; full drive for None."""
        self.advance()
        counts = np.zeros(self._counts().shape, dtype=np.int64)
        if codes is None:
            counts[:, -1] = 1
        else:
            read_kernels.count_codes(codes, self._offset, counts)
        self.act(counts * (n_reads / (1 if codes is None else len(codes))), n_reads)

    # -- state --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Pending reads and the cells' drive."""
        self._share_pixels()
        return {
            "histogram": None if self._histogram is None else self._histogram.copy(),
            "n_pending": self._n_pending,
            "drive": {name: np.array(value) for name, value in self._slopes.items()},
            "window": {name: np.array(value) for name, value in self._window.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], drive: Drive) -> None:
        """Continue from `state_dict`, whose codes stand for `drive`."""
        self._drive = drive
        histogram = state["histogram"]
        self._histogram = None if histogram is None else np.array(histogram)
        self._pixels, self._geometry = None, ()
        self._n_pending = int(state["n_pending"])
        self._slopes = {name: np.array(value) for name, value in state["drive"].items()}
        for value in self._slopes.values():
            value.setflags(write=False)
        self._window = {name: np.array(value) for name, value in state["window"].items()}


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
