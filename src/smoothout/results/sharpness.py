"""What the sharpness measures return."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Center:
    """Where a measure was taken.

    Attributes:
        loss: f_0, mean loss per sample, nats for cross entropy.
        error1: Share of samples whose class is not the first, in percent; nan where targets are no classes.
        samples: N.
        weights: Number of weights that vary.
        max_gradient: Largest |df/dtheta_i|.
        versions: Of what computed it.
    """

    loss: float
    error1: float
    samples: int
    weights: int
    max_gradient: float
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """What every measure reports; ``str`` never shows a doubtful value without its mark.

    Attributes:
        value: The measure, in the unit that its class states.
        center: Where it was taken.
        doubts: Why not to trust the value, in words; empty if every tolerance was met.
        seconds: Wall time.
        seed: Of whatever is random in it.
    """

    value: float
    center: Center
    doubts: tuple[str, ...]
    seconds: float
    seed: int

    #: Put behind a value that has doubts.
    MARK: ClassVar[str] = " (!)"

    def __str__(self) -> str:
        return f"{self.value:.4g}{self.spread}{self.MARK if self.doubts else ''}"

    @property
    def spread(self) -> str:
        """Standard error or residual, as it follows the value; empty for a value without."""
        return ""


def plus_minus(error: float) -> str:
    """A standard error behind a value; empty if there is none.

    Example:
        >>> plus_minus(0.0123)
        ' +- 0.012'
    """
    return f" +- {error:.2g}" if error == error else ""  # noqa: PLR0124
