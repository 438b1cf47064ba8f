"""Eigenvalues and trace of the Hessian."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from smoothout import _checks
from smoothout.losses import Loss
from smoothout.objective import Objective
from smoothout.results.sharpness import HessianSharpness
from smoothout.samples import Batches, Samples
from smoothout.sharpness.lanczos import Lanczos, Pairs
from smoothout.sharpness.operator import Operator
from smoothout.sharpness.trace import Limits, Trace, hutchinson

#: Products of a search by default, at most.
MAX_PRODUCTS = 100
_FEW = 10  # vectors beyond those of the wanted eigenvalues, without which no search begins
#: An eigenvalue this small relative to the largest in size is as good as 0: the products themselves are not more exact.
_AS_GOOD_AS_ZERO = 1e-5


def hessian(
    model: nn.Module,
    data: Batches | Samples,
    loss: Loss = functional.cross_entropy,
    *,
    count: int = 1,
    smallest: bool = True,
    trace: bool = True,
    tolerance: float = 1e-3,
    smallest_tolerance: float = 0.05,
    max_products: int | None = None,
    trace_tolerance: float = 0.05,
    trace_absolute: float = 0.01,
    probes: tuple[int, int] = (10, 50),
    parameters: Sequence[str] = ("*",),
    seed: int = 0,
    process_group: Any = None,
) -> HessianSharpness:
    r"""Eigenvalues at both ends, and trace, of the Hessian H of the loss.

    .. math:: \lambda_{\max}, \quad \lambda_{\min}, \quad \operatorname{tr} H = \sum_i \lambda_i

    Eigenvalues come from one Lanczos search, which starts at the gradient plus a random vector of equal length and ends
    when all that is wanted has converged: the residual r = ||H v - lambda v|| is at most ``tolerance`` |lambda|. Some
    eigenvalue lies within r of lambda; the error of lambda itself is at most r^2 over the distance to the next one, so
    that 1e-3 of residual mostly leaves 1e-5 or less of error. The smallest eigenvalue is hard: it is close to its
    neighbours and small beside the largest, so its tolerance is another. Where |lambda| is below 1e-5 of the largest, r
    has to be below 1e-5 (or the tolerance, if that is less) of the largest: it is 0, as far as products can tell.

    The trace is :func:`~smoothout.sharpness.trace.hutchinson`'s, exact on the space that the search has seen and from
    random signs on the rest; probes end when its standard error is at most max(``trace_absolute``, ``trace_tolerance``
    |trace|). Whatever misses its tolerance carries a doubt.

    The largest eigenvalue takes 6 to 16 products on networks of a million weights, the smallest 20 to 45. A product
    costs about six forward passes. A search keeps a vector of all weights for each product: 4 bytes times weights times
    products, 0.6 GB for a hundred of 1.5 million weights.

    Args:
        model: Maps inputs to outputs.
        data: Pairs (inputs, targets).
        loss: See :mod:`smoothout.losses`.
        count: How many of the largest eigenvalues. Of an eigenvalue that occurs several times one may be found.
        smallest: Whether to look for the smallest, too.
        trace: Whether to estimate the trace.
        tolerance, smallest_tolerance: Of the residuals, relative to the eigenvalue.
        max_products: Of the search, at most; by default 100, or as many as vectors fit in half of the free memory.
        trace_tolerance, trace_absolute: Of the standard error.
        probes: Of the trace, at least and at most.
        parameters: Patterns of names; the Hessian is that of the weights that match, the others held fixed: a block on
            the diagonal, such as ``("layers.0.*",)``.
        seed: Of start and probes.
        process_group: Processes that share the passes; see :class:`smoothout.objective.Objective`.

    Raises:
        ValueError: For more eigenvalues than weights or products, vectors that do not fit, BatchNorm that normalises by
            the batch, and products that are not finite.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> data = [(torch.randn(64, 3), torch.randint(0, 2, (64,)))]
        >>> found = hessian(nn.Linear(3, 2), data)
        >>> found.value > 0, found.residual < 1e-3 * found.value, found.doubts
        (True, True, ())

    Source: Pearlmutter 1994 for the products; Lanczos 1950; Hutchinson 1990.
    """
    wanted = _Wanted(count, tolerance, smallest_tolerance if smallest else None, max_products)
    limits = Limits(trace_tolerance, trace_absolute, *probes)
    with Objective(model, data, loss, parameters=parameters, process_group=process_group) as objective:
        operator = Operator(objective, seed)
        search = _Search(operator, wanted)
        estimate = hutchinson(operator, search.lanczos, limits) if trace else Trace(math.nan, math.nan, 0, ())
        top, bottom = search.top, search.bottom
        return HessianSharpness(
            value=top[0].value,
            center=objective.center,
            doubts=top[0].doubts,
            seconds=objective.seconds,
            seed=seed,
            residual=top[0].residual,
            eigenvalues=tuple(each.value for each in top),
            residuals=tuple(each.residual for each in top),
            eigenvalue_doubts=tuple(each.doubts for each in top),
            smallest=bottom.value,
            smallest_residual=bottom.residual,
            smallest_doubts=bottom.doubts,
            trace=estimate.value,
            trace_standard_error=estimate.standard_error,
            trace_doubts=estimate.doubts,
            probes=estimate.probes,
            products=operator.made,
            made_by=objective.products,
            parameters=tuple(parameters),
        )


@dataclass(frozen=True)
class Eigenvectors:
    """The largest eigenvalues of a Hessian and their vectors, the largest first.

    Attributes:
        names: Of the weights, as ``named_parameters()`` gives them.
        values: Eigenvalues.
        residuals: ||H v - lambda v|| of each.
        vectors: Of each eigenvalue a tensor for each weight; together of length 1, and orthogonal to each other.
        doubts: Why not to trust them, in words.
        products: Made in all.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]
    residuals: tuple[float, ...]
    vectors: tuple[tuple[Tensor, ...], ...]
    doubts: tuple[str, ...]
    products: int


