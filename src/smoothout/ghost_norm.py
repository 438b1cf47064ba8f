"""BatchNorm by ghost batches: the whole batch in one pass, each ghost batch by its own statistics."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from smoothout import _checks
from smoothout.large_batch import partition

Model = TypeVar("Model", bound=nn.Module)
Blocks = list[tuple[int, int]]  # (number of ghost batches, their samples): at most two, the second is the remainder


def _blocks(samples: int, size: int) -> Blocks:
    """The ghost batches of ``partition``, those of equal size together, so that the work does not grow with them."""
    pieces = partition(samples, size)
    equal = len(pieces) - (len(pieces) > 1 and pieces[-1] != pieces[0])
    return [(equal, pieces[0]), *((1, piece) for piece in pieces[equal:])]


def _cut(blocks: Blocks, values: Tensor) -> Iterator[Tensor]:
    """Views (K, b, C, ...) of values (B, C, ...), one per block."""
    parts = values.split_with_sizes([count * samples for count, samples in blocks])
    for (count, samples), part in zip(blocks, parts, strict=True):
        yield part.view(count, samples, *part.shape[1:])


def _over(values: Tensor) -> list[int]:
    """The dimensions of (K, b, C, ...) that statistics are taken over: all but K and C."""
    return [1, *range(3, values.dim())]


def _along(values: Tensor, per_channel: Tensor) -> Tensor:
    """(K, C) or (C,) in a shape that multiplies values (K, b, C, ...)."""
    ones = (1,) * (values.dim() - 3)
    return per_channel.reshape(-1, 1, per_channel.shape[-1], *ones)


def _wide(values: Tensor) -> Tensor:
    """Half precision as float32, all else as it is."""
    return values.float() if values.dtype in {torch.float16, torch.bfloat16} else values


class _Normalise(torch.autograd.Function):
    """y = weight (x - mean) / sqrt(var + eps) + bias by ghost batch, with the means and biased variances, (K, C).

    In place in the result: on a CPU, memory that is asked for anew costs more than the arithmetic.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, blocks: Blocks, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        wide, weight, bias = _wide(x), _wide(weight), _wide(bias)
        y = torch.empty_like(wide)
        means, variances = [], []
        for v, out in zip(_cut(blocks, wide), _cut(blocks, y), strict=True):
            mean = v.mean(_over(v), keepdim=True)
            torch.sub(v, mean, out=out)
            # Squares that are never stored; one row at a time, as a norm adds up in sequence, a sum pairwise.
            rows = torch.linalg.vector_norm(out, dim=-1, keepdim=True) if v.dim() > 3 else out
            variance = rows.square().sum(_over(v), keepdim=True).mul_(mean.numel() / v.numel())
            scale = torch.rsqrt(variance + eps) * _along(v, weight)
            out.mul_(scale).add_(_along(v, bias))
            means.append(mean.flatten(1))
            variances.append(variance.flatten(1))
        return y.to(x.dtype), torch.cat(means), torch.cat(variances)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, weight, bias, ctx.blocks, ctx.eps = inputs
        _, mean, variance = output
        ctx.mark_non_differentiable(mean, variance)
        ctx.save_for_backward(x, weight, bias, mean, variance)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, variance = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the gradients must themselves be functions of x
            dx, dw, db = _differentiable_gradients(grad, x, weight, ctx.blocks, ctx.eps)
        else:
            dx, dw, db = _gradients(grad, x, weight, mean, variance, ctx.blocks, ctx.eps)
        return dx.to(x.dtype), dw.to(weight.dtype), db.to(bias.dtype), None, None


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, blocks: Blocks, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """dx = A dy + B (x - mean) + C with A = w r, B = -A r^2 <dy (x - mean)>, C = -A <dy>; r = 1 / sqrt(var + eps)."""
    grad, x, weight = _wide(grad), _wide(x), _wide(weight)
    dx, dw, db = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(weight)
    counts = [count for count, _ in blocks]
    parts = zip(
        *(_cut(blocks, values) for values in (grad, x, dx)),
        mean.split_with_sizes(counts),
        variance.split_with_sizes(counts),
        strict=True,
    )
    for g, v, out, m, var in parts:
        center, r = _along(v, m), _along(v, torch.rsqrt(var + eps))
        share = center.numel() / v.numel()
        torch.sub(v, center, out=out)
        along = out.mul_(g).sum(_over(v), keepdim=True)
        total = g.sum(_over(v), keepdim=True)
        a = r * _along(v, weight)
        torch.sub(v, center, out=out)
        out.mul_(-a * r.square() * along * share).addcmul_(g, a).sub_(a * total * share)
        dw += (along * r).sum(0).flatten()
        db += total.sum(0).flatten()
    return dx, dw, db


