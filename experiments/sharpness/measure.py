"""The sharpness of the demo's minima: four arms, five seeds, all measures.

    make demo && make sharpness

Runs ``smoothout sharpness`` on the runs of the demo, prints what it prints, and keeps the numbers (without the curves'
constants) in experiments/sharpness/results.json.
"""

import json
import sys
from pathlib import Path

from smoothout.cli.main import main
from smoothout.cli.side_by_side import grouped
from smoothout.measuring.subject import label

HERE = Path(__file__).parent
DEMO = HERE.parents[1] / "runs" / "demo"
ARMS = ("small-batch", "large-batch", "large-batch-smoothout", "large-batch-adasmoothout")
SEEDS = range(5)


def collect() -> int:
    """Measure, and write the numbers of every run."""
    paths = [DEMO / arm / str(seed) for arm in ARMS for seed in SEEDS]
    missing = [path for path in paths if not (path / "result.json").is_file()]
    if missing:
        print(f"{missing[0]} is not there; run `make demo` first.", file=sys.stderr)
        return 2
    folder = HERE.parents[1] / "runs"
    measures = "noise,box,ball,adaptive,hessian"  # the spectrum takes as long as all of these together
    words = [
        *map(str, paths),
        "--measures",
        measures,
        "--jobs",
        "2",
        "--name",
        "demo-sharpness",
        "--results-dir",
        str(folder),
    ]
    status = main(["sharpness", *words])
    if status:
        return status
    arms = {path: name for name, members in grouped({p: label(p, paths) for p in paths}).items() for path in members}
    rows = [
        {
            "arm": arms[Path(row["checkpoint"])].split(" (")[0],
            "seed": int(Path(row["checkpoint"]).name),
            "measure": row["measure"],
            "options": row["options"],
            **{
                name: value
                for name, value in row["record"].items()
                if isinstance(value, int | float) and name not in ("seed", "seconds")
            },
            "doubts": row["record"]["doubts"],
            "loss": row["record"]["center"]["loss"],
            "error1": row["record"]["center"]["error1"],
        }
        for row in json.loads((folder / "demo-sharpness" / "sharpness.json").read_text())["measures"]
        if Path(row["checkpoint"]) in arms
    ]
    rows.sort(key=lambda row: (row["measure"], json.dumps(row["options"]), row["arm"], row["seed"]))
    first = json.loads((folder / "demo-sharpness" / "sharpness.json").read_text())["measures"][0]["record"]["center"]
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    text = f'{{"versions": {json.dumps(first["versions"])}, "samples": {first["samples"]}, "rows": [\n  {lines}\n]}}\n'
    (HERE / "results.json").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(collect())
