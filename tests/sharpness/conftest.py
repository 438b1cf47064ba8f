from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional


@pytest.fixture(scope="session")
def dense():
    """A network with BatchNorm and ReLUs, trained a little, its data in unequal batches, and its Hessian.

    Attributes: model, data, matrix (float32, rows in the order of the weights), largest and smallest eigenvalues.
    """
    from scipy.sparse.linalg import eigsh

    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = [nn.Linear(30, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, 64), nn.BatchNorm1d(64), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Linear(64, 10))
        inputs, targets = torch.randn(16, 30), torch.randint(0, 10, (16,))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(15):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    model.zero_grad()
    model.eval()
    matrix = hessian_matrix(functional.cross_entropy(model(inputs), targets), list(model.parameters()))
    start = torch.ones(len(matrix)).numpy()
    return SimpleNamespace(
        model=model,
        data=[(inputs[:9], targets[:9]), (inputs[9:12], targets[9:12]), (inputs[12:], targets[12:])],
        matrix=matrix,
        largest=eigsh(matrix.numpy(), 2, which="LA", tol=1e-6, v0=start, return_eigenvectors=False).max(),
        smallest=eigsh(matrix.numpy(), 1, which="SA", tol=1e-6, v0=start, return_eigenvectors=False).min(),
    )


def hessian_matrix(loss, parameters, rows=256):
    """All second derivatives, a block of rows at a time."""
    slopes = torch.autograd.grad(loss, parameters, create_graph=True)
    slope = torch.cat([part.reshape(-1) for part in slopes])
    matrix = slope.new_empty(len(slope), len(slope))
    for first in range(0, len(slope), rows):
        units = torch.eye(len(slope[first : first + rows]), len(slope) - first, dtype=slope.dtype)
        units = functional.pad(units, (first, 0))
        found = torch.autograd.grad(slope, parameters, units, retain_graph=True, is_grads_batched=True)
        torch.cat([part.reshape(len(units), -1) for part in found], 1, out=matrix[first : first + rows])
    return matrix.detach()
