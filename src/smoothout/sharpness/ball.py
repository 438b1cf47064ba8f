"""Worst case in a ball around the weights."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from smoothout import _checks
from smoothout.losses import Loss
from smoothout.objective import Objective
from smoothout.results.sharpness import BallSharpness
from smoothout.samples import Batches, Samples
from smoothout.sharpness.ascent import Ball, worst


def ball(
    model: nn.Module,
    data: Batches | Samples,
    loss: Loss = functional.cross_entropy,
    *,
    radius: float = 0.05,
    steps: int = 1,
    batch_size: int = 128,
    samples: int = 1024,
    seed: int = 0,
    process_group: Any = None,
) -> BallSharpness:
    r"""The largest rise of the loss within a distance rho of the weights.

    .. math:: \max_{\|d\|_2 \le \rho} f(\theta + d) - f(\theta)

    One step takes d = rho g / ||g||, g the gradient: the maximum of the linear part, as sharpness-aware minimisation
    does in each of its steps. More steps go on from there by projected gradient ascent and keep the best point, the
    centre included; 20 find nearly all of the maximum.

    ``value`` is of the mean loss over all samples. ``per_batch`` takes the maximum for each batch of its own, as
    training sees it, and averages: batches disagree on d, so it is larger. The cost over data and
    batches is 3 passes forward and 1 backward for one step, and 1 forward and 1 backward for each further step.

    Args:
        model: Maps inputs to outputs.
        data: Pairs (inputs, targets).
        loss: See :mod:`smoothout.losses`.
        radius: rho > 0, in units of the weights: of the norm of all weights together.
        steps: 1, or 20 for the maximum rather than its first estimate.
        batch_size: Samples of a batch for ``per_batch``.
        samples: In all batches together; all if the data have fewer.
        seed: Of the choice of samples, and of the direction in which several steps start where the gradient is zero.
        process_group: Processes that share the passes; see :class:`smoothout.objective.Objective`.

    Raises:
        ValueError: For a radius that is not above 0 or fewer than one step.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> inputs, targets = torch.randn(300, 3), torch.randint(0, 2, (300,))
        >>> found = ball(nn.Linear(3, 2), [(inputs, targets)])
        >>> found.per_batch > found.value > 0, found.samples, found.doubts
        (True, 300, ())

    Source: Foret et al. 2020 (arXiv 2010.01412), equations 1 and 2, and section 4 on maxima per batch (m-sharpness).
    """
    radius = _checks.positive("radius", radius, "The default is 0.05.")
    _checks.whole("steps", steps, at_least=1)
    with Objective(model, data, loss, process_group=process_group) as objective:
        found = worst(
            objective,
            lambda own: Ball([torch.ones((), dtype=p.dtype, device=p.device) for p in own.parameters], radius),
            steps=steps,
            batch_size=batch_size,
            samples=samples,
            seed=seed,
        )
        return BallSharpness(
            value=found.value,
            center=objective.center,
            doubts=found.doubts,
            seconds=objective.seconds,
            seed=seed,
            per_batch=found.per_batch,
            per_batch_standard_error=found.standard_error,
            per_batch_doubts=found.per_batch_doubts,
            radius=radius,
            steps=steps,
            batch_size=batch_size,
            samples=min(samples, objective.center.samples),
        )
