import copy

import pytest
import torch
from torch import nn

from smoothout.ghost_norm import convert_ghost_batchnorm
from smoothout.running_stats import frozen_running_stats, recompute_running_stats


def network():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3)
    ).double()


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model, before):
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def used(model):
    model.train()
    model(torch.randn(6, 2, 5, 5, dtype=torch.float64) + 1)
    return model


def ragged(sizes=(6, 4, 3)):
    return [torch.randn(size, 2, 5, 5, dtype=torch.float64) + index for index, size in enumerate(sizes)]


@pytest.mark.parametrize("convert", [lambda model: model, lambda model: convert_ghost_batchnorm(model, 2)])
def test_frozen_statistics_stay_to_the_bit_and_the_batch_still_normalises(convert):
    model, x = convert(used(network())), torch.randn(6, 2, 5, 5, dtype=torch.float64)
    buffers, before = list(model.buffers()), state(model)
    model[3].eval()  # dropout: draws would differ
    free = copy.deepcopy(model)(x)
    with frozen_running_stats(model):
        torch.testing.assert_close(model(x), free, rtol=0, atol=0)
    assert same(model, before)
    assert all(a is b for a, b in zip(model.buffers(), buffers, strict=True))
    model(x)
    assert int(model[1].num_batches_tracked) > int(before["1.num_batches_tracked"])


def test_frozen_in_evaluation_uses_the_running_statistics():
    model, x = used(network()).eval(), torch.randn(6, 2, 5, 5, dtype=torch.float64)
    expected = model(x)
    with frozen_running_stats(model):
        assert torch.equal(model(x), expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_frozen_statistics_are_not_poisoned(bad):
    model = used(network())
    before = state(model)
    with frozen_running_stats(model):
        model(torch.full((4, 2, 5, 5), bad, dtype=torch.float64))
    assert same(model, before)


def test_frozen_nested_and_after_an_exception():
    model = used(network())
    model[5].track_running_stats = False
    before = state(model)

    def fail():
        with frozen_running_stats(model), frozen_running_stats(model[1]):
            model(torch.randn(4, 2, 5, 5, dtype=torch.float64))
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fail()
    assert same(model, before)
    assert (model[1].track_running_stats, model[5].track_running_stats) == (True, False)
    with frozen_running_stats(model):
        with frozen_running_stats(model):
            pass
        model(torch.randn(4, 2, 5, 5, dtype=torch.float64))
    assert same(model, before)


def test_recomputed_statistics_are_those_of_all_values_pooled():
    model, batches = used(network()), ragged()
    recompute_running_stats(model, batches)
    values = torch.cat([model[0](x) for x in batches])
    torch.testing.assert_close(model[1].running_mean, values.mean((0, 2, 3)).detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model[1].running_var, values.var((0, 2, 3)).detach(), rtol=1e-12, atol=1e-12)
    assert int(model[1].num_batches_tracked) == 3
    # The second layer sees what the first gives by the statistics of each batch.
    model[1].train()
    with frozen_running_stats(model):
        values = torch.cat([model[4](model[2](model[1](model[0](x)))) for x in batches])
    torch.testing.assert_close(model[5].running_mean, values.mean((0, 2, 3)).detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model[5].running_var, values.var((0, 2, 3)).detach(), rtol=1e-12, atol=1e-12)


def test_ghost_batches_do_not_change_what_the_first_layer_pools():
    plain, batches = network(), ragged()
    ghost = convert_ghost_batchnorm(copy.deepcopy(plain), 2)
    for model in (plain, ghost):
        recompute_running_stats(model, batches)
    torch.testing.assert_close(ghost[1].running_var, plain[1].running_var, rtol=0, atol=0)
    assert int(ghost[1].num_batches_tracked) == 3
    assert not torch.equal(ghost[5].running_mean, plain[5].running_mean)  # its inputs were cut


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_types(dtype):
    norm, x = nn.BatchNorm1d(2), (torch.randn(4000, 2) + 100).to(dtype)
    recompute_running_stats(norm, x.split(7))
    torch.testing.assert_close(norm.running_mean, x.double().mean(0).float(), rtol=1e-5, atol=0)
    torch.testing.assert_close(norm.running_var, x.double().var(0).float(), rtol=1e-4, atol=0)


def test_only_the_statistics_change():
    model = used(network())
    model[1].eval()
    model[1].momentum = None
    modes = [module.training for module in model.modules()]
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    batches = [(x, None) for x in ragged()]
    rng, seen = torch.get_rng_state(), []
    recompute_running_stats(model, batches, lambda net, batch: seen.append(net(batch[0])))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), weights, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert len(seen) == 3
    assert not any(output.requires_grad for output in seen)
    assert torch.equal(torch.get_rng_state(), rng)  # dropout drew nothing
    assert model[1].momentum is None
    assert not model[1]._forward_pre_hooks


def test_batches_may_be_tensors_tuples_or_lists():
    models, batches = [network() for _ in range(3)], ragged()
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    for model, wrap in zip(models, (lambda x: x, lambda x: (x, 1), lambda x: [x]), strict=True):
        recompute_running_stats(model, map(wrap, batches))
    assert same(models[1], state(models[0]))
    assert same(models[2], state(models[0]))


def test_no_batches():
    model = used(network())
    before = state(model)
    with pytest.raises(ValueError, match="there are no batches; expected at least one. Is the iterator used up"):
        recompute_running_stats(model, [])
    assert same(model, before)


def test_an_exception_half_way_leaves_everything_as_it_was():
    model = used(network())
    before, modes = state(model), [module.training for module in model.modules()]
    with pytest.raises(RuntimeError):
        recompute_running_stats(model, [*ragged(), torch.zeros(2, 7, 5, 5, dtype=torch.float64)])
    assert same(model, before)
    assert [module.training for module in model.modules()] == modes
    assert model[1].track_running_stats
    assert not model[1]._forward_pre_hooks


def test_models_with_nothing_to_recompute():
    recompute_running_stats(nn.Linear(2, 2), [])
    recompute_running_stats(nn.BatchNorm1d(2, track_running_stats=False), [])


def test_a_layer_that_no_batch_reaches_keeps_its_statistics():
    model = used(network())
    before = state(model)
    recompute_running_stats(model, ragged(), lambda net, x: net[:2](x))
    assert torch.equal(model[5].running_mean, before["5.running_mean"])
    assert int(model[5].num_batches_tracked) == 1
    assert not torch.equal(model[1].running_mean, before["1.running_mean"])


def test_a_layer_that_is_called_by_keyword():
    norm = nn.BatchNorm1d(2)
    recompute_running_stats(norm, [torch.arange(8.0).view(4, 2)], lambda layer, x: layer(input=x))
    assert norm.running_mean.tolist() == [3.0, 4.0]


def test_a_compiled_model():
    model, batches = network(), ragged()
    expected = copy.deepcopy(model)
    recompute_running_stats(expected, batches)
    compiled = torch.compile(model, backend="aot_eager")
    compiled(batches[0])
    recompute_running_stats(compiled, batches)
    assert same(model, state(expected))
