"""What is measured for a landscape, in any order and by any process, and what is made of the numbers."""

import abc
import functools
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import nn

from smoothout.landscape.axes import Axes, BatchNormPolicy, Coordinates, Point
from smoothout.landscape.points import measure_points
from smoothout.losses import Loss
from smoothout.objective import spread, versions
from smoothout.ranks import sharing
from smoothout.results.landscape import Landscape, Mark
from smoothout.results.runs import Risk
from smoothout.samples import Batches, Samples

#: Called with the number of points that are measured, and of all.
Told = Callable[[int, int], object]
Record = TypeVar("Record", bound=Landscape)

_MISSING = Risk(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True, eq=False)
class Plan(abc.ABC, Generic[Record]):
    """The points of a landscape.

    Attributes:
        axes: What their coordinates count along.
        bn: Policy for running statistics.
    """

    axes: Axes
    bn: BatchNormPolicy

    @property
    @abc.abstractmethod
    def grid(self) -> Sequence[Coordinates]:
        """Coordinates asked for."""

    @functools.cached_property
    def own(self) -> tuple[Point, ...]:
        """The marks with their own running statistics."""
        return tuple(Point(coordinates, self.axes.exact) for coordinates in self.axes.marks.values())

    @functools.cached_property
    def points(self) -> tuple[Point, ...]:
        """All points to measure, each once: first :attr:`own`, then the marks under the policy, then the grid."""
        wanted = (*self.axes.marks.values(), *self.grid)
        return tuple(dict.fromkeys((*self.own, *(Point(coordinates, self.bn) for coordinates in wanted))))

    def check(self, risks: Sequence[Risk | None]) -> None:
        """Raise ``ValueError`` if the loss of the model itself is not finite; checkpoints may have any.

        Args:
            risks: Of the first points at least, None where it is not measured.
        """
        if "center" in self.axes.marks and risks and risks[0] is not None and not math.isfinite(risks[0].loss):
            raise ValueError(
                f"the loss at the weights themselves is {risks[0].loss}; expected a finite number to look around from. "
                f"Check the checkpoint and the data's normalisation, or take one from before it diverged."
            )

    def record(self, risks: Sequence[Risk | None], seconds: float) -> Record:
        """The record of the numbers measured so far.

        Args:
            risks: Of :attr:`points` in their order, None where one is not measured.
            seconds: That it took.

        Raises:
            ValueError: If the loss of the model itself is not finite.
        """
        self.check(risks)
        found = {point: risk for point, risk in zip(self.points, risks, strict=True) if risk is not None}
        marks = tuple(self._mark(name, at, found) for name, at in self.axes.marks.items())
        common = {
            "axes": self.axes.description,
            "lengths": self.axes.lengths,
            "bn": self.bn,
            "marks": marks,
            "samples": max((risk.samples for risk in found.values()), default=0),
            "weights": self.axes.weights,
            "seed": self.axes.seed,
            "seconds": seconds,
            "versions": versions(),
        }
        return self._record(found, self._doubts(found, marks), common)

    @abc.abstractmethod
    def _record(self, found: Mapping[Point, Risk], doubts: tuple[str, ...], common: dict[str, Any]) -> Record: ...

    def _at(self, coordinates: Coordinates, found: Mapping[Point, Risk]) -> tuple[Risk, bool]:
        """The numbers at coordinates under the policy, and whether they are measured."""
        risk = found.get(Point(coordinates, self.bn))
        return (_MISSING, False) if risk is None else (risk, True)

    def _mark(self, name: str, coordinates: Coordinates, found: Mapping[Point, Risk]) -> Mark:
        own = found.get(Point(coordinates, self.axes.exact), _MISSING)
        path, finished = self._at(coordinates, found)
        finished &= own is not _MISSING
        return Mark(name, coordinates, own.loss, own.error1, path.loss, path.error1, finished)

    def _doubts(self, found: Mapping[Point, Risk], marks: Sequence[Mark]) -> tuple[str, ...]:
        doubts = [
            f"with bn={self.bn!r} the loss at {mark.name} is {mark.path_loss:.6g}, but {mark.loss:.6g} with its own "
            f"running statistics"
            for mark in marks
            if mark.finished and not mark.on_path
        ]
        missing = len(self.points) - len(found)
        if missing:
            doubts.append(f"{missing} of {len(self.points)} points are not measured")
        wild = sum(not math.isfinite(risk.loss) for risk in found.values())
        if wild:
            doubts.append(f"the loss is not finite at {wild} of {len(found)} points")
        return (*doubts, *self.axes.doubts(self.grid, self.bn))


def measured(
    plan: Plan[Record],
    model: nn.Module,
    data: Batches | Samples,
    loss: Loss,
    statistics: Batches | Samples | None,
    told: Told,
    process_group: Any,
) -> Record:
    """Measure all points of a plan here and now; the marks first, so that what is wrong is told at once."""
    began = time.perf_counter()
    ranks = sharing(process_group)
    samples = spread(data, model, ranks)
    risks: list[Risk] = []
    done = itertools.count(1)

    def tell(_index: int, _risk: Risk) -> None:
        told(next(done), len(plan.points))

    for points in (plan.own, plan.points[len(plan.own) :]):
        risks += measure_points(
            model,
            samples,
            loss,
            axes=plan.axes,
            points=points,
            statistics=statistics,
            told=tell,
            process_group=process_group,
        )
        plan.check(risks)
    return plan.record(risks, time.perf_counter() - began)
