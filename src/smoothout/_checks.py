"""Checks of what a user passes in; each error names the value, what was expected and the remedy."""

import math
import operator
from collections.abc import Iterable
from numbers import Real
from typing import SupportsIndex, get_args


def nonnegative(name: str, value: object, remedy: str) -> float:
    """Return ``value`` as a float, or raise ``ValueError`` unless it is finite and >= 0."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r}; expected a number >= 0. {remedy}")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} is {value}; expected a finite number >= 0. {remedy}")
    return float(value)


def positive(name: str, value: object, remedy: str) -> float:
    """Return ``value`` as a float, or raise ``ValueError`` unless it is finite and > 0."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r}; expected a number > 0. {remedy}")
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} is {value}; expected a finite number > 0. {remedy}")
    return float(value)


def whole(name: str, value: SupportsIndex, *, at_least: int, below: int | None = None) -> int:
    """Return ``value``, or raise unless it is an integer in [at_least, below)."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}; expected a whole number >= {at_least}.")
    value = operator.index(value)
    if value < at_least or (below is not None and value >= below):
        upper = "" if below is None else f" and < {below}"
        raise ValueError(f"{name} is {value}; expected a whole number >= {at_least}{upper}.")
    return value


def one_of(name: str, value: object, literal: object) -> None:
    """Raise ``ValueError`` unless ``value`` is one of the values of a ``Literal`` type."""
    known = get_args(literal)
    if value not in known:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, known))}.")


def known(name: str, value: str, names: Iterable[str], also: str = "") -> None:
    """Raise ``ValueError`` listing the known names unless ``value`` is among them."""
    names = sorted(names)
    if value not in names:
        tail = f", or {also}" if also else ""
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(names)}{tail}.")
