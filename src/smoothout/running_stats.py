"""Running statistics of BatchNorm: left alone for a while, or taken anew over a data set."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


@contextlib.contextmanager
def frozen_running_stats(model: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm layers update neither running statistics nor num_batches_tracked.

    They otherwise do what their mode says: training normalises by the batch, evaluation by the running
    statistics. May be nested, and the mode may change inside.

    Args:
        model: A model with or without BatchNorm, SyncBatchNorm or ghost norms.

    Example:
        >>> norm = nn.BatchNorm1d(3)
        >>> with frozen_running_stats(norm):
        ...     _ = norm(torch.randn(8, 3) + 5)
        >>> norm.running_mean, int(norm.num_batches_tracked)
        (tensor([0., 0., 0.]), 0)
    """
    # BatchNorm's own switch: nothing is written. Momentum 0 would let a NaN in (0 NaN is NaN), and writing copies
    # back afterwards would show an evaluation inside the context what it should not see.
    before = [(norm, norm.track_running_stats) for norm in _norms(model)]
    try:
        for norm, _ in before:
            norm.track_running_stats = False
        yield
    finally:
        for norm, tracked in before:
            norm.track_running_stats = tracked


@dataclass
class _Pool:
    """Number, mean and sum of squared deviations, per channel, of all values seen (Chan et al. 1979)."""

    count: int = 0
    mean: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, _norm: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        """A forward pre-hook; takes the values (B, C, ...) that the layer is about to normalise."""
        values = inputs[0] if inputs else named["input"]
        values = values.float() if values.dtype in {torch.float16, torch.bfloat16} else values
        over = [0, *range(2, values.dim())]
        variance, mean = torch.var_mean(values, over, correction=0)
        more = values.numel() // values.shape[1]
        total = self.count + more
        apart = mean - self.mean
        self.mean = self.mean + apart * (more / total)
        self.squares = self.squares + variance * more + apart.square() * (self.count * more / total)
        self.count = total


def _run(model: nn.Module, batch: Any) -> object:
    return model(batch[0] if isinstance(batch, (tuple, list)) else batch)


@torch.no_grad()
def recompute_running_stats(
    model: nn.Module, batches: Iterable[Any], call: Callable[[nn.Module, Any], object] | None = None
) -> None:
    """Take the running statistics of every BatchNorm anew over ``batches``, for the weights as they are now.

    With x_1 .. x_n all values of a channel that reach the layer in all batches,

        running_mean = sum_i x_i / n,    running_var = sum_i (x_i - running_mean)^2 / (n - 1),

    so a short last batch counts by its size, and how a ghost norm cuts the batch does not matter. (The average of
    variances within batches, which momentum=None gives, leaves out how far the batches' means lie apart: part of
    the variance that evaluation meets wherever batches differ.) num_batches_tracked becomes the number of batches.

    BatchNorm layers run in training mode, so that each sees what the layers before it give in training; all else,
    such as dropout, runs in evaluation mode. Weights and momentum are not touched, modes come back. Layers that no
    batch reaches keep their statistics; after an exception all do.

    Source: the usual step after weights were averaged (Izmailov et al. 2018, arXiv 1803.05407, section 3.2); sums
    combined as in Chan, Golub and LeVeque 1979.

    Args:
        model: The model.
        batches: What ``call`` takes; each goes through once, in order.
        call: Runs a batch, ``call(model, batch)``. By default ``model(batch[0])`` for tuples and lists, else
            ``model(batch)``.

    Raises:
        ValueError: If there are no batches and the model has BatchNorm.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> recompute_running_stats(norm, [torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0], [5.0]])])
        >>> norm.running_mean, norm.running_var, int(norm.num_batches_tracked)
        (tensor([3.]), tensor([2.5000]), 2)
    """
    pools = {norm: _Pool() for norm in _norms(model) if norm.running_mean is not None}
    if not pools:
        return
    count = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(frozen_running_stats(model))
        if "torch._dynamo" in sys.modules:  # compiled code would not see the hooks; importing dynamo takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_only_norms_train(model))
        for norm, pool in pools.items():
            stack.callback(norm.register_forward_pre_hook(pool.add, with_kwargs=True).remove)
        for batch in batches:
            (call or _run)(model, batch)
            count += 1
    if count == 0:
        raise ValueError("there are no batches; expected at least one. Is the iterator used up? The statistics stay.")
    for norm, pool in pools.items():
        _write(norm, pool, count)


@contextlib.contextmanager
def _only_norms_train(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = isinstance(module, _BatchNorm)
        yield
    finally:
        for module, training in modes:
            module.training = training


def _write(norm: _BatchNorm, pool: _Pool, batches: int) -> None:
    if not isinstance(pool.mean, Tensor) or not isinstance(pool.squares, Tensor):
        return  # no batch reached the layer
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(pool.mean)
    norm.running_var.copy_(pool.squares / (pool.count - 1))  # training mode refuses fewer than 2 values
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.fill_(batches)
