import math

import pytest
import torch
from landscape.networks import batches, by_hand, network, same_state, state_of
from quadratics import Quadratic, own_value, samples, symmetric
from torch import nn

from smoothout import landscape

SLOPED = "-0.2:0.1:1.21"


@pytest.mark.parametrize("alphas", [None, (-0.5, 0.25, 0.5), (0.0, 1.0)])
def test_both_ends_are_the_checkpoints_own_losses(alphas):
    a, b, data = network(0), network(1), batches()
    found = landscape.line(network(2), data, axes=landscape.between(a, b, names=("first", "second")), alphas=alphas)
    for mark, model, alpha in zip(found.marks, (a, b), (0.0, 1.0), strict=True):
        loss, error = by_hand(model, state_of(model), data)
        assert (mark.coordinates, mark.finished) == ((alpha,), True)
        for value in (mark.loss, mark.path_loss):
            assert value == pytest.approx(loss, rel=1e-6)
        assert mark.error1 == mark.path_error1 == pytest.approx(error)
        if alpha in found.positions:
            assert found.losses[found.positions.index(alpha)] == mark.loss
    assert [mark.name for mark in found.marks] == ["first", "second"]
    assert found.bn == "interpolate"


@pytest.mark.parametrize("bn", ["keep", "recompute"])
def test_ends_that_are_not_the_checkpoints_own_losses_are_told_with_both_numbers(bn):
    a, b, data = network(0), network(1), batches()
    found = landscape.line(a, data, axes=landscape.between(a, b), bn=bn)
    own = [by_hand(model, state_of(model), data)[0] for model in (a, b)]
    assert [mark.loss for mark in found.marks] == pytest.approx(own, rel=1e-6)
    assert [mark.path_loss for mark in found.marks] == [found.losses[10], found.losses[20]]
    assert found.marks[0].on_path == (bn == "keep")
    assert not found.marks[1].on_path
    doubt = f"with bn='{bn}' the loss at B is {found.losses[20]:.6g}, but {own[1]:.6g} with its own running statistics"
    assert found.doubts[-1] == doubt


def test_without_batch_norm_all_policies_agree():
    a, b, data = nn.Linear(5, 3), nn.Linear(5, 3), batches()
    found = [
        landscape.line(a, data, axes=landscape.between(a, b), bn=bn) for bn in ("keep", "interpolate", "recompute")
    ]
    assert found[0].losses == found[1].losses == found[2].losses
    assert [line.doubts for line in found] == [(), (), ()]


@pytest.mark.parametrize("bn", ["keep", "recompute"])
def test_the_centre_of_a_direction(bn):
    model, data = network(0), batches()
    found = landscape.line(model, data, axes=landscape.direction(model, seed=4), bn=bn)
    [mark] = found.marks
    assert mark.loss == pytest.approx(by_hand(model, state_of(model), data)[0], rel=1e-6)
    assert (len(found.losses), found.positions[25], found.seed) == (51, 0.0, 4)
    assert found.losses[25] == mark.path_loss
    assert (mark.path_loss == mark.loss) == (bn == "keep")
    assert len(found.doubts) == (bn == "recompute")
    assert math.isnan(found.barrier)


def test_the_centre_is_measured_where_the_range_leaves_it_out():
    model, data = network(0), batches()
    found = landscape.line(model, data, axes=landscape.direction(model), alphas=(0.5, 1.0))
    assert found.marks[0].loss == pytest.approx(by_hand(model, state_of(model), data)[0], rel=1e-6)
    assert len(found.losses) == 2


def test_a_quadratic_along_a_direction_is_known():
    matrix, slope = symmetric([3.0, 1.0, -0.5, 0.2]), torch.tensor([0.3, -1.0, 0.5, 2.0], dtype=torch.float64)
    model = Quadratic(matrix, slope, at=[0.1, -0.2, 0.3, 0.4], constant=2.0)
    axis = landscape.direction(model, one_dimensional="scale")
    found = landscape.line(model, samples((5, 4, 2)), own_value, axes=axis)
    d, x = axis.vectors[0][0], model.x.detach()
    for alpha, loss in zip(found.alphas, found.losses, strict=True):
        y = x + alpha * d
        assert loss == pytest.approx(float(y @ matrix @ y / 2 + slope @ y + 2), rel=1e-12)
    assert all(math.isnan(error) for error in found.errors1)


def concave(height):
    """Two ends of a quadratic that lies above their chord by 4 height alpha (1 - alpha)."""
    matrix = -8 * height * torch.eye(1, dtype=torch.float64)
    a, b = (Quadratic(matrix, [3.0], at=[at], constant=20.0) for at in (0.0, 1.0))
    return a, landscape.between(a, b)


def test_the_barrier_is_measured_from_the_line_between_the_ends():
    a, axes = concave(0.7)
    found = landscape.line(a, samples(), own_value, axes=axes, alphas=landscape.alphas(SLOPED))
    assert found.barrier == pytest.approx(0.7)
    assert found.doubts == ()
    assert landscape.line(a, samples(), own_value, axes=concave(-0.7)[1]).barrier == 0
    sine = landscape.line(a, samples(), own_value, axes=axes, mode="sin")
    assert sine.barrier == pytest.approx(0.7)


def test_a_barrier_between_distant_points_is_doubted():
    a, axes = concave(0.7)
    found = landscape.line(a, samples(), own_value, axes=axes, alphas=(-0.3, 0.0, 0.3))
    assert found.barrier == pytest.approx(4 * 0.7 * 0.3 * 0.7)
    assert found.doubts == ("the barrier may be higher: neighbouring points are up to 0.7 apart",)


