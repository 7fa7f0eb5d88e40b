"""The gate holds a tuner to the tier it declared."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.blackbox.conformance import check_reading
from rramsim.blackbox.protocol import ChipProtocol, ForwardingChip, Read, Reading, Tier
from rramsim.checks import InputError
from rramsim.kernels.fingerprint import fingerprints

__all__ = ["Gate", "TierError"]


class TierError(InputError):
    """A tuner asked for more than its declared tier allows."""


class Gate(ForwardingChip):
    """A chip that answers only what `tier` allows.

    At `Tier.OUTPUTS` no layer can be read by the tuner. At `Tier.LAYERS` a layer can be read with
    vectors that the host recorded from images (`Deployment.trace`), and with no others: each
    recorded vector leaves a 64-bit fingerprint, and an unknown one is refused. A host that continues
    from answers it was given (`Trace.answer`) has them confirmed: they must be the chip's own.
    `Tier.PROBE` frees the inputs. Writes and converter ranges are open at every tier; everything is
    charged by the chip's ledger.

    Notes
    -----
    The gate keeps an honest tuner to its word and reports a slip; it is no lock. Images, and the
    digital scales and offsets that turn answers into the next layer's inputs, are the tuner's own.

    Examples
    --------
    >>> import numpy as np
    >>> from rramsim import ChipConfig, Gate, SimulatedChip, Tier
    >>> gate = Gate(SimulatedChip(ChipConfig(), {"fc": (4, 3)}), Tier.LAYERS)
    >>> gate.mvm("fc", np.eye(4, dtype=np.int16))
    Traceback (most recent call last):
        ...
    rramsim.blackbox.gate.TierError: tier LAYERS may send layer 'fc' only vectors recorded from images, \
got 4 others; declare PROBE for vectors of your own
    """

    def __init__(self, chip: ChipProtocol, tier: Tier) -> None:
        super().__init__(chip)
        self.tier = Tier(tier)
        self._known = {name: _Prints() for name in chip.layers}
        self._answered = {name: _Prints() for name in chip.layers}
        rng = np.random.default_rng(0x5EED)
        self._odd = {name: _odd_numbers(rng, info.n_rows) for name, info in chip.layers.items()}
        self._odd_answers = {name: _odd_numbers(rng, info.n_cols) for name, info in chip.layers.items()}

    def mvm(self, layer: str, codes: ArrayLike, per_tile: bool = False) -> Reading:
        """Read a layer if the tier allows these inputs."""
        if self.tier == Tier.OUTPUTS:
            raise TierError("tier OUTPUTS sees end-to-end outputs only; declare LAYERS to read a layer")
        if self.tier != Tier.LAYERS or layer not in self._known:  # the chip names its layers
            return super().mvm(layer, codes, per_tile)
        codes = np.asarray(codes)
        prints = self._vectors(layer, codes)
        unknown = self._known[layer].missing(prints)
        if unknown.size:
            raise TierError(
                f"tier LAYERS may send layer {layer!r} only vectors recorded from images, got "
                f"{unknown.size} others; declare PROBE for vectors of your own"
            )
        reading = super().mvm(layer, codes, per_tile)
        if not per_tile:
            self._answered[layer].add(self._answers(layer, prints, reading.codes))
        return reading

    def read_through(self, read: Read, layer: str, codes: ArrayLike, per_tile: bool) -> Reading:
        """Hand a read on, and see that the answer is one."""
        reading = read(layer, codes, per_tile)
        shape = np.shape(codes) if not isinstance(codes, Sized) else (len(codes),)
        return check_reading(reading, self.layers[layer], shape[0] if shape else 1, per_tile)

    def _vectors(self, layer: str, codes: NDArray[Any]) -> NDArray[np.int64]:
        return _fingerprints(codes, self._odd[layer], f"codes of {layer!r}")

    def _answers(self, layer: str, prints: NDArray[np.int64], answers: NDArray[Any]) -> NDArray[np.int64]:
        """Fingerprints of vectors with their answers."""
        own = _fingerprints(answers, self._odd_answers[layer], f"answers of {layer!r}")
        return prints * np.int64(3) + own

    def record(self, layer: str, codes: NDArray[Any]) -> None:
        """Let the tuner send these vectors from now on: images send them."""
        if self.tier == Tier.LAYERS:
            self._known[layer].add(self._vectors(layer, codes))
        super().record(layer, codes)

    def confirm(self, layer: str, codes: NDArray[Any], answers: NDArray[Any]) -> None:
        """Raise `TierError` unless the chip gave the tuner these answers to these vectors."""
        if self.tier == Tier.LAYERS:
            codes = np.asarray(codes)
            if len(codes) != len(answers):
                raise TierError(
                    f"answers of {layer!r} must be {len(codes)}, one a vector; got {len(answers)}"
                )
            prints = self._answers(layer, self._vectors(layer, codes), np.asarray(answers))
            if self._answered[layer].missing(prints).size:
                raise TierError(
                    f"tier LAYERS continues only from answers that the chip gave; those for layer {layer!r} "
                    "were changed or made up (Trace.put sets a tensor to anything, but vectors behind it "
                    "cannot be sent)"
                )
        super().confirm(layer, codes, answers)

    # -- state --------------------------------------------------------------------------------

    def gate_state(self) -> dict[str, Any]:
        """Fingerprints of recorded vectors and of answers."""
        return {
            name: {layer: prints.all.copy() for layer, prints in table.items()}
            for name, table in (("known", self._known), ("answered", self._answered))
        }

    def load_gate_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `gate_state`."""
        self._known = {layer: _Prints(prints) for layer, prints in state["known"].items()}
        self._answered = {layer: _Prints(prints) for layer, prints in state["answered"].items()}


class _Prints:
    """A set of 64-bit numbers in eight bytes each, kept sorted: networks send a chip millions of vectors."""

    def __init__(self, prints: NDArray[np.int64] | None = None) -> None:
        self.all = np.empty(0, dtype=np.int64) if prints is None else _distinct(prints)

    def missing(self, prints: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of `prints` are not in the set, sorted, each once."""
        wanted = _distinct(prints)
        if not self.all.size:
            return wanted
        place = np.minimum(np.searchsorted(self.all, wanted), self.all.size - 1)
        return wanted[self.all[place] != wanted]

    def add(self, prints: NDArray[np.int64]) -> None:
        """Put `prints` into the set."""
        new = self.missing(prints)
        if new.size:
            self.all = _distinct(np.concatenate([self.all, new]))


def _distinct(prints: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sorted, each once."""
    ordered = np.sort(prints)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if ordered.size else ordered


def _odd_numbers(rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    return rng.integers(1, 2**63, size=n, dtype=np.int64) | 1


def _fingerprints(vectors: NDArray[Any], odd: NDArray[np.int64], name: str) -> NDArray[np.int64]:
    if vectors.ndim != 2 or vectors.shape[1] != odd.size or vectors.dtype.kind not in "iu":
        raise InputError(
            f"{name} must be integers of shape (any, {odd.size}), got {vectors.dtype} {vectors.shape}"
        )
    result = np.empty(len(vectors), dtype=np.int64)
    fingerprints(np.ascontiguousarray(vectors), odd, result)
    return result
