"""Loss and errors of a network over a data set: the one loop over data below ``train/``."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothout.results import Risk

Batches = Iterable[tuple[Tensor, Tensor]]


def errors(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of samples whose class is not the first, and not among the first five, of the logits (B, C)."""
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == targets[:, None]
    return (~ranked[:, 0]).sum(), (~ranked.any(dim=1)).sum()


@torch.no_grad()
def risk(
    model: nn.Module,
    batches: Batches,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
    prepare: Callable[[Tensor], Tensor] = lambda inputs: inputs,
    scope: Callable[[int], AbstractContextManager[object]] = lambda _: nullcontext(),
) -> Risk:
    """Mean loss and classification errors in evaluation mode; batches are weighted by their size.

    Args:
        model: Maps inputs to logits (B, C); its mode comes back as it was.
        batches: Pairs (inputs, targets).
        loss: (logits, targets) -> mean loss of a batch, in nats for cross entropy.
        prepare: Applied to the inputs of each batch.
        scope: Given the batch's index, a context to run it in, such as ``smoother.perturbed``.

    Raises:
        ValueError: If there are no samples.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    total = wrong1 = wrong5 = torch.zeros((), dtype=torch.float64)
    samples = 0
    try:
        for index, (inputs, targets) in enumerate(batches):
            with scope(index):
                logits = model(prepare(inputs))
            total = total + loss(logits, targets).double().cpu() * len(targets)
            first, fifth = errors(logits, targets)
            wrong1, wrong5 = wrong1 + first.cpu(), wrong5 + fifth.cpu()
            samples += len(targets)
    finally:
        for module, training in modes:
            module.training = training
    if samples == 0:
        raise ValueError("there are no samples to evaluate; expected at least one batch. Check the split's size.")
    return Risk(float(total) / samples, 100 * float(wrong1) / samples, 100 * float(wrong5) / samples, samples)
