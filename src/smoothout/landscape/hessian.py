"""Axes along which the loss curves most."""

from typing import Any

from torch import nn
from torch.nn import functional

from smoothout import _checks
from smoothout.landscape.displacements import Displacements
from smoothout.losses import Loss
from smoothout.samples import Batches, Samples
from smoothout.sharpness.hessian import eigenvectors


def hessian_axes(
    model: nn.Module,
    data: Batches | Samples,
    loss: Loss = functional.cross_entropy,
    *,
    count: int = 2,
    tolerance: float = 1e-3,
    seed: int = 0,
    process_group: Any = None,
) -> Displacements:
    r"""Unit eigenvectors of the Hessian's largest eigenvalues: a coordinate is a Euclidean distance.

    Near the model, f rises by lambda_1 x^2 / 2 + lambda_2 y^2 / 2 besides the slope.

    Args:
        model, data, loss, tolerance, seed: As for :func:`smoothout.sharpness.hessian`.
        count: 1 for a line, 2 for a plane.
        process_group: Processes that share the passes; see :class:`smoothout.objective.Objective`.

    Raises:
        ValueError: For another count, or if an eigenvector misses the tolerance.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> axes = hessian_axes(nn.Linear(3, 2), [(torch.randn(64, 3), torch.randint(0, 2, (64,)))])
        >>> [round(length, 4) for length in axes.lengths]
        [1.0, 1.0]
    """
    _checks.whole("count", count, at_least=1, below=3)
    found = eigenvectors(model, data, loss, count=count, tolerance=tolerance, seed=seed, process_group=process_group)
    if found.doubts:
        raise ValueError(f"the Hessian's axes are not found: {found.doubts[0]}. Or take random directions.")
    values = " and ".join(f"{value:.4g}" for value in found.values)
    what = "direction" if count == 1 else "plane"
    description = f"{what} of largest curvature (Hessian eigenvalue{'s' * (count - 1)} {values})"
    return Displacements.of(found.names, found.vectors, description, seed)
