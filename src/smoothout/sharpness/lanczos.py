r"""Eigenvalues of a symmetric map by the method of Lanczos, with full orthogonalisation.

After k products of H with the columns of an orthonormal basis Q_k,

.. math:: H Q_k = Q_k T_k + \beta_k q_{k+1} e_k^T

with T_k tridiagonal. An eigenpair (lambda, s) of T_k gives the Ritz pair (lambda, v = Q_k s) of H with the residual
||H v - lambda v|| = beta_k |s_k|: some eigenvalue of H lies within the residual r of lambda, and it is off by r^2 / gap
at most, gap being its distance to the next one. That none lies farther out is not proved, only likely, as for every
method that multiplies by H alone: while the Ritz values still separate two close eigenvalues, r stays large although
r^2 / gap, with the gap between Ritz values, is small already. So r decides when to stop.

What is kept takes one vector of all weights for each product. The tridiagonal matrix is in float64, the vectors are in
the type of the products.

Source: Lanczos 1950; Parlett, The Symmetric Eigenvalue Problem, 1998, chapter 13.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]

#: A remainder below this many roundings of H is none: the basis spans an invariant subspace.
_ROUNDINGS = 10


@dataclass(frozen=True)
class Pairs:
    """Ritz pairs in ascending order, in float64 on the CPU.

    Attributes:
        values: Ritz values, (k,).
        residuals: ||H v - lambda v|| of each, (k,).
        coefficients: Of the Ritz vectors in the basis, in columns, (k, k).
    """

    values: Tensor
    residuals: Tensor
    coefficients: Tensor

    @property
    def norm(self) -> float:
        """||H||, from below."""
        return float(self.values.abs().max())


class Lanczos:
    """An orthonormal basis Q of the Krylov space of a symmetric H, and T = Q^T H Q.

    Every product is made orthogonal to all of the basis, twice (Kahan and Parlett: "twice is enough"), and what was
    taken off is kept. So the residuals need no further product and are honest for products that are not quite
    symmetric, such as finite differences: ||(P - T) s||^2 + (beta_k s_k)^2 with P the matrix of what was taken off.

    Args:
        product: v -> H v, for vectors of the start's type.
        start: The first vector, not zero, of any length.
        limit: Products that may be made.

    Attributes:
        steps: k, products made.
        closed: Whether the basis spans an invariant subspace, so that every Ritz pair is an eigenpair; then only
            :meth:`restart` leads on.

    Example:
        >>> matrix = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        >>> lanczos = Lanczos(lambda v: matrix @ v, torch.tensor([1.0, 0.5]), limit=2)
        >>> lanczos.advance(), lanczos.advance()
        (None, None)
        >>> [round(value, 4) for value in lanczos.pairs().values.tolist()], lanczos.closed
        ([1.0, 3.0], True)
    """

    def __init__(self, product: Product, start: Tensor, limit: int) -> None:
        self._product, self._next = product, start / start.norm()
        self._rows = start.new_empty(limit, len(start))  # the system gives memory to what is written
        self._projected = torch.zeros(limit, limit, dtype=torch.float64)  # P
        self._betas = torch.zeros(limit, dtype=torch.float64)
        self._left_out = torch.zeros(limit, dtype=torch.float64)  # size of each remainder that is not in the basis
        self._limit = min(limit, len(start))
        self.steps = 0
        self.closed = False

    @property
    def basis(self) -> Tensor:
        """The columns of Q as rows, (k, n)."""
        return self._rows[: self.steps]

    @property
    def trace(self) -> float:
        """tr Q^T H Q."""
        return float(self._projected.diagonal().sum())

    def search(self, enough: Callable[[Pairs], bool], fresh: Callable[[int], Tensor]) -> Pairs:
        """Make products until the pairs are good enough, or no more may be made.

        A closed subspace may lack copies of an eigenvalue, so that a fresh vector looks outside before it is believed.

        Args:
            enough: Whether to stop.
            fresh: The vector for the i-th restart, from 1.
        """
        restarts = 0
        while True:
            looked = self.closed
            if self.closed:
                restarts += 1
                self.restart(fresh(restarts))
            self.advance()
            if self.steps == self._limit:
                return self.pairs()
            if (looked or not self.closed) and enough(pairs := self.pairs()):
                return pairs

    def advance(self) -> None:
        """Make one product."""
        k = self.steps
        self._rows[k] = self._next
        self.steps += 1
        remainder, along = self._orthogonal(self._product(self._rows[k]))
        beta = float(torch.linalg.vector_norm(remainder, dtype=torch.float64))
        self._projected[: k + 1, k] = along
        self._left_out[:k] *= self._betas[:k] == 0  # the basis has the remainder now
        self._left_out[k] = beta
        scale = float(self._projected.abs().max().clamp(min=float(self._betas.max())))
        self.closed = self.steps == len(remainder) or beta <= _ROUNDINGS * torch.finfo(remainder.dtype).eps * scale
        if not self.closed:
            self._betas[k] = beta
            self._next = remainder / beta

    def restart(self, vector: Tensor) -> None:
        """Go on outside a closed subspace, with what a vector has there."""
        remainder, _ = self._orthogonal(vector / vector.norm())
        self._next = remainder / remainder.norm()
        self.closed = False

    def pairs(self) -> Pairs:
        """The Ritz pairs."""
        k = self.steps
        projected, betas = self._projected[:k, :k], self._betas[: k - 1]
        tridiagonal = projected.diagonal().diag() + betas.diag(1) + betas.diag(-1)
        values, coefficients = torch.linalg.eigh(tridiagonal)
        inside = (projected + betas.diag(-1) - tridiagonal) @ coefficients
        outside = self._left_out[:k, None] * coefficients
        residuals = (inside.square().sum(0) + outside.square().sum(0)).sqrt()
        return Pairs(values, residuals, coefficients)

    def vector(self, coefficients: Tensor) -> Tensor:
        """Q s, of length 1; the element largest in size is positive."""
        found = coefficients.to(self._rows) @ self.basis
        return found.mul_(found[found.abs().argmax()].sign() / found.norm())

    def _orthogonal(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """What a vector has outside the basis, and its coefficients inside."""
        total = torch.zeros(self.steps, dtype=torch.float64)
        for _ in range(2):
            along = self.basis @ vector
            vector = vector - along @ self.basis
            total += along.to("cpu", torch.float64)
        return vector, total
