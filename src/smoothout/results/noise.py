"""What the noise does to a model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorNoise:
    """What the noise does to one parameter.

    Attributes:
        name: As ``named_parameters()`` gives it.
        shape: Of the parameter.
        filters: Number of filters.
        left_out: Why it gets no noise, None if it does.
        relative_noise: r = ||realised offset|| / ||weights|| of this draw, after rounding to the weights'
            type; 0 if it gets none, nan for weights that are all zero.
    """

    name: str
    shape: tuple[int, ...]
    filters: int
    left_out: str | None
    relative_noise: float

    @property
    def weights(self) -> int:
        """Number of elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True)
class NoiseSummary:
    """Which weights are perturbed and by how much; ``print`` it for a table.

    Attributes:
        tensors: Every parameter of the model, perturbed or not.
        relative_noise: r over all perturbed weights together.
        amplitude: Strength times the schedule's factor, at the step of the summary.
    """

    tensors: tuple[TensorNoise, ...]
    relative_noise: float
    amplitude: float

    @property
    def perturbed(self) -> tuple[TensorNoise, ...]:
        """The tensors that get noise."""
        return tuple(tensor for tensor in self.tensors if tensor.left_out is None)

    @property
    def weights(self) -> int:
        """Number of perturbed weights."""
        return sum(tensor.weights for tensor in self.perturbed)

    def __str__(self) -> str:
        width = max([len(tensor.name) for tensor in self.tensors] + [9])
        lines = [f"{'parameter':<{width}}  {'shape':<18} {'filters':>8}  relative noise r"]
        for tensor in self.tensors:
            noise = f"{tensor.relative_noise:.4g}" if tensor.left_out is None else f"- ({tensor.left_out})"
            lines.append(f"{tensor.name:<{width}}  {tensor.shape!s:<18} {tensor.filters:>8}  {noise}")
        lines.append(
            f"{len(self.perturbed)} of {len(self.tensors)} tensors, {self.weights:,} weights perturbed; "
            f"amplitude {self.amplitude:.4g}, r = {self.relative_noise:.4g}"
        )
        return "\n".join(lines)
