"""Posterior of a matrix's columns that share their inputs but not their priors: the algebra of `identify`.

Column j has the precision ``A_j = G + diag(r_j)`` (times samples over noise), with G the second moments of
the inputs and r_j the noise per sample over the prior variances. Up to `EXACT_ROWS` rows every column is
factorised. Beyond, where that would cost ``2/3 k**2`` operations per weight, conjugate gradients on all
columns at once find the means in ``2 k`` operations per weight and step, and one factorisation with the rows'
mean prior gives the variances (too large ones where samples are fewer than rows); nothing is stored that is
larger than G and the weights themselves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXACT_ROWS", "posterior_columns", "posterior_flops"]

EXACT_ROWS = 64  # rows up to which every column has a factorisation of its own
FEW_ROWS, FEW_PER_ROW = 256, 4  # likewise, with fewer samples than so many per row
STEPS = 60  # of conjugate gradients at most
TOLERANCE = 3e-4  # of a column's residual, relative to its right-hand side


def posterior_columns(
    gram: NDArray[np.float64],
    ridge: NDArray[np.float64],
    slope: NDArray[np.float64],
    n_samples: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``(G + diag(r_j))^-1 s_j`` and the diagonal of the inverse, for every column j.

    Parameters
    ----------
    gram : ndarray, shape (k, k)
        Second moments of the inputs.
    ridge : ndarray, shape (k, m)
        Noise per sample over prior variances, > 0.
    slope : ndarray, shape (k, m)
        ``X' residual / n``.
    n_samples : int
        Behind G: few samples leave much to the priors of all other rows, and are treated exactly up to
        `FEW_ROWS` rows.

    Returns
    -------
    step, diagonal : ndarray, shape (k, m)

    Examples
    --------
    >>> import numpy as np
    >>> gram, ridge = np.diag([4.0, 1.0]), np.ones((2, 1))
    >>> step, diagonal = posterior_columns(gram, ridge, np.array([[5.0], [1.0]]), 100)
    >>> step.ravel().round(6).tolist(), diagonal.ravel().round(6).tolist()
    ([1.0, 0.5], [0.2, 0.5])
    """
    if _is_small(len(gram), n_samples):
        return _factorised(gram, ridge, slope)
    mean_ridge = 1.0 / (1.0 / ridge).mean(axis=1)
    shared = _half_inverse(gram + np.diag(mean_ridge))[1]
    # what the outputs say of a weight, the other rows at their mean prior; its own prior is then exact
    evidence = np.maximum(1.0 / shared - mean_ridge, 0.0)
    return _conjugate_gradients(gram, ridge, slope), 1.0 / (evidence[:, None] + ridge)


def _is_small(n_rows: int, n_samples: int) -> bool:
    return n_rows <= EXACT_ROWS or (n_rows <= FEW_ROWS and n_samples < FEW_PER_ROW * n_rows)


def posterior_flops(n_rows: int, n_cols: int, n_samples: int) -> float:
    """Operations of `posterior_columns`."""
    if _is_small(n_rows, n_samples):
        return 2.0 / 3.0 * n_rows**3 * n_cols
    return n_rows**3 + 2.0 * STEPS * n_rows**2 * n_cols


def _half_inverse(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inverse L^-1 of the lower Cholesky factor, and the diagonal of ``L^-T L^-1``."""
    from scipy.linalg.lapack import dpotrf, dtrtri

    lower, failed = dpotrf(np.array(matrix, order="F"), lower=1, clean=1, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError(f"a matrix of {len(matrix)} rows is not positive definite")
    half, _ = dtrtri(lower, lower=1, overwrite_c=1)
    return half, np.einsum("ij,ij->j", half, half)


def _factorised(
    gram: NDArray[np.float64], ridge: NDArray[np.float64], slope: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One Cholesky factorisation per column."""
    step, diagonal = np.empty_like(slope), np.empty_like(slope)
    for j in range(slope.shape[1]):
        half, diagonal[:, j] = _half_inverse(gram + np.diag(ridge[:, j]))
        step[:, j] = half.T @ (half @ slope[:, j])
    return step, diagonal


def _conjugate_gradients(
    gram: NDArray[np.float64], ridge: NDArray[np.float64], slope: NDArray[np.float64]
) -> NDArray[np.float64]:
    """All columns at once, preconditioned by the diagonal, in float32; shape (k, m).

    Stopped early it has found what the inputs determine best and left the rest at the prior.
    """
    g, r = gram.astype(np.float32), ridge.astype(np.float32)

    def product(p: NDArray[np.float32]) -> NDArray[np.float32]:
        return g @ p + r * p

    scale = 1.0 / (np.diag(g)[:, None] + r)
    residual = slope.astype(np.float32)
    x = np.zeros_like(residual)
    z = scale * residual
    p = z.copy()
    power = np.einsum("ij,ij->j", residual, z)
    goal = TOLERANCE**2 * power
    for _ in range(STEPS):
        active = power > goal
        if not active.any():
            break
        q = product(p)
        curvature = np.einsum("ij,ij->j", p, q)
        length = np.where(active, power / np.where(curvature > 0.0, curvature, 1.0), 0.0).astype(np.float32)
        x += length * p
        residual -= length * q
        z = scale * residual
        following = np.einsum("ij,ij->j", residual, z)
        p *= np.where(active, following / np.where(power > 0.0, power, 1.0), 0.0).astype(np.float32)
        p += z
        power = np.where(active, following, power)
    return x.astype(np.float64)
