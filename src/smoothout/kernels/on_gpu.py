"""Weights of one type on a GPU, perturbed by the kernels of :mod:`smoothout.kernels.gpu` in one launch."""

import functools
import logging
import struct
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from smoothout._types import Distribution, Scale
from smoothout.kernels.fused import Fused, copy_all, pieces, plain, positions
from smoothout.noise.draws import NoiseKey
from smoothout.scaling import offsets
from smoothout.weights import Weight, all_weights

SCALES: tuple[Scale, ...] = ("none", "weight", "filter")  # by the numbers that the kernel knows them by
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Kind = tuple[torch.device, torch.dtype, bool]
#: Seed and amplitude, and the signed numbers of the same bits that Triton takes; one that it takes for 64 bits long.
_GIVEN, _SIGNED, _LARGE = struct.Struct("<Qd"), struct.Struct("<qq"), 1 << 40
_log = logging.getLogger("smoothout")


class FusedOnGPU(Fused):
    """Weights of one kind (see :func:`kind`).

    What is launched happens whole, in the order of the stream, so an interrupt falls before it or after it. Each row's
    flag on the device says that its copy was taken: further noise is then added to the copy, and a restore clears the
    flag, so that a second one does nothing.
    """

    def __init__(self, weights: Sequence[Weight], scale: Scale, distribution: Distribution) -> None:
        super().__init__(weights, scale)
        from smoothout.kernels import gpu  # here, since triton is not everywhere

        first = self._parameters[0]
        self._device = first.device
        # Triton launches on the current device, of which there may be but one.
        many = first.is_cuda and torch.cuda.device_count() > 1
        self._current: Any = torch.cuda.device(first.device) if many else nullcontext()
        self._units = rows(self._parameters, scale)
        self._ordinals = [weight.ordinal for weight in weights]
        self._taken = torch.zeros(len(self._units), dtype=torch.int32, device=self._device)
        self._dirty = False  # whether any flag may be set
        self._locate()
        element = _element(first.dtype)
        kinds = {
            "SCALE": SCALES.index(scale),
            "NORMAL": distribution == "normal",
            "PERMUTED": positions(first) > 0,
            "ELEMENT": element,
        }
        where = self._table, self._taken
        with self._current:
            self._perturb = _launcher(gpu.perturb, len(self._units), (*where, *[_LARGE] * 5), kinds)
            self._restore = _launcher(gpu.restore, len(self._units), where, {"ELEMENT": element})

    def fits(self) -> bool:
        """See the base class."""
        return {kind(weight, self._scale) for weight in self.weights} == {kind(self.weights[0], self._scale)} - {None}

    def perturb(self, key: NoiseKey, amplitude: float) -> None:
        """See the base class."""
        if not self._units:
            return
        if not self._dirty:
            self._keep()
        seed, bits = _SIGNED.unpack(_GIVEN.pack(key.seed, amplitude))
        self._dirty = True
        with self._current:
            self._perturb(self._table, self._taken, seed, key.step, key.stream, key.draw, bits)
        self._written()
        self._held = True

    def forget(self) -> None:
        """See the base class."""
        if self._dirty:
            self._taken.zero_()
            self._dirty = False

    @torch.no_grad()
    def restore(self, same: bool = False) -> None:
        """See the base class."""
        if not self._dirty:
            return
        if not (self.shifted() if same else self.moved()):
            with self._current:
                self._restore(self._table, self._taken)
            self._written()
        elif bool(self._taken.any()):  # other memory took the weights' place inside the block
            copy_all(self._parameters, self._copies)
            self._taken.zero_()
        self._dirty = False
        self._kept = []

    def _locate(self) -> None:
        pairs = [(p.data_ptr(), copy.data_ptr()) for p, copy in zip(self._parameters, self._copies, strict=True)]
        table = [(*pairs[tensor], self._ordinals[tensor], *rest) for tensor, *rest in self._units]
        self._table = torch.tensor(table, dtype=torch.int64).to(self._device)


def _launcher(
    kernel: Any, units: int, arguments: tuple[object, ...], constants: dict[str, object]
) -> Callable[..., None]:
    """Launches a kernel of Triton's that is compiled for arguments of these types.

    Triton's own dispatch looks through arguments and globals at each launch, which takes longer than launching does.
    """
    grid, values = (max(1, units), 1, 1), tuple(constants.values())
    options = constants | {"enable_fp_fusion": False}
    compiled = kernel.warmup(*arguments, grid=grid, **options)
    if compiled is None:  # the interpreter compiles nothing
        return functools.partial(kernel[grid], **options)
    launch = compiled[grid]
    return lambda *arguments: launch(*arguments, *values)


def kind(weight: Weight, scale: Scale) -> Kind | None:
    """What weights of one launch have in common; None for a weight that no kernel takes."""
    p = weight.local
    if weight.part is not None or p.device.type != "cuda" or p.dtype not in DTYPES or not plain(weight, scale):
        return None
    return p.device, p.dtype, positions(p) > 0


def rows(parameters: Sequence[Tensor], scale: Scale) -> list[tuple[int, ...]]:
    """Of the table but for its addresses and ordinal: tensor, first element, end, elements of a filter, positions."""
    from smoothout.kernels import gpu

    def step(d: int) -> int:
        if scale != "filter" or d == 1:
            return gpu.PIECE
        return gpu.TILE // (gpu.SHORT if d <= gpu.SHORT else gpu.LONG) * d

    return [(*piece, max(1, places)) for *piece, places in pieces(parameters, scale, step)]


def _element(dtype: torch.dtype) -> Any:
    import triton.language as tl

    return {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[dtype]


@functools.cache
def works(kind: Kind, scale: Scale, distribution: Distribution) -> bool:
    """Whether the kernel compiles here and returns the reference's bits; says once in the log if it does not."""
    try:
        wrong = _differs(kind, scale, distribution)
    except Exception as error:  # whatever a missing or odd installation of triton raises
        _log.warning("noise is drawn by plain torch, which is slower, since triton cannot be used: %r", error)
        return False
    if wrong:
        _log.warning(
            "noise is drawn by plain torch, which is slower, since the kernel for %s, scale %s and %s draws returned "
            "other bits on this device.",
            *(kind[1], scale, distribution),
        )
    return not wrong


@torch.no_grad()
def _differs(kind: Kind, scale: Scale, distribution: Distribution) -> bool:
    """Whether the kernel gives other noise than the reference, or does not restore, on filters of several lengths."""
    device, dtype, permuted = kind
    shapes = [(2, 3, 2, 2), (3, 40, 3, 3), (33, 5, 1, 2)] if permuted else [(7,), (5, 1), (40, 9), (3, 100), (2, 700)]
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    if permuted:
        made = [tensor.to(memory_format=torch.channels_last) for tensor in made]
    weights = all_weights([(str(i), nn.Parameter(tensor)) for i, tensor in enumerate(made)])
    before = [tensor.clone() for tensor in made]
    kernel = FusedOnGPU(weights, scale, distribution)
    keys = (NoiseKey(2**40 + 1, 2**33, 3), NoiseKey(2**40 + 1, 2**33, 4))  # the second in the place of the first
    expected = [
        [(w + t).to(dtype) for w, t in zip(before, offsets(weights, key, 0.3, scale, distribution), strict=True)]
        for key in keys
    ]
    wrong = False
    for key, noisy in zip(keys, expected, strict=True):
        kernel.perturb(key, 0.3)
        wrong = wrong or not all(map(torch.equal, made, noisy))
    kernel.restore()
    return wrong or not all(map(torch.equal, made, before))
