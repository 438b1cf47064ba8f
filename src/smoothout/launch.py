"""The processes that a launcher, such as torchrun or accelerate launch, started for one command, and how they meet.

Nothing here imports torch before it is used, so that ``smoothout --help`` does not wait for it.
"""

import functools
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smoothout.ranks import Ranks

_MINUTES = timedelta(minutes=10)  # until all are there: machines start at different times
_RUN_ID = "TORCHELASTIC_RUN_ID"  # set by torchrun
_PAUSE = 0.02  # seconds between two looks at the store
_SECONDS_TO_SPEAK = 5.0


@dataclass(frozen=True)
class Launched:
    """One of them, as the environment has it.

    Attributes:
        rank: Of this process, RANK.
        size: Number of processes, WORLD_SIZE.
        local_rank: Of this process on its machine, LOCAL_RANK.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and reads and writes results."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    def refuse_several(self, command: str) -> None:
        """Raise ``ValueError`` if there are several processes, for a command that knows of one."""
        if not self.first:
            time.sleep(_SECONDS_TO_SPEAK)  # a launcher ends all with the first that ends: let it be one that speaks
        if self.size > 1:
            raise ValueError(
                f"{command} is started in {self.size} processes (WORLD_SIZE); expected one, as each would do all of "
                f"the work, in the same folders. Start it without the launcher; compare, tune and diagnose share "
                f"their work by --jobs."
            )

    def refuse_jobs(self, jobs: int) -> None:
        """Raise ``ValueError`` if several processes are to start further ones."""
        if self.size > 1 and jobs > 1:
            raise ValueError(
                f"jobs is {jobs} in each of {self.size} processes (WORLD_SIZE); expected 1, as these share the work "
                f"already. Leave --jobs out, or the launcher."
            )

    def device(self, name: str, gpus: int) -> str:
        """The device of this process, where ``auto`` and ``cuda`` mean the GPU LOCAL_RANK of its machine.

        Args:
            name: As a user gives it.
            gpus: That this process sees. One alone is taken in any case: the launcher may show each process its own.

        Raises:
            ValueError: For a GPU that all would share, or more processes than GPUs.

        Example:
            >>> Launched(rank=5, size=8, local_rank=1).device("auto", gpus=4)
            'cuda:1'
        """
        if self.size == 1 or name == "cpu" or gpus == 0:
            return name
        if ":" in name:
            raise ValueError(
                f"device is {name!r} in each of {self.size} processes (WORLD_SIZE); expected auto, cuda or cpu, as "
                f"each takes the GPU of its LOCAL_RANK. Leave the number out, or set CUDA_VISIBLE_DEVICES."
            )
        if gpus == 1:
            return "cuda:0"
        if self.local_rank >= gpus:
            raise ValueError(
                f"LOCAL_RANK is {self.local_rank} and torch finds {gpus} GPUs; expected one for each process. Start "
                f"{gpus} processes on this machine, or give --device cpu."
            )
        return f"cuda:{self.local_rank}"


def launched(environment: Mapping[str, str] = os.environ) -> Launched:
    """What the environment says of this process; alone without WORLD_SIZE, as most are.

    Raises:
        ValueError: If the environment contradicts itself.

    Example:
        >>> launched({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"})
        Launched(rank=1, size=2, local_rank=1)
    """
    found = {name: environment[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if environment.get(name)}
    try:
        size = int(found.get("WORLD_SIZE", "1"))
        rank = int(found["RANK"]) if size > 1 else 0
        local_rank = int(found.get("LOCAL_RANK", rank))
    except (KeyError, ValueError):
        size, rank, local_rank = 0, 0, 0
    if not 0 <= rank < size:
        raise ValueError(
            f"the environment has {found}; expected whole numbers, RANK from 0 to WORLD_SIZE - 1. Start the command "
            f"by torchrun, or without these variables."
        )
    return Launched(rank, size, local_rank if size > 1 else 0)


def may_restart() -> bool:
    """Whether torchrun would start all processes again when one ends too early."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def note(text: str) -> None:
    """Leave a note that processes find which torchrun starts in the place of these; nothing without torchrun."""
    if _RUN_ID in os.environ:
        _store()[0].set(f"note/{text}", "left")


def noted(text: str) -> bool:
    """Whether an earlier attempt of this launch left a note. torchrun's count of restarts differs between machines."""
    return _RUN_ID in os.environ and bool(_store()[0].check([f"note/{text}"]))


def join() -> "Ranks":
    """All processes of the launcher; starts torch.distributed, for tensors on the CPU and on GPUs, where it must."""
    from torch import distributed as dist

    from smoothout.ranks import ranks_of

    if launched().several and not dist.is_initialized():
        store, rank, size = meet()
        dist.init_process_group(store=store, rank=rank, world_size=size)
    return ranks_of()


def leave() -> None:
    """End what :func:`join` started, once all processes are done."""
    from torch import distributed as dist

    if launched().several and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def meet() -> tuple[Any, int, int]:
    """The launcher's store, empty of what earlier attempts left there, this process's rank, and their number.

    Raises:
        ValueError: If the environment does not say where they meet.
    """
    from torch.distributed.distributed_c10d import PrefixStore

    store, rank, size = _store()
    if _RUN_ID in os.environ:
        # torchrun keeps its store when it starts processes again, with the addresses of those that are gone
        # (pytorch/pytorch issues 135712 and 167288), and its count of restarts may differ between machines.
        store = PrefixStore(f"attempt {_attempt(store, rank, size)}", store)
    return store, rank, size


@functools.cache
def _store() -> tuple[Any, int, int]:
    """The launcher's store as it is, which may outlive these processes, this one's rank, and their number."""
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, size = next(rendezvous("env://", timeout=_MINUTES))
    except ValueError as error:
        raise ValueError(
            f"{launched().size} processes were started that cannot meet ({error}); expected what torchrun sets. Start "
            f"the command by torchrun or accelerate launch, or without WORLD_SIZE."
        ) from error
    return store, rank, size


def _attempt(store: Any, rank: int, size: int) -> int:
    """A number that all processes alive have in common and no earlier ones had."""
    if rank > 0:
        name = uuid.uuid4().hex
        store.set(f"hello/{rank}", name)
        attempt = int(store.get(f"answer/{name}"))
        store.add(f"heard/{attempt}", 1)
        return attempt
    attempt = int(store.add("attempts", 1))
    while store.add(f"heard/{attempt}", 0) < size - 1:
        # A name may be that of a process that is gone, until the one in its place has said its own.
        for other in range(1, size):
            if store.check([f"hello/{other}"]):
                store.set(f"answer/{store.get(f'hello/{other}').decode()}", str(attempt))
        time.sleep(_PAUSE)
    return attempt
