"""Means with 95 % intervals, and paired differences, from a handful of seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_FEWEST = 3


@dataclass(frozen=True)
class ConfidenceInterval:
    """A mean, or a difference of means, and the half-width of its 95 % interval (nan where no error is known)."""

    mean: float
    half_width: float

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half_width


@dataclass(frozen=True)
class Estimate(ConfidenceInterval):
    """The mean of so many values; its half-width is nan for a single one."""

    count: int

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out 0, and rests on three values or more: two can agree by chance."""
        return self.count >= _FEWEST and (self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        if self.count < 2:
            return "-" if self.count == 0 else f"{self.mean:.2f}"
        return f"{self.mean:.2f} +- {self.half_width:.2f}"


def standard_error(values: Sequence[float]) -> float:
    """s / sqrt(n), nan for fewer than two values.

    Example:
        >>> standard_error([1.0, 3.0])
        1.0
    """
    count = len(values)
    if count < 2:
        return math.nan
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return math.sqrt(variance / count)


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean +- t_{.975, n-1} s / sqrt(n), Student's interval for independent normal values.

    Example:
        >>> str(mean_interval([1.0, 2.0, 3.0]))
        '2.00 +- 2.48'
    """
    from scipy.stats import t  # takes a second to import

    count = len(values)
    mean = math.fsum(values) / count if count else math.nan
    quantile = float(t.ppf(0.975, count - 1)) if count > 1 else math.nan
    return Estimate(mean, quantile * standard_error(values), count)
