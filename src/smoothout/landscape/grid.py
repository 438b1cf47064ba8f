"""Coordinates to measure at, made of fractions, so that rounding neither adds a point nor misses 0."""

import math
from collections.abc import Iterable
from fractions import Fraction

from smoothout import _checks

_MOST = 1_000_000  # points; more are a slip of the pen


def alphas(text: str) -> tuple[float, ...]:
    """The numbers START, START + STEP, ... below STOP.

    Sums of floats drift: ``numpy.arange(-1, 2.01, 0.1)`` has 2.2e-16 where 0 should be. Here each number is the float
    nearest to its decimal value.

    Args:
        text: "START:STEP:STOP", the stop left out.

    Raises:
        ValueError: For another form, a step that is not above 0, a stop that is not above the start, or more than a
            million points.

    Example:
        >>> alphas("-0.2:0.1:0.21")
        (-0.2, -0.1, 0.0, 0.1, 0.2)
        >>> len(alphas("-1:0.1:2.01")), len(alphas("-1:0.04:1.01")), len(alphas("-0.3:0.02:0.31"))
        (31, 51, 31)
    """
    parts = text.split(":")
    if len(parts) != 3:
        raise _bad(text, f"which has {len(parts)} parts", "Put colons between three numbers.")
    start, step, stop = (_fraction(text, part) for part in parts)
    if step == 0:
        raise _bad(text, "whose step of 0 never arrives", "Give the distance of neighbours.")
    if start == stop:
        raise _bad(text, "which is empty, as the stop is left out", "Put the stop behind the last number wanted.")
    if (stop - start) * step < 0:
        raise _bad(text, "whose step has the wrong sign for its ends", "Swap the ends, or turn the sign.")
    if step < 0:
        raise _bad(text, "which falls", f"Write it as it rises, from {float(stop):g} to {float(start):g}.")
    count = math.ceil((stop - start) / step)
    if count > _MOST:
        raise _bad(text, f"which are {count:,} points", f"Take a larger step: {_MOST:,} points at most.")
    return tuple(float(start + index * step) for index in range(count))


def evenly(count: int, low: float = -1.0, high: float = 1.0) -> tuple[float, ...]:
    """So many numbers from low to high, both included, at equal distances.

    Raises:
        ValueError: For fewer than 2, ends in the wrong order, or an even number around 0, which would leave out 0.

    Example:
        >>> evenly(5)
        (-1.0, -0.5, 0.0, 0.5, 1.0)
    """
    _checks.whole("the number of points of an axis", count, at_least=2)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"an axis goes from {low} to {high}; expected finite numbers that rise. Swap them.")
    if low == -high and count % 2 == 0:
        raise ValueError(
            f"an axis from {low:g} to {high:g} has {count} points, none of them 0, the model itself; expected an odd "
            f"number. Take {count + 1}."
        )
    first, last = Fraction(repr(float(low))), Fraction(repr(float(high)))
    return tuple(float(first + index * (last - first) / (count - 1)) for index in range(count))


def sinusoidal(values: Iterable[float]) -> tuple[float, ...]:
    """alpha' = (1 - cos(pi alpha)) / 2 of each alpha: points lie denser near the ends 0 and 1.

    Raises:
        ValueError: For an alpha outside [0, 1], where the cosine turns back and the line would go to and fro.

    Example:
        >>> [round(value, 3) for value in sinusoidal([0.0, 0.25, 0.5, 1.0])]
        [0.0, 0.146, 0.5, 1.0]
    """
    given = tuple(values)
    outside = [alpha for alpha in given if not 0 <= alpha <= 1]
    if outside:
        raise ValueError(
            f"alpha is {outside[0]:g} in mode 'sin'; expected numbers in [0, 1], since the cosine turns back at its "
            f"ends. Give a range such as 0:0.05:1.01, or mode 'linear'."
        )
    return tuple((1 - math.cos(math.pi * alpha)) / 2 for alpha in given)


def rising(name: str, values: Iterable[float]) -> tuple[float, ...]:
    """The numbers as floats, or ``ValueError`` unless there are some, all finite, each above the one before."""
    found = tuple(float(value) + 0.0 for value in values)  # no -0
    for before, value in zip((-math.inf, *found), found, strict=False):
        if not math.isfinite(value) or value <= before:
            raise ValueError(
                f"{name} has {value} after {before}; expected finite numbers, each above the one before. Sort them, "
                f"and leave out what comes twice."
            )
    if not found:
        raise ValueError(f"{name} is empty; expected at least one number. Check the range.")
    return found


def _fraction(text: str, part: str) -> Fraction:
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _bad(text, f"in which {part.strip()!r} is not a number", "Write digits with a point, such as -0.5.")
    return Fraction(repr(value))  # the shortest decimal that reads as this float


def _bad(text: str, why: str, remedy: str) -> ValueError:
    return ValueError(
        f"the range is {text!r}, {why}; expected START:STEP:STOP with STEP > 0 and START < STOP, such as -1:0.1:2.01. "
        f"{remedy}"
    )
