"""Reading every vector several times, against noise of single reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rramsim.blackbox.codes import adc_code_max
from rramsim.blackbox.protocol import ChipProtocol, Datasheet, ForwardingChip, Read, Reading
from rramsim.checks import InputError

__all__ = ["AveragedReads"]

MOST_READS = 64


class AveragedReads(ForwardingChip):
    """A chip whose every vector is read several times; it answers with the mean.

    Noise that differs from read to read falls by the square root of the number of reads; errors of cells,
    lines and converters stay. Time, energy and conversions grow by that number, and the chip's ledger
    counts every read. The mean has finer steps than one conversion, so to the host this is a chip with
    an ADC of more bits: the sum of n conversions are the codes.

    Parameters
    ----------
    chip : ChipProtocol
    reads : int
        Reads of a vector, a power of two up to 64: each doubling adds one bit to the codes.

    Attributes
    ----------
    reads_per_vector : int

    Raises
    ------
    InputError
        For another number of reads.

    Examples
    --------
    >>> from rramsim import AveragedReads, ChipConfig, SimulatedChip
    >>> chip = AveragedReads(SimulatedChip(ChipConfig(), {"fc": (12, 5)}), 4)
    >>> chip.datasheet.adc_bits, chip.datasheet.t_read
    (10, 4e-07)
    """

    def __init__(self, chip: ChipProtocol, reads: int) -> None:
        super().__init__(chip)
        if isinstance(reads, bool) or reads not in (2**k for k in range(MOST_READS.bit_length())):
            raise InputError(f"reads must be a power of two from 1 to {MOST_READS}, got {reads!r}")
        self.reads_per_vector = int(reads) * int(getattr(chip, "reads_per_vector", 1))
        self._reads = int(reads)
        sheet = chip.datasheet
        bits = sheet.adc_bits + self._reads.bit_length() - 1
        self._sheet = replace(
            sheet,
            adc_bits=bits,
            adc_noise=float(sheet.adc_noise / np.sqrt(self._reads)),
            t_read=self._reads * sheet.t_read,
        )
        # the sum of n largest codes is a little less than the largest code of the finer converter
        self._share = self._reads * adc_code_max(sheet.adc_bits) / adc_code_max(bits)

    @property
    def datasheet(self) -> Datasheet:
        """The chip's nominal data with finer, slower and less noisy conversions."""
        return self._sheet

    def configure(
        self,
        layer: str,
        *,
        input_range: tuple[float, float] | None = None,
        output_range: float | None = None,
    ) -> None:
        """Set converter ranges; `output_range` [A] is that of the finer codes."""
        if output_range is not None:
            output_range = self._share * output_range
        self._chip.configure(layer, input_range=input_range, output_range=output_range)

    def read_through(self, read: Read, layer: str, codes: ArrayLike, per_tile: bool) -> Reading:
        """Read all vectors `reads` times; a sum is marked as saturated if any of its conversions is."""
        total, saturated = read(layer, codes, per_tile)
        for _ in range(self._reads - 1):
            more = read(layer, codes, per_tile)
            total, saturated = total + more.codes, saturated | more.saturated
        return Reading(total, saturated)

    def __getattr__(self, name: str) -> Any:
        # what a simulated chip has beside the protocol; a real chip lacks it, and so does this then
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._chip, name)
        return self._forking(value) if name == "fork" else value

    def _forking(self, fork: Callable[..., ChipProtocol]) -> Callable[..., AveragedReads]:
        def averaged(stream: int = 0, first_vectors: Mapping[str, int] | None = None) -> AveragedReads:
            first = None
            if first_vectors is not None:
                first = {layer: self._reads * number for layer, number in first_vectors.items()}
            return AveragedReads(fork(stream, first), self._reads)

        return averaged
