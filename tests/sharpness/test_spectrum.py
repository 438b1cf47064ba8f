import json
import math
from dataclasses import asdict

import pytest
import torch
from quadratics import Quadratic, own_value, samples, symmetric
from torch import nn

from smoothout import sharpness
from smoothout.objective import Objective
from smoothout.results.sharpness import read_measure
from smoothout.sharpness import operator as operators
from smoothout.sharpness.operator import Operator
from smoothout.sharpness.spectrum import density

SPREAD = torch.linspace(-0.5, 1, 60).tolist()


def spectrum(eigenvalues, **options):
    model = Quadratic(symmetric(eigenvalues), at=torch.linspace(-1, 1, len(eigenvalues), dtype=torch.float64))
    return sharpness.spectrum(model, samples((8,)), own_value, **options)


def moment(eigenvalues, power):
    return float(torch.tensor(eigenvalues, dtype=torch.float64).pow(power).mean())


def integral(found, power=0):
    grid, values = (torch.tensor(each, dtype=torch.float64) for each in (found.grid, found.density))
    return float(torch.trapezoid(values * grid**power, grid))


def test_moments_of_a_quadratic_are_within_their_errors():
    found = spectrum([*SPREAD, 5.0, 10.0], probes=40, steps=4)
    for power, (value, error) in enumerate(zip(found.moments, found.moment_standard_errors, strict=True), 1):
        assert abs(value - moment([*SPREAD, 5.0, 10.0], power)) < 4 * error
    assert (found.value, found.standard_error) == (found.moments[0], found.moment_standard_errors[0])


def test_standard_errors_are_those_that_seeds_show():
    found = [spectrum([*SPREAD, 5.0, 10.0], probes=5, steps=3, seed=seed, grid=2) for seed in range(50)]
    for power in range(4):
        values = torch.tensor([each.moments[power] for each in found])
        stated = math.sqrt(sum(each.moment_standard_errors[power] ** 2 for each in found) / 50)
        assert abs(float(values.mean()) - moment([*SPREAD, 5.0, 10.0], power + 1)) < 4 * float(values.std()) / 50**0.5
        assert stated == pytest.approx(float(values.std()), rel=0.4)


def test_a_quadrature_is_exact_for_powers_up_to_twice_its_steps_less_one():
    matrix = symmetric(SPREAD)
    model = Quadratic(matrix)
    found = sharpness.spectrum(model, samples(), own_value, probes=3, steps=5, seed=7)
    with Objective(model, samples(), own_value) as objective:
        for probe in range(3):
            signs = Operator(objective, 7).signs(probe)
            nodes, weights = (
                torch.tensor(each[probe], dtype=torch.float64) for each in (found.nodes, found.node_weights)
            )
            for power in range(11):
                exact = float(signs @ torch.linalg.matrix_power(matrix, power) @ signs) / 60
                equal = pytest.approx(exact, rel=1e-9, abs=1e-12)
                assert (float(weights @ nodes**power) == equal) == (power <= 9)


def test_moments_of_a_network_are_those_of_the_dense_hessian(dense):
    n, probes = len(dense.matrix), 6
    found = sharpness.spectrum(dense.model, dense.data, probes=probes, steps=6)
    exact = float(dense.matrix.diagonal().double().sum()) / n, float(dense.matrix.square().sum(dtype=torch.float64)) / n
    for power, each in enumerate(exact):
        assert abs(found.moments[power] - each) < 4 * found.moment_standard_errors[power]
    with Objective(dense.model, dense.data) as objective:
        signs = torch.stack([Operator(objective, 0).signs(probe) for probe in range(probes)])
    once = signs @ dense.matrix
    twice = once @ dense.matrix
    of_probes = [(signs * once).sum(1), once.square().sum(1), (once * twice).sum(1), twice.square().sum(1)]
    for power, each in enumerate(of_probes):
        assert found.moments[power] == pytest.approx(float(each.double().mean()) / n, rel=1e-4)


