"""How often the intervals of `finetune.study.statistics` cover, and how many chips one needs.

    python -m benchmarks.statistics
    python -m benchmarks.statistics results/reference.h5

The first prints the coverage of intervals of a mean, of R and of a gap, the error rate of the table's tests
where all strategies are equal, and the chips needed for a difference. With an archive, the chips needed are
told for the deviations measured there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from finetune.study.analysis import DIFFERENCES, compare_stages
from finetune.study.archive import open_archive
from finetune.study.statistics import (
    chips_needed,
    compare,
    compare_images,
    holm,
    recovered_fraction,
    signed_rank_p,
    spread,
)

SIZES = (3, 5, 10, 20)
POPULATIONS: dict[str, Callable[..., NDArray[np.float64]]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "gamma(4), skewness 1": lambda rng, n: rng.gamma(4.0, size=n) - 4.0,
    "gamma(2), skewness 1.4": lambda rng, n: rng.gamma(2.0, size=n) - 2.0,
    "exponential, skewness 2": lambda rng, n: rng.exponential(size=n) - 1.0,
}
DEVIATIONS = (0.1, 0.2, 0.5, 1.0, 2.0)  # points: std over chips of the paired differences


def percentile_bootstrap(x: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, float]:
    """The interval of rramsim 0.1, for comparison."""
    means = x[rng.integers(0, x.size, (1000, x.size))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def coverage_of_means(n_samples: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Share of samples whose interval holds the true mean."""
    from scipy.stats import t as student

    rows = []
    for name, draw in POPULATIONS.items():
        for n in SIZES:
            quantile = student.ppf(0.975, n - 1)
            hits = np.zeros(3)
            for _ in range(n_samples):
                x = draw(rng, n)
                over = spread(x)
                half = quantile * x.std(ddof=1) / np.sqrt(n)
                low, high = percentile_bootstrap(x, rng) if _ < n_samples // 4 else (1.0, -1.0)
                hits += (over.low <= 0 <= over.high, abs(x.mean()) <= half, low <= 0 <= high)
            shares = hits / (n_samples, n_samples, n_samples // 4)
            rows.append(
                {
                    "population": name,
                    "chips": n,
                    "here": float(shares[0]),
                    "student": float(shares[1]),
                    "percentile bootstrap": float(shares[2]),
                }
            )
    return rows


def coverage_of_ratios(n_samples: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """R with losses of 10 +- 3 points and gains of 0.9 times the loss +- 1 point."""
    rows = []
    for name, draw in list(POPULATIONS.items())[:3]:
        unit = float(draw(rng, 100_000).std())
        for n in SIZES:
            hits = 0
            for _ in range(n_samples):
                lost = np.maximum(0.10 + 0.03 * draw(rng, n) / unit, 1e-3)
                gain = 0.9 * lost + 0.01 * draw(rng, n) / unit
                r = recovered_fraction(1 - lost + gain, 1 - lost, 1.0)
                hits += r.low <= 0.9 <= r.high
            rows.append({"population": name, "chips": n, "here": hits / n_samples})
    return rows


def coverage_of_gaps(n_samples: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Chips that differ by 22 % in their error rate, on images that differ in difficulty."""
    rows = []
    for n_images in (400, 2000):
        for n in (5, 10, 20):
            hits = alone = 0
            for _ in range(n_samples):
                p = rng.beta(0.2, 4.0, n_images) * rng.gamma(20.0, 1 / 20.0, n)[:, None]
                right = rng.random((n, n_images)) >= p
                both = compare_images(np.ones(n_images), right)
                naive = compare(np.ones(n), right.mean(axis=1))
                hits += both.low <= 0.2 / 4.2 <= both.high
                alone += naive.low <= 0.2 / 4.2 <= naive.high
            rows.append(
                {
                    "images": n_images,
                    "chips": n,
                    "here": hits / n_samples,
                    "over chips alone": alone / n_samples,
                }
            )
    return rows


def errors_of_tables(n_samples: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Share of tables of equal strategies with any p below 0.05, each tested against its best rival."""
    rows = []
    for n_strategies in (2, 5):
        for n in (6, 10, 20):
            wrong = 0
            for _ in range(n_samples):
                values = rng.normal(size=(n_strategies, n)) + rng.normal(size=n)
                order = np.argsort(values.mean(axis=1))
                tests = [
                    signed_rank_p(values[k] - values[order[-1] if k != order[-1] else order[-2]])
                    for k in range(n_strategies)
                ]
                wrong += bool(holm(tests).min() < 0.05)
            rows.append({"strategies": n_strategies, "chips": n, "here": wrong / n_samples})
    return rows


def chips(deviations: dict[str, float]) -> list[dict[str, Any]]:
    """Chips for each difference, by the deviation of the paired differences."""
    return [
        {
            "deviation": name,
            "points": std,
            **{f"{points:g} points": chips_needed(std, points) for points in DIFFERENCES},
        }
        for name, std in deviations.items()
    ]


def text(title: str, rows: list[dict[str, Any]]) -> str:
    """Rows as a table of plain text; shares in percent."""

    def cell(name: str, value: Any) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:.2f}" if name == "points" else f"{100 * value:.1f} %"

    names = list(rows[0])
    cells = [names, *([cell(name, row[name]) for name in names] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(names))]
    lines = ["  ".join(part.rjust(width) for part, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join([title, *lines, ""])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", nargs="?", type=Path)
    parser.add_argument("--samples", type=int, default=4000, help="of each coverage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    deviations = {f"{std:g} points": std for std in DEVIATIONS}
    tables: dict[str, list[dict[str, Any]]] = {}
    if arguments.archive is not None:
        frame = compare_stages(open_archive(arguments.archive))
        deviations = {
            f"{row['strategy']} - {row['baseline']}": float(row["std"]) for row in frame.to_dict("records")
        }
    else:
        rng, n = np.random.default_rng(arguments.seed), arguments.samples
        tables = {
            "coverage of 95 % intervals of a mean": coverage_of_means(n, rng),
            "coverage of 95 % intervals of R": coverage_of_ratios(n // 4, rng),
            "coverage of 95 % intervals of a gap, other chips and other images": coverage_of_gaps(
                n // 4, rng
            ),
            "tables of equal strategies with a p below 0.05": errors_of_tables(n // 4, rng),
        }
    tables["chips that find a difference with 80 % power (paired t test, 0.05)"] = chips(deviations)
    for title, rows in tables.items():
        print(text(title, rows))
    if arguments.json is not None:
        rows = [{"table": title, **row} for title, table in tables.items() for row in table]
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
