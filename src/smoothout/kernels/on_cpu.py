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
from smoothout.noise.philox import MASK32
from smoothout.weights import Weight

#: Elements of a unit of work: its weights, copy and draws (40 KB) stay in a core's cache.
UNIT = 4096
#: Bytes of weights above which their copy goes past the cache, so that the weights stay in it; and above which they go
#: past it, too, when they come back, since few of them would stay.
STREAMED, BOTH_STREAMED = 2 << 20, 64 << 20
#: Elements below which other threads are not woken, as torch does for its own operations.
GRAIN = 32768
#: Of a restore, which draws nothing.
NO_KEY = NoiseKey(0, 0)


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
        filters = [len(p) if scale == "filter" and p.dim() > 1 else 0 for p in self._parameters]
        with torch.inference_mode(False):
            self._norms = torch.split(torch.empty(sum(filters), dtype=torch.float64), filters)
        self._norms_at = torch.tensor([norms.data_ptr() for norms in self._norms], dtype=torch.int64)
        self._taken = ctypes.c_bool()
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._threads = 1
        self._kernel = kernel(scale, distribution, any(map(positions, self._parameters)))
        self._job = self._kernel.job(
            units=len(table),
            table=self._table.data_ptr(),
            weights=self._addresses.data_ptr(),
            copies=self._copied_to.data_ptr(),
            ordinals=self._ordinals.data_ptr(),
            firsts=self._firsts.data_ptr(),
            norms=self._norms_at.data_ptr(),
            scratch_bytes=self._kernel.scratch_bytes(max((end - first for _, first, end, *_ in table), default=0)),
            streamed=sum(4 * self._elements > bound for bound in (STREAMED, BOTH_STREAMED)),
            taken=ctypes.addressof(self._taken),
            **self._kernel.team,
        )

    def fits(self) -> bool:
        """See the base class."""
        return all(fits(weight, self._scale) for weight in self.weights)

    def perturb(self, key: NoiseKey, amplitude: float) -> None:
        """See the base class."""
        redraw = self._taken.value
        if not redraw:
            self._keep()
            self._make_room()
        self._run(self._kernel.REDRAW if redraw else self._kernel.DRAW, key, amplitude)
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
            self._run(self._kernel.RESTORE)
        else:  # other memory took the weights' place inside the block
            copy_all(self._parameters, self._copies)
        self._taken.value = False
        self._kept = []

    def _locate(self) -> None:
        self._addresses.copy_(torch.tensor([p.data_ptr() for p in self._parameters], dtype=torch.int64))

    def _make_room(self) -> None:
        """For as many threads as torch would use."""
        threads = 1 if self._elements < GRAIN else min(torch.get_num_threads(), len(self._table))
        needed = threads * self._job.scratch_bytes
        if self._scratch.nbytes < needed:
            with torch.inference_mode(False):
                self._scratch = torch.empty(needed, dtype=torch.uint8)
            self._job.scratch = self._scratch.data_ptr()
        self._threads = threads

    def _run(self, task: int, key: NoiseKey = NO_KEY, amplitude: float = 0.0) -> None:
        self._kernel.run(self._job, self._threads, task, key, amplitude)
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
        self._pack = cpu.RUN.pack_into
        self.scratch_bytes = functools.partial(cpu.scratch_bytes, normal=normal)
        self._compiled = cpu.compiled(scale, normal, channels_last)  # keeps the code alive
        self._work = ctypes.CFUNCTYPE(None, ctypes.c_int64)(self._compiled.address)
        self._parallel, self.team = _openmp()

    def run(self, job: ctypes.Structure, threads: int, task: int, key: NoiseKey, amplitude: float) -> None:
        """Let some threads do a task of a job; one in a forked process, whose OpenMP threads are gone."""
        seed = key.seed
        self._pack(job, 0, 0, task, seed & MASK32, seed >> 32, key.step, key.stream, key.draw, amplitude)
        address = ctypes.addressof(job)
        if threads == 1 or _forked or self._parallel is None:
            self._work(address)
        else:
            self._parallel(self._compiled.address, address, threads, 0)


def _openmp() -> tuple[Any, dict[str, int]]:
    """GOMP_parallel(function, argument, threads, flags) of the OpenMP library that torch uses, if it has one.

    With it come the addresses of what tells a thread its number and how many there are. LLVM's and Intel's libraries
    have all three. Sharing torch's threads, none has to be woken, or competes for a core.
    """
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    for name in (None, str(path)):  # a library that is loaded before all others replaces torch's own
        try:
            library = ctypes.CDLL(name)
            found, *team = library.GOMP_parallel, library.omp_get_thread_num, library.omp_get_num_threads
        except (OSError, AttributeError, TypeError):
            continue
        found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
        number, size = (ctypes.cast(function, ctypes.c_void_p).value or 0 for function in team)
        return found, {"worker": number, "workers": size}
    return None, {}


@functools.cache
def kernel(scale: Scale, distribution: Distribution, channels_last: bool) -> _Kernel:
    """The one of this process."""
    return _Kernel(scale, distribution, channels_last)
