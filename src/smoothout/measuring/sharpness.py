"""Measures of several checkpoints, kept in a file as they come, so that an interrupted command goes on."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from smoothout import _checks, sharpness
from smoothout._types import Distribution, Scale
from smoothout.measuring.subject import Place, load, unchanged
from smoothout.results.checkpoints import weights_digest
from smoothout.results.files import write_json
from smoothout.results.sharpness import Measure, call_of, read_measure
from smoothout.train.spread import each
from smoothout.weights import exclude_batch_norm, exclude_nothing

MEASURES = ("noise", "box", "ball", "adaptive", "hessian", "spectrum")
#: Strengths of the curve, by scale: of absolute noise, and of noise relative to weights or filters.
STRENGTHS = {
    "none": (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05),
    "weight": (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5),
    "filter": (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5),
}


@dataclass(frozen=True)
class Wanted:
    """Which measures, and their constants."""

    measures: str = ",".join(MEASURES)
    """Of noise, box, ball, adaptive, hessian and spectrum, with commas."""
    scale: tuple[Scale, ...] = ("none", "filter")
    """Noise: none (half-width a), weight (a |w|) or filter (a times the filter's norm); a curve for each."""
    strengths: tuple[float, ...] = ()
    """Noise: the strengths a of the curves [none: seven from 0.001 to 0.05, for weight and filter from 0.01 to 0.5]."""
    distribution: Distribution = "uniform"
    """Noise: uniform on (-1, 1) or standard normal."""
    exclude_bn: bool = True
    """Noise: leave the weights and biases of BatchNorm without."""
    epsilon: float = 5e-4
    """Box: half-width relative to |x| + 1; the paper also has 1e-3."""
    manifold: int = 0
    """Box: dimension of a random subspace to search; 0 for the full space."""
    columns: Literal["normal", "original"] = "normal"
    """Box: how the subspace is drawn; original as the original program did."""
    start: Literal["best", "x0"] = "best"
    """Box: the better of two starts, or from the weights alone as the original program did."""
    draws: int | None = None
    """Random repeats: antithetic pairs of the noise at least, subspaces of the box, probes of the spectrum
    [None: 20, 1 and 10]."""
    radius: float = 0.05
    """Ball: L2 norm of the displacement."""
    adaptive_radius: float = 0.5
    """Adaptive: the same, relative to |w| + 0.01."""
    by: Literal["weight", "filter"] = "weight"
    """Adaptive: relative to each weight, or to each filter's norm."""
    ascent_steps: int = 1
    """Ball and adaptive: 1, or steps of projected ascent, such as 20."""
    eigenvalues: int = 1
    """Hessian: how many of the largest."""
    parameters: tuple[str, ...] = ("*",)
    """Hessian and spectrum: patterns of the names of the weights; others are held fixed."""

    def __post_init__(self) -> None:
        for name in self.names:
            _checks.known("a measure", name, MEASURES)
        if not self.names:
            raise ValueError(f"measures is {self.measures!r}; expected some of {', '.join(MEASURES)}.")
        if "noise" in self.names and not self.scale:
            raise ValueError("scale is empty; expected some of none, weight and filter.")
        for strength in self.strengths:
            _checks.positive(
                "a strength", strength, "The loss is compared with that at strength 0 anyway; leave 0 out."
            )
        for name in ("epsilon", "radius", "adaptive_radius"):
            _checks.positive(name, getattr(self, name), "See --help for the default.")
        for name, least in (("manifold", 0), ("ascent_steps", 1), ("eigenvalues", 1)):
            _checks.whole(name, getattr(self, name), at_least=least)
        if self.draws is not None:
            _checks.whole("draws", self.draws, at_least=2 if "noise" in self.names else 1)

    @property
    def names(self) -> tuple[str, ...]:
        """The measures, in the order of the tables."""
        return tuple(name.strip() for name in self.measures.split(",") if name.strip())

    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        """The measures to make: name and arguments, each of plain values."""
        found: list[tuple[str, dict[str, Any]]] = []
        for name in MEASURES:
            if name not in self.names:
                continue
            if name != "noise":
                found.append((name, self._constants()[name]))
                continue
            for scale in self.scale:
                noise: dict[str, Any] = {
                    "scale": scale,
                    "distribution": self.distribution,
                    "exclude_bn": self.exclude_bn,
                }
                noise |= {} if self.draws is None else {"pairs": self.draws}
                found += [("noise", {"strength": a, **noise}) for a in self.strengths or STRENGTHS[scale]]
        return found

    def _constants(self) -> dict[str, dict[str, Any]]:
        draws = {} if self.draws is None else {"draws": self.draws}
        box = {"epsilon": self.epsilon, "manifold": self.manifold, "columns": self.columns, "start": self.start}
        return {
            "box": {**box, **(draws if self.manifold else {})},  # nothing is random in the full space
            "ball": {"radius": self.radius, "steps": self.ascent_steps},
            "adaptive": {"radius": self.adaptive_radius, "by": self.by, "steps": self.ascent_steps},
            "hessian": {"count": self.eigenvalues, "parameters": list(self.parameters)},
            "spectrum": {"parameters": list(self.parameters), **({} if self.draws is None else {"probes": self.draws})},
        }


@dataclass(frozen=True)
class Task:
    """One measure of one checkpoint.

    Attributes:
        place: Where the checkpoint is, and what to measure on.
        measure: Its name.
        options: Its arguments.
        digest, samples_digest: Of the subject, and of its samples alone.
        weights: Digest of the file with the weights.
    """

    place: Place
    measure: str
    options: dict[str, Any]
    digest: str
    samples_digest: str
    weights: str | None

    @property
    def call(self) -> str:
        """Measure and arguments, the same for every checkpoint; of the noise the scale comes first."""
        return call_of(self.measure, self.options)

    @property
    def key(self) -> str:
        """A hash of all that the number depends on: what the digest holds, measure, arguments and seed."""
        parts = [self.digest, self.place.splits, self.place.sampling.seed, self.call]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    @property
    def device(self) -> str:
        """Where to measure."""
        return self.place.device

    def elsewhere(self, device: str, _folder: Path) -> Self:
        """The same on another device."""
        return replace(self, place=replace(self.place, device=device))


def tasks(places: Sequence[Place], wanted: Wanted) -> list[Task]:
    """All measures of all checkpoints; each is loaded here first, so that what is wrong is told at once."""
    found = []
    for place in places:
        subject, weights = load(place), weights_digest(place.checkpoint)
        found += [
            Task(place, measure, options, subject.digest, subject.samples_digest, weights)
            for measure, options in wanted.calls()
        ]
    return found


def measure(task: Task) -> Measure:
    """Make one measure."""
    subject, [split] = load(task.place), task.place.splits
    unchanged(task.place.checkpoint, subject.digest, task.digest)
    options = dict(task.options)
    if "exclude_bn" in options:
        options["exclude"] = exclude_batch_norm if options.pop("exclude_bn") else exclude_nothing
    function = getattr(sharpness, task.measure)
    made: Measure = function(
        subject.network, subject.samples[split], subject.loss, seed=task.place.sampling.seed, **options
    )
    return made


class Kept:
    """The measures made so far, in ``sharpness.json``."""

    def __init__(self, folder: Path, command: str) -> None:
        self._command = command
        self.path = folder / "sharpness.json"
        self._rows: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            try:
                content = json.loads(self.path.read_text(encoding="utf-8"))
                self._rows = {row["key"]: row for row in content["measures"]}
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.path} cannot be read ({error}); expected what this command wrote. Move it away, or use "
                    f"another --name."
                ) from error

    def __contains__(self, task: Task) -> bool:
        return task.key in self._rows

    def add(self, task: Task, record: Measure) -> None:
        """Keep a measure, in the file, too."""
        self._rows[task.key] = {
            "key": task.key,
            "checkpoint": str(task.place.checkpoint),
            "weights": task.weights,
            "split": task.place.splits[0],
            "samples": task.place.sampling.samples,
            "device": task.place.device,
            "measure": task.measure,
            "options": task.options,
            "kind": type(record).__name__,
            "record": asdict(record),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {"schema": 1, "command": self._command, "measures": list(self._rows.values())})

    def measured(self, task: Task) -> Measure:
        """A measure that was made."""
        row = self._rows[task.key]
        return read_measure(row["kind"], row["record"])


def run_tasks(wanted: Sequence[Task], kept: Kept, jobs: int) -> Iterator[int]:
    """Make the measures that are missing, by all processes that were launched, or by so many jobs.

    Yields how many of the wanted ones there are, after each.
    """
    missing = [task for task in wanted if task not in kept]
    done = len(wanted) - len(missing)
    yield done
    for task, record in each(measure, missing, jobs):
        kept.add(task, record)
        done += 1
        yield done
