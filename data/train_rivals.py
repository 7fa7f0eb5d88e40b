"""Train the rivals of post-deployment tuning: networks made robust before they meet a chip.

    pip install "rramsim[train]"
    python data/train_rivals.py                        # all of RIVALS that are not there yet
    python data/train_rivals.py lenet5_vat_0.3_frozen --work checkpoints

Variation-aware training (VAT) goes on from a shipped teacher with a new programming of all weights in
every step: levels of the cells, both cells of a pair erring by themselves, gradients passing straight
through. What differs between rivals is said in their `Rival`: the error law and its training strength,
whether batch norm keeps the teacher's statistics (`frozen`) or takes those of the noisy batches
(`train`), whether the loss is the labels' or mixed with the teacher's soft answers, and whether weights
are clipped to a multiple of their column's standard deviation. `clip` alone, without errors in training,
is the control.

Every epoch leaves a checkpoint, so a stopped run goes on where it was, and a row in `<name>.json` (loss
and validation accuracy under four programmings, with and without batch norm estimated again on noisy
outputs): the curve by which one sees whether more epochs would help. Weights are chosen on validation
images alone. Test images are never looked at here.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from train_teachers import BATCH, MODELS, augment, export_resnet8, export_small, load_weights, tensors

from rramsim.datasets import Dataset, load_dataset, load_teacher
from rramsim.network import Network

HERE = Path(__file__).resolve().parent
LEVELS, ON_OFF = 16, 30.0  # of the cells that training imagines
VALIDATION_DRAWS = 4  # programmings over which validation accuracy is averaged
RECALIBRATION = 256  # training images for batch norm estimated again
TEMPERATURE = 2.0
MAX_GRADIENT = 1.0  # norm; frozen batch norm lets noisy batches of ResNet-8 diverge without it


@dataclass(frozen=True, kw_only=True)
class Rival:
    """How one rival is trained."""

    teacher: str
    law: str = "lognormal"  # or "additive", or "none"
    sigma: float = 0.3  # strength in training: of ln G, or of g_max
    sigma_test: float = 0.3  # strength in the validation that chooses the weights
    batch_norm: str = "frozen"  # statistics during training: the teacher's, or "train" the noisy batches'
    soft: float = 0.7  # weight of the teacher's soft answers in the loss
    clip: float = 0.0  # largest weight in standard deviations of its output column; 0 for none
    epochs: int = 12
    peak_rate: float = 0.02
    weight_decay: float = 3e-4
    ema_decay: float = 0.998
    seed: int = 1


LENET, RESNET = "lenet5_fashion", "resnet8_fashion"
RIVALS = {
    "lenet5_vat_0.3_frozen": Rival(teacher=LENET, epochs=20),
    "resnet8_vat_0.3_frozen": Rival(teacher=RESNET, peak_rate=0.01, epochs=14),
    "lenet5_vat_0.3_train": Rival(teacher=LENET, batch_norm="train", epochs=20),
    "lenet5_vat_0.5_frozen": Rival(teacher=LENET, sigma=0.5, sigma_test=0.5, epochs=20),
    "lenet5_vat_0.5_train": Rival(teacher=LENET, sigma=0.5, sigma_test=0.5, batch_norm="train", epochs=20),
    "resnet8_vat_0.5_frozen": Rival(teacher=RESNET, sigma=0.5, sigma_test=0.5, epochs=14),
    "resnet8_vat_0.5_train": Rival(teacher=RESNET, sigma=0.5, sigma_test=0.5, batch_norm="train", epochs=14),
    "lenet5_clip_only": Rival(teacher=LENET, law="none", sigma=0.0, clip=2.0, epochs=8),
    "lenet5_vat_0.3_clip": Rival(teacher=LENET, clip=2.0, epochs=20),
    "lenet5_vat_0.3_half": Rival(teacher=LENET, sigma=0.15, epochs=20),
    "lenet5_vat_0.3_more": Rival(teacher=LENET, sigma=0.45, epochs=20),
    "lenet5_vat_0.3_labels": Rival(teacher=LENET, soft=0.0, epochs=20),
    "lenet5_vat_additive": Rival(teacher=LENET, law="additive", sigma=0.06, sigma_test=0.06, epochs=20),
    "resnet8_vat_0.3_train": Rival(teacher=RESNET, batch_norm="train", epochs=14),
    "resnet8_vat_additive": Rival(teacher=RESNET, law="additive", sigma=0.06, sigma_test=0.06, epochs=14),
    "lenet5_vat_0.3_frozen_seed2": Rival(teacher=LENET, epochs=20, seed=2),
    "resnet8_vat_0.3_frozen_seed2": Rival(teacher=RESNET, epochs=14, seed=2),
}


def programmed(
    model: nn.Module, law: str, sigma: float, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Weights as pairs of erring cells would hold them after a plain mapping; gradients pass straight."""
    held = {}
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            continue
        with torch.no_grad():
            scale = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True).clamp_min(1e-12)
            size = torch.round((weight / scale).abs() * (LEVELS - 1)) / (LEVELS - 1)
            lowest = 1.0 / ON_OFF
            pair = []
            for sign in (1.0, -1.0):
                target = lowest + (1.0 - lowest) * size * (weight * sign > 0)
                error = torch.randn(weight.shape, generator=generator)
                if law == "lognormal":
                    pair.append(target * torch.exp(sigma * error - sigma**2 / 2))
                else:
                    pair.append((target + sigma * error).clamp(0.0, 1.3))
            change = scale * (pair[0] - pair[1]) / (1.0 - lowest) - weight
        held[name] = weight + change
    return held


