"""A checkpoint made ready for measuring: its network, its loss and the samples to measure on."""

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothout import _checks
from smoothout.losses import Loss
from smoothout.noise.philox import fold
from smoothout.samples import Batch, Samples
from smoothout.train import checkpoint
from smoothout.train.data.splits import EVALUATION_BATCH, DataSet, Resident, Streamed, in_order
from smoothout.train.problem import pose

_SUBSET = 2  # tells the seed of the subset from other uses of a seed


@dataclass(frozen=True)
class Sampling:
    """What is measured on: samples in a fixed order, without augmentation."""

    samples: int | None = None
    """A random part of each split, of this many samples, the same for every point [None: all]."""
    batch_size: int = EVALUATION_BATCH
    """Samples that go through the network at a time."""
    seed: int = 0
    """Of the samples, the noise, the directions and the probes."""

    def __post_init__(self) -> None:
        if self.samples is not None:
            _checks.whole("samples", self.samples, at_least=1)
        _checks.whole("batch_size", self.batch_size, at_least=1)
        _checks.whole("seed", self.seed, at_least=0, below=2**63)


@dataclass(frozen=True)
class Place:
    """Where a subject is found; another process makes the same subject of it.

    Attributes:
        checkpoint: A checkpoint's folder, a run's, or a file of the original program.
        splits: Of train, holdout and test.
        sampling: What part of them.
        device: Where to measure.
        given: Settings that replace the stored ones.
    """

    checkpoint: Path
    splits: tuple[str, ...]
    sampling: Sampling
    device: str
    given: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, its loss and samples.

    Attributes:
        path: The checkpoint's folder or file.
        network: With the checkpoint's weights, in float32.
        loss: The network's criterion, or cross entropy.
        samples: Of each split.
        digest: Of weights, buffers and samples; equal digests give equal measures.
        samples_digest: Of the samples alone.
    """

    path: Path
    network: nn.Module
    loss: Loss
    samples: Mapping[str, Samples]
    digest: str
    samples_digest: str


@functools.lru_cache(maxsize=1)
def load(place: Place) -> Subject:
    """Load a checkpoint, its data and its model; the last one is kept.

    Raises:
        FileNotFoundError, ValueError, PermissionError: As loading a checkpoint does, or for an empty split.
    """
    path = checkpoint.find(place.checkpoint)
    settings = checkpoint.load_settings(path, **dict(place.given)).replace(augment=False)
    device = torch.device(place.device)
    problem = pose(settings, device)
    checkpoint.load_weights(path, problem.network)
    samples = {
        name: Samples(_Prepared(problem.dataset, _part(problem.dataset, name, place.sampling), place.sampling), device)
        for name in place.splits
    }
    data = _digest_of_samples(samples)
    return Subject(path, problem.network, problem.loss, samples, _digest(problem.network, data), data)


def _part(dataset: DataSet, name: str, sampling: Sampling) -> Resident | Streamed:
    """A split, or a random part of it in the split's order."""
    split = dataset.filled(name)
    if sampling.samples is None or sampling.samples >= len(split):
        return split
    generator = torch.Generator().manual_seed(fold(sampling.seed, _SUBSET) >> 1)
    return split.take(torch.randperm(len(split), generator=generator)[: sampling.samples].sort().values)


class _Prepared:
    """Batches as the network takes them; they can be read again."""

    def __init__(self, dataset: DataSet, split: Resident | Streamed, sampling: Sampling) -> None:
        self._dataset, self._split, self._size = dataset, split, sampling.batch_size

    def __iter__(self) -> Iterator[Batch]:
        for inputs, targets in in_order(self._split, batch_size=self._size):
            yield self._dataset.normalise(inputs), targets


def _digest(network: nn.Module, data: str) -> str:
    """A hash of weights, buffers and samples."""
    found = hashlib.sha256(data.encode())
    for name, value in network.state_dict().items():
        found.update(name.encode())
        found.update(_bytes(value))
    return found.hexdigest()[:16]


def _digest_of_samples(samples: Mapping[str, Samples]) -> str:
    """A hash of samples; of those that do not fit in memory, of the first part that does."""
    found = hashlib.sha256()
    for name, each in samples.items():
        found.update(name.encode())
        for inputs, targets in next(iter(each.parts())):
            found.update(_bytes(inputs))
            found.update(_bytes(targets))
    return found.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def label(path: Path, among: Sequence[Path]) -> str:
    """A short name of a checkpoint: what tells it from the others.

    Example:
        >>> runs = [Path("runs/demo/large/0"), Path("runs/demo/small/0")]
        >>> label(runs[0], runs), label(runs[0], runs[:1])
        ('large/0', 'large/0')
    """
    parts = [each.parts for each in among]
    shared = 0
    while len(set(among)) > 1 and len({each[: shared + 1] for each in parts}) == 1:
        shared += 1
    return str(Path(*(path.parts[shared:] if shared or len(set(among)) > 1 else path.parts[-2:])))
