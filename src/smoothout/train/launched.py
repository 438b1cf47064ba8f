"""The processes that a launcher, such as torchrun or accelerate launch, started for one command."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

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
