"""Low-rank digital correction beside the chip."""

from __future__ import annotations

import numpy as np

from finetune.bench import Bench
from finetune.evidence.layer import Work
from finetune.evidence.sensitivity import check_weights
from finetune.strategies.base import LayerStep, register
from rramsim.blackbox.protocol import LayerInfo
from rramsim.checks import InputError

__all__ = ["Adapter"]

LEAST_WEIGHT = 1e-6  # of a column, so that weights can be divided out again
MAX_VECTORS = 32_768  # vectors the regression uses; they cost no extra read


@register("adapter")
class Adapter(LayerStep):
    """Rank-r correction of the residual by reduced-rank ridge regression, in closed form.

    ``W = (X'X + lambda I)^-1 X'(Z - Z_chip)``; of C'W, with CC' = X'X + lambda I, the r largest singular
    triplets are kept: the best rank-r matrix in the norm of the outputs (Izenman 1975). Down
    (n_rows, r) and up (r, n_cols) are applied to the DAC codes at the host.

    Parameters
    ----------
    rank : int
        At most min(n_rows, n_cols); 0 keeps none.
    ridge : float
        lambda over the mean diagonal of X'X.
    most : float
        The rank is lowered until numbers and multiply-accumulates stay below this share of the layer's own,
        ``rank (n_rows + n_cols) < most n_rows n_cols``: a depthwise layer gets none.
    weights : {"variance", "distillation"}
        What columns count, see `Work.column_weights`.
    """

    name = "adapter"

    def __init__(
        self, *, rank: int = 2, ridge: float = 1e-2, most: float = 1.0, weights: str = "variance"
    ) -> None:
        if rank < 0:
            raise InputError(f"adapter: rank must be >= 0, got {rank}")
        if not most > 0:
            raise InputError(f"adapter: most must be > 0, got {most:g}")
        self.rank = rank
        self.most = most
        self.ridge = ridge
        self.weights = check_weights(self.name, weights)

    def _rank(self, info: LayerInfo) -> int:
        n_rows, n_cols = info.n_rows, info.n_cols
        affordable = int(np.ceil(self.most * n_rows * n_cols / (n_rows + n_cols))) - 1
        return min(self.rank, n_rows, n_cols, affordable)

    def plan_layer(self, bench: Bench, layer: str, n_vectors: int) -> dict[str, float]:
        """No read of its own; second moments and a singular value decomposition at the host."""
        info = bench.deployment.chip.layers[layer]
        n, k, m = min(MAX_VECTORS, n_vectors), info.n_rows, info.n_cols
        flops = 2.0 * n * k * (k + 2 * m) + 2.0 * k**3 + 10.0 * k * m * min(k, m)
        return {"vectors": 0.0, "cell_writes": 0.0, "flops": flops}

    def tune_layer(self, work: Work) -> None:
        """Fit on the residual after gain and offset."""
        host = work.host
        host.down = host.up = None
        rank = self._rank(work.info)
        if rank == 0:
            work.record(self.name, rank=0, unexplained=1.0)
            return
        picks = work.sample(MAX_VECTORS)
        codes = work.full_reading()[0][picks]
        residual = work.target[picks] - work.finish(work.codes[picks], codes)
        shift = residual.mean(axis=0)
        x = work.codes[picks].astype(np.float32)
        mean_x = x.mean(axis=0)
        x -= mean_x
        gram = (x.T @ x).astype(np.float64) / len(x)
        damped = gram + self.ridge * max(np.diag(gram).mean(), 1e-12) * np.eye(len(gram))
        slope = (x.T @ (residual - shift)).astype(np.float64) / len(x)
        lower = np.linalg.cholesky(damped)
        whitened = np.linalg.solve(lower, slope)  # C^-1 X'R = C' W
        importance = 1.0 / np.maximum(work.target[picks].std(axis=0, dtype=np.float64), 1e-6)
        importance *= np.sqrt(np.maximum(work.column_weights(self.weights), LEAST_WEIGHT))
        u, s, vt = np.linalg.svd(whitened * importance, full_matrices=False)
        down = np.linalg.solve(lower.T, u[:, :rank] * s[:rank])
        up = vt[:rank] / importance
        host.down, host.up = down / host.x_step, up
        host.offset = host.offset + shift - mean_x.astype(np.float64) @ down @ up
        left = float(np.square(s[rank:]).sum() / max(np.square(s).sum(), 1e-30))
        work.record(self.name, rank=rank, unexplained=left)
