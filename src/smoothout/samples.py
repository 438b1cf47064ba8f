"""Samples to measure on: kept on the device as far as they fit, in a fixed order, or a random part of them."""

import contextlib
import copy
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from smoothout import _checks
from smoothout.noise.philox import fold
from smoothout.ranks import ALONE, Ranks, digest

Batch = tuple[Tensor, Tensor]
Batches = Iterable[Batch]


class Samples:
    """Batches of a data set, read once and kept on the device if they fit there.

    What does not fit is read again in each pass, a part that fits at a time; the measures then take as many points
    as they have for each part, so that the data are read once for all of them.

    Args:
        batches: Pairs (inputs, targets); a list, a DataLoader, any iterable. One that cannot be read twice, such as
            a generator, must fit. Order and augmentation are the iterable's own: shuffled or augmented data give
            other numbers in each pass.
        device: Where the model is.
        room: Bytes to keep; by default half of what is free there.

    Attributes:
        resident: Whether all are kept.
        ranks: The processes that share the passes over the data; see :meth:`spread`.
        count: Of batches, once they are spread.

    Raises:
        ValueError: If there are no samples, or they do not fit and cannot be read again.
        TypeError: If the batches are no pairs of tensors.
    """

    def __init__(self, batches: Batches, device: torch.device, room: int | None = None) -> None:
        self._batches, self._device = batches, device
        self._room = free_bytes(device) // 2 if room is None else room
        self.resident = False
        self.ranks: Ranks = ALONE
        self.count = 0
        parts = self._parts()
        first = next(parts, None)
        if first is None:
            raise ValueError(
                "there are no samples to measure on; expected at least one batch (inputs, targets). "
                "Check the subset's size, or whether the iterator is used up."
            )
        if next(parts, None) is None:
            self._kept, self.resident = first, True
        elif iter(batches) is batches:
            raise ValueError(
                f"the data are a one-time {type(batches).__name__} and do not fit in {self._room:,} bytes; expected "
                f"something that can be read again. Pass a list or a DataLoader, or fewer samples: subset(...)."
            )

    def spread(self, ranks: Ranks) -> Self:
        """The same samples for processes of which each takes batches k = rank mod size in every pass.

        All must call it; the samples are read once to compare them.

        Raises:
            ValueError: In all processes, if they have different samples.
        """
        if ranks.group is self.ranks.group:
            return self
        found = copy.copy(self)
        found.ranks, found.count, samples = ranks, 0, 0
        if ranks.size == 1:
            return found

        def each() -> Iterator[Tensor]:
            nonlocal samples
            for batch in self:
                found.count += 1
                samples += len(batch[1])
                yield from batch

        with ranks.together(self._device):
            read = digest(each())
        ranks.same(
            {"the number of batches": found.count, "the number of samples": samples, "the digest of the data": read},
            "Give each process all of the data in one order: no DistributedSampler, no shuffling, no augmentation.",
        )
        return found

    @property
    def own(self) -> Iterator[Batch]:
        """The batches of this process."""
        return itertools.chain.from_iterable(self.parts())

    def parts(self) -> Iterator[list[Batch]]:
        """Own batches in order, in lists that fit on the device, each good until the next; one list if all do."""
        if self.resident:
            yield list(self.ranks.own(self._kept))
        else:
            yield from self._parts(self.ranks)

    def __iter__(self) -> Iterator[Batch]:
        """All batches, whether they are spread or not."""
        parts = [self._kept] if self.resident else self._parts()
        return itertools.chain.from_iterable(parts)

    def _parts(self, ranks: Ranks = ALONE) -> Iterator[list[Batch]]:
        part: list[Batch] = []
        size, number = 0, -1
        for pair in self._batches:
            inputs, targets = _checked(pair)
            if len(targets) == 0:
                continue
            number += 1
            if number % ranks.size != ranks.rank:
                continue
            batch = inputs.detach().to(self._device), targets.detach().to(self._device)
            weight = sum(tensor.nbytes for tensor in batch)
            if part and size + weight > self._room:
                yield part
                part.clear()  # the reader still holds the list: two parts at a time would not fit
                part, size = [], 0
            part.append(batch)
            size += weight
        if part:
            yield part


def subset(batches: Batches, samples: int, seed: int = 0, *, batch_size: int = 1000) -> list[Batch]:
    """A random part of a data set, without replacement, in the data's order.

    Which samples are taken depends on the seed and the data's order alone, not on the batches they come in.

    Args:
        batches: Pairs (inputs, targets), read once.
        samples: How many to take; all if there are fewer.
        seed: Of the choice.
        batch_size: Samples of the batches that are returned.

    Example:
        >>> part = subset([(torch.arange(6.0)[:, None], torch.arange(6))], 3, seed=1)
        >>> len(part), len(part[0][1])
        (1, 3)
    """
    _checks.whole("samples", samples, at_least=1)
    _checks.whole("batch_size", batch_size, at_least=1)
    generator = torch.Generator().manual_seed(fold(_checks.whole("seed", seed, at_least=0, below=2**64)) >> 1)
    keys = torch.empty(0, dtype=torch.float64)
    kept: Batch | None = None
    for pair in batches:
        inputs, targets = _checked(pair)
        keys = torch.cat((keys, torch.rand(len(targets), dtype=torch.float64, generator=generator)))
        kept = (inputs, targets) if kept is None else (torch.cat((kept[0], inputs)), torch.cat((kept[1], targets)))
        if len(keys) > samples:  # the samples with the smallest keys are a uniform choice of all seen so far
            indices = keys.argsort()[:samples].sort().values
            keys, kept = keys[indices], tuple(tensor[indices.to(tensor.device)] for tensor in kept)  # type: ignore[assignment]
    if kept is None:
        return []
    return list(zip(*(torch.split(tensor, batch_size) for tensor in kept), strict=True))


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device, about; what files are cached in counts as free."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with contextlib.suppress(OSError, StopIteration):  # only Linux says it
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # no such system call
        return 1 << 32


def _checked(pair: object) -> Batch:
    if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(each, Tensor) for each in pair)):
        raise TypeError(
            f"a batch is a {type(pair).__name__}; expected a pair of tensors (inputs, targets). "
            f"Let the loader collate samples into tensors."
        )
    inputs, targets = pair
    if targets.dim() == 0 or len(inputs) != len(targets):
        raise ValueError(
            f"a batch has inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)}; expected as "
            f"many. Pass a DataLoader, or a list of such pairs, rather than a Dataset of single samples."
        )
    return inputs, targets
