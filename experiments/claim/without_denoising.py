"""Claim 7: training with the weights restored, and with the noise left in them."""

from pathlib import Path

import drawing
from tables import signed

from claim.runs import SETTING, Record, paired, read, show, trained

CLAIM = "Without de-noising the weights drift and accuracy suffers at equal a."
HOW = f"{SETTING} The distance is that of all weights from their start, after the last epoch."
KINDS = ("restored", "not restored")


def measure(jobs: int) -> Record:
    """Train both ways at each strength."""
    rows = []
    for a in (0.002, 0.01, 0.03):
        arms = {"restored": {"strength": a}, "not restored": {"strength": a, "denoise": False}}
        found = trained(f"denoise-{a:g}", arms, jobs)
        distance = {arm: sum(run["distance"] for run in runs) / len(runs) for arm, runs in found.items()}
        difference = paired(found["not restored"], found["restored"])
        rows.append({"a": a, "distance from the start": distance, "not restored - restored": show(difference)})
    worse = [row["a"] for row in rows if row["not restored - restored"]["high"] < 0]
    distances = [row["distance from the start"] for row in rows]
    drifts = all(each["not restored"] > each["restored"] for each in distances)
    verdict = (
        f"the weights {'drift' if drifts else 'do not always drift'}; accuracy certainly suffers at a = "
        f"{', '.join(map(str, worse)) or 'none'}"
    )
    return {"rows": rows, "verdict": verdict}


def page(record: Record) -> list[str]:
    """Distances and differences."""
    lines = ["| a | distance, restored | distance, not restored | not restored - restored |", "|---|---|---|---|"]
    for row in record["rows"]:
        distance = [f"{row['distance from the start'][kind]:.1f}" for kind in KINDS]
        lines.append(f"| {row['a']:g} | {' | '.join(distance)} | {signed(read(row['not restored - restored']))} |")
    return lines


def draw(record: Record) -> Path:
    """Differences."""
    gains = {f"a = {row['a']:g}": read(row["not restored - restored"]) for row in record["rows"]}
    return drawing.draw_gains("claim-7", gains, "points, not restored over restored (95 % interval)")
