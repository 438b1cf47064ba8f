"""Claim 4: what the pairs of networks and data say, and the demo's accuracies and minima."""

import json
from pathlib import Path

import drawing
from provenance import RESULTS
from tables import signed

from claim import minima
from claim.runs import EXPERIMENTS, Record, paired, read, show

CLAIM = "Large batches lose accuracy and are sharper; the gap closes with smoothing at equal epochs."
HOW = (
    "Points of test accuracy over the large batch, paired by seed: of the pairs in experiments/pairs.py, where every "
    "arm was tuned, and of the demo (`make demo`), where none was. Sharpness of the demo's minima by the measures of "
    "`make sharpness`."
)
RATIO = "large batch / small batch"


def measure(jobs: int) -> Record:
    """Read what was measured."""
    del jobs
    files = {path.stem.removeprefix("pairs-"): json.loads(path.read_text()) for path in RESULTS.glob("pairs-*.json")}
    found = {name: {arm["arm"]: arm["runs"] for arm in files[name]["arms"]} for name in sorted(files)}
    rows = [{"pair": f"{name}, tuned", **gaps(arms, "SmoothOut", "AdaSmoothOut")} for name, arms in found.items()]
    plain = gaps(arms_of_demo(), "large batch + SmoothOut", "large batch + AdaSmoothOut")
    loses = [row["small batch"]["low"] > 0 for row in rows]
    closes = [max(row["SmoothOut"]["low"], row["AdaSmoothOut"]["low"]) > 0 for row in rows]
    sharp = minima.compared("large-batch", "small-batch")
    verdict = (
        f"large batches certainly lose on {sum(loses)} of {len(rows)} pairs when every arm is tuned, and noise "
        f"certainly brings something back on {sum(closes)}; on the demo, where none is tuned, "
        f"{plain['small batch']['mean']:.2f} points are lost and SmoothOut brings {plain['SmoothOut']['mean']:.2f} of "
        f"them back. The demo's large batch is certainly sharper than its small batch by {minima.counted(sharp, 1)} of "
        f"{len(sharp)} measures, certainly flatter by {minima.counted(sharp, -1)}"
    )
    return {"rows": [*rows, {"pair": "demo, not tuned", **plain}], "measures": sharp, "verdict": verdict}


def gaps(arms: dict[str, list[dict]], plain: str, by_filter: str) -> Record:
    """What the small batch and both kinds of noise have over the large batch."""
    names = {"small batch": "small batch", "SmoothOut": plain, "AdaSmoothOut": by_filter}
    return {name: show(paired(arms[arm], arms["large batch"])) for name, arm in names.items()}


def arms_of_demo() -> dict[str, list[dict]]:
    """The demo's runs, by arm."""
    found: dict[str, list[dict]] = {}
    for run in json.loads((EXPERIMENTS / "demo" / "results.json").read_text()):
        found.setdefault(run["arm"], []).append(run)
    return found


def page(record: Record) -> list[str]:
    """Gaps, then measures."""
    names = ("small batch", "SmoothOut", "AdaSmoothOut")
    lines = [f"| points over the large batch | {' | '.join(names)} |", "|---|---|---|---|"]
    for row in record["rows"]:
        lines.append(f"| {row['pair']} | {' | '.join(signed(read(row[name])) for name in names)} |")
    return [*lines, "", *minima.table(record["measures"], RATIO)]


def draw(record: Record) -> Path:
    """Gaps by pair."""
    gains = {
        f"{row['pair']}: {name}": read(row[name])
        for row in record["rows"]
        for name in ("small batch", "SmoothOut", "AdaSmoothOut")
    }
    return drawing.draw_gains("claim-4", gains, "points over the large batch (95 % interval)")
