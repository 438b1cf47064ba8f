"""Weights of which each process holds a part, torch's DTensor: which part it is, and what all parts add up to.

Noise is keyed by an element's row-major index i in the full tensor of sizes S,

    i = ((c_0 S_1 + c_1) S_2 + c_2) S_3 + ...

with c_k the element's coordinate along dimension k. Placements cut each dimension by itself, so that a part is given
by one vector of coordinates for each dimension, made here without communication.
"""

import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist


class Line(NamedTuple):
    """Processes along one dimension of a mesh.

    Attributes:
        group: torch's process group.
        device: Type of the device on which they talk.
    """

    group: Any
    device: str


@dataclass(frozen=True, eq=False)
class Part:
    """Of a tensor, the elements that this process holds.

    Attributes:
        full: Sizes of the full tensor.
        coordinates: For each dimension, those of the elements held, rising; int64.
        first: Index of the first element if they are consecutive ones, None if they are not.
    """

    full: tuple[int, ...]
    coordinates: tuple[Tensor, ...]
    first: int | None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(map(len, self.coordinates))

    def indices(self, device: torch.device) -> Tensor:
        """Of the elements in the full tensor, (size,) int64, in the order of the part's own row-major index."""
        found = torch.zeros((), dtype=torch.int64, device=device)
        for coordinates, size in zip(self.coordinates, self.full, strict=True):
            found = found.unsqueeze(-1) * size + coordinates.to(device)
        return found.flatten()

    def blocks(self, per_block: int, device: torch.device) -> tuple[Tensor, slice | Tensor]:
        """Numbers of the blocks of draws that hold the elements, and where in these blocks' draws the elements are."""
        if self.first is not None:
            start, skipped = divmod(self.first, per_block)
            end = -(-(self.first + self.size) // per_block)
            return torch.arange(start, end, device=device), slice(skipped, skipped + self.size)
        indices = self.indices(device)
        blocks, place = torch.unique_consecutive(indices // per_block, return_inverse=True)
        return blocks, place.mul_(per_block).add_(indices.remainder_(per_block))


def whole(shape: Sequence[int]) -> Part:
    """All of a tensor."""
    return Part(tuple(shape), tuple(torch.arange(size) for size in shape), 0)


def is_shard(tensor: Tensor) -> bool:
    """Whether it is a DTensor; asking does not import what makes one."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, getattr(module, "DTensor", ()))


def local(tensor: Any) -> Tensor:
    """The plain tensor that holds this process's values; a tensor that is no DTensor itself.

    ``to_local()`` makes a new object of a parameter with each call. This is the one that optimizers write to, whose
    version tells of it.
    """
    found: Tensor = tensor._local_tensor if is_shard(tensor) else tensor
    return found


def part_of(name: str, tensor: Any) -> Part | None:
    """Which elements of a DTensor this process holds; None for a plain tensor.

    Raises:
        TypeError: For values that are yet to be added up over processes.
        ValueError: If its placements do not give the sizes of what it holds.
    """
    if not is_shard(tensor):
        return None
    unknown = [place for place in tensor.placements if place.is_partial()]
    if unknown:
        raise TypeError(
            f"parameter {name!r} has the placement {unknown[0]!r}, so that no process knows its values; expected Shard "
            f"or Replicate. Redistribute it, or leave it out with exclude=."
        )
    full = tuple(tensor.shape)
    coordinates = tuple(_coordinates(tensor, dim) for dim in range(len(full)))
    expected, held = tuple(map(len, coordinates)), tuple(local(tensor).shape)
    if expected != held:
        raise ValueError(
            f"parameter {name!r} of shape {full} holds {held} here; expected {expected} by its placements "
            f"{tensor.placements}. Choose sizes that the mesh divides, or leave it out with exclude=."
        )
    return Part(full, coordinates, _first(full, coordinates))


def _coordinates(tensor: Any, dim: int) -> Tensor:
    """Along one dimension, of what is held: numbers 0, 1, 2, ... are placed as the tensor's slices are."""
    from torch.distributed.tensor import Replicate, distribute_tensor

    numbers = torch.arange(tensor.shape[dim])
    if tensor.device_mesh.get_coordinate() is None:  # this process has no place in the mesh
        return numbers[:0]
    if not any(_cuts(place, [dim]) for place in tensor.placements):
        return numbers
    placements = [_along_first(place) if _cuts(place, [dim]) else Replicate() for place in tensor.placements]
    placed = distribute_tensor(numbers, tensor.device_mesh, placements, src_data_rank=None)
    return local(placed).cpu()


def _cuts(placement: Any, dims: Sequence[int]) -> bool:
    return getattr(placement, "dim", None) in dims


def _along_first(placement: Any) -> Any:
    """The same cut along dimension 0; a strided one also knows in how many pieces it cuts each of its own."""
    factor = getattr(placement, "split_factor", None)
    return type(placement)(0) if factor is None else type(placement)(0, split_factor=factor)


def _first(full: Sequence[int], coordinates: Sequence[Tensor]) -> int | None:
    """Index of the first element, if the indices are consecutive.

    They are if one dimension is cut to a range, those before it to one coordinate, and those behind it not at all.
    """
    lengths = [len(each) for each in coordinates]
    if 0 in lengths:
        return 0
    if any(int(each[-1] - each[0]) != length - 1 for each, length in zip(coordinates, lengths, strict=True)):
        return None
    cut = next((dim for dim, length in enumerate(lengths) if length > 1), len(full))
    if any(length != size for length, size in zip(lengths[cut + 1 :], full[cut + 1 :], strict=True)):
        return None
    strides = [math.prod(full[dim + 1 :]) for dim in range(len(full))]
    return sum(int(each[0]) * stride for each, stride in zip(coordinates, strides, strict=True))


def lines(tensor: Any, dims: Sequence[int] | None = None) -> tuple[Line, ...]:
    """The dimensions of its mesh that cut any of some of a tensor's dimensions, by default of all."""
    if not is_shard(tensor):
        return ()
    mesh, wanted = tensor.device_mesh, range(tensor.dim()) if dims is None else dims
    return tuple(
        Line(mesh.get_group(dim), mesh.device_type)
        for dim, placement in enumerate(tensor.placements)
        if _cuts(placement, wanted) and mesh.size(dim) > 1
    )


def chunk(tensor: Any, dim: int) -> int:
    """Slices of a dimension that each process but the last ones holds; 0 where that is not so simple."""
    cuts = [(mesh_dim, place) for mesh_dim, place in enumerate(tensor.placements) if _cuts(place, [dim])]
    if not cuts:
        return int(tensor.shape[dim])
    [(mesh_dim, placement), *more] = cuts
    return 0 if more or not placement.is_shard() else -(-tensor.shape[dim] // tensor.device_mesh.size(mesh_dim))


def mesh_size(tensor: Any) -> int:
    """Number of processes in a DTensor's mesh."""
    return int(tensor.device_mesh.size())


def mesh_lines(tensors: Sequence[Any]) -> list[Line]:
    """All dimensions of the meshes of some DTensors."""
    meshes = list({id(each.device_mesh): each.device_mesh for each in tensors}.values())
    found = [Line(mesh.get_group(dim), mesh.device_type) for mesh in meshes for dim in range(mesh.ndim)]
    return list({line.group.group_name: line for line in found}.values())


def holders(tensor: Any) -> set[int]:
    """The processes that hold parts of the same copy of a DTensor as this one, by their global ranks."""
    mesh = tensor.device_mesh
    here = mesh.get_coordinate()
    if here is None:
        return set()
    cut = [hasattr(placement, "dim") for placement in tensor.placements]
    index = tuple(slice(None) if each else at for each, at in zip(cut, here, strict=True))
    return set(mesh.mesh[index].flatten().tolist())


def add_up(values: Sequence[Tensor], over: Sequence[tuple[Line, ...]]) -> list[Tensor]:
    """Sum float64 tensors over processes, each over lines of its own; one message for each line, whatever it is for.

    All processes pass the same tensors in the same order, so that they meet.
    """
    summed = list(values)
    for line in dict.fromkeys(itertools.chain(*over)):
        mine = [index for index, its in enumerate(over) if line in its]
        sent = torch.cat([summed[index].flatten() for index in mine]).to(line.device)
        dist.all_reduce(sent, group=line.group)
        for index, piece in zip(mine, torch.split(sent, [summed[index].numel() for index in mine]), strict=True):
            summed[index] = piece.view(summed[index].shape).to(summed[index].device)
    return summed
