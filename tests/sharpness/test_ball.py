import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratics import Quadratic, highest_in_ball, own_value, samples, symmetric
from torch import nn
from torch.nn import functional
from untouched import everything, same

from smoothout import sharpness
from smoothout.sharpness.ascent import _random_batches

SPECTRA = {
    "a few large": [1e-3, 1e-2, 0.02, 0.05, 0.1, 0.3, 1.0, 5.0],
    "spread": [0.1, 0.2, 0.4, 0.5, 0.6, 0.7, 0.9, 1.0],
    "as many below zero": [-1.0, -0.5, -0.2, -0.1, 0.1, 0.2, 0.5, 1.0],
    "a maximum": [-1.0, -0.9, -0.7, -0.6, -0.5, -0.4, -0.3, -0.2],
}
AT = [0.5, -1.0, 2.0, 0.1, 0.0, -0.3, 0.7, 1.5]


def quadratic(eigenvalues, size=1.0):
    """A quadratic away from its stationary point, its Hessian, and its gradient there, of this norm."""
    matrix, at = symmetric(eigenvalues), torch.tensor(AT, dtype=torch.float64)
    slope = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    slope *= size / slope.norm()
    return Quadratic(matrix, slope - matrix @ at, at=at, constant=3.0), matrix, slope


def network(dtype=torch.float32):
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)).to(dtype)
    for _ in range(3):
        model(torch.randn(40, 6, dtype=dtype))
    return model


def labelled(count=300, dtype=torch.float32):
    return torch.randn(count, 6, dtype=dtype), torch.randint(0, 4, (count,))


@pytest.mark.parametrize("eigenvalues", SPECTRA.values(), ids=SPECTRA)
def test_one_step_goes_the_radius_along_the_gradient(eigenvalues):
    model, matrix, slope = quadratic(eigenvalues)
    found = sharpness.ball(model, samples(), own_value, radius=0.7)
    d = 0.7 * slope / slope.norm()
    assert found.value == pytest.approx(float(slope @ d + d @ matrix @ d / 2), rel=1e-12)
    assert found.doubts == ()


@pytest.mark.parametrize("radius", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("size", [1.0, 0.1])
@pytest.mark.parametrize("eigenvalues", SPECTRA.values(), ids=SPECTRA)
def test_twenty_steps_find_the_maximum_of_a_quadratic(eigenvalues, size, radius):
    model, matrix, slope = quadratic(eigenvalues, size)
    found = sharpness.ball(model, samples(), own_value, radius=radius, steps=20).value
    highest = highest_in_ball(matrix, slope, radius)
    assert 0.98 * highest <= found <= highest * (1 + 1e-9)


@settings(max_examples=25)
@given(
    eigenvalues=st.lists(st.floats(-2, 2), min_size=8, max_size=8),
    size=st.floats(0.01, 10),
    radius=st.floats(0.01, 10),
    steps=st.integers(2, 8),
)
def test_more_steps_are_never_worse_than_one_nor_above_the_maximum(eigenvalues, size, radius, steps):
    model, matrix, slope = quadratic(eigenvalues, size)
    found = sharpness.ball(model, samples(), own_value, radius=radius, steps=steps).value
    one = sharpness.ball(model, samples(), own_value, radius=radius).value
    highest = highest_in_ball(matrix, slope, radius)
    assert max(one, 0) - 1e-9 <= found <= highest * (1 + 1e-6) + 1e-9


def test_steps_on_a_network_with_batch_norm_come_near_a_long_search():
    torch.manual_seed(1)
    model, data = network(torch.float64), [labelled(dtype=torch.float64)]
    one, twenty, many = (
        sharpness.ball(model, data, radius=1.0, steps=steps, samples=8, batch_size=8).value for steps in (1, 20, 300)
    )
    assert one < twenty <= many
    assert twenty > 0.98 * many


def test_the_loss_in_the_ball_is_that_of_the_weights_moved_by_hand():
    model, (inputs, targets) = network(), labelled()
    found = sharpness.ball(model, [(inputs, targets)], radius=0.3)
    model.eval()
    before = functional.cross_entropy(model(inputs), targets)
    slopes = torch.autograd.grad(before, list(model.parameters()))
    size = torch.cat([slope.flatten() for slope in slopes]).norm()
    with torch.no_grad():
        for parameter, slope in zip(model.parameters(), slopes, strict=True):
            parameter.add_(0.3 * slope / size)
        after = functional.cross_entropy(model(inputs), targets)
    assert found.value == pytest.approx(float(after - before.detach()), rel=1e-4)


def test_unequal_batches_of_the_data_count_by_their_size():
    model, _, _ = quadratic(SPECTRA["spread"])
    batches = samples((7, 3, 1))
    whole = [tuple(torch.cat(tensors) for tensors in zip(*batches, strict=True))]
    for steps in (1, 5):
        split, joined = (sharpness.ball(model, data, own_value, steps=steps).value for data in (batches, whole))
        assert split == pytest.approx(joined, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 20])
