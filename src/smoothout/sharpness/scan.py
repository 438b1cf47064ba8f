"""Expected loss and accuracy under noise against its strength, and the strengths worth trying."""

import math
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn import functional

from smoothout import _checks
from smoothout._types import Scale
from smoothout.losses import Loss
from smoothout.objective import spread
from smoothout.ranks import sharing
from smoothout.results.scan import Scan, crossing
from smoothout.results.sharpness import NoiseSharpness
from smoothout.samples import Batches, Samples
from smoothout.sharpness.noise import noise

#: Strengths of each scale: four a decade.
STRENGTHS = {
    "none": tuple(10 ** (k / 4) for k in range(-12, 0)),
    "weight": tuple(10 ** (k / 4) for k in range(-7, 3)),
    "filter": tuple(10 ** (k / 4) for k in range(-7, 2)),
}
#: What noise worth trying costs a trained network: nats from and to.
WORTH = (0.01, 0.5)
#: The same of a network that has learned nothing, whose loss noise does not raise: relative noise from and to.
WORTH_UNTRAINED = (0.05, 0.5)
_ENOUGH = 3.0  # nats; stronger noise is not measured
_UNTRAINED = 0.9  # share of ln(classes) above which nothing was learned


def scan(
    model: nn.Module,
    data: Batches | Samples,
    loss: Loss = functional.cross_entropy,
    *,
    scale: Scale = "none",
    strengths: Sequence[float] | None = None,
    pairs: int = 4,
    classes: int | None = None,
    seed: int = 0,
    process_group: Any = None,
) -> Scan:
    """Measure :func:`smoothout.sharpness.noise` at many strengths, with few draws, until the loss is ruined.

    The range worth trying is where the noise raises the loss of the trained network by 0.01 to 0.5 nats: below,
    training hardly notices it; above, it cannot fit. That is a rule of thumb from few networks, and no choice: choose
    within it on a hold-out. Noise during training changes the minimum, so that training can bear more noise than this
    minimum does.

    Args:
        model, data, loss: As for :func:`smoothout.sharpness.noise`; a thousand training samples are plenty.
        scale: Of the noise.
        strengths: Rising; four a decade if not given.
        pairs: Antithetic pairs of draws at each strength.
        classes: A loss near ln(classes) is that of a network that has learned nothing; its range is by relative noise.
        seed: Of the draws.
        process_group: Processes that share the passes; see :class:`smoothout.objective.Objective`.

    Raises:
        ValueError: For strengths that do not rise, or as :func:`smoothout.sharpness.noise` does.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> inputs = torch.randn(64, 3)
        >>> found = scan(nn.Linear(3, 2), [(inputs, (inputs[:, 0] > 0).long())], strengths=(0.01, 0.1, 1.0))
        >>> [point.value < 0.5 for point in found.points]
        [True, True, True]
    """
    strengths = tuple(STRENGTHS[scale]) if strengths is None else tuple(strengths)
    if not strengths or list(strengths) != sorted(set(strengths)):
        raise ValueError(f"the strengths are {strengths}; expected some, each larger than the one before.")
    if classes is not None:
        _checks.whole("classes", classes, at_least=2)
    samples = spread(data, model, sharing(process_group))
    points: list[NoiseSharpness] = []
    for strength in strengths:
        options = {"strength": strength, "scale": scale, "pairs": pairs, "max_pairs": pairs, "seed": seed}
        points.append(noise(model, samples, loss, process_group=process_group, **options))  # type: ignore[arg-type]
        if not points[-1].value < _ENOUGH:
            break
    return Scan(scale, tuple(points), *_worth(points, classes))


def _worth(points: Sequence[NoiseSharpness], classes: int | None) -> tuple[float, float, str]:
    """The range worth trying and the reason."""
    center = points[0].center.loss
    # A network that learned its training samples by heart may have as large a loss on others, but not such errors.
    guessing = classes is not None and points[0].center.error1 > _UNTRAINED * 100 * (1 - 1 / classes)
    untrained = guessing and center > _UNTRAINED * math.log(classes or 2)
    least, most = WORTH_UNTRAINED if untrained else WORTH
    low, high = (
        crossing(points, (lambda p: p.relative_noise) if untrained else (lambda p: p.value), level)
        for level in (least, most)
    )
    if untrained:
        why = f"the loss {center:.3g} is that of guessing, so that it does not rise: where r is {least:g} to {most:g}"
    else:
        why = f"where the loss rises by {least:g} to {most:g} nats, from {center:.3g}"
    if math.isnan(low) or math.isnan(high):
        found = [p.relative_noise if untrained else p.value for p in points]
        if found[0] >= least:
            return math.nan, math.nan, f"the weakest strength is too strong already ({why}; there: {found[0]:.3g})"
        return math.nan, math.nan, f"these strengths do not reach the range ({why}; largest: {max(found):.3g})"
    return low, high, why