def _differentiable_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, blocks: Blocks, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, out of place and with the statistics taken anew, so that autograd sees every step."""
    grad, x, weight = _wide(grad), _wide(x), _wide(weight)
    dx, dw, db = [], torch.zeros_like(weight), torch.zeros_like(weight)
    for g, v in zip(_cut(blocks, grad), _cut(blocks, x), strict=True):
        over = _over(v)
        centered = v - v.mean(over, keepdim=True)
        r = torch.rsqrt(centered.square().mean(over, keepdim=True) + eps)
        normal = centered * r
        inner = g - g.mean(over, keepdim=True) - normal * (g * normal).mean(over, keepdim=True)
        dx.append((_along(v, weight) * r * inner).flatten(0, 1))
        dw = dw + (g * normal).sum([0, *over])
        db = db + g.sum([0, *over])
    return torch.cat(dx), dw, db


class _GhostBatchNorm(_BatchNorm):
    """What the three have in common."""

    ghost_batch_size: int

    def __init__(self, *arguments: Any, ghost_batch_size: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ghost_batch_size = _checks.whole("ghost_batch_size", ghost_batch_size, at_least=1)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (nn.BatchNorm's name)
        """Each ghost batch of ``input``, (B, C, ...), by its own statistics, or in evaluation by the running ones."""
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        if input.shape[1] != self.num_features:
            raise ValueError(
                f"an input of shape {tuple(input.shape)} has {input.shape[1]} channels; expected {self.num_features}, "
                f"the num_features of the layer."
            )
        if len(input) == 0 or input[0, 0].numel() * min(partition(len(input), self.ghost_batch_size)) == 1:
            raise ValueError(
                f"an input of shape {tuple(input.shape)} in ghost batches of {self.ghost_batch_size} leaves a ghost "
                f"batch with fewer than 2 values per channel; expected at least 2, or there is no variance. "
                f"Use a larger batch or ghost_batch_size, or evaluation mode."
            )
        weight = input.new_ones(input.shape[1]) if self.weight is None else self.weight
        bias = input.new_zeros(input.shape[1]) if self.bias is None else self.bias
        blocks = _blocks(len(input), self.ghost_batch_size)
        y, mean, variance = _Normalise.apply(input, weight, bias, blocks, self.eps)
        if self.training and self.track_running_stats and self.running_mean is not None:
            self._track(mean, variance, [samples * input[0, 0].numel() for _, samples in blocks])
        result: Tensor = y
        return result

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, values: list[int]) -> None:
        """Running statistics as one BatchNorm call per ghost batch, in order, would leave them."""
        calls = len(mean)
        kept, shares = self._shares(calls, mean)
        # All ghost batches but the last have the same number of values.
        variance = variance.mul(values[0] / (values[0] - 1))
        if len(values) > 1:
            variance[-1] *= (values[1] / (values[1] - 1)) / (values[0] / (values[0] - 1))
        for running, statistics in ((self.running_mean, mean), (self.running_var, variance)):
            assert running is not None
            running.copy_(running * kept + (shares[:, None] * statistics).sum(0))
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(calls)

    def _shares(self, calls: int, like: Tensor) -> tuple[Tensor | float, Tensor]:
        """What is kept of the running statistics, and the weight of each ghost batch's, (K,)."""
        if self.momentum is None:
            if self.num_batches_tracked is None:  # then nn.BatchNorm leaves them alone
                return 1.0, like.new_zeros(calls)
            before = self.num_batches_tracked.to(like.dtype)  # stays a tensor: a float would make a GPU wait
            return before / (before + calls), (1 / (before + calls)).expand(calls)
        age = torch.arange(calls - 1, -1, -1, dtype=like.dtype, device=like.device)
        return (1 - self.momentum) ** calls, self.momentum * (1 - self.momentum) ** age

    def extra_repr(self) -> str:
        """BatchNorm's, and the size."""
        plain: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{plain}, ghost_batch_size={self.ghost_batch_size}"


class GhostBatchNorm1d(_GhostBatchNorm, nn.BatchNorm1d):
    """BatchNorm of (B, C) or (B, C, L) by ghost batches; see :class:`GhostBatchNorm2d`.

    Example:
        >>> GhostBatchNorm1d(3, ghost_batch_size=32)(torch.randn(100, 3)).shape
        torch.Size([100, 3])
    """


