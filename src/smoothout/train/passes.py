"""How samples go through the network in training: in which pieces, compiled or not, in which memory format."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from smoothout.ghost_norm import ghost_norms
from smoothout.large_batch import partition
from smoothout.ranks import ALONE, Ranks
from smoothout.train.config import Batches, CompileMode
from smoothout.train.data.splits import DataSet
from smoothout.weights import evaluating

#: Inputs and targets of one pass.
Piece = tuple[Tensor, Tensor]

#: Modes of torch.compile that replay CUDA graphs.
GRAPHS = ("reduce-overhead", "max-autotune")


# -- pieces ------------------------------------------------------------------------------------------------


def sizes(batches: Batches, loaded: Sequence[int]) -> list[int]:
    """Samples of what gets a noise and a pass of its own, where batches of these sizes are loaded."""
    if batches.noise_per == "batch":
        return list(loaded)
    return [piece for size in loaded for piece in partition(size, batches.ghost_batch_size)]


def updates(batches: Batches, loaded: Sequence[int]) -> list[list[int]]:
    """The same for each update of an epoch, whose batches are of these sizes."""
    starts = range(0, len(loaded), batches.accumulation)
    return [sizes(batches, loaded[start : start + batches.accumulation]) for start in starts]


def calls(batches: Batches, samples: int) -> int:
    """How often one pass over so many samples lets statistics into a BatchNorm, all copies together."""
    ghosts = len(partition(samples, batches.ghost_batch_size)) if batches.noise_per == "batch" else 1
    return ghosts * batches.copies


def normalised(network: nn.Module, batches: Batches) -> AbstractContextManager[None]:
    """Inside, BatchNorm takes its statistics by ghost batch, whatever the pieces; evaluation belongs outside."""
    return ghost_norms(network, batches.ghost_batch_size) if batches.noise_per == "batch" else nullcontext()


def check(batches: Batches, network: nn.Module, dataset: DataSet) -> None:
    """Raise if the BatchNorm layers of a network cannot tell the ghost batches of a whole batch.

    Raises:
        ValueError: Naming the layer and the remedy.
    """
    if batches.noise_per != "batch":
        return
    remedy = "or leave --noise-per out: then each ghost batch has a pass of its own"
    try:
        with normalised(network, batches):
            pass
    except TypeError as error:
        raise ValueError(f"noise_per is 'batch', and {str(error).removesuffix('.')}, {remedy}.") from error
    samples = min(2, len(dataset.train))
    for name, rows in _rows(network, dataset, samples):
        if rows != samples:
            raise ValueError(
                f"noise_per is 'batch', and the BatchNorm {name!r} is given {rows} rows for {samples} samples; "
                f"expected a row a sample, or ghost batches cannot be told apart. Keep samples along dimension 0, "
                f"{remedy}."
            )


@torch.no_grad()
def _rows(network: nn.Module, dataset: DataSet, samples: int) -> list[tuple[str, int]]:
    """How many rows each BatchNorm is given."""
    norms = [(name, module) for name, module in network.named_modules() if isinstance(module, _BatchNorm)]
    seen: list[tuple[str, int]] = []

    def look(name: str, _norm: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append((name, len(inputs[0] if inputs else named["input"])))

    hooks = [norm.register_forward_pre_hook(partial(look, name), with_kwargs=True) for name, norm in norms]
    try:
        if norms:
            inputs, _ = next(dataset.train.take(torch.arange(samples)).batches([samples]))
            with evaluating(network):
                network(dataset.normalise(inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


# -- memory format -----------------------------------------------------------------------------------------


def channels_last(network: nn.Module, dataset: DataSet, name: str) -> DataSet:
    """Bring a network to channels_last, in place, and the inputs that a data set prepares.

    Raises:
        ValueError: If the samples are no images.
    """
    if len(dataset.input_shape) != 3:
        raise ValueError(
            f"channels_last is on and the samples of {name} have the shape {dataset.input_shape}; expected images, "
            f"(channels, height, width). Leave --channels-last out, or use data of images."
        )
    network.to(memory_format=torch.channels_last)
    normalise = dataset.normalise

    def prepare(inputs: Tensor) -> Tensor:
        return normalise(inputs).contiguous(memory_format=torch.channels_last)

    return replace(dataset, normalise=prepare)


# -- compiled ----------------------------------------------------------------------------------------------


class Learner:
    """The network as training calls it, compiled or not, in one process or many; evaluation, checkpoints and noise keep
    to the network itself.

    Args:
        model: The network, as Accelerate runs it.
        mode: Of torch.compile; None to leave it uncompiled.
        device: Where it runs.
        ranks: The processes, whose gradients DistributedDataParallel adds up.

    Raises:
        RuntimeError: If nothing can be compiled here.
    """

    def __init__(self, model: nn.Module, mode: CompileMode | None, device: torch.device, ranks: Ranks = ALONE) -> None:
        self._parallel = _in_parallel(model, device, ranks) if ranks.size > 1 else None
        model = model if self._parallel is None else self._parallel
        self._model = model
        self._called: Callable[[Tensor], Tensor] = model
        self._graphs = mode in GRAPHS and device.type == "cuda"
        if mode is not None:
            torch.compiler.reset()  # what earlier runs of this process compiled counts towards torch's limit
            _try(mode, device)
            # One graph for each number of samples: the full piece, a batch's last one, the last batch's last one.
            self._called = torch.compile(model, mode=mode, dynamic=False)

    def __call__(self, inputs: Tensor) -> Tensor:
        """The logits."""
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return self._called(inputs)

    def apart(self) -> AbstractContextManager[object]:
        """For a pass, forward and backward, that is not the last of an update: its gradients stay in this process."""
        return nullcontext() if self._parallel is None else self._parallel.no_sync()

    def nothing(self) -> Tensor:
        """A loss of 0 whose backward pass joins the others' reduction, for a process without samples."""
        loss: Tensor = self._model(None)
        return loss

    @contextmanager
    def gradients_kept(self) -> Iterator[None]:
        """For a backward pass: what begins a gradient may lie in a CUDA graph's memory, and is copied out of it.

        The next replay overwrites that memory. Gradients that are there already are added to where they are.
        """
        missing = [p for p in self._model.parameters() if p.grad is None] if self._graphs else []
        yield
        made = [(parameter, parameter.grad) for parameter in missing if parameter.grad is not None]
        if made:
            kept = [torch.empty_like(grad) for _, grad in made]
            torch._foreach_copy_(kept, [grad for _, grad in made])
            for (parameter, _), grad in zip(made, kept, strict=True):
                parameter.grad = grad


