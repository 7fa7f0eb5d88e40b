"""Sparse digital correction: the worst weights kept as numbers beside the chip."""

from __future__ import annotations

import numpy as np

from finetune.bench import Bench
from finetune.evidence.identify import NOISE_VECTORS, identify, learn, weight_variance
from finetune.evidence.layer import Work
from finetune.evidence.samples import sample_count, take_samples
from finetune.evidence.sensitivity import check_weights
from finetune.strategies.base import LayerStep, register
from rramsim.checks import InputError

__all__ = ["Sparse"]


@register("sparse")
class Sparse(LayerStep):
    """Keep the correction of the weights that hurt most in digital memory.

    Identification gives the realised weights; the ``fraction`` with the largest ``H_ii (W - D)**2`` get an
    entry whose value is the ridge solution for the residual on the chosen entries of its column,
    ``(H_SS + lambda I)^-1 X_S'(T - Y) / n``. An entry costs its value and its index.

    Parameters
    ----------
    fraction : float
        Of the layer's weights.
    ridge : float
        lambda over the mean diagonal of H.
    weights : {"variance", "distillation"}
        What columns count, see `Work.column_weights`.
    """

    name = "sparse"

    def __init__(self, *, fraction: float = 0.02, ridge: float = 1e-2, weights: str = "variance") -> None:
        if not 0.0 <= fraction <= 1.0:
            raise InputError(f"sparse: fraction must lie in [0, 1], got {fraction:g}")
        self.fraction = fraction
        self.ridge = ridge
        self.weights = check_weights(self.name, weights)

    def plan_layer(self, bench: Bench, layer: str, n_vectors: int) -> dict[str, float]:
        """One read of the samples, and two of some for the noise."""
        n_rows = bench.deployment.chip.layers[layer].n_rows
        return {"vectors": sample_count(n_rows, n_vectors) + 2 * NOISE_VECTORS, "cell_writes": 0.0}

    def tune_layer(self, work: Work) -> None:
        """Choose entries, fit them, and set the offset right."""
        host = work.host
        host.sparse_index = host.sparse_value = None
        n_entries = int(self.fraction * work.info.n_rows * work.info.n_cols)
        if n_entries == 0:
            return
        samples = take_samples(work, weights=self.weights)
        reading = samples.read()
        spread, noise, reading = learn(work, samples, reading, 1.0)
        estimate = identify(samples, reading, samples.stored(), weight_variance(work, spread), noise)
        harm = (
            np.diag(samples.gram)[:, None] * np.square(samples.ideal - estimate.weights) * samples.importance
        )
        chosen = np.zeros(harm.size, dtype=bool)
        chosen[np.argsort(-harm, axis=None, kind="stable")[:n_entries]] = True
        chosen = chosen.reshape(harm.shape)
        residual = samples.target - reading.total * host.gain.astype(np.float32)
        slope = samples.slope(residual)
        damping = self.ridge * max(float(np.diag(samples.gram).mean()), 1e-12)
        index, values = [], []
        for column in range(work.info.n_cols):
            rows = np.flatnonzero(chosen[:, column])
            if rows.size:
                system = samples.gram[np.ix_(rows, rows)] + damping * np.eye(rows.size)
                index.append(np.stack([rows, np.full(rows.size, column)], axis=1))
                values.append(np.linalg.solve(system, slope[rows, column]) * host.scale[column])
        host.sparse_index, host.sparse_value = np.concatenate(index), np.concatenate(values)
        host.offset = host.offset + (work.target - work.outputs()).mean(axis=0, dtype=np.float64)
        work.record(self.name, entries=n_entries)
