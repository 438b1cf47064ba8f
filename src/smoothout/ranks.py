"""The processes that compute one thing together: which of them this is, and what they tell each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Ranks:
    """A process group as seen by one of its processes; :data:`ALONE` is a process without a group.

    Of things that are numbered, such as ghost batches, number k belongs to process k mod size.

    Attributes:
        group: torch's process group.
        rank: Of this process in the group.
        size: Number of its processes.
    """

    group: Any = None
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that reads and writes files and speaks for all."""
        return self.rank == 0

    def members(self) -> list[int]:
        """Numbers of the processes among all; none for a process without a group."""
        return [] if self.size == 1 else dist.get_process_group_ranks(self.group)

    def own(self, items: Sequence[T]) -> Sequence[T]:
        """Those of the items that belong to this process.

        Example:
            >>> Ranks(None, rank=1, size=3).own("abcdefgh")
            'beh'
        """
        return items[self.rank :: self.size]

    def sum(self, values: Tensor) -> Tensor:
        """Add up tensors over the processes, in place; all get the same bits."""
        if self.size > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def all(self, value: T) -> list[T]:
        """Every process's value, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.group)
        return found

    def from_first(self, value: T) -> T:
        """The first process's value."""
        if self.size == 1:
            return value
        told: list[Any] = [value if self.first else None]
        dist.broadcast_object_list(told, group=self.group, group_src=0)
        found: T = told[0]
        return found

    def copy_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Give tensors the values that the first process has in them, in place."""
        if self.size == 1:
            return
        for values in tensors:
            dist.broadcast(values.detach(), group=self.group, group_src=0)

    def __deepcopy__(self, _memo: dict[int, Any]) -> "Ranks":
        return self  # a group belongs to the process and cannot be copied


ALONE = Ranks()


def ranks_of(group: Any = None) -> Ranks:
    """Of a process group, by default of all processes; :data:`ALONE` if torch.distributed is not in use.

    Raises:
        ValueError: If this process is not in the group.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    if rank < 0:
        raise ValueError(
            f"process {dist.get_rank()} is not in the process group that was given; expected one of its members. Pass "
            f"the group that this process computes with."
        )
    return Ranks(group, rank, size)
