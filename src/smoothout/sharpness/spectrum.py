"""The density of the Hessian's eigenvalues."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothout import _checks
from smoothout.intervals import standard_error
from smoothout.losses import Loss
from smoothout.objective import Objective
from smoothout.results.sharpness import Spectrum
from smoothout.samples import Batches, Samples
from smoothout.sharpness.lanczos import Lanczos
from smoothout.sharpness.operator import Operator

#: Moments reported: means of the first to the fourth power of the eigenvalues.
MOMENTS = 4
_WIDTH = 0.01  # of the range of the nodes
_MARGIN = 5  # widths that the grid extends beyond the outermost nodes


def spectrum(
    model: nn.Module,
    data: Batches | Samples,
    loss: Loss = functional.cross_entropy,
    *,
    probes: int = 10,
    steps: int = 80,
    width: float | None = None,
    grid: int | Sequence[float] = 1000,
    tolerance: float = 0.2,
    parameters: Sequence[str] = ("*",),
    seed: int = 0,
    process_group: Any = None,
) -> Spectrum:
    r"""Density of the eigenvalues of the Hessian by stochastic Lanczos quadrature; the value is their mean, tr H / n.

    .. math:: \phi(t) = \frac{1}{n} \sum_{i=1}^n g_w(t - \lambda_i) \approx \frac{1}{P} \sum_{p=1}^P \sum_{j=1}^m
              s_{pj}^2 \, g_w(t - \theta_{pj})

    with g_w the Gaussian of standard deviation w. Each probe, a vector of random signs, starts a Lanczos run of m
    ``steps``: its Ritz values theta_pj are nodes, the squared first elements s_pj^2 of the eigenvectors of its
    tridiagonal matrix are their weights. For polynomials of degree up to 2 m - 1 that quadrature is exact for the
    probe, and random over probes: hence the standard errors. An eigenvalue that stands out has the weight 1 / n.

    A run ends early at n steps or when its vectors span an invariant subspace; the quadrature then is exact. The cost
    is ``probes`` times ``steps`` products; the vectors of one run are kept: 4 bytes times weights times steps.

    Args:
        model: Maps inputs to outputs.
        data: Pairs (inputs, targets).
        loss: See :mod:`smoothout.losses`.
        probes: P. Networks whose trace is due to a few large eigenvalues have errors of 10 to 20 % with 10.
        steps: m; details of the density finer than its range over m are not resolved, except at the ends.
        width: w, in units of eigenvalues; by default 1 % of the range of the nodes.
        grid: Where to take the density: a number of points over the range of the nodes and 5 widths more on both sides,
            or the points themselves, such as those of another model.
        tolerance: Of the value's standard error, relative; beyond it the value carries a doubt.
        parameters: As for :func:`hessian`.
        seed: Of the probes.
        process_group: Processes that share the passes; see :class:`smoothout.objective.Objective`.

    Raises:
        ValueError: As :func:`hessian`; for a width that is not above 0, or fewer than 2 points.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> data = [(torch.randn(64, 3), torch.randint(0, 2, (64,)))]
        >>> found = spectrum(nn.Linear(3, 2), data, steps=4)
        >>> found.value > 0, found.steps, len(found.nodes), len(found.density)
        (True, 4, 10, 1000)

    Source: Ghorbani, Krishnan and Xiao 2019 (arXiv 1901.10159), section 2, there with normal probes; Lin, Saad and Yang
    2016 (arXiv 1308.5467).
    """
    _checks.whole("probes", probes, at_least=1)
    _checks.whole("steps", steps, at_least=1)
    _checks.nonnegative("tolerance", tolerance, "The default is 0.2.")
    if width is not None:
        _checks.positive("width", width, "Leave it out for 1 % of the range.")
    if not isinstance(grid, Sequence):
        _checks.whole("grid", grid, at_least=2)
    with Objective(model, data, loss, parameters=parameters, process_group=process_group) as objective:
        operator = Operator(objective, seed)
        steps = min(steps, operator.size)
        operator.refuse_what_does_not_fit("steps", steps)
        runs = [_quadrature(operator, probe, steps) for probe in range(probes)]
        powers = [[float(weights @ nodes**k) for nodes, weights in runs] for k in range(1, MOMENTS + 1)]
        moments, errors = [math.fsum(each) / probes for each in powers], [standard_error(each) for each in powers]
        width = width or _default_width(runs)
        points = _points(runs, grid, width)
        curves = torch.stack([density(*run, points, width) for run in runs])
        return Spectrum(
            value=moments[0],
            center=objective.center,
            doubts=_doubts(moments[0], errors[0], probes, tolerance),
            seconds=objective.seconds,
            seed=seed,
            standard_error=errors[0],
            moments=tuple(moments),
            moment_standard_errors=tuple(errors),
            nodes=tuple(tuple(nodes.tolist()) for nodes, _ in runs),
            node_weights=tuple(tuple(weights.tolist()) for _, weights in runs),
            width=width,
            grid=tuple(points.tolist()),
            density=tuple(curves.mean(0).tolist()),
            density_standard_error=tuple(map(standard_error, curves.T.tolist())),
            steps=max(len(nodes) for nodes, _ in runs),
            products=operator.made,
            made_by=objective.products,
            parameters=tuple(parameters),
        )


def density(nodes: Tensor, weights: Tensor, points: Tensor, width: float) -> Tensor:
    """sum_j w_j g(t - theta_j) at each point t, g the Gaussian of this standard deviation; the integral is sum_j w_j.

    Args:
        nodes, weights: Of a quadrature, (m,).
        points: (k,).
        width: Standard deviation.
    """
    apart = (points[:, None] - nodes) / width
    return (-apart.square() / 2).exp() @ weights / (width * math.sqrt(2 * math.pi))


def _quadrature(operator: Operator, probe: int, steps: int) -> tuple[Tensor, Tensor]:
    """Nodes, and weights that add up to 1, of one probe."""
    lanczos = Lanczos(operator, operator.signs(probe), steps)
    while lanczos.steps < steps and not lanczos.closed:
        lanczos.advance()
    pairs = lanczos.pairs()
    return pairs.values, pairs.coefficients[0].square()


def _default_width(runs: list[tuple[Tensor, Tensor]]) -> float:
    low, high = _range(runs)
    return _WIDTH * ((high - low) or abs(high) or 1.0)


def _points(runs: list[tuple[Tensor, Tensor]], grid: int | Sequence[float], width: float) -> Tensor:
    if isinstance(grid, Sequence):
        return torch.tensor(grid, dtype=torch.float64)
    low, high = _range(runs)
    return torch.linspace(low - _MARGIN * width, high + _MARGIN * width, grid, dtype=torch.float64)


def _range(runs: list[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    return min(float(nodes[0]) for nodes, _ in runs), max(float(nodes[-1]) for nodes, _ in runs)


def _doubts(value: float, error: float, probes: int, tolerance: float) -> tuple[str, ...]:
    if error <= tolerance * abs(value):
        return ()
    return (
        f"mean eigenvalue: the standard error {error:.2g} of {probes} probes exceeds {tolerance:g} * |value|; take "
        f"more probes",
    )
