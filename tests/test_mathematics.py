"""What the method is: statements about the smoothed loss, tested by convergence to known values."""

import math

import pytest
import torch
from torch import nn

from smoothout import SmoothOut

DRAWS = 2000


class Weights(nn.Module):
    """A bare vector of weights, in float64."""

    def __init__(self, values):
        super().__init__()
        self.w = nn.Parameter(torch.as_tensor(values, dtype=torch.float64))


def sample(smoother, function, draws=DRAWS):
    """Values of a function of the perturbed weights, one a draw."""
    values = []
    for draw in range(draws):
        with smoother.perturbed(stream=0, draw=draw):
            values.append(function().detach())
    return torch.stack(values)


def z_score(samples, expected):
    error = samples.std(dim=0) / math.sqrt(len(samples))
    return ((samples.mean(dim=0) - expected) / error).abs().max().item()


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_a_linear_loss_smooths_to_itself(distribution):
    model = Weights(torch.randn(30))
    slope = torch.randn(30, dtype=torch.float64)
    values = sample(SmoothOut(model, 0.3, distribution=distribution), lambda: model.w @ slope)
    assert z_score(values, (model.w @ slope).detach()) < 4


@pytest.mark.parametrize(("distribution", "variance"), [("uniform", 1 / 3), ("normal", 1.0)])
def test_a_quadratic_rises_by_half_the_variance_times_the_trace(distribution, variance):
    model = Weights(torch.randn(20) / 10)
    root = torch.randn(20, 20, dtype=torch.float64)
    hessian = root @ root.T
    values = sample(SmoothOut(model, 0.2, distribution=distribution), lambda: model.w @ hessian @ model.w / 2)
    rise = 0.2**2 * variance / 2 * hessian.trace()
    assert z_score(values, (model.w @ hessian @ model.w / 2).detach() + rise) < 4
    assert rise > 10 * values.std() / math.sqrt(DRAWS)  # so that the rise is not lost in the error


def test_the_gradient_is_unbiased():
    # C = sum w^4 has the smoothed gradient 4 w^3 + 4 w a^2 exactly, for uniform noise. Every column of the
    # weights is a draw of its own.
    w = torch.linspace(-1, 1, 9, dtype=torch.float64)
    model = Weights(w.expand(20_000, 9).clone())
    with SmoothOut(model, 0.5).perturbed():
        [gradients] = torch.autograd.grad((model.w**4).sum(), model.w)
    assert z_score(gradients, 4 * w**3 + 4 * w * 0.5**2) < 4.5
    assert z_score(gradients[:, 1:4], (4 * w**3)[1:4]) > 10


def double_well(w):
    """A narrow deep well of half-width .1 at 0 and a wide shallow one of half-width 1 at 2, in 1-D."""
    narrow = -1.0 * torch.clamp(1 - (w / 0.1).abs(), min=0)
    wide = -0.8 * torch.clamp(1 - ((w - 2) / 1.0) ** 2, min=0)
    return narrow + wide


def smoothed_well(w, strength):
    """Values at w plus noise, one a draw."""
    model = Weights(torch.full((100_000,), w))
    with SmoothOut(model, strength).perturbed():
        return double_well(model.w.detach())


def test_the_narrow_well_vanishes_and_the_wide_one_stays():
    # Over a box of half-width a > .1 the narrow well's mean is -(1 / 2a) * .1: flat in w around it.
    for strength in (0.2, 0.4):
        level = torch.tensor(-0.1 / (2 * strength), dtype=torch.float64)
        assert z_score(smoothed_well(0.0, strength), level) < 4
        assert z_score(smoothed_well(0.05, strength), level) < 4  # still wholly inside the box: no slope left
        # The wide well keeps its depth up to .8 a^2 / 3.
        expected = torch.tensor(-0.8 * (1 - strength**2 / 3), dtype=torch.float64)
        assert z_score(smoothed_well(2.0, strength), expected) < 4
    assert double_well(torch.tensor(0.0)) < double_well(torch.tensor(2.0))


def test_gradient_descent_leaves_the_narrow_well_with_noise_only():
    # A slope of 1 towards the wide well: less than the narrow well's 10, more than smoothing leaves of that.
    ends = {}
    for strength in (0.0, 0.4):
        model = Weights([0.03])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.005)
        smoother = SmoothOut(model, strength, seed=1)
        for _ in range(800):
            optimizer.zero_grad()
            with smoother.perturbed():
                (double_well(model.w) - model.w).sum().backward()
            optimizer.step()
            smoother.step()
        ends[strength] = model.w.item()
    assert abs(ends[0.0]) < 0.11
    assert 1.5 < ends[0.4] < 3


def test_small_noise_rises_by_the_trace_for_a_smooth_loss():
    # sum cosh(w): tr H = sum cosh(w); uniform and variance-matched normal noise agree to second order.
    model = Weights(torch.linspace(-1, 1, 10))
    clean = torch.cosh(model.w).sum().detach()
    a = 0.1
    uniform = sample(SmoothOut(model, a), lambda: torch.cosh(model.w).sum())
    normal = sample(SmoothOut(model, a / math.sqrt(3), distribution="normal"), lambda: torch.cosh(model.w).sum())
    exact = clean * math.sinh(a) / a  # the box smoothing of cosh
    assert z_score(uniform, exact) < 4
    assert float(exact - clean) == pytest.approx(float(a**2 / 6 * clean), rel=1e-3)
    assert abs(uniform.mean() - normal.mean()) < 4 * math.hypot(uniform.std(), normal.std()) / math.sqrt(DRAWS)
