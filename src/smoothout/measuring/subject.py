"""A checkpoint made ready for measuring: its network, its loss and the samples to measure on."""

import functools
import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import smoothout
from smoothout import _checks
from smoothout.losses import Loss
from smoothout.noise.philox import fold
from smoothout.samples import Batch, Samples
from smoothout.train import checkpoint
from smoothout.train.config import Settings
from smoothout.train.data.splits import EVALUATION_BATCH, DataSet, Resident, Streamed, in_order
from smoothout.train.problem import Problem, pose

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
        digest: Of weights, buffers, model, loss, samples, and the code that measures; equal digests give equal numbers.
        samples_digest: Of the samples alone.
        classes: Of the data.
    """

    path: Path
    network: nn.Module
    loss: Loss
    samples: Mapping[str, Samples]
    digest: str
    samples_digest: str
    classes: int


@functools.lru_cache(maxsize=1)
def load(place: Place) -> Subject:
    """Load a checkpoint, its data and its model; the last one is kept.

    Raises:
        FileNotFoundError, ValueError, PermissionError: As loading a checkpoint does, or for an empty split.
    """
    path = checkpoint.find(place.checkpoint)
    settings = checkpoint.load_settings(path, **dict(place.given)).replace(augment=False, channels_last=False)
    problem = pose(settings, torch.device(place.device))
    checkpoint.load_weights(path, problem.network)
    return _subject(path, settings, problem, place)


def untrained(place: Place) -> Subject:
    """The network of the settings in ``place.given`` with its initial weights, and its data.

    Raises:
        ValueError: As making a run does, or for an empty split.
    """
    settings = Settings().replace(**dict(place.given)).replace(augment=False)
    return _subject(place.checkpoint, settings, pose(settings, torch.device(place.device)), place)


def _subject(path: Path, settings: Settings, problem: Problem, place: Place) -> Subject:
    samples = {
        name: Samples(
            _Prepared(problem.dataset, _part(problem.dataset, name, place.sampling), place.sampling),
            torch.device(place.device),
        )
        for name in place.splits
    }
    data = _digest_of_samples(samples)
    digest = _digest(problem, settings, data)
    return Subject(path, problem.network, problem.loss, samples, digest, data, problem.dataset.classes)


def unchanged(path: Path, digest: str, expected: str) -> None:
    """Raise unless a subject is the one that was asked for: a run that goes on replaces its checkpoint."""
    if digest != expected:
        raise ValueError(
            f"{path} changed while it was measured; expected a checkpoint that stays. Copy it, or wait until its run "
            f"has finished, and start again."
        )


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


def _digest(problem: Problem, settings: Settings, data: str) -> str:
    """A hash of all that numbers depend on, besides what is measured."""
    found = hashlib.sha256(data.encode())
    for text in (*_code(), _text(settings.network.model), settings.network.model_config, _named(problem.loss)):
        found.update(text.encode() + b"\0")
    for name, value in problem.network.state_dict(keep_vars=True).items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)} {value.requires_grad}\0".encode())
        found.update(_bytes(value))
    return found.hexdigest()[:16]


@functools.cache
def _code() -> tuple[str, ...]:
    """Versions of the packages that compute, and the text of this one."""
    packages = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "numpy", "scipy")]
    root = Path(smoothout.__file__).parent
    files = [path for path in sorted(root.rglob("*.py")) if path.relative_to(root).parts[0] not in ("cli", "report")]
    return (platform.python_version(), *packages, *(path.read_text(encoding="utf-8") for path in files))


def _text(name: str) -> str:
    """The name of a model; of one in a file of the user's with the file's text."""
    path = Path(name.rpartition(":")[0])
    return name + (path.read_text(encoding="utf-8") if path.suffix == ".py" and path.is_file() else "")


def _named(loss: Loss) -> str:
    """A loss as text: modules print their arguments."""
    return repr(loss) if isinstance(loss, nn.Module) else f"{loss.__module__}.{getattr(loss, '__qualname__', loss)}"


def _digest_of_samples(samples: Mapping[str, Samples]) -> str:
    """A hash of all samples, whether they fit in memory or not."""
    found = hashlib.sha256()
    for name, each in samples.items():
        found.update(name.encode())
        for inputs, targets in each:
            found.update(_bytes(inputs))
            found.update(_bytes(targets))
    return found.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def label(path: Path, among: Sequence[Path]) -> str:
    """A short name of a checkpoint: what tells it from the others, two parts of its path at least.

    Example:
        >>> runs = [Path("runs/demo/large/0"), Path("runs/demo/small/0")]
        >>> label(runs[0], runs), label(runs[0], runs[:1])
        ('large/0', 'large/0')
    """
    parts = [each.resolve().parts for each in among]
    most = min(len(each) for each in parts) - 2
    shared = 0
    while shared < most and len({each[: shared + 1] for each in parts}) == 1:
        shared += 1
    return str(Path(*path.resolve().parts[shared:]))
