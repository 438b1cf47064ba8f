"""What the demo's runs look like: sharpness and a plane of the first seed of the plain arms, and the page of it all.

    python experiments/demo/look.py          # make demo runs it: under a minute
    python experiments/demo/look.py --all    # make figures: all arms and seeds, lines between them, figures for a paper

Everything lands in runs/demo, where ``smoothout report runs/demo`` finds it.
"""

import sys
from pathlib import Path

from smoothout.cli.main import main
from smoothout.results.comparisons import read_comparison

DEMO = Path("runs") / "demo"
PLAIN = ("small batch", "large batch", "large batch + SmoothOut", "large batch + AdaSmoothOut")
#: About the noise that the arms trained with, 0.03, and below; by filter SmoothOut's own scale says little.
NOISE = ["--scale", "none", "--strengths", "0.003", "0.01", "0.02", "0.03", "0.05"]


def look(everything: bool) -> int:
    """Measure what is not measured yet, and write the page; returns the exit status."""
    comparison = read_comparison(DEMO)
    arms = list(comparison.arms) if everything else list(PLAIN)
    seeds = comparison.seeds if everything else comparison.seeds[:1]
    runs = [DEMO / comparison.folder(arm, seed) for arm in arms for seed in seeds]
    first = {arm: DEMO / comparison.folder(arm, comparison.seeds[0]) for arm in arms}
    commands = [_sharpness(runs), *(_plane(run) for run in first.values())]
    if everything:
        commands += [_line(first["large batch"], run) for arm, run in first.items() if arm != "large batch"]
    commands += [["report", str(DEMO)]]
    if everything:
        commands += [["report", str(DEMO), "--format", "pdf,png,svg"]]
    for command in commands:  # one after another in one process: starting one takes as long as most of them
        if status := main(command):
            return status
    return 0


def _sharpness(runs: list[Path]) -> list[str]:
    where = ["--name", "sharpness", "--results-dir", str(DEMO), "--jobs", "2"]
    return ["sharpness", *map(str, runs), "--measures", "noise,ball,box,hessian", *NOISE, *where]


def _plane(run: Path) -> list[str]:
    where = ["--name", f"plane-{run.parent.name}", "--results-dir", str(DEMO)]
    return ["landscape", str(run), "--plane", "21x21", "--splits", "train", *where]


def _line(run: Path, to: Path) -> list[str]:
    where = ["--name", f"line-{to.parent.name}", "--results-dir", str(DEMO)]
    return ["landscape", str(run), "--to", str(to), "--splits", "train", "test", *where]


if __name__ == "__main__":
    sys.exit(look("--all" in sys.argv[1:]))
