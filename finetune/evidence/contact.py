"""What a chip's first answers say of it: used before, or with + and - cells swapped.

The protocol says that a chip arrives reset and which cell of a pair is the + cell; the host never writes
cells whose target is the reset level. Where one of the two does not hold, nothing fails: the network is
merely bad. So answers are compared with what the host believes before anything rests on them. No read is
added for that on a chip whose answers are as expected.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rramsim.blackbox.protocol import Reading
from rramsim.checks import InputError

if TYPE_CHECKING:
    from finetune.bench import Bench
    from finetune.evidence.layer import Work

__all__ = ["UsedChipWarning", "check_first_answers", "check_reset"]

LOOKED_AT = 512  # vectors compared
# Bounds, seen on LeNet-5 and a small network with lognormal errors of 0.3 to 0.8, additive ones of 0.06 and
# 0.12, 4 levels, 5 % stuck cells, read noise of 15 %, wires of 5 ohm, chips of the three mappings.
LEAST_CORRELATION = 0.7  # of answers with the written weights; at a lognormal error of 0.8 it was 0.58
CLEAR_CORRELATION = 0.92  # above which no cell is suspected
# Cells of a pair that are not reset work against the weight: the answers lack a share of its sign. That was
# >= -0.08 where cells were reset (-0.2 with additive errors of 0.12 or stuck cells), <= -0.3 in the first
# layer of used chips.
LEAST_SIGN = -0.1
MOST_ENERGY = (
    0.3  # of answers before any write over the network's own: 0.15 with stuck cells, used chips >= 0.36
)
MENDED = 0.7  # share of the error that may be left once cells are reset which were not


class UsedChipWarning(UserWarning):
    """Cells that the host took to be reset were not, and were reset."""


def check_reset(bench: Bench) -> None:
    """Refuse a chip that was written before this run and is not reset; converter ranges must be set.

    Only where the ledger counts writes is the chip read, with a few vectors of the digital network.

    Raises
    ------
    InputError
        Naming the two ways on: erase it, or start from the deployment that it was tuned with.
    """
    written = bench.meter.ledger.total.cell_writes
    if not written:
        return
    deployment, network = bench.deployment, bench.network
    values = network.feed(bench.images)
    sources = {layer: network.node(host.node).inputs[0] for layer, host in deployment.layers.items()}
    network.evaluate(values, network.output, keep=set(sources.values()))
    energies = []
    for layer, source in sources.items():
        codes, host = _some(deployment.codes(layer, values[source])), deployment.layers[layer]
        answers = deployment.port.host_mvm(layer, codes).codes * (host.unit / (host.scale * host.x_step))
        energies.append(_energy(answers, codes, deployment.weights(layer) / host.scale))
    if np.median(energies) > MOST_ENERGY:
        raise InputError(
            f"the chip must be reset: its ledger counts {written} cell writes, and before any write of this "
            f"run its layers answer with {np.median(energies):.0%} of the energy of the network's own "
            "outputs. Pass erase=True to reset every cell first (one write each), or start_from=deployment "
            "to go on with what it holds"
        )


def check_first_answers(work: Work, codes: NDArray[np.integer], reading: Reading, first: bool) -> bool:
    """Compare the first answers of a layer with its levels; whether cells were reset, so read again.

    Parameters
    ----------
    codes : integer ndarray, shape (n_vectors, n_rows)
    reading : Reading
        Answers to them, (n_vectors, n_cols) or per row tile.
    first : bool
        Whether this is the first layer that is read: the sign is the same for all.

    Raises
    ------
    InputError
        If the answers have the opposite sign.

    Warns
    -----
    UsedChipWarning
        If cells that were never written are not reset: a used chip whose ledger begins anew. They are
        written to the reset level, which is confirmed by reading again.
    """
    picks = _some(np.arange(len(codes)))
    if work.host.levels is None:
        return _check_unwritten(work, codes[picks], reading.codes[picks])
    correlation, sign, energy = _compare(work, codes[picks], reading.codes[picks])
    if first and correlation < -0.5:
        raise InputError(
            f"layer {work.layer!r}: the chip's answers have the opposite sign of the written weights "
            f"(correlation {correlation:.2f}). The protocol's + cell of a pair is cell 0: swap the cells of "
            "each pair in the chip's class, or the sign of its answers (docs/protocol.md; "
            "check_chip(chip, exercise=True) tells the same)"
        )
    suspect = correlation < LEAST_CORRELATION or (sign < LEAST_SIGN and correlation < CLEAR_CORRELATION)
    if work.was_mapped or not (suspect or work.used_chip):
        return False  # what was mapped before may have drifted: that is maintenance
    levels = work.host.levels
    assert levels is not None
    believed_reset = levels == 0
    if not believed_reset.any():
        return False
    work.reset_cells(believed_reset)
    found, _, left = _compare(work, codes[picks], work.answers(codes[picks]).codes)
    _conclude(work, left < MENDED * energy, int(believed_reset.sum()), correlation=correlation, after=found)
    return True


def _check_unwritten(work: Work, codes: NDArray[np.integer], answers: NDArray[np.integer]) -> bool:
    """The same for a layer that this run has not written yet: all of its cells should be reset."""

    def energy(answers: NDArray[np.integer]) -> float:
        total = answers if answers.ndim == 2 else answers.sum(axis=1)
        return _energy(total * work.unit, codes, work.weights / work.host.scale)

    before = energy(answers)
    if work.was_mapped or not (before > MOST_ENERGY or work.used_chip):
        return False
    every = np.ones((work.info.n_rows, work.info.n_cols, work.info.cells_per_weight), dtype=bool)
    work.reset_cells(every)
    after = energy(work.answers(codes).codes)
    _conclude(work, after < MENDED * before, every.size, energy=before, after=after)
    return True


def _conclude(work: Work, mended: bool, n_cells: int, **seen: float) -> None:
    """Write down what resetting cells showed; warn at the first layer where it was needed."""
    was_used = work.used_chip or mended
    work.record("used chip" if was_used else "reset check", cells=n_cells, **seen)
    if not was_used or work.used_chip:
        return
    work.used_chip = True
    words = ", ".join(f"{name} {value:.2f}" for name, value in seen.items())
    warnings.warn(
        f"layer {work.layer!r}: cells that the host never wrote were not reset (answers against the "
        f"network's weights: {words} resetting them); the chip was used before. Such cells are reset in each "
        "layer as it is tuned; tune(..., erase=True) does it at once",
        UsedChipWarning,
        stacklevel=2,
    )


def _energy(answers: NDArray[Any], codes: NDArray[Any], weights: NDArray[Any]) -> float:
    """Energy in which columns' answers differ, over that of what the network's own weights would give.

    Cells that are all alike answer alike in all columns, whatever is subtracted from them.
    """
    answers = _centred(answers)
    answers -= answers.mean(axis=1, keepdims=True)
    wanted = _centred(codes.astype(np.float64) @ weights)
    return float(np.square(answers).sum() / max(np.square(wanted).sum(), 1e-300))


def _compare(
    work: Work, codes: NDArray[np.integer], answers: NDArray[np.integer]
) -> tuple[float, float, float]:
    """How answers go with what the levels stand for.

    Returns
    -------
    correlation, sign, energy : float
        Correlation with ``x @ w``; coefficient of ``x @ sign(w)`` beside it; squares that ``x @ w`` does not
        explain.
    """
    total = answers if answers.ndim == 2 else answers.sum(axis=1)
    inputs, weights = codes.astype(np.float64), work.stored
    parts = [_centred(part) for part in (total * work.unit, inputs @ weights, inputs @ np.sign(weights))]
    if work.host.common is not None:  # a multiple of the inputs' sum is the host's business
        shared = _centred(inputs.sum(axis=1))
        shared /= max(float(np.linalg.norm(shared)), 1e-300)
        parts = [part - np.outer(shared, shared @ part) for part in parts]
    read, believed, signs = (part.ravel() for part in parts)
    power, stored = float(read @ read), float(believed @ believed)
    if min(power, stored) <= 0.0:
        return 1.0, 0.0, 0.0  # nothing answers, or nothing is stored: no evidence
    sign = 0.0
    if work.sheet.mapping != "reference":  # a lone cell at level 0 is a weight like any other
        sign = float(np.linalg.lstsq(np.stack([believed, signs], axis=1), read, rcond=None)[0][1])
    product = float(read @ believed)
    return product / np.sqrt(power * stored), sign, power - product**2 / stored


def _some(values: NDArray[Any]) -> NDArray[Any]:
    return values[:: -(-len(values) // LOOKED_AT)]


def _centred(values: NDArray[Any]) -> NDArray[np.float64]:
    return values - values.mean(axis=0)
