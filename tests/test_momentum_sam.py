"""Momentum-SAM against its formula."""

import pytest
import torch
from torch import nn

from smoothout import MomentumSAM


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))


def trained(optimizer=torch.optim.SGD, steps=2, **options):
    model = net()
    made = optimizer(model.parameters(), lr=0.1, **options)
    for _ in range(steps):
        model(torch.randn(8, 4)).square().sum().backward()
        made.step()
        made.zero_grad()
    return model, made


@pytest.mark.parametrize("rho", [0.3, -0.3])
@pytest.mark.parametrize("optimizer, name", [(torch.optim.SGD, "momentum_buffer"), (torch.optim.AdamW, "exp_avg")])
def test_weights_move_against_the_momentum_and_come_back(optimizer, name, rho):
    model, made = trained(optimizer, **({"momentum": 0.9} if optimizer is torch.optim.SGD else {}))
    before = [p.detach().clone() for p in model.parameters()]
    buffers = [made.state[p][name] for p in model.parameters()]
    norm = torch.cat([b.flatten() for b in buffers]).norm()
    with MomentumSAM(model, made, rho).perturbed():
        for parameter, start, buffer in zip(model.parameters(), before, buffers, strict=True):
            torch.testing.assert_close(parameter.detach(), start - rho * buffer / norm)
        moved = torch.cat([(p - b).flatten() for p, b in zip(model.parameters(), before, strict=True)]).norm()
    assert moved.item() == pytest.approx(abs(rho), rel=1e-5)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_before_the_first_step_nothing_moves():
    model, made = trained(steps=0, momentum=0.9)
    versions = [p._version for p in model.parameters()]
    with MomentumSAM(model, made, 0.3).perturbed():
        pass
    assert [p._version for p in model.parameters()] == versions


def test_the_optimizer_of_another_model():
    _, made = trained(momentum=0.9)
    with pytest.raises(ValueError, match="SGD trains none of the 6 tensors.*Pass the optimizer of this model"):
        MomentumSAM(net(), made, 0.3)


def test_momentum_under_another_name():
    class Renamed(torch.optim.SGD):
        def step(self):
            super().step()
            for state in self.state.values():
                state["average"] = state.pop("momentum_buffer", None)

    model, made = trained(Renamed, steps=1, momentum=0.9)
    with pytest.raises(RuntimeError, match=r"Renamed keeps \['average'\] of each weight; expected momentum_buffer or"):
        MomentumSAM(model, made, 0.3).perturbed().__enter__()


def test_a_buffer_left_over_from_momentum_is_not_followed():
    model, made = trained(momentum=0.9)
    sam = MomentumSAM(model, made, 0.3)
    made.param_groups[0]["momentum"] = 0.0
    before = [p.detach().clone() for p in model.parameters()]
    with sam.perturbed():
        assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_rho_0_is_off():
    model, made = trained(momentum=0.9)
    versions = [p._version for p in model.parameters()]
    with MomentumSAM(model, made, 0).perturbed():
        pass
    assert [p._version for p in model.parameters()] == versions


def test_weights_come_back_after_an_error():
    model, made = trained(momentum=0.9)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(KeyError), MomentumSAM(model, made, 0.3).perturbed():
        raise KeyError
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_weights_without_a_buffer_stay():
    model, made = trained(momentum=0.9)
    del made.state[model[0].weight]["momentum_buffer"]
    start = model[0].weight.detach().clone()
    with MomentumSAM(model, made, 0.3).perturbed():
        assert torch.equal(model[0].weight, start)
        assert model[2].weight.grad_fn is None


def test_state():
    model, made = trained(momentum=0.9)
    first, second = MomentumSAM(model, made, 0.3), MomentumSAM(model, made, 0.1)
    first.step()
    second.load_state_dict(first.state_dict())
    assert (second.updates, second.rho) == (1, 0.3)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adagrad])
def test_an_optimizer_without_momentum(optimizer):
    model = net()
    with pytest.raises(ValueError, match=f"{optimizer.__name__} keeps no momentum.*Give momentum=0.9"):
        MomentumSAM(model, optimizer(model.parameters(), lr=0.1), 0.3)


def test_rho_must_be_finite():
    model, made = trained(momentum=0.9)
    with pytest.raises(ValueError, match="rho is nan; expected a finite number"):
        MomentumSAM(model, made, float("nan"))
