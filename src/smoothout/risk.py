"""Loss and errors of a network over a data set, at its weights or at many points around them."""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothout.losses import Loss, per_sample
from smoothout.ranks import ALONE, Ranks
from smoothout.results.runs import Risk
from smoothout.samples import Batches, Samples
from smoothout.weights import evaluating

#: Puts a model's weights somewhere for the length of a ``with`` block.
Point = Callable[[], AbstractContextManager[object]]


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
    ranks: Ranks = ALONE,
    count: int = 0,
) -> Risk:
    """Mean loss and classification errors in evaluation mode; batches are weighted by their size.

    Args:
        model: Maps inputs to logits (B, C); its mode comes back as it was.
        batches: Pairs (inputs, targets); of several processes those of this one.
        loss: (logits, targets) -> mean loss of a batch, in nats for cross entropy.
        prepare: Applied to the inputs of each batch.
        scope: Given the batch's index, a context to run it in, such as ``smoother.perturbed``.
        ranks: Processes that share the batches, k = rank mod size each; all get the bits of one alone.
        count: Of the batches of all, where there are several processes.

    Raises:
        ValueError: If there are no samples.
    """
    sums = _Sums(ranks, count, device_of(model))
    with evaluating(model):
        for index, (inputs, targets) in enumerate(batches):
            with scope(index):
                logits = model(prepare(inputs))
            sums.add(loss(logits, targets).double() * len(targets), logits, targets)
    return sums.risk()


@torch.no_grad()
def risks(
    model: nn.Module, data: Batches, points: Sequence[Point], loss: Loss = functional.cross_entropy
) -> list[Risk]:
    """Mean loss and errors at several points, reading the data once for all of them.

    f = sum of per-sample losses / N, summed in float64. The mode is the caller's, and so are the weights: points may
    leave them anywhere, so call this inside :func:`smoothout.weights.kept`.

    Args:
        model: Maps inputs to outputs; errors are counted where those are logits (B, C) and targets are classes.
        data: Pairs (inputs, targets), or :class:`Samples`; of samples that are spread over processes each evaluates
            its own, and all get the same bits as one alone.
        points: Each puts the weights somewhere while its context is open.
        loss: See :mod:`smoothout.losses`.
    """
    samples = data if isinstance(data, Samples) else Samples(data, device_of(model))
    resolved = per_sample(loss)
    device = device_of(model)
    found = [_Sums(samples.ranks, samples.count, device) for _ in points]
    with samples.ranks.together(device):
        for part in samples.parts():
            for sums, point in zip(found, points, strict=True):
                with point():
                    for inputs, targets in part:
                        outputs = model(inputs)
                        sums.add(resolved(outputs, targets).double().sum(), outputs, targets)
    return [sums.risk() for sums in found]


class Total:
    """The sum of one number of each batch, in float64 and in the order of the batches, whoever evaluated which.

    Alone it stays on the device, so that nothing waits for it. Several processes put their numbers in a table that is
    0 elsewhere. Adding up the tables is exact, x + 0, so that what is then added in order has the bits of one alone.

    Args:
        ranks: The processes.
        count: Number of batches, where there are several.
        device: Where the numbers are.
    """

    def __init__(self, ranks: Ranks, count: int, device: torch.device) -> None:
        self._ranks = ranks
        self._sum: Tensor | float = 0.0
        self._table: Tensor | None = None
        if ranks.size > 1:
            self._table = torch.zeros(count, dtype=torch.float64, device=device)
            self._place = self._ranks.rank

    def add(self, number: Tensor) -> None:
        """Take in the number of this process's next batch."""
        if self._table is None:
            self._sum = self._sum + number
            return
        self._table[self._place] = number
        self._place += self._ranks.size

    def value(self) -> float:
        """The sum; all processes must ask for it."""
        if self._table is None:
            return float(self._sum)
        # Not sum(), which compensates for rounding: one process alone does not.
        return functools.reduce(operator.add, self._ranks.sum(self._table).tolist(), 0.0)


class _Sums:
    """Sums over samples; they stay on the device, so that nothing waits for it."""

    def __init__(self, ranks: Ranks, count: int, device: torch.device) -> None:
        self._ranks, self._device = ranks, device
        self._loss = Total(ranks, count, device)
        self._wrong: Tensor | int = 0
        self._classes = True
        self._samples = 0

    def add(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Take a batch in, given the sum of its losses."""
        self._loss.add(loss)
        self._samples += len(targets)
        self._classes &= isinstance(outputs, Tensor) and outputs.dim() == 2
        self._classes &= targets.dim() == 1 and not targets.is_floating_point()
        if self._classes:
            self._wrong = self._wrong + torch.stack(errors(outputs, targets))

    def risk(self) -> Risk:
        """Means over the samples, those of all processes."""
        wrong = self._wrong if isinstance(self._wrong, Tensor) else torch.zeros(2, dtype=torch.long)
        counts = torch.tensor([self._samples, not self._classes], device=wrong.device)
        samples, others, first, fifth = self._ranks.sum(torch.cat((counts, wrong)).to(self._device)).tolist()
        if samples == 0:
            raise ValueError("there are no samples to evaluate; expected at least one batch. Check the split's size.")
        if others:
            first = fifth = math.nan
        return Risk(self._loss.value() / samples, 100 * first / samples, 100 * fifth / samples, samples)


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter lives."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device
