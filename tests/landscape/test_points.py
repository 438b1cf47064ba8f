import copy
import math
import random

import pytest
import torch
from landscape.networks import batches, by_hand, network, same_state, state_of
from torch import nn

from smoothout import landscape, recompute_running_stats
from smoothout.landscape import Point, measure_points
from smoothout.landscape.axes import refuse_what_does_not_fit
from smoothout.samples import Samples

POLICIES = ["keep", "interpolate", "recompute"]


def plane_points(axes, policies=POLICIES):
    coordinates = [(0.0, 0.0), (0.5, -1.0), (-2.0, 0.25), *axes.marks.values()]
    return [Point(each, bn) for bn in policies for each in coordinates]


def random_plane(model):
    first = landscape.direction(model)
    return landscape.span(first, landscape.direction(model, orthogonal_to=first))


@pytest.mark.parametrize("bn", POLICIES)
def test_the_numbers_are_those_of_the_state_evaluated_by_hand(bn):
    a, b, data = network(0), network(1), batches()
    axes = landscape.between(a, b)
    for alpha in (-0.4, 0.0, 0.3, 1.0, 1.5):
        placed = network(2)
        with torch.no_grad():
            axes.mover(placed)(Point((alpha,), bn))
        if bn == "recompute":
            recompute_running_stats(placed, data)
        [found] = measure_points(network(3), data, axes=axes, points=[Point((alpha,), bn)])
        loss, error = by_hand(placed, state_of(placed), data)
        assert found.loss == pytest.approx(loss, rel=1e-6)
        assert found.error1 == pytest.approx(error, abs=1e-9)
        assert found.samples == 40


def test_a_point_depends_on_no_other_point_nor_on_the_order():
    models = [network(seed) for seed in range(3)]
    data, model = batches(), network(3)
    for axes, policies in (
        (landscape.through(*models), POLICIES),
        (random_plane(model), ["keep", "recompute"]),
    ):
        points = plane_points(axes, policies)
        together = dict(zip(points, measure_points(model, data, axes=axes, points=points), strict=True))
        shuffled = random.Random(0).sample(points, len(points))
        again = dict(zip(shuffled, measure_points(model, data, axes=axes, points=shuffled), strict=True))
        alone = {point: measure_points(model, data, axes=axes, points=[point])[0] for point in points}
        assert together == again == alone


class Counted:
    """Batches that count how often they are read."""

    def __init__(self, data):
        self.data, self.reads = data, 0

    def __iter__(self):
        self.reads += 1
        return iter(self.data)


def test_data_that_do_not_fit_give_the_same_numbers_in_one_reading():
    model, data = network(0), batches()
    axes = random_plane(model)
    points = plane_points(axes, ["keep"])
    counted = Counted(data)
    streamed = Samples(counted, torch.device("cpu"), room=1)
    before = counted.reads
    assert measure_points(model, streamed, axes=axes, points=points) == measure_points(
        model, data, axes=axes, points=points
    )
    assert counted.reads == before + 1
    points = plane_points(axes)[:2] + [Point((0.5, 0.5), "recompute"), Point((1.0, 0.0), "recompute")]
    assert measure_points(model, streamed, axes=axes, points=points) == measure_points(
        model, data, axes=axes, points=points
    )