def clip_columns(model: nn.Module, limit: float) -> None:
    """Clip each output column of weights to `limit` of its standard deviations."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                axes = tuple(range(1, weight.ndim))
                bound = limit * weight.std(dim=axes, keepdim=True)
                weight.copy_(torch.maximum(torch.minimum(weight, bound), -bound))


def norms(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


@torch.no_grad()
def validation(model: nn.Module, rival: Rival, data: Dataset) -> tuple[float, float]:
    """Accuracy over a few programmings, as mapped and with batch norm estimated again on each."""
    images, labels = tensors(data["validation"])
    some = torch.tensor(data["train"].images[:RECALIBRATION])
    generator, plain, again = torch.Generator().manual_seed(0), [], []
    law, sigma = (rival.law, rival.sigma_test) if rival.law != "none" else ("lognormal", rival.sigma_test)

    def right(weights: dict[str, torch.Tensor]) -> float:
        logits = [torch.func.functional_call(model, weights, (part,)) for part in images.split(500)]
        return float((torch.cat(logits).argmax(1) == labels).double().mean())

    for _ in range(VALIDATION_DRAWS):
        weights = programmed(model, law, sigma, generator)
        model.eval()
        plain.append(right(weights))
        kept = [(m, m.running_mean.clone(), m.running_var.clone(), m.momentum) for m in norms(model)]
        model.train()
        for m in norms(model):
            m.momentum = 1.0
        torch.func.functional_call(model, weights, (some,))
        model.eval()
        again.append(right(weights))
        for m, mean, variance, momentum in kept:
            m.running_mean.copy_(mean)
            m.running_var.copy_(variance)
            m.momentum = momentum
    return float(np.mean(plain)), float(np.mean(again))


def train(name: str, rival: Rival, data: Dataset, work: Path, out: Path) -> nn.Module:
    """The trained model; resumes from `work/name.pt` where that exists."""
    torch.manual_seed(rival.seed)
    generator = torch.Generator().manual_seed(rival.seed)
    model, teacher = MODELS[rival.teacher](), MODELS[rival.teacher]()
    for module in (model, teacher):
        load_weights(module, load_teacher(rival.teacher))
    teacher.eval()
    if rival.clip:
        clip_columns(model, rival.clip)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(rival.ema_decay), use_buffers=True
    )
    images, labels = tensors(data["train"])
    n_steps = len(images) // BATCH
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": rival.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=rival.peak_rate, momentum=0.9, nesterov=True,
    )  # fmt: skip
    warm = 0.05 * rival.epochs * n_steps
    cosine = lambda k: min((k + 1) / warm, 0.5 * (1 + math.cos(math.pi * k / (rival.epochs * n_steps))))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine)
    parts = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule}
    checkpoint, first, rows = work / f"{name}.pt", 0, []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        for key, part in parts.items():
            part.load_state_dict(state[key])
        generator.set_state(state["generator"])
        first, rows = state["epoch"], json.loads(state["rows"])
    blank = -data.mean / data.std
    for epoch in range(first, rival.epochs):
        begin, total = time.perf_counter(), 0.0
        order = torch.randperm(len(images), generator=generator)[: n_steps * BATCH]
        model.train()
        if rival.batch_norm == "frozen":
            for m in norms(model):
                m.eval()
        for batch in order.split(BATCH):
            x = augment(images[batch], _Augmentation(rival.teacher), blank, generator)
            weights = programmed(model, rival.law, rival.sigma, generator) if rival.law != "none" else {}
            logits = torch.func.functional_call(model, weights, (x,))
            loss = (1.0 - rival.soft) * F.cross_entropy(logits, labels[batch])
            if rival.soft:
                with torch.no_grad():
                    wanted = F.softmax(teacher(x) / TEMPERATURE, dim=1)
                soft = F.kl_div(F.log_softmax(logits / TEMPERATURE, dim=1), wanted, reduction="batchmean")
                loss = loss + rival.soft * TEMPERATURE**2 * soft
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT)
            optimizer.step()
            if rival.clip:
                clip_columns(model, rival.clip)
            schedule.step()
            average.update_parameters(model)
            total += float(loss.detach())
        mapped, recalibrated = validation(average.module, rival, data)
        rows.append(
            {"epoch": epoch + 1, "loss": total / n_steps, "mapped": mapped, "batch_norm": recalibrated}
        )
        state = {key: part.state_dict() for key, part in parts.items()}
        state |= {"generator": generator.get_state(), "epoch": epoch + 1, "rows": json.dumps(rows)}
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
        out.joinpath(f"{name}.json").write_text(
            json.dumps({"recipe": asdict(rival), "epochs": rows}, indent=1) + "\n"
        )
        print(name, rows[-1], f"{time.perf_counter() - begin:.0f} s", flush=True)
    return average.module.eval()


class _Augmentation:
    """Crop and flip as of the teacher's own training."""

    def __init__(self, teacher: str) -> None:
        self.crop_pad, self.flip = (2 if teacher == RESNET else 1), True


