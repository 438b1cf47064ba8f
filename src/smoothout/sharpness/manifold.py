r"""Coordinates z of the points theta + A z: all weights, or a random manifold of few directions.

With R the p x n matrix of the manifold's directions and G = R R^T, A is R^T ("normal") or the pseudo-inverse
R^T G^-1 of R ("original"). Both need no more than R x, R^T y and G^-1 of R, which is made again from its seeds, a block
of columns at a time, where it does not fit in memory.
"""

from collections.abc import Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor

from smoothout.noise import draws
from smoothout.noise.draws import UNIFORM_DENOMINATOR, NoiseKey
from smoothout.objective import Objective, Vector
from smoothout.samples import free_bytes

Columns = Literal["normal", "original"]

_BLOCK_ELEMENTS = 1 << 24
_BLOCK_COLUMNS = 1 << 20  # of a row at a time: a draw takes some 100 bytes while it is made


class Coordinates(Protocol):
    """What a search moves in."""

    def bounds(self, epsilon: float) -> list[Tensor]:
        """Half the widths of the box, epsilon (|(A+ x)_i| + 1)."""

    def offsets(self, z: Vector) -> Vector:
        """A z, as tensors of the weights' shapes."""

    def pulled(self, slope: Vector) -> Vector:
        """A^T slope: the gradient with respect to z."""

    def shaped(self, flat: Tensor) -> list[Tensor]:
        """z from one row of all its elements."""


class AllWeights:
    """A = I."""

    def __init__(self, objective: Objective) -> None:
        self._parameters = objective.parameters
        self.shaped = objective.shaped

    def bounds(self, epsilon: float) -> list[Tensor]:
        """Epsilon (|x_i| + 1)."""
        return [epsilon * (parameter.detach().abs() + 1) for parameter in self._parameters]

    def offsets(self, z: Vector) -> Vector:
        """Z itself."""
        return z

    def pulled(self, slope: Vector) -> Vector:
        """The slope itself."""
        return slope


class Manifold:
    """p random directions through the weights.

    Args:
        objective: Whose weights.
        directions: p.
        columns: "normal": A has N(0, 1) entries; "original": A is the pseudo-inverse of rows of uniform (0, 1) entries
            that are scaled to length 1.
        seed, draw: Element (r, i) of R is drawn by NoiseKey(seed, 0, stream=draw, draw=r).
        room: Bytes that R may take; by default half of what is free.
    """

    def __init__(
        self,
        objective: Objective,
        directions: int,
        columns: Columns = "normal",
        *,
        seed: int = 0,
        draw: int = 0,
        room: int | None = None,
    ) -> None:
        self._objective, self._columns, self._seed, self._draw = objective, columns, seed, draw
        self._rows = directions
        self._device = objective.parameters[0].device
        wide = any(parameter.dtype == torch.float64 for parameter in objective.parameters)
        self._dtype = torch.float64 if wide else torch.float32
        size = directions * objective.dimension * self._dtype.itemsize
        fits = size <= (free_bytes(self._device) // 2 if room is None else room)
        self._kept = list(self._drawn()) if fits else None
        self._measure()

    def bounds(self, epsilon: float) -> list[Tensor]:
        """Epsilon (|(A+ x)_i| + 1), float64."""
        return [epsilon * (self._here.abs() + 1)]

    def offsets(self, z: Vector) -> list[Tensor]:
        """A z: R^T z, or R^T G^-1 z."""
        [coefficients] = z
        if self._columns == "original":
            coefficients = self._solved(coefficients)
        coefficients = (coefficients * self._lengths).to(self._device, self._dtype)
        flat = torch.cat([block.T @ coefficients for block in self._blocks()])
        return self._objective.shaped(flat)

    def pulled(self, slope: Vector) -> list[Tensor]:
        """A^T slope: R slope, or G^-1 R slope."""
        product = self._along(slope)
        return [self._solved(product) if self._columns == "original" else product]

    def shaped(self, flat: Tensor) -> list[Tensor]:
        """The only tensor of z."""
        return [flat]

    def _measure(self) -> None:
        """G, factored, and A+ x, in one pass over R."""
        flat = self._flat([parameter.detach() for parameter in self._objective.parameters])
        gram = torch.zeros(self._rows, self._rows, dtype=torch.float64)
        product = torch.zeros(self._rows, dtype=torch.float64)
        start = 0
        for block in self._blocks():
            gram += (block @ block.T).double().cpu()
            product += (block @ flat[start : start + block.shape[1]]).double().cpu()
            start += block.shape[1]
        original = self._columns == "original"
        self._lengths = gram.diagonal().rsqrt() if original else torch.ones(self._rows, dtype=torch.float64)
        self._factor = torch.linalg.cholesky(gram * self._lengths[:, None] * self._lengths)
        product *= self._lengths
        self._here = product if original else self._solved(product)

    def _along(self, vector: Vector) -> Tensor:
        """R vector, float64 on the CPU."""
        flat, start = self._flat(vector), 0
        product = torch.zeros(self._rows, dtype=torch.float64)
        for block in self._blocks():
            product += (block @ flat[start : start + block.shape[1]]).double().cpu()
            start += block.shape[1]
        return product * self._lengths

    def _solved(self, product: Tensor) -> Tensor:
        """G^-1 product."""
        return torch.cholesky_solve(product[:, None], self._factor)[:, 0]

    def _flat(self, vector: Vector) -> Tensor:
        return torch.cat([part.reshape(-1).to(self._device, self._dtype) for part in vector])

    def _blocks(self) -> Iterator[Tensor]:
        """R before its rows are scaled, as blocks (p, c) of columns, in the order of the weights' elements."""
        return iter(self._kept) if self._kept is not None else self._drawn()

    def _drawn(self) -> Iterator[Tensor]:
        for ordinals, sizes, first in self._places():
            block = torch.empty(self._rows, sum(sizes), dtype=self._dtype, device=self._device)
            for row in range(self._rows):
                key = NoiseKey(self._seed, 0, stream=self._draw, draw=row)
                if self._columns == "normal":
                    drawn = draws.normal(key, ordinals, sizes, self._device, first=first)
                else:
                    drawn = draws.uniform_integers(key, ordinals, sizes, self._device, first=first)
                block[row] = torch.cat(drawn)
            if self._columns == "original":
                block.add_(UNIFORM_DENOMINATOR).div_(2 * UNIFORM_DENOMINATOR)
            yield block

    def _places(self) -> Iterator[tuple[list[int], list[int], int]]:
        """Ordinals, sizes and first element of what makes up a block: several whole weights or a part of one."""
        widest = max(8, min(_BLOCK_COLUMNS, _BLOCK_ELEMENTS // self._rows) // 8 * 8)
        ordinals: list[int] = []
        sizes: list[int] = []
        for weight in self._objective.weights:
            size = weight.parameter.numel()
            if sizes and sum(sizes) + size > widest:
                yield ordinals, sizes, 0
                ordinals, sizes = [], []
            if size > widest:
                for first in range(0, size, widest):
                    yield [weight.ordinal], [min(widest, size - first)], first
            elif size:
                ordinals, sizes = [*ordinals, weight.ordinal], [*sizes, size]
        if sizes:
            yield ordinals, sizes, 0
