"""What a fit found: numbers with intervals, a preset, and lines of text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.cell.config import CellsConfig
from rramsim.cell.fit.cells import ShareFit
from rramsim.cell.fit.drift import DriftFit
from rramsim.cell.fit.faults import FaultFit
from rramsim.cell.fit.levels import LawFit
from rramsim.cell.fit.noise import NoiseFit
from rramsim.cell.fit.pulses import PulseFit
from rramsim.checks import InputError
from rramsim.config import unit_of

__all__ = ["DeviceFit"]

FAR_OFF = 0.05  # two-sample KS distance beyond which a level counts as not described
FEW = 500  # values below which that distance says little


@dataclass(frozen=True)
class DeviceFit:
    """Everything learned from measurements; `save` writes a preset, `summary` the report."""

    source: str
    targets: NDArray[np.float64]  # [S] per level, ascending
    means: NDArray[np.float64]  # [S]
    sigmas: NDArray[np.float64]  # [S] sample standard deviations
    counts: NDArray[np.int64]
    laws: tuple[LawFit, ...]  # normal and lognormal, likelier first
    law: str  # chosen: one of them, or "empirical"
    sigma: dict[str, Any]  # keys of [cells] that describe the spread
    shares: ShareFit | None  # None where cells were not rewritten
    drift: DriftFit | None
    disturb: DriftFit | None
    noise: NoiseFit | None
    pulses: PulseFit | None
    faults: FaultFit
    residuals: NDArray[np.float64]  # standardised, of the likelier law
    values: tuple[NDArray[np.float64], ...] = field(repr=False)  # programmed conductances [S] per level
    repeats: tuple[float, ...] = ()  # writes of a level that share the cell of one of them, on average
    simulated_ks: tuple[float, ...] = ()  # two-sample distance of the fitted preset's cells, per level
    reading: tuple[str, ...] = ()  # how the file was read
    notes: tuple[str, ...] = ()

    @property
    def fixed_fraction(self) -> float | None:
        """Pooled device-to-device share; None where cells were not rewritten."""
        return None if self.shares is None else self.shares.pooled.value

    @property
    def fixed_fraction_error(self) -> float | None:
        """Its standard error."""
        return None if self.shares is None else self.shares.pooled.error

    @property
    def not_described(self) -> tuple[int, ...]:
        """Levels whose simulated cells are farther than 0.05 (KS) from the measured ones."""
        return tuple(k for k, d in enumerate(self.simulated_ks) if d > FAR_OFF and self.counts[k] >= FEW)

    def cells(self) -> CellsConfig:
        """Settings of the fitted device."""
        return CellsConfig(**_frozen(self.settings()))

    def settings(self) -> dict[str, Any]:
        """Plain keys and values of [cells]."""
        keys: dict[str, Any] = {
            "law": self.law,
            "levels": [float(g) for g in self.means],
            "n_levels": len(self.means),
            **self.sigma,
        }
        if self.shares is not None:
            keys["fixed_fraction"] = self.shares.pooled.value
            if not self.shares.pooled_describes:
                keys["fixed_fraction_levels"] = [
                    s.value if s is not None else self.shares.pooled.value for s in self.shares.levels
                ]
                keys["cell_correlation"] = self.shares.correlation.tolist()
        if self.drift is not None:
            keys["drift"] = {"law": self.drift.law, **self.drift.parameters}
        if self.noise is not None:
            keys["read_noise"] = dict(self.noise.parameters)
        if self.pulses is not None:
            keys["programming"] = self.pulses.parameters()
        return keys

    def intervals(self) -> dict[str, tuple[float, float, float]]:
        """Value and 95 % interval of every parameter, by name."""
        from scipy.stats import beta, chi2, t as t_law

        found: dict[str, tuple[float, float, float]] = {}
        # writes of one cell go together: fewer independent values (Kish's design effect)
        share_of_cell = self.fixed_fraction or 0.0
        repeats = np.array(self.repeats or (1.0,) * len(self.means))
        counts = np.maximum(self.counts / (1.0 + share_of_cell * (repeats - 1.0)), 2.0)
        for k, (g, s, n) in enumerate(zip(self.means, self.sigmas, counts, strict=True)):
            half = t_law.ppf(0.975, n - 1) * s / np.sqrt(n)
            found[f"mean {k}"] = (float(g), float(g - half), float(g + half))
        spread = "sigma_ln" if self.laws[0].law == "lognormal" else "sigma"
        for k, row in enumerate(self.values):
            x = np.log(row) if spread == "sigma_ln" else row
            s = float(x.std(ddof=1))
            n = max(len(x) / (1.0 + share_of_cell**2 * (repeats[k] - 1.0)), 2.0)
            low, high = (s * np.sqrt((n - 1) / chi2.ppf(q, n - 1)) for q in (0.975, 0.025))
            found[f"{spread} {k}"] = (s, float(low), float(high))
        if self.shares is not None:
            share = self.shares.pooled
            found["fixed_fraction"] = (share.value, share.low, share.high)
        n = self.faults.n_cells
        for name, k in (("stuck_low_rate", self.faults.n_low), ("stuck_high_rate", self.faults.n_high)):
            low = 0.0 if k == 0 else float(beta.ppf(0.025, k, n - k + 1))
            high = 1.0 if k == n else float(beta.ppf(0.975, k + 1, n - k))
            found[name] = (k / n, low, high)
        if self.noise is not None:
            for k, (s, error) in enumerate(zip(self.noise.sigmas, self.noise.errors, strict=True)):
                if np.isfinite(s):
                    found[f"read sigma {k}"] = (float(s), float(s - 1.96 * error), float(s + 1.96 * error))
        if self.drift is not None:
            found |= {f"drift {name}": value for name, value in self.drift.intervals.items()}
        return found

    def to_toml(self, title: str | None = None) -> str:
        """Text of a preset file that `cells.preset` accepts by path."""
        import tomli_w

        def entry(value: Any, unit: str, mark: str = "fitted") -> dict[str, Any]:
            return {"value": value, "unit": unit, "mark": mark, "source": "measurements"}

        def marked(cls: Any, keys: dict[str, Any], measured: tuple[str, ...] = ()) -> dict[str, Any]:
            from rramsim.config import kind_of

            table: dict[str, Any] = {}
            for key, value in keys.items():
                kind = kind_of(cls, key) if cls else None
                if isinstance(value, str):
                    table[key] = value
                elif isinstance(value, dict):
                    table[key] = marked(kind, value)
                else:
                    unit = unit_of(cls, key) if cls else _UNITS.get(key, "1")
                    if unit == "S or 1":
                        unit = "1" if keys.get("law") == "power" else "S"
                    table[key] = entry(value, unit, "measured" if key in measured else "fitted")
            return table

        notes = [*self.notes, *(self.drift.notes if self.drift else ())]
        text: dict[str, Any] = {
            "preset": {"title": title or f"Fit to {self.source}", "note": " ".join(notes)},
            "sources": {"measurements": self.source},
            "cells": marked(CellsConfig, self.settings(), ("levels", "n_levels")),
        }
        if self.faults.n_stuck:
            text["faults"] = {
                "stuck_low_rate": entry(self.faults.n_low / self.faults.n_cells, "1"),
                "stuck_high_rate": entry(self.faults.n_high / self.faults.n_cells, "1"),
            }
            for key, g in (("g_stuck_low", self.faults.g_low), ("g_stuck_high", self.faults.g_high)):
                if g is not None:
                    text["faults"][key] = entry(g, "S", "measured")
        if self.disturb is not None:
            parameters = dict(self.disturb.parameters)
            head = {key: parameters.pop(key) for key in ("v_read", "t_read", "polarity")}
            text["disturb"] = {"law": self.disturb.law, "polarity": head.pop("polarity")}
            text["disturb"] |= {key: entry(value, _UNITS[key], "measured") for key, value in head.items()}
            text["disturb"]["parameters"] = {k: entry(v, _UNITS.get(k, "1")) for k, v in parameters.items()}
        return tomli_w.dumps(text)

    def save(self, path: str | Path, title: str | None = None) -> Path:
        """Write the preset; refuses to overwrite a file."""
        path = Path(path)
        if path.exists():
            raise InputError(f"{path} exists already; choose another name")
        path.write_text(self.to_toml(title), encoding="utf-8")
        return path

    def summary(self) -> str:
        """The result as lines of text."""
        lines = [*self.reading, f"{self.source}: {int(self.counts.sum())} programmed values at "
                 f"{len(self.means)} levels"]  # fmt: skip
        lines += [
            f"{fit.law} law: log-likelihood {fit.log_likelihood:.6g}, largest KS distance of a level "
            f"{fit.ks_distance:.3g}, smallest p times levels {fit.ks_p_value:.2g}"
            for fit in self.laws
        ]
        lines.append(f"law of the preset: {self.law}")
        for level, (g, s, n) in enumerate(zip(self.means, self.sigmas, self.counts, strict=True)):
            text = f"level {level}: mean {g * 1e6:.6g} uS, sigma {s * 1e6:.5g} uS, {n} values"
            if self.simulated_ks:
                text += f", KS of simulated cells {self.simulated_ks[level]:.3f}"
                text += " (not described)" if level in self.not_described else ""
            lines.append(text)
        lines += [f"{key} = {_short(value)}" for key, value in self.sigma.items() if key != "parameters"]
        lines += self._share_lines()
        if self.faults.n_stuck:
            f = self.faults
            lines.append(
                f"stuck cells: {f.n_stuck} of {f.n_cells} ({f.n_low} low, {f.n_high} high, {f.n_other} "
                "between), left out of means and spreads"
            )
        if self.noise is not None:
            lines.append(
                "read noise: "
                + ", ".join(f"{k} = {_short(v)}" for k, v in self.noise.parameters.items())
                + f", from {self.noise.n_pairs} pairs of successive reads"
            )
            if self.noise.telegraph is not None:
                lines.append(
                    f"telegraph noise: {100 * self.noise.telegraph:.1f} % of {self.noise.n_long} states with "
                    "many reads show two conductances"
                )
        lines += self._pulse_lines()
        for name, part in (("drift", self.drift), ("disturb", self.disturb)):
            if part is not None:
                values = ", ".join(
                    f"{k} = {_short(v)}" for k, v in part.parameters.items() if k != "parameters"
                )
                lines.append(
                    f"{name}: {part.law} law, {values or 'by level and time'}; rms {part.rms * 1e6:.3g} uS"
                )
                lines += part.notes
                if part.table is not None:
                    lines += _drift_lines(part)
        return "\n".join([*lines, *self.notes])

    def _share_lines(self) -> list[str]:
        if self.shares is None:
            return []
        share = self.shares.pooled
        lines = [
            f"fixed_fraction = {share.value:.3f} +- {share.error:.3f} (95 % interval {share.low:.3f} to "
            f"{share.high:.3f}), pooled over levels"
        ]
        if not self.shares.pooled_describes:
            lines.append(
                f"one pooled share does not describe the levels (p = {self.shares.p_value:.1g}): the preset "
                "carries a share for each level and the correlation of a cell's errors between levels"
            )
        for level, own in enumerate(self.shares.levels):
            if own is not None:
                lines.append(
                    f"level {level}: share of the cell {own.value:.3f} (95 % interval {own.low:.3f} to "
                    f"{own.high:.3f}), {own.n_cells} cells, {own.n_values} writes"
                )
        matrix, error = self.shares.correlation, self.shares.correlation_error
        for a, b in zip(*np.triu_indices(len(matrix), 1), strict=True):
            if np.isfinite(error[a, b]) and len(matrix) <= 4:
                lines.append(
                    f"correlation of the cells' errors between levels {a} and {b}: {matrix[a, b]:.3f} +- "
                    f"{error[a, b]:.3f}"
                )
        return lines

    def _pulse_lines(self) -> list[str]:
        from rramsim.cell.fit.simulation import simulated_pulses

        if self.pulses is None:
            return []
        mean, p90 = simulated_pulses(self.cells())
        lines = [
            f"level {k}: pulses mean {self.pulses.mean[k]:.4g} (simulated {mean[k]:.4g}), 90th percentile "
            f"{self.pulses.p90[k]:.4g} ({p90[k]:.4g}); gain {self.pulses.gain[k]:.3g}, std of ln gain "
            f"{self.pulses.sigma_gain[k]:.3g}"
            for k in range(len(self.means))
        ]
        if self.pulses.success is not None:
            lines.append(f"{100 * self.pulses.success:.2f} % of the writes ended inside their window")
        return lines


_UNITS = {
    "v_read": "V", "t_read": "s", "tau": "s", "t0": "s", "v_scale": "V", "temperature": "K", "times": "s",
    "conductances": "S", "means": "S", "sigmas": "S",
}  # fmt: skip


def _frozen(value: Any) -> Any:
    """Lists as tuples, and tables of [cells] as their settings classes."""
    from rramsim.config import kind_of

    known = {}
    for key, entry in value.items():
        kind = kind_of(CellsConfig, key)
        if kind is not None:
            entry = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()})
        elif isinstance(entry, list):
            entry = tuple(tuple(e) if isinstance(e, list) else e for e in entry)
        known[key] = entry
    return known


def _drift_lines(part: DriftFit) -> list[str]:
    """Mean change at a few levels and all times."""
    table = part.table
    assert table is not None
    order = np.argsort(table.g)
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(4, len(order))).astype(int))]
    lines = []
    for row in chosen:
        parts = [
            f"{t:.3g} s: {m * 1e6:+.3g} +- {e * 1e6:.2g}"
            for t, m, e in zip(table.times, table.mean[row], table.error[row], strict=True)
            if np.isfinite(m)
        ]
        lines.append(f"change from {table.g[row] * 1e6:.4g} uS (uS): " + ", ".join(parts))
    return lines


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(value) + "}"
    if isinstance(value, list | tuple):
        shown = [f"{v:.4g}" for v in value[:6]]
        return "[" + ", ".join(shown) + (", ..." if len(value) > 6 else "") + "]"
    return f"{value:.4g}"
