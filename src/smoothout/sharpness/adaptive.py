"""Worst case in a ball measured in the sizes of the weights."""

import math
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from smoothout import _checks
from smoothout.losses import Loss
from smoothout.objective import Objective
from smoothout.results.sharpness import AdaptiveSharpness
from smoothout.samples import Batches, Samples
from smoothout.scaling import filter_norms
from smoothout.sharpness.ascent import Ball, worst
from smoothout.weights import Weight

By = Literal["weight", "filter"]
#: Added to |theta_i| or the norm of a filter, so that weights of 0 can move.
FLOOR = 0.01

_RADII = {2.0: 0.5, math.inf: 2e-3}


def adaptive(
    model: nn.Module,
    data: Batches | Samples,
    loss: Loss = functional.cross_entropy,
    *,
    radius: float | None = None,
    norm: float = 2,
    by: By = "weight",
    steps: int = 1,
    batch_size: int = 128,
    samples: int = 1024,
    seed: int = 0,
    process_group: Any = None,
) -> AdaptiveSharpness:
    r"""The largest rise of the loss in a ball whose axes grow with the weights.

    .. math:: \max_{\|T^{-1} d\|_p \le \rho} f(\theta + d) - f(\theta), \qquad T_i = |\theta_i| + 0.01

    or, by filter, T_i = ||theta_f|| + 0.01 for the filter f that weight i belongs to. Scaling the weights of one layer
    up and of the next one down leaves the function of a ReLU network as it is, but not its :func:`ball`; this measure
    stays the same but for the 0.01.

    One step takes d = rho T^2 g / ||T g||_2 for p = 2 and d = rho T sign(g) for p = inf, g the gradient; more steps
    go on by projected gradient ascent in T^-1 d. All else is as for :func:`ball`.

    Of large modern models, Andriushchenko et al. 2023 (arXiv 2302.07011) find that this sharpness correlates weakly
    with generalisation, in places inversely. Compare with it models that were trained alike, and on that only.

    Args:
        model: Maps inputs to outputs.
        data: Pairs (inputs, targets).
        loss: See :mod:`smoothout.losses`.
        radius: rho > 0, relative to the weights; by default .5 for p = 2 and 2e-3 for p = inf, where 1e-3 to 8e-3 is
            the sensible range.
        norm: p, 2 or ``math.inf``.
        by: What a weight's size is: its own or its filter's (rows of a Linear, output channels of a convolution,
            every element of a 1-D tensor).
        steps, batch_size, samples, seed: As for :func:`ball`.
        process_group: Processes that share the passes; see :class:`smoothout.objective.Objective`.

    Raises:
        ValueError: For a radius that is not above 0, another norm, or fewer than one step.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> inputs, targets = torch.randn(300, 3), torch.randint(0, 2, (300,))
        >>> found = adaptive(nn.Linear(3, 2), [(inputs, targets)], norm=math.inf)
        >>> found.radius, found.value > 0, found.doubts
        (0.002, True, ())

    Source: Kwon et al. 2021 (arXiv 2102.11600), definition 2, with T + eta I for T and eta = 0.01 as its authors do.
    """
    if norm not in _RADII:
        raise ValueError(f"norm is {norm!r}; expected 2 or math.inf.")
    _checks.one_of("by", by, By)
    radius = _RADII[norm] if radius is None else _checks.positive("radius", radius, "Leave it out for a default.")
    _checks.whole("steps", steps, at_least=1)
    with Objective(model, data, loss, process_group=process_group) as objective:
        found = worst(
            objective,
            lambda own: Ball([_size(weight, by) for weight in own.weights], radius, norm),
            steps=steps,
            batch_size=batch_size,
            samples=samples,
            seed=seed,
        )
        return AdaptiveSharpness(
            value=found.value,
            center=objective.center,
            doubts=found.doubts,
            seconds=objective.seconds,
            seed=seed,
            per_batch=found.per_batch,
            per_batch_standard_error=found.standard_error,
            per_batch_doubts=found.per_batch_doubts,
            radius=radius,
            norm=norm,
            by=by,
            steps=steps,
            batch_size=batch_size,
            samples=min(samples, objective.center.samples),
        )


def _size(weight: Weight, by: By) -> Tensor:
    """T, in a shape that multiplies the weight."""
    values = weight.parameter.detach()
    if by == "weight":
        return values.abs() + FLOOR
    return weight.over_filters((filter_norms(weight, values) + FLOOR).to(values.dtype))
