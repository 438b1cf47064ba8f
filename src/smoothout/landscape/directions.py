"""Random directions whose filters are as long as the weights' own."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from smoothout import _checks
from smoothout._types import Distribution
from smoothout.landscape.displacements import Displacements, Vector
from smoothout.noise import draws
from smoothout.noise.draws import NoiseKey
from smoothout.scaling import filter_norms
from smoothout.weights import Weight, all_weights

#: What becomes of biases and other tensors of fewer than two dimensions.
OneDimensional = Literal["zero", "scale"]

_STREAM = 2**32 - 1  # no ghost batch has this number, so directions and the noise of training share no draws
_BLOCK = 1 << 16  # elements drawn at a time; a draw takes about 100 bytes while it is made
_PARALLEL = 1e-9  # what is left of a filter's draw, relative to it, that is no more than rounding


def direction(
    model: nn.Module,
    *,
    seed: int = 0,
    distribution: Distribution = "normal",
    one_dimensional: OneDimensional = "zero",
    orthogonal_to: Displacements | None = None,
) -> Displacements:
    r"""A random direction, normalised filter by filter.

    .. math:: d_f = \|w_f\| \, z_f / \|z_f\|

    for each filter f of each tensor with two or more dimensions, z drawn, so that a coordinate of 1 moves every filter
    by its own norm, whatever the scale of its layer. Filters are what the noise of training calls so:
    :meth:`smoothout.weights.Weight.filters`. Biases, and weights of BatchNorm, stay.

    With ``orthogonal_to=e``, each z_f is first made orthogonal to e_f, then scaled: the two directions are orthogonal
    in every filter, and the norms hold as well. A filter of one element has no room for a second direction: it gets 0
    there. The draws are others than those of e, also with the same seed.

    Args:
        model: Whose weights with requires_grad are to move.
        seed: Of the draws, which do not depend on the device.
        distribution: Of z: standard normal, or uniform on (-1, 1).
        one_dimensional: "zero", or "scale": an entry w_i of a tensor with one dimension becomes +-\|w_i\|, as in
            SmoothOut's original program, which treats it as a filter.
        orthogonal_to: The first axis of a plane, which :func:`smoothout.landscape.span` then makes of both.

    Raises:
        ValueError: If nothing would move.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> axis = direction(model, seed=1)
        >>> torch.allclose(axis.vectors[0][0].norm(dim=1), model.weight.norm(dim=1))
        True
        >>> axis.vectors[0][1]
        tensor([0., 0.])

    Source: Li et al. 2018 (arXiv 1712.09913), section 4, filter-wise normalisation; that the second direction is made
    orthogonal before scaling, and within each filter, is ours. Random directions of high dimension are nearly
    orthogonal anyway; exactly so, distances in the picture are distances.
    """
    _checks.whole("seed", seed, at_least=0, below=2**64)
    _checks.one_of("distribution", distribution, Distribution)
    _checks.one_of("one_dimensional", one_dimensional, OneDimensional)
    weights = [weight for weight in all_weights(model) if weight.parameter.requires_grad]
    _refuse_wild(weights)
    names = tuple(weight.name for weight in weights)
    firsts = [None] * len(weights) if orthogonal_to is None else _first(orthogonal_to, weights)
    key = NoiseKey(seed, 0, _STREAM, draw=0 if orthogonal_to is None else 1)
    vector = tuple(
        _filterwise(weight, key, distribution, first)
        if weight.parameter.dim() > 1 or one_dimensional == "scale"
        else _zeros(weight)
        for weight, first in zip(weights, firsts, strict=True)
    )
    if not any(bool(part.any()) for part in vector):
        raise ValueError(
            f"the direction is 0 for all {len(weights)} parameters with requires_grad; expected some to move. "
            f"{_remedy(one_dimensional, orthogonal_to)}"
        )
    orthogonal = "" if orthogonal_to is None else ", orthogonal to the first"
    description = f"random direction ({distribution}, by filters, 1-D {one_dimensional}, seed {seed}{orthogonal})"
    return Displacements.of(names, (vector,), description, seed)


def _refuse_wild(weights: list[Weight]) -> None:
    for weight in weights:
        if not bool(weight.parameter.isfinite().all()):
            raise ValueError(
                f"{weight.name} has values that are not finite; expected numbers to look around from. Take a "
                f"checkpoint from before it diverged."
            )


def _remedy(one_dimensional: OneDimensional, orthogonal_to: Displacements | None) -> str:
    if orthogonal_to is not None:
        return "Filters of one element have no second direction: take a line instead of a plane."
    if one_dimensional == "zero":
        return "Call model.requires_grad_(), or pass one_dimensional='scale' if all of them have one dimension."
    return "Call model.requires_grad_(), or train first: weights of 0 do not move."


def _first(axis: Displacements, weights: list[Weight]) -> Vector:
    mine = [(weight.name, weight.parameter.shape) for weight in weights]
    theirs = [(name, part.shape) for name, part in zip(axis.names, axis.vectors[0], strict=True)]
    if mine != theirs or axis.dimensions != 1:
        raise ValueError(
            f"orthogonal_to is a {axis.description} with {axis.dimensions} axes and {len(axis.names)} "
            f"parameters; expected one axis for the {len(weights)} parameters with requires_grad here. Make it from "
            f"this model."
        )
    return axis.vectors[0]


def _zeros(weight: Weight) -> Tensor:
    return torch.zeros_like(weight.parameter, dtype=_dtype(weight), requires_grad=False)


def _dtype(weight: Weight) -> torch.dtype:
    """Half-precision weights would round the direction; float32 is added to them as well."""
    return torch.float64 if weight.parameter.dtype == torch.float64 else torch.float32


@torch.no_grad()
def _filterwise(weight: Weight, key: NoiseKey, distribution: Distribution, first: Tensor | None) -> Tensor:
    """z_f scaled to the norms of the filters; in float64 but for the result."""
    w = weight.parameter
    drawn = torch.cat(list(_draws(weight, key, distribution)) or [w.new_zeros(0, dtype=torch.float64)]).view(w.shape)
    z = drawn if first is None else _orthogonal(weight, drawn, first.to(w.device, torch.float64))
    scale = filter_norms(weight, w) / filter_norms(weight, z)
    return z.mul_(weight.over_filters(scale.nan_to_num(0.0, 0.0))).to(_dtype(weight))  # x / 0: nothing to scale


def _draws(weight: Weight, key: NoiseKey, distribution: Distribution) -> Iterator[Tensor]:
    size, device = weight.parameter.numel(), weight.parameter.device
    draw = draws.normal if distribution == "normal" else draws.uniform_integers
    for start in range(0, size, _BLOCK):
        [block] = draw(key, [weight.ordinal], [min(_BLOCK, size - start)], device, first=start)
        yield block.to(torch.float64)


def _orthogonal(weight: Weight, drawn: Tensor, first: Tensor) -> Tensor:
    """What of each filter's draw is orthogonal to the filter's first direction."""
    lengths = filter_norms(weight, first)
    unit = first * weight.over_filters(lengths.reciprocal().nan_to_num(0.0, 0.0, 0.0))
    z = drawn
    for _ in range(2):  # the second time takes away what rounding left
        z = z - weight.over_filters(weight.filters(z * unit).sum(1)) * unit
    left = filter_norms(weight, z) > _PARALLEL * filter_norms(weight, drawn)
    return z * weight.over_filters(left.to(torch.float64))
