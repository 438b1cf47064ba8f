import math

import pytest
import references
import torch
from torch import nn

from smoothout import AdaSmoothOut, landscape
from smoothout.noise import draws
from smoothout.noise.draws import NoiseKey
from smoothout.weights import all_weights

KINDS = [("normal", "zero"), ("normal", "scale"), ("uniform", "zero"), ("uniform", "scale")]


def network():
    """Tensors of all kinds: convolutions, grouped and transposed ones, BatchNorm, a Linear, an embedding."""
    return nn.ModuleList(
        [
            nn.Conv2d(4, 6, 3, groups=2),
            nn.ConvTranspose2d(4, 6, 3, groups=2),
            nn.BatchNorm2d(6),
            nn.Linear(7, 5),
            nn.Embedding(4, 3),
            nn.Linear(300, 2),  # filters longer than a block of the sums
        ]
    )


def pair(model, distribution="normal", one_dimensional="zero", seed=3):
    options = {"seed": seed, "distribution": distribution, "one_dimensional": one_dimensional}
    first = landscape.direction(model, **options)
    return first, landscape.direction(model, orthogonal_to=first, **options)


def by_filter(weight, values):
    """Rows of a tensor's filters, found index by index."""
    groups = weight.module.groups if isinstance(weight.module, nn.ConvTranspose2d) else None
    rows = references.filters(weight.parameter, groups)
    return [torch.stack([values[tuple(index)] for index in row]).double() for row in rows]


@pytest.mark.parametrize(("distribution", "one_dimensional"), KINDS)
def test_each_filter_has_the_norm_of_its_filter(distribution, one_dimensional):
    model = network()
    for axis in pair(model, distribution, one_dimensional):
        for weight, part in zip(all_weights(model), axis.vectors[0], strict=True):
            if weight.parameter.dim() > 1:
                for w, d in zip(by_filter(weight, weight.parameter.detach()), by_filter(weight, part), strict=True):
                    assert float(d.norm()) == pytest.approx(float(w.norm()), rel=1e-6)


@pytest.mark.parametrize(("distribution", "one_dimensional"), KINDS)
def test_the_second_direction_is_orthogonal_within_each_filter(distribution, one_dimensional):
    model = network()
    first, second = pair(model, distribution, one_dimensional)
    total = 0.0
    for weight, a, b in zip(all_weights(model), first.vectors[0], second.vectors[0], strict=True):
        for x, y in zip(by_filter(weight, a), by_filter(weight, b), strict=True):
            assert abs(float(x @ y)) <= 1e-6 * float(x.norm() * y.norm())
            total += float(x @ y)
    assert abs(total) < 1e-6 * first.lengths[0] * second.lengths[0]
    assert landscape.span(first, second).doubts([(0.0, 0.0)], "keep") == ()


def test_one_dimensional_tensors_stay_or_move_by_their_own_size():
    model = network()
    zero, scale = landscape.direction(model), landscape.direction(model, one_dimensional="scale")
    signs = []
    for weight, stays, moves in zip(all_weights(model), zero.vectors[0], scale.vectors[0], strict=True):
        if weight.parameter.dim() < 2:
            assert not stays.any()
            torch.testing.assert_close(moves.abs(), weight.parameter.detach().abs(), rtol=1e-6, atol=0)
            signs += (moves * weight.parameter.detach()).sign().tolist()
        else:
            assert torch.equal(stays, moves)
    assert {-1.0, 1.0} <= set(signs)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_draws_have_both_signs_and_the_law_they_are_named_after(distribution):
    model = nn.Linear(10_000, 1)
    [d] = landscape.direction(model, distribution=distribution).vectors[0][:1]
    z = (d / d.square().mean().sqrt()).double().flatten()
    assert abs(float(z.mean())) < 4 / math.sqrt(len(z))
    fourth = {"normal": 3.0, "uniform": 1.8}[distribution]
    assert float(z.pow(4).mean()) == pytest.approx(fourth, rel=0.1)


def test_draws_are_those_of_the_key_whatever_blocks_they_are_made_in():
    model = nn.Linear(300, 500)
    [z] = draws.normal(NoiseKey(5, 0, 2**32 - 1), [0], [150_000], torch.device("cpu"))
    z = z.view(500, 300)
    w = model.weight.detach().double()
    expected = z / z.norm(dim=1, keepdim=True) * w.norm(dim=1, keepdim=True)
    torch.testing.assert_close(landscape.direction(model, seed=5).vectors[0][0], expected.float(), rtol=1e-6, atol=0)


def cosine(a, b):
    dot = sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float((x * x).sum()) for x in a) * sum(float((y * y).sum()) for y in b))


