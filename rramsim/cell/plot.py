"""Figures of presets and of fits to measurements (matplotlib is loaded when a figure is drawn)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rramsim.cell import CellArray, CellsConfig, DisturbConfig, level_errors, load_preset
from rramsim.cell.fit import DeviceFit

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


def fit_figure(fit: DeviceFit, path: str | Path | None = None) -> Any:
    """Report of a fit: levels, sigma law, and how well the chosen law fits (normal quantiles)."""
    from scipy.special import ndtri

    figure, (left, middle, right) = _figure(3)
    level = np.arange(len(fit.means))
    left.errorbar(
        level,
        fit.means * MICRO,
        yerr=fit.sigmas * MICRO,
        fmt="o",
        color=BLUE,
        capsize=3,
        label="mean ± sigma",
    )
    left.plot(level, fit.targets * MICRO, "_", color="black", markersize=12, label="target")
    left.set_xlabel("level")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set_ylabel("conductance (µS)")
    left.legend(fontsize=8, frameon=False)
    config = _law_config(fit)
    error = fit.sigmas / np.sqrt(2.0 * fit.counts)
    middle.errorbar(
        fit.means * MICRO, fit.sigmas * MICRO, yerr=error * MICRO, fmt="o", color=BLUE, label="measured"
    )
    g, fitted = fit.means, config.error_law().sigma_conductance
    if config.sigma_polynomial is not None and config.g_polynomial is not None:
        g = np.linspace(fit.means[0], fit.means[-1], 200)
        fitted = np.polynomial.polynomial.polyval(g / config.g_polynomial, config.sigma_polynomial)
    middle.plot(g * MICRO, fitted * MICRO, "-", color=ORANGE, label=next(iter(fit.sigma)))
    middle.set_xlabel("conductance (µS)")
    middle.set_ylabel("sigma (µS)")
    middle.set_ylim(bottom=0.0)
    middle.legend(fontsize=8, frameon=False)
    z = np.sort(fit.residuals)
    wanted = ndtri((np.arange(z.size) + 0.5) / z.size)
    right.plot(wanted, z, ".", color=BLUE, markersize=3)
    right.plot(wanted[[0, -1]], wanted[[0, -1]], "-", color=ORANGE)
    right.set_xlabel(f"quantile of the {fit.law} law (sigma)")
    right.set_ylabel("measured quantile (sigma)")
    best = fit.laws[0]
    right.set_title(f"KS distance {best.ks_distance:.3f}, p = {best.ks_p_value:.2g}", fontsize=10)
    split = "" if fit.fixed_fraction is None else f", fixed fraction {fit.fixed_fraction:.2f}"
    figure.suptitle(f"{fit.source}: {fit.law}{split}")
    return _finish(figure, path)


def _law_config(fit: DeviceFit) -> CellsConfig:
    """Settings with the fitted law."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fit.sigma.items()}
    return CellsConfig(levels=tuple(float(g) for g in fit.means), law=fit.law, **values)
