"""Saved by some processes with torch.distributed.checkpoint, and resumed by fewer."""

import functools

import pytest
import torch
from torch import distributed as dist
from torch import nn

from smoothout import AutoStrength, SmoothOut

STEPS, SAVED = 6, 3


@functools.cache
def alone():
    """A group of this process."""
    return dist.new_group([dist.get_rank()], use_local_synchronization=True)


def parts(group, scale, strength):
    """Model, optimizer and smoother of a group; no process has a copy of the weights of its own."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    fully_shard(model, mesh=DeviceMesh.from_group(group, "cpu"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    return model, optimizer, SmoothOut(model, strength, scale=scale, process_group=alone())


def train(model, optimizer, smoother, steps):
    for step in steps:
        torch.manual_seed(step)
        with smoother.perturbed() as noise:
            for x in noise.each(torch.randn(3, 8, 6, dtype=torch.float64)):
                loss = model(x).square().mean()
                smoother.observe(loss.detach())
                loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        smoother.step()
    model.reshard()
    return [parameter.full_tensor().detach() for parameter in model.parameters()], smoother.strength


def saved(model, optimizer, smoother):
    """What is saved: the model and the optimizer by names, and the smoother as it is."""
    from torch.distributed.checkpoint.state_dict import get_state_dict

    weights, state = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": state, "smoother": smoother}


def save(group, folder, scale, strength):
    import torch.distributed.checkpoint as dcp

    all_of_it = parts(group, scale, strength)
    train(*all_of_it, range(SAVED))
    dcp.save(saved(*all_of_it), checkpoint_id=folder, process_group=group)
    return train(*all_of_it, range(SAVED, STEPS))


def resume(group, folder, scale, strength):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import set_state_dict

    model, optimizer, smoother = parts(group, scale, strength)
    state = saved(model, optimizer, smoother)
    dcp.load(state, checkpoint_id=folder, process_group=group)
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    assert smoother.updates == SAVED
    return train(model, optimizer, smoother, range(SAVED, STEPS))


@pytest.mark.parametrize("scale", ["none", "filter"])
@pytest.mark.parametrize("strength", [0.2, AutoStrength(speed=0.1)])
def test_goes_on_with_the_same_noise(processes, tmp_path, scale, strength):
    [(expected, found_strength), *_] = processes(save, str(tmp_path), scale, strength, size=4)
    for size in (4, 2, 1):
        for weights, its_strength in processes(resume, str(tmp_path), scale, strength, size=size):
            torch.testing.assert_close(weights, expected, rtol=1e-12, atol=1e-14)
            assert its_strength == pytest.approx(found_strength, rel=1e-12)
