"""FSDP2: weights that modules gather for each use, and give up again."""

import warnings

import pytest
import torch
from four_processes import mesh_of
from torch import nn

from smoothout import SmoothOut

X = torch.linspace(-1, 1, 24, dtype=torch.float64).view(4, 6)


def net():
    """Sizes that four processes cannot share evenly: 5 and 3 rows."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(6, 5), nn.Tanh(), nn.Sequential(nn.Linear(5, 8), nn.Tanh()), nn.Linear(8, 3)
    ).double()


def sharded(**options):
    from torch.distributed.fsdp import fully_shard

    model, mesh = net(), options.pop("mesh", None) or mesh_of()
    fully_shard(model[2], mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def gathered(model):
    """Whether any of its weights are there in full."""
    return any(not hasattr(parameter, "full_tensor") for parameter in model.parameters())


def output(model):
    with torch.no_grad():
        return model(X)


def full(model):
    model.reshard(), model[2].reshard()
    return [parameter.full_tensor() for parameter in model.parameters()]


def gradients(model):
    return [p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for p in model.parameters()]


def made(case):
    """A sharded model, some of which keep what they have gathered."""
    if case == "not after forward":
        return sharded(reshard_after_forward=False)
    if case == "two of four":
        return sharded(mesh=mesh_of(2, 2, names=("copy", "shard")))
    if case == "to a part":
        return sharded(reshard_after_forward=2)
    model = sharded()
    if case == "not after backward":
        model.set_reshard_after_backward(False)
    if case == "accumulating":
        model.set_reshard_after_backward(False)
        model.set_requires_gradient_sync(False)
    return model


def disturb(model, case):
    """What may happen to it before a block."""
    if case == "gathered before":
        output(model)
        assert gathered(model)
    if case == "gathered by hand":
        model.unshard(), model[2].unshard()
    if case == "asked for":
        model.unshard(async_op=True)
    if case == "event":
        model.set_post_optim_event(torch.Event())


CASES = (
    "default", "not after forward", "not after backward", "accumulating", "gathered before", "gathered by hand",
    "asked for", "two of four", "to a part", "event",
)  # fmt: skip


def train(model, smoother, case, evaluate):
    """Outputs in two ghost batches, and gradients; the last backward is the one that adds up over processes."""
    found = []
    with smoother.perturbed() as noise:
        for index, shift in enumerate(noise.each((0.0, 0.5))):
            if case == "accumulating" and hasattr(model, "reshard"):
                model.set_requires_gradient_sync(index == 1)
            if evaluate:
                found.append(output(model))
            y = model(X + shift)
            found.append(y.detach())
            y.square().sum().backward()
    return found, gradients(model)


def as_one_process(group, case, evaluate):
    model, whole = made(case), net()
    smoothers = [SmoothOut(each, 0.2, **({"sync": "shared"} if each is whole else {})) for each in (whole, model)]
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (whole, model)]
    clean = output(whole)
    for _ in range(2):
        disturb(model, case)
        expected, slopes = train(whole, smoothers[0], case, evaluate)
        found, others = train(model, smoothers[1], case, evaluate)
        assert not torch.equal(expected[0], clean)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(others, slopes, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(output(model), output(whole), rtol=1e-12, atol=1e-14)
        for optimizer, smoother in zip(optimizers, smoothers, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            smoother.step()
        model.reshard(), model[2].reshard()
    torch.testing.assert_close(full(model), list(whole.parameters()), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("evaluate", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_as_one_process(processes, case, evaluate):
    processes(as_one_process, case, evaluate)


def restored(group, case, scale, distribution):
    model = made(case)
    before = full(made("default"))
    smoother = SmoothOut(model, 0.2, scale=scale, distribution=distribution)
    clean = output(model)
    disturb(model, case)
    with smoother.perturbed():
        noisy = output(model)
    assert not torch.equal(noisy, clean)
    assert torch.equal(output(model), clean)  # what the noisy forward gathered is given up
    assert all(map(torch.equal, full(model), before))


@pytest.mark.parametrize("case", CASES)
def test_restored(processes, case):
    for scale, distribution in (("none", "uniform"), ("filter", "normal")):
        processes(restored, case, scale, distribution)


def late(group, case, moment):
    model = made(case)
    smoother = SmoothOut(model, 0.2)
    with smoother.perturbed() as noise:
        for index in noise.each(range(2)):
            if index == 0:
                loss = model(X).sum()
        if moment == "draw":
            late_backward(loss)
    if moment == "exit":
        late_backward(loss)


def late_backward(loss):
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("moment", ["draw", "exit"])
@pytest.mark.parametrize("case", ["default", "not after forward", "not after backward"])
def test_a_late_backward_raises(processes, case, moment):
    processes(late, case, moment)


class Stops(nn.Module):
    def forward(self, x):
        raise KeyError("in the forward")


def stopped(group):
    model = sharded(reshard_after_forward=False)
    clean = output(model)
    kept, model[2][1] = model[2][1], Stops()
    smoother = SmoothOut(model, 0.2)
    with pytest.raises(KeyError), smoother.perturbed():
        model(X)
    assert not gathered(model)
    model[2][1] = kept
    model.reset_iter_state()
    assert torch.equal(output(model), clean)


def test_an_exception_in_the_forward(processes):
    processes(stopped)


def followed(group):
    """What may happen to a model after its smoother was made."""
    from torch.distributed.fsdp import fully_shard

    model = net()
    smoother, others = SmoothOut(model, 0.2), SmoothOut(net(), 0.2, sync="shared")
    fully_shard(model, mesh=mesh_of())
    noisy_as(smoother, others)
    model.load_state_dict({name: values.clone() for name, values in model.state_dict().items()}, assign=True)
    noisy_as(smoother, others)
    output(model)
    model.float(), others._source.float()
    noisy_as(smoother, others)
    model[0].weight.requires_grad_(False), others._source[0].weight.requires_grad_(False)
    noisy_as(smoother, others)


def noisy_as(smoother, others):
    with smoother.perturbed(3), others.perturbed(3):
        for ours, whole in zip(smoother._source.parameters(), others._source.parameters(), strict=True):
            assert torch.equal(ours.full_tensor(), whole)


def test_followed(processes):
    processes(followed)


def refused(group):
    model = sharded()
    smoother = SmoothOut(model, 0.2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    found = []
    model(X).sum().backward()
    with pytest.raises(RuntimeError) as error, smoother.perturbed():
        optimizer.step()
    found.append(str(error.value))
    optimizer.step()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with smoother.perturbed():
            pass
    found += [str(each.message) for each in told]
    with pytest.raises(RuntimeError) as error, smoother.perturbed(), torch.no_grad():
        model[0].weight.add_(1)
    return [*found, str(error.value)]


def test_refused(processes):
    for step, forgotten, written in processes(refused):
        assert step.startswith("SGD.step() inside the perturbed() block")
        assert "smoother.step() was not called" in forgotten
        assert written.startswith("'0.weight' was written inside the block")


def kept(group):
    """denoise=False, and a strength that is found, on weights that are sharded."""
    ours, whole = sharded(), net()
    for model, options in ((ours, {}), (whole, {"sync": "shared"})):
        smoother = SmoothOut(model, 0.2, denoise=False, **options)
        for _ in range(2):
            with smoother.perturbed():
                output(model)
            smoother.step()
    assert torch.equal(torch.cat([p.flatten() for p in full(ours)]), nn.utils.parameters_to_vector(whole.parameters()))
    return SmoothOut(ours, "auto").strength, SmoothOut(whole, "auto", sync="shared").strength


def test_noise_that_stays_and_the_first_strength(processes):
    for ours, whole in processes(kept):
        assert ours == pytest.approx(whole, rel=1e-12)


def mixed(group):
    """Half precision for what is gathered: noise is added before the cast."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    whole = net().float()
    model = fully_shard(net().float(), mesh=mesh_of(), mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    smoothers = SmoothOut(whole, 0.2, sync="shared"), SmoothOut(model, 0.2)
    with smoothers[0].perturbed(), smoothers[1].perturbed():
        cast = net().bfloat16()
        with torch.no_grad():
            for there, here in zip(cast.parameters(), whole.parameters(), strict=True):
                there.copy_(here)
        assert torch.equal(output_of(model, X.bfloat16()), output_of(cast, X.bfloat16()))


def output_of(model, x):
    with torch.no_grad():
        return model(x)


def test_mixed_precision(processes):
    processes(mixed)


def older(group):
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(net(), device_id=torch.device("cpu"), use_orig_params=True)
    with pytest.raises(TypeError) as error:
        SmoothOut(nn.Sequential(model), 0.2)
    return str(error.value)


def test_flat_parameters_are_refused(processes):
    for found in processes(older):
        assert found == (
            "the model is in FullyShardedDataParallel, which keeps weights in flat parameters of its own; expected a "
            "plain model or one of fully_shard. Use torch.distributed.fsdp.fully_shard."
        )
