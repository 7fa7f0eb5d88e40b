"""Per-column corrections of a layer's outputs: least squares to the teacher, or its moments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune.evidence.layer import Work
from finetune.strategies.base import LayerStep, register
from rramsim.checks import InputError

__all__ = ["Affine", "BatchNorm"]

FEW_SAMPLES = 8  # with fewer a column keeps its gain
OFFSET_PRIOR = 4.0  # samples that the nominal offset counts as, where there are few
FIT_VECTORS = 32_768  # vectors a fit looks at; all are read anyway for the next layer


@register("lsq.affine")
class Affine(LayerStep):
    """Gain and offset of each column by ridge regression of the teacher's outputs on the chip's.

    ``min |z - a y - b|**2 + n ridge var(y) (a - 1)**2`` over the samples whose conversion did not
    saturate, in closed form. A dead column (constant output) gets a = 0 and the teacher's mean. A column
    with fewer than 8 samples, as a dense layer has with fewer than 8 images, keeps its gain, and its offset
    moves by n / (n + 4) of what the samples' mean says.

    Parameters
    ----------
    ridge : float
        Strength of the pull to the nominal gain, in units of the output's variance.
    min_share : float
        Columns with a smaller share of unsaturated samples use all their samples.
    """

    name = "lsq.affine"

    def __init__(self, *, ridge: float = 1e-3, min_share: float = 0.2) -> None:
        if not ridge >= 0:
            raise InputError(f"lsq.affine: ridge must be >= 0, got {ridge:g}")
        self.ridge = ridge
        self.min_share = min_share

    def tune_layer(self, work: Work) -> None:
        """Fit on vectors spread over the calibration images."""
        picks = work.sample(FIT_VECTORS)
        reading, marks = work.full_reading()
        codes, saturated = reading[picks], marks[picks]
        host = work.host
        z = work.target[picks].astype(np.float64)
        correction = host.correction(work.codes[picks])
        if correction is not None:
            z = z - correction
        y = work.nominal(work.codes[picks], codes)
        shared = None if host.common is None else work.codes[picks].sum(axis=1, dtype=np.float64)
        keep = ~saturated
        keep[:, keep.mean(axis=0) < self.min_share] = True
        n = keep.sum(axis=0)
        mean_y = (y * keep).sum(axis=0) / n
        mean_z = (z * keep).sum(axis=0) / n
        dy, dz = (y - mean_y) * keep, (z - mean_z) * keep
        var_y, cov = np.square(dy).mean(axis=0), (dy * dz).mean(axis=0)
        slope_y, slope_z, mean_s = np.zeros((3, work.info.n_cols))
        if (
            shared is not None and host.common is not None
        ):  # a multiple of the inputs' sum is fitted along with gain and offset
            mean_s = (shared[:, None] * keep).sum(axis=0) / n
            ds = (shared[:, None] - mean_s) * keep
            power = np.maximum(np.square(ds).mean(axis=0), 1e-30)
            slope_y, slope_z = (dy * ds).mean(axis=0) / power, (dz * ds).mean(axis=0) / power
            dy, dz = dy - ds * slope_y, dz - ds * slope_z
            var_y, cov = np.square(dy).mean(axis=0), (dy * dz).mean(axis=0)
        gain, offset, common = host.gain, host.offset, host.common
        alive = var_y > np.square(host.unit) * 1e-6
        pull = self.ridge * var_y
        host.gain = np.where(alive, (cov + pull) / np.where(alive, var_y + pull, 1.0), 0.0)
        host.offset = mean_z - host.gain * mean_y
        if shared is not None and host.common is not None:
            rest = slope_z - host.gain * slope_y
            host.offset = host.offset - rest * mean_s
            host.common = (
                host.common + np.where(alive, rest / np.where(alive, host.gain, 1.0), 0.0) / host.x_step
            )
        few = n < FEW_SAMPLES
        if few.any():  # they say less of a gain than is known beforehand, and something of an offset
            host.gain = np.where(few, gain, host.gain)
            host.offset = np.where(few, _few_offset(n, mean_z - gain * mean_y, offset), host.offset)
            if host.common is not None and common is not None:
                host.common = np.where(few, common, host.common)
        residual = np.square(dz - host.gain * dy).sum(axis=0)
        spread = np.square(dz).sum(axis=0)
        work.record(
            self.name,
            error=float(np.mean(residual / np.maximum(spread, 1e-30))),
            saturated=float(saturated.mean()),
        )


def _few_offset(
    n: NDArray[np.int64] | int, found: NDArray[np.float64], nominal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Offset from few samples, drawn to its nominal value."""
    return nominal + (found - nominal) * (n / (n + OFFSET_PRIOR))


@register("batch_norm")
class BatchNorm(LayerStep):
    """Re-calibration of batch norm: mean and variance of each channel as the teacher has them.

    ``a = std(z) / std(y)``, ``b = mean(z) - a mean(y)``. Re-estimating the running statistics of a batch norm
    behind the layer is the same function; here it also works where batch norm was folded. The network's
    last layer has no batch norm and is left alone. Layers with fewer than 8 vectors keep their gains, as with
    `lsq.affine`.
    """

    name = "batch_norm"

    def tune_layer(self, work: Work) -> None:
        """Match two moments on every vector of the calibration images."""
        if work.is_output:
            return
        codes, _ = work.full_reading()
        host = work.host
        y = work.nominal(work.codes, codes)
        if len(y) < FEW_SAMPLES:
            found = work.target.mean(axis=0, dtype=np.float64) - host.gain * y.mean(axis=0)
            host.offset = _few_offset(len(y), found, host.offset)
            work.record(self.name, gain_spread=float(host.gain.std()))
            return
        std_y, std_z = y.std(axis=0), work.target.std(axis=0, dtype=np.float64)
        alive = std_y > 1e-3 * host.unit
        host.gain = np.where(alive, std_z / np.where(alive, std_y, 1.0), 0.0)
        host.offset = work.target.mean(axis=0, dtype=np.float64) - host.gain * y.mean(axis=0)
        work.record(self.name, gain_spread=float(host.gain.std()))
