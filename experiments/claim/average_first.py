"""Claim 8: which measures call SmoothOut's minima flatter."""

from pathlib import Path

from claim import minima
from claim.runs import Record

CLAIM = "SmoothOut's minima are flatter by average measures first; Keskar's worst case moves less."
HOW = (
    "The demo's minima of the large batch without and with SmoothOut (a = 0.03), five seeds, by the measures of `make "
    "sharpness`. Average measures are the rises under noise, worst cases Keskar's box and the two balls."
)
RATIO = "SmoothOut / large batch"
WORST = ("Keskar's box", "ball", "adaptive ball")


def measure(jobs: int) -> Record:
    """Read what was measured."""
    del jobs
    rows = minima.compared("large-batch-smoothout", "large-batch")
    average = [row for row in rows if row["measure"].startswith("noise")]
    worst = [row for row in rows if row["measure"] in WORST]
    [box] = [row for row in rows if row["measure"] == "Keskar's box"]
    flattest = min(average, key=lambda row: row["ratio"])
    verdict = (
        f"SmoothOut is certainly flatter than the large batch by {minima.counted(average, -1)} of {len(average)} "
        f"average measures, certainly sharper by {minima.counted(average, 1)}; certainly flatter by "
        f"{minima.counted(worst, -1)} of {len(worst)} worst cases, certainly sharper by {minima.counted(worst, 1)}. "
        f"The rise under noise falls to {flattest['ratio']:.2f} of the large batch's where it falls most "
        f"({flattest['measure']}), Keskar's box to {box['ratio']:.2f}, which is "
        f"{'' if minima.counted([box], -1) else 'not '}certain"
    )
    return {"measures": rows, "verdict": verdict}


def page(record: Record) -> list[str]:
    """All measures."""
    return minima.table(record["measures"], RATIO)


def draw(record: Record) -> Path:
    """Ratios."""
    return minima.draw(record["measures"], RATIO, "claim-8")
