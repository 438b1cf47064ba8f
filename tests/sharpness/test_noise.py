import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from smoothout import SmoothOut, sharpness
from smoothout.intervals import standard_error
from smoothout.weights import exclude_nothing

A = 0.2


class Vector(nn.Module):
    """A vector of weights x; the output for every sample is x."""

    def __init__(self, size):
        super().__init__()
        self.x = nn.Parameter(torch.randn(size, dtype=torch.float64))

    def forward(self, inputs):
        return self.x.expand(len(inputs), -1)


def data(count=1):
    return [(torch.zeros(count, 1), torch.zeros(count, 1))]


def network(activation=nn.ReLU):
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), activation(), nn.Linear(16, 4))


def samples(count=50):
    return torch.randn(count, 6), torch.randint(0, 4, (count,))


@pytest.mark.parametrize(("distribution", "variance"), [("uniform", 1 / 3), ("normal", 1.0)])
def test_a_quadratic_rises_by_half_the_variance_times_the_trace(distribution, variance):
    root = torch.randn(20, 20, dtype=torch.float64)
    hessian = root @ root.T

    def loss(outputs, targets):
        return ((outputs @ hessian) * outputs).sum(1) / 2 + outputs.sum(1)  # with a slope, which a pair cancels

    options = {"distribution": distribution, "pairs": 400, "max_pairs": 400, "strength": A}
    found = sharpness.noise(Vector(20), data(), loss, **options)
    expected = A**2 * variance / 2 * float(hessian.trace())
    assert abs(found.value - expected) < 4 * found.standard_error
    assert found.standard_error < 0.05 * expected
    assert found.doubts == ()


def test_a_pair_cancels_the_slope():
    slope = torch.randn(20, dtype=torch.float64)
    found = sharpness.noise(Vector(20), data(), lambda outputs, targets: outputs @ slope, strength=A)
    assert found.value == pytest.approx(0, abs=1e-12)
    assert found.pairs == 20  # the absolute tolerance ends what the relative one never would


def test_a_saddle_of_trace_zero_is_not_told_apart_from_zero():
    signs = torch.tensor([1.0, -1.0] * 10, dtype=torch.float64)
    found = sharpness.noise(
        Vector(20), data(), lambda outputs, targets: outputs.square() @ signs, strength=A, absolute=1
    )
    assert found.standard_error > 0
    assert abs(found.value) < 2 * found.standard_error
    assert "the value is not told apart from 0" in found.doubts[0]


def test_small_noise_gives_the_trace_over_the_perturbed_weights():
    # With ReLUs the loss has kinks, and rises by more than its Hessian says.
    model, (x, y) = network(nn.Tanh).double().eval(), samples()
    x = x.double()
    weights = [p for name, p in model.named_parameters() if not name.startswith("1.")]
    slopes = torch.autograd.grad(functional.cross_entropy(model(x), y), weights, create_graph=True)
    trace = 0.0
    for slope, weight in zip(slopes, weights, strict=True):
        for index, entry in enumerate(slope.reshape(-1)):
            [row] = [torch.autograd.grad(entry, weight, retain_graph=True)[0]]
            trace += float(row.reshape(-1)[index])
    found = sharpness.noise(model, [(x, y)], strength=1e-3, absolute=0, pairs=1000)
    assert abs(found.value - 1e-6 / 6 * trace) < 4 * found.standard_error + 1e-3 * abs(found.value)


@pytest.mark.parametrize("scale", ["none", "weight", "filter"])
def test_it_is_the_noise_of_training(scale):
    model, (x, y) = network().eval(), samples()
    batches = [(x[:33], y[:33]), (x[33:], y[33:])]  # unequal: weighted by their size
    options = {"scale": scale, "distribution": "normal", "exclude": exclude_nothing}
    found = sharpness.noise(model, batches, strength=A, pairs=3, max_pairs=3, seed=5, **options)
    with torch.no_grad():
        clean = model(x)
        rises, errors = [], []
        smoother = SmoothOut(model, A, seed=5, **options)
        before = [p.clone() for p in model.parameters()]
        for draw in range(3):
            with smoother.perturbed(0, draw):
                theta = [p - b for p, b in zip(model.parameters(), before, strict=True)]
            losses, wrong = [], []
            for sign in (1, -1):
                for p, b, t in zip(model.parameters(), before, theta, strict=True):
                    p.copy_(b + sign * t)
                logits = model(x)
                losses.append(float(functional.cross_entropy(logits.double(), y)))
                wrong.append(100 * float((logits.argmax(1) != y).double().mean()))
            for p, b in zip(model.parameters(), before, strict=True):
                p.copy_(b)
            rises.append(sum(losses) / 2 - float(functional.cross_entropy(clean.double(), y)))
            errors.append(sum(wrong) / 2 - 100 * float((clean.argmax(1) != y).double().mean()))
    assert found.value == pytest.approx(sum(rises) / 3, rel=1e-4)
    assert found.standard_error == pytest.approx(standard_error(rises), rel=1e-3)
    assert found.error1_rise == pytest.approx(sum(errors) / 3, abs=1e-9)
    assert found.relative_noise == SmoothOut(model, A, seed=5, **options).summary().relative_noise
    assert found.perturbed == found.center.weights  # with BatchNorm
    assert (found.center.samples, found.center.weights) == (50, sum(b.numel() for b in before))


def test_pairs_are_drawn_until_the_error_is_small_enough_and_no_longer():
    model, batch = network(), samples()
    sharp = sharpness.noise(model, [batch], strength=A, pairs=5, tolerance=0.1, absolute=0)
    assert sharp.pairs > 5
    assert sharp.standard_error <= 0.1 * sharp.value
    first = sharpness.noise(model, [batch], strength=A, pairs=5, max_pairs=sharp.pairs - 10, tolerance=0.1, absolute=0)
    assert first.standard_error > 0.1 * first.value
    assert "exceeds max(0, 0.1 * value); allow more pairs" in first.doubts[0]
    assert str(first).endswith("(!)")
    assert not str(sharp).endswith("(!)")


def test_an_infinite_loss_under_noise_is_stored_and_doubted():
    def loss(outputs, targets):
        return outputs.relu().sum(1).reciprocal()

    model = Vector(1)
    nn.init.constant_(model.x, 0.1)
    found = sharpness.noise(model, data(), loss, strength=10.0)
    assert math.isinf(found.value)
    assert "under some draws the loss is not finite" in found.doubts[0]
    assert found.pairs == 20


def test_everything_comes_back():
    model, batch = network().train(), samples()
    model[0].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calls = 0

    def loss(logits, targets):
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return functional.cross_entropy(logits, targets, reduction="none")

    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        sharpness.noise(model, [batch], loss, strength=A)
    sharpness.noise(model, [batch], strength=A)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("strength", [0, -1.0, math.nan])
def test_a_strength_that_is_none(strength):
    with pytest.raises(ValueError, match="strength is .*expected a finite number > 0"):
        sharpness.noise(network(), [samples()], strength=strength)


def test_no_weight_to_perturb():
    with pytest.raises(
        ValueError, match=r"no weight gets noise; expected some. The reasons:\n(.*\n)+weight .*- \(exclude\)"
    ):
        sharpness.noise(nn.BatchNorm1d(6), [samples()], strength=A)
