"""A pair that the tools were not built on: where diagnose and tune lead, against tuning by hand at the same budget.

    python experiments/fresh.py [--jobs 2] [--minutes 120]

An MLP on 2000 Fashion-MNIST images of 14x14 pixels, batch 500. The tools' way: train once as it is, `smoothout
diagnose`, its best step as the start of `smoothout tune`, with the strengths that it names. By hand: one setting after
another, each value tried once, the best kept, until as many epochs have been trained. Both look at held-out samples
alone. Then both choices, and the settings that nobody tuned, are trained with other seeds and meet the test samples.
Finished runs are kept. Writes experiments/results/fresh.json.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import command
from pairs import TUNING_SEED, compare
from provenance import write

from smoothout.cli.main import main as smoothout
from smoothout.cli.tune import Search, arms_of
from smoothout.train import comparison
from smoothout.train.config import Settings
from smoothout.train.provenance import words_of
from smoothout.train.regime import DEFAULTS
from smoothout.tuning import search
from smoothout.tuning.search import Budget, Tried

FOLDER = Path("runs/fresh")
SEEDS = (0, 1, 2, 3, 4)
TRIALS, DIAGNOSIS_SEEDS = 8, (300, 301, 302)
OVER = ("lr", "weight_decay", "warmup_steps", "strength")
COMMON = {
    "dataset": "fashion_mnist",
    "model": "mlp",
    "input_size": 14,
    "augment": False,
    "holdout": 29 / 30,
    "batch_size": 500,
    "ghost_batch_size": 100,
    "base_batch": 100,
    "epochs": 40,
    "evaluate_every": 40,
}


def by_tools(jobs: int) -> tuple[Settings, dict[str, Any]]:
    """Settings, and how they were found: what a user does with the commands."""
    place = ["--results-dir", str(FOLDER)]
    run = FOLDER / "as-it-is"
    if not (run / "result.json").is_file():
        done(smoothout(["train", *words_of(COMMON), "--seed", str(TUNING_SEED), "--name", run.name, *place]))
    seeds = [str(seed) for seed in DIAGNOSIS_SEEDS]
    done(smoothout(["diagnose", str(run), "--seeds", *seeds, "--jobs", str(jobs)]))
    diagnosis = json.loads((run / "diagnosis.json").read_text())
    found = tune(start_of(diagnosis), ranges_of(diagnosis), jobs)
    chosen = max(found, key=lambda each: found[each].score)
    trained = 1 + len(seeds) * (1 + sum(2 if each["kind"] == "updates" else 1 for each in diagnosis["effects"]))
    how = {
        "verdicts": diagnosis["verdicts"],
        "start": start_of(diagnosis),
        "ranges": ranges_of(diagnosis),
        "holdout": {name: trial.score for name, trial in found.items()},
        "chosen": chosen,
        "runs": trained + TRIALS * len(found),
    }
    return Settings.from_json(found[chosen].settings), how


def done(status: int) -> None:
    """End here if a command failed."""
    if status:
        raise SystemExit(status)


def start_of(diagnosis: dict[str, Any]) -> dict[str, Any]:
    """The settings with the step that brought most, if one brought anything."""
    steps = [effect for effect in diagnosis["effects"] if effect["kind"] == "tuning"]
    best = max(steps, key=lambda effect: effect["difference"]["mean"])
    return COMMON | (best["changes"] if best["difference"]["mean"] > 0 else {})


def ranges_of(diagnosis: dict[str, Any]) -> tuple[str, ...]:
    """The strengths worth trying."""
    plain = next(scan for scan in diagnosis["scans"] if scan["scale"] == "none")
    return () if math.isnan(plain["low"]) else (f"strength={plain['low']:.3g}:{plain['high']:.3g}",)


def tune(start: dict[str, Any], ranges: tuple[str, ...], jobs: int) -> dict[str, Tried]:
    """The best trial with noise and without: what `smoothout tune` does."""
    arms = arms_of(Settings().replace(**start), Search(over=OVER, range=ranges))
    budget = Budget(TRIALS, (TUNING_SEED,), prune=False)
    search.start(FOLDER / "tune", arms, budget)
    for number, total in search.search(FOLDER / "tune", arms, budget, jobs):
        print(f"tune: {number} of {total}", flush=True)
    return {arm.name: search.best(search.tried(FOLDER / "tune", arm, budget)) for arm in arms}


def by_hand(runs: int) -> tuple[Settings, dict[str, Any]]:
    """One setting after another, the best value kept, for as many runs."""
    cache = FOLDER / "by-hand.json"
    known: dict[str, float] = json.loads(cache.read_text()) if cache.is_file() else {}
    best: dict[str, Any] = {}
    steps, made = [], 0

    def tried(options: dict[str, Any]) -> float:
        key = json.dumps(options, sort_keys=True)
        if key not in known:
            known[key] = search.score(
                FOLDER / "by-hand", Settings().replace(**COMMON, **options), (TUNING_SEED,), ignore
            )
            cache.write_text(json.dumps(known, indent=1))
            print(f"by hand: {key} {known[key]:.2f}", flush=True)
        return known[key]

    top = tried(best)
    for options in sweeps(best):
        if made == runs - 1:
            break
        made += 1
        if tried(options) > top:
            top = tried(options)
            best.update(options)
            steps.append(options | {"holdout": top})
    return Settings().replace(**COMMON, **best), {"steps": steps, "runs": made + 1, "holdout": top}


def ignore(epoch: int, accuracy: float) -> None:
    """Nothing."""


def sweeps(best: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What an engineer tries, from the best so far, which changes meanwhile: wide steps of each setting, then finer."""
    rate, decay = DEFAULTS["lr"], DEFAULTS["weight_decay"]
    yield from ({**best, "lr": rate * factor} for factor in (0.25, 0.5, 2, 4, 8))
    yield from ({**best, "weight_decay": decay * factor} for factor in (0, 10, 30, 100, 300))
    yield from ({**best, "warmup_steps": updates} for updates in (10, 40))
    yield from ({**best, "strength": a, "scale": "none"} for a in (0.003, 0.01, 0.02, 0.04))
    yield from ({**best, "strength": a, "scale": "filter"} for a in (0.05, 0.1, 0.2, 0.4))
    for finer in (2**0.5, 2**0.25, 2**0.125, 2**0.0625):
        for name, value in (("lr", rate), ("weight_decay", decay), ("strength", 0.0)):
            for factor in (finer, 1 / finer):
                now = best.get(name, value)
                if now > 0:
                    yield {**best, name: now * factor}


def main() -> None:
    """Search in both ways, compare, and write the result."""
    jobs = command.parse(argparse.ArgumentParser()).jobs
    FOLDER.mkdir(parents=True, exist_ok=True)
    tools, how = by_tools(jobs)
    hand, steps = by_hand(how["runs"])
    chosen = {"as it is": Settings().replace(**COMMON), "by hand": hand, "diagnose and tune": tools}
    arms = [comparison.Arm(name, settings, None) for name, settings in chosen.items()]
    outcomes = compare(FOLDER / "comparison", arms, SEEDS, jobs)
    runs = {
        arm.name: [asdict(each.result) for each in outcomes if each.arm == arm.name and each.result] for arm in arms
    }
    record = {
        "common": COMMON,
        "tools": how,
        "hand": steps,
        "chosen": {name: settings.given() for name, settings in chosen.items()},
        "runs": runs,
    }
    print(write("fresh", "python experiments/fresh.py", record))


if __name__ == "__main__":
    main()
