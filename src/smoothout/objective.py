"""The loss of a data set as a function of the weights: value, gradient and Hessian products."""

import contextlib
import fnmatch
import math
import platform
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

import smoothout
from smoothout.losses import Loss, per_sample
from smoothout.ranks import Ranks, digest, sharing
from smoothout.results.sharpness import Center
from smoothout.risk import Total, device_of, risks
from smoothout.samples import Batches, Samples
from smoothout.weights import Snapshot, Weight, all_weights, kept

#: A tensor for each weight, of its shape and type: a displacement, a direction, a gradient.
Vector = Sequence[Tensor]
Products = Literal["double backward", "finite differences"]

_LENGTH = 0.02  # over which curvature changes, relative to 1 + ||theta||
_COARSEST = 1e-6  # resolution of a type that finite differences can work in
_ONCE_ONLY = re.compile(r"is not implemented|not supported|differentiate twice|double backward", re.IGNORECASE)


class Objective:
    r"""f(theta) = sum of per-sample losses / N over a data set, theta all weights with requires_grad.

    A context manager: inside, the model is in evaluation mode; on leaving it weights, buffers, modes, requires_grad
    and the global random state are as they were, bit for bit, also after an exception. ``.grad`` is never touched.
    Losses are summed in float64. Every method measures at theta_0 + offsets, theta_0 being the weights on entry.

    Args:
        model: Without BatchNorm that normalises by the batch in evaluation mode: f would not be a sum over samples.
        data: Pairs (inputs, targets), any iterable; see :class:`smoothout.samples.Samples`.
        loss: See :mod:`smoothout.losses`.
        parameters: Patterns of names; weights that match none are left out of theta.
        process_group: Processes of torch.distributed that share each pass over the data: process r of n evaluates
            batches r, r + n, ... and all end with the same numbers. Values are, bit for bit, those of one process
            alone; gradients and Hessian products are equal to them but for rounding, as sums have another order. By
            default this process alone, whether torch.distributed is in use or not; ``torch.distributed.group.WORLD``
            stands for all. Each process needs the same model and all of the data, and makes the same calls with the
            same arguments in the same order, on equal hardware with equal numbers of threads: what follows from the
            sums is computed by each. What one raises, all raise.

    Raises:
        ValueError: On entry, if there is nothing to measure, the loss is not finite at theta_0, or the processes have
            different data or weights.

    Attributes:
        weights: What theta is made of.
        center: f and its gradient at theta_0.
        slope: The gradient at theta_0.
        passes: Forward and backward passes over the data so far.
        products: How Hessian products are made.
        ranks: The processes that share the passes.
        device: Of the model.
    """

    center: Center
    slope: list[Tensor]

    def __init__(
        self,
        model: nn.Module,
        data: Batches | Samples,
        loss: Loss = functional.cross_entropy,
        *,
        parameters: Sequence[str] = ("*",),
        process_group: Any = None,
    ) -> None:
        self.model, self._data, self.loss = model, data, loss
        self._losses = per_sample(loss)
        self.weights = _chosen(model, parameters)
        self.parameters: list[Tensor] = [weight.parameter for weight in self.weights]
        self.ranks = sharing(process_group)
        self.passes = 0
        self.products: Products = "double backward"
        self._stack = contextlib.ExitStack()
        self._began = time.perf_counter()
        self._looked = False  # whether all gradients have a second derivative
        self._home = Snapshot()
        self.device = device_of(model)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            device = self.device
            # A DataLoader draws from the global generator whenever it is read.
            stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(kept(self.model))
            refuse_batch_statistics(self.model)
            self.samples = spread(self._data, self.model, self.ranks)
            self._home.take(self.parameters)
            self._measure_center()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def seconds(self) -> float:
        """Since this object was made."""
        return time.perf_counter() - self._began

    @property
    def dimension(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.parameters)

    def value(self, offsets: Vector | None = None) -> float:
        """f(theta_0 + offsets)."""
        self.passes += 1
        [found] = risks(self.model, self.samples, [lambda: self.moved(offsets)], self.loss)
        return found.loss

    def gradient(self, offsets: Vector | None = None) -> tuple[float, list[Tensor]]:
        """f(theta_0 + offsets) and its gradient there."""
        self.passes += 1
        total = Total(self.samples.ranks, self.samples.count, self.device)
        gradient = [torch.zeros_like(parameter) for parameter in self.parameters]
        count = 0
        with self.ranks.together(self.device), self.moved(offsets):
            for inputs, targets in self.samples.own:
                losses = self._losses(self.model(inputs), targets)
                if not losses.requires_grad:
                    raise ValueError(
                        "the loss has no gradient with respect to the weights; expected a differentiable one. Is there "
                        "a detach(), an argmax, or a no_grad() in the model or the loss?"
                    )
                found = torch.autograd.grad(losses.sum(), self.parameters, allow_unused=True, materialize_grads=True)
                torch._foreach_add_(gradient, found)
                total.add(losses.detach().double().sum())
                count += len(targets)
        count = self._mean(gradient, count)
        return total.value() / count, gradient

    def hessian_product(self, vector: Vector, offsets: Vector | None = None) -> list[Tensor]:
        """H v, H the Hessian of f at theta_0 + offsets, by double backward (Pearlmutter 1994).

        Where an operation has no second derivative it is by central differences of the gradient,
        (g(theta + h v) - g(theta - h v)) / (2 h); ``products`` says which. On smooth networks in float32 these are good
        to three digits along large eigenvalues; ReLUs have kinks, which they see as curvature, too. Attention is not
        fused in products by double backward, as it then has a second derivative.
        """
        if self.products == "double backward":
            try:
                with self.ranks.together(self.device), self.moved(offsets), sdpa_kernel(SDPBackend.MATH):
                    product, count = self._double_backward(vector)
                self._mean(product, count)
                return product
            except RuntimeError as error:
                if not _ONCE_ONLY.search(str(error)):
                    raise
                self.products = "finite differences"
        return self._differences(vector, offsets)

    def _mean(self, sums: list[Tensor], count: int) -> int:
        """Make sums over this process's samples means over all samples, in place; returns the number of those."""
        for part in sums:
            if part.numel():
                self.ranks.sum(part)
        count = self.ranks.total(count, self.device)
        torch._foreach_div_(sums, count)
        return count

    def _double_backward(self, vector: Vector) -> tuple[list[Tensor], int]:
        """The sum over this process's samples, and their number."""
        self.passes += 1
        product = [torch.zeros_like(parameter) for parameter in self.parameters]
        count = 0
        for inputs, targets in self.samples.own:
            losses = self._losses(self.model(inputs), targets).sum()
            slopes = torch.autograd.grad(
                losses, self.parameters, create_graph=True, allow_unused=True, materialize_grads=True
            )
            if not self._looked:
                _refuse_once_differentiable(slopes)
                self._looked = True
            curved = [(slope, v) for slope, v in zip(slopes, vector, strict=True) if slope.requires_grad]
            if curved:  # else the loss is linear in the weights
                found = torch.autograd.grad(
                    [slope for slope, _ in curved],
                    self.parameters,
                    [v for _, v in curved],
                    allow_unused=True,
                    materialize_grads=True,
                )
                torch._foreach_add_(product, found)
            count += len(targets)
        return product, count

    def _differences(self, vector: Vector, offsets: Vector | None) -> list[Tensor]:
        # The error is of order h^2 / L^2 and eps / h, L the length over which curvature changes: h = L eps^(1/3). Along
        # the largest eigenvalues of smooth networks that is some hundredths of the weights' norm.
        if any(torch.finfo(v.dtype).eps > _COARSEST for v in vector):
            raise ValueError(
                f"the weights are {vector[0].dtype}, too coarse for the finite differences that an operation without "
                f"second derivative needs; expected float32 or float64. Call model.float()."
            )
        norm = float(torch.stack(torch._foreach_norm(list(vector))).norm())
        if norm == 0:
            return [torch.zeros_like(v) for v in vector]
        size = float(torch.stack(torch._foreach_norm(self._home.copies)).norm())
        h = _LENGTH * torch.finfo(vector[0].dtype).eps ** (1 / 3) * (1 + size) / norm
        start = offsets if offsets is not None else [torch.zeros_like(v) for v in vector]
        ahead = self.gradient([o + h * v for o, v in zip(start, vector, strict=True)])[1]
        behind = self.gradient([o - h * v for o, v in zip(start, vector, strict=True)])[1]
        return [(a - b) / (2 * h) for a, b in zip(ahead, behind, strict=True)]

    @contextlib.contextmanager
    def moved(self, offsets: Vector | None) -> Iterator[None]:
        """The weights at theta_0 + offsets; back at theta_0 afterwards."""
        if offsets is None:
            yield
            return
        try:
            with torch.no_grad():
                torch._foreach_add_(self.parameters, list(offsets))
            torch.clear_autocast_cache()  # it holds copies of weights in half precision
            yield
        finally:
            self._home.restore()
            torch.clear_autocast_cache()

    def flat(self, vector: Vector) -> Tensor:
        """One row of all elements, float64 on the CPU, as SciPy takes it."""
        return torch.cat([part.detach().reshape(-1).to("cpu", torch.float64) for part in vector])

    def shaped(self, flat: Tensor) -> list[Tensor]:
        """The reverse of :meth:`flat`."""
        parts = torch.split(flat, [parameter.numel() for parameter in self.parameters])
        return [part.view(p.shape).to(p.device, p.dtype) for part, p in zip(parts, self.parameters, strict=True)]

    def _measure_center(self) -> None:
        [found] = risks(self.model, self.samples, [contextlib.nullcontext], self.loss)
        if not math.isfinite(found.loss):
            raise ValueError(
                f"the loss at the weights themselves is {found.loss}; expected a finite number. Sharpness has no "
                f"meaning there: check the checkpoint, the data's normalisation, or take one from before it diverged."
            )
        _, self.slope = self.gradient()
        wild = [w.name for w, part in zip(self.weights, self.slope, strict=True) if not bool(part.isfinite().all())]
        if wild:
            raise ValueError(
                f"the gradient at the weights themselves is not finite for {wild[0]}; expected finite numbers. Look "
                f"for a root, a logarithm or a norm at 0 in the model or the loss."
            )
        self.center = Center(
            loss=found.loss,
            error1=found.error1,
            samples=found.samples,
            weights=self.dimension,
            max_gradient=max(float(part.abs().max()) for part in self.slope if part.numel()),
            versions=versions(),
        )


