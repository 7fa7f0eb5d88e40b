"""From measurements of cells to a preset."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.cell.fit.arrhenius import fit_arrhenius
from rramsim.cell.fit.cells import fit_shares
from rramsim.cell.fit.disturb import fit_disturb
from rramsim.cell.fit.drift import fit_drift
from rramsim.cell.fit.faults import find_faults
from rramsim.cell.fit.levels import LawFit, describe_sigma, described, fit_law, quantile_table, standardise
from rramsim.cell.fit.noise import fit_noise
from rramsim.cell.fit.pulses import fit_pulses
from rramsim.cell.fit.reading import BINS, Measurements, read_measurements
from rramsim.cell.fit.recipe import ReadingConfig
from rramsim.cell.fit.result import FEW, DeviceFit
from rramsim.cell.fit.simulation import simulated_ks
from rramsim.checks import InputError

__all__ = ["fit", "programmed_values"]

CLOSE = 0.045  # KS distance of simulated cells that calls for a richer description
MANY_TARGETS = 128  # more different targets than this are continuous

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Rows:
    """Measurements with the level and the write of each row."""

    data: Measurements
    level: Ints
    targets: Floats
    key: Ints  # number of the write
    fresh: NDArray[np.bool_]  # the first read of each write
    first: Floats  # [s] time of a write's first read, per key
    reads: Floats
    time: Floats
    notes: list[str]


def fit(
    paths: str | Path | Sequence[str | Path], reading: ReadingConfig | None = None, *, seed: int = 0
) -> DeviceFit:
    """Fit everything that measurements of cells can tell.

    Levels and error law always; device-to-device share where cells were rewritten; drift where there
    are times, read noise where one state was read repeatedly, pulses where they were counted,
    read disturbance where there are reads.

    Parameters
    ----------
    paths : path or sequence of paths
        Measurement files, see `rramsim.cell.fit.read_measurements`.
    reading : ReadingConfig, optional
        Corrections to how they are read.
    seed : int
        Of the simulated cells that are compared with the measured ones.

    Raises
    ------
    InputError
        Naming the file, and the line where there is one.
    """
    reading = reading or ReadingConfig()
    rows = _writes(read_measurements(paths, reading), reading)
    columns, fresh = rows.data.columns, rows.fresh
    faults = find_faults(
        columns["g"][fresh], rows.level[fresh], columns["cell"][fresh] if "cell" in columns else None
    )
    if faults.mask.any():
        stuck = np.zeros(int(rows.key.max()) + 1, bool)
        stuck[rows.key[fresh]] = faults.mask
        rows = _kept(rows, ~stuck[rows.key])
    rows = _without_small_levels(rows, reading)
    columns, fresh, level = rows.data.columns, rows.fresh, rows.level
    g = columns["g"][fresh]
    values = tuple(_groups(g, level[fresh]))
    means = np.array([row.mean() for row in values])
    sigmas = np.array([row.std(ddof=1) for row in values])
    counts = np.array([len(row) for row in values])
    laws = tuple(
        sorted(
            (fit_law(law, g, level[fresh]) for law in ("normal", "lognormal")),
            key=lambda f: -f.log_likelihood,
        )
    )
    residuals, _ = standardise(laws[0].law, g, level[fresh])
    notes = list(rows.notes)
    law, sigma, ks = _choose_law(laws, g, level[fresh], means, counts, values, seed, notes)
    shares = None
    if "cell" in columns:
        # shares are told on the scale of the likelier law, where errors are nearest to normal
        shares = fit_shares(residuals, columns["cell"][fresh], level[fresh])
    if shares is None:
        notes.append("Device-to-device and cycle-to-cycle parts are not told apart: no cell was rewritten.")
    repeats = _repeats(columns["cell"][fresh], level[fresh]) if "cell" in columns else (1.0,) * len(means)
    drift, disturb = _changes(rows, means, notes)
    noise = fit_noise(
        columns["g"][rows.reads == 0], rows.key[rows.reads == 0],
        rows.time[rows.reads == 0] if "time" in columns else None, level[rows.reads == 0], means,
    )  # fmt: skip
    pulses = None
    if "pulses" in columns:
        pulses = fit_pulses(
            columns["pulses"][fresh], level[fresh], means,
            *(columns[name][fresh] if name in columns else None for name in ("lower", "upper", "success")),
        )  # fmt: skip
    read = (*rows.data.notes, *(f"left out: {text}" for text in rows.data.bad))
    return DeviceFit(
        rows.data.source, rows.targets, means, sigmas, counts, laws, law, sigma, shares, drift, disturb,
        noise, pulses, faults, residuals, values, repeats, ks, read, tuple(notes),
    )  # fmt: skip


def programmed_values(
    paths: str | Path | Sequence[str | Path], reading: ReadingConfig | None = None
) -> tuple[NDArray[np.float64], ...]:
    """First-read conductances [S] of every level of measurement files, levels ascending."""
    reading = reading or ReadingConfig()
    rows = _without_small_levels(_writes(read_measurements(paths, reading), reading), reading)
    return tuple(_groups(rows.data.columns["g"][rows.fresh], rows.level[rows.fresh]))


# -- levels and writes ----------------------------------------------------------------------------


def _groups(x: Floats, level: Ints) -> list[Floats]:
    order = np.argsort(level, kind="stable")
    return np.split(x[order], np.cumsum(np.bincount(level))[:-1])


def _writes(data: Measurements, reading: ReadingConfig) -> _Rows:
    """Tell levels, writes and first reads apart."""
    columns = data.columns
    notes: list[str] = []
    n = len(data)
    level, targets = _levels(data, reading, notes)
    reads, time = columns.get("n_reads", np.zeros(n)), columns.get("time", np.zeros(n))
    cell = columns.get("cell", np.arange(n))
    if "cycle" in columns:
        parts = [cell, columns["cycle"], level]
    elif "pulses" in columns or "cell" not in columns:
        parts = [np.arange(n)]  # every row is a write
    else:
        parts = [cell, level]
        repeated = n - len(np.unique(np.stack(parts, axis=1), axis=0))
        if repeated:
            notes.append(
                f"{repeated} rows repeat the level of an earlier row of their cell and are taken as reads of "
                "the same write; where the cell was rewritten, give a column cycle."
            )
    key = _numbered(parts)
    first = np.full(int(key.max()) + 1, np.inf)
    np.minimum.at(first, key, np.where(reads == 0, time, np.inf))
    candidate = np.flatnonzero((reads == 0) & (time == first[key]))
    fresh = np.zeros(n, bool)
    fresh[candidate[np.unique(key[candidate], return_index=True)[1]]] = True
    return _Rows(data, level, targets, key, fresh, first, reads, time, notes)


def _numbered(parts: list[Any]) -> Ints:
    """One number per distinct combination."""
    key = np.zeros(len(parts[0]), np.int64)
    for part in parts:
        _, index = np.unique(part, return_inverse=True)
        key = key * (int(index.max()) + 1) + index
        key = np.unique(key, return_inverse=True)[1].ravel()
    return key


def _levels(data: Measurements, reading: ReadingConfig, notes: list[str]) -> tuple[Ints, Floats]:
    """Level of each row, ascending with conductance, and the targets [S]."""
    columns = data.columns
    if "level" in columns:
        labels, index = np.unique(columns["level"], return_inverse=True)
    elif "target" in columns or reading.nominal:
        labels, index = _target_levels(columns, reading, notes)
    elif {"lower", "upper"} <= set(columns):
        windows = np.stack([columns["lower"], columns["upper"]], axis=1)
        labels, index = np.unique(windows, axis=0, return_inverse=True)
        index = index.ravel()
        notes.append(f"Levels are the {len(labels)} different windows.")
    else:
        raise InputError(
            f"{data.source}: neither level nor target is known; give a column (--column level=3) or the "
            'level of row i (--level "i % 8")'
        )
    if len(labels) < 2:
        raise InputError(f"{data.source}: needs at least 2 levels, got {len(labels)}")
    counts = np.bincount(index)
    means = np.bincount(index, columns["g"]) / counts
    order = np.argsort(means)
    if not (order == np.arange(len(order))).all():
        if (order == np.arange(len(order))[::-1]).all():
            notes.append(
                "Levels are numbered from the highest conductance in the file; here 0 is the lowest."
            )
        else:
            notes.append("Levels are renumbered by their mean conductance.")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    level = rank[index]
    if "target" in columns:
        targets = np.bincount(level, columns["target"]) / np.bincount(level)
    else:
        targets = means[order]
    return level, targets


def _target_levels(columns: Any, reading: ReadingConfig, notes: list[str]) -> tuple[Floats, Ints]:
    """Nominal targets as they are, continuous ones binned to the nearest nominal level."""
    target = columns.get("target", columns["g"])
    labels, index = np.unique(np.round(target / np.max(target), 9), return_inverse=True)
    if reading.nominal:
        nominal = np.sort(np.array(reading.nominal))
    elif reading.n_bins or len(labels) > MANY_TARGETS or "target" not in columns:
        nominal = np.linspace(target.min(), target.max(), reading.n_bins or BINS)
    else:
        return labels, index
    index = np.searchsorted(0.5 * (nominal[1:] + nominal[:-1]), target)
    shown = ", ".join(f"{g * 1e6:.4g}" for g in nominal)
    notes.append(f"Targets are continuous; each row goes to the nearest of {shown} uS.")
    labels, index = np.unique(index, return_inverse=True)
    if "target" in columns:  # errors are those against the wanted value, not against the bin
        columns["g"] = np.maximum(columns["g"] - target + nominal[labels[index]], 1e-15)
        columns["target"] = nominal[labels[index]]
    return labels.astype(float), index


def _kept(rows: _Rows, keep: NDArray[np.bool_]) -> _Rows:
    """The rows marked, writes and cells renumbered."""
    columns = {name: column[keep] for name, column in rows.data.columns.items()}
    if "cell" in columns:
        columns["cell"] = np.unique(columns["cell"], return_inverse=True)[1]
    labels, key = np.unique(rows.key[keep], return_inverse=True)
    data = dataclasses.replace(rows.data, columns=columns, lines=rows.data.lines[keep])
    return _Rows(data, rows.level[keep], rows.targets, key, rows.fresh[keep], rows.first[labels],
                 rows.reads[keep], rows.time[keep], rows.notes)  # fmt: skip


def _without_small_levels(rows: _Rows, reading: ReadingConfig) -> _Rows:
    """Drop levels with too few programmed values, with a note."""
    counts = np.bincount(rows.level[rows.fresh], minlength=len(rows.targets))
    small = counts < reading.min_cells
    if not small.any():
        return rows
    shown = ", ".join(f"{k} ({counts[k]})" for k in np.flatnonzero(small))
    rows.notes.append(f"Levels with fewer than {reading.min_cells} programmed values are left out: {shown}.")
    if (~small).sum() < 2:
        raise InputError(
            f"{rows.data.source}: at least 2 levels need {reading.min_cells} programmed values, got "
            f"{counts.tolist()}"
        )
    number = np.cumsum(~small) - 1
    kept = _kept(rows, ~small[rows.level])
    return dataclasses.replace(kept, level=number[kept.level], targets=rows.targets[~small])


# -- choices ----------------------------------------------------------------------------------------


def _choose_law(
    laws: tuple[LawFit, ...], g: Floats, level: Ints, means: Floats, counts: Ints,
    values: tuple[Floats, ...], seed: int, notes: list[str],
) -> tuple[str, dict[str, Any], tuple[float, ...]]:  # fmt: skip
    """The shortest law and description whose simulated cells resemble the measured ones."""
    from rramsim.cell.config import CellsConfig

    best = laws[0]
    _, spread = standardise(best.law, g, level)
    options: list[tuple[str, dict[str, Any]]] = []
    if described(best, counts):
        options.append((best.law, describe_sigma(best.law, spread, means, counts)))
        per_level = "sigma_levels" if best.law == "lognormal" else "sigma_conductance"
        options.append((best.law, {per_level: spread.tolist()}))
    options.append(("empirical", {"parameters": quantile_table(g, level)}))
    many = counts >= FEW
    for law, sigma in options:
        keys: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in sigma.items()}
        config = CellsConfig(levels=tuple(float(x) for x in means), law=law, **keys)
        ks = simulated_ks(config, values, seed)
        if not many.any() or np.array(ks)[many].max() < CLOSE:
            break
    if law == "empirical":
        worst = int(np.argmin(best.p_levels))
        notes.append(
            f"Neither the normal nor the lognormal law describes every level (level {worst}: KS distance "
            f"{best.ks_levels[worst]:.3f}, p = {best.p_levels[worst]:.2g} under the {best.law} law): the "
            "preset carries the measured quantiles of each level."
        )
    return law, sigma, ks


def _repeats(cell: Ints, level: Ints) -> tuple[float, ...]:
    """Mean over a level's writes of how many of them are of the same cell."""
    found = []
    for k in range(int(level.max()) + 1):
        n = np.unique(cell[level == k], return_counts=True)[1]
        found.append(float((n**2).sum() / n.sum()))
    return tuple(found)


