"""Does a chip class keep to the protocol? Checks for anybody's implementation, with messages that help."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rramsim.blackbox.codes import adc_code_max, dac_codes
from rramsim.blackbox.mapping import reference_level
from rramsim.blackbox.protocol import ChipProtocol, Datasheet, LayerCosts, LayerInfo, Ledger, Reading
from rramsim.checks import InputError

__all__ = ["check_chip", "check_reading"]

MEMBERS = ("datasheet", "layers", "ledger", "write", "configure", "mvm", "wait")
N_VECTORS = 8  # read at a time
CLEAR = 0.25  # share of full scale that a fully written column must reach, and a silent one must not


def check_chip(chip: ChipProtocol, *, exercise: bool = False) -> None:
    """Raise `InputError` with everything about a chip that does not follow the protocol.

    Parameters
    ----------
    chip : ChipProtocol
        Anybody's implementation, see `docs/protocol.md`.
    exercise : bool
        Also write and read every layer, which costs cells a few writes and erases what they held. Without
        it the chip is only looked at; `Deployment` and `finetune.tune` do that by themselves.

    Examples
    --------
    >>> from rramsim import ChipConfig, SimulatedChip, check_chip
    >>> check_chip(SimulatedChip(ChipConfig(), {"fc": (12, 5)}), exercise=True)
    """
    problems = list(_looked_at(chip))
    if not problems and exercise:
        for info in chip.layers.values():
            problems += _exercised(chip, info)
    if problems:
        kind = type(chip).__name__
        raise InputError(
            f"{kind} does not follow the protocol of chips (docs/protocol.md):\n- " + "\n- ".join(problems)
        )


def check_reading(reading: Any, info: LayerInfo, n_vectors: int, per_tile: bool) -> Reading:
    """Return the answer of `mvm` if it is what the protocol asks for.

    Raises
    ------
    InputError
        Naming the layer and what the answer lacks.
    """
    problem = _reading_problem(reading, info, n_vectors, per_tile)
    if problem:
        raise InputError(f"mvm of layer {info.name!r}: {problem}")
    return reading


def _reading_problem(reading: Any, info: LayerInfo, n_vectors: int, per_tile: bool) -> str:
    if not isinstance(reading, Reading):
        return (
            f"the answer must be a Reading(codes, saturated), got {type(reading).__name__}; "
            "a tuple of two arrays becomes one by Reading(*answer)"
        )
    tiles = (len(info.row_tiles),) if per_tile else ()
    shape = (n_vectors, *tiles, info.n_cols)
    for name, kinds, what in (("codes", "i", "signed integers"), ("saturated", "b", "bool")):
        array = getattr(reading, name)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
            got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            return f"{name} must be an array of {what}, got {got}"
        if array.shape != shape:
            return f"{name} must have shape {shape}, got {array.shape}"
    return ""


def _looked_at(chip: Any) -> Iterator[str]:
    """What can be said without a write or a read."""
    missing = [name for name in MEMBERS if not hasattr(chip, name)]
    if missing:
        yield f"it lacks {', '.join(missing)}"
    for name in ("write", "configure", "mvm", "wait"):
        if hasattr(chip, name) and not callable(getattr(chip, name)):
            yield f"{name} must be a method"
    if missing:
        return
    sheet, layers, ledger = chip.datasheet, chip.layers, chip.ledger
    if not isinstance(sheet, Datasheet):
        yield f"datasheet must be a Datasheet, got {type(sheet).__name__}"
        return
    if not isinstance(layers, Mapping) or not layers:
        yield f"layers must be a mapping of names to LayerInfo with at least one entry, got {layers!r:.80}"
        return
    for name, info in layers.items():
        if not isinstance(info, LayerInfo):
            yield f"layers[{name!r}] must be a LayerInfo, got {type(info).__name__}"
        elif info.name != name:
            yield f"layers[{name!r}] calls itself {info.name!r}"
        else:
            wanted = {"differential": (2,), "reference": (1,)}.get(sheet.mapping)
            if wanted is not None and info.cells_per_weight not in wanted:
                yield (
                    f"layer {name!r}: mapping {sheet.mapping!r} has {wanted[0]} cells per weight, "
                    f"got {info.cells_per_weight}"
                )
            if sheet.mapping == "sliced" and info.cells_per_weight % 2:
                yield f"layer {name!r}: sliced weights are pairs of cells, got {info.cells_per_weight} cells"
    if not isinstance(ledger, Ledger):
        yield f"ledger must be a Ledger, got {type(ledger).__name__}"
    elif set(ledger.layers) != set(layers):
        yield f"ledger must have the layers {sorted(layers)}, got {sorted(ledger.layers)}"
    elif not all(isinstance(costs, LayerCosts) for costs in ledger.layers.values()):
        yield "ledger.layers must hold LayerCosts"


def _exercised(chip: ChipProtocol, info: LayerInfo) -> Iterator[str]:
    """Write and read one layer in ways whose outcome the protocol fixes."""
    try:
        yield from _Exercise(chip, info).problems()
    except Exception as error:  # whatever a stranger's class may raise is what the message is about
        yield f"layer {info.name!r}: {type(error).__name__} while it was written or read: {error}"


class _Exercise:
    """Writes and reads of one layer."""

    def __init__(self, chip: ChipProtocol, info: LayerInfo) -> None:
        self.chip, self.info, self.sheet = chip, info, chip.datasheet
        self.high = dac_codes(self.sheet.dac_bits, signed=True)[1]
        self.top = self.sheet.n_levels - 1
        rows = max(stop - first for first, stop in info.row_tiles)
        self.full = rows * info.g_unit * self.sheet.v_read  # [A] of a column that is fully written
        if self.sheet.mapping == "sliced":
            self.full *= self.top  # `g_unit` is one step of the least significant digit
        self.code_max = adc_code_max(self.sheet.adc_bits)

    def say(self, text: str) -> str:
        return f"layer {self.info.name!r}: {text}"

    def levels(self, cell: int | None, rows: slice = slice(None)) -> NDArray[np.int64]:
        """Everything at the level of weight 0, and one cell of every weight in `rows` at the top."""
        info = self.info
        zero = 0
        if self.sheet.mapping == "reference" and self.sheet.reference == "line":
            own = self.sheet.reference_level
            zero = reference_level(self.sheet.n_levels) if own is None else own
        levels = np.full((info.n_rows, info.n_cols, info.cells_per_weight), zero, dtype=np.int64)
        if cell is not None:
            levels[rows, :, cell] = self.top
        return levels

    def read(self, codes: NDArray[np.integer], per_tile: bool = False) -> Reading:
        reading = self.chip.mvm(self.info.name, codes.astype(np.int32), per_tile)
        return check_reading(reading, self.info, len(codes), per_tile)

    def drive(self, rows: slice, sign: int = 1) -> NDArray[np.int64]:
        codes = np.zeros((N_VECTORS, self.info.n_rows), dtype=np.int64)
        codes[:, rows] = sign * self.high
        return codes

    @property
    def full_code(self) -> float:
        """Answer of a fully written and driven column if it filled the range of every conversion."""
        scale = self.code_max * self.info.n_rows / max(b - a for a, b in self.info.row_tiles)
        if self.sheet.mapping == "sliced":
            scale *= self.sheet.n_levels ** (self.info.cells_per_weight // 2 - 1)
        if self.sheet.input_mode == "bit_serial":
            scale *= self.high
        return float(scale)

    def mean(self, codes: NDArray[np.integer]) -> float:
        """Mean answer as a share of `full_code`."""
        return float(self.read(codes).codes.mean()) / self.full_code

    def counts(self, what: str, wanted: int, do: Callable[[], Any]) -> Iterator[str]:
        name = self.info.name
        before = getattr(self.chip.ledger.layers[name], what)
        do()
        got = getattr(self.chip.ledger.layers[name], what) - before
        if got < wanted:
            yield self.say(f"ledger must count {what}: {wanted} were used, it counted {got}")

    def problems(self) -> Iterator[str]:
        chip, info, name = self.chip, self.info, self.info.name
        every = slice(None)
        chip.configure(name, input_range=(-self.sheet.v_read, self.sheet.v_read), output_range=2 * self.full)
        yield from self.counts("cell_writes", info.n_cells, lambda: chip.write(name, self.levels(None)))
        yield from self.counts("vectors", N_VECTORS, lambda: self.read(self.drive(every)))
        subtracts = self.sheet.mapping != "reference" or self.sheet.reference == "line"
        if subtracts and abs(rest := self.mean(self.drive(every))) > CLEAR / 2:
            yield self.say(
                f"weights of 0 must give codes near 0, got {rest:.2f} of full scale: the chip subtracts the "
                "- cell of a pair, and the reference line, before it answers"
            )
        chip.write(name, self.levels(0))
        level = 2 * self.mean(self.drive(every))
        if level < -CLEAR:
            yield self.say("cell 0 of a weight is the + cell, but driving it gives negative codes: swap them")
        elif level < CLEAR:
            yield self.say(
                f"fully written columns give {level:.2f} of their nominal current; is g_unit right?"
            )
        if 2 * self.mean(self.drive(every, -1)) > -CLEAR and abs(level) >= CLEAR:
            yield self.say("negative codes must drive negative voltages in a signed input range")
        yield from self.reading_twice()
        yield from self.tiles_and_saturation()
        if info.n_rows > 1 and abs(level) >= CLEAR:
            yield from self.rows_in_order()
        chip.write(name, np.zeros_like(self.levels(None)))  # left reset, as a chip arrives
        if cast(Any, chip).wait(0.0) is not None:
            yield "wait(seconds) must return nothing"

    def reading_twice(self) -> Iterator[str]:
        codes = self.drive(slice(None))
        first, second = (self.read(codes).codes.astype(np.float64).mean() for _ in range(2))
        if abs(first - second) > 0.1 * self.full_code:
            yield self.say(
                f"the same vectors gave mean codes {first:.1f}, then {second:.1f}: reads must repeat"
            )

    def tiles_and_saturation(self) -> Iterator[str]:
        chip, name = self.chip, self.info.name
        codes = self.drive(slice(None))
        if self.sheet.tile_codes:
            apart = self.read(codes, per_tile=True).codes.sum(axis=1)
            together = self.read(codes).codes
            if abs(float(apart.mean() - together.mean())) > 0.1 * self.full_code:
                yield self.say("codes without per_tile must be the sum over row tiles")
        chip.configure(name, output_range=self.full / 100)
        if self.read(codes).saturated.mean() < 0.9:
            yield self.say("conversions at the end of the range must be marked, sums that hold one too")
        chip.configure(name, output_range=2 * self.full)
        if self.read(self.drive(slice(0, 0))).saturated.any():
            yield self.say("conversions inside the range must not be marked as saturated")

    def rows_in_order(self) -> Iterator[str]:
        """Half of the rows written: the answer comes from driving those and not from the others."""
        half = slice(0, self.info.n_rows // 2)
        mask = np.zeros(self.levels(None).shape, dtype=bool)
        mask[self.info.n_rows // 2 :] = True
        self.chip.write(self.info.name, self.levels(0, half), mask)  # the first half keeps what it holds
        written, erased = self.mean(self.drive(half)), self.mean(self.drive(slice(half.stop, None)))
        if abs(written) < 2 * abs(erased):
            yield self.say(
                "row i of `levels` must be driven by column i of `codes`, and cells outside a mask must keep "
                f"their state: written rows gave {written:.3f} of full scale, erased ones {erased:.3f}"
            )
