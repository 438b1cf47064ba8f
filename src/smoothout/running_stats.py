"""Running statistics of BatchNorm: left alone for a while, taken anew over a data set, or shared by processes."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from smoothout.ranks import Ranks


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


class PartialRunningStats:
    r"""Running statistics of an update whose ghost batches are spread over processes, as one process would leave them.

    With r before the update, eta the momentum, and s_k the mean and unbiased variance of ghost batch k of K, BatchNorm
    calls in order give

        r <- (1 - eta)^K r + sum_k eta (1 - eta)^(K - k) s_k.

    Each process lets its own ghost batches in and passes over the others', so that it holds its part of that sum, the
    first process that of r, too; on leaving, the parts are added up. With momentum None the same holds of the plain
    average over all ghost batches so far. ``num_batches_tracked`` counts the ghost batches of all.

    A context manager around the passes of one update; only BatchNorms that track statistics in training take part. If
    an exception leaves it, all statistics are what they were.

    Args:
        model: The model.
        ranks: The processes.

    Example:
        >>> from smoothout.ranks import ALONE
        >>> norm = nn.BatchNorm1d(1)
        >>> with PartialRunningStats(norm, ALONE) as partial:
        ...     _ = norm(torch.tensor([[1.0], [3.0]]))  # ghost batch 0
        ...     partial.skip(1)  # ghost batch 1 is another process's
        >>> norm.running_mean, int(norm.num_batches_tracked)  # .9 (.9 0 + .1 2)
        (tensor([0.1800]), 2)
    """

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self._model, self._ranks = model, ranks
        self._norms: list[tuple[str, _BatchNorm]] = []
        self._before: list[list[Tensor]] = []
        self._skipped = 0

    @torch.no_grad()
    def __enter__(self) -> "PartialRunningStats":
        self._norms = [
            (name, norm)
            for name, norm in self._model.named_modules()
            if isinstance(norm, _BatchNorm)
            and norm.training
            and norm.track_running_stats
            and norm.running_mean is not None
        ]
        self._before = [[value.clone() for value in _tracked(norm)] for _, norm in self._norms]
        self._skipped = 0
        if not self._ranks.first:
            for value in self._parts():
                value.zero_()
        return self

    @torch.no_grad()
    def skip(self, calls: int) -> None:
        """Pass over what other processes' ghost batches, of this many BatchNorm calls, do to this one's part."""
        self._skipped += calls
        for _, norm in self._norms:
            kept = _kept(norm, calls)
            for value in (norm.running_mean, norm.running_var):
                assert value is not None
                value.mul_(kept)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(calls)

    @torch.no_grad()
    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is not None:
            for (_, norm), copies in zip(self._norms, self._before, strict=True):
                for value, before in zip(_tracked(norm), copies, strict=True):
                    value.copy_(before)
            return
        parts = self._parts()
        if parts and self._ranks.size > 1:
            total = self._ranks.sum(torch.cat(parts))
            for value, summed in zip(parts, torch.split(total, [len(part) for part in parts]), strict=True):
                value.copy_(summed)

    def refuse_other_calls(self, calls: int) -> None:
        """Raise unless this process has called every BatchNorm so often since the context was entered.

        Raises:
            RuntimeError: Naming the first that it has not.
        """
        for (name, norm), before in zip(self._norms, self._before, strict=True):
            if norm.num_batches_tracked is None:
                continue
            found = int(norm.num_batches_tracked - before[-1]) - self._skipped
            if found != calls:
                raise RuntimeError(
                    f"BatchNorm {name!r} was called {found} times for {calls} ghost batches; expected once for each, "
                    f"or its running statistics would depend on the number of processes. Give each call a BatchNorm of "
                    f"its own, or train in one process."
                )

    def _parts(self) -> list[Tensor]:
        return [
            value for _, norm in self._norms for value in (norm.running_mean, norm.running_var) if value is not None
        ]


def _tracked(norm: _BatchNorm) -> list[Tensor]:
    values = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    return [value for value in values if value is not None]


def _kept(norm: _BatchNorm, calls: int) -> Tensor | float:
    """What so many further calls keep of the running statistics."""
    if norm.momentum is not None:
        return float((1 - norm.momentum) ** calls)
    if norm.num_batches_tracked is None:  # then BatchNorm leaves them alone
        return 1.0
    seen = norm.num_batches_tracked.to(torch.float64)
    return seen / (seen + calls) if calls else 1.0
