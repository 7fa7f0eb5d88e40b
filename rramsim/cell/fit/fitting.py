"""From measurements of cells to a preset: levels, error law, D2D/C2C split, drift, read disturbance.

The CSV file has one row per measured conductance and a header with these names (SI units):

    level or g_target   level number 0, 1, ... or wanted conductance [S]      (one of them)
    g_measured          measured conductance [S]                              (required)
    cell                identifier of the cell                                (D2D/C2C, drift, disturbance)
    cycle               number of the write of that cell, 0, 1, ...           (D2D/C2C)
    time                seconds since the write [s]                           (drift)
    n_reads             reads since the write                                 (disturbance)
    v_read              read voltage [V]                                      (disturbance)
    t_read              width of a read pulse [s]; 100 ns where absent        (disturbance)
    n_cycles            SET/RESET cycles before the reads; 0 where absent     (disturbance)

Lines that begin with # are comments. Rows without reads and at a cell's earliest time
describe programming; later rows describe drift, rows with reads describe disturbance.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError, nearest_name

__all__ = ["DeviceFit", "DriftFit", "LawFit", "fit", "read_measurements"]

COLUMNS = (
    "level",
    "g_target",
    "g_measured",
    "cell",
    "cycle",
    "time",
    "n_reads",
    "v_read",
    "t_read",
    "n_cycles",
)
N_BOOTSTRAP = 200

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class LawFit:
    """One error law fitted to the programmed conductances."""

    law: str  # "normal" or "lognormal"
    log_likelihood: float
    ks_distance: float  # largest distance between the residuals' and the law's distribution
    ks_p_value: float  # share of simulated data sets that fit worse, parameters refitted


@dataclass(frozen=True)
class DriftFit:
    """A fitted change after programming: a drift law or a disturb law."""

    law: str
    parameters: dict[str, Any]  # names as in [cells.drift], or [disturb] with its parameters
    rms: float  # [S] residual
    n_points: int
    others: dict[str, float] = field(default_factory=dict)  # competing law -> BIC minus this law's


@dataclass(frozen=True)
class DeviceFit:
    """Everything learned from one file; `to_toml` writes a preset."""

    source: str
    targets: NDArray[np.float64]  # [S] per level
    means: NDArray[np.float64]  # [S]
    sigmas: NDArray[np.float64]  # [S] sample standard deviations
    counts: NDArray[np.int64]
    laws: tuple[LawFit, ...]  # best first
    sigma: dict[str, Any]  # the sigma key of [cells] and its value
    fixed_fraction: float | None  # None where cells were not rewritten
    fixed_fraction_error: float | None  # standard error
    drift: DriftFit | None
    disturb: DriftFit | None
    residuals: NDArray[np.float64]  # standardised, of the chosen law
    n_outliers: int  # |standardised residual| > 5
    notes: tuple[str, ...] = ()

    @property
    def law(self) -> str:
        return self.laws[0].law

    def to_toml(self, title: str | None = None) -> str:
        """Text of a preset file that `cells.preset` accepts by path."""
        import tomli_w

        def entry(value: Any, unit: str, mark: str = "fitted") -> dict[str, Any]:
            return {"value": value, "unit": unit, "mark": mark, "source": "measurements"}

        (sigma_key, sigma), *more = self.sigma.items()
        unit = {"sigma": "1", "sigma_levels": "1"}.get(sigma_key, "S")
        cells: dict[str, Any] = {
            "law": self.law,
            "levels": entry([float(g) for g in self.means], "S", "measured"),
            "n_levels": entry(len(self.means), "1", "measured"),
            sigma_key: entry(sigma, unit),
            **{key: entry(value, "S") for key, value in more},
        }
        if self.fixed_fraction is not None:
            cells["fixed_fraction"] = entry(self.fixed_fraction, "1")
        if self.drift is not None:
            units = {"t_reference": "s", "g_reference": "S"}
            exponent = "1" if self.drift.law == "power" else "S"
            cells["drift"] = {"law": self.drift.law}
            for key, value in self.drift.parameters.items():
                cells["drift"][key] = entry(value, units.get(key, exponent))
        text: dict[str, Any] = {
            "preset": {"title": title or f"Fit to {self.source}", "note": " ".join(self.notes)},
            "sources": {"measurements": self.source},
            "cells": cells,
        }
        if self.disturb is not None:
            units = {"v_read": "V", "t_read": "s", "tau": "s", "t0": "s", "v_scale": "V", "temperature": "K"}
            parameters = dict(self.disturb.parameters)
            head = {key: parameters.pop(key) for key in ("v_read", "t_read", "polarity")}
            text["disturb"] = {"law": self.disturb.law, "polarity": head.pop("polarity")}
            text["disturb"] |= {key: entry(value, units[key], "measured") for key, value in head.items()}
            text["disturb"]["parameters"] = {k: entry(v, units.get(k, "1")) for k, v in parameters.items()}
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
        best, other = self.laws
        lines = [
            f"{self.source}: {int(self.counts.sum())} programmed values at {len(self.means)} levels",
            f"law: {best.law} (log-likelihood {best.log_likelihood:.6g}; {other.law} "
            f"{other.log_likelihood:.6g}); KS distance {best.ks_distance:.3g}, p = {best.ks_p_value:.2g}",
        ]
        for level, (g, s, n) in enumerate(zip(self.means, self.sigmas, self.counts, strict=True)):
            lines.append(f"level {level}: mean {g * 1e6:.4g} uS, sigma {s * 1e6:.3g} uS, {n} values")
        lines += [f"{key} = {_short(value)}" for key, value in self.sigma.items()]
        if self.fixed_fraction is not None:
            lines.append(f"fixed_fraction = {self.fixed_fraction:.3f} +- {self.fixed_fraction_error:.3f}")
        for name, part in (("drift", self.drift), ("disturb", self.disturb)):
            if part is not None:
                values = ", ".join(f"{k} = {_short(v)}" for k, v in part.parameters.items())
                lines.append(f"{name}: {part.law} law, {values}; rms residual {part.rms * 1e6:.3g} uS")
        if self.n_outliers:
            lines.append(f"{self.n_outliers} values lie more than 5 sigma from their level: stuck cells?")
        return "\n".join([*lines, *self.notes])


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "[" + ", ".join(f"{v:.4g}" for v in value) + "]"
    return f"{value:.4g}"


def read_measurements(path: str | Path) -> Columns:
    """Columns of a measurement file; cells become numbers 0, 1, ...; absent entries are NaN."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    if len(lines) < 2:
        raise InputError(f"{path}: needs a header and at least one row")
    header = [name.strip() for name in next(csv.reader([lines[0][1]]))]
    for name in header:
        if name not in COLUMNS:
            raise InputError(f"{path}: unknown column {name!r}; {nearest_name(name, COLUMNS)}")
    if "g_measured" not in header or not {"level", "g_target"} & set(header):
        raise InputError(
            f"{path}: needs the columns g_measured and level or g_target, got {', '.join(header)}"
        )
    rows: dict[str, list[Any]] = {name: [] for name in header}
    for number, line in lines[1:]:
        entries = next(csv.reader([line]))
        if len(entries) != len(header):
            raise InputError(f"{path}, line {number}: {len(header)} entries wanted, got {len(entries)}")
        for name, entry in zip(header, entries, strict=True):
            rows[name].append(entry.strip() if name == "cell" else _number(entry, path, number, name))
    columns = {name: np.array(values) for name, values in rows.items()}
    if "cell" in columns:
        columns["cell"] = np.unique(columns["cell"], return_inverse=True)[1]
    g = columns["g_measured"]
    if not (np.isfinite(g).all() and (g >= 0.0).all()):
        raise InputError(f"{path}: g_measured must be finite and >= 0 siemens in every row")
    if g.max() > 1.0:
        raise InputError(
            f"{path}: g_measured reaches {g.max():g} S; must be siemens, were resistances given?"
        )
    return columns


