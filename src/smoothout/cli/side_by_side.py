"""Measures of checkpoints as tables and sentences, side by side."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from smoothout.results.compared import Compared, above, compare, ranked
from smoothout.results.sharpness import Measure, NoiseSharpness


def grouped(labels: dict[Path, str]) -> dict[str, list[Path]]:
    """Checkpoints under the names of their groups: runs ARM/SEED of one arm belong together."""
    groups: dict[str, list[Path]] = {}
    for path, name in labels.items():
        arm, _, seed = name.rpartition("/")
        groups.setdefault(arm if arm and seed.isdigit() else name, []).append(path)
    return {
        f"{name} ({len(members)} runs)" if len(members) > 1 else labels[members[0]]: members
        for name, members in groups.items()
    }


#: A call of a measure, and of each group the records of its checkpoints.
Found = dict[str, dict[str, list[Measure]]]


def report(found: Found, split: str) -> list[str | Table]:
    """Tables and sentences."""
    curves = {call: groups for call, groups in found.items() if call.startswith("noise")}
    rest = {call: groups for call, groups in found.items() if call not in curves}
    lines: list[str | Table] = [centers(found, split)]
    for scale in dict.fromkeys(call.split()[1] for call in curves):
        part = [groups for call, groups in curves.items() if call.split()[1] == scale]
        lines += [curve(part), *curve_words(part)]
    if rest:
        rows = [row for groups in rest.values() for row in rows_of(groups)]
        lines += [side_by_side(rows), *order_words(rows)]
    every = [(name, record) for groups in found.values() for name, records in groups.items() for record in records]
    single = all(len(records) == 1 for groups in found.values() for records in groups.values())
    details = [f"  {name}: {text}" for name, record in every for text in record.details if single]
    lines += ["How they were found:", *details] if details else []
    doubts = [f"  {name}: {text}" for name, record in every for number in record.numbers for text in number.doubts]
    return [*lines, *(["(!) marks a value that missed its tolerance:", *dict.fromkeys(doubts)] if doubts else [])]


def _first(groups: dict[str, list[Measure]]) -> Measure:
    return next(iter(groups.values()))[0]


def centers(found: Found, split: str) -> Table:
    """Where the measures were taken."""
    table = Table(title=f"at the weights themselves, {split} samples, evaluation mode; means of groups of runs")
    table.add_column("checkpoint")
    for column in ("samples", "weights", "loss (nats)", "error@1 (%)", "max |gradient|"):
        table.add_column(column, justify="right")
    for name, records in next(iter(found.values())).items():
        all_ = [record.center for record in records]
        mean = [sum(getattr(each, key) for each in all_) / len(all_) for key in ("loss", "error1", "max_gradient")]
        table.add_row(
            name, str(all_[0].samples), f"{all_[0].weights:,}", f"{mean[0]:.4g}", f"{mean[1]:.2f}", f"{mean[2]:.2g}"
        )
    return table


@dataclass(frozen=True)
class Row:
    """One number of every group."""

    title: str
    groups: dict[str, Compared]


def rows_of(groups: dict[str, list[Measure]]) -> list[Row]:
    """The numbers of one call of a measure."""
    titles = [number.name for number in _first(groups).numbers]
    return [
        Row(title, {name: compare([each.numbers[index] for each in records]) for name, records in groups.items()})
        for index, title in enumerate(titles)
    ]


def curve(part: Sequence[dict[str, list[Measure]]]) -> Table:
    """Rise of loss and error under noise against its strength."""
    first = _first(part[0])
    assert isinstance(first, NoiseSharpness)
    title = (
        f"noise, {first.distribution}, scale {first.scale}: mean rise of the loss (nats) +- standard error; "
        f"rise of the error in points; relative noise r"
    )
    rows = [Row(f"a = {strength:g}", cells) for strength, cells in _rises(part)]
    details = {
        (row.title, name): _detail(groups[name]) for row, groups in zip(rows, part, strict=True) for name in groups
    }
    return side_by_side(rows, title, details)


def _rises(part: Sequence[dict[str, list[Measure]]]) -> list[tuple[float, dict[str, Compared]]]:
    found = []
    for groups in part:
        first = _first(groups)
        assert isinstance(first, NoiseSharpness)
        found.append((first.strength, rows_of(groups)[0].groups))
    return found


def _detail(records: Sequence[Measure]) -> str:
    noisy = [record for record in records if isinstance(record, NoiseSharpness)]
    rise = sum(record.error1_rise for record in noisy) / len(noisy)
    return f"; {rise:+.2f}; {sum(record.relative_noise for record in noisy) / len(noisy):.2g}"


def side_by_side(
    rows: Sequence[Row], title: str = "measures", details: dict[tuple[str, str], str] | None = None
) -> Table:
    """A table with a column for each group, or a row for each where they are many."""
    names = list(rows[0].groups)
    cells = {
        (row.title, name): f"{row.groups[name]}{(details or {}).get((row.title, name), '')}"
        for row in rows
        for name in names
    }
    table = Table(title=title)
    many = len(names) > 4
    table.add_column("checkpoint" if many else "")
    for column in [row.title for row in rows] if many else names:
        table.add_column(column, justify="right")
    for line in names if many else [row.title for row in rows]:
        others = [row.title for row in rows] if many else names
        table.add_row(line, *(cells[(other, line) if many else (line, other)] for other in others))
    return table


def order_words(rows: Sequence[Row]) -> list[str]:
    """From the largest to the smallest by every number; nothing for a single group."""
    if len(rows[0].groups) < 2:
        return []
    head = "From the largest to the smallest; told apart where the 95 % interval of the difference leaves out 0:"
    return [head, *(f"  {row.title}: {'; '.join(ranked(row.groups))}" for row in rows)]


def curve_words(part: Sequence[dict[str, list[Measure]]]) -> list[str]:
    """The order at each strength, and which groups change places along the curve."""
    rises = _rises(part)
    lines = order_words([Row(f"a = {strength:g}", cells) for strength, cells in rises])
    for one, other in itertools.combinations(rises[0][1], 2):
        higher = [a for a, cells in rises if above(cells[one], cells[other])]
        lower = [a for a, cells in rises if above(cells[other], cells[one])]
        if higher and lower:
            lines.append(f"  reversal: {one} is above {other} at a = {_list(higher)}, below it at a = {_list(lower)}")
    return lines


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