def test_statistics_may_be_taken_over_other_data():
    model, data, other = network(0), batches(), batches((30, 30), seed=9)
    [found] = measure_points(
        model, data, axes=landscape.direction(model), points=[Point((0.0,), "recompute")], statistics=other
    )
    expected = copy.deepcopy(model)
    recompute_running_stats(expected, other)
    assert found.loss == pytest.approx(by_hand(model, state_of(expected), data)[0], rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_keep_is_the_statistics_of_the_model_or_of_the_first_checkpoint(seed):
    a, b, data = network(0), network(1), batches()
    mixed = state_of(b) | {name: value for name, value in state_of(a).items() if name.startswith("1.running")}
    [found] = measure_points(network(seed + 5), data, axes=landscape.between(a, b), points=[Point((1.0,), "keep")])
    assert found.loss == pytest.approx(by_hand(a, mixed, data)[0], rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_losses_that_are_not_finite_are_numbers_like_others(value):
    def loss(outputs, targets):
        # Exactly one point is far enough to be hit.
        return torch.where(outputs.abs().max() > 1e3, value, outputs.square().mean(1))

    model, told = network(0), []
    axis = landscape.direction(model)
    points = [Point((alpha,), "keep") for alpha in (-1.0, 0.0, 1e9, 1.0)]
    found = measure_points(
        model, batches(), loss, axes=axis, points=points, told=lambda index, risk: told.append((index, risk))
    )
    assert str(found[2].loss) == str(value)
    assert all(math.isfinite(found[index].loss) for index in (0, 1, 3))
    assert [index for index, _ in told] == [0, 1, 2, 3]
    assert str([risk for _, risk in told]) == str(found)


class Stop(Exception):
    pass


@pytest.mark.parametrize("error", [None, Stop, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("kind", "bn"), [("displacement", "keep"), ("displacement", "recompute"), *(("combination", bn) for bn in POLICIES)]
)
def test_everything_comes_back(kind, bn, error):
    model = network(0).train()
    axes = landscape.direction(model) if kind == "displacement" else landscape.between(network(1), network(2))
    model[1].eval()
    if kind == "combination":
        model[0].bias.requires_grad_(False)
    model[4].weight.grad = torch.ones(3, 8)
    before, modes = state_of(model), [module.training for module in model.modules()]
    buffers, rng = list(model.buffers()), torch.get_rng_state()

    def told(index, _):
        if index == 1 and error is not None:
            raise error

    points = [Point((alpha,), bn) for alpha in (-0.5, 0.5, 1.0)]
    if error is None:
        measure_points(model, batches(), axes=axes, points=points, told=told)
    else:
        with pytest.raises(error):
            measure_points(model, batches(), axes=axes, points=points, told=told)
    assert same_state(model, before)
    assert all(x is y for x, y in zip(model.buffers(), buffers, strict=True))
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [True, kind == "displacement", True, True, True, True]
    assert [p.grad is not None for p in model.parameters()] == [False, False, False, False, True, False]
    assert torch.equal(model[4].weight.grad, torch.ones(3, 8))
    assert torch.equal(torch.get_rng_state(), rng)


def test_autocast_sees_each_point_and_afterwards_the_models_own_weights():
    # Autocast keeps half-precision copies of the weights while its context is open.
    model, data = network(0), batches()
    axis, x = landscape.direction(model), torch.randn(4, 5)
    points = [Point((alpha,), "keep") for alpha in (0.0, 1.0, -1.0)]

    def losses(cache):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=cache):
            found = measure_points(model, data, axes=axis, points=points)
            return found, model.eval()(x)

    for found, expected in zip(losses(True), losses(False), strict=True):
        assert torch.equal(found, expected) if isinstance(found, torch.Tensor) else found == expected


def test_a_loss_with_a_mean_over_unequal_batches_is_a_mean_over_samples():
    model = network(0)
    axis = landscape.direction(model)
    [ragged] = measure_points(
        model, batches((33, 6, 1)), nn.CrossEntropyLoss(), axes=axis, points=[Point((0.3,), "keep")]
    )
    [whole] = measure_points(model, batches((40,)), axes=axis, points=[Point((0.3,), "keep")])
    assert ragged.loss == pytest.approx(whole.loss, rel=1e-6)
    assert ragged.error1 == pytest.approx(whole.error1)


def test_bad_points():
    model = network(0)
    axis = landscape.direction(model)
    for coordinates in ((0.0, 0.0), (math.nan,), ()):
        with pytest.raises(
            ValueError, match=r"a point is \(.*\) on a random direction .*; expected 1 finite coordinates"
        ):
            measure_points(model, batches(), axes=axis, points=[Point(coordinates, "keep")])
    with pytest.raises(
        ValueError, match="bn is 'interpolate' on a random direction.*buffers are not moved along a dir"
    ):
        measure_points(model, batches(), axes=axis, points=[Point((0.0,), "interpolate")])
    with pytest.raises(ValueError, match="bn is 'train'; expected one of 'keep', 'interpolate', 'recompute'"):
        measure_points(model, batches(), axes=axis, points=[Point((0.0,), "train")])
    with pytest.raises(ValueError, match="there are no samples to measure on"):
        measure_points(model, [], axes=axis, points=[Point((0.0,), "keep")])


def test_axes_that_do_not_fit(monkeypatch):
    model = network(0)
    before = state_of(model)
    monkeypatch.setattr("smoothout.landscape.axes.free_bytes", lambda _: 100)
    with pytest.raises(
        ValueError, match="the random direction .* needs 364 bytes on cpu, where 100 are free; expected"
    ):
        measure_points(model, batches(), axes=landscape.direction(model), points=[Point((0.0,), "keep")])
    assert same_state(model, before)
    refuse_what_does_not_fit("this", 100, torch.device("cpu"), "")