def export(name: str, rival: Rival, model: nn.Module, data: Dataset, path: Path) -> None:
    """Write the network with the recipe; it must reproduce torch's logits on the validation images."""
    nodes = export_resnet8(model) if rival.teacher == RESNET else export_small(model)
    mapped, recalibrated = validation(model, rival, data)
    metadata = {
        "dataset": "fashion_mnist", "mean": data.mean, "std": data.std,
        "pixel_max": data["validation"].pixel_max,
        "validation_accuracy_mapped": mapped, "validation_accuracy_batch_norm": recalibrated,
        "script": "data/train_rivals.py", "recipe": str(rival),
        "versions": f"torch {torch.__version__.split('+')[0]}, numpy {np.__version__}", "licence": "MIT",
    }  # fmt: skip
    network = Network(
        nodes, input_shape=data.image_shape, output=nodes[-1].name, name=name, metadata=metadata
    )
    images = data["validation"].images
    with torch.no_grad():
        wanted = torch.cat([model(part) for part in torch.from_numpy(np.array(images)).split(500)]).numpy()
    error = np.abs(network.run(images) - wanted).max() / np.abs(wanted).max()
    if error > 1e-5:
        raise RuntimeError(f"the exported {name} differs from torch by {error:.1e} of the largest logit")
    network.save(path)
    print(f"{name}: validation {mapped:.4f} mapped, {recalibrated:.4f} with batch norm", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(RIVALS)}; all that are missing without one")
    parser.add_argument("--work", type=Path, default=Path("results/rivals"), help="where checkpoints go")
    parser.add_argument("--out", type=Path, default=HERE / "rivals")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    missing = [name for name in RIVALS if not (arguments.out / f"{name}.h5").exists()]
    data = load_dataset("fashion_mnist_full")
    for name in arguments.names or missing:
        rival = RIVALS[name]
        model = train(name, rival, data, arguments.work, arguments.out)
        export(name, rival, model, data, arguments.out / f"{name}.h5")


if __name__ == "__main__":
    main()
