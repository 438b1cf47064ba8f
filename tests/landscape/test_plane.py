import math

import pytest
import torch
from landscape.networks import batches, by_hand, network, same_state, state_of
from quadratics import Quadratic, own_value, samples, symmetric

from smoothout import landscape
from smoothout.results.runs import Risk

XS, YS = (-1.0, -0.25, 0.0, 0.75), (0.0, 0.5, 2.0)


def random_plane(model, **options):
    first = landscape.direction(model, **options)
    return landscape.span(first, landscape.direction(model, orthogonal_to=first, **options))


def test_a_grid_that_is_not_square_has_each_value_where_it_belongs():
    model, data = network(0), batches()
    axes = random_plane(model)
    found = landscape.plane(model, data, axes=axes, xs=XS, ys=YS)
    assert (len(found.losses), {len(row) for row in found.losses}) == (3, {4})
    for iy, y in enumerate(YS):
        for ix, x in enumerate(XS):
            state = state_of(model)
            for name, first, second in zip(axes.names, *axes.vectors, strict=True):
                state[name] = state[name] + x * first + y * second
            loss, error = by_hand(model, state, data)
            assert found.losses[iy][ix] == pytest.approx(loss, rel=1e-5)
            assert found.errors1[iy][ix] == pytest.approx(error, abs=2.6)  # a sample on the edge
    assert len({loss for row in found.losses for loss in row}) == 12


def test_the_second_axis_is_exact_and_so_is_every_cell_the_highest_included():
    # Float64 weights, and a quadratic: values are known to 1e-12, so noise on a cell, or a mean put in it, would show.
    matrix = symmetric([5.0, 2.0, 1.0, 0.5, -1.0, 0.1])
    model = Quadratic(matrix, at=[0.5, -1.0, 0.2, 0.7, 0.3, -0.4])
    model.x = torch.nn.Parameter(model.x.detach().view(2, 3))
    model.forward = lambda inputs: inputs * (model.x.flatten() @ matrix @ model.x.flatten() / 2)
    axes = random_plane(model)
    found = landscape.plane(model, samples(), own_value, axes=axes, xs=XS, ys=YS)
    (d,), (e,) = axes.vectors
    for iy, y in enumerate(YS):
        for ix, x in enumerate(XS):
            at = (model.x.detach() + x * d + y * e).flatten()
            assert found.losses[iy][ix] == pytest.approx(float(at @ matrix @ at / 2), rel=1e-12)


def test_the_centre_is_the_models_own_loss():
    model, data = network(0), batches()
    found = landscape.plane(model, data, axes=random_plane(model), xs=landscape.evenly(3), ys=landscape.evenly(5))
    [mark] = found.marks
    assert (mark.name, mark.coordinates) == ("center", (0.0, 0.0))
    assert found.losses[2][1] == mark.loss == pytest.approx(by_hand(model, state_of(model), data)[0], rel=1e-6)


def test_the_checkpoints_of_a_plane_have_their_own_losses():
    models, data = [network(seed) for seed in range(3)], batches()
    axes = landscape.through(*models, names=("x", "y", "z"))
    model = network(3)
    before = state_of(model)
    found = landscape.plane(model, data, axes=axes, xs=(0.0, 1.0), ys=(0.0, 2.0, 3.0))
    assert same_state(model, before)
    assert [mark.name for mark in found.marks] == ["x", "y", "z"]
    for mark, model in zip(found.marks, models, strict=True):
        assert mark.loss == mark.path_loss == pytest.approx(by_hand(model, state_of(model), data)[0], rel=1e-6)
    assert found.losses[0][0] == found.marks[0].loss
    kept = landscape.plane(model, data, axes=axes, xs=(0.0, 1.0), ys=(0.0, 2.0), bn="keep")
    assert [mark.loss for mark in kept.marks] == [mark.loss for mark in found.marks]
    assert [mark.on_path for mark in kept.marks] == [True, False, False]
    assert len(kept.doubts) == 2


def test_the_same_plane_twice_is_the_same_to_the_bit():
    model, data = network(0), batches()
    found = [landscape.plane(model, data, axes=random_plane(model), xs=XS, ys=YS).losses for _ in range(2)]
    assert found[0] == found[1]


def test_the_default_grids():
    model = network(0)
    plan = landscape.plan_plane(random_plane(model))
    assert plan.grid[:2] == [(-1.0, -1.0), (-0.9, -1.0)]  # row by row
    assert (plan.xs, plan.ys) == (landscape.evenly(21), landscape.evenly(21))
    axes = landscape.through(network(0), network(1), network(2))
    plan = landscape.plan_plane(axes)
    for x, y in axes.marks.values():
        assert plan.xs[0] < x < plan.xs[-1]
        assert plan.ys[0] < y < plan.ys[-1]
    assert (len(plan.xs), len(plan.ys), len(plan.points)) == (21, 21, 441 + 3)


def test_what_is_not_finite_stays_and_what_is_not_measured_is_marked():
    model = network(0)
    plan = landscape.plan_plane(random_plane(model), xs=(-1.0, 0.0), ys=(0.0, 1.0, 2.0))
    numbers = {point: Risk(float(index), 1.0, 1.0, 10) for index, point in enumerate(plan.points)}
    numbers[(-1.0, 1.0), "keep"] = Risk(math.nan, 50.0, 50.0, 10)
    numbers[(0.0, 2.0), "keep"] = Risk(math.inf, 50.0, 50.0, 10)
    numbers[(0.0, 1.0), "keep"] = None
    found = plan.record([numbers[point] for point in plan.points], seconds=1.0)
    assert str(found.losses[1]) == "(nan, nan)"
    assert str(found.losses[2][1]) == "inf"
    assert found.finished == ((True, True), (True, False), (True, True))
    assert found.doubts == ("1 of 6 points are not measured", "the loss is not finite at 2 of 5 points")


def test_a_plane_that_does_not_fit_in_memory(monkeypatch):
    axes = random_plane(network(0))
    monkeypatch.setattr("smoothout.landscape.axes.free_bytes", lambda _: 10_000_000)
    with pytest.raises(
        ValueError,
        match="a plane of 301 x 201 points needs 30,250,500 bytes on cpu, where 10,000,000 are free; expected",
    ):
        landscape.plan_plane(axes, landscape.evenly(301), landscape.evenly(201))
    landscape.plan_plane(axes)


def test_bad_planes():
    model = network(0)
    with pytest.raises(
        ValueError, match=r"axes is a line from A to B; expected two axes for a plane. Call span\(first"
    ):
        landscape.plane(model, batches(), axes=landscape.between(network(0), network(1)))
    with pytest.raises(ValueError, match="ys has 0.0 after 1.0; expected finite numbers, each above the one before"):
        landscape.plane(model, batches(), axes=random_plane(model), ys=(1.0, 0.0))
    with pytest.raises(ValueError, match="bn is 'interpolate' on a plane along"):
        landscape.plane(model, batches(), axes=random_plane(model), bn="interpolate")
