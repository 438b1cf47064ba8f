"""The claims of the paper and of this project, one by one, each with its figures and a verdict either way.

    python experiments/claims.py [1 2 3 ...] [--jobs 2]

Claims 1 to 3 are about the mathematics and are computed here; 5 to 7 train the MLP on MNIST-1D, at settings that
nobody tuned, with seeds of their own; 4 and 8 read what `pairs.py` and `experiments/sharpness` have measured. Finished
runs are kept. Writes experiments/results/claim-N.json.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pairs import relative_noise
from provenance import RESULTS, write
from torch import nn

from smoothout import SmoothOut, sharpness
from smoothout.intervals import Estimate, mean_interval
from smoothout.results.runs import read_metrics
from smoothout.train.comparison import Arm, run_all, slug, start
from smoothout.train.config import Settings

SEEDS = (400, 401, 402, 403, 404)
MLP = {
    "dataset": "mnist1d",
    "batch_size": 1000,
    "ghost_batch_size": 100,
    "epochs": 60,
    "evaluate_every": 60,
    "checkpoint_every": 60,
}
Record = dict[str, Any]


def double_well(jobs: int) -> Record:
    """1. A 1-D double well: the narrow minimum vanishes once a exceeds its half-width; the wide one hardly moves."""
    del jobs
    narrow, wide = 0.2, 1.5  # half-widths of wells of equal depth, at -2 and 2
    rows = []
    grid = torch.linspace(-4, 5, 4501, dtype=torch.float64)
    offsets = (torch.arange(500, dtype=torch.float64) + 0.5) / 250 - 1  # midpoints

    def loss(x: torch.Tensor) -> torch.Tensor:
        wells = [(1 - ((x - at) / half) ** 2).clamp(min=0) for at, half in ((-2.0, narrow), (2.0, wide))]
        return -(wells[0] + wells[1])

    for a in (0.0, 0.5 * narrow, narrow, 2 * narrow, 4 * narrow):
        smoothed = loss(grid[:, None] + a * offsets[None, :]).mean(1)
        depth = {
            name: -smoothed[(grid - at).abs() < half + a].min().item()
            for name, at, half in (("narrow", -2, narrow), ("wide", 2, wide))
        }
        lowest = grid[(grid > 0) & (smoothed == smoothed[grid > 0].min())].mean().item()
        rows.append({"a": a, "a / half-width": a / narrow, "depth": depth, "wide minimum at": lowest})
    narrows, wides = ([row["depth"][name] for row in rows] for name in ("narrow", "wide"))
    moved = abs(rows[-1]["wide minimum at"] - rows[0]["wide minimum at"])
    verdict = (
        f"the narrow well {'vanishes' if narrows[2] < 0.05 else 'does not vanish'} at a = its half-width: its depth is "
        f"{narrows[2]:.2f} of {narrows[0]:.2f} there and {narrows[-1]:.2f} at four times that; the wide one keeps "
        f"{wides[-1]:.2f} of {wides[0]:.2f} and moves by {moved:.3f}"
    )
    return {"rows": rows, "verdict": verdict}


def unbiased(jobs: int) -> Record:
    """2. The estimator is unbiased, and restoring is bit-exact."""
    del jobs
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3))
    inputs, targets = torch.randn(50, 6), torch.randint(0, 3, (50,))
    before = [p.detach().clone() for p in model.parameters()]
    gradients: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for antithetic, draws in ((False, 4000), (True, 4000)):
        smoother = SmoothOut(model, 0.3, seed=int(antithetic))
        for draw in range(draws):
            parts = []
            for sign in (False, True) if antithetic else (False,):
                with smoother.perturbed(stream=0, draw=draw, antithetic=sign):
                    loss = nn.functional.cross_entropy(model(inputs), targets)
                    parts.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
            gradients[antithetic].append(sum(parts) / len(parts))  # type: ignore[arg-type]
    means, errors = {}, {}
    for name, found in gradients.items():
        stacked = torch.stack(found).double()
        means[name], errors[name] = stacked.mean(0), stacked.std(0) / math.sqrt(len(found))
    # Two estimates with independent draws, one of them from pairs: of the same gradient, if both are unbiased.
    z = (means[False] - means[True]) / (errors[False].square() + errors[True].square()).sqrt()
    exact = all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    share = float((z.abs() > 1.96).double().mean())
    holds = exact and share < 0.12 and float(z.abs().max()) < 4.5
    return {
        "coordinates": len(z),
        "share beyond 1.96": share,
        "largest z": float(z.abs().max()),
        "restored bit for bit": exact,
        "verdict": "holds" if holds else "does not hold",
    }


def trace(jobs: int) -> Record:
    """3. For small a, Cbar - C tends to (a^2/6) tr H; uniform and variance-matched Gaussian noise agree."""
    del jobs
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3)).double()
    data = [(torch.randn(80, 6).double(), torch.randint(0, 3, (80,)))]
    parameters = list(model.parameters())
    loss = nn.functional.cross_entropy(model(data[0][0]), data[0][1])
    first = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    exact = sum(
        float(torch.cat([g.flatten() for g in torch.autograd.grad(each, parameters, retain_graph=True)])[index])
        for index, each in enumerate(first)
    )
    rows = []
    for a in (0.003, 0.01, 0.03, 0.1, 0.3):
        uniform = sharpness.noise(model, data, strength=a, pairs=400, max_pairs=400)
        normal = sharpness.noise(
            model, data, strength=a / math.sqrt(3), distribution="normal", pairs=400, max_pairs=400
        )
        unit = a**2 / 6 * exact
        rows.append(
            {
                "a": a,
                "uniform / prediction": [uniform.value / unit, uniform.standard_error / unit],
                "normal / prediction": [normal.value / unit, normal.standard_error / unit],
            }
        )
    near = [abs(row[name][0] - 1) < 3 * row[name][1] + 0.01 for row in rows[:3] for name in row if name != "a"]
    return {"trace of the Hessian": exact, "rows": rows, "verdict": "holds" if all(near) else "does not hold"}


def large_batches(jobs: int) -> Record:
    """4. Large batches lose accuracy and are sharper; the gap closes with smoothing at equal epochs."""
    del jobs
    rows = []
    for path in sorted(RESULTS.glob("pairs-*.json")):
        arms = {arm["arm"]: arm["runs"] for arm in json.loads(path.read_text())["arms"]}
        differences = {
            f"{one} - {other}": show(paired(arms[one], arms[other]))
            for one, other in (
                ("small batch", "large batch"),
                ("SmoothOut", "large batch"),
                ("AdaSmoothOut", "large batch"),
            )
        }
        rows.append({"pair": path.stem, "tuned, test accuracy": differences})
    loses = [row["tuned, test accuracy"]["small batch - large batch"]["low"] > 0 for row in rows]
    closes = [
        max(row["tuned, test accuracy"][f"{name} - large batch"]["low"] for name in ("SmoothOut", "AdaSmoothOut")) > 0
        for row in rows
    ]
    verdict = (
        f"large batches certainly lose on {sum(loses)} of {len(rows)} pairs when every arm is tuned; noise certainly "
        f"brings something back on {sum(closes)}"
    )
    return {"rows": rows, "verdict": verdict if rows else "not measured: no pair has been run"}


def inverted_u(jobs: int) -> Record:
    """5. Accuracy against strength is an inverted U; training error rises first."""
    strengths = (0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08)
    found = trained("strengths", {f"a = {a:g}": {"strength": a} for a in strengths}, jobs)
    test = [show(mean_interval([run["test_accuracy_last"] for run in found[f"a = {a:g}"]])) for a in strengths]
    train = [show(mean_interval([run["train_accuracy_last"] for run in found[f"a = {a:g}"]])) for a in strengths]
    top = max(range(len(strengths)), key=lambda k: test[k]["mean"])
    rises, falls = (
        paired(found[f"a = {strengths[top]:g}"], found[f"a = {a:g}"]) for a in (strengths[0], strengths[-1])
    )
    before = train[top]["mean"] < train[0]["mean"] - 0.5
    verdict = (
        f"{'an' if rises.low > 0 and falls.low > 0 else 'no certain'} inverted U: best at a = {strengths[top]:g}, "
        f"{rises} points over none, {falls} over a = {strengths[-1]:g}; at the best strength training accuracy "
        f"{'has fallen' if before else 'has not fallen'} ({train[0]['mean']:.2f} to {train[top]['mean']:.2f} %)"
    )
    return {"strengths": strengths, "test": test, "train": train, "verdict": verdict}


def by_filter(jobs: int) -> Record:
    """6. Filter-wise noise beats plain noise at matched mean r."""
    rows = []
    for a in (0.01, 0.02, 0.03):
        plain = trained(f"plain-{a:g}", {"plain": {"strength": a}}, jobs, keep=True)["plain"]
        r = sum(run["r"] for run in plain) / len(plain)
        matched = float(f"{r:.3g}")
        filtered = trained(f"filter-{a:g}", {"filter": {"strength": matched, "scale": "filter"}}, jobs)["filter"]
        rows.append({"a": a, "mean r": r, "filter - plain": show(paired(filtered, plain))})
    certain = [row for row in rows if row["filter - plain"]["low"] > 0]
    worse = [row for row in rows if row["filter - plain"]["high"] < 0]
    verdict = f"certainly better at {len(certain)} of {len(rows)} strengths, certainly worse at {len(worse)}"
    return {"rows": rows, "verdict": verdict}


def without_denoising(jobs: int) -> Record:
    """7. Without de-noising the weights drift and accuracy suffers at equal a."""
    rows = []
    for a in (0.002, 0.01, 0.03):
        arms = {"restored": {"strength": a}, "not restored": {"strength": a, "denoise": False}}
        found = trained(f"denoise-{a:g}", arms, jobs, keep=True)
        distance = {arm: sum(run["distance"] for run in runs) / len(runs) for arm, runs in found.items()}
        difference = paired(found["not restored"], found["restored"])
        rows.append({"a": a, "distance from the start": distance, "not restored - restored": show(difference)})
    worse = [row["a"] for row in rows if row["not restored - restored"]["high"] < 0]
    distances = [row["distance from the start"] for row in rows]
    drifts = all(each["not restored"] > each["restored"] for each in distances)
    verdict = (
        f"the weights {'drift' if drifts else 'do not always drift'}; accuracy certainly suffers at a = "
        f"{', '.join(map(str, worse)) or 'none'}"
    )
    return {"rows": rows, "verdict": verdict}


def average_first(jobs: int) -> Record:
    """8. SmoothOut's minima are flatter by average measures first; Keskar's worst case moves less."""
    del jobs
    path = Path(__file__).parent / "sharpness" / "results.json"
    found: dict[str, dict[str, list[float]]] = {}
    for row in json.loads(path.read_text())["rows"]:
        name = row["measure"] + json.dumps(row["options"], sort_keys=True)
        found.setdefault(name, {}).setdefault(row["arm"], []).append(row["value"])
    ratios = {
        name: {
            arm: sum(values) / sum(arms["large-batch"])
            for arm, values in arms.items()
            if arm in ("large-batch-smoothout", "large-batch-adasmoothout")
        }
        for name, arms in found.items()
        if "large-batch" in arms
    }
    flatter = [name.replace('"', "") for name, arms in ratios.items() if arms.get("large-batch-smoothout", 1) < 1]
    return {
        "over the large batch's": ratios,
        "flatter": flatter,
        "verdict": f"on the demo's minima SmoothOut is flatter than the large batch by {len(flatter)} of {len(ratios)} "
        f"measures, and by {'' if any('box' in name for name in flatter) else 'not '}Keskar's box",
    }


def trained(name: str, options: dict[str, dict], jobs: int, keep: bool = False) -> dict[str, list[dict]]:
    """Runs of the MLP by arm; with ``keep`` also the last epoch's distance and the mean r over epochs."""
    arms = [Arm(arm, Settings().replace(**(MLP | more)), None) for arm, more in options.items()]
    folder = Path("runs/claims") / name
    start(folder, arms, SEEDS, overwrite=False, resume=folder.exists())
    outcomes = run_all(folder, arms, SEEDS, jobs, lambda each: print(name, each.arm, each.seed, flush=True))
    failed = [f"{each.arm}, seed {each.seed}: {each.error}" for each in outcomes if each.result is None]
    if failed:
        raise SystemExit("\n".join(failed))
    found: dict[str, list[dict]] = {arm: [] for arm in options}
    for each in outcomes:
        row = dict(vars(each.result)) if each.result else {}
        if keep:
            metrics = read_metrics(folder / slug(each.arm) / str(each.seed) / "metrics.csv")
            row |= {"distance": metrics[-1].distance, "r": relative_noise(folder, each)}
        found[each.arm].append(row)
    return found


def paired(one: list[dict], other: list[dict]) -> Estimate:
    """Differences in test accuracy after the last epoch, by seed."""
    mine, theirs = ({run["seed"]: run["test_accuracy_last"] for run in runs} for runs in (one, other))
    return mean_interval([mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())])


def show(estimate: Estimate) -> dict[str, float]:
    """As plain numbers."""
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high, "count": estimate.count}


CLAIMS: dict[int, Callable[[int], Record]] = dict(
    enumerate(
        (double_well, unbiased, trace, large_batches, inverted_u, by_filter, without_denoising, average_first), start=1
    )
)


def main() -> None:
    """Test the claims that are asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("claims", nargs="*", type=int, default=list(CLAIMS))
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    for number in given.claims or CLAIMS:
        claim = CLAIMS[number]
        record = claim(given.jobs)
        text = (claim.__doc__ or "").split(". ", 1)[1]
        path = write(f"claim-{number}", f"python experiments/claims.py {number}", {"claim": text, **record})
        print(f"{number}. {text}\n   {record['verdict']}\n   {path}", flush=True)


if __name__ == "__main__":
    main()
