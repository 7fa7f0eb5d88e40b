"""Zeroth-order updates through the chip: end to end, against the teacher's logits.

A tuner that may only measure changes digital numbers (gains, offsets, adapters, batch norm) and
looks at the distillation loss of the network's outputs. Three things make it affordable after
least squares: it starts from that solution; it acts on the last layers, behind which there is
little left to read; and it uses all measured logits (derivative-free Gauss-Newton), not one number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.bench import Bench
from finetune.evidence.host_vector import KINDS, HostParameters
from finetune.evidence.layer import column_spread
from finetune.evidence.measurement import Measurement
from finetune.evidence.sensitivity import descendants
from finetune.meter import BudgetSpent
from finetune.objective import Objective, fisher_factor
from finetune.optimizers import METHODS, GaussNewton, Optimizer, make_optimizer
from finetune.strategies.base import Strategy, register
from rramsim.blackbox.protocol import Tier
from rramsim.checks import InputError, nearest_name
from rramsim.network import windows

__all__ = ["ZerothOrder", "positions", "tail_layers"]

N_HALVINGS = 4  # of a move that raised the loss
N_FOLDS = 4  # groups of images for the held-out choice of the damping


def positions(bench: Bench, node: str) -> int:
    """Vectors one image sends to a mapped node (over all its groups)."""
    per_image = windows.vectors_per_example(bench.network.node(node), bench.teacher_shape(node))
    return per_image * len(bench.deployment.layers_of(node))


def vectors_behind(bench: Bench, node: str) -> int:
    """Vectors one image sends to the layers that depend on this node's output."""
    network = bench.deployment.network
    later = descendants(network, node)
    return sum(positions(bench, name) for name in network.mapped if network.node(name).inputs[0] in later)


def tail_layers(bench: Bench, limit: int) -> list[str]:
    """Chip layers behind which one image sends at most `limit` vectors, in graph order."""
    deployment = bench.deployment
    chosen = [
        node
        for node in deployment.network.mapped
        if "shares" not in deployment.network.node(node).attributes and vectors_behind(bench, node) <= limit
    ]
    return [layer for node in chosen for layer in deployment.layers_of(node)]