def test_nodes_at_the_ends_are_the_eigenvalues_of_the_dense_hessian(dense):
    found = sharpness.spectrum(dense.model, dense.data, probes=2, steps=40)
    for nodes in found.nodes:
        assert nodes[0] == pytest.approx(dense.smallest, rel=0.01)
        assert nodes[-1] == pytest.approx(dense.largest, rel=1e-5)
    assert found.products == 80


@pytest.mark.filterwarnings("ignore")  # of the other package
def test_the_density_is_that_which_curvlinops_finds():
    from curvlinops import HessianLinearOperator, lanczos_approximate_spectrum

    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)).eval()
    data = [(torch.randn(40, 6), torch.randint(0, 4, (40,)))]
    linear = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), list(model.parameters()), data, check_deterministic=False
    )
    grid, theirs = lanczos_approximate_spectrum(linear, 12, num_points=200, num_repeats=20, boundaries=(-0.3, 0.7))
    width = 0.5 * 1.1 * 2 / 11 / math.sqrt(8 * math.log(3))  # by their rule
    ours = sharpness.spectrum(model, data, probes=20, steps=12, grid=grid.tolist(), width=width)
    values, errors = torch.tensor(ours.density), torch.tensor(ours.density_standard_error)
    apart = ((values - theirs) / (math.sqrt(2) * errors))[values > 0.01]
    assert len(apart) > 50
    assert float(apart.abs().max()) < 4


def test_the_density_is_the_sum_of_gaussians_around_the_eigenvalues():
    # 12 eigenvalues, all found, so that only the weights are random.
    eigenvalues = torch.arange(12.0).tolist()
    found = spectrum(eigenvalues, probes=40, width=0.05)
    exact = density(
        torch.tensor(eigenvalues, dtype=torch.float64),
        torch.full((12,), 1 / 12, dtype=torch.float64),
        torch.tensor(found.grid, dtype=torch.float64),
        0.05,
    )
    values, errors = (torch.tensor(each, dtype=torch.float64) for each in (found.density, found.density_standard_error))
    peaks = exact > 0.1
    assert float(((values - exact) / errors)[peaks].abs().max()) < 4
    assert float((values - exact)[~peaks].abs().max()) < 0.05


def test_a_density_adds_up_to_one_and_has_the_moments():
    found = spectrum([*SPREAD, 5.0], probes=3, steps=30)
    assert integral(found) == pytest.approx(1, abs=1e-4)
    assert integral(found, 1) == pytest.approx(found.moments[0], abs=1e-4)
    assert integral(found, 2) == pytest.approx(found.moments[1] + found.width**2, rel=1e-3)
    for weights in found.node_weights:
        assert sum(weights) == pytest.approx(1)
        assert min(weights) >= 0


def test_the_width_is_stated_and_by_default_one_percent_of_the_range():
    found = spectrum(SPREAD, probes=4)
    low, high = min(map(min, found.nodes)), max(map(max, found.nodes))
    assert found.width == pytest.approx(0.01 * (high - low))
    assert (found.grid[0], found.grid[-1]) == pytest.approx((low - 5 * found.width, high + 5 * found.width))
    assert (len(found.grid), len(found.density), len(found.density_standard_error)) == (1000, 1000, 1000)
    assert spectrum(SPREAD, steps=5, width=0.3).width == 0.3
    assert "4 probes of 60 steps, 240 products, Gaussians of width 0.015" in found.details[0]


def test_a_grid_of_ones_own():
    found = spectrum(SPREAD, grid=[-1.0, 0.0, 0.25, 3.0], width=0.5, steps=10)
    assert found.grid == (-1.0, 0.0, 0.25, 3.0)
    assert found.density[2] > found.density[0] > found.density[3]


