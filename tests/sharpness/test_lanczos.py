import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from quadratics import symmetric

from smoothout.sharpness.lanczos import Lanczos


def drawn(size, draw=0, dtype=torch.float64):
    return torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(draw))


def advanced(matrix, start, steps):
    lanczos = Lanczos(lambda v: matrix @ v, start, steps)
    while lanczos.steps < steps and not lanczos.closed:
        lanczos.advance()
    return lanczos


def true_residuals(matrix, lanczos):
    pairs = lanczos.pairs()
    vectors = lanczos.basis.double().T @ pairs.coefficients
    return (matrix.double() @ vectors - vectors * pairs.values).norm(dim=0)


def largest_of(count, tolerance=1e-9):
    return lambda pairs: len(pairs.values) >= count and bool((pairs.residuals[-count:] <= tolerance).all())


def close(found, expected, tolerance=1e-10):
    torch.testing.assert_close(
        found, torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance, check_dtype=True
    )


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=12, unique=True), st.integers(0, 5))
def test_as_many_steps_as_dimensions_give_all_eigenvalues(eigenvalues, draw):
    matrix = symmetric(eigenvalues)
    lanczos = advanced(matrix, drawn(len(matrix), draw), len(matrix))
    assert lanczos.closed
    close(lanczos.pairs().values, sorted(eigenvalues), 1e-8)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_the_tridiagonal_matrix_is_that_of_h_in_the_basis(steps):
    matrix = symmetric(torch.linspace(-1, 4, 40))
    lanczos = advanced(matrix, drawn(40), steps)
    basis, pairs = lanczos.basis, lanczos.pairs()
    inside = basis @ matrix @ basis.T
    close(pairs.coefficients @ pairs.values.diag() @ pairs.coefficients.T, inside)
    close(torch.tensor(lanczos.trace, dtype=torch.float64), inside.trace())
    close(basis @ basis.T, torch.eye(steps))
    assert bool((inside.triu(2).abs() < 1e-12).all())


