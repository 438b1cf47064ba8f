"""Claim 6: noise by filter against plain noise of the same mean r."""

from pathlib import Path

import drawing
from tables import signed

from claim.runs import SETTING, Record, paired, read, show, trained

CLAIM = "Filter-wise noise beats plain noise at matched mean r."
HOW = (
    f"{SETTING} Plain noise first; the strength by filter is the mean relative noise r that those runs had over their "
    "epochs."
)


def measure(jobs: int) -> Record:
    """Train with plain noise, then by filter at its r."""
    rows = []
    for a in (0.01, 0.02, 0.03):
        plain = trained(f"plain-{a:g}", {"plain": {"strength": a}}, jobs)["plain"]
        r = sum(run["r"] for run in plain) / len(plain)
        matched = float(f"{r:.3g}")
        filtered = trained(f"filter-{a:g}", {"filter": {"strength": matched, "scale": "filter"}}, jobs)["filter"]
        rows.append({"a": a, "mean r": r, "filter - plain": show(paired(filtered, plain))})
    certain = [row for row in rows if row["filter - plain"]["low"] > 0]
    worse = [row for row in rows if row["filter - plain"]["high"] < 0]
    verdict = f"certainly better at {len(certain)} of {len(rows)} strengths, certainly worse at {len(worse)}"
    return {"rows": rows, "verdict": verdict}


def page(record: Record) -> list[str]:
    """Differences."""
    lines = ["| a, plain | mean r | filter - plain |", "|---|---|---|"]
    return lines + [
        f"| {row['a']:g} | {row['mean r']:.3f} | {signed(read(row['filter - plain']))} |" for row in record["rows"]
    ]


def draw(record: Record) -> Path:
    """Differences."""
    gains = {f"r = {row['mean r']:.3f}": read(row["filter - plain"]) for row in record["rows"]}
    return drawing.draw_gains("claim-6", gains, "points, filter over plain (95 % interval)")
