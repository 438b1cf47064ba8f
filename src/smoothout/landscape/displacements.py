"""Axes that lead away from the model's own weights."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from smoothout.landscape.axes import Axes, BatchNormPolicy, Coordinates, Mover, Point, running_statistics
from smoothout.weights import Snapshot, all_weights

#: A tensor for each weight that varies.
Vector = tuple[Tensor, ...]

_SKEWED = 1e-6


@dataclass(frozen=True, eq=False)
class Displacements(Axes):
    """theta = theta_0 + sum_j c_j d_j: parameters with requires_grad move, buffers do not.

    Attributes:
        names: Of the weights, as ``named_parameters()`` gives them.
        vectors: d_j, a vector for each axis.
    """

    names: tuple[str, ...]
    vectors: tuple[Vector, ...]

    @classmethod
    def of(cls, names: tuple[str, ...], vectors: tuple[Vector, ...], description: str, seed: int | None) -> Self:
        """From the vectors."""
        return cls(
            description=description,
            seed=seed,
            lengths=tuple(_dot(vector, vector) ** 0.5 for vector in vectors),
            marks={"center": (0.0,) * len(vectors)},
            weights=sum(part.numel() for part in vectors[0]),
            names=names,
            vectors=vectors,
        )

    @property
    def exact(self) -> BatchNormPolicy:
        """The statistics that the model has."""
        return "keep"

    @property
    def extent(self) -> tuple[tuple[float, float], ...]:
        """[-1, 1]."""
        return ((-1.0, 1.0),) * self.dimensions

    def doubts(self, coordinates: Sequence[Coordinates], bn: BatchNormPolicy) -> tuple[str, ...]:  # noqa: ARG002
        """Axes at another angle than the picture's."""
        if self.dimensions == 1:
            return ()
        cosine = _dot(*self.vectors) / (self.lengths[0] * self.lengths[1])
        skewed = f"the axes are not orthogonal, cosine {cosine:.2g}: distances are not as they look"
        return (skewed,) if abs(cosine) > _SKEWED else ()

    def policy(self, bn: BatchNormPolicy | None) -> BatchNormPolicy:
        """The running statistics stay, or are taken anew; there are none to combine."""
        if bn == "interpolate":
            raise ValueError(
                f"bn is 'interpolate' on a {self.description}; expected 'keep' or 'recompute': there is one set of "
                f"running statistics, none to combine it with, and buffers are not moved along a direction. Choose "
                f"one, or take axes from between(...) or through(...)."
            )
        return super().policy(bn)

    def room(self, device: torch.device) -> int:
        """A copy of the weights; the vectors, too, if they are elsewhere."""
        sizes = [sum(part.nbytes for part in vector) for vector in self.vectors]
        return sizes[0] + (0 if self.vectors[0][0].device == device else sum(sizes))

    def mover(self, model: nn.Module) -> Mover:
        """Adds the displacements to the weights that the model has now."""
        found = {weight.name: weight.parameter for weight in all_weights(model) if weight.parameter.requires_grad}
        shapes = {name: tuple(parameter.shape) for name, parameter in found.items()}
        mine = {name: tuple(part.shape) for name, part in zip(self.names, self.vectors[0], strict=True)}
        if shapes != mine:
            first = next(name for name in {**mine, **shapes} if mine.get(name) != shapes.get(name))
            raise ValueError(
                f"the axes are for other weights: {first} is {mine.get(first, 'missing')} in them and "
                f"{shapes.get(first, 'missing')} among the model's parameters with requires_grad; expected the same. "
                f"Make the axes from this model."
            )
        return _Displaced(model, [found[name] for name in self.names], self)

    @functools.cached_property
    def moving(self) -> tuple[int, ...]:
        """Indices of the weights that move at all."""
        columns = zip(*self.vectors, strict=True)
        return tuple(index for index, parts in enumerate(columns) if any(bool(part.any()) for part in parts))


class _Displaced:
    """Writes theta_0 + sum_j c_j d_j."""

    def __init__(self, model: nn.Module, parameters: list[nn.Parameter], axes: Displacements) -> None:
        self._home, self._statistics = Snapshot(), Snapshot()
        self._home.take(parameters)
        variances, others = running_statistics(model)
        self._statistics.take([*variances, *others])
        self._moving: list[Tensor] = [parameters[index] for index in axes.moving]
        self._vectors = [[v[index].to(parameters[index].device) for index in axes.moving] for v in axes.vectors]

    def __call__(self, point: Point) -> None:
        self._home.restore()
        self._statistics.restore()  # an earlier point may have taken them anew
        for vector, coordinate in zip(self._vectors, point.coordinates, strict=True):
            if coordinate:
                torch._foreach_add_(self._moving, vector, alpha=coordinate)


def span(first: Displacements, second: Displacements) -> Displacements:
    """The plane through the model's weights along two directions.

    Args:
        first, second: A single axis each; a random second one made with ``orthogonal_to=first``.

    Raises:
        ValueError: If they are for different weights, or not single axes.

    Example:
        >>> from smoothout.landscape import direction
        >>> model = nn.Linear(3, 2)
        >>> first = direction(model)
        >>> span(first, direction(model, orthogonal_to=first)).dimensions
        2
    """
    if first.dimensions != 1 or second.dimensions != 1:
        raise ValueError(
            f"a plane is to be spanned by {first.dimensions} and {second.dimensions} axes; expected one and one. Pass "
            f"axes that are planes already to plane(...) as they are."
        )
    if first.names != second.names or any(
        a.shape != b.shape for a, b in zip(first.vectors[0], second.vectors[0], strict=True)
    ):
        raise ValueError(
            "two directions are for different weights; expected directions of one model. Make both from the same "
            "model, with the same parameters frozen."
        )
    description = f"plane along a {first.description} and a {second.description}"
    return Displacements.of(first.names, (*first.vectors, *second.vectors), description, first.seed)


def _dot(a: Vector, b: Vector) -> float:
    return float(sum((x.double() * y.double()).sum() for x, y in zip(a, b, strict=True)))
