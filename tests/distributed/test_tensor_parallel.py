"""Tensor parallel layers, with and without fully_shard around them."""

import pytest
import torch
from four_processes import mesh_of
from torch import nn

from smoothout import SmoothOut

X = torch.linspace(-1, 1, 24, dtype=torch.float64).view(4, 6)


def net(dtype):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.Linear(4, 3)).to(dtype)


def parallel(group, dtype, shape):
    """The first layer cut by rows, the next by columns, the last not at all; ``shape`` is (fully_shard, parallel)."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    model, plan = net(dtype), {"0": ColwiseParallel(), "2": RowwiseParallel()}
    if shape[0] == 1:
        return parallelize_module(model, DeviceMesh.from_group(group, "cpu"), plan)
    mesh = mesh_of(*shape, names=("dp", "tp"))
    return fully_shard(parallelize_module(model, mesh["tp"], plan), mesh=mesh["dp"])


def full(model):
    with torch.no_grad():
        return [p.full_tensor() if hasattr(p, "full_tensor") else p.clone() for p in model.parameters()]


def agrees(group, dtype, shape, scale, distribution):
    whole, model = net(dtype), parallel(group, dtype, shape)
    smoothers = [SmoothOut(each, 0.2, scale=scale, distribution=distribution, sync="shared") for each in (whole, model)]
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    optimizers = [torch.optim.Adam(each.parameters(), lr=0.01) for each in (whole, model)]
    for _ in range(2):
        with smoothers[0].perturbed() as one, smoothers[1].perturbed() as other:
            for _ in zip(one.each(range(2)), other.each(range(2)), strict=True):
                outputs = [each(X.to(dtype)) for each in (whole, model)]
                torch.testing.assert_close(*outputs, rtol=tolerance, atol=tolerance)
                for each in outputs:
                    each.square().sum().backward()
        with smoothers[1].perturbed(7), smoothers[0].perturbed(7):
            if scale != "filter" and smoothers[1].updates == 0:
                assert all(map(torch.equal, full(model), full(whole)))
            torch.testing.assert_close(full(model), full(whole), rtol=tolerance, atol=tolerance)
        for optimizer, smoother in zip(optimizers, smoothers, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            smoother.step()
    torch.testing.assert_close(full(model), full(whole), rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("scale", ["none", "weight", "filter"])
@pytest.mark.parametrize("shape", [(1, 2), (1, 4), (2, 2)])
def test_agrees_with_one_process(processes, shape, scale):
    for dtype, distribution in ((torch.float32, "uniform"), (torch.float64, "normal")):
        processes(agrees, dtype, shape, scale, distribution, size=shape[0] * shape[1])


def late(group, shape):
    model = parallel(group, torch.float64, shape)
    with SmoothOut(model, 0.2).perturbed():
        loss = model(X).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("shape", [(1, 4), (2, 2)])
def test_a_late_backward_raises(processes, shape):
    processes(late, shape)
