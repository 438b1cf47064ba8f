import copy
import functools
import importlib
import itertools
import json
import math
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratics import Quadratic, highest_in_box, own_value, samples, symmetric
from torch import nn
from torch.nn import functional
from untouched import everything, same

from smoothout import sharpness
from smoothout.intervals import standard_error
from smoothout.noise.draws import NoiseKey, normal, uniform_integers
from smoothout.objective import Objective
from smoothout.results.sharpness import read_measure
from smoothout.sharpness import manifold as manifolds
from smoothout.sharpness.manifold import Manifold

AT = torch.tensor([0.5, -1.0, 2.0, 0.1, -0.3, 1.5], dtype=torch.float64)
SLOPE = torch.tensor([0.3, -0.7, 0.2, 1.0, 0.5, -0.1], dtype=torch.float64)
EPSILON = 0.1
EDGES = EPSILON * (AT.abs() + 1)
HEIGHT = 3.0  # f at AT
SEARCHES = ("lbfgs", "ascent")


def quadratic(matrix, slope=SLOPE):
    """f at AT, as far as it goes, is HEIGHT, its gradient there ``slope``."""
    at = AT[: len(slope)]
    b = slope - matrix @ at
    return Quadratic(matrix, b, at=at, constant=HEIGHT - float(at @ matrix @ at / 2 + b @ at))


def phi(rise, height=HEIGHT):
    return 100 * rise / (1 + height)


@torch.no_grad()
def descend(model, slopes):
    for parameter, slope in zip(model.parameters(), slopes, strict=True):
        parameter.sub_(0.3 * slope)


def trained(dtype=torch.float64, epochs=40):
    model, (inputs, targets) = copy.deepcopy(trained_once(epochs))
    return model.to(dtype), [(inputs.to(dtype), targets)]


