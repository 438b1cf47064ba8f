"""What a line or a plane in weight space is spanned by, and the points on it."""

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from smoothout import _checks
from smoothout.samples import free_bytes

#: What BatchNorm's running statistics are at a point: those that the line starts from, combined as the weights are, or
#: taken anew there.
BatchNormPolicy = Literal["keep", "interpolate", "recompute"]
Coordinates = tuple[float, ...]


class Point(NamedTuple):
    """All that a process needs to measure a point, given the axes.

    Attributes:
        coordinates: One for each axis.
        bn: Policy for running statistics.
    """

    coordinates: Coordinates
    bn: BatchNormPolicy


class Mover(Protocol):
    """Puts its model at a point, from wherever the model is, and restores nothing. Call it under ``no_grad``."""

    def __call__(self, point: Point) -> None: ...


@dataclass(frozen=True, eq=False)
class Axes(abc.ABC):
    """One or two axes. Either :class:`Displacements` or :class:`Combinations`.

    Attributes:
        description: In words.
        seed: Of what is random in them; None if nothing is.
        lengths: Euclidean distance that a coordinate of 1 stands for, on each axis.
        marks: Points that are known: names and coordinates.
        weights: Number of weights that vary.
    """

    description: str
    seed: int | None
    lengths: tuple[float, ...]
    marks: Mapping[str, Coordinates]
    weights: int

    @property
    def dimensions(self) -> int:
        """1 for a line, 2 for a plane."""
        return len(self.lengths)

    @property
    @abc.abstractmethod
    def exact(self) -> BatchNormPolicy:
        """The policy under which the model at a mark is, bit for bit, what the mark stands for; the default one."""

    @property
    @abc.abstractmethod
    def extent(self) -> tuple[tuple[float, float], ...]:
        """The default range of each coordinate."""

    @abc.abstractmethod
    def doubts(self, coordinates: Sequence[Coordinates], bn: BatchNormPolicy) -> tuple[str, ...]:
        """What to know before believing a picture with points at these coordinates."""

    @abc.abstractmethod
    def room(self, device: torch.device) -> int:
        """Bytes that :meth:`mover` needs on a device, besides the model and the axes."""

    @abc.abstractmethod
    def mover(self, model: nn.Module) -> Mover:
        """What puts a model at points; call it inside :func:`smoothout.weights.kept`.

        Raises:
            ValueError: If the model is not of the axes' architecture.
        """

    def policy(self, bn: BatchNormPolicy | None) -> BatchNormPolicy:
        """The policy asked for, or the default.

        Raises:
            ValueError: For an unknown one, or one that these axes do not have.
        """
        if bn is None:
            return self.exact
        _checks.one_of("bn", bn, BatchNormPolicy)
        return bn

    def check(self, point: Point) -> None:
        """Raise ``ValueError`` unless these axes have such a point."""
        self.policy(point.bn)
        if len(point.coordinates) != self.dimensions or not all(map(math.isfinite, point.coordinates)):
            raise ValueError(
                f"a point is {point.coordinates} on a {self.description}; expected {self.dimensions} finite "
                f"coordinates. Use line(...) with one axis and plane(...) with two."
            )


def running_statistics(model: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Buffers of all BatchNorm layers: the variances, and the others."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    variances = [norm.running_var for norm in norms if norm.running_var is not None]
    others = [each for norm in norms for each in (norm.running_mean, norm.num_batches_tracked) if each is not None]
    return variances, others


def refuse_what_does_not_fit(what: str, needed: int, device: torch.device, remedy: str) -> None:
    """Raise ``ValueError`` if a device has not so many bytes free."""
    free = free_bytes(device)
    if needed > free:
        raise ValueError(
            f"{what} needs {needed:,} bytes on {device}, where {free:,} are free; expected it to fit. {remedy}"
        )