def test_per_batch_takes_the_maximum_of_each_batch_and_weights_by_size(steps):
    matrix, at = symmetric(SPECTRA["a few large"]), torch.tensor(AT, dtype=torch.float64)
    model = Quadratic(matrix, at=at)
    data = samples((5, 4, 2))
    found = sharpness.ball(model, data, own_value, radius=0.5, steps=steps, batch_size=4)
    rises, sizes = [], []
    for inputs, _ in _random_batches(data, 1024, 4, seed=0):
        own = float(inputs.mean()) * matrix
        slope = own @ at
        d = 0.5 * slope / slope.norm()
        one = float(slope @ d + d @ own @ d / 2)
        rises.append(one if steps == 1 else highest_in_ball(own, slope, 0.5))
        sizes.append(len(inputs))
    assert sizes == [4, 4, 3]
    weights = torch.tensor(sizes, dtype=torch.float64) / 11
    rises = torch.tensor(rises, dtype=torch.float64)
    mean = float(weights @ rises)
    error = math.sqrt(1.5 * float((weights * (rises - mean)).square().sum()))
    assert found.per_batch == pytest.approx(mean, rel=1e-12 if steps == 1 else 1e-3)
    assert found.per_batch_standard_error == pytest.approx(error, rel=1e-12 if steps == 1 else 1e-2)
    assert found.samples == 11


def test_the_standard_error_over_equal_batches_is_the_usual_one():
    model, _, _ = quadratic(SPECTRA["spread"])
    data = samples((16,))
    found = sharpness.ball(model, data, own_value, batch_size=4)
    alone = [
        sharpness.ball(model, [batch], own_value).value for batch in _random_batches(data, 1024, batch_size=4, seed=0)
    ]
    values = torch.tensor(alone, dtype=torch.float64)
    assert found.per_batch == pytest.approx(float(values.mean()), rel=1e-12)
    assert found.per_batch_standard_error == pytest.approx(float(values.std() / 2), rel=1e-9)


def test_one_batch_has_no_standard_error_and_is_the_whole():
    model, data = network(), [labelled(50)]
    found = sharpness.ball(model, data)
    assert math.isnan(found.per_batch_standard_error)
    assert found.per_batch == pytest.approx(found.value, rel=1e-4)


def test_batches_are_a_random_part_in_random_order():
    count = 500
    data = [(torch.arange(count), torch.arange(count))]  # as if sorted by class
    batches = _random_batches(data, 100, 32, seed=1)
    taken = torch.cat([inputs for inputs, _ in batches])
    assert [len(inputs) for inputs, _ in batches] == [32, 32, 32, 4]
    assert len(taken.unique()) == 100
    assert all(torch.equal(inputs, targets) for inputs, targets in batches)
    assert taken[:32].float().std() > 100  # of one class it would be 9
    assert torch.equal(taken, torch.cat([inputs for inputs, _ in _random_batches(data, 100, 32, seed=1)]))
    assert not torch.equal(taken, torch.cat([inputs for inputs, _ in _random_batches(data, 100, 32, seed=2)]))


