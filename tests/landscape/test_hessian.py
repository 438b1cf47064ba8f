import pytest
import torch
from landscape.networks import batches, network
from quadratics import Quadratic, own_value, samples, symmetric
from torch import nn

from smoothout import landscape


def quadratic():
    matrix = symmetric([9.0, 4.0, 1.0, 0.5, -2.0, 0.1])
    return matrix, Quadratic(matrix, [1.0, -1.0, 0.5, 0.0, 2.0, 0.3], at=[0.3, 0.1, -0.2, 0.5, 0.4, -0.6])


def test_the_axes_are_the_directions_of_most_curvature_and_coordinates_are_distances():
    matrix, model = quadratic()
    axes = landscape.hessian_axes(model, samples(), own_value, count=2)
    _, vectors = torch.linalg.eigh(matrix)
    for (found,), expected in zip(axes.vectors, (vectors[:, -1], vectors[:, -2]), strict=True):
        assert abs(float(found @ expected)) == pytest.approx(1, rel=1e-6)
    assert axes.lengths == pytest.approx((1, 1), rel=1e-6)
    assert axes.description == "plane of largest curvature (Hessian eigenvalues 9 and 4)"
    assert axes.doubts([(0.0, 0.0)], "keep") == ()
    x = model.x.detach()
    slopes = [float((matrix @ x + model.slope) @ vector[0]) for vector in axes.vectors]
    plane = landscape.plane(model, samples(), own_value, axes=axes, xs=(0.0, 2.0), ys=(-1.0, 0.0, 0.5))
    for iy, v in enumerate(plane.ys):
        for ix, u in enumerate(plane.xs):
            rise = 9 * u**2 / 2 + 4 * v**2 / 2 + slopes[0] * u + slopes[1] * v
            assert plane.losses[iy][ix] - plane.marks[0].loss == pytest.approx(rise, abs=1e-4)


def test_one_axis_for_a_line_and_a_seed_for_both():
    _, model = quadratic()
    axis = landscape.hessian_axes(model, samples(), own_value, count=1, seed=5)
    line = landscape.line(model, samples(), own_value, axes=axis, alphas=(-1, 0, 1))
    assert (axis.dimensions, line.seed) == (1, 5)
    assert line.losses[0] + line.losses[2] - 2 * line.losses[1] == pytest.approx(9, rel=1e-6)
    assert axis.description == "direction of largest curvature (Hessian eigenvalue 9)"


def test_a_network_and_a_random_second_axis():
    model = network(0).eval()
    first = landscape.hessian_axes(model, batches(), count=1)
    second = landscape.direction(model, orthogonal_to=first)
    assert landscape.span(first, second).doubts([(0.0, 0.0)], "keep") == ()


def test_other_counts():
    with pytest.raises(ValueError, match="count is 3; expected a whole number >= 1 and < 3"):
        landscape.hessian_axes(nn.Linear(5, 3), batches(), count=3)