def _number(entry: str, path: Path, line: int, name: str) -> float:
    if not entry.strip():
        return np.nan
    try:
        return float(entry)
    except ValueError:
        raise InputError(f"{path}, line {line}: {name} must be a number, got {entry!r}") from None


def fit(path: str | Path, *, seed: int = 0) -> DeviceFit:
    """Fit levels, error law and, where the columns are there, D2D/C2C, drift and disturbance.

    Parameters
    ----------
    path : str or Path
        Measurements, columns as described at the top of this module.
    seed : int
        Of the simulated data sets behind the goodness of fit.
    """
    columns = read_measurements(path)
    level, targets = _levels(columns, path)
    n = len(level)
    reads = np.nan_to_num(columns.get("n_reads", np.zeros(n)))
    time = np.nan_to_num(columns.get("time", np.zeros(n)))
    if (reads < 0).any() or (time < 0).any():
        raise InputError(f"{path}: time and n_reads must be >= 0")
    key = _write_key(columns)
    first = np.full(int(key.max()) + 1, np.inf)
    np.minimum.at(first, key, np.where(reads == 0, time, np.inf))
    fresh = (reads == 0) & (time == (first[key] if "cell" in columns else time.min()))
    g, level_fresh = columns["g_measured"][fresh], level[fresh]
    counts = np.bincount(level_fresh, minlength=len(targets))
    if (counts < 3).any():
        raise InputError(f"{path}: every level needs at least 3 programmed values, got {counts.tolist()}")
    means = np.bincount(level_fresh, g) / counts
    sigmas = np.sqrt(np.bincount(level_fresh, (g - means[level_fresh]) ** 2) / (counts - 1))
    if not (np.diff(means) > 0).all():
        raise InputError(f"{path}: mean conductances must ascend with the level, got {means.tolist()}")
    notes: list[str] = []
    laws = tuple(
        sorted((_fit_law(law, g, level_fresh, seed) for law in ("normal", "lognormal")),
               key=lambda law: -law.log_likelihood)
    )  # fmt: skip
    residuals, spread = _standardise(laws[0].law, g, level_fresh)
    sigma = _describe_sigma(laws[0].law, spread, means, counts)
    fraction, error = None, None
    if "cell" in columns:
        fraction, error = _split(residuals, columns["cell"][fresh])
    if fraction is None:
        notes.append("Device-to-device and cycle-to-cycle parts are not told apart: no cell was rewritten.")
    drift, disturb = None, None
    if "cell" in columns:
        g0 = np.full(len(first), np.nan)
        g0[key[fresh]] = g
        later = ~fresh & (reads == 0)
        if later.any():
            drift = _fit_drift(columns["g_measured"][later], g0[key[later]], time[later], first[key[later]])
        disturbed = reads > 0
        if disturbed.any():
            disturb = _fit_disturb(columns, disturbed, g0[key], means, path)
            if disturb is not None and np.ptp(np.abs(columns["v_read"][disturbed])) < 1e-6:
                notes.append("One read voltage only: how disturbance depends on voltage is not determined.")
    elif (time > time.min()).any() or (reads > 0).any():
        notes.append("Drift and disturbance are not fitted: they need the column cell.")
    return DeviceFit(
        Path(path).name, targets, means, sigmas, counts, laws, sigma, fraction, error, drift, disturb,
        residuals, int((np.abs(residuals) > 5.0).sum()), tuple(notes),
    )  # fmt: skip


