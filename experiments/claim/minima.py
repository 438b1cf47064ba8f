"""Sharpness of the demo's minima (experiments/sharpness), one arm beside another."""

import json
from pathlib import Path
from typing import Any

import drawing

from claim.runs import EXPERIMENTS, Record, read, show
from smoothout.intervals import mean_interval
from smoothout.report.paper.figures import COLOURS, make_figure

RESULTS = EXPERIMENTS / "sharpness" / "results.json"


def compared(arm: str, other: str) -> list[Record]:
    """By measure: mean of one arm over that of the other, and the difference paired by seed."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in json.loads(RESULTS.read_text())["rows"]:
        name = label(row["measure"], row["options"])
        found.setdefault(name, {}).setdefault(row["arm"], {})[row["seed"]] = row["value"]
    rows = []
    for name, values in found.items():
        mine, theirs = values[arm], values[other]
        difference = mean_interval([mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())])
        rows.append(
            {"measure": name, "ratio": sum(mine.values()) / sum(theirs.values()), "difference": show(difference)}
        )
    return rows


def label(measure: str, options: dict[str, Any]) -> str:
    """A measure and what of its options tells it from others, in words."""
    if measure == "noise":
        return f"noise, {options['scale']}, a = {options['strength']:g}"
    return {"box": "Keskar's box", "hessian": "largest eigenvalue", "adaptive": "adaptive ball"}.get(measure, measure)


def counted(rows: list[Record], sign: int) -> int:
    """How many differences are certain, and of this sign."""
    found = [read(row["difference"]) for row in rows]
    return sum(each.certain and sign * each.mean > 0 for each in found)


def table(rows: list[Record], ratio: str) -> list[str]:
    """All measures."""
    lines = [f"| measure | {ratio} | difference, paired by seed |", "|---|---|---|"]
    for row in rows:
        found = read(row["difference"])
        shown = f"{found.mean:+.3g} ({found.low:+.3g} to {found.high:+.3g})"
        lines.append(f"| {row['measure']} | {row['ratio']:.2f} | {f'**{shown}**' if found.certain else shown} |")
    return [*lines, "", "Bold: the interval leaves out 0.", ""]


def draw(rows: list[Record], ratio: str, name: str) -> Path:
    """Ratios on a log axis; full marks where the difference is certain."""
    figure = make_figure(7, 0.27 * len(rows) + 0.9)
    axes = figure.subplots()
    for place, row in enumerate(reversed(rows)):
        certain = read(row["difference"]).certain
        axes.plot(row["ratio"], place, "o", color=COLOURS[4], markerfacecolor=COLOURS[4] if certain else "white")
    axes.axvline(1, color=COLOURS[0], linewidth=0.8)
    axes.set(xscale="log", xlabel=f"{ratio} (hollow: not certain)", yticks=range(len(rows)))
    axes.set_yticklabels([row["measure"] for row in reversed(rows)], fontsize=8)
    axes.grid(alpha=0.3)
    return drawing.write(figure, name)
