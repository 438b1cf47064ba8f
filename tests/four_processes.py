"""Processes that are started once, with a process group for the first one, two, three and four of them."""

import contextlib
import datetime
import functools
import importlib.util
import inspect
import multiprocessing
import sys
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path

SIZE = 4
SECONDS = 120


class Failed(AssertionError):
    """A process raised; the text is its traceback."""


class FourProcesses:
    """Run a function in 1 to 4 processes at once, each with the group of all that run.

    Functions are sent by file and name; arguments and results by pickle.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._started = folder, 0
        self._processes, self._pipes = [], []

    def __call__(self, function, *arguments, size=SIZE):
        """What function(group, *arguments) returns in each process, by rank."""
        if not self._processes:
            self._start()
        where = (inspect.getfile(function), function.__qualname__)
        for pipe in self._pipes[:size]:
            pipe.send((where, arguments, size))
        found = {}
        while len(found) < size:
            waited = [pipe for rank, pipe in enumerate(self._pipes[:size]) if rank not in found]
            ready = wait(waited, timeout=SECONDS)
            if not ready:
                self.stop()
                raise Failed(f"processes other than {sorted(found)} gave no result in {SECONDS} s")
            for pipe in ready:
                self._take(pipe, found)
        return [found[rank] for rank in range(size)]

    def _take(self, pipe, found):
        rank = self._pipes.index(pipe)
        try:
            good, value = pipe.recv()
        except EOFError:
            good, value = False, "the process ended"
        if not good:
            self.stop()  # the others may wait for it for ever
            raise Failed(f"process {rank}: {value}")
        found[rank] = value

    def _start(self):
        self._started += 1
        context = multiprocessing.get_context("forkserver")
        # What each would import for itself.
        distributed = [f"torch.distributed.{name}" for name in ("checkpoint.state_dict", "fsdp", "tensor.parallel")]
        others = ("pytest", "smoothout.kernels.cpu", "smoothout.smoothing", "torch._dynamo")
        context.set_forkserver_preload([*distributed, *others])
        meeting = self._folder / f"meeting-{self._started}"
        for rank in range(SIZE):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, meeting, there), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def stop(self):
        """End the processes; the next call starts others."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        self._processes, self._pipes = [], []


@functools.cache
def mesh_of(*shape, names=None):
    """A mesh of all processes, for a function that runs in all of them; made once, since each makes groups."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", shape or (SIZE,), mesh_dim_names=names)


def _serve(rank: int, meeting: Path, pipe: Connection) -> None:
    import torch
    from torch import distributed as dist

    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parent))
    limit = datetime.timedelta(seconds=SECONDS)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=SIZE, timeout=limit)
    groups = {size: dist.new_group(range(size), timeout=limit) for size in range(1, SIZE + 1)}
    loaded = {}
    with contextlib.suppress(EOFError):
        while True:
            (file, name), arguments, size = pipe.recv()
            try:
                torch.manual_seed(0)
                if file not in loaded:
                    loaded[file] = _load(file)
                pipe.send((True, getattr(loaded[file], name)(groups[size], *arguments)))
            except BaseException:
                pipe.send((False, traceback.format_exc()))


def _load(file):
    spec = importlib.util.spec_from_file_location(f"sent_{Path(file).stem}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that pickle finds what it sends back
    spec.loader.exec_module(module)
    return module
