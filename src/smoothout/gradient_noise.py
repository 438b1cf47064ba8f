"""The gradient noise scale, from the ghost batches of a few large batches."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothout import _checks
from smoothout.losses import Loss
from smoothout.results.gradient_noise import NoiseScale
from smoothout.running_stats import frozen_running_stats


def noise_scale(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss = functional.cross_entropy,
    *,
    ghost_batch_size: int,
    seed: int = 0,
) -> NoiseScale:
    r"""Estimate B_simple = tr(Sigma) / |G|^2 (McCandlish et al. 2018, arXiv 1812.06162, equation 2.9 and appendix A.1).

    With g_1 .. g_K the mean gradients of the K ghost batches of b samples that a batch consists of, and g their mean,

    .. math:: \widehat{tr \Sigma} = \frac{b}{K - 1} \sum_k \|g_k - g\|^2,\quad
              \widehat{\|G\|^2} = \|g\|^2 - \widehat{tr \Sigma} / (K b)

    which are the paper's estimates from two batch sizes, b and K b. Both are unbiased; they are averaged over the
    batches before one is divided by the other. A batch much larger than B_simple brings little per sample, one much
    smaller loses little. The gradients are those that training sees: training mode, so that BatchNorm normalises by
    ghost batch; running statistics, gradients, modes and the global random state are left as they are.

    Args:
        model: Maps inputs to outputs.
        batches: Large batches (inputs, targets), drawn at random; a ragged last ghost batch of each is left out.
        loss: (outputs, targets) -> mean loss.
        ghost_batch_size: b.
        seed: Of dropout and the like.

    Raises:
        ValueError: If a batch has fewer than two whole ghost batches, or there are no batches.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> inputs = torch.randn(1000, 4)
        >>> batches = [(inputs, (inputs[:, 0] > 0).long())]
        >>> found = noise_scale(nn.Linear(4, 2), batches, ghost_batch_size=50)
        >>> found.ghost_batches, found.value > 0
        (20, True)
    """
    _checks.whole("ghost_batch_size", ghost_batch_size, at_least=1)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    modes = [(module, module.training) for module in model.modules()]
    devices = list({parameter.device for parameter in parameters if parameter.is_cuda})
    found, count = [], 0
    try:
        with frozen_running_stats(model), torch.random.fork_rng(devices):
            torch.default_generator.manual_seed(seed)
            if devices:
                torch.cuda.manual_seed_all(seed)
            model.train()
            for inputs, targets in batches:
                whole = len(targets) // ghost_batch_size * ghost_batch_size
                cuts = [slice(start, start + ghost_batch_size) for start in range(0, whole, ghost_batch_size)]
                gradients = (
                    [g.detach() for g in _gradient(model, parameters, loss, inputs[cut], targets[cut])] for cut in cuts
                )
                variance, square, ghosts = _estimates(gradients, ghost_batch_size)
                found.append((variance, square))
                count += ghosts
    finally:
        for module, training in modes:
            module.training = training
    if not found:
        raise ValueError("there are no batches; expected at least one. Is the iterator used up?")
    return _pooled(found, ghost_batch_size, count)


def _gradient(
    model: nn.Module, parameters: Sequence[Tensor], loss: Loss, inputs: Tensor, targets: Tensor
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss(model(inputs), targets), parameters, allow_unused=True, materialize_grads=True)


def _estimates(gradients: Iterable[list[Tensor]], size: int) -> tuple[float, float, int]:
    """tr(Sigma) and |G|^2 of one batch, and the number of its ghost batches; keeps one gradient besides their sum."""
    total: Sequence[Tensor] = []
    squares: Tensor | float = 0.0
    count = 0
    for gradient in gradients:
        squares = squares + _square(gradient)
        total = torch._foreach_add(list(total), gradient) if total else gradient
        count += 1
    if count < 2:
        raise ValueError(
            f"a batch has {count} ghost batches of {size} samples; expected at least 2. Give a smaller "
            f"ghost_batch_size, or larger batches."
        )
    of_mean = _square(total) / count**2
    variance = size * (squares - count * of_mean) / (count - 1)
    return float(variance), float(of_mean - variance / (count * size)), count


def _square(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.double().square().sum() for tensor in tensors]).sum()


def _pooled(found: Sequence[tuple[float, float]], size: int, count: int) -> NoiseScale:
    """The ratio of means, with its jackknife error."""
    n = len(found)
    variance, square = (math.fsum(each[k] for each in found) / n for k in range(2))
    value = variance / square if square > 0 else math.inf
    error = math.nan
    if n > 1 and square > 0:
        without = [(n * variance - v) / (n * square - s) if n * square > s else math.inf for v, s in found]
        mean = math.fsum(without) / n
        error = math.sqrt((n - 1) / n * math.fsum((each - mean) ** 2 for each in without))
    doubts = []
    if square <= 0:
        doubts.append("the gradient is not told apart from 0: the noise scale is larger than these batches can show")
    elif n < 2:
        doubts.append("one batch: its error is not known; give more batches")
    elif not error <= value / 2:
        doubts.append("the standard error exceeds half of the value; use more batches")
    return NoiseScale(value, error, variance, square, size, count, n, tuple(doubts))
