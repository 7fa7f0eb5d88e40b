"""Health report of a tuned chip: what was learnt of it, in words and numbers, against its datasheet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.evidence.health import HEALTH_STEP

__all__ = ["Health"]

# what a sound chip does not exceed; beyond it the report says that the chip differs from its datasheet
NOISE_RATIO = 1.5  # noise of a conversion over that of an ADC as the datasheet has it
GAIN = 0.1  # deviation of answers from the written levels' currents, relative
GAIN_SPREAD = 0.03  # standard deviation of the gains of single conversions
OFFSET_CODES = 1.5  # standard deviation of their offsets, codes
SATURATED = 0.05  # share of conversions at the end of the range
OUTLIERS = 0.02  # share of weights off by more than five standard deviations
FEWEST = 5  # weights that must stand out before they are spoken of
ABSOLUTE = 0.03  # error that is left at the reset level, in weights of 1


@dataclass(frozen=True, kw_only=True)
class LayerHealth:
    """One layer, as it answered before cells were rewritten; see `finetune.evidence.health`."""

    layer: str
    gain: float  # answers over what written levels stand for
    gain_spread: float  # standard deviation over conversions beyond what write errors explain
    offset_codes: float  # standard deviation of constant parts, likewise [ADC codes]
    noise_codes: float  # standard deviation of one conversion [ADC codes]
    noise_expected: float  # the same for the datasheet's ADC
    saturated: float  # share of conversions
    dead_bit_lines: float  # lines whose weights do not show
    dead_word_lines: float
    known_weights: float  # weights that outputs determine well
    outliers: float  # of these, far off
    sigma_relative: float  # spread of writes, relative to the conductance
    sigma_absolute: float  # and independent of it, in weights of 1
    reads: float  # of every vector that identification took


@dataclass(frozen=True, kw_only=True)
class Health:
    """What tuning learnt of a chip.

    Attributes
    ----------
    layers : tuple of LayerHealth
    repeated_share : float
        Share of a cell's error that its next write repeats; NaN where nothing was rewritten.
    used_before : bool
        Whether cells had to be reset that should have arrived so.

    Examples
    --------
    >>> from finetune.health import Health
    >>> row = {"step": "health", "layer": "fc", "gain": 0.8, "gain_spread": 0.0, "offset_codes": 0.2,
    ...        "noise_codes": 0.6, "noise_expected": 0.58, "saturated": 0.0, "dead_bit_lines": 0.0,
    ...        "dead_word_lines": 0.0, "known_weights": 60.0, "outliers": 0.0, "sigma_relative": 0.3,
    ...        "sigma_absolute": 0.001, "reads": 1.0}
    >>> print(Health.of([row]).text())
    Writes scatter by 30% of the conductance and by 0.001 of a full weight.
    One conversion has noise of 0.6 codes (0.6 expected of its ADC).
    This chip does not behave like its datasheet:
    - its answers are 80% of what the written levels stand for (IR drop, or biased writes).
    """

    layers: tuple[LayerHealth, ...]
    repeated_share: float = float("nan")
    used_before: bool = False

    @classmethod
    def of(cls, history: Iterable[Mapping[str, Any]]) -> Health:
        """From the rows of `TuneReport.history`."""
        rows = list(history)
        names = LayerHealth.__dataclass_fields__
        seen = {
            row["layer"]: LayerHealth(**{name: row[name] for name in names})
            for row in rows
            if row["step"] == HEALTH_STEP
        }
        carry = [float(row["carry"]) for row in rows if "carry" in row]
        return cls(
            layers=tuple(seen.values()),
            repeated_share=carry[-1] if carry else float("nan"),
            used_before=any(row["step"] == "used chip" for row in rows),
        )

    def _mean(self, name: str) -> float:
        return float(np.mean([getattr(entry, name) for entry in self.layers]))

    def _sum(self, name: str) -> int:
        return int(sum(getattr(entry, name) for entry in self.layers))

    @property
    def deviations(self) -> list[str]:
        """In what the chip differs from its datasheet, one sentence each; empty for a sound chip."""
        found = ["it was used before: cells that should be reset were not"] if self.used_before else []
        if not self.layers:
            return found
        gain, offset, spread = (self._mean(name) for name in ("gain", "offset_codes", "gain_spread"))
        ratios = [entry.noise_codes / max(entry.noise_expected, 1e-12) for entry in self.layers]
        if np.median(ratios) > NOISE_RATIO:
            found.append(
                f"noise of single reads is {np.median(ratios):.1f} times that of its ADCs: cells fluctuate; "
                "rramsim.AveragedReads trades reads for accuracy"
            )
        if abs(gain - 1.0) > GAIN:
            why = "IR drop, or biased writes" if gain < 1.0 else "biased writes"
            found.append(f"its answers are {gain:.0%} of what the written levels stand for ({why})")
        if spread > GAIN_SPREAD:
            found.append(f"gains of conversions differ by {spread:.1%} beyond what write errors explain")
        if offset > OFFSET_CODES:
            found.append(f"offsets of conversions differ by {offset:.1f} codes")
        for name, words in (
            ("dead_bit_lines", "bit lines answer nothing"),
            ("dead_word_lines", "word lines do not act"),
        ):
            if self._sum(name):
                found.append(f"{self._sum(name)} {words}")
        share = self._sum("outliers") / max(self._sum("known_weights"), 1)
        if share > OUTLIERS and self._sum("outliers") >= FEWEST:
            found.append(
                f"{share:.1%} of the weights are off by more than 5 standard deviations "
                "of a write: stuck cells or heavy tails"
            )
        if self.layers[-1].sigma_absolute > ABSOLUTE:
            found.append(
                f"writes err by {self.layers[-1].sigma_absolute:.2f} of a full weight at any level: "
                "additive errors or stuck cells"
            )
        if self._mean("saturated") > SATURATED:
            found.append(f"{self._mean('saturated'):.1%} of the conversions saturate")
        return found

    def text(self) -> str:
        """The report in words."""
        if not self.layers:
            return "Nothing was identified: the strategy has no lsq.rewrite."
        last = self.layers[-1]
        lines = [
            f"Writes scatter by {last.sigma_relative:.0%} of the conductance and by "
            f"{last.sigma_absolute:.3f} of a full weight."
        ]
        if np.isfinite(self.repeated_share):
            lines.append(f"A cell's next write repeats {self.repeated_share:.0%} of its error.")
        lines.append(
            f"One conversion has noise of {self._mean('noise_codes'):.1f} codes "
            f"({self._mean('noise_expected'):.1f} expected of its ADC)."
        )
        most = max(entry.reads for entry in self.layers)
        if most > 1:
            lines.append(f"Identification read vectors up to {most:.0f} times.")
        if self.deviations:
            lines.append("This chip does not behave like its datasheet:")
            lines += [f"- {sentence}." for sentence in self.deviations]
        else:
            lines.append("It behaves like its datasheet.")
        return "\n".join(lines)
