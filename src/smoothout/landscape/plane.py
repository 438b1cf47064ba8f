"""The loss over a plane."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from smoothout.landscape.axes import Axes, BatchNormPolicy, Coordinates, Point, refuse_what_does_not_fit
from smoothout.landscape.grid import evenly, rising
from smoothout.landscape.plan import Plan, Told, measured
from smoothout.losses import Loss
from smoothout.results.landscape import Plane
from smoothout.results.runs import Risk
from smoothout.samples import Batches, Samples

_DRAFT = 21  # points along an axis
_POINT_BYTES = 500  # of a point and its numbers, about


def plane(
    model: nn.Module,
    data: Batches | Samples,
    loss: Loss = functional.cross_entropy,
    *,
    axes: Axes,
    xs: Sequence[float] | None = None,
    ys: Sequence[float] | None = None,
    bn: BatchNormPolicy | None = None,
    statistics: Batches | Samples | None = None,
    told: Told = lambda _done, _total: None,
    process_group: Any = None,
) -> Plane:
    r"""Loss and errors on a grid of a plane, in evaluation mode.

    .. math:: Z_{iy, ix} = f(\theta_0 + x_{ix} d_1 + y_{iy} d_2)

    or f at these coordinates of the plane through three checkpoints. Otherwise as :func:`smoothout.landscape.line`.

    Args:
        model, data, loss, bn, statistics, told, process_group: As there.
        axes: From :func:`span`, :func:`through` or :func:`hessian_axes`.
        xs, ys: Coordinates along the first and the second axis, rising. By default 21 each: from -1 to 1, or around
            three checkpoints with a quarter more on each side. 21 x 21 is a draft, 51 x 51 a picture.

    Raises:
        ValueError: As there; also for a grid whose points do not fit in memory.

    Example:
        >>> from smoothout.landscape import direction, span
        >>> _ = torch.manual_seed(0)
        >>> model, data = nn.Linear(3, 2), [(torch.randn(64, 3), torch.randint(0, 2, (64,)))]
        >>> first = direction(model)
        >>> axes = span(first, direction(model, orthogonal_to=first))
        >>> found = plane(model, data, axes=axes, xs=(-1, 0, 1), ys=(0, 0.5))
        >>> len(found.losses), len(found.losses[0]), found.losses[0][1] == found.marks[0].loss
        (2, 3, True)

    Source: Li et al. 2018 (arXiv 1712.09913), section 4.
    """
    return measured(plan_plane(axes, xs, ys, bn), model, data, loss, statistics, told, process_group)


def plan_plane(
    axes: Axes, xs: Sequence[float] | None = None, ys: Sequence[float] | None = None, bn: BatchNormPolicy | None = None
) -> "PlanePlan":
    """The points of a plane, for :func:`measure_points`; arguments as for :func:`plane`."""
    if axes.dimensions != 2:
        raise ValueError(
            f"axes is a {axes.description}; expected two axes for a plane. Call span(first, second) with another "
            f"direction, or line(...)."
        )
    columns, rows = (
        rising(name, evenly(_DRAFT, *extent) if given is None else given)
        for name, given, extent in zip(("xs", "ys"), (xs, ys), axes.extent, strict=True)
    )
    what = f"a plane of {len(columns)} x {len(rows)} points"
    refuse_what_does_not_fit(what, _POINT_BYTES * len(columns) * len(rows), torch.device("cpu"), "Take fewer points.")
    return PlanePlan(axes, axes.policy(bn), columns, rows)


@dataclass(frozen=True, eq=False)
class PlanePlan(Plan[Plane]):
    """The points of a plane, row by row.

    Attributes:
        xs, ys: Coordinates of the columns and the rows.
    """

    xs: tuple[float, ...]
    ys: tuple[float, ...]

    @property
    def grid(self) -> list[Coordinates]:
        """Pairs (x, y), x the faster."""
        return [(x, y) for y, x in itertools.product(self.ys, self.xs)]

    def _record(self, found: Mapping[Point, Risk], doubts: tuple[str, ...], common: dict[str, Any]) -> Plane:
        rows = [[self._at((x, y), found) for x in self.xs] for y in self.ys]
        return Plane(
            **common,
            doubts=doubts,
            xs=self.xs,
            ys=self.ys,
            losses=tuple(tuple(risk.loss for risk, _ in row) for row in rows),
            errors1=tuple(tuple(risk.error1 for risk, _ in row) for row in rows),
            finished=tuple(tuple(done for _, done in row) for row in rows),
        )