@pytest.mark.parametrize(("value", "barrier"), [(math.nan, "nan"), (math.inf, "inf")])
def test_what_is_not_finite_is_kept_and_told(value, barrier):
    def loss(outputs, targets):
        return torch.where((outputs > 20.5).any(), value, outputs)

    a, axes = concave(0.7)
    found = landscape.line(
        a, [(torch.ones(2, dtype=torch.float64), torch.zeros(2))], loss, axes=axes, alphas=(0, 0.4, 1)
    )
    assert [str(each) for each in found.losses][1] == str(value)
    assert math.isfinite(found.losses[0])
    assert str(found.barrier) == barrier
    assert "the loss is not finite at 1 of 3 points" in found.doubts


def test_in_mode_sin_points_lie_where_the_cosine_says():
    a, axes = concave(0.7)
    found = landscape.line(a, samples(), own_value, axes=axes, alphas=(0, 0.25, 0.5, 1), mode="sin")
    plain = landscape.line(a, samples(), own_value, axes=axes, alphas=found.positions)
    assert found.alphas == (0, 0.25, 0.5, 1)
    assert found.positions == landscape.sinusoidal(found.alphas)
    assert found.losses == plain.losses
    assert len(landscape.plan_line(axes, mode="sin").positions) == 21


def test_the_default_ranges():
    assert landscape.plan_line(landscape.between(network(0), network(1))).alphas == landscape.alphas("-1:0.1:2.01")
    assert landscape.plan_line(landscape.direction(network(0))).alphas == landscape.alphas("-1:0.04:1.01")


def test_every_point_is_planned_once_and_the_marks_come_first():
    between = landscape.between(network(0), network(1))
    assert len(landscape.plan_line(between).points) == 31
    kept = landscape.plan_line(between, bn="keep").points
    assert len(kept) == 33
    assert kept[:2] == (((0.0,), "interpolate"), ((1.0,), "interpolate"))
    assert len(landscape.plan_line(between, (0.5,)).points) == 3


def test_an_unfinished_line_says_so():
    a, axes = concave(0.7)
    plan = landscape.plan_line(axes, (0.0, 0.5, 1.0))
    risks = landscape.measure_points(a, samples(), own_value, axes=axes, points=plan.points)
    found = plan.record([risks[0], None, risks[2]], seconds=1.0)
    assert found.finished == (True, True, False)
    assert [mark.finished for mark in found.marks] == [True, False]
    assert math.isnan(found.losses[2])
    assert math.isnan(found.barrier)
    assert found.doubts[0] == "1 of 3 points are not measured"
    assert plan.record([None] * 3, seconds=0.0).samples == 0
    keep = landscape.plan_line(axes, (0.0, 0.5, 1.0), bn="keep")
    assert len(keep.points) == 5  # each end with its own statistics, and under the policy
    assert [mark.finished for mark in keep.record([risks[0], None, *risks], seconds=1.0).marks] == [True, False]
    assert [mark.finished for mark in keep.record([*risks[:2], risks[0], None, None], 1.0).marks] == [True, False]
    assert plan.record(risks, seconds=1.0).finished == (True, True, True)


def test_progress_is_told():
    told = []
    model = network(0)
    landscape.line(
        model, batches(), axes=landscape.direction(model), alphas=(-1, 1), told=lambda *each: told.append(each)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_what_the_record_says():
    model = network(0)
    found = landscape.line(model, batches(), axes=landscape.direction(model, seed=3), alphas=(-1, 0, 1))
    assert found.samples == 40
    assert found.weights == sum(p.numel() for p in model.parameters())
    assert found.axes == "random direction (normal, by filters, 1-D zero, seed 3)"
    assert found.lengths == landscape.direction(model, seed=3).lengths
    assert {"smoothout", "torch", "python"} <= set(found.versions)
    assert found.seconds > 0


def test_a_loss_at_the_centre_that_is_not_finite():
    model, data = network(0), batches()
    nn.init.constant_(model[0].bias, math.nan)
    axis = landscape.direction(network(0))
    before = state_of(model)
    told = []
    with pytest.raises(ValueError, match="the loss at the weights themselves is nan; expected a finite number to look"):
        landscape.line(model, data, axes=axis, told=lambda *each: told.append(each))
    assert len(told) == 1
    assert str(before) == str(state_of(model))
    between = landscape.line(network(2), data, axes=landscape.between(network(0), model), alphas=(0.0, 0.5))
    assert [str(mark.loss) for mark in between.marks][1] == "nan"


def test_bad_lines():
    model = network(0)
    axis = landscape.direction(model)
    plane = landscape.span(axis, landscape.direction(model, orthogonal_to=axis))
    with pytest.raises(ValueError, match=r"axes is a plane along .*; expected one axis for a line. Call plane"):
        landscape.line(model, batches(), axes=plane)
    with pytest.raises(
        ValueError, match="alphas has 0.5 after 1.0; expected finite numbers, each above the one before"
    ):
        landscape.line(model, batches(), axes=axis, alphas=(1.0, 0.5))
    with pytest.raises(ValueError, match="alpha is -1 in mode 'sin'"):
        landscape.line(model, batches(), axes=axis, alphas=(-1.0, 0.5), mode="sin")
    with pytest.raises(ValueError, match="mode is 'cos'; expected one of 'linear', 'sin'"):
        landscape.line(model, batches(), axes=axis, mode="cos")
    with pytest.raises(ValueError, match="bn is 'interpolate' on a random direction"):
        landscape.line(model, batches(), axes=axis, bn="interpolate")
    before = state_of(model)
    with pytest.raises(ValueError, match="the model and A are of different architectures"):
        landscape.line(model, batches(), axes=landscape.between(nn.Linear(5, 3), nn.Linear(5, 3)))
    assert same_state(model, before)
