"""From draws to offsets: how large the noise of each weight is.

With amplitude a (strength times schedule) and draws z, the offset theta of a weight w is

- ``none``    theta_i = a z_i
- ``weight``  theta_i = a |w_i| z_i
- ``filter``  theta_f = a ||w_f|| / (||z_f|| + 1e-6) z_f      (AdaSmoothOut)

Each is one product z * s, rounded once, in float32 (float64 for float64 weights); half-precision weights
are rounded to their own type only when the offset is added.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from smoothout._types import Distribution, Scale
from smoothout.noise import draws
from smoothout.noise.draws import NoiseKey
from smoothout.noise.elementary import exact_sqrt
from smoothout.weights import Weight

LANES = 256
#: Keeps the division finite for a filter whose draws are all nearly zero; the original's constant.
NORM_FLOOR = 1e-6


def offsets(
    weights: Sequence[Weight], key: NoiseKey, amplitude: float, scale: Scale, distribution: Distribution
) -> list[Tensor]:
    """The offsets theta of weights that live on one device, each of its weight's shape."""
    if not weights:
        return []
    device = weights[0].parameter.device
    ordinals = [weight.ordinal for weight in weights]
    sizes = [weight.parameter.numel() for weight in weights]
    if distribution == "uniform":
        drawn = draws.uniform_integers(key, ordinals, sizes, device)
    else:
        drawn = draws.normal(key, ordinals, sizes, device)
    if scale == "filter":
        factors: Sequence[Tensor | None] = _filter_factors(weights, drawn, amplitude, distribution)
    else:
        factors = [None] * len(weights)
    return [
        _offset(weight, z, amplitude, scale, distribution, factor)
        for weight, z, factor in zip(weights, drawn, factors, strict=True)
    ]


def _offset(
    weight: Weight, drawn: Tensor, amplitude: float, scale: Scale, distribution: Distribution, factor: Tensor | None
) -> Tensor:
    """theta of one weight from its draws (odd integers if uniform, float32 if normal) and its filters' factors."""
    w = weight.parameter.detach()
    dtype = _used(weight)
    z = drawn.view(w.shape).to(dtype)
    if distribution == "uniform":
        z.div_(draws.UNIFORM_DENOMINATOR)  # exact: 17 bits and a power of two
    if factor is not None:
        return z.mul_(weight.over_filters(factor.to(dtype)))
    if scale == "none":
        return z.mul_(amplitude)
    return z.mul_(w.abs().to(dtype) * amplitude)


def _filter_factors(
    weights: Sequence[Weight], drawn: Sequence[Tensor], amplitude: float, distribution: Distribution
) -> Sequence[Tensor]:
    """a ||w_f|| / (||z_f|| + 1e-6) of each weight's filters, float64."""
    shaped = [z.view(weight.parameter.shape) for weight, z in zip(weights, drawn, strict=True)]
    norms = _norms_of_all([*weights, *weights], [*(weight.parameter.detach() for weight in weights), *shaped])
    w_norms, z_norms = norms[: len(weights)], norms[len(weights) :]
    if distribution == "uniform":
        z_norms = [norm / draws.UNIFORM_DENOMINATOR for norm in z_norms]
    return [amplitude * w / (z + NORM_FLOOR) for w, z in zip(w_norms, z_norms, strict=True)]


def _used(weight: Weight) -> torch.dtype:
    return torch.float64 if weight.parameter.dtype == torch.float64 else torch.float32


def filter_norms(weight: Weight, values: Tensor) -> Tensor:
    """||v_f|| of each filter, shape (F,) float64, for values of the weight's shape.

    Squares of integers are summed exactly, of floats in float64 by :func:`blocked_sum`; the norm of a
    single element is its absolute value.
    """
    [norms] = _norms_of_all([weight], [values])
    return norms


def _norms_of_all(weights: Sequence[Weight], values: Sequence[Tensor]) -> list[Tensor]:
    """:func:`filter_norms` of weights on one device."""
    rows = [weight.filters(each) for weight, each in zip(weights, values, strict=True)]
    squares = [_sums_of_squares(each) for each in rows]
    # One call for all, since it is many operations.
    roots = torch.split(exact_sqrt(torch.cat(squares)), [len(each) for each in squares])
    return [
        each[:, 0].to(torch.float64).abs() if each.shape[1] == 1 else root
        for each, root in zip(rows, roots, strict=True)
    ]


def _sums_of_squares(rows: Tensor) -> Tensor:
    if rows.dtype == torch.int32:
        return rows.to(torch.int64).square_().sum(dim=1).to(torch.float64)
    return blocked_sum(rows.to(torch.float64).square())


def blocked_sum(rows: Tensor) -> Tensor:
    """Sum each row of an (F, d) tensor in an order that depends on d alone, so every backend can keep it.

    With L = min(256, d) lanes, lane l sums its elements l, l + L, l + 2L, ... in that order. Then, until one
    lane is left, the upper half of the lanes is added to the lower: l + h to l, h = ceil(lanes / 2).
    """
    d = rows.shape[1]
    lanes = min(LANES, d)
    total = rows[:, :lanes].clone()
    for start in range(lanes, d, LANES):
        chunk = rows[:, start : start + LANES]
        total[:, : chunk.shape[1]] += chunk
    while lanes > 1:
        half = -(-lanes // 2)
        total[:, : lanes - half] += total[:, half:lanes]
        lanes = half
    return total[:, 0] if d else rows.new_zeros(rows.shape[0])
