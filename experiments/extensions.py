"""Extensions of the method: which of them add something to plain noise at the same number of updates.

    python experiments/extensions.py [--jobs 2] [--minutes 120]

The MLP on MNIST-1D, batch 1000, at settings that nobody tuned and where noise helps: a = 0.03, or 0.2 by filter. Each
extension is paired by seed with the plain noise that it changes. Where it may want another strength, several are tried
and one is chosen by hold-out accuracy; the plain noise gets as many. Finished runs are kept.
Writes experiments/results/extensions.json.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import command
from provenance import write
from variants import Variant, antithetic, run_variants, statistics_of_the_first

from smoothout.intervals import Estimate, mean_interval

SEEDS = tuple(range(500, 508))
COMMON = {"dataset": "mnist1d", "batch_size": 1000, "ghost_batch_size": 100, "epochs": 60, "evaluate_every": 60}
PLAIN = (0.02, 0.03, 0.045)
FILTER = (0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Extension:
    """Candidates, of which hold-out accuracy chooses, against others chosen in the same way.

    Attributes:
        name: Of the extension.
        candidates: It, at several strengths.
        base: What it is compared with, at several strengths.
        passes: Forward and backward passes over the samples, relative to the base.
        accuracy: Which accuracy of a run counts: "last", or "recomputed" BatchNorm statistics.
    """

    name: str
    candidates: tuple[Variant, ...]
    base: tuple[Variant, ...]
    passes: float = 1.0
    accuracy: str = "last"


def of_strengths(name: str, strengths: tuple[float, ...], change: Any = None, **options: Any) -> tuple[Variant, ...]:
    """A variant of each strength."""
    return tuple(Variant(f"{name}, {a:g}", {"strength": a, **options}, change) for a in strengths)


def extensions() -> list[Extension]:
    """All of them."""
    plain = of_strengths("plain", PLAIN)
    by_filter = of_strengths("by filter", FILTER, scale="filter")
    two = of_strengths("two draws", PLAIN, copies=2)
    pairs = of_strengths("antithetic pair", PLAIN, antithetic, copies=2)
    clean = of_strengths("first ghost batch clean", PLAIN, clean_share=0.1)
    return [
        Extension("two draws per ghost batch, over one", two, plain, passes=2),
        Extension("antithetic pair, over two draws", pairs, two),
        Extension(
            "half of the ghost batches clean", of_strengths("half clean", (0.03, 0.045, 0.06), clean_share=0.5), plain
        ),
        Extension("first ghost batch clean", clean, plain),
        Extension("schedule tanh", of_strengths("tanh", (0.03, 0.045, 0.06), noise_schedule="tanh"), plain),
        Extension("schedule anneal", of_strengths("anneal", (0.03, 0.06, 0.12), noise_schedule="anneal"), plain),
        Extension(
            "schedule cosine, rising twofold",
            of_strengths("cosine", (0.015, 0.02, 0.03), noise_schedule="cosine", cosine_gain=1.0),
            plain,
        ),
        Extension("by filter, over plain", by_filter, plain),
        Extension(
            "one-dimensional weights left alone, by filter",
            of_strengths("skip", FILTER, scale="filter", one_dimensional="skip"),
            by_filter,
        ),
        Extension(
            "normal noise of equal variance",
            of_strengths("normal", tuple(round(a / 3**0.5, 4) for a in PLAIN), distribution="normal"),
            plain,
        ),
        Extension(
            "BatchNorm statistics of the clean ghost batch, over those of all",
            of_strengths("statistics of the first", PLAIN, statistics_of_the_first, clean_share=0.1),
            clean,
        ),
        Extension("BatchNorm statistics recomputed at the clean weights", plain, plain, accuracy="recomputed"),
    ]


def chosen(candidates: tuple[Variant, ...], found: dict[str, list[dict]], accuracy: str) -> Variant:
    """The candidate of the highest mean hold-out accuracy."""
    return max(candidates, key=lambda each: sum(run[f"holdout_accuracy_{accuracy}"] for run in found[each.name]))


def difference(one: list[dict], other: list[dict], accuracy: str = "last") -> Estimate:
    """In test accuracy, paired by seed."""
    mine = {run["seed"]: run[f"test_accuracy_{accuracy}"] for run in one}
    theirs = {run["seed"]: run["test_accuracy_last"] for run in other}
    return mean_interval([mine[seed] - theirs[seed] for seed in SEEDS])


def main() -> None:
    """Run everything and write the table."""
    jobs = command.parse(argparse.ArgumentParser()).jobs
    tried = [*extensions()]
    variants = {each.name: each for extension in tried for each in (*extension.candidates, *extension.base)}
    variants["no noise"] = Variant("no noise", {})
    found = run_variants(Path("runs/extensions"), list(variants.values()), COMMON, SEEDS, jobs)
    rows = []
    for extension in tried:
        mine = chosen(extension.candidates, found, extension.accuracy)
        base = chosen(extension.base, found, "last")
        gain = difference(found[mine.name], found[base.name], extension.accuracy)
        rows.append(
            {
                "extension": extension.name,
                "chosen": mine.name,
                "against": base.name,
                "passes": extension.passes,
                "test accuracy": vars(
                    mean_interval([run[f"test_accuracy_{extension.accuracy}"] for run in found[mine.name]])
                ),
                "difference": vars(gain),
            }
        )
        print(f"{extension.name:60} {mine.name:32} {gain}")
    runs = {name: {key: [run[key] for run in each] for key in KEPT} for name, each in found.items()}
    record = {"common": COMMON, "seeds": SEEDS, "rows": rows, "runs": runs}
    print(write("extensions", "python experiments/extensions.py", record))


KEPT = (
    "holdout_accuracy_last",
    "test_accuracy_last",
    "train_accuracy_last",
    "test_accuracy_recomputed",
    "holdout_accuracy_recomputed",
    "updates",
)

if __name__ == "__main__":
    main()