def test_seeds_tell_directions_apart_and_none_is_the_noise_of_training():
    model = nn.Linear(100, 50)
    axes = [landscape.direction(model, seed=seed).vectors[0] for seed in (0, 1, 0)]
    assert abs(cosine(axes[0], axes[1])) < 0.1
    assert all(map(torch.equal, axes[0], axes[2]))
    before = model.weight.detach().clone()
    with AdaSmoothOut(model, 1.0, distribution="normal", seed=0).perturbed():
        theta = model.weight.detach() - before
    assert abs(cosine([theta], axes[0][:1])) < 0.1


def test_a_filter_of_one_element_has_no_second_direction():
    model = nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 2))
    first, second = pair(model, one_dimensional="scale")
    torch.testing.assert_close(first.vectors[0][0].abs(), model[0].weight.detach().abs(), rtol=1e-6, atol=0)
    assert [bool(part.any()) for part in second.vectors[0]] == [False, False, True, False]
    with pytest.raises(ValueError, match="is 0 for all 2 parameters.*Filters of one element have no second direction"):
        pair(nn.Linear(1, 4))


def test_filters_of_zeros_do_not_move():
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight[0].data)
    first, second = pair(model)
    assert not first.vectors[0][0][0].any()
    assert not second.vectors[0][0][0].any()
    assert float(second.vectors[0][0][1].norm()) == pytest.approx(float(model.weight[1].detach().norm()), rel=1e-6)


def test_frozen_weights_are_left_out_and_nothing_is_touched():
    model = network()
    model[0].requires_grad_(False)
    before, rng = [p.detach().clone() for p in model.parameters()], torch.get_rng_state()
    first, second = pair(model)
    assert first.names == second.names == tuple(name for name, p in model.named_parameters() if p.requires_grad)
    assert first.weights == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    assert torch.equal(torch.get_rng_state(), rng)
    assert not any(part.requires_grad for part in first.vectors[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types(dtype):
    model = nn.Linear(8, 4).to(dtype)
    [d, _] = landscape.direction(model).vectors[0]
    assert d.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(d.double().norm(dim=1), model.weight.detach().double().norm(dim=1), rtol=1e-6, atol=0)


def test_the_length_is_euclidean():
    axis = landscape.direction(network())
    assert axis.lengths == (
        pytest.approx(math.sqrt(sum(float(part.square().sum()) for part in axis.vectors[0])), rel=1e-6),
    )


def test_a_skewed_plane_is_doubted():
    model = nn.Linear(30, 5)
    skewed = landscape.span(landscape.direction(model), landscape.direction(model, seed=1))
    assert "the axes are not orthogonal, cosine" in skewed.doubts([(0.0, 0.0)], "keep")[0]


def test_directions_that_are_none():
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(
        ValueError, match=r"is 0 for all 0 parameters with requires_grad.*Call model.requires_grad_\(\)"
    ):
        landscape.direction(frozen)
    with pytest.raises(ValueError, match="is 0 for all 2 parameters.*one_dimensional='scale' if all of them have one"):
        landscape.direction(nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="distribution is 'cauchy'; expected one of 'uniform', 'normal'"):
        landscape.direction(nn.Linear(2, 2), distribution="cauchy")
    with pytest.raises(ValueError, match="one_dimensional is 'skip'; expected one of 'zero', 'scale'"):
        landscape.direction(nn.Linear(2, 2), one_dimensional="skip")
    with pytest.raises(ValueError, match="seed is -1; expected a whole number >= 0"):
        landscape.direction(nn.Linear(2, 2), seed=-1)


def test_directions_of_different_models_do_not_span_a_plane():
    first = landscape.direction(nn.Linear(3, 2))
    with pytest.raises(
        ValueError, match="orthogonal_to is a random direction .* 2 parameters; expected one axis for the 1"
    ):
        landscape.direction(nn.Linear(3, 2, bias=False), orthogonal_to=first)
    with pytest.raises(ValueError, match="orthogonal_to is a random direction"):
        landscape.direction(nn.Linear(4, 2), orthogonal_to=first)
    with pytest.raises(ValueError, match="two directions are for different weights; expected directions of one model"):
        landscape.span(first, landscape.direction(nn.Linear(4, 2)))
    plane = landscape.span(first, first)
    with pytest.raises(ValueError, match="spanned by 2 and 1 axes; expected one and one"):
        landscape.span(plane, first)
    with pytest.raises(ValueError, match="orthogonal_to is a plane .* with 2 axes"):
        landscape.direction(nn.Linear(3, 2), orthogonal_to=plane)
