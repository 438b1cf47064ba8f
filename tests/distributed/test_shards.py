"""Noise on weights of which each process holds a part: put together, they are what one process would have."""

import itertools

import pytest
import torch
from four_processes import mesh_of
from torch import distributed as dist
from torch import nn

from smoothout import SmoothOut

SCALES = ("none", "weight", "filter")
DISTRIBUTIONS = ("uniform", "normal")


def line(group):
    from torch.distributed.device_mesh import DeviceMesh

    return DeviceMesh.from_group(group, "cpu")


class Shapes(nn.Module):
    """Weights that four processes cannot share evenly, and some of which they can."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(3)
        shapes = [(5, 7), (3, 4), (12, 6, 3, 3), (9,), (1,), (), (40, 33)]
        self.any = nn.ParameterList([torch.randn(shape, dtype=dtype) for shape in shapes])
        self.split = nn.ConvTranspose2d(8, 6, 3, groups=2, dtype=dtype)  # two inputs of a filter's four
        self.whole = nn.ConvTranspose2d(4, 8, 3, groups=4, dtype=dtype)


def placed(model, mesh, placements):
    """The model with its weights placed on a mesh; a cut along a dimension that a weight lacks is left out."""
    from torch.distributed.tensor import Replicate, distribute_tensor

    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            fit = [Replicate() if getattr(each, "dim", -1) >= parameter.dim() else each for each in placements]
            there = distribute_tensor(parameter.detach(), mesh, fit, src_data_rank=None)
            module._parameters[name] = nn.Parameter(there)
    return model


def full(model):
    """All weights in full, on every process."""
    with torch.no_grad():
        return [p.full_tensor().clone() if hasattr(p, "full_tensor") else p.clone() for p in model.parameters()]


def placements_of(kind):
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.placement_types import _StridedShard

    return {
        "rows": [Shard(0)],
        "columns": [Shard(1)],
        "positions": [Shard(2)],
        "nothing": [Replicate()],
        "rows, columns": [Shard(0), Shard(1)],
        "columns, rows": [Shard(1), Shard(0)],
        "columns twice": [Shard(1), Shard(1)],
        "rows twice": [Shard(0), Shard(0)],
        "rows strided": [_StridedShard(0, split_factor=2), Shard(0)],
        "columns strided": [_StridedShard(1, split_factor=2), Shard(1)],
        "copies of rows": [Replicate(), Shard(0)],
    }[kind]


KINDS = (
    "rows", "columns", "positions", "nothing", "rows, columns", "columns, rows", "columns twice", "rows twice",
    "rows strided", "columns strided", "copies of rows",
)  # fmt: skip


def pair(group, kind, dtype, **options):
    """A whole model and a placed one, with a smoother each."""
    placements = placements_of(kind)
    mesh = line(group) if len(placements) == 1 else mesh_of(2, 2)
    nets = [Shapes(dtype), placed(Shapes(dtype), mesh, placements)]
    return nets, [SmoothOut(net, 0.1, sync="shared", **options) for net in nets]


def noise_is_that_of_the_whole(group, kind, scale, distribution, dtype, plain):
    if plain:
        from smoothout.kernels import choose

        choose.numba_works, before = (lambda *_: False), choose.numba_works
    try:
        nets, smoothers = pair(group, kind, dtype, scale=scale, distribution=distribution)
    finally:
        if plain:
            choose.numba_works = before
    clean = full(nets[1])
    with smoothers[0].perturbed(stream=2) as one, smoothers[1].perturbed(stream=2) as other:
        for _ in zip(one.each(range(2)), other.each(range(2)), strict=True):
            seen = [full(net) for net in nets]
            assert not torch.equal(seen[1][0], clean[0])
            for (name, _), expected, found in zip(nets[0].named_parameters(), *seen, strict=True):
                weight = next(each for each in smoothers[1]._weights if each.name == name)
                if scale == "filter" and weight.split:
                    torch.testing.assert_close(found, expected, rtol=0, atol=4 * torch.finfo(dtype).eps)
                else:
                    assert torch.equal(found, expected), name
    assert all(map(torch.equal, full(nets[1]), clean))
    summaries = [smoother.summary() for smoother in smoothers]
    assert summaries[1].relative_noise == pytest.approx(summaries[0].relative_noise, rel=1e-12)
    for expected, found in zip(*(summary.tensors for summary in summaries), strict=True):
        assert found.relative_noise == pytest.approx(expected.relative_noise, rel=1e-6, nan_ok=True)
        assert (found.name, found.shape, found.filters) == (expected.name, expected.shape, expected.filters)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_that_of_the_whole_weight(processes, kind, scale, distribution):
    for dtype in (torch.float32, torch.float64) if scale == "filter" else (torch.float32,):
        processes(noise_is_that_of_the_whole, kind, scale, distribution, dtype, False)


@pytest.mark.parametrize("kind", ["rows", "columns", "rows strided"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_noise_by_plain_torch_is_the_same(processes, kind, distribution):
    for scale in SCALES:
        processes(noise_is_that_of_the_whole, kind, scale, distribution, torch.float32, True)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_any_number_of_processes(processes, size):
    for kind, scale in itertools.product(("rows", "columns"), SCALES):
        processes(noise_is_that_of_the_whole, kind, scale, "uniform", torch.float32, False, size=size)


def factors(group, kind, distribution):
    """Largest error of split filters' factors, in units in the last place of float32."""
    from smoothout import split_filters
    from smoothout.noise.draws import NoiseKey
    from smoothout.scaling import _filter_factors, draw

    _, smoothers = pair(group, kind, torch.float32, scale="filter", distribution=distribution)
    key, worst = NoiseKey(1, 2, 3), 0.0
    split = split_filters.factors([smoothers[1]._weights], key, 0.1, distribution)
    whole = smoothers[0]._weights
    expected = _filter_factors(whole, draw(whole, key, distribution), 0.1, distribution, {})
    for weight in smoothers[1]._weights:
        if weight.ordinal in split:
            here = expected[[each.name for each in whole].index(weight.name)].expand(weight.parameter.shape).float()
            cut = here[torch.meshgrid(*weight.part.coordinates, indexing="ij")]
            found = split[weight.ordinal].expand(weight.local.shape).float()
            ulp = torch.nextafter(cut, torch.tensor(torch.inf)) - cut
            worst = max([worst, *((found - cut).abs() / ulp).flatten().tolist()])
    return len(split), worst


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_factors_of_split_filters_are_within_one_unit_in_the_last_place(processes, distribution):
    for kind, count in (("rows", 1), ("columns", 4), ("positions", 3), ("columns strided", 4), ("rows, columns", 4)):
        for split, worst in processes(factors, kind, distribution):
            assert split == count
            assert worst <= 1