@register("zo")
class ZerothOrder(Strategy):
    """End-to-end zeroth order on digital parameters.

    ``minimise mean_n T**2 KL(teacher_n || chip_n)`` over gains, offsets and adapters by an ask/tell
    method of `finetune.optimizers`; every comparison uses the same images (common random numbers).

    Parameters
    ----------
    method : str
        "gauss_newton" (differences of all logits, coordinate by coordinate, damping chosen on
        held-out images), or a scalar one: "spsa", "variance_reduced", "line", "coordinate",
        "evolution". Where no damping would lower the loss of held-out images, gauss_newton moves nothing; the
        history tells the share of the loss that the step is predicted to remove from them (`promised`) and
        whether it moved (`pays`).
    steps : int
        Rounds.
    parameters : str
        Kinds joined by "+": gain, offset, adapter, range, norm.
    reach : int
        Act on layers behind which one image sends at most this many vectors; -1 acts on all.
    images : int
        Calibration images used; 0 uses all.
    temperature, label_share : float
        Of the loss; labels are used only where they were given and `label_share` > 0.
    perturbation : float
        Size of a test, in natural units (the gain itself; a standard deviation of the output).
    rule, rate, n_directions
        Of the scalar methods, see `finetune.optimizers`.
    cached : bool
        Keep codes before the changed layer. Without it, every measurement runs all layers, as
        at tier OUTPUTS.
    floor : float
        A difference below this many standard errors of read noise counts as none.
    patience : int
        Stop after so many rounds in a row without an audible difference.
    """

    name = "zo"

    def __init__(
        self,
        *,
        method: str = "gauss_newton",
        steps: int = 2,
        parameters: str = "gain+offset+adapter",
        reach: int = 4,
        images: int = 0,
        temperature: float = 2.0,
        label_share: float = 0.0,
        perturbation: float = 0.05,
        rule: str = "sgd",
        rate: float = 0.02,
        n_directions: int = 1,
        cached: bool = True,
        floor: float = 2.0,
        patience: int = 5,
    ) -> None:
        if method not in METHODS:
            raise InputError(f"zo: method: unknown name {method!r}; {nearest_name(method, METHODS)}")
        kinds = tuple(part.strip() for part in parameters.split("+"))
        for kind in kinds:
            if kind not in KINDS:
                raise InputError(f"zo: parameters: unknown kind {kind!r}; {nearest_name(kind, KINDS)}")
        if steps < 1:
            raise InputError(f"zo: steps must be >= 1, got {steps}")
        self.method, self.steps, self.kinds, self.reach = method, steps, kinds, reach
        self.n_images, self.temperature, self.label_share = images, temperature, label_share
        self.perturbation, self.rule, self.rate, self.n_directions = perturbation, rule, rate, n_directions
        self.cached, self.floor, self.patience = cached, floor, patience
        self.tier = Tier.LAYERS if cached else Tier.OUTPUTS
        self._step = 0
        self._optimizer_state: dict[str, Any] | None = None
        self._best: tuple[float, NDArray[np.float64]] | None = None

    # -- what the run consists of ---------------------------------------------------------------

    def _layers(self, bench: Bench) -> list[str]:
        if self.reach < 0:
            return list(bench.deployment.layers)
        return tail_layers(bench, self.reach)

    def _parameters(self, bench: Bench) -> HostParameters:
        layers = self._layers(bench)
        spread = {layer: column_spread(bench, layer) for layer in layers}
        latent = {}
        for layer in layers:
            host = bench.deployment.layers[layer]
            if host.down is not None and "adapter" in self.kinds:
                source = bench.teacher.node(host.node).inputs[0]
                codes = bench.deployment.codes(layer, bench.teacher_values(source)[:32])
                latent[layer] = (codes.astype(np.float32) @ (host.down * host.x_step)).std(axis=0) + 1e-9
        return HostParameters(bench.deployment, layers, self.kinds, spread, latent)

    def _optimizer(self, x: NDArray[np.float64], scale: NDArray[np.float64], seed: int) -> Optimizer:
        common: dict[str, Any] = {
            "scale": scale,
            "seed": seed,
            "floor": self.floor,
            "patience": self.patience,
        }
        if self.method == "gauss_newton":
            n = x.size
            return make_optimizer(
                self.method, x, perturbation=self.perturbation, n_directions=n, kind="coordinates", **common
            )
        if self.method == "evolution":
            return make_optimizer(self.method, x, spread=self.perturbation, **common)
        common["perturbation"] = self.perturbation
        if self.method == "line":
            return make_optimizer(self.method, x, **common)
        if self.method == "spsa":
            common["n_directions"] = self.n_directions
        if self.method == "coordinate":
            common["n_coordinates"] = self.n_directions
        return make_optimizer(self.method, x, rule=self.rule, rate=self.rate, **common)

    def plan(self, bench: Bench) -> dict[str, float]:
        """Predicted costs."""
        n_images = len(bench.images) if self.n_images == 0 else min(self.n_images, len(bench.images))
        everything = sum(positions(bench, node) for node in bench.network.mapped)
        if self.method != "gauss_newton" or not self.cached:
            return {"vectors": float(n_images * self._scalar_reads(bench, everything)), "cell_writes": 0.0}
        vectors = everything
        for layer in self._layers(bench):
            host = bench.deployment.layers[layer]
            n_entries = ("gain" in self.kinds) + ("offset" in self.kinds)
            n_entries += 0 if host.up is None or "adapter" not in self.kinds else len(host.up)
            vectors += 2 * self.steps * n_entries * host.gain.size * vectors_behind(bench, host.node)
        return {"vectors": float(n_images * vectors), "cell_writes": 0.0}

    def _scalar_reads(self, bench: Bench, everything: int) -> int:
        """Vectors per image of all rounds of a scalar method; of gauss_newton without caches."""
        layers = self._layers(bench)
        n_entries = sum(bench.deployment.layers[layer].gain.size for layer in layers) * len(self.kinds)
        points = self._optimizer(np.zeros(n_entries), np.ones(n_entries), bench.seed).points_in(self.steps)
        if not self.cached:
            return points * everything
        nodes = {bench.deployment.layers[layer].node for layer in layers}
        behind = max((vectors_behind(bench, node) for node in nodes), default=0)
        return everything + (points + self.steps) * behind  # and one for the move

    # -- running --------------------------------------------------------------------------------

    def start(self, bench: Bench) -> None:
        """Nothing is kept from before."""
        self._step, self._optimizer_state, self._best = 0, None, None

    def advance(self, bench: Bench) -> bool:
        """With caches the whole run (what is cached is not part of a state), else one round."""
        n = len(bench.images) if self.n_images == 0 else min(self.n_images, len(bench.images))
        measurement = Measurement(bench.deployment, bench.images[:n], cached=self.cached)
        teacher = bench.teacher_values(bench.teacher.output)[:n]
        parameters = self._parameters(bench)
        optimizer = self._optimizer(parameters.read(), parameters.scale, bench.seed)
        if self._optimizer_state is not None:
            optimizer.load_state_dict(self._optimizer_state)
        start = parameters.read()
        try:
            if isinstance(optimizer, GaussNewton):
                self._gauss_newton(bench, measurement, parameters, optimizer, teacher)
                return True
            labels = None if bench.labels is None else bench.labels[:n]
            share = self.label_share if labels is not None else 0.0
            objective = Objective(teacher, self.temperature, labels=labels, label_share=share)
            while not self._round(bench, measurement, parameters, optimizer, objective):
                if not self.cached:
                    self._optimizer_state = optimizer.state_dict()
                    return False
        except BudgetSpent:
            best = start if self._best is None else self._best[1]
            parameters.write(best)
            raise
        return True

    def _gauss_newton(
        self,
        bench: Bench,
        measurement: Measurement,
        parameters: HostParameters,
        optimizer: GaussNewton,
        teacher: NDArray[np.floating],
    ) -> None:
        target = fisher_factor(teacher, teacher, self.temperature).ravel()
        groups = np.repeat(np.arange(len(teacher)) % N_FOLDS, teacher.shape[1])

        def outcome(logits: NDArray[np.floating]) -> NDArray[np.float64]:
            return fisher_factor(teacher, logits, self.temperature).ravel()

        here = outcome(measurement.base())
        for _ in range(self.steps):
            loss = float(np.square(here - target).mean())
            self._remember(loss, optimizer.x)
            bench.record("", "zo", loss=loss)
            points = optimizer.ask()
            outputs = [here]
            for point in points[1:]:
                parameters.write(point)
                outputs.append(outcome(measurement.changed(parameters.touched(optimizer.x, point))))
            before = optimizer.x
            parameters.write(before)
            optimizer.tell_outputs(np.stack(outputs), target, groups=groups)
            touched = parameters.touched(before, optimizer.x)
            bench.record("", "zo", loss=loss, promised=optimizer.promised, pays=float(bool(touched)))
            if not touched:
                return
            for _ in range(N_HALVINGS):  # far from the solution the model promises too much
                parameters.write(optimizer.x)
                if np.square(outcome(measurement.changed(touched)) - target).mean() < loss:
                    break
                optimizer.x = 0.5 * (before + optimizer.x)
            parameters.write(optimizer.x)
            here = outcome(measurement.base(touched))
        loss = float(np.square(here - target).mean())
        self._remember(loss, optimizer.x)
        optimizer.settle(loss)
        parameters.write(optimizer.x)
        bench.record("", "zo", loss=min(loss, optimizer.best_loss))

    def _round(
        self,
        bench: Bench,
        measurement: Measurement,
        parameters: HostParameters,
        optimizer: Optimizer,
        objective: Objective,
    ) -> bool:
        """One ask and tell of a scalar method; True when all is done."""
        before = parameters.read()
        if self.cached and self._step == 0:
            measurement.base()
        points = optimizer.ask()
        losses = []
        for point in points:
            parameters.write(point)
            losses.append(objective.losses(measurement.changed(parameters.touched(before, point))))
        table = np.stack(losses)
        error = 0.0
        if len(points) > 1:
            # paired over images: their differences bear read noise and the choice of images
            error = float((table[0] - table[1]).std(ddof=1) / np.sqrt(table.shape[1]))
        self._remember(float(table.mean()), before)
        parameters.write(before)
        optimizer.tell(table.mean(axis=1), error)
        parameters.write(optimizer.x)
        if self.cached:
            measurement.base(parameters.touched(before, optimizer.x))
        bench.record("", "zo", loss=float(table.mean()), error=error)
        self._step += 1
        return self._step >= self.steps or optimizer.finished

    def _remember(self, loss: float, x: NDArray[np.float64]) -> None:
        if self._best is None or loss < self._best[0]:
            self._best = (loss, x.copy())

    def state_dict(self) -> dict[str, Any]:
        """Rounds done and the optimiser's own state."""
        state: dict[str, Any] = {"step": self._step}
        if self._optimizer_state is not None:
            state["optimizer"] = self._optimizer_state
        if self._best is not None:
            state["best_loss"], state["best_x"] = self._best
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._step = int(state["step"])
        self._optimizer_state = state.get("optimizer")
        if "best_x" in state:
            self._best = (float(state["best_loss"]), np.array(state["best_x"]))