def test_the_basis_stays_orthonormal_and_no_eigenvalue_comes_twice():
    # Without orthogonalisation float32 finds copies of the large ones after a few dozen steps.
    matrix = symmetric(torch.logspace(-6, 3, 300, dtype=torch.float64)).float()
    lanczos = advanced(matrix, drawn(300, dtype=torch.float32), 120)
    basis = lanczos.basis
    assert basis.dtype == torch.float32
    assert float((basis @ basis.T - torch.eye(120)).abs().max()) < 1e-5
    torch.testing.assert_close(
        lanczos.pairs().values[-20:], torch.logspace(-6, 3, 300, dtype=torch.float64)[-20:], rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_residuals_are_those_of_the_vectors(steps, dtype):
    matrix = symmetric([*torch.linspace(-0.5, 0.5, 50), 3.0, 5.0]).to(dtype)
    lanczos = advanced(matrix, drawn(52, dtype=dtype), steps)
    rounding = 20 * torch.finfo(dtype).eps * 5
    torch.testing.assert_close(lanczos.pairs().residuals, true_residuals(matrix, lanczos), rtol=1e-6, atol=rounding)


def test_residuals_are_honest_for_products_that_are_not_quite_symmetric():
    matrix = symmetric([*torch.linspace(-0.5, 0.5, 30), 5.0]) + 1e-2 * drawn((31, 31))
    lanczos = advanced(matrix, drawn(31), 25)
    close(lanczos.pairs().residuals, true_residuals(matrix, lanczos), 1e-10)
    assert float(lanczos.pairs().residuals[-1]) > 1e-3  # the recurrence alone would say 1e-15


def test_an_eigenvalue_lies_within_the_residual_of_each_ritz_value():
    eigenvalues = torch.linspace(-2, 2, 60, dtype=torch.float64)
    for steps in range(1, 30):
        pairs = advanced(symmetric(eigenvalues), drawn(60), steps).pairs()
        nearest = (pairs.values[:, None] - eigenvalues).abs().min(1).values
        assert bool((nearest <= pairs.residuals + 1e-12).all())


def test_two_steps_fall_short_and_say_so():
    pairs = advanced(symmetric([*torch.linspace(0, 1, 99), 12.27]), drawn(100), 2).pairs()
    assert pairs.values[-1] < 12
    assert pairs.residuals[-1] > 0.05 * pairs.values[-1]


def test_the_start_may_have_any_length():
    matrix = symmetric([1.0, 2.0, 5.0, 7.0])
    one, other = (advanced(matrix, factor * drawn(4), 3).pairs().values for factor in (1, 1e-6))
    close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_start_in_an_invariant_subspace_closes_it(dtype):
    matrix = symmetric([4.0, 3.0, 2.0, 1.0, 0.5, 0.1])
    values, basis = torch.linalg.eigh(matrix)
    lanczos = advanced(matrix.to(dtype), basis[:, [1, 3, 5]].sum(1).to(dtype), 6)
    assert (lanczos.closed, lanczos.steps) == (True, 3)
    pairs = lanczos.pairs()
    rounding = 20 * torch.finfo(dtype).eps
    close(pairs.values, values[[1, 3, 5]], rounding)
    assert bool((pairs.residuals < rounding).all())


def test_a_restart_leads_to_the_rest():
    matrix = symmetric([4.0, 3.0, 2.0, 1.0, 0.5, 0.1])
    values, basis = torch.linalg.eigh(matrix)
    lanczos = Lanczos(lambda v: matrix @ v, basis[:, [1, 3, 5]].sum(1), 6)
    for _ in range(3):
        lanczos.advance()
    lanczos.restart(drawn(6))
    for _ in range(3):
        lanczos.advance()
    close(lanczos.pairs().values, values)
    close(lanczos.basis @ lanczos.basis.T, torch.eye(6))
    close(lanczos.pairs().residuals, torch.zeros(6))


@pytest.mark.parametrize(
    "eigenvalues, count, expected",
    [
        ([0.0] * 8, 1, [0.0]),
        ([3.0] * 8, 3, [3.0, 3.0, 3.0]),
        ([0.0] * 7 + [2.0], 2, [0.0, 2.0]),
        ([0.0] * 6 + [1.0, 1.0], 2, [1.0, 1.0]),
        ([-1.0] * 4 + [2.0] * 4, 4, [2.0] * 4),
    ],
)
def test_a_search_finds_copies_of_an_eigenvalue_that_a_closed_subspace_lacks(eigenvalues, count, expected):
    matrix = symmetric(eigenvalues)
    lanczos = Lanczos(lambda v: matrix @ v, drawn(8), 8)
    pairs = lanczos.search(largest_of(count), lambda i: drawn(8, i))
    close(pairs.values[-count:], expected)


def test_a_search_ends_as_soon_as_it_has_enough_and_never_beyond_its_limit():
    matrix = symmetric([*torch.linspace(0, 1, 99), 12.27])
    lanczos = Lanczos(lambda v: matrix @ v, drawn(100), 50)
    pairs = lanczos.search(largest_of(1, 1e-3), drawn)
    before = advanced(matrix, drawn(100), lanczos.steps - 1).pairs()
    assert pairs.residuals[-1] <= 1e-3 < before.residuals[-1]
    lanczos = Lanczos(lambda v: matrix @ v, drawn(100), 4)
    lanczos.search(largest_of(1, 0.0), drawn)
    assert lanczos.steps == 4


def test_a_search_in_few_dimensions_ends_with_all_of_them():
    matrix = symmetric([1.0, 2.0, 3.0])
    lanczos = Lanczos(lambda v: matrix @ v, drawn(3), 100)
    close(lanczos.search(lambda _: False, drawn).values, [1.0, 2.0, 3.0])
    assert lanczos.steps == 3


def test_a_ritz_vector_has_length_one_and_its_largest_element_is_positive():
    matrix = symmetric([1.0, 2.0, 5.0, 7.0])
    _, basis = torch.linalg.eigh(matrix)
    lanczos = advanced(matrix, -drawn(4), 4)
    for index in range(4):
        found = lanczos.vector(lanczos.pairs().coefficients[:, index])
        assert found[found.abs().argmax()] > 0
        close((found @ basis[:, index]).abs(), 1.0)


def test_a_product_that_returns_its_argument_does_not_spoil_the_basis():
    lanczos = Lanczos(lambda v: v, drawn(5), 5)
    lanczos.advance()
    close(lanczos.basis[0], drawn(5) / drawn(5).norm())
    assert lanczos.closed
