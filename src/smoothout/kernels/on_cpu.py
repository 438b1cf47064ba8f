"""Float32 weights on a CPU, perturbed by the worker that :mod:`smoothout.kernels.cpu` compiles."""

import ctypes
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from smoothout._types import Distribution, Scale
from smoothout.kernels.fused import Fused, copy_all, pieces, plain, positions
from smoothout.noise.draws import NoiseKey
from smoothout.weights import Weight

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
        super().__init__(weights, scale)
        self._elements = sum(p.numel() for p in self._parameters)
        table = pieces(self._parameters, scale, lambda d: max(1, UNIT // d) * d)  # no filter is cut
        self._table = torch.tensor(table, dtype=torch.int64)
        self._addresses = torch.tensor(self._places, dtype=torch.int64)
        self._copied_to = torch.tensor([copy.data_ptr() for copy in self._copies], dtype=torch.int64)
        self._ordinals = torch.tensor([weight.ordinal for weight in weights], dtype=torch.int64)
        self._firsts = torch.tensor([_first(weight) for weight in weights], dtype=torch.int64)
        self._amplitude, self._taken = ctypes.c_double(), ctypes.c_bool()
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._kernel = kernel(scale, distribution, any(map(positions, self._parameters)))
        self._job = self._kernel.job(
            units=len(table),
            table=self._table.data_ptr(),
            weights=self._addresses.data_ptr(),
            copies=self._copied_to.data_ptr(),
            ordinals=self._ordinals.data_ptr(),
            firsts=self._firsts.data_ptr(),
            amplitude=ctypes.addressof(self._amplitude),
            scratch_bytes=self._kernel.scratch_bytes(max((end - first for _, first, end, *_ in table), default=0)),
            streamed=sum(4 * self._elements > bound for bound in (STREAMED, BOTH_STREAMED)),
            taken=ctypes.addressof(self._taken),
        )

    def fits(self) -> bool:
        """See the base class."""
        return all(fits(weight, self._scale) for weight in self.weights)

    def perturb(self, key: NoiseKey, amplitude: float) -> None:
        """See the base class."""
        redraw = self._taken.value
        if not redraw:
            self._keep()
        self._job.key0, self._job.key1 = key.words()
        self._amplitude.value = amplitude
        threads = self._threads()
        self._make_room(threads)
        self._run(threads, self._kernel.REDRAW if redraw else self._kernel.DRAW)
        self._held = True

    def forget(self) -> None:
        """See the base class."""
        self._taken.value = False

    @torch.no_grad()
    def restore(self, same: bool = False) -> None:
        """See the base class."""
        if not self._taken.value:
            return
        if not (self.shifted() if same else self.moved()):
            self._run(self._threads(), self._kernel.RESTORE)
        else:  # other memory took the weights' place inside the block
            copy_all(self._parameters, self._copies)
        self._taken.value = False
        self._kept = []

    def _locate(self) -> None:
        self._addresses.copy_(torch.tensor([p.data_ptr() for p in self._parameters], dtype=torch.int64))

    def _threads(self) -> int:
        """As many as torch would use; one in a forked process, whose OpenMP threads are gone."""
        if self._elements < GRAIN or _forked:
            return 1
        return max(1, min(torch.get_num_threads(), len(self._table)))

    def _make_room(self, threads: int) -> None:
        needed = threads * self._job.scratch_bytes
        if self._scratch.nbytes < needed:
            with torch.inference_mode(False):
                self._scratch = torch.empty(needed, dtype=torch.uint8)
            self._job.scratch = self._scratch.data_ptr()

    def _run(self, threads: int, task: int) -> None:
        job = self._job
        job.next_unit = job.finished = job.next_worker = 0
        job.task = task
        self._kernel.run(ctypes.addressof(job), threads)
        self._written()


def fits(weight: Weight, scale: Scale) -> bool:
    """Whether the kernel can perturb a weight."""
    p = weight.local
    return p.dtype == torch.float32 and p.device.type == "cpu" and plain(weight, scale)


def _first(weight: Weight) -> int:
    """Index in the full weight of the first element that is held."""
    return 0 if weight.part is None else weight.part.first or 0


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
        self.DRAW, self.REDRAW, self.RESTORE = cpu.DRAW, cpu.REDRAW, cpu.RESTORE
        self.job: Any = type("Job", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_int64) for name in cpu.FIELDS]})
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
