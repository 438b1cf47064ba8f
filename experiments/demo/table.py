"""Print the demo's table in Markdown, as README.md shows it.

    python experiments/demo/table.py [runs/demo/results.json]

By default from the results kept beside this file, which `make demo` made.
"""

import json
import sys
from pathlib import Path

from smoothout.cli.compare import read_arms
from smoothout.results.comparisons import summarise
from smoothout.results.runs import RunResult

HERE = Path(__file__).parent


def table(results: Path) -> str:
    """Mean +- 95 % interval over seeds, and paired differences."""
    arms, _ = read_arms(HERE / "arms.toml")
    finished: dict[str, dict[int, RunResult]] = {}
    for row in json.loads(results.read_text()):
        runs = finished.setdefault(row.pop("arm"), {})
        runs[row["seed"]] = RunResult(**row)
    lines = ["| arm | test accuracy, last epoch | difference, paired | against |", "|---|---|---|---|"]
    for each in summarise({arm.name: arm.against for arm in arms}, finished):
        difference = each.difference_last
        shown = (
            "" if difference is None else f"{difference.mean:+.2f} ({difference.low:+.2f} to {difference.high:+.2f})"
        )
        lines.append(f"| {each.arm} | {each.test_last} | {shown} | {each.against or ''} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results.json"))
