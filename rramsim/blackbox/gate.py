"""The gate holds a tuner to the tier it declared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.blackbox.protocol import ChipProtocol, ForwardingChip, Reading, Tier
from rramsim.checks import InputError
from rramsim.kernels.fingerprint import fingerprints

__all__ = ["Gate", "TierError"]


class TierError(InputError):
    """A tuner asked for more than its declared tier allows."""


class Gate(ForwardingChip):
    """A chip that answers only what `tier` allows.

    At `Tier.OUTPUTS` no layer can be read by the tuner. At `Tier.LAYERS` a layer can be read with
    vectors that the host recorded from images (`Deployment.trace`), and with no others: each
    recorded vector leaves a 64-bit fingerprint, and an unknown one is refused. `Tier.PROBE` frees the inputs.
    Writes and converter ranges are open at every tier; everything is charged by the chip's ledger.
    """

    def __init__(self, chip: ChipProtocol, tier: Tier) -> None:
        super().__init__(chip)
        self.tier = Tier(tier)
        self._known: dict[str, set[int]] = {name: set() for name in chip.layers}
        rng = np.random.default_rng(0x5EED)
        self._odd = {
            name: rng.integers(1, 2**63, size=info.n_rows, dtype=np.int64) | 1
            for name, info in chip.layers.items()
        }

    def mvm(self, layer: str, codes: ArrayLike, per_tile: bool = False) -> Reading:
        """Read a layer if the tier allows these inputs."""
        if self.tier == Tier.OUTPUTS:
            raise TierError("tier OUTPUTS sees end-to-end outputs only; declare LAYERS to read a layer")
        if self.tier == Tier.LAYERS:
            codes = np.asarray(codes)
            unknown = set(self._fingerprints(layer, codes)) - self._known[layer]
            if unknown:
                raise TierError(
                    f"tier LAYERS may send layer {layer!r} only vectors recorded from images, got "
                    f"{len(unknown)} others; declare PROBE for vectors of your own"
                )
        return self._chip.mvm(layer, codes, per_tile)

    def _fingerprints(self, layer: str, codes: NDArray[Any]) -> list[int]:
        result = np.empty(len(codes), dtype=np.int64)
        fingerprints(np.ascontiguousarray(codes), self._odd[layer], result)
        return np.unique(result).tolist()

    def _host_mvm(self, layer: str, codes: NDArray[Any]) -> Reading:
        """The host running images through the network: open at every tier."""
        return self._chip.mvm(layer, codes)

    def _record(self, layer: str, codes: NDArray[Any]) -> None:
        if self.tier == Tier.LAYERS:
            self._known[layer].update(self._fingerprints(layer, codes))
