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
    return [_offset(weight, z, amplitude, scale, distribution) for weight, z in zip(weights, drawn, strict=True)]


def _offset(weight: Weight, drawn: Tensor, amplitude: float, scale: Scale, distribution: Distribution) -> Tensor:
    """theta of one weight from its draws: odd integers if uniform, float64 if normal."""
    w = weight.parameter.detach()
    dtype = torch.float64 if w.dtype == torch.float64 else torch.float32
    drawn = drawn.view(w.shape)
    z = drawn.to(dtype)
    if distribution == "uniform":
        z.div_(draws.UNIFORM_DENOMINATOR)  # exact: 17 bits and a power of two
    if scale == "none":
        return z.mul_(amplitude)
    if scale == "weight":
        return z.mul_(w.abs().to(dtype) * amplitude)
    w_norm = filter_norms(weight, w)
    z_norm = filter_norms(weight, drawn if distribution == "uniform" else z)
    if distribution == "uniform":
        z_norm = z_norm / draws.UNIFORM_DENOMINATOR
    per_filter = amplitude * w_norm / (z_norm + NORM_FLOOR)
    return z.mul_(weight.over_filters(per_filter.to(dtype)))


def filter_norms(weight: Weight, values: Tensor) -> Tensor:
    """||v_f|| of each filter, shape (F,) float64, for values of the weight's shape.

    Squares of integers are summed exactly, of floats in float64 by :func:`blocked_sum`; the norm of a
    single element is its absolute value.
    """
    rows = weight.filters(values)
    if rows.shape[1] == 1:
        return rows[:, 0].to(torch.float64).abs()
    if values.dtype == torch.int32:
        return rows.to(torch.int64).square_().sum(dim=1).to(torch.float64).sqrt_()
    return blocked_sum(rows.to(torch.float64).square()).sqrt_()


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
