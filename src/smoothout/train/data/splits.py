"""What a data set is: three splits, each resident in memory or streamed from files, and how to prepare inputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smoothout.large_batch import partition
from smoothout.noise.philox import fold
from smoothout.ranks import ALONE, Ranks
from smoothout.train.data.transforms import OnPicture, Rows, checked, generators_kept, seed_generators

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
        self, sizes: Sequence[int], order: Tensor | None = None, *, augment: int | None = None, ahead: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs (inputs, targets) of these sizes, samples in this order.

        ``augment`` seeds the augmentation that a split makes itself; None for none. Where processes read, they read at
        least ``ahead`` batches ahead, two each if not given.
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
        self, sizes: Sequence[int], order: Tensor | None = None, *, augment: int | None = None, ahead: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See :class:`Split`; leaves augmentation to the data set's ``augment``."""
        del augment, ahead
        if order is None:
            yield from zip(torch.split(self.inputs, list(sizes)), torch.split(self.targets, list(sizes)), strict=True)
            return
        for indices in torch.split(order.to(self.targets.device), list(sizes)):
            yield self.inputs[indices], self.targets[indices]


class Streamed:
    """Samples of a map-style dataset, read and transformed one by one by worker processes.

    Args:
        samples: Dataset of (raw inputs, class).
        indices: The samples of this split.
        evaluate: Makes a tensor of raw inputs.
        learn: The same in training; it may draw from the global CPU generators.
        workers: Number of processes; 0 reads in this one.
        device: Where batches go.
    """

    def __init__(
        self,
        samples: Dataset[Any],
        indices: Tensor,
        evaluate: Callable[[Any], Tensor],
        learn: Callable[[Any], Tensor],
        *,
        workers: int,
        device: torch.device | None = None,
    ) -> None:
        self.samples, self.indices, self.device = samples, indices, device
        self._evaluate, self._learn, self._workers = evaluate, learn, workers

    def __len__(self) -> int:
        return len(self.indices)

    def _with(self, indices: Tensor, device: torch.device | None) -> "Streamed":
        return Streamed(self.samples, indices, self._evaluate, self._learn, workers=self._workers, device=device)

    def take(self, indices: Tensor) -> "Streamed":
        """A part of the split."""
        return self._with(self.indices[indices], self.device)

    def to(self, device: torch.device) -> "Streamed":
        """The split, with its batches on a device."""
        return self._with(self.indices, device)

    def batches(
        self, sizes: Sequence[int], order: Tensor | None = None, *, augment: int | None = None, ahead: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See :class:`Split`; a sample's augmentation depends on the seed and the sample, not on the worker."""
        indices = self.indices if order is None else self.indices[order]
        loader = DataLoader(
            _Transformed(self.samples, self._evaluate if augment is None else self._learn, augment),
            batch_sampler=[piece.tolist() for piece in torch.split(indices, list(sizes))],
            num_workers=self._workers,
            prefetch_factor=max(2, -(-ahead // self._workers)) if self._workers else None,
            # Else the loader draws its workers' seeds from the global generator.
            generator=torch.Generator(),
        )
        for inputs, targets in loader:
            yield inputs.to(self.device), targets.to(self.device)


class _Transformed(Dataset[Any]):
    """Reads and transforms samples, with the generators seeded by each one's index if there is a seed."""

    def __init__(self, samples: Dataset[Any], transform: Callable[[Any], Tensor], seed: int | None) -> None:
        self._samples, self._transform, self._seed = samples, transform, seed

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Any]]:
        """The samples of a batch, as the loader asks for them: saving the generators for each would be slow."""
        with nullcontext() if self._seed is None else generators_kept():
            return [self._read(index) for index in indices]

    def _read(self, index: int) -> tuple[Tensor, Any]:
        if self._seed is not None:
            seed_generators(self._seed, index)
        raw, target = self._samples[index]
        return self._transform(raw), target


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

    def filled(self, name: str) -> Resident | Streamed:
        """A split by its name; raises if it has no samples."""
        split = self.split(name)
        if len(split) == 0:
            raise ValueError(
                f"the split {name!r} has no samples; from a checkpoint of the original program nothing is held out. "
                f"Use train or test."
            )
        return split

    def transformed(self, transforms: Mapping[str, Callable[[Any], Any]], *, augment: bool, workers: int) -> "DataSet":
        """The same splits with a model's own transforms in place of the data set's.

        Args:
            transforms: For "train" and "eval": from a PIL image (of images; else from the raw tensor) to floats.
            augment: Whether training takes "train"; without, it takes "eval".
            workers: Number of processes that transform.

        Raises:
            TypeError: If a transform is missing, cannot be called, or makes something else.
        """
        learn, evaluate = checked(transforms)
        learn = learn if augment else evaluate
        train, holdout, test = (
            _transformed(split, evaluate, learn, workers) for split in (self.train, self.holdout, self.test)
        )
        # Both are tried here, so that a fault shows at the start.
        with generators_kept():
            raw, _ = train.samples[int(train.indices[0])]
            learn(raw)
            shape = evaluate(raw).shape
        return DataSet(train, holdout, test, tuple(shape), self.classes)


def _transformed(split: Resident | Streamed, evaluate: OnPicture, learn: OnPicture, workers: int) -> Streamed:
    if isinstance(split, Streamed):
        return Streamed(split.samples, split.indices, evaluate, learn, workers=workers, device=split.device)
    samples = Rows(split.inputs.cpu(), split.targets.cpu())
    return Streamed(samples, torch.arange(len(split)), evaluate, learn, workers=workers, device=split.targets.device)


def in_order(
    split: Resident | Streamed,
    *,
    augment: int | None = None,
    batch_size: int = EVALUATION_BATCH,
    ranks: Ranks = ALONE,
) -> Iterator[tuple[Tensor, Tensor]]:
    """All samples of a split in their fixed order, in batches for evaluation; of several processes only this one's."""
    sizes = partition(len(split), batch_size)
    if ranks.size == 1:
        return split.batches(sizes, augment=augment)
    own = ranks.own(torch.split(torch.arange(len(split)), sizes))
    return split.take(torch.cat([*own, torch.arange(0)])).batches([len(piece) for piece in own], augment=augment)


def cut_holdout(samples: int, share: float | None, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (train, hold-out) of a random cut that depends on the seed alone.

    The share is 0.1 if not given; 0 holds nothing out.
    """
    if share == 0:
        return torch.arange(samples), torch.arange(0)
    share = HOLDOUT_SHARE if share is None else share
    count = round(samples * share)
    if not 0 < count < samples:
        raise ValueError(
            f"holdout={share} of {samples} training samples is {count}; expected at least one on either side. "
            f"Give another --holdout, or 0 for none."
        )
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(fold(seed, _HOLDOUT) >> 1))
    return order[count:].sort().values, order[:count].sort().values


def given_holdout(split: Resident | Streamed, share: float | None) -> Resident | Streamed:
    """The hold-out that comes with a data set: all of it, or nothing if the share is 0."""
    return split.take(torch.arange(0)) if share == 0 else split
