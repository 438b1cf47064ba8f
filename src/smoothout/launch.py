"""Processes that a launcher started, torchrun or another that sets RANK and WORLD_SIZE, find each other."""

import os
import time
import uuid
from datetime import timedelta
from typing import Any

from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from smoothout.ranks import Ranks, ranks_of

_MINUTES = timedelta(minutes=10)  # until all are there: machines start at different times
_PAUSE = 0.02  # seconds between two looks at the store


def several() -> bool:
    """Whether a launcher started more than this process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def restarted() -> bool:
    """Whether torchrun started this process in the place of one that ended too early."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def may_restart() -> bool:
    """Whether torchrun would start all processes again when one ends too early."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def join() -> Ranks:
    """All processes of the launcher; starts torch.distributed, for tensors on the CPU and on GPUs, where it must."""
    if several() and not dist.is_initialized():
        store, rank, size = meet()
        dist.init_process_group(store=store, rank=rank, world_size=size)
    return ranks_of()


def leave() -> None:
    """End what :func:`join` started, once all processes are done."""
    if several() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def meet() -> tuple[Any, int, int]:
    """The launcher's store, empty of what earlier attempts left there, this process's rank, and their number."""
    store, rank, size = next(rendezvous("env://", timeout=_MINUTES))
    if may_restart():
        # torchrun keeps its store when it starts processes again, with the addresses of those that are gone
        # (pytorch/pytorch issues 135712 and 167288), and its count of restarts may differ between machines.
        store = PrefixStore(f"attempt {_attempt(store, rank, size)}", store)
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