def messages(group, kind, scale):
    """How many all-reduces one draw needs."""
    _, smoothers = pair(group, kind, torch.float32, scale=scale)
    sent, before = [], dist.all_reduce

    def counted(values, **options):
        sent.append(values.numel())
        return before(values, **options)

    dist.all_reduce = counted
    try:
        with smoothers[1].perturbed():
            return len(sent)
    finally:
        dist.all_reduce = before


def test_one_message_for_each_dimension_of_the_mesh_that_splits_filters(processes):
    for scale in ("none", "weight"):
        assert processes(messages, "columns twice", scale) == [0] * 4
    for kind, count in (("columns twice", 2), ("rows, columns", 1), ("columns", 1), ("rows twice", 2)):
        assert processes(messages, kind, "filter") == [count] * 4


def drawn(group, rows):
    """Blocks of draws that each process makes."""
    from torch.distributed.tensor import Shard

    from smoothout.noise import draws
    from smoothout.scaling import draw

    net = placed(nn.Linear(16, rows, bias=False), line(group), [Shard(0)])
    smoother = SmoothOut(net, 0.1, sync="shared")
    made, before = [], draws.philox4x32
    draws.philox4x32 = lambda counter, key: made.append(len(counter[0])) or before(counter, key)
    try:
        draw(smoother._weights, draws.NoiseKey(0, 0), "uniform")
    finally:
        draws.philox4x32 = before
    assert [len(kernel.weights) for kernel in smoother._fused] == [1]  # and the compiled kernel takes such shards
    return sum(made)


def test_draws_fall_with_the_number_of_processes(processes):
    for size in (1, 2, 4):
        assert processes(drawn, 64, size=size) == [64 * 16 // 8 // size] * size
