"""Lines, planes and Hessians against bare loops and other packages, interleaved in one run.

    make bench-landscape

An MLP 784-512x5-10 with BatchNorm (1.46 M weights), 10 000 synthetic samples, batches of 1000, one thread; Hessians on
the first 2000 samples. Prints medians of ratios of neighbouring runs and writes benchmarks/results/landscape.json.
Needs the packages of the extra `bench`: loss-landscapes and PyHessian, and curvlinops.
"""

import contextlib
import io
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothout import landscape
from smoothout.objective import Objective
from smoothout.sharpness.hessian import eigenvectors
from smoothout.train import workers

RESULTS = Path(__file__).parent / "results" / "landscape.json"
REPEATS = 3
LINE, PLANE = 41, 7  # points of the line; of each side of the plane
SAMPLES, BATCH, HESSIAN_SAMPLES = 10_000, 1000, 2000
Batch = tuple[Tensor, Tensor]


def network() -> nn.Module:
    """The MLP, in evaluation mode, with running statistics of its data."""
    torch.manual_seed(0)
    sizes = [784, *([512] * 5)]
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 10)).eval()


def batches(samples: int = SAMPLES) -> list[Batch]:
    """Synthetic samples of ten classes, each around a centre of its own."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(10, 784, generator=generator)
    targets = torch.randint(0, 10, (SAMPLES,), generator=generator)
    inputs = centres[targets] / 4 + torch.randn(SAMPLES, 784, generator=generator)
    return list(zip(inputs[:samples].split(BATCH), targets[:samples].split(BATCH), strict=True))


def trained() -> tuple[nn.Module, list[Batch]]:
    """The network after one pass of SGD, so that its Hessian is that of a network that has learned something."""
    model, data = network().train(), batches()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for inputs, targets in data:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model.eval(), data


# -- lines and planes ---------------------------------------------------------------------------------------------


def directions(model: nn.Module, count: int) -> list[list[Tensor]]:
    """Plain random directions, for the bare loop."""
    generator = torch.Generator().manual_seed(2)
    return [[torch.randn(p.shape, generator=generator) * 0.01 for p in model.parameters()] for _ in range(count)]


@torch.no_grad()
def bare(model: nn.Module, data: list[Batch], points: list[tuple[float, ...]]) -> list[float]:
    """What anyone would write: set the weights, sum the losses."""
    parameters = list(model.parameters())
    start = [p.clone() for p in parameters]
    along = directions(model, len(points[0]))
    found = []
    for point in points:
        for index, parameter in enumerate(parameters):
            parameter.copy_(start[index])
            for coordinate, direction in zip(point, along, strict=True):
                parameter.add_(direction[index], alpha=coordinate)
        total = 0.0
        for inputs, targets in data:
            total += functional.cross_entropy(model(inputs), targets, reduction="sum").item()
        found.append(total / SAMPLES)
    for parameter, value in zip(parameters, start, strict=True):
        parameter.copy_(value)
    return found


def ours_line(model: nn.Module, data: list[Batch]) -> None:
    """A line of ours."""
    landscape.line(model, data, axes=landscape.direction(model), alphas=line_points())


def ours_plane(model: nn.Module, data: list[Batch]) -> None:
    """A plane of ours."""
    first = landscape.direction(model)
    axes = landscape.Axes.of(first, landscape.direction(model, seed=1, orthogonal_to=first))
    landscape.plane(model, data, axes=axes, xs=side(), ys=side())


def line_points() -> tuple[float, ...]:
    """The alphas."""
    return tuple((index - LINE // 2) / (LINE // 2) for index in range(LINE))


def side() -> tuple[float, ...]:
    """The coordinates of a side of the plane."""
    return tuple((index - PLANE // 2) / (PLANE // 2) for index in range(PLANE))


def theirs(model: nn.Module, data: list[Batch], plane: bool) -> None:
    """loss-landscapes, with a metric that sums over the same batches."""
    import loss_landscapes
    from loss_landscapes.metrics.metric import Metric

    class MeanLoss(Metric):
        def __call__(self, wrapper: Any) -> float:
            with torch.no_grad():
                total = sum(
                    functional.cross_entropy(wrapper.forward(inputs), targets, reduction="sum").item()
                    for inputs, targets in data
                )
            return total / SAMPLES

    if plane:
        loss_landscapes.random_plane(model, MeanLoss(), steps=PLANE, normalization="filter", deepcopy_model=True)
    else:
        loss_landscapes.random_line(model, MeanLoss(), steps=LINE, normalization="filter", deepcopy_model=True)


def seconds(work: Callable[[], object]) -> float:
    """Wall time."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(arms: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, list[float]]:
    """Seconds of every arm, one after the other, several times."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(repeats):
        for name, work in arms.items():
            times[name].append(seconds(work))
    return times


def ratio(times: dict[str, list[float]], one: str, other: str) -> float:
    """Median of the ratios of neighbouring runs."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))
