"""Keskar's table, and which measures of sharpness agree with accuracy.

    python experiments/keskar.py fashion-f1 [--jobs 2] [--minutes 120] [--data-dir data]
    python experiments/keskar.py cifar10-shallow --data-dir FOLDER

The networks F1 and C1 of Keskar et al. 2016 (arXiv 1609.04836) on 10 000 training images, trained by Adam with batches
of 256 and of 10 % of the samples, at equal epochs; and the arms of `pairs.py` on the same data and network, at the
settings that its committed result chose. Every measure is taken of all of these checkpoints, on training samples; then
its rank correlation with test accuracy, with an interval by resampling arms, not runs: runs of an arm are alike.
What is finished is kept. Writes experiments/results/keskar-NAME.json.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import command
import numpy as np
from claim.minima import label
from pairs import CIFAR, FASHION, PAIRS, compare
from provenance import RESULTS, write
from scipy.stats import spearmanr

from smoothout.cli.main import main as smoothout
from smoothout.results.comparisons import slug
from smoothout.train import comparison
from smoothout.train.config import Settings

ADAM = {"optimizer": "Adam", "lr": 1e-3, "lr_rule": "none", "weight_decay": 0.0, "warmup_steps": 0}
NETWORKS: dict[str, dict[str, Any]] = {
    "fashion-f1": {
        "common": FASHION | ADAM | {"epochs": 30},
        "seeds": (0, 1, 2, 3, 4),
        "pair_seeds": (0, 1),
        "samples": 1000,
    },
    "cifar10-shallow": {"common": CIFAR | ADAM, "seeds": (0, 1), "pair_seeds": (0,), "samples": 256},
}
ARMS = {"Adam, batch 256": 256, "Adam, batch 10 %": 1000}
MEASURES = ("--measures", "noise,box,ball,adaptive,hessian", "--strengths", "0.005", "0.02", "0.1")
RESAMPLES, RESAMPLING_SEED = 4000, 0


def arms_of(name: str) -> list[comparison.Arm]:
    """Keskar's two."""
    common = NETWORKS[name]["common"]
    return [
        comparison.Arm(arm, Settings().replace(**common | {"batch_size": n, "ghost_batch_size": n}), None)
        for arm, n in ARMS.items()
    ]


def arms_of_pair(name: str) -> list[comparison.Arm]:
    """Those of the pair, as its result chose them."""
    record = json.loads((RESULTS / f"pairs-{name}.json").read_text())
    return [comparison.Arm(arm["arm"], Settings().replace(**arm["chosen"]), None) for arm in record["arms"]]


def train(folder: Path, arms: list[comparison.Arm], seeds: tuple[int, ...], jobs: int) -> dict[Path, tuple[str, int]]:
    """Train every arm; returns arm and seed of each run's folder."""
    for outcome in compare(folder, arms, seeds, jobs):
        if outcome.error:
            raise SystemExit(f"{outcome.arm}, seed {outcome.seed}: {outcome.error}")
    return {folder / slug(arm.name) / str(seed): (arm.name, seed) for arm in arms for seed in seeds}


def measure(name: str, paths: list[Path], jobs: int) -> list[dict[str, Any]]:
    """All measures of all runs."""
    folder = Path("runs/keskar") / f"{name}-sharpness"
    words = [*map(str, paths), *MEASURES, "--samples", str(NETWORKS[name]["samples"]), "--jobs", str(jobs)]
    model = PAIRS[name].common["model"]
    words += ["--model", model] if ":" in model else []
    if smoothout(["sharpness", *words, "--name", folder.name, "--results-dir", str(folder.parent)]):
        raise SystemExit("the measures could not be taken.")
    rows: list[dict[str, Any]] = json.loads((folder / "sharpness.json").read_text())["measures"]
    return rows


def agreement(values: dict[tuple[str, int], float], accuracy: dict[tuple[str, int], float]) -> dict[str, float]:
    """Spearman's rank correlation with test accuracy, and its interval over arms drawn with replacement."""
    arms = sorted({arm for arm, _ in values})
    rows = {arm: [(values[key], accuracy[key]) for key in values if key[0] == arm] for arm in arms}
    generator = np.random.default_rng(RESAMPLING_SEED)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = generator.choice(len(arms), len(arms))
        if len(set(chosen)) > 2:
            drawn.append(rank([row for each in chosen for row in rows[arms[each]]]))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return {"rho": rank([row for each in rows.values() for row in each]), "low": float(low), "high": float(high)}


def rank(rows: list[tuple[float, float]]) -> float:
    """Spearman's rho of pairs."""
    return float(spearmanr(*zip(*rows, strict=True)).statistic)


def main() -> None:
    """Train, measure, correlate, and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--data-dir", type=Path)
    given = command.parse(parser)
    if given.data_dir is not None:
        os.environ["SMOOTHOUT_DATA"] = str(given.data_dir)
    network, folder = NETWORKS[given.network], Path("runs/keskar") / given.network
    runs = train(folder, arms_of(given.network), network["seeds"], given.jobs)
    pair_folder = folder.with_name(f"{folder.name}-pair")
    runs |= train(pair_folder, arms_of_pair(given.network), network["pair_seeds"], given.jobs)
    results = {key: json.loads((path / "result.json").read_text()) for path, key in runs.items()}
    accuracy = {key: result["test_accuracy_last"] for key, result in results.items()}
    values: dict[str, dict[tuple[str, int], float]] = {}
    for row in measure(given.network, list(runs), given.jobs):
        of_measure = values.setdefault(label(row["measure"], row["options"]), {})
        of_measure[runs[Path(row["checkpoint"])]] = row["record"]["value"]
    record = {
        "network": network,
        "runs": [
            {"arm": arm, "seed": seed}
            | {
                name: results[arm, seed][name]
                for name in ("test_accuracy_last", "train_accuracy_last", "train_loss_last")
            }
            | {"measures": {label: found.get((arm, seed)) for label, found in values.items()}}
            for arm, seed in runs.values()
        ],
        "agreement": {label: agreement(found, accuracy) for label, found in values.items()},
    }
    print(write(f"keskar-{given.network}", f"python experiments/keskar.py {given.network}", record))


if __name__ == "__main__":
    main()
