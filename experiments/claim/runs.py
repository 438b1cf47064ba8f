"""Runs of the MLP on MNIST-1D, at settings that nobody tuned, with seeds that no other experiment uses."""

from pathlib import Path
from typing import Any

from pairs import relative_noise

from smoothout.intervals import Estimate, mean_interval
from smoothout.results.comparisons import slug
from smoothout.results.runs import read_metrics
from smoothout.train.comparison import Arm, run_all, start
from smoothout.train.config import Settings

EXPERIMENTS = Path(__file__).parents[1]
SEEDS = (400, 401, 402, 403, 404)
MLP = {
    "dataset": "mnist1d",
    "batch_size": 1000,
    "ghost_batch_size": 100,
    "epochs": 60,
    "evaluate_every": 60,
    "checkpoint_every": 60,
}
SETTING = (
    "The MLP on MNIST-1D, batch 1000, ghost batch 100, 60 epochs, at settings that nobody tuned; five seeds, "
    "differences in test accuracy after the last epoch paired by seed, in points with 95 % intervals."
)
Record = dict[str, Any]


def trained(name: str, options: dict[str, dict], jobs: int) -> dict[str, list[dict]]:
    """Runs by arm, each with the last epoch's distance from the start and the mean r over epochs; kept."""
    arms = [Arm(arm, Settings().replace(**(MLP | more)), None) for arm, more in options.items()]
    folder = Path("runs/claims") / name
    start(folder, arms, SEEDS, overwrite=False, resume=folder.exists())
    outcomes = run_all(folder, arms, SEEDS, jobs, lambda each: print(name, each.arm, each.seed, flush=True))
    failed = [f"{each.arm}, seed {each.seed}: {each.error}" for each in outcomes if each.result is None]
    if failed:
        raise SystemExit("\n".join(failed))
    found: dict[str, list[dict]] = {arm: [] for arm in options}
    for each in outcomes:
        last = read_metrics(folder / slug(each.arm) / str(each.seed) / "metrics.csv")[-1]
        found[each.arm].append(vars(each.result) | {"distance": last.distance, "r": relative_noise(folder, each)})
    return found


def paired(one: list[dict], other: list[dict]) -> Estimate:
    """Differences in test accuracy after the last epoch, by seed."""
    mine, theirs = ({run["seed"]: run["test_accuracy_last"] for run in runs} for runs in (one, other))
    return mean_interval([mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())])


def show(estimate: Estimate) -> dict[str, float]:
    """As plain numbers."""
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high, "count": estimate.count}


def read(shown: dict[str, float]) -> Estimate:
    """What :func:`show` wrote."""
    return Estimate(shown["mean"], shown["high"] - shown["mean"], int(shown["count"]))
