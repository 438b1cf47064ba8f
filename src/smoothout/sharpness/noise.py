"""Expected rise of the loss under the noise of training."""

import functools
import math
from typing import Any

from torch import nn
from torch.nn import functional

from smoothout import _checks
from smoothout._types import Distribution, OneDimensional, Scale
from smoothout.intervals import standard_error
from smoothout.losses import Loss
from smoothout.objective import Objective
from smoothout.results.runs import Risk
from smoothout.results.sharpness import NoiseSharpness
from smoothout.risk import risks
from smoothout.samples import Batches, Samples
from smoothout.smoothing import SmoothOut
from smoothout.weights import Exclude, exclude_batch_norm

_MORE = 10  # pairs at a time after the first ones
_REMEDY = "Give the strength that the network was, or would be, trained with."


def noise(
    model: nn.Module,
    data: Batches | Samples,
    loss: Loss = functional.cross_entropy,
    *,
    strength: float,
    scale: Scale = "none",
    distribution: Distribution = "uniform",
    exclude: Exclude = exclude_batch_norm,
    one_dimensional: OneDimensional = "original",
    pairs: int = 20,
    max_pairs: int | None = None,
    tolerance: float = 0.05,
    absolute: float = 1e-4,
    seed: int = 0,
    process_group: Any = None,
) -> NoiseSharpness:
    r"""Mean rise of loss and error when the weights carry the noise of training: f_bar(theta) - f(theta).

    .. math:: E_u[f(\theta + u)] - f(\theta) \approx \frac{1}{n} \sum_k \tfrac{1}{2} [f(\theta + u_k) + f(\theta - u_k)]
              - f(\theta)

    with u_k the noise that :class:`smoothout.SmoothOut` of the same options draws at step 0, stream 0, draw k. A pair
    +u, -u cancels the slope, so what is left is curvature: for small noise of standard deviation s, (s^2 / 2) tr H over
    the weights that get noise; uniform noise of half-width a has s^2 = a^2 / 3. All samples see the same noise.

    Pairs are drawn until the standard error is at most max(``absolute``, ``tolerance`` * value), ``pairs`` at least
    and ``max_pairs`` at most; a value whose error is still larger carries a doubt. Equal seeds give equal draws for
    every strength and every model of the same architecture. The cost is two forward passes a pair.

    Args:
        model: Maps inputs to outputs.
        data: Pairs (inputs, targets).
        loss: See :mod:`smoothout.losses`.
        strength: a > 0, in units of the weights (scale "none") or relative to them.
        scale, distribution, exclude, one_dimensional: As for :class:`smoothout.SmoothOut`.
        pairs, max_pairs: Antithetic pairs, at least and at most; ten times as many at most if not given.
        tolerance: Of the standard error, relative to the value.
        absolute: Of the standard error, in units of the loss; ends a search where the loss hardly rises.
        seed: Of the draws.
        process_group: Processes that share the passes; see :class:`smoothout.objective.Objective`.

    Raises:
        ValueError: For a strength that is not above 0, fewer than 2 pairs, or a model without weights to perturb.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> inputs, targets = torch.randn(64, 3), torch.randint(0, 2, (64,))
        >>> found = noise(nn.Linear(3, 2), [(inputs, targets)], strength=0.1)
        >>> found.value > 0, found.standard_error < max(1e-4, 0.05 * found.value), found.doubts
        (True, True, ())

    Source: Wen et al. 2018 (arXiv 1805.07898), the smoothed loss of section 3; Jiang et al. 2019 (arXiv 1912.02178) on
    such averages as measures.
    """
    _checks.positive("strength", strength, _REMEDY)
    _checks.whole("pairs", pairs, at_least=2)
    max_pairs = 10 * pairs if max_pairs is None else _checks.whole("max_pairs", max_pairs, at_least=pairs)
    smoother = SmoothOut(
        model,
        strength,
        scale=scale,
        distribution=distribution,
        exclude=exclude,
        one_dimensional=one_dimensional,
        sync="shared",  # the same noise in whichever process measures
        seed=seed,
    )
    summary = smoother.summary()
    if summary.weights == 0:
        raise ValueError(f"no weight gets noise; expected some. The reasons:\n{summary}")
    with Objective(model, data, loss, process_group=process_group) as objective:
        clean, found = objective.center, _Rises()
        while not found.enough(pairs, max_pairs, tolerance, absolute):
            more = pairs if found.pairs == 0 else min(_MORE, max_pairs - found.pairs)
            points = [
                functools.partial(smoother.perturbed, 0, draw, antithetic=antithetic)
                for draw in range(found.pairs, found.pairs + more)
                for antithetic in (False, True)
            ]
            found.add(risks(model, objective.samples, points, loss), clean.loss, clean.error1)
        value, error = found.loss
        return NoiseSharpness(
            value=value,
            center=clean,
            doubts=found.doubts(tolerance, absolute),
            seconds=objective.seconds,
            seed=seed,
            standard_error=error,
            error1_rise=found.error1[0],
            error1_standard_error=found.error1[1],
            strength=strength,
            scale=scale,
            distribution=distribution,
            relative_noise=summary.relative_noise,
            pairs=found.pairs,
            perturbed=summary.weights,
        )


class _Rises:
    """Rises of loss and error, a value for each antithetic pair."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._errors: list[float] = []

    @property
    def pairs(self) -> int:
        return len(self._losses)

    @property
    def loss(self) -> tuple[float, float]:
        """Mean and standard error."""
        return math.fsum(self._losses) / self.pairs, standard_error(self._losses)

    @property
    def error1(self) -> tuple[float, float]:
        """The same of the share of wrong samples, in points."""
        return math.fsum(self._errors) / self.pairs, standard_error(self._errors)

    def add(self, found: list[Risk], loss: float, error1: float) -> None:
        """Take pairs in: neighbours in ``found``."""
        for ahead, behind in zip(found[::2], found[1::2], strict=True):
            self._losses.append((ahead.loss + behind.loss) / 2 - loss)
            self._errors.append((ahead.error1 + behind.error1) / 2 - error1)

    def missed(self, tolerance: float, absolute: float) -> bool:
        """Whether the standard error is too large, or no number."""
        value, error = self.loss
        return not error <= max(absolute, tolerance * abs(value))

    def enough(self, pairs: int, max_pairs: int, tolerance: float, absolute: float) -> bool:
        """Whether to stop; infinite losses do not become finite by more draws."""
        if self.pairs < pairs:
            return False
        return self.pairs >= max_pairs or not math.isfinite(self.loss[0]) or not self.missed(tolerance, absolute)

    def doubts(self, tolerance: float, absolute: float) -> tuple[str, ...]:
        """What to say of the value."""
        value, error = self.loss
        if not math.isfinite(value):
            return (f"the mean over {self.pairs} pairs is {value}: under some draws the loss is not finite",)
        if self.missed(tolerance, absolute):
            return (
                f"the standard error {error:.2g} after {self.pairs} pairs exceeds max({absolute:g}, {tolerance:g} * "
                f"value); allow more pairs",
            )
        if 2 * error >= abs(value):
            return (f"the value is not told apart from 0: its standard error after {self.pairs} pairs is {error:.2g}",)
        return ()
