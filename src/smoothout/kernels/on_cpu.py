"""Float32 weights on a CPU, perturbed by the worker that :mod:`smoothout.kernels.cpu` compiles."""

import ctypes
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smoothout._types import Distribution, Scale
from smoothout.kernels.fused import Fused, copy_all, plain, positions
from smoothout.noise.draws import NoiseKey
from smoothout.weights import Weight

if TYPE_CHECKING:
    import numpy as np

#: Elements of a unit of work: its weights, copy and draws (40 KB) stay in a core's cache.
UNIT = 4096
#: Bytes of weights above which their copy goes past the cache, so that the weights stay in it; and above which they go
#: past it, too, when they come back, since few of them would stay.
STREAMED, BOTH_STREAMED = 2 << 20, 64 << 20
#: Elements below which other threads are not woken, as torch does for its own operations.
GRAIN = 32768


class FusedOnCPU(Fused):
    """Weights for each of which :func:`fits` holds."""

    def __init__(self, weights: Sequence[Weight], scale: Scale, distribution: Distribution) -> None:
        import numpy as np  # here, since the reference does without

        super().__init__(weights, scale)
        self._elements = sum(p.numel() for p in self._parameters)
        self._table = np.array(units(self._parameters, scale), dtype=np.int64).reshape(-1, 5)
        self._addresses = np.array([p.data_ptr() for p in self._parameters], dtype=np.int64)
        self._copied_to = np.array([copy.data_ptr() for copy in self._copies], dtype=np.int64)
        self._ordinals = np.array([weight.ordinal for weight in weights], dtype=np.int64)
        self._amplitude = np.zeros(1)
        self._taken = np.zeros(1, dtype=np.uint8)
        self._scratch = np.empty(0, dtype=np.float64)
        self._kernel = kernel(scale, distribution, any(map(positions, self._parameters)))
        longest = int((self._table[:, 2] - self._table[:, 1]).max(initial=0))
        fixed = {
            "units": len(self._table),
            "table": _address(self._table),
            "weights": _address(self._addresses),
            "copies": _address(self._copied_to),
            "ordinals": _address(self._ordinals),
            "amplitude": _address(self._amplitude),
            "scratch_bytes": self._kernel.scratch_bytes(longest),
            "streamed": sum(4 * self._elements > bound for bound in (STREAMED, BOTH_STREAMED)),
            "taken": _address(self._taken),
        }
        self._job = np.array([fixed.get(name, 0) for name in self._kernel.fields], dtype=np.int64)
        self._at = {name: index for index, name in enumerate(self._kernel.fields)}

    def fits(self) -> bool:
        """See the base class."""
        return all(fits(weight, self._scale) for weight in self.weights)

    def perturb(self, key: NoiseKey, amplitude: float) -> None:
        """See the base class."""
        key0, key1 = key.words()
        self._amplitude[0] = amplitude
        self._run(False, key0=key0, key1=key1)
        self._held = True

    def forget(self) -> None:
        """See the base class."""
        self._taken[0] = 0

    @torch.no_grad()
    def restore(self, same: bool = False) -> None:
        """See the base class."""
        if not self._taken[0]:
            return
        if not (self.shifted() if same else self.moved()):
            self._run(True)
        else:  # other memory took the weights' place inside the block
            copy_all(self._parameters, self._copies)
        self._taken[0] = 0

    def _locate(self) -> None:
        self._addresses[:] = [p.data_ptr() for p in self._parameters]

    def _run(self, restoring: bool, **key: int) -> None:
        import numpy as np

        threads = max(1, min(threads_of(self._elements), len(self._table)))
        job, at = self._job, self._at
        needed = 0 if restoring else threads * int(job[at["scratch_bytes"]])
        if self._scratch.nbytes < needed:
            self._scratch = np.empty(-(-needed // 8), dtype=np.float64)
        for name in ("next_unit", "finished", "next_worker"):
            job[at[name]] = 0
        for name, word in key.items():
            job[at[name]] = word
        job[at["restoring"]], job[at["scratch"]] = int(restoring), _address(self._scratch)
        self._kernel.run(_address(job), threads)
        self._written()


def fits(weight: Weight, scale: Scale) -> bool:
    """Whether the kernel can perturb a weight."""
    p = weight.parameter
    return p.dtype == torch.float32 and p.device.type == "cpu" and plain(weight, scale)


def units(parameters: Sequence[Tensor], scale: Scale) -> list[tuple[int, int, int, int, int]]:
    """Pieces of about UNIT elements: tensor, first element, end, elements of a filter (none is cut), positions."""
    found = []
    for tensor, p in enumerate(parameters):
        places = positions(p)
        whole = places > 0 or (scale == "filter" and p.dim() > 1)
        d = p[0].numel() if whole and p.numel() else 1
        step = max(1, UNIT // d) * d
        found += [(tensor, first, min(first + step, p.numel()), d, places) for first in range(0, p.numel(), step)]
    return found


def threads_of(elements: int) -> int:
    """As many as torch would use; one in a forked process, whose OpenMP threads are gone."""
    return 1 if elements < GRAIN or _forked else torch.get_num_threads()


_forked = False


def _after_fork() -> None:
    global _forked  # noqa: PLW0603
    _forked = True


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


class _Kernel:
    """A compiled worker, and torch's OpenMP threads to run it on."""

    def __init__(self, scale: Scale, distribution: Distribution, channels_last: bool) -> None:
        from smoothout.kernels import cpu

        normal = distribution == "normal"
        self.fields = cpu.FIELDS
        self.scratch_bytes = functools.partial(cpu.scratch_bytes, normal=normal)
        self._compiled = cpu.compiled(scale, normal, channels_last)  # keeps the code alive
        self._work = ctypes.CFUNCTYPE(None, ctypes.c_int64)(self._compiled.address)
        self._parallel = _openmp()

    def run(self, job: int, threads: int) -> None:
        """Let some threads do a job."""
        if threads == 1 or self._parallel is None:
            self._work(job)
        else:
            self._parallel(self._compiled.address, job, threads, 0)


def _openmp() -> Any:
    """GOMP_parallel(function, argument, threads, flags) of the OpenMP library that torch uses, if it has one.

    LLVM's and Intel's libraries have it too. Sharing torch's threads, none has to be woken, or competes for a core.
    """
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    for name in (None, str(path)):  # a library that is loaded before all others replaces torch's own
        try:
            found = ctypes.CDLL(name).GOMP_parallel
        except (OSError, AttributeError, TypeError):
            continue
        found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
        return found
    return None


@functools.cache
def kernel(scale: Scale, distribution: Distribution, channels_last: bool) -> _Kernel:
    """The one of this process."""
    return _Kernel(scale, distribution, channels_last)


def _address(array: "np.ndarray[Any, Any]") -> int:
    return array.ctypes.data
