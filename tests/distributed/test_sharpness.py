"""Measures whose passes over the data several processes share, against one process alone."""

import math
from dataclasses import asdict

import pytest
import torch
from once_differentiable import Tanh
from torch import nn

from smoothout import sharpness
from smoothout.objective import Objective
from smoothout.ranks import ranks_of
from smoothout.samples import Samples
from smoothout.sharpness.scan import scan

SIZES = (9, 4, 9, 7, 1, 9)  # 1 is not a multiple of anything; 4 processes get 2, 2, 1 and 1 of them
BYTES = 9 * (5 * 8 + 8)  # of the largest batch

# What follows from gradients and Hessian products is equal but for rounding: sums over batches have another order.
# Measures magnify it, as differences of losses and orthogonalisation do.
GRADIENT = {torch.float64: 1e-12, torch.float32: 1e-5}
MEASURE = {torch.float64: 1e-9, torch.float32: 2e-3}
CALLS = {
    "noise": {"strength": 0.1, "pairs": 3, "max_pairs": 6},
    "box": {"iterations": 4},
    "manifold": {"manifold": 3, "draws": 2, "iterations": 4},
    "ball": {"steps": 1, "batch_size": 8, "samples": 30},
    "ascent": {"steps": 5, "batch_size": 8, "samples": 30},
    "adaptive": {"batch_size": 8, "samples": 30},
    "hessian": {"count": 2, "probes": (2, 4)},
    "spectrum": {"probes": 2, "steps": 6, "grid": 20},
}
FUNCTIONS = {"manifold": "box", "ascent": "ball"}


def network(dtype=torch.float64):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3)).to(dtype)
    for _ in range(3):
        model(torch.randn(40, 5, dtype=dtype))
    return model


def batches(sizes=SIZES, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(sum(sizes), 5, dtype=dtype, generator=generator)
    targets = torch.randint(0, 3, (sum(sizes),), generator=generator)
    return list(zip(inputs.split(list(sizes)), targets.split(list(sizes)), strict=True))


def numbers(record):
    found = asdict(record)
    del found["seconds"], found["center"]["versions"]
    return found


def exact(found):
    """What is made of values alone, to the last bit; nan is nan."""
    return repr({**found, "center": {**found["center"], "max_gradient": 0}})


def measure_all(group, names, dtype, alone):
    """Every measure; ``alone`` in this process without a group, as a user of one process does."""
    found = {}
    for name in names:
        function = getattr(sharpness, FUNCTIONS.get(name, name))
        model = network(dtype)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        given = {} if alone else {"process_group": group}
        found[name] = numbers(function(model, batches(dtype=dtype), **CALLS[name], **given))
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert model.training
    return found


def flat(value):
    if isinstance(value, dict):
        return {f"{key}.{inner}": each for key, part in value.items() for inner, each in flat(part).items()}
    if isinstance(value, (tuple, list)):
        return flat(dict(enumerate(value)))
    return {"": value}


def compare(found, expected, rel):
    found, expected = flat(found), flat(expected)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, float) and not math.isnan(value):
            assert found[key] == pytest.approx(value, rel=rel, abs=rel), key
        elif not isinstance(value, float):
            assert found[key] == value, key


@pytest.mark.parametrize("size", [2, 3, 4])
def test_every_measure(processes, size):
    expected = measure_all(None, CALLS, torch.float64, True)
    everyone = processes(measure_all, CALLS, torch.float64, False, size=size)
    for found in everyone:
        assert exact(found["noise"]) == exact(expected["noise"])
        assert repr(found) == repr(everyone[0])  # to the last bit; nan is nan
        for name in CALLS:
            compare(found[name], expected[name], MEASURE[torch.float64])
            assert found[name]["center"]["loss"] == expected[name]["center"]["loss"]
        for name in ("ball", "ascent", "adaptive"):  # of batches of their own, each in one process
            assert found[name]["per_batch"] == expected[name]["per_batch"]


def test_float32(processes):
    names = [name for name in CALLS if name != "spectrum"]
    expected = measure_all(None, names, torch.float32, True)
    for found in processes(measure_all, names, torch.float32, False, size=3):
        assert exact(found["noise"]) == exact(expected["noise"])
        for name in ("ball", "adaptive", "box"):
            assert found[name]["value"] == pytest.approx(expected[name]["value"], rel=MEASURE[torch.float32])
        assert found["hessian"]["value"] == pytest.approx(expected["hessian"]["value"], rel=MEASURE[torch.float32])


def evaluate(group, dtype, room):
    """Value, gradient and product at a displaced point, and passes of this process through the network."""
    model, data = network(dtype), batches(dtype=dtype)
    given = Samples(data, torch.device("cpu"), room=room) if room else data
    seen = []
    model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    generator = torch.Generator().manual_seed(1)
    offsets = [0.1 * torch.randn(p.shape, generator=generator).to(dtype) for p in model.parameters()]
    with Objective(model, given, process_group=group) as objective:
        seen.clear()
        value = objective.value(offsets)
        passes = list(seen)
        again, gradient = objective.gradient(offsets)
        product = objective.hessian_product(offsets, offsets)
        assert objective.samples.resident == (room is None)
    return value, again, objective.flat(gradient), objective.flat(product), passes, objective.center


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("room", [None, BYTES], ids=["kept", "read again"])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_values_are_equal_and_gradients_but_for_rounding(processes, size, room, dtype):
    value, again, gradient, product, passes, center = evaluate(None, dtype, room)
    assert passes == list(SIZES)
    for rank, found in enumerate(everyone := processes(evaluate, dtype, room, size=size)):
        assert (found[0], found[1]) == (value, again)
        assert found[4] == list(SIZES[rank::size])
        for mine, first, alone in zip(found[2:4], everyone[0][2:4], (gradient, product), strict=True):
            assert torch.equal(mine, first)
            assert float((mine - alone).norm()) <= GRADIENT[dtype] * float(alone.norm())
        assert (found[5].loss, found[5].error1, found[5].samples) == (center.loss, center.error1, center.samples)


