"""Large batches: their ghost batches and their learning rate."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from smoothout import _checks
from smoothout._types import LearningRateRule


def partition(samples: int, size: int) -> list[int]:
    """Sizes of the pieces that ``samples`` are cut into: ``size`` each and a remainder.

    A remainder of one joins its neighbour, since BatchNorm cannot take a single sample. The one rule for
    batches of an epoch and ghost batches of a batch.

    Example:
        >>> partition(1000, 128)
        [128, 128, 128, 128, 128, 128, 128, 104]
        >>> partition(257, 128)
        [128, 129]
    """
    _checks.whole("samples", samples, at_least=0)
    _checks.whole("size", size, at_least=1)
    whole, rest = samples // size, samples % size  # torch.compile has no divmod of a symbolic size
    pieces = [size] * whole
    if rest == 1 and pieces:
        pieces[-1] += 1
    elif rest:
        pieces.append(rest)
    return pieces


def ghost_batches(*batch: Any, size: int) -> Iterator[Any]:
    """Cut a batch into ghost batches of ``size`` samples along dimension 0 (Hoffer et al. 2017).

    Weight each piece's mean loss by its share, ``len(x) / len(inputs)``, and the gradients add up to the
    gradient of the whole batch's mean loss; weight by tokens where the loss is a mean over tokens.
    Source: arXiv 1705.08741, algorithm 1.

    Args:
        batch: Tensors, or tuples, lists and mappings of tensors, all of the same length.
        size: Samples of a ghost batch; the last is shorter, or longer by one (see :func:`partition`).

    Yields:
        A piece of what was passed, of the same structure; a tuple if several things were passed.

    Raises:
        TypeError: For something that is no tensor or container of tensors.
        ValueError: For tensors of unequal length, 0-D tensors, or an empty batch.

    Example:
        >>> import torch
        >>> [len(x) for x, y in ghost_batches(torch.zeros(300, 3), torch.zeros(300), size=128)]
        [128, 128, 44]
    """
    lengths = {len(leaf) for leaf in _leaves(batch)}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"the parts of the batch have {sorted(lengths)} samples; expected one equal number, at least 1. "
            f"Every tensor needs its samples along dimension 0."
        )
    start = 0
    for length in partition(lengths.pop(), size):
        pieces = tuple(_cut(part, start, start + length) for part in batch)
        yield pieces[0] if len(pieces) == 1 else pieces
        start += length


def _leaves(part: Any) -> Iterator[Tensor]:
    if isinstance(part, Tensor):
        if part.dim() == 0:
            raise ValueError("the batch holds a 0-D tensor; expected samples along dimension 0 of every tensor.")
        yield part
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from _leaves(value)
    elif isinstance(part, (tuple, list)):
        for value in part:
            yield from _leaves(value)
    else:
        raise TypeError(
            f"the batch holds a {type(part).__name__}; expected tensors, or tuples, lists and mappings "
            f"of tensors. Take what is not per sample out of the batch first."
        )


def _cut(part: Any, start: int, stop: int) -> Any:
    if isinstance(part, Tensor):
        return part[start:stop]
    if isinstance(part, Mapping):
        return {name: _cut(value, start, stop) for name, value in part.items()}
    pieces = [_cut(value, start, stop) for value in part]
    if hasattr(part, "_fields"):  # a named tuple takes its fields one by one
        return type(part)(*pieces)
    return type(part)(pieces)


def learning_rate_factor(rule: LearningRateRule, batch: int, base_batch: int) -> float:
    """Factor on the learning rate of a batch of ``batch`` samples, tuned at ``base_batch``.

    "sqrt": (B / base)^(1/2), which keeps the covariance of the weight increments (Hoffer et al. 2017,
    section 4); "linear": B / base (Goyal et al. 2017, arXiv 1706.02677); "none": 1.

    Example:
        >>> learning_rate_factor("sqrt", 2048, 128)
        4.0
    """
    _checks.one_of("lr_rule", rule, LearningRateRule)
    ratio = _checks.whole("batch", batch, at_least=1) / _checks.whole("base_batch", base_batch, at_least=1)
    return {"sqrt": math.sqrt(ratio), "linear": ratio, "none": 1.0}[rule]
