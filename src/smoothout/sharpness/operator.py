"""The Hessian as a map of flat vectors, and seeded vectors to put into it."""

import torch
from torch import Tensor

from smoothout.noise import draws
from smoothout.noise.draws import NoiseKey
from smoothout.objective import Objective, Vector
from smoothout.samples import free_bytes

_STARTS, _PROBES = 0, 1  # streams of draws


class Operator:
    """v -> H v, H the Hessian of an objective at theta_0, v all weights one after the other.

    Vectors live on the device of the first weight, in float32, or in float64 if any weight has it.

    Args:
        objective: Entered.
        seed: Of the draws; which do not depend on the device.

    Attributes:
        size: n, the number of weights.
        made: Products so far.
    """

    def __init__(self, objective: Objective, seed: int) -> None:
        self._objective, self._seed = objective, seed
        self.size = objective.dimension
        self.device = objective.parameters[0].device
        self.dtype = torch.float32
        for parameter in objective.parameters:
            self.dtype = torch.promote_types(self.dtype, parameter.dtype)
        self.made = 0

    def __call__(self, vector: Tensor) -> Tensor:
        """H v.

        Raises:
            ValueError: If it is not finite.
        """
        self.made += 1
        product = self._flat(self._objective.hessian_product(self._objective.shaped(vector)))
        if not bool(product.isfinite().all()):
            raise ValueError(
                "a product with the Hessian at the weights themselves is not finite; expected finite numbers. Look for "
                "a root, a power or a norm at 0 in the model or the loss, or for numbers beyond the weights' type."
            )
        return product

    @property
    def room(self) -> int:
        """How many vectors fit in half of the memory that is free, in every process."""
        return min(self._objective.ranks.all(free_bytes(self.device) // 2 // (self.size * self.dtype.itemsize)))

    def refuse_what_does_not_fit(self, name: str, vectors: int) -> None:
        """Raise ``ValueError`` if so many vectors, of an argument of this name, do not fit."""
        if vectors > (room := self.room):
            raise ValueError(
                f"{name} is {vectors}, and a vector of all {self.size:,} weights is kept for each, "
                f"{self.size * self.dtype.itemsize:,} bytes; expected at most {room}, which fit in half of what is "
                f"free on {self.device}. Take fewer, or a part of the weights: parameters=['*.weight']."
            )

    @property
    def slope(self) -> Tensor:
        """The gradient at theta_0."""
        return self._flat(self._objective.slope)

    def normal(self, draw: int) -> Tensor:
        """Standard normal elements."""
        key = NoiseKey(self._seed, 0, _STARTS, draw)
        return self._flat(draws.normal(key, *self._tensors, self.device))

    def signs(self, draw: int) -> Tensor:
        """Elements -1 and 1 with equal probability (Rademacher)."""
        key = NoiseKey(self._seed, 0, _PROBES, draw)
        drawn = draws.uniform_integers(key, *self._tensors, self.device)
        return self._flat([integers.sign() for integers in drawn])

    @property
    def _tensors(self) -> tuple[list[int], list[int]]:
        """Ordinals and sizes, as draws take them."""
        weights = self._objective.weights
        return [weight.ordinal for weight in weights], [weight.parameter.numel() for weight in weights]

    def _flat(self, vector: Vector) -> Tensor:
        return torch.cat([part.detach().reshape(-1).to(self.device, self.dtype) for part in vector])
