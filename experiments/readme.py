"""The part of README.md that says what came out of the pairs, between two marks; words follow the numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from paired import compared, difference
from pairs import REFERENCE
from tables import signed

from smoothout.intervals import Estimate

PATH = Path(__file__).parents[1] / "README.md"
FROM, TO = "<!-- written by experiments/page.py -->\n", "<!-- up to here -->\n"
#: What a column shows the gain of, over the tuned large batch.
COLUMNS: dict[str, Callable[[Any], str | None]] = {
    "noise of fixed strength": lambda record: compared(record)[0],
    "`auto`": lambda _: "auto",
    "one-pass rival, by hold-out": lambda record: compared(record)[1],
    "SAM or ASAM, equal passes": lambda record: compared(record)[2],
    "small batch": lambda _: "small batch",
    "regime adaptation": lambda _: "large batch, regime adaptation",
}
SUBJECTS = {
    "noise of fixed strength": "Noise, plain or by filter, of the strength that the hold-out chose",
    "one-pass rival, by hold-out": "The rival of one pass that the hold-out chose",
    "SAM or ASAM, equal passes": "SAM or ASAM, whose two passes leave half of the updates",
    "regime adaptation": "As many updates as the small batch makes, at many times the passes",
}
NAMED = ("noise of fixed strength", "one-pass rival, by hold-out")  # columns whose arm differs between pairs


def write(pairs: dict[str, Any], more: list[str]) -> None:
    """Put the part in place of the one that is there."""
    before, rest = PATH.read_text(encoding="utf-8").split(FROM)
    _, after = rest.split(TO)
    PATH.write_text(f"{before}{FROM}{part(pairs, more)}{TO}{after}", encoding="utf-8")


def part(pairs: dict[str, Any], more: list[str]) -> str:
    """Sentences, further ones, and a table."""
    gains = {
        column: {name: gain(record, arm) for name, record in pairs.items() if (arm := of(record))}
        for column, of in COLUMNS.items()
    }
    found = {column: [each for each in row.values() if each] for column, row in gains.items()}
    lines = [
        *(f"- {subject}: {counted(found[column])}." for column, subject in SUBJECTS.items()),
        *(f"- {sentence}" for sentence in more),
        "",
        f"| points over the tuned large batch | {' | '.join(COLUMNS)} |",
        f"|---|{'---|' * len(COLUMNS)}",
    ]
    for name, record in pairs.items():
        cells = [cell(record, column, gains[column].get(name)) for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def gain(record: Any, arm: str) -> Estimate | None:
    """Of an arm over the large batch; None if it was not run."""
    return difference(record, arm, REFERENCE) if any(each["arm"] == arm for each in record["arms"]) else None


def cell(record: Any, column: str, found: Estimate | None) -> str:
    """A difference, bold where it is certain."""
    if found is None:
        return "not run"
    name = f"{COLUMNS[column](record)} " if column in NAMED else ""
    return f"{name}{f'**{signed(found)}**' if found.certain else signed(found)}"


def counted(found: list[Estimate]) -> str:
    """On how many pairs an arm was certainly better or worse."""
    better, worse = (sum(each.certain and sign * each.mean > 0 for each in found) for sign in (1, -1))
    if not better and not worse:
        return f"certainly different on none of {len(found)}"
    return f"certainly better on {better} of {len(found)}, certainly worse on {worse}"
