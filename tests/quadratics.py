"""Models whose loss is a known function of their weights."""

import itertools
import math

import torch
from torch import nn


class Quadratic(nn.Module):
    """Sample k has the loss s_k x^T H x / 2 + b^T x + c, s_k its input: with inputs of mean 1 the data set has
    f(x) = x^T H x / 2 + b^T x + c, gradient H x + b and Hessian H at every x. A batch has them with H times the mean of
    its inputs, so that averages over batches show how they weigh them.
    """

    def __init__(self, matrix, slope=None, *, at=None, constant=0.0):
        super().__init__()
        matrix = torch.as_tensor(matrix)
        zeros = torch.zeros(len(matrix), dtype=matrix.dtype)
        self.register_buffer("matrix", matrix)
        self.register_buffer("slope", zeros if slope is None else torch.as_tensor(slope, dtype=matrix.dtype))
        self.x = nn.Parameter(zeros.clone() if at is None else torch.as_tensor(at, dtype=matrix.dtype).clone())
        self.constant = constant

    def forward(self, inputs):
        return inputs * (self.x @ self.matrix @ self.x / 2) + self.slope @ self.x + self.constant


def own_value(outputs, targets):
    """The loss for models that return the losses of their samples."""
    return outputs


def symmetric(eigenvalues, seed=0):
    """A dense symmetric matrix with these eigenvalues, float64."""
    values = torch.as_tensor(eigenvalues, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=generator))
    return basis @ values.diag() @ basis.T


def samples(sizes=(4, 4, 3), seed=0, dtype=torch.float64):
    """Batches of these sizes whose inputs are between 0 and 2 and have the mean 1 over all samples."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.rand(sum(sizes) // 2, dtype=dtype, generator=generator)
    inputs = torch.cat((half, 2 - half.flip(0), torch.ones(sum(sizes) % 2, dtype=dtype)))
    return [(part, torch.zeros(len(part), dtype=dtype)) for part in torch.split(inputs, list(sizes))]


def highest_in_ball(matrix, slope, radius):
    """max d^T H d / 2 + b^T d over ||d|| <= rho: d = (lambda I - H)^-1 b with lambda >= 0 and lambda I >= H, by
    bisection of the secular equation ||d|| = rho. Not for a b without a part along the largest curvature.
    """
    curvatures, basis = torch.linalg.eigh(matrix)
    slope = basis.T @ slope
    low = max(float(curvatures.max()), 0.0)
    high = low + float(slope.norm()) / radius
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float((slope / (middle - curvatures)).norm()) > radius else (low, middle)
    d = slope / (high - curvatures)
    return float(d @ (curvatures * d) / 2 + slope @ d)


def highest_in_box(matrix, slope, edges):
    """max z^T H z / 2 + b^T z over |z_i| <= edge_i: the largest of the stationary points of all faces, 3^n of them."""
    best = -math.inf
    for sides in itertools.product((-1.0, 0.0, 1.0), repeat=len(slope)):
        z = torch.tensor(sides, dtype=matrix.dtype) * edges
        free = torch.tensor(sides) == 0
        if free.any():
            z[free] = torch.linalg.lstsq(matrix[free][:, free], -(slope + matrix @ z)[free]).solution
        if bool((z.abs() <= edges * (1 + 1e-12)).all()):
            best = max(best, float(z @ matrix @ z / 2 + slope @ z))
    return best
