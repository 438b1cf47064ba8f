"""Evaluate a checkpoint: any split, with or without augmentation and weight noise."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smoothout import _checks
from smoothout._types import Distribution, Scale
from smoothout.intervals import standard_error
from smoothout.noise.philox import fold
from smoothout.results.runs import Risk
from smoothout.risk import risk
from smoothout.smoothing import SmoothOut
from smoothout.train import checkpoint
from smoothout.train.data.splits import EVALUATION_BATCH, in_order
from smoothout.train.problem import Problem, pose
from smoothout.weights import exclude_batch_norm, exclude_nothing


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
    """a: half-width of the noise, or its size relative to the weights; 0 is off."""
    scale: Scale = "none"
    """none: a; weight: a |w|; filter: a times the filter's norm."""
    distribution: Distribution = "uniform"
    """Uniform on (-1, 1) or standard normal."""
    exclude_bn: bool = True
    """Leave the weights and biases of BatchNorm without noise."""
    batch_size: int = EVALUATION_BATCH
    """Samples of a batch; each batch has its own noise."""
    augment: bool = False
    """Augment as in training."""
    draws: int = 10
    """Passes with noise or augmentation of their own, for a mean and its standard error."""
    seed: int = 0
    """Of noise and augmentation."""

    def __post_init__(self) -> None:
        _checks.whole("draws", self.draws, at_least=1)
        _checks.whole("batch_size", self.batch_size, at_least=1)


def evaluate(
    path: Path,
    splits: Sequence[str],
    conditions: Conditions,
    *,
    device: torch.device | None = None,
    **given: Any,
) -> list[Evaluation]:
    """Evaluate a checkpoint, which knows its model, data and precision, on each of the splits.

    Args:
        path: A checkpoint's folder, or a run's for its best one.
        splits: Of train, holdout and test; of several, those without samples are left out.
        conditions: Noise and augmentation; without either one pass is made, whatever ``draws`` says.
        device: Where to evaluate.
        given: Settings that replace the stored ones, such as ``data_dir``; None leaves one as it is. ``model`` and
            ``dataset`` are needed for the user's code, ``dataset`` for a checkpoint of the original program.
    """
    folder = checkpoint.find(path)
    settings = checkpoint.load_settings(folder, **given).replace(augment=conditions.augment)
    device = device or torch.device("cpu")
    problem = pose(settings, device)
    network = problem.network
    checkpoint.load_weights(folder, network)
    smoother = SmoothOut(
        network,
        conditions.strength,
        scale=conditions.scale,
        distribution=conditions.distribution,
        exclude=exclude_batch_norm if conditions.exclude_bn else exclude_nothing,
        seed=conditions.seed,
    )
    relative_noise = smoother.summary().relative_noise
    half = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[settings.schedule.precision]
    found = []
    with torch.autocast(device.type, half, enabled=half is not None):
        for split in splits:
            if len(splits) > 1 and len(problem.dataset.split(split)) == 0:
                continue
            problem.dataset.filled(split)
            draws = range(conditions.draws if conditions.strength > 0 or conditions.augment else 1)
            risks = [_draw(problem, split, smoother, conditions, draw) for draw in draws]
            found.append(_summarise(folder, split, risks, relative_noise))
    return found


def _draw(problem: Problem, split: str, smoother: SmoothOut, conditions: Conditions, draw: int) -> Risk:
    """One pass over a split: noise and augmentation are functions of (seed, draw)."""
    dataset = problem.dataset

    def prepare(inputs: Tensor) -> Tensor:
        return dataset.normalise(dataset.augment(inputs))

    seed = fold(conditions.seed, draw)
    torch.default_generator.manual_seed(seed >> 1)
    batches = in_order(
        dataset.split(split), augment=seed if conditions.augment else None, batch_size=conditions.batch_size
    )
    scope = functools.partial(smoother.perturbed, draw=draw)
    return risk(problem.network, batches, loss=problem.loss, prepare=prepare, scope=scope)


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
