"""Claim 5: accuracy on training and test samples against strength."""

from pathlib import Path

import drawing

from claim.runs import SETTING, Record, paired, read, show, trained
from smoothout.intervals import mean_interval

CLAIM = "Accuracy against strength is an inverted U; training error rises first."
HOW = (
    f"{SETTING} Plain noise at nine strengths. The best of them is named by the test samples here, since the shape is "
    "what is asked for."
)
STRENGTHS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08)


def measure(jobs: int) -> Record:
    """Train at each strength."""
    found = trained("strengths", {f"a = {a:g}": {"strength": a} for a in STRENGTHS}, jobs)
    test = [show(mean_interval([run["test_accuracy_last"] for run in found[f"a = {a:g}"]])) for a in STRENGTHS]
    train = [show(mean_interval([run["train_accuracy_last"] for run in found[f"a = {a:g}"]])) for a in STRENGTHS]
    top = max(range(len(STRENGTHS)), key=lambda k: test[k]["mean"])
    rises, falls = (
        paired(found[f"a = {STRENGTHS[top]:g}"], found[f"a = {a:g}"]) for a in (STRENGTHS[0], STRENGTHS[-1])
    )
    before = train[top]["mean"] < train[0]["mean"] - 0.5
    verdict = (
        f"{'an' if rises.low > 0 and falls.low > 0 else 'no certain'} inverted U: best at a = {STRENGTHS[top]:g}, "
        f"{rises} points over none, {falls} over a = {STRENGTHS[-1]:g}; at the best strength training accuracy "
        f"{'has fallen' if before else 'has not fallen'} ({train[0]['mean']:.2f} to {train[top]['mean']:.2f} %)"
    )
    return {"strengths": STRENGTHS, "test": test, "train": train, "verdict": verdict}


def page(record: Record) -> list[str]:
    """Both accuracies."""
    lines = ["| a | test accuracy | training accuracy |", "|---|---|---|"]
    for a, test, train in zip(record["strengths"], record["test"], record["train"], strict=True):
        lines.append(f"| {a:g} | {read(test)} | {read(train)} |")
    return lines


def draw(record: Record) -> Path:
    """The inverted U."""
    curves = {name: [read(each) for each in record[name]] for name in ("train", "test")}
    return drawing.draw_strengths("claim-5", record["strengths"], curves)