class GhostBatchNorm2d(_GhostBatchNorm, nn.BatchNorm2d):
    """BatchNorm of (B, C, H, W) whose batch is normalised by ghost batches, all in one pass.

    The batch is cut as :func:`smoothout.large_batch.partition` says. Of ghost batch k, with mean m_k and biased
    variance v_k per channel,

        y = weight (x - m_k) / sqrt(v_k + eps) + bias.

    The running statistics become what K calls of BatchNorm in order make of them, with s_k the mean and the
    unbiased variance:

        r <- (1 - momentum)^K r + sum_k momentum (1 - momentum)^(K - k) s_k,

    or the plain average over all ghost batches so far if momentum is None; num_batches_tracked grows by K. In
    evaluation it is BatchNorm; without running statistics the ghost batches are normalised as in training.
    Statistics of half precision inputs are taken in float32. Reverse-mode gradients of any order; no forward-mode
    ones, no vmap. It is a BatchNorm to ``isinstance`` and has its
    ``state_dict``.

    Source: Hoffer et al. 2017, arXiv 1705.08741, algorithm 1; the weights of its printed running average do not
    add up to 1, those here do.

    Args:
        arguments, options: As of ``nn.BatchNorm2d``: num_features, eps, momentum, affine, track_running_stats, ...
        ghost_batch_size: Samples of a ghost batch.

    Returns:
        Called with (B, C, H, W): the same shape, type and memory format.

    Raises:
        ValueError: For a size below 1, an input of another number of dimensions, or, where batch statistics are
            used, a ghost batch with fewer than 2 values per channel.

    Example:
        >>> norm = GhostBatchNorm2d(3, ghost_batch_size=4)
        >>> y = norm(torch.randn(8, 3, 5, 5) + torch.arange(8.0).view(8, 1, 1, 1))
        >>> bool(y[:4].mean().abs() < 1e-6), bool(y[4:].mean().abs() < 1e-6), int(norm.num_batches_tracked)
        (True, True, 2)
    """


class GhostBatchNorm3d(_GhostBatchNorm, nn.BatchNorm3d):
    """BatchNorm of (B, C, D, H, W) by ghost batches; see :class:`GhostBatchNorm2d`.

    Example:
        >>> GhostBatchNorm3d(3, ghost_batch_size=2)(torch.randn(4, 3, 2, 2, 2)).shape
        torch.Size([4, 3, 2, 2, 2])
    """


_GHOSTS: dict[type[nn.Module], type[_GhostBatchNorm]] = {
    nn.BatchNorm1d: GhostBatchNorm1d,
    nn.BatchNorm2d: GhostBatchNorm2d,
    nn.BatchNorm3d: GhostBatchNorm3d,
    **{ghost: ghost for ghost in (GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d)},
}


def convert_ghost_batchnorm(model: Model, size: int) -> Model:
    """Make every BatchNorm of a model normalise by ghost batches of ``size``, in place.

    Each layer stays the object it is, with its parameters, buffers, hooks, mode and settings, and only changes
    its class; so optimizers made before still work, and what is shared stays shared. Converting again changes
    the size. Source: Hoffer et al. 2017, arXiv 1705.08741, algorithm 1.

    Args:
        model: A model, or a BatchNorm itself.
        size: Samples of a ghost batch; see :class:`GhostBatchNorm2d`.

    Returns:
        The model.

    Raises:
        TypeError: For a SyncBatchNorm, LazyBatchNorm or other subclass of BatchNorm; nothing is converted then.
        ValueError: For a size below 1.

    Example:
        >>> model = convert_ghost_batchnorm(nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8)), 32)
        >>> type(model[1]).__name__, model[1].ghost_batch_size
        ('GhostBatchNorm1d', 32)
    """
    size = _checks.whole("ghost_batch_size", size, at_least=1)
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    for name, module in layers:
        if type(module) not in _GHOSTS:
            raise TypeError(
                f"module {name!r} is a {type(module).__name__}; expected BatchNorm1d, BatchNorm2d or BatchNorm3d. "
                f"Run a batch through lazy modules, and replace other kinds, before converting."
            )
    for _, module in layers:
        module.__class__ = _GHOSTS[type(module)]
        setattr(module, "ghost_batch_size", size)  # noqa: B010  (to mypy it is still a plain BatchNorm)
    return model


@contextmanager
def ghost_norms(model: nn.Module, size: int) -> Iterator[None]:
    """Inside, every BatchNorm of a model normalises by ghost batches of ``size``; after it, it is what it was.

    So that evaluation, also of layers without running statistics, is that of the model itself.

    Raises:
        TypeError, ValueError: As :func:`convert_ghost_batchnorm`; nothing is converted then.

    Example:
        >>> norm = nn.BatchNorm1d(3)
        >>> with ghost_norms(norm, 32):
        ...     print(type(norm).__name__)
        GhostBatchNorm1d
        >>> type(norm).__name__
        'BatchNorm1d'
    """
    before = [
        (module, type(module), module.__dict__.get("ghost_batch_size"))
        for module in model.modules()
        if isinstance(module, _BatchNorm)
    ]
    try:
        convert_ghost_batchnorm(model, size)
        yield
    finally:
        for module, kind, own in before:
            module.__class__ = kind
            if own is not None:
                setattr(module, "ghost_batch_size", own)  # noqa: B010  (to mypy it is a plain BatchNorm)
            else:
                module.__dict__.pop("ghost_batch_size", None)
