"""Choose the demo's strengths and weight decays on the hold-out, and write arms.toml.

    python experiments/demo/choose.py

Every trial is run with seeds that the demo does not use, and scored by its mean hold-out accuracy after the
last epoch; test samples play no part. Both tuned arms get the same number of trials. All trials are kept in
choice.json, from which arms.toml is written.
"""

import json
from pathlib import Path

from smoothout.train.comparison import Arm, run_all, start
from smoothout.train.config import Settings

HERE = Path(__file__).parent
SEEDS = (100, 101, 102)
COMMON = {
    "batch_size": 1000,
    "ghost_batch_size": 200,
    "base_batch": 100,
    "epochs": 60,
    "evaluate_every": 5,
    "checkpoint_every": 20,
}
SMALL = {"batch_size": 200}
DECAYS = (1e-4, 1e-3, 2e-3, 5e-3, 7e-3, 1e-2, 1.4e-2, 2e-2, 2.5e-2, 3e-2, 4e-2, 5e-2)
TRIALS: dict[str, list[dict[str, object]]] = {
    "large batch + SmoothOut": [{"strength": a} for a in (0.01, 0.02, 0.03, 0.04, 0.05)],
    "large batch + AdaSmoothOut": [{"strength": a, "scale": "filter"} for a in (0.1, 0.2, 0.3, 0.4)],
    "tuned large batch": [{"weight_decay": decay} for decay in DECAYS],
    "tuned large batch + SmoothOut": [
        {"weight_decay": decay, "strength": a} for decay in (1.4e-2, 2e-2, 2.5e-2, 3e-2) for a in (0.002, 0.005, 0.01)
    ],
    "small batch + SmoothOut": [SMALL | {"strength": a} for a in (0.01, 0.02, 0.03, 0.05)],
}
#: In the order of the demo's table, with what each is compared with.
AGAINST = {
    "small batch": "large batch",
    "large batch": "large batch",
    "large batch + SmoothOut": "large batch",
    "large batch + AdaSmoothOut": "large batch",
    "tuned large batch": "large batch",
    "tuned large batch + SmoothOut": "tuned large batch",
    "small batch + SmoothOut": "small batch",
}


def main() -> None:
    """Run the trials and write both files."""
    arms = [
        Arm(f"{name} {json.dumps(options)}", Settings().replace(**(COMMON | options)), None)
        for name, trials in TRIALS.items()
        for options in trials
    ]
    folder = Path("runs/demo-choice")
    start(folder, arms, SEEDS, overwrite=True, resume=False)
    outcomes = run_all(folder, arms, SEEDS, 2, lambda o: print(o.arm, o.seed, o.error or "done", flush=True))
    failed = [f"{outcome.arm}, seed {outcome.seed}: {outcome.error}" for outcome in outcomes if outcome.result is None]
    if failed:
        raise SystemExit("nothing is chosen, since runs failed:\n" + "\n".join(failed))
    scores: dict[str, float] = {}
    for arm in arms:
        runs = [outcome.result.holdout_accuracy_last for outcome in outcomes if outcome.arm == arm.name]
        scores[arm.name] = sum(runs) / len(runs)
    trials = {
        name: [
            {"options": options, "holdout_accuracy": round(scores[f"{name} {json.dumps(options)}"], 3)}
            for options in options_list
        ]
        for name, options_list in TRIALS.items()
    }
    choice = {"command": "python experiments/demo/choose.py", "common": COMMON, "seeds": SEEDS, "trials": trials}
    (HERE / "choice.json").write_text(json.dumps(choice, indent=1) + "\n")
    (HERE / "arms.toml").write_text(arms_toml(choice))


def arms_toml(choice: dict) -> str:
    """The demo's arms: of each list of trials the one with the best hold-out accuracy, the first of equals."""
    chosen = {
        name: max(trials, key=lambda trial: trial["holdout_accuracy"])["options"]
        for name, trials in choice["trials"].items()
    }
    chosen |= {"small batch": SMALL, "large batch": {}}
    lines = [
        "# The demo's arms. Written by experiments/demo/choose.py from choice.json: strengths and weight decays",
        "# are those with the best accuracy on the hold-out, over seeds that are not used here.",
        "seeds = [0, 1, 2, 3, 4]",
        "",
        "[common]",
        *(f"{name} = {json.dumps(value)}" for name, value in choice["common"].items()),
    ]
    for name, against in AGAINST.items():
        lines += ["", f"[arms.{json.dumps(name)}]", f"against = {json.dumps(against)}"]
        lines += [f"{option} = {json.dumps(value)}" for option, value in chosen[name].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
