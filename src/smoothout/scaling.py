"""From draws to offsets: how large the noise of each weight is.

With amplitude a (strength times schedule) and draws z, the offset theta of a weight w is

- ``none``    theta_i = a z_i
- ``weight``  theta_i = a |w_i| z_i
- ``filter``  theta_f = a ||w_f|| / (||z_f|| + 1e-6) z_f      (AdaSmoothOut)

Each is one product z * s, rounded once, in float32 (float64 for float64 weights); half-precision weights
are rounded to their own type only when the offset is added.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from smoothout._types import Distribution, Scale
from smoothout.noise import draws
from smoothout.noise.draws import NoiseKey
from smoothout.noise.elementary import exact_sqrt
from smoothout.shards import whole
from smoothout.weights import Weight

LANES = 256
#: Keeps the division finite for a filter whose draws are all nearly zero; the original's constant.
NORM_FLOOR = 1e-6


def offsets(
    weights: Sequence[Weight],
    key: NoiseKey,
    amplitude: float,
    scale: Scale,
    distribution: Distribution,
    split: Mapping[int, Tensor] | None = None,
) -> list[Tensor]:
    """The offsets theta of what this process holds of weights, on one device, each of the local shape.

    ``split`` holds, by ordinal, what :func:`smoothout.split_filters.factors` gives, for scale "filter".
    """
    if not weights:
        return []
    drawn = draw(weights, key, distribution)
    if scale == "filter":
        factors: Sequence[Tensor | None] = _filter_factors(weights, drawn, amplitude, distribution, split or {})
    else:
        factors = [None] * len(weights)
    return [
        _offset(weight, z, amplitude, scale, distribution, factor)
        for weight, z, factor in zip(weights, drawn, factors, strict=True)
    ]


def draw(weights: Sequence[Weight], key: NoiseKey, distribution: Distribution) -> list[Tensor]:
    """Draws for what this process holds of weights, on one device: odd integers if uniform, float32 if normal."""
    device = weights[0].local.device
    ordinals = [weight.ordinal for weight in weights]
    if all(weight.part is None for weight in weights):
        sizes = [weight.local.numel() for weight in weights]
        if distribution == "uniform":
            return draws.uniform_integers(key, ordinals, sizes, device)
        return draws.normal(key, ordinals, sizes, device)
    parts = [whole(weight.local.shape) if weight.part is None else weight.part for weight in weights]
    found = [part.blocks(draws.PER_BLOCK[distribution], device) for part in parts]
    drawing = draws.uniform_integers_of if distribution == "uniform" else draws.normal_of
    drawn = drawing(key, ordinals, [blocks for blocks, _ in found])
    return [each[places] for each, (_, places) in zip(drawn, found, strict=True)]


def _offset(
    weight: Weight, drawn: Tensor, amplitude: float, scale: Scale, distribution: Distribution, factor: Tensor | None
) -> Tensor:
    """theta of one weight from its draws (odd integers if uniform, float32 if normal) and its filters' factors."""
    w = weight.local.detach()
    dtype = _used(weight)
    z = drawn.view(w.shape).to(dtype)
    if distribution == "uniform":
        z.div_(draws.UNIFORM_DENOMINATOR)  # exact: 17 bits and a power of two
    if factor is not None:
        return z.mul_(factor.to(dtype))
    if scale == "none":
        return z.mul_(amplitude)
    return z.mul_(w.abs().to(dtype) * amplitude)


def _filter_factors(
    weights: Sequence[Weight],
    drawn: Sequence[Tensor],
    amplitude: float,
    distribution: Distribution,
    known: Mapping[int, Tensor],
) -> list[Tensor]:
    """a ||w_f|| / (||z_f|| + 1e-6) of each weight, float64, in shapes that multiply them; some are known by ordinal."""
    pairs = [(weight, z) for weight, z in zip(weights, drawn, strict=True) if weight.ordinal not in known]
    own = [weight for weight, _ in pairs]
    shaped = [z.view(weight.local.shape) for weight, z in pairs]
    values = [*(weight.local.detach() for weight in own), *shaped]
    norms = _norms_of_all([*own, *own], values) if own else []
    factors = [
        factor_of(w, z, amplitude, distribution) for w, z in zip(norms[: len(own)], norms[len(own) :], strict=True)
    ]
    found = iter([weight.over_filters(factor) for weight, factor in zip(own, factors, strict=True)])
    return [known[weight.ordinal] if weight.ordinal in known else next(found) for weight in weights]


def factor_of(w_norms: Tensor, z_norms: Tensor, amplitude: float, distribution: Distribution) -> Tensor:
    """a ||w_f|| / (||z_f|| + 1e-6), float64, from the norms of weights and draws."""
    if distribution == "uniform":
        z_norms = z_norms / draws.UNIFORM_DENOMINATOR
    return amplitude * w_norms / (z_norms + NORM_FLOOR)


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
    squares = [sums_of_squares(each) for each in rows]
    # One call for all, since it is many operations.
    roots = torch.split(exact_sqrt(torch.cat(squares)), [len(each) for each in squares])
    return [
        each[:, 0].to(torch.float64).abs() if each.shape[1] == 1 else root
        for each, root in zip(rows, roots, strict=True)
    ]


def sums_of_squares(rows: Tensor) -> Tensor:
    """Of each row, float64: of integers exactly, of floats by :func:`blocked_sum`."""
    if rows.dtype == torch.int32:
        return integer_squares(rows).to(torch.float64)
    return blocked_sum(rows.to(torch.float64).square())


def integer_squares(rows: Tensor) -> Tensor:
    """Sum of squares of each row of int32, int64."""
    return rows.to(torch.int64).square_().sum(dim=1)


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