def eigenvectors(
    model: nn.Module,
    data: Batches | Samples,
    loss: Loss = functional.cross_entropy,
    *,
    count: int = 2,
    tolerance: float = 1e-3,
    max_products: int | None = None,
    parameters: Sequence[str] = ("*",),
    seed: int = 0,
    process_group: Any = None,
) -> Eigenvectors:
    """The eigenvectors of the Hessian's largest eigenvalues; the element largest in size of each is positive.

    Args:
        model, data, loss, count, tolerance, max_products, parameters, seed: As for :func:`hessian`.
        process_group: Processes that share the passes; see :class:`smoothout.objective.Objective`.

    Raises:
        ValueError: As there.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> data = [(torch.randn(64, 3), torch.randint(0, 2, (64,)))]
        >>> found = eigenvectors(nn.Linear(3, 2), data)
        >>> found.names, [part.shape for part in found.vectors[1]]
        (('weight', 'bias'), [torch.Size([2, 3]), torch.Size([2])])
    """
    wanted = _Wanted(count, tolerance, None, max_products)
    with Objective(model, data, loss, parameters=parameters, process_group=process_group) as objective:
        search = _Search(Operator(objective, seed), wanted)
        vectors = [search.lanczos.vector(search.pairs.coefficients[:, -1 - index]) for index in range(count)]
        return Eigenvectors(
            names=tuple(weight.name for weight in objective.weights),
            values=tuple(each.value for each in search.top),
            residuals=tuple(each.residual for each in search.top),
            vectors=tuple(tuple(objective.shaped(vector)) for vector in vectors),
            doubts=tuple(doubt for each in search.top for doubt in each.doubts),
            products=search.lanczos.steps,
        )


@dataclass(frozen=True)
class _Wanted:
    """The largest eigenvalues, and the smallest unless its tolerance is None."""

    count: int
    tolerance: float
    smallest_tolerance: float | None
    max_products: int | None

    def __post_init__(self) -> None:
        _checks.whole("count", self.count, at_least=1)
        _checks.positive("tolerance", self.tolerance, "The default is 1e-3.")
        if self.smallest_tolerance is not None:
            _checks.positive(
                "smallest_tolerance", self.smallest_tolerance, "The default is 0.05; smallest=False leaves it out."
            )
        if self.max_products is not None:
            _checks.whole("max_products", self.max_products, at_least=self.count)

    def limit(self, operator: Operator) -> int:
        """Products that a search may make."""
        if self.count > operator.size:
            raise ValueError(f"count is {self.count}; expected at most the number of weights, {operator.size}.")
        wanted = min(operator.size, self.max_products or MAX_PRODUCTS)
        if self.max_products is None:
            wanted = max(min(wanted, operator.room), min(wanted, self.count + _FEW))
        operator.refuse_what_does_not_fit("max_products", wanted)
        return wanted


@dataclass(frozen=True)
class _Eigenvalue:
    """One of a search."""

    value: float
    residual: float
    doubts: tuple[str, ...]


class _Search:
    """What a Lanczos search found."""

    def __init__(self, operator: Operator, wanted: _Wanted) -> None:
        self._wanted = wanted
        self.lanczos = Lanczos(operator, _start(operator), wanted.limit(operator))
        self.pairs = self.lanczos.search(self._enough, operator.normal)

    def _enough(self, pairs: Pairs) -> bool:
        wanted = self._wanted
        if len(pairs.values) < wanted.count:
            return False
        if wanted.smallest_tolerance is not None and _missed(pairs, 0, wanted.smallest_tolerance):
            return False
        return not any(_missed(pairs, -1 - index, wanted.tolerance) for index in range(wanted.count))

    @property
    def top(self) -> list[_Eigenvalue]:
        """The largest, in descending order."""
        return [
            self._one(
                "largest eigenvalue" if i == 0 else f"eigenvalue {i + 1} from the top", -1 - i, self._wanted.tolerance
            )
            for i in range(self._wanted.count)
        ]

    @property
    def bottom(self) -> _Eigenvalue:
        """The smallest."""
        if self._wanted.smallest_tolerance is None:
            return _Eigenvalue(math.nan, math.nan, ())
        return self._one("smallest eigenvalue", 0, self._wanted.smallest_tolerance)

    def _one(self, name: str, index: int, tolerance: float) -> _Eigenvalue:
        value, residual = float(self.pairs.values[index]), float(self.pairs.residuals[index])
        doubt = (
            f"{name}: the residual {residual:.2g} after {self.lanczos.steps} products exceeds {tolerance:g} * |value|; "
            f"allow more (max_products)"
        )
        return _Eigenvalue(value, residual, (doubt,) if _missed(self.pairs, index, tolerance) else ())


def _missed(pairs: Pairs, index: int, tolerance: float) -> bool:
    size = max(tolerance * abs(float(pairs.values[index])), min(tolerance, _AS_GOOD_AS_ZERO) * pairs.norm)
    return float(pairs.residuals[index]) > size


def _start(operator: Operator) -> Tensor:
    """A random vector, plus the gradient: that lies mostly along the largest eigenvalues, and saves two products."""
    drawn, slope = operator.normal(0), operator.slope
    drawn /= drawn.norm()
    length = slope.norm()
    return drawn + slope / length if length > 0 else drawn
