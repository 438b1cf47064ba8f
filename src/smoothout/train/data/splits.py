"""What a data set is: three splits, each resident in memory or streamed from files, and how to prepare inputs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smoothout.large_batch import partition
from smoothout.noise.philox import fold

EVALUATION_BATCH = 1000
HOLDOUT_SHARE = 0.1
_HOLDOUT = 1  # tells the seed of the cut from other uses of the run's seed


def as_is(inputs: Tensor) -> Tensor:
    """Inputs unchanged."""
    return inputs


class Split(Protocol):
    """Samples that can be read in any order."""

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> Self:
        """A part of the split."""

    def batches(
        self, sizes: Sequence[int], order: Tensor | None = None, *, augment: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs (inputs, targets) of these sizes, samples in this order.

        ``augment`` seeds the augmentation that a split makes itself; None for none.
        """


class Resident:
    """Samples in memory, on the training device; they are augmented there, a ghost batch at a time."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        if len(inputs) != len(targets):
            raise ValueError(f"there are {len(inputs)} inputs and {len(targets)} targets; expected as many of each.")
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: Tensor) -> "Resident":
        """A part of the split."""
        return Resident(self.inputs[indices], self.targets[indices])

    def to(self, device: torch.device) -> "Resident":
        """The split on a device."""
        return Resident(self.inputs.to(device), self.targets.to(device))

    def batches(
        self, sizes: Sequence[int], order: Tensor | None = None, *, augment: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See :class:`Split`; leaves augmentation to the data set's ``augment``."""
        del augment
        if order is None:
            yield from zip(torch.split(self.inputs, list(sizes)), torch.split(self.targets, list(sizes)), strict=True)
            return
        for indices in torch.split(order.to(self.targets.device), list(sizes)):
            yield self.inputs[indices], self.targets[indices]


class Streamed:
    """Samples of map-style datasets, read by worker processes.

    Args:
        plain: Dataset of (inputs, class) without augmentation.
        augmented: The same samples with it; it may draw from torch's global generator.
        workers: Number of processes.
        indices: The samples of this split.
        device: Where batches go.
    """

    def __init__(
        self,
        plain: Dataset[Any],
        augmented: Dataset[Any],
        workers: int,
        indices: Tensor,
        device: torch.device | None = None,
    ) -> None:
        self._plain, self._augmented = plain, augmented
        self._workers, self._indices, self._device = workers, indices, device

    def __len__(self) -> int:
        return len(self._indices)

    def take(self, indices: Tensor) -> "Streamed":
        """A part of the split."""
        return Streamed(self._plain, self._augmented, self._workers, self._indices[indices], self._device)

    def to(self, device: torch.device) -> "Streamed":
        """The split, with its batches on a device."""
        return Streamed(self._plain, self._augmented, self._workers, self._indices, device)

    def batches(
        self, sizes: Sequence[int], order: Tensor | None = None, *, augment: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See :class:`Split`; a sample's augmentation depends on the seed and the sample, not on the worker."""
        indices = self._indices if order is None else self._indices[order]
        dataset = self._plain if augment is None else _Seeded(self._augmented, augment)
        loader = DataLoader(
            dataset,
            batch_sampler=[piece.tolist() for piece in torch.split(indices, list(sizes))],
            num_workers=self._workers,
        )
        for inputs, targets in loader:
            yield inputs.to(self._device), targets.to(self._device)


class _Seeded(Dataset[Any]):
    """Seeds torch's generator by the sample's index before each sample."""

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self._dataset, self._seed = dataset, seed

    def __getitem__(self, index: int) -> Any:
        torch.manual_seed(fold(self._seed, index) >> 1)
        return self._dataset[index]


@dataclass(frozen=True)
class DataSet:
    """Three splits and what they need.

    Attributes:
        train, holdout, test: The splits.
        input_shape: Of one prepared sample.
        classes: Number of classes.
        normalise: Makes float inputs of a batch as the splits give it.
        augment: Random change of a batch as the splits give it, per sample, from torch's global generator.
    """

    train: Resident | Streamed
    holdout: Resident | Streamed
    test: Resident | Streamed
    input_shape: tuple[int, ...]
    classes: int
    normalise: Callable[[Tensor], Tensor] = as_is
    augment: Callable[[Tensor], Tensor] = as_is

    def to(self, device: torch.device) -> "DataSet":
        """The data set with its batches on a device."""
        return replace(self, train=self.train.to(device), holdout=self.holdout.to(device), test=self.test.to(device))

    def split(self, name: str) -> Resident | Streamed:
        """A split by its name."""
        return {"train": self.train, "holdout": self.holdout, "test": self.test}[name]


def in_order(split: Resident | Streamed, *, augment: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """All samples of a split in their fixed order, in batches for evaluation."""
    return split.batches(partition(len(split), EVALUATION_BATCH), augment=augment)


def cut_holdout(samples: int, share: float | None, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (train, hold-out) of a random cut that depends on the seed alone; the share is 0.1 if not given."""
    share = share or HOLDOUT_SHARE
    count = round(samples * share)
    if not 0 < count < samples:
        raise ValueError(
            f"holdout={share} of {samples} training samples is {count}; expected at least one on either side."
        )
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(fold(seed, _HOLDOUT) >> 1))
    return order[count:].sort().values, order[:count].sort().values
