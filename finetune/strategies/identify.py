"""The step `lsq.identify`: identify and report, changing nothing."""

from __future__ import annotations

import numpy as np

from finetune.bench import Bench
from finetune.evidence.identify import NOISE_VECTORS, identify, identify_flops, learn, weight_variance
from finetune.evidence.layer import Work
from finetune.evidence.samples import Probes, probe_count, sample_count, take_samples
from finetune.strategies.base import LayerStep, register
from rramsim.blackbox.protocol import Tier

__all__ = ["Identify"]


@register("lsq.identify")
class Identify(LayerStep):
    """Identify and report, changing nothing: how well the outputs determine each weight.

    Writes `determined` (mean share of the prior variance removed), the learnt spread of writes and the
    noise of a conversion into the history.

    Parameters
    ----------
    sigma_scale : float
        Multiplies the learnt spread (for studies of a wrong one).
    probe : bool
        Identify by vectors of the tuner's own design (`Probes`), at tier PROBE. This is write-verify:
        report it apart.
    """

    name = "lsq.identify"

    def __init__(self, *, sigma_scale: float = 1.0, probe: bool = False) -> None:
        self.sigma_scale = sigma_scale
        self.probe = probe
        self.tier = Tier.PROBE if probe else Tier.LAYERS

    def plan_layer(self, bench: Bench, layer: str, n_vectors: int) -> dict[str, float]:
        """One read of the samples, and two of some for the noise."""
        info = bench.deployment.chip.layers[layer]
        n_probes = self.probe * probe_count(info.n_rows)
        n_read = sample_count(info.n_rows, n_vectors) + 2 * NOISE_VECTORS + n_probes
        n_samples = sample_count(info.n_rows, n_vectors)
        return {"vectors": float(n_read), "cell_writes": 0.0, "flops": identify_flops(info, n_samples)}

    def tune_layer(self, work: Work) -> None:
        """One identification of the present state."""
        samples = take_samples(work)
        reading = samples.read()
        spread, noise, reading = learn(work, samples, reading, self.sigma_scale)
        nominal, inputs = samples.stored(), Probes(work, samples) if self.probe else samples
        reading = inputs.read() if self.probe else reading
        estimate = identify(inputs, reading, nominal, weight_variance(work, spread), noise)
        relative, absolute = spread.variances
        work.record(
            self.name,
            determined=float(estimate.determined.mean()),
            sigma_relative=float(np.sqrt(relative)),
            sigma_absolute=float(np.sqrt(absolute)),
            noise_codes=float(np.sqrt(noise[0]) / work.unit[0]),
            reads=samples.reads,
            deviation=float(np.sqrt(np.square(estimate.weights - nominal).mean())),
        )
