"""Figures of presets and of fits to measurements (matplotlib is loaded when a figure is drawn)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rramsim.cell import CellArray, CellsConfig, DisturbConfig, level_errors, load_preset
from rramsim.cell.fit import DeviceFit, simulated_levels, simulated_pulses
from rramsim.cell.noise import read_sigma

__all__ = ["fit_figure", "preset_figure"]

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#777777"
N_CELLS = 4000  # simulated cells per level
N_SAMPLE = 100  # simulated cells per point of a disturb curve
MICRO = 1e6


def _figure(n_panels: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * n_panels, 3.6), layout="constrained")
    axes = figure.subplots(1, n_panels)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _finish(figure: Any, path: str | Path | None) -> Any:
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def preset_figure(
    preset: str | CellsConfig,
    path: str | Path | None = None,
    *,
    disturb: DisturbConfig | None = None,
    seed: int = 0,
) -> Any:
    """Level distributions, raw level error rate and read disturbance of a preset.

    Parameters
    ----------
    preset : str or CellsConfig
        A preset that leaves nothing open, or settings made from one.
    path : str or Path, optional
        File to write, format by its suffix.
    disturb : DisturbConfig, optional
        Law of the third panel; by default the preset's, else the published power law.

    Returns
    -------
    matplotlib.figure.Figure
    """
    config = CellsConfig(preset=preset) if isinstance(preset, str) else preset
    name = config.preset or "cells"
    figure, (left, middle, right) = _figure(3)
    _draw_levels(left, config, seed)
    errors = level_errors(config)
    middle.bar(np.arange(config.n_levels), errors.rates, color=ORANGE, width=0.8)
    middle.axhline(errors.mean, color=GREY, linestyle="--")
    middle.set_title(f"read as another level: {errors.mean:.2g} on average", fontsize=10)
    middle.set_xlabel("level")
    middle.xaxis.get_major_locator().set_params(integer=True)
    middle.set_ylabel("raw level error rate")
    middle.set_ylim(0.0, max(1e-3, 1.15 * errors.rates.max()))
    source = ""
    if disturb is None:
        tables = load_preset(config.preset).tables if config.preset else {}
        disturb = DisturbConfig(preset=config.preset) if "disturb" in tables else DisturbConfig(law="power")
        source = "" if "disturb" in tables else ", not this device's"
    _draw_disturb(right, config, disturb, source)
    figure.suptitle(name)
    return _finish(figure, path)


def _draw_levels(axis: Any, config: CellsConfig, seed: int) -> None:
    array = CellArray((config.n_levels, N_CELLS), config, seed=seed)
    array.write(np.repeat(np.arange(config.n_levels)[:, None], N_CELLS, axis=1))
    g = array.conductance * MICRO
    bins = np.linspace(min(0.0, float(g.min())), float(np.quantile(g, 0.9995)), 200)
    colors = (BLUE, ORANGE, GREEN, RED, PURPLE)
    peaks = []
    for level in range(config.n_levels):
        density, _, _ = axis.hist(
            g[level], bins=bins, histtype="stepfilled", alpha=0.5, color=colors[level % 5], density=True
        )
        peaks.append(float(density[1:].max()))
    for target in config.scale.levels * MICRO:
        axis.axvline(target, color="black", linewidth=0.6, alpha=0.6)
    axis.set_xlabel("conductance (µS), lines: targets")
    axis.set_ylabel("density (1/µS)")
    axis.set_yticks([])
    # cells clamped at 0 S make a spike that would hide the levels
    axis.set_ylim(0.0, 1.3 * float(np.median(peaks)) if len(peaks) < 6 else 0.6 * max(peaks))
    method = config.programming.method.replace("_", "-")
    axis.set_title(f"{config.n_levels} levels, {config.law}, {method}", fontsize=10)


def _draw_disturb(axis: Any, config: CellsConfig, disturb: DisturbConfig, source: str) -> None:
    reads = np.logspace(2, 10, 161)
    top = config.scale.g_max
    voltages = sorted({0.2, 0.3, 0.4, disturb.v_read})
    cycles = (0, 10_000) if disturb.law == "power" else (disturb.cycles_before,)
    for color, v in zip((BLUE, ORANGE, GREEN, RED), voltages, strict=False):
        for n, style in zip(cycles, ("-", "--"), strict=False):
            own = DisturbConfig(
                law=disturb.law,
                v_read=v if disturb.law == "power" else disturb.v_read,
                t_read=disturb.t_read,
                polarity=disturb.polarity,
                cycles_before=n,
                parameters=disturb.parameters,
            )
            quiet = CellsConfig(law="additive", sigma=0.0, g_max=top, g_min=config.scale.g_min, n_levels=2)
            # one word line per number of reads; half of its cells start at g_min, half at g_max
            array = CellArray((reads.size, 2 * N_SAMPLE), quiet, disturb=own)
            array.write(np.tile(np.arange(2 * N_SAMPLE) >= N_SAMPLE, (reads.size, 1)).astype(int))
            array.add_reads(reads[:, None], [v])
            low, high = np.split(array.conductance.astype(float), 2, axis=1)
            g = high.mean(axis=1) if high[-1].mean() < top * (1.0 - 1e-6) else low.mean(axis=1)
            label = f"{v:g} V" + (f", {n:g} cycles before" if len(cycles) > 1 else "")
            axis.semilogx(reads, g * MICRO, style, color=color, label=label)
    axis.set_xlabel(f"reads of {disturb.t_read * 1e9:g} ns")
    axis.set_ylabel("mean conductance (µS)")
    axis.set_title(f"read disturbance, {disturb.law} law{source}", fontsize=10)
    axis.legend(fontsize=7, frameon=False)


def fit_figure(fit: DeviceFit, path: str | Path | None = None, *, seed: int = 0) -> Any:
    """Report of a fit: every part over its data, and cells simulated from the preset over the measured ones.

    Panels: distributions, spreads and normal quantiles always; change with time, pulses and read noise
    where they were measured.
    """
    extra = [name for name in ("drift", "pulses", "noise") if getattr(fit, name) is not None]
    extra = [name for name in extra if name != "drift" or (fit.drift and fit.drift.table is not None)]
    figure, axes = _figure(3 + len(extra))
    config = fit.cells()
    _draw_distributions(axes[0], fit, config, seed)
    _draw_spreads(axes[1], fit, config)
    _draw_quantiles(axes[2], fit)
    draw = {"drift": _draw_drift, "pulses": _draw_pulses, "noise": _draw_noise}
    for axis, name in zip(axes[3:], extra, strict=True):
        draw[name](axis, fit, config)
    split = "" if fit.fixed_fraction is None else f", fixed fraction {fit.fixed_fraction:.2f}"
    figure.suptitle(f"{fit.source}: {fit.law}{split}")
    return _finish(figure, path)


def _draw_distributions(axis: Any, fit: DeviceFit, config: CellsConfig, seed: int) -> None:
    """Cumulative distributions, measured over simulated."""
    simulated = simulated_levels(config, N_CELLS, seed)
    for level, (row, cells) in enumerate(zip(fit.values, simulated, strict=True)):
        shares = (np.arange(1, cells.size + 1) / cells.size, np.arange(1, row.size + 1) / row.size)
        axis.plot(np.sort(cells) * MICRO, shares[0], color=ORANGE, linewidth=2.5,
                  label="simulated" if level == 0 else None)  # fmt: skip
        axis.plot(np.sort(row) * MICRO, shares[1], color=BLUE, linewidth=0.8,
                  label="measured" if level == 0 else None)  # fmt: skip
    axis.set_xlabel("conductance (µS)")
    axis.set_ylabel("share of cells below")
    axis.legend(fontsize=8, frameon=False)
    axis.set_title(f"KS distance of a level at most {max(fit.simulated_ks):.3f}", fontsize=10)


def _draw_spreads(axis: Any, fit: DeviceFit, config: CellsConfig) -> None:
    error = fit.sigmas / np.sqrt(2.0 * fit.counts)
    axis.errorbar(
        fit.means * MICRO, fit.sigmas * MICRO, yerr=error * MICRO, fmt="o", color=BLUE, label="measured"
    )
    g, fitted = fit.means, config.error_law().sigma_conductance
    if config.sigma_polynomial is not None and config.g_polynomial is not None:
        g = np.linspace(fit.means[0], fit.means[-1], 200)
        fitted = np.asarray(
            np.polynomial.polynomial.polyval(g / config.g_polynomial, config.sigma_polynomial), np.float64
        )
    axis.plot(g * MICRO, fitted * MICRO, "-", color=ORANGE, label=f"{fit.law} law")
    axis.set_xlabel("conductance (µS)")
    axis.set_ylabel("sigma (µS)")
    axis.set_ylim(bottom=0.0)
    axis.legend(fontsize=8, frameon=False)


def _draw_quantiles(axis: Any, fit: DeviceFit) -> None:
    from scipy.special import ndtri

    z = np.sort(fit.residuals)
    wanted = ndtri((np.arange(z.size) + 0.5) / z.size)
    axis.plot(wanted, z, ".", color=BLUE, markersize=3)
    axis.plot(wanted[[0, -1]], wanted[[0, -1]], "-", color=ORANGE)
    best = fit.laws[0]
    axis.set_xlabel(f"quantile of the {best.law} law (sigma)")
    axis.set_ylabel("measured quantile (sigma)")
    title = f"largest KS distance of a level {best.ks_distance:.3f}, p = {best.ks_p_value:.2g}"
    axis.set_title(title, fontsize=10)


def _draw_drift(axis: Any, fit: DeviceFit, config: CellsConfig) -> None:
    """Mean change at up to four levels: measured with standard errors, and simulated."""
    drift = fit.drift
    assert drift is not None
    table = drift.table
    assert table is not None
    order = np.argsort(table.g)
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(4, len(order))).astype(int))]
    array = CellArray((config.n_levels, N_CELLS), config)
    array.write(np.repeat(np.arange(config.n_levels)[:, None], N_CELLS, axis=1))
    first = array.conductance.astype(float)
    means = np.empty((config.n_levels, len(table.times)))
    for k, seconds in enumerate(table.times):
        array.wait(float(seconds) - array.clock)
        means[:, k] = (array.conductance - first).mean(axis=1)
    for color, row in zip((BLUE, ORANGE, GREEN, RED), chosen, strict=False):
        label = f"from {table.g[row] * MICRO:.3g} µS"
        mean, error = table.mean[row] * MICRO, table.error[row] * MICRO
        axis.errorbar(table.times, mean, yerr=error, fmt="o", color=color, label=label)
        axis.plot(table.times, means[table.levels[row]] * MICRO, "-", color=color)
    axis.set_xscale("log")
    axis.set_xlabel("time since the write (s)")
    axis.set_ylabel("mean change (µS), lines: simulated")
    axis.set_title(f"drift, {drift.law} law", fontsize=10)
    axis.legend(fontsize=7, frameon=False)


def _draw_pulses(axis: Any, fit: DeviceFit, config: CellsConfig) -> None:
    pulses, level = fit.pulses, np.arange(len(fit.means))
    assert pulses is not None
    mean, p90 = simulated_pulses(config)
    axis.plot(level, pulses.mean, "o", color=BLUE, label="mean")
    axis.plot(level, pulses.p90, "s", color=GREEN, label="90th percentile")
    axis.plot(level, mean, "-", color=BLUE, label="simulated")
    axis.plot(level, p90, "-", color=GREEN)
    axis.set_xlabel("level")
    axis.set_ylabel("pulses of a write")
    axis.set_ylim(bottom=0.0)
    axis.legend(fontsize=7, frameon=False)


def _draw_noise(axis: Any, fit: DeviceFit, config: CellsConfig) -> None:
    noise = fit.noise
    assert noise is not None
    axis.errorbar(fit.means * MICRO, noise.sigmas * MICRO, yerr=noise.errors * MICRO, fmt="o", color=BLUE,
                  label="measured")  # fmt: skip
    g = np.linspace(fit.means[0], fit.means[-1], 200).astype(np.float32)
    sigma = read_sigma(g[None, :], None, config, None)
    if sigma is not None:
        axis.plot(g * MICRO, sigma[0] * MICRO, "-", color=ORANGE, label="fitted")
    axis.set_xlabel("conductance (µS)")
    axis.set_ylabel("sigma of one read (µS)")
    axis.set_ylim(bottom=0.0)
    axis.legend(fontsize=8, frameon=False)
