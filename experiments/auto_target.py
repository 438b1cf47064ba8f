"""Which target `strength="auto"` should follow: a gap or a ratio, how large, plain or by filter.

    python experiments/auto_target.py [--jobs 2] [--minutes 120]

The MLP and the small convolutional network on MNIST-1D, batch 1000, at settings that nobody tuned. Hold-out accuracy
after the last epoch, with seeds that no other experiment uses. What is finished is kept: the same command goes on.
Writes experiments/results/auto_target.json.
"""

import argparse
from pathlib import Path

import command
from provenance import write

from smoothout.train.comparison import Arm, run_all, start
from smoothout.train.config import Settings

SEEDS = (200, 201, 202)
MNIST1D = {"dataset": "mnist1d", "batch_size": 1000, "ghost_batch_size": 100, "epochs": 60, "evaluate_every": 60}
NETWORKS = {"mlp": MNIST1D, "conv1d": MNIST1D | {"model": "conv1d"}}
FIXED = {"none": (0.01, 0.02, 0.03, 0.05, 0.08), "filter": (0.05, 0.1, 0.2, 0.3, 0.5)}
GAPS, RATIOS, SPEEDS = (0.03, 0.1, 0.2, 0.4), (0.05, 0.15, 0.5, 1.5), (0.003, 0.03)
FINER = (0.25,)  # ratios looked at after those


def trials() -> dict[str, dict]:
    """Options of the noise, by name."""
    found: dict[str, dict] = {"no noise": {}}
    for scale, strengths in FIXED.items():
        found |= {f"fixed {a:g}, {scale}": {"strength": a, "scale": scale} for a in strengths}
        for measure, targets in (("gap", GAPS), ("ratio", RATIOS)):
            found |= {f"{measure} {t:g}, {scale}": auto(scale, measure, t) for t in targets}
        found |= {f"gap 0.2, {scale}, speed {s:g}": auto(scale, "gap", 0.2) | {"auto_speed": s} for s in SPEEDS}
    return found


def finer() -> dict[str, dict]:
    """The same, looked at afterwards."""
    return {f"ratio {t:g}, {scale}": auto(scale, "ratio", t) for scale in FIXED for t in FINER}


def auto(scale: str, measure: str, target: float) -> dict:
    """Options of a strength that training finds."""
    return {"strength": "auto", "scale": scale, "auto_measure": measure, "auto_target": target}


def table(network: str, folder: Path, noises: dict[str, dict], jobs: int) -> list[dict]:
    """Hold-out accuracies of every noise and seed."""
    base = Settings().replace(**NETWORKS[network], checkpoint_every=NETWORKS[network]["epochs"])
    arms = [Arm(name, base.replace(**options), None) for name, options in noises.items()]
    start(folder, arms, SEEDS, overwrite=False, resume=folder.exists())
    outcomes = run_all(folder, arms, SEEDS, jobs, lambda each: print(each.arm, each.seed, each.error or "", flush=True))
    rows = []
    for arm in arms:
        runs = [outcome for outcome in outcomes if outcome.arm == arm.name]
        rows.append(
            {
                "network": network,
                "noise": arm.name,
                "options": noises[arm.name],
                "holdout_accuracy": [run.result.holdout_accuracy_last for run in runs if run.result],
                "errors": [run.error for run in runs if run.error],
            }
        )
        print(f"{network:8} {arm.name:30} {rows[-1]['holdout_accuracy']} {rows[-1]['errors']}", flush=True)
    return rows


def main() -> None:
    """Run everything and write the table."""
    jobs = command.parse(argparse.ArgumentParser()).jobs
    rows = []
    for network in NETWORKS:
        rows += table(network, Path("runs/auto-target") / network, trials(), jobs)
        rows += table(network, Path("runs/auto-target") / f"{network}-finer", finer(), jobs)
    print(write("auto_target", "python experiments/auto_target.py", {"seeds": SEEDS, "common": NETWORKS, "rows": rows}))


if __name__ == "__main__":
    main()