def spread(data: Batches | Samples, model: nn.Module, ranks: Ranks) -> Samples:
    """The samples on the model's device, for processes that share the passes over them.

    Raises:
        ValueError: In all processes, if they have different samples or models.
    """
    device = device_of(model)
    with ranks.together(device):
        samples = data if isinstance(data, Samples) else Samples(data, device)
    if ranks.size > 1:
        ranks.same(
            {"the digest of the model": digest(model.state_dict().values())},
            "Load the same weights in every process, or broadcast those of process 0.",
        )
    return samples.spread(ranks)


def versions() -> dict[str, str]:
    """Of what computes."""
    return {"smoothout": smoothout.__version__, "torch": torch.__version__, "python": platform.python_version()}


def _chosen(model: nn.Module, patterns: Sequence[str]) -> list[Weight]:
    trainable = [weight for weight in all_weights(model) if weight.parameter.requires_grad]
    if not trainable:
        raise ValueError("no parameter has requires_grad; expected some to vary. Call model.requires_grad_().")
    chosen = [weight for weight in trainable if any(fnmatch.fnmatch(weight.name, each) for each in patterns)]
    if not chosen:
        raise ValueError(
            f"parameters is {list(patterns)}, which matches no weight; expected patterns of names such as "
            f"{trainable[0].name!r} or '*.weight'."
        )
    return chosen


def _refuse_once_differentiable(slopes: Vector) -> None:
    """Raise if a second derivative would leave out what passes through ``once_differentiable``.

    Autograd has a node there that raises, but skips it when it is asked for the gradients of named tensors.
    """
    nodes = [slope.grad_fn for slope in slopes]
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if node.name() == "torch::autograd::Error":
                raise RuntimeError("an operation is once_differentiable: its double backward is not implemented")
            nodes += [each for each, _ in node.next_functions]


def refuse_batch_statistics(model: nn.Module) -> None:
    """Raise ``ValueError`` if a BatchNorm of a model in evaluation mode normalises by the batch."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise ValueError(
                f"{name or 'the model'} is a {type(module).__name__} that normalises by the batch even in evaluation "
                f"mode, so the loss is not a sum over samples and its Hessian depends on the batches; expected running "
                f"statistics. Give it track_running_stats=True and call recompute_running_stats(model, data)."
            )
