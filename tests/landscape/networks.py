"""A small network with BatchNorm, data for it, and its loss by hand."""

import copy

import torch
from torch import nn
from torch.nn import functional


def network(seed, *, used=True):
    """With running statistics that are far from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
        if used:
            model[1].running_mean.copy_(torch.randn(8, generator=generator) * 0.3)
            model[1].running_var.copy_(torch.rand(8, generator=generator) * 2 + 0.1)
            model[1].num_batches_tracked.fill_(7 + seed)
    return model


def batches(sizes=(20, 13, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(sum(sizes), 5, generator=generator), torch.randint(0, 3, (sum(sizes),), generator=generator)
    return list(zip(x.split(list(sizes)), y.split(list(sizes)), strict=True))


@torch.no_grad()
def by_hand(model, state, data):
    """Loss and error of a state, from all samples at once, in a copy of the model."""
    model = copy.deepcopy(model).eval()
    model.load_state_dict(state)
    logits = model(torch.cat([x for x, _ in data]))
    y = torch.cat([y for _, y in data])
    losses = functional.cross_entropy(logits, y, reduction="none").double()
    return float(losses.mean()), 100 * float((logits.argmax(1) != y).double().mean())


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_state(model, before):
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
