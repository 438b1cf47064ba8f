"""Which kernel perturbs which weights."""

import functools
import logging
from collections.abc import Sequence

from smoothout._types import Distribution, Scale
from smoothout.kernels import on_cpu, on_gpu
from smoothout.kernels.fused import Fused, apart, positions
from smoothout.weights import Weight

_log = logging.getLogger("smoothout")


def fuse(weights: Sequence[Weight], scale: Scale, distribution: Distribution) -> tuple[list[Fused], list[Weight]]:
    """Kernels that perturb some of the weights, and the weights that are left to the reference in plain torch."""
    if not apart([weight.local for weight in weights]):
        return [], list(weights)
    made: list[Fused] = []
    here = [weight for weight in weights if on_cpu.fits(weight, scale)]
    if here and numba_works(scale, distribution, any(positions(weight.local) for weight in here)):
        made.append(on_cpu.FusedOnCPU(here, scale, distribution))
    kinds = {weight.ordinal: on_gpu.kind(weight, scale) for weight in weights}
    for kind in dict.fromkeys(kinds.values()):
        if kind is not None and on_gpu.works(kind, scale, distribution):
            alike = [weight for weight in weights if kinds[weight.ordinal] == kind]
            made.append(on_gpu.FusedOnGPU(alike, scale, distribution))
    taken = {weight.ordinal for kernel in made for weight in kernel.weights}
    return made, [weight for weight in weights if weight.ordinal not in taken]


@functools.cache
def numba_works(scale: Scale, distribution: Distribution, channels_last: bool) -> bool:
    """Whether the worker can be compiled here; says once in the log why not."""
    try:
        on_cpu.kernel(scale, distribution, channels_last)
    except Exception as error:  # whatever a missing or odd installation of numba raises
        _say(repr(error))
        return False
    return True


@functools.cache
def _say(why: str) -> None:
    _log.warning("noise is drawn by plain torch, which is slower, since numba cannot be used: %s", why)