def test_one_step_from_a_zero_gradient_says_so():
    model = Quadratic(symmetric(SPECTRA["spread"]))
    found = sharpness.ball(model, samples((4, 4)), own_value, batch_size=4)
    assert (found.value, found.per_batch) == (0.0, 0.0)
    assert found.doubts == ("the gradient is zero, so that one step goes nowhere; use steps=20",)
    assert found.per_batch_doubts == (
        "on 2 of 2 batches the gradient is zero, so that one step goes nowhere; use steps=20",
    )
    assert str(found) == "0 (!)"


def test_steps_from_a_zero_gradient_find_the_largest_curvature():
    model = Quadratic(symmetric(SPECTRA["a few large"]))
    found = sharpness.ball(model, samples(), own_value, radius=0.3, steps=20)
    assert found.value == pytest.approx(5.0 * 0.3**2 / 2, rel=1e-6)
    assert found.doubts == ()
    # After few steps the first one, which is random, still shows.
    some, again, other = (
        sharpness.ball(model, samples(), own_value, radius=0.3, steps=3, seed=seed).value for seed in (0, 0, 1)
    )
    assert some == again != other


def test_a_step_that_overshoots_says_so():
    model, _, _ = quadratic(SPECTRA["a maximum"], size=0.1)
    found = sharpness.ball(model, samples(), own_value, radius=2.0)
    assert found.value < 0
    assert "one step of this radius lowers the loss, so that it is not the maximum; use steps=20" in found.doubts


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("steps", [1, 20])
def test_a_loss_that_is_not_finite_in_the_ball_is_kept_as_such(steps, bad):
    model, _, _ = quadratic(SPECTRA["spread"])
    limit = model(torch.ones(1, dtype=torch.float64)).item() + 0.2

    def loss(outputs, targets):
        return torch.where(outputs.mean() > limit, outputs + bad, outputs)

    data = [(torch.ones(4, dtype=torch.float64), torch.zeros(4))]
    found = sharpness.ball(model, data, loss, radius=1.0, steps=steps)
    assert math.isnan(found.value) if math.isnan(bad) else found.value == bad
    assert found.doubts == (f"the loss rises by {bad} at a point of the ball; use a smaller radius",)


def test_a_loss_that_is_not_finite_at_the_weights_is_refused():
    model = Quadratic(torch.eye(2, dtype=torch.float64), at=[math.nan, 0.0])
    with pytest.raises(ValueError, match="the loss at the weights themselves is nan; expected a finite number"):
        sharpness.ball(model, samples(), own_value)


@pytest.mark.parametrize("measure", [sharpness.ball, sharpness.adaptive])
@pytest.mark.parametrize("calls", [None, 2, 4, 6, 8, 12])
def test_the_model_comes_back_bit_for_bit_also_when_the_loss_raises(measure, calls):
    model, (inputs, targets) = network(), labelled(100)
    model[0].bias.requires_grad_(False)
    model[3].weight.grad = torch.ones_like(model[3].weight)
    model[1].eval()
    before, left = everything(model), calls

    def loss(outputs, targets):
        nonlocal left
        left = None if left is None else left - 1
        if left == 0:
            raise KeyError("stop")
        return functional.cross_entropy(outputs, targets, reduction="none")

    def run():
        return measure(model, [(inputs[:60], targets[:60]), (inputs[60:], targets[60:])], loss, steps=3, batch_size=50)

    if calls is None:
        run()
    else:
        with pytest.raises(KeyError, match="stop"):
            run()
    after = everything(model)
    assert all(same(before[name], after[name]) for name in before)


@pytest.mark.parametrize("radius", [0, -0.1, math.nan, math.inf])
def test_a_radius_that_is_not_above_zero(radius):
    with pytest.raises(ValueError, match=f"radius is {radius}; expected a finite number .*The default is 0.05"):
        sharpness.ball(network(), [labelled()], radius=radius)


def test_no_steps():
    with pytest.raises(ValueError, match="steps is 0; expected a whole number >= 1"):
        sharpness.ball(network(), [labelled()], steps=0)


def test_data_that_can_be_read_once():
    model, batches = network(), [labelled(40), labelled(30)]
    once = sharpness.ball(model, iter(batches), batch_size=32)
    again = sharpness.ball(model, batches, batch_size=32)
    assert (once.value, once.per_batch) == (again.value, again.per_batch)
