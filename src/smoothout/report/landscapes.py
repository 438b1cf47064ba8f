"""Lines and planes of the runs of a report."""

import math
from collections.abc import Iterator, Sequence

from smoothout.report.arms import ArmFound
from smoothout.report.record import LineShown, MarkShown, PlaneShown, number
from smoothout.report.sources import Found, place
from smoothout.results.landscape import Line, MeasuredLandscape, Plane


def show(arms: Sequence[ArmFound], found: Found) -> tuple[tuple[LineShown, ...], tuple[PlaneShown, ...]]:
    """Lines and planes of the arms; what belongs to no run of the report is named as left out."""
    lines: list[LineShown] = []
    planes: list[tuple[int, PlaneShown]] = []
    for order, measured, title in _placed(arms, found):
        for split, record in measured.records.items():
            if isinstance(record, Line):
                lines.append(line(title, split, record))
            else:
                planes.append((order, plane(title, split, record)))
    planes.sort(key=lambda each: each[0])
    return tuple(lines), tuple(shown for _, shown in planes)


def _placed(arms: Sequence[ArmFound], found: Found) -> Iterator[tuple[int, MeasuredLandscape, str]]:
    """Landscapes whose first checkpoint is one of the arms', with that arm's place and their titles."""
    places = {run.path: index for index, arm in enumerate(arms) for run in arm.runs}
    names = {run.path: arm.name for arm in arms for run in arm.runs}
    for measured in found.landscapes:
        digests = measured.weights or (None,) * len(measured.checkpoints)
        ends = [place(found, path, digest) for path, digest in zip(measured.checkpoints, digests, strict=True)]
        runs = [end[0] for end in ends if not isinstance(end, str)]
        if len(runs) < len(ends):
            wrong = "; ".join(end for end in ends if isinstance(end, str))
            found.leave_out(f"{measured.folder} is left out: {wrong}.")
        elif runs[0].path in names:
            title = " to ".join(f"{names.get(run.path, run.path.name)}, seed {run.seed}" for run in runs)
            yield places[runs[0].path], measured, title


def line(title: str, split: str, record: Line) -> LineShown:
    """A line as pages and figures show it."""
    return LineShown(
        title=title,
        split=split,
        axis=f"{record.axes}; 1 is {record.lengths[0]:.3g} in weight space",
        positions=record.positions,
        losses=tuple(map(number, record.losses)),
        accuracies=tuple(number(100 - error) for error in record.errors1),
        marks=_marks(record, (1.0,)),
        notes=_notes(record),
        wild=tuple(
            at
            for at, loss, finished in zip(record.positions, record.losses, record.finished, strict=True)
            if finished and not math.isfinite(loss)
        ),
    )


def plane(title: str, split: str, record: Plane) -> PlaneShown:
    """A plane as pages and figures show it."""
    across, up = record.lengths
    return PlaneShown(
        title=title,
        split=split,
        axes=(f"along axis 1 ({record.axes})", "along axis 2"),
        xs=tuple(x * across for x in record.xs),
        ys=tuple(y * up for y in record.ys),
        losses=tuple(tuple(map(number, row)) for row in record.losses),
        marks=_marks(record, record.lengths),
        notes=_notes(record),
    )


def _marks(record: Line | Plane, lengths: tuple[float, ...]) -> tuple[MarkShown, ...]:
    return tuple(
        MarkShown(
            mark.name,
            tuple(at * length for at, length in zip(mark.coordinates, lengths, strict=True)),
            number(mark.loss),
        )
        for mark in record.marks
    )


def _notes(record: Line | Plane) -> tuple[str, ...]:
    facts = f"BatchNorm: {record.bn}; {record.samples:,} samples; {record.weights:,} weights"
    if isinstance(record, Line) and not math.isnan(record.barrier):
        facts += f"; barrier {record.barrier:.3g}"
    return (facts, *record.doubts)
