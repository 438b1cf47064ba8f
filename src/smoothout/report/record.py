"""What a report shows, as plain values: the JSON block in its page.

Whatever is not a finite number is None, which JSON writes as ``null``.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: Version of the block; it changes whenever a field changes its name or meaning.
SCHEMA = 1


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval.

    Attributes:
        mean: None for no value at all.
        low, high: Ends of the interval; None for fewer than two values.
        count: Number of values.
    """

    mean: float | None
    low: float | None
    high: float | None
    count: int

    @property
    def certain(self) -> bool:
        """Whether three values or more leave out 0."""
        return self.low is not None and self.high is not None and self.count >= 3 and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class RunShown:
    """One run of an arm.

    Attributes:
        seed: Of the run.
        path: Of its folder, as it was named.
        state: finished, running, failed, interrupted, vanished or unknown.
        note: What the state means here, in words; empty for a finished run.
        epochs: Finished ones.
        planned: Epochs that it was started for; None if that is not known.
        columns: Of ``metrics.csv``, by name, an entry for each finished epoch.
    """

    seed: int
    path: str
    state: str
    note: str
    epochs: int
    planned: int | None
    columns: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class ArmShown:
    """Runs that differ in their seed alone.

    Attributes:
        name: Of the arm.
        against: The arm that it is compared with, None if with none.
        settings: By which the arms of its group differ.
        command: What trains its first run again.
        runs: By seed.
        test, holdout, train: Accuracy after the last epoch of finished runs, percent.
        test_best: Test accuracy after the epoch with the best hold-out accuracy, percent.
        difference, difference_best: To ``against``, paired by seed, points; None if it is against none.
        updates: Optimizer steps of a run; None without a finished one.
        passes: Forward and backward passes over each training sample, in all epochs.
        seconds: Wall time of a run.
        times: Wall time as a multiple of that of ``against``, paired by seed, geometric mean; None if it is against
            none.
    """

    name: str
    against: str | None
    settings: Mapping[str, str]
    command: str
    runs: tuple[RunShown, ...]
    test: Interval
    test_best: Interval
    holdout: Interval
    train: Interval
    difference: Interval | None
    difference_best: Interval | None
    updates: int | None
    passes: float | None
    seconds: Interval
    times: Interval | None


@dataclass(frozen=True)
class Value:
    """A measure of an arm's minima.

    Attributes:
        arm: Its name.
        value: Mean over the seeds that were measured; None if it is not finite.
        error: Standard error: over seeds, for one seed the measure's own; None where none is known.
        low, high: Ends of the 95 % interval; None where no error is known.
        seeds: That were measured.
        doubts: Why not to trust it, in words.
    """

    arm: str
    value: float | None
    error: float | None
    low: float | None
    high: float | None
    seeds: tuple[int, ...]
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """How sharp an arm's minima are, against those of the arm that it is compared with.

    Attributes:
        arm, against: Their names.
        sharper: True or False where the 95 % interval of the difference leaves out 0, None where it does not or is not
            known.
        difference: Of the values.
        low, high: Of the difference; None where no error is known.
        words: The same in words.
    """

    arm: str
    against: str
    sharper: bool | None
    difference: float | None
    low: float | None
    high: float | None
    words: str


@dataclass(frozen=True)
class MeasureShown:
    """One number of every arm, side by side.

    Attributes:
        name: With its constants and its unit.
        kind: "average" (over noise, or the trace), "worst" (box, ball, adaptive), "curvature" (the largest
            eigenvalue), or "other", which says nothing of flatter or sharper.
        strength: Of noise; None for other measures.
        curve: Name of the curve that it is a point of; None for other measures than noise.
        split: Samples that it was measured on.
        values: By arm.
        verdicts: Of arms against those that they are compared with.
    """

    name: str
    kind: str
    strength: float | None
    curve: str | None
    split: str
    values: tuple[Value, ...]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class MarkShown:
    """A known point of a landscape."""

    name: str
    coordinates: tuple[float, ...]
    loss: float | None


@dataclass(frozen=True)
class LineShown:
    """The loss along a line.

    Attributes:
        title: Which line, in words.
        split: Samples that it was measured on.
        axis: What the positions count along.
        positions, losses, accuracies: Of the points; accuracies in percent.
        marks: Known points.
        notes: What to know before believing it.
        wild: Positions of points that are measured and whose loss is not finite.
    """

    title: str
    split: str
    axis: str
    positions: tuple[float, ...]
    losses: tuple[float | None, ...]
    accuracies: tuple[float | None, ...]
    marks: tuple[MarkShown, ...]
    notes: tuple[str, ...]
    wild: tuple[float, ...] = ()


@dataclass(frozen=True)
class PlaneShown:
    """The loss over a plane; row iy, column ix is the point (xs[ix], ys[iy]).

    Attributes:
        title, split, marks, notes: As of a line.
        axes: What the coordinates count along.
        xs, ys: Distances in weight space.
        losses: Rows of the loss.
    """

    title: str
    split: str
    axes: tuple[str, str]
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    losses: tuple[tuple[float | None, ...], ...]
    marks: tuple[MarkShown, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """How a folder came about.

    Attributes:
        path: Of the folder, as it was named.
        command: What makes it again.
        commit: Of the working directory; None if it was in no repository.
        machine, versions: That made it.
        started, ended: UTC; None where it is not known.
    """

    path: str
    command: str
    commit: str | None
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    started: str | None
    ended: str | None


@dataclass(frozen=True)
class Sentence:
    """A sentence of the summary.

    Attributes:
        kind: "accuracy", "sharpness", "cost" or "warning".
        text: Its words.
        details: What it rests on, number by number.
    """

    kind: str
    text: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Runs of one model on one data set; only they are ever compared.

    Attributes:
        title: Model and data.
        settings: That all its arms share, by name.
        arms: In the order that they were named in.
        measures: Of sharpness.
        lines, planes: Landscapes.
        origins: Where all of it comes from.
        summary: In plain language, made from the numbers.
    """

    title: str
    settings: Mapping[str, str]
    arms: tuple[ArmShown, ...]
    measures: tuple[MeasureShown, ...]
    lines: tuple[LineShown, ...]
    planes: tuple[PlaneShown, ...]
    origins: tuple[Origin, ...]
    summary: tuple[Sentence, ...]


@dataclass(frozen=True)
class Report:
    """All that a page shows.

    Attributes:
        made: When, ISO 8601, UTC.
        version: Of smoothout.
        command: What makes the page again.
        groups: One for each model and data set.
        left_out: What was found and is not shown, and why.
        schema: Version of this record.
    """

    made: str
    version: str
    command: str
    groups: tuple[Group, ...]
    left_out: tuple[str, ...]
    schema: int = SCHEMA


def to_json(report: Report) -> str:
    """The block, without blanks; numbers to six digits.

    Example:
        >>> to_json(Report("2026-01-01T00:00:00Z", "1.0", "smoothout report a", (), ()))[-37:]
        '"groups":[],"left_out":[],"schema":1}'
    """
    return json.dumps(_plain(asdict(report)), separators=(",", ":"), allow_nan=False)


def number(value: float) -> float | None:
    """A number, or None in place of what JSON has no word for."""
    return value if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """Short numbers, and None in place of those that are not finite."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
