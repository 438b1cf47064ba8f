"""Which weights are perturbed, what their filters are, and how they come back bit for bit."""

import contextlib
import functools
import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from smoothout import shards
from smoothout._types import OneDimensional
from smoothout.shards import Line, Part


class Exclude(Protocol):
    """Says of a parameter whether it is left out; ``module`` is its owner, None where only names are known."""

    def __call__(self, name: str, module: nn.Module | None, parameter: nn.Parameter, /) -> bool: ...


def exclude_batch_norm(_name: str, module: nn.Module | None, _parameter: nn.Parameter, /) -> bool:
    """The default: leave out the weights and biases of every BatchNorm, SyncBatchNorm and their subclasses."""
    return isinstance(module, _BatchNorm)


def exclude_nothing(_name: str, _module: nn.Module | None, _parameter: nn.Parameter, /) -> bool:
    """Leave nothing out; the original's evaluation perturbs BatchNorm, too."""
    return False


@dataclass(frozen=True, eq=False)
class Weight:
    """One parameter of a model.

    Attributes:
        name: As ``named_parameters()`` gives it.
        ordinal: Its place in ``named_parameters()`` of the whole model; it keys the noise.
        parameter: The parameter itself.
        module: The first module that owns it, None if only names were given.
    """

    name: str
    ordinal: int
    parameter: nn.Parameter
    module: nn.Module | None

    @functools.cached_property
    def local(self) -> Tensor:
        """The values that this process holds: the parameter itself, or, of a DTensor, a plain tensor."""
        return shards.local(self.parameter)

    @functools.cached_property
    def part(self) -> Part | None:
        """Which elements these are; None where they are all."""
        return shards.part_of(self.name, self.parameter)

    @functools.cached_property
    def split(self) -> tuple[Line, ...]:
        """The processes over which filters are split; none where each filter lies whole in one process."""
        if self.parameter.dim() < 2 or self.part is None:
            return ()
        if self._groups is None:
            return shards.lines(self.parameter, range(1, self.parameter.dim()))
        # Inputs of one group make a filter.
        inputs = shards.chunk(self.parameter, 0)
        whole = inputs > 0 and inputs % (self.parameter.shape[0] // self._groups) == 0
        return shards.lines(self.parameter, [0] * (not whole) + list(range(2, self.parameter.dim())))

    @property
    def filter_count(self) -> int:
        """F of the full weight."""
        shape = self.parameter.shape
        if len(shape) < 2:
            return math.prod(shape)
        return shape[0] if self._groups is None else self._groups * shape[1]

    @property
    def transposed(self) -> bool:
        """Whether it is a transposed convolution's weight, whose filters do not lie along dimension 0."""
        return isinstance(self.module, _ConvTransposeNd) and self.parameter.dim() > 2

    @property
    def _groups(self) -> int | None:
        """Groups of a transposed convolution's weight, None for every other weight."""
        return self.module.groups if isinstance(self.module, _ConvTransposeNd) and self.transposed else None

    @property
    def _groups_here(self) -> int:
        """Groups of which this process holds inputs, where no filter is split."""
        groups = self._groups or 1
        return groups if self.part is None else self.local.shape[0] // (self.parameter.shape[0] // groups)

    def filters(self, values: Tensor) -> Tensor:
        """Values of the local shape as rows, (F, d): all elements that make one output channel.

        Two or more dimensions: the slices along dimension 0, that is an output channel of a convolution,
        a row of a Linear, a vector of an Embedding. Transposed convolutions, stored as
        (in, out / groups, ...): the slices of one output channel. 1-D and 0-D: every element alone.
        """
        if values.dim() < 2:
            return values.reshape(-1, 1)
        if self._groups is not None:
            inputs = values.shape[0]
            groups = self._groups_here
            grouped = values.reshape(groups, inputs // max(1, groups), *values.shape[1:])
            return grouped.transpose(1, 2).flatten(0, 1).flatten(1)
        return values.flatten(1)

    def over_filters(self, per_filter: Tensor) -> Tensor:
        """One value per filter, (F,), in a shape that multiplies values of the local shape."""
        shape = self.local.shape
        if len(shape) < 2:
            return per_filter.reshape(shape)
        ones = (1,) * (len(shape) - 2)
        if self._groups is not None:
            groups = self._groups_here
            by_group = per_filter.reshape(groups, 1, shape[1])
            return by_group.expand(-1, shape[0] // max(1, groups), -1).reshape(*shape[:2], *ones)
        return per_filter.reshape(-1, 1, *ones)


def all_weights(source: nn.Module | Iterable[tuple[str, nn.Parameter]]) -> list[Weight]:
    """Every parameter once, tied ones under their first name, in the order of ``named_parameters()``."""
    if isinstance(source, nn.Module):
        triples: Iterable[tuple[str, nn.Module | None, nn.Parameter]] = _owned(source)
    else:
        triples = _named(source)
    found: dict[int, Weight] = {}
    for name, module, parameter in triples:
        if id(parameter) not in found:
            found[id(parameter)] = Weight(name, len(found), parameter, module)
    return list(found.values())


_held, _values = operator.attrgetter("_modules", "_parameters"), operator.methodcaller("values")


def tree(modules: Sequence[nn.Module]) -> list[int]:
    """Ids of the children of some modules and of their own parameters: what a model's ``modules()`` have become.

    Every block looks twice, so that there is no loop in Python here.
    """
    return list(map(id, chain.from_iterable(map(_values, chain.from_iterable(map(_held, modules))))))


def _owned(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            yield name, module, parameter


def _named(pairs: Iterable[tuple[str, nn.Parameter]]) -> Iterator[tuple[str, None, nn.Parameter]]:
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], nn.Parameter)):
            raise TypeError(
                f"expected a model or pairs (name, parameter), got an item of type {type(pair).__name__}. "
                f"Pass the model itself, or model.named_parameters()."
            )
        yield pair[0], None, pair[1]


def quiet_ids(model: nn.Module) -> set[int]:
    """Ids of the parameters that the model, or a part of it, lists in ``quiet_parameters``."""
    found = set()
    for module in model.modules():
        # Wrappers that pass attributes on, such as torch.compile's, have no list of their own.
        own = "quiet_parameters" in vars(module) or hasattr(type(module), "quiet_parameters")
        names: Iterable[str] = getattr(module, "quiet_parameters") if own else ()  # noqa: B009
        for quiet in names:
            parameters = dict(module.named_parameters(remove_duplicate=False))
            if quiet not in parameters:
                raise ValueError(
                    f"quiet_parameters of {type(module).__name__} names {quiet!r}, which is not one of its "
                    f"parameters. Use the names that named_parameters() gives."
                )
            found.add(id(parameters[quiet]))  # not the name: a tied parameter has several
    return found


def why_left_out(weight: Weight, quiet: set[int], exclude: Exclude, one_dimensional: OneDimensional) -> str | None:
    """The reason why a weight gets no noise, or None if it does; raises for one that cannot."""
    parameter = weight.parameter
    if not parameter.requires_grad:
        return "frozen"
    if id(parameter) in quiet:
        return "quiet_parameters"
    if exclude(weight.name, weight.module, parameter):
        return "exclude"
    if one_dimensional == "skip" and parameter.dim() < 2:
        return "one_dimensional"
    if isinstance(parameter, nn.parameter.UninitializedParameter) or parameter.is_meta:
        raise ValueError(
            f"parameter {weight.name!r} has no values yet ({type(parameter).__name__} on {parameter.device}); "
            f"expected an initialised one. Run one batch through the model first."
        )
    values = weight.local if weight.part is not None else parameter.data
    if not parameter.is_floating_point() or type(values) is not Tensor:
        raise TypeError(
            f"parameter {weight.name!r} is a {type(values).__name__} of {parameter.dtype}; expected a "
            f"plain real tensor. Leave it out with exclude=."
        )
    return None


class Snapshot:
    """Copies of parameters, in buffers that are used again, to restore them in place and bit for bit."""

    def __init__(self) -> None:
        self._parameters: list[Tensor] = []
        self._copies: list[Tensor] = []

    @torch.no_grad()
    def take(self, parameters: Sequence[Tensor]) -> None:
        """Copy the parameters; forgets what was taken before."""
        if not self._fits(parameters):
            with torch.inference_mode(False):  # or later training could not write to them
                self._copies = [torch.empty_like(p, requires_grad=False) for p in parameters]
        self._parameters = list(parameters)
        if parameters:
            torch._foreach_copy_(self._copies, self._parameters)

    def restore(self) -> None:
        """Write the copies back; may be called again, with the same effect."""
        if self._parameters:
            self._write_back()

    @torch.no_grad()
    def _write_back(self) -> None:
        torch._foreach_copy_(self._parameters, self._copies)

    @property
    def copies(self) -> list[Tensor]:
        """What was taken."""
        return self._copies

    def differs(self) -> bool:
        """Whether the parameters are no longer what was taken."""
        return any(not torch.equal(p, c) for p, c in zip(self._parameters, self._copies, strict=True))

    def _fits(self, parameters: Sequence[Tensor]) -> bool:
        """Whether the buffers in hand have the parameters' shapes, types and devices."""
        return len(parameters) == len(self._copies) and all(
            p.shape == c.shape and p.dtype == c.dtype and p.device == c.device
            for p, c in zip(parameters, self._copies, strict=True)
        )


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every module's own mode comes back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; weights, buffers, modes and requires_grad come back bit for bit, whatever happens."""
    buffers = [(module, name, buffer) for module in model.modules() for name, buffer in module._buffers.items()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    unique = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    snapshot = Snapshot()
    snapshot.take(list(unique.values()))
    try:
        with evaluating(model):
            yield
    finally:
        snapshot.restore()
        torch.clear_autocast_cache()  # it holds copies of weights in half precision
        for module, name, buffer in buffers:
            module._buffers[name] = buffer  # a module may have put another tensor in its place
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
