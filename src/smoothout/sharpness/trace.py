"""The trace of the Hessian from random signs."""

import math
from dataclasses import dataclass

from smoothout import _checks
from smoothout.intervals import standard_error
from smoothout.sharpness.lanczos import Lanczos
from smoothout.sharpness.operator import Operator


@dataclass(frozen=True)
class Limits:
    """When to stop: the standard error is at most max(absolute, tolerance |trace|), or the probes are at an end.

    Attributes:
        tolerance, absolute: Of the standard error.
        least, most: Probes.
    """

    tolerance: float
    absolute: float
    least: int
    most: int

    def __post_init__(self) -> None:
        _checks.nonnegative("trace_tolerance", self.tolerance, "The default is 0.05.")
        _checks.nonnegative("trace_absolute", self.absolute, "The default is 0.01.")
        _checks.whole("the least number of probes", self.least, at_least=2)
        _checks.whole("the largest number of probes", self.most, at_least=self.least)


@dataclass(frozen=True)
class Trace:
    """An estimate of a trace.

    Attributes:
        value, standard_error: Of the trace; the error is 0 where nothing is random.
        probes: Vectors of signs, a product each.
        doubts: Why not to trust it, in words.
    """

    value: float
    standard_error: float
    probes: int
    doubts: tuple[str, ...]


def hutchinson(operator: Operator, search: Lanczos, limits: Limits) -> Trace:
    r"""tr H = tr Q^T H Q + E[u^T H u], u = v - Q Q^T v, v random signs, Q the basis of a finished Lanczos search.

    The basis holds the directions of the eigenvalues that stand out, to which most of the variance of plain v^T H v is
    due, and its part is known. It may be any basis that does not depend on v.

    Args:
        operator: H.
        search: Of H.
        limits: When to stop.

    Source: Hutchinson 1990; with a basis, Gambhir, Stathopoulos and Orginos 2017 (arXiv 1603.05988), and Hutch++, Meyer
    et al. 2021 (arXiv 2010.09649).
    """
    basis, inside = search.basis, search.trace
    if len(basis) == operator.size:
        return Trace(inside, 0.0, 0, ())
    outside: list[float] = []
    met = False
    while len(outside) < limits.most and not (met and len(outside) >= limits.least):
        signs = operator.signs(len(outside))
        signs = signs - (basis @ signs) @ basis
        outside.append(float((signs * operator(signs)).double().sum()))
        value, error = inside + math.fsum(outside) / len(outside), standard_error(outside)
        met = error <= max(limits.absolute, limits.tolerance * abs(value))
    doubt = (
        f"trace: the standard error {error:.2g} after {len(outside)} probes exceeds max({limits.absolute:g}, "
        f"{limits.tolerance:g} * |trace|); allow more probes"
    )
    return Trace(value, error, len(outside), () if met else (doubt,))