def of_two_batches(group):
    with Objective(network(), batches((5, 3)), process_group=group) as objective:
        return objective.value(), objective.center.error1, objective.hessian_product(objective.slope)


def test_processes_without_a_batch(processes):
    value, error, product = of_two_batches(None)
    for found in processes(of_two_batches, size=4):
        assert found[:2] == (value, error)
        for mine, alone in zip(found[2], product, strict=True):
            assert torch.allclose(mine, alone, rtol=1e-12, atol=1e-14)


def awkward(outputs, targets):
    """Losses whose sum depends on the order."""
    return outputs.sum(1) * 0 + torch.tensor([1e16, 1.0, -1e16, 1.0, math.pi, 1e-3])[targets]


def sum_awkward(group):
    data = [(torch.zeros(1, 5, dtype=torch.float64), torch.tensor([kind])) for kind in (0, 1, 2, 3, 4, 5)]
    with Objective(network(), data, awkward, process_group=group) as objective:
        return objective.value(), objective.gradient()[0]


def test_losses_are_added_in_the_order_of_the_batches(processes):
    expected = 0.0
    for loss in torch.tensor([1e16, 1.0, -1e16, 1.0, math.pi, 1e-3]).double().tolist():
        expected += loss
    for size in (1, 3):
        assert processes(sum_awkward, size=size) == [(expected / 6, expected / 6)] * size


def infinite(outputs, targets):
    return outputs.sum(1) * 0 + torch.where(targets == 2, math.inf, 1.0)


def not_finite(group):
    with pytest.raises(ValueError, match="loss at the weights themselves is inf") as error:
        sharpness.noise(network(), batches(), infinite, strength=0.1, process_group=group)
    return str(error.value)


def test_what_is_not_finite_is_told_by_all(processes):
    assert len(set(processes(not_finite, size=3))) == 1


def no_classes(group):
    data = [(inputs, inputs[:, :3]) for inputs, _ in batches()]
    return numbers(
        sharpness.noise(network(), data, nn.MSELoss(), strength=0.1, pairs=2, max_pairs=2, process_group=group)
    )


def test_no_errors_are_counted_without_classes(processes):
    expected = no_classes(None)
    assert math.isnan(expected["error1_rise"])
    assert [exact(found) for found in processes(no_classes, size=4)] == [exact(expected)] * 4


def by_differences(group):
    """Every process must change to finite differences, those without a batch, too."""
    once = torch.nn.Sequential(nn.Linear(5, 3), Tanh(True)).double()
    torch.manual_seed(5)
    for parameter in once.parameters():
        nn.init.normal_(parameter)
    with Objective(once, batches((5, 3)), process_group=group) as objective:
        return objective.flat(objective.hessian_product(objective.slope)), objective.products


def test_finite_differences(processes):
    expected, products = by_differences(None)
    assert products == "finite differences"
    for found, made_by in processes(by_differences, size=3):
        assert made_by == products
        assert float((found - expected).norm()) <= 1e-6 * float(expected.norm())


def scanned(group):
    return [numbers(each) for each in scan(network(), batches(), strengths=(0.01, 0.1), process_group=group).points]


def test_scan(processes):
    expected = [exact(each) for each in scanned(None)]
    for found in processes(scanned, size=2):
        assert [exact(each) for each in found] == expected


# -- what differs, and what fails -------------------------------------------------------------------------------------


def refused(group, what):
    rank = ranks_of(group).rank
    model, data = network(), batches()
    if what == "count":
        data = data[: len(data) - rank]
    if what == "order" and rank == 2:
        data = [(inputs.flip(0), targets.flip(0)) for inputs, targets in data]
    if what == "empty" and rank == 1:
        data = []
    if what == "model" and rank:
        with torch.no_grad():
            model[4].bias[0] += rank
    if what == "error" and rank == 1:
        model.register_forward_hook(_fail)
    try:
        sharpness.ball(model, data, process_group=group)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def _fail(*_):
    raise RuntimeError("this card fell off the bus")


def test_data_that_differ_are_named(processes):
    found = processes(refused, "count", size=3)
    assert len(set(found)) == 1
    assert found[0].startswith("ValueError: the number of batches is 5 in process 1 and 6 in process 0; expected ")
    assert "the same in all 3 processes. Give each process all of the data in one order" in found[0]
    [order] = set(processes(refused, "order", size=3))
    assert order.startswith("ValueError: the digest of the data is ")
    assert " in process 2 and " in order
    [model] = set(processes(refused, "model", size=3))
    assert model.startswith("ValueError: the digest of the model is ")
    assert " in process 1 and " in model
    assert model.endswith("Load the same weights in every process, or broadcast those of process 0.")


def test_what_one_raises_all_raise(processes):
    first, second, third = processes(refused, "error", size=3)
    assert second == "RuntimeError: this card fell off the bus"
    assert first == third == "RuntimeError: process 1 stopped: RuntimeError: this card fell off the bus"
    first, second = processes(refused, "empty", size=2)
    assert second.startswith("ValueError: there are no samples to measure on")
    assert first.startswith("ValueError: process 1 stopped: ValueError: there are no samples to measure on")


def on_the_first_alone(group):
    if ranks_of(group).first:
        return numbers(sharpness.ball(network(), batches()))
    return None


def test_a_measure_without_a_group_is_of_its_process_alone(processes):
    first, *_ = processes(on_the_first_alone, size=3)
    assert repr(first) == repr(numbers(sharpness.ball(network(), batches())))
