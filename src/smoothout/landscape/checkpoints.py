"""Lines and planes through checkpoints."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from smoothout.landscape.axes import Coordinates
from smoothout.landscape.combinations import Combinations, State, refuse_differences, tensors

#: A model, or its ``state_dict()``; its values are copied.
Checkpoint = nn.Module | Mapping[str, Tensor]

_STATISTICS = ("running_mean", "running_var")
_COLLINEAR = 1e-6


def between(a: Checkpoint, b: Checkpoint, *, names: tuple[str, str] = ("A", "B")) -> Combinations:
    r"""The line through two checkpoints.

    .. math:: \theta(\alpha) = (1 - \alpha) A + \alpha B

    All parameters are combined, frozen ones included, and all floating-point buffers; BatchNorm's running statistics
    by the policy that is chosen on measuring, "interpolate" by default.

    Args:
        a, b: At alpha 0 and 1.
        names: What tables and pictures call them.

    Raises:
        ValueError: If they are of different architectures.

    Example:
        >>> between(nn.Linear(3, 2), nn.Linear(3, 2)).marks
        {'A': (0.0,), 'B': (1.0,)}

    Source: Goodfellow, Vinyals and Saxe 2015 (arXiv 1412.6544); with alpha in [-1, 2] Keskar et al. 2016
    (arXiv 1609.04836), section 2.2.1.
    """
    states = _states((a, b), names)
    first, second = (_weights(state, _parameters(a, b)) for state in states)
    return Combinations(
        description=f"line from {names[0]} to {names[1]}",
        seed=None,
        lengths=(math.sqrt(_products(first, second, second)[0]),),
        marks=_marks(names, ((0.0,), (1.0,))),
        weights=sum(part.numel() for part in first),
        states=states,
    )


def through(
    a: Checkpoint, b: Checkpoint, c: Checkpoint, *, names: tuple[str, str, str] = ("A", "B", "C")
) -> Combinations:
    r"""The plane through three checkpoints, with true distances on both axes.

    .. math:: \theta(x, y) = A + x e_1 + y e_2, \quad e_1 = \frac{B - A}{\|B - A\|}, \quad
              e_2 = \frac{C - A - p e_1}{\|C - A - p e_1\|}, \quad p = (C - A) \cdot e_1

    so A is at (0, 0), B at (||B - A||, 0) and C at (p, q), q > 0. Distances are Euclidean, over all parameters; of
    state_dicts, which do not tell parameters from buffers, over all floating-point entries but running statistics.

    Args:
        a, b, c: The checkpoints.
        names: What tables and pictures call them.

    Raises:
        ValueError: If they are of different architectures, or on one line.

    Example:
        >>> states = [{"x": torch.tensor(values)} for values in ([0.0, 0.0], [0.0, 2.0], [3.0, 1.0])]
        >>> through(*states).marks
        {'A': (0.0, 0.0), 'B': (2.0, 0.0), 'C': (1.0, 3.0)}

    Source: Garipov et al. 2018 (arXiv 1802.10026), whose pictures have such planes.
    """
    states = _states((a, b, c), names)
    first, second, third = (_weights(state, _parameters(a, b, c)) for state in states)
    length = math.sqrt(_products(first, second, second)[0])
    reach_squared, along = _products(first, third, second)
    along = along / length if length else 0.0
    across = math.sqrt(_residual(first, second, third, along / length if length else 0.0))
    reach = math.sqrt(reach_squared)
    size = max(math.sqrt(sum(float(part.double().square().sum()) for part in each)) for each in (first, second, third))
    rounding = 4 * max((torch.finfo(part.dtype).eps for part in first), default=0.0) * size
    if not across > max(_COLLINEAR * max(length, reach), rounding) or length <= rounding:
        raise ValueError(
            f"{names[2]} is {across:.3g} away from the line through {names[0]} and {names[1]}, which are {length:.3g} "
            f"apart; expected three checkpoints that span a plane. Take others, or the line: between(...)."
        )
    return Combinations(
        description=f"plane through {names[0]}, {names[1]} and {names[2]}",
        seed=None,
        lengths=(1.0, 1.0),
        marks=_marks(names, ((0.0, 0.0), (length, 0.0), (along, across))),
        weights=sum(part.numel() for part in first),
        states=states,
    )


def _states(checkpoints: Sequence[Checkpoint], names: Sequence[str]) -> tuple[State, ...]:
    """Copies, which stay when a model that was passed is moved."""
    given = [tensors(each.state_dict() if isinstance(each, nn.Module) else each) for each in checkpoints]
    if len(set(names)) < len(names):
        raise ValueError(f"the checkpoints' names are {', '.join(names)}; expected different ones. Pass names=.")
    refuse_differences(dict(zip(names, given, strict=True)))
    devices = {name: value.device for name, value in given[0].items()}
    return tuple(
        {name: value.detach().to(devices[name], copy=True) for name, value in state.items()} for state in given
    )


def _parameters(*checkpoints: Checkpoint) -> set[str] | None:
    """Names of the parameters, tied ones once, if any of the checkpoints is a model."""
    model = next((each for each in checkpoints if isinstance(each, nn.Module)), None)
    return None if model is None else {name for name, _ in model.named_parameters()}


def _weights(state: State, parameters: set[str] | None) -> list[Tensor]:
    """What distances are measured over."""
    if parameters is not None:
        return [value for name, value in state.items() if name in parameters]
    smooth = {name: value for name, value in state.items() if value.is_floating_point()}
    return [value for name, value in smooth.items() if name.rpartition(".")[2] not in _STATISTICS]


def _marks(names: Sequence[str], coordinates: Sequence[Coordinates]) -> dict[str, Coordinates]:
    return dict(zip(names, coordinates, strict=True))


def _products(origin: list[Tensor], a: list[Tensor], b: list[Tensor]) -> tuple[float, float]:
    """|a - origin|^2 and (a - origin) . (b - origin), in float64."""
    square = product = 0.0
    for start, x, y in zip(origin, a, b, strict=True):
        there, other = x.double() - start.double(), y.double() - start.double()
        square += float((there * there).sum())
        product += float((there * other).sum())
    return square, product


def _residual(origin: list[Tensor], a: list[Tensor], b: list[Tensor], share: float) -> float:
    """|b - origin - share (a - origin)|^2; the difference of squares would cancel."""
    total = 0.0
    for start, x, y in zip(origin, a, b, strict=True):
        rest = y.double() - start.double() - share * (x.double() - start.double())
        total += float((rest * rest).sum())
    return total