class _Joining(nn.Module):
    """A network that can be called without samples."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor | None) -> Tensor:
        """The logits; without inputs 0, a function of all weights whose gradients are exact zeros."""
        if inputs is None:
            weights = [parameter for parameter in self.parameters() if parameter.requires_grad]
            return torch.stack([weight.reshape(-1)[:0].sum() for weight in weights]).sum()
        logits: Tensor = self.network(inputs)
        return logits


def check_processes(network: nn.Module, dataset: DataSet) -> None:
    """Raise if a trainable parameter has no part in the logits, or a layer makes processes wait for each other.

    Raises:
        ValueError: Naming it and the remedy.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.SyncBatchNorm):
            raise ValueError(
                f"layer {name!r} is a SyncBatchNorm, whose statistics are of all processes' ghost batches together; "
                f"expected BatchNorm, with statistics of each ghost batch. Use nn.BatchNorm2d or its like."
            )
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    with evaluating(network), torch.random.fork_rng():
        samples = min(2, len(dataset.train))
        inputs, _ = next(dataset.train.take(torch.arange(samples)).batches([samples]))
        logits = network(dataset.normalise(inputs))
        grads = torch.autograd.grad(logits.sum(), [parameter for _, parameter in named], allow_unused=True)
    for (name, _), grad in zip(named, grads, strict=True):
        if grad is None:
            raise ValueError(
                f"parameter {name!r} has no part in what the network computes, and processes would wait for its "
                f"gradient; expected that all have. Remove it, freeze it by requires_grad_(False), or train in one "
                f"process."
            )


def _summed(group: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """A sum of gradients, where DistributedDataParallel alone would take the mean over processes."""
    future = dist.all_reduce(bucket.buffer(), group=group, async_op=True).get_future()
    summed: torch.futures.Future[Tensor] = future.then(lambda done: done.value()[0])
    return summed


def _in_parallel(model: nn.Module, device: torch.device, ranks: Ranks) -> DistributedDataParallel:
    # Running statistics are added up from what each process has seen; the first one's must not overwrite the others'.
    # Torch 2.14 renamed the argument.
    own = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in own else "broadcast_buffers"
    keep: dict[str, Any] = {name: False}
    made = DistributedDataParallel(
        _Joining(model),
        device_ids=[device] if device.type == "cuda" else None,
        process_group=ranks.group,
        gradient_as_bucket_view=True,
        **keep,
    )
    # Losses are weighted by samples, so that their gradients add up: local passes have the bits of one process.
    made.register_comm_hook(ranks.group, _summed)
    # It lays gradients out anew after the first reduction, by the order in which they came, and the order of sums
    # changes with that. Done here, a run that goes on reduces as one that was never interrupted.
    made(None).backward()
    for parameter in model.parameters():
        parameter.grad = None
    return made


def _try(mode: CompileMode, device: torch.device) -> None:
    """Compile next to nothing, so that a missing compiler is told before anything is written."""
    try:
        torch.compile(_double, mode=mode)(torch.ones(2, device=device))
    except Exception as error:  # whatever dynamo, its backend and the compiler raise
        raise RuntimeError(
            f"compile is {mode!r} and torch.compile fails on {device}: {type(error).__name__}: {str(error).strip()}. "
            f"On a CPU it needs a C++ compiler, on a GPU triton and a C compiler: install them, or leave --compile out."
        ) from error


def _double(values: Tensor) -> Tensor:
    return values * 2