def _changes(rows: _Rows, means: Floats, notes: list[str]) -> tuple[Any, Any]:
    """Drift and read disturbance, where rows tell of them."""
    columns, fresh, reads, time, key = rows.data.columns, rows.fresh, rows.reads, rows.time, rows.key
    if "cell" not in columns:
        if (time > time.min()).any() or (reads > 0).any():
            notes.append("Drift and disturbance are not fitted: they need the column cell.")
        return None, None
    g0 = np.full(len(rows.first), np.nan)
    g0[key[fresh]] = columns["g"][fresh]
    drift, disturb = None, None
    later = ~fresh & (reads == 0) & (time > rows.first[key])
    if later.any():
        elapsed, warm = time, None
        if "kelvin" in columns and np.ptp(columns["kelvin"]) > 1.0:
            warm = fit_arrhenius(
                columns["g"][later], g0[key[later]], time[later], rows.first[key[later]], rows.level[later],
                key[later], columns["kelvin"][later],
            )  # fmt: skip
            if warm is None:
                notes.append("Temperatures differ, but too little was read for an activation energy.")
            else:
                notes.append(warm.text)
                elapsed = time.copy()
                elapsed[later] = warm.equivalent(
                    time[later], rows.first[key[later]], columns["kelvin"][later]
                )
        drift = fit_drift(columns["g"][later], g0[key[later]], elapsed[later], rows.first[key[later]],
                          rows.level[later], key[later])  # fmt: skip
        if drift is not None and warm is not None:
            drift = warm.added_to(drift)
    disturbed = reads > 0
    if disturbed.any():
        disturb = fit_disturb(columns, disturbed, g0[key], means, rows.data.source)
        if disturb is not None and np.ptp(np.abs(columns["v_read"][disturbed])) < 1e-6:
            notes.append("One read voltage only: how disturbance depends on voltage is not determined.")
    return drift, disturb
