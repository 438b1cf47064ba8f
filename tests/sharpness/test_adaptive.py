import itertools
import math

import pytest
import torch
from quadratics import Quadratic, highest_in_ball, highest_in_box, own_value, samples, symmetric
from torch import nn

from smoothout import sharpness

AT = torch.tensor([0.5, -1.0, 2.0, 0.1, -0.3, 1.5], dtype=torch.float64)
SLOPE = torch.tensor([0.3, -0.7, 0.2, 1.0, 0.5, -0.1], dtype=torch.float64)
SIZES = AT.abs() + 0.01
CURVATURES = {
    "a few large": [0.01, 0.02, 0.05, 0.1, 0.5, 2.0],
    "spread": [0.1, 0.3, 0.4, 0.6, 0.8, 1.0],
    "as many below zero": [-1.0, -0.5, -0.1, 0.1, 0.5, 1.0],
}


def quadratic(eigenvalues):
    """A quadratic at AT, its Hessian, and the gradient SLOPE there."""
    matrix = symmetric(eigenvalues)
    return Quadratic(matrix, SLOPE - matrix @ AT, at=AT), matrix


class Layers(nn.Module):
    """A loss linear in a Linear, a convolution, a transposed convolution with groups, and their biases."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.convolution = nn.Conv2d(2, 3, 2)
        self.transposed = nn.ConvTranspose2d(4, 2, 2, groups=2)
        self.double()
        for name, parameter in self.named_parameters():
            self.register_buffer("slope_" + name.replace(".", "_"), torch.randn_like(parameter))

    def forward(self, inputs):
        parts = [
            (parameter * self.get_buffer("slope_" + name.replace(".", "_"))).sum()
            for name, parameter in self.named_parameters()
        ]
        return inputs * sum(parts)

    def sizes(self, by):
        """T and the slope, weight by weight in plain loops."""
        found = []
        for name, parameter in self.named_parameters():
            slope, w = self.get_buffer("slope_" + name.replace(".", "_")), parameter.detach()
            for index in itertools.product(*map(range, w.shape)):
                one = w[index]
                if by == "filter" and name == "transposed.weight":  # (in, out / groups, ...): two inputs to a group
                    group = slice(index[0] // 2 * 2, index[0] // 2 * 2 + 2)
                    one = w[group, index[1]].norm()
                elif by == "filter" and w.dim() > 1:
                    one = w[index[0]].norm()
                found.append((float(one.abs()) + 0.01, float(slope[index])))
        return torch.tensor(found, dtype=torch.float64).unbind(1)


@pytest.mark.parametrize("by", ["weight", "filter"])
@pytest.mark.parametrize("steps", [1, 20])
def test_a_linear_loss_rises_by_the_dual_norm_of_its_scaled_slope(by, steps):
    model = Layers()
    sizes, slopes = model.sizes(by)
    for norm, dual in ((2, 2), (math.inf, 1)):
        found = sharpness.adaptive(model, samples(), own_value, radius=0.3, norm=norm, by=by, steps=steps)
        assert found.value == pytest.approx(0.3 * float((sizes * slopes).norm(dual)), rel=1e-9)
        assert (found.by, found.norm, found.radius, found.doubts) == (by, norm, 0.3, ())


@pytest.mark.parametrize("eigenvalues", CURVATURES.values(), ids=CURVATURES)
def test_one_step_is_that_of_the_paper(eigenvalues):
    model, matrix = quadratic(eigenvalues)
    steps = {2: SIZES**2 * SLOPE / (SIZES * SLOPE).norm(), math.inf: SIZES * SLOPE.sign()}
    for norm, direction in steps.items():
        d = 0.4 * direction
        found = sharpness.adaptive(model, samples(), own_value, radius=0.4, norm=norm)
        assert found.value == pytest.approx(float(SLOPE @ d + d @ matrix @ d / 2), rel=1e-12)


@pytest.mark.parametrize("radius", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("eigenvalues", CURVATURES.values(), ids=CURVATURES)
def test_twenty_steps_find_the_maximum_of_a_quadratic(eigenvalues, radius):
    model, matrix = quadratic(eigenvalues)
    scaled, slope = SIZES[:, None] * matrix * SIZES, SIZES * SLOPE
    in_ball = highest_in_ball(scaled, slope, radius)
    found = sharpness.adaptive(model, samples(), own_value, radius=radius, steps=20)
    assert 0.99 * in_ball <= found.value <= in_ball * (1 + 1e-9)
    in_box = highest_in_box(matrix, SLOPE, radius * SIZES)
    found = sharpness.adaptive(model, samples(), own_value, radius=radius, norm=math.inf, steps=20)
    assert 0.95 * in_box <= found.value <= in_box * (1 + 1e-9)


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("by", ["weight", "filter"])
@pytest.mark.parametrize("steps", [1, 5])
def test_scaling_one_layer_up_and_the_next_down_changes_nothing(norm, by, steps, monkeypatch):
    monkeypatch.setitem(sharpness.adaptive.__globals__, "FLOOR", 0.0)
    model = nn.Sequential(nn.Linear(5, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)).double()
    data = [(torch.randn(30, 5, dtype=torch.float64), torch.randint(0, 3, (30,)))]
    options = {"norm": norm, "by": by, "radius": 0.2, "steps": steps}
    before, ball = sharpness.adaptive(model, data, **options), sharpness.ball(model, data)
    with torch.no_grad():
        model[0].weight *= 8
        model[2].weight /= 8
    after = sharpness.adaptive(model, data, **options)
    assert after.value == pytest.approx(before.value, rel=1e-9)
    assert after.per_batch == pytest.approx(before.per_batch, rel=1e-9)
    assert sharpness.ball(model, data).value > 1.5 * ball.value  # the plain ball is fooled


def test_the_radius_goes_with_the_norm():
    model, _ = quadratic(CURVATURES["spread"])
    found = {norm: sharpness.adaptive(model, samples(), own_value, norm=norm).radius for norm in (2, math.inf)}
    assert found == {2: 0.5, math.inf: 2e-3}


def test_weights_of_zero_can_move():
    model = Quadratic(torch.eye(3, dtype=torch.float64), [1.0, 2.0, 2.0])
    found = sharpness.adaptive(model, samples(), own_value, radius=1.0)
    assert found.value == pytest.approx(0.01 * 3 + 0.01**2 / 2, rel=1e-12)


def test_unequal_batches():
    model, _ = quadratic(CURVATURES["spread"])
    found = sharpness.adaptive(model, samples((6, 1)), own_value, batch_size=7)
    joined = sharpness.adaptive(model, samples((7,)), own_value, batch_size=3)
    assert found.value == pytest.approx(joined.value, rel=1e-12)
    assert found.per_batch == pytest.approx(found.value, rel=1e-12)
    assert joined.per_batch != found.per_batch


@pytest.mark.parametrize(
    "options, message",
    [
        ({"radius": 0}, "radius is 0; expected a finite number > 0. Leave it out for a default"),
        ({"radius": -1.0}, "radius is -1.0; expected a finite number > 0"),
        ({"norm": 1}, "norm is 1; expected 2 or math.inf"),
        ({"by": "layer"}, "by is 'layer'; expected one of 'weight', 'filter'"),
        ({"steps": 0}, "steps is 0; expected a whole number >= 1"),
    ],
)
def test_what_it_does_not_take(options, message):
    model, _ = quadratic(CURVATURES["spread"])
    with pytest.raises(ValueError, match=message):
        sharpness.adaptive(model, samples(), own_value, **options)
