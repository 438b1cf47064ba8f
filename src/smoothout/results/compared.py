"""What the measures of several checkpoints say, side by side."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smoothout.intervals import ConfidenceInterval, standard_error
from smoothout.results.sharpness import Number

#: Groups of which every pair is compared in words; of more, neighbours in the order.
MANY = 5


@dataclass(frozen=True)
class Compared:
    """One number of a group of checkpoints: runs that differ in their seed, or a single one.

    Attributes:
        value: Mean over the group's checkpoints.
        error: Standard error; over the checkpoints where there are several, else the measure's own (nan without).
        doubts: Of any of the checkpoints.
        freedom: Degrees of freedom of the error.
        residual: Of an eigenvalue of a single checkpoint.
    """

    value: float
    error: float
    doubts: tuple[str, ...]
    freedom: float = math.inf
    residual: float = math.nan

    def __str__(self) -> str:
        return str(Number("", self.value, self.error, self.doubts, self.residual))


def compare(numbers: Sequence[Number]) -> Compared:
    """Put the numbers of a group's checkpoints together."""
    doubts = tuple(dict.fromkeys(doubt for number in numbers for doubt in number.doubts))
    if len(numbers) == 1:
        return Compared(numbers[0].value, numbers[0].error, doubts, residual=numbers[0].residual)
    values = [number.value for number in numbers]
    return Compared(math.fsum(values) / len(values), standard_error(values), doubts, len(values) - 1)


def difference(one: Compared, other: Compared) -> ConfidenceInterval:
    """One less the other with the 95 % interval of independent groups (Welch 1947); of width 0 where both are exact.

    Example:
        >>> found = difference(Compared(3.0, 0.1, ()), Compared(1.0, 0.1, ()))
        >>> f"{found.mean} ({found.low:.2f} to {found.high:.2f})"
        '2.0 (1.72 to 2.28)'
    """
    from scipy.stats import t

    mean, variance = one.value - other.value, one.error**2 + other.error**2
    if math.isnan(variance) or variance == 0:
        return ConfidenceInterval(mean, variance)
    freedom = variance**2 / (one.error**4 / one.freedom + other.error**4 / other.freedom or 1e-300)
    return ConfidenceInterval(mean, float(t.ppf(0.975, min(freedom, 1e6))) * math.sqrt(variance))


def above(one: Compared, other: Compared) -> bool | None:
    """Whether the 95 % interval of the difference lies above 0; None where no error is known."""
    found = difference(one, other)
    return None if math.isnan(found.half_width) else found.low > 0


def ranked(groups: Mapping[str, Compared]) -> list[str]:
    """The groups from the largest value to the smallest, and which of them the errors do not tell apart.

    Example:
        >>> ranked({"a": Compared(1.0, 0.1, ()), "b": Compared(3.0, 0.1, ()), "c": Compared(1.1, 0.1, ())})
        ['b, c, a', 'not told apart: c and a']
    """
    finite = {name: each for name, each in groups.items() if math.isfinite(each.value)}
    order = sorted(finite, key=lambda name: -finite[name].value)
    pairs = list(itertools.combinations(order, 2) if len(order) <= MANY else itertools.pairwise(order))
    apart = {pair: above(finite[pair[0]], finite[pair[1]]) for pair in pairs}
    lines = [", ".join(order) or "no finite value"]
    close = [f"{one} and {other}" for (one, other), told in apart.items() if told is False]
    if close:
        lines.append(f"not told apart{' (of neighbours)' if len(order) > MANY else ''}: {', '.join(close)}")
    if None in apart.values():
        lines.append("no error is known, so nothing says whether they differ by more than chance")
    left_out = [name for name in groups if name not in finite]
    return [*lines, *([f"not finite: {', '.join(left_out)}"] if left_out else [])]
