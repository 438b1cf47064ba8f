"""Landscapes of checkpoints: points in worker processes, kept as they come."""

import copy
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from smoothout import landscape
from smoothout._types import Distribution
from smoothout.landscape import Axes, Displacements, Plan, Point
from smoothout.measuring.points import KeptPoints
from smoothout.measuring.subject import Place, Subject, label, load, unchanged
from smoothout.results.runs import Risk
from smoothout.train import checkpoint
from smoothout.train.spread import each

#: Points that share a pass over data that do not fit in memory.
TOGETHER = 16


@dataclass(frozen=True)
class Span:
    """What spans a line or a plane; another process makes the same axes of it.

    Attributes:
        place: The first checkpoint, and what to measure on.
        to: Further checkpoints: one for a line, two for a plane.
        kind: Without further ones: random directions, or the Hessian's top eigenvectors.
        dimensions: 1 for a line, 2 for a plane.
        distribution, one_dimensional: Of random directions.
        vectors: File of the eigenvectors, which are computed once.
    """

    place: Place
    to: tuple[Path, ...] = ()
    kind: Literal["random", "hessian"] = "random"
    dimensions: int = 1
    distribution: Distribution = "normal"
    one_dimensional: Literal["zero", "scale"] = "zero"
    vectors: Path | None = None


@functools.lru_cache(maxsize=1)
def axes_of(span: Span) -> Axes:
    """The axes; the last ones are kept.

    Raises:
        ValueError: If a checkpoint is of another architecture.
    """
    subject = load(span.place)
    if span.to:
        paths = [span.place.checkpoint, *span.to]
        others = [_state(path, subject) for path in span.to]
        names = tuple(label(path, paths) for path in paths)
        if len(others) == 1:
            return landscape.between(subject.network, others[0], names=(names[0], names[1]))
        return landscape.through(subject.network, others[0], others[1], names=(names[0], names[1], names[2]))
    if span.kind == "hessian":
        return _eigenvectors(span)
    options = {"distribution": span.distribution, "one_dimensional": span.one_dimensional}
    first = landscape.direction(subject.network, seed=span.place.sampling.seed, **options)  # type: ignore[arg-type]
    if span.dimensions == 1:
        return first
    second = landscape.direction(
        subject.network,
        seed=span.place.sampling.seed,
        orthogonal_to=first,
        **options,  # type: ignore[arg-type]
    )
    return landscape.span(first, second)


def _state(path: Path, subject: Subject) -> dict[str, torch.Tensor]:
    """Weights and buffers of a checkpoint of the same architecture."""
    other = copy.deepcopy(subject.network)
    found = checkpoint.find(path)
    try:
        checkpoint.load_weights(found, other)
    except ValueError as error:
        raise ValueError(
            f"{found} and {subject.path} are of different architectures, and no line joins them: "
            f"{str(error).split('. ')[0]}. Take checkpoints of one model with the same settings."
        ) from error
    return other.state_dict()


def _eigenvectors(span: Span) -> Displacements:
    """The Hessian's top eigenvectors, from their file; computed if it is not there."""
    assert span.vectors is not None
    subject = load(span.place)
    split = span.place.splits[0]  # which the description names
    if not span.vectors.is_file():
        made = landscape.hessian_axes(
            subject.network, subject.samples[split], subject.loss, count=span.dimensions, seed=span.place.sampling.seed
        )
        named = {
            f"{index}.{name}": part.contiguous()
            for index, vector in enumerate(made.vectors)
            for name, part in zip(made.names, vector, strict=True)
        }
        span.vectors.parent.mkdir(parents=True, exist_ok=True)
        new = span.vectors.with_name("new-" + span.vectors.name)
        save_file(
            named,
            new,
            metadata={"description": f"{made.description}, of the {split} samples", "names": json.dumps(made.names)},
        )
        new.replace(span.vectors)
    return _stored(span)


def _stored(span: Span) -> Displacements:
    assert span.vectors is not None
    with safe_open(span.vectors, framework="pt") as file:
        about = file.metadata()
    tensors = load_file(span.vectors, device=span.place.device)
    names = tuple(json.loads(about["names"]))
    vectors = tuple(tuple(tensors[f"{index}.{name}"] for name in names) for index in range(span.dimensions))
    return Displacements.of(names, vectors, about["description"], span.place.sampling.seed)


@functools.lru_cache(maxsize=1)
def digest_of(span: Span) -> str:
    """A hash of what is spanned: the subject, and the axes themselves."""
    found = hashlib.sha256(load(span.place).digest.encode())
    axes = axes_of(span)
    found.update(f"{axes.description} {sorted(axes.marks.items())}".encode())
    tensors = [part for vector in getattr(axes, "vectors", ()) for part in vector]
    tensors += [value for state in getattr(axes, "states", ()) for value in state.values()]
    for value in tensors:
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def key_of(span: Span, points: Sequence[Point]) -> str:
    """A hash of all that the numbers depend on."""
    parts = [digest_of(span), span.place.splits, list(points)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Task:
    """Points of one split that are measured together, in what has this digest."""

    span: Span
    digest: str
    split: str
    indices: tuple[int, ...]
    points: tuple[Point, ...]

    @property
    def device(self) -> str:
        """Where to measure."""
        return self.span.place.device

    def elsewhere(self, device: str, folder: Path) -> Self:
        """The same on another device, with the file of eigenvectors in another folder."""
        span = replace(self.span, place=replace(self.span.place, device=device))
        if span.vectors is not None:
            span = replace(span, vectors=folder / span.vectors.name)
        return replace(self, span=span)


def measure(task: Task) -> list[Risk]:
    """Measure the points of a task."""
    subject = load(task.span.place)
    unchanged(task.span.place.checkpoint, digest_of(task.span), task.digest)
    return landscape.measure_points(
        subject.network,
        subject.samples[task.split],
        subject.loss,
        axes=axes_of(task.span),
        points=task.points,
        statistics=subject.samples.get("train"),
    )


def run_points(span: Span, plan: Plan[Any], splits: Sequence[str], kept: KeptPoints, jobs: int) -> Iterator[int]:
    """Measure what is missing, by all processes that were launched, or by so many jobs.

    Yields how many measurements of this shard are finished, and always leaves a file.

    Raises:
        ValueError: If the loss at the weights themselves is not finite.
    """
    missing = {split: kept.missing(split) for split in splits}
    samples = load(span.place).samples
    tasks = [
        Task(span, digest_of(span), split, tuple(some), tuple(plan.points[index] for index in some))
        for split in splits
        for some in _chunks(missing[split], 1 if samples[split].resident else TOGETHER)
    ]
    files = [] if span.vectors is None else [span.vectors]
    done = kept.wanted - sum(map(len, missing.values()))
    yield done
    try:
        for task, risks in each(measure, tasks, jobs, files):
            kept.add(task.split, task.indices, risks)
            plan.check(kept.risks(task.split)[:1])
            done += len(risks)
            yield done
    finally:
        kept.write()


def _chunks(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
