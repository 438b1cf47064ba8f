"""Loss and errors at points of a line or a plane, in any order."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from smoothout.landscape.axes import Axes, Mover, Point, refuse_what_does_not_fit
from smoothout.losses import Loss
from smoothout.objective import refuse_batch_statistics, spread
from smoothout.ranks import sharing
from smoothout.results.runs import Risk
from smoothout.risk import Point as At
from smoothout.risk import device_of, risks
from smoothout.running_stats import recompute_running_stats
from smoothout.samples import Batches, Samples
from smoothout.weights import kept


@torch.no_grad()
def measure_points(
    model: nn.Module,
    data: Batches | Samples,
    loss: Loss = functional.cross_entropy,
    *,
    axes: Axes,
    points: Sequence[Point],
    statistics: Batches | Samples | None = None,
    told: Callable[[int, Risk], object] = lambda _index, _risk: None,
    process_group: Any = None,
) -> list[Risk]:
    """The mean loss and the errors at each point, in evaluation mode.

    A point's numbers depend on nothing but the model, the data, the axes and the point: not on the other points, their
    order, or the process. NaN and infinite losses are numbers like others. The model comes back bit for bit, whatever
    happens.

    Data that do not fit in memory are read once for all points, or once for each with "recompute", which also takes a
    pass over ``statistics`` for each point.

    Args:
        model: Maps inputs to outputs. Displacements start from its weights; checkpoints replace them.
        data: Pairs (inputs, targets); see :class:`smoothout.samples.Samples`.
        loss: See :mod:`smoothout.losses`.
        axes: What the coordinates count along.
        points: Where to measure.
        statistics: What "recompute" takes running statistics over; the data if not given.
        told: Called with a point's index and numbers as soon as they are known.
        process_group: As for :func:`smoothout.landscape.line`.

    Raises:
        ValueError: If there are no samples, the axes are not for this model, or do not fit in memory.
    """
    device = device_of(model)
    ranks = sharing(process_group)
    with ranks.together(device):
        refuse_what_does_not_fit(f"the {axes.description}", axes.room(device), device, "Free some memory.")
        for point in points:
            axes.check(point)
    with contextlib.ExitStack() as stack:
        stack.enter_context(kept(model))
        refuse_batch_statistics(model)
        samples = spread(data, model, ranks)
        with ranks.together(device):
            mover = axes.mover(model)
        found: dict[int, Risk] = {}
        for indices in _together(points, samples):
            contexts: list[At] = [functools.partial(_moved, mover, points[index]) for index in indices]
            if points[indices[0]].bn == "recompute":
                with ranks.together(device):
                    _moved(mover, points[indices[0]])
                    recompute_running_stats(model, samples if statistics is None else statistics)
                contexts = [contextlib.nullcontext]
            for index, risk in zip(indices, risks(model, samples, contexts, loss), strict=True):
                found[index] = risk
                told(index, risk)
        return [found[index] for index in range(len(points))]


def _together(points: Sequence[Point], samples: Samples) -> list[list[int]]:
    """Indices of points that are measured in one pass over the data: more than one if reading them costs time."""
    resident = all(samples.ranks.all(samples.resident))  # memory may differ
    alone = [resident or point.bn == "recompute" for point in points]
    rest = [index for index, single in enumerate(alone) if not single]
    return [[index] for index, single in enumerate(alone) if single] + ([rest] if rest else [])


def _moved(mover: Mover, point: Point) -> contextlib.AbstractContextManager[object]:
    mover(point)
    torch.clear_autocast_cache()  # it holds copies of weights in half precision
    return contextlib.nullcontext()