def test_steps_are_cut_to_the_number_of_weights_and_end_with_an_invariant_subspace():
    found = spectrum([1.0, 2.0, 3.0])
    assert (found.steps, found.products) == (3, 30)
    assert found.nodes[0] == pytest.approx((1.0, 2.0, 3.0))
    found = spectrum([0.0] * 20 + [4.0] * 20, probes=5)
    assert found.steps == 2
    assert all(nodes == pytest.approx((0.0, 4.0), abs=1e-9) for nodes in found.nodes)


def test_a_hessian_of_zero():
    found = sharpness.spectrum(Quadratic(torch.zeros(9, 9), torch.ones(9)), samples(dtype=torch.float32), own_value)
    assert (found.value, found.standard_error, found.doubts) == (0, 0, ())
    assert set(found.nodes) == {(0.0,)}
    assert integral(found) == pytest.approx(1, abs=1e-4)


def test_a_mean_that_is_too_uncertain_carries_a_doubt():
    found = spectrum([*SPREAD, 100.0], probes=4, steps=5)
    assert found.standard_error > 0.2 * found.value
    assert found.doubts == (
        f"mean eigenvalue: the standard error {found.standard_error:.2g} of 4 probes exceeds 0.2 * |value|; take more "
        f"probes",
    )
    assert str(found) == f"{found.value:.4g} +- {found.standard_error:.2g} (!)"
    assert spectrum([*SPREAD, 100.0], probes=4, steps=5, tolerance=10).doubts == ()
    assert "nan of 1 probes" in spectrum(SPREAD, probes=1).doubts[0]


def test_a_pattern_gives_the_block_of_the_weights_that_match(dense):
    found = sharpness.spectrum(dense.model, dense.data, parameters=("6.bias",), probes=2)
    block = torch.linalg.eigvalsh(dense.matrix[-10:, -10:].double())
    assert found.center.weights == 10
    assert found.nodes[0][-1] == pytest.approx(float(block[-1]), rel=1e-5)
    assert found.numbers[0].name == "spectrum of 6.bias: mean eigenvalue"


def test_unequal_batches_count_by_their_size():
    model = Quadratic(symmetric(SPREAD))
    data = samples((7, 3, 1))
    whole = [tuple(torch.cat(tensors) for tensors in zip(*data, strict=True))]
    split, joined = (sharpness.spectrum(model, each, own_value, probes=2, steps=5) for each in (data, whole))
    assert split.moments == pytest.approx(joined.moments, rel=1e-12)


def test_equal_seeds_give_equal_nodes():
    one, again, other = (spectrum(SPREAD, probes=2, steps=5, seed=seed) for seed in (1, 1, 2))
    assert one.nodes == again.nodes != other.nodes


def test_the_record_goes_through_json():
    model, data = nn.Linear(3, 2), [(torch.randn(9, 3), torch.randint(0, 2, (9,)))]
    found = sharpness.spectrum(model, data, probes=2, grid=5)
    assert read_measure("Spectrum", json.loads(json.dumps(asdict(found)))) == found


@pytest.mark.parametrize(
    "options, text",
    [
        ({"probes": 0}, "probes is 0; expected a whole number >= 1"),
        ({"steps": 0}, "steps is 0; expected a whole number >= 1"),
        ({"width": 0}, "width is 0; expected a finite number > 0. Leave it out for 1 % of the range"),
        ({"grid": 1}, "grid is 1; expected a whole number >= 2"),
        ({"tolerance": -1}, "tolerance is -1; expected a finite number >= 0"),
    ],
)
def test_options_that_make_no_sense(options, text):
    with pytest.raises(ValueError, match=text):
        spectrum(SPREAD, **options)


def test_vectors_that_do_not_fit_in_memory(monkeypatch):
    monkeypatch.setattr(operators, "free_bytes", lambda device: 2 * 8 * 60 * 20)
    with pytest.raises(
        ValueError, match="steps is 60, and a vector of all 60 weights .* 480 bytes; expected at most 20"
    ):
        spectrum(SPREAD)
    assert spectrum(SPREAD, steps=20).steps == 20
