"""The processes that compute one thing together: which of them this is, and what they tell each other."""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")

_LOOKED_AT = 64  # elements of a tensor that its digest is made of


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

    def total(self, count: int, device: torch.device) -> int:
        """Add up whole numbers over the processes."""
        return count if self.size == 1 else int(self.sum(torch.tensor(count, device=device)))

    @contextlib.contextmanager
    def together(self, device: torch.device) -> Iterator[None]:
        """Raise in every process, on leaving, what one has raised inside: else the others would wait for it for ever.

        All raise the error of the first process that has one, in its own process as it is; not to be nested.

        Args:
            device: Of tensors that the process group can send.

        Raises:
            RuntimeError, ValueError: In the other processes; the latter for a ValueError, TypeError and the like.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
            if self.size == 1:
                raise
        if self.total(int(error is not None), device) == 0:
            return
        told = None if error is None else (isinstance(error, RuntimeError), f"{type(error).__name__}: {error}")
        first, (is_runtime, text) = next((rank, each) for rank, each in enumerate(self.all(told)) if each is not None)
        if error is not None and first == self.rank:
            raise error
        raise (RuntimeError if is_runtime else ValueError)(f"process {first} stopped: {text}")

    def same(self, values: Mapping[str, object], remedy: str) -> None:
        """Raise ``ValueError`` in every process unless all have the same values, naming the first that differs.

        Args:
            values: By names for the message; the same names in all processes.
            remedy: A sentence.
        """
        if self.size == 1:
            return
        found = self.all(dict(values))
        for name, first in found[0].items():
            for rank, others in enumerate(found):
                if others.get(name) != first:
                    here = others.get(name)
                    raise ValueError(
                        f"{name} is {here!r} in process {rank} and {first!r} in process 0; expected the same in all "
                        f"{self.size} processes. {remedy}"
                    )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "what knows a process group cannot be saved whole, as the group belongs to its process; expected plain "
            "state. Save state_dict() instead."
        )

    def __deepcopy__(self, _memo: dict[int, Any]) -> "Ranks":
        return self  # a group belongs to the process and cannot be copied


ALONE = Ranks()


def digest(tensors: Iterable[Any]) -> str:
    """A hash of shapes, types and some evenly spaced elements: cheap, and another one for other data or weights."""
    found = hashlib.sha256()
    for tensor in tensors:
        if not isinstance(tensor, Tensor):  # a state may have anything in it
            continue
        flat = tensor.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // _LOOKED_AT)].contiguous().cpu()
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(bytes(some.view(torch.uint8).tolist()))
    return found.hexdigest()[:16]


def sharing(group: Any) -> Ranks:
    """Of the process group that was given to share some work; :data:`ALONE` if none was."""
    return ALONE if group is None else ranks_of(group)


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
