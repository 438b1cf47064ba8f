"""What the record of a pair says: differences by seed, and arms that were chosen on the hold-out."""

from typing import Any

from smoothout.intervals import Estimate, mean_interval

FIXED = ("SmoothOut", "AdaSmoothOut")
ONE_PASS = ("momentum-SAM", "LPF", "m-RWP", "EMA")
TWO_PASSES = ("SAM, equal passes", "ASAM, equal passes")


def by_seed(record: Any, arm: str, name: str) -> dict[int, float]:
    """A number of every run of an arm."""
    runs = next((each["runs"] for each in record["arms"] if each["arm"] == arm), [])
    return {run["seed"]: run[name] for run in runs}


def difference(record: Any, one: str, other: str) -> Estimate:
    """Of test accuracy, paired."""
    mine, theirs = (by_seed(record, arm, "test_accuracy_last") for arm in (one, other))
    return mean_interval([mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())])


def holdout(record: Any, arm: str) -> float:
    """Of the chosen trial."""
    trials = next(each["trials"] for each in record["arms"] if each["arm"] == arm)
    return max(trial["score"] for trial in trials if not trial["pruned"])


def at_equal_rates(record: Any, arm: str, other: str, names: tuple[str, ...]) -> Estimate | None:
    """Of hold-out accuracy, paired by trials of the same rates; None where fewer than three of them ended.

    Args:
        record, arm, other: What is compared.
        names: Of the settings that must be equal.
    """

    def scores(arm: str) -> dict[tuple[float, ...], float]:
        trials = next((each["trials"] for each in record["arms"] if each["arm"] == arm), [])
        ended = [trial for trial in trials if not trial["pruned"]]
        return {tuple(trial["values"][name] for name in names): trial["score"] for trial in ended}

    mine, theirs = scores(arm), scores(other)
    shared = [rates for rates in mine if rates in theirs]
    return mean_interval([mine[rates] - theirs[rates] for rates in shared]) if len(shared) > 2 else None


def tuned_fixed(record: Any) -> str:
    """The better of the two fixed strengths, by the hold-out."""
    return max(FIXED, key=lambda arm: holdout(record, arm))


def compared(record: Any) -> tuple[str, str | None, str | None]:
    """Arms chosen by hold-out: the fixed noise, the one-pass rival and the two-pass one, as far as they were run."""
    there = {arm["arm"] for arm in record["arms"]}
    rival, sam = (
        max((arm for arm in arms if arm in there), key=lambda arm: holdout(record, arm), default=None)
        for arms in (ONE_PASS, TWO_PASSES)
    )
    return tuned_fixed(record), rival, sam
