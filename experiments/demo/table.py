"""Print the demo's table in Markdown, as README.md shows it.

    python experiments/demo/table.py [runs/demo/results.json]

By default from the results kept beside this file, which `make demo` made.
"""

import json
import sys
from pathlib import Path

from smoothout.cli.compare import read_arms
from smoothout.results.runs import RunResult
from smoothout.train.comparison import Outcome, summarise

HERE = Path(__file__).parent


def table(results: Path) -> str:
    """Mean +- 95 % interval over seeds, and paired differences."""
    arms, _ = read_arms(HERE / "arms.toml")
    outcomes = [Outcome(row.pop("arm"), row["seed"], RunResult(**row), None) for row in json.loads(results.read_text())]
    lines = ["| arm | test accuracy, last epoch | difference, paired | against |", "|---|---|---|---|"]
    for each in summarise(arms, outcomes):
        difference = each.difference_last
        shown = (
            "" if difference is None else f"{difference.mean:+.2f} ({difference.low:+.2f} to {difference.high:+.2f})"
        )
        lines.append(f"| {each.arm} | {each.test_last} | {shown} | {each.against or ''} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results.json"))
