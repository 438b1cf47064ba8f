"""What the measures of several checkpoints say, side by side."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from smoothout.intervals import standard_error
from smoothout.results.sharpness import Number

#: Two values are told apart if they differ by this many standard errors of the difference.
APART = 2.0


@dataclass(frozen=True)
class Compared:
    """One number of a group of checkpoints: runs that differ in their seed, or a single one.

    Attributes:
        value: Mean over the group's checkpoints.
        error: Standard error; over the checkpoints where there are several, else the measure's own (nan without).
        doubts: Of any of the checkpoints.
    """

    value: float
    error: float
    doubts: tuple[str, ...]

    def __str__(self) -> str:
        return str(Number("", self.value, self.error, self.doubts))


def compare(numbers: Sequence[Number]) -> Compared:
    """Put the numbers of a group's checkpoints together."""
    doubts = tuple(dict.fromkeys(doubt for number in numbers for doubt in number.doubts))
    if len(numbers) == 1:
        return Compared(numbers[0].value, numbers[0].error, doubts)
    values = [number.value for number in numbers]
    return Compared(math.fsum(values) / len(values), standard_error(values), doubts)


def ranked(groups: Mapping[str, Compared]) -> str:
    """The groups from the largest value to the smallest: ``>`` where they are told apart, ``~`` where they are not.

    Without standard errors nothing tells values apart but their size; such an order is in brackets.

    Example:
        >>> ranked({"a": Compared(1.0, 0.1, ()), "b": Compared(3.0, 0.1, ()), "c": Compared(1.1, 0.1, ())})
        'b > c ~ a'
    """
    finite = {name: each for name, each in groups.items() if math.isfinite(each.value)}
    order = sorted(finite, key=lambda name: -finite[name].value)
    if not order:
        return "no finite value"
    text, unsure = order[0], False
    for larger, smaller in pairwise(order):
        a, b = finite[larger], finite[smaller]
        error = math.hypot(a.error, b.error)
        unsure |= math.isnan(error)
        text += f" {'>' if math.isnan(error) or a.value - b.value > APART * error else '~'} {smaller}"
    if unsure:
        text = f"({text})"
    left_out = [name for name in groups if name not in finite]
    return text + (f"; not finite: {', '.join(left_out)}" if left_out else "")
