"""The loss along a line."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from torch import nn
from torch.nn import functional

from smoothout import _checks
from smoothout.landscape.axes import Axes, BatchNormPolicy, Coordinates, Point
from smoothout.landscape.combinations import Combinations
from smoothout.landscape.grid import alphas as grid_of
from smoothout.landscape.grid import rising, sinusoidal
from smoothout.landscape.plan import Plan, Told, measured
from smoothout.losses import Loss
from smoothout.results.landscape import Line, Mark
from smoothout.results.runs import Risk
from smoothout.samples import Batches, Samples

Mode = Literal["linear", "sin"]

_BETWEEN, _AROUND, _SINE = "-1:0.1:2.01", "-1:0.04:1.01", "0:0.05:1.01"
_GAP = 0.2  # between neighbours; a maximum between wider ones is a guess


def line(
    model: nn.Module,
    data: Batches | Samples,
    loss: Loss = functional.cross_entropy,
    *,
    axes: Axes,
    alphas: Sequence[float] | None = None,
    bn: BatchNormPolicy | None = None,
    mode: Mode = "linear",
    statistics: Batches | Samples | None = None,
    told: Told = lambda _done, _total: None,
    process_group: Any = None,
) -> Line:
    r"""Loss and errors along a line, in evaluation mode.

    .. math:: f(\theta_0 + \alpha d) \quad\text{or}\quad f((1 - \alpha) A + \alpha B)

    The model comes back bit for bit. Known points, which are the model's own weights or the two checkpoints, are
    measured first, whether the range holds them or not. At a checkpoint the whole state is copied and compared, so that
    under "interpolate" the ends are the checkpoints' own losses. Under another policy they are in general not; then the
    own ones are measured as well, and the record says how far apart they are.

    BatchNorm between two checkpoints shows barriers that new running statistics would lower ("recompute"): combined
    statistics are not those of the combined weights. Where alpha is outside [0, 1], a combined variance below 0 counts
    as 0.

    The cost is a forward pass for each point, another one with "recompute".

    Args:
        model: Maps inputs to outputs.
        data: Pairs (inputs, targets).
        loss: See :mod:`smoothout.losses`.
        axes: From :func:`direction`, :func:`between` or :func:`hessian_axes`.
        alphas: Rising. By default 31 from -1 to 2 between checkpoints and 51 from -1 to 1 along a direction; in mode
            "sin" 21 from 0 to 1.
        bn: Running statistics at a point. "keep": the model's own along a direction, those of A between checkpoints;
            "interpolate": combined with the same factors as the weights, the default between checkpoints and refused
            elsewhere; "recompute": taken over ``statistics`` at each point.
        mode: "linear", or "sin": measured at (1 - cos(pi alpha)) / 2, alpha in [0, 1].
        statistics: What "recompute" takes them over; the data if not given.
        told: Called with the numbers of measured points and of all.
        process_group: Processes that share each pass over the data; see :class:`smoothout.objective.Objective`. All
            get the bits of one alone. With "recompute" each takes the statistics over all samples.

    Raises:
        ValueError: For alphas that do not rise, a policy that the axes do not have, another architecture, and a loss at
            the model's own weights that is not finite.

    Example:
        >>> import torch
        >>> from smoothout.landscape import between
        >>> _ = torch.manual_seed(0)
        >>> a, b = nn.Linear(3, 2), nn.Linear(3, 2)
        >>> found = line(a, [(torch.randn(64, 3), torch.randint(0, 2, (64,)))], axes=between(a, b))
        >>> len(found.losses), [mark.name for mark in found.marks], found.barrier, found.doubts
        (31, ['A', 'B'], 0.0, ())

    Source: Goodfellow et al. 2015 (arXiv 1412.6544) between checkpoints; Li et al. 2018 (arXiv 1712.09913) along a
    direction; the barrier of Entezari et al. 2021 (arXiv 2110.06296), on the points that are measured.
    """
    return measured(plan_line(axes, alphas, bn, mode), model, data, loss, statistics, told, process_group)


def plan_line(
    axes: Axes, alphas: Sequence[float] | None = None, bn: BatchNormPolicy | None = None, mode: Mode = "linear"
) -> "LinePlan":
    """The points of a line, for :func:`measure_points`; arguments as for :func:`line`."""
    _checks.one_of("mode", mode, Mode)
    if axes.dimensions != 1:
        raise ValueError(f"axes is a {axes.description}; expected one axis for a line. Call plane(...) with it.")
    if alphas is None:
        alphas = grid_of(_SINE if mode == "sin" else _BETWEEN if isinstance(axes, Combinations) else _AROUND)
    given = rising("alphas", alphas)
    return LinePlan(axes, axes.policy(bn), given, sinusoidal(given) if mode == "sin" else given, mode)


@dataclass(frozen=True, eq=False)
class LinePlan(Plan[Line]):
    """The points of a line.

    Attributes:
        alphas: Asked for.
        positions: Their coordinates.
        mode: What makes one of the other.
    """

    alphas: tuple[float, ...]
    positions: tuple[float, ...]
    mode: Mode

    @property
    def grid(self) -> list[Coordinates]:
        """A coordinate each."""
        return [(position,) for position in self.positions]

    def _record(self, found: Mapping[Point, Risk], doubts: tuple[str, ...], common: dict[str, Any]) -> Line:
        risks = [self._at(coordinates, found) for coordinates in self.grid]
        known = {at: risk.loss for at, (risk, done) in zip(self.positions, risks, strict=True) if done}
        barrier, gap = _barrier(known, common["marks"])
        if gap > _GAP and not math.isnan(barrier):
            doubts = (*doubts, f"the barrier may be higher: neighbouring points are up to {gap:.2g} apart")
        return Line(
            **common,
            doubts=doubts,
            alphas=self.alphas,
            positions=self.positions,
            losses=tuple(risk.loss for risk, _ in risks),
            errors1=tuple(risk.error1 for risk, _ in risks),
            finished=tuple(done for _, done in risks),
            mode=self.mode,
            barrier=barrier,
        )


def _barrier(losses: Mapping[float, float], marks: Sequence[Mark]) -> tuple[float, float]:
    """The largest f(alpha) - (1 - alpha) f(0) - alpha f(1) on [0, 1], and the widest gap between points there."""
    if len(marks) != 2 or not all(mark.finished for mark in marks):
        return math.nan, 0.0
    start, end = (mark.path_loss for mark in marks)
    inside = {at: loss for at, loss in sorted(losses.items()) if 0 < at < 1}
    rises = [0.0, *(loss - (1 - at) * start - at * end for at, loss in inside.items())]
    gap = max(after - before for before, after in pairwise((0.0, *inside, 1.0)))
    return (math.nan if any(map(math.isnan, rises)) else max(rises)), gap
