"""Filters of which several processes hold pieces: their norms are added up, then each process scales its own piece.

A row of a Linear that is cut by columns is such a filter, or an output channel of a transposed convolution whose inputs
are cut. Squares of uniform draws are added exactly; those of weights and of normal draws in float64, in an order that
depends on the number of processes, so that the factor a ||w_f|| / (||z_f|| + 1e-6) is that of the whole filter within
one unit in the last place of float32.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from smoothout import shards
from smoothout._types import Distribution
from smoothout.noise.draws import NoiseKey
from smoothout.noise.elementary import exact_sqrt
from smoothout.scaling import draw, factor_of, integer_squares, sums_of_squares
from smoothout.weights import Weight

#: Sums of squares of integers travel as two float64, so that no bit is lost however many are added.
_LOW = 1 << 26


def factors(
    groups: Sequence[Sequence[Weight]], key: NoiseKey, amplitude: float, distribution: Distribution
) -> dict[int, Tensor]:
    """By ordinal, the factors of those weights whose filters are split, in shapes that multiply what is held.

    All processes of the weights' meshes call it, with the same weights. Draws are made here and again where they are
    used, so that only one group's are in memory.
    """
    weights: list[Weight] = []
    sums: list[Tensor] = []
    for group in groups:
        mine = [weight for weight in group if weight.split]
        if mine:
            weights += mine
            sums += _squares(mine, draw(mine, key, distribution))
    summed = shards.add_up(sums, [weight.split for weight in weights])
    return {
        weight.ordinal: _over_part(weight, factor_of(*_norms(each), amplitude, distribution))
        for weight, each in zip(weights, summed, strict=True)
    }


def _squares(weights: Sequence[Weight], drawn: Sequence[Tensor]) -> list[Tensor]:
    """Sums of w^2, and of z^2 in one or two parts, of each filter's piece here; (2 or 3, F) float64."""
    found = []
    for weight, z in zip(weights, drawn, strict=True):
        shaped = z.view(weight.local.shape)
        if z.is_floating_point():
            parts = [_by_filter(weight, shaped, sums_of_squares)]
        else:
            of_z = _by_filter(weight, shaped, integer_squares)
            parts = [(of_z // _LOW).to(torch.float64), (of_z % _LOW).to(torch.float64)]
        found.append(torch.stack([_by_filter(weight, weight.local.detach(), sums_of_squares), *parts]))
    return found


def _norms(summed: Tensor) -> tuple[Tensor, Tensor]:
    """||w_f|| and ||z_f||."""
    of_w, *parts = summed
    of_z = parts[0] if len(parts) == 1 else parts[0] * _LOW + parts[1]
    return exact_sqrt(of_w), exact_sqrt(of_z)


def _by_filter(weight: Weight, values: Tensor, squares: Callable[[Tensor], Tensor]) -> Tensor:
    """Sums of squares over each filter's piece, (F,) for the filters of which this process may hold something."""
    if not weight.transposed:
        return squares(values.flatten(1))
    inputs, outputs = values.shape[:2]
    sums = squares(values.flatten(0, 1).flatten(1)).view(inputs, outputs)
    groups, group_of = _input_groups(weight)
    return sums.new_zeros(groups, outputs).index_add_(0, group_of, sums).flatten()


def _over_part(weight: Weight, per_filter: Tensor) -> Tensor:
    """One value per filter, in a shape that multiplies what is held."""
    inputs, outputs, *pixels = weight.local.shape
    ones = [1] * len(pixels)
    if not weight.transposed:
        return per_filter.view(inputs, 1, *ones)
    groups, group_of = _input_groups(weight)
    return per_filter.view(groups, outputs)[group_of].view(inputs, outputs, *ones)


def _input_groups(weight: Weight) -> tuple[int, Tensor]:
    """Of a transposed convolution: the number of groups, and which of them each input held here belongs to."""
    assert weight.part is not None
    groups = weight.filter_count // weight.parameter.shape[1]
    per_group = weight.parameter.shape[0] // groups
    return groups, (weight.part.coordinates[0] // per_group).to(weight.local.device)
