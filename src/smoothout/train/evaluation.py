"""Evaluate a checkpoint: any split, with or without augmentation and weight noise."""

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from smoothout._types import Distribution, Scale
from smoothout.intervals import standard_error
from smoothout.noise.philox import fold
from smoothout.results import Risk
from smoothout.risk import risk
from smoothout.smoothing import SmoothOut
from smoothout.train import checkpoint, data, models
from smoothout.train.data.splits import in_order


@dataclass(frozen=True)
class Evaluation:
    """Risk of a checkpoint on a split, the mean over draws.

    Attributes:
        checkpoint: Its folder.
        split: train, holdout or test.
        risk: Mean over draws.
        loss_se, error1_se, error5_se: Standard errors of those means; nan without noise and augmentation.
        draws: Independent passes over the split.
        relative_noise: r of the first draw, 0 without noise.
    """

    checkpoint: Path
    split: str
    risk: Risk
    loss_se: float
    error1_se: float
    error5_se: float
    draws: int
    relative_noise: float


@dataclass(frozen=True)
class Conditions:
    """Under what a checkpoint is evaluated; noise is drawn anew for each batch."""

    strength: float = 0.0
    scale: Scale = "none"
    distribution: Distribution = "uniform"
    augment: bool = False
    draws: int = 10
    seed: int = 0


def evaluate(
    path: Path,
    split: str,
    conditions: Conditions,
    *,
    model: str | None = None,
    dataset: str | None = None,
    data_dir: Path | None = None,
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluate a checkpoint, which knows its model and data.

    Args:
        path: A checkpoint's folder, or a run's for its best one.
        split: train, holdout or test.
        conditions: Noise and augmentation; without either one pass is made, whatever ``draws`` says.
        model, dataset, data_dir: Replace what the checkpoint names; needed for code in files.
        device: Where to evaluate.
    """
    folder = checkpoint.find(path)
    settings = checkpoint.load_settings(folder, model=model, dataset=dataset)
    if data_dir is not None:
        settings = settings.replace(data_dir=data_dir)
    settings = settings.replace(augment=conditions.augment)
    device = device or torch.device("cpu")
    loaded = data.load(settings.data, settings.schedule.seed).to(device)
    network = models.build(settings.network.model, loaded.input_shape, loaded.classes, settings.schedule.seed)
    checkpoint.load_weights(folder, network)
    network.to(device)
    smoother = SmoothOut(
        network,
        conditions.strength,
        scale=conditions.scale,
        distribution=conditions.distribution,
        seed=conditions.seed,
    )

    def prepare(inputs: Tensor) -> Tensor:
        return loaded.normalise(loaded.augment(inputs))

    draws = conditions.draws if conditions.strength > 0 or conditions.augment else 1
    risks = []
    for draw in range(draws):
        torch.manual_seed(fold(conditions.seed, draw) >> 1)
        augment = fold(conditions.seed, draw) if conditions.augment else None
        batches = in_order(loaded.split(split), augment=augment)
        risks.append(
            risk(network, batches, prepare=prepare, scope=functools.partial(smoother.perturbed, draw=draw))
        )
    return _summarise(folder, split, risks, smoother.summary().relative_noise)


def _summarise(folder: Path, split: str, risks: list[Risk], relative_noise: float) -> Evaluation:
    losses, firsts, fifths = ([getattr(each, name) for each in risks] for name in ("loss", "error1", "error5"))
    mean = Risk(_mean(losses), _mean(firsts), _mean(fifths), risks[0].samples)
    return Evaluation(
        folder,
        split,
        mean,
        loss_se=standard_error(losses),
        error1_se=standard_error(firsts),
        error5_se=standard_error(fifths),
        draws=len(risks),
        relative_noise=relative_noise,
    )


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
