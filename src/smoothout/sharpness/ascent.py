r"""The highest loss in a ball around the weights, by projected gradient ascent.

The ball is {d : ||T^-1 d||_p <= rho}, T positive and diagonal: p = 2 and T = 1 for :func:`~smoothout.sharpness.ball`,
T from the weights for :func:`~smoothout.sharpness.adaptive`; with p = inf it is a box.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothout.noise import draws
from smoothout.noise.draws import NoiseKey
from smoothout.objective import Objective, Vector
from smoothout.samples import Batch, Batches, Samples, subset

# A longer step after a rise and a much shorter one after a fall. On quadratics with spectra like those of networks,
# and on a BatchNorm network, 20 steps of this rule come within a few percent of the maximum. Steps of a quarter of the
# radius lose 10 % where curvatures are spread, d <- rho g(d) / ||g(d)|| diverges where the largest is negative.
_LONGER, _SHORTER = 1.5, 0.25


class NotFinite(Exception):  # noqa: N818
    """The loss at a point is infinite or not a number, which ends a search."""


class Explored:
    """A function with its gradient, and the highest point at which it was called.

    Attributes:
        highest: The largest value seen, the starting one included; once a value was not finite, that value.
        where: Where it was.
        evaluations: Calls so far.
    """

    def __init__(self, function: Callable[[Vector], tuple[float, Vector]], value: float, where: Vector) -> None:
        self._function = function
        self.highest, self.where = value, where
        self.evaluations = 0

    def __call__(self, point: Vector) -> tuple[float, Vector]:
        """Value and gradient; raises NotFinite where the value is no finite number."""
        self.evaluations += 1
        value, slope = self._function(point)
        if not value <= self.highest:
            self.highest, self.where = value, point
        if not math.isfinite(value):
            raise NotFinite
        return value, slope


@dataclass(frozen=True)
class Ball:
    """{d : ||T^-1 d||_p <= radius}.

    Attributes:
        spread: T, for each tensor of d one that multiplies it.
        radius: rho.
        norm: p, 2 or inf.
    """

    spread: Vector
    radius: float
    norm: float = 2

    def farthest(self, slope: Vector) -> list[Tensor]:
        """The d of the ball that maximises <slope, d>, slope not zero."""
        if self.norm == math.inf:
            return [self.radius * t * g.sign() for t, g in zip(self.spread, slope, strict=True)]
        return self._along(slope, self.radius)

    def moved(self, point: Vector, slope: Vector, length: float) -> list[Tensor]:
        """The point of the ball nearest, in T^-1 d, to a step uphill; ``length`` 1 goes from the centre to the edge."""
        size = sum(part.numel() for part in slope) if self.norm == math.inf else 1
        ahead = self._along(slope, length * self.radius * math.sqrt(size))
        torch._foreach_add_(ahead, list(point))
        if self.norm == math.inf:
            edges = [self.radius * t for t in self.spread]
            return [torch.clamp(d, -edge, edge) for d, edge in zip(ahead, edges, strict=True)]
        distance = norm([d / t for d, t in zip(ahead, self.spread, strict=True)])
        if distance > self.radius:
            torch._foreach_mul_(ahead, self.radius / distance)
        return ahead

    def _along(self, slope: Vector, distance: float) -> list[Tensor]:
        """Uphill in u = T^-1 d, where the slope is T g, by ``distance``; as d = T u."""
        scaled = [t * g for t, g in zip(self.spread, slope, strict=True)]
        factor = distance / norm(scaled)
        return [t * g * factor for t, g in zip(self.spread, scaled, strict=True)]


def norm(vector: Vector) -> float:
    """||vector||_2, in float64."""
    norms = torch._foreach_norm(list(vector), 2, dtype=torch.float64)
    return float(torch.stack([each.to(norms[0].device) for each in norms]).norm())


def climb(
    explored: Explored, ball: Ball, here: Vector, value: float, slope: Vector, steps: int, length: float = 1.0
) -> int:
    """Projected ascent from a point of known value and slope; returns the steps made, fewer where the slope is zero."""
    for step in range(steps):
        if norm(slope) == 0:
            return step
        there = ball.moved(here, slope, length)
        found, found_slope = explored(there)
        if found > value:
            here, value, slope = there, found, found_slope
            length *= _LONGER
        else:
            length *= _SHORTER
    return steps


@dataclass(frozen=True)
class Worst:
    """The highest rise in a ball, over all samples and over batches.

    Attributes:
        value: Over all samples.
        per_batch: Mean of the rises of batches, each with the maximum of its own loss, weighted by their sizes.
        standard_error: Of that mean, over batches; nan for one batch.
        doubts, per_batch_doubts: Why not to trust them.
    """

    value: float
    per_batch: float
    standard_error: float
    doubts: tuple[str, ...]
    per_batch_doubts: tuple[str, ...]


def worst(
    objective: Objective,
    ball: Callable[[Objective], Ball],
    *,
    steps: int,
    batch_size: int,
    samples: int,
    seed: int,
) -> Worst:
    """The highest rise found in ``ball(objective)`` for all samples, and for batches of a random part of them."""
    value, doubt = _highest_rise(objective, ball(objective), steps, seed)
    batches = _random_batches(objective.samples, samples, batch_size, seed)
    rises, of_batches = _highest_rises(objective, ball, batches, steps, seed)
    mean, error = _weighted_mean(rises, [len(targets) for _, targets in batches])
    per_batch_doubts = tuple(
        f"on {of_batches.count(why)} of {len(batches)} batches {why}" for why in dict.fromkeys(of_batches) if why
    )
    return Worst(value, mean, error, (doubt,) if doubt else (), per_batch_doubts)


def _highest_rises(
    objective: Objective, ball: Callable[[Objective], Ball], batches: Sequence[Batch], steps: int, seed: int
) -> tuple[list[float], list[str]]:
    """What :func:`_highest_rise` says of each batch; batch k is that of process k mod size, which needs no other."""
    ranks = objective.ranks
    found: list[tuple[float, str]] = []
    with ranks.together(objective.device):
        for batch in ranks.own(batches):
            with Objective(objective.model, [batch], objective.loss) as own:
                found.append(_highest_rise(own, ball(own), steps, seed))
    everyone = ranks.all(found)
    of_batches = [everyone[number % ranks.size][number // ranks.size] for number in range(len(batches))]
    return [rise for rise, _ in of_batches], [why for _, why in of_batches]


def _highest_rise(objective: Objective, ball: Ball, steps: int, seed: int) -> tuple[float, str]:
    """max f(theta + d) - f(theta) over the points tried, and a reason to doubt it, if there is one."""
    center, slope = objective.center.loss, objective.slope
    level = norm(slope) == 0
    if level and steps == 1:
        return 0.0, "the gradient is zero, so that one step goes nowhere; use steps=20"
    edge = ball.farthest(_random(objective, seed) if level else slope)
    if steps == 1:
        rise = objective.value(edge) - center
        if rise < 0:
            return rise, "one step of this radius lowers the loss, so that it is not the maximum; use steps=20"
    else:
        middle = [torch.zeros_like(part) for part in slope]
        explored = Explored(objective.gradient, center, middle)
        try:
            value, there = explored(edge)
            if value > center or level:
                climb(explored, ball, edge, value, there, steps - 1)
            else:
                climb(explored, ball, middle, center, slope, steps - 1, _SHORTER)
        except NotFinite:
            pass
        rise = explored.highest - center
    return rise, "" if math.isfinite(rise) else f"the loss rises by {rise} at a point of the ball; use a smaller radius"


def _random(objective: Objective, seed: int) -> list[Tensor]:
    """A random direction, the same for every device."""
    weights = objective.weights
    device = weights[0].parameter.device
    drawn = draws.normal(
        NoiseKey(seed, 0), [each.ordinal for each in weights], [each.parameter.numel() for each in weights], device
    )
    return [z.view(each.parameter.shape).to(each.parameter) for z, each in zip(drawn, weights, strict=True)]


def _random_batches(data: Samples | Batches, samples: int, batch_size: int, seed: int) -> list[Batch]:
    """A random part of the samples, in random order: data sorted by class would make batches of one class."""
    [(inputs, targets)] = subset(data, samples, seed, batch_size=samples)
    [keys] = draws.normal(NoiseKey(seed, 0), [0], [len(targets)], torch.device("cpu"))
    order = keys.argsort().to(targets.device)
    return list(zip(*(torch.split(tensor[order], batch_size) for tensor in (inputs, targets)), strict=True))


def _weighted_mean(values: list[float], sizes: list[int]) -> tuple[float, float]:
    """sum_i w_i v_i with w_i = n_i / N, and its standard error sqrt(m / (m - 1) sum_i w_i^2 (v_i - mean)^2)."""
    count, total = len(values), sum(sizes)
    weights = [size / total for size in sizes]
    mean = sum(w * v for w, v in zip(weights, values, strict=True))
    if count < 2:
        return mean, math.nan
    squares = sum((w * (v - mean)) ** 2 for w, v in zip(weights, values, strict=True))
    return mean, math.sqrt(squares * count / (count - 1))