def _levels(columns: Columns, path: str | Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Level of each row, and the targets [S] (mean measured ones where only levels are given)."""
    name = "level" if "level" in columns else "g_target"
    if not np.isfinite(columns[name]).all():
        raise InputError(f"{path}: {name} must be given in every row")
    values, index = np.unique(columns[name], return_inverse=True)
    if len(values) < 2:
        raise InputError(f"{path}: needs at least 2 levels, got {len(values)}")
    if name == "g_target":
        return index, values
    if "g_target" in columns:
        return index, np.bincount(index, columns["g_target"]) / np.bincount(index)
    return index, np.bincount(index, columns["g_measured"]) / np.bincount(index)


def _write_key(columns: Columns) -> NDArray[np.int64]:
    """Number of the (cell, cycle) that a row belongs to."""
    n = len(columns["g_measured"])
    cell = columns.get("cell", np.zeros(n))
    pairs = np.stack([cell, np.nan_to_num(columns.get("cycle", np.zeros(n)))], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].ravel()


def _standardise(
    law: str, g: NDArray[np.float64], level: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Residuals over their level's spread (maximum likelihood), and the spreads."""
    x = np.log(g) if law == "lognormal" else g
    counts = np.bincount(level)
    centre = np.bincount(level, x) / counts
    spread = np.sqrt(np.bincount(level, (x - centre[level]) ** 2) / counts)
    if (spread == 0.0).any():
        raise InputError("all values of a level are equal: no error law can be fitted")
    return (x - centre[level]) / spread[level], spread


def _fit_law(law: str, g: NDArray[np.float64], level: NDArray[np.int64], seed: int) -> LawFit:
    if law == "lognormal" and (g <= 0.0).any():
        return LawFit(law, -np.inf, 1.0, 0.0)
    z, spread = _standardise(law, g, level)
    log_likelihood = -0.5 * z @ z - np.log(spread[level]).sum() - 0.5 * len(g) * np.log(2 * np.pi)
    if law == "lognormal":
        log_likelihood -= np.log(g).sum()
    distance = _ks(z)
    rng, worse = np.random.default_rng(seed), 0
    for _ in range(N_BOOTSTRAP):
        simulated, _ = _standardise("normal", rng.standard_normal(len(g)), level)
        worse += _ks(simulated) >= distance
    return LawFit(law, float(log_likelihood), distance, (worse + 1) / (N_BOOTSTRAP + 1))


def _ks(z: NDArray[np.float64]) -> float:
    """Kolmogorov-Smirnov distance to the standard normal distribution."""
    from scipy.special import ndtr

    p, n = ndtr(np.sort(z)), len(z)
    steps = np.arange(n + 1) / n
    return float(max((steps[1:] - p).max(), (p - steps[:-1]).max()))


def _describe_sigma(
    law: str, spread: NDArray[np.float64], means: NDArray[np.float64], counts: NDArray[np.int64]
) -> dict[str, Any]:
    """The shortest description that BIC prefers: constant, polynomial in g, or one per level."""

    def bic(sigma: NDArray[np.float64], n_free: int) -> float:
        if (sigma <= 0.0).any():
            return np.inf
        cost = 2.0 * (counts * (np.log(sigma) + 0.5 * (spread / sigma) ** 2)).sum()
        return cost + n_free * np.log(counts.sum())

    constant = float(np.sqrt((counts * spread**2).sum() / counts.sum()))
    options: list[tuple[float, dict[str, Any]]] = []
    if law == "lognormal":
        options.append((bic(np.full(len(means), constant), 1), {"sigma": constant}))
        options.append((bic(spread, len(means)), {"sigma_levels": spread.tolist()}))
    else:
        options.append((bic(np.full(len(means), constant), 1), {"sigma_conductance": [constant]}))
        options.append((bic(spread, len(means)), {"sigma_conductance": spread.tolist()}))
        x = means / means[-1]
        for degree in range(1, min(4, len(means) - 2) + 1):
            # relative errors of a standard deviation are 1/sqrt(2 n) at every level
            fitted = np.polynomial.polynomial.polyfit(x, spread, degree, w=np.sqrt(2.0 * counts) / spread)
            value = bic(np.polynomial.polynomial.polyval(x, fitted), degree + 1)
            polynomial = {"sigma_polynomial": fitted.tolist(), "g_polynomial": float(means[-1])}
            options.append((value, polynomial))
    return min(options, key=lambda option: option[0])[1]


def _split(z: NDArray[np.float64], cell: NDArray[np.int64]) -> tuple[float | None, float | None]:
    """Share of the variance that belongs to the cell, by analysis of variance, and its error."""
    _, cell = np.unique(cell, return_inverse=True)
    counts = np.bincount(cell)
    n, n_cells = len(z), len(counts)
    if n_cells < 2 or n - n_cells < 2:
        return None, None
    centre = np.bincount(cell, z) / counts
    within = ((z - centre[cell]) ** 2).sum() / (n - n_cells)
    between = (counts * (centre - z.mean()) ** 2).sum() / (n_cells - 1)
    size = (n - (counts**2).sum() / n) / (n_cells - 1)
    fraction = float(np.clip((between - within) / (between + (size - 1.0) * within), 0.0, 1.0))
    # Fisher's large-sample error of an intraclass correlation
    spread = np.sqrt(2.0) * (1.0 - fraction) * (1.0 + (size - 1.0) * fraction)
    return fraction, float(spread / np.sqrt(size * max(size - 1.0, 1e-9) * (n_cells - 1)))


def _fit_drift(
    g: NDArray[np.float64], g0: NDArray[np.float64], time: NDArray[np.float64], first: NDArray[np.float64]
) -> DriftFit | None:
    """Logarithmic or power law, whichever is likelier, from values paired with their first one."""
    from scipy.optimize import minimize

    good = np.isfinite(g0) & (time > first) & (first > 0.0) & (g0 > 0.0) & (g > 0.0)
    if good.sum() < 5:
        return None
    g, g0, time, first = g[good], g0[good], time[good], first[good]
    reference = float(np.median(first))
    x = np.log(time / first)

    def score(mean: NDArray[np.float64], sigma: NDArray[np.float64], value: NDArray[np.float64]) -> float:
        return float((np.log(sigma) + 0.5 * ((value - mean) / sigma) ** 2).sum())

    change = (g - g0) * 1e6  # microsiemens keep the optimiser's steps sane
    slope = float((x * change).sum() / (x * x).sum())
    scale = float(np.std(change - slope * x)) + 1e-9
    linear = minimize(
        lambda p: score(p[0] * x, np.exp(p[1]) + np.exp(p[2]) * x, change),
        (slope, np.log(scale), np.log(scale / x.max())), method="Nelder-Mead",
        options={"maxiter": 4000, "maxfev": 4000, "xatol": 1e-6, "fatol": 1e-9},
    )  # fmt: skip
    ratio = np.log(g / g0)
    nu = float(-(x * ratio).sum() / (x * x).sum())
    sigma_nu = float(np.sqrt(np.mean(((ratio + nu * x) / x) ** 2))) + 1e-12
    bic_linear = 2.0 * (linear.fun + len(g) * np.log(1e-6)) + 3 * np.log(len(g))
    bic_power = 2.0 * (score(-nu * x, sigma_nu * x, ratio) + np.log(g).sum()) + 2 * np.log(len(g))
    if bic_linear <= bic_power:
        mean, offset, growth = linear.x[0] * 1e-6, np.exp(linear.x[1]) * 1e-6, np.exp(linear.x[2]) * 1e-6
        parameters = {
            "t_reference": reference,
            "mean_polynomial": [float(mean)],
            "sigma_polynomial": [float(growth)],
            "sigma_offset": [float(offset)],
        }
        rms = float(np.sqrt(np.mean((g - g0 - mean * x) ** 2)))
        return DriftFit("logarithmic", parameters, rms, len(g), {"power": bic_power - bic_linear})
    parameters = {"t_reference": reference, "mean_polynomial": [nu], "sigma_polynomial": [sigma_nu]}
    rms = float(np.sqrt(np.mean((g - g0 * np.exp(-nu * x)) ** 2)))
    return DriftFit("power", parameters, rms, len(g), {"logarithmic": bic_linear - bic_power})


def _fit_disturb(
    columns: Columns, rows: NDArray[np.bool_], g0: NDArray[np.float64], means: NDArray[np.float64], path: Any
) -> DriftFit | None:
    """Power or exponential law from values paired with their undisturbed one."""
    from rramsim.cell.disturb import PowerLaw

    if "v_read" not in columns:
        raise InputError(f"{path}: rows with n_reads need the column v_read")
    rows = rows & np.isfinite(g0)
    if rows.sum() < 5:
        return None
    n = int(rows.sum())
    g, start, v = columns["g_measured"][rows], g0[rows], np.abs(columns["v_read"][rows])
    if not (np.isfinite(v).all() and (v > 0).all()):
        raise InputError(f"{path}: v_read must be given and not 0 in every row with n_reads")
    t_read = columns["t_read"][rows] if "t_read" in columns else np.full(n, 100e-9)
    cycles = np.nan_to_num(columns["n_cycles"][rows]) if "n_cycles" in columns else np.zeros(n)
    seconds = columns["n_reads"][rows] * t_read
    v_read = float(np.median(v))
    rising = float(np.median(g - start)) > 0.0
    low, high = float(means[0]), float(means[-1])
    common = {
        "v_read": v_read,
        "t_read": float(np.median(t_read)),
        "polarity": "positive" if rising else "negative",
    }

    def power(p: NDArray[np.float64]) -> NDArray[np.float64]:
        law = PowerLaw(v_read=v_read, t_read=1.0, c1=np.exp(p[0]), a=np.exp(p[1]), b=np.exp(p[2]))
        onset = law.log_bracket(cycles) - law.exponent(v) * np.log(seconds / law.constants["t0"])
        r = np.exp(np.minimum(onset, 0.0))
        return high - (high - start) * r if rising else np.maximum(start * r, np.minimum(start, low))

    several = np.ptp(v) > 1e-6

    def exponential(p: NDArray[np.float64]) -> NDArray[np.float64]:
        weight = v / v_read
        if several:  # sinh(v/s) / sinh(v_read/s), free of overflow
            s = np.exp(p[1])
            weight = (
                np.exp(np.minimum((v - v_read) / s, 500.0)) * np.expm1(-2 * v / s) / np.expm1(-2 * v_read / s)
            )
        end = high if rising else low
        return end + (start - end) * np.exp(-seconds * weight / np.exp(p[0]))

    tries = {
        "power": _least_squares(power, (np.log(0.0068), np.log(0.11), np.log(1.43339)), g),
        "exponential": _least_squares(
            exponential, (np.log(np.median(seconds)), np.log(0.1))[: 2 if several else 1], g
        ),
    }
    # a single voltage cannot tell c1 from a: the second is then not counted as fitted
    free = {"power": 3 if several else 2, "exponential": 2 if several else 1}
    bic = {
        name: n * np.log(max(rms, 1e-15) ** 2) + free[name] * np.log(n) for name, (_, rms) in tries.items()
    }
    best, other = sorted(bic, key=lambda name: bic[name])
    p, rms = tries[best]
    if best == "power":
        constants = {"c1": float(np.exp(p[0])), "a": float(np.exp(p[1])), "b": float(np.exp(p[2]))}
    else:
        constants = {"tau": float(np.exp(p[0])), "v_scale": float(np.exp(p[1])) if several else 0.0}
    return DriftFit(best, {**common, **constants}, rms, n, {other: bic[other] - bic[best]})


def _least_squares(model: Any, first: Any, g: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Parameters (logarithms) of least squares, and the rms residual [S]."""
    from scipy.optimize import least_squares

    first = np.asarray(first, float)
    scale = float(g.mean())
    bounds = (first - 12.0, first + 12.0)
    result = least_squares(lambda p: (model(p) - g) / scale, first, bounds=bounds, x_scale=0.1, method="trf")
    return result.x, float(np.sqrt(np.mean((model(result.x) - g) ** 2)))
