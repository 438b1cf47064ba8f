"""The largest loss in a small box around the weights."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.nn import functional

from smoothout import _checks
from smoothout.intervals import standard_error
from smoothout.losses import Loss
from smoothout.objective import Objective, Vector
from smoothout.ranks import Ranks
from smoothout.results.sharpness import BoxSharpness
from smoothout.samples import Batches, Samples, free_bytes
from smoothout.sharpness.ascent import Ball, Explored, NotFinite, climb, norm
from smoothout.sharpness.manifold import AllWeights, Columns, Coordinates, Manifold

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Start = Literal["best", "x0"]
Search = Literal["auto", "lbfgs", "ascent"]
_Method = Literal["lbfgs", "ascent"]
_Point = Literal["x0", "corner"]

_SCIPY_BYTES = 200  # that SciPy's L-BFGS-B takes for each coordinate
_ON_BOX = 1 - 1e-6
# f is multiplied so that its gradient is this many times the box's half-diagonal. The first step of L-BFGS-B is the
# gradient, cut at the box: at weights where the loss is nearly zero it would hardly leave them.
_FIRST_STEP = 10.0
_NOT_FINITE = "stopped where the loss is not finite"


def box(
    model: nn.Module,
    data: Batches | Samples,
    loss: Loss = functional.cross_entropy,
    *,
    epsilon: float = 5e-4,
    manifold: int = 0,
    draws: int = 1,
    columns: Columns = "normal",
    start: Start = "best",
    iterations: int = 10,
    search: Search = "auto",
    seed: int = 0,
    process_group: Any = None,
) -> BoxSharpness:
    r"""The largest loss in a box around the weights, relative to the loss there, in percent.

    .. math:: \phi = 100 \frac{\max_{z \in C} f(x + A z) - f(x)}{1 + f(x)}, \qquad
              C = \{z : |z_i| \le \epsilon (|(A^+ x)_i| + 1)\}

    x are the weights, A^+ is the pseudo-inverse of A. In the full space A = I: the box is |z_i| <= eps (|x_i| + 1), and
    nothing is random, so that one search is made whatever ``draws`` says. On a manifold of p random directions A is
    n x p, and the value is the mean over ``draws`` of them, with its standard error.

    The maximum is that of a short search, so phi is a lower bound: the best of all points evaluated, by L-BFGS-B on -f
    from x and from the corner of the box to which the signs of the gradient point. Where L-BFGS-B does not fit in
    memory (200 bytes a coordinate), projected gradient ascent on the device makes as many steps from the same points.
    The cost is about 1.1 passes forward and backward for each iteration of each start.

    Args:
        model: Maps inputs to outputs.
        data: Pairs (inputs, targets).
        loss: See :mod:`smoothout.losses`.
        epsilon: eps > 0; 5e-4 and 1e-3 are on record.
        manifold: p; 0 for the full space.
        draws: Manifolds.
        columns: "normal": A has N(0, 1) entries, as in the paper. "original": A is the pseudo-inverse of p rows of
            uniform (0, 1) entries, scaled to length 1, as in the program of SmoothOut's authors. All entries of such
            rows are positive, so that any two of them enclose about 41 degrees and share one direction, all weights
            up: no random manifold. Take it only to compare with that program.
        start: "best": from both points, without tolerances, and with f scaled to the size of the box, so that a loss
            near zero does not end the search at once. "x0": from x, with SciPy's tolerances and scale, as the
            programs on record do; it may end after 0 iterations, which is a doubt.
        iterations: Of each search, at most.
        search: "lbfgs", "ascent", or "auto": the first if it fits in half of the free memory.
        seed: Of the manifolds.
        process_group: Processes that share the passes; see :class:`smoothout.objective.Objective`.

    Raises:
        ValueError: For an eps that is not above 0, more directions than weights, and a loss of -1 or less.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> data = [(torch.randn(64, 3), torch.randint(0, 2, (64,)))]
        >>> found = box(nn.Linear(3, 2), data)
        >>> found.starts, found.on_box, found.doubts
        (('x0', 'corner'), (1.0, 1.0), ())
        >>> box(nn.Linear(3, 2), data, manifold=4, draws=3).draws
        3

    Source: Keskar et al. 2016 (arXiv 1609.04836), Metric 2.1; there 10 iterations from x.
    """
    epsilon = _checks.positive("epsilon", epsilon, "Values on record are 5e-4 and 1e-3.")
    _checks.whole("manifold", manifold, at_least=0)
    _checks.whole("draws", draws, at_least=1)
    _checks.whole("iterations", iterations, at_least=1)
    for name, value, literal in (("columns", columns, Columns), ("start", start, Start), ("search", search, Search)):
        _checks.one_of(name, value, literal)
    with Objective(model, data, loss, process_group=process_group) as objective:
        _check(objective, manifold)
        method = _method(search, manifold or objective.dimension, objective.ranks)
        made = draws if manifold else 1
        searches: list[_Search] = []
        for draw in range(made):
            coordinates: Coordinates = AllWeights(objective)
            if manifold:
                coordinates = Manifold(objective, manifold, columns, seed=seed, draw=draw)
            problem = _Problem(objective, coordinates, epsilon)
            searches += [
                problem.searched(draw, name, point, iterations, method, exact=start == "best")
                for name, point in problem.starts(start)
            ]
        values = [_highest([each.found for each in searches if each.draw == draw]) for draw in range(made)]
        return BoxSharpness(
            value=math.fsum(values) / made,
            center=objective.center,
            doubts=_doubts(searches),
            seconds=objective.seconds,
            seed=seed,
            standard_error=standard_error(values),
            epsilon=epsilon,
            manifold=manifold,
            columns=columns if manifold else "identity",
            draws=made,
            start=start,
            limit=iterations,
            method=method,
            starts=tuple(each.start for each in searches),
            found=tuple(each.found for each in searches),
            iterations=tuple(each.iterations for each in searches),
            evaluations=tuple(each.evaluations for each in searches),
            messages=tuple(each.message for each in searches),
            on_box=tuple(each.on_box for each in searches),
        )


def _check(objective: Objective, manifold: int) -> None:
    if manifold > objective.dimension:
        raise ValueError(
            f"manifold is {manifold}, but the model has {objective.dimension} weights; expected at most as many "
            f"directions. Take fewer, or 0 for the full space."
        )
    if objective.center.loss <= -1:
        raise ValueError(
            f"the loss at the weights is {objective.center.loss:g}; expected more than -1, since phi divides by 1 + f. "
            f"Add a constant to the loss."
        )


def _method(search: Search, size: int, ranks: Ranks) -> _Method:
    if search != "auto":
        return search
    fits = 2 * _SCIPY_BYTES * size <= free_bytes(torch.device("cpu"))
    return "lbfgs" if all(ranks.all(fits)) else "ascent"


@dataclass(frozen=True)
class _Search:
    """What a search found; for the fields see BoxSharpness."""

    draw: int
    start: _Point
    found: float
    iterations: int
    evaluations: int
    message: str
    on_box: float


class _Problem:
    """Maximise f(x + A z) over the box."""

    def __init__(self, objective: Objective, coordinates: Coordinates, epsilon: float) -> None:
        self._objective, self._coordinates = objective, coordinates
        self._center = objective.center.loss
        self._box = Ball(coordinates.bounds(epsilon), 1.0, math.inf)
        self._slope = coordinates.pulled(objective.slope)
        self._middle = [torch.zeros_like(part) for part in self._box.spread]

    def starts(self, start: Start) -> list[tuple[_Point, Vector]]:
        """Where to search from."""
        if start == "x0":
            return [("x0", self._middle)]
        return [("x0", self._middle), ("corner", self._box.farthest(self._slope))]

    def searched(
        self,
        draw: int,
        name: _Point,
        point: Vector,
        iterations: int,
        method: _Method,
        *,
        exact: bool,
    ) -> _Search:
        """One search."""
        explored = Explored(self._at, self._center, self._middle)
        if method == "lbfgs":
            made, message = self._lbfgs(explored, point, iterations, exact)
        else:
            made, message = self._ascent(explored, point, iterations)
        return _Search(
            draw=draw,
            start=name,
            found=100 * (explored.highest - self._center) / (1 + self._center),
            iterations=made,
            evaluations=explored.evaluations,
            message=message,
            on_box=self._on_box(explored.where),
        )

    def _at(self, z: Vector) -> tuple[float, Vector]:
        value, slope = self._objective.gradient(self._coordinates.offsets(z))
        return value, self._coordinates.pulled(slope)

    def _lbfgs(self, explored: Explored, point: Vector, iterations: int, exact: bool) -> tuple[int, str]:
        from scipy.optimize import Bounds, minimize

        flat = self._objective.flat
        edges = flat(self._box.spread).numpy()
        steepness = norm(self._slope)
        scale = _FIRST_STEP * norm(self._box.spread) / steepness if exact and steepness else 1.0
        made = 0

        def falling(z: "NDArray[np.float64]") -> tuple[float, "NDArray[np.float64]"]:
            value, slope = explored(self._coordinates.shaped(torch.from_numpy(z)))
            return -scale * value, -scale * flat(slope).numpy()

        def count(_: object) -> None:
            nonlocal made
            made += 1

        options = {"maxiter": iterations, **({"ftol": 0, "gtol": 0} if exact else {})}
        try:
            found = minimize(
                falling,
                flat(point).numpy(),
                jac=True,
                method="L-BFGS-B",
                bounds=Bounds(-edges, edges),
                callback=count,
                options=options,
            )
        except NotFinite:
            return made, _NOT_FINITE
        return made, str(found.message)

    def _ascent(self, explored: Explored, point: Vector, iterations: int) -> tuple[int, str]:
        value, slope = self._center, self._slope
        try:
            if point is not self._middle:
                value, slope = explored(point)
            made = climb(explored, self._box, point, value, slope, iterations)
        except NotFinite:
            return explored.evaluations, _NOT_FINITE
        return made, "all steps made" if made == iterations else "the gradient is zero"

    def _on_box(self, z: Vector) -> float:
        edges = self._box.spread
        on = sum(int((part.abs() >= _ON_BOX * edge).sum()) for part, edge in zip(z, edges, strict=True))
        return on / sum(edge.numel() for edge in edges)


def _highest(values: list[float]) -> float:
    return math.nan if any(math.isnan(value) for value in values) else max(values)


def _doubts(searches: list[_Search]) -> tuple[str, ...]:
    found = []
    for draw in sorted({each.draw for each in searches}):
        own = [each for each in searches if each.draw == draw]
        if not all(math.isfinite(each.found) for each in own):
            found.append(f"draw {draw}: the loss is not finite somewhere in the box; use a smaller epsilon")
        elif all(each.iterations == 0 for each in own):
            found.append(
                f"draw {draw}: the search made 0 iterations ({own[0].message}): it never left where it started"
            )
    return tuple(found)