@functools.cache
def trained_once(epochs):
    """A network with BatchNorm and ReLU of 1 060 weights, trained a while, and its data."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(200, 10, dtype=torch.float64, generator=generator)
    targets = (inputs @ torch.randn(10, 4, dtype=torch.float64, generator=generator)).argmax(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        hidden = [[nn.Linear(size, 24), nn.BatchNorm1d(24), nn.ReLU()] for size in (10, 24)]
        model = nn.Sequential(*hidden[0], *hidden[1], nn.Linear(24, 4)).double()
    for _ in range(epochs):
        loss = functional.cross_entropy(model(inputs), targets)
        descend(model, torch.autograd.grad(loss, list(model.parameters())))
    return model, (inputs, targets)


@functools.cache
def long_search(epsilon):
    return sharpness.box(*trained(), epsilon=epsilon, search="ascent", iterations=150).value


@torch.no_grad()
def confident(model, factor):
    """Logits times a factor."""
    model[-1].weight.mul_(factor)
    model[-1].bias.mul_(factor)


def loss_moved(model, data, moves):
    """The mean loss with ``moves`` added to the weights, in evaluation mode, by hand."""
    moved = {
        name: parameter.detach() + move for (name, parameter), move in zip(model.named_parameters(), moves, strict=True)
    }
    was = model.training
    model.eval()
    outputs = [torch.func.functional_call(model, moved, (inputs,)) for inputs, _ in data]
    model.train(was)
    return float(functional.cross_entropy(torch.cat(outputs), torch.cat([targets for _, targets in data])))


def slopes(model, data):
    was = model.training
    model.eval()
    [(inputs, targets)] = data
    found = torch.autograd.grad(functional.cross_entropy(model(inputs), targets), list(model.parameters()))
    model.train(was)
    return found


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("start", ["x0", "best"])
def test_a_separable_convex_loss_is_highest_at_the_corner_that_enumeration_finds(start, search):
    curvatures = torch.tensor([0.1, 0.5, 2.0, 0.3, 1.0, 0.2], dtype=torch.float64)
    corners = [torch.tensor(signs) * EDGES for signs in itertools.product((-1.0, 1.0), repeat=6)]
    rise = max(float(SLOPE @ z + z @ (curvatures * z) / 2) for z in corners)
    found = sharpness.box(
        quadratic(curvatures.diag()), samples(), own_value, epsilon=EPSILON, start=start, search=search
    )
    # From x0 alone, with the sign of value or gradient wrong, this would be 0.
    assert [each == pytest.approx(phi(rise), rel=1e-9) for each in found.found] == [True] * len(found.starts)
    assert found.value == pytest.approx(phi(rise), rel=1e-9)
    assert found.starts == {"x0": ("x0",), "best": ("x0", "corner")}[start]
    assert set(found.on_box) == {1.0}
    assert (found.doubts, found.method) == ((), search)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("size", [1.0, 0.1])
def test_an_indefinite_quadratic_against_all_faces_of_the_box(size, search):
    matrix = symmetric([-1.0, -0.5, -0.1, 0.1, 0.5, 1.0])
    slope = size * SLOPE
    found = sharpness.box(quadratic(matrix, slope), samples(), own_value, epsilon=EPSILON, search=search).value
    highest = phi(highest_in_box(matrix, slope, EDGES))
    assert 0.97 * highest <= found <= highest * (1 + 1e-9)


@settings(max_examples=25)
@given(
    eigenvalues=st.lists(st.floats(-3, 3), min_size=4, max_size=4),
    size=st.floats(0.01, 10),
    epsilon=st.floats(1e-3, 1.0),
    search=st.sampled_from(SEARCHES),
)
def test_never_below_the_corner_nor_zero_nor_above_the_maximum(eigenvalues, size, epsilon, search):
    matrix, slope = symmetric(eigenvalues), size * SLOPE[:4]
    model, edges = quadratic(matrix, slope), epsilon * (AT[:4].abs() + 1)
    corner = edges * slope.sign()
    found = sharpness.box(model, samples(), own_value, epsilon=epsilon, search=search, iterations=3).value
    assert found >= max(0.0, phi(float(slope @ corner + corner @ matrix @ corner / 2))) - 1e-9
    assert found <= phi(highest_in_box(matrix, slope, edges)) * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("epsilon", [5e-4, 1e-2])
def test_a_network_with_batch_norm_is_above_the_corner_and_near_a_long_search(epsilon, search):
    model, data = trained()
    found = sharpness.box(model, data, epsilon=epsilon, search=search)
    long = long_search(epsilon)
    edges = [epsilon * (parameter.detach().abs() + 1) for parameter in model.parameters()]
    corner = [edge * slope.sign() for edge, slope in zip(edges, slopes(model, data), strict=True)]
    center = loss_moved(model, data, [0.0] * len(edges))
    assert found.center.loss == pytest.approx(center, rel=1e-9)
    assert phi(loss_moved(model, data, corner) - center, center) < found.value <= long * (1 + 1e-3)
    assert found.value > 0.97 * long
    assert min(found.on_box) > 0.9


def test_near_zero_loss_scipys_scale_finds_half_of_it_or_stops_at_once_and_says_so():
    model, data = trained(epochs=300)
    confident(model, 2)  # a loss of 5e-5
    long = sharpness.box(model, data, search="ascent", iterations=50).value
    assert sharpness.box(model, data, start="x0").value < 0.6 * long
    assert min(sharpness.box(model, data).found) > 0.97 * long  # from either start
    confident(model, 1.5)  # 9e-7
    alone = sharpness.box(model, data, start="x0")
    assert (alone.value, alone.iterations) == (0.0, (0,))
    assert len(alone.doubts) == 1
    assert alone.doubts[0].startswith("draw 0: the search made 0 iterations (CONVERGENCE: NORM OF PROJECTED GRADIENT")
    assert str(alone).endswith("(!)")
    assert sharpness.box(model, data).doubts == ()


@pytest.mark.parametrize("search", SEARCHES)
def test_a_zero_gradient_makes_no_iterations(search):
    model = Quadratic(torch.eye(3, dtype=torch.float64), constant=1.0)
    found = sharpness.box(model, samples(), own_value, search=search)
    assert (found.value, found.iterations) == (0.0, (0, 0))
    assert "the search made 0 iterations" in found.doubts[0]


def test_the_report_of_a_search():
    model, data = trained()
    found = sharpness.box(model, data, epsilon=1e-2, iterations=4)
    assert found.iterations == (4, 4)
    assert all(evaluations >= 5 for evaluations in found.evaluations)
    assert set(found.messages) == {"STOP: TOTAL NO. OF ITERATIONS REACHED LIMIT"}
    assert (found.limit, found.epsilon, found.start, found.seed, found.doubts) == (4, 1e-2, "best", 0, ())
    ascent = sharpness.box(model, data, epsilon=1e-2, iterations=4, search="ascent")
    assert (ascent.iterations, ascent.evaluations) == ((4, 4), (4, 5))
    assert ascent.messages == ("all steps made",) * 2


def test_the_full_space_is_searched_once_whatever_the_draws():
    model, data = trained()
    found, once = (sharpness.box(model, data, draws=draws, seed=draws) for draws in (5, 1))
    assert (found.draws, len(found.starts), found.columns) == (1, 2, "identity")
    assert math.isnan(found.standard_error)
    assert found.value == once.value


def test_unequal_batches_count_by_their_size():
    batches = samples((7, 3, 1))
    joined = [tuple(torch.cat(tensors) for tensors in zip(*batches, strict=True))]
    model = quadratic(symmetric([0.1, 0.2, 0.5, 1.0, 2.0, 4.0]))
    split, whole = (sharpness.box(model, data, own_value, epsilon=EPSILON).value for data in (batches, joined))
    assert split == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("search", SEARCHES)
def test_no_point_leaves_the_box_by_more_than_rounding(search):
    model, data = trained(torch.float32)
    start = [parameter.detach().clone() for parameter in model.parameters()]
    seen = []

    def loss(outputs, targets):
        seen.append([parameter.detach().clone() for parameter in model.parameters()])
        return functional.cross_entropy(outputs, targets, reduction="none")

    sharpness.box(model, data, loss, epsilon=1e-2, search=search)
    assert len(seen) > 20
    for weights in seen:
        for w, x in zip(weights, start, strict=True):
            edge = 1e-2 * (x.double().abs() + 1)
            ulp = 2**-23 * (x.double().abs() + edge)
            assert bool(((w.double() - x.double()).abs() <= edge + ulp).all())


def test_without_room_for_scipy_the_search_is_by_ascent(monkeypatch):
    model, data = trained()
    module = importlib.import_module("smoothout.sharpness.box")
    monkeypatch.setattr(module, "free_bytes", lambda device: 400 * 1060 - 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1060
    assert sharpness.box(model, data).method == "ascent"
    assert sharpness.box(model, data, manifold=4).method == "lbfgs"  # p coordinates only
    monkeypatch.setattr(module, "free_bytes", lambda device: 400 * 1060)
    assert sharpness.box(model, data).method == "lbfgs"


# -- manifolds -----------------------------------------------------------------------------------------------------


def rows_by_hand(model, directions, columns, seed, draw):
    """R, a row and a tensor at a time."""
    rows = []
    for row in range(directions):
        key, parts = NoiseKey(seed, 0, stream=draw, draw=row), []
        for ordinal, parameter in enumerate(model.parameters()):
            if columns == "normal":
                parts += [z.double() for z in normal(key, [ordinal], [parameter.numel()], parameter.device)]
            else:
                [k] = uniform_integers(key, [ordinal], [parameter.numel()], parameter.device)
                parts.append((k.double() / 65536 + 1) / 2)
        rows.append(torch.cat(parts))
    rows = torch.stack(rows)
    return rows if columns == "normal" else rows / rows.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("columns", ["normal", "original"])
def test_a_manifold_does_what_its_dense_matrix_does(columns):
    model, data = trained()
    rows = rows_by_hand(model, 7, columns, seed=3, draw=2)
    a = rows.T if columns == "normal" else torch.linalg.pinv(rows)
    x = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    z = torch.randn(7, dtype=torch.float64)
    with Objective(model, data) as objective:
        found = Manifold(objective, 7, columns, seed=3, draw=2)
        edges = 1e-3 * ((torch.linalg.pinv(a) @ x).abs() + 1)
        assert torch.allclose(found.bounds(1e-3)[0], edges, rtol=1e-9, atol=0)
        assert torch.allclose(objective.flat(found.offsets([z])), a @ z, rtol=1e-9, atol=1e-12)
        slope = objective.flat(objective.slope)
        assert torch.allclose(found.pulled(objective.slope)[0], a.T @ slope, rtol=1e-9, atol=1e-12)
    assert columns == "normal" or bool((rows > 0).all())


@pytest.mark.parametrize("columns", ["normal", "original"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_made_again_from_their_seeds_give_the_same_numbers(columns, dtype):
    model, data = trained(dtype)
    z = [torch.randn(5, dtype=torch.float64)]
    with Objective(model, data) as objective:
        kept, made = (Manifold(objective, 5, columns, room=room) for room in (None, 0))
        assert (kept._kept is None, made._kept is None) == (False, True)
        for one, other in (
            (kept.bounds(0.1), made.bounds(0.1)),
            (kept.offsets(z), made.offsets(z)),
            (kept.pulled(objective.slope), made.pulled(objective.slope)),
        ):
            assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("widest", [8, 64, 300])
def test_the_width_of_a_block_does_not_change_the_rows(widest, monkeypatch):
    model, data = trained()
    with Objective(model, data) as objective:
        whole = torch.cat(list(Manifold(objective, 3)._blocks()), dim=1)
        monkeypatch.setattr(manifolds, "_BLOCK_COLUMNS", widest)
        blocks = list(Manifold(objective, 3)._blocks())
    assert max(block.shape[1] for block in blocks) <= widest
    assert torch.equal(torch.cat(blocks, dim=1), whole)


def test_blocks_of_many_rows_are_narrow():
    model, data = trained()
    with Objective(model, data) as objective:
        found = Manifold(objective, 2)
        found._rows = (1 << 24) // 16
        assert max(sum(sizes) for _, sizes, _ in found._places()) == 16


@pytest.mark.parametrize("columns", ["normal", "original"])
@pytest.mark.parametrize("start", ["x0", "best"])
def test_the_maximum_on_a_manifold_is_that_of_the_loss_in_its_coordinates(columns, start):
    matrix = symmetric([-0.02, -0.01, 0.01, 0.02, 0.05, 0.1])  # less than the slope: there is one maximum
    model = quadratic(matrix)
    options = {"epsilon": EPSILON, "manifold": 3, "columns": columns, "start": start, "seed": 1}
    found = sharpness.box(model, samples(), own_value, **options)
    rows = rows_by_hand(model, 3, columns, seed=1, draw=0)
    a = rows.T if columns == "normal" else torch.linalg.pinv(rows)
    edges = EPSILON * ((torch.linalg.pinv(a) @ AT).abs() + 1)
    highest = phi(highest_in_box(a.T @ matrix @ a, a.T @ SLOPE, edges))
    assert found.value == pytest.approx(highest, rel=1e-6)
    assert (found.manifold, found.columns, found.draws) == (3, columns, 1)


def test_draws_are_averaged_with_their_standard_error():
    model, data = trained()
    options = {"manifold": 5, "epsilon": 1e-2}
    three, two = (sharpness.box(model, data, draws=draws, **options) for draws in (3, 2))
    best = [max(pair) for pair in zip(three.found[::2], three.found[1::2], strict=True)]
    assert three.starts == ("x0", "corner") * 3
    assert len(set(best)) == 3
    assert three.value == pytest.approx(sum(best) / 3, rel=1e-12)
    assert three.standard_error == pytest.approx(standard_error(best), rel=1e-12)
    assert two.found == three.found[:4]
    assert sharpness.box(model, data, draws=2, **options).found == two.found
    assert sharpness.box(model, data, draws=2, seed=1, **options).found != two.found
    assert f"+- {three.standard_error:.2g}" in str(three)


def test_as_many_directions_as_weights():
    model = quadratic(symmetric([0.1, 0.2, 0.3, 0.5, 0.7, 1.0]))
    assert sharpness.box(model, samples(), own_value, epsilon=EPSILON, manifold=6).value > 0
    with pytest.raises(ValueError, match="manifold is 7, but the model has 6 weights; expected at most as many"):
        sharpness.box(model, samples(), own_value, manifold=7)


# -- what comes in, and what is left behind ------------------------------------------------------------------------


def test_a_record_survives_its_file():
    model, data = trained()
    found = sharpness.box(model, data, manifold=2, draws=2)
    assert read_measure("BoxSharpness", json.loads(json.dumps(asdict(found)))) == found


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("search", SEARCHES)
def test_a_loss_that_is_not_finite_in_the_box_is_kept_as_such(search, bad):
    model = quadratic(torch.eye(6, dtype=torch.float64))

    def loss(outputs, targets):
        return torch.where(outputs.mean() > HEIGHT + 0.05, outputs + bad, outputs)

    found = sharpness.box(
        model, [(torch.ones(4).double(), torch.zeros(4))], loss, epsilon=EPSILON, search=search, start="best"
    )
    assert math.isnan(found.value) if math.isnan(bad) else found.value == bad
    assert found.doubts == ("draw 0: the loss is not finite somewhere in the box; use a smaller epsilon",)
    assert "stopped where the loss is not finite" in found.messages


def test_a_gradient_that_is_no_number_is_refused():
    def loss(outputs, targets):
        return torch.where(outputs > 1e9, torch.exp(1e9 * outputs), outputs)  # its slope is 0 times infinity

    with pytest.raises(ValueError, match="the gradient at the weights themselves is not finite for x; expected finite"):
        sharpness.box(quadratic(torch.eye(6, dtype=torch.float64)), samples(), loss)


@pytest.mark.parametrize("options", [{}, {"search": "ascent"}, {"manifold": 3, "draws": 2}])
@pytest.mark.parametrize("calls", [None, 2, 5, 8])
def test_the_model_comes_back_bit_for_bit_also_when_the_loss_raises(options, calls):
    model, data = trained(torch.float32)
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

    if calls is None:
        sharpness.box(model, data, loss, epsilon=1e-2, **options)
    else:
        with pytest.raises(KeyError, match="stop"):
            sharpness.box(model, data, loss, epsilon=1e-2, **options)
    after = everything(model)
    assert all(same(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"epsilon": 0}, "epsilon is 0; expected a finite number > 0. Values on record are 5e-4 and 1e-3"),
        ({"epsilon": -1e-3}, "epsilon is -0.001; expected a finite number"),
        ({"epsilon": math.nan}, "epsilon is nan; expected a finite number"),
        ({"manifold": -1}, "manifold is -1; expected a whole number >= 0"),
        ({"draws": 0}, "draws is 0; expected a whole number >= 1"),
        ({"iterations": 0}, "iterations is 0; expected a whole number >= 1"),
        ({"columns": "uniform"}, "columns is 'uniform'; expected one of 'normal', 'original'"),
        ({"start": "x1"}, "start is 'x1'; expected one of 'best', 'x0'"),
        ({"search": "sgd"}, "search is 'sgd'; expected one of 'auto', 'lbfgs', 'ascent'"),
    ],
)
def test_what_it_does_not_take(options, message):
    with pytest.raises(ValueError, match=message):
        sharpness.box(quadratic(torch.eye(6, dtype=torch.float64)), samples(), own_value, **options)


def test_a_loss_of_minus_one_has_no_phi():
    model = Quadratic(torch.eye(2, dtype=torch.float64), constant=-1.0)
    with pytest.raises(ValueError, match="the loss at the weights is -1; expected more than -1.*Add a constant"):
        sharpness.box(model, samples(), own_value)


def test_a_loss_that_is_not_finite_at_the_weights_is_refused():
    model = Quadratic(torch.eye(2, dtype=torch.float64), at=[math.nan, 0.0])
    with pytest.raises(ValueError, match="the loss at the weights themselves is nan; expected a finite number"):
        sharpness.box(model, samples(), own_value)
