"""Weights that a compiled kernel copies and perturbs in one pass, and copies back."""

import abc
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from smoothout._types import Scale
from smoothout.noise.draws import NoiseKey
from smoothout.weights import Weight


class Fused(abc.ABC):
    """Weights of one kernel, and room for copies of them.

    Args:
        weights: That the kernel takes, and which are :func:`apart`.
        scale: Of the noise.
    """

    def __init__(self, weights: Sequence[Weight], scale: Scale) -> None:
        self.weights = list(weights)
        self._parameters: list[Tensor] = [weight.local for weight in weights]
        with torch.inference_mode(False):  # or later training could not write to them
            self._copies = [torch.empty_like(p, requires_grad=False) for p in self._parameters]
        self._held = False  # whether the copies are of anything yet
        self._kept: list[torch.UntypedStorage] = []
        self._scale = scale
        self._places, self._layout = _places(self._parameters), _layout(self._parameters)

    @abc.abstractmethod
    def fits(self) -> bool:
        """Whether the kernel can still perturb all weights."""

    @abc.abstractmethod
    def perturb(self, key: NoiseKey, amplitude: float) -> None:
        """Copy the weights and add noise. All of it happens or none, whatever interrupts.

        Where copies are held already, since the last :meth:`forget` or :meth:`restore`, the noise is added to what they
        hold, in the place of the noise that the weights carry; then no weight may have :meth:`shifted`.
        """

    @abc.abstractmethod
    def forget(self) -> None:
        """Let :meth:`restore` do nothing until the next noise."""

    @abc.abstractmethod
    def restore(self, same: bool = False) -> None:
        """Write the copies back, if there are any; may be called again.

        Args:
            same: Whether it is known that shapes, strides, types and devices are what they were; looks, if not.
        """

    @abc.abstractmethod
    def _locate(self) -> None:
        """Tell the kernel where the weights are."""

    def shifted(self) -> bool:
        """Whether any weight has another address than the kernel knows."""
        return _places(self._parameters) != self._places

    def moved(self) -> bool:
        """Whether any weight lies elsewhere, or otherwise, than the kernel knows."""
        return _layout(self._parameters) != self._layout or self.shifted()

    def relocate(self) -> None:
        """Learn where the weights are now."""
        places = _places(self._parameters)
        self._locate()
        self._layout = _layout(self._parameters)
        self._places = places  # last: an interrupt before it leaves all to be learned again

    def differs(self) -> bool:
        """Whether the weights are no longer what was copied last."""
        return self._held and any(not torch.equal(p, c) for p, c in zip(self._parameters, self._copies, strict=True))

    def _keep(self) -> None:
        """Keep the weights' memory alive, so that one whose address is what it was lies where it did."""
        self._kept = [p.untyped_storage() for p in self._parameters]

    def _written(self) -> None:
        """Raw memory was written, of which autograd must know: a backward pass after the block must raise."""
        torch.autograd.graph.increment_version(self._parameters)


def plain(weight: Weight, scale: Scale) -> bool:
    """Whether values lie in memory as kernels expect: row-major or channels_last, each where its address says.

    What is held of a sharded weight must be a run of consecutive elements, with whole filters if they scale the noise.
    """
    p = weight.local
    if weight.part is not None and (weight.part.first is None or not p.is_contiguous()):
        return False
    return (
        p.layout == torch.strided
        and (p.is_contiguous() or positions(p) > 0)
        and not p.is_neg()
        and not p.is_inference()
        and not (scale == "filter" and (weight.transposed or weight.split))
    )


def positions(p: Tensor) -> int:
    """Of pixels or voxels in each filter of channels_last memory, where channels lie innermost; 0 of other layouts."""
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(p.dim())
    if layout is None or p.is_contiguous() or not p.is_contiguous(memory_format=layout):
        return 0
    return p[0, 0].numel()


def pieces(parameters: Sequence[Tensor], scale: Scale, step: Callable[[int], int]) -> list[tuple[int, ...]]:
    """Tensor, first element, end, elements of a filter (1 where each is by itself) and positions of each piece.

    ``step`` gives the elements of a piece for filters of so many.
    """
    found: list[tuple[int, ...]] = []
    for tensor, p in enumerate(parameters):
        places = positions(p)
        whole = places > 0 or (scale == "filter" and p.dim() > 1)
        d = p[0].numel() if whole and p.numel() else 1
        starts = range(0, p.numel(), step(d))
        found += [(tensor, first, min(first + step(d), p.numel()), d, places) for first in starts]
    return found


def apart(parameters: Sequence[Tensor]) -> bool:
    """Whether no two share memory; what one pass copies of the second would hold the noise of the first."""
    here = [p for p in parameters if p.device.type in ("cpu", "cuda") and p.layout == torch.strided and p.numel()]
    ranges = sorted((str(p.device), p.data_ptr(), p.data_ptr() + _extent(p)) for p in here)
    return all(a != b or end <= start for (a, _, end), (b, start, _) in itertools.pairwise(ranges))


def _extent(p: Tensor) -> int:
    """Bytes from the first element to the last, and what may lie between."""
    steps = sum((size - 1) * stride for size, stride in zip(p.shape, p.stride(), strict=True))
    return (1 + steps) * p.element_size()


def copy_all(parameters: Sequence[Tensor], copies: Sequence[Tensor]) -> None:
    """Copy as many as can be copied, and raise what the first failed with."""
    failed: list[Exception] = []
    for p, copy in zip(parameters, copies, strict=True):
        try:
            p.copy_(copy)
        except Exception as error:  # a weight that cannot be restored must not stop the others
            failed.append(error)
    if failed:
        raise failed[0]


def _places(parameters: Sequence[Tensor]) -> list[int]:
    """Addresses; 0 for what has none. Every draw looks, so that there is no loop in Python."""
    try:
        return list(map(Tensor.data_ptr, parameters))
    except RuntimeError:  # of a layout without one
        return [p.data_ptr() if p.layout == torch.strided else 0 for p in parameters]


def _layout(parameters: Sequence[Tensor]) -> list[tuple[object, ...]]:
    """How the values lie: memory of the same address may be read in another order, or be another type's."""
    return [
        (p.shape, p.stride(), p.dtype, p.device, p.is_neg()) if p.layout == torch.strided else () for p in parameters
    ]
